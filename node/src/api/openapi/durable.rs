//! The log and the registry in the OpenAPI document.

use omnimesh_protocol::registry::{PAGE_MAX, WALK_DEPTH_MAX, WALK_ENTRIES_MAX};
use serde_json::{Map, Value, json};

use super::{
    BACKEND, answer, base64, boolean, count, list, nullable, number, object, ok, one_of, operation,
    parameter, reference, stream, string, with_body,
};
use crate::api::routes::log::ENTRIES_MAX;
use crate::api::types::ErrorCode;

/// What can go wrong with a body.
const BODY: &[ErrorCode] = &[
    ErrorCode::InvalidJson,
    ErrorCode::BadRequest,
    ErrorCode::RequestTimeout,
    ErrorCode::TooLarge,
    ErrorCode::UnsupportedMediaType,
];
/// What can go wrong with a write.
const WRITE: &[ErrorCode] =
    &[ErrorCode::Refused, ErrorCode::NotReady, ErrorCode::StorageFull, ErrorCode::TooLarge];
/// What can go wrong with a question.
const QUERY: &[ErrorCode] = &[ErrorCode::BadRequest, ErrorCode::Refused];

pub(super) fn errors(lists: &[&[ErrorCode]]) -> Vec<ErrorCode> {
    let mut codes: Vec<_> = lists.concat();
    codes.extend_from_slice(BACKEND);
    codes.sort_unstable();
    codes.dedup();
    codes
}

pub(super) fn query(name: &str, description: &str, schema: &Value) -> Value {
    json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema })
}

fn queries(name: &str, description: &str) -> Value {
    query(name, description, &json!({ "type": "array", "items": string() }))
}

pub(super) fn with_parameters(mut operation: Value, parameters: &[Value]) -> Value {
    operation["parameters"] = json!(parameters);
    operation
}

fn hash() -> Value {
    super::hex(64)
}

/// How many there may be at most.
pub(super) fn limit(max: usize) -> Value {
    within(1, max)
}

pub(super) fn within(minimum: u64, maximum: usize) -> Value {
    json!({ "type": "integer", "minimum": minimum, "maximum": maximum })
}

pub(super) fn whole(minimum: u64) -> Value {
    json!({ "type": "integer", "minimum": minimum })
}

pub(super) fn add_paths(paths: &mut Map<String, Value>) {
    for more in [log_paths(), registry_paths(), entry_paths()] {
        if let Value::Object(more) = more {
            paths.extend(more);
        }
    }
}

fn log_paths() -> Value {
    let append = operation(
        "logAppend",
        "Appends an entry to this node's log; answered when it is on disk, and on that of as many others as asked for \
         (the answer says on how many)",
        ok("LogAppended"),
        &errors(&[BODY, WRITE]),
    );
    let batch = operation(
        "logAppendBatch",
        "Appends entries one after another; each is answered for itself, in order",
        list("LogBatchResult"),
        &errors(&[BODY, WRITE]),
    );
    let entries = operation(
        "logEntries",
        "Entries of one author's log, in order: each one's `prev` is the `hash` of the one before it",
        ok("LogEntries"),
        &errors(&[QUERY, &[ErrorCode::NotFound]]),
    );
    let entries = with_parameters(
        entries,
        &[
            query("author", "Whose log; this node's own unless given", &string()),
            query("from", "The first entry; unless given the first that is here", &whole(1)),
            query("limit", "At most so many; unless given 100", &limit(ENTRIES_MAX)),
        ],
    );
    let simple = |id, summary, ok| operation(id, summary, ok, &errors(&[&[ErrorCode::Refused]]));
    let events = simple(
        "logEvents",
        "What is added to the log from now on: `event` is the change, `data` a LogEvent; `lagged` with a Lagged tells what was \
         dropped because the reader was slow, and is to be read from `/api/v1/log/entries`",
        stream("LogEvent"),
    );
    json!({
        "/api/v1/log/events": { "get": events },
        "/api/v1/log/entries": { "post": with_body(append, "AppendRequest"), "get": entries },
        "/api/v1/log/batches": { "post": with_body(batch, "AppendBatch") },
        "/api/v1/log/heads": { "get": simple("logHeads", "Where every author's log ends", list("LogHead")) },
        "/api/v1/log/gaps": {
            "get": simple("logGaps", "What the node missed and who helped, the oldest first", list("CatchUp")),
        },
        "/api/v1/log/status": { "get": simple("logStatus", "How the log is", ok("LogStatus")) },
        "/api/v1/log/proofs": {
            "get": simple("logProofs", "The proofs against authors that contradicted themselves", list("LogProof")),
        },
        "/api/v1/log/backup": {
            "get": simple(
                "logBackup",
                "All that the log has at this moment, as the file that `omnimesh restore` takes",
                answer("application/octet-stream", &string()),
            ),
        },
    })
}

fn registry_paths() -> Value {
    let page = operation("registryList", "Entries by key", ok("RegistryPage"), &errors(&[QUERY]));
    let page = with_parameters(
        page,
        &[
            query("kind", "Only those of this kind", &string()),
            query("prefix", "Only those whose name begins with this", &string()),
            queries(
                "where",
                "Only those with this `field=value` (the value is JSON; what is none is text), or `field`",
            ),
            query("after", "Only those after this key: `next` of the page before", &string()),
            query("limit", "At most so many; unless given 100", &limit(PAGE_MAX)),
        ],
    );
    let link = operation("registryLink", "Makes a link", ok("RegistryWritten"), &errors(&[BODY, WRITE]));
    let unlink =
        operation("registryUnlink", "Removes a link", ok("RegistryWritten"), &errors(&[QUERY, WRITE]));
    let required = |mut parameter: Value| {
        parameter["required"] = true.into();
        parameter
    };
    let unlink = with_parameters(
        unlink,
        &[
            required(query("from", "From this entry, `kind/name`", &string())),
            required(query("relation", "Of this sort", &string())),
            required(query("to", "To this entry, `kind/name`", &string())),
            replicas(),
        ],
    );
    let events = operation(
        "registryEvents",
        "Changes of the registry from now on: `event` is the change, `data` a RegistryEvent; `lagged` with a Lagged \
         tells what was dropped because the reader was slow",
        stream("RegistryEvent"),
        &errors(&[&[ErrorCode::Refused]]),
    );
    let search = operation(
        "registrySearch",
        "Entries of which all words of a text are words, or beginnings of words, in kind, name, fields and values; the best \
         first",
        ok("RegistryFound"),
        &errors(&[QUERY]),
    );
    let search = with_parameters(
        search,
        &[
            required(query("q", "Words", &string())),
            query("kind", "Only entries of this kind", &string()),
            query("limit", "At most so many; unless given 100", &limit(PAGE_MAX)),
        ],
    );
    json!({
        "/api/v1/registry/search": { "get": search },
        "/api/v1/registry": { "get": page },
        "/api/v1/registry/links": { "post": with_body(link, "LinkRequest"), "delete": unlink },
        "/api/v1/registry/events": { "get": events },
    })
}

fn entry_paths() -> Value {
    let found: &[ErrorCode] = &[ErrorCode::NotFound];
    let key =
        json!([parameter("kind", "The entry's kind", &string()), parameter("name", "Its name", &string())]);
    let written = |id, summary, more: &[&[ErrorCode]]| {
        operation(id, summary, ok("RegistryWritten"), &errors(&[more, &[WRITE]].concat()))
    };
    let put = written("registryPut", "Makes or replaces an entry", &[BODY]);
    let update = written("registryUpdate", "Sets or removes fields of an entry", &[BODY, found]);
    let delete = written("registryDelete", "Deletes an entry and its links", &[QUERY, found]);
    let get = operation("registryGet", "An entry", ok("RegistryEntry"), &errors(&[QUERY, found]));
    let links = operation("registryLinks", "The links of an entry", ok("RegistryLinks"), &errors(&[QUERY]));
    let walk =
        operation("registryWalk", "What can be reached along links", ok("RegistryWalk"), &errors(&[QUERY]));
    let way = [
        queries("relation", "Only along these relations; along all if none is given"),
        query(
            "direction",
            "Along which way of the links; `out` unless given",
            &one_of(&["out", "in", "both"]),
        ),
    ];
    let depth = [
        query("depth", "At most so many links away; unless given 32", &within(0, WALK_DEPTH_MAX)),
        query("limit", "At most so many entries; unless given 1000", &limit(WALK_ENTRIES_MAX)),
    ];
    json!({
        "/api/v1/registry/{kind}/{name}": {
            "parameters": key,
            "get": get,
            "put": with_body(put, "RegistryWriteRequest"),
            "patch": with_body(update, "RegistryWriteRequest"),
            "delete": with_parameters(delete, &[replicas()]),
        },
        "/api/v1/registry/{kind}/{name}/links": { "parameters": key, "get": with_parameters(links, &way) },
        "/api/v1/registry/{kind}/{name}/walk": {
            "parameters": key,
            "get": with_parameters(walk, &[&way[..], &depth[..]].concat()),
        },
    })
}

fn replicas() -> Value {
    query("replicas", "How many other nodes must have it on disk before it is answered", &whole(0))
}

// --- schemas --------------------------------------------------------------

fn array(schema: &str) -> Value {
    json!({ "type": "array", "items": reference(schema) })
}

/// An object whose fields have any names.
fn map(schema: &Value) -> Value {
    json!({ "type": "object", "additionalProperties": schema })
}

fn any() -> Value {
    json!({ "type": ["null", "boolean", "number", "string", "array", "object"], "additionalProperties": true })
}

pub(super) fn add_schemas(schemas: &mut Map<String, Value>) {
    let mut add = |name: &str, schema| schemas.insert(name.to_owned(), schema);
    add("AppendRequest", append_request());
    add("AppendBatch", strict(object(&[("entries", array("PublishRequest"))], &[("replicas", count())])));
    add("LogAppended", object(&appended(), &[]));
    add("LogBatchResult", {
        let mut schema = object(&[], &[&appended()[..], &[("error", error())]].concat());
        schema["oneOf"] = json!([{ "required": ["error"] }, { "required": ["seq"] }]);
        schema
    });
    add("LogEntry", log_entry());
    add("LogEntries", log_entries());
    add("LogHead", log_head());
    let added = [("author", nullable(string())), ("entries", array("LogEntry")), ("head", count())];
    add(
        "LogEvent",
        object(&[&[("change", one_of(&["appended", "frozen", "covered"]))], &added[..]].concat(), &[]),
    );
    add("CatchUp", catch_up());
    add("MissedEntries", missed());
    add("Source", object(&[("peer_id", string()), ("entries", count()), ("bytes", count())], &[]));
    add("LogStatus", log_status());
    let signers = ("signers", json!({ "type": "array", "items": string() }));
    add("LogCheckpoint", object(&[("step", count()), ("id", hash()), ("bytes", count()), signers], &[]));
    let proof = [("author", string()), ("fork", count()), ("id", hash()), ("proof", string())];
    add("LogProof", object(&proof, &[]));
    let as_of = ("as_of", reference("AsOf"));
    add("AsOf", object(&[("step", count()), ("authors", count()), ("heads", hash())], &[]));
    add("Write", object(&[("step", count()), ("author", string()), ("seq", count())], &[]));
    add("Version", object(&[("author", string()), ("seq", count())], &[]));
    add("EntryView", entry());
    add("RegistryEntry", object(&[as_of.clone(), ("entry", reference("EntryView"))], &[]));
    let page = [as_of.clone(), ("entries", array("EntryView")), ("next", nullable(string()))];
    add("RegistryPage", object(&page, &[]));
    add("Hit", object(&[("score", count()), ("entry", reference("EntryView"))], &[]));
    let found = [("hits", array("Hit")), ("matches", count()), ("cut_short", boolean())];
    add("RegistryFound", object(&[std::slice::from_ref(&as_of), &found[..]].concat(), &[]));
    add("LinkName", object(&link_name(), &[]));
    let link = [("created", reference("Write")), ("whole", boolean())];
    add("LinkOfEntry", object(&[&link_name()[..], &link[..]].concat(), &[]));
    add("RegistryLinks", object(&[as_of.clone(), ("links", array("LinkOfEntry"))], &[]));
    let reached = [("depth", count()), ("via", reference("LinkName")), ("entry", reference("EntryView"))];
    add("Reached", object(&reached, &[]));
    let walk = [as_of.clone(), ("reached", array("Reached")), ("cut_short", boolean())];
    add("RegistryWalk", object(&walk, &[]));
    let write = [("fields", map(&any())), ("ttl", whole(1)), ("replicas", count())];
    add("RegistryWriteRequest", strict(object(&[], &write)));
    add("LinkRequest", strict(object(&link_name(), &[("replicas", count())])));
    add("RegistryWritten", object(&[&[as_of][..], &appended()[..]].concat(), &[]));
    add("RegistryEvent", event());
}

fn strict(mut schema: Value) -> Value {
    schema["additionalProperties"] = false.into();
    schema
}

fn error() -> Value {
    object(&[("code", string()), ("message", string()), ("hint", string())], &[])
}

fn append_request() -> Value {
    let fields = [("data", string()), ("data_base64", base64()), ("replicas", count())];
    let mut schema = strict(object(&[], &fields));
    schema["oneOf"] = json!([{ "required": ["data"] }, { "required": ["data_base64"] }]);
    schema
}

fn appended() -> [(&'static str, Value); 6] {
    [
        ("author", string()),
        ("seq", count()),
        ("hash", hash()),
        ("step", count()),
        ("durable", boolean()),
        ("replicas", count()),
    ]
}

fn log_entry() -> Value {
    object(
        &[
            ("author", string()),
            ("seq", count()),
            ("prev", nullable(hash())),
            ("hash", hash()),
            ("step", count()),
            ("category", string()),
            ("timestamp_us", nullable(count())),
        ],
        &[("data", string()), ("data_base64", base64())],
    )
}

fn log_entries() -> Value {
    object(
        &[
            ("author", string()),
            ("base", count()),
            ("head", count()),
            ("frozen", boolean()),
            ("entries", array("LogEntry")),
            ("next", nullable(count())),
        ],
        &[],
    )
}

fn log_head() -> Value {
    object(
        &[
            ("author", string()),
            ("seq", count()),
            ("hash", hash()),
            ("base", count()),
            ("frozen", boolean()),
            ("fork", nullable(count())),
        ],
        &[],
    )
}

fn catch_up() -> Value {
    object(
        &[
            ("took_ms", number()),
            ("entries", count()),
            ("entries_gossip", count()),
            ("covered", count()),
            ("nobody_has", count()),
            ("bytes_sent", count()),
            ("bytes_received", count()),
            ("record_bytes", count()),
            ("round_trips", count()),
            ("authors", array("MissedEntries")),
            ("sources", array("Source")),
        ],
        &[],
    )
}

fn missed() -> Value {
    let fields = [
        ("author", string()),
        ("from", count()),
        ("to", count()),
        ("recovered", count()),
        ("covered", count()),
        ("nobody_has", count()),
    ];
    object(&fields, &[])
}

fn log_status() -> Value {
    let counts = [
        "authors",
        "frozen",
        "entries",
        "behind",
        "waiting",
        "waiting_bytes",
        "rounds",
        "rounds_equal",
        "bytes_sent",
        "bytes_received",
        "writes",
        "writes_failed",
        "disk_bytes",
        "entries_dropped",
        "checkpoints_sealed",
        "checkpoints_adopted",
    ];
    let mut fields = vec![("fingerprint", hash()), ("own_log_known", boolean())];
    fields.extend(counts.map(|name| (name, count())));
    let optional =
        [("checkpoint", reference("LogCheckpoint")), ("checkpoint_fetched", count()), ("trouble", string())];
    object(&fields, &optional)
}

fn entry() -> Value {
    object(
        &[
            ("key", string()),
            ("kind", string()),
            ("name", string()),
            ("fields", map(&any())),
            ("created", reference("Write")),
            ("updated", reference("Write")),
            ("expires_step", nullable(count())),
            ("versions", array("Version")),
            ("versions_complete", boolean()),
        ],
        &[],
    )
}

fn link_name() -> [(&'static str, Value); 3] {
    [("from", string()), ("relation", string()), ("to", string())]
}

fn event() -> Value {
    let changes = ["created", "changed", "deleted", "linked", "unlinked"];
    object(
        &[("change", one_of(&changes))],
        &[("key", string()), ("entry", reference("EntryView")), ("link", reference("LinkName"))],
    )
}
