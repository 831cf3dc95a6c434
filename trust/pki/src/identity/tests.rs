#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use chrono::{DateTime, TimeDelta, Utc};
use der::asn1::ObjectIdentifier;
use proptest::prelude::*;

use super::*;
use crate::keys::{KeyAlgorithm, PrivateKey};
use crate::x509::{CaCertificate, Issuer, LeafTemplate, oid};

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// An identity in which everything is set.
fn full() -> Identity {
    let text = |value: &str| value.to_owned();
    Identity {
        username: text("alice@example.com"),
        groups: texts(&["access", "editor"]),
        usage: texts(&[USAGE_DATABASE]),
        principals: texts(&["root", "-teleport-internal-join"]),
        kubernetes_users: texts(&["ku1", "ku2"]),
        kubernetes_groups: texts(&["system:masters"]),
        kubernetes_cluster: text("kube"),
        route_to_cluster: text("leaf"),
        teleport_cluster: text("root.example.com"),
        traits: Some(Traits::from([(text("logins"), texts(&["a<b>&c", "root"])), (text("empty"), Vec::new())])),
        route_to_app: RouteToApp {
            session_id: text("s"),
            public_addr: text("app.example.com"),
            cluster_name: text("root"),
            name: text("app"),
            aws_role_arn: text("arn:aws:iam::1:role/a"),
            azure_identity: text("az"),
            gcp_service_account: text("gcp@x"),
        },
        aws_role_arns: texts(&["arn:1", "arn:2"]),
        azure_identities: texts(&["az1"]),
        gcp_service_accounts: texts(&["gcp1"]),
        route_to_database: RouteToDatabase {
            service_name: text("pg"),
            protocol: text("postgres"),
            username: text("bob"),
            database: text("db"),
            roles: texts(&["reader", "writer"]),
        },
        database_names: texts(&["*"]),
        database_users: texts(&["bob", "eve"]),
        mfa_verified: text("5e3ab53c-4bd9-4bd3-8d9c-9ac2a2d1c6f0"),
        previous_identity_expires: DateTime::from_timestamp(1_800_000_000, 0),
        login_ip: text("192.0.2.1"),
        pinned_ip: text("2001:db8::1"),
        impersonator: text("bot"),
        active_requests: texts(&["11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"]),
        disallow_reissue: true,
        renewable: true,
        generation: 7,
        bot_name: text("robot"),
        bot_instance_id: text("33333333-3333-3333-3333-333333333333"),
        allowed_resource_ids: texts(&["/root/node/a", "/root/pod/b/ns/c"]),
        connection_diagnostic_id: text("diag"),
        private_key_policy: text("none"),
        device: DeviceExtensions { device_id: text("d"), asset_tag: text("t"), credential_id: text("c") },
        system_roles: texts(&["Node", "App"]),
        user_type: text("local"),
        join_attributes: text("{\"meta\":{}}"),
        expires: None,
    }
}

fn reread(identity: &Identity) -> Identity {
    let der = identity.to_subject().unwrap().to_der().unwrap();
    Identity::from_subject(&DistinguishedName::from_der(&der).unwrap()).unwrap()
}

#[test]
fn a_full_identity_survives_a_certificate() {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let now = DateTime::<Utc>::from_timestamp(Utc::now().timestamp(), 0).unwrap();
    let ca = CaCertificate::self_signed("root", &key, now).unwrap();
    let expires = now + TimeDelta::hours(12);
    let template = LeafTemplate::new(full().to_subject().unwrap(), key.public().clone(), now, expires);
    let issuer = Issuer::new(ca, key).unwrap();
    let certificate = Certificate::from_der(&issuer.issue(&template).unwrap()).unwrap();
    let mut expected = full();
    expected.expires = Some(expires);
    assert_eq!(Identity::from_certificate(&certificate).unwrap(), expected);
    assert!(!expected.is_expired(expires) && expected.is_expired(expires + TimeDelta::seconds(1)));
}

#[test]
fn the_cluster_falls_back_to_the_issuers_organization() {
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    let now = Utc::now();
    let issuer = Issuer::new(CaCertificate::self_signed("leaf", &key, now).unwrap(), key.clone()).unwrap();
    let identity = Identity { teleport_cluster: String::new(), ..full() };
    let template = LeafTemplate::new(identity.to_subject().unwrap(), key.public().clone(), now, now);
    let certificate = Certificate::from_der(&issuer.issue(&template).unwrap()).unwrap();
    assert_eq!(Identity::from_certificate(&certificate).unwrap().teleport_cluster, "leaf");
}

#[test]
fn standard_attributes_come_first_and_route_and_traits_are_always_there() {
    let host = Identity { username: "uuid.root".to_owned(), groups: texts(&["Node"]), ..Identity::default() };
    let subject = host.to_subject().unwrap();
    let attributes: Vec<(ObjectIdentifier, &str)> = subject.iter().collect();
    let expected = [
        (oid::ORGANIZATION, "Node"),
        (oid::STREET_ADDRESS, ""),
        (oid::POSTAL_CODE, "null"),
        (oid::COMMON_NAME, "uuid.root"),
    ];
    assert_eq!(attributes, expected);
    assert_eq!(reread(&host), host);
}

#[test]
fn traits_are_written_as_go_writes_json() {
    assert_eq!(traits_to_json(None), "null");
    assert_eq!(traits_to_json(Some(&Traits::new())), "{}");
    let traits = Traits::from([
        ("z".to_owned(), texts(&["<&>"])),
        ("a".to_owned(), texts(&["\u{2028}", "q\"\\\u{1}\n\u{8}\u{c}"])),
    ]);
    let expected = "{\"a\":[\"\\u2028\",\"q\\\"\\\\\\u0001\\n\\b\\f\"],\"z\":[\"\\u003c\\u0026\\u003e\"]}";
    assert_eq!(traits_to_json(Some(&traits)), expected);
    assert_eq!(traits_from_text(expected).unwrap(), Some(traits));
}

#[test]
fn traits_are_also_read_with_null_lists_and_as_protobuf() {
    let with_null = traits_from_text("{\"a\":null}").unwrap();
    assert_eq!(with_null, Some(Traits::from([("a".to_owned(), Vec::new())])));
    let protobuf = "\n\u{b}\n\u{1}a\u{12}\u{6}\n\u{1}x\n\u{1}y";
    let expected = Traits::from([("a".to_owned(), texts(&["x", "y"]))]);
    assert_eq!(traits_from_text(protobuf).unwrap(), Some(expected));
    assert_eq!(traits_from_text("").unwrap(), Some(Traits::new()));
    assert!(traits_from_text("{\"a\":").is_err());
}

#[test]
fn a_subject_without_name_or_roles_is_refused() {
    let mut nameless = DistinguishedName::new();
    nameless.push(oid::ORGANIZATION, "access");
    let error = Identity::from_subject(&nameless).unwrap_err();
    assert_eq!(error.to_string(), "missing identity username");
    let mut without_roles = DistinguishedName::new();
    without_roles.push(oid::COMMON_NAME, "alice");
    let error = Identity::from_subject(&without_roles).unwrap_err();
    assert_eq!(error.to_string(), "missing identity groups");
    assert!(Identity::default().to_subject().is_err());
}

#[test]
fn unreadable_attributes_fail_the_whole_identity_and_unknown_ones_are_ignored() {
    for (attribute, value) in
        [("1.3.9999.1.14", "many"), ("1.3.9999.2.12", "yesterday"), ("1.3.9999.2.10", "{"), ("2.5.4.17", "{\"a\":1}")]
    {
        let mut subject = DistinguishedName::new();
        subject.push(oid::COMMON_NAME, "alice");
        subject.push(oid::ORGANIZATION, "access");
        subject.push(attribute.parse().unwrap(), value);
        assert!(matches!(Identity::from_subject(&subject), Err(Error::IdentityAttribute { .. })), "{attribute}");
    }
    let mut subject = full().to_subject().unwrap();
    subject.push("1.3.9999.2.99".parse().unwrap(), "future");
    subject.push("2.5.4.6".parse().unwrap(), "DE");
    assert_eq!(Identity::from_subject(&subject).unwrap(), full());
}

#[test]
fn repeated_roles_and_logins_are_written_once() {
    let mut identity = full();
    identity.groups = texts(&["a", "b", "a"]);
    assert_eq!(reread(&identity).groups, ["a", "b"]);
}

#[test]
fn touch_and_pin_count_as_second_factor() {
    let mut identity = Identity::default();
    assert!(!identity.is_mfa_verified());
    identity.private_key_policy = "hardware_key".to_owned();
    assert!(!identity.is_mfa_verified());
    identity.private_key_policy = "hardware_key_pin".to_owned();
    assert!(identity.is_mfa_verified());
    let by_device = Identity { mfa_verified: "device".to_owned(), ..Identity::default() };
    assert!(by_device.is_mfa_verified());
}

#[test]
fn logins_end_with_the_one_for_joining_and_are_never_empty() {
    assert_eq!(certificate_logins(["b", "a", "b"]), ["b", "a", SESSION_JOIN_PRINCIPAL]);
    let none = certificate_logins(Vec::<String>::new());
    assert_eq!(none.len(), 2);
    assert!(none[0].starts_with(NO_LOGIN_PREFIX) && none[0].len() == NO_LOGIN_PREFIX.len() + 36);
}

#[test]
fn an_identity_survives_json() {
    let json = serde_json::to_string(&full()).unwrap();
    assert_eq!(serde_json::from_str::<Identity>(&json).unwrap(), full());
    assert_eq!(serde_json::from_str::<Identity>("{}").unwrap(), Identity::default());
}

proptest! {
    #[test]
    fn traits_of_any_text_survive(traits in prop::collection::btree_map(".{0,20}", prop::collection::vec(".{0,40}", 0..5), 0..6)) {
        let text = traits_to_json(Some(&traits));
        let unescaped = text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']);
        prop_assert!(!unescaped);
        prop_assert_eq!(traits_from_text(&text).unwrap(), Some(traits));
    }

    #[test]
    fn identities_of_any_text_survive(
        username in "\\PC{1,40}",
        groups in prop::collection::btree_set("\\PC{1,30}", 1..30),
        principals in prop::collection::btree_set("\\PC{0,30}", 0..30),
        users in prop::collection::vec("\\PC{0,30}", 0..30),
        generation: u64,
    ) {
        let mut identity = Identity {
            username,
            groups: groups.into_iter().collect(),
            principals: principals.into_iter().collect(),
            kubernetes_users: users,
            generation,
            ..full()
        };
        let mut read = reread(&identity);
        // Values of one attribute come back in the order of their encodings.
        for names in [&mut identity.groups, &mut read.groups, &mut identity.principals, &mut read.principals] {
            names.sort();
        }
        prop_assert_eq!(read, identity);
    }

    #[test]
    fn hostile_text_never_panics(text in "\\PC{0,60}") {
        let _ = traits_from_text(&text);
        let mut subject = DistinguishedName::new();
        for attribute in ["2.5.4.3", "2.5.4.10", "2.5.4.17", "1.3.9999.1.14", "1.3.9999.2.12", "1.3.9999.2.10"] {
            subject.push(attribute.parse().unwrap(), text.clone());
        }
        let _ = Identity::from_subject(&subject);
    }
}
