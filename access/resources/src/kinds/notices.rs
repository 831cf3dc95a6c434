//! What users are told, and what programs remember for them: notifications and the data of plugins.

use uuid::Uuid;
use wire::notifications::{
    GlobalNotification, Notification, UserLastSeenNotification, UserNotificationState,
    global_notification_spec::Matcher,
};
use wire::types::PluginDataV3;

use super::{required, table::kinds};
use crate::{Place, Resource, ResourceError, Result, kind, places};

/// Labels of a notification that hold its text.
pub const NOTIFICATION_TITLE: &str = "teleport.internal/notification-title";
/// The longer text below the title.
pub const NOTIFICATION_CONTENT: &str = "teleport.internal/notification-content";

/// Longest text of a notification, in bytes.
const MAX_TEXT: usize = 4096;

kinds! {
    Notification: kind::NOTIFICATION, "v1", plain_header {
        place: |one| {
            let user = one.spec.as_ref().map_or("", |spec| &spec.username);
            Place::new(places::USER_NOTIFICATIONS, [user, one.name()])
        },
        defaults: |one| {
            one.spec.get_or_insert_default();
            if one.name().is_empty() {
                one.metadata_mut().name = Uuid::new_v4().to_string();
            }
        },
        check: |one| {
            required(&[("spec.username", one.spec.as_ref().map_or("", |spec| &spec.username))])?;
            check_text(one)
        },
    }
    GlobalNotification: kind::GLOBAL_NOTIFICATION, "v1", plain_header {
        place: |one| Place::new(places::GLOBAL_NOTIFICATIONS, [one.name()]),
        defaults: |one| {
            if one.name().is_empty() {
                one.metadata_mut().name = Uuid::new_v4().to_string();
            }
            let (name, expires) = (one.name().to_owned(), one.metadata().expires);
            let inner = one.spec.get_or_insert_default().notification.get_or_insert_default();
            inner.set_header();
            inner.spec.get_or_insert_default();
            inner.metadata_mut().name = name;
            inner.metadata_mut().expires = expires;
        },
        check: check_global,
    }
    UserNotificationState: kind::USER_NOTIFICATION_STATE, "v1", plain_header {
        place: |state| {
            let about = state.spec.as_ref().map_or("", |spec| &spec.notification_id);
            Place::new(places::NOTIFICATION_STATES, [state.name(), about])
        },
        defaults: |state| {
            state.spec.get_or_insert_default();
            state.status.get_or_insert_default();
        },
        check: |state| {
            required(&[("spec.notification_id", state.spec.as_ref().map_or("", |spec| &spec.notification_id))])
        },
    }
    UserLastSeenNotification: kind::USER_LAST_SEEN_NOTIFICATION, "v1", plain_header {
        place: |seen| Place::new(places::LAST_SEEN_NOTIFICATIONS, [seen.name()]),
        defaults: |seen| { seen.status.get_or_insert_default(); },
        check: |_| Ok(()),
    }
    PluginDataV3: kind::PLUGIN_DATA, "v3", plain_header {
        place: |data| Place::new(places::PLUGIN_DATA, [data.name(), "params"]),
        defaults: |data| {
            data.sub_kind = kind::ACCESS_REQUEST.to_owned();
            data.spec.get_or_insert_default();
        },
        check: |_| Ok(()),
    }
}

fn check_text(one: &Notification) -> Result<()> {
    let labels = &one.metadata().labels;
    let title = labels.get(NOTIFICATION_TITLE).map_or("", String::as_str);
    required(&[("metadata.labels[\"teleport.internal/notification-title\"]", title)])?;
    required(&[("sub_kind", &one.sub_kind)])?;
    match labels.values().find(|text| text.len() > MAX_TEXT) {
        Some(_) => Err(ResourceError::field("metadata.labels", format!("a text is longer than {MAX_TEXT} bytes"))),
        None => Ok(()),
    }
}

fn check_global(one: &GlobalNotification) -> Result<()> {
    let spec = one.spec.clone().unwrap_or_default();
    match &spec.matcher {
        None | Some(Matcher::All(false)) => {
            return Err(ResourceError::field("spec", "expected one of all, by_roles and by_permissions"));
        }
        Some(Matcher::ByRoles(by)) if by.roles.is_empty() => {
            return Err(ResourceError::field("spec.by_roles.roles", "missing value"));
        }
        Some(Matcher::ByPermissions(by)) if by.role_conditions.is_empty() => {
            return Err(ResourceError::field("spec.by_permissions.role_conditions", "missing value"));
        }
        Some(_) => {}
    }
    check_text(&spec.notification.unwrap_or_default())
}
