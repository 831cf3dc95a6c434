//! Connections to the servers, and where things lie in them.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::{
    LIMIT,
    api::{
        AuthenticateRequest, auth_client::AuthClient, kv_client::KvClient, lease_client::LeaseClient,
        watch_client::WatchClient,
    },
};
use crate::{BackendError, Key, KeyRange, Result};

/// How long connecting may take, unless the configuration says.
const CONNECT: Duration = Duration::from_secs(10);
/// When the server of an idle connection is asked whether it is still there, and how long it may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// What etcd says when a login is missing or has become invalid, whatever the code.
const WANT_LOGIN: [&str; 3] = ["invalid auth token", "revision of auth store is old", "user name is empty"];
/// Largest answer that is read: a page of the longest values.
const MAX_MESSAGE: usize = 1 << 30;

/// Where the servers are, how to get in, and below which prefix the state lies.
#[derive(Clone, Default)]
pub struct EtcdOptions {
    /// Addresses: `https://host:port`.
    pub peers: Vec<String>,
    /// What all keys begin with.
    pub prefix: String,
    /// File with the authorities of the servers, PEM; `None`: those of this machine.
    pub tls_ca_file: Option<PathBuf>,
    /// File with the certificate that is shown, PEM.
    pub tls_cert_file: Option<PathBuf>,
    /// File with its key.
    pub tls_key_file: Option<PathBuf>,
    /// The name to log in with.
    pub username: Option<String>,
    /// File with its password.
    pub password_file: Option<PathBuf>,
    /// How long connecting may take; `None`: 10 s.
    pub dial_timeout: Option<Duration>,
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions").field("peers", &self.peers).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Adds the token of the login to every call, and that the server has to have a leader.
#[derive(Clone, Default)]
pub(super) struct Token(Arc<RwLock<Option<MetadataValue<Ascii>>>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(REQUIRE_LEADER, MetadataValue::from_static("true"));
        if let Some(token) = self.0.read().unwrap_or_else(PoisonError::into_inner).clone() {
            request.metadata_mut().insert("token", token);
        }
        Ok(request)
    }
}

/// Keeps a server that has lost its leader from letting calls wait, and watches hang (`clientv3.WithRequireLeader`).
const REQUIRE_LEADER: &str = "hasleader";

/// What a server says to a call.
type Answer<T> = Result<Response<T>, Status>;

type Guarded = InterceptedService<Channel, Token>;

/// The servers. Clones share the connection.
#[derive(Clone)]
pub(super) struct Client {
    options: Arc<EtcdOptions>,
    servers: Servers,
    current: Arc<RwLock<Current>>,
    token: Token,
}

/// The connection in use, and how many there were before it.
struct Current {
    channel: Channel,
    number: u64,
}

impl Client {
    pub(super) fn kv(&self) -> KvClient<Guarded> {
        let client = KvClient::with_interceptor(self.channel(), self.token.clone());
        client.max_decoding_message_size(MAX_MESSAGE)
    }

    pub(super) fn watch(&self) -> WatchClient<Guarded> {
        let client = WatchClient::with_interceptor(self.channel(), self.token.clone());
        client.max_decoding_message_size(MAX_MESSAGE)
    }

    pub(super) fn lease(&self) -> LeaseClient<Guarded> {
        LeaseClient::with_interceptor(self.channel(), self.token.clone())
    }

    /// Makes a call; once more when it was refused for want of a valid login, for then it has changed nothing.
    pub(super) async fn call<T, F>(&self, call: impl Fn(Self) -> F) -> Result<T>
    where
        F: Future<Output = Answer<T>>,
    {
        self.renewing(&call).await.map(Response::into_inner).map_err(|status| storage_error(&status))
    }

    /// Makes a call that changes nothing, at one server after the other until one can answer it.
    pub(super) async fn ask<T, F>(&self, call: impl Fn(Self) -> F) -> Result<T>
    where
        F: Future<Output = Answer<T>>,
    {
        let mut answer = self.renewing(&call).await;
        for _ in 1..self.servers.peers.len() {
            if !answer.as_ref().is_err_and(is_of_no_use) {
                break;
            }
            answer = self.renewing(&call).await;
        }
        answer.map(Response::into_inner).map_err(|status| storage_error(&status))
    }

    async fn renewing<T, F: Future<Output = Answer<T>>>(&self, call: &impl Fn(Self) -> F) -> Answer<T> {
        match self.once(call).await {
            Err(status) if self.renewed(&status).await => self.once(call).await,
            answered => answered,
        }
    }

    async fn once<T, F: Future<Output = Answer<T>>>(&self, call: &impl Fn(Self) -> F) -> Answer<T> {
        let number = self.number();
        let answer = call(self.clone()).await;
        if answer.as_ref().is_err_and(is_of_no_use) {
            self.leave(number);
        }
        answer
    }

    /// Waits for something on the connection; without an answer in time another server is next.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.number();
        timeout(LIMIT, work).await.unwrap_or_else(|_| {
            self.leave(number);
            Err(late())
        })
    }

    /// Logs in again when a call was refused for want of a valid token; whether the call may be made again.
    async fn renewed(&self, status: &Status) -> bool {
        let refused = status.code() == Code::Unauthenticated
            || WANT_LOGIN.iter().any(|refusal| status.message().contains(refusal));
        refused && self.options.username.is_some() && self.log_in().await.is_ok()
    }

    fn channel(&self) -> Channel {
        self.current.read().unwrap_or_else(PoisonError::into_inner).channel.clone()
    }

    fn number(&self) -> u64 {
        self.current.read().unwrap_or_else(PoisonError::into_inner).number
    }

    /// Goes to another server, unless somebody has left this one already: a server that is cut off from the others
    /// keeps its connections, and answers nothing else than errors.
    fn leave(&self, number: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.number == number {
            *current = Current { channel: self.servers.channel(), number: number + 1 };
        }
    }

    async fn log_in(&self) -> Result<()> {
        let Some(name) = self.options.username.clone() else { return Ok(()) };
        let password = match &self.options.password_file {
            Some(file) => text(file)?.trim_end().to_owned(),
            None => String::new(),
        };
        let wish = AuthenticateRequest { name, password };
        let authenticate = |client: Self| {
            let wish = wish.clone();
            async move { AuthClient::new(client.channel()).authenticate(wish).await }
        };
        let mut answer = self.once(&authenticate).await;
        for _ in 1..self.servers.peers.len() {
            if !answer.as_ref().is_err_and(is_of_no_use) {
                break;
            }
            answer = self.once(&authenticate).await;
        }
        let token = answer.map_err(|status| storage_error(&status))?.into_inner().token;
        let token = token.parse().map_err(|_| BackendError::Storage("etcd: the token is not text".to_owned()))?;
        *self.token.0.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }
}

/// What bytes go over: with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The servers' addresses; every connection begins with the one after the last that was tried.
#[derive(Clone)]
struct Servers {
    peers: Arc<[Uri]>,
    tls: Option<TlsConnector>,
    limit: Duration,
    turn: Arc<AtomicUsize>,
}

impl Servers {
    /// A connection to one of them, made when it is first used, and anew to any of them when it breaks.
    fn channel(&self) -> Channel {
        let servers = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let servers = servers.clone();
            async move { servers.connect().await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://etcd")
            .http2_keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .keep_alive_while_idle(true);
        endpoint.connect_with_connector_lazy(connector)
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let Self { peers, tls, limit, turn } = self;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "no address of etcd is known");
        for _ in 0..peers.len() {
            let turn = turn.fetch_add(1, Ordering::Relaxed);
            let Some(peer) = peers.get(turn % peers.len().max(1)) else { break };
            let late = || io::Error::new(io::ErrorKind::TimedOut, format!("waited {limit:?}"));
            match timeout(*limit, dial(peer, tls.as_ref())).await.unwrap_or_else(|_| Err(late())) {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = io::Error::new(error.kind(), format!("{peer}: {error}")),
            }
        }
        Err(failure)
    }
}

impl EtcdOptions {
    /// A connection to one of the servers.
    pub(super) async fn connect(&self) -> Result<Client> {
        let peers = self.peers.iter().map(|peer| peer.parse::<Uri>()).collect::<Result<Vec<Uri>, _>>();
        let peers = peers.map_err(|error| BackendError::BadParameter(format!("address of etcd: {error}")))?;
        let tls = match peers.iter().any(|peer| peer.scheme_str() == Some("https")) {
            true => Some(TlsConnector::from(Arc::new(self.tls()?))),
            false => None,
        };
        let limit = self.dial_timeout.unwrap_or(CONNECT);
        let servers = Servers { peers: peers.into(), tls, limit, turn: Arc::default() };
        let current = Arc::new(RwLock::new(Current { channel: servers.channel(), number: 0 }));
        let client = Client { options: Arc::new(self.clone()), servers, current, token: Token::default() };
        client.within(client.log_in()).await?;
        Ok(client)
    }

    fn tls(&self) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        match &self.tls_ca_file {
            Some(file) => {
                let found = CertificateDer::pem_file_iter(file).map_err(|error| wrong(file, error))?;
                for certificate in found {
                    roots.add(certificate.map_err(|e| wrong(file, e))?).map_err(|e| wrong(file, e))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| BackendError::Storage(error.to_string()))?.with_root_certificates(roots);
        let mut config = match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(certificate), Some(key)) => {
                let chain = CertificateDer::pem_file_iter(certificate).map_err(|e| wrong(certificate, e))?;
                let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|e| wrong(certificate, e))?;
                let private = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, e))?;
                builder.with_client_auth_cert(chain, private).map_err(|e| wrong(certificate, e))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// The key that belongs to whoever writes.
    pub(super) fn lock(&self) -> Vec<u8> {
        self.below("lock")
    }

    /// The key that is written last.
    pub(super) fn fence(&self) -> Vec<u8> {
        self.below("fence")
    }

    /// The first key after those of all items.
    pub(super) fn items_end(&self) -> Vec<u8> {
        self.below("kw")
    }

    /// Where an item lies.
    pub(super) fn place(&self, key: &Key) -> Vec<u8> {
        self.below(&format!("kv{key}"))
    }

    /// The key of the item that lies there.
    pub(super) fn key(&self, place: &[u8]) -> Option<Key> {
        let place = std::str::from_utf8(place).ok()?;
        Some(Key::stored(place.strip_prefix(self.prefix.as_str())?.strip_prefix("kv")?.to_owned()))
    }

    /// Where the items of a range lie: from here (included) to there (excluded).
    pub(super) fn range(&self, range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
        let end = match &range.end {
            Some(end) => self.below(&format!("kv{end}")),
            None => self.items_end(),
        };
        (self.below(&format!("kv{}", range.start)), end)
    }

    fn below(&self, rest: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), rest.as_bytes()].concat()
    }
}

async fn dial(peer: &Uri, tls: Option<&TlsConnector>) -> io::Result<Box<dyn Stream>> {
    let host = peer.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, peer.port_u16().unwrap_or(2379))).await?;
    stream.set_nodelay(true)?;
    match tls.filter(|_| peer.scheme_str() == Some("https")) {
        None => Ok(Box::new(stream)),
        Some(tls) => {
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            Ok(Box::new(tls.connect(name, stream).await?))
        }
    }
}

fn wrong(file: &Path, error: impl fmt::Display) -> BackendError {
    BackendError::BadParameter(format!("{}: {error}", file.display()))
}

fn text(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|error| wrong(file, error))
}

/// A server that does not answer.
pub(super) fn late() -> BackendError {
    BackendError::ConnectionProblem(format!("no answer of etcd in {} s", LIMIT.as_secs()))
}

/// Whether another server may answer what this one did not.
fn is_of_no_use(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown)
}

/// What went wrong, without keys.
pub(super) fn storage_error(status: &Status) -> BackendError {
    let mut text = format!("etcd: {}", status.message());
    if let Some(reason) = std::error::Error::source(status) {
        let mut innermost = reason;
        while let Some(next) = innermost.source() {
            innermost = next;
        }
        text = format!("{text}: {innermost}");
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::ResourceExhausted | Code::Unknown => {
            BackendError::ConnectionProblem(text)
        }
        _ => BackendError::Storage(text),
    }
}
