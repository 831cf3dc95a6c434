use std::fmt;

use wire::error::{Error, ErrorKind, Kinded};

/// The answer to "may this identity do this?", always with its reason.
#[derive(Clone, Debug)]
#[must_use]
pub enum Decision<P = Permit> {
    /// Yes, within these bounds.
    Allow(P),
    /// No.
    Deny(Denial),
}

impl<P> Decision<P> {
    /// Whether the answer is yes.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// The answer as a result, for `?`.
    ///
    /// # Errors
    /// The denial.
    pub fn into_result(self) -> Result<P, Denial> {
        match self {
            Self::Allow(permit) => Ok(permit),
            Self::Deny(denial) => Err(denial),
        }
    }

    /// The denial, when there is one.
    pub fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Allow(_) => None,
            Self::Deny(denial) => Some(denial),
        }
    }
}

impl<P> From<Result<P, Denial>> for Decision<P> {
    fn from(result: Result<P, Denial>) -> Self {
        match result {
            Ok(permit) => Self::Allow(permit),
            Err(denial) => Self::Deny(denial),
        }
    }
}

/// Permission for an action that needs no bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    /// The role that allows it.
    pub role: String,
    /// The part of the role: `allow.rules[3]`.
    pub field: String,
}

/// What kind of refusal it is; callers react to some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No role allows it.
    NotGranted,
    /// A role denies it.
    Denied,
    /// It is allowed once a second factor was used for this session.
    MfaRequired,
    /// It is allowed from a trusted device only.
    TrustedDeviceRequired,
    /// The identity is bound to other resources.
    OtherResources,
    /// A lock is in force.
    Locked,
}

/// A refusal with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What kind of refusal it is.
    pub cause: Cause,
    /// What the user reads.
    pub message: String,
    /// The role that decided, when one did.
    pub role: Option<String>,
    /// The field of that role: `deny.logins`.
    pub field: Option<String>,
    /// The reason in words, for administrators: may name labels and roles that the user should not see.
    pub detail: String,
}

impl Denial {
    /// A refusal that no single role decided.
    pub fn new(cause: Cause, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { cause, detail: message.clone(), message, role: None, field: None }
    }

    pub(crate) fn by(mut self, role: &str, field: impl Into<String>, detail: impl Into<String>) -> Self {
        self.role = Some(role.to_owned());
        self.field = Some(field.into());
        self.detail = detail.into();
        self
    }

    pub(crate) fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Whether a role said no, as opposed to no role saying yes.
    pub fn is_explicit(&self) -> bool {
        self.cause == Cause::Denied
    }

    /// Who decided and why, in one line for logs and for administrators.
    pub fn explanation(&self) -> String {
        match (&self.role, &self.field) {
            (Some(role), Some(field)) => format!("role {role:?}, {field}: {}", self.detail),
            _ => self.detail.clone(),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Denial {}

impl Kinded for Denial {
    fn kind(&self) -> ErrorKind {
        ErrorKind::AccessDenied
    }
}

impl From<Denial> for Error {
    fn from(denial: Denial) -> Self {
        Self::access_denied(denial.message)
    }
}
