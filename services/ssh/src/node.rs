//! The node: what all connections share, and the decision who is let in.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use cache::Cache;
use chrono::Utc;
use config::Labels;
use parking_lot::{Mutex, RwLock};
use pki::identity::Identity;
use pki::keys::PublicKey;
use pki::ssh_cert::{self, Kind, Requirements, UserCertificate};
use process::leases::{Leases, NoLease, too_many};
use process::locks;
use rbac::{AccessState, Decision, KeyPolicy, LockSubject, MfaRequired, RoleSet, SshPermit};
use resume::server::Resumable;
use russh::keys::Certificate;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::HostIdentity;
use tunnel::ssh::Algorithms;
use wire::types::{CertAuthorityV2, ServerV2};

use crate::access::{Access, Denial, Refused};
use crate::audit::NodeAudit;
use crate::connection::JOIN_LOGIN;
use crate::heartbeat::NodeRecord;
use crate::os::host_users::HostUsers;
use crate::record::Recorder;
use crate::session::SessionRegistry;

/// What a node is told at start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// UUID of the host.
    pub host_uuid: String,
    /// Name of the host.
    pub hostname: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Labels to start with, fixed and by command.
    pub labels: Labels,
    /// Address under which proxies reach the node; `None` when they come through a reverse tunnel.
    pub address: Option<SocketAddr>,
    /// Addresses the administrator gave.
    pub public_addrs: Vec<String>,
    /// SSH algorithms that may be chosen.
    pub algorithms: Algorithms,
    /// Simultaneous connections of one address; for nodes that listen.
    pub max_connections: usize,
    /// Connections of one client over time; empty: any number.
    pub rates: Vec<mux::rate::Rate>,
    /// What users may do here to start with, whatever their roles say.
    pub features: Features,
    /// The host's word about sessions; `None` where it is not asked.
    pub pam: Option<crate::gate::Pam>,
    /// Where the kernel is asked what sessions' processes do, and how; `None` where it is not.
    pub enhanced_recording: Option<enhanced::Settings>,
    /// The program that acts for users, with the arguments that make it do so: [`crate::worker::run`].
    pub worker: Vec<OsString>,
}

/// What the administrator of the node allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Forwarding of ports and sockets.
    pub port_forwarding: bool,
    /// Copying of files.
    pub file_copy: bool,
    /// Variables from `~/.tsh/environment`.
    pub user_environment: bool,
    /// Accounts made on demand.
    pub host_users: bool,
    /// First and last display number for graphical programs; `None`: not forwarded.
    pub displays: Option<(u32, u32)>,
}

/// A node. Clones share it.
#[derive(Clone)]
pub(crate) struct Node {
    pub config: Arc<NodeConfig>,
    pub cache: Cache,
    pub audit: NodeAudit,
    pub recorder: Recorder,
    pub sessions: SessionRegistry,
    pub record: NodeRecord,
    pub leases: Leases,
    /// Watches what sessions' processes do; `None` where nobody does.
    pub kernel: Option<enhanced::Monitor>,
    /// Makes accounts; `None` where the node does not.
    pub host_users: Option<HostUsers>,
    /// Number of the next connection.
    pub connections: Arc<AtomicU64>,
    /// How often one client may connect.
    pub rates: Arc<mux::rate::RateLimit>,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
    /// What the node shows to clients and proxies from the next connection on.
    pub host: Arc<RwLock<Arc<HostIdentity>>>,
    /// SSH algorithms to offer.
    pub algorithms: russh::Preferred,
    /// Connections that may be resumed.
    pub resumable: Resumable,
    /// What the administrator allows at present.
    pub features: watch::Receiver<Features>,
    /// Role sets as compiled for users who came before, while no role changed.
    pub compiled: Arc<Mutex<CompiledRoles>>,
}

/// Role sets by what they were made of.
#[derive(Default)]
pub(crate) struct CompiledRoles {
    revision: u64,
    sets: std::collections::HashMap<(Vec<String>, String), RoleSet>,
}

/// Role sets kept; more users than this only cost speed.
const MAX_COMPILED: usize = 256;

impl Node {
    /// The settings of an SSH connection whose server says `identification` first.
    pub fn ssh_config(&self, identification: String) -> russh::server::Config {
        let host = self.host.read().clone();
        russh::server::Config {
            server_id: russh::SshId::Standard(identification.into()),
            preferred: self.algorithms.clone(),
            ..tunnel::ssh::server_config(vec![(*host.key).clone()], vec![host.certificate.clone()])
        }
    }

    /// Who records sessions, and how, as the cluster's settings say it.
    pub fn recording_mode(&self) -> String {
        let recording = self.cache.recording();
        recording.spec.as_ref().map(|s| s.mode.clone()).filter(|m| !m.is_empty()).unwrap_or_else(|| "node".into())
    }

    /// Whether the proxy records sessions, so that this node must not.
    pub fn records_at_proxy(&self) -> bool {
        self.recording_mode().starts_with("proxy")
    }

    /// The size of a session's terminal, as a joining client reads it.
    pub fn terminal_size(&self, session_id: &[u8]) -> Option<Vec<u8>> {
        let id = std::str::from_utf8(session_id).ok()?;
        let size = *self.sessions.find(id)?.size.borrow();
        serde_json::to_vec(&serde_json::json!({"Height": size.rows, "Width": size.columns})).ok()
    }

    /// Decides whether the holder of a certificate may log in.
    ///
    /// The signature and the key are proven by the protocol; here the authority, the names, the validity and the
    /// roles are.
    pub async fn admit(&self, login: &str, certificate: &Certificate, client: SocketAddr) -> Result<Access, Denial> {
        let nobody = |reason: String| Denial { user: String::new(), reason };
        let authority = self.signer_of(certificate, client).map_err(nobody)?;
        let view = UserCertificate::from_certificate(certificate.clone()).map_err(|e| nobody(e.to_string()))?;
        let identity = self.mapped(view.identity, &authority, certificate.valid_principals()).map_err(nobody)?;
        let home = authority.spec.as_ref().map_or("", |spec| &spec.cluster_name);
        let local_name = match home == self.config.cluster {
            true => identity.username.clone(),
            false => rbac::remote_user_name(&identity.username, home),
        };
        let user = identity.username.clone();
        let denied = |reason: String| Denial { user: user.clone(), reason };

        let roles = self.role_set(&identity.groups, identity.traits.as_ref()).await.map_err(denied)?;
        let roles = roles.bound_by_certificate(&self.config.cluster, &identity.allowed_resource_ids);
        let preference = self.cache.auth_preference();
        let state = AccessState::of(&roles, &preference, identity.is_mfa_verified(), has_trusted_device(&identity));
        let server = self.record.current();
        let permit = match self.decide(&roles, &server, login, &state) {
            Decision::Allow(permit) => permit,
            Decision::Deny(denial) => {
                let cluster = &self.config.cluster;
                let reason = format!(
                    "user {user}@{cluster} is not authorized to login as {login}@{cluster}: {} ({})",
                    denial.message,
                    denial.explanation()
                );
                return Err(denied(reason));
            }
        };
        // After the roles, whose reason says more. A certificate without principals is good for nobody.
        if !certificate.valid_principals().iter().any(|principal| principal == login) {
            return Err(denied(format!("principal {login:?} is not listed in the certificate")));
        }
        let cluster_wide =
            preference.spec.as_ref().and_then(|s| s.disconnect_expired_cert.as_ref()).is_some_and(|v| v.value);
        let ends = permit.options.disconnect_expired(cluster_wide).then_some(());
        let ends = ends.and_then(|()| identity.previous_identity_expires.or(certificate_end(certificate)));
        let refusal = self.refusal(&identity, &local_name, login, &roles);
        let mut access = Access::new(identity, local_name, login, permit, roles, ends);
        match refusal {
            Some(reason) => access.refuse(Refused::because(reason)),
            None => self.take_place(&mut access).await,
        }
        Ok(access)
    }

    /// Why nothing may be opened although the roles allow the login: locks and the kind of key.
    fn refusal(&self, identity: &Identity, local_name: &str, login: &str, roles: &RoleSet) -> Option<String> {
        if let Some(message) = locks::on(&self.cache, &self.lock_subject(identity, login), local_name) {
            return Some(message);
        }
        if locks::are_strict_for(&self.cache, roles) && locks::are_stale(&self.cache) {
            return Some(rbac::stale_locks_denial().message);
        }
        let preference = self.cache.auth_preference();
        let required = roles.options().key_policy(preference.spec.as_ref().map_or(0, |s| s.require_mfa_type));
        let key = KeyPolicy::from_name(&identity.private_key_policy).unwrap_or(KeyPolicy::None);
        // The client reads the policy from this text and logs in again with such a key.
        (!key.satisfies(required)).then(|| format!("private key policy not met: {}", required.name()))
    }

    /// What locks may be on: somebody with a login here.
    pub fn lock_subject(&self, identity: &Identity, login: &str) -> LockSubject {
        locks::subject(identity, login, (&self.config.host_uuid, &self.config.cluster))
    }

    /// Takes a place among the user's simultaneous connections, where the roles limit them.
    async fn take_place(&self, access: &mut Access) {
        let Some(max) = access.permit.options.max_connections.filter(|max| *max > 0) else { return };
        let networking = self.cache.networking();
        let ttl = networking.spec.as_ref().and_then(|s| u64::try_from(s.session_control_timeout).ok());
        match self.leases.take(&access.local_name, max, ttl.map(Duration::from_nanos)).await {
            Ok(lease) => access.hold(lease),
            Err(NoLease::AllTaken) => access.refuse(Refused {
                message: too_many(&access.user, max),
                reason: "max_connections limit reached".to_owned(),
                maximum: max,
            }),
            Err(NoLease::Unknown(problem)) => {
                let message = format!("max_connections of user {:?} cannot be checked: {problem}", access.user);
                access.refuse(Refused::because(message));
            }
        }
    }

    /// Somebody who joins needs no account of their own here: joining is decided per session. A second factor is
    /// asked of them like of everybody else.
    fn decide(&self, roles: &RoleSet, server: &ServerV2, login: &str, state: &AccessState) -> Decision<SshPermit> {
        let proven = state.mfa_verified || state.mfa_required == MfaRequired::Never;
        if login.starts_with('-') && login != JOIN_LOGIN {
            // Such principals say that a certificate is for no account at all.
            let cause = rbac::Cause::NotGranted;
            return Decision::Deny(rbac::Denial::new(cause, format!("{login:?} is no account")));
        }
        if login != JOIN_LOGIN || !proven {
            return roles.check_node(server, login, state);
        }
        Decision::Allow(SshPermit {
            granted_by: Vec::new(),
            login: login.to_owned(),
            options: roles.options().clone(),
            forward_agent: false,
            host_user: Err(rbac::Denial::new(rbac::Cause::NotGranted, "joining makes no account")),
        })
    }

    async fn role_set(&self, names: &[String], traits: Option<&pki::identity::Traits>) -> Result<RoleSet, String> {
        let revision = self.cache.roles_revision();
        let key = (names.to_vec(), serde_json::to_string(&traits).unwrap_or_default());
        {
            let mut compiled = self.compiled.lock();
            if compiled.revision != revision {
                compiled.sets.clear();
                compiled.revision = revision;
            }
            if let Some(set) = compiled.sets.get(&key) {
                return Ok(set.clone());
            }
        }
        let mut roles = Vec::new();
        for name in names {
            let role = self.cache.find_role(name).await.ok_or_else(|| format!("role {name:?} is not found"))?;
            roles.push((*role).clone());
        }
        let set = RoleSet::compile(roles, rbac::Traits::from(traits.cloned().unwrap_or_default()));
        let mut compiled = self.compiled.lock();
        // What was asked for, or changed meanwhile, is not kept: no change would tell when it is old.
        if compiled.revision == self.cache.roles_revision() && names.iter().all(|name| self.cache.role(name).is_some())
        {
            if compiled.sets.len() >= MAX_COMPILED {
                compiled.sets.clear();
            }
            compiled.sets.insert(key, set.clone());
        }
        Ok(set)
    }

    /// The authority for users, of this cluster or of one that it trusts, that signed a certificate which is valid now
    /// and from this address.
    fn signer_of(&self, certificate: &Certificate, client: SocketAddr) -> Result<Arc<CertAuthorityV2>, String> {
        let required = Requirements { kind: Kind::User, principal: None, now: Utc::now(), source: Some(client.ip()) };
        let mut refusal = ssh_cert::CheckError::UnknownAuthority.to_string();
        for authority in self.cache.authorities("user") {
            match ssh_cert::check(certificate, &ssh_keys(&authority), &required) {
                Ok(_) => return Ok(authority),
                Err(ssh_cert::CheckError::UnknownAuthority) => {}
                Err(error) => refusal = error.to_string(),
            }
        }
        Err(refusal)
    }

    /// What a certificate says, in terms of this cluster: roles of users of a trusted cluster are mapped, and the names
    /// their certificate was issued for are their traits.
    fn mapped(
        &self,
        mut identity: Identity,
        authority: &CertAuthorityV2,
        logins: &[String],
    ) -> Result<Identity, String> {
        let spec = authority.spec.clone().unwrap_or_default();
        if spec.cluster_name == self.config.cluster {
            return Ok(identity);
        }
        identity.groups = rbac::map_roles(&spec.role_map, &identity.groups)
            .map_err(|denial| format!("user {} of cluster {}: {denial}", identity.username, spec.cluster_name))?;
        let mut traits = identity.traits.take().unwrap_or_default();
        traits.insert("logins".to_owned(), logins.to_vec());
        identity.traits = Some(traits);
        Ok(identity)
    }
}

/// Whether the certificate was made for a trusted device: all three of its extensions are needed.
fn has_trusted_device(identity: &Identity) -> bool {
    let device = &identity.device;
    ![&device.device_id, &device.asset_tag, &device.credential_id].into_iter().any(String::is_empty)
}

fn certificate_end(certificate: &Certificate) -> Option<chrono::DateTime<Utc>> {
    i64::try_from(certificate.valid_before()).ok().and_then(|s| chrono::DateTime::from_timestamp(s, 0))
}

/// The SSH keys of an authority, signing and trusted ones.
pub(crate) fn ssh_keys(ca: &CertAuthorityV2) -> Vec<PublicKey> {
    let sets = ca.spec.iter().flat_map(|s| s.active_keys.iter().chain(&s.additional_trusted_keys));
    let lines = sets.flat_map(|set| &set.ssh).map(|pair| String::from_utf8_lossy(&pair.public_key).into_owned());
    lines.filter_map(|line| PublicKey::from_ssh_line(&line).ok()).collect()
}
