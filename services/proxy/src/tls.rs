//! The TLS configurations of the proxy's ports.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cache::{Cache, Change};
use chrono::Utc;
use config::KeyPair;
use mux::router::ConfigSource;
use mux::{ClientHello, alpn};
use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::tls::{
    ClientAuth, ClientAuthorities, ServerCertificate, ServerConfigs, TrustedAuthorities, server_config,
    server_config_with,
};
use pki::x509::Certificate;
use rustls::ServerConfig;
use tokio::sync::broadcast::error::RecvError;
use wire::error::Error;
use wire::types::CertAuthorityV2;

use crate::settings::Settings;

/// How long a certificate the proxy signs itself is good for.
const SELF_SIGNED: Duration = Duration::from_secs(365 * 24 * 3600);

/// The authorities whose users and hosts may present client certificates: those of all clusters the cache knows.
pub(crate) struct KnownAuthorities {
    current: ArcSwap<TrustedAuthorities>,
    cluster: String,
}

impl KnownAuthorities {
    /// Reads them from the cache.
    pub(crate) fn new(cache: &Cache) -> Result<Arc<Self>, Error> {
        let current = ArcSwap::from_pointee(trusted(cache)?);
        Ok(Arc::new(Self { current, cluster: cache.cluster_name() }))
    }

    /// Follows the cache for ever.
    pub(crate) async fn follow(self: Arc<Self>, cache: Cache) {
        let mut changes = cache.subscribe();
        loop {
            match changes.recv().await {
                Ok(Change::Authority(..) | Change::Everything) | Err(RecvError::Lagged(_)) => match trusted(&cache) {
                    Ok(authorities) => self.current.store(Arc::new(authorities)),
                    Err(error) => {
                        tracing::warn!(%error, "authorities changed to something unusable: keeping the old ones")
                    }
                },
                Ok(_) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }
}

impl ClientAuthorities for KnownAuthorities {
    fn authorities_for(&self, cluster: Option<&str>) -> Option<Arc<TrustedAuthorities>> {
        match cluster {
            Some(name) if name != self.cluster => None,
            _ => Some(self.current.load_full()),
        }
    }
}

/// Host and user authorities of this cluster.
fn trusted(cache: &Cache) -> Result<TrustedAuthorities, Error> {
    let cluster = cache.cluster_name();
    let mut certificates = Vec::new();
    for ca_type in ["host", "user"] {
        if let Some(ca) = cache.authority(ca_type, &cluster) {
            certificates.extend(tls_certificates(&ca)?);
        }
    }
    TrustedAuthorities::new(&certificates).map_err(|e| Error::other(e.to_string()))
}

/// The certificates of an authority, signing and trusted ones.
pub(crate) fn tls_certificates(ca: &CertAuthorityV2) -> Result<Vec<Certificate>, Error> {
    let sets = ca.spec.iter().flat_map(|s| s.active_keys.iter().chain(&s.additional_trusted_keys));
    let pems = sets.flat_map(|set| &set.tls).map(|pair| String::from_utf8_lossy(&pair.cert).into_owned());
    pems.map(|pem| Certificate::from_pem(&pem).map_err(|e| Error::other(e.to_string()))).collect()
}

/// The certificates of the public port, for browsers and agents: one per pair of files, chosen by the name that a
/// client asks for, and read again when that is configured.
pub(crate) struct WebCertificates {
    files: Vec<KeyPair>,
    current: ArcSwap<Vec<Offered>>,
}

/// A certificate and the configuration that shows it.
struct Offered {
    pair: WebCertificate,
    config: Arc<ServerConfig>,
}

/// A certificate for the public port, with its key.
#[derive(Clone, Debug)]
struct WebCertificate {
    /// The certificate and those that vouch for it.
    chain: Vec<Certificate>,
    key: PrivateKey,
}

impl WebCertificates {
    /// Reads the configured files; without any, uses a certificate signed by the proxy itself.
    pub(crate) fn new(settings: &Settings) -> Result<Arc<Self>, Error> {
        let files = settings.https_keypairs.clone();
        let offered = if files.is_empty() { vec![offer(self_signed(settings)?)?] } else { read_all(&files)? };
        Ok(Arc::new(Self { files, current: ArcSwap::from_pointee(offered) }))
    }

    /// Reads the files again for ever. What cannot be used is reported, and the certificates stay as they are.
    pub(crate) async fn follow(self: Arc<Self>, every: Duration) {
        if self.files.is_empty() || every.is_zero() {
            return;
        }
        loop {
            tokio::time::sleep(every).await;
            let this = self.clone();
            // Reading files blocks; a mount that hangs must not hang the proxy.
            let read = tokio::task::spawn_blocking(move || read_all(&this.files)).await;
            match read {
                Ok(Ok(offered)) => self.replace(offered),
                Ok(Err(error)) => tracing::warn!(%error, "certificates of the public port stay as they are"),
                Err(error) => tracing::warn!(%error, "certificates of the public port were not read"),
            }
        }
    }

    /// Replaces the certificates if they differ: session tickets are worth nothing to another configuration.
    fn replace(&self, offered: Vec<Offered>) {
        let current = self.current.load();
        let ders = |list: &[Offered]| -> Vec<Vec<u8>> {
            list.iter().flat_map(|o| o.pair.chain.iter().map(|c| c.der().to_vec())).collect()
        };
        if ders(&current) != ders(&offered) {
            tracing::info!("the public port has new certificates");
            self.current.store(Arc::new(offered));
        }
    }
}

impl ConfigSource for WebCertificates {
    /// The first certificate that lists the name asked for, else the first.
    fn config(&self, hello: &ClientHello) -> Option<Arc<ServerConfig>> {
        let current = self.current.load();
        let good = |offered: &&Offered| {
            let name = hello.server_name.as_deref();
            name.is_some_and(|name| offered.pair.chain.first().is_some_and(|c| covers(c.dns_names(), name)))
        };
        current.iter().find(good).or(current.first()).map(|offered| offered.config.clone())
    }
}

/// Whether one of a certificate's names is this name; a wildcard stands for one label (RFC 6125).
fn covers<'a>(mut names: impl Iterator<Item = &'a str>, asked: &str) -> bool {
    names.any(|name| match name.strip_prefix("*.") {
        Some(parent) => {
            asked.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(parent))
        }
        None => name.eq_ignore_ascii_case(asked),
    })
}

fn read_all(files: &[KeyPair]) -> Result<Vec<Offered>, Error> {
    files
        .iter()
        .map(|pair| {
            let read = |path: &Path| {
                fs::read_to_string(path).map_err(|e| Error::bad_parameter(format!("reading {}: {e}", path.display())))
            };
            let unusable = |path: &Path, e: pki::Error| Error::bad_parameter(format!("{}: {e}", path.display()));
            let chain = Certificate::bundle_from_pem(&read(&pair.cert_file)?);
            let key = PrivateKey::from_pem(&read(&pair.key_file)?);
            offer(WebCertificate {
                chain: chain.map_err(|e| unusable(&pair.cert_file, e))?,
                key: key.map_err(|e| unusable(&pair.key_file, e))?,
            })
        })
        .collect()
}

fn offer(pair: WebCertificate) -> Result<Offered, Error> {
    let protocols = alpn::server_preference(false);
    let config = server_config(&pair.chain, &pair.key, &protocols, ClientAuth::None);
    let config = config.map_err(|e| Error::bad_parameter(format!("certificate of the public port: {e}")))?;
    Ok(Offered { pair, config: Arc::new(config) })
}

/// The configuration of internal protocols: the proxy's host certificate, and a client certificate required.
pub(crate) fn internal(certificate: ServerCertificate, clients: Arc<KnownAuthorities>) -> ServerConfigs {
    ServerConfigs::new(certificate, &[alpn::H2, alpn::PROXY_SSH_GRPC], true, clients)
}

/// The configuration of what is verified with the cluster's authority but needs no client certificate: connections
/// inside an upgrade, SSH inside TLS, Kubernetes.
pub(crate) fn host(certificate: ServerCertificate) -> Result<Arc<ServerConfig>, Error> {
    let config = server_config_with(certificate, &alpn::server_preference(false), ClientAuth::None);
    config.map(Arc::new).map_err(|e| Error::other(e.to_string()))
}

/// The certificate kept in the data folder, made when there is none that is still good.
fn self_signed(settings: &Settings) -> Result<WebCertificate, Error> {
    let path = |name: &str| settings.data_dir.join(name);
    let (key_path, certificate_path) = (path("webproxy_key.pem"), path("webproxy_cert.pem"));
    if let Some(found) = load(&key_path, &certificate_path)
        && found.chain.iter().all(|c| c.is_valid_at(Utc::now() + Duration::from_secs(7 * 24 * 3600)))
    {
        return Ok(found);
    }
    let failed = |e: pki::Error| Error::other(format!("making a certificate for the public port: {e}"));
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).map_err(failed)?;
    let der = pki::x509::self_signed_web(&settings.principals(), &key, Utc::now(), SELF_SIGNED).map_err(failed)?;
    let certificate = Certificate::from_der(&der).map_err(failed)?;
    write(&key_path, key.to_pem().map_err(failed)?.as_bytes(), 0o600)?;
    write(&path("webproxy_pub.pem"), key.public().to_pem().as_bytes(), 0o640)?;
    write(&certificate_path, certificate.to_pem().as_bytes(), 0o640)?;
    tracing::warn!(
        "the public port has no certificate: one signed by the proxy itself is used, which clients do not trust"
    );
    Ok(WebCertificate { chain: vec![certificate], key })
}

fn load(key: &Path, certificate: &Path) -> Option<WebCertificate> {
    let key = PrivateKey::from_pem(&fs::read_to_string(key).ok()?).ok()?;
    let chain = Certificate::bundle_from_pem(&fs::read_to_string(certificate).ok()?).ok()?;
    (!chain.is_empty()).then_some(WebCertificate { chain, key })
}

fn write(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let failed = |e: std::io::Error| Error::other(format!("writing {}: {e}", path.display()));
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(contents).map_err(failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn hello(name: &str) -> ClientHello {
        ClientHello { server_name: Some(name.to_owned()), alpn: Vec::new() }
    }

    fn pair(folder: &Path, file: &str, names: &[&str]) -> KeyPair {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let der = pki::x509::self_signed_web(&names, &key, Utc::now(), SELF_SIGNED).unwrap();
        let files =
            KeyPair { key_file: folder.join(format!("{file}.key")), cert_file: folder.join(format!("{file}.crt")) };
        fs::write(&files.key_file, key.to_pem().unwrap().as_bytes()).unwrap();
        fs::write(&files.cert_file, Certificate::from_der(&der).unwrap().to_pem()).unwrap();
        files
    }

    #[tokio::test(start_paused = true)]
    async fn the_certificate_is_chosen_by_name_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let files = vec![pair(folder.path(), "a", &["a.test"]), pair(folder.path(), "b", &["*.b.test"])];
        let offered = read_all(&files).unwrap();
        let certificates = Arc::new(WebCertificates { files, current: ArcSwap::from_pointee(offered) });
        let config = |name: &str| certificates.config(&hello(name)).unwrap();
        assert!(Arc::ptr_eq(&config("a.test"), &config("unknown.test")));
        assert!(!Arc::ptr_eq(&config("a.test"), &config("x.b.test")));
        assert!(Arc::ptr_eq(&config("a.test"), &config("x.y.b.test")));

        let before = config("a.test");
        pair(folder.path(), "a", &["a.test"]);
        let following = tokio::spawn(certificates.clone().follow(Duration::from_secs(1)));
        while Arc::ptr_eq(&before, &config("a.test")) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        fs::write(folder.path().join("b.crt"), "nonsense").unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(!Arc::ptr_eq(&config("a.test"), &config("x.b.test")), "unusable files change nothing");
        following.abort();
    }
}
