//! Jobs by way of the API.

use std::sync::Mutex;

use omnimesh_protocol::compute::driver::{Input, Output};
use omnimesh_protocol::compute::job::JobSpec;
use omnimesh_protocol::compute::ledger::FailReason;
use omnimesh_protocol::compute::{BlobRef, JobId};
use omnimesh_protocol::{Hash, NodeId, Step};
use serde_json::{Value, json};

use super::support::*;
use crate::api::backend::{Answer, JobBackend, LookAtJobs};
use crate::api::types::*;
use crate::feed::{Feed, FeedLimits, FeedSender, feed};
use crate::job::tests::harness::{Act, Bench, word_count};
use crate::job::{JobError, JobEvent};

/// A job that is half done, and whatever a test submits.
pub(super) struct Jobs {
    bench: Mutex<Bench>,
    feeds: Mutex<Vec<FeedSender<JobEvent>>>,
}

impl Default for Jobs {
    fn default() -> Self {
        let mut bench = Bench::new(3);
        assert_eq!(bench.submit(word_count(8, 1)), known());
        let mut done = 0;
        bench.work(|_, given| match given.task.chunk {
            2 if given.task.task == 0 => Act::Fail(FailReason::MemoryLimit, "too much"),
            _ if done < 6 => {
                done += 1;
                Act::Do(1000)
            }
            _ => Act::Keep,
        });
        Jobs { bench: Mutex::new(bench), feeds: Mutex::default() }
    }
}

impl Jobs {
    /// Lets something happen, and tells those who watch.
    fn happen<T>(&self, what: impl FnOnce(&mut Bench) -> T) -> T {
        let mut bench = self.bench.lock().unwrap();
        let before = bench.told.len();
        let answer = what(&mut bench);
        for event in &bench.told[before..] {
            self.feeds.lock().unwrap().retain(|feed| feed.offer(event.clone(), event.bytes()).is_ok());
        }
        answer
    }

    fn watchers(&self) -> usize {
        self.feeds.lock().unwrap().iter().filter(|feed| !feed.is_closed()).count()
    }
}

/// The job that is there.
pub(super) fn known() -> JobId {
    let me = omnimesh_protocol::Identity::from_seed(&[100; 32]).id();
    JobId::of(&me, &word_count(8, 1).encode())
}

fn accepted(output: Output) -> Result<(), JobError> {
    match output {
        Output::Refused { reason, .. } => Err(reason.into()),
        _ => Ok(()),
    }
}

impl JobBackend for Memory {
    fn job_submit(&self, spec: JobSpec) -> Answer<'_, JobId, JobError> {
        let output = self.jobs.happen(|bench| bench.request(|ticket| Input::Submit { spec, ticket }));
        self.answer(match output {
            Output::Submitted { job, .. } => Ok(job),
            other => Err(accepted(other).unwrap_err()),
        })
    }

    fn job_cancel(&self, job: JobId, detail: String) -> Answer<'_, (), JobError> {
        let cancel = |bench: &mut Bench| bench.request(|ticket| Input::Cancel { job, detail, ticket });
        self.answer(accepted(self.jobs.happen(cancel)))
    }

    fn job_retry(&self, job: JobId) -> Answer<'_, (), JobError> {
        let retry = |bench: &mut Bench| bench.request(|ticket| Input::Retry { job, ticket });
        self.answer(accepted(self.jobs.happen(retry)))
    }

    fn job_look(&self, look: LookAtJobs) -> Answer<'_, (), JobError> {
        look(&self.jobs.bench.lock().unwrap().seen());
        self.answer(Ok(()))
    }

    fn job_events(&self) -> Answer<'_, Feed<JobEvent>, JobError> {
        let (sender, feed) = feed(FeedLimits::default());
        self.jobs.feeds.lock().unwrap().push(sender);
        self.answer(Ok(feed))
    }
}

pub(super) fn sample_problem() -> JobProblem {
    JobProblem {
        line: 3,
        code: "unknown_name".to_owned(),
        path: "task.a".to_owned(),
        message: "there is no task `b`".to_owned(),
        remedy: "name one of: a".to_owned(),
    }
}

/// What the job that is there looks like; all lists have something in them.
pub(super) fn samples() -> Vec<(&'static str, Value)> {
    let jobs = Jobs::default();
    let bench = jobs.bench.lock().unwrap();
    let seen = bench.seen();
    let clock = seen.clock(bench.wall_ms());
    let view = seen.find(&known().to_string()).unwrap();
    let peer = NodeId::from_bytes([1; 32]);
    let mut detail = crate::job::document::detail(&seen, &clock, &view);
    detail.outputs[0].blobs.push(BlobRef::of(b"x"));
    detail.dissenters.push(peer);
    detail.cancelled = Some(JobCancelled { reason: "deadline".to_owned(), detail: String::new() });
    detail.held_task = Some(JobHeld {
        task: "count".to_owned(),
        chunk: 0,
        reason: "no worker is known".to_owned(),
        remedy: "start one".to_owned(),
    });
    assert!(!detail.failures.is_empty());
    let mut log = crate::job::run_log(&seen, &clock, &view);
    assert!(!log.events.is_empty() && !log.critical_path.is_empty() && !log.troubles.reasons.is_empty());
    log.suggestions.push(Suggestion { advice: "less".to_owned(), because: "much".to_owned() });
    let tasks = crate::job::document::tasks(
        &seen,
        &clock,
        &view,
        &crate::job::document::TaskQuery { limit: 100, ..Default::default() },
    );
    let done = tasks.tasks.iter().find(|task| task.output.is_some()).unwrap().clone();
    let worker = seen.driver.workers(seen.now).remove(0);
    let mut worker = crate::job::document::worker(seen.now, worker);
    worker.labels.insert("disk".to_owned(), "ssd".to_owned());
    let request = JobRequest {
        file: Some("job.toml".to_owned()),
        format: Some(JobFormat::Toml),
        text: Some(String::new()),
        job: Some(json!({"name": "x"})),
        files: [("a".to_owned(), BlobRef::of(b"a"))].into(),
        nonce: Some(1),
    };
    let taken =
        JobAccepted { id: Some(known()), name: "x".to_owned(), tasks: 1, missing: vec![Hash::of(b"")] };
    vec![
        ("JobRequest", json!(request)),
        ("JobAccepted", json!(JobAccepted { id: None, ..taken.clone() })),
        ("JobAccepted", json!(taken)),
        ("JobProblem", json!(sample_problem())),
        ("JobSummary", json!(detail.summary)),
        ("TaskCounts", json!(detail.summary.counts)),
        ("JobInput", json!(detail.inputs[0])),
        ("JobFamily", json!(detail.families[0])),
        ("FamilyTimes", json!(detail.families[0].times)),
        ("JobOutput", json!(detail.outputs[0])),
        ("WorkerShare", json!(detail.workers[0])),
        ("TaskFailure", json!(detail.failures[0])),
        ("JobDetail", json!(detail)),
        ("JobTask", json!(done)),
        ("JobTasks", json!(tasks)),
        ("JobEvent", json!(log.events[0])),
        ("FamilyLog", json!(log.families[0])),
        ("JobTroubles", json!(log.troubles)),
        ("PathTask", json!(log.critical_path[0])),
        ("Suggestion", json!(log.suggestions[0])),
        ("JobLog", json!(log)),
        ("WhyJob", json!(crate::job::why_job(&seen, &clock, &view))),
        ("CancelRequest", json!(CancelRequest { reason: "enough".to_owned() })),
        ("Worker", json!(worker)),
    ]
}

const JOB: &str = r#"
name = "two"
[inputs.text]
file = "a.txt"
[task.part]
operation = "hash"
for_each = { chunk_of = "text", bytes = 10 }
[task.all]
operation = "concat"
inputs = ["part"]
"#;

fn request(text: &str, size: u64) -> Value {
    let blob = BlobRef { size, ..BlobRef::of(b"a") };
    json!({"file": "job.toml", "text": text, "files": {"a.txt": blob}})
}

#[tokio::test]
async fn a_job_file_becomes_a_job_once() {
    let rig = Rig::start();
    let post = |query: &str, body: &Value| {
        rig.request("POST", &format!("/api/v1/jobs{query}"), &[], &body.to_string())
    };
    let checked = rig.send(&post("?check=true", &request(JOB, 25))).await;
    assert_eq!(
        (checked.status, checked.json()["id"].clone(), checked.json()["tasks"].clone()),
        (200, Value::Null, json!(4))
    );
    assert_eq!(checked.json()["missing"], json!([Hash::of(b"a")]));
    assert_eq!(rig.get("/api/v1/jobs").await.json().as_array().unwrap().len(), 1, "it was only checked");
    let first = rig.send(&post("", &request(JOB, 25))).await.json();
    let again = rig.send(&post("", &request(JOB, 25))).await.json();
    assert_eq!(first["id"], again["id"]);
    // The same as JSON, with a number of its own.
    let inputs = json!({"text": {"blob": Hash::of(b"a"), "size": 25}});
    let tasks = json!({"part": {"operation": "hash", "for_each": {"chunk_of": "text", "bytes": 10}}});
    let body = json!({"job": {"name": "two", "inputs": inputs, "task": tasks}, "nonce": 7});
    let other = rig.send(&post("", &body)).await.json();
    assert_eq!(other["tasks"], 3);
    assert_ne!(other["id"], first["id"]);
    let jobs = rig.get("/api/v1/jobs?limit=2&state=running").await.json();
    assert_eq!(jobs.as_array().unwrap().len(), 2);
    let id = first["id"].as_str().unwrap();
    let found = rig.get(&format!("/api/v1/jobs?prefix={}", &id[..20])).await.json();
    assert_eq!((found[0]["id"].clone(), found.as_array().unwrap().len()), (json!(id), 1));
    assert_eq!(rig.get(&format!("/api/v1/jobs/{}", &id[..20])).await.json()["id"], id);
}

#[tokio::test]
async fn what_is_wrong_with_a_job_is_told_at_once_with_lines() {
    let rig = Rig::start();
    let post = |body: &Value| rig.request("POST", "/api/v1/jobs", &[], &body.to_string());
    let text = JOB.replace("\"hash\"", "\"hush\"").replace("[\"part\"]", "[\"parts\"]");
    let reply = rig.send(&post(&request(&text, 25))).await;
    let detail = reply.assert_error(400, ErrorCode::InvalidJob);
    let lines: Vec<_> = detail.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [6, 10], "all of it: {detail:?}");
    assert!(
        detail.message.contains("job.toml:10: task.all.inputs.0: there is no input or task `parts`"),
        "{detail:?}"
    );
    let cycle = "name = \"c\"\n[task.a]\noperation = \"hash\"\nafter = [\"b\"]\n[task.b]\noperation = \"hash\"\nafter = \"a\"\n";
    let detail = rig.send(&post(&request(cycle, 1))).await.assert_error(400, ErrorCode::InvalidJob);
    assert_eq!((detail.problems[0].code.as_str(), detail.problems[0].line), ("cycle", 5));
    // Too much is refused, and not senseless.
    let detail = rig.send(&post(&request(JOB, 1 << 40))).await.assert_error(422, ErrorCode::Refused);
    assert_eq!(detail.problems[0].code, "quota");
    for body in [json!({}), json!({"text": "", "job": {}}), json!({"job": {}, "format": "toml"})] {
        rig.send(&post(&body)).await.assert_error(400, ErrorCode::BadRequest);
    }
    rig.send(&post(&json!({"txt": ""}))).await.assert_error(400, ErrorCode::InvalidJson);
    assert_eq!(rig.get("/api/v1/jobs").await.json().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_job_is_shown_in_every_form() {
    let rig = Rig::start();
    let path = format!("/api/v1/jobs/{}", known());
    let detail = rig.get(&path).await.json();
    assert_eq!(
        (detail["name"].clone(), detail["families"].as_array().unwrap().len()),
        (json!("word-count"), 4)
    );
    let skipped = rig.get(&format!("{path}/tasks?state=skipped&name=count")).await.json();
    assert_eq!((skipped["tasks"][0]["chunk"].clone(), skipped["next"].clone()), (json!(2), Value::Null));
    let page = rig.get(&format!("{path}/tasks?limit=3&from=2")).await.json();
    assert_eq!((page["tasks"][0]["chunk"].clone(), page["next"].clone()), (json!(2), json!(5)));
    let svg = rig.get(&format!("{path}/graph")).await;
    assert_eq!((svg.status, svg.header("content-type")), (200, "image/svg+xml"));
    svg.assert_secure();
    roxmltree::Document::parse(&svg.body).unwrap();
    let log = rig.get(&format!("{path}/log")).await.json();
    assert_eq!(log["troubles"]["reasons"]["memory_limit"], 4);
    let text = rig.get(&format!("{path}/log?format=md")).await;
    assert_eq!(text.header("content-type"), "text/markdown; charset=utf-8");
    assert!(text.body.starts_with("# Job `word-count`: RUNNING"));
    let why = rig.get(&format!("/api/v1/why/jobs/{}?task=count%2F2", known())).await.json();
    assert_eq!((why["state"].clone(), why["task"].clone()), (json!("SKIPPED"), json!("count/2")));
    assert_eq!(rig.get("/api/v1/workers").await.json().as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_missing() {
    let rig = Rig::start();
    let unknown = format!("/api/v1/jobs/{}", "0".repeat(64));
    for (path, status, code) in [
        (unknown.clone(), 404, ErrorCode::NotFound),
        (format!("{unknown}/graph"), 404, ErrorCode::NotFound),
        (format!("{unknown}/events"), 404, ErrorCode::NotFound),
        ("/api/v1/jobs/x".to_owned(), 400, ErrorCode::BadRequest),
        (format!("/api/v1/jobs/{}/tasks?state=done", known()), 400, ErrorCode::BadRequest),
        (format!("/api/v1/jobs/{}/tasks?name=nobody", known()), 404, ErrorCode::NotFound),
        (format!("/api/v1/jobs/{}/tasks?limit=9999", known()), 400, ErrorCode::BadRequest),
        (format!("/api/v1/jobs/{}/log?format=pdf", known()), 400, ErrorCode::BadRequest),
        (format!("/api/v1/why/jobs/{}?task=count/99", known()), 404, ErrorCode::NotFound),
        ("/api/v1/jobs?state=done".to_owned(), 400, ErrorCode::BadRequest),
        ("/api/v1/jobs?limit=0".to_owned(), 400, ErrorCode::BadRequest),
    ] {
        rig.get(&path).await.assert_error(status, code);
    }
}

#[tokio::test]
async fn a_job_is_cancelled_and_tried_again() {
    let rig = Rig::start();
    let path = format!("/api/v1/jobs/{}", known());
    let post = |what: &str, body: &str| rig.request("POST", &format!("{path}/{what}"), &[], body);
    rig.send(&post("retry", "")).await.assert_error(422, ErrorCode::Refused);
    rig.send(&post("cancel", r#"{"why": "x"}"#)).await.assert_error(400, ErrorCode::InvalidJson);
    let reply = rig.send(&post("cancel", r#"{"reason": "enough"}"#)).await;
    assert_eq!((reply.status, reply.json()["state"].clone()), (200, json!("CANCELLED")));
    assert_eq!(rig.get(&path).await.json()["cancelled"], json!({"reason": "requested", "detail": "enough"}));
    rig.send(&post("cancel", "{}")).await.assert_error(422, ErrorCode::Refused);
    let reply = rig.send(&post("retry", "")).await.json();
    assert_eq!((reply["state"].clone(), reply["round"].clone()), (json!("RUNNING"), json!(1)));
}

#[tokio::test]
async fn events_of_a_job_have_names() {
    let rig = Rig::start();
    let mut all = Connection::open(rig.address()).await;
    all.write(rig.request("GET", "/api/v1/jobs/events", &[], "")).await;
    assert_eq!(all.head().await.status, 200);
    let other = JobSpec { name: "other".to_owned(), ..word_count(1, 1) };
    let id = rig.backend.jobs.happen(|bench| bench.submit(other));
    let mut one = Connection::open(rig.address()).await;
    one.write(rig.request("GET", &format!("/api/v1/jobs/{id}/events"), &[], "")).await;
    assert_eq!(one.head().await.status, 200);
    eventually(|| rig.backend.jobs.watchers() == 2).await;
    // Something happens to both: all hears of both, one only of its own.
    rig.backend.jobs.happen(|bench| {
        for job in [known(), id] {
            bench.request(|ticket| Input::Cancel { job, detail: String::new(), ticket });
        }
    });
    let mut left = String::new();
    let mut names = Vec::new();
    while !names.iter().any(|name| name == "submitted") {
        let (name, event) = all.event(&mut left).await.unwrap();
        assert_eq!(event["job"], json!(id));
        names.push(name);
    }
    let mut left = String::new();
    let (name, event) = one.event(&mut left).await.unwrap();
    assert_eq!((name.as_str(), event["job"].clone()), ("task_state", json!(id)));
    assert_eq!((event["task"].clone(), event["state"].clone()), (json!("count"), json!("CANCELLED")));
    assert!(event["step"].as_u64() > Some(Step(1).0));
}
