//! Errors as the client sees them.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use omnimesh_protocol::compute::blob::CacheError;
use omnimesh_protocol::compute::driver::Refusal;
use omnimesh_protocol::compute::job::{ProblemCode, Problems};
use omnimesh_protocol::envelope::ChannelError;
use omnimesh_protocol::log::{AppendError, StoreError};
use omnimesh_protocol::registry::{
    FIELDS_MAX, Fault, OPERATION_BYTES_MAX, VALUE_BYTES_MAX, VALUE_DEPTH_MAX, WriteError,
};

use super::backend::{BackendError, NotReady, PublishError};
use super::types::{ErrorBody, ErrorCode, ErrorDetail, FieldError, JobProblem, ValueError};
use crate::actors::blob::GetError;
use crate::actors::log::LogError;
use crate::actors::registry::RegistryError;
use crate::job::{FindError, JobError, document};
use crate::store::blob::BlobError;

/// Most characters of what a client has sent that an error says again.
pub(super) const QUOTED_CHARS_MAX: usize = 80;
/// Most characters of a message that others make of what a client has sent.
pub(super) const MESSAGE_CHARS_MAX: usize = 400;

/// What a client has sent, for a message: in quotes, and cut if it is long.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", cut(text, QUOTED_CHARS_MAX))
}

/// The beginning of a text, if it is longer than that.
pub(super) fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        None => text.into(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
    }
}

/// An error answer: a code, which fixes the status, the cause and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: ErrorCode,
    message: String,
    hint: String,
    retry_after: Option<Duration>,
    allow: Vec<Method>,
    problems: Vec<JobProblem>,
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        ApiError {
            code,
            message: message.into(),
            hint: hint.into(),
            retry_after: None,
            allow: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Tells the client when to try again.
    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Tells the client where in the body it is, by the keys that lead there.
    pub(super) fn at(mut self, keys: &str) -> Self {
        if !keys.is_empty() {
            self.message = format!("`{}`: {}", cut(keys, QUOTED_CHARS_MAX), self.message);
        }
        self
    }

    /// What the client is told.
    pub(super) fn detail(&self) -> ErrorDetail {
        ErrorDetail {
            code: self.code,
            message: self.message.clone(),
            hint: self.hint.clone(),
            problems: self.problems.clone(),
        }
    }

    /// What is wrong with a job. Only asking for too much is not senseless.
    fn of_job(message: String, codes: &[ProblemCode], problems: Vec<JobProblem>) -> Self {
        let is_quota = codes.iter().all(|code| *code == ProblemCode::Quota);
        let code = if is_quota { ErrorCode::Refused } else { ErrorCode::InvalidJob };
        ApiError { problems, ..ApiError::new(code, message, "docs/compute.md describes job files") }
    }

    /// Tells the client which methods the path knows.
    pub(super) fn allow(mut self, methods: Vec<Method>) -> Self {
        self.allow = methods;
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        status_of(self.code)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::build(self.status_code());
        match self.code {
            ErrorCode::Unauthorized => {
                response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"omnimesh\""));
            }
            // The rest of the body is not wanted: what follows it on this connection is not a request.
            ErrorCode::TooLarge | ErrorCode::RequestTimeout => {
                response.force_close();
            }
            _ => {}
        }
        if let Some(wait) = self.retry_after {
            // Whole seconds, at least one: "0" would invite to hammer.
            let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
            response.insert_header((header::RETRY_AFTER, seconds.to_string()));
        }
        if !self.allow.is_empty() {
            let methods: Vec<_> = self.allow.iter().map(Method::as_str).collect();
            response.insert_header((header::ALLOW, methods.join(", ")));
        }
        response.json(ErrorBody { error: self.detail() })
    }
}

/// The status of a code.
pub(super) const fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest
        | ErrorCode::InvalidJson
        | ErrorCode::InvalidChannel
        | ErrorCode::InvalidJob => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::ForbiddenHost | ErrorCode::ForbiddenOrigin => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::Refused => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Internal | ErrorCode::Other => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::NotReady | ErrorCode::Overloaded | ErrorCode::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        let message = error.to_string();
        match error {
            BackendError::Overloaded { .. } => {
                ApiError::new(ErrorCode::Overloaded, message, "try again in a moment")
                    .retry_after(Duration::from_secs(1))
            }
            BackendError::Stopping => ApiError::new(ErrorCode::Stopping, message, "start it again"),
            BackendError::Internal(_) => {
                ApiError::new(ErrorCode::Internal, message, "the node's log tells more")
            }
        }
    }
}

impl From<NotReady> for ApiError {
    fn from(error: NotReady) -> Self {
        ApiError::new(ErrorCode::NotReady, error.to_string(), "`/readyz` answers 200 once it is ready")
            .retry_after(Duration::from_secs(1))
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        let message = error.to_string();
        match error {
            PublishError::TooLarge { setting, .. } => ApiError::new(
                ErrorCode::TooLarge,
                message,
                format!("split the payload, or raise `{setting}` on every node of the mesh"),
            ),
            PublishError::NotReady(error) => error.into(),
            PublishError::Refused(_) => ApiError::new(
                ErrorCode::Refused,
                message,
                "`/api/v1/status` tells how the node stands, and its log more",
            ),
            PublishError::Backend(error) => error.into(),
        }
    }
}

impl From<ChannelError> for ApiError {
    fn from(error: ChannelError) -> Self {
        ApiError::new(ErrorCode::InvalidChannel, error.to_string(), "for example `news` or `room-1.door`")
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        let message = error.to_string();
        let again =
            |code, hint| ApiError::new(code, message.clone(), hint).retry_after(Duration::from_secs(1));
        match error {
            LogError::Append(AppendError::TooLarge { .. }) => ApiError::new(
                ErrorCode::TooLarge,
                message,
                "split the entry, or raise `gossip.message_bytes_max` on every node of the mesh",
            ),
            LogError::Append(AppendError::Reserved(_)) => {
                ApiError::new(ErrorCode::InvalidChannel, message, "for example `news` or `room-1.door`")
            }
            LogError::Append(AppendError::Busy) => again(ErrorCode::Overloaded, "try again in a moment"),
            LogError::Append(AppendError::NotSynchronised | AppendError::Behind) => {
                again(ErrorCode::NotReady, "`/readyz` answers 200 once the node is ready")
            }
            LogError::Append(AppendError::Lost { .. }) => ApiError::new(
                ErrorCode::NotReady,
                message,
                "`omnimesh log status` tells what was found damaged",
            ),
            LogError::Append(AppendError::Frozen(_) | AppendError::Exhausted) => ApiError::new(
                ErrorCode::Refused,
                message,
                "`omnimesh log proofs` has the proof; a node with a new key, so a new data directory, can go on",
            ),
            LogError::Store(StoreError::Full) | LogError::Append(AppendError::Store(StoreError::Full)) => {
                ApiError::new(ErrorCode::StorageFull, message, "make room there and try again")
            }
            LogError::Store(_) | LogError::Append(AppendError::Store(_)) => {
                ApiError::new(ErrorCode::Internal, message, "the node's log tells more")
            }
            LogError::UnknownAuthor(_) => {
                ApiError::new(ErrorCode::NotFound, message, "`/api/v1/log/heads` lists the authors")
            }
            LogError::OutOfRange { .. } => {
                ApiError::new(ErrorCode::NotFound, message, "`/api/v1/log/heads` lists what is there")
            }
            LogError::NoLog => {
                ApiError::new(ErrorCode::Refused, message, "a node keeps one in its data directory")
            }
            LogError::Stopped => BackendError::Stopping.into(),
        }
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Write(WriteError::NotFound(_)) => {
                ApiError::new(ErrorCode::NotFound, error.to_string(), "`/api/v1/registry` lists the entries")
            }
            RegistryError::Write(WriteError::Fault(fault)) => fault.into(),
            RegistryError::Log(error) => error.into(),
            RegistryError::NotSynchronised => NotReady { reason: error.to_string() }.into(),
        }
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let code = match fault {
            Fault::TooLarge => ErrorCode::TooLarge,
            Fault::TooManyFields | Fault::TooFarAhead => ErrorCode::Refused,
            _ => ErrorCode::BadRequest,
        };
        let hint = match fault {
            Fault::BadName => {
                "kinds and relations: 1 to 32 of a-z 0-9 _ -, beginning with a letter; names of entries: \
                               1 to 128 bytes; names of fields: 1 to 64"
                    .to_owned()
            }
            Fault::TooLarge => format!(
                "an operation has at most {OPERATION_BYTES_MAX} bytes, a value in it {VALUE_BYTES_MAX}; put more into a blob, \
                 and its hash into the registry"
            ),
            Fault::TooDeep => format!("at most {VALUE_DEPTH_MAX} lists and maps stand in one another"),
            Fault::BadNumber => INTEGERS.to_owned(),
            Fault::TooManyFields => {
                format!("an entry has at most {FIELDS_MAX} fields; a PATCH with null removes one")
            }
            Fault::TooFarAhead => {
                "try again once the mesh has come near the step of the write before".to_owned()
            }
            _ => "`/api/v1/openapi.json` describes what is taken".to_owned(),
        };
        ApiError::new(code, fault.to_string(), hint)
    }
}

/// What to do about an integer that is too large.
const INTEGERS: &str = "integers are from -9223372036854775808 to 9223372036854775807; write more as text, or as a float, such \
                        as 1e30";

/// What to do about bytes that are written wrongly.
const BASE64: &str = "use the alphabet A-Z a-z 0-9 + / and pad with =, such as {\"base64\": \"/w==\"}; a map whose only key is \
                      `base64` means bytes";

impl From<FieldError> for ApiError {
    fn from(error: FieldError) -> Self {
        let message = error.to_string();
        let of = match error {
            FieldError::Name(_) => Fault::BadName.into(),
            FieldError::TooMany(_) => Fault::TooManyFields.into(),
            FieldError::Value { error, .. } => ApiError::from(error),
        };
        ApiError { message, ..of }
    }
}

impl From<ValueError> for ApiError {
    fn from(error: ValueError) -> Self {
        let message = error.to_string();
        let of = match error {
            ValueError::Base64(_) => ApiError::new(ErrorCode::BadRequest, "", BASE64),
            ValueError::Integer(_) => Fault::BadNumber.into(),
            ValueError::TooLarge { .. } => Fault::TooLarge.into(),
            ValueError::TooDeep => Fault::TooDeep.into(),
            ValueError::Other(fault) => fault.into(),
        };
        ApiError { message, ..of }
    }
}

impl From<GetError> for ApiError {
    fn from(error: GetError) -> Self {
        let message = error.to_string();
        let (code, hint) = match error {
            GetError::NotFound(_) | GetError::Fetch { .. } => (
                ErrorCode::NotFound,
                "`omnimesh members` shows who is connected; on the node that has it, `omnimesh blob list` shows it",
            ),
            GetError::Store(BlobError::Cache(CacheError::Unknown)) => {
                (ErrorCode::NotFound, "`omnimesh blob list` shows what is here, and what is pinned")
            }
            GetError::Store(BlobError::Cache(CacheError::Full { .. })) => {
                (ErrorCode::StorageFull, "`omnimesh blob list` shows what is pinned")
            }
            GetError::Store(BlobError::DiskFull) => (ErrorCode::StorageFull, "make room there and try again"),
            GetError::Store(BlobError::Damaged { .. }) => (
                ErrorCode::NotFound,
                "put it again with `omnimesh blob put`, or start a node that has it; the disk may be failing",
            ),
            GetError::Store(BlobError::WrongSize { .. }) => {
                (ErrorCode::Refused, "`omnimesh blob list` shows how long it is here")
            }
            GetError::Store(BlobError::Disk { .. }) => (ErrorCode::Internal, "the node's log tells more"),
            GetError::Busy => (ErrorCode::Overloaded, "try again in a moment"),
            GetError::NoStore => (ErrorCode::Refused, "start the node with a data directory"),
            GetError::Stopped => (ErrorCode::Stopping, "start it again"),
        };
        ApiError::new(code, message, hint)
    }
}

impl From<Problems> for ApiError {
    fn from(problems: Problems) -> Self {
        let codes: Vec<_> = problems.faults.iter().map(|fault| fault.problem.code).collect();
        let list = problems.faults.iter().map(document::fault).collect();
        ApiError::of_job(problems.to_string(), &codes, list)
    }
}

impl From<JobError> for ApiError {
    fn from(error: JobError) -> Self {
        let message = error.to_string();
        match error {
            JobError::Refused(Refusal::BadJob(problems)) => {
                let codes: Vec<_> = problems.iter().map(|problem| problem.code).collect();
                ApiError::of_job(message, &codes, problems.iter().map(document::problem).collect())
            }
            JobError::Refused(Refusal::TooManyJobs { .. }) => {
                ApiError::new(ErrorCode::Refused, message, "`omnimesh job list` shows them")
            }
            JobError::Refused(Refusal::UnknownJob) => {
                ApiError::new(ErrorCode::NotFound, message, "`/api/v1/jobs` lists those that there are")
            }
            JobError::Refused(Refusal::WrongState(_)) => ApiError::new(
                ErrorCode::Refused,
                message,
                "what is RUNNING can be cancelled, what has FAILED or was CANCELLED can be tried again",
            ),
            JobError::Refused(Refusal::Twice) => {
                ApiError::new(ErrorCode::Refused, message, "give another `nonce` to have it done twice")
            }
            JobError::Refused(Refusal::Log) => {
                ApiError::new(ErrorCode::Overloaded, message, "`omnimesh log status` tells how the log is")
                    .retry_after(Duration::from_secs(1))
            }
            JobError::NoStore => {
                ApiError::new(ErrorCode::Refused, message, "start the node with a data directory")
            }
            JobError::Stopped => BackendError::Stopping.into(),
        }
    }
}

impl From<FindError> for ApiError {
    fn from(error: FindError) -> Self {
        let (code, hint) = match error {
            FindError::NotAnId(_) => {
                (ErrorCode::BadRequest, "give the id, or its beginning; `omnimesh job list` shows ids")
            }
            FindError::Unknown(_) => (
                ErrorCode::NotFound,
                "`omnimesh job list` shows those that there are; what was just submitted elsewhere may still be on its way",
            ),
            FindError::Ambiguous { .. } => (ErrorCode::BadRequest, "give more of the id"),
        };
        ApiError::new(code, cut(&error.to_string(), MESSAGE_CHARS_MAX), hint)
    }
}
