//! `/api/v1/jobs`, `/api/v1/workers` and `/api/v1/why/jobs`.

use std::num::NonZeroUsize;
use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use futures::{StreamExt, stream};
use lru::LruCache;
use omnimesh_protocol::compute::JobId;
use omnimesh_protocol::compute::job::{self, Format, JobSpec, Plan};
use omnimesh_protocol::compute::ledger::{JobView, TaskState};

use super::{Call, Shared, sse};
use crate::api::error::{ApiError, quoted};
use crate::api::types::{
    CancelRequest, ErrorCode, JobAccepted, JobEventView, JobFormat, JobRequest, JobSummary,
};
use crate::feed::{Feed, FeedItem};
use crate::job::document::{self, TaskQuery};
use crate::job::{self as jobs, Clock, FindError, JobError, JobEvent, Seen, Stats};

/// Jobs of a list, at most.
pub(in crate::api) const JOBS_MAX: usize = 1000;
/// Jobs of a list unless told otherwise.
const JOBS_DEFAULT: usize = 100;
/// Tasks of a page, at most.
pub(in crate::api) const TASKS_MAX: usize = 1000;
/// Tasks of a page unless told otherwise.
const TASKS_DEFAULT: usize = 100;
/// Jobs whose names of tasks a stream of events remembers.
const NAMES_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// What the body of a submission looks like.
const JOB: &str = "{\"file\": \"job.toml\", \"text\": \"…\", \"files\": {\"big.txt\": {\"hash\": \"…\", \"size\": 1}}} or \
                   {\"job\": {\"name\": \"…\", \"task\": {…}}}";

const TASK_STATES: [TaskState; 7] = [
    TaskState::Pending,
    TaskState::Ready,
    TaskState::Running,
    TaskState::Succeeded,
    TaskState::Failed,
    TaskState::Skipped,
    TaskState::Cancelled,
];

/// Milliseconds since 1970.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Looks at the jobs where they are.
async fn look<T: Send + 'static>(
    call: &Call,
    look: impl FnOnce(&Seen<'_>, &Clock) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let looking = move |seen: &Seen<'_>| {
        let clock = seen.clock(wall_ms());
        // Who has asked may be gone.
        let _ = sender.send(look(seen, &clock));
    };
    call.wait(call.shared.backend.job_look(Box::new(looking))).await?;
    Ok(receiver.await.map_err(|_| JobError::Stopped)?)
}

/// Looks at the job that the path names, by its id or the beginning of it.
async fn look_at<T: Send + 'static>(
    call: &Call,
    of: impl FnOnce(&Seen<'_>, &Clock, &JobView<'_>) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let text = call.part("id").to_owned();
    let found = look(call, move |seen, clock| {
        let view = seen.find(&text)?;
        Ok::<_, FindError>(of(seen, clock, &view))
    });
    Ok(found.await??)
}

async fn id(call: &Call) -> Result<JobId, ApiError> {
    look_at(call, |_, _, view| view.id()).await
}

pub(super) async fn list(call: Call) -> Result<HttpResponse, ApiError> {
    let query = &call.query;
    let limit = query.limit(JOBS_DEFAULT, JOBS_MAX)?;
    let prefix = query.text("prefix")?.unwrap_or_default().to_owned();
    let states: Vec<String> = query.all("state").map(str::to_ascii_uppercase).collect();
    let known = ["RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"];
    if let Some(state) = states.iter().find(|state| !known.contains(&state.as_str())) {
        return Err(no_state(state, &known));
    }
    let jobs = look(&call, move |seen, clock| {
        let views = seen.driver.ledger().jobs();
        let mut views: Vec<_> = views
            .filter(|view| states.is_empty() || states.iter().any(|state| state == view.state().code()))
            .filter(|view| prefix.is_empty() || view.id().to_string().starts_with(&prefix))
            .collect();
        views.sort_by_key(|view| std::cmp::Reverse((view.submitted(), view.id())));
        let jobs = views.iter().take(limit).map(|view| document::summary(seen, clock, view));
        jobs.collect::<Vec<_>>()
    });
    Ok(HttpResponse::Ok().json(jobs.await?))
}

fn no_state(state: &str, known: &[&str]) -> ApiError {
    let message = format!("there is no state {}", quoted(state));
    ApiError::new(ErrorCode::BadRequest, message, format!("known: {}", known.join(", ")))
}

/// Checks a job, and unless it is only to be checked, submits it.
pub(super) async fn submit(mut call: Call) -> Result<HttpResponse, ApiError> {
    let only_check = call.query.read("check")?.unwrap_or(false);
    let request: JobRequest = call.document(JOB).await?;
    let quota = look(&call, |seen, _| seen.driver.config().quota.clone()).await?;
    let (spec, plan) = read(request, &quota)?;
    let missing = match call.shared.backend.blob_store() {
        Ok(store) => spec
            .inputs
            .iter()
            .map(|input| input.blob.hash)
            .filter(|hash| store.whole(hash).is_none())
            .collect(),
        Err(_) => spec.inputs.iter().map(|input| input.blob.hash).collect(),
    };
    let (name, tasks) = (spec.name.clone(), plan.total());
    let id = if only_check { None } else { Some(call.wait(call.shared.backend.job_submit(spec)).await?) };
    Ok(HttpResponse::Ok().json(JobAccepted { id, name, tasks, missing }))
}

fn read(request: JobRequest, quota: &job::Quota) -> Result<(JobSpec, Plan), ApiError> {
    let JobRequest { file, format, text, job, files, nonce } = request;
    let (text, format) = match (text, job) {
        (Some(text), None) => {
            let is_json = file.as_deref().is_some_and(|file| file.ends_with(".json"));
            let by_name = if is_json { JobFormat::Json } else { JobFormat::Toml };
            (text, format.unwrap_or(by_name))
        }
        (None, Some(job)) if format.is_none() => {
            let text = serde_json::to_string_pretty(&job);
            (text.map_err(|error| bad_body(&error.to_string()))?, JobFormat::Json)
        }
        (None, Some(_)) => return Err(bad_body("`format` is for `text`; a `job` is JSON")),
        (Some(_), Some(_)) => return Err(bad_body("both `text` and `job` are given; give one")),
        (None, None) => return Err(bad_body("neither `text` nor `job` is given")),
    };
    let format = match format {
        JobFormat::Toml => Format::Toml,
        JobFormat::Json => Format::Json,
    };
    let file = file.unwrap_or_else(|| "job".to_owned());
    Ok(job::read(&file, &text, format, &files, nonce.unwrap_or(0), quota)?)
}

fn bad_body(message: &str) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message, format!("send {JOB}"))
}

pub(super) async fn show(call: Call) -> Result<HttpResponse, ApiError> {
    Ok(HttpResponse::Ok().json(look_at(&call, document::detail).await?))
}

pub(super) async fn tasks(call: Call) -> Result<HttpResponse, ApiError> {
    let query = &call.query;
    let state = |text: &str| {
        let wanted = text.to_ascii_uppercase();
        let known = TASK_STATES.map(TaskState::code);
        let place = known.iter().position(|code| *code == wanted);
        place.map(|place| TASK_STATES[place]).ok_or_else(|| no_state(text, &known))
    };
    let query = TaskQuery {
        name: query.text("name")?.map(str::to_owned),
        states: query.all("state").map(state).collect::<Result<_, _>>()?,
        from: query.read("from")?.unwrap_or(0),
        limit: query.limit(TASKS_DEFAULT, TASKS_MAX)?,
    };
    let page = look_at(&call, move |seen, clock, view| {
        let family = query.name.as_deref().is_none_or(|name| view.spec().task(name).is_some());
        let names = document::names(view);
        family.then(|| document::tasks(seen, clock, view, &query)).ok_or(names)
    });
    match page.await? {
        Ok(page) => Ok(HttpResponse::Ok().json(page)),
        Err(names) => Err(unknown_task(&names)),
    }
}

fn unknown_task(names: &[String]) -> ApiError {
    let hint = format!("its tasks are {}", names.join(", "));
    ApiError::new(ErrorCode::NotFound, "the job has no task of that name", hint)
}

pub(super) async fn graph(call: Call) -> Result<HttpResponse, ApiError> {
    let svg = look_at(&call, |seen, clock, view| {
        let stats = Stats::of(seen, view);
        jobs::graph(seen, clock, view, &stats)
    });
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "image/svg+xml")).body(svg.await?))
}

pub(super) async fn log(call: Call) -> Result<HttpResponse, ApiError> {
    let is_markdown = match call.query.text("format")? {
        None | Some("json") => false,
        Some("md") => true,
        Some(other) => {
            let message = format!("there is no format {}", quoted(other));
            return Err(ApiError::new(ErrorCode::BadRequest, message, "give json or md"));
        }
    };
    let log = look_at(&call, jobs::run_log).await?;
    if is_markdown {
        let text = jobs::markdown(&log);
        return Ok(HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, "text/markdown; charset=utf-8"))
            .body(text));
    }
    Ok(HttpResponse::Ok().json(log))
}

pub(super) async fn cancel(mut call: Call) -> Result<HttpResponse, ApiError> {
    let CancelRequest { reason } = call.document("{\"reason\": \"text\"}").await?;
    let job = id(&call).await?;
    call.wait(call.shared.backend.job_cancel(job, reason)).await?;
    summary(&call).await
}

pub(super) async fn retry(call: Call) -> Result<HttpResponse, ApiError> {
    let job = id(&call).await?;
    call.wait(call.shared.backend.job_retry(job)).await?;
    summary(&call).await
}

async fn summary(call: &Call) -> Result<HttpResponse, ApiError> {
    let summary: JobSummary = look_at(call, document::summary).await?;
    Ok(HttpResponse::Ok().json(summary))
}

pub(super) async fn why(call: Call) -> Result<HttpResponse, ApiError> {
    let task = call.query.text("task")?.map(str::to_owned);
    let why = look_at(&call, move |seen, clock, view| match &task {
        None => Ok(jobs::why_job(seen, clock, view)),
        Some(task) => jobs::why_task(seen, clock, view, task).ok_or_else(|| document::names(view)),
    });
    match why.await? {
        Ok(why) => Ok(HttpResponse::Ok().json(why)),
        Err(names) => Err(unknown_task(&names)),
    }
}

pub(super) async fn workers(call: Call) -> Result<HttpResponse, ApiError> {
    let workers = look(&call, |seen, _| {
        let workers = seen.driver.workers(seen.now).into_iter();
        workers.map(|worker| document::worker(seen.now, worker)).collect::<Vec<_>>()
    });
    Ok(HttpResponse::Ok().json(workers.await?))
}

pub(super) async fn all_events(call: Call) -> Result<HttpResponse, ApiError> {
    if call.is_head() {
        return Ok(sse::respond_head());
    }
    watch(call, None).await
}

pub(super) async fn events(call: Call) -> Result<HttpResponse, ApiError> {
    let job = id(&call).await?;
    if call.is_head() {
        return Ok(sse::respond_head());
    }
    watch(call, Some(job)).await
}

async fn watch(call: Call, only: Option<JobId>) -> Result<HttpResponse, ApiError> {
    let slot = call.slot()?;
    let feed = call.wait(call.shared.backend.job_events()).await?;
    let shared = call.shared.clone();
    let watch = Watch { shared, feed, only, known: LruCache::new(NAMES_MAX) };
    let told = stream::unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) });
    Ok(sse::respond(&call.shared, slot, Box::pin(told)))
}

/// Events on their way to a reader, who wants the names of tasks.
struct Watch {
    shared: web::Data<Shared>,
    feed: Feed<JobEvent>,
    only: Option<JobId>,
    known: LruCache<JobId, (Clock, Vec<String>)>,
}

impl Watch {
    async fn next(&mut self) -> Option<FeedItem<JobEventView>> {
        loop {
            let event = match self.feed.next().await? {
                FeedItem::Lagged(lost) => return Some(FeedItem::Lagged(lost)),
                FeedItem::Next(event) => event,
            };
            if self.only.is_some_and(|only| only != event.job) {
                continue;
            }
            if !self.known.contains(&event.job) {
                let known = self.look_up(event.job).await?;
                self.known.put(event.job, known);
            }
            let (clock, names) = self.known.get(&event.job)?;
            return Some(FeedItem::Next(document::event(clock, names, &event)));
        }
    }

    /// The names of a job's tasks; none if the job is not known any more.
    async fn look_up(&self, job: JobId) -> Option<(Clock, Vec<String>)> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let look = move |seen: &Seen<'_>| {
            let names = seen.driver.ledger().job(&job).map(|view| document::names(&view));
            let _ = sender.send((seen.clock(wall_ms()), names.unwrap_or_default()));
        };
        self.shared.backend.job_look(Box::new(look)).await.ok()?;
        receiver.await.ok()
    }
}
