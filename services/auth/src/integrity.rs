//! Evidence about the audit log: its checkpoints, signed with a key of the cluster.
//!
//! The latest checkpoint of every host is remembered in the storage of the cluster, so that whoever can change the
//! files of the log, but not the storage, cannot cut them off unnoticed.

use std::path::{Path, PathBuf};
use std::{sync::Arc, time::Duration};

use audit::{
    Anchor, FileLog, Signer,
    chain::{self, Report},
};
use aws_lc_rs::digest;
use backend::{Item, Key};
use chrono::TimeDelta;
use pki::{
    keys::{PrivateKey, PublicKey},
    suite::{Purpose, algorithm_for},
};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use wire::error::{Error, ErrorKind, Result};

use crate::{Auth, authority::crypto, random, store::storage};

/// Where all this is kept in the storage.
const AUDIT: Key = Key::root("/audit");
/// How often a checkpoint is made while events come.
const PERIOD: Duration = Duration::from_secs(60);

/// The files of this process's audit log, and what vouches for them.
pub(crate) struct Integrity {
    pub(crate) files: Arc<FileLog>,
    /// Files of the log are kept this long; for ever when not given.
    pub(crate) retention: Option<Duration>,
    verifying: Semaphore,
}

/// Signs checkpoints.
struct CheckpointKey(PrivateKey);

impl Signer for CheckpointKey {
    fn key_id(&self) -> String {
        key_id(self.0.public())
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.0.sign(message).ok()
    }
}

#[derive(Serialize, Deserialize)]
struct StoredKey {
    private_key: String,
}

/// What is known about the logs of all hosts whose files lie here.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// The public half of the key that signs checkpoints, PEM.
    pub key: String,
    /// By host, in the order of their names.
    pub hosts: Vec<HostReport>,
    /// How many checkpoints that the caller expects were looked for.
    pub expected: usize,
}

/// What is known about the log of one host.
#[derive(Debug, Serialize)]
pub struct HostReport {
    /// UUID of the host that wrote it.
    pub host: String,
    /// What was found.
    #[serde(flatten)]
    pub report: Report,
}

/// The name of a key in checkpoints: a digest of its public half.
pub fn key_id(key: &PublicKey) -> String {
    hex::encode(digest::digest(&digest::SHA256, key.to_spki_der()))
}

impl Integrity {
    pub(crate) fn new(files: Arc<FileLog>, retention: Option<Duration>) -> Self {
        Self { files, retention, verifying: Semaphore::new(1) }
    }
}

impl Auth {
    /// Makes checkpoints and removes old files, again and again; ends only by being dropped.
    pub(crate) async fn keep_sealing(&self) {
        loop {
            if let Err(error) = self.seal_audit_log().await {
                tracing::warn!(%error, "no checkpoint of the audit log could be made, trying again later");
            }
            if let Err(error) = self.remove_old_events().await {
                tracing::warn!(%error, "old files of the audit log could not be removed");
            }
            tokio::time::sleep(random::jitter(PERIOD)).await;
        }
    }

    /// Makes a checkpoint, unless nothing was written since the last.
    ///
    /// # Errors
    /// When it cannot be signed or stored.
    pub async fn seal_audit_log(&self) -> Result<Option<Anchor>> {
        let key = Arc::new(self.checkpoint_key().await?);
        let known = self.anchor(self.host_uuid()).await?;
        let sealed = self.0.integrity.files.seal(key, self.cluster_name(), known.clone()).await.map_err(Error::from)?;
        if let Some(anchor) = &sealed
            && sealed != known
        {
            let value = serde_json::to_vec(anchor).map_err(|e| Error::other(e.to_string()))?;
            self.store()
                .backend()
                .put(Item::new(anchor_key(self.host_uuid())?, value))
                .await
                .map_err(|e| storage(&e))?;
        }
        Ok(sealed)
    }

    async fn remove_old_events(&self) -> Result<()> {
        let integrity = &self.0.integrity;
        let Some(retention) = integrity.retention.and_then(|time| TimeDelta::from_std(time).ok()) else {
            return Ok(());
        };
        let Some(oldest) = self.now().checked_sub_signed(retention) else { return Ok(()) };
        if integrity.files.retire_before(oldest.date_naive()).await.map_err(Error::from)? > 0 {
            self.seal_audit_log().await?;
            integrity.files.remove_retired().await.map_err(Error::from)?;
        }
        Ok(())
    }

    /// The logs of other hosts, beside the one in `own`. One that is known by its anchor alone is among them: somebody may have
    /// taken its checkpoints away.
    async fn neighbours(&self, own: &Path) -> Result<Vec<(String, PathBuf)>> {
        let failed = |e: std::io::Error| Error::other(format!("listing the audit logs: {e}"));
        let mut found = Vec::new();
        for entry in std::fs::read_dir(own.parent().unwrap_or(own)).map_err(failed)?.flatten() {
            let (host, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
            if path == own || !path.is_dir() {
                continue;
            }
            let anchored = anchor_key(&host).is_ok() && self.anchor(&host).await?.is_some();
            if anchored || path.join("checkpoints.jsonl").is_file() {
                found.push((host, path));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Compares the audit logs of all hosts whose files lie here with what their checkpoints say. Those that are
    /// expected must be among the checkpoints of some host.
    ///
    /// # Errors
    /// `LimitExceeded` while another verification runs; when files cannot be read.
    pub async fn verify_audit_log(&self, expected: Vec<Anchor>) -> Result<Verification> {
        let _one_at_a_time =
            self.0.integrity.verifying.try_acquire().map_err(|_| {
                Error::limit_exceeded("the audit log is being verified already: wait until that is done")
            })?;
        self.seal_audit_log().await?;
        let key = self.checkpoint_key().await?.0.public().clone();
        let own = self.0.integrity.files.folder().to_owned();
        let (mut hosts, count, mut expected) = (Vec::<HostReport>::new(), expected.len(), expected);
        let neighbours = match self.0.config.audit_folder {
            Some(_) => Vec::new(),
            None => self.neighbours(&own).await?,
        };
        for (host, folder) in std::iter::once((self.host_uuid().to_owned(), own)).chain(neighbours) {
            let anchors: Vec<_> = self.anchor(&host).await?.into_iter().collect();
            let (id, key, wanted) = (key_id(&key), key.clone(), std::mem::take(&mut expected));
            let verify = move || {
                let accepts = |of: &str, message: &[u8], signature: &[u8]| {
                    of == id && key.verifies(key.algorithm().x509_scheme(), message, signature)
                };
                let report = chain::verify(&folder, &accepts, &anchors)?;
                Ok::<_, audit::Error>((report, chain::lacking(&folder, &accepts, wanted)?))
            };
            let verified = tokio::task::spawn_blocking(verify).await;
            let (report, missing) =
                verified.map_err(|_| Error::other("the verification failed"))?.map_err(Error::from)?;
            expected = missing;
            for finding in &report.findings {
                tracing::warn!(host, place = finding.place, what = finding.what, "the audit log was tampered with");
            }
            hosts.push(HostReport { host, report });
        }
        if let Some(first) = hosts.first_mut() {
            expected.iter().for_each(|anchor| first.report.lacks(anchor));
        }
        Ok(Verification { key: key.to_spki_pem(), hosts, expected: count })
    }

    async fn anchor(&self, host: &str) -> Result<Option<Anchor>> {
        match self.store().backend().get(&anchor_key(host)?).await {
            Ok(item) => crate::store::from_json("audit checkpoint", &item).map(Some),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(storage(&e)),
        }
    }

    /// The key that signs checkpoints, made when it is first needed.
    async fn checkpoint_key(&self) -> Result<CheckpointKey> {
        let place = AUDIT.child("checkpoint_key").map_err(|e| storage(&e))?;
        let backend = self.store().backend();
        for _ in 0..2 {
            match backend.get(&place).await {
                Ok(item) => {
                    let stored: StoredKey = crate::store::from_json("audit checkpoint key", &item)?;
                    return PrivateKey::from_pem(&stored.private_key).map(CheckpointKey).map_err(crypto);
                }
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(storage(&e)),
            }
            let algorithm = algorithm_for(self.signature_suite(), Purpose::JwtCaJwt);
            let made = tokio::task::spawn_blocking(move || PrivateKey::generate(algorithm)).await;
            let key = made.map_err(|_| Error::other("making a key failed"))?.map_err(crypto)?;
            let stored = StoredKey { private_key: key.to_pem().map_err(crypto)?.to_string() };
            let value = serde_json::to_vec(&stored).map_err(|e| Error::other(e.to_string()))?;
            match backend.create(Item::new(place.clone(), value)).await {
                Ok(_) => {}
                // Another Auth Service was faster.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(storage(&e)),
            }
        }
        Err(Error::other("the key for checkpoints of the audit log was removed while it was made"))
    }
}

fn anchor_key(host: &str) -> Result<Key> {
    AUDIT.child("anchors").and_then(|key| key.child(host)).map_err(|e| storage(&e))
}
