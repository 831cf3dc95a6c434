use wire::types::{AccessRequestV3, ClusterAlert, LockV2, RequestState};

use super::required;
use crate::{
    Place, Resource, ResourceError, Result, kind, places,
    resource::{check_version, embedded_header, plain_header},
};

/// The longest reason of a request, in bytes.
const MAX_REASON: usize = 4096;

impl Resource for LockV2 {
    const KIND: &'static str = kind::LOCK;
    const VERSION: &'static str = "v2";
    plain_header!();

    fn place(&self) -> Place {
        places::lock(self.name())
    }

    fn set_spec_defaults(&mut self) {
        self.spec.get_or_insert_default().target.get_or_insert_default();
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let target = self.spec.as_ref().and_then(|s| s.target.as_ref());
        if target.is_none_or(|t| *t == wire::types::LockTarget::default()) {
            return Err(ResourceError::field(
                "spec.target",
                "at least one target field must be set: user, role, login, server_id, mfa_device, windows_desktop, \
                 access_request or device",
            ));
        }
        Ok(())
    }
}

impl Resource for AccessRequestV3 {
    const KIND: &'static str = kind::ACCESS_REQUEST;
    const VERSION: &'static str = "v3";
    plain_header!();

    fn place(&self) -> Place {
        places::access_request(self.name())
    }

    fn set_spec_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        if spec.state == RequestState::None as i32 {
            spec.state = RequestState::Pending as i32;
        }
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let spec = self.spec.clone().unwrap_or_default();
        required(&[("spec.user", &spec.user)])?;
        if spec.roles.is_empty() && spec.requested_resource_i_ds.is_empty() {
            return Err(ResourceError::field("spec.roles", "at least one role or resource must be requested"));
        }
        for (path, reason) in
            [("spec.request_reason", &spec.request_reason), ("spec.resolve_reason", &spec.resolve_reason)]
        {
            if reason.len() > MAX_REASON {
                return Err(ResourceError::field(path, format!("is longer than {MAX_REASON} bytes")));
            }
        }
        Ok(())
    }
}

impl Resource for ClusterAlert {
    const KIND: &'static str = kind::CLUSTER_ALERT;
    const VERSION: &'static str = "v1";
    embedded_header!();

    fn place(&self) -> Place {
        Place::new(places::CLUSTER_ALERTS, [self.name()])
    }

    fn set_spec_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "./-".contains(c);
        if let Some(key) = self.metadata().labels.keys().find(|k| k.is_empty() || !k.chars().all(allowed)) {
            return Err(ResourceError::field("metadata.labels", format!("invalid label key of an alert: {key:?}")));
        }
        required(&[("spec.message", self.spec.as_ref().map_or("", |s| &s.message))])
    }
}
