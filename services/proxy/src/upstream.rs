//! What the proxy asks of the Auth Service on behalf of those who are not logged in yet.

use std::net::IpAddr;

use dialer::webapi::{JsonClient, RequestError};
use serde_json::Value;
use tonic::Request;
use tonic::metadata::MetadataValue;
use wire::client::ApiChannel;
use wire::error::{Error, ErrorKind};
use wire::proto::auth_service_client::AuthServiceClient;
use wire::proto::{
    ChangeUserAuthenticationRequest, ChangeUserAuthenticationResponse, CreateAuthenticateChallengeRequest,
    CreateRegisterChallengeRequest, GetResetPasswordTokenRequest, MfaAuthenticateChallenge, MfaRegisterChallenge,
};
use wire::types::{DeleteWebSessionRequest, GetWebSessionRequest, UserTokenV3, WebSessionV2};

/// Metadata that tells auth where the client behind the proxy is; auth believes it of proxies only.
const CLIENT_ADDRESS: &str = "x-forwarded-for";

/// The Auth Service as this proxy sees it. Clones share the connections.
#[derive(Clone)]
pub struct Upstream {
    channel: ApiChannel,
    http: JsonClient,
}

impl Upstream {
    /// Over connections that carry the proxy's host certificate.
    pub fn new(channel: ApiChannel, http: JsonClient) -> Self {
        Self { channel, http }
    }

    /// Posts JSON to the Auth Service's HTTP interface.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.http.post(path, body).await.map_err(http_error)
    }

    /// Reads JSON from the Auth Service's HTTP interface.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Error> {
        self.http.get(path).await.map_err(http_error)
    }

    /// Deletes something at the Auth Service's HTTP interface.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        self.http.delete::<Value>(path).await.map(drop).map_err(http_error)
    }

    /// Which second factors a user must show.
    pub(crate) async fn challenge(
        &self,
        request: CreateAuthenticateChallengeRequest,
        client: IpAddr,
    ) -> Result<MfaAuthenticateChallenge, Error> {
        Ok(self.auth().create_authenticate_challenge(from(request, client)).await?.into_inner())
    }

    /// Begins the registration of a device.
    pub(crate) async fn register_challenge(
        &self,
        request: CreateRegisterChallengeRequest,
        client: IpAddr,
    ) -> Result<MfaRegisterChallenge, Error> {
        Ok(self.auth().create_register_challenge(from(request, client)).await?.into_inner())
    }

    /// What an invitation or reset link is for.
    pub(crate) async fn reset_password_token(&self, token_id: String, client: IpAddr) -> Result<UserTokenV3, Error> {
        let request = GetResetPasswordTokenRequest { token_id };
        Ok(self.auth().get_reset_password_token(from(request, client)).await?.into_inner())
    }

    /// Sets a password and registers a device.
    pub(crate) async fn change_user_authentication(
        &self,
        request: ChangeUserAuthenticationRequest,
        client: IpAddr,
    ) -> Result<ChangeUserAuthenticationResponse, Error> {
        Ok(self.auth().change_user_authentication(from(request, client)).await?.into_inner())
    }

    /// A browser's session.
    pub(crate) async fn web_session(&self, user: &str, id: &str) -> Result<WebSessionV2, Error> {
        let request = GetWebSessionRequest { user: user.to_owned(), session_id: id.to_owned() };
        let found = self.auth().get_web_session(Request::new(request)).await?.into_inner();
        found.session.ok_or_else(|| Error::not_found("session not found"))
    }

    /// Ends a browser's session.
    pub(crate) async fn delete_web_session(&self, user: &str, id: &str) -> Result<(), Error> {
        let request = DeleteWebSessionRequest { user: user.to_owned(), session_id: id.to_owned() };
        self.auth().delete_web_session(Request::new(request)).await?;
        Ok(())
    }

    fn auth(&self) -> AuthServiceClient<ApiChannel> {
        AuthServiceClient::new(self.channel.clone())
    }
}

/// A request on behalf of a client.
fn from<T>(message: T, client: IpAddr) -> Request<T> {
    let mut request = Request::new(message);
    if let Ok(value) = MetadataValue::try_from(client.to_string()) {
        request.metadata_mut().insert(CLIENT_ADDRESS, value);
    }
    request
}

/// An error of auth's HTTP interface keeps its kind and its words; anything else means that auth is out of reach.
fn http_error(error: RequestError) -> Error {
    match error.api() {
        Some(api) => {
            let status = http::StatusCode::from_u16(api.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
            Error::new(ErrorKind::from_http_status(status), api.message.clone())
        }
        None => Error::connection_problem(format!("the auth service cannot be reached: {error}")),
    }
}
