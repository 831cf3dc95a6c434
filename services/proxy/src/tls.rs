//! The TLS configurations of the proxy's ports.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use cache::{Cache, Change};
use chrono::Utc;
use mux::alpn;
use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::tls::{ClientAuth, ClientAuthorities, ServerConfigs, TrustedAuthorities, server_config};
use pki::x509::Certificate;
use rustls::ServerConfig;
use tokio::sync::broadcast::error::RecvError;
use wire::error::Error;
use wire::types::CertAuthorityV2;

use crate::settings::{Settings, WebCertificate};

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

/// The configuration of the public port, for browsers and agents.
pub(crate) fn web(settings: &Settings) -> Result<Arc<ServerConfig>, Error> {
    let own;
    let certificates = if settings.certificates.is_empty() {
        own = [self_signed(settings)?];
        &own[..]
    } else {
        &settings.certificates
    };
    let first = certificates.first().ok_or_else(|| Error::bad_parameter("no certificate for the public port"))?;
    let protocols = alpn::server_preference(false);
    let config = server_config(&first.chain, &first.key, &protocols, ClientAuth::None);
    config.map(Arc::new).map_err(|e| Error::bad_parameter(format!("certificate of the public port: {e}")))
}

/// The configuration of internal protocols: the proxy's host certificate, and a client certificate required.
pub(crate) fn internal(chain: &[Certificate], key: &PrivateKey, clients: Arc<KnownAuthorities>) -> ServerConfigs {
    ServerConfigs::new(chain.to_vec(), key.clone(), &[alpn::H2, alpn::PROXY_SSH_GRPC], true, clients)
}

/// The configuration of connections inside an upgrade: the proxy's host certificate on the web's protocols.
pub(crate) fn upgraded(chain: &[Certificate], key: &PrivateKey) -> Result<Arc<ServerConfig>, Error> {
    let config = server_config(chain, key, &alpn::server_preference(false), ClientAuth::None);
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
    write(&path("webproxy_pub.pem"), key.public().to_pem().as_bytes(), 0o644)?;
    write(&certificate_path, certificate.to_pem().as_bytes(), 0o644)?;
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
