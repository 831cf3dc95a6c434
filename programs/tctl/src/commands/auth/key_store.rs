//! Key stores that programs in Java and Oracle read: PKCS #12 (RFC 7292) in two dialects.

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey, PrivateKeyChain,
};
use pki::x509;
use rand::RngExt;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Which ciphers protect a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// AES-256, as Java writes its own. Java reads such stores also where it is told to expect its older form, JKS.
    Java,
    /// Triple DES and SHA-1, which is all that the tools of Oracle before 23ai read. What keeps the key secret is the
    /// [password](password), which cannot be guessed.
    Oracle,
}

/// A password of 256 random bits.
pub fn password() -> Zeroizing<String> {
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(rand::rng().random());
    Zeroizing::new(hex::encode(*bytes))
}

/// A store with one key and its certificate, PEM.
pub fn with_key(
    alias: &str,
    key: &pki::keys::PrivateKey,
    pem: &[u8],
    dialect: Dialect,
    password: &str,
) -> Result<Vec<u8>> {
    let certificate = certificates(pem)?.into_iter().next().ok_or_else(|| Error::other("no certificate was signed"))?;
    let key = PrivateKey::from_der(key.to_pkcs8_der()).map_err(unwritten)?;
    // The name by which the key finds its certificate within the store.
    let chain = PrivateKeyChain::new(alias, key, [certificate]);
    written([(alias.to_owned(), KeyStoreEntry::PrivateKeyChain(chain))], dialect, password)
}

/// A store of authorities that are trusted; the first bears the name, the others have numbers besides.
pub fn with_authorities(alias: &str, pem: &[u8], password: &str) -> Result<Vec<u8>> {
    let named = certificates(pem)?.into_iter().enumerate().map(|(number, certificate)| {
        let name = if number == 0 { alias.to_owned() } else { format!("{alias}-{number}") };
        (name, KeyStoreEntry::Certificate(certificate))
    });
    written(named, Dialect::Java, password)
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>> {
    let found = x509::Certificate::bundle_from_pem(&String::from_utf8_lossy(pem))?;
    found.iter().map(|certificate| Certificate::from_der(certificate.der()).map_err(unwritten)).collect()
}

fn written(
    entries: impl IntoIterator<Item = (String, KeyStoreEntry)>,
    dialect: Dialect,
    password: &str,
) -> Result<Vec<u8>> {
    let mut store = KeyStore::new();
    for (name, entry) in entries {
        store.add_entry(&name, entry);
    }
    let writer = store.writer(password);
    let writer = match dialect {
        Dialect::Java => writer,
        Dialect::Oracle => writer
            .encryption_algorithm(EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc)
            .mac_algorithm(MacAlgorithm::HmacSha1),
    };
    writer.write().map_err(unwritten)
}

fn unwritten(error: p12_keystore::error::Error) -> Error {
    Error::other(format!("cannot make the key store: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;
    use std::process::Command;

    use chrono::Utc;
    use pki::keys::KeyAlgorithm;
    use pki::x509::CaCertificate;

    use super::*;

    /// What a program says, if it is there.
    fn said(program: &str, arguments: &[&str], file: &Path) -> Option<String> {
        let output = Command::new(program).args(arguments).arg(file).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
        Some(text)
    }

    fn authority(name: &str) -> (pki::keys::PrivateKey, String) {
        let key = pki::keys::PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
        let pem = CaCertificate::self_signed(name, &key, Utc::now()).unwrap().to_pem();
        (key, pem)
    }

    #[test]
    fn openssl_reads_key_and_certificate_of_both_dialects() {
        let (key, pem) = authority("db.test");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("store");
        let password = password();
        for (dialect, cipher) in [(Dialect::Java, "AES-256-CBC"), (Dialect::Oracle, "pbeWithSHA1And3-KeyTripleDES-CBC")]
        {
            std::fs::write(&file, with_key("cassandra", &key, pem.as_bytes(), dialect, &password).unwrap()).unwrap();
            let pass = format!("pass:{}", *password);
            let text = said("openssl", &["pkcs12", "-info", "-nodes", "-passin", &pass, "-in"], &file).unwrap();
            assert!(text.contains(cipher) && text.contains("friendlyName: cassandra"), "{text}");
            assert!(text.contains(pem.trim()), "{text}");
            let begin = text.find("-----BEGIN PRIVATE KEY").unwrap();
            let read = pki::keys::PrivateKey::from_pem(&text[begin..]).unwrap();
            assert_eq!(read.public().to_spki_der(), key.public().to_spki_der());
        }
    }

    #[test]
    fn java_reads_stores_under_both_names_of_the_form() {
        let (key, pem) = authority("db.test");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("store");
        let password = password();
        let list = |form: &str| {
            said("keytool", &["-list", "-v", "-storetype", form, "-storepass", &password, "-keystore"], &file)
        };
        for form in ["JKS", "PKCS12"] {
            let store = with_key("cassandra", &key, pem.as_bytes(), Dialect::Java, &password).unwrap();
            std::fs::write(&file, store).unwrap();
            let Some(text) = list(form) else { return };
            assert!(text.contains("Alias name: cassandra") && text.contains("PrivateKeyEntry"), "{text}");
            let both = authority("one.test").1 + &authority("two.test").1;
            std::fs::write(&file, with_authorities("cassandra", both.as_bytes(), &password).unwrap()).unwrap();
            let text = list(form).unwrap();
            assert_eq!(text.matches("trustedCertEntry").count(), 2, "{text}");
            assert!(text.contains("Alias name: cassandra\n") && text.contains("Alias name: cassandra-1\n"), "{text}");
        }
    }
}
