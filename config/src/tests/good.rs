use std::{path::Path, time::Duration};

use super::{environment, parse, parse_with};
use crate::*;

fn at(text: &str) -> HostPort {
    HostPort::parse(text, 0).unwrap()
}

#[test]
fn every_key_is_known_and_read() {
    let config = parse(include_str!("everything.yaml")).unwrap();
    let global = &config.global;
    assert_eq!((global.nodename.as_str(), global.data_dir.to_str().unwrap()), ("host", "/srv/teleport"));
    assert_eq!(global.server, Some(Server::Auth(at("auth.example.com:3025"))));
    assert_eq!(global.join.as_ref().unwrap().method, JoinMethod::Azure);
    let advertise = Advertise { host: "192.0.2.1".to_owned(), port: Some(1234) };
    assert_eq!(global.advertise, Some(advertise));
    assert_eq!(global.log.output, LogOutput::File("/var/log/teleport.log".into()));
    assert_eq!((global.log.severity, global.log.format), (Severity::Warn, LogFormat::Json));
    assert_eq!(global.log.extra_fields, ["level", "caller"]);
    let StateStorage::Sqlite(sqlite) = &global.storage.state else { panic!("sqlite") };
    assert_eq!((sqlite.sync, sqlite.journal), (SqliteSync::Normal, Some(SqliteJournal::Wal)));
    assert_eq!(config.backend_dir(), Path::new("/srv/state"));
    assert_eq!(global.cache, Cache { enabled: false, max_backoff: Duration::from_secs(10) });

    let auth = &config.auth;
    assert_eq!(auth.listen_addr, at("10.0.0.1:3025"));
    assert_eq!(auth.public_addrs, [at("auth.example.com:3025")]);
    assert_eq!(auth.proxy_protocol, Some(ProxyProtocol::Off));
    assert_eq!(auth.tokens[0].roles, [TokenRole::Node, TokenRole::App, TokenRole::WindowsDesktop]);
    assert_eq!(auth.tokens[0].secret.expose(), "alpha:beta");
    assert_eq!(auth.recording.mode, Some(RecordingMode::ProxySync));
    assert_eq!(auth.networking.proxy_listener_mode, Some(ListenerMode::Multiplex));
    let peering = TunnelStrategy::ProxyPeering { agent_connection_count: 2 };
    assert_eq!(auth.networking.tunnel_strategy, Some(peering));
    let login = auth.authentication.as_ref().unwrap();
    assert_eq!(login.second_factor, Some(SecondFactor::On));
    assert_eq!(login.require_session_mfa, Some(SessionMfa::HardwareKeyTouch));
    assert_eq!(login.default_session_ttl, Some(Duration::from_secs(8 * 3600)));
    let hardware_key = login.hardware_key.as_ref().unwrap();
    assert_eq!(hardware_key.piv_slot, Some(PivSlot::Slot9c));
    assert_eq!(hardware_key.serial_number_trait.as_deref(), Some("serials"));

    let module = auth.key_module.as_ref().unwrap();
    assert_eq!((&module.token, &module.pin), (&TokenChoice::Label("keys".to_owned()), &Pin::File("/etc/pin".into())));

    let proxy = &config.proxy;
    assert!(proxy.tunnel_on_web() && proxy.kube_enabled && !proxy.saml_idp);
    assert_eq!(proxy.ssh, Some(at("0.0.0.0:3023")));
    assert_eq!(proxy.kube_public_addrs, [at("kube.example.com:3026")]);
    assert_eq!(proxy.postgres_public_addrs, [at("postgres.example.com:5432")]);
    assert_eq!(proxy.public_addrs, [at("example.com:443"), at("other.example.com:8443")]);
    assert_eq!(proxy.ui.show_resources, ShowResources::AccessibleOnly);
    assert_eq!(proxy.automatic_upgrades_channels.len(), 2);

    let ssh = &config.ssh;
    assert_eq!(ssh.labels.fixed["1"], "2");
    assert_eq!(ssh.labels.fixed["empty"], "");
    assert_eq!(ssh.labels.commands[0].period, Duration::from_secs(60));
    assert!(!ssh.port_forwarding && !ssh.file_copy && !ssh.create_host_user && ssh.pam.is_none());
    assert_eq!(ssh.x11, Some(X11 { display_offset: 20, max_display: 30 }));
    assert_eq!(ssh.enhanced_recording, None);
    assert_eq!(config.metrics.unwrap().listen_addr, at("127.0.0.1:3081"));
    assert!(!config.debug_service);
    assert_eq!(
        config.warnings,
        [
            "t.yaml:49: teleport.ca_signature_algo: has no effect",
            "t.yaml:17: teleport.connection_limits.max_users: is not enforced: connections and rates are bounded for each address",
            "t.yaml:44: teleport.cache.type: has no effect",
            "t.yaml:44: teleport.cache.ttl: has no effect",
            "t.yaml:95: auth_service.kubeconfig_file: has no effect",
            "t.yaml:143: ssh_service.restricted_session: was removed and has no effect",
        ]
    );
}

#[test]
fn enhanced_recording_has_defaults_for_all_but_being_enabled() {
    let read = |settings| {
        let config = parse(&format!("ssh_service: {{enhanced_recording: {settings}}}")).unwrap();
        config.ssh.enhanced_recording
    };
    assert_eq!(read("{enabled: no, disk_buffer_size: 7}"), None);
    let expected = crate::EnhancedRecording {
        command_buffer_pages: 8,
        disk_buffer_pages: 128,
        network_buffer_pages: 8,
        cgroup_path: "/cgroup2".into(),
        root_path: "teleport".into(),
    };
    assert_eq!(read("{enabled: yes, root_path: /teleport}"), Some(expected));
}

#[test]
fn without_a_file_one_host_is_a_cluster() {
    let config = parse("").unwrap();
    assert_eq!(config.version, Version::V1);
    assert!(config.auth.enabled && config.proxy.enabled && config.ssh.enabled);
    assert!(config.debug_service && config.metrics.is_none() && !config.insecure);
    assert_eq!(config.global.nodename, "thishost");
    assert_eq!(config.cluster_name(), "thishost");
    assert_eq!(config.backend_dir(), Path::new("/var/lib/teleport/backend"));
    assert_eq!(config.auth.listen_addr, at("0.0.0.0:3025"));
    assert_eq!(config.ssh.listen_addr, at("0.0.0.0:3022"));
    assert!(!config.auth.networking.is_in_file() && !config.auth.recording.is_in_file());
    assert!(!config.auth.decides_authentication());
    assert_eq!(config, parse("# only a comment\n").unwrap());
    assert_eq!(config, parse("teleport:\nauth_service:\nssh_service: {}\n").unwrap());
}

#[test]
fn each_version_opens_its_own_listeners() {
    let listeners = |text: &str| {
        let proxy = parse(text).unwrap().proxy;
        let all = [Some(proxy.web), proxy.ssh, proxy.tunnel, proxy.kube, proxy.mysql];
        let ports = all.into_iter().flatten().map(|address| address.port).collect::<Vec<_>>();
        (ports, proxy.kube_enabled)
    };
    assert_eq!(listeners(""), (vec![3080, 3023, 3024], false));
    assert_eq!(listeners("version: v1"), (vec![3080, 3023, 3024], false));
    assert_eq!(listeners("version: v2"), (vec![3080], true));
    assert_eq!(listeners("version: v3"), (vec![3080], true));
    let own =
        "version: v3\nproxy_service: {listen_addr: 0.0.0.0, kube_listen_addr: 0.0.0.0, mysql_listen_addr: 0.0.0.0}";
    assert_eq!(listeners(own), (vec![3080, 3023, 3026, 3036], true));
    let old = "proxy_service: {kubernetes: {enabled: yes}}";
    assert_eq!(listeners(old), (vec![3080, 3023, 3024, 3026], true));
}

#[test]
fn public_addresses_without_port_get_that_of_their_listener() {
    let proxy = |text: &str| parse(&format!("version: v3\nproxy_service: {text}")).unwrap().proxy;
    let web = proxy("{web_listen_addr: 0.0.0.0:8443, public_addr: [a, 'b:1'], postgres_public_addr: c}");
    assert_eq!(web.public_addrs, [at("a:8443"), at("b:1")]);
    assert_eq!(web.postgres_public_addrs, [at("c:8443")]);
    let own = proxy("{postgres_listen_addr: 0.0.0.0:9999, postgres_public_addr: c}");
    assert_eq!(own.postgres_public_addrs, [at("c:5432")]);
}

#[test]
fn a_cluster_and_its_agent_are_read() {
    let server = "
version: v3
teleport:
  nodename: main-host
  data_dir: /tmp/x/auth
  log: {output: stderr, severity: INFO}
auth_service:
  enabled: true
  cluster_name: main.test
  listen_addr: 127.0.0.1:3025
  proxy_listener_mode: multiplex
  tokens: ['node,proxy,app,db,kube,windowsdesktop,discovery,bot:the-token']
  authentication: {type: local, second_factor: otp}
proxy_service:
  enabled: true
  web_listen_addr: 127.0.0.1:3080
  tunnel_listen_addr: 127.0.0.1:3080
  public_addr: localhost:3080
ssh_service: {enabled: false}
";
    let config = parse(server).unwrap();
    assert!(config.proxy.tunnel_on_web());
    assert_eq!(config.auth.tokens[0].roles.len(), 8);
    assert!(config.auth.decides_authentication());
    let agent = "
version: v3
teleport:
  nodename: node1
  data_dir: /tmp/x/node1
  join_params: {method: token, token_name: the-token}
  proxy_server: localhost:3080
auth_service: {enabled: false}
proxy_service: {enabled: false}
ssh_service: {enabled: true, labels: {env: test}}
";
    let config = parse(agent).unwrap();
    assert_eq!(config.global.server, Some(Server::Proxy(at("localhost:3080"))));
    let join = config.global.join.unwrap();
    assert_eq!(join.token.unwrap().read().unwrap().expose(), "the-token");
    let old = "
teleport: {join_params: null, auth_token: /run/token, auth_servers: [a, 'b:3080']}
auth_service: {enabled: no}
proxy_service: {enabled: no}
";
    let config = parse(old).unwrap();
    assert_eq!(config.global.server, Some(Server::Any(vec![at("a:3025"), at("b:3080")])));
    assert_eq!(config.global.join.unwrap().token, Some(Token::File("/run/token".into())));
}

#[test]
fn tokens_and_pins_may_be_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let pin = format!("sha256:{}", "Ab".repeat(32));
    let (tokens, pins) = (directory.path().join("tokens"), directory.path().join("pins"));
    std::fs::write(&tokens, "one\n\ntwo\n").unwrap();
    std::fs::write(&pins, format!("{pin}\n")).unwrap();
    let text = format!(
        "teleport: {{ca_pin: [{}, '{pin}']}}\nauth_service: {{tokens: ['node:{}']}}",
        pins.display(),
        tokens.display()
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.global.ca_pins, [pin.to_lowercase()]);
    let secrets: Vec<_> = config.auth.tokens.iter().map(|token| token.secret.expose()).collect();
    assert_eq!(secrets, ["one", "two"]);
}

#[test]
fn a_list_of_second_factors_is_read_as_the_one_it_means() {
    let factor = |list: &str| {
        let text = format!("auth_service: {{authentication: {{second_factors: {list}, webauthn: {{rp_id: x}}}}}}");
        parse(&text).unwrap().auth.authentication.unwrap().second_factor
    };
    assert_eq!(factor("[otp]"), Some(SecondFactor::Otp));
    assert_eq!(factor("[webauthn, otp]"), Some(SecondFactor::On));
    assert_eq!(factor("[webauthn]"), Some(SecondFactor::Webauthn));
}

#[test]
fn without_second_factor_only_when_the_environment_allows() {
    let text = "auth_service: {authentication: {second_factor: off}}";
    assert!(parse(text).is_err());
    let allowed = Environment { allow_no_second_factor: true, ..environment() };
    Config::parse("t.yaml", text, &Overrides::default(), &allowed).unwrap();
}

#[test]
fn flags_win_over_the_file() {
    let pin = format!("sha256:{}", "0".repeat(64));
    let text = format!(
        "version: v3\nteleport: {{nodename: file, diag_addr: 'file:1', log: {{severity: ERROR}}, \
         join_params: {{method: iam, token_name: file}}, ca_pin: 'sha256:{}'}}\n\
         ssh_service: {{labels: {{from: file, other: file}}}}",
        "f".repeat(64)
    );
    let overrides = Overrides {
        roles: vec!["node,proxy".to_owned()],
        token: Some(Secret::new("/run/flag")),
        auth_servers: vec!["flag".to_owned()],
        ca_pins: vec![pin.clone()],
        diag_addr: Some("127.0.0.1:3900".to_owned()),
        nodename: Some("flag".to_owned()),
        labels: Some("from=flag".to_owned()),
        listen_ip: Some("::1".to_owned()),
        debug: true,
        insecure: true,
        ..Overrides::default()
    };
    let config = parse_with(&text, &overrides).unwrap();
    assert!(!config.auth.enabled && config.proxy.enabled && config.ssh.enabled);
    let join = config.global.join.as_ref().unwrap();
    assert_eq!((join.method, &join.token), (JoinMethod::Iam, &Some(Token::File("/run/flag".into()))));
    assert_eq!(config.global.server, Some(Server::Auth(at("flag:3025"))));
    assert_eq!(config.global.ca_pins, [pin]);
    assert_eq!(config.global.diag_addr, Some(at("127.0.0.1:3900")));
    assert_eq!(config.global.nodename, "flag");
    assert_eq!(config.ssh.labels.fixed.len(), 1);
    assert_eq!(config.proxy.web.to_string(), "[::1]:3080");
    assert_eq!(config.global.log.severity, Severity::Debug);
    assert!(config.insecure);
}

#[test]
fn an_auth_server_on_the_command_line_turns_the_local_one_off() {
    let overrides = Overrides { auth_servers: vec!["a".to_owned()], ..Overrides::default() };
    let config = parse_with("", &overrides).unwrap();
    assert!(!config.auth.enabled);
    assert_eq!(config.global.server, Some(Server::Any(vec![at("a:3025")])));
    assert_eq!(config.warnings, ["--auth-server turns the local auth_service off"]);
}

#[test]
fn ports_of_the_wrong_kind_of_server_are_warned_of() {
    let warnings = |key: &str| {
        let text =
            format!("version: v3\nteleport: {{{key}}}\nauth_service: {{enabled: no}}\nproxy_service: {{enabled: no}}");
        parse(&text).unwrap().warnings
    };
    assert_eq!(
        warnings("auth_server: 'a:443'"),
        ["teleport.auth_server: a:443 has the port of a proxy, did you mean proxy_server?"]
    );
    assert_eq!(
        warnings("proxy_server: 'a:3025'"),
        ["teleport.proxy_server: a:3025 has the port of an Auth Service, did you mean auth_server?"]
    );
    assert!(warnings("proxy_server: a").is_empty());
}

#[test]
fn sources_are_files_and_base64() {
    let load = |source: Source| Config::load(&source, &Overrides::default(), &environment());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("teleport.yaml");
    let missing = load(Source::File(path.clone())).unwrap_err();
    assert_eq!(missing.to_string(), format!("path '{}' does not exist", path.display()));
    std::fs::write(&path, "teleport: {nodename: here}").unwrap();
    let config = load(Source::File(path.clone())).unwrap();
    assert_eq!((config.global.nodename.as_str(), config.file), ("here", Some(path)));

    let encoded = |text: &str| Source::Base64 { name: "TELEPORT_CONFIG".to_owned(), text: text.to_owned() };
    let config = load(encoded("dGVsZXBvcnQ6IHtub2RlbmFtZTogaGVyZX0=\n")).unwrap();
    assert_eq!(config.global.nodename, "here");
    let undecodable = load(encoded("?")).unwrap_err().to_string();
    assert!(undecodable.starts_with("configuration in TELEPORT_CONFIG is not base64"), "{undecodable}");
}

#[test]
fn a_retention_of_zero_removes_nothing() {
    let text = |retention: &str| {
        format!("teleport:\n  storage: {{retention_period: {retention}, recordings_retention_period: {retention}}}\n")
    };
    for (retention, expected) in [("0", None), ("0s", None), ("1h", Some(Duration::from_secs(3600)))] {
        let storage = parse(&text(retention)).unwrap().global.storage;
        assert_eq!((storage.audit_retention, storage.recordings_retention), (expected, expected), "{retention}");
    }
}

#[test]
fn addresses_of_audit_storage_do_not_show() {
    let text = "teleport:\n  storage:\n    audit_events_uri: ['postgresql://me:hunter2@db/audit']\n";
    let storage = parse(text).unwrap().global.storage;
    assert_eq!(storage.audit_events_uris[0].expose(), "postgresql://me:hunter2@db/audit");
    assert!(!format!("{storage:?}").contains("hunter2"));
}
