//! Noise at every port of every process, and the cluster that goes on.

use std::thread;

use e2e::{AgentSetup, Cluster, Noise, account, hold_half_open, make_noise};

#[test]
fn noise_on_every_port_of_every_process_stops_nothing() {
    let mut cluster = Cluster::start_apart("noise.test");
    let pin = cluster.pin();
    let mut tunnelled = cluster.agent(&AgentSetup::node("tunnelled").with_diagnostics());
    let mut direct = cluster.agent(&AgentSetup::node("direct").at_auth_with_pin(&pin).with_diagnostics());
    cluster.user("alice", &["access"]);
    let client = cluster.client_with(&cluster.sign_identity("alice", "1h"));

    let mut ports = cluster.auth.listening_ports();
    ports.extend(cluster.proxy.as_ref().unwrap().listening_ports());
    ports.extend(tunnelled.listening_ports());
    ports.extend(direct.listening_ports());
    assert!(ports.len() >= 6, "two services, an SSH port and four diagnostics addresses: {ports:?}");

    let mut half_open = Vec::new();
    thread::scope(|scope| {
        for &port in &ports {
            half_open.extend(hold_half_open(port));
            scope.spawn(move || {
                for (seed, noise) in (u64::from(port)..).zip(Noise::ALL) {
                    make_noise(port, noise, seed);
                }
            });
        }
    });

    assert!(!half_open.is_empty());
    for daemon in [&mut cluster.auth, cluster.proxy.as_mut().unwrap(), &mut tunnelled, &mut direct] {
        assert_eq!(daemon.exit_code(), None, "the process lives: {}", daemon.log());
        daemon.ready().unwrap();
        assert!(!daemon.log().contains("panicked at"), "{}", daemon.log());
    }
    for node in ["tunnelled", "direct"] {
        let ran = client.tsh(&["ssh", &format!("{}@{node}", account()), "echo alive"]).succeeded();
        assert_eq!(ran.stdout, "alive\n");
    }
}
