//! The caller with everything that decides what he may do.

use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use pki::identity::Identity;
use rbac::{
    AccessState, Cause, CertificateNames, Impersonated, JoinMode, KeyPolicy, Labels, MfaRequired, RoleSet, RuleContext,
    SessionOwner, Target,
};
use resources::{Resource as _, SystemRole};
use serde_json::Value;
use wire::error::{Error, ErrorKind, Result};
use wire::types::{LockTarget, Metadata, RemoteClusterV3, RoleV6, ServerV2, UserSpecV2, UserV2};

use crate::caller::Principal;
use crate::{Auth, Caller};

/// Who makes a call, and what decides about it.
pub struct AuthContext {
    caller: Caller,
    name: String,
    access: Access,
    disconnects_expired: bool,
    /// What a lock would have to name to shut the caller out.
    lock_targets: Vec<LockTarget>,
}

/// Where the rights of a caller come from.
enum Access {
    /// No certificate.
    Nobody,
    /// A service of this cluster: from its system roles.
    Service(RoleSet),
    /// A user of this cluster: from the roles in his certificate. One of a trusted cluster: from the local roles to
    /// which those are mapped.
    Person(Box<Person>),
    /// A proxy of a trusted cluster: what such proxies may do.
    RemoteProxy(RoleSet),
    /// Another service of another cluster: none.
    Foreigner,
}

struct Person {
    roles: RoleSet,
    role_names: Vec<String>,
    /// What conditions of rules know before they know the object.
    rules: RuleContext,
}

/// Makes the context of a caller.
///
/// # Errors
/// See [`Authorizer::context`](super::Authorizer::context).
pub async fn build(auth: &Auth, caller: Caller) -> Result<AuthContext> {
    let preference = auth.auth_preference()?;
    let cluster = preference.spec.clone().unwrap_or_default();
    let mut disconnects_expired = cluster.disconnect_expired_cert.is_some_and(|flag| flag.value);
    let access = match &caller.principal {
        Principal::Anonymous => Access::Nobody,
        Principal::Service { role, roles, .. } => {
            let held: Vec<SystemRole> = std::iter::once(*role).chain(roles.iter().copied()).collect();
            Access::Service(rbac::builtin_roles(&held))
        }
        // Its certificate is good here only because its cluster is trusted.
        Principal::RemoteService { role: SystemRole::Proxy, .. } => {
            Access::RemoteProxy(rbac::builtin_roles(&[SystemRole::RemoteProxy]))
        }
        Principal::RemoteService { .. } => Access::Foreigner,
        Principal::RemoteUser { name, cluster: home } => {
            let person = Person::map(auth, name, home, caller.identity.as_deref())?;
            disconnects_expired |= person.roles.options().disconnect_expired_cert;
            check_key_policy(&person, cluster.require_mfa_type, caller.identity.as_deref())?;
            check_pinned_address(&person, caller.identity.as_deref(), caller.remote_addr)?;
            Access::Person(Box::new(person))
        }
        Principal::User(name) => {
            let person = Person::load(auth, name, caller.identity.as_deref()).await?;
            disconnects_expired |= person.roles.options().disconnect_expired_cert;
            check_key_policy(&person, cluster.require_mfa_type, caller.identity.as_deref())?;
            check_pinned_address(&person, caller.identity.as_deref(), caller.remote_addr)?;
            Access::Person(Box::new(person))
        }
    };
    let name = caller.user_name();
    let lock_targets = lock_targets(&caller, &access);
    Ok(AuthContext { caller, name, access, disconnects_expired, lock_targets })
}

impl AuthContext {
    /// The caller.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// What the certificate says; `None` without one.
    pub fn identity(&self) -> Option<&Identity> {
        self.caller.identity.as_deref()
    }

    /// The name of a user, or `<host id>.<cluster>` of a service.
    pub fn username(&self) -> &str {
        &self.name
    }

    /// Address and port of the other end; empty when unknown.
    pub fn remote_addr(&self) -> String {
        self.caller.remote_addr.map(|address| address.to_string()).unwrap_or_default()
    }

    /// When the certificate ends.
    pub fn expires(&self) -> Option<DateTime<Utc>> {
        self.identity()?.expires
    }

    /// Whether the connection ends with the certificate.
    pub fn disconnects_expired(&self) -> bool {
        self.disconnects_expired
    }

    /// Whether there is no certificate.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.access, Access::Nobody)
    }

    /// Whether this is a user, as opposed to a service, of any cluster.
    pub fn is_person(&self) -> bool {
        matches!(self.caller.principal, Principal::User(_) | Principal::RemoteUser { .. })
    }

    /// Whether this is a user of this cluster.
    pub fn is_local_person(&self) -> bool {
        matches!(self.caller.principal, Principal::User(_))
    }

    /// The cluster of a proxy of a trusted cluster.
    pub fn remote_proxy_cluster(&self) -> Option<&str> {
        match (&self.access, &self.caller.principal) {
            (Access::RemoteProxy(_), Principal::RemoteService { cluster, .. }) => Some(cluster),
            _ => None,
        }
    }

    /// Whether this is the user of this cluster with that name.
    pub fn is_user(&self, name: &str) -> bool {
        matches!(&self.caller.principal, Principal::User(own) if own == name)
    }

    /// Whether this is a service of this cluster.
    pub fn is_service(&self) -> bool {
        matches!(self.access, Access::Service(_))
    }

    /// Whether this is the administrator on the Auth Service's own machine.
    pub fn is_admin(&self) -> bool {
        self.caller.is_admin()
    }

    /// Whether this is a service of this cluster that holds a system role.
    pub fn has_role(&self, role: SystemRole) -> bool {
        self.caller.has_role(role)
    }

    /// Whether this is a service of this cluster that holds the system role of that name.
    pub fn has_role_named(&self, role: &str) -> bool {
        SystemRole::from_name(role).is_some_and(|role| self.has_role(role))
    }

    /// The UUID of a service's host.
    pub fn host_id(&self) -> Option<&str> {
        self.caller.host_id().filter(|id| !id.is_empty())
    }

    /// Whether this is a service on the host with that UUID; `<uuid>.<cluster>` is understood, too.
    pub fn is_host(&self, id: &str) -> bool {
        self.host_id().is_some_and(|own| own == id || self.name == id)
    }

    /// The names of a user's roles; empty for services.
    pub fn role_names(&self) -> &[String] {
        match &self.access {
            Access::Person(person) => &person.role_names,
            _ => &[],
        }
    }

    /// Whether the caller may read the keys of web sessions: proxies, which act with them.
    pub fn may_use_web_sessions(&self) -> bool {
        self.has_role(SystemRole::Proxy) || self.is_admin()
    }

    /// Refuses unless the caller has all of the verbs on a kind of resource, whatever the object.
    ///
    /// # Errors
    /// `AccessDenied`, naming the first verb that is missing.
    pub fn require(&self, kind: &str, verbs: &[&str]) -> Result<()> {
        match &self.access {
            Access::Person(person) => person.require(kind, verbs, &person.rules),
            _ => self.require_builtin(kind, verbs),
        }
    }

    /// Refuses unless the caller has all of the verbs on this object; `object` is the name by which conditions of
    /// rules know it (`resource`, `session`, `session_tracker`, `host_cert`), and what they can ask about it.
    ///
    /// # Errors
    /// As [`require`](Self::require).
    pub fn require_on(&self, kind: &str, verbs: &[&str], (name, object): (&'static str, &Value)) -> Result<()> {
        match &self.access {
            Access::Person(person) => person.require(kind, verbs, &person.rules.clone().with(name, object)),
            _ => self.require_builtin(kind, verbs),
        }
    }

    /// Refuses unless there can be an object on which the caller has the verbs.
    ///
    /// # Errors
    /// As [`require`](Self::require).
    pub fn require_possible(&self, kind: &str, verbs: &[&str]) -> Result<()> {
        match &self.access {
            Access::Person(person) => match verbs.iter().find(|verb| !person.roles.could_allow(kind, verb)) {
                Some(verb) => Err(denied(kind, verb)),
                None => Ok(()),
            },
            _ => self.require_builtin(kind, verbs),
        }
    }

    /// Refuses unless the caller is the user of that name, or has all of the verbs on a kind of resource.
    ///
    /// # Errors
    /// As [`require`](Self::require).
    pub fn require_self_or(&self, user: &str, kind: &str, verbs: &[&str]) -> Result<()> {
        if self.is_user(user) { Ok(()) } else { self.require(kind, verbs) }
    }

    /// Refuses unless the caller is a service on the host with that UUID.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub fn require_own_server(&self, host_id: &str) -> Result<()> {
        match self.host_id() {
            Some(own) if own == host_id => Ok(()),
            _ => Err(Error::access_denied(format!(
                "access denied: {:?} does not speak for server {host_id:?}",
                self.name
            ))),
        }
    }

    /// Whether a server exists for the caller: people see the servers that they can reach with some login.
    pub fn can_see_node(&self, node: &ServerV2) -> bool {
        match &self.access {
            Access::Person(person) => person.roles.can_see_node(node),
            _ => self.require_builtin("node", &["read"]).is_ok(),
        }
    }

    /// Whether something exists for the caller: people see what their roles reach by its labels.
    pub fn reaches(&self, thing: &impl rbac::Labelled) -> bool {
        match &self.access {
            Access::Person(person) => person.roles.can_see(&thing.target()),
            Access::Service(roles) | Access::RemoteProxy(roles) => {
                let kind = thing.target().kind;
                check_rules(roles, kind, &["read"], &RuleContext::new()).is_ok()
                    || check_rules(roles, &format!("{kind}_server"), &["read"], &RuleContext::new()).is_ok()
            }
            Access::Nobody | Access::Foreigner => false,
        }
    }

    /// The roles of a person; `None` for everybody else.
    pub fn roles(&self) -> Option<&RoleSet> {
        match &self.access {
            Access::Person(person) => Some(&person.roles),
            _ => None,
        }
    }

    /// The same caller as if a request for the roles that he may search as, or that he may preview requests as, had
    /// been approved. For lists only.
    ///
    /// # Errors
    /// `AccessDenied` for callers that are no people.
    pub fn searching(&self, auth: &Auth, preview: bool) -> Result<Self> {
        let Access::Person(person) = &self.access else {
            return Err(Error::access_denied("access denied: only people search with roles that they may request"));
        };
        let further = if preview { person.roles.preview_as_roles() } else { person.roles.search_as_roles() };
        let mut role_names = person.role_names.clone();
        role_names.extend(further.into_iter().filter(|name| auth.role(name).is_ok()));
        role_names.sort();
        role_names.dedup();
        let traits = person.roles.traits().iter().map(|(name, values)| (name.to_owned(), values.to_vec())).collect();
        let roles = auth.role_set(&role_names, &traits, &self.name)?;
        let person = Person { roles, role_names, rules: person.rules.clone() };
        Ok(Self {
            caller: self.caller.clone(),
            name: self.name.clone(),
            access: Access::Person(Box::new(person)),
            disconnects_expired: self.disconnects_expired,
            lock_targets: self.lock_targets.clone(),
        })
    }

    /// The logins that the caller can use on a server.
    pub fn logins_on(&self, node: &ServerV2) -> Vec<String> {
        match &self.access {
            Access::Person(person) => person.roles.node_logins(node),
            _ => Vec::new(),
        }
    }

    /// Whether another cluster exists for the caller.
    pub fn can_see_cluster(&self, cluster: &RemoteClusterV3) -> bool {
        match &self.access {
            Access::Person(person) => person.can_see_cluster(cluster),
            _ => self.require_builtin("remote_cluster", &["read"]).is_ok(),
        }
    }

    /// How the caller may join a session of a kind; empty when not at all.
    pub fn join_modes(&self, owner: SessionOwner<'_>, kind: &str) -> Vec<JoinMode> {
        match &self.access {
            Access::Person(person) => person.roles.join_modes(self.username(), owner, kind),
            _ => Vec::new(),
        }
    }

    /// When sessions of the caller need a second factor, with the setting of the cluster.
    pub fn session_mfa(&self, cluster: i32) -> MfaRequired {
        match &self.access {
            Access::Person(person) => person.roles.mfa_required(cluster),
            _ => MfaRequired::Never,
        }
    }

    /// Whether using the key of the certificate is a second factor in itself.
    pub fn has_proving_key(&self) -> bool {
        let policy = self.identity().and_then(|identity| KeyPolicy::from_name(&identity.private_key_policy));
        policy.is_some_and(KeyPolicy::is_mfa)
    }

    /// Whether a session on a server would be refused only for want of a second factor.
    pub fn needs_mfa_on(&self, node: &ServerV2, login: &str) -> bool {
        let Access::Person(person) = &self.access else { return false };
        let state = AccessState {
            mfa_required: MfaRequired::PerRole,
            mfa_verified: self.has_proving_key(),
            ..AccessState::VISIBLE
        };
        let decision = person.roles.check_node(node, login, &state);
        decision.denial().is_some_and(|denial| denial.cause == Cause::MfaRequired)
    }

    /// Refuses when a lock that is in force names the caller.
    ///
    /// # Errors
    /// `AccessDenied` with the lock's message.
    pub fn check_in_force(&self, auth: &Auth) -> Result<()> {
        if self.lock_targets.is_empty() { Ok(()) } else { auth.check_locks(&self.lock_targets) }
    }

    /// Refuses unless the caller's roles let him have certificates of a user with these roles.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub fn require_impersonation(&self, user: &UserV2, roles: &[String]) -> Result<()> {
        let Access::Person(person) = &self.access else { return Err(denied("user", "impersonate")) };
        let decision = person.roles.check_impersonation(Impersonated { user, roles }, &person.rules);
        decision.into_result().map(drop).map_err(Error::from)
    }

    /// Refuses unless the caller's roles let him have certificates of his own with these roles instead of his.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub fn require_role_impersonation(&self, roles: &[String]) -> Result<()> {
        let Access::Person(person) = &self.access else { return Err(denied("role", "impersonate")) };
        person.roles.check_role_impersonation(roles).into_result().map(drop).map_err(Error::from)
    }

    fn require_builtin(&self, kind: &str, verbs: &[&str]) -> Result<()> {
        match &self.access {
            Access::Service(roles) | Access::RemoteProxy(roles) => check_rules(roles, kind, verbs, &RuleContext::new()),
            _ => Err(denied(kind, verbs.first().copied().unwrap_or("use"))),
        }
    }
}

impl std::fmt::Debug for AuthContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthContext").field("caller", &self.name).finish_non_exhaustive()
    }
}

impl Person {
    /// Reads a user and the roles of his certificate, as they are stored now.
    async fn load(auth: &Auth, name: &str, identity: Option<&Identity>) -> Result<Self> {
        let user = auth.get_user(name, false).await.map_err(|error| match error.kind {
            ErrorKind::NotFound => Error::access_denied(format!("access denied: user {name:?} does not exist")),
            _ => error,
        })?;
        let (role_names, traits) = match identity {
            Some(identity) => (identity.groups.clone(), identity.traits.clone().unwrap_or_default()),
            None => {
                let rights = auth.rights_of(&user);
                (rights.roles, rights.traits)
            }
        };
        let roles = auth.role_set(&role_names, &traits, name).map_err(|error| match error.kind {
            ErrorKind::NotFound => Error::access_denied(format!("access denied: {}", error.message)),
            _ => error,
        })?;
        let rules = RuleContext::new().with_user(&user);
        let bound = identity.map(|identity| identity.allowed_resource_ids.as_slice()).unwrap_or_default();
        Ok(Self { roles: roles.bound_by_certificate(auth.cluster_name(), bound), role_names, rules })
    }

    /// A user of a trusted cluster, with the roles to which those in his certificate are mapped.
    fn map(auth: &Auth, name: &str, home: &str, identity: Option<&Identity>) -> Result<Self> {
        let nothing = || Error::access_denied(format!("access denied: users of cluster {home:?} have no rights here"));
        let identity = identity.ok_or_else(nothing)?;
        let role_names = rbac::map_roles(&auth.role_map_of(home), &identity.groups).map_err(Error::from)?;
        let traits = rbac::Traits::from(identity.traits.clone().unwrap_or_default());
        let names = CertificateNames { logins: identity.principals.clone(), ..Default::default() };
        let traits = rbac::remote_traits(traits, names);
        let roles = auth.roles(&role_names).map_err(|error| match error.kind {
            ErrorKind::NotFound => Error::access_denied(format!("access denied: {}", error.message)),
            _ => error,
        })?;
        let roles = RoleSet::compile(roles.iter().map(|role| RoleV6::clone(role)), traits);
        let roles = roles.bound_by_certificate(auth.cluster_name(), &identity.allowed_resource_ids);
        let user = UserV2 {
            metadata: Some(Metadata { name: rbac::remote_user_name(name, home), ..Default::default() }),
            spec: Some(UserSpecV2 { roles: role_names.clone(), ..Default::default() }),
            ..Default::default()
        };
        Ok(Self { roles, role_names, rules: RuleContext::new().with_user(&user) })
    }

    fn require(&self, kind: &str, verbs: &[&str], rules: &RuleContext) -> Result<()> {
        check_rules(&self.roles, kind, verbs, rules)
    }

    /// Without any word about clusters in roles or labels, every cluster may be used.
    fn can_see_cluster(&self, cluster: &RemoteClusterV3) -> bool {
        let labels = &cluster.metadata().labels;
        let silent = self.roles.roles().iter().all(|role| {
            [role.allow_conditions(), role.deny_conditions()].into_iter().all(|conditions| {
                conditions.cluster_labels.as_ref().is_none_or(|labels| labels.values.is_empty())
                    && conditions.cluster_labels_expression.is_empty()
            })
        });
        let target =
            Target { kind: resources::kind::REMOTE_CLUSTER, name: cluster.name(), labels: Labels::fixed(labels) };
        silent && labels.is_empty() || self.roles.can_see(&target)
    }
}

fn check_rules(roles: &RoleSet, kind: &str, verbs: &[&str], rules: &RuleContext) -> Result<()> {
    for verb in verbs {
        roles.check_rule(kind, verb, rules).into_result().map_err(Error::from)?;
    }
    Ok(())
}

fn denied(kind: &str, verb: &str) -> Error {
    Error::access_denied(format!("access denied to perform action {verb:?} on {kind:?}"))
}

/// The private key must be kept as well as cluster and roles ask for. Clients know the words of the refusal, and log in
/// again with such a key.
fn check_key_policy(person: &Person, cluster: i32, identity: Option<&Identity>) -> Result<()> {
    let Some(identity) = identity else { return Ok(()) };
    let required = person.roles.options().key_policy(cluster);
    let kept = KeyPolicy::from_name(&identity.private_key_policy).unwrap_or(KeyPolicy::None);
    if kept.satisfies(required) {
        Ok(())
    } else {
        Err(Error::bad_parameter(format!("private key policy not met: {}", required.name())))
    }
}

/// A certificate that is bound to an address is of use from there only.
fn check_pinned_address(person: &Person, identity: Option<&Identity>, remote: Option<SocketAddr>) -> Result<()> {
    let pinned = identity.map_or("", |identity| identity.pinned_ip.as_str());
    if pinned.is_empty() {
        return match person.roles.options().pin_source_ip && identity.is_some() {
            true => Err(Error::access_denied("pinned IP is required for the user, but is not present on identity")),
            false => Ok(()),
        };
    }
    // Port 0 stands for an address that somebody claimed without proof.
    let observed = remote.filter(|remote| remote.port() != 0).map(|remote| remote.ip().to_canonical().to_string());
    if observed.as_deref() == Some(pinned) {
        Ok(())
    } else {
        Err(Error::access_denied("pinned IP doesn't match observed client IP"))
    }
}

fn lock_targets(caller: &Caller, access: &Access) -> Vec<LockTarget> {
    let mut targets = Vec::new();
    match (&caller.principal, access) {
        (Principal::User(name) | Principal::RemoteUser { name, .. }, Access::Person(person)) => {
            targets.push(LockTarget { user: name.clone(), ..Default::default() });
            targets
                .extend(person.role_names.iter().map(|role| LockTarget { role: role.clone(), ..Default::default() }));
            if let Some(identity) = caller.identity.as_deref() {
                let device = &identity.mfa_verified;
                targets.extend(
                    identity
                        .active_requests
                        .iter()
                        .map(|id| LockTarget { access_request: id.clone(), ..Default::default() }),
                );
                targets.extend(
                    (!device.is_empty()).then(|| LockTarget { mfa_device: device.clone(), ..Default::default() }),
                );
                let device = &identity.device.device_id;
                targets
                    .extend((!device.is_empty()).then(|| LockTarget { device: device.clone(), ..Default::default() }));
            }
        }
        (Principal::Service { host_id, role, .. }, _) if *role != SystemRole::Admin => {
            let cluster = caller.identity.as_deref().map_or("", |identity| &identity.teleport_cluster);
            for server_id in [host_id.clone(), format!("{host_id}.{cluster}")] {
                targets.push(LockTarget { server_id, ..Default::default() });
            }
        }
        _ => {}
    }
    targets
}
