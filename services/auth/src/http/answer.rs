//! How answers look: JSON, failures with their message in two places because clients look in either.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use wire::error::{Error, ErrorKind};

/// What a handler returns.
pub(super) type Answer<T> = Result<Json<T>, Failure>;

/// A failure on its way to the client.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Error);

/// A JSON body, in or out.
pub(super) struct Json<T>(pub(super) T);

/// What writes answer that have nothing to say.
#[derive(Serialize)]
pub(super) struct Done {
    message: &'static str,
}

/// The answer of a write that went well.
pub(super) fn done() -> Json<Done> {
    Json(Done { message: "ok" })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let message = &self.0.message;
        let body = json!({ "error": { "message": message }, "traces": null, "message": message });
        (self.0.kind.http_status(), json_type(), body.to_string()).into_response()
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => (StatusCode::OK, json_type(), body).into_response(),
            Err(e) => Failure(Error::other(format!("the answer cannot be written: {e}"))).into_response(),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    /// Reads the body whatever its content type: clients of this API have never been careful about it.
    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let body = Bytes::from_request(request, state).await.map_err(|e| {
            let kind = match e.status() {
                StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::LimitExceeded,
                _ => ErrorKind::BadParameter,
            };
            Failure(Error::new(kind, format!("request body: {e}")))
        })?;
        serde_json::from_slice(&body).map(Self).map_err(|e| Failure(Error::bad_parameter(format!("request body: {e}"))))
    }
}

/// The answer to paths and methods that do not exist.
pub(super) async fn unknown_path() -> Failure {
    Failure(Error::not_found("no such path or method"))
}

fn json_type() -> [(header::HeaderName, &'static str); 1] {
    [(header::CONTENT_TYPE, "application/json")]
}
