//! Notifications: texts for single users, and for all users of some roles or with some rights.
//!
//! Whoever has the verbs on `notification` makes them. Everybody lists their own, marks them as read and puts them
//! away; only administrators list those of others.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use rbac::RuleContext;
use resources::{NOTIFICATION_CONTENT, Resource as _};
use wire::error::{Error, Result};
use wire::notifications::notification_service_server::NotificationService;
use wire::notifications::{
    self, GlobalNotification, ListNotificationsRequest, ListNotificationsResponse, Notification, NotificationFilters,
    NotificationState, UserLastSeenNotification, UserNotificationState, global_notification_spec::Matcher,
};
use wire::time::{moment, timestamp};
use wire::types::{AccessRequestSpecV3, Metadata, RoleConditions};

use super::rpcs::service;
use super::{Api, kinds, named, page, required};
use crate::authz::AuthContext;
use crate::store::kind;

const KIND: &str = "notification";
/// How long a notification is kept when it does not say.
const DEFAULT_LIFE: TimeDelta = TimeDelta::days(30);
/// How long a notification is kept at most.
const MAX_LIFE: TimeDelta = TimeDelta::days(90);
/// Most notifications of one user, and most of all users.
const MAX_NOTIFICATIONS: usize = 1000;
/// Says in a list that the user has opened a notification.
const CLICKED: &str = "teleport.internal/notification-clicked";
/// Says in a list whether a notification is one user's own: `user` or `global`.
const SCOPE: &str = "teleport.internal/notification-scope";

service! {
    NotificationService, |api, context, message|
    unary {
        create_user_notification(notifications::CreateUserNotificationRequest) -> Notification =
            create_user(api, message).await;
        delete_user_notification(notifications::DeleteUserNotificationRequest) -> () = {
            let id = kinds::two_part(named(&message.username, "username")?, &message.notification_id)?;
            kinds::delete::<kind::UserNotification>(api, context, &id).await
        };
        create_global_notification(notifications::CreateGlobalNotificationRequest) -> GlobalNotification =
            create_global(api, message.global_notification).await;
        delete_global_notification(notifications::DeleteGlobalNotificationRequest) -> () =
            kinds::delete::<kind::GlobalNotification>(api, context, &message.notification_id).await;
        list_notifications(ListNotificationsRequest) -> ListNotificationsResponse = list(api, context, message).await;
        upsert_user_notification_state(notifications::UpsertUserNotificationStateRequest) -> UserNotificationState =
            mark(api, context, message).await;
        upsert_user_last_seen_notification(notifications::UpsertUserLastSeenNotificationRequest)
            -> UserLastSeenNotification = see(api, context, message).await;
    }
}

async fn create_user(api: &Api, message: notifications::CreateUserNotificationRequest) -> Result<Notification> {
    let username = named(&message.username, "username")?;
    let mut notification = required(message.notification, "notification")?;
    api.auth().store().cached::<kind::User>(username)?;
    if api.auth().store().count_below::<kind::UserNotification>(username) >= MAX_NOTIFICATIONS {
        return Err(Error::limit_exceeded(format!("user {username:?} has {MAX_NOTIFICATIONS} notifications already")));
    }
    let now = api.auth().now();
    notification.metadata_mut().expires = Some(timestamp(end(notification.expires(), now)?));
    // Names are made here: nobody replaces a notification by naming another like it.
    notification.metadata_mut().name.clear();
    let spec = notification.spec.get_or_insert_default();
    username.clone_into(&mut spec.username);
    spec.created = Some(timestamp(now));
    notification.check_and_set_defaults().map_err(Error::from)?;
    let stored = api.auth().store().create::<kind::UserNotification>(notification).await?;
    Ok((*stored).clone())
}

async fn create_global(api: &Api, global: Option<GlobalNotification>) -> Result<GlobalNotification> {
    let mut global = required(global, "global_notification")?;
    if api.auth().store().cached_list::<kind::GlobalNotification>().len() >= MAX_NOTIFICATIONS {
        return Err(Error::limit_exceeded(format!("there are {MAX_NOTIFICATIONS} notifications already")));
    }
    let now = api.auth().now();
    let inner = global.spec.get_or_insert_default().notification.get_or_insert_default();
    let wanted = inner.expires();
    inner.spec.get_or_insert_default().created = Some(timestamp(now));
    let expires = end(global.expires().or(wanted), now)?;
    global.metadata_mut().name.clear();
    global.metadata_mut().expires = Some(timestamp(expires));
    global.check_and_set_defaults().map_err(Error::from)?;
    let stored = api.auth().store().create::<kind::GlobalNotification>(global).await?;
    Ok((*stored).clone())
}

fn end(wanted: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Result<DateTime<Utc>> {
    match wanted {
        None => Ok(now + DEFAULT_LIFE),
        Some(at) if at <= now => Err(Error::bad_parameter("metadata.expires: the notification would be gone at once")),
        Some(at) if at > now + MAX_LIFE => {
            Err(Error::bad_parameter(format!("metadata.expires: at most {} days from now", MAX_LIFE.num_days())))
        }
        Some(at) => Ok(at),
    }
}

/// One's own notifications, or with filters and the verbs those of others; the newest first.
async fn list(
    api: &Api,
    context: &AuthContext,
    message: ListNotificationsRequest,
) -> Result<ListNotificationsResponse> {
    let limit = page::limit(message.page_size)?;
    let (mut found, seen) = match message.filters.filter(|filters| *filters != NotificationFilters::default()) {
        Some(filters) => {
            context.require(KIND, &["list", "read"])?;
            (filtered(api, &filters), None)
        }
        None if context.is_local_person() => (own(api, context), last_seen(api, context.username())),
        None if context.is_admin() => (filtered(api, &NotificationFilters::default()), None),
        None => return Err(Error::access_denied("access denied: only users of this cluster have notifications")),
    };
    let created = |one: &Notification| one.spec.as_ref().and_then(|spec| moment(spec.created.as_ref()));
    found.sort_by(|a, b| created(b).cmp(&created(a)).then_with(|| a.name().cmp(b.name())));
    let start = match message.page_token.as_str() {
        "" => 0,
        token => found.iter().position(|one| one.name() == token).unwrap_or(found.len()),
    };
    let mut notifications = found.split_off(start);
    let mut next_page_token = notifications.get(limit).map(|one| one.name().to_owned()).unwrap_or_default();
    notifications.truncate(limit);
    page::fit(&mut notifications, &mut next_page_token, |one| one.name().to_owned());
    Ok(ListNotificationsResponse {
        notifications,
        next_page_token,
        user_last_seen_notification_timestamp: seen.map(timestamp),
    })
}

fn last_seen(api: &Api, user: &str) -> Option<DateTime<Utc>> {
    let seen = api.auth().store().cached::<kind::LastSeenNotification>(user).ok()?;
    seen.status.as_ref().and_then(|status| moment(status.last_seen_time.as_ref()))
}

fn own(api: &Api, context: &AuthContext) -> Vec<Notification> {
    let (store, user) = (api.auth().store(), context.username());
    let states: BTreeMap<String, i32> = store
        .cached_below::<kind::NotificationState>(user)
        .iter()
        .filter_map(|state| {
            let about = state.spec.as_ref()?.notification_id.clone();
            Some((about, state.status.as_ref()?.notification_state))
        })
        .collect();
    let mine = store.cached_below::<kind::UserNotification>(user).into_iter().map(|one| scoped(&one, "user"));
    let global = store.cached_list::<kind::GlobalNotification>().into_iter().filter(|one| is_for(context, one));
    let all = mine.chain(global.filter_map(|one| inner(&one)));
    let kept = all.filter(|one| states.get(one.name()) != Some(&(NotificationState::Dismissed as i32)));
    kept.map(|mut one| {
        let clicked = states.get(one.name()) == Some(&(NotificationState::Clicked as i32));
        one.metadata_mut().labels.insert(CLICKED.to_owned(), clicked.to_string());
        one
    })
    .collect()
}

/// Those that an administrator asks for: of a user, or of many users; all when nothing says which.
fn filtered(api: &Api, filters: &NotificationFilters) -> Vec<Notification> {
    let store = api.auth().store();
    let mut found = Vec::new();
    if !filters.global_only {
        let of_users = match filters.username.as_str() {
            "" => store.cached_list::<kind::UserNotification>(),
            user => store.cached_below::<kind::UserNotification>(user),
        };
        found.extend(of_users.iter().map(|one| scoped(one, "user")));
    }
    if filters.username.is_empty() {
        found.extend(store.cached_list::<kind::GlobalNotification>().iter().filter_map(|one| inner(one)));
    }
    found.retain(|one| {
        let labels = &one.metadata().labels;
        let by_people = one.sub_kind.starts_with("user-created");
        (by_people || !filters.user_created_only) && filters.labels.iter().all(|(k, v)| labels.get(k) == Some(v))
    });
    found
}

fn scoped(one: &Notification, scope: &str) -> Notification {
    let mut one = one.clone();
    let labels = &mut one.metadata_mut().labels;
    labels.insert(SCOPE.to_owned(), scope.to_owned());
    labels.entry(NOTIFICATION_CONTENT.to_owned()).or_default();
    one
}

fn inner(global: &GlobalNotification) -> Option<Notification> {
    global.spec.as_ref()?.notification.as_ref().map(|one| scoped(one, "global"))
}

fn is_for(context: &AuthContext, global: &GlobalNotification) -> bool {
    let Some(spec) = &global.spec else { return false };
    match &spec.matcher {
        None => false,
        Some(Matcher::All(all)) => *all,
        Some(Matcher::ByRoles(by)) => {
            enough(spec.match_all_conditions, by.roles.iter().map(|role| context.role_names().contains(role)))
        }
        Some(Matcher::ByPermissions(by)) => {
            enough(spec.match_all_conditions, by.role_conditions.iter().map(|wanted| may(context, wanted)))
        }
    }
}

/// Whether all of the conditions are met, or one of them.
fn enough(all: bool, mut conditions: impl Iterator<Item = bool>) -> bool {
    if all { conditions.all(|met| met) } else { conditions.any(|met| met) }
}

/// Whether the caller's roles allow everything that is said here. A rule without resources or verbs says nothing, and
/// fits nobody.
fn may(context: &AuthContext, wanted: &RoleConditions) -> bool {
    let Some(roles) = context.roles() else { return false };
    let rules = wanted.rules.iter().all(|rule| {
        let kinds = rule.resources.iter();
        let mut asked = kinds.flat_map(|kind| rule.verbs.iter().map(move |verb| (kind, verb)));
        let says = !rule.resources.is_empty() && !rule.verbs.is_empty();
        says && asked.all(|(kind, verb)| roles.check_rule(kind, verb, &RuleContext::new()).is_allowed())
    });
    let reviews = wanted.review_requests.iter().all(|reviews| {
        reviews.roles.iter().all(|role| {
            let request = AccessRequestSpecV3 { roles: vec![role.clone()], ..Default::default() };
            roles.check_review(&request).is_allowed()
        })
    });
    let nothing = wanted.rules.is_empty() && wanted.review_requests.is_none();
    rules && reviews && !nothing
}

fn require_self(context: &AuthContext, username: &str) -> Result<()> {
    if context.is_user(named(username, "username")?) {
        return Ok(());
    }
    Err(Error::access_denied("access denied: users deal with their own notifications only"))
}

/// Notes that a user opened a notification or put it away; for as long as it exists.
async fn mark(
    api: &Api,
    context: &AuthContext,
    message: notifications::UpsertUserNotificationStateRequest,
) -> Result<UserNotificationState> {
    require_self(context, &message.username)?;
    let told = required(message.user_notification_state, "user_notification_state")?;
    let about = told.spec.unwrap_or_default().notification_id;
    let status = told.status.unwrap_or_default();
    if !matches!(
        NotificationState::try_from(status.notification_state),
        Ok(NotificationState::Clicked | NotificationState::Dismissed)
    ) {
        return Err(Error::bad_parameter("status.notification_state: expected clicked or dismissed"));
    }
    let known = own(api, context).into_iter().find(|one| one.name() == about);
    let known = known.ok_or_else(|| Error::not_found(format!("notification {about:?} not found")))?;
    let mut state = UserNotificationState {
        metadata: Some(Metadata { name: message.username, expires: known.metadata().expires, ..Metadata::default() }),
        spec: Some(notifications::UserNotificationStateSpec { notification_id: about }),
        status: Some(status),
        ..UserNotificationState::default()
    };
    state.check_and_set_defaults().map_err(Error::from)?;
    let stored = api.auth().store().upsert::<kind::NotificationState>(state).await?;
    Ok((*stored).clone())
}

/// Notes when a user last looked. Looking never goes back in time.
async fn see(
    api: &Api,
    context: &AuthContext,
    message: notifications::UpsertUserLastSeenNotificationRequest,
) -> Result<UserLastSeenNotification> {
    require_self(context, &message.username)?;
    let told = required(message.user_last_seen_notification, "user_last_seen_notification")?;
    let now = api.auth().now();
    let told = told.status.as_ref().and_then(|status| moment(status.last_seen_time.as_ref()));
    let at = told.ok_or_else(|| Error::bad_parameter("status.last_seen_time: missing value"))?.min(now);
    let at = last_seen(api, &message.username).map_or(at, |before| before.max(at));
    let mut seen = UserLastSeenNotification {
        metadata: Some(Metadata { name: message.username, ..Metadata::default() }),
        status: Some(notifications::UserLastSeenNotificationStatus { last_seen_time: Some(timestamp(at)) }),
        ..UserLastSeenNotification::default()
    };
    seen.check_and_set_defaults().map_err(Error::from)?;
    let stored = api.auth().store().upsert::<kind::LastSeenNotification>(seen).await?;
    Ok((*stored).clone())
}
