use std::fmt;

use serde::Deserialize;

/// What kind of failure a server reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such object, or no such call on an older server.
    NotFound,
    /// The request makes no sense.
    BadParameter,
    /// The server does not know how.
    NotImplemented,
    /// The object has changed in between.
    CompareFailed,
    /// Not allowed, or not authenticated.
    AccessDenied,
    /// The object is there already.
    AlreadyExists,
    /// Too many requests.
    LimitExceeded,
    /// The server could not reach what it needs.
    ConnectionProblem,
    /// Anything else.
    Other,
}

/// An error that a server answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The class that the status stands for.
    pub kind: ErrorKind,
    /// What the server said; the class's name when it said nothing.
    pub message: String,
    /// What was added on the way, outermost last.
    pub messages: Vec<String>,
}

impl ErrorKind {
    /// The class of an HTTP status.
    pub fn from_status(status: u16) -> Self {
        match status {
            404 => Self::NotFound,
            400 => Self::BadParameter,
            501 => Self::NotImplemented,
            412 => Self::CompareFailed,
            401 | 403 => Self::AccessDenied,
            409 => Self::AlreadyExists,
            429 => Self::LimitExceeded,
            504 => Self::ConnectionProblem,
            _ => Self::Other,
        }
    }

    /// The HTTP status of the class.
    pub fn status(self) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::BadParameter => 400,
            Self::NotImplemented => 501,
            Self::CompareFailed => 412,
            Self::AccessDenied => 403,
            Self::AlreadyExists => 409,
            Self::LimitExceeded => 429,
            Self::ConnectionProblem => 504,
            Self::Other => 500,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "object not found",
            Self::BadParameter => "bad parameter",
            Self::NotImplemented => "not implemented",
            Self::CompareFailed => "compare failed",
            Self::AccessDenied => "access denied",
            Self::AlreadyExists => "object already exists",
            Self::LimitExceeded => "limit exceeded",
            Self::ConnectionProblem => "connection problem",
            Self::Other => "internal server error",
        }
    }
}

impl ApiError {
    /// Reads the body of an answer whose status is not a success.
    ///
    /// The body is `{"error": {"message": …}, "messages": […]}`, `{"message": …}`, or any text, which is shown whole.
    pub fn from_answer(status: u16, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            error: Option<Inner>,
            message: Option<String>,
            #[serde(default)]
            messages: Option<Vec<String>>,
        }
        #[derive(Deserialize)]
        struct Inner {
            message: Option<String>,
        }
        let kind = ErrorKind::from_status(status);
        let (message, messages) = match serde_json::from_slice::<Body>(body) {
            Ok(Body { error: Some(inner), messages, .. }) => (inner.message.unwrap_or_default(), messages),
            Ok(Body { message, messages, .. }) => (message.unwrap_or_default(), messages),
            Err(_) => (String::from_utf8_lossy(body).trim().to_owned(), None),
        };
        let message = if message.is_empty() { kind.text().to_owned() } else { message };
        Self { status, kind, message, messages: messages.unwrap_or_default() }
    }
}

/// The outermost addition first, what it belongs to indented below.
impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, message) in self.messages.iter().rev().enumerate() {
            writeln!(f, "{:depth$}{message}", "", depth = depth * 2)?;
        }
        write!(f, "{:depth$}{}", "", self.message, depth = self.messages.len() * 2)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_of_every_form_are_read() {
        let read = |status, body: &str| {
            let error = ApiError::from_answer(status, body.as_bytes());
            (error.kind, error.to_string())
        };
        let cases = [
            (403, r#"{"error":{"message":"no"}}"#, ErrorKind::AccessDenied, "no"),
            (404, r#"{"message":"gone","traces":[]}"#, ErrorKind::NotFound, "gone"),
            (404, "404 page not found\n", ErrorKind::NotFound, "404 page not found"),
            (403, "", ErrorKind::AccessDenied, "access denied"),
            (404, r#"{"error":{}}"#, ErrorKind::NotFound, "object not found"),
            (401, "{}", ErrorKind::AccessDenied, "access denied"),
            (502, "<html>bad gateway</html>", ErrorKind::Other, "<html>bad gateway</html>"),
            (
                400,
                r#"{"error":{"message":"inner"},"messages":["near","far"]}"#,
                ErrorKind::BadParameter,
                "far\n  near\n    inner",
            ),
            (500, r#"{"error":{"message":"x"},"messages":null,"fields":{"a":1}}"#, ErrorKind::Other, "x"),
        ];
        for (status, body, kind, text) in cases {
            assert_eq!(read(status, body), (kind, text.to_owned()), "{body}");
        }
    }

    #[test]
    fn classes_and_statuses_correspond() {
        for status in [404, 400, 501, 412, 403, 409, 429, 504, 500] {
            assert_eq!(ErrorKind::from_status(status).status(), status);
        }
    }
}
