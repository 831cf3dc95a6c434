use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use resources::presets::IMPLICIT_ROLE;
use wire::types::{BoolValue, RequireMfaType};

use crate::{
    role::Role,
    role_set::{RoleSet, max_session_ttl},
    template::Template,
    traits::Traits,
};

/// The options of all roles of an identity together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The longest life of a certificate: the shortest of all roles.
    pub max_session_ttl: Duration,
    /// Whether any role allows agent forwarding; see also [`RoleSet::can_forward_agent`].
    pub forward_agent: bool,
    /// Whether any role allows port forwarding.
    pub port_forwarding: bool,
    /// Whether no role forbids file copies.
    pub ssh_file_copy: bool,
    /// Whether any role allows X11 forwarding.
    pub x11_forwarding: bool,
    /// How certificates are written: the oldest form any role asks for.
    pub certificate_format: CertificateFormat,
    /// The shortest idle timeout of the roles that have one; see [`Options::idle_timeout`].
    pub client_idle_timeout: Option<Duration>,
    /// Whether any role ends connections when the certificate expires; see [`Options::disconnect_expired`].
    pub disconnect_expired_cert: bool,
    /// What the kernel records of sessions: `command`, `disk`, `network`.
    pub enhanced_recording: BTreeSet<String>,
    /// How many SSH connections at once; `None` is no limit.
    pub max_connections: Option<u64>,
    /// How many sessions in one SSH connection; `None` is no limit.
    pub max_sessions: Option<u64>,
    /// How many Kubernetes connections at once; `None` is no limit.
    pub max_kubernetes_connections: Option<u64>,
    /// How access requests are made.
    pub request: RequestOptions,
    /// Whether any role refuses when locks cannot be trusted; see [`Options::lock_mode`].
    pub strict_locks: bool,
    /// What happens to SSH sessions that cannot be recorded.
    pub ssh_recording: Strictness,
    /// Whether desktop sessions are recorded: any role records them.
    pub record_desktop: bool,
    /// Whether no role forbids the clipboard of desktops.
    pub desktop_clipboard: bool,
    /// Whether no role forbids sharing folders with desktops.
    pub desktop_directory_sharing: bool,
    /// Whether any role binds certificates to the address of the login.
    pub pin_source_ip: bool,
    /// Whether no role forbids the SAML identity provider.
    pub saml_idp: bool,
    /// Additional extensions of SSH certificates with their values.
    pub certificate_extensions: BTreeMap<String, String>,
    /// Whether roles agree on a second factor for each session.
    pub session_mfa: RolesOnMfa,
    /// What keys have to be, put together from all roles; see [`Options::key_policy`].
    pub keys: KeyPolicy,
    /// Whether any role wants a trusted device somewhere.
    pub device_trust: bool,
}

/// The form of SSH certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFormat {
    /// With roles and traits as extensions.
    Standard,
    /// Without extensions that very old servers refuse.
    OldSsh,
}

/// What happens when something desirable is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Go on without it.
    BestEffort,
    /// Refuse.
    Strict,
}

/// How access requests are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestOptions {
    /// A reason has to be given.
    pub reason_required: bool,
    /// A request is made at every login.
    pub automatic: bool,
    /// What the user is asked.
    pub prompt: String,
}

/// What roles say about a second factor for each session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolesOnMfa {
    /// No role wants it.
    Never,
    /// The roles that give access to a resource decide.
    PerRole,
    /// All roles want it.
    Always,
}

/// What private keys have to be. Weaker policies come first, except that touch and PIN are not ordered: both
/// together are [`KeyPolicy::HardwareKeyTouchAndPin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyPolicy {
    /// Any key.
    None,
    /// A key in hardware.
    HardwareKey,
    /// A key in hardware that has to be touched.
    HardwareKeyTouch,
    /// A key in hardware behind a PIN.
    HardwareKeyPin,
    /// A key in hardware with touch and PIN.
    HardwareKeyTouchAndPin,
}

impl KeyPolicy {
    /// The policy of a `require_session_mfa` setting.
    pub fn of(requirement: i32) -> Self {
        match RequireMfaType::try_from(requirement) {
            Ok(RequireMfaType::SessionAndHardwareKey) => Self::HardwareKey,
            Ok(RequireMfaType::HardwareKeyTouch) => Self::HardwareKeyTouch,
            Ok(RequireMfaType::HardwareKeyPin) => Self::HardwareKeyPin,
            Ok(RequireMfaType::HardwareKeyTouchAndPin) => Self::HardwareKeyTouchAndPin,
            _ => Self::None,
        }
    }

    /// The weakest policy that satisfies both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self.min(other), self.max(other)) {
            (Self::HardwareKeyTouch, Self::HardwareKeyPin) => Self::HardwareKeyTouchAndPin,
            (_, stronger) => stronger,
        }
    }

    /// Whether a key of this policy satisfies `required`.
    pub fn satisfies(self, required: Self) -> bool {
        self.and(required) == self
    }

    /// Whether using such a key is a second factor in itself.
    pub fn is_mfa(self) -> bool {
        self >= Self::HardwareKeyTouch
    }

    /// The name in certificates and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::HardwareKey => "hardware_key",
            Self::HardwareKeyTouch => "hardware_key_touch",
            Self::HardwareKeyPin => "hardware_key_pin",
            Self::HardwareKeyTouchAndPin => "hardware_key_touch_and_pin",
        }
    }

    /// The policy a certificate names. Keys of web sessions are held by the cluster and satisfy everything.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "" | "none" => Self::None,
            "hardware_key" => Self::HardwareKey,
            "hardware_key_touch" => Self::HardwareKeyTouch,
            "hardware_key_pin" => Self::HardwareKeyPin,
            "hardware_key_touch_and_pin" | "web_session" => Self::HardwareKeyTouchAndPin,
            _ => return None,
        })
    }
}

/// Whether a second factor has to be used for each session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MfaRequired {
    /// Never.
    #[default]
    Never,
    /// When a role that gives access wants it.
    PerRole,
    /// Always.
    Always,
}

impl Options {
    pub(crate) fn merge(roles: &[Arc<Role>], traits: &Traits) -> Self {
        let own = || roles.iter().filter(|r| r.name() != IMPLICIT_ROLE);
        let options = || roles.iter().map(|r| r.options());
        let limit = |get: fn(&wire::types::RoleOptions) -> i64| {
            options().filter_map(|o| u64::try_from(get(o)).ok()).filter(|n| *n > 0).min()
        };
        let unless_false = |b: Option<BoolValue>| b.is_none_or(|b| b.value);
        let recording = |o: &wire::types::RoleOptions| o.record_session.clone().unwrap_or_default();
        let wants_mfa = own().filter(|r| r.options().require_mfa_type != 0).count();
        Self {
            max_session_ttl: roles.iter().map(|r| max_session_ttl(r)).min().unwrap_or(Duration::ZERO),
            forward_agent: options().any(|o| o.forward_agent),
            port_forwarding: options().any(|o| unless_false(o.port_forwarding)),
            ssh_file_copy: options().all(|o| unless_false(o.ssh_file_copy)),
            x11_forwarding: options().any(|o| o.permit_x11_forwarding),
            certificate_format: if options().any(|o| o.certificate_format == "oldssh") {
                CertificateFormat::OldSsh
            } else {
                CertificateFormat::Standard
            },
            client_idle_timeout: limit(|o| o.client_idle_timeout).map(Duration::from_nanos),
            disconnect_expired_cert: options().any(|o| o.disconnect_expired_cert),
            enhanced_recording: own().flat_map(|r| r.options().bpf.iter().cloned()).collect(),
            max_connections: limit(|o| o.max_connections),
            max_sessions: limit(|o| o.max_sessions),
            max_kubernetes_connections: limit(|o| o.max_kubernetes_connections),
            request: RequestOptions {
                reason_required: options().any(|o| matches!(o.request_access.as_str(), "reason" | "always")),
                automatic: options().any(|o| o.request_access == "always"),
                prompt: options().map(|o| &o.request_prompt).find(|p| !p.is_empty()).cloned().unwrap_or_default(),
            },
            strict_locks: options().any(|o| o.lock == "strict"),
            ssh_recording: ssh_recording(&options().map(recording).collect::<Vec<_>>()),
            record_desktop: options().any(|o| unless_false(recording(o).desktop)),
            desktop_clipboard: options().all(|o| unless_false(o.desktop_clipboard)),
            desktop_directory_sharing: options().all(|o| unless_false(o.desktop_directory_sharing)),
            pin_source_ip: options().any(|o| o.pin_source_ip),
            saml_idp: options()
                .all(|o| unless_false(o.idp.as_ref().and_then(|i| i.saml.as_ref()).and_then(|s| s.enabled))),
            certificate_extensions: certificate_extensions(roles, traits),
            session_mfa: match (wants_mfa, own().count()) {
                (0, _) => RolesOnMfa::Never,
                (wanting, all) if wanting == all => RolesOnMfa::Always,
                _ => RolesOnMfa::PerRole,
            },
            keys: options().map(|o| KeyPolicy::of(o.require_mfa_type)).fold(KeyPolicy::None, KeyPolicy::and),
            device_trust: options().any(|o| o.device_trust_mode == "required"),
        }
    }

    /// The idle timeout with the one of the cluster: the shorter of those that are set.
    pub fn idle_timeout(&self, cluster: Option<Duration>) -> Option<Duration> {
        self.client_idle_timeout.into_iter().chain(cluster).filter(|d| !d.is_zero()).min()
    }

    /// Whether connections end when the certificate expires.
    pub fn disconnect_expired(&self, cluster: bool) -> bool {
        cluster || self.disconnect_expired_cert
    }

    /// What happens when the list of locks is stale.
    pub fn lock_mode(&self, cluster: Strictness) -> Strictness {
        if self.strict_locks { Strictness::Strict } else { cluster }
    }

    /// What keys have to be, with the setting of the cluster.
    pub fn key_policy(&self, cluster_requirement: i32) -> KeyPolicy {
        self.keys.and(KeyPolicy::of(cluster_requirement))
    }

    /// Whether a second factor is needed for each session, with the setting of the cluster.
    pub fn mfa_required(&self, cluster_requirement: i32) -> MfaRequired {
        match (cluster_requirement, self.session_mfa) {
            (0, RolesOnMfa::Never) => MfaRequired::Never,
            (0, RolesOnMfa::PerRole) => MfaRequired::PerRole,
            _ => MfaRequired::Always,
        }
    }
}

/// A word about SSH decides over the words about everything.
fn ssh_recording(recordings: &[wire::types::RecordSession]) -> Strictness {
    let any = |word: &str| recordings.iter().any(|r| r.ssh == word);
    if any("strict") {
        return Strictness::Strict;
    }
    if any("best_effort") {
        return Strictness::BestEffort;
    }
    match recordings.iter().any(|r| r.default == "strict") {
        true => Strictness::Strict,
        false => Strictness::BestEffort,
    }
}

/// Extensions of SSH certificates; of several values for one name the first in order of roles is kept.
fn certificate_extensions(roles: &[Arc<Role>], traits: &Traits) -> BTreeMap<String, String> {
    let mut extensions = BTreeMap::new();
    for extension in roles.iter().flat_map(|r| &r.options().cert_extensions) {
        let Ok(template) = Template::parse(&extension.value) else { continue };
        let value =
            if extension.value.is_empty() { Some(String::new()) } else { template.expand(traits).into_iter().next() };
        if let Some(value) = value {
            extensions.entry(extension.name.clone()).or_insert(value);
        }
    }
    extensions
}

impl RoleSet {
    /// Shorthand for [`Options::mfa_required`].
    pub fn mfa_required(&self, cluster_requirement: i32) -> MfaRequired {
        self.options().mfa_required(cluster_requirement)
    }
}
