//! Agents that say they are still there, for records that they keep of what they serve.

use chrono::{DateTime, Utc};
use futures::StreamExt;
use tonic::Streaming;
use wire::error::{Error, Result};
use wire::time;
use wire::types::{KeepAlive, keep_alive::KeepAliveType};

use super::{Api, kinds, named};
use crate::SERVER_TTL;
use crate::authz::AuthContext;
use crate::store::kind::{self, Kind};

/// Prolongs records until the agent has no more to say.
pub async fn send_keep_alives(api: &Api, context: &AuthContext, mut stream: Streaming<KeepAlive>) -> Result<()> {
    let closing = api.closing();
    let metrics = &api.auth().0.metrics;
    metrics.heartbeats();
    let mut kept = None;
    loop {
        let message = tokio::select! {
            message = stream.next() => message,
            () = closing.cancelled() => return Err(Error::connection_problem("the Auth Service is going down")),
        };
        match message {
            Some(Ok(message)) => {
                let kind = prolong(api, context, &message).await?;
                kept.get_or_insert_with(|| metrics.kept(kind));
            }
            Some(Err(status)) => return Err(status.into()),
            None => return Ok(()),
        }
    }
}

/// Prolongs a record, and says of which kind of thing.
async fn prolong(api: &Api, context: &AuthContext, message: &KeepAlive) -> Result<&'static str> {
    context.check_in_force(api.auth())?;
    let of = KeepAliveType::try_from(message.r#type).unwrap_or_default();
    // These are named by their host; everything else lies under the host that serves it.
    let host = match of {
        KeepAliveType::Node | KeepAliveType::WindowsDesktop | KeepAliveType::DatabaseService => &message.name,
        _ => &message.host_id,
    };
    let host = named(host, "HostID")?;
    if !context.is_admin() {
        context.require_own_server(host)?;
    }
    let latest = api.auth().now() + SERVER_TTL;
    let until = time::moment(message.expires.as_ref()).map_or(latest, |at| at.min(latest));
    match of {
        KeepAliveType::Node => keep::<kind::Node>(api, host, until).await.map(|()| "node"),
        KeepAliveType::App => below::<kind::AppServer>(api, message, until).await.map(|()| "app"),
        KeepAliveType::Database => below::<kind::DatabaseServer>(api, message, until).await.map(|()| "db"),
        KeepAliveType::WindowsDesktop => {
            keep::<kind::WindowsDesktopService>(api, host, until).await.map(|()| "windows_desktop_service")
        }
        KeepAliveType::Kubernetes => below::<kind::KubernetesServer>(api, message, until).await.map(|()| "kube"),
        KeepAliveType::DatabaseService => keep::<kind::DatabaseService>(api, host, until).await.map(|()| "db_service"),
        KeepAliveType::Unknown => Err(Error::bad_parameter("KeepAlive: unknown type")),
    }
}

async fn below<K: Kind>(api: &Api, message: &KeepAlive, until: DateTime<Utc>) -> Result<()> {
    keep::<K>(api, &kinds::two_part(&message.host_id, &message.name)?, until).await
}

async fn keep<K: Kind>(api: &Api, name: &str, until: DateTime<Utc>) -> Result<()> {
    api.auth().store().keep_alive::<K>(name, until).await
}
