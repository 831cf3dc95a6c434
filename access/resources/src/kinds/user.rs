use wire::types::{MfaDevice, Namespace, UserTokenSecretsV3, UserTokenV3, UserV2};

use super::required;
use crate::{
    Place, Resource, ResourceError, Result, kind, places,
    resource::{check_version, plain_header},
};

impl Resource for UserV2 {
    const KIND: &'static str = kind::USER;
    const VERSION: &'static str = "v2";
    plain_header!();

    fn place(&self) -> Place {
        places::user(self.name())
    }

    fn set_spec_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        let roles = self.spec.as_ref().map(|s| s.roles.as_slice()).unwrap_or_default();
        if roles.iter().any(String::is_empty) {
            return Err(ResourceError::field("spec.roles", "the name of a role is empty"));
        }
        Ok(())
    }
}

impl Resource for MfaDevice {
    const KIND: &'static str = kind::MFA_DEVICE;
    const VERSION: &'static str = "v1";
    plain_header!();

    /// Below no user: whose device it is stands in the key only, see [`places::mfa_device`].
    fn place(&self) -> Place {
        Place::new(places::USERS, ["", "mfa", &self.id])
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        required(&[("id", &self.id)])?;
        if self.device.is_none() {
            return Err(ResourceError::invalid("missing totp, u2f or webauthn"));
        }
        Ok(())
    }
}

impl Resource for UserTokenV3 {
    const KIND: &'static str = kind::USER_TOKEN;
    const VERSION: &'static str = "v3";
    plain_header!();

    fn place(&self) -> Place {
        places::user_token(self.name())
    }

    fn set_spec_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    fn check_spec(&self) -> Result<()> {
        check_version(self)?;
        required(&[("spec.user", self.spec.as_ref().map_or("", |s| &s.user))])
    }
}

impl Resource for UserTokenSecretsV3 {
    const KIND: &'static str = kind::USER_TOKEN_SECRETS;
    const VERSION: &'static str = "v3";
    plain_header!();

    fn place(&self) -> Place {
        places::user_token_secrets(self.name())
    }
}

impl Resource for Namespace {
    const KIND: &'static str = kind::NAMESPACE;
    const VERSION: &'static str = "v2";
    plain_header!();

    fn place(&self) -> Place {
        Place::new(places::NAMESPACES, [self.name(), "params"])
    }
}
