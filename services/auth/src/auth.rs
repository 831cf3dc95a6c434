//! The Auth Service as one object that everything else hangs on.

use std::{path::Path, sync::Arc};

use arc_swap::ArcSwap;
use audit::Log;
use backend::{Clock, Sqlite, SqliteOptions};
use chrono::{DateTime, Utc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wire::{
    error::{Error, ErrorKind, Kinded as _, Result},
    events::OneOf,
    types,
};

use crate::{
    AuthConfig, FileSettings, authority, init,
    integrity::Integrity,
    lists::Nested,
    login::{Hasher, Lockout},
    metrics::Metrics,
    roles::ParsedRoles,
    sealing::Sealing,
    store::{self, Store, kind},
};

/// How long tasks may take to end when the service stops.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(15);

/// An open Auth Service; clones share everything.
#[derive(Clone)]
pub struct Auth(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: AuthConfig,
    /// What the file says by now about the cluster itself.
    pub(crate) file: ArcSwap<FileSettings>,
    pub(crate) host_uuid: String,
    pub(crate) cluster_name: String,
    pub(crate) cluster_id: String,
    pub(crate) store: Store,
    pub(crate) authorities: authority::Authorities,
    pub(crate) audit: Log,
    pub(crate) integrity: Integrity,
    pub(crate) hasher: Hasher,
    pub(crate) lockout: Lockout,
    pub(crate) parsed_roles: ParsedRoles,
    /// Which access lists are members of others.
    pub(crate) nested_lists: Nested,
    pub(crate) recordings: Arc<dyn recording::Store>,
    /// The keys of recordings that are kept sealed.
    pub(crate) sealing: Sealing,
    pub(crate) metrics: Metrics,
    /// Whether the storage is closed with this service.
    owns_backend: bool,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Auth {
    /// Opens the state and makes what is missing: at the first start a whole cluster.
    ///
    /// # Errors
    /// When the state cannot be read or written, or settings of the file contradict themselves.
    pub async fn open(mut config: AuthConfig) -> Result<Self> {
        init::check_settings(&config.file_settings(), &config.key_store)?;
        init::prepare_folder(&config.data_dir)?;
        let host_uuid = init::host_uuid(&config)?;
        let owns_backend = config.backend.is_none();
        let backend = match config.backend.take() {
            Some(backend) => backend,
            None => {
                let options = SqliteOptions::new(config.data_dir.join("backend"));
                let opened = Sqlite::open_with_clock(options, config.clock.clone()).await;
                Arc::new(opened.map_err(|e| store::storage(&e))?)
            }
        };
        let store = Store::open(backend).await?;
        let name = init::cluster(&store, &config).await?;
        let spec = name.spec.clone().unwrap_or_default();
        let (audit, files) = init::audit_log(&config, &host_uuid, &spec.cluster_name).await?;
        let sealing = Sealing::default();
        let inner = Inner {
            audit,
            integrity: Integrity::new(files, config.audit_retention),
            host_uuid,
            cluster_name: spec.cluster_name,
            cluster_id: spec.cluster_id,
            store,
            authorities: authority::Authorities::default(),
            hasher: Hasher::new(),
            lockout: Lockout::new(),
            parsed_roles: ParsedRoles::default(),
            nested_lists: Nested::default(),
            recordings: init::recordings(&config, &sealing.ring)?,
            sealing,
            metrics: Metrics::default(),
            owns_backend,
            file: ArcSwap::from_pointee(config.file_settings()),
            config,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        };
        let auth = Self(Arc::new(inner));
        authority::check_suite(auth.key_store(), &*auth.auth_preference()?)?;
        auth.tend_keys().await?;
        auth.follow_sealing().await?;
        auth.announce().await?;
        auth.start_background();
        Ok(auth)
    }

    fn start_background(&self) {
        let (auth, closing) = (self.clone(), self.closing());
        self.0.tasks.spawn(async move { auth.0.store.follow(closing).await });
        let (auth, closing) = (self.clone(), self.closing());
        self.0.tasks.spawn(async move { closing.run_until_cancelled(auth.keep_announcing()).await });
        let (auth, closing) = (self.clone(), self.closing());
        self.0.tasks.spawn(async move { closing.run_until_cancelled(auth.keep_completing_recordings()).await });
        let (auth, closing) = (self.clone(), self.closing());
        self.0.tasks.spawn(async move { closing.run_until_cancelled(init::complete(&auth)).await });
        let (auth, closing) = (self.clone(), self.closing());
        self.0.tasks.spawn(async move { closing.run_until_cancelled(auth.keep_sealing()).await });
        let (auth, closing) = (self.clone(), self.closing());
        self.0.tasks.spawn(async move { closing.run_until_cancelled(auth.keep_following_sealing()).await });
        let (auth, closing) = (self.clone(), self.closing());
        self.0.tasks.spawn(async move { closing.run_until_cancelled(auth.keep_rotating()).await });
    }

    /// Ends the tasks of this service and closes the storage, unless it was given to it.
    pub async fn shutdown(&self) {
        self.0.closing.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(DRAIN, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        self.retract().await;
        if let Err(error) = self.seal_audit_log().await {
            tracing::warn!(%error, "the last events of the audit log have no checkpoint yet");
        }
        if self.0.owns_backend {
            self.0.store.backend().close().await;
        }
    }

    /// Cancelled when the service shuts down.
    pub fn closing(&self) -> CancellationToken {
        self.0.closing.clone()
    }

    /// Where tasks of this service are spawned, so that [`shutdown`](Self::shutdown) waits for them.
    pub fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// The UUID of the host.
    pub fn host_uuid(&self) -> &str {
        &self.0.host_uuid
    }

    /// The name of the host, for people.
    pub fn node_name(&self) -> &str {
        &self.0.config.node_name
    }

    /// The name of the cluster.
    pub fn cluster_name(&self) -> &str {
        &self.0.cluster_name
    }

    /// The UUID of the cluster.
    pub fn cluster_id(&self) -> &str {
        &self.0.cluster_id
    }

    /// Where state, audit log and recordings lie.
    pub fn data_dir(&self) -> &Path {
        &self.0.config.data_dir
    }

    /// The way to the proxies of other clusters.
    pub(crate) fn trust_exchange(&self) -> Option<Arc<dyn crate::TrustExchange>> {
        self.0.config.trust_exchange.clone()
    }

    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        self.0.config.clock.now()
    }

    /// Where the time comes from.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.0.config.clock.clone()
    }

    /// The resources.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// A number that grows whenever an authority changes.
    pub fn authority_generation(&self) -> u64 {
        self.store().authority_generation()
    }

    /// The audit log.
    pub fn audit_log(&self) -> &Log {
        &self.0.audit
    }

    /// Writes an event to the audit log; what all events share is filled in. It is on disk when this returns.
    ///
    /// # Errors
    /// When it is incomplete, or could not be stored.
    pub async fn emit(&self, event: OneOf) -> Result<()> {
        let stored = self.0.audit.emit(event).await;
        self.0.metrics.event(stored.is_ok());
        stored.map_err(|e| match e.kind() {
            ErrorKind::Other => {
                tracing::error!(error = %e, "an audit event could not be stored");
                Error::other("the audit log cannot be written")
            }
            _ => e.into(),
        })
    }

    /// The authentication settings.
    ///
    /// # Errors
    /// Only while the storage is being reloaded.
    pub fn auth_preference(&self) -> Result<Arc<types::AuthPreferenceV2>> {
        self.store().cached::<kind::AuthPreference>("")
    }

    /// The networking settings.
    ///
    /// # Errors
    /// Only while the storage is being reloaded.
    pub fn networking(&self) -> Result<Arc<types::ClusterNetworkingConfigV2>> {
        self.store().cached::<kind::NetworkingConfig>("")
    }

    /// The recording settings.
    ///
    /// # Errors
    /// Only while the storage is being reloaded.
    pub fn recording_config(&self) -> Result<Arc<types::SessionRecordingConfigV2>> {
        self.store().cached::<kind::RecordingConfig>("")
    }

    /// The audit settings.
    ///
    /// # Errors
    /// Only while the storage is being reloaded.
    pub fn audit_config(&self) -> Result<Arc<types::ClusterAuditConfigV2>> {
        self.store().cached::<kind::AuditConfig>("")
    }
}
