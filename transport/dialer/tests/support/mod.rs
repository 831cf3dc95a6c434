//! A small proxy with an Auth Service behind it, and load balancers in front.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dialer::webapi::PingResponse;
use dialer::{ClientIdentity, ClusterCredentials, Credentials, HostPort};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mux::alpn;
use mux::router::{Route, Router};
use mux::tls::{Routed, accept, route};
use mux::upgrade::{self, Form, Side, Upgraded};
use pki::identity::Identity;
use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::tls::{ClientAuth, TrustedAuthorities, server_config};
use pki::x509::{AlternativeNames, CaCertificate, Certificate, Issuer, LeafTemplate};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

pub const CLUSTER: &str = "root.example.com";

/// One authority and what it issued.
pub struct Cluster {
    pub authority: Certificate,
    issuer: Issuer,
    web: Arc<ServerConfig>,
    inside: Arc<ServerConfig>,
    mutual: Arc<ServerConfig>,
    auth: Arc<ServerConfig>,
    pub web_certificate: Certificate,
}

/// What stands between the client and the proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Front {
    Nothing,
    /// Ends TLS and knows only the web's protocols.
    Balancer,
    /// Ends TLS and negotiates nothing.
    SilentBalancer,
}

/// A running proxy; stops, with all its connections, when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    task: AbortHandle,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Handler {
    Web,
    Tunnel,
    Transport,
    Auth,
}

impl Cluster {
    pub fn new() -> Arc<Self> {
        let now = SystemTime::now();
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let ca = CaCertificate::self_signed(CLUSTER, &key, now.into()).unwrap();
        let authority = ca.certificate().clone();
        let issuer = Issuer::new(ca, key).unwrap();
        let web_key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let web = pki::x509::self_signed_web(&hosts, &web_key, now.into(), Duration::from_secs(3600)).unwrap();
        let web_certificate = Certificate::from_der(&web).unwrap();
        let trusted = Arc::new(TrustedAuthorities::new([&authority]).unwrap());
        let (host, host_key) = issue(&issuer, "Proxy", &INSIDE);
        let (auth, auth_key) = issue(&issuer, "Auth", &INSIDE);
        let config = |chain: &Certificate, key: &PrivateKey, names: &[&str], auth: ClientAuth| {
            Arc::new(server_config(std::slice::from_ref(chain), key, names, auth).unwrap())
        };
        let names = alpn::server_preference(false);
        Arc::new(Self {
            web: config(&web_certificate, &web_key, &names, ClientAuth::None),
            inside: config(&host, &host_key, &names, ClientAuth::None),
            mutual: config(&host, &host_key, &["h2"], ClientAuth::Required(trusted.clone())),
            auth: config(&auth, &auth_key, &["h2", "http/1.1"], ClientAuth::Required(trusted)),
            authority,
            issuer,
            web_certificate,
        })
    }

    /// A user's certificate and the authority.
    pub fn credentials(&self) -> Credentials {
        let (certificate, key) = issue(&self.issuer, "access", &[]);
        Credentials::new(ClusterCredentials {
            cluster: CLUSTER.to_owned(),
            identity: Some(ClientIdentity { certificate, key }),
            authorities: vec![self.authority.clone()],
        })
    }
}

/// The names of Auth and Proxy inside the cluster.
const INSIDE: [&str; 2] = ["*.teleport.cluster.local", "teleport.cluster.local"];

fn issue(issuer: &Issuer, role: &str, hosts: &[&str]) -> (Certificate, PrivateKey) {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    let identity = Identity {
        username: format!("somebody of {role}"),
        groups: vec![role.to_owned()],
        teleport_cluster: CLUSTER.to_owned(),
        ..Identity::default()
    };
    let now = SystemTime::now();
    let end = now + Duration::from_secs(3600);
    let mut template = LeafTemplate::new(identity.to_subject().unwrap(), key.public().clone(), now.into(), end.into());
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    template.alternative_names = AlternativeNames::from_hosts(&hosts);
    (Certificate::from_der(&issuer.issue(&template).unwrap()).unwrap(), key)
}

impl Proxy {
    pub async fn start(cluster: &Arc<Cluster>, front: Front) -> Self {
        Self::start_at(cluster, front, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(cluster: &Arc<Cluster>, front: Front, address: SocketAddr) -> Self {
        let limit = mux::listener::ConnectionLimit::default();
        let listener = mux::listener::Listener::bind(address, limit).unwrap();
        let address = listener.local_addr();
        let cluster = cluster.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let incoming = listener.accept().await;
                let cluster = cluster.clone();
                connections.spawn(async move { serve(incoming.stream, cluster, front).await });
            }
        });
        Self { address, task: task.abort_handle() }
    }

    pub fn host_port(&self) -> HostPort {
        HostPort::new("localhost", self.address.port())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<S>(stream: S, cluster: Arc<Cluster>, front: Front)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let own = |names: &[&str]| {
        let mut config = ServerConfig::clone(&cluster.web);
        config.alpn_protocols = alpn::list(names.iter().copied());
        Arc::new(config)
    };
    let balancer = match front {
        Front::Nothing => return serve_tls(stream, cluster.clone(), cluster.web.clone()).await,
        Front::Balancer => own(&["h2", "http/1.1"]),
        Front::SilentBalancer => own(&[]),
    };
    if let Ok(accepted) = accept(stream, balancer).await {
        serve_web(accepted.stream, cluster).await;
    }
}

/// What the proxy does on its web port, and again inside upgraded connections.
async fn serve_tls<S>(stream: S, cluster: Arc<Cluster>, web: Arc<ServerConfig>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let router = Router::new()
        .protocols([alpn::HTTP_1_1, alpn::H2], Route::terminate(Handler::Web, Arc::new(web.clone())))
        .protocols([alpn::REVERSE_TUNNEL], Route::terminate(Handler::Tunnel, Arc::new(web)))
        .protocols([alpn::PROXY_SSH_GRPC], Route::terminate(Handler::Transport, Arc::new(cluster.mutual.clone())))
        .protocol_prefix(alpn::AUTH_PREFIX, Route::forward(Handler::Auth));
    match route(stream, &router).await {
        Ok(Routed::Terminated { handler: Handler::Web, accepted, .. }) => serve_web(accepted.stream, cluster).await,
        Ok(Routed::Terminated { handler: Handler::Tunnel, accepted, .. }) => {
            let (mut reading, mut writing) = tokio::io::split(accepted.stream);
            let _ = tokio::io::copy(&mut reading, &mut writing).await;
        }
        Ok(Routed::Terminated { accepted, .. }) => serve_grpc(accepted.stream, "transport").await,
        Ok(Routed::Forwarded { stream, .. }) => {
            let Ok(accepted) = accept(stream, cluster.auth.clone()).await else { return };
            match accepted.alpn.as_deref() {
                Some(b"h2") => serve_grpc(accepted.stream, "auth").await,
                _ => serve_web(accepted.stream, cluster).await,
            }
        }
        Err(_) => {}
    }
}

async fn serve_grpc<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, name: &'static str) {
    let service = service_fn(move |request: Request<Incoming>| async move {
        let header = |name: &str| request.headers().get(name).cloned();
        let mut response = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .header("service", name);
        for (name, value) in [("version", header("version")), ("seen-agent", header("user-agent"))] {
            if let Some(value) = value {
                response = response.header(name, value);
            }
        }
        Ok::<_, Infallible>(response.body(Full::new(Bytes::new())).unwrap())
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn serve_web<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, cluster: Arc<Cluster>) {
    let service = service_fn(move |request| {
        let cluster = cluster.clone();
        async move { Ok::<_, Infallible>(answer(request, cluster).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = connection.with_upgrades().await;
}

async fn answer(request: Request<Incoming>, cluster: Arc<Cluster>) -> Response<Full<Bytes>> {
    let json = |status: u16, body: serde_json::Value| {
        Response::builder().status(status).body(Full::new(Bytes::from(body.to_string()))).unwrap()
    };
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/webapi/ping" | "/webapi/find" => {
            let ping = PingResponse {
                cluster_name: CLUSTER.to_owned(),
                server_version: "17.0.0".to_owned(),
                ..Default::default()
            };
            json(200, serde_json::to_value(ping).unwrap())
        }
        "/echo" => {
            let length = request.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            json(
                200,
                serde_json::json!({"type": length, "body": serde_json::from_slice::<serde_json::Value>(&body).unwrap()}),
            )
        }
        "/empty" => Response::new(Full::new(Bytes::new())),
        "/denied" => json(403, serde_json::json!({"error": {"message": "not for you"}})),
        "/hang" => std::future::pending().await,
        upgrade::PATH => upgrade_connection(request, cluster),
        _ => json(404, serde_json::json!({})),
    }
}

fn upgrade_connection(mut request: Request<Incoming>, cluster: Arc<Cluster>) -> Response<Full<Bytes>> {
    let values = |name: &str| -> Vec<String> {
        request.headers().get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    };
    let offered: Vec<String> = [values(upgrade::HEADER), values("upgrade")].concat();
    let protocols = values("sec-websocket-protocol");
    let Some(form) = Form::choose(offered.iter().map(String::as_str), protocols.iter().map(String::as_str)) else {
        return Response::builder().status(StatusCode::NOT_FOUND).body(Full::default()).unwrap();
    };
    let mut response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header("connection", "Upgrade");
    response = match form {
        Form::WebSocket(content) => response
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", upgrade::accept_key(&values("sec-websocket-key")[0]))
            .header("sec-websocket-protocol", content.name()),
        Form::Legacy(content) => response.header("upgrade", content.name()).header(upgrade::HEADER, content.name()),
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let stream = Upgraded::new(form, Side::Server, TokioIo::new(upgraded.await.unwrap()));
        let inside = cluster.inside.clone();
        serve_tls(stream, cluster, inside).await;
    });
    response.body(Full::default()).unwrap()
}

/// A port where nothing listens.
pub async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}
