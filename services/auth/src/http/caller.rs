//! Who asks, as handlers see it.

use std::{convert::Infallible, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts};
use resources::SystemRole;
use wire::error::{Error, Result};

use crate::authz::AuthContext;
use crate::{Caller, Principal};

/// The peer of a request.
pub(super) struct By {
    pub(super) caller: Caller,
    context: Option<Arc<AuthContext>>,
}

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_else(|| Caller::anonymous(None));
        Ok(Self { caller, context: parts.extensions.get::<Arc<AuthContext>>().cloned() })
    }
}

impl By {
    /// Refuses peers without a certificate.
    pub(super) fn known(&self) -> Result<()> {
        match self.caller.principal {
            Principal::Anonymous => Err(denied()),
            _ => Ok(()),
        }
    }

    /// Refuses everybody but services of this cluster that hold one of the roles, and the administrator.
    pub(super) fn service(&self, roles: &[SystemRole]) -> Result<()> {
        if self.caller.is_admin() || roles.iter().any(|role| self.caller.has_role(*role)) {
            return Ok(());
        }
        Err(denied())
    }

    /// Refuses everybody but a service that speaks of itself, and the administrator.
    pub(super) fn itself(&self, role: SystemRole, name: &str) -> Result<()> {
        self.service(&[role])?;
        if self.caller.is_admin() || self.caller.host_id() == Some(name) {
            return Ok(());
        }
        Err(Error::access_denied(format!("access denied: {name:?} is not the caller")))
    }

    /// Refuses everybody but a user of this cluster by that name, a proxy, and the administrator.
    pub(super) fn user_or_proxy(&self, user: &str) -> Result<()> {
        if self.caller.local_user() == Some(user) {
            return Ok(());
        }
        self.service(&[SystemRole::Proxy])
    }

    /// Refuses everybody but services that hold one of the roles, and users whose roles allow it.
    pub(super) fn service_or_rule(&self, roles: &[SystemRole], kind: &str, verbs: &[&str]) -> Result<()> {
        if self.service(roles).is_ok() {
            return Ok(());
        }
        match &self.context {
            Some(context) => context.require(kind, verbs),
            None => Err(denied()),
        }
    }
}

fn denied() -> Error {
    Error::access_denied("access denied")
}
