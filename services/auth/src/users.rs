//! Users and roles.

use std::sync::Arc;

use audit::codes;
use resources::{Place, Resource, places};
use wire::{
    accesslist::AccessList,
    error::{Error, ErrorKind, Result},
    events, time,
    types::{CreatedBy, RoleV6, UserRef, UserV2},
};

use crate::{
    Auth, Caller,
    login::is_local,
    store::{
        self,
        kind::{self, Kind as _},
    },
};

impl Auth {
    /// A user; secrets are never part of it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_user(&self, name: &str, _with_secrets: bool) -> Result<UserV2> {
        self.store().cached::<kind::User>(name).map(Arc::unwrap_or_clone)
    }

    /// Makes a user.
    ///
    /// # Errors
    /// `AlreadyExists`; `BadParameter` for malformed users and roles that do not exist.
    pub async fn create_user(&self, caller: &Caller, user: UserV2) -> Result<UserV2> {
        let user = self.checked_user(caller, user)?;
        let stored = self.store().create::<kind::User>(user).await?;
        self.emit_user_created(caller, &stored).await?;
        Ok(Arc::unwrap_or_clone(stored))
    }

    /// Changes a user from the state its revision names.
    ///
    /// # Errors
    /// `CompareFailed` when the user was changed since; otherwise as [`create_user`](Self::create_user).
    pub async fn update_user(&self, caller: &Caller, user: UserV2) -> Result<UserV2> {
        let before = self.store().cached::<kind::User>(user.name())?;
        let mut user = self.checked_user(caller, user)?;
        keep_what_is_kept(&mut user, &before);
        if user.revision().is_empty() {
            user.set_revision(before.revision());
        }
        let stored = self.store().update::<kind::User>(user).await?;
        self.emit_user_updated(caller, &stored).await?;
        Ok(Arc::unwrap_or_clone(stored))
    }

    /// Makes a user or replaces the one there is.
    ///
    /// # Errors
    /// As [`create_user`](Self::create_user), except `AlreadyExists`.
    pub async fn upsert_user(&self, caller: &Caller, user: UserV2) -> Result<UserV2> {
        let mut user = self.checked_user(caller, user)?;
        let before = self.store().cached::<kind::User>(user.name()).ok();
        if let Some(before) = &before {
            keep_what_is_kept(&mut user, before);
        }
        let stored = self.store().upsert::<kind::User>(user).await?;
        match before {
            Some(_) => self.emit_user_updated(caller, &stored).await?,
            None => self.emit_user_created(caller, &stored).await?,
        }
        Ok(Arc::unwrap_or_clone(stored))
    }

    /// Removes a user with everything that belongs to it.
    ///
    /// # Errors
    /// `NotFound`; `BadParameter` while access lists have no other owner than this user.
    pub async fn delete_user(&self, caller: &Caller, name: &str) -> Result<()> {
        let user = self.store().cached::<kind::User>(name)?;
        // The record goes last, so that a removal that failed can be repeated: nothing is left for whoever gets the name later.
        // An identity provider gives a name to one person for ever, and makes the user anew at the next login.
        if is_local(&user) {
            self.forget_places_of(caller, name).await?;
        }
        self.forget_belongings_of(name).await?;
        self.store().delete::<kind::User>(name).await?;
        // Once more: a password or a device may have been on its way while the user was still there.
        let forgotten = self.forget_belongings_of(name).await;
        self.emit(codes::USER_DELETE.event(events::UserDelete {
            user: Some(caller.user_metadata()),
            resource: Some(events::ResourceMetadata { name: name.to_owned(), ..Default::default() }),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await?;
        forgotten
    }

    async fn forget_belongings_of(&self, name: &str) -> Result<()> {
        // First what lets somebody add to the rest.
        self.forget_sessions_of(name).await?;
        let record = kind::User::key(name)?;
        let everything = store::key_at(&Place::new(places::USERS, [name]))?.children();
        let backend = self.store().backend();
        for item in backend.get_range(&everything, 0).await.map_err(|e| store::storage(&e))? {
            if item.key != record {
                gone_already(backend.delete(&item.key).await.map_err(|e| store::storage(&e)))?;
            }
        }
        gone_already(self.store().delete::<kind::UserLoginState>(name).await)?;
        self.forget_notifications_of(name).await
    }

    async fn forget_notifications_of(&self, name: &str) -> Result<()> {
        for one in self.store().cached_below::<kind::UserNotification>(name) {
            gone_already(self.store().delete::<kind::UserNotification>(&format!("{name}/{}", one.name())).await)?;
        }
        for state in self.store().cached_below::<kind::NotificationState>(name) {
            let about = state.spec.as_ref().map_or("", |spec| &spec.notification_id);
            gone_already(self.store().delete::<kind::NotificationState>(&format!("{name}/{about}")).await)?;
        }
        gone_already(self.store().delete::<kind::LastSeenNotification>(name).await)
    }

    async fn forget_sessions_of(&self, name: &str) -> Result<()> {
        for session in self.store().list::<kind::WebSession>().await? {
            if session.spec.as_ref().is_some_and(|spec| spec.user == name) {
                gone_already(self.store().delete::<kind::WebSession>(session.name()).await)?;
            }
        }
        for token in self.store().list::<kind::UserToken>().await? {
            if token.spec.as_ref().is_some_and(|spec| spec.user == name) {
                gone_already(self.store().delete::<kind::UserToken>(token.name()).await)?;
                gone_already(self.store().delete::<kind::UserTokenSecrets>(token.name()).await)?;
            }
        }
        Ok(())
    }

    fn checked_user(&self, caller: &Caller, mut user: UserV2) -> Result<UserV2> {
        user.check_and_set_defaults().map_err(Error::from)?;
        let now = self.now();
        let expires = user.expires();
        let title = user.title();
        let spec = user.spec.get_or_insert_default();
        // Secrets are set by their owners only.
        spec.local_auth = None;
        for role in &spec.roles {
            self.role(role).map_err(|e| match e.kind {
                ErrorKind::NotFound => Error::not_found(format!("{title}: role {role:?} not found")),
                _ => e,
            })?;
        }
        if spec.created_by.as_ref().is_none_or(|by| by.user.as_ref().is_none_or(|user| user.name.is_empty())) {
            let connector = spec.created_by.take().and_then(|by| by.connector);
            let user = Some(UserRef { name: caller.user_name() });
            spec.created_by = Some(CreatedBy { connector, time: Some(time::timestamp(now)), user });
        }
        if expires.is_some_and(|at| at <= now) {
            return Err(Error::bad_parameter(format!("{title} would have expired already")));
        }
        Ok(user)
    }

    async fn emit_user_created(&self, caller: &Caller, user: &UserV2) -> Result<()> {
        self.emit(codes::USER_CREATE.event(events::UserCreate {
            user: Some(caller.user_metadata()),
            resource: Some(resource_metadata(user)),
            roles: roles_of(user),
            connector: connector_of(user),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await
    }

    async fn emit_user_updated(&self, caller: &Caller, user: &UserV2) -> Result<()> {
        self.emit(codes::USER_UPDATE.event(events::UserUpdate {
            user: Some(caller.user_metadata()),
            resource: Some(resource_metadata(user)),
            roles: roles_of(user),
            connector: connector_of(user),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await
    }

    /// Makes a role.
    ///
    /// # Errors
    /// `AlreadyExists`; `BadParameter` for malformed roles.
    pub async fn create_role(&self, caller: &Caller, role: RoleV6) -> Result<RoleV6> {
        let role = checked_role(role)?;
        let stored = self.store().create::<kind::Role>(role).await?;
        self.emit_role_created(caller, &stored).await?;
        Ok(Arc::unwrap_or_clone(stored))
    }

    /// Changes a role from the state its revision names.
    ///
    /// # Errors
    /// `CompareFailed` when the role was changed since; `BadParameter` for malformed roles.
    pub async fn update_role(&self, caller: &Caller, role: RoleV6) -> Result<RoleV6> {
        let mut role = checked_role(role)?;
        if role.revision().is_empty() {
            let revision = self.role(role.name())?.revision().to_owned();
            role.set_revision(revision);
        }
        let stored = self.store().update::<kind::Role>(role).await?;
        self.emit_role_updated(caller, &stored).await?;
        Ok(Arc::unwrap_or_clone(stored))
    }

    /// Makes a role or replaces the one there is.
    ///
    /// # Errors
    /// `BadParameter` for malformed roles.
    pub async fn upsert_role(&self, caller: &Caller, role: RoleV6) -> Result<RoleV6> {
        let role = checked_role(role)?;
        let existed = self.role(role.name()).is_ok();
        let stored = self.store().upsert::<kind::Role>(role).await?;
        match existed {
            true => self.emit_role_updated(caller, &stored).await?,
            false => self.emit_role_created(caller, &stored).await?,
        }
        Ok(Arc::unwrap_or_clone(stored))
    }

    /// Removes a role that nobody has.
    ///
    /// # Errors
    /// `NotFound`; `BadParameter` while users have it.
    pub async fn delete_role(&self, caller: &Caller, name: &str) -> Result<()> {
        self.role(name)?;
        let users = self.store().cached_list::<kind::User>();
        if let Some(user) = users.iter().find(|user| roles_of(user).iter().any(|role| role == name)) {
            let text = format!("role {name:?} is still in use by user {:?}", user.name());
            return Err(Error::bad_parameter(text));
        }
        let lists = self.store().cached_list::<kind::AccessList>();
        if let Some(list) = lists.iter().find(|list| grants_role(list, name)) {
            let text = format!("role {name:?} is still granted by access list {:?}", list.name());
            return Err(Error::bad_parameter(text));
        }
        self.store().delete::<kind::Role>(name).await?;
        self.emit(codes::ROLE_DELETE.event(events::RoleDelete {
            resource: Some(events::ResourceMetadata { name: name.to_owned(), ..Default::default() }),
            user: Some(caller.user_metadata()),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await
    }

    async fn emit_role_created(&self, caller: &Caller, role: &RoleV6) -> Result<()> {
        self.emit(codes::ROLE_CREATE.event(events::RoleCreate {
            resource: Some(resource_metadata(role)),
            user: Some(caller.user_metadata()),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await
    }

    async fn emit_role_updated(&self, caller: &Caller, role: &RoleV6) -> Result<()> {
        self.emit(codes::ROLE_UPDATE.event(events::RoleUpdate {
            resource: Some(resource_metadata(role)),
            user: Some(caller.user_metadata()),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await
    }
}

/// The part of an audit event that names what was changed.
pub(crate) fn resource_metadata<T: Resource>(resource: &T) -> events::ResourceMetadata {
    events::ResourceMetadata {
        name: resource.name().to_owned(),
        expires: resource.metadata().expires,
        ..Default::default()
    }
}

fn checked_role(mut role: RoleV6) -> Result<RoleV6> {
    role.check_and_set_defaults().map_err(Error::from)?;
    match rbac::lint_role(&role).into_iter().find(|problem| problem.fatal) {
        Some(problem) => Err(Error::bad_parameter(format!("{}: {problem}", role.title()))),
        None => Ok(role),
    }
}

/// What somebody who edits a user does not decide: state of the password, lockout, who made the user.
fn keep_what_is_kept(user: &mut UserV2, before: &UserV2) {
    user.status = before.status;
    if let (Some(spec), Some(before)) = (&mut user.spec, &before.spec) {
        spec.status = before.status.clone();
        spec.created_by = before.created_by.clone();
    }
}

fn roles_of(user: &UserV2) -> Vec<String> {
    user.spec.as_ref().map(|spec| spec.roles.clone()).unwrap_or_default()
}

fn grants_role(list: &AccessList, role: &str) -> bool {
    let spec = list.spec.as_ref();
    let grants = spec.iter().flat_map(|spec| spec.grants.iter().chain(&spec.owner_grants));
    grants.into_iter().any(|grants| grants.roles.iter().any(|granted| granted == role))
}

fn connector_of(user: &UserV2) -> String {
    let created_by = user.spec.as_ref().and_then(|spec| spec.created_by.as_ref());
    let connector = created_by.and_then(|by| by.connector.as_ref()).map(|c| c.id.clone()).unwrap_or_default();
    if connector.is_empty() { "local".to_owned() } else { connector }
}

fn gone_already(result: Result<()>) -> Result<()> {
    match result {
        Err(e) if e.kind == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
