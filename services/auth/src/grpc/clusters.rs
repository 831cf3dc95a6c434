//! Kubernetes clusters. Their records hold credentials, which are for the agents that use them and for whoever can
//! replace them anyway; people who can merely reach a cluster go through an agent.

use wire::error::Result;
use wire::types::{KubernetesClusterV3, KubernetesServerV3};

use super::{Api, kinds};
use crate::authz::AuthContext;
use crate::store::kind;

/// The cluster of a name, if the caller's roles reach it.
pub async fn get(api: &Api, context: &AuthContext, name: &str) -> Result<KubernetesClusterV3> {
    let mut found = kinds::get_reached::<kind::KubernetesCluster>(api, context, name).await?;
    conceal(context, &mut found);
    Ok(found)
}

/// The clusters that the caller's roles reach.
pub async fn list(api: &Api, context: &AuthContext) -> Result<Vec<KubernetesClusterV3>> {
    let mut found = kinds::list_reached::<kind::KubernetesCluster>(api, context).await?;
    found.iter_mut().for_each(|cluster| conceal(context, cluster));
    Ok(found)
}

/// Takes the credentials out, unless the caller may have them.
pub fn conceal(context: &AuthContext, cluster: &mut KubernetesClusterV3) {
    if context.is_service() || context.require("kube_cluster", &["update"]).is_ok() {
        return;
    }
    if let Some(spec) = &mut cluster.spec {
        spec.kubeconfig.clear();
    }
}

/// The same for the record of an agent.
pub fn conceal_served(context: &AuthContext, server: &mut KubernetesServerV3) {
    if let Some(cluster) = server.spec.as_mut().and_then(|spec| spec.cluster.as_mut()) {
        conceal(context, cluster);
    }
}
