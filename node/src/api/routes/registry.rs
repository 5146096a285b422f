//! `/api/v1/registry`.

use actix_web::HttpResponse;
use omnimesh_protocol::registry::{
    Action, Direction, EntryKey, FieldName, Filter, Link, ListQuery, OPERATION_BYTES_MAX, Operation,
    PAGE_MAX, Relation, SearchQuery, WALK_DEPTH_MAX, WALK_ENTRIES_MAX, WalkQuery,
};

use super::query::{Query, decoded, read};
use super::{Call, sse};
use crate::api::error::{ApiError, quoted};
use crate::api::types::{
    AsOfView, EntryView, ErrorCode, LinkRequest, LogAppended, RegistryEntry, RegistryFound, RegistryLinks,
    RegistryPage, RegistryWalk, RegistryWriteRequest, RegistryWritten, encode, read_value,
};

/// Entries of a page unless told otherwise.
const PAGE_DEFAULT: usize = 100;
/// Entries that a walk reaches unless told otherwise.
const WALK_DEFAULT: usize = 1000;
/// What a body with fields looks like.
const FIELDS: &str = "{\"fields\": {\"name\": value, …}}";

impl Call {
    fn key(&self) -> Result<EntryKey, ApiError> {
        let kind = read("kind", &decoded(self.part("kind"))?)?;
        Ok(EntryKey { kind, name: read("name", &decoded(self.part("name"))?)? })
    }

    async fn change(&self, action: Action, replicas: usize) -> Result<HttpResponse, ApiError> {
        let operation = Operation { action, after: None };
        check_size(&operation)?;
        let write = self.shared.backend.registry_write(operation.action, replicas);
        let (as_of, appended) = self.wait(write).await?;
        let appended = LogAppended::from(appended);
        Ok(HttpResponse::Ok().json(RegistryWritten { as_of: as_of.into(), appended }))
    }
}

/// The registry itself only says that it is too much. What comes before the operation adds some bytes to these.
fn check_size(operation: &Operation) -> Result<(), ApiError> {
    let bytes = operation.bytes()?;
    if bytes <= OPERATION_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the operation has {bytes} bytes; the limit is {OPERATION_BYTES_MAX}");
    Err(ApiError::new(ErrorCode::TooLarge, message, "put some of it into other entries, or into a blob"))
}

fn bad(message: impl Into<String>, hint: &str) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message, hint)
}

/// What is wrong whatever the entry is now.
fn check_time(request: &RegistryWriteRequest) -> Result<(), ApiError> {
    if request.ttl == Some(0) {
        return Err(bad("`ttl` is 0", "give at least 1 step, or leave it out"));
    }
    Ok(())
}

pub(super) async fn get(call: Call) -> Result<HttpResponse, ApiError> {
    let key = call.key()?;
    let answer = call.wait(call.shared.backend.registry_get(key.clone())).await?;
    let as_of = AsOfView::from(answer.as_of);
    match answer.value {
        Some(entry) => Ok(HttpResponse::Ok().json(RegistryEntry { as_of, entry: EntryView::from(&entry) })),
        None => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("there is no {key} as of step {} with the heads {}", as_of.step, as_of.heads),
            "it may not have come here yet, have expired or been deleted; `/api/v1/registry` lists the entries",
        )),
    }
}

pub(super) async fn list(call: Call) -> Result<HttpResponse, ApiError> {
    let query = &call.query;
    let list = ListQuery {
        kind: query.read("kind")?,
        prefix: query.text("prefix")?.unwrap_or_default().to_owned(),
        filters: query.all("where").map(filter).collect::<Result<_, _>>()?,
        after: query.read("after")?,
        limit: query.limit(PAGE_DEFAULT, PAGE_MAX)?,
    };
    let answer = call.wait(call.shared.backend.registry_list(list)).await?;
    Ok(HttpResponse::Ok().json(RegistryPage::from(answer)))
}

pub(super) async fn search(call: Call) -> Result<HttpResponse, ApiError> {
    let query = &call.query;
    let search = SearchQuery {
        text: query.required("q")?,
        kind: query.read("kind")?,
        limit: query.limit(PAGE_DEFAULT, PAGE_MAX)?,
    };
    if search.words().is_empty() {
        let message = format!("`q` is {}, which has no word", quoted(&search.text));
        return Err(ApiError::new(ErrorCode::BadRequest, message, "words are made of letters and digits"));
    }
    let answer = call.wait(call.shared.backend.registry_search(search)).await?;
    Ok(HttpResponse::Ok().json(RegistryFound::from(answer)))
}

/// `field=value`, or `field` alone if only it must be there. The value is JSON; what is none is text.
fn filter(text: &str) -> Result<Filter, ApiError> {
    let Some((name, value)) = text.split_once('=') else {
        return Ok(Filter::Exists(read("where", text)?));
    };
    let name: FieldName = read("where", name)?;
    let value = read_value(value).and_then(|json| encode(&json));
    let value = value.map_err(|error| ApiError::from(error).at("where"))?;
    Ok(Filter::Equals(name, value))
}

pub(super) async fn put(mut call: Call) -> Result<HttpResponse, ApiError> {
    let key = call.key()?;
    let request: RegistryWriteRequest = call.document(FIELDS).await?;
    check_time(&request)?;
    let fields = request.to_fields()?;
    if let Some((name, _)) = fields.iter().find(|(_, value)| value.is_null()) {
        let hint = "leave it out: a PUT replaces all fields; it is in a PATCH that null removes one";
        return Err(bad(format!("the field {:?} is null", name.as_str()), hint));
    }
    call.change(Action::Put { key, ttl: request.ttl, fields }, request.replicas).await
}

pub(super) async fn update(mut call: Call) -> Result<HttpResponse, ApiError> {
    let key = call.key()?;
    let request: RegistryWriteRequest = call.document(FIELDS).await?;
    check_time(&request)?;
    if request.ttl.is_none() && request.fields.is_empty() {
        let hint = "give in `fields` what is to be set, or null for what is to be removed, or a new `ttl`";
        return Err(bad("neither a field nor `ttl` is given", hint));
    }
    let fields = request.to_fields()?;
    call.change(Action::Update { key, ttl: request.ttl, fields }, request.replicas).await
}

pub(super) async fn delete(call: Call) -> Result<HttpResponse, ApiError> {
    let replicas = call.query.read("replicas")?.unwrap_or(0);
    let key = call.key()?;
    call.change(Action::Delete { key }, replicas).await
}

pub(super) async fn link(mut call: Call) -> Result<HttpResponse, ApiError> {
    let like = "{\"from\": \"kind/name\", \"relation\": \"uses\", \"to\": \"kind/name\"}";
    let request: LinkRequest = call.document(like).await?;
    let link = Link {
        from: read("from", &request.from)?,
        relation: read("relation", &request.relation)?,
        to: read("to", &request.to)?,
    };
    call.change(Action::Link(link), request.replicas).await
}

pub(super) async fn unlink(call: Call) -> Result<HttpResponse, ApiError> {
    let query = &call.query;
    let link = Link {
        from: query.required("from")?,
        relation: query.required("relation")?,
        to: query.required("to")?,
    };
    call.change(Action::Unlink(link), query.read("replicas")?.unwrap_or(0)).await
}

pub(super) async fn links(call: Call) -> Result<HttpResponse, ApiError> {
    let query = &call.query;
    let (key, direction, relations) = (call.key()?, direction(query)?, relations(query)?);
    let answer = call.wait(call.shared.backend.registry_links(key, direction, relations)).await?;
    Ok(HttpResponse::Ok().json(RegistryLinks::from(answer)))
}

pub(super) async fn walk(call: Call) -> Result<HttpResponse, ApiError> {
    let query = &call.query;
    let walk = WalkQuery {
        from: call.key()?,
        relations: relations(query)?,
        direction: direction(query)?,
        depth_max: query.within("depth", &(0..=WALK_DEPTH_MAX))?.unwrap_or(WALK_DEPTH_MAX),
        limit: query.limit(WALK_DEFAULT, WALK_ENTRIES_MAX)?,
    };
    let answer = call.wait(call.shared.backend.registry_walk(walk)).await?;
    Ok(HttpResponse::Ok().json(RegistryWalk::from(answer)))
}

fn relations(query: &Query) -> Result<Vec<Relation>, ApiError> {
    query.all("relation").map(|name| read("relation", name)).collect()
}

fn direction(query: &Query) -> Result<Direction, ApiError> {
    match query.text("direction")? {
        None | Some("out") => Ok(Direction::Out),
        Some("in") => Ok(Direction::In),
        Some("both") => Ok(Direction::Both),
        Some(other) => {
            let message = format!("`direction` is {}", quoted(other));
            Err(ApiError::new(ErrorCode::BadRequest, message, "give out, in or both"))
        }
    }
}

pub(super) async fn events(call: Call) -> Result<HttpResponse, ApiError> {
    if call.is_head() {
        return Ok(sse::respond_head());
    }
    let slot = call.slot()?;
    let feed = call.wait(call.shared.backend.registry_events()).await?;
    Ok(sse::respond(&call.shared, slot, feed))
}
