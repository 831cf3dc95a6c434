//! TLS of the Auth Service's own port.
//!
//! A client certificate is optional, because joining and logging in begin without one; a certificate that is given
//! must verify. Which authorities may have signed it follows from the server name: clients put the cluster they belong
//! to into it (see [`pki::cluster_name`]), everybody else is checked against the authorities of all known clusters.

use std::collections::HashMap;
use std::sync::Arc;

use pki::keys::PrivateKey;
use pki::tls::{ClientAuthorities, ServerCertificate, ServerConfigs, TrustedAuthorities};
use pki::x509::Certificate;
use resources::SystemRole;
use rustls::ServerConfig;
use tokio::sync::Mutex;
use wire::error::{Error, Result};
use wire::types::CertAuthorityV2;

use crate::authority::trusted_tls;
use crate::{Auth, LocalIdentityRequest};

/// Application protocols offered: gRPC, and the HTTP API.
const ALPN: [&str; 2] = ["h2", "http/1.1"];

/// Authorities whose holders may connect.
const CLIENT_AUTHORITIES: [&str; 2] = ["user", "host"];

/// Configurations by server name, always those of the current authorities.
pub struct Tls {
    auth: Auth,
    /// Further host names and addresses that the port's certificate is valid for.
    names: Vec<String>,
    current: Mutex<Option<(u64, Arc<ServerConfigs>)>>,
}

/// The authorities of the known clusters, as of one moment.
struct Known {
    of_cluster: HashMap<String, Arc<TrustedAuthorities>>,
    of_all: Arc<TrustedAuthorities>,
}

impl ClientAuthorities for Known {
    /// A name that stands for no known cluster counts as none.
    fn authorities_for(&self, cluster: Option<&str>) -> Option<Arc<TrustedAuthorities>> {
        let known = cluster.and_then(|cluster| self.of_cluster.get(cluster));
        Some(Arc::clone(known.unwrap_or(&self.of_all)))
    }
}

impl Tls {
    /// Configurations of a service that is reached under `names`, besides the names every Auth Service has.
    pub fn new(auth: Auth, names: Vec<String>) -> Self {
        Self { auth, names, current: Mutex::default() }
    }

    /// The configuration for a connection to this server name.
    ///
    /// # Errors
    /// When there is no usable authority.
    pub async fn config(&self, server_name: Option<&str>) -> Result<Arc<ServerConfig>> {
        let configs = self.configs().await?;
        configs.select(server_name).map_err(|error| Error::other(error.to_string()))
    }

    async fn configs(&self) -> Result<Arc<ServerConfigs>> {
        let generation = self.auth.store().authority_generation();
        let mut current = self.current.lock().await;
        if let Some((of, configs)) = &*current
            && *of == generation
        {
            return Ok(Arc::clone(configs));
        }
        let configs = Arc::new(self.build().await?);
        *current = Some((generation, Arc::clone(&configs)));
        Ok(configs)
    }

    async fn build(&self) -> Result<ServerConfigs> {
        let request = LocalIdentityRequest {
            host_uuid: self.auth.host_uuid().to_owned(),
            node_name: self.auth.node_name().to_owned(),
            additional_principals: self.names.clone(),
            serving: true,
            ..Default::default()
        };
        let identity = self.auth.local_identity(SystemRole::Auth, request).await?;
        let chain = Certificate::bundle_from_pem(&identity.tls_certificate).map_err(unusable)?;
        let key = PrivateKey::from_pem(&identity.tls_key).map_err(unusable)?;
        let known = Arc::new(self.known().await?);
        let certificate = ServerCertificate::new(&chain, &key).map_err(unusable)?;
        Ok(ServerConfigs::new(certificate, &ALPN, false, known))
    }

    async fn known(&self) -> Result<Known> {
        let local = self.auth.cluster_name();
        let mut certificates: HashMap<String, Vec<Certificate>> = HashMap::new();
        for authority in CLIENT_AUTHORITIES {
            for ca in self.auth.get_cert_authorities(authority, false).await? {
                let cluster = ca.spec.as_ref().map(|spec| spec.cluster_name.clone()).unwrap_or_default();
                certificates.entry(cluster).or_default().extend(trusted(&ca));
            }
        }
        let trusted = |list: Vec<&Certificate>| TrustedAuthorities::new(list).map(Arc::new).map_err(unusable);
        let mut of_cluster = HashMap::new();
        for (cluster, list) in &certificates {
            of_cluster.insert(cluster.clone(), trusted(list.iter().collect())?);
        }
        let own = of_cluster.get(local).ok_or_else(|| Error::other("the own cluster has no authorities"))?;
        // The names of all authorities must fit into the request for a client certificate.
        let names: usize = certificates.values().flatten().map(|ca| ca.subject_der().len() + 2).sum();
        let of_all = if names < usize::from(u16::MAX) {
            trusted(certificates.values().flatten().collect())?
        } else {
            Arc::clone(own)
        };
        Ok(Known { of_cluster, of_all })
    }
}

/// The certificates of an authority, those of a rotation in progress included.
pub(super) fn trusted(ca: &CertAuthorityV2) -> Vec<Certificate> {
    let pems = trusted_tls(ca);
    pems.iter()
        .filter_map(|pem| Certificate::from_pem(&String::from_utf8_lossy(pem)).inspect_err(warn_unusable).ok())
        .collect()
}

fn warn_unusable(error: &pki::Error) {
    tracing::warn!(%error, "the certificate of an authority cannot be used");
}

fn unusable(error: pki::Error) -> Error {
    Error::other(format!("tls configuration: {error}"))
}
