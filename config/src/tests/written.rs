use proptest::prelude::*;

use super::parse;
use crate::{
    Config, HostPort, ListenerMode, Secret, Server, Version,
    configure::{Options, node, sample},
};

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Writes a file and reads it again.
fn again(options: &Options) -> Config {
    let text = sample(options, "thishost").unwrap();
    parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn a_new_cluster_has_tls_routing_on() {
    let options = Options {
        cluster_name: some("new.test"),
        public_addr: some("new.test:443"),
        node_name: some("made-node"),
        node_labels: some("env=made,tier=one,up=[1m:uptime -p]"),
        data_dir: some("/srv/x"),
        ..Options::default()
    };
    let config = again(&options);
    assert_eq!(config.version, Version::V3);
    assert_eq!(config.auth.networking.proxy_listener_mode, Some(ListenerMode::Multiplex));
    assert_eq!(config.proxy.public_addrs, [HostPort::new("new.test", 443)]);
    assert_eq!(config.proxy.web, HostPort::new("0.0.0.0", 443));
    assert_eq!(config.cluster_name(), "new.test");
    assert_eq!((config.ssh.labels.fixed.len(), config.ssh.labels.commands.len()), (2, 1));
    assert!(config.auth.enabled && config.proxy.enabled && config.ssh.enabled);
}

#[test]
fn the_text_of_a_small_file_is_as_expected() {
    let options = Options { roles: some("auth"), cluster_name: some("c.test"), ..Options::default() };
    assert_eq!(
        sample(&options, "thishost").unwrap(),
        "# A sample Teleport configuration file.
# Enabled here: auth_service.
version: v3
teleport:
  nodename: thishost
  data_dir: /var/lib/teleport
  log:
    output: stderr
    severity: INFO
    format:
      output: text
  ca_pin: \"\"
  diag_addr: \"\"
auth_service:
  enabled: yes
  listen_addr: 0.0.0.0:3025
  cluster_name: c.test
  proxy_listener_mode: multiplex
ssh_service:
  enabled: no
proxy_service:
  enabled: no
"
        .replace("enabled: yes", "enabled: \"yes\"")
        .replace("enabled: no", "enabled: \"no\"")
    );
}

#[test]
fn old_versions_are_written_on_request() {
    let options = Options { version: some("v1"), auth_server: some("a:3025"), ..Options::default() };
    let config = again(&options);
    assert_eq!(config.version, Version::V1);
    assert_eq!(config.global.server, Some(Server::Any(vec![HostPort::new("a", 3025)])));
    assert_eq!(config.auth.networking.proxy_listener_mode, None);
    assert!(!config.auth.enabled);
}

#[test]
fn a_node_joins_through_the_proxy() {
    let pin = format!("sha256:{}", "0".repeat(64));
    let options = Options {
        proxy: some("example.com:443"),
        token: Some(Secret::new("s3cret: \"quoted\"")),
        join_method: some("iam"),
        ca_pins: vec![pin.clone(), pin.replace('0', "1")],
        ..Options::default()
    };
    let config = parse(&node(&options, "thishost").unwrap()).unwrap();
    assert!(config.ssh.enabled && !config.auth.enabled && !config.proxy.enabled);
    assert_eq!(config.global.server, Some(Server::Proxy(HostPort::new("example.com", 443))));
    let join = config.global.join.unwrap();
    assert_eq!(join.token.unwrap().read().unwrap().expose(), "s3cret: \"quoted\"");
    assert_eq!(config.global.ca_pins.len(), 2);
}

#[test]
fn contradictory_options_are_refused() {
    let refused = |options: Options| sample(&options, "thishost").unwrap_err().to_string();
    let key = Options { key_file: some("/k"), ..Options::default() };
    assert_eq!(refused(key.clone()), "please provide both --key-file and --cert-file");
    assert!(refused(Options { acme: true, ..Options::default() }).contains("--cluster-name"));
    let acme = Options { acme: true, cluster_name: some("c"), cert_file: some("/c"), ..key };
    assert!(refused(acme).contains("--key-file"));
    let both = Options { proxy: some("a"), auth_server: some("b"), ..Options::default() };
    assert_eq!(refused(both), "--proxy and --auth-server cannot both be set");
    let old = Options { proxy: some("a"), version: some("v2"), ..Options::default() };
    assert_eq!(refused(old), "--proxy cannot be used with configuration versions older than v3");
    let version = Options { version: some("v9"), ..Options::default() };
    assert_eq!(refused(version), "unknown version \"v9\", expected v1, v2 or v3");
    let role = Options { roles: some("king"), ..Options::default() };
    assert_eq!(refused(role), "unknown role \"king\" in --roles, expected auth, proxy, node or app");
}

proptest! {
    #[test]
    fn every_text_survives_writing_and_reading(name in any::<String>(), token in "\\PC{1,20}") {
        prop_assume!(!name.is_empty() && !token.starts_with('/'));
        let options = Options {
            node_name: Some(name.clone()),
            token: Some(Secret::new(token.clone())),
            ..Options::default()
        };
        let config = again(&options);
        prop_assert_eq!(config.global.nodename, name);
        let read = config.global.join.unwrap().token.unwrap().read().unwrap();
        prop_assert_eq!(read.expose(), token);
    }
}
