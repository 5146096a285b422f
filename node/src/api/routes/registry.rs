//! `/api/v1/registry`.

use actix_web::HttpResponse;
use omnimesh_protocol::registry::{
    Action, Direction, EntryKey, FieldName, Filter, Link, ListQuery, PAGE_MAX, Relation, SearchQuery,
    WALK_DEPTH_MAX, WALK_ENTRIES_MAX, WalkQuery,
};

use super::query::Query;
use super::{Call, sse};
use crate::api::error::ApiError;
use crate::api::types::{
    AsOfView, EntryView, ErrorCode, LinkRequest, LogAppended, RegistryEntry, RegistryFound, RegistryLinks,
    RegistryPage, RegistryWalk, RegistryWriteRequest, RegistryWritten, from_json,
};

/// Entries of a page unless told otherwise.
const PAGE_DEFAULT: usize = 100;
/// Entries that a walk reaches unless told otherwise.
const WALK_DEFAULT: usize = 1000;
/// What a body with fields looks like.
const FIELDS: &str = "{\"fields\": {\"name\": value, …}}";

impl Call {
    fn key(&self) -> Result<EntryKey, ApiError> {
        Ok(EntryKey::new(&decoded(self.part("kind"))?, &decoded(self.part("name"))?)?)
    }

    async fn change(&self, action: Action, replicas: usize) -> Result<HttpResponse, ApiError> {
        let (as_of, appended) = self.wait(self.shared.backend.registry_write(action, replicas)).await?;
        let appended = LogAppended::from(appended);
        Ok(HttpResponse::Ok().json(RegistryWritten { as_of: as_of.into(), appended }))
    }
}

/// The router has decoded a part of the path, but for what would change its meaning there: `/`, `+` and `%`.
fn decoded(part: &str) -> Result<String, ApiError> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let code = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let Some(code) = code else {
            return Err(ApiError::new(ErrorCode::BadRequest, format!("{part:?} is not percent-encoded"), ""));
        };
        bytes.push(code);
        rest = after.get(2..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).map_err(|_| ApiError::new(ErrorCode::BadRequest, "the path is not UTF-8", ""))
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
    let query = Query::of(&call, &["kind", "prefix", "where", "after", "limit"])?;
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
    let query = Query::of(&call, &["q", "kind", "limit"])?;
    let search = SearchQuery {
        text: query.required("q")?,
        kind: query.read("kind")?,
        limit: query.limit(PAGE_DEFAULT, PAGE_MAX)?,
    };
    if search.words().is_empty() {
        let message = format!("`q` is {:?}, which has no word", search.text);
        return Err(ApiError::new(ErrorCode::BadRequest, message, "words are made of letters and digits"));
    }
    let answer = call.wait(call.shared.backend.registry_search(search)).await?;
    Ok(HttpResponse::Ok().json(RegistryFound::from(answer)))
}

/// `field=value`, or `field` alone if only it must be there. The value is JSON; what is none is text.
fn filter(text: &str) -> Result<Filter, ApiError> {
    let Some((name, value)) = text.split_once('=') else {
        return Ok(Filter::Exists(FieldName::new(text)?));
    };
    let json = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok(Filter::Equals(FieldName::new(name)?, from_json(&json)?.encode()?))
}

pub(super) async fn put(mut call: Call) -> Result<HttpResponse, ApiError> {
    let key = call.key()?;
    let request: RegistryWriteRequest = call.document(FIELDS).await?;
    let action = Action::Put { key, ttl: request.ttl, fields: request.to_fields()? };
    call.change(action, request.replicas).await
}

pub(super) async fn update(mut call: Call) -> Result<HttpResponse, ApiError> {
    let key = call.key()?;
    let request: RegistryWriteRequest = call.document(FIELDS).await?;
    let action = Action::Update { key, ttl: request.ttl, fields: request.to_fields()? };
    call.change(action, request.replicas).await
}

pub(super) async fn delete(call: Call) -> Result<HttpResponse, ApiError> {
    let replicas = Query::of(&call, &["replicas"])?.read("replicas")?.unwrap_or(0);
    let key = call.key()?;
    call.change(Action::Delete { key }, replicas).await
}

pub(super) async fn link(mut call: Call) -> Result<HttpResponse, ApiError> {
    let like = "{\"from\": \"kind/name\", \"relation\": \"uses\", \"to\": \"kind/name\"}";
    let request: LinkRequest = call.document(like).await?;
    call.change(Action::Link(request.to_link()?), request.replicas).await
}

pub(super) async fn unlink(call: Call) -> Result<HttpResponse, ApiError> {
    let query = Query::of(&call, &["from", "relation", "to", "replicas"])?;
    let relation = Relation::new(&query.required::<String>("relation")?)?;
    let link = Link { from: query.required("from")?, relation, to: query.required("to")? };
    call.change(Action::Unlink(link), query.read("replicas")?.unwrap_or(0)).await
}

pub(super) async fn links(call: Call) -> Result<HttpResponse, ApiError> {
    let query = Query::of(&call, &["relation", "direction"])?;
    let (key, direction, relations) = (call.key()?, direction(&query)?, relations(&query)?);
    let answer = call.wait(call.shared.backend.registry_links(key, direction, relations)).await?;
    Ok(HttpResponse::Ok().json(RegistryLinks::from(answer)))
}

pub(super) async fn walk(call: Call) -> Result<HttpResponse, ApiError> {
    let query = Query::of(&call, &["relation", "direction", "depth", "limit"])?;
    let walk = WalkQuery {
        from: call.key()?,
        relations: relations(&query)?,
        direction: direction(&query)?,
        depth_max: query.read("depth")?.unwrap_or(WALK_DEPTH_MAX),
        limit: query.limit(WALK_DEFAULT, WALK_ENTRIES_MAX)?,
    };
    let answer = call.wait(call.shared.backend.registry_walk(walk)).await?;
    Ok(HttpResponse::Ok().json(RegistryWalk::from(answer)))
}

fn relations(query: &Query) -> Result<Vec<Relation>, ApiError> {
    query.all("relation").map(|name| Ok(Relation::new(name)?)).collect()
}

fn direction(query: &Query) -> Result<Direction, ApiError> {
    match query.text("direction")? {
        None | Some("out") => Ok(Direction::Out),
        Some("in") => Ok(Direction::In),
        Some("both") => Ok(Direction::Both),
        Some(other) => {
            let message = format!("`direction` is {other:?}");
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
