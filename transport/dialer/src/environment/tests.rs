#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

type Variables<'v> = &'v [(&'v str, &'v str)];

fn environment(variables: &[(&str, &str)]) -> Result<ProxyEnvironment, EnvironmentError> {
    ProxyEnvironment::parse(|name| {
        variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

fn goes_through(variables: &[(&str, &str)], target: &str, traffic: Traffic) -> Option<String> {
    let environment = environment(variables).unwrap();
    environment.proxy_for(&target.parse().unwrap(), traffic).map(|proxy| proxy.address.to_string())
}

const GATE: &str = "http://gate.example.com:8080/";

#[test]
fn the_variable_is_chosen_by_the_kind_of_traffic() {
    let both = [("HTTPS_PROXY", "one:1"), ("HTTP_PROXY", "two:2")];
    let http = [("HTTP_PROXY", "two:2")];
    let lower = [("https_proxy", "three:3")];
    let cases: [(Variables<'_>, Traffic, Option<&str>); 8] = [
        (&both, Traffic::Web, Some("one:1")),
        (&both, Traffic::Raw, Some("one:1")),
        (&http, Traffic::Web, None),
        (&http, Traffic::Raw, Some("two:2")),
        (&lower, Traffic::Web, Some("three:3")),
        (&[("HTTPS_PROXY", "one:1"), lower[0]], Traffic::Raw, Some("one:1")),
        (&[("HTTPS_PROXY", " "), lower[0]], Traffic::Raw, Some("three:3")),
        (&[], Traffic::Raw, None),
    ];
    for (variables, traffic, expected) in cases {
        assert_eq!(
            goes_through(variables, "proxy.test:443", traffic).as_deref(),
            expected,
            "{variables:?} {traffic:?}"
        );
    }
}

#[test]
fn no_proxy_excludes_hosts_networks_and_ports() {
    let direct = |no_proxy: &str, target: &str| {
        goes_through(&[("HTTPS_PROXY", GATE), ("NO_PROXY", no_proxy)], target, Traffic::Raw).is_none()
    };
    let cases = [
        ("*", "anything.test:1", true),
        ("proxy.test", "proxy.test:443", true),
        ("proxy.test", "PROXY.test.:443", true),
        ("proxy.test", "a.proxy.test:443", true),
        ("proxy.test", "xproxy.test:443", false),
        (".test", "proxy.test:443", true),
        (".proxy.test", "proxy.test:443", false),
        ("*.proxy.test", "a.proxy.test:443", true),
        ("*.proxy.test", "proxy.test:443", false),
        ("other.test, .test", "proxy.test:443", true),
        ("PROXY.TEST:3123", "proxy.test:3123", true),
        ("PROXY.TEST:3123", "proxy.test:3180", false),
        ("xproxy.test,proxy.test:1,10.0.0.0/8", "proxy.test:3180", false),
        ("10.0.0.0/8", "10.99.0.1:3180", true),
        ("10.0.0.0/8", "11.0.0.1:3180", false),
        ("0.0.0.0/0", "203.0.113.1:1", true),
        ("10.0.0.0/8", "[::ffff:10.1.1.1]:1", true),
        ("2001:db8::/32", "[2001:db8:1::1]:443", true),
        ("2001:db8::/32", "[2001:db9::1]:443", false),
        ("::/0", "10.0.0.1:443", false),
        ("10.0.0.1", "10.0.0.1:9", true),
        ("10.0.0.1:8", "10.0.0.1:9", false),
        ("[2001:db8::1]:8", "[2001:db8::1]:8", true),
        ("2001:db8::1", "[2001:db8::1]:8", true),
        ("0.1", "10.0.0.1:9", false),
        ("teleportproxy.example.com:3024", "teleportproxy.example.com:3024", true),
        ("teleportproxy.example.com:3024", "teleportproxy.example.com:3080", false),
        ("kube.teleport.cluster.local", "kube.teleport.cluster.local:3026", true),
        ("10.0.0.0/33,,/,:80", "10.0.0.1:9", false),
    ];
    for (no_proxy, target, expected) in cases {
        assert_eq!(direct(no_proxy, target), expected, "NO_PROXY={no_proxy} {target}");
    }
}

#[test]
fn the_sample_of_the_packaged_service_is_understood() {
    let sample = "localhost,127.0.0.1,192.168.0.0/16,172.16.0.0/12,10.0.0.0/8";
    let variables = [("HTTPS_PROXY", "http://proxy.example.com:8080/"), ("NO_PROXY", sample)];
    assert_eq!(goes_through(&variables, "10.99.0.1:3180", Traffic::Web), None);
    assert_eq!(goes_through(&variables, "172.31.0.1:3180", Traffic::Web), None);
    assert_eq!(goes_through(&variables, "proxy.test:3180", Traffic::Web).as_deref(), Some("proxy.example.com:8080"));
}

#[test]
fn this_machine_is_never_dialled_through_a_proxy() {
    for target in ["localhost:3080", "127.0.0.1:3080", "127.1.2.3:1", "[::1]:3080"] {
        assert_eq!(goes_through(&[("HTTPS_PROXY", GATE)], target, Traffic::Raw), None, "{target}");
    }
}

#[test]
fn values_are_read_with_scheme_port_and_credentials() {
    let read = |value: &str| ProxyServer::parse("HTTPS_PROXY", value).unwrap();
    let cases = [
        ("gate:3128", ProxyScheme::Http, "gate:3128"),
        ("http://gate", ProxyScheme::Http, "gate:80"),
        ("HTTPS://gate", ProxyScheme::Https, "gate:443"),
        ("socks5://gate", ProxyScheme::Socks5, "gate:1080"),
        ("http://[2001:db8::1]:8080", ProxyScheme::Http, "[2001:db8::1]:8080"),
        ("10.1.1.1:80", ProxyScheme::Http, "10.1.1.1:80"),
    ];
    for (value, scheme, address) in cases {
        let proxy = read(value);
        assert_eq!((proxy.scheme, proxy.address.to_string().as_str()), (scheme, address), "{value}");
        assert!(proxy.credentials.is_none());
    }
    for (user, sent) in [("ann:p%40ss:w%2Ford", "ann:p@ss:w/ord"), ("ann", "ann:"), ("ann:", "ann:"), (":p", ":p")] {
        let basic = read(&format!("http://{user}@gate:1")).credentials.unwrap().basic();
        assert_eq!(basic, format!("Basic {}", STANDARD.encode(sent)), "{user}");
    }
}

#[test]
fn proxies_on_this_machine_are_refused_by_name_of_the_variable() {
    for value in [
        "localhost:3128",
        "http://127.0.0.1:8080",
        "https://[::1]:8080",
        "http://user:secret@127.9.9.9",
        "http://LocalHost",
    ] {
        let error = environment(&[("https_proxy", value)]).unwrap_err();
        assert!(matches!(error, EnvironmentError::Loopback { .. }), "{value}");
        let text = error.to_string();
        assert!(text.starts_with("https_proxy: ") && text.contains("private IP address"), "{text}");
        assert!(!text.contains("secret"));
    }
}

#[test]
fn unusable_values_name_the_variable() {
    let text = |value| environment(&[("HTTP_PROXY", value)]).unwrap_err().to_string();
    assert!(text("ftp://gate:21").contains("HTTP_PROXY: proxy url scheme \"ftp\" not supported"));
    for value in ["http://", "http://gate:99999", "://x"] {
        assert!(text(value).starts_with("HTTP_PROXY: "), "{value}");
    }
}

#[test]
fn credentials_are_not_shown() {
    let proxy = ProxyServer::parse("HTTPS_PROXY", "http://user:secret@gate:1").unwrap();
    assert!(!format!("{proxy:?} {proxy}").contains("secret"));
}

proptest! {
    #[test]
    fn any_value_is_read_or_refused(proxy in ".{0,40}", no_proxy in ".{0,40}", host in "[a-z.:0-9]{1,20}") {
        if let Ok(environment) = environment(&[("HTTPS_PROXY", &proxy), ("NO_PROXY", &no_proxy)]) {
            let _ = environment.proxy_for(&HostPort::new(host, 1), Traffic::Web);
        }
    }
}
