//! What a cluster needs to exist: made at the first start, looked at on later ones.

use std::{
    fs,
    io::{ErrorKind as IoErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use audit::{Fanout, FileLog, FileLogConfig, Log, Sink};
use backend::{Condition, ConditionalAction};
use chrono::{DateTime, Utc};
use keystore::KeyStore;
use pki::{authority::CaType, suite::SignatureSuite};
use resources::{Origin, Resource, cluster as defaults, presets};
use wire::{
    error::{Error, ErrorKind, Result},
    types::{
        AuthPreferenceV2, CertAuthorityV2, ClusterAuditConfigV2, ClusterNameV2, ClusterNetworkingConfigV2,
        SessionRecordingConfigV2, StaticTokensSpecV2, StaticTokensV2,
    },
};

use crate::{
    Auth, AuthConfig, FileSettings, authority,
    authority::FirstKeys,
    settings,
    store::{self, Store, kind, kind::Kind},
};

/// The file with the UUID of the host.
const HOST_UUID: &str = "host_uuid";

/// Refuses settings of the file that open the cluster to passwords alone, unless the operator insists, and those that the
/// module for keys cannot follow.
pub(crate) fn check_settings(file: &FileSettings, keys: &KeyStore) -> Result<()> {
    let Some(preference) = &file.auth_preference else { return Ok(()) };
    settings::check_second_factor(preference)?;
    authority::check_suite(keys, preference)
}

/// Makes the data directory, readable by its owner only.
pub(crate) fn prepare_folder(folder: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| Error::other(format!("data directory {}: {e}", folder.display())))
}

/// The UUID of the host: given, or from its file, or new.
pub(crate) fn host_uuid(config: &AuthConfig) -> Result<String> {
    if let Some(uuid) = &config.host_uuid {
        return Ok(uuid.clone());
    }
    let path = config.data_dir.join(HOST_UUID);
    let failed = |e: std::io::Error| Error::other(format!("{}: {e}", path.display()));
    loop {
        match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Ok(_) => return Err(Error::other(format!("{} is empty", path.display()))),
            Err(e) if e.kind() == IoErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
        // A link from a complete file, so that nobody reads half of it.
        let uuid = uuid::Uuid::new_v4().to_string();
        let draft = config.data_dir.join(format!(".{HOST_UUID}.{uuid}"));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&draft).map_err(failed)?;
        file.write_all(uuid.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        let linked = fs::hard_link(&draft, &path);
        fs::remove_file(&draft).map_err(failed)?;
        match linked {
            Err(e) if e.kind() != IoErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
    }
}

/// The audit log: daily files, and wherever else events are to go.
pub(crate) async fn audit_log(config: &AuthConfig, host_uuid: &str, cluster: &str) -> Result<(Log, Arc<FileLog>)> {
    let of_day = config.clock.clone();
    let clock = audit::Clock::from_fn(move || of_day.now());
    let place = match &config.audit_folder {
        Some(folder) => FileLogConfig::at(folder),
        None => FileLogConfig::in_data_dir(&config.data_dir, host_uuid),
    };
    let files = FileLog::open(place, clock.clone()).map_err(|e| Error::other(format!("audit log: {e}")))?;
    let files = Arc::new(files);
    let mut sinks: Vec<Arc<dyn Sink>> = Vec::new();
    if let Some(options) = config.audit_database.clone() {
        let database = audit::PostgresLog::open(options).await;
        sinks.push(Arc::new(database.map_err(|e| Error::other(format!("audit_events_uri: {e}")))?));
    }
    sinks.push(files.clone());
    sinks.extend(config.audit_sinks.iter().cloned());
    let sink: Arc<dyn Sink> = match sinks.as_slice() {
        [only] => only.clone(),
        _ => Arc::new(Fanout::new(sinks)),
    };
    Ok((Log::new(sink, cluster, clock), files))
}

/// Where recordings are kept.
pub(crate) fn recordings(config: &AuthConfig, keys: &recording::Keyring) -> Result<Arc<dyn recording::Store>> {
    let store = match &config.recordings_folder {
        Some(folder) => recording::DiskStore::open(folder),
        None => recording::DiskStore::in_data_dir(&config.data_dir),
    };
    let store = store.map_err(Error::from)?.with_keys(keys.clone());
    Ok(match config.recordings_objects.clone() {
        Some(location) => {
            let objects = recording::ObjectRecordings::open(location, store, keys.clone());
            Arc::new(objects.map_err(Error::from)?)
        }
        None => Arc::new(store),
    })
}

/// The cluster in the storage, after making it or taking over the settings of the file.
pub(crate) async fn cluster(store: &Store, config: &AuthConfig) -> Result<Arc<ClusterNameV2>> {
    let first_keys = FirstKeys::of(config);
    let stored = store.cached::<kind::ClusterName>("");
    match &stored {
        Ok(_) => first_keys.forget(),
        Err(error) if error.kind == ErrorKind::NotFound => first_keys.remove().await?,
        Err(_) => {}
    }
    authority::check_module(store, &config.key_store).await?;
    match stored {
        Ok(name) => {
            let stored = name.spec.as_ref().map_or("", |spec| &spec.cluster_name);
            if !config.cluster_name.is_empty() && config.cluster_name != stored {
                let wanted = &config.cluster_name;
                tracing::warn!(stored, wanted, "the name of a cluster cannot change: the stored name is kept");
            }
            take_over_settings(store, &config.file_settings()).await?;
            Ok(name)
        }
        Err(e) if e.kind == ErrorKind::NotFound => first_start(store, config).await,
        Err(e) => Err(e),
    }
}

/// Makes a cluster in one write: either all of it exists afterwards or nothing.
async fn first_start(store: &Store, config: &AuthConfig) -> Result<Arc<ClusterNameV2>> {
    let cluster_name = match config.cluster_name.as_str() {
        "" => config.node_name.clone(),
        name => name.to_owned(),
    };
    if cluster_name.is_empty() {
        return Err(Error::bad_parameter("a new cluster needs a name: set auth_service.cluster_name"));
    }
    let mut preference = setting(config.auth_preference.as_ref())?;
    let spec = preference.spec.get_or_insert_default();
    if spec.signature_algorithm_suite == 0 {
        spec.signature_algorithm_suite = config.default_suite.to_number();
    }
    let suite = SignatureSuite::from_number(spec.signature_algorithm_suite).map_err(authority::crypto)?;
    authority::check_suite(&config.key_store, &preference)?;
    let name = defaults::name(&cluster_name, &uuid::Uuid::new_v4().to_string());
    let mut writes = vec![
        store::put::<kind::ClusterName>(&name, Condition::NotExists)?,
        store::put::<kind::Namespace>(&defaults::namespace(), Condition::Whatever)?,
        store::put::<kind::AuthPreference>(&preference, Condition::Whatever)?,
        store::put::<kind::NetworkingConfig>(&networking(config)?, Condition::Whatever)?,
        store::put::<kind::RecordingConfig>(&recording(config)?, Condition::Whatever)?,
        store::put::<kind::AuditConfig>(&audit_settings(config)?, Condition::Whatever)?,
        store::put::<kind::StaticTokens>(&static_tokens(&config.file_settings())?, Condition::Whatever)?,
    ];
    for role in presets::roles() {
        writes.push(store::put::<kind::Role>(&role, Condition::Whatever)?);
    }
    let authorities = first_authorities(config, &cluster_name, suite, store.now()).await?;
    let first_keys = FirstKeys::of(config);
    first_keys.note(&authorities)?;
    for ca in &authorities {
        writes.push(store::put::<kind::CertAuthority>(ca, Condition::Whatever)?);
    }
    let written = store.atomic(writes).await;
    match written {
        Ok(_) => first_keys.forget(),
        // Another Auth Service on the same storage was faster.
        Err(e) if e.kind == ErrorKind::CompareFailed => {
            first_keys.forget();
            return store.cached::<kind::ClusterName>("");
        }
        Err(e) => return Err(e),
    }
    tracing::info!(cluster = %cluster_name, "a new cluster was made");
    store.cached::<kind::ClusterName>("")
}

/// The authorities that a first start makes.
async fn first_authorities(
    config: &AuthConfig,
    cluster: &str,
    suite: SignatureSuite,
    now: DateTime<Utc>,
) -> Result<Vec<CertAuthorityV2>> {
    let (keys, cluster) = (config.key_store.clone(), cluster.to_owned());
    // Clients cannot do anything without the first two, whatever their keys cost.
    let needed =
        move |ca_type: &CaType| matches!(ca_type, CaType::Host | CaType::User) || authority::is_quick(*ca_type, suite);
    let make = move || {
        let types = CaType::ALL.into_iter().filter(needed);
        let made: Result<_> = types.map(|ca_type| authority::generate(&keys, ca_type, &cluster, suite, now)).collect();
        // With keys left that nothing names, the next start would be refused.
        if made.is_err()
            && let Err(error) = keys.delete_unused([])
        {
            tracing::warn!(%error, "keys that were made for nothing could not be removed from the module");
        }
        made
    };
    tokio::task::spawn_blocking(make).await.map_err(|_| Error::other("making the authorities failed"))?
}

/// Settings of the file replace what is stored, all in one write; what a file no longer says keeps its value but may be edited again.
async fn take_over_settings(store: &Store, file: &FileSettings) -> Result<()> {
    let mut writes = Vec::new();
    let mut preference = file.auth_preference.clone();
    if let (Some(wanted), Ok(stored)) = (&mut preference, store.cached::<kind::AuthPreference>("")) {
        keep_suite(wanted, &stored);
    }
    writes.extend(take_over::<kind::AuthPreference>(store, preference.as_ref())?);
    writes.extend(take_over::<kind::NetworkingConfig>(store, file.networking.as_ref())?);
    writes.extend(take_over::<kind::RecordingConfig>(store, file.recording.as_ref())?);
    writes.extend(take_over::<kind::AuditConfig>(store, file.audit.as_ref())?);
    let tokens = static_tokens(file)?;
    if store.cached::<kind::StaticTokens>("").map_or(true, |stored| stored.spec != tokens.spec) {
        writes.push(store::put::<kind::StaticTokens>(&tokens, Condition::Whatever)?);
    }
    if writes.is_empty() { Ok(()) } else { store.atomic(writes).await.map(drop) }
}

impl Auth {
    /// Takes over what the file says by now; what cannot be stored as a whole changes nothing.
    ///
    /// # Errors
    /// `BadParameter` and `NotImplemented` for settings that are refused at the start as well.
    pub async fn follow_file(&self, file: FileSettings) -> Result<()> {
        check_settings(&file, self.key_store())?;
        take_over_settings(self.store(), &file).await?;
        self.0.file.store(Arc::new(file));
        Ok(())
    }
}

/// A file that does not choose the algorithms leaves them as they are.
fn keep_suite(wanted: &mut AuthPreferenceV2, stored: &AuthPreferenceV2) {
    let spec = wanted.spec.get_or_insert_default();
    if spec.signature_algorithm_suite == 0 {
        spec.signature_algorithm_suite = stored.spec.as_ref().map_or(0, |spec| spec.signature_algorithm_suite);
    }
}

/// The write that makes a setting what the file says; `None` when it is that already.
fn take_over<K: Kind>(store: &Store, from_file: Option<&K::Value>) -> Result<Option<ConditionalAction>>
where
    K::Value: PartialEq,
{
    let stored = store.cached::<K>("").ok();
    let wanted = match (from_file, &stored) {
        (Some(_), _) => setting(from_file)?,
        (None, None) => defaults::default_setting(),
        (None, Some(stored)) if stored.origin() == Some(Origin::ConfigFile) => {
            let mut editable = (**stored).clone();
            editable.set_origin(Origin::Dynamic);
            editable
        }
        (None, Some(_)) => return Ok(None),
    };
    let same = stored.is_some_and(|stored| {
        let mut stored = (*stored).clone();
        stored.set_revision(String::new());
        stored == wanted
    });
    if same { Ok(None) } else { store::put::<K>(&wanted, Condition::Whatever).map(Some) }
}

/// Settings of the file, or the defaults.
fn setting<T: Resource>(from_file: Option<&T>) -> Result<T> {
    let Some(from_file) = from_file else { return Ok(defaults::default_setting()) };
    let mut setting = from_file.clone();
    setting.set_origin(Origin::ConfigFile);
    setting.check_and_set_defaults().map_err(Error::from)?;
    Ok(setting)
}

fn networking(config: &AuthConfig) -> Result<ClusterNetworkingConfigV2> {
    setting(config.networking.as_ref())
}

fn recording(config: &AuthConfig) -> Result<SessionRecordingConfigV2> {
    setting(config.recording.as_ref())
}

fn audit_settings(config: &AuthConfig) -> Result<ClusterAuditConfigV2> {
    setting(config.audit.as_ref())
}

fn static_tokens(file: &FileSettings) -> Result<StaticTokensV2> {
    let spec = StaticTokensSpecV2 { static_tokens: file.static_tokens.clone() };
    let mut tokens = StaticTokensV2 { spec: Some(spec), ..StaticTokensV2::default() };
    tokens.check_and_set_defaults().map_err(Error::from)?;
    Ok(tokens)
}

/// What can wait until the service answers: authorities with slow keys, and preset roles of newer versions.
pub(crate) async fn complete(auth: &Auth) {
    for ca_type in CaType::ALL {
        if let Err(error) = auth.ensure_authority(ca_type).await {
            tracing::warn!(%ca_type, %error, "a certificate authority could not be made, it is tried again when needed");
        }
    }
    for role in presets::roles() {
        if let Err(error) = complete_preset(auth.store(), role).await {
            tracing::warn!(%error, "a preset role could not be brought up to date");
        }
    }
}

async fn complete_preset(store: &Store, preset: wire::types::RoleV6) -> Result<()> {
    match store.cached::<kind::Role>(preset.name()) {
        Err(e) if e.kind == ErrorKind::NotFound => store.create::<kind::Role>(preset).await.map(drop),
        Err(e) => Err(e),
        Ok(stored) if !presets::add_missing_rules(&mut (*stored).clone()) => Ok(()),
        Ok(stored) => {
            let change = |role: &mut wire::types::RoleV6| {
                presets::add_missing_rules(role);
                Ok(())
            };
            store.change::<kind::Role>(stored.name(), change).await.map(drop)
        }
    }
}
