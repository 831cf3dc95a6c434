//! Auth and Proxy Services that announce themselves.

use std::collections::HashMap;

use axum::extract::{Path, State};
use chrono::TimeDelta;
use resources::{Resource, SystemRole};
use serde::Deserialize;
use wire::types::ServerV2;

use super::{
    answer::{Answer, Done, Json, done},
    caller::By,
    cluster::part,
};
use crate::{Auth, store::kind};

/// A server that announces itself.
#[derive(Deserialize)]
pub(super) struct ServerRequest {
    server: ServerV2,
    /// Nanoseconds; 0 leaves the expiry of the server.
    #[serde(default)]
    ttl: i64,
}

impl ServerRequest {
    fn server(mut self, auth: &Auth) -> ServerV2 {
        if self.ttl > 0 {
            self.server.set_expires(Some(auth.now() + TimeDelta::nanoseconds(self.ttl)));
        }
        self.server
    }
}

/// `GET /authservers`.
pub(super) async fn auth_servers(State(auth): State<Auth>, by: By) -> Answer<Vec<ServerV2>> {
    by.known()?;
    Ok(Json(auth.store().cached_list::<kind::AuthServer>().iter().map(|server| (**server).clone()).collect()))
}

/// `POST /authservers`.
pub(super) async fn upsert_auth_server(
    State(auth): State<Auth>,
    by: By,
    Json(request): Json<ServerRequest>,
) -> Answer<Done> {
    by.itself(SystemRole::Auth, request.server.name())?;
    auth.upsert_auth_server(request.server(&auth), by.caller.remote_addr).await?;
    Ok(done())
}

/// `GET /proxies`.
pub(super) async fn proxies(State(auth): State<Auth>, by: By) -> Answer<Vec<ServerV2>> {
    by.known()?;
    Ok(Json(auth.store().cached_list::<kind::Proxy>().iter().map(|server| (**server).clone()).collect()))
}

/// `POST /proxies`.
pub(super) async fn upsert_proxy(State(auth): State<Auth>, by: By, Json(request): Json<ServerRequest>) -> Answer<Done> {
    by.itself(SystemRole::Proxy, request.server.name())?;
    auth.upsert_proxy(request.server(&auth), by.caller.remote_addr).await?;
    Ok(done())
}

/// `DELETE /proxies`.
pub(super) async fn delete_all_proxies(State(auth): State<Auth>, by: By) -> Answer<Done> {
    by.service_or_rule(&[], "proxy", &["list", "delete"])?;
    auth.store().delete_all::<kind::Proxy>().await?;
    Ok(done())
}

/// `DELETE /proxies/<id>`.
pub(super) async fn delete_proxy(
    State(auth): State<Auth>,
    by: By,
    Path(path): Path<HashMap<String, String>>,
) -> Answer<Done> {
    let name = part(&path, "name")?;
    if by.itself(SystemRole::Proxy, name).is_err() {
        by.service_or_rule(&[], "proxy", &["delete"])?;
    }
    auth.store().delete::<kind::Proxy>(name).await?;
    Ok(done())
}
