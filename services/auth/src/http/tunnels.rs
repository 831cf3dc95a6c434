//! Tunnels between clusters, and the clusters at their other ends.

use std::{collections::HashMap, sync::Arc};

use axum::extract::{Path, State};
use chrono::TimeDelta;
use resources::{Resource, SystemRole};
use serde::Deserialize;
use wire::{
    error::Error,
    types::{RemoteClusterV3, ReverseTunnelV2, TunnelConnectionV2},
};

use super::{
    answer::{Answer, Done, Json, done},
    caller::By,
    cluster::part,
};
use crate::{
    Auth,
    store::{kind, kind::Kind},
    trusted::{ValidateRequest, ValidateResponse},
};

/// A tunnel to another cluster.
#[derive(Deserialize)]
pub(super) struct ReverseTunnelRequest {
    reverse_tunnel: ReverseTunnelV2,
    /// Nanoseconds; 0 means forever.
    #[serde(default)]
    ttl: i64,
}

/// The end of a tunnel at a proxy.
#[derive(Deserialize)]
pub(super) struct TunnelConnectionRequest {
    tunnel_connection: TunnelConnectionV2,
}

/// `GET /reversetunnels`.
pub(super) async fn reverse_tunnels(State(auth): State<Auth>, by: By) -> Answer<Vec<ReverseTunnelV2>> {
    by.known()?;
    Ok(Json(owned::<kind::ReverseTunnel>(&auth)))
}

/// `POST /reversetunnels`.
pub(super) async fn upsert_reverse_tunnel(
    State(auth): State<Auth>,
    by: By,
    Json(mut request): Json<ReverseTunnelRequest>,
) -> Answer<Done> {
    by.service_or_rule(&[SystemRole::Proxy], "tunnel", &["create", "update"])?;
    request.reverse_tunnel.check_and_set_defaults().map_err(Error::from)?;
    if request.ttl > 0 {
        request.reverse_tunnel.set_expires(Some(auth.now() + TimeDelta::nanoseconds(request.ttl)));
    }
    auth.store().upsert::<kind::ReverseTunnel>(request.reverse_tunnel).await?;
    Ok(done())
}

/// `DELETE /reversetunnels/<name>`.
pub(super) async fn delete_reverse_tunnel(
    State(auth): State<Auth>,
    by: By,
    Path(path): Path<HashMap<String, String>>,
) -> Answer<Done> {
    by.service_or_rule(&[SystemRole::Proxy], "tunnel", &["delete"])?;
    auth.store().delete::<kind::ReverseTunnel>(part(&path, "name")?).await?;
    Ok(done())
}

/// `POST /trustedclusters/validate`: a leaf shows a token at a proxy of this cluster.
pub(super) async fn validate(
    State(auth): State<Auth>,
    by: By,
    Json(request): Json<ValidateRequest>,
) -> Answer<ValidateResponse> {
    by.service(&[SystemRole::Proxy])?;
    Ok(Json(auth.validate_trusted_cluster(&request).await?))
}

/// `GET /tunnelconnections`.
pub(super) async fn connections(State(auth): State<Auth>, by: By) -> Answer<Vec<TunnelConnectionV2>> {
    by.service(&[SystemRole::Proxy])?;
    Ok(Json(owned::<kind::TunnelConnection>(&auth)))
}

/// `GET /tunnelconnections/<cluster>`.
pub(super) async fn connections_of(
    State(auth): State<Auth>,
    by: By,
    Path(path): Path<HashMap<String, String>>,
) -> Answer<Vec<TunnelConnectionV2>> {
    by.service(&[SystemRole::Proxy])?;
    let cluster = part(&path, "cluster")?;
    let mut connections = owned::<kind::TunnelConnection>(&auth);
    connections.retain(|connection| connection.spec.as_ref().is_some_and(|spec| spec.cluster_name == cluster));
    Ok(Json(connections))
}

/// `POST /tunnelconnections`.
pub(super) async fn upsert_connection(
    State(auth): State<Auth>,
    by: By,
    Json(mut request): Json<TunnelConnectionRequest>,
) -> Answer<Done> {
    by.service(&[SystemRole::Proxy])?;
    request.tunnel_connection.check_and_set_defaults().map_err(Error::from)?;
    if request.tunnel_connection.expires().is_none() {
        request.tunnel_connection.set_expires(Some(auth.now() + crate::SERVER_TTL));
    }
    auth.store().upsert::<kind::TunnelConnection>(request.tunnel_connection).await?;
    Ok(done())
}

/// `DELETE /tunnelconnections/<cluster>/<name>`.
pub(super) async fn delete_connection(
    State(auth): State<Auth>,
    by: By,
    Path(path): Path<HashMap<String, String>>,
) -> Answer<Done> {
    by.service(&[SystemRole::Proxy])?;
    let name = format!("{}/{}", part(&path, "cluster")?, part(&path, "name")?);
    auth.store().delete::<kind::TunnelConnection>(&name).await?;
    Ok(done())
}

/// `GET /remoteclusters`: for services; users list clusters through gRPC, which knows their roles.
pub(super) async fn remote_clusters(State(auth): State<Auth>, by: By) -> Answer<Vec<RemoteClusterV3>> {
    by.service(&[SystemRole::Proxy, SystemRole::Auth])?;
    Ok(Json(owned::<kind::RemoteCluster>(&auth).iter().map(|cluster| auth.with_status(cluster)).collect()))
}

/// `GET /remoteclusters/<name>`.
pub(super) async fn remote_cluster(
    State(auth): State<Auth>,
    by: By,
    Path(path): Path<HashMap<String, String>>,
) -> Answer<RemoteClusterV3> {
    by.service(&[SystemRole::Proxy, SystemRole::Auth])?;
    let cluster = auth.store().cached::<kind::RemoteCluster>(part(&path, "name")?)?;
    Ok(Json(auth.with_status(&cluster)))
}

fn owned<K: Kind>(auth: &Auth) -> Vec<K::Value> {
    auth.store().cached_list::<K>().into_iter().map(Arc::unwrap_or_clone).collect()
}
