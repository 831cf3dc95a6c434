//! `auth export`.

use clap::{Args, ValueEnum};
use pki::authority::CaType;
use pki::keys::{KeyAlgorithm, PrivateKey, PublicKey};
use pki::known_hosts::{host_authority_line, user_authority_line};
use pki::x509::Certificate;
use wire::trust::GetCertAuthoritiesRequest;
use wire::types::{CaKeySet, CertAuthoritySpecV2, SshKeyPair, TlsKeyPair};
use zeroize::Zeroizing;

use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::raw;

/// Write what others need to trust this cluster.
#[derive(Args, Debug)]
pub struct Export {
    /// What to write [default: the SSH keys of hosts and users].
    #[arg(long = "type", value_enum)]
    part: Option<Part>,
    /// Private keys. Whoever has them can issue certificates.
    #[arg(long)]
    keys: bool,
    /// Only the SSH key with this fingerprint, such as SHA256:….
    #[arg(long)]
    fingerprint: Option<String>,
    /// Form of an older release; 1.0: SSH keys of users in the form for known hosts.
    #[arg(long, value_name = "VERSION")]
    compat: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    User,
    Host,
    TlsHost,
    TlsUser,
    TlsUserDer,
    TlsSpiffe,
    Windows,
    Db,
    DbDer,
    DbClient,
    DbClientDer,
    #[value(name = "openssh")]
    OpenSsh,
    SamlIdp,
}

/// How a part is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Ssh,
    Pem,
    Der,
}

impl Part {
    fn authority(self) -> (CaType, Form) {
        match self {
            Self::User => (CaType::User, Form::Ssh),
            Self::Host => (CaType::Host, Form::Ssh),
            Self::OpenSsh => (CaType::OpenSsh, Form::Ssh),
            Self::TlsHost => (CaType::Host, Form::Pem),
            Self::TlsUser => (CaType::User, Form::Pem),
            Self::TlsUserDer | Self::Windows => (CaType::User, Form::Der),
            Self::TlsSpiffe => (CaType::Spiffe, Form::Pem),
            Self::Db => (CaType::Database, Form::Pem),
            Self::DbDer => (CaType::Database, Form::Der),
            Self::DbClient => (CaType::DatabaseClient, Form::Pem),
            Self::DbClientDer => (CaType::DatabaseClient, Form::Der),
            Self::SamlIdp => (CaType::SamlIdp, Form::Der),
        }
    }
}

/// What is wanted of an authority.
struct Wanted<'a> {
    keys: bool,
    fingerprint: Option<&'a str>,
    as_hosts: bool,
}

impl Export {
    /// Writes it to standard output.
    pub async fn run(self, api: &Api) -> Result<()> {
        let parts = self.part.map_or_else(|| vec![Part::Host, Part::User], |part| vec![part]);
        let wanted = self.wanted()?;
        // Nothing is written before everything is there.
        let mut out = Zeroizing::new(Vec::new());
        for part in parts {
            let (ca_type, form) = part.authority();
            let authority = authority(api, ca_type, self.keys).await?;
            out.extend_from_slice(&wanted.of(&authority, ca_type, form)?);
        }
        raw(&out);
        Ok(())
    }

    fn wanted(&self) -> Result<Wanted<'_>> {
        let as_hosts = match self.compat.as_deref() {
            None | Some("") => false,
            Some("1.0") => true,
            Some(other) => return Err(Error::bad(format!("--compat={other}: only 1.0 is known"))),
        };
        Ok(Wanted { keys: self.keys, fingerprint: self.fingerprint.as_deref(), as_hosts })
    }
}

/// The cluster's own authority of a type. Those of other clusters are theirs to give away.
async fn authority(api: &Api, ca_type: CaType, include_key: bool) -> Result<CertAuthoritySpecV2> {
    let request = GetCertAuthoritiesRequest { r#type: ca_type.as_str().to_owned(), include_key };
    let found = api.trust().get_cert_authorities(request).within("reading an authority").await?;
    let specs = found.cert_authorities_v2.into_iter().filter_map(|authority| authority.spec);
    specs
        .into_iter()
        .find(|spec| spec.cluster_name == api.cluster())
        .ok_or_else(|| Error::not_found(format!("the cluster has no {ca_type} authority: not found")))
}

impl Wanted<'_> {
    fn of(&self, authority: &CertAuthoritySpecV2, ca_type: CaType, form: Form) -> Result<Zeroizing<Vec<u8>>> {
        let active = authority.active_keys.clone().unwrap_or_default();
        match form {
            Form::Ssh if self.keys => self.ssh_keys(&active),
            Form::Ssh => {
                let next = authority.additional_trusted_keys.clone().unwrap_or_default();
                self.ssh_lines(active.ssh.iter().chain(&next.ssh), &authority.cluster_name, ca_type)
            }
            form => self.tls_pairs(&active.tls, form),
        }
    }

    /// Several security modules have a pair each.
    fn tls_pairs(&self, pairs: &[TlsKeyPair], form: Form) -> Result<Zeroizing<Vec<u8>>> {
        match (pairs, form) {
            ([], _) => return Err(Error::bad("expected one TLS key pair, got 0")),
            ([_, _, ..], Form::Der) => {
                return Err(Error::bad(format!(
                    "expected one TLS key pair, got {}: DER holds one only, PEM all of them, as of --type=tls-user, db or db-client",
                    pairs.len()
                )));
            }
            _ => {}
        }
        let mut out = Zeroizing::new(Vec::new());
        for pair in pairs {
            out.extend_from_slice(&self.tls(pair, form)?);
        }
        Ok(out)
    }

    fn matches(&self, key: &PublicKey) -> bool {
        self.fingerprint.is_none_or(|wanted| wanted == key.ssh_fingerprint())
    }

    fn ssh_lines<'a>(
        &self,
        pairs: impl Iterator<Item = &'a SshKeyPair>,
        cluster: &str,
        ca_type: CaType,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let mut text = String::new();
        for pair in pairs {
            let key = public_key(pair)?;
            if self.matches(&key) {
                let line = match ca_type {
                    CaType::Host => host_authority_line(None, cluster, &key),
                    _ if self.as_hosts => host_authority_line(None, cluster, &key).replace("type=host", "type=user"),
                    _ => user_authority_line(cluster, &key),
                };
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        Ok(Zeroizing::new(text.into_bytes()))
    }

    fn ssh_keys(&self, keys: &CaKeySet) -> Result<Zeroizing<Vec<u8>>> {
        let mut text = Zeroizing::new(Vec::new());
        for pair in &keys.ssh {
            if self.matches(&public_key(pair)?) {
                text.extend_from_slice(&for_openssh(exportable(&pair.private_key, pair.private_key_type)?)?);
            }
        }
        Ok(text)
    }

    fn tls(&self, pair: &TlsKeyPair, form: Form) -> Result<Zeroizing<Vec<u8>>> {
        if self.keys {
            let pem = exportable(&pair.key, pair.key_type)?;
            return Ok(Zeroizing::new(match form {
                Form::Der => PrivateKey::from_pem(&String::from_utf8_lossy(pem))?.to_pkcs8_der().to_vec(),
                _ => [pem, b"\n"].concat(),
            }));
        }
        let certificate = Certificate::from_pem(&String::from_utf8_lossy(&pair.cert))?;
        Ok(Zeroizing::new(match form {
            Form::Der => certificate.der().to_vec(),
            _ => certificate.to_pem().into_bytes(),
        }))
    }
}

fn public_key(pair: &SshKeyPair) -> Result<PublicKey> {
    Ok(PublicKey::from_ssh_line(String::from_utf8_lossy(&pair.public_key).trim())?)
}

/// A private key as OpenSSH reads it: it knows Ed25519 in its own form only.
fn for_openssh(pem: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let key = PrivateKey::from_pem(&String::from_utf8_lossy(pem)).ok();
    match key.filter(|key| key.algorithm() == KeyAlgorithm::Ed25519) {
        Some(key) => {
            let text = key.to_ssh()?.to_openssh(ssh_key::LineEnding::LF);
            let text = text.map_err(|e| Error::other(format!("the SSH key cannot be written: {e}")))?;
            Ok(Zeroizing::new(text.as_bytes().to_vec()))
        }
        None => Ok(Zeroizing::new([pem, b"\n"].concat())),
    }
}

/// A private key that is here: not hidden from the caller, not in a security module.
fn exportable(key: &[u8], key_type: i32) -> Result<&[u8]> {
    match (key.trim_ascii_end(), key_type) {
        ([], _) => Err(Error::Plain(wire::error::Error::access_denied("the private key was not given out"))),
        (key, 0) => Ok(key),
        _ => Err(Error::bad("the private key is in a security module and cannot be exported")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use pki::x509::CaCertificate;

    use super::*;

    const PLAIN: Wanted<'static> = Wanted { keys: false, fingerprint: None, as_hosts: false };

    fn authority() -> (PublicKey, CertAuthoritySpecV2) {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let now = crate::output::time::rfc3339("2024-01-02T15:00:00Z").unwrap();
        let certificate = CaCertificate::self_signed("main.test", &key, now).unwrap();
        let pem = key.to_pem().unwrap().as_bytes().to_vec();
        let ssh = SshKeyPair {
            public_key: key.public().to_ssh_line().into_bytes(),
            private_key: pem.clone(),
            ..Default::default()
        };
        let tls = TlsKeyPair { cert: certificate.to_pem().into_bytes(), key: pem, ..Default::default() };
        let keys = CaKeySet { ssh: vec![ssh], tls: vec![tls], ..Default::default() };
        let spec =
            CertAuthoritySpecV2 { cluster_name: "main.test".into(), active_keys: Some(keys), ..Default::default() };
        (key.public().clone(), spec)
    }

    fn text(wanted: &Wanted<'_>, ca_type: CaType, form: Form, spec: &CertAuthoritySpecV2) -> String {
        String::from_utf8(wanted.of(spec, ca_type, form).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn ssh_keys_are_lines_for_openssh() {
        let (key, spec) = authority();
        let host = text(&PLAIN, CaType::Host, Form::Ssh, &spec);
        assert!(host.starts_with("@cert-authority main.test,*.main.test ecdsa-sha2-nistp256 "), "{host}");
        assert!(host.ends_with("type=host\n"), "{host}");
        let user = text(&PLAIN, CaType::User, Form::Ssh, &spec);
        assert!(user.starts_with("cert-authority ecdsa-sha2-nistp256 ") && user.ends_with("type=user\n"), "{user}");
        let fingerprint = key.ssh_fingerprint();
        let chosen = Wanted { fingerprint: Some(&fingerprint), ..PLAIN };
        assert_eq!(text(&chosen, CaType::Host, Form::Ssh, &spec), host);
        let none = Wanted { fingerprint: Some("SHA256:none"), ..PLAIN };
        assert_eq!(text(&none, CaType::Host, Form::Ssh, &spec), "");
    }

    #[test]
    fn certificates_of_several_key_pairs_are_written_one_after_the_other() {
        let (_, mut spec) = authority();
        let (_, other) = authority();
        let [one, two] = [&spec, &other].map(|spec| text(&PLAIN, CaType::User, Form::Pem, spec));
        assert!(one.starts_with("-----BEGIN CERTIFICATE") && one.ends_with("-----\n") && one != two);
        assert_eq!(PLAIN.of(&spec, CaType::User, Form::Der).unwrap().first(), Some(&0x30));
        spec.active_keys.as_mut().unwrap().tls.extend(other.active_keys.unwrap().tls);
        assert_eq!(text(&PLAIN, CaType::User, Form::Pem, &spec), one + &two);
        let keys = text(&Wanted { keys: true, ..PLAIN }, CaType::User, Form::Pem, &spec);
        assert_eq!(keys.matches("-----BEGIN PRIVATE KEY").count(), 2);
        let error = PLAIN.of(&spec, CaType::User, Form::Der).unwrap_err().to_string();
        assert!(error.starts_with("expected one TLS key pair, got 2: DER holds one only"), "{error}");
        spec.active_keys.as_mut().unwrap().tls.clear();
        let error = PLAIN.of(&spec, CaType::User, Form::Pem).unwrap_err().to_string();
        assert_eq!(error, "expected one TLS key pair, got 0");
    }

    #[test]
    fn private_keys_are_written_only_when_they_were_given_out() {
        let (_, mut spec) = authority();
        let wanted = Wanted { keys: true, ..PLAIN };
        assert!(text(&wanted, CaType::Host, Form::Ssh, &spec).contains("PRIVATE KEY"));
        let pair = &mut spec.active_keys.as_mut().unwrap().ssh[0];
        (pair.private_key, pair.private_key_type) = (b"pkcs11:{}".to_vec(), 1);
        let error = wanted.of(&spec, CaType::Host, Form::Ssh).unwrap_err();
        assert!(error.to_string().contains("in a security module and cannot be exported"), "{error}");
        spec.active_keys.as_mut().unwrap().ssh[0].private_key.clear();
        assert!(wanted.of(&spec, CaType::Host, Form::Ssh).is_err());
    }
}
