//! Resources that are stored as they are written: no rules of their own beyond their checks.

mod details;

use std::sync::Arc;

use audit::{EventExt, codes};
use resources::Resource;
use wire::{
    error::{Error, ErrorKind, Result},
    events::{OneOf, ResourceMetadata, Status},
};

use crate::{Auth, Caller, Write, store::kind::Kind};

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// There was none before.
    Created,
    /// There was one before.
    Updated,
    /// It is gone.
    Deleted,
}

impl Auth {
    /// Writes a record after filling its blanks and checking it. An update without a revision takes whatever is there.
    ///
    /// # Errors
    /// `BadParameter` for malformed records; `AlreadyExists`, `NotFound` or `CompareFailed` as `write` says.
    pub async fn write_record<K: Kind>(&self, caller: &Caller, value: K::Value, write: Write) -> Result<K::Value> {
        let name = crate::store::resource_name::<K>(&value);
        let written = self.write_checked::<K>(caller, value, write).await;
        self.tell_failed_write::<K, _>(caller, (&name, write), written).await
    }

    /// Hands on how the write of a record went, or what came before it. When it failed the audit log says so.
    pub(crate) async fn tell_failed_write<K: Kind, T>(
        &self,
        caller: &Caller,
        (name, write): (&str, Write),
        written: Result<T>,
    ) -> Result<T> {
        let change = match write {
            Write::Update => Change::Updated,
            Write::Upsert if written.is_err() && self.store().get::<K>(name).await.is_ok() => Change::Updated,
            Write::Upsert | Write::Create => Change::Created,
        };
        self.emit_failure::<K, _>(caller, name, change, written).await
    }

    async fn write_checked<K: Kind>(&self, caller: &Caller, mut value: K::Value, write: Write) -> Result<K::Value> {
        value.check_and_set_defaults().map_err(Error::from)?;
        let name = crate::store::resource_name::<K>(&value);
        let before = match self.store().get::<K>(&name).await {
            Ok(before) => Some(before),
            Err(error) if error.kind == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let stored = match (write, &before) {
            (Write::Create, _) => self.store().create::<K>(value).await?,
            (Write::Upsert, _) => self.store().upsert::<K>(value).await?,
            (Write::Update, None) => return Err(Error::not_found(format!("{} not found", value.title()))),
            (Write::Update, Some(before)) => {
                if value.revision().is_empty() {
                    value.set_revision(before.revision());
                }
                self.store().update::<K>(value).await?
            }
        };
        let change = if before.is_some() { Change::Updated } else { Change::Created };
        self.emit_change::<K>(caller, &name, change, Some(&stored)).await?;
        Ok(Arc::unwrap_or_clone(stored))
    }

    /// Removes a record.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_record<K: Kind>(&self, caller: &Caller, name: &str) -> Result<()> {
        let deleted = self.store().delete::<K>(name).await;
        self.emit_failure::<K, _>(caller, name, Change::Deleted, deleted).await?;
        self.emit_change::<K>(caller, name, Change::Deleted, None).await
    }

    /// Hands on how a change went. When it failed the audit log says so, for kinds that have an event for it; being the
    /// failure of a failure, that one is not reported.
    async fn emit_failure<K: Kind, T>(
        &self,
        caller: &Caller,
        name: &str,
        change: Change,
        outcome: Result<T>,
    ) -> Result<T> {
        if let Err(error) = &outcome
            && let Some(event) = failure_of(K::NAME, change)
            && let Err(unsaid) = self.emit(told::<K>(event, caller, name, None, Some(error))).await
        {
            tracing::warn!(error = %unsaid, "a failure is not in the audit log");
        }
        outcome
    }

    /// Removes all records of a kind.
    ///
    /// # Errors
    /// When the storage cannot be written.
    pub async fn delete_records<K: Kind>(&self, caller: &Caller) -> Result<()> {
        for value in self.store().list::<K>().await? {
            match self.delete_record::<K>(caller, &crate::store::resource_name::<K>(&value)).await {
                Err(error) if error.kind != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    async fn emit_change<K: Kind>(
        &self,
        caller: &Caller,
        name: &str,
        change: Change,
        value: Option<&K::Value>,
    ) -> Result<()> {
        let Some(event) = event_of(K::NAME, change) else { return Ok(()) };
        self.emit(told::<K>(event, caller, name, value, None)).await
    }
}

/// An event with what it says about the caller, the record and the outcome.
fn told<K: Kind>(
    mut event: OneOf,
    caller: &Caller,
    name: &str,
    value: Option<&K::Value>,
    failure: Option<&Error>,
) -> OneOf {
    let last = name.rsplit('/').next().unwrap_or(name);
    let groups = event.groups_mut();
    if let Some(user) = groups.user {
        *user = Some(caller.user_metadata());
    }
    if let Some(connection) = groups.connection {
        *connection = Some(caller.connection_metadata());
    }
    if let Some(status) = groups.status {
        let error = failure.map(|error| error.message.clone()).unwrap_or_default();
        *status = Some(Status { success: failure.is_none(), error, ..Status::default() });
    }
    if let Some(resource) = groups.resource {
        *resource = Some(ResourceMetadata {
            name: last.to_owned(),
            expires: value.and_then(|value| value.metadata().expires),
            updated_by: caller.user_name(),
            ..ResourceMetadata::default()
        });
    }
    details::fill(&mut event, name, value);
    event
}

/// The event that a failed change of a kind stands in the audit log with; `None` for most kinds.
fn failure_of(kind: &str, change: Change) -> Option<OneOf> {
    Some(match (kind, change) {
        ("access_list", Change::Created) => codes::ACCESS_LIST_CREATE_FAILURE.event(Default::default()),
        ("access_list", Change::Updated) => codes::ACCESS_LIST_UPDATE_FAILURE.event(Default::default()),
        ("access_list", Change::Deleted) => codes::ACCESS_LIST_DELETE_FAILURE.event(Default::default()),
        ("access_list_member", Change::Created) => codes::ACCESS_LIST_MEMBER_CREATE_FAILURE.event(Default::default()),
        ("access_list_member", Change::Updated) => codes::ACCESS_LIST_MEMBER_UPDATE_FAILURE.event(Default::default()),
        ("access_list_member", Change::Deleted) => codes::ACCESS_LIST_MEMBER_DELETE_FAILURE.event(Default::default()),
        ("saml_idp_service_provider", Change::Created) => {
            codes::SAML_SERVICE_PROVIDER_CREATE_FAILURE.event(Default::default())
        }
        ("saml_idp_service_provider", Change::Updated) => {
            codes::SAML_SERVICE_PROVIDER_UPDATE_FAILURE.event(Default::default())
        }
        ("saml_idp_service_provider", Change::Deleted) => {
            codes::SAML_SERVICE_PROVIDER_DELETE_FAILURE.event(Default::default())
        }
        _ => return None,
    })
}

/// The event that a change of a kind stands in the audit log with; `None` for kinds whose changes are not audited.
fn event_of(kind: &str, change: Change) -> Option<OneOf> {
    macro_rules! table {
        ($($name:literal: $created:ident $updated:ident $deleted:ident;)*) => {
            match (kind, change) {
                $(
                    ($name, Change::Created) => Some(codes::$created.event(Default::default())),
                    ($name, Change::Updated) => Some(codes::$updated.event(Default::default())),
                    ($name, Change::Deleted) => Some(codes::$deleted.event(Default::default())),
                )*
                _ => None,
            }
        };
    }
    table! {
        "app": APP_CREATE APP_UPDATE APP_DELETE;
        "db": DB_CREATE DB_UPDATE DB_DELETE;
        "kube_cluster": KUBE_CREATE KUBE_UPDATE KUBE_DELETE;
        "discovery_config": DISCOVERY_CONFIG_CREATE DISCOVERY_CONFIG_UPDATE DISCOVERY_CONFIG_DELETE;
        "integration": INTEGRATION_CREATE INTEGRATION_UPDATE INTEGRATION_DELETE;
        "access_list": ACCESS_LIST_CREATE ACCESS_LIST_UPDATE ACCESS_LIST_DELETE;
        "access_list_member": ACCESS_LIST_MEMBER_CREATE ACCESS_LIST_MEMBER_UPDATE ACCESS_LIST_MEMBER_DELETE;
        "github": GITHUB_CONNECTOR_CREATE GITHUB_CONNECTOR_UPDATE GITHUB_CONNECTOR_DELETE;
        "oidc": OIDC_CONNECTOR_CREATE OIDC_CONNECTOR_UPDATE OIDC_CONNECTOR_DELETE;
        "saml": SAML_CONNECTOR_CREATE SAML_CONNECTOR_UPDATE SAML_CONNECTOR_DELETE;
        "saml_idp_service_provider": SAML_SERVICE_PROVIDER_CREATE SAML_SERVICE_PROVIDER_UPDATE SAML_SERVICE_PROVIDER_DELETE;
        "login_rule": LOGIN_RULE_CREATE LOGIN_RULE_CREATE LOGIN_RULE_DELETE;
        "device": DEVICE_CREATE DEVICE_UPDATE DEVICE_DELETE;
    }
}
