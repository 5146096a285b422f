//! Jobs and workers in the OpenAPI document.

use serde_json::{Map, Value, json};

use super::durable::{errors, limit, query, with_parameters, within};
use super::{
    answer, boolean, count, hex, list, nullable, number, object, ok, one_of, operation, parameter, reference,
    stream, string, strings, with_body,
};
use crate::api::routes::job::{JOBS_MAX, TASKS_MAX};
use crate::api::types::ErrorCode;

/// What can go wrong with a body.
const BODY: &[ErrorCode] = &[
    ErrorCode::InvalidJson,
    ErrorCode::BadRequest,
    ErrorCode::RequestTimeout,
    ErrorCode::TooLarge,
    ErrorCode::UnsupportedMediaType,
];
const REFUSED: &[ErrorCode] = &[ErrorCode::Refused];
/// What can go wrong with the id of a job.
const FOUND: &[ErrorCode] = &[ErrorCode::BadRequest, ErrorCode::NotFound, ErrorCode::Refused];

const JOB_STATES: [&str; 4] = ["RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"];
const TASK_STATES: [&str; 7] = ["PENDING", "READY", "RUNNING", "SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"];

pub(super) fn add_paths(paths: &mut Map<String, Value>) {
    for more in [all_paths(), one_path(), more_of_one()] {
        if let Value::Object(more) = more {
            paths.extend(more);
        }
    }
}

fn id() -> Value {
    let pattern = json!({ "type": "string", "pattern": "^[0-9a-f]{1,64}$" });
    json!([parameter("id", "The id of the job, or as much of its beginning as no other job's has", &pattern)])
}

fn queries(name: &str, description: &str, names: &[&str]) -> Value {
    query(name, description, &json!({ "type": "array", "items": one_of(names) }))
}

fn all_paths() -> Value {
    let jobs = operation(
        "jobList",
        "Jobs, the newest first",
        list("JobSummary"),
        &errors(&[REFUSED, &[ErrorCode::BadRequest]]),
    );
    let jobs = with_parameters(
        jobs,
        &[
            query("prefix", "Only those whose id begins with this", &string()),
            queries("state", "Only those in one of these states", &JOB_STATES),
            query("limit", "At most so many; unless given 100", &limit(JOBS_MAX)),
        ],
    );
    let submit = operation(
        "jobSubmit",
        "Has a job done, driven by this node as long as it lives; answered once it is in this node's log. The job is a file as \
         `text` (TOML or JSON), with the blobs that its `file = \"…\"` have become in `files`, or JSON as `job`. Everything \
         that is wrong with it is told at once, with lines",
        ok("JobAccepted"),
        &errors(&[BODY, REFUSED, &[ErrorCode::InvalidJob, ErrorCode::NotReady]]),
    );
    let submit = with_parameters(
        with_body(submit, "JobRequest"),
        &[query("check", "Only say whether it would be taken; false unless given", &boolean())],
    );
    let events = operation(
        "jobEvents",
        "What happens to jobs from now on: `event` is the kind, `data` a JobEvent; `lagged` with a Lagged tells what was dropped \
         because the reader was slow, and is to be read from `/api/v1/jobs/{id}/log`",
        stream("JobEvent"),
        &errors(&[REFUSED]),
    );
    let workers = operation(
        "workers",
        "Those who take work, as this node sees them",
        list("Worker"),
        &errors(&[REFUSED]),
    );
    json!({
        "/api/v1/jobs": { "get": jobs, "post": submit },
        "/api/v1/jobs/events": { "get": events },
        "/api/v1/workers": { "get": workers },
    })
}

fn one_path() -> Value {
    let show = operation("jobShow", "How a job stands", ok("JobDetail"), &errors(&[FOUND]));
    let tasks = operation(
        "jobTasks",
        "Tasks of a job, in the order of the file, then by chunk",
        ok("JobTasks"),
        &errors(&[FOUND]),
    );
    let tasks = with_parameters(
        tasks,
        &[
            queries("state", "Only those in one of these states", &TASK_STATES),
            query("name", "Only those that this task of the file makes", &string()),
            query("from", "Where to begin: `next` of the page before", &within(0, u32::MAX as usize)),
            query("limit", "At most so many; unless given 100", &limit(TASKS_MAX)),
        ],
    );
    let graph = operation(
        "jobGraph",
        "A job's tasks, what waits for what, and the longest chain, as a picture",
        answer("image/svg+xml", &string()),
        &errors(&[FOUND]),
    );
    let mut log = operation(
        "jobLog",
        "What became of a job and what that cost: times, shares, the bottleneck, what to change, and what happened",
        ok("JobLog"),
        &errors(&[FOUND]),
    );
    log["responses"]["200"]["content"]["text/markdown"] = json!({ "schema": string() });
    let log = with_parameters(log, &[query("format", "json unless given", &one_of(&["json", "md"]))]);
    json!({
        "/api/v1/jobs/{id}": { "parameters": id(), "get": show },
        "/api/v1/jobs/{id}/tasks": { "parameters": id(), "get": tasks },
        "/api/v1/jobs/{id}/graph": { "parameters": id(), "get": graph },
        "/api/v1/jobs/{id}/log": { "parameters": id(), "get": log },
    })
}

fn more_of_one() -> Value {
    let events = operation(
        "jobEventsOfOne",
        "What happens to one job from now on, as in `/api/v1/jobs/events`",
        stream("JobEvent"),
        &errors(&[FOUND]),
    );
    let cancel = operation(
        "jobCancel",
        "Ends a job; what has not ended is cancelled. Answered once that is in this node's log",
        ok("JobSummary"),
        &errors(&[BODY, FOUND]),
    );
    let retry = operation(
        "jobRetry",
        "Does again what has failed, was skipped or cancelled; what has succeeded stays. Answered once that is in this node's log",
        ok("JobSummary"),
        &errors(&[FOUND]),
    );
    let why = operation(
        "whyJob",
        "Why a job, or a task of it, is not done, is slow, has failed or was cancelled, and what to do",
        ok("WhyJob"),
        &errors(&[FOUND]),
    );
    let why = with_parameters(why, &[query("task", "One task of it: `name`, or `name/chunk`", &string())]);
    json!({
        "/api/v1/jobs/{id}/events": { "parameters": id(), "get": events },
        "/api/v1/jobs/{id}/cancel": { "parameters": id(), "post": with_body(cancel, "CancelRequest") },
        "/api/v1/jobs/{id}/retry": { "parameters": id(), "post": retry },
        "/api/v1/why/jobs/{id}": { "parameters": id(), "get": why },
    })
}

// --- schemas --------------------------------------------------------------

pub(super) fn add_schemas(schemas: &mut Map<String, Value>) {
    let mut add = |name: &str, schema: Value| schemas.insert(name.to_owned(), schema);
    add("JobRequest", request());
    add(
        "JobAccepted",
        object(
            &[("id", nullable(hex(64))), ("name", string()), ("tasks", count()), ("missing", hashes())],
            &[],
        ),
    );
    add("JobProblem", problem());
    add("JobSummary", object(&summary(), &[]));
    add("JobDetail", detail());
    add("TaskCounts", counts());
    add("JobInput", object(&[("name", string()), ("hash", hex(64)), ("size", count())], &[]));
    add("JobFamily", family());
    add("FamilyTimes", times());
    add("JobOutput", output());
    add("WorkerShare", share());
    add("TaskFailure", failure());
    add("JobTasks", object(&[("tasks", of("JobTask")), ("next", nullable(count()))], &[]));
    add("JobTask", task());
    add("JobEvent", event());
    add("JobLog", log());
    add("FamilyLog", family_log());
    add("JobTroubles", troubles());
    add("PathTask", path_task());
    add("Suggestion", object(&[("advice", string()), ("because", string())], &[]));
    add("WhyJob", why());
    add(
        "CancelRequest",
        json!({ "type": "object", "properties": { "reason": string() }, "additionalProperties": false }),
    );
    add("Worker", worker());
}

fn of(schema: &str) -> Value {
    json!({ "type": "array", "items": reference(schema) })
}

fn hashes() -> Value {
    json!({ "type": "array", "items": hex(64) })
}

fn blob() -> Value {
    object(&[("hash", hex(64)), ("size", count())], &[])
}

fn request() -> Value {
    json!({
        "type": "object",
        "properties": {
            "file": string(),
            "format": one_of(&["toml", "json"]),
            "text": string(),
            "job": { "type": "object", "additionalProperties": true },
            "files": { "type": "object", "additionalProperties": blob() },
            "nonce": count(),
        },
        "additionalProperties": false,
        "oneOf": [{ "required": ["text"] }, { "required": ["job"] }],
    })
}

pub(super) fn problem() -> Value {
    object(
        &[
            ("line", count()),
            ("code", string()),
            ("path", string()),
            ("message", string()),
            ("remedy", string()),
        ],
        &[],
    )
}

fn summary() -> Vec<(&'static str, Value)> {
    vec![
        ("id", hex(64)),
        ("name", string()),
        ("state", one_of(&JOB_STATES)),
        ("round", count()),
        ("submitter", string()),
        ("driver", string()),
        ("driven_here", boolean()),
        ("tasks", count()),
        ("counts", reference("TaskCounts")),
        ("progress", number()),
        ("submitted_step", count()),
        ("submitted_ms", count()),
        ("elapsed_ms", count()),
        ("held", nullable(string())),
    ]
}

fn counts() -> Value {
    object(
        &[
            ("pending", count()),
            ("ready", count()),
            ("running", count()),
            ("succeeded", count()),
            ("failed", count()),
            ("skipped", count()),
            ("cancelled", count()),
        ],
        &[],
    )
}

fn detail() -> Value {
    let mut fields = summary();
    let or_null = |fields: &[(&str, Value)]| nullable(object(fields, &[]));
    fields.extend([
        ("deadline_s", count()),
        ("spot_check", number()),
        ("lease_until_step", count()),
        ("inputs", of("JobInput")),
        ("families", of("JobFamily")),
        ("outputs", of("JobOutput")),
        ("workers", of("WorkerShare")),
        ("dissenters", strings()),
        ("failures", of("TaskFailure")),
        ("cancelled", or_null(&[("reason", string()), ("detail", string())])),
        (
            "held_task",
            or_null(&[("task", string()), ("chunk", count()), ("reason", string()), ("remedy", string())]),
        ),
        ("attempts", count()),
        ("cpu_ms", count()),
        ("work_ms", count()),
        ("critical_path_ms", count()),
    ]);
    object(&fields, &[])
}

fn family() -> Value {
    let limits =
        [("cpu_ms", count()), ("memory_bytes", count()), ("output_bytes", count()), ("wall_ms", count())];
    object(
        &[
            ("name", string()),
            ("operation", string()),
            ("tasks", count()),
            ("counts", reference("TaskCounts")),
            ("after", strings()),
            ("fan_out", nullable(string())),
            ("limits", object(&limits, &[])),
            ("redundancy", count()),
            ("retries", count()),
            ("on_failure", one_of(&["fail", "skip", "fallback"])),
            ("needs", nullable(string())),
            ("times", reference("FamilyTimes")),
            ("on_critical_path", boolean()),
        ],
        &[],
    )
}

fn times() -> Value {
    object(
        &[
            ("done", count()),
            ("p50_ms", count()),
            ("p95_ms", count()),
            ("max_ms", count()),
            ("work_ms", count()),
            ("cpu_ms", count()),
        ],
        &[],
    )
}

fn output() -> Value {
    object(
        &[
            ("name", string()),
            ("task", string()),
            ("chunks", count()),
            ("done", count()),
            ("size", count()),
            ("blobs", json!({ "type": "array", "items": blob() })),
        ],
        &[],
    )
}

fn share() -> Value {
    object(
        &[
            ("peer_id", string()),
            ("tasks", count()),
            ("share", number()),
            ("work_ms", count()),
            ("cpu_ms", count()),
            ("running", count()),
        ],
        &[],
    )
}

fn failure() -> Value {
    object(
        &[
            ("task", string()),
            ("chunk", count()),
            ("reason", string()),
            ("detail", string()),
            ("workers", strings()),
        ],
        &[],
    )
}

fn task() -> Value {
    object(
        &[
            ("task", string()),
            ("chunk", count()),
            ("state", one_of(&TASK_STATES)),
            ("workers", strings()),
            ("output", nullable(blob())),
            ("cpu_ms", count()),
            ("wall_ms", count()),
            ("fallback", boolean()),
            ("reason", nullable(string())),
            ("detail", nullable(string())),
            ("dissenters", strings()),
            ("attempts", count()),
            ("started_ms", nullable(count())),
            ("ended_ms", nullable(count())),
        ],
        &[],
    )
}

fn event() -> Value {
    object(
        &[
            ("job", hex(64)),
            ("number", count()),
            ("kind", one_of(&crate::job::EventKind::ALL.map(crate::job::EventKind::code))),
            ("at_ms", count()),
            ("step", nullable(count())),
            ("task", nullable(string())),
            ("chunk", nullable(count())),
            ("from", nullable(string())),
            ("state", nullable(string())),
            ("worker", nullable(string())),
            ("reason", nullable(string())),
            ("detail", nullable(string())),
        ],
        &[],
    )
}

fn log() -> Value {
    let times = object(
        &[
            ("submitted_ms", count()),
            ("started_ms", nullable(count())),
            ("ended_ms", nullable(count())),
            ("elapsed_ms", count()),
            ("work_ms", count()),
            ("cpu_ms", count()),
            ("critical_path_ms", count()),
            ("parallelism", number()),
        ],
        &[],
    );
    object(
        &[
            ("job", reference("JobSummary")),
            ("times", times),
            ("families", of("FamilyLog")),
            ("workers", of("WorkerShare")),
            ("troubles", reference("JobTroubles")),
            ("critical_path", of("PathTask")),
            ("bottleneck", string()),
            ("suggestions", of("Suggestion")),
            ("events", of("JobEvent")),
            ("events_forgotten", count()),
        ],
        &[],
    )
}

fn family_log() -> Value {
    object(
        &[
            ("name", string()),
            ("operation", string()),
            ("tasks", count()),
            ("counts", reference("TaskCounts")),
            ("times", reference("FamilyTimes")),
            ("attempts", count()),
            ("failures", count()),
            ("losses", count()),
            ("stragglers", count()),
            ("critical_ms", count()),
            ("output_bytes", count()),
        ],
        &[],
    )
}

fn troubles() -> Value {
    object(
        &[
            ("attempts", count()),
            ("failures", count()),
            ("losses", count()),
            ("stragglers", count()),
            ("ties", count()),
            ("restored", count()),
            ("drivers", count()),
            ("held", count()),
            ("reasons", json!({ "type": "object", "additionalProperties": count() })),
        ],
        &[],
    )
}

fn path_task() -> Value {
    object(
        &[("task", string()), ("chunk", count()), ("wall_ms", count()), ("worker", nullable(string()))],
        &[],
    )
}

fn why() -> Value {
    let reason = object(&[("because", string()), ("remedy", string())], &[]);
    object(
        &[
            ("job", hex(64)),
            ("name", string()),
            ("task", nullable(string())),
            ("state", one_of(&TASK_STATES)),
            ("reasons", json!({ "type": "array", "items": reason })),
        ],
        &[],
    )
}

fn worker() -> Value {
    object(
        &[
            ("peer_id", string()),
            ("slots", count()),
            ("room", count()),
            ("active", count()),
            ("assigned", count()),
            ("memory_bytes", count()),
            ("labels", json!({ "type": "object", "additionalProperties": string() })),
            ("region", nullable(string())),
            ("operations", strings()),
            ("breaker", one_of(&["closed", "open", "half_open"])),
            ("heard_ms", count()),
            ("mean_ms", nullable(number())),
            ("p50_ms", nullable(number())),
            ("p95_ms", nullable(number())),
            ("error_rate", number()),
            ("slowness", number()),
            ("succeeded", count()),
            ("failed", count()),
            ("dissents", count()),
        ],
        &[],
    )
}
