//! A user's keys and certificates, and the authorities they trust: from the client's folder or an identity file.

use std::path::Path;

use chrono::{DateTime, Utc};
use pki::identity::Identity;
use pki::identity_file::IdentityFile;
use pki::keys::{KeyAlgorithm, PrivateKey, PublicKey};
use pki::known_hosts::{self, Entry};
use pki::ssh_cert::{self, UserCertificate};
use pki::suite::{Purpose, SignatureSuite, algorithm_for};
use pki::x509::Certificate;
use russh::keys::ssh_key::LineEnding;
use zeroize::Zeroizing;

use crate::home::{Home, HomeError, Privacy, read, remove, write};

/// The authorities of one cluster, as a login reports them.
#[derive(Clone, Debug, Default)]
pub struct TrustedCluster {
    /// Its name.
    pub name: String,
    /// Keys that sign SSH host certificates.
    pub ssh_keys: Vec<PublicKey>,
    /// Certificates that sign TLS certificates of its services.
    pub tls_certificates: Vec<Certificate>,
}

/// New keys for a login.
#[derive(Clone, Debug)]
pub struct NewKeys {
    /// For SSH.
    pub ssh: PrivateKey,
    /// For TLS; the same key for clusters that know only one.
    pub tls: PrivateKey,
    /// Whether both are the same key.
    pub single: bool,
}

impl NewKeys {
    /// Makes the keys a cluster's suite asks for. `None`: the cluster knows no suites, one RSA key serves both.
    pub fn generate(suite: Option<SignatureSuite>) -> Result<Self, pki::Error> {
        match suite.filter(|s| *s != SignatureSuite::Legacy) {
            None => {
                let key = PrivateKey::generate(KeyAlgorithm::Rsa2048)?;
                Ok(Self { ssh: key.clone(), tls: key, single: true })
            }
            Some(suite) => Ok(Self {
                ssh: PrivateKey::generate(algorithm_for(suite, Purpose::UserSsh))?,
                tls: PrivateKey::generate(algorithm_for(suite, Purpose::UserTls))?,
                single: false,
            }),
        }
    }

    /// Makes one key for both certificates, as identity files have it.
    pub fn generate_single(suite: Option<SignatureSuite>) -> Result<Self, pki::Error> {
        let algorithm = suite.map_or(KeyAlgorithm::Rsa2048, |suite| algorithm_for(suite, Purpose::UserTls));
        let key = PrivateKey::generate(algorithm)?;
        Ok(Self { ssh: key.clone(), tls: key, single: true })
    }
}

/// Everything a user proves an identity with.
#[derive(Clone, Debug)]
pub struct KeyRing {
    /// Key of the SSH certificate.
    pub ssh_key: PrivateKey,
    /// Key of the TLS certificate.
    pub tls_key: PrivateKey,
    /// The SSH certificate.
    pub ssh_certificate: russh::keys::Certificate,
    /// The TLS certificate.
    pub tls_certificate: Certificate,
    /// Trusted authorities, the root cluster first.
    pub trusted: Vec<TrustedCluster>,
}

/// What can go wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// A key or certificate.
    #[error("{what}: {source}")]
    Material {
        /// Which one.
        what: &'static str,
        /// What is wrong with it.
        source: pki::Error,
    },
    /// A part is missing.
    #[error("{0} is missing: log in again with 'tsh login'")]
    Missing(&'static str),
    /// Writing a key in OpenSSH's form failed.
    #[error("encoding the SSH key: {0}")]
    Encode(String),
}

fn material(what: &'static str) -> impl Fn(pki::Error) -> KeyError {
    move |source| KeyError::Material { what, source }
}

impl KeyRing {
    /// What the TLS certificate says about the user.
    pub fn identity(&self) -> Result<Identity, KeyError> {
        Identity::from_certificate(&self.tls_certificate).map_err(material("TLS certificate"))
    }

    /// What the SSH certificate says about the user.
    pub fn ssh_view(&self) -> Result<UserCertificate, KeyError> {
        UserCertificate::from_certificate(self.ssh_certificate.clone()).map_err(material("SSH certificate"))
    }

    /// Name of the root cluster: who issued the TLS certificate.
    pub fn root_cluster(&self) -> &str {
        self.tls_certificate.issuer_common_name().unwrap_or_default()
    }

    /// When the first of the certificates ends.
    pub fn valid_until(&self) -> DateTime<Utc> {
        let ssh = i64::try_from(self.ssh_certificate.valid_before()).ok().and_then(|s| DateTime::from_timestamp(s, 0));
        let tls = self.tls_certificate.not_after();
        ssh.map_or(tls, |s| s.min(tls))
    }

    /// Authorities that sign TLS certificates of all trusted clusters.
    pub fn tls_authorities(&self) -> Vec<Certificate> {
        self.trusted.iter().flat_map(|t| t.tls_certificates.iter().cloned()).collect()
    }

    /// Keys that sign host certificates of a cluster and of the root cluster.
    pub fn host_authorities(&self, cluster: &str) -> Vec<PublicKey> {
        let root = self.root_cluster();
        let relevant = self.trusted.iter().filter(|t| t.name == cluster || t.name == root);
        relevant.flat_map(|t| t.ssh_keys.iter().cloned()).collect()
    }

    /// Reads a user's keys; `None` when the user is not logged in at this proxy.
    pub fn load(home: &Home, proxy_host: &str, user: &str, cluster: &str) -> Result<Option<Self>, KeyError> {
        let Some(ssh_key_text) = read(&home.ssh_key(proxy_host, user)?)? else { return Ok(None) };
        let ssh_key = PrivateKey::from_pem(&ssh_key_text).map_err(material("SSH key"))?;
        // Earlier releases keep one key for both certificates, and the TLS certificate under another name.
        let tls_key = match read(&home.user_file(proxy_host, user, ".key")?)? {
            Some(text) => PrivateKey::from_pem(&text).map_err(material("TLS key"))?,
            None => ssh_key.clone(),
        };
        let tls_text = match read(&home.user_file(proxy_host, user, ".crt")?)? {
            Some(text) => Some(text),
            None => read(&home.user_file(proxy_host, user, "-x509.pem")?)?,
        };
        let Some(tls_text) = tls_text else { return Ok(None) };
        let tls_certificate = Certificate::from_pem(&tls_text).map_err(material("TLS certificate"))?;
        let root = tls_certificate.issuer_common_name().unwrap_or_default().to_owned();
        let own = read(&home.ssh_certificate(proxy_host, user, cluster)?)?;
        let line = match own {
            Some(line) => line,
            None => {
                read(&home.ssh_certificate(proxy_host, user, &root)?)?.ok_or(KeyError::Missing("SSH certificate"))?
            }
        };
        let ssh_certificate = ssh_cert::from_line(&line).map_err(material("SSH certificate"))?;
        let trusted = load_trusted(home, proxy_host, &root)?;
        Ok(Some(Self { ssh_key, tls_key, ssh_certificate, tls_certificate, trusted }))
    }

    /// Writes the keys, certificates and trusted authorities of a login.
    pub fn save(&self, home: &Home, proxy_host: &str, user: &str) -> Result<(), KeyError> {
        let (ssh_text, line) = self.to_openssh()?;
        write(&home.ssh_key(proxy_host, user)?, ssh_text.as_bytes(), Privacy::Secret)?;
        let public = self.ssh_key.public().to_ssh_line();
        write(&home.user_file(proxy_host, user, ".pub")?, public.as_bytes(), Privacy::Secret)?;
        let tls_text = self.tls_key.to_pem().map_err(material("TLS key"))?;
        write(&home.user_file(proxy_host, user, ".key")?, tls_text.as_bytes(), Privacy::Secret)?;
        let certificate = self.tls_certificate.to_pem();
        write(&home.user_file(proxy_host, user, ".crt")?, certificate.as_bytes(), Privacy::Secret)?;
        let ssh_path = home.ssh_certificate(proxy_host, user, self.root_cluster())?;
        write(&ssh_path, line.as_bytes(), Privacy::Secret)?;
        save_trusted(home, proxy_host, &self.trusted)
    }

    /// Reads an identity file.
    pub fn from_identity_file(path: &Path) -> Result<Self, KeyError> {
        let file = IdentityFile::read(path).map_err(material("identity file"))?;
        let tls_certificate = file.tls_certificate.ok_or(KeyError::Missing("TLS certificate"))?;
        let ssh_certificate = file.ssh_certificate.ok_or(KeyError::Missing("SSH certificate"))?;
        let entries = file.ssh_authorities.iter().filter_map(|line| Entry::parse(line).ok()).collect::<Vec<_>>();
        let trusted = group_authorities(&entries, file.tls_authorities);
        let key = file.private_key;
        Ok(Self { ssh_key: key.clone(), tls_key: key, ssh_certificate, tls_certificate, trusted })
    }

    /// The SSH key and certificate as OpenSSH keeps them.
    pub fn to_openssh(&self) -> Result<(Zeroizing<String>, String), KeyError> {
        let key = self.ssh_key.to_ssh().map_err(material("SSH key"))?;
        let key = key.to_openssh(LineEnding::LF).map_err(|e| KeyError::Encode(e.to_string()))?;
        let certificate = ssh_cert::to_line(&self.ssh_certificate).map_err(material("SSH certificate"))?;
        Ok((key, certificate))
    }

    /// Writes an identity file. Both certificates must be for one key, as those of [`NewKeys::single`] are.
    pub fn to_identity_file(&self) -> IdentityFile {
        let lines = self.trusted.iter().flat_map(|t| {
            t.ssh_keys.iter().map(|key| known_hosts::host_authority_line(None, &t.name, key).trim_end().to_owned())
        });
        IdentityFile {
            private_key: self.tls_key.clone(),
            ssh_certificate: Some(self.ssh_certificate.clone()),
            tls_certificate: Some(self.tls_certificate.clone()),
            ssh_authorities: lines.collect(),
            tls_authorities: self.tls_authorities(),
        }
    }
}

/// Writes which authorities are trusted, for this client and for OpenSSH.
pub fn save_trusted(home: &Home, proxy_host: &str, trusted: &[TrustedCluster]) -> Result<(), KeyError> {
    let mut all = String::new();
    let mut lines = Vec::new();
    for cluster in trusted {
        let pem: String = cluster.tls_certificates.iter().map(Certificate::to_pem).collect();
        write(&home.authorities(proxy_host, &cluster.name)?, pem.as_bytes(), Privacy::Shared)?;
        all.push_str(&pem);
        let of_cluster = cluster.ssh_keys.iter();
        lines.extend(of_cluster.map(|key| known_hosts::host_authority_line(Some(proxy_host), &cluster.name, key)));
    }
    write(&home.all_authorities(proxy_host)?, all.as_bytes(), Privacy::Shared)?;
    let existing = read(&home.known_hosts())?.unwrap_or_default();
    write(&home.known_hosts(), known_hosts::merge(&existing, &lines).as_bytes(), Privacy::Shared)?;
    Ok(())
}

/// Removes a user's keys at a proxy.
pub fn forget(home: &Home, proxy_host: &str) -> Result<(), KeyError> {
    remove(&home.keys(proxy_host)?)?;
    Ok(())
}

fn load_trusted(home: &Home, proxy_host: &str, root: &str) -> Result<Vec<TrustedCluster>, KeyError> {
    let hosts = read(&home.known_hosts())?.unwrap_or_default();
    let entries: Vec<Entry> = Entry::parse_all(&hosts)
        .into_iter()
        .filter(|e| e.is_authority && e.proxy().is_none_or(|p| p == proxy_host))
        .collect();
    let pem = read(&home.all_authorities(proxy_host)?)?.unwrap_or_default();
    let certificates = Certificate::bundle_from_pem(&pem).map_err(material("trusted authorities"))?;
    let mut trusted = group_authorities(&entries, certificates);
    trusted.sort_by_key(|t| t.name != root);
    Ok(trusted)
}

/// Authorities by cluster: certificates by their issuer's name, SSH keys by the line's cluster.
fn group_authorities(entries: &[Entry], certificates: Vec<Certificate>) -> Vec<TrustedCluster> {
    let mut trusted: Vec<TrustedCluster> = Vec::new();
    fn of<'a>(trusted: &'a mut Vec<TrustedCluster>, name: &str) -> Option<&'a mut TrustedCluster> {
        if !trusted.iter().any(|t| t.name == name) {
            trusted.push(TrustedCluster { name: name.to_owned(), ..Default::default() });
        }
        trusted.iter_mut().find(|t| t.name == name)
    }
    for certificate in certificates {
        let name = certificate.issuer_common_name().unwrap_or_default().to_owned();
        if let Some(cluster) = of(&mut trusted, &name) {
            cluster.tls_certificates.push(certificate);
        }
    }
    for entry in entries {
        if let Some(cluster) = entry.cluster().and_then(|name| of(&mut trusted, name)) {
            cluster.ssh_keys.push(entry.key.clone());
        }
    }
    trusted
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use pki::ssh_cert::{CertificateFormat, Permits, SshIssuer, UserCertificateParams};
    use pki::x509::{CaCertificate, Issuer, LeafTemplate};

    use super::*;

    fn ring() -> KeyRing {
        let now = Utc::now();
        let (ca_key, ssh_ca) = (
            PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap(),
            PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap(),
        );
        let ca = CaCertificate::self_signed("main", &ca_key, now).unwrap();
        let keys = NewKeys::generate(Some(SignatureSuite::BalancedV1)).unwrap();
        let identity = Identity {
            username: "alice".into(),
            groups: vec!["access".into()],
            principals: vec!["root".into()],
            ..Default::default()
        };
        let until = now + Duration::from_secs(3600);
        let template = LeafTemplate::new(identity.to_subject().unwrap(), keys.tls.public().clone(), now, until);
        let tls = Issuer::new(ca.clone(), ca_key).unwrap().issue(&template).unwrap();
        let ssh_certificate = SshIssuer::new(ssh_ca.clone())
            .issue_user(&UserCertificateParams {
                identity: &identity,
                public_key: keys.ssh.public(),
                now,
                not_after: Some(until),
                permits: Permits::default(),
                format: CertificateFormat::Standard,
                extensions: &[],
            })
            .unwrap();
        KeyRing {
            ssh_key: keys.ssh,
            tls_key: keys.tls,
            ssh_certificate,
            tls_certificate: Certificate::from_der(&tls).unwrap(),
            trusted: vec![TrustedCluster {
                name: "main".into(),
                ssh_keys: vec![ssh_ca.public().clone()],
                tls_certificates: vec![ca.certificate().clone()],
            }],
        }
    }

    #[test]
    fn what_a_login_writes_the_next_command_reads() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        let saved = ring();
        saved.save(&home, "proxy", "alice").unwrap();
        let loaded = KeyRing::load(&home, "proxy", "alice", "main").unwrap().unwrap();
        assert_eq!(loaded.identity().unwrap().username, "alice");
        assert_eq!(loaded.root_cluster(), "main");
        assert_eq!(loaded.host_authorities("main"), saved.trusted[0].ssh_keys);
        assert_eq!(loaded.tls_authorities().len(), 1);
        assert_eq!(loaded.ssh_key.public(), saved.ssh_key.public());
        forget(&home, "proxy").unwrap();
        assert!(KeyRing::load(&home, "proxy", "alice", "main").unwrap().is_none());
    }

    #[test]
    fn keys_of_another_proxy_are_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path());
        ring().save(&home, "one", "alice").unwrap();
        ring().save(&home, "two", "alice").unwrap();
        let loaded = KeyRing::load(&home, "one", "alice", "main").unwrap().unwrap();
        assert_eq!(loaded.trusted.iter().map(|t| t.ssh_keys.len()).sum::<usize>(), 1);
    }
}
