//! Errors as the client sees them.

use std::fmt;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::http::{Method, StatusCode, header};
use actix_web::{HttpResponse, ResponseError};
use omnimesh_protocol::envelope::ChannelError;

use super::backend::{BackendError, NotReady, PublishError};
use super::types::{ErrorBody, ErrorCode, ErrorDetail};

/// An error answer: a code, which fixes the status, the cause and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) code: ErrorCode,
    message: String,
    hint: String,
    retry_after: Option<Duration>,
    allow: Vec<Method>,
}

impl ApiError {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        ApiError { code, message: message.into(), hint: hint.into(), retry_after: None, allow: Vec::new() }
    }

    /// Tells the client when to try again.
    pub(super) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
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
        response.json(ErrorBody {
            error: ErrorDetail { code: self.code, message: self.message.clone(), hint: self.hint.clone() },
        })
    }
}

/// The status of a code.
pub(super) const fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest | ErrorCode::InvalidJson | ErrorCode::InvalidChannel => StatusCode::BAD_REQUEST,
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
            PublishError::Refused(_) => ApiError::new(ErrorCode::Refused, message, ""),
            PublishError::Backend(error) => error.into(),
        }
    }
}

impl From<ChannelError> for ApiError {
    fn from(error: ChannelError) -> Self {
        ApiError::new(ErrorCode::InvalidChannel, error.to_string(), "for example `news` or `room-1.door`")
    }
}
