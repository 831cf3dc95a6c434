//! The gate that every call passes.

use std::sync::Arc;

use mux::rate::Rate;
use parking_lot::Mutex;
use resources::SystemRole;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wire::error::{Error, Result};

use super::limits::Limits;
use super::permissions::{self, Rule};
use super::{AuthContext, context};
use crate::caller::Principal;
use crate::{Auth, Caller};

/// The other end of a connection.
pub struct Peer {
    /// The caller, or why its certificate is of no use here.
    caller: Result<Caller>,
    /// The context of the last call, with the generation of the policy it was made under.
    context: Mutex<Option<(u64, Arc<AuthContext>)>>,
    refused: CancellationToken,
}

impl Peer {
    /// A peer with what its certificate says.
    pub fn new(caller: Result<Caller>) -> Self {
        Self { caller, context: Mutex::default(), refused: CancellationToken::new() }
    }

    /// The name of the caller, for logs.
    pub fn name(&self) -> String {
        self.caller.as_ref().map_or_else(|_| "refused".to_owned(), Caller::user_name)
    }

    /// Closes the connection once the answers in progress are sent.
    pub fn refuse(&self) {
        self.refused.cancel();
    }

    /// Waits for [`refuse`](Self::refuse).
    pub async fn refused(&self) {
        self.refused.cancelled().await;
    }
}

/// Decides who may make which call.
pub struct Authorizer {
    auth: Auth,
    limits: Limits,
}

impl Authorizer {
    /// Decides by what the core of the service stores; `rates` bound the calls of one address.
    pub fn new(auth: Auth, rates: &[Rate]) -> Self {
        Self { auth, limits: Limits::new(rates) }
    }

    /// The context of a peer's calls.
    ///
    /// # Errors
    /// `AccessDenied` for certificates that are of no use here, for users who no longer exist, and with the lock's
    /// message for whoever is locked; `BadParameter` when the private key does not satisfy the roles' policy.
    pub async fn context(&self, peer: &Peer) -> Result<Arc<AuthContext>> {
        let caller = peer.caller.as_ref().map_err(Clone::clone)?;
        if !is_anonymous(caller) {
            // Whoever heard of a write from another Auth Service on the same storage sees it here as well. Strangers
            // do not make the storage work.
            self.auth.store().refresh().await;
        }
        let generation = self.auth.store().policy_generation();
        let kept = peer.context.lock().clone();
        let context = match kept {
            Some((of, context)) if of == generation => context,
            _ => {
                let context = Arc::new(context::build(&self.auth, caller.clone()).await?);
                *peer.context.lock() = Some((generation, Arc::clone(&context)));
                context
            }
        };
        // Locks and requests end by the clock, without any change.
        context.check_in_force(&self.auth)?;
        Ok(context)
    }

    /// Counts a call of the HTTP API, which checks everything else itself.
    ///
    /// # Errors
    /// `LimitExceeded`.
    pub fn count(&self, context: &AuthContext, path: &str) -> Result<()> {
        self.limits.check(context, path)
    }

    /// Lets a call pass, as far as that can be said without reading its message.
    ///
    /// # Errors
    /// The status to answer with. A call without a row in the table is unknown to everybody.
    pub async fn admit(&self, peer: &Peer, path: &str) -> Result<Arc<AuthContext>, Status> {
        let Some(rule) = permissions::rule(path) else {
            return Err(Status::unimplemented(match permissions::missing(path) {
                Some(missing) => format!("{path}: {} is not part of this build yet", missing.describe()),
                None => format!("unknown method {path}"),
            }));
        };
        if rule != Rule::Anyone && peer.caller.as_ref().is_ok_and(is_anonymous) {
            return Err(needs_certificate().into());
        }
        self.auth.0.metrics.call(path);
        let context = self.context(peer).await?;
        self.limits.check(&context, path)?;
        allow(&context, rule).inspect_err(|error| {
            tracing::debug!(caller = %context.username(), call = path, %error, "call refused");
        })?;
        Ok(context)
    }
}

fn is_anonymous(caller: &Caller) -> bool {
    caller.principal == Principal::Anonymous
}

fn needs_certificate() -> Error {
    Error::access_denied("access denied: this call needs a client certificate")
}

/// Applies a rule of the table.
fn allow(context: &AuthContext, rule: Rule) -> Result<()> {
    if rule == Rule::Anyone {
        return Ok(());
    }
    if context.is_anonymous() {
        return Err(needs_certificate());
    }
    let denied = |who: &str| Err(Error::access_denied(format!("access denied: this call is for {who}")));
    match rule {
        Rule::Anyone | Rule::AnyAuthenticated | Rule::Message(_) => Ok(()),
        Rule::Users if context.is_person() => Ok(()),
        Rule::Users => denied("users"),
        _ if context.is_admin() => Ok(()),
        Rule::Builtin(roles) | Rule::OwnServerOnly(roles) => {
            let remote = roles.contains(&SystemRole::RemoteProxy) && context.remote_proxy_cluster().is_some();
            if remote || roles.iter().any(|role| context.has_role(*role)) {
                Ok(())
            } else {
                denied("services of other roles")
            }
        }
        Rule::Verbs(kind, verbs) => context.require(kind, verbs),
        Rule::SelfOrVerbs(..) if context.is_person() => Ok(()),
        Rule::SelfOrVerbs(kind, verbs) => context.require(kind, verbs),
        Rule::Object(kind, verbs) => context.require_possible(kind, verbs),
    }
}
