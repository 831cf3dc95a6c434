//! What an Auth Service is started with.

use std::{path::PathBuf, sync::Arc, time::Duration};

use backend::{Backend, Clock, SystemClock};
use keystore::KeyStore;
use pki::suite::SignatureSuite;
use wire::types;

/// The settings of an Auth Service. Settings given here come from a configuration file: they replace what is stored
/// at every start and cannot be edited while they are given.
#[derive(Clone)]
pub struct AuthConfig {
    /// Where state, audit log and recordings lie.
    pub data_dir: PathBuf,
    /// The name of the cluster; used on the first start only. Empty: the name of the host.
    pub cluster_name: String,
    /// The name of the host, shown to people.
    pub node_name: String,
    /// The UUID of the host; `None` reads `host_uuid` in the data directory, or makes one.
    pub host_uuid: Option<String>,
    /// The address others reach this service at, as it is announced.
    pub advertise_addr: String,
    /// Join tokens that never expire.
    pub static_tokens: Vec<types::ProvisionTokenV1>,
    /// Authentication settings, when the file has any.
    pub auth_preference: Option<types::AuthPreferenceV2>,
    /// Networking settings, when the file has any.
    pub networking: Option<types::ClusterNetworkingConfigV2>,
    /// Recording settings, when the file has any.
    pub recording: Option<types::SessionRecordingConfigV2>,
    /// Audit settings, when the file has any.
    pub audit: Option<types::ClusterAuditConfigV2>,
    /// The key algorithms of a new cluster whose file does not choose any.
    pub default_suite: SignatureSuite,
    /// Where the private keys of authorities are made, and what signs with them.
    pub key_store: KeyStore,
    /// Where audit events are searched instead of in the daily files, which get them all the same.
    pub audit_database: Option<audit::PostgresLogOptions>,
    /// Further places that audit events go to, besides the daily files.
    pub audit_sinks: Vec<Arc<dyn audit::Sink>>,
    /// Where the daily files of the audit log lie; `None`: below the data directory.
    pub audit_folder: Option<PathBuf>,
    /// The folder where recordings are kept; `None`: below the data directory.
    pub recordings_folder: Option<PathBuf>,
    /// The object store where complete recordings are kept instead.
    pub recordings_objects: Option<recording::ObjectLocation>,
    /// How long the daily files of the audit log are kept; `None`: for ever.
    pub audit_retention: Option<Duration>,
    /// How long recordings in files are kept; `None`: for ever.
    pub recordings_retention: Option<Duration>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The way to the proxies of other clusters; without it no other cluster can be trusted.
    pub trust_exchange: Option<Arc<dyn crate::TrustExchange>>,
    /// Where to keep the state instead of the database in the data directory.
    pub backend: Option<Arc<dyn Backend>>,
}

/// What the file says about the cluster itself: stored at the start and whenever the file is read again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileSettings {
    /// Join tokens that never expire.
    pub static_tokens: Vec<types::ProvisionTokenV1>,
    /// Authentication settings, when the file has any.
    pub auth_preference: Option<types::AuthPreferenceV2>,
    /// Networking settings, when the file has any.
    pub networking: Option<types::ClusterNetworkingConfigV2>,
    /// Recording settings, when the file has any.
    pub recording: Option<types::SessionRecordingConfigV2>,
    /// Audit settings, when the file has any.
    pub audit: Option<types::ClusterAuditConfigV2>,
}

impl AuthConfig {
    /// The part that may change while the service runs.
    pub fn file_settings(&self) -> FileSettings {
        FileSettings {
            static_tokens: self.static_tokens.clone(),
            auth_preference: self.auth_preference.clone(),
            networking: self.networking.clone(),
            recording: self.recording.clone(),
            audit: self.audit.clone(),
        }
    }

    /// The defaults for a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            cluster_name: String::new(),
            node_name: String::new(),
            host_uuid: None,
            advertise_addr: "127.0.0.1:3025".to_owned(),
            static_tokens: Vec::new(),
            auth_preference: None,
            networking: None,
            recording: None,
            audit: None,
            default_suite: SignatureSuite::BalancedV1,
            key_store: KeyStore::default(),
            audit_database: None,
            audit_sinks: Vec::new(),
            audit_folder: None,
            recordings_folder: None,
            recordings_objects: None,
            audit_retention: None,
            recordings_retention: None,
            clock: Arc::new(SystemClock),
            trust_exchange: None,
            backend: None,
        }
    }
}
