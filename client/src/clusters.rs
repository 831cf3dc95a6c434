//! The clusters that a user can reach: the root cluster and those that trust it.

use std::collections::BTreeMap;

use serde::Serialize;
use wire::client::turn_page;
use wire::presence::ListRemoteClustersRequest;
use wire::presence::presence_service_client::PresenceServiceClient;

use crate::cluster::ClusterClient;
use crate::error::Result;

/// A cluster, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedCluster {
    /// Its name.
    pub cluster_name: String,
    /// `online` or `offline`.
    pub status: String,
    /// `root` or `leaf`.
    pub cluster_type: &'static str,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether commands are about it.
    pub selected: bool,
}

/// Lists the clusters, the root cluster first.
pub async fn list(client: &ClusterClient) -> Result<Vec<ListedCluster>> {
    let account = client.account();
    let root = account.root_cluster().to_owned();
    let mut clusters = vec![ListedCluster {
        selected: account.cluster == root,
        cluster_name: root,
        status: "online".to_owned(),
        cluster_type: "root",
        labels: BTreeMap::new(),
    }];
    let mut service = PresenceServiceClient::new(client.root_channel());
    let mut request = ListRemoteClustersRequest::default();
    loop {
        let page = service.list_remote_clusters(request.clone()).await?.into_inner();
        clusters.extend(page.remote_clusters.into_iter().map(|cluster| {
            let metadata = cluster.metadata.unwrap_or_default();
            ListedCluster {
                selected: account.cluster == metadata.name,
                cluster_name: metadata.name,
                status: cluster.status.unwrap_or_default().connection,
                cluster_type: "leaf",
                labels: metadata.labels,
            }
        }));
        if !turn_page(&mut request.page_token, page.next_page_token)? {
            return Ok(clusters);
        }
    }
}
