//! Proxies and Auth Services as clients reach them, with and without load balancers in between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use dialer::webapi::{ErrorKind, RequestError};
use dialer::{
    AuthEndpoint, AuthTrust, ClientVersion, ClusterCredentials, Credentials, DialError, Dialer, HostPort,
    PartialAddress, ProxyEndpoint, Server, Service, Verify,
};
use support::{CLUSTER, Cluster, Front, Proxy, closed_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::service::Interceptor;
use tonic::transport::Channel;
use tower::ServiceExt;

fn endpoint(cluster: &Cluster, proxy: &Proxy) -> ProxyEndpoint {
    let web = Verify::SystemAnd(vec![cluster.web_certificate.clone()]);
    ProxyEndpoint::with_credentials(Dialer::direct(), proxy.host_port(), web, cluster.credentials())
}

async fn call(channel: &Channel) -> Result<http::HeaderMap, String> {
    let version = ClientVersion::new("17.0.0").unwrap().call(tonic::Request::new(())).unwrap();
    let mut request = http::Request::post("/any.Service/Call").body(tonic::body::Body::empty()).unwrap();
    *request.headers_mut() = version.metadata().clone().into_headers();
    let outcome = channel.clone().oneshot(request).await;
    outcome.map(|response| response.headers().clone()).map_err(|error| {
        let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
        causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
    })
}

async fn echo(proxy: &ProxyEndpoint) -> Vec<u8> {
    let mut stream = proxy.open(&Service::reverse_tunnel(true)).await.unwrap();
    stream.write_all(b"SSH-2.0-agent").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; 13];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_web_api_answers_with_types_and_errors_with_kinds() {
    let cluster = Cluster::new();
    let proxy = Proxy::start(&cluster, Front::Nothing).await;
    let endpoint = endpoint(&cluster, &proxy);
    assert_eq!(endpoint.ping().await.unwrap().cluster_name, CLUSTER);
    let web = endpoint.web_client();
    let echoed: serde_json::Value = web.post("/echo", &serde_json::json!({"user": "alice"})).await.unwrap();
    assert_eq!(echoed, serde_json::json!({"type": "application/json", "body": {"user": "alice"}}));
    web.put::<_, ()>("/empty", &()).await.unwrap();
    let error = web.get::<()>("/denied").await.unwrap_err();
    let api = error.api().unwrap();
    assert_eq!((api.kind, api.status, error.to_string().as_str()), (ErrorKind::AccessDenied, 403, "not for you"));
    assert!(matches!(web.get::<u8>("/webapi/ping").await, Err(RequestError::Json { .. })));
    let impatient = web.with_timeout(Duration::from_millis(100));
    assert!(matches!(impatient.get::<()>("/hang").await, Err(RequestError::Timeout { .. })));
}

#[tokio::test]
async fn a_client_survives_that_its_idle_connection_was_closed() {
    let cluster = Cluster::new();
    let proxy = Proxy::start(&cluster, Front::Nothing).await;
    let (address, web) = (proxy.address, endpoint(&cluster, &proxy).web_client());
    web.get::<()>("/empty").await.unwrap();
    drop(proxy);
    let _again = restart(&cluster, address).await;
    web.get::<()>("/empty").await.unwrap();
}

#[tokio::test]
async fn an_untrusted_web_certificate_is_refused_unless_told_otherwise() {
    let cluster = Cluster::new();
    let proxy = Proxy::start(&cluster, Front::Nothing).await;
    let ask = |web| {
        let endpoint = ProxyEndpoint::new(Dialer::direct(), proxy.host_port(), web);
        async move { endpoint.ping().await }
    };
    let error = ask(Verify::SystemAnd(vec![cluster.authority.clone()])).await.unwrap_err();
    let RequestError::Dial(error) = error else { panic!("{error}") };
    assert!(matches!(error.tls_error(), Some(rustls::Error::InvalidCertificate(_))), "{error}");
    assert!(ask(Verify::Insecure).await.is_ok());
}

#[tokio::test]
async fn services_are_reached_directly_and_through_every_kind_of_balancer() {
    let cluster = Cluster::new();
    for (front, upgraded) in [(Front::Nothing, false), (Front::Balancer, true), (Front::SilentBalancer, true)] {
        let proxy = Proxy::start(&cluster, front).await;
        let endpoint = endpoint(&cluster, &proxy).with_user_agent("tsh/17.0.0");
        assert_eq!(endpoint.upgrade_required().await.unwrap(), upgraded);
        assert_eq!(echo(&endpoint).await, b"SSH-2.0-agent");
        let transport = call(&endpoint.channel(Service::transport())).await.unwrap();
        assert_eq!(
            (&transport["service"], &transport["version"]),
            (&"transport".parse().unwrap(), &"17.0.0".parse().unwrap())
        );
        assert!(transport["seen-agent"].to_str().unwrap().starts_with("tsh/17.0.0"));
        let auth = call(&endpoint.channel(Service::auth_grpc(CLUSTER))).await.unwrap();
        assert_eq!(auth["service"], "auth");
        endpoint.auth_http(CLUSTER).get::<()>("/empty").await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_that_knows_no_authority_yet_reaches_the_proxy_behind_a_balancer() {
    let cluster = Cluster::new();
    let proxy = Proxy::start(&cluster, Front::Balancer).await;
    let web = Verify::SystemAnd(vec![cluster.web_certificate.clone()]);
    let endpoint = ProxyEndpoint::new(Dialer::direct(), proxy.host_port(), web);
    assert_eq!(echo(&endpoint).await, b"SSH-2.0-agent");
}

#[tokio::test]
async fn servers_of_other_authorities_are_refused() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let proxy = Proxy::start(&cluster, Front::Nothing).await;
    let stranger = endpoint(&other, &proxy).channel(Service::auth_grpc(CLUSTER));
    let error = call(&stranger).await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    // The proxy has a certificate for the same name, and is no Auth Service.
    let in_between = Service { server: Server::Auth(CLUSTER.to_owned()), ..Service::transport() };
    let error = endpoint(&cluster, &proxy).open(&in_between).await.unwrap_err();
    assert!(matches!(error, DialError::Tls { .. }), "{error}");
    let unknown = endpoint(&cluster, &proxy).open(&Service::auth_grpc("leaf")).await.unwrap_err();
    assert!(matches!(unknown, DialError::NoAuthority(_)), "{unknown}");
}

#[tokio::test]
async fn replaced_credentials_are_used_by_the_next_dial() {
    let cluster = Cluster::new();
    let proxy = Proxy::start(&cluster, Front::Nothing).await;
    let endpoint = endpoint(&cluster, &proxy);
    let good = endpoint.credentials().current();
    endpoint.credentials().replace(ClusterCredentials { identity: None, ..(*good).clone() });
    let channel = endpoint.channel(Service::transport());
    assert!(call(&channel).await.is_err(), "the service needs a client certificate");
    endpoint.credentials().replace((*good).clone());
    call(&channel).await.unwrap();
}

#[tokio::test]
async fn a_channel_recovers_quickly_after_the_server_restarted() {
    let cluster = Cluster::new();
    let proxy = Proxy::start(&cluster, Front::Nothing).await;
    let address = proxy.address;
    let channel = endpoint(&cluster, &proxy).channel(Service::transport());
    call(&channel).await.unwrap();
    drop(proxy);
    let mut failures = 0;
    while call(&channel).await.is_err() && failures < 3 {
        failures += 1;
    }
    assert_eq!(failures, 3, "nobody is there");
    let _again = restart(&cluster, address).await;
    let recovered = async { while call(&channel).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(3), recovered).await.unwrap();
}

#[tokio::test]
async fn auth_is_dialled_directly_with_the_first_address_that_answers() {
    let cluster = Cluster::new();
    let proxy = Proxy::start(&cluster, Front::Nothing).await;
    let dead = HostPort::new("127.0.0.1", closed_port().await);
    // The front of this test forwards by name, which a plain Auth Service has no need of.
    let auth = AuthEndpoint::new(
        Dialer::direct(),
        vec![dead.clone(), proxy.host_port()],
        AuthTrust::Cluster,
        cluster.credentials(),
    );
    let mut stream = auth.open(&[&mux::alpn::auth(CLUSTER), "http/1.1"]).await.unwrap();
    stream.write_all(b"GET /empty HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let nobody = AuthEndpoint::new(Dialer::direct(), vec![dead], AuthTrust::Anyone, Credentials::default());
    let error = call(&nobody.channel()).await.unwrap_err();
    assert!(error.contains("connect to 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn an_address_with_port_is_asked_once_and_the_failure_is_shown() {
    let port = closed_port().await;
    let address: PartialAddress = format!("localhost:{port}").parse().unwrap();
    let error = ProxyEndpoint::discover(&Dialer::direct(), address, &Verify::Insecure).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("connect to localhost:{port}")), "{error}");
    let cluster = Cluster::new();
    let proxy = Proxy::start(&cluster, Front::Nothing).await;
    let address: PartialAddress = format!("https://{}", proxy.host_port()).parse().unwrap();
    let (endpoint, ping) = ProxyEndpoint::discover(&Dialer::direct(), address, &Verify::Insecure).await.unwrap();
    assert_eq!((endpoint.address(), ping.cluster_name.as_str()), (&proxy.host_port(), CLUSTER));
}

/// Starts a proxy where one has just stopped; its sockets may take a moment to be gone.
async fn restart(cluster: &std::sync::Arc<Cluster>, address: std::net::SocketAddr) -> Proxy {
    let free = async {
        while tokio::net::TcpListener::bind(address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), free).await.unwrap();
    Proxy::start_at(cluster, Front::Nothing, address).await
}
