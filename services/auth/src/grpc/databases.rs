//! What agents serve: whose record it is.

use wire::error::Result;
use wire::types::{AppServerV3, DatabaseServerV3, KubernetesServerV3};

use super::{Api, kinds, named};
use crate::authz::AuthContext;
use crate::store::kind;

/// The agent that serves an application.
pub fn host_of_app(server: &AppServerV3) -> &str {
    server.spec.as_ref().map_or("", |spec| &spec.host_id)
}

/// The agent that serves a database.
pub fn host_of_database(server: &DatabaseServerV3) -> &str {
    server.spec.as_ref().map_or("", |spec| &spec.host_id)
}

/// The agent that serves a Kubernetes cluster.
pub fn host_of_cluster(server: &KubernetesServerV3) -> &str {
    server.spec.as_ref().map_or("", |spec| &spec.host_id)
}

/// Removes the record of an agent that serves databases; it is named by the agent.
pub async fn delete_service(api: &Api, context: &AuthContext, name: &str) -> Result<()> {
    if context.is_service() && !context.is_admin() {
        context.require_own_server(named(name, "name")?)?;
    }
    kinds::delete::<kind::DatabaseService>(api, context, name).await
}
