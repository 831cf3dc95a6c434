//! When agents may be upgraded.

use wire::error::{Error, ErrorKind, Result};
use wire::types::ClusterMaintenanceConfigV1;

use super::Api;
use crate::Write;
use crate::authz::AuthContext;
use crate::store::kind;

/// Replaces the window. Older programs count changes in a nonce: whoever sends one must have seen the last.
pub async fn update(api: &Api, context: &AuthContext, mut config: ClusterMaintenanceConfigV1) -> Result<()> {
    let stored = match api.auth().store().get::<kind::MaintenanceConfig>("").await {
        Ok(stored) => Some(stored),
        Err(error) if error.kind == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let last = stored.map_or(0, |stored| stored.nonce);
    if config.nonce != 0 && config.nonce != last.saturating_add(1) && config.nonce != last {
        return Err(Error::compare_failed("the maintenance configuration was changed meanwhile, try again"));
    }
    config.nonce = last.saturating_add(1);
    let window =
        config.spec.as_ref().and_then(|spec| spec.agent_upgrades.as_ref()).map(|upgrades| upgrades.utc_start_hour);
    api.auth().write_record::<kind::MaintenanceConfig>(context.caller(), config, Write::Upsert).await?;
    let start = window.map(|hour| format!("{hour:02}:00")).unwrap_or_default();
    let event = wire::events::UpgradeWindowStartUpdate {
        user: Some(context.caller().user_metadata()),
        upgrade_window_start: Some(wire::events::UpgradeWindowStartMetadata { upgrade_window_start: start }),
        ..Default::default()
    };
    api.auth().emit(audit::codes::UPGRADE_WINDOW_UPDATE.event(event)).await
}
