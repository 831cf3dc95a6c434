//! The Auth Service of this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use auth_service::server::{BoundServer, ServerConfig};
use auth_service::store::WatchedKind;
use auth_service::{Auth, AuthConfig, FileSettings, LocalIdentity, LocalIdentityRequest, SystemRole};
use backend::{Backend, Metered};
use config::{Config, HostPort, ProxyProtocol};
use pki::keys::PrivateKey;
use process::{HostIdentity, IdentityStore, NewHostKeys, Outlook, Parts};
use serde_json::{Map, Value, json};
use tokio::time::sleep;
use tracing::{info, warn};
use wire::types::{AuthPreferenceV2, ClusterNetworkingConfigV2, ProvisionTokenV1, SessionRecordingConfigV2};

use crate::diagnostics::Status;
use crate::error::{Failure, Result};
use crate::exchange::WebExchange;

/// The longest cluster name whose hexadecimal form fits one label of a host name, as clients ask for it.
const MAX_CLUSTER_NAME: usize = pki::cluster_name::MAX_NAME_IN_SERVER_NAME;

/// How long until the authorities are followed again after that failed.
const RETRY: Duration = Duration::from_secs(2);

/// A running Auth Service.
pub struct AuthProcess {
    pub auth: Auth,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Its state; to be closed after it.
    pub backend: Arc<dyn Backend>,
}

/// Opens the state, opens the port, and keeps the administrator's identity where `tctl` finds it.
pub async fn start(
    config: &Config,
    store: &IdentityStore,
    host_uuid: &str,
    exchange: WebExchange,
    status: &Status,
) -> Result<AuthProcess> {
    let mut settings = settings(config, host_uuid)?;
    settings.trust_exchange = Some(Arc::new(exchange));
    check_name(&settings.cluster_name)?;
    crate::keys::configure(config, &mut settings, host_uuid).await?;
    let backend = Arc::new(Metered::new(crate::storage::configure(config, &mut settings).await?));
    settings.backend = Some(backend.clone());
    status.register(|registry| backend.register(registry));
    let auth = Auth::open(settings).await?;
    check_name(auth.cluster_name())?; // state may be older than the file
    let listen = crate::proxy::socket(&config.auth.listen_addr)?;
    let server = ServerConfig {
        addresses: vec![listen],
        names: config.auth.public_addrs.iter().map(|a| a.host.clone()).collect(),
        proxy_protocol: proxy_protocol(config.auth.proxy_protocol),
        connections_per_ip: usize::try_from(config.global.limits.max_connections).unwrap_or(usize::MAX),
        rates: crate::proxy::rates(&config.global),
    };
    let bound = BoundServer::bind(auth.clone(), &server)?;
    let addresses = bound.addresses();
    status.register(|registry| bound.server().register_metrics(registry));
    let services = [Some(SystemRole::Auth), config.proxy.enabled.then_some(SystemRole::Proxy)];
    bound.server().announce_process(&services.into_iter().flatten().collect::<Vec<_>>());
    tokio::spawn(bound.run());
    keep_admin_identity(&auth, store).await?;
    info!(?addresses, cluster = auth.cluster_name(), "auth service started");
    Ok(AuthProcess { auth, addresses, backend })
}

fn check_name(name: &str) -> Result<()> {
    if name.len() <= MAX_CLUSTER_NAME {
        return Ok(());
    }
    Err(Failure(format!(
        "auth_service.cluster_name: {name:?} has {} bytes, expected at most {MAX_CLUSTER_NAME}: clients cannot name it in TLS",
        name.len()
    )))
}

/// `tctl` on this machine acts as the administrator: its identity lies beside the state it could change anyway.
async fn keep_admin_identity(auth: &Auth, store: &IdentityStore) -> Result<()> {
    if let Some(identity) = store.load("Admin").await?
        && is_current(&identity, auth).await?
    {
        return Ok(());
    }
    let made = auth.local_identity(SystemRole::Admin, LocalIdentityRequest::default()).await?;
    store.save(&assemble(&made)?).await?;
    Ok(())
}

/// Renews the administrator's identity whenever the authorities change; for ever.
pub async fn keep_admin_current(auth: Auth, store: Arc<IdentityStore>) {
    let authorities = || WatchedKind { kind: "cert_authority".to_owned(), ..WatchedKind::default() };
    loop {
        let mut changes = auth.store().watch(vec![authorities()]).ok();
        // Also what changed while nobody followed.
        let current = match keep_admin_identity(&auth, &store).await {
            Ok(()) => changes.as_mut(),
            Err(error) => {
                warn!(%error, "the administrator's identity could not be renewed");
                None
            }
        };
        let followed = match current {
            Some(changes) => changes.next().await.is_ok(),
            None => false,
        };
        if !followed {
            sleep(mux::listener::jittered(RETRY)).await;
        }
    }
}

/// The identity of a service of this process, made when there is none that still fits.
pub async fn identity(
    auth: &Auth,
    store: &IdentityStore,
    role: SystemRole,
    request: LocalIdentityRequest,
) -> Result<HostIdentity> {
    if let Some(identity) = store.load(role.name()).await?
        && identity.covers(&request.additional_principals)
        && is_current(&identity, auth).await?
    {
        return Ok(identity);
    }
    let identity = assemble(&auth.local_identity(role, request).await?)?;
    store.save(&identity).await?;
    Ok(identity)
}

/// Whether an identity is of this cluster, still valid, and signed by an authority that still signs.
async fn is_current(identity: &HostIdentity, auth: &Auth) -> Result<bool> {
    let ca = auth.get_cert_authority("host", auth.cluster_name(), false).await?;
    let (outlook, now) = (Outlook::of(&ca)?, auth.now());
    Ok(outlook.is_current(identity, now)
        && outlook.knows(identity)
        && identity.cluster == auth.cluster_name()
        && identity.is_valid_at(now))
}

fn assemble(made: &LocalIdentity) -> Result<HostIdentity> {
    let keys = NewHostKeys { tls: PrivateKey::from_pem(&made.tls_key)?, ssh: PrivateKey::from_pem(&made.ssh_key)? };
    let bytes = |list: &[String]| list.iter().map(|t| t.clone().into_bytes()).collect::<Vec<_>>();
    let (tls_authorities, ssh_authorities) = (bytes(&made.tls_authorities), bytes(&made.ssh_authorities));
    let parts = Parts {
        ssh: made.ssh_certificate.as_bytes(),
        tls: made.tls_certificate.as_bytes(),
        tls_authorities: &tls_authorities,
        ssh_authorities: &ssh_authorities,
    };
    Ok(HostIdentity::assemble(keys, &parts)?)
}

/// What unsigned PROXY headers are good for.
pub fn proxy_protocol(mode: Option<ProxyProtocol>) -> mux::ProxyProtocolMode {
    match mode {
        Some(ProxyProtocol::On) => mux::ProxyProtocolMode::On,
        Some(ProxyProtocol::Off) => mux::ProxyProtocolMode::Off,
        None => mux::ProxyProtocolMode::Unspecified,
    }
}

/// The service's settings from the file.
fn settings(config: &Config, host_uuid: &str) -> Result<AuthConfig> {
    let file = file_settings(config)?;
    let mut settings = AuthConfig::new(&config.global.data_dir);
    settings.cluster_name = config.cluster_name().to_owned();
    settings.node_name = config.global.nodename.clone();
    settings.host_uuid = Some(host_uuid.to_owned());
    settings.advertise_addr = announced(config).to_string();
    settings.static_tokens = file.static_tokens;
    settings.auth_preference = file.auth_preference;
    settings.networking = file.networking;
    settings.recording = file.recording;
    Ok(settings)
}

/// What the file says about the cluster itself.
pub fn file_settings(config: &Config) -> Result<FileSettings> {
    let static_tokens = config.auth.tokens.iter().map(|token| ProvisionTokenV1 {
        roles: token.roles.iter().map(|r| r.as_str().to_owned()).collect(),
        expires: None,
        token: token.secret.expose().to_owned(),
    });
    Ok(FileSettings {
        static_tokens: static_tokens.collect(),
        auth_preference: preference(config)?,
        networking: networking(config)?,
        recording: recording(config)?,
        audit: None,
    })
}

/// Under which address others reach the port.
fn announced(config: &Config) -> HostPort {
    let listen = &config.auth.listen_addr;
    match (&config.global.advertise, config.auth.public_addrs.first()) {
        (_, Some(public)) => public.clone(),
        (Some(advertise), None) => HostPort { host: advertise.host.to_string(), port: listen.port },
        (None, None) if listen.is_unspecified() => HostPort { host: config.global.nodename.clone(), port: listen.port },
        (None, None) => listen.clone(),
    }
}

/// A resource of the file, from what is set in it.
fn resource<T: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: Map<String, Value>) -> Result<T> {
    let value = json!({
        "kind": kind, "version": "v2",
        "metadata": {"name": name, "labels": {"teleport.dev/origin": "config-file"}},
        "spec": spec,
    });
    serde_json::from_value(value).map_err(|e| Failure(format!("{kind} of the configuration file: {e}")))
}

/// Collects what is set.
#[derive(Default)]
struct Spec(Map<String, Value>);

impl Spec {
    fn set(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(key.to_owned(), value.into());
        }
    }
}

fn preference(config: &Config) -> Result<Option<AuthPreferenceV2>> {
    let auth = &config.auth;
    if !auth.decides_authentication() {
        return Ok(None);
    }
    let mut spec = Spec::default();
    spec.set("disconnect_expired_cert", auth.disconnect_expired_cert);
    spec.set("message_of_the_day", auth.message_of_the_day.clone());
    if let Some(a) = &auth.authentication {
        spec.set("type", a.kind.map(|k| k.as_str()));
        spec.set("second_factor", a.second_factor.map(|s| s.as_str()));
        spec.set("connector_name", a.connector_name.clone());
        spec.set("allow_local_auth", a.local_auth);
        spec.set("allow_passwordless", a.passwordless);
        spec.set("allow_headless", a.headless);
        spec.set("default_session_ttl", a.default_session_ttl.map(wire::duration::text));
        spec.set("require_session_mfa", a.require_session_mfa.map(|m| m.as_str()));
        spec.set("locking_mode", a.locking_mode.map(|m| m.as_str()));
        spec.set("signature_algorithm_suite", a.signature_algorithm_suite.map(|s| s.as_str()));
        spec.set(
            "webauthn",
            a.webauthn.as_ref().map(|w| {
                json!({
                    "rp_id": w.rp_id.clone().unwrap_or_default(),
                    "attestation_allowed_cas": w.attestation_allowed_cas,
                    "attestation_denied_cas": w.attestation_denied_cas,
                })
            }),
        );
    }
    resource("cluster_auth_preference", "cluster-auth-preference", spec.0).map(Some)
}

fn networking(config: &Config) -> Result<Option<ClusterNetworkingConfigV2>> {
    let n = &config.auth.networking;
    if !n.is_in_file() {
        return Ok(None);
    }
    let text = |d: std::time::Duration| wire::duration::text(d);
    let mut spec = Spec::default();
    spec.set("client_idle_timeout", n.client_idle_timeout.map(text));
    spec.set("idle_timeout_message", n.client_idle_timeout_message.clone());
    spec.set("web_idle_timeout", n.web_idle_timeout.map(text));
    spec.set("keep_alive_interval", n.keep_alive_interval.map(text));
    spec.set("keep_alive_count_max", n.keep_alive_count_max);
    spec.set("session_control_timeout", n.session_control_timeout.map(text));
    spec.set("proxy_listener_mode", n.proxy_listener_mode.map(|m| m.as_str()));
    spec.set("routing_strategy", n.routing_strategy.map(|r| r.as_str()));
    spec.set("proxy_ping_interval", n.proxy_ping_interval.map(text));
    spec.set("case_insensitive_routing", n.case_insensitive_routing);
    spec.set(
        "tunnel_strategy",
        n.tunnel_strategy.as_ref().map(|s| match s {
            config::TunnelStrategy::AgentMesh => json!({"type": "agent_mesh"}),
            config::TunnelStrategy::ProxyPeering { agent_connection_count } => {
                json!({"type": "proxy_peering", "agent_connection_count": agent_connection_count})
            }
        }),
    );
    resource("cluster_networking_config", "cluster-networking-config", spec.0).map(Some)
}

fn recording(config: &Config) -> Result<Option<SessionRecordingConfigV2>> {
    let r = &config.auth.recording;
    if !r.is_in_file() {
        return Ok(None);
    }
    let mut spec = Spec::default();
    spec.set("mode", r.mode.map(|m| m.as_str()));
    spec.set("proxy_checks_host_keys", r.proxy_checks_host_keys);
    spec.set("encryption", r.encryption.map(|enabled| json!({"enabled": enabled})));
    resource("session_recording_config", "session-recording-config", spec.0).map(Some)
}
