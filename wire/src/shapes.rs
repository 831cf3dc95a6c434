//! Enumerations and small messages whose JSON form is a word, and the messages that are values in JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::loginrule::LoginRule;
use crate::types::{
    AgentMeshTunnelStrategy, BoolValue, Metadata, ProxyPeeringTunnelStrategy, TunnelStrategyV1,
    tunnel_strategy_v1::Strategy,
};
use crate::wrappers::{LabelValues, StringValues};

/// A word, a number or a boolean: the forms in which an enumeration value may be written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Word {
    Bool(bool),
    Number(i32),
    Text(String),
}

/// Reads a word of `names` (value, name), a number, or what `bool_value` makes of a boolean.
fn read_word<'de, D: Deserializer<'de>>(
    d: D,
    what: &str,
    names: &[(i32, &str)],
    bool_value: fn(bool) -> Option<i32>,
) -> Result<i32, D::Error> {
    let expected = || names.iter().map(|(_, n)| format!("{n:?}")).collect::<Vec<_>>().join(", ");
    let unknown = |found: String| D::Error::custom(format!("unknown {what} {found}: expected one of {}", expected()));
    match Option::<Word>::deserialize(d)? {
        None => Ok(0),
        Some(Word::Number(n)) if n == 0 || names.iter().any(|(v, _)| *v == n) => Ok(n),
        Some(Word::Number(n)) => Err(unknown(n.to_string())),
        Some(Word::Bool(b)) => bool_value(b).ok_or_else(|| unknown(b.to_string())),
        Some(Word::Text(t)) => {
            let lower = t.to_ascii_lowercase();
            let word = lower.strip_prefix("signature_algorithm_suite_").map(|s| s.replace('_', "-")).unwrap_or(lower);
            if word.is_empty() {
                return Ok(0);
            }
            names.iter().find(|(_, n)| *n == word).map(|(v, _)| *v).ok_or_else(|| unknown(format!("{t:?}")))
        }
    }
}

fn write_word<S: Serializer>(value: i32, names: &[(i32, &str)], s: S) -> Result<S::Ok, S::Error> {
    match names.iter().find(|(v, _)| *v == value) {
        Some((_, name)) => s.serialize_str(name),
        None => s.serialize_str(""),
    }
}

macro_rules! word_module {
    ($(#[$doc:meta])* $name:ident, $what:literal, $names:expr, $bool_value:expr) => {
        $(#[$doc])*
        pub mod $name {
            use serde::{Deserializer, Serializer};

            /// Writes the word.
            #[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
            pub fn serialize<S: Serializer>(value: &i32, s: S) -> Result<S::Ok, S::Error> {
                super::write_word(*value, &$names, s)
            }

            /// Reads the word, or its number.
            pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i32, D::Error> {
                super::read_word(d, $what, &$names, $bool_value)
            }
        }
    };
}

/// As `word_module`, but written as a number.
macro_rules! number_module {
    ($(#[$doc:meta])* $name:ident, $what:literal, $names:expr) => {
        $(#[$doc])*
        pub mod $name {
            use serde::{Deserializer, Serializer};

            /// Writes the number.
            #[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
            pub fn serialize<S: Serializer>(value: &i32, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_i32(*value)
            }

            /// Reads the word, or its number.
            pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i32, D::Error> {
                super::read_word(d, $what, &$names, |_| None)
            }
        }
    };
}

word_module!(
    /// `keep`, `insecure-drop`, `off`: whether a node creates the login's account.
    host_user_mode,
    "create_host_user_mode",
    [(1, "off"), (2, "drop"), (3, "keep"), (4, "insecure-drop")],
    |b| Some(if b { 3 } else { 1 })
);
word_module!(
    /// `off`, `keep`, `best_effort_drop`: whether a database account is created.
    database_user_mode,
    "create_db_user_mode",
    [(1, "off"), (2, "keep"), (3, "best_effort_drop")],
    |b| Some(if b { 2 } else { 1 })
);
number_module!(
    /// `separate` (0) or `multiplex` (1).
    listener_mode,
    "proxy_listener_mode",
    [(0, "separate"), (1, "multiplex")]
);
number_module!(
    /// `unambiguous_match` (0) or `most_recent` (1).
    routing_strategy,
    "routing_strategy",
    [(0, "unambiguous_match"), (1, "most_recent")]
);
number_module!(
    /// `verify-full` (0), `verify-ca` (1) or `insecure` (2): how an agent checks a database's certificate.
    database_tls_mode,
    "database tls mode",
    [(0, "verify-full"), (1, "verify-ca"), (2, "insecure")]
);
word_module!(
    /// How often the members of an access list are reviewed; short forms are read as well.
    review_frequency,
    "review frequency",
    [
        (1, "1 month"),
        (3, "3 months"),
        (6, "6 months"),
        (12, "1 year"),
        (1, "1month"),
        (1, "1m"),
        (1, "1"),
        (3, "3months"),
        (3, "3m"),
        (3, "3"),
        (6, "6months"),
        (6, "6m"),
        (6, "6"),
        (12, "12 months"),
        (12, "12months"),
        (12, "12m"),
        (12, "12"),
        (12, "1year"),
        (12, "1y"),
    ],
    |_| None
);
word_module!(
    /// The day of a month on which an access list is reviewed.
    review_day,
    "review day of month",
    [(1, "1"), (15, "15"), (31, "last"), (1, "first")],
    |_| None
);
word_module!(
    /// `MEMBERSHIP_KIND_USER` or `MEMBERSHIP_KIND_LIST`, also without the prefix: what a member of an access list is.
    membership_kind,
    "membership_kind",
    [
        (1, "MEMBERSHIP_KIND_USER"),
        (2, "MEMBERSHIP_KIND_LIST"),
        (0, "MEMBERSHIP_KIND_UNSPECIFIED"),
        (1, "user"),
        (2, "list"),
        (1, "membership_kind_user"),
        (2, "membership_kind_list"),
        (0, "membership_kind_unspecified"),
    ],
    |_| None
);
word_module!(
    /// `ssh`: the kind of certificate a role's extension goes into.
    cert_extension_type,
    "cert_extensions type",
    [(0, "ssh")],
    |_| None
);
word_module!(
    /// `extension`: where in the certificate a role's extension goes.
    cert_extension_mode,
    "cert_extensions mode",
    [(0, "extension")],
    |_| None
);
word_module!(
    /// `legacy`, `balanced-v1`, `fips-v1`, `hsm-v1`.
    signature_suite,
    "signature_algorithm_suite",
    [(1, "legacy"), (2, "balanced-v1"), (3, "fips-v1"), (4, "hsm-v1")],
    |_| None
);

/// `true`, `false` or the name of a hardware key requirement.
pub mod require_mfa {
    use serde::{Deserializer, Serializer};

    const NAMES: [(i32, &str); 10] = [
        (0, "no"),
        (1, "yes"),
        (2, "hardware_key"),
        (3, "hardware_key_touch"),
        (4, "hardware_key_pin"),
        (5, "hardware_key_touch_and_pin"),
        (0, "false"),
        (1, "true"),
        (0, "off"),
        (1, "on"),
    ];

    /// Writes booleans for the plain choices.
    #[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
    pub fn serialize<S: Serializer>(value: &i32, s: S) -> Result<S::Ok, S::Error> {
        match *value {
            0 => s.serialize_bool(false),
            1 => s.serialize_bool(true),
            v => super::write_word(v, &NAMES, s),
        }
    }

    /// Reads booleans, words and numbers.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i32, D::Error> {
        super::read_word(d, "require_session_mfa", &NAMES, |b| Some(i32::from(b)))
    }
}

/// `{"type": "agent_mesh"}` or `{"type": "proxy_peering", "agent_connection_count": n}`.
pub mod tunnel_strategy {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::TunnelStrategyV1;

    /// Writes the flat object.
    pub fn serialize<S: Serializer>(value: &Option<TunnelStrategyV1>, s: S) -> Result<S::Ok, S::Error> {
        value.serialize(s)
    }

    /// Reads the flat object.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<TunnelStrategyV1>, D::Error> {
        Option::deserialize(d)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FlatStrategy {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_connection_count: Option<i64>,
}

impl Serialize for TunnelStrategyV1 {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let flat = match &self.strategy {
            Some(Strategy::ProxyPeering(p)) => {
                FlatStrategy { kind: "proxy_peering".into(), agent_connection_count: Some(p.agent_connection_count) }
            }
            _ => FlatStrategy { kind: "agent_mesh".into(), agent_connection_count: None },
        };
        flat.serialize(s)
    }
}

impl<'de> Deserialize<'de> for TunnelStrategyV1 {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let flat = FlatStrategy::deserialize(d)?;
        let strategy = match flat.kind.as_str() {
            "agent_mesh" => Strategy::AgentMesh(AgentMeshTunnelStrategy {}),
            "proxy_peering" => Strategy::ProxyPeering(ProxyPeeringTunnelStrategy {
                agent_connection_count: flat.agent_connection_count.unwrap_or(1),
            }),
            other => {
                let text =
                    format!("unknown tunnel_strategy type {other:?}: expected \"agent_mesh\" or \"proxy_peering\"");
                return Err(D::Error::custom(text));
            }
        };
        Ok(Self { strategy: Some(strategy) })
    }
}

impl Serialize for BoolValue {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bool(self.value)
    }
}

impl<'de> Deserialize<'de> for BoolValue {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Bool(bool),
            Text(String),
        }
        let value = match Form::deserialize(d)? {
            Form::Bool(b) => b,
            Form::Text(t) => match t.to_ascii_lowercase().as_str() {
                "yes" | "yeah" | "y" | "true" | "1" | "on" => true,
                "no" | "nope" | "n" | "false" | "0" | "off" | "" => false,
                _ => return Err(D::Error::custom(format!("{t:?} is not a boolean: expected true or false"))),
            },
        };
        Ok(Self { value })
    }
}

/// A list that may be written as its single value.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Serialize for StringValues {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.values.as_slice() {
            [one] => s.serialize_str(one),
            many => s.collect_seq(many),
        }
    }
}

impl<'de> Deserialize<'de> for StringValues {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let values = match Option::<OneOrMany>::deserialize(d)? {
            None => Vec::new(),
            Some(OneOrMany::One(v)) => vec![v],
            Some(OneOrMany::Many(v)) => v,
        };
        Ok(Self { values })
    }
}

impl Serialize for LabelValues {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.values.serialize(s)
    }
}

impl<'de> Deserialize<'de> for LabelValues {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self { values: Option::<BTreeMap<String, StringValues>>::deserialize(d)?.unwrap_or_default() })
    }
}

/// A login rule as people write it: its message has neither kind nor `spec`.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct LoginRuleForm {
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    sub_kind: String,
    version: String,
    metadata: Metadata,
    spec: LoginRuleSpec,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct LoginRuleSpec {
    priority: i32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    traits_map: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    traits_expression: String,
}

impl Serialize for LoginRule {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let traits_map = self.traits_map.iter().map(|(name, list)| (name.clone(), list.values.clone())).collect();
        let form = LoginRuleForm {
            kind: "login_rule".into(),
            version: self.version.clone(),
            metadata: self.metadata.clone().unwrap_or_default(),
            spec: LoginRuleSpec {
                priority: self.priority,
                traits_map,
                traits_expression: self.traits_expression.clone(),
            },
            ..LoginRuleForm::default()
        };
        form.serialize(s)
    }
}

impl<'de> Deserialize<'de> for LoginRule {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let form = LoginRuleForm::deserialize(d)?;
        let lists = form.spec.traits_map.into_iter();
        Ok(Self {
            metadata: Some(form.metadata),
            version: form.version,
            priority: form.spec.priority,
            traits_map: lists.map(|(name, values)| (name, StringValues { values })).collect(),
            traits_expression: form.spec.traits_expression,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{from_value, json, to_value};

    use crate::accesslist::AccessList;
    use crate::loginrule::LoginRule;
    use crate::types::{ClusterNetworkingConfigV2, MfaDevice, RoleV6, UserV2, mfa_device};

    #[test]
    fn a_role_reads_and_writes_the_public_form() {
        let written = json!({
            "kind": "role", "version": "v7", "metadata": {"name": "dev"},
            "spec": {
                "options": {"max_session_ttl": "8h0m0s", "port_forwarding": true, "forward_agent": false,
                            "require_session_mfa": "hardware_key", "create_host_user_mode": "keep"},
                "allow": {"logins": ["root"], "node_labels": {"*": "*", "env": ["dev", "test"]}},
                "deny": {}
            }
        });
        let role: RoleV6 = from_value(written.clone()).unwrap();
        let options = role.spec.as_ref().unwrap().options.as_ref().unwrap();
        assert_eq!(options.max_session_ttl, 8 * 3_600_000_000_000);
        let mut again = to_value(&role).unwrap();
        again["spec"]["options"].as_object_mut().unwrap().retain(|k, _| written["spec"]["options"].get(k).is_some());
        assert_eq!(again, written);
    }

    #[test]
    fn traits_stay_lists_of_any_length() {
        let written = json!({"kind": "user", "version": "v2", "metadata": {"name": "alice"},
                             "spec": {"roles": ["access"], "traits": {"logins": ["root"], "none": []}}});
        let user: UserV2 = from_value(written.clone()).unwrap();
        assert_eq!(to_value(&user).unwrap(), written);
    }

    #[test]
    fn words_stand_for_enumeration_values() {
        let text = json!({"spec": {"proxy_listener_mode": "multiplex",
                                   "tunnel_strategy": {"type": "proxy_peering", "agent_connection_count": 2}}});
        let config: ClusterNetworkingConfigV2 = from_value(text.clone()).unwrap();
        let written = to_value(&config).unwrap();
        assert_eq!(written["spec"]["tunnel_strategy"], text["spec"]["tunnel_strategy"]);
        assert_eq!(written["spec"]["proxy_listener_mode"], 1);
        let bad = from_value::<ClusterNetworkingConfigV2>(json!({"spec": {"proxy_listener_mode": "both"}}));
        assert!(bad.unwrap_err().to_string().contains("expected one of \"separate\", \"multiplex\""));
    }

    #[test]
    fn certificate_extensions_name_their_type_and_mode() {
        let extension = json!([{"type": "ssh", "mode": "extension", "name": "login@example.com", "value": "octo"}]);
        let role: RoleV6 =
            from_value(json!({"kind": "role", "spec": {"options": {"cert_extensions": extension}}})).unwrap();
        assert_eq!(to_value(&role).unwrap()["spec"]["options"]["cert_extensions"], extension);
    }

    #[test]
    fn an_access_list_reads_and_writes_the_public_form() {
        let written = json!({
            "kind": "access_list", "version": "v1", "metadata": {"name": "db-team"},
            "spec": {
                "title": "Database team", "owners": [{"name": "chief"}],
                "grants": {"roles": ["access"], "traits": {"team": ["db"]}},
                "audit": {"next_audit_date": "2027-01-01T00:00:00Z",
                          "recurrence": {"frequency": "3 months", "day_of_month": "15"},
                          "notifications": {"start": "336h0m0s"}}
            }
        });
        let list: AccessList = from_value(written.clone()).unwrap();
        assert_eq!(to_value(&list).unwrap(), written);
        let short: crate::accesslist::Recurrence =
            from_value(json!({"frequency": "1Y", "day_of_month": "first"})).unwrap();
        assert_eq!((short.frequency, short.day_of_month), (12, 1));
    }

    #[test]
    fn a_login_rule_has_kind_and_spec_in_text_only() {
        let written = json!({"kind": "login_rule", "version": "v1", "metadata": {"name": "a"},
                             "spec": {"priority": 1, "traits_map": {"logins": ["external.logins"]}}});
        let rule: LoginRule = from_value(written.clone()).unwrap();
        assert_eq!(rule.priority, 1);
        assert_eq!(to_value(&rule).unwrap(), written);
    }

    #[test]
    fn a_choice_is_written_under_the_name_of_its_member() {
        let device = MfaDevice {
            id: "1".into(),
            device: Some(mfa_device::Device::Totp(crate::types::TotpDevice { key: "secret".into() })),
            ..Default::default()
        };
        let json = to_value(&device).unwrap();
        assert_eq!(json["totp"]["key"], "secret");
        assert_eq!(from_value::<MfaDevice>(json).unwrap(), device);
    }
}
