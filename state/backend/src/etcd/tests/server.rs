//! The machine's etcd in temporary folders, and what stands in for a server in trouble.

use std::{convert::Infallible, net::TcpListener};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{Status, body::Body, server::NamedService};

use super::*;

/// A server; it and its folder go when this is closed, however this process ends.
pub(super) struct Server {
    peer: String,
    made: AtomicU32,
    _leash: Child,
}

/// Runs a server until standard input ends, then removes its folder.
const ON_LEASH: &str = r#"
    folder="$1"; client="$2"; peer="$3"; shift 3
    etcd --data-dir "$folder" --listen-client-urls "$client" --advertise-client-urls "$client" --unsafe-no-fsync \
        --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" --initial-cluster "default=$peer" "$@" \
        >/dev/null 2>&1 &
    cat >/dev/null; kill -KILL $!; wait; rm -rf "$folder"
"#;

/// An address nobody listens at.
pub(super) fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Server {
    pub(super) fn start(scheme: &str, more: &[String]) -> Option<Self> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_err() {
            lacks("etcd");
            return None;
        }
        let (folder, peer) = (TempDir::new().unwrap().keep(), format!("{scheme}://{}", free()));
        let mut command = Command::new("sh");
        command.args(["-c", ON_LEASH, "server"]).arg(folder).arg(&peer).arg(format!("http://{}", free())).args(more);
        let leash = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some(Self { peer, made: AtomicU32::new(0), _leash: leash })
    }

    /// A prefix nobody has used.
    pub(super) fn options(&self) -> EtcdOptions {
        let prefix = format!("/test{}/", self.made.fetch_add(1, Ordering::Relaxed));
        EtcdOptions { peers: vec![self.peer.clone()], prefix, ..EtcdOptions::default() }
    }

    /// Lets in nobody but `root`, and `us` below a prefix, both with this password.
    pub(super) async fn protect(&self, prefix: &str, password: &str) {
        let base64 = |text: &str| {
            let output = Command::new("sh").args(["-c", "printf %s \"$1\" | base64", "sh", text]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        // The character after the slash is the zero.
        let (from, to) = (base64(prefix), base64(&format!("{}0", prefix.trim_end_matches('/'))));
        let ours = format!(r#"{{"permType": "READWRITE", "key": "{from}", "range_end": "{to}"}}"#);
        for (call, message) in [
            ("user/add", format!(r#"{{"name": "root", "password": "{password}"}}"#)),
            ("user/add", format!(r#"{{"name": "us", "password": "{password}"}}"#)),
            ("role/add", r#"{"name": "root"}"#.to_owned()),
            ("role/add", r#"{"name": "ours"}"#.to_owned()),
            ("role/grant", format!(r#"{{"name": "ours", "perm": {ours}}}"#)),
            ("user/grant", r#"{"user": "root", "role": "root"}"#.to_owned()),
            ("user/grant", r#"{"user": "us", "role": "ours"}"#.to_owned()),
            ("enable", "{}".to_owned()),
        ] {
            self.post(call, &message, "").await;
        }
    }

    /// Ends the logins of `us`: a new password does, the same one as well.
    pub(super) async fn end_logins(&self, password: &str) {
        let root = self.post("authenticate", &format!(r#"{{"name": "root", "password": "{password}"}}"#), "").await;
        let token = root.split(r#""token":""#).nth(1).unwrap().split('"').next().unwrap().to_owned();
        self.post("user/changepw", &format!(r#"{{"name": "us", "password": "{password}"}}"#), &token).await;
    }

    async fn post(&self, call: &str, message: &str, token: &str) -> String {
        let address = self.peer.split("//").nth(1).unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (length, authorization) = (message.len(), format!("Authorization: {token}\r\n"));
        let authorization = if token.is_empty() { "" } else { &authorization };
        let request = format!(
            "POST /v3/auth/{call} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\
             {authorization}\r\n{message}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{call}: {answer}");
        answer
    }
}

/// A server with a certificate, which wants to see one. The folder gets `ca`, `client`, and of another authority
/// `other`, `stranger`.
pub(super) fn with_tls(folder: &Path) -> Option<Server> {
    let openssl = |line: &str| {
        let made = Command::new("openssl").args(line.split_whitespace()).current_dir(folder).output();
        let Ok(made) = made else { return false };
        assert!(made.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&made.stderr));
        true
    };
    let key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    let leaf = "-addext subjectAltName=IP:127.0.0.1 -addext extendedKeyUsage=serverAuth,clientAuth";
    for authority in ["ca", "other"] {
        if !openssl(&format!("{key} -subj /CN={authority} -keyout {authority}.key -out {authority}.pem")) {
            lacks("openssl");
            return None;
        }
    }
    for (name, authority) in [("server", "ca"), ("client", "ca"), ("stranger", "other")] {
        let signed = format!("-CA {authority}.pem -CAkey {authority}.key -subj /CN={name} {leaf}");
        openssl(&format!("{key} {signed} -addext basicConstraints=CA:FALSE -keyout {name}.key -out {name}.pem"));
    }
    let file = |name: &str| folder.join(name).display().to_string();
    let mut more = vec!["--client-cert-auth".to_owned(), "--enable-grpc-gateway=false".to_owned()];
    for (option, name) in [("trusted-ca-file", "ca.pem"), ("cert-file", "server.pem"), ("key-file", "server.key")] {
        more.push(format!("--{option}={}", file(name)));
    }
    Server::start("https", &more)
}

/// A server that answers as a member does that is cut off from the others, and counts its answers.
#[derive(Clone, Default)]
struct Alone(Arc<AtomicU32>);

/// The same for another of etcd's services.
#[derive(Clone)]
struct AloneLease(Alone);

impl NamedService for Alone {
    const NAME: &'static str = "etcdserverpb.KV";
}

impl NamedService for AloneLease {
    const NAME: &'static str = "etcdserverpb.Lease";
}

impl tower::Service<http::Request<Body>> for AloneLease {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

impl tower::Service<http::Request<Body>> for Alone {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(Status::unavailable("etcdserver: no leader").into_http()))
    }
}

/// The address of a server that has no leader, and how often it was asked.
pub(super) async fn without_leader() -> (String, Arc<AtomicU32>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    let alone = Alone::default();
    let answered = alone.0.clone();
    let server = tonic::transport::Server::builder().add_service(AloneLease(alone.clone())).add_service(alone);
    tokio::spawn(server.serve_with_incoming(incoming));
    (format!("http://{address}"), answered)
}
