//! What a process keeps about itself: its UUID and its identities.

use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use backend::{Backend, BackendError, Item, Key, Sqlite, SqliteOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pki::keys::PrivateKey;
use pki::ssh_cert;
use pki::x509::Certificate;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::identity::{HostIdentity, IdentityError, NewHostKeys, Parts};

const IDENTITIES: Key = Key::root("/ids");

/// What can go wrong with the storage.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A file.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The database.
    #[error("process storage: {0}")]
    Backend(#[from] BackendError),
    /// A stored identity.
    #[error("stored identity of role {role}: {message}")]
    Identity {
        /// Whose.
        role: String,
        /// What is wrong with it.
        message: String,
    },
}

/// The UUID of this host: read from the data folder, or made on the first start.
pub fn host_uuid(data_dir: &Path) -> Result<String, StorageError> {
    let path = data_dir.join("host_uuid");
    let failed = |action| {
        let path = path.clone();
        move |source| StorageError::File { action, path, source }
    };
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => fs::remove_file(&path).map_err(failed("removing"))?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("reading")(e)),
    }
    fs::DirBuilder::new().recursive(true).mode(0o750).create(data_dir).map_err(failed("creating the folder of"))?;
    let uuid = Uuid::new_v4().to_string();
    let created = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&path);
    match created {
        Ok(mut file) => {
            file.write_all(uuid.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("writing"))?;
            Ok(uuid)
        }
        // Another service of this process was first.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let text = fs::read_to_string(&path).map_err(failed("reading"))?;
            Ok(text.trim().to_owned())
        }
        Err(e) => Err(failed("writing")(e)),
    }
}

/// The identities a process has.
pub struct IdentityStore {
    backend: Sqlite,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    kind: String,
    version: String,
    metadata: StoredName,
    spec: StoredSpec,
}

#[derive(Serialize, Deserialize)]
struct StoredName {
    name: String,
}

/// Byte fields are base64.
#[derive(Serialize, Deserialize)]
struct StoredSpec {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ssh_key: Option<String>,
    ssh_cert: String,
    tls_cert: String,
    tls_ca_certs: Vec<String>,
    ssh_ca_certs: Vec<String>,
}

impl IdentityStore {
    /// Opens the storage of the process whose state is in `data_dir`.
    pub async fn open(data_dir: &Path) -> Result<Self, StorageError> {
        Ok(Self { backend: Sqlite::open(SqliteOptions::new(data_dir.join("proc"))).await? })
    }

    /// The identity of a role; `None` when the process has none yet.
    pub async fn load(&self, role: &str) -> Result<Option<HostIdentity>, StorageError> {
        let item = match self.backend.get(&current(role)?).await {
            Ok(item) => item,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let malformed = |message: String| StorageError::Identity { role: role.to_owned(), message };
        let stored: Stored = serde_json::from_slice(&item.value).map_err(|e| malformed(e.to_string()))?;
        Ok(Some(stored.spec.read().map_err(malformed)?))
    }

    /// Keeps the identity of a role.
    pub async fn save(&self, identity: &HostIdentity) -> Result<(), StorageError> {
        let malformed = |message: String| StorageError::Identity { role: identity.role.clone(), message };
        let stored = Stored {
            kind: "identity".into(),
            version: "v2".into(),
            metadata: StoredName { name: "current".into() },
            spec: StoredSpec::write(identity).map_err(malformed)?,
        };
        let value = Zeroizing::new(serde_json::to_vec(&stored).map_err(|e| malformed(e.to_string()))?);
        self.backend.put(Item::new(current(&identity.role)?, value.to_vec())).await?;
        Ok(())
    }
}

fn current(role: &str) -> Result<Key, BackendError> {
    IDENTITIES.child(role.to_lowercase())?.child("current")
}

impl StoredSpec {
    fn read(&self) -> Result<HostIdentity, String> {
        let bytes = |text: &str| STANDARD.decode(text).map_err(|e| e.to_string());
        let key = |text: &str| {
            let pem = Zeroizing::new(String::from_utf8(bytes(text)?).map_err(|e| e.to_string())?);
            PrivateKey::from_pem(&pem).map_err(|e| e.to_string())
        };
        let list = |texts: &[String]| texts.iter().map(|t| bytes(t)).collect::<Result<Vec<_>, _>>();
        let tls = key(&self.key)?;
        let ssh = self.ssh_key.as_deref().map(key).transpose()?.unwrap_or_else(|| tls.clone());
        let (tls_authorities, ssh_authorities) = (list(&self.tls_ca_certs)?, list(&self.ssh_ca_certs)?);
        let parts = Parts {
            ssh: &bytes(&self.ssh_cert)?,
            tls: &bytes(&self.tls_cert)?,
            tls_authorities: &tls_authorities,
            ssh_authorities: &ssh_authorities,
        };
        HostIdentity::assemble(NewHostKeys { tls, ssh }, &parts).map_err(|e: IdentityError| e.to_string())
    }

    fn write(identity: &HostIdentity) -> Result<Self, String> {
        let encode = |bytes: &[u8]| STANDARD.encode(bytes);
        let pem = |key: &PrivateKey| key.to_pem().map(|p| encode(p.as_bytes())).map_err(|e| e.to_string());
        let line = ssh_cert::to_line(&identity.ssh_certificate).map_err(|e| e.to_string())?;
        Ok(Self {
            key: pem(&identity.tls_key)?,
            ssh_key: Some(pem(&identity.ssh_key)?),
            ssh_cert: encode(line.as_bytes()),
            tls_cert: encode(identity.tls_certificate.to_pem().as_bytes()),
            tls_ca_certs: identity
                .tls_authorities
                .iter()
                .map(|c: &Certificate| encode(c.to_pem().as_bytes()))
                .collect(),
            ssh_ca_certs: identity.ssh_authorities.iter().map(|k| encode(k.to_ssh_line().as_bytes())).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_host_keeps_its_uuid() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let first = host_uuid(&data).unwrap();
        assert!(Uuid::parse_str(&first).is_ok());
        assert_eq!(host_uuid(&data).unwrap(), first);
    }

    #[tokio::test]
    async fn a_process_without_identity_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = IdentityStore::open(folder.path()).await.unwrap();
        assert!(store.load("Node").await.unwrap().is_none());
    }
}
