//! Reading.

use std::collections::BTreeMap;

use pki::authority::CaType;
use resources::{AnyResource, Reference, Resource, kind};
use wire::client::turn_page;
use wire::clusterconfig::{
    GetAuthPreferenceRequest, GetClusterNetworkingConfigRequest, GetSessionRecordingConfigRequest,
};
use wire::presence::{GetRemoteClusterRequest, ListRemoteClustersRequest};
use wire::proto::paginated_resource;
use wire::proto::{
    GetLockRequest, GetLocksRequest, GetRoleRequest, ListAccessRequestsRequest, ListResourcesRequest, ListRolesRequest,
};
use wire::trust::{GetCertAuthoritiesRequest, GetCertAuthorityRequest};
use wire::types::{
    CertAuthorityV2, ClusterNameV2, GetClusterAlertsRequest, InstanceFilter, Namespace, ResourceRequest,
    ReverseTunnelV2, SemaphoreFilter, ServerV2, UserV2,
};
use wire::users::{GetUserRequest, ListUsersRequest};

use super::{any, devices, kinds, not_built, served};
use crate::api::{Api, Call, collect};
use crate::error::{Error, Result};

/// Resources of one page.
const PAGE: i32 = 1000;

/// Whether private keys and passwords are read as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrets {
    /// No.
    #[default]
    Hidden,
    /// Yes.
    Shown,
}

/// What `get all` shows; the rest is the cluster's own bookkeeping.
const MAIN_KINDS: [&str; 21] = [
    kind::USER,
    kind::ROLE,
    kind::TOKEN,
    kind::LOCK,
    kind::CONNECTORS,
    kind::APP,
    kind::DB,
    kind::KUBE_CLUSTER,
    kind::WINDOWS_DESKTOP,
    kind::BOT,
    kind::ACCESS_LIST,
    kind::LOGIN_RULE,
    kind::INSTALLER,
    kind::SERVER_INFO,
    kind::DISCOVERY_CONFIG,
    kind::TRUSTED_CLUSTER,
    kind::REMOTE_CLUSTER,
    kind::CERT_AUTHORITY,
    kind::CLUSTER_AUTH_PREFERENCE,
    kind::CLUSTER_NETWORKING_CONFIG,
    kind::SESSION_RECORDING_CONFIG,
];

/// The resources that a reference names: one, or all of a kind.
///
/// # Errors
/// `NotFound` when the named one does not exist; whatever the Auth Service answers.
pub async fn get(api: &Api, reference: &Reference, secrets: Secrets) -> Result<Vec<AnyResource>> {
    let name = reference.name.as_deref();
    let shown = secrets == Secrets::Shown;
    match reference.kind.as_str() {
        kind::USER => match name {
            Some(name) => Ok(any([user(api, name, shown).await?])),
            None => Ok(any(users(api, shown).await?)),
        },
        kind::ROLE => roles(api, name).await,
        kind::TOKEN => tokens(api, name).await,
        kind::NODE => {
            let found = nodes(api, &ListResourcesRequest::default()).await?;
            chosen(any(found), reference)
        }
        kind::AUTH_SERVER => chosen(any(api.http().get::<Vec<ServerV2>>("/v2/authservers").await?), reference),
        kind::PROXY => chosen(any(api.http().get::<Vec<ServerV2>>("/v2/proxies").await?), reference),
        kind::NAMESPACE => chosen(any(api.http().get::<Vec<Namespace>>("/v2/namespaces").await?), reference),
        kind::TUNNEL => chosen(any(api.http().get::<Vec<ReverseTunnelV2>>("/v2/reversetunnels").await?), reference),
        kind::CLUSTER_NAME => Ok(any([api.http().get::<ClusterNameV2>("/v2/configuration/name").await?])),
        kind::CERT_AUTHORITY => Ok(any(authorities(api, reference, shown).await?)),
        kind::REMOTE_CLUSTER => remote_clusters(api, name).await,
        kind::APP_SERVER | kind::DB_SERVER | kind::KUBE_SERVER | kind::DB_SERVICE => served::get(api, reference).await,
        kind::DEVICE => devices::get(api, reference).await,
        _ => match kinds::get(api, reference, secrets).await? {
            Some(found) => Ok(found),
            None => get_rare(api, reference).await,
        },
    }
}

async fn get_rare(api: &Api, reference: &Reference) -> Result<Vec<AnyResource>> {
    match reference.kind.as_str() {
        kind::LOCK => match &reference.name {
            Some(name) => {
                let request = GetLockRequest { name: name.clone() };
                Ok(any([api.auth().get_lock(request).within("reading a lock").await?]))
            }
            None => Ok(any(api.auth().get_locks(GetLocksRequest::default()).within("listing locks").await?.locks)),
        },
        kind::TRUSTED_CLUSTER => match &reference.name {
            Some(name) => {
                let request = ResourceRequest { name: name.clone() };
                Ok(any([api.auth().get_trusted_cluster(request).within("reading a trusted cluster").await?]))
            }
            None => {
                let found = api.auth().get_trusted_clusters(()).within("listing trusted clusters").await?;
                Ok(any(found.trusted_clusters))
            }
        },
        kind::ACCESS_REQUEST => chosen(access_requests(api).await?, reference),
        kind::SEMAPHORE => {
            let filter = SemaphoreFilter {
                semaphore_kind: reference.sub_kind.clone().unwrap_or_default(),
                semaphore_name: reference.name.clone().unwrap_or_default(),
            };
            Ok(any(api.auth().get_semaphores(filter).within("listing semaphores").await?.semaphores))
        }
        kind::INSTANCE => {
            let stream = api.auth().get_instances(InstanceFilter::default()).within("listing instances").await?;
            chosen(any(collect(stream, "listing instances").await?), reference)
        }
        kind::SESSION_TRACKER => {
            let stream = api.auth().get_active_session_trackers(()).within("listing sessions").await?;
            chosen(any(collect(stream, "listing sessions").await?), reference)
        }
        kind::CLUSTER_ALERT => {
            let request = GetClusterAlertsRequest {
                with_superseded: true,
                with_acknowledged: true,
                with_untargeted: true,
                ..Default::default()
            };
            let found = api.auth().get_cluster_alerts(request).within("listing alerts").await?;
            chosen(any(found.alerts), reference)
        }
        _ => get_setting(api, &reference.kind).await,
    }
}

async fn get_setting(api: &Api, kind: &str) -> Result<Vec<AnyResource>> {
    let what = format!("reading {kind}");
    match kind {
        kind::CLUSTER_AUTH_PREFERENCE => {
            let call = api.settings().get_auth_preference(GetAuthPreferenceRequest {}).within(&what).await?;
            Ok(any([call]))
        }
        kind::CLUSTER_NETWORKING_CONFIG => {
            let request = GetClusterNetworkingConfigRequest {};
            Ok(any([api.settings().get_cluster_networking_config(request).within(&what).await?]))
        }
        kind::SESSION_RECORDING_CONFIG => {
            let request = GetSessionRecordingConfigRequest {};
            Ok(any([api.settings().get_session_recording_config(request).within(&what).await?]))
        }
        kind::CLUSTER_AUDIT_CONFIG => Ok(any([api.auth().get_cluster_audit_config(()).within(&what).await?])),
        other => Err(not_built(other, "getting")),
    }
}

/// The main kinds, one after the other. Kinds that the Auth Service does not know are left out.
pub async fn get_all(api: &Api, secrets: Secrets) -> Result<Vec<AnyResource>> {
    let mut all = Vec::new();
    for kind in MAIN_KINDS {
        let reference = Reference { kind: kind.to_owned(), sub_kind: None, name: None };
        match get(api, &reference, secrets).await {
            Ok(found) => all.extend(found),
            Err(error) if error.kind() == wire::error::ErrorKind::NotImplemented => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// What is stored now under the kind and name of a resource.
pub async fn current(api: &Api, resource: &AnyResource) -> Result<Option<AnyResource>> {
    let sub_kind = Some(resource.sub_kind().to_owned()).filter(|s| !s.is_empty());
    let reference = Reference {
        kind: resource.kind().to_owned(),
        sub_kind: sub_kind.filter(|_| resource.kind() == kind::CERT_AUTHORITY),
        name: Some(resource.metadata().name.clone()),
    };
    match get(api, &reference, Secrets::Hidden).await {
        Ok(found) => Ok(found.into_iter().next()),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// All accounts.
pub async fn users(api: &Api, with_secrets: bool) -> Result<Vec<UserV2>> {
    let mut all = Vec::new();
    let mut request = ListUsersRequest { page_size: PAGE, with_secrets, ..Default::default() };
    loop {
        let page = api.users().list_users(request.clone()).within("listing users").await?;
        all.extend(page.users);
        if !turn_page(&mut request.page_token, page.next_page_token)? {
            return Ok(all);
        }
    }
}

/// SSH servers that match a request's labels, words and expression; the rest of the request is filled in here.
pub async fn nodes(api: &Api, request: &ListResourcesRequest) -> Result<Vec<ServerV2>> {
    let mut all = Vec::new();
    let mut request = ListResourcesRequest {
        resource_type: kind::NODE.to_owned(),
        namespace: resources::NAMESPACE.to_owned(),
        limit: PAGE,
        ..request.clone()
    };
    loop {
        let page = api.auth().list_resources(request.clone()).within("listing servers").await?;
        for found in page.items() {
            if let Some(paginated_resource::Resource::Node(server)) = found?.resource {
                all.push(*server);
            }
        }
        if !turn_page(&mut request.start_key, page.next_key)? {
            return Ok(all);
        }
    }
}

async fn user(api: &Api, name: &str, with_secrets: bool) -> Result<UserV2> {
    let request = GetUserRequest { name: name.to_owned(), with_secrets, ..Default::default() };
    let found = api.users().get_user(request).within("reading a user").await?;
    found.user.ok_or_else(|| Error::not_found(format!("user {name:?} not found")))
}

async fn roles(api: &Api, name: Option<&str>) -> Result<Vec<AnyResource>> {
    if let Some(name) = name {
        let request = GetRoleRequest { name: name.to_owned() };
        return Ok(any([api.auth().get_role(request).within("reading a role").await?]));
    }
    let mut all = Vec::new();
    let mut request = ListRolesRequest { limit: PAGE, ..Default::default() };
    loop {
        let page = api.auth().list_roles(request.clone()).within("listing roles").await?;
        all.extend(any(page.roles));
        if !turn_page(&mut request.start_key, page.next_key)? {
            return Ok(all);
        }
    }
}

async fn tokens(api: &Api, name: Option<&str>) -> Result<Vec<AnyResource>> {
    match name {
        Some(name) => {
            let request = ResourceRequest { name: name.to_owned() };
            Ok(any([api.auth().get_token(request).within("reading a token").await?]))
        }
        None => Ok(any(api.auth().get_tokens(()).within("listing tokens").await?.provision_tokens)),
    }
}

/// Authorities by type, by type and cluster, or by cluster.
async fn authorities(api: &Api, reference: &Reference, include_key: bool) -> Result<Vec<CertAuthorityV2>> {
    let asked = reference.sub_kind.as_deref().or(reference.name.as_deref());
    let known = |word: &str| {
        let ca_type = word.parse::<CaType>();
        ca_type.map_err(|_| {
            let all: Vec<&str> = CaType::ALL.iter().map(|t| t.as_str()).collect();
            Error::bad(format!("{word:?} is no type of authority: expected one of {}", all.join(", ")))
        })
    };
    if let (Some(ca_type), Some(domain)) = (&reference.sub_kind, &reference.name) {
        known(ca_type)?;
        let request = GetCertAuthorityRequest { r#type: ca_type.clone(), domain: domain.clone(), include_key };
        return Ok(vec![api.trust().get_cert_authority(request).within("reading an authority").await?]);
    }
    let types = match asked {
        Some(word) => vec![known(word)?],
        None => CaType::ALL.to_vec(),
    };
    let mut all = Vec::new();
    for ca_type in types {
        let request = GetCertAuthoritiesRequest { r#type: ca_type.as_str().to_owned(), include_key };
        let found = api.trust().get_cert_authorities(request).within("listing authorities").await?;
        all.extend(found.cert_authorities_v2);
    }
    Ok(all)
}

async fn remote_clusters(api: &Api, name: Option<&str>) -> Result<Vec<AnyResource>> {
    if let Some(name) = name {
        let request = GetRemoteClusterRequest { name: name.to_owned() };
        return Ok(any([api.presence().get_remote_cluster(request).within("reading a remote cluster").await?]));
    }
    let mut all = Vec::new();
    let mut request = ListRemoteClustersRequest { page_size: PAGE, ..Default::default() };
    loop {
        let page = api.presence().list_remote_clusters(request.clone()).within("listing remote clusters").await?;
        all.extend(any(page.remote_clusters));
        if !turn_page(&mut request.page_token, page.next_page_token)? {
            return Ok(all);
        }
    }
}

async fn access_requests(api: &Api) -> Result<Vec<AnyResource>> {
    let mut all = Vec::new();
    let mut request = ListAccessRequestsRequest { limit: PAGE, ..Default::default() };
    loop {
        let page = api.auth().list_access_requests(request.clone()).within("listing access requests").await?;
        all.extend(any(page.access_requests));
        if !turn_page(&mut request.start_key, page.next_key)? {
            return Ok(all);
        }
    }
}

/// Those of a list that a reference means: all, or the ones with its name. Servers also go by their hostname.
pub fn chosen(all: Vec<AnyResource>, reference: &Reference) -> Result<Vec<AnyResource>> {
    let Some(name) = &reference.name else { return Ok(all) };
    let named = |resource: &AnyResource| match resource {
        AnyResource::Server(server) => {
            server.name() == name || server.spec.as_ref().is_some_and(|spec| spec.hostname == *name)
        }
        other => other.metadata().name == *name,
    };
    let found: Vec<_> = all.into_iter().filter(named).collect();
    match found.is_empty() {
        true => Err(Error::not_found(format!("{} {name:?} not found", reference.kind))),
        false => Ok(found),
    }
}

/// Labels of a server: those written down, then those its commands gave.
pub fn server_labels(server: &ServerV2) -> BTreeMap<String, String> {
    let mut labels = server.metadata().labels.clone();
    let commands = server.spec.iter().flat_map(|spec| &spec.cmd_labels);
    labels.extend(commands.map(|(name, label)| (name.clone(), label.result.clone())));
    labels
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use wire::types::{Metadata, ServerSpecV2};

    use super::*;

    fn server(name: &str, hostname: &str) -> AnyResource {
        ServerV2 {
            kind: kind::NODE.into(),
            metadata: Some(Metadata { name: name.into(), ..Default::default() }),
            spec: Some(ServerSpecV2 { hostname: hostname.into(), ..Default::default() }),
            ..Default::default()
        }
        .into()
    }

    #[test]
    fn a_server_goes_by_its_id_and_its_hostname() {
        let all = vec![server("1", "web"), server("2", "db"), server("3", "web")];
        let of = |text: &str| chosen(all.clone(), &text.parse().unwrap());
        assert_eq!(of("nodes").unwrap().len(), 3);
        assert_eq!(of("node/2").unwrap().len(), 1);
        assert_eq!(of("node/web").unwrap().len(), 2);
        let error = of("node/none").unwrap_err();
        assert!(error.is_not_found() && error.to_string() == "node \"none\" not found", "{error}");
    }
}
