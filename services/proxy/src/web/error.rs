//! Errors of the web API in the form clients read.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use wire::error::{Error, ErrorKind};

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct WebError(pub Error);

/// What handlers return.
pub(crate) type WebResult<T = Response> = Result<T, WebError>;

impl WebError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Error::new(kind, message))
    }

    /// What everybody without valid credentials is told, whatever was wrong with them.
    pub(crate) fn invalid_credentials() -> Self {
        Self::new(ErrorKind::AccessDenied, "invalid credentials")
    }
}

impl From<Error> for WebError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<tonic::Status> for WebError {
    fn from(status: tonic::Status) -> Self {
        Self(Error::from(status))
    }
}

impl IntoResponse for WebError {
    fn into_response(self) -> Response {
        let body = json!({"error": {"message": self.0.message}, "message": self.0.message});
        let status =
            StatusCode::from_u16(self.0.kind.http_status().as_u16()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(body)).into_response()
    }
}
