//! What scanners find at the ports that strangers reach.

use std::fs;
use std::process::Command;
use std::time::Duration;

use e2e::{AgentSetup, ClusterSetup, free_port, listen, run, scanner};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

/// Findings of ssh-audit that stay, with the reason.
const KNOWN: [(&str, &str, &str); 2] = [
    ("curve25519-sha256", "post-quantum", "clients that know nothing newer; those that do get mlkem768x25519-sha256"),
    ("rsa-sha2-", "2048-bit modulus", "host keys that every client of this protocol's versions verifies"),
];

/// What ssh-audit complains about at a port, beyond [`KNOWN`].
fn complaints(port: u16) -> Vec<String> {
    let mut command = Command::new(scanner("ssh-audit"));
    let shown = run(command.args(["-j", &format!("127.0.0.1:{port}")]), b"", LIMIT);
    let report: Value =
        serde_json::from_str(&shown.stdout).unwrap_or_else(|e| panic!("expected JSON ({e}) from {shown}"));
    assert_eq!(report["cves"].as_array().map_or(0, Vec::len), 0, "{report}");
    let mut found = Vec::new();
    for kind in ["kex", "key", "enc", "mac"] {
        let algorithms = report[kind].as_array().unwrap_or_else(|| panic!("no {kind} in {report}"));
        assert!(!algorithms.is_empty(), "{kind}");
        for algorithm in algorithms {
            let name = algorithm["algorithm"].as_str().expect("a name");
            let notes = ["fail", "warn"].into_iter().flat_map(|level| algorithm["notes"][level].as_array());
            for note in notes.flatten().filter_map(Value::as_str) {
                if !KNOWN.iter().any(|(of, about, _)| name.starts_with(of) && note.contains(about)) {
                    found.push(format!("{kind} {name}: {note}"));
                }
            }
        }
    }
    found
}

#[test]
fn ssh_audit_finds_nothing_at_the_ssh_doors() {
    let (ssh, tunnel, node) = (free_port(), free_port(), free_port());
    let cluster = ClusterSetup::new("audit.test").separate(ssh, tunnel).start();
    let setup = AgentSetup::node("node1").at_auth_with_pin(&cluster.pin());
    let _node = cluster.agent(&setup.ssh(&json!({ "listen_addr": listen(node) })));
    for port in [ssh, tunnel, node] {
        assert_eq!(complaints(port), Vec::<String>::new(), "port {port} of {:?}", (ssh, tunnel, node));
    }
}

#[test]
fn sslyze_finds_nothing_at_the_public_port() {
    let cluster = ClusterSetup::new("tls.test").start();
    let file = cluster.path("sslyze.json");
    let mut command = Command::new(scanner("sslyze"));
    command.arg(format!("--json_out={}", file.display())).arg(cluster.address());
    run(&mut command, b"", LIMIT);
    let report: Value = serde_json::from_slice(&fs::read(&file).expect("a report")).expect("JSON");
    let result = |scan: &str| {
        let scan = &report["server_scan_results"][0]["scan_result"][scan];
        assert_eq!(scan["status"], "COMPLETED", "{scan}");
        scan["result"].clone()
    };
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        assert_eq!(result(&format!("{old}_cipher_suites"))["is_tls_version_supported"], false, "{old}");
    }
    for new in ["tls_1_2", "tls_1_3"] {
        let suites = result(&format!("{new}_cipher_suites"))["accepted_cipher_suites"].clone();
        let suites = suites.as_array().expect("a list").clone();
        assert!(!suites.is_empty(), "{new}");
        for suite in &suites {
            let name = suite["cipher_suite"]["name"].as_str().expect("a name");
            assert!(name.contains("GCM") || name.contains("CHACHA20"), "{name}");
            assert!(new == "tls_1_3" || name.starts_with("TLS_ECDHE_"), "{name} has no forward secrecy");
        }
    }
    assert_eq!(result("tls_compression")["supports_compression"], false);
    assert_eq!(result("openssl_ccs_injection")["is_vulnerable_to_ccs_injection"], false);
    assert_eq!(result("heartbleed")["is_vulnerable_to_heartbleed"], false);
    assert_eq!(result("tls_fallback_scsv")["supports_fallback_scsv"], true);
    assert_eq!(result("session_renegotiation")["is_vulnerable_to_client_renegotiation_dos"], false);
    assert_eq!(result("tls_extended_master_secret")["supports_ems_extension"], true);
    let robot = result("robot")["robot_result"].clone();
    assert!(robot.as_str().is_some_and(|text| text.starts_with("NOT_VULNERABLE")), "{robot}");
}
