//! What everybody asks first: who this is, what it can do, whom to trust.

use std::collections::BTreeMap;

use futures::{Stream, stream};
use tonic::Status;
use wire::error::{Error, Result};
use wire::proto::{
    EntitlementInfo, Features, GetClusterCaCertResponse, GetDomainNameResponse, PingRequest, PingResponse,
    SystemRoleAssertion,
};
use wire::types::{ResourceRequest, RoleV6, TrustedClusterV2, TrustedClusterV2List};

use super::{Api, named, page};
use crate::authz::AuthContext;
use crate::store::kind;

/// Services that other programs may run with this cluster.
const ENTITLEMENTS: [&str; 6] = ["App", "DB", "Desktop", "HSM", "JoinActiveSessions", "K8s"];

pub async fn ping(api: &Api, context: &AuthContext, _: PingRequest) -> Result<PingResponse> {
    let auth = api.auth();
    Ok(PingResponse {
        cluster_name: auth.cluster_name().to_owned(),
        server_version: wire::VERSION.to_owned(),
        server_features: Some(features()),
        proxy_public_addr: proxy_public_address(api).await?,
        remote_addr: context.remote_addr(),
        ..Default::default()
    })
}

pub async fn get_domain_name(api: &Api, _: &AuthContext, (): ()) -> Result<GetDomainNameResponse> {
    Ok(GetDomainNameResponse { domain_name: api.auth().cluster_name().to_owned() })
}

pub async fn get_cluster_ca_cert(api: &Api, _: &AuthContext, (): ()) -> Result<GetClusterCaCertResponse> {
    Ok(GetClusterCaCertResponse { tlsca: api.auth().cluster_ca_pem()?.into_bytes() })
}

/// Remembers that a host holds a role, said over a connection with that role's certificate, so that a new certificate
/// of the whole instance may name it.
pub async fn assert_system_role(api: &Api, context: &AuthContext, message: SystemRoleAssertion) -> Result<()> {
    context.require_own_server(&message.server_id)?;
    let role = named(&message.system_role, "SystemRole")?;
    if !context.has_role_named(role) {
        return Err(Error::access_denied(format!("access denied: the certificate does not hold the role {role:?}")));
    }
    api.assertions().add(&message.server_id, &message.assertion_id, role, api.auth().now())
}

pub async fn get_current_user_roles(
    api: &Api,
    context: &AuthContext,
    (): (),
) -> Result<impl Stream<Item = Result<RoleV6, Status>> + Send + 'static + use<>> {
    let roles = api.auth().roles(context.role_names())?;
    Ok(stream::iter(roles.into_iter().map(|role| Ok(RoleV6::clone(&role)))))
}

pub async fn get_trusted_cluster(api: &Api, _: &AuthContext, message: ResourceRequest) -> Result<TrustedClusterV2> {
    Ok((*api.auth().store().get::<kind::TrustedCluster>(named(&message.name, "Name")?).await?).clone())
}

pub async fn get_trusted_clusters(api: &Api, _: &AuthContext, (): ()) -> Result<TrustedClusterV2List> {
    Ok(TrustedClusterV2List { trusted_clusters: page::owned(api.auth().store().list::<kind::TrustedCluster>().await?) })
}

pub async fn upsert_trusted_cluster(
    api: &Api,
    context: &AuthContext,
    cluster: TrustedClusterV2,
) -> Result<TrustedClusterV2> {
    api.auth().upsert_trusted_cluster(context.caller(), cluster).await
}

pub async fn delete_trusted_cluster(api: &Api, context: &AuthContext, message: ResourceRequest) -> Result<()> {
    api.auth().delete_trusted_cluster(context.caller(), named(&message.name, "Name")?).await
}

fn features() -> Features {
    let enabled = || EntitlementInfo { enabled: true, limit: 0 };
    Features {
        kubernetes: true,
        app: true,
        db: true,
        desktop: true,
        hsm: true,
        access_controls: true,
        join_active_sessions: true,
        entitlements: ENTITLEMENTS.iter().map(|name| ((*name).to_owned(), enabled())).collect::<BTreeMap<_, _>>(),
        ..Default::default()
    }
}

/// The address under which people reach a proxy; empty before one has come up.
async fn proxy_public_address(api: &Api) -> Result<String> {
    let proxies = api.auth().store().list::<kind::Proxy>().await?;
    let addresses = proxies.iter().filter_map(|proxy| proxy.spec.as_ref()?.public_addrs.first());
    Ok(addresses.into_iter().next().cloned().unwrap_or_default())
}
