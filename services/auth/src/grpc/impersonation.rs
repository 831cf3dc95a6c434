//! In whose name a certificate is made, and with which roles.

use chrono::{DateTime, Utc};
use pki::identity::Traits;
use wire::error::{Error, ErrorKind, Result};
use wire::proto::UserCertsRequest;
use wire::types::{RequestState, ResourceId};

use super::Api;
use crate::UserRights;
use crate::authz::AuthContext;
use crate::store::kind;

/// The holder of a new certificate.
#[derive(Debug, Default)]
pub struct Subject {
    /// The roles it carries.
    pub roles: Vec<String>,
    /// The traits it carries.
    pub traits: Traits,
    /// Who asked for it, when that is not the holder with all of his own roles.
    pub impersonator: String,
    /// The access requests whose roles are included.
    pub active_requests: Vec<String>,
    /// The resources that one of these requests is about: the certificate is good for no others.
    pub only_resources: Vec<ResourceId>,
    /// When the first of these requests, or of the memberships that roles come from, ends.
    pub expires: Option<DateTime<Utc>>,
    /// Whether the roles were chosen by the caller, as bots do.
    pub by_role_request: bool,
}

/// The holder that a request asks for, when the caller may have certificates in that name.
pub async fn subject(api: &Api, context: &AuthContext, message: &UserCertsRequest) -> Result<Subject> {
    if context.is_local_person() && context.is_user(&message.username) {
        if message.use_role_requests || !message.role_requests.is_empty() {
            return with_chosen_roles(api, context, message).await;
        }
        return own(api, context, message).await;
    }
    if !message.role_requests.is_empty() {
        return Err(Error::bad_parameter("RoleRequests are for certificates in one's own name"));
    }
    another(api, context, message).await
}

/// The caller himself, with his present roles and those of his access requests.
pub async fn own(api: &Api, context: &AuthContext, message: &UserCertsRequest) -> Result<Subject> {
    let user = api.auth().get_user(context.username(), false).await?;
    let UserRights { roles, traits, ends } = api.auth().rights_of(&user);
    // Somebody else who holds this certificate does not become its owner by a new one.
    let impersonator = context.identity().map(|identity| identity.impersonator.clone()).unwrap_or_default();
    let mut subject = Subject { roles, traits, impersonator, expires: ends, ..Default::default() };
    let held = context.identity().map(|identity| identity.active_requests.as_slice()).unwrap_or_default();
    let drops = |id: &String| message.drop_access_requests.iter().any(|dropped| dropped == "*" || dropped == id);
    let mut wanted: Vec<&String> = held.iter().filter(|id| !drops(id)).collect();
    wanted.extend(&message.access_requests);
    for id in wanted {
        if !subject.active_requests.contains(id) {
            add_request(api, &mut subject, context.username(), id).await?;
        }
    }
    Ok(subject)
}

/// The caller with fewer roles, chosen among those that he may impersonate.
async fn with_chosen_roles(api: &Api, context: &AuthContext, message: &UserCertsRequest) -> Result<Subject> {
    if message.role_requests.is_empty() {
        return Err(Error::bad_parameter("UseRoleRequests needs RoleRequests"));
    }
    if !message.access_requests.is_empty() {
        return Err(Error::bad_parameter("RoleRequests cannot be combined with AccessRequests"));
    }
    if context.identity().is_some_and(|identity| !identity.impersonator.is_empty()) {
        return Err(Error::access_denied(
            "access denied: who impersonates a user does not choose among that user's roles",
        ));
    }
    require_no_requests(context)?;
    api.auth().roles(&message.role_requests)?;
    context.require_role_impersonation(&message.role_requests)?;
    let user = api.auth().get_user(context.username(), false).await?;
    let UserRights { traits, ends, .. } = api.auth().rights_of(&user);
    Ok(Subject {
        roles: message.role_requests.clone(),
        traits,
        impersonator: context.username().to_owned(),
        by_role_request: true,
        expires: ends,
        ..Default::default()
    })
}

/// Somebody else: for the administrator of this machine, and by the impersonation rules of roles.
async fn another(api: &Api, context: &AuthContext, message: &UserCertsRequest) -> Result<Subject> {
    let name = &message.username;
    if context.is_service() && !context.is_admin() {
        return Err(Error::access_denied("access denied: services have no certificates of users"));
    }
    let denied = || {
        Error::access_denied(format!("access denied: {:?} is not allowed to impersonate {name:?}", context.username()))
    };
    let user = match api.auth().get_user(name, false).await {
        Ok(user) => user,
        // Who may not impersonate does not learn who exists.
        Err(error) if error.kind == ErrorKind::NotFound && !context.is_admin() => return Err(denied()),
        Err(error) => return Err(error),
    };
    if !context.is_admin() {
        if context.identity().is_none_or(|identity| !identity.impersonator.is_empty()) {
            return Err(denied());
        }
        require_no_requests(context)?;
        let single_sign_on =
            user.spec.as_ref().and_then(|spec| spec.created_by.as_ref()).is_some_and(|by| by.connector.is_some());
        if single_sign_on {
            return Err(Error::access_denied(format!(
                "access denied: {name:?} logs in by single sign-on and cannot be impersonated"
            )));
        }
        context.require_impersonation(&user, &api.auth().rights_of(&user).roles)?;
    }
    let UserRights { roles, traits, ends } = api.auth().rights_of(&user);
    let impersonator = if context.is_admin() { String::new() } else { context.username().to_owned() };
    Ok(Subject { roles, traits, impersonator, expires: ends, ..Default::default() })
}

/// What access requests give is for their resources and their time, which a certificate of other roles would not keep.
fn require_no_requests(context: &AuthContext) -> Result<()> {
    let held = context
        .identity()
        .is_some_and(|identity| !identity.active_requests.is_empty() || !identity.allowed_resource_ids.is_empty());
    if held {
        return Err(Error::access_denied(
            "access denied: nobody impersonates with the access of an access request: drop the access request first",
        ));
    }
    Ok(())
}

async fn add_request(api: &Api, subject: &mut Subject, user: &str, id: &str) -> Result<()> {
    let request = api.auth().store().get::<kind::AccessRequest>(id).await.map_err(|error| match error.kind {
        ErrorKind::NotFound => {
            Error::not_found(format!("access_request {id:?} not found: it has ended or was removed"))
        }
        _ => error,
    })?;
    let spec = request.spec.clone().unwrap_or_default();
    if spec.user != user {
        return Err(Error::not_found(format!("access_request {id:?} not found")));
    }
    if spec.state != RequestState::Approved as i32 {
        return Err(Error::access_denied(format!("access denied: access request {id:?} is not approved")));
    }
    let starts = wire::time::moment(spec.assume_start_time.as_ref());
    if let Some(starts) = starts.filter(|starts| *starts > api.auth().now()) {
        return Err(Error::access_denied(format!(
            "access denied: the roles of access request {id:?} can be had from {} on",
            starts.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
        )));
    }
    if !spec.requested_resource_i_ds.is_empty() {
        // The roles of one request are not for the resources of another.
        if !subject.only_resources.is_empty() {
            return Err(Error::bad_parameter(
                "only one access request for resources can be active at a time: drop the other one first",
            ));
        }
        subject.only_resources.clone_from(&spec.requested_resource_i_ds);
    }
    if let Some(ends) = wire::time::moment(spec.expires.as_ref()) {
        subject.expires = Some(subject.expires.map_or(ends, |first| first.min(ends)));
    }
    for role in spec.roles {
        if !subject.roles.contains(&role) {
            subject.roles.push(role);
        }
    }
    subject.active_requests.push(id.to_owned());
    Ok(())
}
