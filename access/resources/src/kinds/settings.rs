use wire::types::{
    AgentMeshTunnelStrategy, AuthPreferenceSpecV2, AuthPreferenceV2, ClusterAuditConfigV2, ClusterNameV2,
    ClusterNetworkingConfigV2, IdPsamlOptions, NetworkRestrictionsV4, SessionRecordingConfigV2, TunnelStrategyV1,
    tunnel_strategy_v1::Strategy,
};

use super::{default_number, default_text, not_negative, one_of, required, truth};
use crate::{
    Place, Resource, ResourceError, Result, kind, places,
    resource::{check_version, plain_header},
};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// How long certificates of a login live when nobody says otherwise, in nanoseconds.
pub const DEFAULT_SESSION_TTL: i64 = 12 * HOUR;

impl Resource for ClusterNameV2 {
    const KIND: &'static str = kind::CLUSTER_NAME;
    const VERSION: &'static str = "v2";
    const SINGLETON: Option<&'static str> = Some("cluster-name");
    plain_header!();

    fn place(&self) -> Place {
        places::cluster_name()
    }

    fn set_spec_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let name = self.spec.as_ref().map_or("", |s| &s.cluster_name);
        required(&[("spec.cluster_name", name)])?;
        if name.contains('/') || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(ResourceError::field("spec.cluster_name", format!("{name:?} is not a name of a cluster")));
        }
        Ok(())
    }
}

impl Resource for ClusterAuditConfigV2 {
    const KIND: &'static str = kind::CLUSTER_AUDIT_CONFIG;
    const VERSION: &'static str = "v2";
    const SINGLETON: Option<&'static str> = Some("cluster-audit-config");
    plain_header!();

    fn place(&self) -> Place {
        places::cluster_audit_config()
    }

    fn set_spec_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)
    }
}

impl Resource for ClusterNetworkingConfigV2 {
    const KIND: &'static str = kind::CLUSTER_NETWORKING_CONFIG;
    const VERSION: &'static str = "v2";
    const SINGLETON: Option<&'static str> = Some("cluster-networking-config");
    plain_header!();

    fn place(&self) -> Place {
        places::cluster_networking_config()
    }

    fn set_spec_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_number(&mut spec.keep_alive_interval, 5 * MINUTE);
        default_number(&mut spec.keep_alive_count_max, 3);
        let mesh = || TunnelStrategyV1 { strategy: Some(Strategy::AgentMesh(AgentMeshTunnelStrategy {})) };
        let strategy = spec.tunnel_strategy.get_or_insert_with(mesh);
        match &mut strategy.strategy {
            None => *strategy = mesh(),
            Some(Strategy::ProxyPeering(peering)) => default_number(&mut peering.agent_connection_count, 1),
            Some(Strategy::AgentMesh(_)) => {}
        }
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let spec = self.spec.clone().unwrap_or_default();
        not_negative(&[
            ("spec.client_idle_timeout", spec.client_idle_timeout),
            ("spec.web_idle_timeout", spec.web_idle_timeout),
            ("spec.keep_alive_interval", spec.keep_alive_interval),
            ("spec.keep_alive_count_max", spec.keep_alive_count_max),
            ("spec.session_control_timeout", spec.session_control_timeout),
            ("spec.proxy_ping_interval", spec.proxy_ping_interval),
        ])?;
        match spec.tunnel_strategy.and_then(|s| s.strategy) {
            Some(Strategy::ProxyPeering(peering)) => {
                not_negative(&[("spec.tunnel_strategy.agent_connection_count", peering.agent_connection_count)])
            }
            _ => Ok(()),
        }
    }
}

impl Resource for SessionRecordingConfigV2 {
    const KIND: &'static str = kind::SESSION_RECORDING_CONFIG;
    const VERSION: &'static str = "v2";
    const SINGLETON: Option<&'static str> = Some("session-recording-config");
    plain_header!();

    fn place(&self) -> Place {
        places::session_recording_config()
    }

    fn set_spec_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_text(&mut spec.mode, "node");
        spec.proxy_checks_host_keys = spec.proxy_checks_host_keys.or(truth(true));
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let mode = self.spec.as_ref().map_or("", |s| &s.mode);
        one_of("spec.mode", mode, &["node", "proxy", "node-sync", "proxy-sync", "off"])
    }
}

impl Resource for NetworkRestrictionsV4 {
    const KIND: &'static str = kind::NETWORK_RESTRICTIONS;
    const VERSION: &'static str = "v4";
    const SINGLETON: Option<&'static str> = Some("network-restrictions");
    plain_header!();

    fn place(&self) -> Place {
        Place::new(places::RESTRICTIONS, ["network"])
    }

    fn set_spec_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let spec = self.spec.clone().unwrap_or_default();
        for (path, list) in [("spec.allow", spec.allow), ("spec.deny", spec.deny)] {
            for (i, condition) in list.iter().enumerate() {
                if !is_network(&condition.cidr) {
                    return Err(ResourceError::field(
                        format!("{path}[{i}].cidr"),
                        format!("{:?} is not a network: expected an address such as 10.0.0.0/8", condition.cidr),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn is_network(text: &str) -> bool {
    let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
    let Ok(address) = address.parse::<std::net::IpAddr>() else {
        return false;
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    bits.is_none_or(|b| b.parse::<u8>().is_ok_and(|b| b <= most))
}

impl Resource for AuthPreferenceV2 {
    const KIND: &'static str = kind::CLUSTER_AUTH_PREFERENCE;
    const VERSION: &'static str = "v2";
    const SINGLETON: Option<&'static str> = Some("cluster-auth-preference");
    plain_header!();

    fn place(&self) -> Place {
        places::auth_preference()
    }

    fn set_spec_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_text(&mut spec.r#type, "local");
        default_text(&mut spec.second_factor, "otp");
        if spec.second_factor == "u2f" {
            spec.second_factor = "webauthn".into();
        }
        default_text(&mut spec.locking_mode, "best_effort");
        default_number(&mut spec.default_session_ttl, DEFAULT_SESSION_TTL);
        spec.allow_local_auth = spec.allow_local_auth.or(truth(true));
        spec.disconnect_expired_cert = spec.disconnect_expired_cert.or(truth(false));
        let idp = spec.idp.get_or_insert_default();
        idp.saml.get_or_insert_with(|| IdPsamlOptions { enabled: truth(true) });
        set_webauthn_defaults(spec);
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let spec = self.spec.clone().unwrap_or_default();
        one_of("spec.type", &spec.r#type, &["local", "oidc", "saml", "github"])?;
        one_of("spec.second_factor", &spec.second_factor, &["off", "otp", "webauthn", "on", "optional"])?;
        one_of("spec.locking_mode", &spec.locking_mode, &["best_effort", "strict"])?;
        not_negative(&[("spec.default_session_ttl", spec.default_session_ttl)])?;
        if let Some(trust) = &spec.device_trust {
            one_of("spec.device_trust.mode", &trust.mode, &["off", "optional", "required"])?;
        }
        let slots = ["9a", "9c", "9d", "9e"];
        one_of("spec.piv_slot", &spec.piv_slot, &slots)?;
        one_of("spec.hardware_key.piv_slot", spec.hardware_key.as_ref().map_or("", |k| &k.piv_slot), &slots)?;
        if spec.r#type == "local" {
            one_of("spec.connector_name", &spec.connector_name, &["local", "passwordless", "headless"])?;
        }
        check_webauthn(&spec)
    }
}

/// Second factors that keys can be.
fn wants_webauthn(spec: &AuthPreferenceSpecV2) -> bool {
    matches!(spec.second_factor.as_str(), "webauthn" | "on" | "optional")
}

fn has_webauthn(spec: &AuthPreferenceSpecV2) -> bool {
    wants_webauthn(spec) && spec.webauthn.as_ref().is_some_and(|w| !w.rpid.is_empty())
}

/// The relying party follows from the old application id; logins without password or from afar follow from WebAuthn.
fn set_webauthn_defaults(spec: &mut AuthPreferenceSpecV2) {
    if wants_webauthn(spec) {
        let app_id = spec.u2f.as_ref().map_or("", |u| &u.app_id);
        let host =
            app_id.strip_prefix("https://").unwrap_or(app_id).split(['/', ':']).next().unwrap_or_default().to_owned();
        if !host.is_empty() {
            default_text(&mut spec.webauthn.get_or_insert_default().rpid, &host);
        }
    }
    let available = has_webauthn(spec);
    spec.allow_passwordless = spec.allow_passwordless.or(truth(available));
    spec.allow_headless = spec.allow_headless.or(truth(available));
}

fn check_webauthn(spec: &AuthPreferenceSpecV2) -> Result<()> {
    let available = has_webauthn(spec);
    if spec.second_factor == "webauthn" && !available {
        return Err(ResourceError::field("spec.webauthn", "missing rp_id, which second_factor \"webauthn\" needs"));
    }
    if wants_webauthn(spec) && !available {
        let problem = format!("missing webauthn.rp_id, which second_factor {:?} needs", spec.second_factor);
        return Err(ResourceError::field("spec.webauthn", problem));
    }
    if let Some(party) = spec.webauthn.as_ref().filter(|w| w.rpid.contains([':', '/'])) {
        return Err(ResourceError::field("spec.webauthn.rp_id", format!("{:?} is not a domain name", party.rpid)));
    }
    for (path, allowed) in [
        ("spec.allow_passwordless", spec.allow_passwordless.is_some_and(|b| b.value)),
        ("spec.allow_headless", spec.allow_headless.is_some_and(|b| b.value)),
    ] {
        if allowed && !available {
            return Err(ResourceError::field(path, "required WebAuthn configuration is missing"));
        }
    }
    Ok(())
}

/// Refuses settings under which a password alone is enough, unless the operator insists.
///
/// # Errors
/// `second_factor` is `off` or `optional` and `allow_no_second_factor` is false.
pub fn check_second_factor_allowed(preference: &AuthPreferenceV2, allow_no_second_factor: bool) -> Result<()> {
    let factor = preference.spec.as_ref().map_or("", |s| &s.second_factor);
    if matches!(factor, "off" | "optional") && !allow_no_second_factor {
        return Err(ResourceError::field(
            "spec.second_factor",
            format!(
                "cannot disable multi-factor authentication: {factor:?} is refused; expected \"otp\", \"webauthn\" or \"on\""
            ),
        ));
    }
    Ok(())
}
