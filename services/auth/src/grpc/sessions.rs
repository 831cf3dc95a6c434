//! Session trackers: what is known about running sessions, kept by the service that runs them. And web sessions.

use futures::{Stream, stream};
use rbac::SessionOwner;
use resources::{Resource as _, SystemRole};
use serde_json::json;
use tonic::Status;
use uuid::Uuid;
use wire::error::{Error, Result};
use wire::proto::{
    CreateSessionTrackerRequest, GetSessionTrackerRequest, GetWebSessionResponse, GetWebSessionsResponse,
    RemoveSessionTrackerRequest, UpdateSessionTrackerRequest,
};
use wire::types::{
    DeleteWebSessionRequest, GetWebSessionRequest, SessionState, SessionTrackerFilter, SessionTrackerSpecV1,
    SessionTrackerV1, WebSessionV2,
};

use super::{Api, named, required};
use crate::authz::AuthContext;

/// Registers a session of the calling service.
pub async fn create_session_tracker(
    api: &Api,
    context: &AuthContext,
    message: CreateSessionTrackerRequest,
) -> Result<SessionTrackerV1> {
    let mut tracker = required(message.session_tracker, "SessionTracker")?;
    let spec = tracker.spec.get_or_insert_default();
    check_id(&spec.session_id)?;
    let own = context.host_id().unwrap_or_default();
    if spec.host_id.is_empty() && !context.has_role(SystemRole::Proxy) {
        own.clone_into(&mut spec.host_id);
    }
    require_owner(context, spec)?;
    let id = spec.session_id.clone();
    tracker.metadata_mut().name.clone_from(&id);
    if let Ok(known) = api.auth().get_session_tracker(&id).await {
        require_owner(context, &known.spec.unwrap_or_default())?;
    }
    api.auth().create_session_tracker(tracker).await
}

/// A session that the caller may know about; others do not exist for him.
pub async fn get_session_tracker(
    api: &Api,
    context: &AuthContext,
    message: GetSessionTrackerRequest,
) -> Result<SessionTrackerV1> {
    let id = named(&message.session_id, "SessionID")?;
    let tracker = api.auth().get_session_tracker(id).await?;
    if may_see(context, &tracker) {
        Ok(tracker)
    } else {
        Err(Error::not_found(format!("session_tracker {id:?} not found")))
    }
}

pub async fn get_active_session_trackers(
    api: &Api,
    context: &AuthContext,
    (): (),
) -> Result<impl Stream<Item = Result<SessionTrackerV1, Status>> + Send + 'static + use<>> {
    let mut trackers = api.auth().list_session_trackers().await?;
    trackers.retain(|tracker| {
        let state = tracker.spec.as_ref().map_or(0, |spec| spec.state);
        state != SessionState::Terminated as i32 && may_see(context, tracker)
    });
    Ok(stream::iter(trackers.into_iter().map(Ok)))
}

/// The same, narrowed. A state is named to see sessions that ended as well.
pub async fn get_filtered_session_trackers(
    api: &Api,
    context: &AuthContext,
    filter: SessionTrackerFilter,
) -> Result<impl Stream<Item = Result<SessionTrackerV1, Status>> + Send + 'static + use<>> {
    let mut trackers = api.auth().list_session_trackers().await?;
    trackers.retain(|tracker| {
        let spec = tracker.spec.clone().unwrap_or_default();
        let equals = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
        let in_state = match &filter.state {
            Some(wanted) => wanted.state == spec.state,
            None => spec.state != SessionState::Terminated as i32,
        };
        in_state
            && equals(&filter.kind, &spec.kind)
            && equals(&filter.desktop_name, &spec.desktop_name)
            && may_see(context, tracker)
    });
    Ok(stream::iter(trackers.into_iter().map(Ok)))
}

pub async fn remove_session_tracker(
    api: &Api,
    context: &AuthContext,
    message: RemoveSessionTrackerRequest,
) -> Result<()> {
    require_owned(api, context, &message.session_id).await?;
    api.auth().remove_session_tracker(&message.session_id).await
}

pub async fn update_session_tracker(
    api: &Api,
    context: &AuthContext,
    message: UpdateSessionTrackerRequest,
) -> Result<()> {
    require_owned(api, context, &message.session_id).await?;
    if message.update.is_none() {
        return Err(Error::bad_parameter("missing parameter Update"));
    }
    api.auth().update_session_tracker(message).await.map(drop)
}

pub async fn get_web_session(
    api: &Api,
    context: &AuthContext,
    message: GetWebSessionRequest,
) -> Result<GetWebSessionResponse> {
    let user = named(&message.user, "user")?;
    context.require_self_or(user, "web_session", &["read"])?;
    let mut session = api.auth().get_web_session(user, named(&message.session_id, "session_id")?).await?;
    if !context.may_use_web_sessions() {
        strip(&mut session);
    }
    Ok(GetWebSessionResponse { session: Some(session) })
}

pub async fn get_web_sessions(api: &Api, context: &AuthContext, (): ()) -> Result<GetWebSessionsResponse> {
    let mut sessions = api.auth().web_sessions().await?;
    if !context.may_use_web_sessions() {
        sessions.iter_mut().for_each(strip);
    }
    Ok(GetWebSessionsResponse { sessions })
}

pub async fn delete_web_session(api: &Api, context: &AuthContext, message: DeleteWebSessionRequest) -> Result<()> {
    let user = named(&message.user, "user")?;
    context.require_self_or(user, "web_session", &["delete"])?;
    api.auth().delete_web_session(user, named(&message.session_id, "session_id")?).await
}

pub async fn delete_all_web_sessions(api: &Api, _: &AuthContext, (): ()) -> Result<()> {
    api.auth().store().delete_all::<crate::store::kind::WebSession>().await.map(drop)
}

/// Session ids name files and keys elsewhere: only UUIDs are taken.
pub fn check_id(id: &str) -> Result<()> {
    match Uuid::try_parse(id) {
        Ok(uuid) if uuid.to_string() == id => Ok(()),
        _ => Err(Error::bad_parameter("session id: expected a lower-case UUID")),
    }
}

async fn require_owned(api: &Api, context: &AuthContext, id: &str) -> Result<()> {
    let tracker = api.auth().get_session_tracker(named(id, "SessionID")?).await?;
    require_owner(context, &tracker.spec.unwrap_or_default())
}

/// An agent keeps the trackers of its own sessions; a proxy those of the sessions that it records for others.
fn require_owner(context: &AuthContext, spec: &SessionTrackerSpecV1) -> Result<()> {
    if context.has_role(SystemRole::Proxy) || context.is_admin() {
        return Ok(());
    }
    context.require_own_server(&spec.host_id)
}

/// Services, participants, whoever may join, and whoever the roles let read trackers.
fn may_see(context: &AuthContext, tracker: &SessionTrackerV1) -> bool {
    let spec = tracker.spec.clone().unwrap_or_default();
    if context.is_service() {
        return context.has_role(SystemRole::Proxy) || context.is_admin() || context.is_host(&spec.host_id);
    }
    let takes_part = spec.host_user == context.username() || spec.participants.iter().any(|p| context.is_user(&p.user));
    let owner = SessionOwner { user: &spec.host_user, policies: &spec.host_policies };
    takes_part || !context.join_modes(owner, &spec.kind).is_empty() || {
        let object = json!({
            "session_id": spec.session_id, "kind": spec.kind, "login": spec.login, "cluster": spec.cluster_name,
            "hostname": spec.hostname, "address": spec.address, "state": spec.state, "host_user": spec.host_user,
            "kube_cluster": spec.kubernetes_cluster,
            "participants": spec.participants.iter().map(|p| p.user.as_str()).collect::<Vec<_>>(),
            "host_roles": spec.host_policies.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
        });
        context.require_on("session_tracker", &["read"], ("session_tracker", &object)).is_ok()
    }
}

fn strip(session: &mut WebSessionV2) {
    if let Some(spec) = &mut session.spec {
        spec.r#priv.clear();
        spec.tls_priv.clear();
        spec.bearer_token.clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn only_uuids_are_session_ids() {
        assert!(check_id("5a6ecf12-3df8-4c1b-a1ea-6f1e6dbb2c4e").is_ok());
        for id in ["", "../../etc/passwd", "5A6ECF12-3DF8-4C1B-A1EA-6F1E6DBB2C4E", "5a6ecf123df84c1ba1ea6f1e6dbb2c4e"] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
