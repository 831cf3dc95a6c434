//! The way to a token: finding it, opening sessions, logging in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as CallError, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Limit, Slot};
use cryptoki::types::AuthPin;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::keys::IdForm;
use super::{Settings, TokenChoice};
use crate::Error;

/// How many sessions there are at most.
const SESSIONS: u64 = 8;
/// How long a token that could not be reached is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// The library and what it takes to use the token.
pub(super) struct Link {
    library: Pkcs11,
    token: TokenChoice,
    pin: AuthPin,
    place: String,
    pin_refused: AtomicBool,
    /// Counts how often the library was made ready: what it knew before is nothing to it since, and the numbers of its
    /// sessions may mean others.
    beginnings: AtomicU64,
    /// Held for writing while the library is made ready, and for reading around every other call: what calls a library that is
    /// being made ready by another thread may bring the process down.
    calls: RwLock<()>,
    /// When the token may be tried again that could not be reached, and why it could not.
    down: Mutex<Option<(Instant, String)>>,
}

/// Why something was not done.
#[derive(Debug)]
pub(super) enum Reason {
    /// The PIN was refused.
    Pin(String),
    /// The library said no.
    Call(CallError),
    /// Something else.
    Other(String),
}

impl From<CallError> for Reason {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<pki::Error> for Reason {
    fn from(error: pki::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl Reason {
    /// Whether a session that was good before is not good any more, or the token forgot what it was asked before.
    pub(super) fn is_lost(&self) -> bool {
        use RvError::{
            CryptokiNotInitialized, DeviceError, DeviceRemoved, FunctionFailed, GeneralError, KeyHandleInvalid,
            ObjectHandleInvalid, OperationActive, SessionClosed, SessionHandleInvalid, TokenNotPresent,
            TokenNotRecognized, UserNotLoggedIn,
        };
        let Self::Call(CallError::Pkcs11(error, _)) = self else { return false };
        matches!(
            error,
            CryptokiNotInitialized
                | DeviceError
                | DeviceRemoved
                | FunctionFailed
                | GeneralError
                | KeyHandleInvalid
                | ObjectHandleInvalid
                | OperationActive
                | SessionClosed
                | SessionHandleInvalid
                | TokenNotPresent
                | TokenNotRecognized
                | UserNotLoggedIn
        )
    }

    /// Whether the number of the session means nothing to the library any more, or another session.
    pub(super) fn is_about_session(&self) -> bool {
        use RvError::{CryptokiNotInitialized, SessionClosed, SessionHandleInvalid};
        let Self::Call(CallError::Pkcs11(error, _)) = self else { return false };
        matches!(error, CryptokiNotInitialized | SessionClosed | SessionHandleInvalid)
    }

    fn is_about_pin(error: &CallError) -> bool {
        use RvError::{PinExpired, PinIncorrect, PinInvalid, PinLenRange, PinLocked, UserPinNotInitialized};
        matches!(
            error,
            CallError::Pkcs11(
                PinExpired | PinIncorrect | PinInvalid | PinLenRange | PinLocked | UserPinNotInitialized,
                _
            )
        )
    }

    pub(super) fn at(self, place: &str, what: &'static str) -> Error {
        let place = place.to_owned();
        match self {
            Self::Pin(reason) => Error::Pin { place, reason },
            Self::Call(error) => Error::Module { place, what, reason: words(&error) },
            Self::Other(reason) => Error::Module { place, what, reason },
        }
    }
}

/// What a library said, in its own words.
fn words(error: &CallError) -> String {
    match error {
        CallError::LibraryLoading(error) => error.to_string(),
        CallError::Pkcs11(code, _) => code.to_string(),
        other => other.to_string(),
    }
}

impl Link {
    /// Loads the library; the token is not looked at yet.
    pub(super) fn load(settings: &Settings, pin: &str) -> Result<Self, Error> {
        let which = match &settings.token {
            TokenChoice::Label(label) => format!("token {label:?}"),
            TokenChoice::Slot(number) => format!("slot {number}"),
        };
        let place = format!("PKCS#11 module {}, {which}", settings.module_path.display());
        let library = Pkcs11::new(&settings.module_path);
        let library = library.map_err(|error| Reason::Call(error).at(&place, "loading the library"))?;
        Ok(Self {
            library,
            token: settings.token.clone(),
            pin: AuthPin::new(pin.into()),
            place,
            pin_refused: AtomicBool::new(false),
            beginnings: AtomicU64::new(0),
            calls: RwLock::default(),
            down: Mutex::default(),
        })
    }

    /// What it is called in messages.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// How many sessions there may be.
    pub(super) fn sessions(&self) -> u64 {
        let limit = self.initialize().and_then(|()| {
            let _calling = self.calling();
            Ok(self.library.get_token_info(self.slot()?)?.max_rw_session_count())
        });
        match limit {
            Ok(Limit::Max(most)) => most.clamp(1, SESSIONS),
            _ => SESSIONS,
        }
    }

    /// How the module numbers keys.
    pub(super) fn id_form(&self) -> Result<IdForm, Reason> {
        Ok(IdForm::of_manufacturer(self.library.get_library_info()?.manufacturer_id()))
    }

    /// Makes sure that the library is not made ready anew before this is dropped.
    pub(super) fn calling(&self) -> RwLockReadGuard<'_, ()> {
        self.calls.read()
    }

    /// A session that is logged in, and of which [beginning](Self::beginning); it stays open until it is closed.
    pub(super) fn connect(&self) -> Result<(Session, u64), Reason> {
        if self.pin_refused.load(Ordering::Relaxed) {
            return Err(Reason::Pin("before".to_owned()));
        }
        if let Some((until, reason)) = &*self.down.lock()
            && Instant::now() < *until
        {
            return Err(Reason::Other(reason.clone()));
        }
        let connected = self.initialize().and_then(|()| {
            let _calling = self.calling();
            Ok((self.log_in(self.slot()?)?, self.beginning()))
        });
        *self.down.lock() = match &connected {
            Err(Reason::Call(error)) => Some((Instant::now() + pause(), words(error))),
            Err(Reason::Other(reason)) => Some((Instant::now() + pause(), reason.clone())),
            _ => None,
        };
        connected
    }

    /// Does nothing when the library has been made ready before, perhaps by somebody else in this process.
    fn initialize(&self) -> Result<(), Reason> {
        let _alone = self.calls.write();
        match self.library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) => {
                self.beginnings.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err(CallError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A number that changes when the library forgets everything, which it does not while somebody is [calling](Self::calling).
    pub(super) fn beginning(&self) -> u64 {
        self.beginnings.load(Ordering::Relaxed)
    }

    /// The slot of the token; looked for anew each time, because tokens move.
    fn slot(&self) -> Result<Slot, Reason> {
        let slots = self.library.get_slots_with_token()?;
        let wanted = match &self.token {
            TokenChoice::Slot(number) => {
                let numbers: Vec<String> = slots.iter().map(|slot| slot.id().to_string()).collect();
                let found = slots.into_iter().find(|slot| slot.id() == *number);
                return found.ok_or_else(|| Reason::Other(format!("not there; found slots {}", numbers.join(", "))));
            }
            TokenChoice::Label(label) => label,
        };
        let mut labels = Vec::new();
        let mut found = Vec::new();
        for slot in slots {
            // Slots may be empty by now.
            let Ok(token) = self.library.get_token_info(slot) else { continue };
            if token.label() == wanted {
                found.push(slot);
            }
            labels.push(format!("{:?}", token.label()));
        }
        match found.as_slice() {
            [slot] => Ok(*slot),
            [] => Err(Reason::Other(format!("not there; found tokens {}", labels.join(", ")))),
            _ => Err(Reason::Other("several tokens have this label: use slot_number".to_owned())),
        }
    }

    fn log_in(&self, slot: Slot) -> Result<Session, Reason> {
        let session = self.library.open_rw_session_no_drop(slot)?;
        let error = match session.login(UserType::User, Some(&self.pin)) {
            // A login counts for all sessions with the token.
            Ok(()) | Err(CallError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => return Ok(session),
            Err(error) => error,
        };
        close(session);
        if Reason::is_about_pin(&error) {
            self.pin_refused.store(true, Ordering::Relaxed);
            return Err(Reason::Pin(words(&error)));
        }
        Err(error.into())
    }
}

/// Closes a session; one that the token knows no more is closed already.
pub(super) fn close(session: Session) {
    if let Err(error) = session.close() {
        tracing::debug!(reason = words(&error), "a session with a module could not be closed");
    }
}

/// So long, or up to as much again: several hosts may have lost the same module.
fn pause() -> Duration {
    let [share, ..] = uuid::Uuid::new_v4().into_bytes();
    PAUSE + PAUSE * u32::from(share) / 255
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn a_lost_token_is_told_from_a_refusal() {
        let is_lost = |error| Reason::Call(CallError::Pkcs11(error, Function::Sign)).is_lost();
        assert!(is_lost(RvError::SessionHandleInvalid) && is_lost(RvError::TokenNotPresent));
        assert!(!is_lost(RvError::MechanismInvalid) && !is_lost(RvError::PinIncorrect));
        assert!(!Reason::Other(String::new()).is_lost());
    }

    #[test]
    fn a_file_that_is_no_module_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let pin = super::super::Pin::File("/p".into());
        let settings = Settings { module_path: file.path().to_owned(), token: TokenChoice::Slot(7), pin };
        let error = Link::load(&settings, "9876").err().unwrap().to_string();
        assert!(error.contains(&format!("{}, slot 7: loading the library", file.path().display())), "{error}");
        assert!(!error.contains("9876"), "{error}");
    }
}
