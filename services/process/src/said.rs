//! What events of services say about people and connections.

use std::net::SocketAddr;

use pki::identity::Identity;
use wire::events::{ConnectionMetadata, SessionMetadata, UserMetadata};

/// The kinds of users in events.
const HUMAN: i32 = 1;
const BOT: i32 = 2;

/// The part of an event that names the user and the account.
pub fn user_metadata(identity: &Identity, login: &str) -> UserMetadata {
    UserMetadata {
        user: identity.username.clone(),
        login: login.to_owned(),
        impersonator: identity.impersonator.clone(),
        access_requests: identity.active_requests.clone(),
        bot_name: identity.bot_name.clone(),
        bot_instance_id: identity.bot_instance_id.clone(),
        user_kind: if identity.bot_name.is_empty() { HUMAN } else { BOT },
        ..Default::default()
    }
}

/// The part of an event that names a session, with how its user proved who they are.
pub fn session_metadata(id: &str, identity: &Identity) -> SessionMetadata {
    SessionMetadata {
        session_id: id.to_owned(),
        with_mfa: identity.mfa_verified.clone(),
        private_key_policy: identity.private_key_policy.clone(),
    }
}

/// The part of an event that says who was connected to what.
pub fn connection_metadata(client: SocketAddr, server: SocketAddr) -> ConnectionMetadata {
    ConnectionMetadata { local_addr: server.to_string(), remote_addr: client.to_string(), protocol: "ssh".into() }
}
