//! Reading a JSON value into a type, strictly: every problem names the path of its field, and fields that do not
//! exist are refused with the nearest one that does.

mod deserializer;
mod nearest;

use std::cell::RefCell;

use serde::de::DeserializeOwned;
use serde_json::Value;

use self::deserializer::{Path, Reader};
use crate::{Fields, ResourceError, Result};

pub(crate) use self::deserializer::describe;
pub use self::nearest::nearest;

/// Reads `value` as a `T`.
///
/// # Errors
/// All unknown fields (unless `fields` lets them through), and the first value of a wrong form.
pub(crate) fn read<T: DeserializeOwned>(value: Value, fields: Fields) -> Result<T> {
    let unknown = RefCell::new(Vec::new());
    let outcome = T::deserialize(Reader::new(value, Path::Root, &unknown));
    let mut problems = match fields {
        Fields::Known => unknown.into_inner(),
        Fields::Any => Vec::new(),
    };
    match outcome {
        Ok(read) if problems.is_empty() => return Ok(read),
        Ok(_) => {}
        Err(error) => problems.push(error.into()),
    }
    Err(match problems.len() {
        1 => problems.remove(0),
        _ => ResourceError::Fields(problems),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;
    use wire::types::{AuthPreferenceV2, IntegrationV1, OidcConnectorV3, RoleV6, ServerV2, UserV2};

    use super::*;

    fn problem<T: DeserializeOwned + std::fmt::Debug>(value: Value) -> String {
        read::<T>(value, Fields::Known).unwrap_err().to_string()
    }

    #[test]
    fn misspelt_fields_are_refused_with_the_nearest_one() {
        let value = json!({"spec": {"allow": {"loginz": ["root"]}, "options": {"max_sesion_ttl": "1h"}}});
        assert_eq!(
            problem::<RoleV6>(value.clone()),
            "spec.allow.loginz: unknown field; did you mean \"logins\"?; \
             spec.options.max_sesion_ttl: unknown field; did you mean \"max_session_ttl\"?"
        );
        assert!(read::<RoleV6>(value, Fields::Any).is_ok());
        let value = json!({"spec": {"second_faktor": "otp"}});
        assert!(problem::<AuthPreferenceV2>(value).contains("did you mean \"second_factor\"?"));
        let value = json!({"spec": {"allow": {"rules": [{"resources": ["user"]}, {"verb": ["list"]}]}}});
        assert!(
            problem::<RoleV6>(value).starts_with("spec.allow.rules[1].verb: unknown field; did you mean \"verbs\"?")
        );
    }

    #[test]
    fn misspelt_fields_are_refused_beside_embedded_messages_and_in_choices() {
        let value = json!({"specc": {}, "metadata": {"nam": "x", "labels": {"any": "thing"}}, "spec": {}});
        assert_eq!(
            problem::<IntegrationV1>(value),
            "metadata.nam: unknown field; did you mean \"name\"?; specc: unknown field; did you mean \"spec\"?"
        );
        let value = json!({"spec": {"aws_oidc": {"rolearn": "x"}, "aws_oidk": {}}});
        assert_eq!(
            problem::<IntegrationV1>(value),
            "spec.aws_oidc.rolearn: unknown field; did you mean \"role_arn\"?; \
             spec.aws_oidk: unknown field; did you mean \"aws_oidc\"?"
        );
        let value = json!({"spec": {"max_agee": "1h", "client_idd": "x"}});
        let said = problem::<OidcConnectorV3>(value);
        assert!(said.contains("\"max_age\"") && said.contains("\"client_id\""), "{said}");
        let good = json!({"metadata": {"name": "a"}, "spec": {"aws_oidc": {"role_arn": "arn"}}});
        assert!(read::<IntegrationV1>(good, Fields::Known).is_ok());
        let found = problem::<IntegrationV1>(json!({"spec": 5}));
        assert_eq!(found, "spec: expected a map, found the number 5");
    }

    #[test]
    fn values_of_a_wrong_form_are_named_with_what_was_expected() {
        let allow = |v: Value| json!({"spec": {"allow": v}});
        let cases = [
            (allow(json!({"logins": {"a": "b"}})), "spec.allow.logins: expected a list, found a map"),
            (allow(json!({"logins": "root"})), "spec.allow.logins: expected a list, found \"root\""),
            (
                allow(json!({"logins": [1]})),
                "spec.allow.logins[0]: expected text, found the number 1: put it in quotes",
            ),
            (allow(json!({"node_labels": ["a"]})), "spec.allow.node_labels: expected a map, found a list"),
            (
                allow(json!({"node_labels": {"a": {"b": "c"}}})),
                "spec.allow.node_labels.a: expected text or a list of texts, found a map",
            ),
            (
                json!({"spec": {"options": {"max_session_ttl": "soon"}}}),
                "spec.options.max_session_ttl: \"soon\" is not a duration: expected a text such as \"30m\", \"1h30m\" or \"10s\"",
            ),
            (json!({"metadata": {"expires": "soon"}}), "metadata.expires: \"soon\" is not a time"),
            (
                json!({"spec": {"options": {"forward_agent": "perhaps"}}}),
                "spec.options.forward_agent: expected true or false",
            ),
            (json!({"spec": 5}), "spec: expected a map, found the number 5"),
        ];
        for (value, wanted) in cases {
            let found = problem::<RoleV6>(value);
            assert!(found.starts_with(wanted), "{found}");
        }
        assert!(
            problem::<UserV2>(json!({"spec": {"traits": {"team": "x"}}}))
                .starts_with("spec.traits.team: expected a list")
        );
    }

    #[test]
    fn empty_fields_are_absent_fields() {
        let server: ServerV2 =
            read(json!({"kind": "node", "sub_kind": null, "spec": null, "metadata": {"labels": null}}), Fields::Known)
                .unwrap();
        assert_eq!(server.spec, None);
        let role: RoleV6 = read(json!({"spec": {"allow": {"logins": null}, "deny": null}}), Fields::Known).unwrap();
        assert!(role.spec.unwrap().deny.is_none());
    }

    #[test]
    fn words_for_booleans_are_read() {
        let role: RoleV6 =
            read(json!({"spec": {"options": {"forward_agent": "yes", "port_forwarding": "off"}}}), Fields::Known)
                .unwrap();
        let options = role.spec.unwrap().options.unwrap();
        assert!(options.forward_agent);
        assert!(!options.port_forwarding.unwrap().value);
    }
}
