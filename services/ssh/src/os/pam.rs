//! Pluggable authentication modules, pam(3), by the library of the host.
//!
//! The library is loaded when it is first needed, so that neither building nor running a node without PAM needs it. This
//! is the one place that calls it. It is used by a process of its own for each session ([`crate::worker::login`]): what
//! modules do to their process (limits, groups, the audit's login id) is meant for one session alone, and no module runs
//! inside the daemon.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use libloading::Library;
use nix::libc;
use zeroize::Zeroizing;

/// The library of Linux-PAM, by the name under which programs load it.
const LIBRARY: &str = "libpam.so.0";

// Numbers of Linux-PAM's `_pam_types.h`.
const SUCCESS: c_int = 0;
const BUFFER_ERROR: c_int = 5;
const CONVERSATION_ERROR: c_int = 19;
const ITEM_USER: c_int = 2;
const ITEM_TERMINAL: c_int = 3;
const ITEM_REMOTE_HOST: c_int = 4;
const ESTABLISH: c_int = 2;
const DELETE: c_int = 4;
const PROMPT_HIDDEN: c_int = 1;
const PROMPT_SHOWN: c_int = 2;
const ERROR_MESSAGE: c_int = 3;
const TEXT: c_int = 4;
/// The most messages of one conversation.
const MAX_MESSAGES: usize = 32;
/// Entries taken of the environment that modules made.
const MAX_ENTRIES: usize = 1024;

/// Somebody to whom modules speak.
pub(crate) trait Conversation {
    /// Shows a message.
    fn tell(&mut self, message: &str);
    /// Asks something; `None` when nobody answers.
    fn ask(&mut self, prompt: &str, shown: bool) -> Option<Answer>;
}

/// What somebody answered. It is forgotten when it was handed over.
pub(crate) struct Answer(Zeroizing<Vec<u8>>);

impl Answer {
    /// A text without zero bytes; `None` if there are any.
    pub fn new(text: &[u8]) -> Option<Self> {
        let text = Zeroizing::new([text, &[0]].concat());
        CStr::from_bytes_with_nul(&text).is_ok().then_some(())?;
        Some(Self(text))
    }

    /// A copy for modules, which free it.
    ///
    /// Null when there is no memory.
    fn handed_over(&self) -> *mut c_char {
        // SAFETY: the text ends with its only zero byte.
        unsafe { libc::strdup(self.0.as_ptr().cast()) }
    }
}

/// Why PAM does not let somebody in, in words.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PamError {
    /// The library is not there.
    #[error("PAM is not available on this host: {0}")]
    NoLibrary(#[from] libloading::Error),
    /// A module refused, or failed.
    #[error("PAM service {service:?}: {step}: {reason}")]
    Refused {
        /// Name of the service.
        service: String,
        /// What was asked of the modules.
        step: &'static str,
        /// What they said.
        reason: String,
    },
    /// A text cannot be handed over.
    #[error("PAM: {0} contains a zero byte")]
    ZeroByte(&'static str),
}

type Handle = *mut c_void;
type Answers = *mut *mut Response;
type Converse = extern "C" fn(c_int, *const *const Message, Answers, *mut c_void) -> c_int;

/// `struct pam_message`.
#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

/// `struct pam_response`.
#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

/// `struct pam_conv`.
#[repr(C)]
struct Speaker {
    converse: Converse,
    data: *mut c_void,
}

/// What is used of the library.
struct Functions {
    start: unsafe extern "C" fn(*const c_char, *const c_char, *const Speaker, *mut Handle) -> c_int,
    end: unsafe extern "C" fn(Handle, c_int) -> c_int,
    set_item: unsafe extern "C" fn(Handle, c_int, *const c_void) -> c_int,
    get_item: unsafe extern "C" fn(Handle, c_int, *mut *const c_void) -> c_int,
    put_env: unsafe extern "C" fn(Handle, *const c_char) -> c_int,
    environment: unsafe extern "C" fn(Handle) -> *mut *mut c_char,
    describe: unsafe extern "C" fn(Handle, c_int) -> *const c_char,
    authenticate: Step,
    check_account: Step,
    set_credentials: Step,
    open_session: Step,
    close_session: Step,
    /// What the functions are in; unloaded after them.
    _library: Library,
}

type Step = unsafe extern "C" fn(Handle, c_int) -> c_int;

impl Functions {
    fn load() -> Result<Self, PamError> {
        // SAFETY: loading runs the initialisers of the host's own library, which has none that need anything of us; the
        // types are those of its documented interface, and the functions are kept no longer than the library.
        unsafe {
            let library = Library::new(LIBRARY)?;
            Ok(Self {
                start: *library.get(b"pam_start\0")?,
                end: *library.get(b"pam_end\0")?,
                set_item: *library.get(b"pam_set_item\0")?,
                get_item: *library.get(b"pam_get_item\0")?,
                put_env: *library.get(b"pam_putenv\0")?,
                environment: *library.get(b"pam_getenvlist\0")?,
                describe: *library.get(b"pam_strerror\0")?,
                authenticate: *library.get(b"pam_authenticate\0")?,
                check_account: *library.get(b"pam_acct_mgmt\0")?,
                set_credentials: *library.get(b"pam_setcred\0")?,
                open_session: *library.get(b"pam_open_session\0")?,
                close_session: *library.get(b"pam_close_session\0")?,
                _library: library,
            })
        }
    }
}

/// Whether the host has PAM.
///
/// # Errors
/// When it has not.
pub(crate) fn probe() -> Result<(), PamError> {
    Functions::load().map(drop)
}

/// One login, from its first check to the end of its session.
pub(crate) struct Transaction {
    functions: Functions,
    handle: Handle,
    /// Owned; the library holds the same pointer until the end.
    conversation: *mut Box<dyn Conversation>,
    service: String,
    user: CString,
    last: c_int,
    /// Whether modules were asked to open a session.
    opened: bool,
}

impl Transaction {
    /// Begins to let `user` in by the rules of `service`.
    ///
    /// # Errors
    /// When the host has no PAM, or not this service.
    pub fn start(service: &str, user: &str, conversation: Box<dyn Conversation>) -> Result<Self, PamError> {
        let functions = Functions::load()?;
        let c_service = text("the name of the service", service)?;
        let user = text("the name of the user", user)?;
        let conversation = Box::into_raw(Box::new(conversation));
        let speaker = Speaker { converse, data: conversation.cast() };
        let mut handle = ptr::null_mut();
        // SAFETY: all pointers live through the call; the library copies what it keeps but `data`, which lives as long as
        // the transaction.
        let code = unsafe { (functions.start)(c_service.as_ptr(), user.as_ptr(), &speaker, &mut handle) };
        let service = service.to_owned();
        let opened = false;
        let mut this = Self { functions, handle, conversation, service, user, last: code, opened };
        if handle.is_null() && code == SUCCESS {
            this.last = BUFFER_ERROR;
        }
        this.outcome("begin")?;
        Ok(this)
    }

    /// Says where the user is: the terminal, and the host they come from.
    pub fn place(&mut self, terminal: &str, remote_host: &str) -> Result<(), PamError> {
        for (item, value) in [(ITEM_TERMINAL, terminal), (ITEM_REMOTE_HOST, remote_host)] {
            let value = text("the place of the user", value)?;
            // SAFETY: the handle is open, and the library copies texts.
            self.last = unsafe { (self.functions.set_item)(self.handle, item, value.as_ptr().cast()) };
            self.outcome("say where the user is")?;
        }
        Ok(())
    }

    /// Sets a variable for modules and for the session.
    pub fn set_variable(&mut self, name: &str, value: &str) -> Result<(), PamError> {
        let entry = text("a variable", &format!("{name}={value}"))?;
        // SAFETY: the handle is open, and the library copies the text.
        self.last = unsafe { (self.functions.put_env)(self.handle, entry.as_ptr()) };
        self.outcome("set a variable")
    }

    /// Has the user prove who they are.
    pub fn authenticate(&mut self) -> Result<(), PamError> {
        self.step(self.functions.authenticate, 0, "authentication")
    }

    /// Asks whether the account may be used now, and that it still is the one that was asked for.
    pub fn check_account(&mut self) -> Result<(), PamError> {
        self.step(self.functions.check_account, 0, "account")?;
        let mut named = ptr::null();
        // SAFETY: the handle is open, and `named` is where the library puts a pointer of its own.
        self.last = unsafe { (self.functions.get_item)(self.handle, ITEM_USER, &mut named) };
        self.outcome("name of the account")?;
        // SAFETY: this item is a text that lives until the next call with the handle.
        let same = !named.is_null() && unsafe { CStr::from_ptr(named.cast()) } == self.user.as_c_str();
        if same {
            Ok(())
        } else {
            Err(self.refused("account", "a module names another account than the one asked for"))
        }
    }

    /// Opens the session, in this process and for what it starts.
    pub fn open_session(&mut self) -> Result<(), PamError> {
        // Modules say who may log in elsewhere. Those that make nothing here, or are none, say that they failed.
        let _ = self.step(self.functions.set_credentials, ESTABLISH, "credentials");
        self.opened = true; // modules that ran before one that failed want to clean up
        self.step(self.functions.open_session, 0, "session")
    }

    /// The variables that modules made for the session.
    pub fn environment(&mut self) -> Vec<(String, String)> {
        let mut entries = Vec::new();
        // SAFETY: the handle is open; the list ends with a null pointer, and list and texts are ours to free.
        unsafe {
            let list = (self.functions.environment)(self.handle);
            if list.is_null() {
                return entries;
            }
            let mut at = list;
            while !(*at).is_null() {
                if let (Ok(entry), true) = (CStr::from_ptr(*at).to_str(), entries.len() < MAX_ENTRIES) {
                    entries.extend(entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
                }
                libc::free((*at).cast());
                at = at.add(1);
            }
            libc::free(list.cast());
        }
        entries
    }

    fn step(&mut self, step: Step, flags: c_int, name: &'static str) -> Result<(), PamError> {
        // SAFETY: the handle is open until the transaction is dropped.
        self.last = unsafe { step(self.handle, flags) };
        self.outcome(name)
    }

    fn outcome(&self, step: &'static str) -> Result<(), PamError> {
        if self.last == SUCCESS {
            return Ok(());
        }
        // SAFETY: the library has a fixed text for every number, and does not look at the handle.
        let reason = unsafe {
            let text = (self.functions.describe)(self.handle, self.last);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        };
        Err(self.refused(step, reason.as_deref().unwrap_or("failed")))
    }

    fn refused(&self, step: &'static str, reason: &str) -> PamError {
        PamError::Refused { service: self.service.clone(), step, reason: reason.to_owned() }
    }
}

impl Drop for Transaction {
    /// Closes the session, if there is one.
    fn drop(&mut self) {
        // SAFETY: the handle is open or null, and not used after this; the conversation is freed after the library, which
        // may still speak, is done with it.
        unsafe {
            if !self.handle.is_null() {
                if self.opened {
                    self.last = (self.functions.close_session)(self.handle, 0);
                    (self.functions.set_credentials)(self.handle, DELETE);
                }
                (self.functions.end)(self.handle, self.last);
            }
            drop(Box::from_raw(self.conversation));
        }
    }
}

fn text(what: &'static str, text: &str) -> Result<CString, PamError> {
    CString::new(text).map_err(|_| PamError::ZeroByte(what))
}

/// What modules call to speak to the user. The answers belong to them afterwards, so the C library makes them.
extern "C" fn converse(count: c_int, messages: *const *const Message, answers: Answers, data: *mut c_void) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    if count == 0 || count > MAX_MESSAGES || messages.is_null() || answers.is_null() || data.is_null() {
        return CONVERSATION_ERROR;
    }
    // SAFETY: Linux-PAM hands over `count` pointers to messages, and the pointer that `pam_start` was given.
    unsafe {
        let conversation = &mut *data.cast::<Box<dyn Conversation>>();
        let replies = libc::calloc(count, size_of::<Response>()).cast::<Response>();
        if replies.is_null() {
            return BUFFER_ERROR;
        }
        for index in 0..count {
            let message = &**messages.add(index);
            let words = match message.text.is_null() {
                true => String::new(),
                false => CStr::from_ptr(message.text).to_string_lossy().into_owned(),
            };
            let answered = match message.style {
                PROMPT_HIDDEN | PROMPT_SHOWN => {
                    conversation.ask(&words, message.style == PROMPT_SHOWN).is_some_and(|a| {
                        (*replies.add(index)).text = a.handed_over();
                        !(*replies.add(index)).text.is_null()
                    })
                }
                ERROR_MESSAGE | TEXT => {
                    conversation.tell(&words);
                    true
                }
                _ => false,
            };
            if !answered {
                for earlier in 0..count {
                    libc::free((*replies.add(earlier)).text.cast());
                }
                libc::free(replies.cast());
                return CONVERSATION_ERROR;
            }
        }
        *answers = replies;
    }
    SUCCESS
}
