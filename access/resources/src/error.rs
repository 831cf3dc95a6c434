use wire::error::{ErrorKind, Kinded};

/// Why a resource was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// The text is not YAML or JSON.
    #[error("invalid YAML: {0}")]
    Syntax(String),
    /// The text holds no resource.
    #[error("no resources found: the input is empty")]
    Empty,
    /// A document without a kind.
    #[error("missing kind: every resource names its kind, such as \"kind: role\"")]
    NoKind,
    /// A kind that does not exist, or cannot be written by administrators.
    #[error("resource kind {kind:?} is not supported{hint}")]
    UnknownKind {
        /// The kind as written.
        kind: String,
        /// A suggestion with its leading punctuation, or nothing.
        hint: String,
    },
    /// A field that does not exist or whose value has the wrong form.
    #[error("{path}: {problem}")]
    Field {
        /// Where in the document: `spec.allow.logins`.
        path: String,
        /// What is wrong, what was expected and what was found.
        problem: String,
    },
    /// Several fields that do not exist or have the wrong form.
    #[error("{}", join(.0))]
    Fields(Vec<ResourceError>),
    /// A value or a combination of values that is refused.
    #[error("{0}")]
    Invalid(String),
    /// An error with the document it happened in.
    #[error("{document}: {error}")]
    In {
        /// Such as `role "dev"` or `document 2`.
        document: String,
        /// What went wrong.
        #[source]
        error: Box<ResourceError>,
    },
}

/// Shorthand for a result with [`ResourceError`].
pub type Result<T, E = ResourceError> = std::result::Result<T, E>;

impl ResourceError {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(crate) fn field(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field { path: path.into(), problem: problem.into() }
    }

    pub(crate) fn within(self, document: impl Into<String>) -> Self {
        Self::In { document: document.into(), error: Box::new(self) }
    }
}

fn join(errors: &[ResourceError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Kinded for ResourceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownKind { .. } => ErrorKind::NotImplemented,
            Self::In { error, .. } => error.kind(),
            _ => ErrorKind::BadParameter,
        }
    }
}

impl From<ResourceError> for wire::error::Error {
    fn from(error: ResourceError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
