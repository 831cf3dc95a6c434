//! Access to resources by labels and by what is asked for on them.

use std::collections::BTreeMap;

use wire::types::{AuthPreferenceV2, RemoteClusterV3, RoleOptions, ServerV2};

use crate::{
    decision::{Cause, Decision, Denial},
    fields::{LabelField, ListField},
    labels::{Labels, Lookup},
    options::{MfaRequired, Options, RolesOnMfa},
    role::Role,
    role_set::RoleSet,
};

/// What access is asked to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The kind, as messages and requests name it: `node`, `db`, `app`, `kube_cluster`, `windows_desktop`…
    pub kind: &'a str,
    /// The name by which requests identify it: for a server its UUID.
    pub name: &'a str,
    /// Its labels.
    pub labels: Labels<'a>,
}

impl<'a> Target<'a> {
    /// An SSH server.
    pub fn node(node: &'a ServerV2) -> Self {
        let name = node.metadata.as_ref().map_or("", |m| m.name.as_str());
        Self { kind: resources::kind::NODE, name, labels: Labels::of(node) }
    }

    fn field(&self) -> Option<LabelField> {
        use resources::kind;
        Some(match self.kind {
            kind::NODE => LabelField::Node,
            kind::APP | kind::APP_SERVER | kind::SAML_IDP_SERVICE_PROVIDER => LabelField::App,
            kind::KUBE_CLUSTER | kind::KUBE_SERVER => LabelField::Kubernetes,
            kind::DB | kind::DB_SERVER => LabelField::Database,
            kind::DB_SERVICE => LabelField::DatabaseService,
            kind::WINDOWS_DESKTOP | kind::WINDOWS_DESKTOP_SERVICE => LabelField::WindowsDesktop,
            kind::USER_GROUP => LabelField::Group,
            kind::REMOTE_CLUSTER => LabelField::Cluster,
            _ => return None,
        })
    }

    /// What the user is told to look at.
    fn hint(&self) -> &'static str {
        match self.kind {
            resources::kind::NODE => " Confirm SSH login.",
            resources::kind::DB => " Confirm database user and name.",
            resources::kind::KUBE_CLUSTER => " Confirm Kubernetes user or group.",
            resources::kind::WINDOWS_DESKTOP => " Confirm Windows user.",
            _ => "",
        }
    }
}

/// What is asked for on a resource: has to be allowed by the same role that allows the resource, and denied by none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// The account on an SSH server.
    Login(&'a str),
    /// The account on a desktop.
    WindowsLogin(&'a str),
    /// The account in a database.
    DatabaseUser {
        /// Its name.
        name: &'a str,
        /// Whether the database ignores case in names of accounts.
        ignore_case: bool,
    },
    /// The database.
    DatabaseName(&'a str),
    /// The role in AWS.
    AwsRoleArn(&'a str),
    /// The identity in Azure; case does not matter there.
    AzureIdentity(&'a str),
    /// The service account in Google Cloud.
    GcpServiceAccount(&'a str),
}

impl Ask<'_> {
    fn field(self) -> ListField {
        match self {
            Self::Login(_) => ListField::Logins,
            Self::WindowsLogin(_) => ListField::WindowsLogins,
            Self::DatabaseUser { .. } => ListField::DatabaseUsers,
            Self::DatabaseName(_) => ListField::DatabaseNames,
            Self::AwsRoleArn(_) => ListField::AwsRoleArns,
            Self::AzureIdentity(_) => ListField::AzureIdentities,
            Self::GcpServiceAccount(_) => ListField::GcpServiceAccounts,
        }
    }

    fn value(&self) -> &str {
        match self {
            Self::Login(v) | Self::WindowsLogin(v) | Self::DatabaseName(v) | Self::AwsRoleArn(v) => v,
            Self::AzureIdentity(v) | Self::GcpServiceAccount(v) | Self::DatabaseUser { name: v, .. } => v,
        }
    }

    /// Whether one of the names stands for what is asked. `*` stands for everything only where a role may say so.
    fn is_in(self, names: &[String], denying: bool) -> bool {
        let star = match self {
            Self::DatabaseUser { .. } | Self::DatabaseName(_) => true,
            Self::AwsRoleArn(_) | Self::AzureIdentity(_) | Self::GcpServiceAccount(_) => denying,
            Self::Login(_) | Self::WindowsLogin(_) => false,
        };
        let same = |name: &str| match self {
            Self::DatabaseUser { name: asked, ignore_case: true } | Self::AzureIdentity(asked) => {
                name.to_lowercase() == asked.to_lowercase()
            }
            _ => name == self.value(),
        };
        names.iter().any(|name| same(name) || (star && name == "*"))
    }

    fn denied_by(self, role: &Role) -> bool {
        self.is_in(role.denied(self.field()), true) || role.deny.list_is_broken(self.field())
    }

    fn allowed_by(self, role: &Role) -> bool {
        self.is_in(role.allowed(self.field()), false)
    }
}

/// What was proved besides the identity. By default nothing, and whatever a role asks for is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccessState {
    /// Whether a second factor is needed for each session: [`RoleSet::mfa_required`].
    pub mfa_required: MfaRequired,
    /// A second factor was used for this session, or the key is one.
    pub mfa_verified: bool,
    /// Roles that want a trusted device are not obeyed: in clusters whose mode is `off`, and for services of the
    /// cluster itself.
    pub device_exempt: bool,
    /// The certificate names a trusted device.
    pub device_verified: bool,
}

impl AccessState {
    /// For lists: whether a resource can be reached at all, now or after the second factor.
    pub const VISIBLE: Self =
        Self { mfa_required: MfaRequired::Never, mfa_verified: true, device_exempt: true, device_verified: false };

    /// The state of a session: what the cluster and the roles want, and what the certificate says.
    pub fn of(roles: &RoleSet, cluster: &AuthPreferenceV2, mfa_verified: bool, device_verified: bool) -> Self {
        let spec = cluster.spec.clone().unwrap_or_default();
        let device_exempt = spec.device_trust.is_some_and(|d| d.mode == "off");
        let mfa_required = roles.mfa_required(spec.require_mfa_type);
        Self { mfa_required, mfa_verified, device_exempt, device_verified }
    }

    /// Why a role that grants access does not suffice yet.
    fn objection(self, options: &RoleOptions) -> Option<(Cause, &'static str, &'static str)> {
        if !self.mfa_verified && options.require_mfa_type != 0 {
            return Some((Cause::MfaRequired, MFA, "options.require_session_mfa"));
        }
        if !self.device_exempt && !self.device_verified && options.device_trust_mode == "required" {
            return Some((Cause::TrustedDeviceRequired, DEVICE, "options.device_trust_mode"));
        }
        None
    }

    /// Whether no role can object.
    fn is_settled(self, options: &Options) -> bool {
        let mfa = self.mfa_verified || options.session_mfa == RolesOnMfa::Never;
        mfa && (self.device_verified || self.device_exempt || !options.device_trust)
    }
}

const MFA: &str = "access to resource requires MFA";
const DEVICE: &str = "access to resource requires a trusted device";

/// Permission to use a resource.
#[derive(Clone, Debug)]
pub struct ResourcePermit {
    /// The names of the roles that allow it; with everything proved only the first is looked for.
    pub granted_by: Vec<String>,
    /// The roles and their merged options.
    pub roles: RoleSet,
}

impl RoleSet {
    /// Whether a resource may be used, with all that is asked for on it.
    ///
    /// Any role that denies the labels, or denies something that is asked for, decides. Otherwise one role has to
    /// allow both the labels and everything that is asked for.
    pub fn check_access(&self, target: &Target<'_>, asks: &[Ask<'_>], state: &AccessState) -> Decision<ResourcePermit> {
        match self.decide(target, asks, state) {
            Ok(granting) => {
                let granted_by = granting.iter().map(|role| role.name().to_owned()).collect();
                Decision::Allow(ResourcePermit { granted_by, roles: self.clone() })
            }
            Err(no) => Decision::Deny(self.refuse(no, target, asks)),
        }
    }

    /// Whether another cluster may be entered. Clusters without labels are open to users whose roles say nothing
    /// about clusters.
    pub fn check_remote_cluster(&self, cluster: &RemoteClusterV3) -> Decision<ResourcePermit> {
        static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
        let metadata = cluster.metadata.as_ref();
        let labels = metadata.map_or(&NO_LABELS, |m| &m.labels);
        let name = metadata.map_or("", |m| m.name.as_str());
        let target = Target { kind: resources::kind::REMOTE_CLUSTER, name, labels: Labels::fixed(labels) };
        let field = LabelField::Cluster;
        let silent = self.allowing(field).next().is_none() && self.denying(field).next().is_none();
        if silent && labels.is_empty() {
            return Decision::Allow(ResourcePermit { granted_by: Vec::new(), roles: self.clone() });
        }
        match self.check_access(&target, &[], &AccessState::VISIBLE) {
            Decision::Deny(denial) => Decision::Deny(Denial { message: "access to cluster denied".into(), ..denial }),
            allowed => allowed,
        }
    }

    /// Whether a resource shows up in lists: it can be reached with some login, now or after the second factor.
    pub fn can_see(&self, target: &Target<'_>) -> bool {
        self.decide(target, &[], &AccessState::VISIBLE).is_ok()
    }

    /// The roles that grant access, or the reason why none does.
    pub(crate) fn decide(
        &self,
        target: &Target<'_>,
        asks: &[Ask<'_>],
        state: &AccessState,
    ) -> Result<Vec<&Role>, No<'_>> {
        let Some(field) = target.field() else { return Err(No::NotGranted) };
        if !self.is_among_only(target) {
            return Err(No::OtherResources);
        }
        if state.mfa_required == MfaRequired::Always && !state.mfa_verified {
            return Err(No::MfaAlways);
        }
        let labels = Lookup::new(target.labels);
        for role in self.denying(field) {
            if let Some(part) = role.deny.selection(field).denies(&labels, self.traits()) {
                return Err(No::Denied { role, field: format!("deny.{}", part.field(field)), ask: None });
            }
        }
        for ask in asks {
            if let Some(role) = self.roles().iter().find(|role| ask.denied_by(role)) {
                let field = format!("deny.{}", ask.field().name());
                return Err(No::Denied { role, field, ask: Some(ask.value().to_owned()) });
            }
        }
        let mut granting = Vec::new();
        for role in self.allowing(field) {
            let fits = asks.iter().all(|ask| ask.allowed_by(role));
            if !fits || !role.allow.selection(field).allows(&labels, self.traits()) {
                continue;
            }
            granting.push(role);
            if state.is_settled(self.options()) {
                return Ok(granting);
            }
            if let Some((cause, message, field)) = state.objection(role.options()) {
                return Err(No::Objection { role, cause, message, field });
            }
        }
        if granting.is_empty() { Err(No::NotGranted) } else { Ok(granting) }
    }

    /// Whether the identity is bound to no resources, or to this one.
    fn is_among_only(&self, target: &Target<'_>) -> bool {
        let Some(only) = self.only() else { return true };
        // What is bound may lie in another cluster; that one looks at it.
        if target.kind == resources::kind::REMOTE_CLUSTER {
            return true;
        }
        let pod_like = |kind: &str| kind == "pod" || resources::KUBERNETES_KINDS.contains(&kind);
        only.ids.iter().any(|id| {
            let kind = id.kind == target.kind || (target.kind == resources::kind::KUBE_CLUSTER && pod_like(&id.kind));
            id.cluster_name == only.cluster && kind && id.name == target.name
        })
    }

    fn refuse(&self, no: No<'_>, target: &Target<'_>, asks: &[Ask<'_>]) -> Denial {
        let kind = target.kind;
        let message = || format!("access to {kind} denied. User does not have permissions.{}", target.hint());
        match no {
            No::OtherResources => {
                Denial::new(Cause::OtherResources, format!("access to {kind} denied, not in allowed resource IDs"))
            }
            No::MfaAlways => Denial::new(Cause::MfaRequired, MFA),
            No::Objection { role, cause, message, field } => {
                Denial::new(cause, message).by(role.name(), field, "the role that allows access asks for it")
            }
            No::Denied { role, field, ask } => {
                let detail = match ask {
                    Some(value) => format!("denies {value:?}"),
                    None => format!("denies the labels of {kind} {:?}", target.name),
                };
                Denial::new(Cause::Denied, message()).by(role.name(), field, detail)
            }
            No::NotGranted => Denial::new(Cause::NotGranted, message()).because(self.why_not(target, asks).join("; ")),
        }
    }

    /// For every role that is about this kind of resource, why it does not allow access.
    fn why_not(&self, target: &Target<'_>, asks: &[Ask<'_>]) -> Vec<String> {
        let Some(field) = target.field() else { return vec![format!("roles are not about {}", target.kind)] };
        let mut reasons = Vec::new();
        for role in self.allowing(field) {
            for check in allow_checks(role, field, target, asks, self).into_iter().filter(|c| !c.passed) {
                reasons.push(format!("role {:?}, {}: {}", role.name(), check.field, check.detail));
            }
        }
        if reasons.is_empty() {
            reasons.push(format!("no role has allow.{}", field.name()));
        }
        reasons
    }

    /// Every field of every role that matters for a decision, with its outcome: the decision, field by field.
    pub fn explain(&self, target: &Target<'_>, asks: &[Ask<'_>], state: &AccessState) -> Explanation {
        let decision = self.check_access(target, asks, state);
        let Some(field) = target.field() else { return Explanation { decision, roles: Vec::new() } };
        let explain = |role: &Role| RoleExplanation {
            role: role.name().to_owned(),
            allow: allow_checks(role, field, target, asks, self),
            deny: deny_checks(role, field, target, asks, self),
            objection: state.objection(role.options()).map(|(_, _, field)| field.to_owned()),
        };
        Explanation { decision, roles: self.roles().iter().map(|r| explain(r)).collect() }
    }
}

/// Why access is not granted, before it is put into words.
pub(crate) enum No<'a> {
    OtherResources,
    MfaAlways,
    Denied { role: &'a Role, field: String, ask: Option<String> },
    Objection { role: &'a Role, cause: Cause, message: &'static str, field: &'static str },
    NotGranted,
}

/// A decision about access, field by field.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision<ResourcePermit>,
    /// What each role says, ordered by name.
    pub roles: Vec<RoleExplanation>,
}

/// What one role says about access to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleExplanation {
    /// The name of the role.
    pub role: String,
    /// The fields of `allow`; all have to pass for the role to allow access.
    pub allow: Vec<FieldCheck>,
    /// The fields of `deny`; one that passes denies.
    pub deny: Vec<FieldCheck>,
    /// The option that asks for more than was proved.
    pub objection: Option<String>,
}

impl RoleExplanation {
    /// Whether the role allows access.
    pub fn allows(&self) -> bool {
        !self.allow.is_empty() && self.allow.iter().all(|check| check.passed)
    }

    /// Whether the role denies access.
    pub fn denies(&self) -> bool {
        self.deny.iter().any(|check| check.passed)
    }
}

/// One field of a role and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldCheck {
    /// Its path in the role: `allow.node_labels`.
    pub field: String,
    /// Whether it fits the resource or what is asked for.
    pub passed: bool,
    /// Why, in words.
    pub detail: String,
}

fn allow_checks(
    role: &Role,
    field: LabelField,
    target: &Target<'_>,
    asks: &[Ask<'_>],
    set: &RoleSet,
) -> Vec<FieldCheck> {
    let mut checks = Vec::new();
    let selection = role.allow.selection(field);
    checks.push(match selection.mismatch(&Lookup::new(target.labels), set.traits()) {
        Some((part, detail)) => FieldCheck { field: format!("allow.{}", part.field(field)), passed: false, detail },
        None => {
            FieldCheck { field: format!("allow.{}", field.name()), passed: true, detail: "fits the labels".to_owned() }
        }
    });
    for ask in asks {
        let passed = ask.allowed_by(role);
        let verb = if passed { "has" } else { "does not have" };
        let detail = format!("{verb} {:?}", ask.value());
        checks.push(FieldCheck { field: format!("allow.{}", ask.field().name()), passed, detail });
    }
    checks
}

fn deny_checks(
    role: &Role,
    field: LabelField,
    target: &Target<'_>,
    asks: &[Ask<'_>],
    set: &RoleSet,
) -> Vec<FieldCheck> {
    let mut checks = Vec::new();
    let selection = role.deny.selection(field);
    if !selection.is_empty() {
        let part = selection.denies(&Lookup::new(target.labels), set.traits());
        let name = part.map_or(field.name().to_owned(), |part| part.field(field));
        let detail = if part.is_some() { "fits the labels" } else { "does not fit the labels" };
        checks.push(FieldCheck { field: format!("deny.{name}"), passed: part.is_some(), detail: detail.to_owned() });
    }
    for ask in asks.iter().filter(|ask| !role.denied(ask.field()).is_empty() || role.deny.list_is_broken(ask.field())) {
        let passed = ask.denied_by(role);
        let verb = if passed { "has" } else { "does not have" };
        let detail = format!("{verb} {:?}", ask.value());
        checks.push(FieldCheck { field: format!("deny.{}", ask.field().name()), passed, detail });
    }
    checks
}
