//! Who may do what on this node.
//!
//! The proxy has decided before, and is not believed: the certificate is checked here, and the roles decide here.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use pki::identity::Identity;
use process::leases::Lease;
use rbac::{JoinMode, Participant, RoleSet, SessionOwner, SshPermit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::events::{ConnectionMetadata, SessionMetadata, UserMetadata};

use crate::session::{Moderation, SessionHandle, Who};

/// Who is connected, and what the roles permit.
pub(crate) struct Access {
    /// Name of the cluster's user.
    pub user: String,
    /// What the user is called here: users of trusted clusters are not to be taken for users of this one.
    pub local_name: String,
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
    /// Why nothing may be opened, although the login is right.
    refusal: Option<Refused>,
    /// A place among the user's simultaneous connections, where they are limited.
    lease: Option<Lease>,
}

/// Why nothing may be opened although the login is right: a lock, a limit, the kind of key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What the client reads.
    pub message: String,
    /// What the audit log says.
    pub reason: String,
    /// The limit that is reached; 0 when it is none.
    pub maximum: u64,
}

impl Refused {
    /// A reason that is told to the client and to the log.
    pub fn because(reason: String) -> Self {
        Self { message: reason.clone(), reason, maximum: 0 }
    }
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
        local_name: String,
        login: &str,
        permit: SshPermit,
        roles: RoleSet,
        ends: Option<DateTime<Utc>>,
    ) -> Self {
        let max = permit.options.max_sessions.filter(|n| *n > 0);
        let places = max.map(|n| (Arc::new(Semaphore::new(usize::try_from(n).unwrap_or(Semaphore::MAX_PERMITS))), n));
        let user = identity.username.clone();
        let login = login.to_owned();
        Self { user, local_name, login, identity, permit, roles, ends, places, refusal: None, lease: None }
    }

    /// From now on every channel is refused.
    pub fn refuse(&mut self, refused: Refused) {
        self.refusal = Some(refused);
    }

    /// Keeps a place among the user's connections.
    pub fn hold(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// Hands the place over to the connection.
    pub fn take_lease(&mut self) -> Option<Lease> {
        self.lease.take()
    }

    /// Why nothing may be opened.
    pub fn refusal(&self) -> Option<&Refused> {
        self.refusal.as_ref()
    }

    /// A place for one more session channel, unless the roles' limit is reached.
    pub fn session_channel(&self) -> Option<Place> {
        match &self.places {
            None => Some(Place { _permit: None }),
            Some((places, _)) => places.clone().try_acquire_owned().ok().map(|permit| Place { _permit: Some(permit) }),
        }
    }

    /// What a client over the limit of session channels is told.
    pub fn too_many_channels(&self) -> Refused {
        let maximum = self.places.as_ref().map_or(0, |(_, max)| *max);
        Refused {
            message: format!("too many session channels for user {:?} (max={maximum})", self.user),
            reason: "max_sessions limit reached".to_owned(),
            maximum,
        }
    }

    /// Whether the user may become a party of a session.
    pub fn may_join(&self, session: &SessionHandle, mode: JoinMode) -> bool {
        let owner = SessionOwner { user: &session.owner, policies: &session.policies };
        self.roles.join_modes(&self.local_name, owner, "ssh").contains(&mode)
    }

    /// What the user's roles demand of sessions; `None` when nobody else has to be present.
    pub fn moderation(&self, shows_requirements: bool) -> Option<Moderation> {
        Moderation::of(&self.user, self.roles.session_policies(), shows_requirements)
    }

    /// The user as somebody at a session's terminal. `login` is the account the session runs as.
    pub fn who(&self, mode: JoinMode, login: &str, connection: ConnectionMetadata) -> Who {
        let roles = &self.identity.groups;
        let traits = serde_json::to_value(&self.identity.traits).unwrap_or_default();
        let record = serde_json::json!({
            "name": self.user, "roles": roles, "traits": traits,
            "spec": {"name": self.user, "roles": roles, "traits": traits},
        });
        Who {
            local_name: self.local_name.clone(),
            user: UserMetadata { login: login.to_owned(), ..self.user_metadata() },
            connection,
            participant: Participant::new(&self.user, &record, self.roles.clone(), mode),
        }
    }

    /// The part of an event that names the user.
    pub fn user_metadata(&self) -> UserMetadata {
        process::said::user_metadata(&self.identity, &self.login)
    }

    /// The part of an event that names a session.
    pub fn session_metadata(&self, id: &str) -> SessionMetadata {
        process::said::session_metadata(id, &self.identity)
    }
}
