//! Password hashes.

use std::sync::Arc;

use audit::codes;
use backend::{Condition, ConditionalAction};
use resources::places;
use tokio::sync::Semaphore;
use wire::{
    error::{Error, Result},
    events, proto, types,
};
use zeroize::Zeroizing;

use crate::{
    Auth, Caller,
    store::{self, kind},
};

/// Shortest and longest password, in bytes.
const LENGTH: std::ops::RangeInclusive<usize> = 12..=128;

/// The work factor of new hashes.
const COST: u32 = 10;

/// A hash of nothing anybody knows, for names without a password: comparing against it takes as long as against a
/// real one.
const DECOY: &str = "$2b$10$Q.F2zjSUiE9o3H1rL5NvSOS4984rgbIpEovTPS5xv3rZAtkJkaKTC";

/// Hashes and compares passwords away from the tasks that serve connections, a few at a time.
pub(crate) struct Hasher {
    running: Semaphore,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self { running: Semaphore::new(cores) }
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let _permit = self.running.acquire().await.map_err(|_| Error::other("the service is shutting down"))?;
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::other("hashing a password failed"))?
    }

    /// The hash of a new password.
    pub(crate) async fn hash(&self, password: &[u8]) -> Result<String> {
        let password = Zeroizing::new(password.to_vec());
        self.run(move || bcrypt::hash(&*password, COST).map_err(|_| Error::other("hashing a password failed"))).await
    }

    /// Whether a password fits a hash; without a hash it never does, after the same time.
    pub(crate) async fn fits(&self, password: &[u8], hash: Option<String>) -> Result<bool> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| DECOY.to_owned());
        let password = Zeroizing::new(password.to_vec());
        let fits = self.run(move || Ok(bcrypt::verify(&*password, &hash).unwrap_or(false))).await?;
        Ok(fits && known)
    }
}

/// Refuses passwords nobody should have.
pub(crate) fn check_new(password: &[u8]) -> Result<()> {
    match password.len() {
        n if n < *LENGTH.start() => {
            Err(Error::bad_parameter(format!("password is too short, min length is {}", LENGTH.start())))
        }
        n if n > *LENGTH.end() => {
            Err(Error::bad_parameter(format!("password is too long, max length is {}", LENGTH.end())))
        }
        _ => Ok(()),
    }
}

impl Auth {
    /// Whether a password is that of a user; `false` for users who do not exist.
    pub(crate) async fn password_fits(&self, user: &str, password: &[u8]) -> Result<bool> {
        let hash = self.password_hash(user).await?;
        self.0.hasher.fits(password, hash).await
    }

    async fn password_hash(&self, user: &str) -> Result<Option<String>> {
        let Ok(key) = store::key_at(&places::password_hash(user)) else { return Ok(None) };
        match self.store().backend().get(&key).await {
            Ok(item) => Ok(String::from_utf8(item.value.to_vec()).ok()),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(store::storage(&e)),
        }
    }

    /// The writes that give a user a password.
    pub(crate) async fn password_writes(
        &self,
        user: &Arc<types::UserV2>,
        password: &[u8],
    ) -> Result<Vec<ConditionalAction>> {
        check_new(password)?;
        let hash = self.0.hasher.hash(password).await?;
        let mut changed = (**user).clone();
        changed.status.get_or_insert_default().password_state = types::PasswordState::Set.into();
        if let Some(spec) = &mut changed.spec {
            spec.status = None;
        }
        let revision = resources::Resource::revision(&**user).to_owned();
        let key = store::key_at(&places::password_hash(resources::Resource::name(&**user)))?;
        Ok(vec![
            store::put::<kind::User>(&changed, Condition::Revision(revision))?,
            ConditionalAction::put(key, Condition::Whatever, hash.into_bytes(), None),
        ])
    }

    /// Gives the calling user another password, for which the old one and a second factor are needed.
    ///
    /// # Errors
    /// `AccessDenied` for wrong credentials, `BadParameter` for passwords that are too short or too long.
    pub async fn change_password(&self, caller: &Caller, request: proto::ChangePasswordRequest) -> Result<()> {
        if request.webauthn.is_some() {
            return Err(super::webauthn_missing());
        }
        check_new(&request.new_password)?;
        let credentials = super::Credentials {
            username: request.user.clone(),
            password: Zeroizing::new(request.old_password),
            otp: request.second_factor_token,
            webauthn: false,
        };
        self.check_credentials(&credentials).await?;
        let user = self.store().get::<kind::User>(&request.user).await?;
        let writes = self.password_writes(&user, &request.new_password).await?;
        self.store().atomic(writes).await?;
        self.emit(codes::USER_PASSWORD_CHANGE.event(events::UserPasswordChange {
            user: Some(caller.user_metadata()),
            connection: Some(caller.connection_metadata()),
            ..Default::default()
        }))
        .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_password_fits_its_own_hash_only() {
        let hasher = Hasher::new();
        let hash = hasher.hash(b"correct horse battery").await.unwrap();
        assert!(hasher.fits(b"correct horse battery", Some(hash.clone())).await.unwrap());
        assert!(!hasher.fits(b"correct horse batterz", Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn comparing_without_a_hash_does_the_same_work() {
        assert!(!Hasher::new().fits(b"anything at all", None).await.unwrap());
        let parts: bcrypt::HashParts = DECOY.parse().unwrap();
        assert_eq!(parts.get_cost(), COST);
        assert!(!bcrypt::verify("anything at all", DECOY).unwrap());
        let made: bcrypt::HashParts = bcrypt::hash("anything at all", COST).unwrap().parse().unwrap();
        assert_eq!(made.format_for_version(bcrypt::Version::TwoB).len(), DECOY.len());
    }

    #[test]
    fn passwords_have_12_to_128_bytes() {
        assert!(check_new(&[b'x'; 11]).unwrap_err().message.contains("too short"));
        assert!(check_new(&[b'x'; 12]).is_ok());
        assert!(check_new(&[b'x'; 128]).is_ok());
        assert!(check_new(&[b'x'; 129]).unwrap_err().message.contains("too long"));
    }
}
