//! `teleport.presence.v1.PresenceService`: other clusters.

use tonic::Request;
use wire::error::{Error, Result};
use wire::presence::presence_service_server::PresenceService;
use wire::presence::{
    DeleteRemoteClusterRequest, GetRemoteClusterRequest, ListRemoteClustersRequest, ListRemoteClustersResponse,
    UpdateRemoteClusterRequest,
};
use wire::types::RemoteClusterV3;

use super::{Answer, Api, answer, named, open, page, required};
use crate::authz::AuthContext;
use crate::store::kind;

#[tonic::async_trait]
impl PresenceService for Api {
    async fn get_remote_cluster(&self, request: Request<GetRemoteClusterRequest>) -> Answer<RemoteClusterV3> {
        let (context, message) = open(request)?;
        answer(get(self, &context, &message.name).await)
    }

    async fn list_remote_clusters(
        &self,
        request: Request<ListRemoteClustersRequest>,
    ) -> Answer<ListRemoteClustersResponse> {
        let (context, message) = open(request)?;
        answer(list(self, &context, &message).await)
    }

    async fn update_remote_cluster(&self, request: Request<UpdateRemoteClusterRequest>) -> Answer<RemoteClusterV3> {
        let (context, message) = open(request)?;
        answer(update(self, &context, message).await)
    }

    async fn delete_remote_cluster(&self, request: Request<DeleteRemoteClusterRequest>) -> Answer<()> {
        let (_, message) = open(request)?;
        let name = named(&message.name, "name")?;
        answer(self.auth().delete_remote_cluster(name).await)
    }
}

/// A cluster that the caller's roles reach; others do not exist for him.
async fn get(api: &Api, context: &AuthContext, name: &str) -> Result<RemoteClusterV3> {
    let cluster = api.auth().store().get::<kind::RemoteCluster>(named(name, "name")?).await?;
    if context.can_see_cluster(&cluster) {
        Ok(api.auth().with_status(&cluster))
    } else {
        Err(Error::not_found(format!("remote_cluster {name:?} not found")))
    }
}

async fn list(
    api: &Api,
    context: &AuthContext,
    message: &ListRemoteClustersRequest,
) -> Result<ListRemoteClustersResponse> {
    let limit = page::limit(message.page_size)?;
    let visible = |cluster: &RemoteClusterV3| context.can_see_cluster(cluster);
    let found = api.auth().store().page::<kind::RemoteCluster>(&message.page_token, limit, visible).await?;
    let remote_clusters = found.items.iter().map(|cluster| api.auth().with_status(cluster)).collect();
    Ok(ListRemoteClustersResponse { remote_clusters, next_page_token: found.next_key })
}

/// Only labels can be changed; status and expiry belong to the proxies.
async fn update(api: &Api, context: &AuthContext, message: UpdateRemoteClusterRequest) -> Result<RemoteClusterV3> {
    let wanted = required(message.remote_cluster, "remote_cluster")?;
    let metadata = required(wanted.metadata, "metadata")?;
    get(api, context, &metadata.name).await?;
    let mut stored = (*api.auth().store().get::<kind::RemoteCluster>(&metadata.name).await?).clone();
    let target = stored.metadata.get_or_insert_default();
    target.labels = metadata.labels;
    if !metadata.revision.is_empty() {
        target.revision = metadata.revision;
    }
    Ok((*api.auth().store().update::<kind::RemoteCluster>(stored).await?).clone())
}
