use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::ApiError;
use crate::DialError;
use crate::channel::Connect;

/// Time for one request, dial included, unless set otherwise.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is read.
const LARGEST_ANSWER: usize = 64 << 20;

/// A client for JSON over HTTP/1.1 on connections of our own making; clones share one idle connection.
#[derive(Clone)]
pub struct JsonClient {
    connect: Arc<dyn Connect>,
    host: String,
    user_agent: Option<HeaderValue>,
    timeout: Duration,
    idle: Arc<Mutex<Option<Connection>>>,
}

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The server could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The server answered with an error.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The request took too long.
    #[error("{method} {path}: no answer from {host} within {after:?}")]
    Timeout {
        /// What was asked.
        method: Method,
        /// What was asked.
        path: String,
        /// Who was asked.
        host: String,
        /// For how long.
        after: Duration,
    },
    /// The connection broke or does not speak HTTP.
    #[error("{method} {path}: {problem}")]
    Http {
        /// What was asked.
        method: Method,
        /// What was asked.
        path: String,
        /// What happened.
        problem: String,
    },
    /// The answer is not what was expected.
    #[error("{method} {path}: the answer is not understood: {source}")]
    Json {
        /// What was asked.
        method: Method,
        /// What was asked.
        path: String,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

/// Failure of one attempt.
enum Attempt {
    /// The connection had ended before the request was sent; another one may be tried.
    Stale,
    Failed(String),
}

impl JsonClient {
    /// A client for the server that `connect` leads to; `host` is what it is called in requests.
    pub fn new(connect: Arc<dyn Connect>, host: impl Into<String>) -> Self {
        Self { connect, host: host.into(), user_agent: None, timeout: REQUEST_TIMEOUT, idle: Arc::default() }
    }

    /// Another limit for a whole request than 30 s: some logins wait for people.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The `User-Agent` to send; text that a header cannot carry is left out.
    #[must_use]
    pub fn with_user_agent(mut self, user_agent: &str) -> Self {
        self.user_agent = HeaderValue::from_str(user_agent).ok();
        self
    }

    /// GET. `path` begins with a slash and may have a query.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RequestError> {
        self.json(Method::GET, path, None::<&()>).await
    }

    /// POST with a JSON body. An answer without body reads as JSON `null`, so `()` fits it.
    pub async fn post<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, RequestError> {
        self.json(Method::POST, path, Some(body)).await
    }

    /// PUT with a JSON body; see [`JsonClient::post`].
    pub async fn put<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, RequestError> {
        self.json(Method::PUT, path, Some(body)).await
    }

    /// DELETE.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, RequestError> {
        self.json(Method::DELETE, path, None::<&()>).await
    }

    /// Any request; the answer's body as it came, errors of the server as [`RequestError::Api`].
    pub async fn bytes(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Bytes, RequestError> {
        let failed = |problem: String| RequestError::Http { method: method.clone(), path: path.to_owned(), problem };
        let mut request = Request::builder().method(method.clone()).uri(path).header(HOST, &self.host);
        if let Some(agent) = &self.user_agent {
            request = request.header(USER_AGENT, agent);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|error| failed(error.to_string()))?;
        let exchange = timeout(self.timeout, self.exchange(request, &failed)).await;
        let (status, body) = exchange.map_err(|_| RequestError::Timeout {
            method: method.clone(),
            path: path.to_owned(),
            host: self.host.clone(),
            after: self.timeout,
        })??;
        if (200..400).contains(&status.as_u16()) {
            Ok(body)
        } else {
            Err(ApiError::from_answer(status.as_u16(), &body).into())
        }
    }

    async fn json<B: Serialize + ?Sized, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, RequestError> {
        let json_error = |source| RequestError::Json { method: method.clone(), path: path.to_owned(), source };
        let (headers, body) = match body {
            Some(body) => (
                vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))],
                serde_json::to_vec(body).map_err(json_error)?.into(),
            ),
            None => (Vec::new(), Bytes::new()),
        };
        let answer = self.bytes(method.clone(), path, &headers, body).await?;
        let answer = if answer.is_empty() { Bytes::from_static(b"null") } else { answer };
        serde_json::from_slice(&answer).map_err(json_error)
    }

    /// Sends the request on the idle connection, or on a new one when there is none or it turns out to have ended.
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        failed: &impl Fn(String) -> RequestError,
    ) -> Result<(StatusCode, Bytes), RequestError> {
        let idle = self.idle.lock().await.take();
        if let Some(connection) = idle {
            match self.attempt(connection, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(Attempt::Failed(problem)) => return Err(failed(problem)),
                Err(Attempt::Stale) => {}
            }
        }
        let stream = self.connect.connect().await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| failed(describe(&error)))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP connection ended");
            }
        });
        let connection = Connection { sender, task: task.abort_handle() };
        self.attempt(connection, request).await.map_err(|attempt| match attempt {
            Attempt::Failed(problem) => failed(problem),
            Attempt::Stale => failed("the connection was closed before the request".to_owned()),
        })
    }

    async fn attempt(
        &self,
        mut connection: Connection,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), Attempt> {
        connection.sender.ready().await.map_err(|_| Attempt::Stale)?;
        let response = connection.sender.try_send_request(request).await.map_err(|mut error| {
            // The request comes back only when none of it was sent.
            if error.take_message().is_some() { Attempt::Stale } else { Attempt::Failed(describe(error.error())) }
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
        let body = body.map_err(|error| Attempt::Failed(format!("read the answer: {error}")))?.to_bytes();
        *self.idle.lock().await = Some(connection);
        Ok((status, body))
    }
}

impl std::fmt::Debug for JsonClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JsonClient").field("host", &self.host).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl RequestError {
    /// The error that the server answered with, if it did answer.
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            _ => None,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An error of hyper with its causes; its own text alone says little.
fn describe(error: &hyper::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
