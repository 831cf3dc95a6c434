//! What agents serve: read from lists, named by the thing that is served, removed for every agent that serves it.

use resources::{AnyResource, Reference, kind};
use wire::client::turn_page;
use wire::proto::paginated_resource::Resource;
use wire::proto::{
    DeleteApplicationServerRequest, DeleteDatabaseServerRequest, DeleteKubernetesServerRequest, ListResourcesRequest,
    UpsertApplicationServerRequest,
};
use wire::types::{AppServerV3, ResourceRequest};

use super::read::chosen;
use crate::api::{Api, Call};
use crate::error::Result;

/// Resources of one page.
const PAGE: i32 = 1000;

/// The records that a reference names.
pub async fn get(api: &Api, reference: &Reference) -> Result<Vec<AnyResource>> {
    list(api, &ListResourcesRequest { resource_type: reference.kind.clone(), ..Default::default() })
        .await
        .and_then(|found| chosen(found, reference))
}

/// All records that a request means; its pages are filled in here.
pub async fn list(api: &Api, request: &ListResourcesRequest) -> Result<Vec<AnyResource>> {
    let namespace = resources::NAMESPACE.to_owned();
    let mut request = ListResourcesRequest { limit: PAGE, namespace, ..request.clone() };
    let what = format!("listing {}", request.resource_type);
    let mut all = Vec::new();
    loop {
        let page = api.auth().list_resources(request.clone()).within(&what).await?;
        for found in page.items() {
            all.extend(found?.resource.and_then(item));
        }
        if !turn_page(&mut request.start_key, page.next_key)? {
            return Ok(all);
        }
    }
}

fn item(resource: Resource) -> Option<AnyResource> {
    Some(match resource {
        Resource::Node(r) => (*r).into(),
        Resource::AppServer(r) => (*r).into(),
        Resource::DatabaseServer(r) => (*r).into(),
        Resource::DatabaseService(r) => (*r).into(),
        Resource::KubernetesServer(r) => (*r).into(),
        Resource::KubeCluster(r) => (*r).into(),
        Resource::WindowsDesktop(r) => (*r).into(),
        Resource::WindowsDesktopService(r) => (*r).into(),
        Resource::UserGroup(r) => (*r).into(),
        Resource::SamlIdPServiceProvider(r) => (*r).into(),
        Resource::AppServerOrSamlIdPServiceProvider(_) => return None,
    })
}

/// Registers an application as an agent serves it.
pub async fn put(api: &Api, server: AppServerV3, what: &str) -> Result<()> {
    let request = UpsertApplicationServerRequest { server: Some(server) };
    api.auth().upsert_application_server(request).within(what).await.map(drop)
}

/// Removes the records of a name.
pub async fn remove(api: &Api, reference: &Reference) -> Result<()> {
    let what = &format!("removing {}", reference.kind);
    let namespace = || resources::NAMESPACE.to_owned();
    for record in get(api, reference).await? {
        let name = record.metadata().name.clone();
        match record {
            AnyResource::AppServer(server) => {
                let host_id = server.spec.map(|spec| spec.host_id).unwrap_or_default();
                let request = DeleteApplicationServerRequest { namespace: namespace(), host_id, name };
                api.auth().delete_application_server(request).within(what).await?;
            }
            AnyResource::DatabaseServer(server) => {
                let host_id = server.spec.map(|spec| spec.host_id).unwrap_or_default();
                let request = DeleteDatabaseServerRequest { namespace: namespace(), host_id, name };
                api.auth().delete_database_server(request).within(what).await?;
            }
            AnyResource::KubernetesServer(server) => {
                let host_id = server.spec.map(|spec| spec.host_id).unwrap_or_default();
                let request = DeleteKubernetesServerRequest { host_id, name };
                api.auth().delete_kubernetes_server(request).within(what).await?;
            }
            other if other.kind() == kind::DB_SERVICE => {
                api.auth().delete_database_service(ResourceRequest { name }).within(what).await?;
            }
            _ => {}
        }
    }
    Ok(())
}
