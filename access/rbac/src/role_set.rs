use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
    time::Duration,
};

use resources::presets;
use wire::types::{ResourceId, RoleV6};

use crate::{
    decision::{Cause, Denial},
    fields::{LabelField, ListField},
    labels::Keys,
    options::Options,
    role::{ParsedRole, Role},
    traits::Traits,
};

/// The roles of one identity, expanded with its traits and ready for decisions. Cheap to clone.
///
/// The role that everybody has is part of every set. The order in which roles are given does not matter.
#[derive(Clone, Debug)]
pub struct RoleSet {
    inner: Arc<Inner>,
}

#[derive(Clone, Debug)]
struct Inner {
    roles: Vec<Arc<Role>>,
    traits: Traits,
    options: Arc<Options>,
    /// Positions of the roles that select something, for each kind of label.
    allowing: [Vec<usize>; LabelField::ALL.len()],
    denying: [Vec<usize>; LabelField::ALL.len()],
    only: Option<OnlyResources>,
}

/// The resources a certificate is bound to by an access request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OnlyResources {
    pub cluster: String,
    pub ids: Vec<ResourceId>,
}

static IMPLICIT: LazyLock<Arc<ParsedRole>> = LazyLock::new(|| ParsedRole::new(presets::implicit_role()));

/// What certificates name as logins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateLogins {
    /// These accounts.
    Names(Vec<String>),
    /// No role is about logins: the certificate names a marker instead, because SSH certificates without a
    /// principal are good for every account.
    NoneDefined,
}

impl RoleSet {
    /// Parses and expands roles. Callers that make many sets keep [`ParsedRole`]s and use [`RoleSet::new`].
    pub fn compile(roles: impl IntoIterator<Item = RoleV6>, traits: Traits) -> Self {
        Self::new(roles.into_iter().map(ParsedRole::new), traits)
    }

    /// Expands parsed roles with the traits of an identity, and adds the role that everybody has.
    pub fn new(roles: impl IntoIterator<Item = Arc<ParsedRole>>, traits: Traits) -> Self {
        Self::assemble(roles.into_iter().chain([Arc::clone(&IMPLICIT)]), traits)
    }

    /// The same without the role that everybody has: for identities that are no users.
    pub(crate) fn bare(roles: impl IntoIterator<Item = Arc<ParsedRole>>) -> Self {
        Self::assemble(roles, Traits::default())
    }

    fn assemble(roles: impl IntoIterator<Item = Arc<ParsedRole>>, traits: Traits) -> Self {
        let mut parsed: Vec<Arc<ParsedRole>> = roles.into_iter().collect();
        parsed.sort_by(|a, b| a.name().cmp(b.name()));
        parsed.dedup_by(|a, b| a.name() == b.name());
        let mut keys = Keys::default();
        let expand = |role| Arc::new(Role::new(role, &traits, &mut keys));
        let roles: Vec<Arc<Role>> = parsed.into_iter().map(expand).collect();
        let positions = |selects: &dyn Fn(&Role, LabelField) -> bool| {
            LabelField::ALL.map(|field| {
                let found = roles.iter().enumerate().filter(|(_, role)| selects(role, field));
                found.map(|(i, _)| i).collect()
            })
        };
        let allowing = positions(&|role, field| !role.allow.selection(field).is_empty());
        let denying = positions(&|role, field| !role.deny.selection(field).is_empty());
        let options = Arc::new(Options::merge(&roles, &traits));
        Self { inner: Arc::new(Inner { roles, traits, options, allowing, denying, only: None }) }
    }

    /// The same set, bound to certain resources of a cluster by an approved request.
    #[must_use]
    pub fn bound_to(&self, cluster: &str, ids: Vec<ResourceId>) -> Self {
        let mut inner = Inner::clone(&self.inner);
        inner.only = (!ids.is_empty()).then(|| OnlyResources { cluster: cluster.to_owned(), ids });
        Self { inner: Arc::new(inner) }
    }

    /// The same set, bound to the resources that a certificate names as the only ones; one that names none binds to
    /// nothing. What cannot be read among them is no resource.
    #[must_use]
    pub fn bound_by_certificate(&self, cluster: &str, names: &[String]) -> Self {
        let mut inner = Inner::clone(&self.inner);
        let ids = names.iter().filter_map(|name| resources::parse_resource_id(name).ok()).collect();
        inner.only = (!names.is_empty()).then(|| OnlyResources { cluster: cluster.to_owned(), ids });
        Self { inner: Arc::new(inner) }
    }

    /// The expanded roles, ordered by name.
    pub fn roles(&self) -> &[Arc<Role>] {
        &self.inner.roles
    }

    /// The names of the roles, without the one that everybody has.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.roles().iter().map(|r| r.name()).filter(|name| *name != presets::IMPLICIT_ROLE)
    }

    /// Whether a role is in the set.
    pub fn has_role(&self, name: &str) -> bool {
        self.roles().iter().any(|r| r.name() == name)
    }

    /// The traits the roles were expanded with.
    pub fn traits(&self) -> &Traits {
        &self.inner.traits
    }

    /// The options of all roles together.
    pub fn options(&self) -> &Arc<Options> {
        &self.inner.options
    }

    pub(crate) fn allowing(&self, field: LabelField) -> impl Iterator<Item = &Role> {
        self.inner.allowing[field as usize].iter().filter_map(|i| self.inner.roles.get(*i)).map(AsRef::as_ref)
    }

    pub(crate) fn denying(&self, field: LabelField) -> impl Iterator<Item = &Role> {
        self.inner.denying[field as usize].iter().filter_map(|i| self.inner.roles.get(*i)).map(AsRef::as_ref)
    }

    pub(crate) fn only(&self) -> Option<&OnlyResources> {
        self.inner.only.as_ref()
    }

    /// The logins for a certificate that lives for `ttl`: those of the roles that allow such a life. Denied logins
    /// are not taken away here; they are refused when used.
    ///
    /// # Errors
    /// Roles are about logins, but none is left for this user.
    pub fn logins_for_ttl(&self, ttl: Duration) -> Result<CertificateLogins, Denial> {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for role in self.roles().iter().filter(|role| max_session_ttl(role) >= ttl) {
            names.extend(role.allowed(ListField::Logins).iter().map(String::as_str));
        }
        if !names.is_empty() {
            return Ok(CertificateLogins::Names(names.into_iter().map(str::to_owned).collect()));
        }
        if self.roles().iter().all(|role| role.allow_conditions().logins.is_empty()) {
            return Ok(CertificateLogins::NoneDefined);
        }
        Err(Denial::new(Cause::NotGranted, "this user cannot create SSH sessions, has no allowed logins"))
    }

    /// Whether some role lists a login, and none denies it: says nothing about any server.
    pub fn can_login(&self, login: &str) -> bool {
        let has = |list: &[String]| list.iter().any(|l| l == login);
        let denied =
            self.roles().iter().any(|r| has(r.denied(ListField::Logins)) || r.deny.list_is_broken(ListField::Logins));
        !denied && self.roles().iter().any(|r| has(r.allowed(ListField::Logins)))
    }

    /// Whether a role that allows agent forwarding lists the login.
    pub fn can_forward_agent(&self, login: &str) -> bool {
        self.roles()
            .iter()
            .any(|r| r.options().forward_agent && r.allowed(ListField::Logins).iter().any(|l| l == login))
    }

    /// A certificate's life, cut to what all roles allow.
    pub fn adjust_session_ttl(&self, wanted: Duration) -> Duration {
        wanted.min(self.options().max_session_ttl)
    }

    /// The union over all roles of a list in `allow`, without what any role denies by the same text.
    pub fn collect(&self, field: ListField) -> Vec<String> {
        let mut names: BTreeSet<&str> =
            self.roles().iter().flat_map(|r| r.allowed(field)).map(String::as_str).collect();
        for role in self.roles() {
            for denied in role.denied(field) {
                if denied == "*" {
                    names.clear();
                }
                names.remove(denied.as_str());
            }
        }
        names.into_iter().map(str::to_owned).collect()
    }
}

/// The longest life a role allows.
pub(crate) fn max_session_ttl(role: &Role) -> Duration {
    Duration::from_nanos(u64::try_from(role.options().max_session_ttl).unwrap_or(0))
}
