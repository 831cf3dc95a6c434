//! Settings that exist once in a cluster.

use std::{env, sync::Arc};

use audit::codes;
use resources::{Origin, Resource, check_second_factor_allowed, cluster};
use wire::{
    error::{Error, Result},
    events,
    types::{AuthPreferenceV2, ClusterNetworkingConfigV2, SessionRecordingConfigV2},
};

use crate::{Auth, Caller, authority::check_suite, store::kind, store::kind::Kind};

/// How a setting is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// There must be none; there always is one.
    Create,
    /// Whatever is there.
    Upsert,
    /// In place of the state its revision names.
    Update,
}

impl Auth {
    /// Replaces the authentication settings.
    ///
    /// # Errors
    /// `BadParameter` for settings that contradict themselves, `CompareFailed` when they were changed since.
    pub async fn set_auth_preference(
        &self,
        caller: &Caller,
        mut preference: AuthPreferenceV2,
        write: Write,
    ) -> Result<AuthPreferenceV2> {
        let spec = preference.spec.get_or_insert_default();
        if spec.signature_algorithm_suite == 0 {
            spec.signature_algorithm_suite = self.signature_suite().to_number();
        }
        preference.check_and_set_defaults().map_err(Error::from)?;
        check_second_factor(&preference)?;
        check_suite(self.key_store(), &preference)?;
        let stored = self.set::<kind::AuthPreference>(preference, write).await?;
        self.emit_auth_preference(caller).await?;
        Ok(stored)
    }

    /// Puts the authentication settings back to those of the configuration file, or to the defaults.
    ///
    /// # Errors
    /// `BadParameter` while they come from the configuration file.
    pub async fn reset_auth_preference(&self, caller: &Caller) -> Result<AuthPreferenceV2> {
        let mut defaults = self.0.file.load().auth_preference.clone().unwrap_or_else(cluster::auth_preference);
        defaults.spec.get_or_insert_default().signature_algorithm_suite = self.signature_suite().to_number();
        let stored = self.reset::<kind::AuthPreference>(defaults).await?;
        self.emit_auth_preference(caller).await?;
        Ok(stored)
    }

    /// Replaces the networking settings.
    ///
    /// # Errors
    /// As [`set_auth_preference`](Self::set_auth_preference).
    pub async fn set_networking(
        &self,
        caller: &Caller,
        mut config: ClusterNetworkingConfigV2,
        write: Write,
    ) -> Result<ClusterNetworkingConfigV2> {
        config.check_and_set_defaults().map_err(Error::from)?;
        let stored = self.set::<kind::NetworkingConfig>(config, write).await?;
        self.emit_networking(caller).await?;
        Ok(stored)
    }

    /// Puts the networking settings back to those of the configuration file, or to the defaults.
    ///
    /// # Errors
    /// `BadParameter` while they come from the configuration file.
    pub async fn reset_networking(&self, caller: &Caller) -> Result<ClusterNetworkingConfigV2> {
        let defaults = self.0.file.load().networking.clone().unwrap_or_else(cluster::networking_config);
        let stored = self.reset::<kind::NetworkingConfig>(defaults).await?;
        self.emit_networking(caller).await?;
        Ok(stored)
    }

    /// Replaces the recording settings.
    ///
    /// # Errors
    /// As [`set_auth_preference`](Self::set_auth_preference).
    pub async fn set_recording_config(
        &self,
        caller: &Caller,
        mut config: SessionRecordingConfigV2,
        write: Write,
    ) -> Result<SessionRecordingConfigV2> {
        config.check_and_set_defaults().map_err(Error::from)?;
        let stored = self.set::<kind::RecordingConfig>(config, write).await?;
        // What is stored is told, whether it can be followed here or not.
        self.emit_recording(caller).await?;
        self.follow_sealing().await?;
        Ok(stored)
    }

    /// Puts the recording settings back to those of the configuration file, or to the defaults.
    ///
    /// # Errors
    /// `BadParameter` while they come from the configuration file.
    pub async fn reset_recording_config(&self, caller: &Caller) -> Result<SessionRecordingConfigV2> {
        let defaults = self.0.file.load().recording.clone().unwrap_or_else(cluster::session_recording_config);
        let stored = self.reset::<kind::RecordingConfig>(defaults).await?;
        // What is stored is told, whether it can be followed here or not.
        self.emit_recording(caller).await?;
        self.follow_sealing().await?;
        Ok(stored)
    }

    async fn set<K: Kind>(&self, mut setting: K::Value, write: Write) -> Result<K::Value> {
        setting.set_origin(Origin::Dynamic);
        let stored = match write {
            Write::Create => self.store().create::<K>(setting).await?,
            Write::Upsert => self.store().upsert::<K>(setting).await?,
            Write::Update => self.store().update::<K>(setting).await?,
        };
        Ok(Arc::unwrap_or_clone(stored))
    }

    /// What was written over the configuration file gives way to what stands in it; as nobody insists on that until
    /// the next start, it counts as a default and may be edited.
    async fn reset<K: Kind>(&self, mut defaults: K::Value) -> Result<K::Value> {
        defaults.set_origin(Origin::Defaults);
        defaults.check_and_set_defaults().map_err(Error::from)?;
        let stored = self.store().cached::<K>("")?;
        if stored.origin() == Some(Origin::ConfigFile) {
            let text = format!("{} comes from the configuration file and cannot be removed while it is there", K::NAME);
            return Err(Error::bad_parameter(text));
        }
        self.store().upsert::<K>(defaults).await.map(Arc::unwrap_or_clone)
    }

    async fn emit_auth_preference(&self, caller: &Caller) -> Result<()> {
        self.emit(codes::AUTH_PREFERENCE_UPDATE.event(events::AuthPreferenceUpdate {
            status: Some(done()),
            user: Some(caller.user_metadata()),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await
    }

    async fn emit_networking(&self, caller: &Caller) -> Result<()> {
        self.emit(codes::CLUSTER_NETWORKING_CONFIG_UPDATE.event(events::ClusterNetworkingConfigUpdate {
            status: Some(done()),
            user: Some(caller.user_metadata()),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await
    }

    /// Says that how sessions are recorded was changed.
    pub(crate) async fn emit_recording(&self, caller: &Caller) -> Result<()> {
        self.emit(codes::SESSION_RECORDING_CONFIG_UPDATE.event(events::SessionRecordingConfigUpdate {
            status: Some(done()),
            user: Some(caller.user_metadata()),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await
    }
}

fn done() -> events::Status {
    events::Status { success: true, ..events::Status::default() }
}

/// Refuses settings under which a password alone is enough, unless the operator insists.
pub(crate) fn check_second_factor(preference: &AuthPreferenceV2) -> Result<()> {
    check_second_factor_allowed(preference, is_no_second_factor_allowed()).map_err(Error::from)
}

/// Whether the operator insists on logins with a password alone.
fn is_no_second_factor_allowed() -> bool {
    env::var("TELEPORT_ALLOW_NO_SECOND_FACTOR").is_ok_and(|value| matches!(value.as_str(), "yes" | "true"))
}
