//! Connectors to identity providers. Their secrets leave this service only for callers with `read` on the kind.

use wire::error::{ErrorKind, Result};
use wire::types::{GithubConnectorV3, OidcConnectorV3, ResourceWithSecretsRequest, SamlConnectorV2};

use super::{Api, kinds, required};
use crate::Write;
use crate::authz::AuthContext;
use crate::store::{self, kind::Kind};

/// A connector with a secret that the identity provider knows as well.
pub trait Secretive {
    /// Takes the secrets out.
    fn hide(&mut self);
    /// Takes over the secrets that a writer did not name: whoever edits a connector has not seen them.
    fn keep(&mut self, before: &Self);
}

impl Secretive for OidcConnectorV3 {
    fn hide(&mut self) {
        if let Some(spec) = &mut self.spec {
            spec.client_secret.clear();
            spec.google_service_account.clear();
        }
    }

    fn keep(&mut self, before: &Self) {
        let (Some(spec), Some(before)) = (&mut self.spec, &before.spec) else { return };
        keep_text(&mut spec.client_secret, &before.client_secret);
        keep_text(&mut spec.google_service_account, &before.google_service_account);
    }
}

impl Secretive for SamlConnectorV2 {
    fn hide(&mut self) {
        let Some(spec) = &mut self.spec else { return };
        for pair in [&mut spec.signing_key_pair, &mut spec.encryption_key_pair].into_iter().flatten() {
            pair.private_key.clear();
        }
    }

    fn keep(&mut self, before: &Self) {
        let (Some(spec), Some(before)) = (&mut self.spec, &before.spec) else { return };
        let pairs = [
            (&mut spec.signing_key_pair, &before.signing_key_pair),
            (&mut spec.encryption_key_pair, &before.encryption_key_pair),
        ];
        for (pair, before) in pairs {
            match (pair, before) {
                (pair @ None, before) => pair.clone_from(before),
                (Some(pair), Some(before)) if pair.cert == before.cert => {
                    keep_text(&mut pair.private_key, &before.private_key);
                }
                _ => {}
            }
        }
    }
}

impl Secretive for GithubConnectorV3 {
    fn hide(&mut self) {
        if let Some(spec) = &mut self.spec {
            spec.client_secret.clear();
        }
    }

    fn keep(&mut self, before: &Self) {
        let (Some(spec), Some(before)) = (&mut self.spec, &before.spec) else { return };
        keep_text(&mut spec.client_secret, &before.client_secret);
    }
}

fn keep_text(field: &mut String, before: &str) {
    if field.is_empty() {
        before.clone_into(field);
    }
}

/// A connector, with its secrets if they are asked for.
pub async fn get<K: Kind>(api: &Api, context: &AuthContext, message: &ResourceWithSecretsRequest) -> Result<K::Value>
where
    K::Value: Secretive,
{
    if message.with_secrets {
        context.require(K::NAME, &["read"])?;
    }
    let mut found = kinds::get::<K>(api, &message.name).await?;
    if !message.with_secrets {
        found.hide();
    }
    Ok(found)
}

/// All connectors of a kind, with their secrets if they are asked for.
pub async fn list<K: Kind>(api: &Api, context: &AuthContext, with_secrets: bool) -> Result<Vec<K::Value>>
where
    K::Value: Secretive,
{
    if with_secrets {
        context.require(K::NAME, &["read"])?;
    }
    let mut found = kinds::list::<K>(api).await?;
    if !with_secrets {
        found.iter_mut().for_each(Secretive::hide);
    }
    Ok(found)
}

/// Writes a connector; the answer is without secrets.
pub async fn write<K: Kind>(
    api: &Api,
    context: &AuthContext,
    connector: Option<K::Value>,
    write: Write,
) -> Result<K::Value>
where
    K::Value: Secretive,
{
    let mut connector = required(connector, K::NAME)?;
    let name = store::resource_name::<K>(&connector);
    if write != Write::Create {
        match api.auth().store().get::<K>(&name).await {
            Ok(before) => connector.keep(&before),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut stored = kinds::write::<K>(api, context, connector, write).await?;
    stored.hide();
    Ok(stored)
}
