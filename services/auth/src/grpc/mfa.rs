//! Whether a second factor is needed for something, and challenges for it.

use rbac::MfaRequired as Session;
use wire::error::{Error, Result};
use wire::proto::create_authenticate_challenge_request::Request as ChallengeFor;
use wire::proto::is_mfa_required_request::Target;
use wire::proto::{
    CreateAuthenticateChallengeRequest, IsMfaRequiredRequest, IsMfaRequiredResponse, MfaAuthenticateChallenge,
    MfaRequired, NodeLogin,
};

use super::Api;
use super::nodes::Target as Host;
use crate::authz::AuthContext;
use crate::store::kind;

/// The login with which clients ask about joining a session.
const JOIN_LOGIN: &str = pki::identity::SESSION_JOIN_PRINCIPAL;

pub async fn is_mfa_required(
    api: &Api,
    context: &AuthContext,
    message: IsMfaRequiredRequest,
) -> Result<IsMfaRequiredResponse> {
    let required = required(api, context, &message).await?;
    Ok(IsMfaRequiredResponse { required, mfa_required: verdict(required) as i32 })
}

/// A challenge for a login, or for a person who is logged in. With a check in the request, and when the check says
/// that no second factor is needed, that is the answer: every `ssh` of a client asks this.
pub async fn create_authenticate_challenge(
    api: &Api,
    context: &AuthContext,
    message: CreateAuthenticateChallengeRequest,
) -> Result<MfaAuthenticateChallenge> {
    let for_caller = matches!(message.request, None | Some(ChallengeFor::ContextUser(_)));
    if !for_caller {
        return api.auth().create_authenticate_challenge(context.caller(), message, None).await;
    }
    if context.is_anonymous() {
        return Err(Error::access_denied("access denied: this challenge is for users who are logged in"));
    }
    if !context.is_local_person() {
        return Err(Error::bad_parameter("only users of this cluster have second factors"));
    }
    let needed = match &message.mfa_required_check {
        Some(check) => Some(required(api, context, check).await?),
        None => None,
    };
    if needed == Some(false) {
        return Ok(MfaAuthenticateChallenge { mfa_required: MfaRequired::No as i32, ..Default::default() });
    }
    api.auth().create_authenticate_challenge(context.caller(), message, needed).await
}

async fn required(api: &Api, context: &AuthContext, message: &IsMfaRequiredRequest) -> Result<bool> {
    let target = message.target.as_ref().ok_or_else(|| Error::bad_parameter("missing parameter Target"))?;
    if let Target::AdminAction(_) = target {
        return Ok(false);
    }
    if !context.is_person() {
        return Err(Error::access_denied("access denied: only users are asked for a second factor"));
    }
    let preference = api.auth().auth_preference()?;
    let cluster = preference.spec.as_ref().map_or(0, |spec| spec.require_mfa_type);
    let for_application = matches!(target, Target::App(_));
    match context.session_mfa(cluster) {
        Session::Never => return Ok(false),
        Session::Always => return Ok(for_application || !context.has_proving_key()),
        Session::PerRole => {}
    }
    match target {
        Target::Node(node) => node_requires(api, context, node).await,
        Target::KubernetesCluster(name) => Err(unknown("kube_cluster", name)),
        Target::Database(database) => Err(unknown("db", &database.service_name)),
        Target::WindowsDesktop(desktop) => Err(unknown("windows_desktop", &desktop.windows_desktop)),
        Target::App(app) => Err(unknown("app", &app.name)),
        Target::AdminAction(_) => Ok(false),
    }
}

/// Whether any server that the name could mean needs a second factor for the login. A name that no server has may be
/// that of a host without an agent: none is needed.
async fn node_requires(api: &Api, context: &AuthContext, target: &NodeLogin) -> Result<bool> {
    let host = super::named(&target.node, "Node")?;
    let login = super::named(&target.login, "Login")?;
    if login == JOIN_LOGIN {
        return Ok(true);
    }
    let ignore_case = api.auth().networking()?.spec.as_ref().is_some_and(|spec| spec.case_insensitive_routing);
    let host = Host { host, port: "", ignore_case };
    let nodes = api.auth().store().list::<kind::Node>().await?;
    Ok(nodes.iter().any(|node| host.score(node) > 0 && context.needs_mfa_on(node, login)))
}

fn unknown(kind: &str, name: &str) -> Error {
    Error::not_found(format!("{kind} {name:?} not found"))
}

fn verdict(required: bool) -> MfaRequired {
    if required { MfaRequired::Yes } else { MfaRequired::No }
}
