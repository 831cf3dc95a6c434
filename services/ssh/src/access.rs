//! Who may do what on this node.
//!
//! The proxy has decided before, and is not believed: the certificate is checked here, and the roles decide here.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use pki::identity::Identity;
use rbac::{JoinMode, RoleSet, SessionOwner, SshPermit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::events::{SessionMetadata, UserMetadata};

use crate::audit::session_metadata;
use crate::session::{PartyMode, SessionHandle};

/// Who is connected, and what the roles permit.
pub(crate) struct Access {
    /// Name of the cluster's user.
    pub user: String,
    /// The Unix account asked for.
    pub login: String,
    /// What the certificate says.
    pub identity: Identity,
    /// What the roles permit.
    pub permit: SshPermit,
    /// The roles, for decisions that come later.
    pub roles: RoleSet,
    /// When the connection is to end, if certificates end connections here.
    pub ends: Option<DateTime<Utc>>,
    /// Places for session channels on this connection; `None` without a limit.
    places: Option<(Arc<Semaphore>, u64)>,
    /// Why nothing may be opened, although the login is right: a lock or a limit.
    refusal: Option<String>,
}

/// A place for a session channel, given back when dropped.
pub(crate) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// Name of the cluster's user, as far as it is known.
    pub user: String,
    /// The reason, in full: for the log.
    pub reason: String,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Access {
    /// What a permit and a certificate amount to.
    pub fn new(
        identity: Identity,
        login: &str,
        permit: SshPermit,
        roles: RoleSet,
        ends: Option<DateTime<Utc>>,
    ) -> Self {
        let max = permit.options.max_sessions.filter(|n| *n > 0);
        let places = max.map(|n| (Arc::new(Semaphore::new(usize::try_from(n).unwrap_or(Semaphore::MAX_PERMITS))), n));
        let user = identity.username.clone();
        Self { user, login: login.to_owned(), identity, permit, roles, ends, places, refusal: None }
    }

    /// The same, with a reason for which every channel is refused.
    pub fn refused(mut self, reason: String) -> Self {
        self.refusal = Some(reason);
        self
    }

    /// Why nothing may be opened.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// A place for one more session channel, unless the roles' limit is reached.
    pub fn session_channel(&self) -> Option<Place> {
        match &self.places {
            None => Some(Place { _permit: None }),
            Some((places, _)) => places.clone().try_acquire_owned().ok().map(|permit| Place { _permit: Some(permit) }),
        }
    }

    /// What a client over the limit is told.
    pub fn too_many_channels(&self) -> String {
        let max = self.places.as_ref().map_or(0, |(_, max)| *max);
        format!("too many session channels for user {:?} (max={max})", self.user)
    }

    /// Whether the user may become a party of a session.
    pub fn may_join(&self, session: &SessionHandle, mode: PartyMode) -> bool {
        let owner = SessionOwner { user: &session.owner, policies: &session.policies };
        let wanted = match mode {
            PartyMode::Observer => JoinMode::Observer,
            PartyMode::Moderator => JoinMode::Moderator,
            PartyMode::Peer => JoinMode::Peer,
        };
        self.roles.join_modes(&self.user, owner, "ssh").contains(&wanted)
    }

    /// The part of an event that names the user.
    pub fn user_metadata(&self) -> UserMetadata {
        UserMetadata {
            user: self.user.clone(),
            login: self.login.clone(),
            impersonator: self.identity.impersonator.clone(),
            access_requests: self.identity.active_requests.clone(),
            bot_name: self.identity.bot_name.clone(),
            bot_instance_id: self.identity.bot_instance_id.clone(),
            user_kind: if self.identity.bot_name.is_empty() { 1 } else { 2 },
            ..Default::default()
        }
    }

    /// The part of an event that names a session.
    pub fn session_metadata(&self, id: &str) -> SessionMetadata {
        session_metadata(id, &self.identity.mfa_verified, &self.identity.private_key_policy)
    }
}
