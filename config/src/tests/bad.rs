use proptest::prelude::*;

use super::{parse, problems};
use crate::{Overrides, Secret};

fn check(text: &str, expected: &[&str]) {
    assert_eq!(problems(text, &Overrides::default()), expected, "{text}");
}

#[test]
fn misspelt_keys_are_named_with_a_suggestion() {
    check("auth_servise: {}", &["t.yaml:1: auth_servise: unknown key, did you mean \"auth_service\"?"]);
    check(
        "version: v3\nauth_service:\n  authentication:\n    secnd_factor: otp\n",
        &["t.yaml:4: auth_service.authentication.secnd_factor: unknown key, did you mean \"second_factor\"?"],
    );
    check(
        "teleport: {cache: {speed: high}}",
        &["t.yaml:1: teleport.cache.speed: unknown key, expected one of enabled, max_backoff, ttl, type"],
    );
    check(
        "kubernetes_service: {enabled: no, resources: [{lables: {}}]}",
        &["t.yaml:1: kubernetes_service.resources[0].lables: unknown key, did you mean \"labels\"?"],
    );
}

#[test]
fn wrong_types_say_what_was_expected_and_found() {
    check("- a\n", &["t.yaml:1: expected a map, found a list"]);
    check("just text", &["t.yaml:1: expected a map, found \"just text\""]);
    check("ssh_service:\n  labels: [a]\n", &["t.yaml:2: ssh_service.labels: expected a map, found a list"]);
    check("ssh_service: {labels: {a: [b]}}", &["t.yaml:1: ssh_service.labels.a: expected text, found a list"]);
    check(
        "auth_service: {keep_alive_count_max: many}",
        &["t.yaml:1: auth_service.keep_alive_count_max: expected a whole number, found \"many\""],
    );
    check(
        "auth_service: {keep_alive_count_max: -1}",
        &["t.yaml:1: auth_service.keep_alive_count_max: expected a whole number, found \"-1\""],
    );
    check(
        "auth_service: {client_idle_timeout: soon}",
        &["t.yaml:1: auth_service.client_idle_timeout: expected a duration such as 30s or 1h30m, found \"soon\""],
    );
    check("ssh_service: {enabled: maybe}", &["t.yaml:1: ssh_service.enabled: expected yes or no, found \"maybe\""]);
    check("teleport: {nodename: {a: b}}", &["t.yaml:1: teleport.nodename: expected text, found a map"]);
    check("auth_service: {tokens: 'node:x'}", &["t.yaml:1: auth_service.tokens: expected a list, found \"node:x\""]);
    check(
        "proxy_service: {public_addr: {a: b}}",
        &["t.yaml:1: proxy_service.public_addr: expected text or a list, found a map"],
    );
    check("version: 3", &["t.yaml:1: version: expected v1, v2 or v3, found \"3\""]);
}

#[test]
fn values_out_of_range_say_what_was_expected_and_found() {
    check(
        "auth_service: {listen_addr: 'not an address:xyz'}",
        &[
            "t.yaml:1: auth_service.listen_addr: expected host:port, found \"not an address:xyz\": port \"xyz\" is not a number",
        ],
    );
    check(
        "proxy_service:\n  public_addr:\n  - ok\n  - 'a:99999'\n",
        &[
            "t.yaml:4: proxy_service.public_addr[1]: expected host:port, found \"a:99999\": port 99999 is larger than 65535",
        ],
    );
    check(
        "teleport: {ca_pin: 'sha256:12'}",
        &["t.yaml:1: teleport.ca_pin: expected sha256: and 64 hexadecimal digits or a path, found \"sha256:12\""],
    );
    check(
        "teleport: {connection_limits: {rates: [{period: 1m, average: 1}]}}",
        &["t.yaml:1: teleport.connection_limits.rates[0]: expected period, average and burst, all larger than 0"],
    );
    check(
        "ssh_service: {commands: [{name: 'a b', period: 1ms}]}",
        &[
            "t.yaml:1: ssh_service.commands[0].name: invalid label key \"a b\", expected letters, digits and / . _ : * -",
            "t.yaml:1: ssh_service.commands[0].command: expected a program and its arguments, found nothing",
            "t.yaml:1: ssh_service.commands[0].period: expected at least 1s",
        ],
    );
    check("ssh_service: {namespace: other}", &["t.yaml:1: ssh_service.namespace: expected default, found \"other\""]);
    check(
        "auth_service: {tunnel_strategy: {agent_connection_count: 0}}",
        &[
            "t.yaml:1: auth_service.tunnel_strategy.type: expected agent_mesh or proxy_peering, found nothing",
            "t.yaml:1: auth_service.tunnel_strategy.agent_connection_count: expected at least 1, found 0",
        ],
    );
    check(
        "auth_service: {tokens: ['node:', 'node', 'king:x']}",
        &[
            "t.yaml:1: auth_service.tokens[0]: static token has roles and no token",
            "t.yaml:1: auth_service.tokens[1]: expected a static token as role1,role2:token, found no colon",
            "t.yaml:1: auth_service.tokens[2]: unknown role \"king\" of a static token, expected auth, proxy, node, \
             kube, app, db, windowsdesktop, bot, discovery, okta, mdm or trusted_cluster",
        ],
    );
}

#[test]
fn contradictions_are_named() {
    const AGENT: &str = "auth_service: {enabled: no}\nproxy_service: {enabled: no}\n";
    check(
        "auth_service: {enabled: no}\nproxy_service: {enabled: no}\nssh_service: {enabled: no}",
        &["t.yaml: all services are disabled, enable at least one of auth_service, proxy_service and ssh_service"],
    );
    check(
        &format!("version: v3\n{AGENT}"),
        &["t.yaml: teleport: auth_server or proxy_server must be set when auth_service is not enabled"],
    );
    check(AGENT, &["t.yaml: teleport: auth_servers must be set when auth_service is not enabled"]);
    check(
        &format!("version: v3\nteleport:\n  auth_servers: [a]\n{AGENT}"),
        &[
            "t.yaml:3: teleport.auth_servers: is not part of version v3, use auth_server or proxy_server instead of auth_servers",
        ],
    );
    check(
        &format!("version: v2\nteleport: {{proxy_server: a}}\n{AGENT}"),
        &["t.yaml:2: teleport.proxy_server: needs version v3, use auth_servers in version v2"],
    );
    check(
        &format!("version: v3\nteleport: {{auth_server: a, proxy_server: b}}\n{AGENT}"),
        &["t.yaml:2: teleport.proxy_server: only one of auth_server or proxy_server can be set"],
    );
    check(
        "version: v3\nteleport: {proxy_server: a}\nauth_service: {enabled: no}",
        &["t.yaml: teleport.proxy_server: can not be set when proxy_service is enabled, use auth_server"],
    );
    check(
        "teleport: {auth_token: a, join_params: {token_name: b, method: token}}",
        &["t.yaml:1: teleport.auth_token: only one of auth_token or join_params should be set"],
    );
    check(
        "teleport: {join_params: {azure: {}}}",
        &[
            "t.yaml:1: teleport.join_params.method: expected token, ec2, iam, github, circleci, kubernetes, azure, \
             gitlab, gcp, spacelift or tpm",
            "t.yaml:1: teleport.join_params.token_name: expected the name of a token, found nothing",
        ],
    );
    check(
        "proxy_service: {kube_listen_addr: a, kubernetes: {enabled: yes}}",
        &["t.yaml:1: proxy_service.kubernetes: either kube_listen_addr or kubernetes.enabled can be set, found both"],
    );
    check(
        "proxy_service: {peer_public_addr: a, mongo_public_addr: b}",
        &[
            "t.yaml:1: proxy_service.mongo_public_addr: mongo_listen_addr must be set when mongo_public_addr is set",
            "t.yaml:1: proxy_service.peer_public_addr: peer_listen_addr must be set when peer_public_addr is set",
        ],
    );
    check(
        "proxy_service: {https_key_file: /nowhere/k}",
        &[
            "t.yaml:1: proxy_service.https_key_file: https private key does not exist: /nowhere/k",
            "t.yaml:1: proxy_service.https_key_file: https_cert_file must be set when https_key_file is set",
        ],
    );
    check(
        "proxy_service: {automatic_upgrades_channels: {stable: {critical: yes}}}",
        &[
            "t.yaml:1: proxy_service.automatic_upgrades_channels.stable: exactly one of static_version and forward_url must be set",
        ],
    );
    check(
        "auth_service: {authentication: {second_factor: otp, passwordless: yes}}",
        &["t.yaml:1: auth_service.authentication.passwordless: needs webauthn as second factor and webauthn.rp_id"],
    );
    check(
        "auth_service: {authentication: {second_factor: optional}}",
        &[
            "t.yaml:1: auth_service.authentication.second_factor: second factor optional needs webauthn.rp_id, found no webauthn settings",
            "t.yaml:1: auth_service.authentication.second_factor: cannot disable multi-factor authentication: expected otp, webauthn or on, found optional",
        ],
    );
}

#[test]
fn what_is_not_built_is_refused_by_name_when_enabled() {
    for service in [
        "kubernetes_service",
        "windows_desktop_service",
        "discovery_service",
        "tracing_service",
        "jamf_service",
        "okta_service",
        "plugin_service",
        "access_graph",
    ] {
        check(&format!("{service}: {{enabled: no}}"), &["ok"]);
        check(
            &format!("{service}: {{enabled: yes}}"),
            &[&format!("t.yaml:1: {service}.enabled: {service} is not part of this build yet")],
        );
    }
    check(
        "version: v3\nteleport: {auth_server: a}\nauth_service: {enabled: no}\ndb_service: {enabled: yes}",
        &[
            "t.yaml:4: db_service.enabled: db_service is not part of this build yet",
            "t.yaml:4: db_service: when db_service is enabled, proxy_server must be specified instead of auth_server",
        ],
    );
    check(
        "teleport: {storage: {type: etcd, peers: [a], prefix: /x}}",
        &["t.yaml:1: teleport.storage.peers: expected https://host:port, found \"a\""],
    );
    check(
        "teleport: {storage: {type: etcd, peers: [\"http://e:2379\"], tls_cert_file: /c}}",
        &[
            "t.yaml:1: teleport.storage.peers: \"http://e:2379\" is another machine and has no TLS: use https://, or set insecure: yes",
            "t.yaml:1: teleport.storage.tls_cert_file: tls_cert_file and tls_key_file go together",
        ],
    );
    check(
        "teleport: {storage: {type: dynamodb, table_name: x}}",
        &["t.yaml:1: teleport.storage.type: storage type dynamodb is not part of this build yet"],
    );
    check(
        "teleport: {storage: {type: postgre}}",
        &["t.yaml:1: teleport.storage.type: unknown storage type \"postgre\", did you mean \"postgres\"?"],
    );
}

#[test]
fn modules_for_keys_are_named_completely_and_only_once() {
    let check = |params: &str, expected: &[&str]| {
        let expected: Vec<_> = expected.iter().map(|e| format!("t.yaml:1: auth_service.ca_key_params{e}")).collect();
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        check(&format!("auth_service: {{ca_key_params: {{{params}}}}}"), &expected);
    };
    check(
        "pkcs11: {module_path: m.so, token_label: t, slot_number: 1, pin: '1234', pin_path: /p}",
        &[
            ".pkcs11.module_path: expected the absolute path of the module's library, such as /usr/lib/softhsm/libsofthsm2.so",
            ".pkcs11.slot_number: cannot set both token_label and slot_number",
            ".pkcs11.pin_path: cannot set both pin and pin_path",
        ],
    );
    check(
        "pkcs11: {module_path: /m.so}",
        &[".pkcs11: expected token_label or slot_number", ".pkcs11: expected pin or pin_path"],
    );
    check(
        "pkcs11: {module_path: /m.so, slot_number: 1, pin: '1'}, gcp_kms: {keyring: k, protection_level: HSM}",
        &[
            ".gcp_kms: keys in Google Cloud KMS are used through pkcs11 and Google's library libkmsp11",
            ": cannot set both pkcs11 and gcp_kms in file config",
        ],
    );
    check(
        "aws_kms: {account: a, region: r}",
        &[
            ".aws_kms: keys in AWS KMS are not part of this build: use pkcs11, for example with AWS CloudHSM, or leave this \
           out for keys in the storage of the cluster",
        ],
    );
}

#[test]
fn buffers_and_folders_of_enhanced_recording_are_possible_ones() {
    let within = |settings: &str| format!("ssh_service: {{enhanced_recording: {{enabled: yes, {settings}}}}}");
    for (settings, problem) in [
        ("command_buffer_size: 0", "command_buffer_size: expected 1 to 65536 pages of memory, found 0"),
        ("disk_buffer_size: 65537", "disk_buffer_size: expected 1 to 65536 pages of memory, found 65537"),
        ("cgroup_path: cgroup2", "cgroup_path: expected an absolute path, found \"cgroup2\""),
        ("root_path: ../etc", "root_path: expected a folder below cgroup_path, such as teleport, found \"../etc\""),
        ("root_path: /", "root_path: expected a folder below cgroup_path, such as teleport, found \"\""),
    ] {
        check(&within(settings), &[&format!("t.yaml:1: ssh_service.enhanced_recording.{problem}")]);
    }
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text =
        "version: v3\nteleport:\n  nodname: x\n  log: {severity: LOUD}\nauth_service:\n  tokens: [x]\n  tokens: [y]\n";
    let error = parse(text).unwrap_err().to_string();
    assert_eq!(
        error,
        "failed parsing the config file: 4 problems\n  \
         t.yaml:3: teleport.nodname: unknown key, did you mean \"nodename\"?\n  \
         t.yaml:4: teleport.log.severity: expected ERROR, WARN, INFO, DEBUG or TRACE, found \"LOUD\"\n  \
         t.yaml:6: auth_service.tokens[0]: expected a static token as role1,role2:token, found no colon\n  \
         t.yaml:7: auth_service.tokens: key appears twice, first on line 6"
    );
    let error = parse("auth_service: {tokens: [x]}").unwrap_err().to_string();
    assert!(error.starts_with("failed to parse Teleport configuration: t.yaml:1: auth_service"), "{error}");
}

#[test]
fn secrets_are_not_in_messages() {
    let text = "teleport: {auth_token: hunter2, join_params: {token_name: hunter2}}\n\
                auth_service: {tokens: ['king:hunter2', ':hunter2']}\n";
    let error = parse(text).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    let config = parse("teleport: {auth_token: hunter2}\nauth_service: {tokens: ['node:hunter2']}").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn flags_that_make_no_sense_are_named() {
    let overrides = Overrides {
        roles: vec!["nod,app".to_owned(), "auth".to_owned()],
        token: Some(Secret::new("x")),
        auth_servers: vec!["a:b".to_owned()],
        ca_pins: vec!["md5:1".to_owned()],
        diag_addr: Some("a:b".to_owned()),
        labels: Some("novalue".to_owned()),
        listen_ip: Some("everywhere".to_owned()),
        advertise_ip: Some("not here".to_owned()),
        ..Overrides::default()
    };
    assert_eq!(
        problems("", &overrides),
        [
            "command line: --auth-server: expected host:port, found \"a:b\": port \"b\" is not a number",
            "command line: --roles: unknown role \"nod\", did you mean \"node\"?",
            "command line: --roles: role app is not part of this build yet",
            "command line: --ca-pin: expected sha256: and 64 hexadecimal digits or a path, found \"md5:1\"",
            "command line: --diag-addr: expected host:port, found \"a:b\": port \"b\" is not a number",
            "command line: --labels: expected key=value, found \"novalue\"",
            "command line: --advertise-ip: expected an address, with or without port, found \"not here\"",
            "command line: --listen-ip: expected an IP address, found \"everywhere\"",
        ]
    );
}

proptest! {
    #[test]
    fn random_text_never_panics(text in any::<String>()) {
        let _ = parse(&text);
    }

    /// Damages a good file in one place.
    #[test]
    fn damaged_files_never_panic(place in 0..6000usize, damage in "[a-z:\\-\\[\\]{},&*'\"\n ]{0,4}") {
        let good = include_str!("everything.yaml");
        let place = (0..=place.min(good.len())).rev().find(|at| good.is_char_boundary(*at)).unwrap();
        let _ = parse(&format!("{}{damage}{}", &good[..place], &good[place..]));
    }
}
