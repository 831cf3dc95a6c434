//! `teleport.trust.v1.TrustService`: certificate authorities.

use std::time::Duration;

use chrono::TimeDelta;
use pki::authority::CaType;
use resources::SystemRole;
use serde_json::json;
use tonic::Request;
use wire::error::{Error, Result};
use wire::proto::{CertAuthorityRequest, Crl};
use wire::trust::trust_service_server::TrustService;
use wire::trust::{
    DeleteCertAuthorityRequest, GenerateHostCertRequest, GenerateHostCertResponse, GetCertAuthoritiesRequest,
    GetCertAuthoritiesResponse, GetCertAuthorityRequest, RotateCertAuthorityRequest, RotateCertAuthorityResponse,
    RotateExternalCertAuthorityRequest, RotateExternalCertAuthorityResponse, UpsertCertAuthorityRequest,
};
use wire::types::{CertAuthorityV2, RotationSchedule, ServerV2};

use super::{Answer, Api, answer, named, nodes, open, required};
use crate::RotationRequest;
use crate::authority::crypto;
use crate::authz::AuthContext;
use crate::store::kind;

/// The longest life of a certificate with which a proxy stands in for a node.
const LONGEST_FOR_PROXIES: Duration = Duration::from_secs(24 * 3600);

/// The revocation list of an authority, which is always empty: certificates are short-lived instead.
pub async fn generate_cert_authority_crl(api: &Api, _: &AuthContext, message: CertAuthorityRequest) -> Result<Crl> {
    Ok(Crl { crl: api.auth().generate_crl(named(&message.r#type, "Type")?).await? })
}

#[tonic::async_trait]
impl TrustService for Api {
    async fn get_cert_authority(&self, request: Request<GetCertAuthorityRequest>) -> Answer<CertAuthorityV2> {
        let (context, message) = open(request)?;
        answer(get(self, &context, &message).await)
    }

    async fn get_cert_authorities(
        &self,
        request: Request<GetCertAuthoritiesRequest>,
    ) -> Answer<GetCertAuthoritiesResponse> {
        let (context, message) = open(request)?;
        answer(list(self, &context, &message).await)
    }

    async fn delete_cert_authority(&self, request: Request<DeleteCertAuthorityRequest>) -> Answer<()> {
        let (_, message) = open(request)?;
        answer(delete(self, &message).await)
    }

    async fn upsert_cert_authority(&self, request: Request<UpsertCertAuthorityRequest>) -> Answer<CertAuthorityV2> {
        let (_, message) = open(request)?;
        answer(upsert(self, message).await)
    }

    async fn rotate_cert_authority(
        &self,
        request: Request<RotateCertAuthorityRequest>,
    ) -> Answer<RotateCertAuthorityResponse> {
        let (_, message) = open(request)?;
        answer(rotate(self, message).await)
    }

    async fn rotate_external_cert_authority(
        &self,
        request: Request<RotateExternalCertAuthorityRequest>,
    ) -> Answer<RotateExternalCertAuthorityResponse> {
        let (context, message) = open(request)?;
        answer(rotate_external(self, &context, message).await)
    }

    async fn generate_host_cert(&self, request: Request<GenerateHostCertRequest>) -> Answer<GenerateHostCertResponse> {
        let (context, message) = open(request)?;
        answer(generate_host_cert(self, &context, &message).await)
    }
}

async fn rotate(api: &Api, message: RotateCertAuthorityRequest) -> Result<RotateCertAuthorityResponse> {
    let ca_type = named(&message.r#type, "type")?.parse::<CaType>().map_err(crypto)?;
    let grace = message.grace_period.map(|grace| {
        TimeDelta::new(grace.seconds, u32::try_from(grace.nanos).unwrap_or(0))
            .ok_or_else(|| Error::bad_parameter("grace_period is too long"))
    });
    let schedule = message.schedule.map(|schedule| RotationSchedule {
        update_clients: schedule.update_clients,
        update_servers: schedule.update_servers,
        standby: schedule.standby,
    });
    let request =
        RotationRequest { target: message.target_phase, mode: message.mode, grace: grace.transpose()?, schedule };
    api.auth().rotate_authority(ca_type, &request).await?;
    Ok(RotateCertAuthorityResponse {})
}

async fn get(api: &Api, context: &AuthContext, message: &GetCertAuthorityRequest) -> Result<CertAuthorityV2> {
    let authority = named(&message.r#type, "type")?;
    let cluster = named(&message.domain, "domain")?;
    refuse_keys(context, message.include_key)?;
    api.auth().get_cert_authority(authority, cluster, message.include_key).await
}

async fn list(
    api: &Api,
    context: &AuthContext,
    message: &GetCertAuthoritiesRequest,
) -> Result<GetCertAuthoritiesResponse> {
    let authority = named(&message.r#type, "type")?;
    refuse_keys(context, message.include_key)?;
    let cert_authorities_v2 = api.auth().get_cert_authorities(authority, message.include_key).await?;
    Ok(GetCertAuthoritiesResponse { cert_authorities_v2 })
}

/// Private keys go to the administrator on this machine and to nobody else.
fn refuse_keys(context: &AuthContext, include_key: bool) -> Result<()> {
    if !include_key {
        return Ok(());
    }
    context.require("cert_authority", &["read"])?;
    if context.is_admin() {
        Ok(())
    } else {
        Err(Error::access_denied(
            "access denied: private keys of authorities are read on the Auth Service's machine only",
        ))
    }
}

async fn delete(api: &Api, message: &DeleteCertAuthorityRequest) -> Result<()> {
    let authority = named(&message.r#type, "type")?;
    let cluster = named(&message.domain, "domain")?;
    if cluster == api.auth().cluster_name() {
        return Err(Error::bad_parameter("the authorities of the own cluster cannot be removed"));
    }
    api.auth().delete_cert_authority(authority, cluster).await
}

/// A cluster that this one trusts has other keys.
async fn rotate_external(
    api: &Api,
    context: &AuthContext,
    message: RotateExternalCertAuthorityRequest,
) -> Result<RotateExternalCertAuthorityResponse> {
    let authority = required(message.cert_authority, "cert_authority")?;
    let cluster = context.remote_proxy_cluster().ok_or_else(|| {
        Error::access_denied("access denied: this call is for the proxies of clusters that are trusted")
    })?;
    api.auth().rotate_external_authority(cluster, authority).await?;
    Ok(RotateExternalCertAuthorityResponse {})
}

async fn upsert(api: &Api, message: UpsertCertAuthorityRequest) -> Result<CertAuthorityV2> {
    let authority = required(message.cert_authority, "cert_authority")?;
    let spec = authority.spec.as_ref().ok_or_else(|| Error::bad_parameter("missing parameter spec"))?;
    named(&spec.r#type, "spec.type")?;
    named(&spec.cluster_name, "spec.cluster_name")?;
    api.auth().upsert_cert_authority(authority).await
}

/// Signs an SSH host key, for example of an OpenSSH server that runs no agent.
async fn generate_host_cert(
    api: &Api,
    context: &AuthContext,
    message: &GenerateHostCertRequest,
) -> Result<GenerateHostCertResponse> {
    let ttl = message.ttl.map(duration).transpose()?.filter(|ttl| !ttl.is_zero());
    let subject = json!({
        "host_id": message.host_id, "node_name": message.node_name, "principals": message.principals,
        "cluster_name": message.cluster_name, "role": message.role, "ttl": ttl.map_or(0, |ttl| ttl.as_nanos() as u64),
    });
    context.require_on("host_cert", &["create"], ("host_cert", &subject))?;
    if context.has_role(SystemRole::Proxy) && !context.is_admin() {
        require_recorded(api, message, ttl)?;
    }
    if message.cluster_name != api.auth().cluster_name() && !message.cluster_name.is_empty() {
        return Err(Error::bad_parameter(format!("cluster {:?} is not this one", message.cluster_name)));
    }
    let key = std::str::from_utf8(&message.key)
        .ok()
        .filter(|key| !key.trim().is_empty())
        .ok_or_else(|| Error::bad_parameter("key: expected an SSH public key line"))?;
    if message.host_id.is_empty() && message.principals.is_empty() {
        return Err(Error::bad_parameter("a host certificate needs a host_id or principals"));
    }
    let role = SystemRole::from_name(named(&message.role, "role")?)
        .ok_or_else(|| Error::bad_parameter(format!("{:?} is no system role", message.role)))?;
    let certificate = api
        .auth()
        .sign_host_ssh_certificate(key, &message.host_id, &message.node_name, &message.principals, role, ttl)
        .await?;
    Ok(GenerateHostCertResponse { ssh_certificate: certificate.into_bytes() })
}

/// A proxy stands in for nodes whose sessions it has to record, and for servers without an agent, for a day at a time, and
/// for nobody else: whoever has such a certificate can read what passes.
fn require_recorded(api: &Api, message: &GenerateHostCertRequest, ttl: Option<Duration>) -> Result<()> {
    let refused = |text: &str| {
        Error::access_denied(format!("access denied to perform action \"create\" on \"host_cert\": {text}"))
    };
    let node = api.auth().store().cached::<kind::Node>(&message.host_id).ok();
    let agentless = node.filter(|node| node.sub_kind == "openssh");
    let recording = api.auth().recording_config()?;
    let mode = recording.spec.as_ref().map_or("", |spec| &spec.mode);
    let records = mode.starts_with("proxy");
    if !records && agentless.is_none() {
        return Err(refused("proxies stand in for nodes only where session_recording is proxy or proxy-sync"));
    }
    if message.role != SystemRole::Node.name() {
        return Err(refused("proxies stand in for nodes only"));
    }
    if let (false, Some(node)) = (records, &agentless)
        && !names_only(api, message, node)?
    {
        return Err(refused("principals: expected names of the server without an agent alone"));
    }
    if ttl.is_none_or(|ttl| ttl > LONGEST_FOR_PROXIES) {
        return Err(refused("ttl: expected at most 24h"));
    }
    Ok(())
}

/// Whether all names that a proxy asks for are those of the server without an agent that it stands in for: its id, its
/// host name and the host of its address, alone or within the cluster.
fn names_only(api: &Api, message: &GenerateHostCertRequest, node: &ServerV2) -> Result<bool> {
    let Some(spec) = &node.spec else { return Ok(false) };
    let address = nodes::split_address(&spec.addr).map_or("", |(host, _)| host);
    let own = [message.host_id.as_str(), &spec.hostname, address];
    // Where routing tells letters apart by their case, another server may have the name in the other case.
    let ignore_case = api.auth().networking()?.spec.as_ref().is_some_and(|spec| spec.case_insensitive_routing);
    let cluster = format!(".{}", api.auth().cluster_name());
    let is_own = |name: &str| {
        let same = |own: &&str| if ignore_case { own.eq_ignore_ascii_case(name) } else { *own == name };
        !name.is_empty() && own.iter().any(same)
    };
    let fits = |name: &String| is_own(name) || name.strip_suffix(&cluster).is_some_and(is_own);
    let node_name = (!message.node_name.is_empty()).then_some(&message.node_name);
    Ok(message.principals.iter().chain(node_name).all(fits))
}

fn duration(ttl: prost_types::Duration) -> Result<Duration> {
    let refused = || Error::bad_parameter("ttl is negative");
    Ok(Duration::new(
        u64::try_from(ttl.seconds).map_err(|_| refused())?,
        u32::try_from(ttl.nanos).map_err(|_| refused())?,
    ))
}
