//! The way to a token: finding it, opening sessions, logging in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use config::{KeyModule, TokenChoice};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as CallError, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Limit, Slot};
use cryptoki::types::AuthPin;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::keys::IdForm;
use crate::Error;

/// How many sessions there are at most.
const SESSIONS: u64 = 8;
/// How long a token that could not be reached is left alone.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one thread waits for what another has to finish first. Calls into a library may never come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// The library and what it takes to use the token.
pub(super) struct Link {
    library: Pkcs11,
    token: TokenChoice,
    pin: AuthPin,
    place: String,
    /// What the last login came to. Held during the next one: a wrong PIN is shown once and not by several threads, and a
    /// token that is away is looked for by one of them.
    last_login: Mutex<Login>,
    /// Counts how often the library was made ready: what it knew before is nothing to it since, and the numbers of its
    /// sessions may mean others.
    beginnings: AtomicU64,
    /// Held for writing while the library is made ready, and for reading around every other call: what calls a library that is
    /// being made ready by another thread may bring the process down.
    calls: RwLock<()>,
}

/// What a login came to.
enum Login {
    /// Nothing keeps anybody from the next one.
    Open,
    /// The PIN was refused, and is not shown again.
    Refused,
    /// The token could not be reached: why, and until when it is left alone.
    Down(String, Instant),
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

    /// Whether the library has to be made ready first.
    fn is_uninitialized(&self) -> bool {
        matches!(self, Self::Call(CallError::Pkcs11(RvError::CryptokiNotInitialized, _)))
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
    pub(super) fn load(settings: &KeyModule, pin: &str) -> Result<Self, Error> {
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
            last_login: Mutex::new(Login::Open),
            beginnings: AtomicU64::new(0),
            calls: RwLock::default(),
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
        let last = self.last_login.try_lock_for(PATIENCE);
        let mut last = last.ok_or_else(|| Reason::Other("another login did not come back".to_owned()))?;
        match &*last {
            Login::Refused => return Err(Reason::Pin("before".to_owned())),
            Login::Down(reason, until) if Instant::now() < *until => return Err(Reason::Other(reason.clone())),
            _ => {}
        }
        let connected = match self.log_in() {
            // Not before every login: it waits for the calls of all others, of which one may hang.
            Err(reason) if reason.is_uninitialized() => self.initialize().and_then(|()| self.log_in()),
            done => done,
        };
        *last = match &connected {
            Ok(_) => Login::Open,
            Err(Reason::Pin(_)) => Login::Refused,
            Err(Reason::Call(error)) => Login::Down(words(error), Instant::now() + pause()),
            Err(Reason::Other(reason)) => Login::Down(reason.clone(), Instant::now() + pause()),
        };
        connected
    }

    /// Does nothing when the library has been made ready before, perhaps by somebody else in this process.
    fn initialize(&self) -> Result<(), Reason> {
        let alone = self.calls.try_write_for(PATIENCE);
        let _alone = alone.ok_or_else(|| {
            Reason::Other("the library cannot be made ready anew, because a call did not come back".to_owned())
        })?;
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

    fn log_in(&self) -> Result<(Session, u64), Reason> {
        let _calling = self.calling();
        let session = self.library.open_rw_session_no_drop(self.slot()?)?;
        let error = match session.login(UserType::User, Some(&self.pin)) {
            // A login counts for all sessions with the token.
            Ok(()) | Err(CallError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => return Ok((session, self.beginning())),
            Err(error) => error,
        };
        close(session);
        if Reason::is_about_pin(&error) { Err(Reason::Pin(words(&error))) } else { Err(error.into()) }
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
    use std::sync::Barrier;
    use std::thread;

    use config::Pin;
    use cryptoki::context::Function;

    use super::super::token;
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
        let (module_path, pin) = (file.path().to_owned(), Pin::File("/p".into()));
        let settings = KeyModule { module_path, token: TokenChoice::Slot(7), pin };
        let error = Link::load(&settings, "9876").err().unwrap().to_string();
        assert!(error.contains(&format!("{}, slot 7: loading the library", file.path().display())), "{error}");
        assert!(!error.contains("9876"), "{error}");
    }

    #[test]
    fn a_wrong_pin_is_shown_once_by_all_threads_together() {
        const THREADS: usize = 8;
        let test = "pkcs11::link::tests::a_wrong_pin_is_shown_once_by_all_threads_together";
        let Some(library) = token::with_token(test) else { return };
        let link = Link::load(&token::settings(&library, "keys", ""), "13572468").unwrap();
        link.sessions();
        let start = Barrier::new(THREADS);
        let connect = || {
            start.wait();
            link.connect().err().unwrap()
        };
        let refusals: Vec<Reason> = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(connect)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(refusals.iter().all(|reason| matches!(reason, Reason::Pin(_))), "{refusals:?}");
        let shown = refusals.iter().filter(|reason| !matches!(reason, Reason::Pin(when) if when == "before"));
        assert_eq!(shown.count(), 1, "{refusals:?}");
    }
}
