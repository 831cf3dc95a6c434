use wire::types::{SemaphoreV3, SessionTrackerV1, WebSessionV2, WebTokenV3};

use super::{default_text, required};
use crate::{
    Place, Resource, Result, kind, places,
    resource::{check_version, embedded_header, plain_header},
};

impl Resource for SessionTrackerV1 {
    const KIND: &'static str = kind::SESSION_TRACKER;
    const VERSION: &'static str = "v1";
    embedded_header!();

    fn place(&self) -> Place {
        places::session_tracker(self.name())
    }

    /// The name is the session's id, and the expiry of the spec that of the record.
    fn set_spec_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let (id, expires) = (spec.session_id.clone(), spec.expires);
        let metadata = self.metadata_mut();
        default_text(&mut metadata.name, &id);
        metadata.expires = metadata.expires.or(expires);
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        required(&[("spec.session_id", self.spec.as_ref().map_or("", |s| &s.session_id))])
    }
}

impl Resource for WebSessionV2 {
    const KIND: &'static str = kind::WEB_SESSION;
    const VERSION: &'static str = "v2";
    plain_header!();

    fn place(&self) -> Place {
        let prefix = match self.sub_kind() {
            kind::APP_SESSION => places::APP_SESSIONS,
            kind::SNOWFLAKE_SESSION => places::SNOWFLAKE_SESSIONS,
            kind::SAML_IDP_SESSION => places::SAML_IDP_SESSIONS,
            _ => places::WEB_SESSIONS,
        };
        Place::new(prefix, [self.name()])
    }

    /// The record expires when the session does.
    fn set_spec_defaults(&mut self) {
        default_text(&mut self.sub_kind, kind::WEB_SESSION);
        let expires = self.spec.get_or_insert_default().expires;
        let metadata = self.metadata_mut();
        metadata.expires = metadata.expires.or(expires);
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        required(&[("spec.user", self.spec.as_ref().map_or("", |s| &s.user))])
    }
}

impl Resource for WebTokenV3 {
    const KIND: &'static str = kind::WEB_TOKEN;
    const VERSION: &'static str = "v3";
    plain_header!();

    fn place(&self) -> Place {
        Place::new(places::WEB_TOKENS, [self.name()])
    }

    /// The name is the token.
    fn set_spec_defaults(&mut self) {
        let token = self.spec.get_or_insert_default().token.clone();
        default_text(&mut self.metadata_mut().name, &token);
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let spec = self.spec.clone().unwrap_or_default();
        required(&[("spec.user", &spec.user), ("spec.token", &spec.token)])
    }
}

impl Resource for SemaphoreV3 {
    const KIND: &'static str = kind::SEMAPHORE;
    const VERSION: &'static str = "v3";
    plain_header!();

    fn place(&self) -> Place {
        places::semaphore(self.sub_kind(), self.name())
    }

    fn set_spec_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        required(&[("sub_kind", &self.sub_kind)])
    }
}
