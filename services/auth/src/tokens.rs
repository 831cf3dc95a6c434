//! Join tokens: those made at run time, and those of the configuration file.

use std::sync::Arc;

use audit::codes;
use chrono::{DateTime, Utc};
use resources::{Resource, SystemRole};
use subtle::ConstantTimeEq;
use wire::{
    error::{Error, Result},
    events, time,
    types::{Metadata, ProvisionTokenSpecV2, ProvisionTokenV1, ProvisionTokenV2},
};

use crate::{Auth, Caller, store::kind};

/// The join method whose token name is a secret.
pub(crate) const METHOD_TOKEN: &str = "token";

impl Auth {
    /// Makes a token.
    ///
    /// # Errors
    /// `AlreadyExists`; `BadParameter` for malformed tokens and those that would have expired already.
    pub async fn create_token(&self, caller: &Caller, token: ProvisionTokenV2) -> Result<()> {
        let token = self.checked_token(token)?;
        let stored = self.store().create::<kind::Token>(token).await?;
        self.emit_token_created(caller, &stored).await
    }

    /// Makes a token or replaces the one there is.
    ///
    /// # Errors
    /// As [`create_token`](Self::create_token), except `AlreadyExists`.
    pub async fn upsert_token(&self, caller: &Caller, token: ProvisionTokenV2) -> Result<()> {
        let token = self.checked_token(token)?;
        let stored = self.store().upsert::<kind::Token>(token).await?;
        self.emit_token_created(caller, &stored).await
    }

    /// A token, of whatever origin.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_token(&self, name: &str) -> Result<ProvisionTokenV2> {
        self.find_token(name)?.ok_or_else(|| Error::not_found("token not found"))
    }

    /// All tokens: static ones, those made at run time, and open invitations and resets with the role `Signup`.
    ///
    /// # Errors
    /// When the storage cannot be read.
    pub async fn list_tokens(&self) -> Result<Vec<ProvisionTokenV2>> {
        let mut all: Vec<ProvisionTokenV2> = self.static_tokens()?.iter().map(of_static).collect();
        all.extend(self.store().cached_list::<kind::Token>().into_iter().map(Arc::unwrap_or_clone));
        let now = self.now();
        for token in self.store().list::<kind::UserToken>().await? {
            if token.expires().is_some_and(|at| at > now) && matches!(token.sub_kind.as_str(), "invite" | "password") {
                all.push(plain_token(token.name(), &[SystemRole::Signup.name().to_owned()], token.expires()));
            }
        }
        Ok(all)
    }

    /// Removes a token, or an open invitation.
    ///
    /// # Errors
    /// `NotFound`; `BadParameter` for static tokens.
    pub async fn delete_token(&self, _caller: &Caller, name: &str) -> Result<()> {
        if self.static_tokens()?.iter().any(|token| same(&token.token, name)) {
            return Err(Error::bad_parameter(
                "the token is statically configured and cannot be removed: take it out of the configuration file",
            ));
        }
        match self.store().delete::<kind::Token>(name).await {
            Err(e) if e.kind == wire::error::ErrorKind::NotFound => {
                // Invitations are listed among the tokens; to whoever removes one they are no other kind.
                self.store().delete::<kind::UserToken>(name).await.map_err(|other| match other.kind {
                    wire::error::ErrorKind::NotFound => e,
                    _ => other,
                })
            }
            other => other,
        }
    }

    /// The token whose name is `given`. Takes the same time wherever the names differ.
    pub(crate) fn find_token(&self, given: &str) -> Result<Option<ProvisionTokenV2>> {
        let mut found = None;
        for token in self.static_tokens()? {
            if same(&token.token, given) && found.is_none() {
                found = Some(of_static(&token));
            }
        }
        for token in self.store().cached_list::<kind::Token>() {
            if same(token.name(), given) && found.is_none() {
                found = Some(Arc::unwrap_or_clone(token));
            }
        }
        Ok(found)
    }

    fn static_tokens(&self) -> Result<Vec<ProvisionTokenV1>> {
        let tokens = self.store().cached::<kind::StaticTokens>("")?;
        Ok(tokens.spec.as_ref().map(|spec| spec.static_tokens.clone()).unwrap_or_default())
    }

    fn checked_token(&self, mut token: ProvisionTokenV2) -> Result<ProvisionTokenV2> {
        token.check_and_set_defaults().map_err(Error::from)?;
        if token.expires().is_some_and(|at| at <= self.now()) {
            return Err(Error::bad_parameter("the token would have expired already: expected a lifetime above zero"));
        }
        if self.static_tokens()?.iter().any(|of_file| same(&of_file.token, token.name())) {
            return Err(Error::already_exists("the token is statically configured already"));
        }
        Ok(token)
    }

    async fn emit_token_created(&self, caller: &Caller, token: &ProvisionTokenV2) -> Result<()> {
        let spec = token.spec.clone().unwrap_or_default();
        self.emit(codes::JOIN_TOKEN_CREATE.event(events::ProvisionTokenCreate {
            resource: Some(events::ResourceMetadata {
                name: safe_name(token),
                expires: token.metadata().expires,
                updated_by: caller.user_name(),
                ..Default::default()
            }),
            user: Some(caller.user_metadata()),
            roles: spec.roles,
            join_method: spec.join_method,
            ..Default::default()
        }))
        .await
    }
}

/// The name of a token as it may be shown and logged: masked when it is the secret itself.
pub(crate) fn safe_name(token: &ProvisionTokenV2) -> String {
    let method = token.spec.as_ref().map_or("", |spec| spec.join_method.as_str());
    match method {
        "" | METHOD_TOKEN => mask(token.name()),
        _ => token.name().to_owned(),
    }
}

/// A secret of which only the end is shown, and little of that.
pub(crate) fn mask(secret: &str) -> String {
    let length = secret.chars().count();
    let shown = (length / 4).min(4);
    secret.chars().enumerate().map(|(at, c)| if at + shown < length { '*' } else { c }).collect()
}

fn of_static(token: &ProvisionTokenV1) -> ProvisionTokenV2 {
    plain_token(&token.token, &token.roles, None)
}

fn plain_token(name: &str, roles: &[String], expires: Option<DateTime<Utc>>) -> ProvisionTokenV2 {
    let mut token = ProvisionTokenV2 {
        metadata: Some(Metadata {
            name: name.to_owned(),
            expires: expires.map(time::timestamp),
            ..Metadata::default()
        }),
        spec: Some(ProvisionTokenSpecV2 {
            roles: roles.to_vec(),
            join_method: METHOD_TOKEN.to_owned(),
            ..ProvisionTokenSpecV2::default()
        }),
        ..ProvisionTokenV2::default()
    };
    token.set_defaults();
    token
}

fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_secret_shows_a_quarter_at_most() {
        assert_eq!(mask(""), "");
        assert_eq!(mask("abc"), "***");
        assert_eq!(mask("abcdefgh"), "******gh");
        assert_eq!(mask(&"s".repeat(32)), "*".repeat(28) + "ssss");
    }
}
