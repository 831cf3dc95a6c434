//! A second factor for a session.

use wire::mfa::{ChallengeExtensions, ChallengeScope};
use wire::proto::create_authenticate_challenge_request::Request as ChallengeRequest;
use wire::proto::is_mfa_required_request::Target as MfaTarget;
use wire::proto::{ContextUser, CreateAuthenticateChallengeRequest, IsMfaRequiredRequest, MfaRequired, NodeLogin};

use super::Host;
use crate::cluster::ClusterClient;
use crate::error::Result;
use crate::login::{Ask, single_use_certificate};

/// A certificate for one session with a second factor shown, if the cluster wants that for this host and login.
///
/// # Errors
/// When a factor is wanted and cannot be shown. A cluster that does not answer wants none.
pub async fn certificate(
    client: &ClusterClient,
    host: &Host,
    login: &str,
    ask: &mut impl Ask,
) -> Result<Option<russh::keys::Certificate>> {
    let check = IsMfaRequiredRequest {
        target: Some(MfaTarget::Node(NodeLogin { node: host.address.clone(), login: login.to_owned() })),
    };
    let account = client.account();
    let mut asked = false;
    if account.cluster != account.root_cluster() {
        // The cluster of the host decides; the root cluster, where the user is known, asks.
        match client.auth().is_mfa_required(check.clone()).await {
            Ok(answer) if answer.get_ref().required => asked = true,
            _ => return Ok(None),
        }
    }
    let request = CreateAuthenticateChallengeRequest {
        request: Some(ChallengeRequest::ContextUser(ContextUser {})),
        mfa_required_check: (!asked).then_some(check),
        challenge_extensions: Some(ChallengeExtensions {
            scope: ChallengeScope::UserSession.into(),
            ..Default::default()
        }),
    };
    let challenge = match client.root_auth().create_authenticate_challenge(request).await {
        Ok(answer) => answer.into_inner(),
        Err(status) => {
            tracing::debug!(%status, "whether a second factor is wanted is not known");
            return Ok(None);
        }
    };
    if !asked && challenge.mfa_required() != MfaRequired::Yes {
        return Ok(None);
    }
    let response = crate::mfa::answer(&challenge, ask)?;
    Ok(Some(single_use_certificate(client, &host.address, login, response).await?))
}
