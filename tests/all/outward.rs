//! Programs that reach the cluster through an HTTP proxy. The names carry the requirements of the networking reference.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::{
    AgentSetup, Client, Cluster, ClusterSetup, HERE, HttpProxy, Manner, ON_THE_WAY, Tool, account, free_port,
    in_own_network, wait_for,
};

const LIMIT: Duration = Duration::from_secs(60);
/// A dial gives up in half of this; the rest is for a busy machine.
const BOUND: Duration = Duration::from_secs(30);

fn works(client: &Client, node: &str) {
    let ran = client.tsh(&["ssh", &format!("{}@{node}", account()), "echo reached"]).succeeded();
    assert_eq!(ran.stdout, "reached\n");
}

/// A client of a new user's, with one variable that names the proxy.
fn through(cluster: &Cluster, variables: &[(&str, &str)]) -> Client {
    let identity = cluster.sign_identity("alice", "1h");
    let client = cluster.client_with(&identity);
    variables.iter().fold(client, |client, (name, value)| client.with_variable(name, value))
}

/// tinyproxy of Debian, which lets nobody in without this password.
fn tinyproxy(cluster: &Cluster, port: u16) -> Tool {
    let file = cluster.path("tinyproxy.conf");
    let text = format!("Port {port}\nListen {ON_THE_WAY}\nTimeout 60\nLogLevel Connect\nBasicAuth someone p-ss\n");
    std::fs::write(&file, text).expect("write a configuration");
    let tool = Tool::start("tinyproxy", &["-d", "-c", &file.display().to_string()], &cluster.path(""));
    wait_for("tinyproxy", LIMIT, || std::net::TcpStream::connect((ON_THE_WAY, port)).map(drop));
    tool
}

#[test]
fn net_12_net_13_net_17_net_20_agents_and_people_pass_an_http_proxy_that_wants_a_password() {
    in_own_network(
        "outward::net_12_net_13_net_17_net_20_agents_and_people_pass_an_http_proxy_that_wants_a_password",
        || {
            let cluster = Cluster::start("outward.test");
            let port = free_port();
            let tinyproxy = tinyproxy(&cluster, port);
            let proxy = format!("http://someone:p%2Dss@{ON_THE_WAY}:{port}/");
            let sample = "localhost,127.0.0.1,192.168.0.0/16,172.16.0.0/12,10.0.0.0/8";
            let setup = AgentSetup::node("node1").variable("HTTPS_PROXY", &proxy).variable("NO_PROXY", sample);
            let _node = cluster.agent(&setup);
            let of_agent = tinyproxy.log().matches(&cluster.address()).count();
            assert!(of_agent > 0, "the agent came through the proxy");

            let mut alice = cluster.user("alice", &["access"]);
            let client = cluster.client().with_variable("HTTPS_PROXY", &proxy).with_variable("NO_PROXY", sample);
            client.login(&mut alice);
            let of_login = tinyproxy.log().matches(&cluster.address()).count();
            assert!(of_login > of_agent, "the login came through the proxy");
            works(&client, "node1");
            assert!(tinyproxy.log().matches(&cluster.address()).count() > of_login, "so did the session");

            let wrong = format!("http://someone:wrong@{ON_THE_WAY}:{port}");
            let refused = through(&cluster, &[("HTTPS_PROXY", &wrong)]).tsh(&["ls"]).refused();
            assert!(refused.stderr.contains("401") && refused.stderr.contains("HTTPS_PROXY"), "{refused}");
            assert!(!refused.said().contains("wrong"), "the password stays out of messages: {refused}");
        },
    );
}

#[test]
fn net_14_net_15_net_20_net_21_variables_say_which_dials_go_through_a_proxy() {
    in_own_network("outward::net_14_net_15_net_20_net_21_variables_say_which_dials_go_through_a_proxy", || {
        let cluster = Cluster::start("variables.test");
        let _node = cluster.agent(&AgentSetup::node("node1"));
        cluster.user("alice", &["access"]);
        let proxy = HttpProxy::start(ON_THE_WAY, Manner::Serves);
        let (bare, url) = (proxy.address().to_owned(), format!("http://{}", proxy.address()));
        let web = cluster.address();
        let (_, port) = web.rsplit_once(':').expect("a port");
        let asked = |variables: &[(&str, &str)]| {
            works(&through(&cluster, variables), "node1");
            proxy.take_targets()
        };
        let everything = vec![web.clone()];
        let nothing: Vec<String> = Vec::new();
        assert_eq!(asked(&[("HTTPS_PROXY", &url)]), everything);
        assert_eq!(asked(&[("https_proxy", &bare)]), everything, "without a scheme it is http");
        assert!(!asked(&[("HTTP_PROXY", &url)]).is_empty(), "alone it is good for tunnels");
        let except = |list: &str| asked(&[("HTTPS_PROXY", &url), ("NO_PROXY", list)]);
        assert_eq!(except(HERE), nothing);
        assert_eq!(except(&format!("other.test, {web}")), nothing);
        assert_eq!(except("203.0.113.0/24"), nothing);
        assert_eq!(except("*"), nothing);
        assert_eq!(except(&format!("{HERE}:1,10.0.0.0/8,{port}")), everything);

        let client = through(&cluster, &[("HTTPS_PROXY", &format!("http://ann:p%40ss:w%2Ford@{bare}"))]);
        works(&client, "node1");
        let sent: Vec<_> = proxy.asked().into_iter().map(|asked| asked.credentials).collect();
        let basic = format!("Basic {}", STANDARD.encode("ann:p@ss:w/ord"));
        assert!(!sent.is_empty() && sent.iter().all(|sent| sent.as_ref() == Some(&basic)), "{sent:?}");
    });
}

#[test]
fn net_18_net_19_an_agent_dials_both_ports_through_the_proxy_unless_one_is_excepted() {
    in_own_network("outward::net_18_net_19_an_agent_dials_both_ports_through_the_proxy_unless_one_is_excepted", || {
        let (ssh, tunnel) = (free_port(), free_port());
        let cluster = ClusterSetup::new("twoports.test").separate(ssh, tunnel).start();
        let proxy = HttpProxy::start(ON_THE_WAY, Manner::Serves);
        let url = format!("http://{}", proxy.address());
        let tunnel = format!("{HERE}:{tunnel}");
        let joined = |name: &str, except: &str| {
            let setup = AgentSetup::node(name).variable("HTTPS_PROXY", &url).variable("NO_PROXY", except);
            let node = cluster.agent(&setup);
            cluster.user(&format!("user-{name}"), &["access"]);
            let client = cluster.client_with(&cluster.sign_identity(&format!("user-{name}"), "1h"));
            wait_for("a session", LIMIT, || {
                let ran = client.tsh(&["ssh", &format!("{}@{name}", account()), "true"]);
                if ran.code == 0 { Ok(()) } else { Err(ran) }
            });
            (proxy.take_targets(), node)
        };
        let (targets, _node) = joined("both", "");
        assert!(targets.contains(&cluster.address()) && targets.contains(&tunnel), "{targets:?}");
        let (targets, _node) = joined("webonly", &tunnel);
        assert_eq!(targets, [cluster.address()]);
    });
}

#[test]
fn net_22_a_proxy_on_this_very_machine_is_refused_at_start_by_name() {
    let cluster = Cluster::start("loopback.test");
    cluster.user("alice", &["access"]);
    for host in ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"] {
        let value = format!("http://{host}:3128");
        let refused = through(&cluster, &[("HTTPS_PROXY", &value)]).tsh(&["ls"]).refused();
        assert!(refused.stderr.contains("HTTPS_PROXY"), "{refused}");
        let mut agent = cluster.start_agent(&AgentSetup::node("never").variable("HTTP_PROXY", &value));
        assert_ne!(agent.wait_end(LIMIT), 0);
        assert!(agent.log().contains("HTTP_PROXY"), "{}", agent.log());
    }
}

#[test]
fn net_12_a_proxy_that_refuses_hangs_or_babbles_is_named_within_a_bound() {
    in_own_network("outward::net_12_a_proxy_that_refuses_hangs_or_babbles_is_named_within_a_bound", || {
        let cluster = Cluster::start("badproxy.test");
        cluster.user("alice", &["access"]);
        for (manner, says) in [
            (Manner::Answers("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"), "403"),
            (Manner::Answers("SSH-2.0-not-a-proxy\r\n"), "HTTPS_PROXY"),
            (Manner::Answers(""), "HTTPS_PROXY"),
            (Manner::Hangs, "timed out"),
        ] {
            let proxy = HttpProxy::start(ON_THE_WAY, manner);
            let client = through(&cluster, &[("HTTPS_PROXY", &format!("http://{}", proxy.address()))]);
            let start = Instant::now();
            let refused = client.tsh(&["ls"]).refused();
            assert!(start.elapsed() < BOUND, "{:?} for {manner:?}", start.elapsed());
            assert!(refused.stderr.contains(says) && refused.stderr.contains(proxy.address()), "{manner:?}: {refused}");
        }
    });
}
