//! The HTTP API on the service's port: JSON over the same client certificates as gRPC, for the few calls that never
//! moved to gRPC.
//!
//! Everything lies below a version segment, usually `/v2`; its value does not matter.

mod answer;
mod caller;
mod cluster;
mod integrity;
mod join;
mod login;
mod presence;
mod recordings;
#[cfg(test)]
mod tests;
mod tunnels;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{delete, get, post},
};

use crate::Auth;

/// Largest body of a request, in bytes: a resource with its labels fits many times over.
const MAX_BODY: usize = 512 * 1024;

/// The handlers of the API. They expect the [`Caller`](crate::Caller) in the extensions of a request, and treat
/// requests without one as anonymous.
pub fn router(auth: Auth) -> Router {
    Router::new()
        .route("/{version}/configuration/name", get(cluster::name))
        .route("/{version}/audit/integrity", get(integrity::verify))
        .route("/{version}/recordings/encryption", get(recordings::status))
        .route("/{version}/recordings/encryption/rotate", post(recordings::rotate))
        .route("/{version}/namespaces", get(cluster::namespaces))
        .route("/{version}/namespaces/{name}", get(cluster::namespace))
        .route("/{version}/tokens/register", post(join::register))
        .route("/{version}/users/{user}/ssh/authenticate", post(login::ssh))
        .route("/{version}/users/{user}/web/authenticate", post(login::web))
        .route("/{version}/users/{user}/web/sessions", post(login::extend_session))
        .route("/{version}/users/{user}/web/sessions/{id}", get(login::session).delete(login::delete_session))
        .route("/{version}/authservers", get(presence::auth_servers).post(presence::upsert_auth_server))
        .route(
            "/{version}/proxies",
            get(presence::proxies).post(presence::upsert_proxy).delete(presence::delete_all_proxies),
        )
        .route("/{version}/proxies/{name}", delete(presence::delete_proxy))
        .route("/{version}/reversetunnels", get(tunnels::reverse_tunnels).post(tunnels::upsert_reverse_tunnel))
        .route("/{version}/reversetunnels/{name}", delete(tunnels::delete_reverse_tunnel))
        .route("/{version}/tunnelconnections", get(tunnels::connections).post(tunnels::upsert_connection))
        .route("/{version}/tunnelconnections/{cluster}", get(tunnels::connections_of))
        .route("/{version}/tunnelconnections/{cluster}/{name}", delete(tunnels::delete_connection))
        .route("/{version}/trustedclusters/validate", post(tunnels::validate))
        .route("/{version}/remoteclusters", get(tunnels::remote_clusters))
        .route("/{version}/remoteclusters/{name}", get(tunnels::remote_cluster))
        .fallback(answer::unknown_path)
        .method_not_allowed_fallback(answer::unknown_path)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(auth)
}
