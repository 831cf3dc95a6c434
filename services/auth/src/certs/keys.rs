//! The public keys to be certified.

use pki::keys::PublicKey;
use wire::error::{Error, Result};

use crate::authority::crypto;

/// The halves of a certificate request; each that is there gets a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicKeys {
    /// A line of OpenSSH's authorized_keys form.
    pub ssh: Option<String>,
    /// PEM.
    pub tls: Option<String>,
}

impl PublicKeys {
    /// One key for both, given as a line of OpenSSH's authorized_keys form.
    ///
    /// # Errors
    /// `BadParameter` when the line is no usable key. Clients recognise the text `ssh: no key found`.
    pub fn one(ssh_line: &str) -> Result<Self> {
        let key = ssh_key(ssh_line)?;
        Ok(Self { ssh: Some(ssh_line.to_owned()), tls: Some(key.to_spki_pem()) })
    }

    pub(super) fn parse(&self) -> Result<(Option<PublicKey>, Option<PublicKey>)> {
        let ssh = self.ssh.as_deref().map(ssh_key).transpose()?;
        let tls = self.tls.as_deref().map(tls_key).transpose()?;
        if ssh.is_none() && tls.is_none() {
            return Err(Error::bad_parameter("missing public key"));
        }
        Ok((ssh, tls))
    }
}

/// Reads a line of OpenSSH's authorized_keys form.
pub(super) fn ssh_key(line: &str) -> Result<PublicKey> {
    PublicKey::from_ssh_line(line.trim()).map_err(|e| Error::bad_parameter(format!("ssh: no key found: {e}")))
}

/// Reads a PEM public key.
pub(super) fn tls_key(pem: &str) -> Result<PublicKey> {
    PublicKey::from_pem(pem).map_err(crypto)
}
