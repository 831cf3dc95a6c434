//! Connections to the server.

use std::{fmt, fs, net::IpAddr, sync::Arc, time::Duration};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::time::timeout;
use tokio_postgres::{
    Client, Config, Connection, NoTls,
    config::{Host, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::Url;

use crate::{BackendError, Result};

/// How long reaching an address may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long it may take until a server has let us in: all its addresses, TLS and the login. The library's own limit ends
/// where TLS begins.
const LOGIN: Duration = Duration::from_secs(25);
/// When the server of an idle connection is asked whether it is still there, how often, and for how long.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_EACH: Duration = Duration::from_secs(5);
/// How long the server may take for what is said to it before it is known to be well.
const ANSWER: Duration = Duration::from_secs(10);

/// Where the database is, and how to get in.
#[derive(Clone)]
pub struct PostgresOptions {
    config: Config,
    tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = self.config.get_hosts();
        f.debug_struct("PostgresOptions")
            .field("hosts", &hosts)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// How the server is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verification {
    /// No TLS.
    Off,
    /// Certificate and name.
    Full,
}

impl PostgresOptions {
    /// Reads `postgresql://user:password@host:port/database?sslmode=…`, as PostgreSQL's own programs take it.
    ///
    /// `sslmode` is `disable` or `verify-full`; without it, only this machine is reached without TLS. `sslrootcert`,
    /// `sslcert` and `sslkey` name PEM files.
    ///
    /// # Errors
    /// `BadParameter` for what cannot be read, without repeating it: it may hold a password.
    pub fn parse(uri: &str) -> Result<Self> {
        let bad = |what: &str| BackendError::BadParameter(format!("PostgreSQL address: {what}"));
        let mut url = Url::parse(uri).map_err(|_| bad("expected postgresql://user@host/database"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(bad("expected a scheme of postgresql"));
        }
        url.set_fragment(None);
        let (mut mode, mut files, mut rest) = (None, TlsFiles::default(), Vec::new());
        for (name, value) in url.query_pairs() {
            match &*name {
                "sslmode" => mode = Some(value.into_owned()),
                "sslrootcert" => files.roots = Some(value.into_owned()),
                "sslcert" => files.certificate = Some(value.into_owned()),
                "sslkey" => files.key = Some(value.into_owned()),
                _ => rest.push((name.into_owned(), value.into_owned())),
            }
        }
        url.set_query(None);
        if !rest.is_empty() {
            url.query_pairs_mut().extend_pairs(rest);
        }
        let mut config: Config = url.as_str().parse().map_err(|e: tokio_postgres::Error| match e.into_source() {
            Some(source) => bad(&source.to_string()),
            None => bad("not understood"),
        })?;
        let verification = match mode.as_deref() {
            Some("disable") => Verification::Off,
            Some("verify-full") => Verification::Full,
            None if config.get_hosts().iter().all(is_local) => Verification::Off,
            None => Verification::Full,
            Some(other) => {
                return Err(bad(&format!(
                    "sslmode {other:?} does not tell a false server: expected verify-full or disable"
                )));
            }
        };
        let tls = match verification {
            Verification::Off => None,
            Verification::Full => Some(Arc::new(files.client_config()?)),
        };
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        config.connect_timeout(CONNECT).tcp_user_timeout(KEEPALIVE);
        config.keepalives_idle(KEEPALIVE).keepalives_interval(KEEPALIVE_EACH).keepalives_retries(3);
        if config.get_application_name().is_none() {
            config.application_name("teleport");
        }
        Ok(Self { config, tls })
    }

    /// A connection, driven by the runtime that this is called on.
    ///
    /// # Errors
    /// `ConnectionProblem`, within 25 seconds.
    pub async fn connect(&self) -> Result<Client> {
        match &self.tls {
            Some(tls) => {
                let connecting = self.config.connect(MakeRustlsConnect::new((**tls).clone()));
                let (client, connection) = let_in(connecting).await?;
                drive(connection);
                Ok(client)
            }
            None => {
                let (client, connection) = let_in(self.config.connect(NoTls)).await?;
                drive(connection);
                Ok(client)
            }
        }
    }

    /// A connection that calls `notified` whenever something is said on a channel, until it is lost.
    pub(super) async fn listen(&self, channel: &str, notified: impl Fn() + Send + Sync + 'static) -> Result<()> {
        match &self.tls {
            Some(tls) => {
                let connecting = self.config.connect(MakeRustlsConnect::new((**tls).clone()));
                let (client, connection) = let_in(connecting).await?;
                listening(client, connection, channel, notified).await
            }
            None => {
                let (client, connection) = let_in(self.config.connect(NoTls)).await?;
                listening(client, connection, channel, notified).await
            }
        }
    }
}

/// Waits for a server to let us in, but not for ever.
async fn let_in<T>(connecting: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
    match timeout(LOGIN, connecting).await {
        Ok(connected) => connected.map_err(|error| BackendError::ConnectionProblem(words(&error))),
        Err(_) => {
            Err(BackendError::ConnectionProblem(format!("the database has not let us in within {} s", LOGIN.as_secs())))
        }
    }
}

#[derive(Default)]
struct TlsFiles {
    roots: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl TlsFiles {
    fn client_config(&self) -> Result<ClientConfig> {
        let bad = |path: &str, what: String| BackendError::BadParameter(format!("{path}: {what}"));
        let read = |path: &str| fs::read(path).map_err(|e| bad(path, e.to_string()));
        let certificates = |path: &str| {
            let pem = read(path)?;
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            found.map_err(|e| bad(path, e.to_string()))
        };
        let mut roots = RootCertStore::empty();
        match self.roots.as_deref() {
            None | Some("system") => {
                let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs); // others are left out
            }
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|e| bad(path, e.to_string()))?;
                }
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let failed = |e: rustls::Error| BackendError::BadParameter(format!("TLS to PostgreSQL: {e}"));
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(failed)?;
        let builder = builder.with_root_certificates(roots);
        match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let pem = read(key)?;
                let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| bad(key, e.to_string()))?;
                builder.with_client_auth_cert(certificates(certificate)?, private).map_err(failed)
            }
            (None, None) => Ok(builder.with_no_client_auth()),
            _ => Err(BackendError::BadParameter("PostgreSQL address: sslcert and sslkey belong together".to_owned())),
        }
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

fn drive<S, T>(connection: Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = words(&error), "connection to the database ended");
        }
    });
}

async fn listening<S, T>(
    client: Client,
    mut connection: Connection<S, T>,
    channel: &str,
    notified: impl Fn(),
) -> Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let statement = format!("LISTEN {channel}");
    let subscribe = timeout(ANSWER, client.batch_execute(&statement));
    tokio::pin!(subscribe);
    let mut subscribed = false;
    loop {
        let message = std::future::poll_fn(|context| connection.poll_message(context));
        tokio::select! {
            done = &mut subscribe, if !subscribed => {
                let late = |_| BackendError::ConnectionProblem(format!("no answer of the database in {} s", ANSWER.as_secs()));
                done.map_err(late)?.map_err(|error| storage_error(&error))?;
                subscribed = true;
                // Whatever was said before was not heard.
                notified();
            }
            message = message => match message {
                Some(Ok(tokio_postgres::AsyncMessage::Notification(_))) => notified(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(BackendError::ConnectionProblem(words(&error))),
                None => return Err(BackendError::ConnectionProblem("the server closed the connection".to_owned())),
            },
        }
    }
}

/// An error of the library as one of storage.
pub(super) fn storage_error(error: &tokio_postgres::Error) -> BackendError {
    match error.as_db_error() {
        // 57P0x: the server is shutting down or starting up; 57014: it took too long; 55P03: the lock was not free.
        Some(refusal)
            if ["57P", "570", "55P", "08", "40"].iter().any(|class| refusal.code().code().starts_with(class)) =>
        {
            BackendError::ConnectionProblem(refusal.message().to_owned())
        }
        Some(refusal) => BackendError::Storage(refusal.message().to_owned()),
        None => BackendError::ConnectionProblem(words(error)),
    }
}

/// What an error says, with its causes: the library's own words name only the step.
pub fn words(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_this_machine_is_reached_without_tls_unless_it_is_said() {
        let tls = |uri: &str| PostgresOptions::parse(uri).unwrap().tls.is_some();
        assert!(!tls("postgresql://me@127.0.0.1/db") && !tls("postgres://me@localhost:5433/db"));
        assert!(!tls("postgresql://me@db.example.com/db?sslmode=disable"));
        assert!(tls("postgresql://me@db.example.com/db") && tls("postgresql://me@localhost/db?sslmode=verify-full"));
        assert!(!tls("postgresql:///db?host=/run/postgresql&user=me"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_given_up() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let options = PostgresOptions::parse(&format!("postgresql://me@{address}/db")).unwrap();
        let (started, error) = (tokio::time::Instant::now(), options.connect().await.unwrap_err());
        assert!(error.to_string().contains("within 25 s"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(options.listen("channel", || {}).await.is_err());
    }

    #[test]
    fn what_is_wrong_is_named_without_the_password() {
        for uri in [
            "mysql://me:sesame@host/db",
            "postgresql://me:sesame@host/db?sslmode=require",
            "postgresql://me:sesame@host/db?colour=blue",
            "postgresql://me:sesame@host/db?sslrootcert=/does/not/exist",
            "postgresql://me:sesame@host/db?sslcert=/does/not/exist",
        ] {
            let said = PostgresOptions::parse(uri).unwrap_err().to_string();
            assert!(!said.contains("sesame"), "{said}");
        }
        let shown = format!("{:?}", PostgresOptions::parse("postgresql://me:sesame@localhost/db").unwrap());
        assert!(shown.contains("localhost") && !shown.contains("sesame"), "{shown}");
    }
}
