//! `registry`: replicated entries and links between them.

use std::collections::BTreeMap;

use omnimesh_node::api::types::{
    AsOfView, EntryView, HitView, Lagged, LinkOfEntry, LinkRequest, ReachedView, RegistryEntry,
    RegistryEvent, RegistryFound, RegistryLinks, RegistryPage, RegistryWalk, RegistryWriteRequest,
    RegistryWritten, read_value,
};
use serde_json::Value;

use super::inspect::typed;
use super::log::{durable, short_of};
use crate::cli::{Globals, LinkArgs, ListArgs, PutArgs, RegistryCommand, SearchArgs, WalkArgs, WayArgs};
use crate::client::{Client, segment};
use crate::error::{CliError, Code};
use crate::output::{self, Format};

/// Entries of one request.
const PAGE: u64 = 1000;

pub(super) fn run(globals: &Globals, what: &RegistryCommand) -> Result<(), CliError> {
    let client = Client::new(globals)?;
    match what {
        RegistryCommand::Put(args) => {
            let answer = client.put(&path(&args.key)?, &request(args, Nulls::Refused)?)?;
            written(globals, &answer, args.replicas)
        }
        RegistryCommand::Update(args) => {
            let answer = client.patch(&path(&args.key)?, &request(args, Nulls::Remove)?)?;
            written(globals, &answer, args.replicas)
        }
        RegistryCommand::Delete { key, replicas } => {
            let answer = client.delete(&format!("{}?replicas={replicas}", path(key)?))?;
            written(globals, &answer, *replicas)
        }
        RegistryCommand::Link(args) => {
            let LinkArgs { from, relation, to, replicas } = args;
            let (from, relation, to) = (from.clone(), relation.clone(), to.clone());
            let request = LinkRequest { from, relation, to, replicas: *replicas };
            written(globals, &client.post("/api/v1/registry/links", &request)?, *replicas)
        }
        RegistryCommand::Unlink(LinkArgs { from, relation, to, replicas }) => {
            let query = query(&[
                ("from", from.clone()),
                ("relation", relation.clone()),
                ("to", to.clone()),
                ("replicas", replicas.to_string()),
            ]);
            written(globals, &client.delete(&format!("/api/v1/registry/links{query}"))?, *replicas)
        }
        RegistryCommand::Get { key } => get(globals, &client, key),
        RegistryCommand::List(args) => list(globals, &client, args),
        RegistryCommand::Search(args) => search(globals, &client, args),
        RegistryCommand::Links(args) => links(globals, &client, args),
        RegistryCommand::Walk(args) => walk(globals, &client, args),
        RegistryCommand::Watch => watch(globals, &client),
    }
}

fn path(key: &str) -> Result<String, CliError> {
    match key.split_once('/') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => {
            Ok(format!("/api/v1/registry/{}/{}", segment(kind), segment(name)))
        }
        _ => {
            let message = format!("{key:?} is not the key of an entry");
            Err(CliError::new(Code::Usage, message).hint("write KIND/NAME, for example model/llama"))
        }
    }
}

fn query(pairs: &[(&str, String)]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={}", segment(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// What a field is that is null.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nulls {
    /// Removed, in an update.
    Remove,
    /// Wrong, in a whole entry.
    Refused,
}

fn request(args: &PutArgs, nulls: Nulls) -> Result<RegistryWriteRequest, CliError> {
    let mut fields = BTreeMap::new();
    for text in &args.fields {
        let Some((name, value)) = text.split_once('=') else {
            let message = format!("{text:?} is not a field and its value");
            return Err(CliError::new(Code::Usage, message).hint("write FIELD=VALUE, for example size=7"));
        };
        let value = field(name, value)?;
        if value.is_null() && nulls == Nulls::Refused {
            let message = format!(
                "the field {name:?} is null, which only `registry update` takes: there it removes the field"
            );
            return Err(CliError::new(Code::Usage, message)
                .hint(format!("leave the field out, or write '{name}=\"null\"' if it is a text")));
        }
        if fields.insert(name.to_owned(), value).is_some() {
            return Err(CliError::new(Code::Usage, format!("the field {name:?} is given twice"))
                .hint("give each field once; a list is written as FIELD=[1,2]"));
        }
    }
    Ok(RegistryWriteRequest { fields, ttl: args.ttl, replicas: args.replicas })
}

/// A value as it was typed: JSON, or text.
fn field(name: &str, text: &str) -> Result<Value, CliError> {
    read_value(text).map_err(|error| {
        CliError::new(Code::Usage, format!("the field {name:?}: {error}"))
            .hint("write it as text, in quotes of its own, or with a point or an exponent as a float, which is less exact")
    })
}

fn tell_as_of(as_of: &AsOfView) {
    output::tell(&format!("as of step {}, {} authors, heads {}", as_of.step, as_of.authors, as_of.heads));
}

fn written(globals: &Globals, answer: &Value, replicas: usize) -> Result<(), CliError> {
    let RegistryWritten { as_of, appended } = typed(answer)?;
    let has = appended.replicas;
    output::record(globals.output, answer, || {
        vec![
            ("author", appended.author.to_string()),
            ("seq", appended.seq.to_string()),
            ("step", appended.step.to_string()),
            ("hash", appended.hash.to_string()),
            ("durable", durable(has)),
            ("as of", format!("step {}, heads {}", as_of.step, as_of.heads)),
        ]
    })?;
    short_of(has, replicas)
}

fn get(globals: &Globals, client: &Client, key: &str) -> Result<(), CliError> {
    let value: Value = client.get(&path(key)?)?;
    let RegistryEntry { as_of, entry } = typed(&value)?;
    if globals.output.is_json() {
        return output::record(globals.output, &value, Vec::new);
    }
    let field = |(name, value): (&String, &Value)| format!("  {name} = {value}");
    let fields: Vec<_> = entry.fields.iter().map(field).collect();
    output::record(Format::Table, &value, || {
        vec![
            ("key", entry.key.clone()),
            ("created", format!("step {} by {}", entry.created.step, entry.created.author)),
            ("updated", format!("step {} by {}", entry.updated.step, entry.updated.author)),
            ("expires", entry.expires_step.map_or_else(|| "-".to_owned(), |step| format!("step {step}"))),
            ("as of", format!("step {}, {} authors, heads {}", as_of.step, as_of.authors, as_of.heads)),
        ]
    })?;
    if fields.is_empty() {
        return Ok(());
    }
    output::text("fields")?;
    fields.iter().try_for_each(|line| output::text(&output::printable(line)))
}

fn list(globals: &Globals, client: &Client, args: &ListArgs) -> Result<(), CliError> {
    let mut after: Option<String> = None;
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut all: Option<Value> = None;
    while left > 0 {
        let mut pairs = vec![("limit", left.min(PAGE).to_string())];
        pairs.extend(args.kind.iter().map(|kind| ("kind", kind.clone())));
        pairs.extend(args.prefix.iter().map(|prefix| ("prefix", prefix.clone())));
        pairs.extend(args.filters.iter().map(|filter| ("where", filter.clone())));
        pairs.extend(after.iter().map(|after| ("after", after.clone())));
        let mut page: Value = client.get(&format!("/api/v1/registry{}", query(&pairs)))?;
        let RegistryPage { entries, next, .. } = typed(&page)?;
        left = left.saturating_sub(entries.len() as u64);
        if globals.output == Format::Ndjson {
            page["entries"].as_array().into_iter().flatten().try_for_each(output::line)?;
        } else {
            let more = page["entries"].take();
            match &mut all {
                None => {
                    page["entries"] = more;
                    all = Some(page);
                }
                Some(all) => {
                    // The state of the last page: what came before it may have changed meanwhile.
                    (all["as_of"], all["next"]) = (page["as_of"].take(), page["next"].take());
                    if let (Value::Array(all), Value::Array(more)) = (&mut all["entries"], more) {
                        all.extend(more);
                    }
                }
            }
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    let Some(all) = all else { return Ok(()) };
    if globals.output == Format::Json {
        return output::document(&all);
    }
    let RegistryPage { as_of, entries, .. } = typed(&all)?;
    output::list(Format::Table, &entries, &["key", "updated", "expires", "fields"], |entry: &EntryView| {
        let expires = entry.expires_step.map_or_else(|| "-".to_owned(), |step| step.to_string());
        vec![entry.key.clone(), entry.updated.step.to_string(), expires, fields_of(entry)]
    })?;
    tell_as_of(&as_of);
    Ok(())
}

fn search(globals: &Globals, client: &Client, args: &SearchArgs) -> Result<(), CliError> {
    let mut pairs = vec![("q", args.text.join(" "))];
    pairs.extend(args.kind.iter().map(|kind| ("kind", kind.clone())));
    pairs.extend(args.limit.map(|limit| ("limit", limit.to_string())));
    let value: Value = client.get(&format!("/api/v1/registry/search{}", query(&pairs)))?;
    let RegistryFound { as_of, hits, matches, cut_short } = typed(&value)?;
    if cut_short {
        output::tell("warning: there are more entries than a search looks at; name a --kind");
    }
    if globals.output == Format::Json {
        return output::document(&value);
    }
    if globals.output == Format::Ndjson {
        return value["hits"].as_array().into_iter().flatten().try_for_each(output::line);
    }
    output::list(Format::Table, &hits, &["score", "key", "fields"], |hit: &HitView| {
        vec![hit.score.to_string(), hit.entry.key.clone(), fields_of(&hit.entry)]
    })?;
    output::tell(&format!(
        "{} of {matches} that fit, as of step {}, {} authors, heads {}",
        hits.len(),
        as_of.step,
        as_of.authors,
        as_of.heads
    ));
    Ok(())
}

fn fields_of(entry: &EntryView) -> String {
    let fields: Vec<_> = entry.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
    fields.join(" ")
}

fn way(args: &WayArgs) -> Vec<(&'static str, String)> {
    let mut pairs = vec![("direction", args.direction.as_str().to_owned())];
    pairs.extend(args.relations.iter().map(|relation| ("relation", relation.clone())));
    pairs
}

fn links(globals: &Globals, client: &Client, args: &WayArgs) -> Result<(), CliError> {
    let value: Value = client.get(&format!("{}/links{}", path(&args.key)?, query(&way(args))))?;
    if globals.output == Format::Json {
        return output::document(&value);
    }
    let RegistryLinks { as_of, links } = typed(&value)?;
    let heads = ["from", "relation", "to", "step", "whole"];
    output::list(globals.output, &links, &heads, |view: &LinkOfEntry| {
        let whole = if view.whole { "yes" } else { "no" };
        let link = &view.link;
        let step = view.created.step.to_string();
        vec![link.from.clone(), link.relation.clone(), link.to.clone(), step, whole.to_owned()]
    })?;
    if globals.output == Format::Table {
        tell_as_of(&as_of);
    }
    Ok(())
}

fn walk(globals: &Globals, client: &Client, args: &WalkArgs) -> Result<(), CliError> {
    let mut pairs = way(&args.way);
    pairs.extend(args.depth.map(|depth| ("depth", depth.to_string())));
    pairs.extend(args.limit.map(|limit| ("limit", limit.to_string())));
    let path = path(&args.way.key)?;
    let value: Value = client.get(&format!("{path}/walk{}", query(&pairs)))?;
    let RegistryWalk { as_of, reached, cut_short } = typed(&value)?;
    if reached.is_empty() {
        // From an entry that is not there nothing is reached either: that is an error, and not an answer.
        client.get::<Value>(&path)?;
    }
    if cut_short {
        output::tell("warning: a limit ended the walk; there may be more");
    }
    if globals.output == Format::Json {
        return output::document(&value);
    }
    output::list(globals.output, &reached, &["depth", "key", "via", "fields"], |reached: &ReachedView| {
        let via = format!("{} {} {}", reached.via.from, reached.via.relation, reached.via.to);
        vec![reached.depth.to_string(), reached.entry.key.clone(), via, fields_of(&reached.entry)]
    })?;
    if globals.output == Format::Table {
        tell_as_of(&as_of);
    }
    Ok(())
}

fn watch(globals: &Globals, client: &Client) -> Result<(), CliError> {
    let mut stream = client.events("/api/v1/registry/events")?;
    output::tell("watching the registry");
    loop {
        let Some(event) = stream.next()? else {
            return Err(CliError::new(Code::Unreachable, "the node ended the stream")
                .hint("it was stopped or restarted; watch again when it runs"));
        };
        let value: Value = serde_json::from_str(&event.data).map_err(|error| {
            CliError::new(Code::Failed, format!("the node sent an event that is not understood: {error}"))
        })?;
        if event.name == "lagged" {
            let Lagged { lost } = typed(&value)?;
            output::tell(&format!("warning: {lost} changes were lost: they came faster than they were read"));
        } else if globals.output.is_json() {
            output::line(&value)?;
        } else {
            let event: RegistryEvent = typed(&value)?;
            output::text(&output::printable(&line_of(&event)))?;
        }
    }
}

fn line_of(event: &RegistryEvent) -> String {
    let what = match (&event.link, &event.entry) {
        (Some(link), _) => format!("{} {} {}", link.from, link.relation, link.to),
        (None, Some(entry)) => format!("{}  {}", entry.key, fields_of(entry)),
        (None, None) => event.key.clone().unwrap_or_default(),
    };
    format!("{:8}  {what}", event.change.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_that_would_become_a_float_is_refused() {
        assert_eq!(field("x", "9223372036854775807").unwrap(), 9_223_372_036_854_775_807_u64);
        assert!(field("x", "18446744073709551616.0").unwrap().is_f64());
        assert_eq!(field("x", "18446744073709551616 x").unwrap(), "18446744073709551616 x");
        for too_large in ["18446744073709551616", r#"{"a": [1, 99999999999999999999]}"#] {
            let error = field("x", too_large).unwrap_err();
            assert!(error.code == Code::Usage && error.message.contains("does not fit 64 bits"), "{error}");
            assert!(error.message.contains("\"x\"") && error.hint.is_some(), "{error}");
        }
    }

    #[test]
    fn null_is_for_updates() {
        let args =
            PutArgs { key: "a/x".to_owned(), fields: vec!["x=null".to_owned()], ttl: None, replicas: 0 };
        let error = request(&args, Nulls::Refused).unwrap_err();
        assert!(error.code == Code::Usage && error.message.contains("`registry update`"), "{error}");
        assert!(request(&args, Nulls::Remove).unwrap().fields["x"].is_null());
    }
}
