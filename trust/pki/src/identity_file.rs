//! Identity files: everything a client needs to log in, in one file.
//!
//! In order: the private key, the SSH certificate, the TLS certificate, `@cert-authority` lines of trusted hosts
//! and the authorities' TLS certificates. The proxy's address is not in it.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::keys::PrivateKey;
use crate::x509::Certificate;
use crate::{Error, pem, ssh_cert};

/// The contents of an identity file.
#[derive(Clone, Debug)]
pub struct IdentityFile {
    /// The key of both certificates.
    pub private_key: PrivateKey,
    /// The SSH certificate.
    pub ssh_certificate: Option<ssh_key::Certificate>,
    /// The TLS certificate.
    pub tls_certificate: Option<Certificate>,
    /// `@cert-authority` lines without newline.
    pub ssh_authorities: Vec<String>,
    /// The authorities' TLS certificates.
    pub tls_authorities: Vec<Certificate>,
}

const WHAT: &str = "identity file";

impl IdentityFile {
    /// Reads the text of an identity file; what is not understood is ignored.
    ///
    /// # Errors
    /// [`Error::Malformed`] without private key, or when a part is broken.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut ssh_certificate = None;
        let mut ssh_authorities = Vec::new();
        for line in text.lines().map(str::trim) {
            let first = line.split_whitespace().next().unwrap_or_default();
            if first == "@cert-authority" {
                ssh_authorities.push(line.to_owned());
            } else if is_ssh_certificate_type(first) {
                ssh_certificate = Some(ssh_cert::from_line(line)?);
            }
        }
        let blocks = pem::blocks(text)?;
        let (key, certificates) = blocks.split_first().ok_or_else(|| Error::malformed(WHAT, "no private key found"))?;
        let key = Zeroizing::new(pem::encode(&key.label, &key.der));
        let mut certificates = certificates
            .iter()
            .map(|block| Certificate::from_der(&block.der))
            .collect::<Result<Vec<_>, _>>()?
            .into_iter();
        Ok(Self {
            private_key: PrivateKey::from_pem(&key)?,
            ssh_certificate,
            tls_certificate: certificates.next(),
            ssh_authorities,
            tls_authorities: certificates.collect(),
        })
    }

    /// Reads an identity file. When it holds no SSH certificate, `<path>-cert.pub` is tried.
    ///
    /// # Errors
    /// [`Error::Io`] or as [`parse`](Self::parse).
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = Zeroizing::new(fs::read_to_string(path).map_err(|source| io_error(path, source))?);
        let mut identity = Self::parse(&text)?;
        if identity.ssh_certificate.is_none() {
            let beside = certificate_path(path);
            match fs::read_to_string(&beside) {
                Ok(line) => identity.ssh_certificate = Some(ssh_cert::from_line(&line)?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error(&beside, error)),
            }
        }
        Ok(identity)
    }

    /// The text of the file.
    ///
    /// # Errors
    /// [`Error::Malformed`] never happens for parts that were read or issued here.
    pub fn to_text(&self) -> Result<Zeroizing<String>, Error> {
        // Large enough for the key, so that growing leaves no copies of it behind.
        let mut text = Zeroizing::new(String::with_capacity(32 * 1024));
        text.push_str(&self.private_key.to_pem()?);
        if let Some(certificate) = &self.ssh_certificate {
            text.push_str(&ssh_cert::to_line(certificate)?);
        }
        if let Some(certificate) = &self.tls_certificate {
            text.push_str(&certificate.to_pem());
        }
        for line in &self.ssh_authorities {
            // Writing into memory does not fail.
            let _ = writeln!(text, "{}", line.trim());
        }
        for certificate in &self.tls_authorities {
            text.push_str(&certificate.to_pem());
        }
        Ok(text)
    }

    /// Writes the file so that only its owner can read it; an existing file is replaced at once or not at all.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        write_private(path, self.to_text()?.as_bytes())
    }

    /// The cluster that issued the identity.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.tls_certificate.as_ref().and_then(Certificate::issuer_common_name)
    }

    /// The user's name.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        let tls = self.tls_certificate.as_ref().and_then(Certificate::common_name);
        tls.or_else(|| self.ssh_certificate.as_ref().map(ssh_key::Certificate::key_id))
    }
}

/// Writes a file of mode 0600 by way of a temporary one beside it.
fn write_private(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let temporary = suffixed(path, &format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = || {
        let mut file = options.open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // The reason of the failure matters more than a file left behind.
        let _ = fs::remove_file(&temporary);
        io_error(path, source)
    })
}

fn certificate_path(path: &Path) -> PathBuf {
    suffixed(path, "-cert.pub")
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

/// `<algorithm>-cert-v<two digits>@openssh.com`.
fn is_ssh_certificate_type(word: &str) -> bool {
    let Some((algorithm, version)) = word.strip_suffix("@openssh.com").and_then(|name| name.rsplit_once("-cert-v"))
    else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !algorithm.is_empty()
        && algorithm.bytes().all(plain)
        && version.len() == 2
        && version.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
