//! File transfers in moderated sessions: what one party asks for, and others approve.
//!
//! Somebody who may not be at a host alone may not copy files there alone either. A party of the session names one file
//! and the direction; when those who have to be present have approved, that file, and no other, can be copied once.

use std::path::{Component, Path, PathBuf};

use rbac::Participant;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::Moderation;
use super::moderation::Verdict;
use crate::worker::sftp::Only;

/// The longest path and name taken.
const MAX_PATH: usize = 4096;

/// A transfer that a party wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferRequest {
    /// Whether the file comes from the host.
    pub download: bool,
    /// Path on the host, as the party wrote it.
    pub location: String,
    /// Name of the file that comes to the host.
    pub filename: String,
}

/// Who asks something of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// One of its parties.
    Party(u64),
    /// A user on another connection, by the name that they have in this cluster.
    User(String),
}

/// Somebody who begins a copy on a connection of their own, or waits to be allowed it.
#[derive(Debug)]
pub struct Copier {
    /// The user, by the name that they have in this cluster.
    pub user: String,
    /// What their roles demand there: those of the session may have been others.
    pub rules: Moderation,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Only, String>>,
}

/// A transfer that was asked for.
#[derive(Debug)]
pub(super) struct Transfer {
    pub id: String,
    /// The user as this cluster knows them.
    requester: String,
    /// The user as others read it.
    shown: String,
    request: TransferRequest,
    path: PathBuf,
    approvers: Vec<Participant>,
    /// Who waits to copy.
    copier: Option<Copier>,
}

impl Transfer {
    /// A transfer of a file of somebody with this home folder.
    ///
    /// # Errors
    /// In words, when the request names no file.
    pub fn new(
        id: String,
        requester: &str,
        shown: &str,
        request: TransferRequest,
        home: &Path,
    ) -> Result<Self, String> {
        let long = request.location.len() > MAX_PATH || request.filename.len() > MAX_PATH;
        if request.location.is_empty() || long || request.location.contains('\0') {
            return Err("no path is set for the file transfer".to_owned());
        }
        if !request.download && (request.filename.is_empty() || request.filename.contains(['/', '\0'])) {
            return Err("no source file is set for the upload".to_owned());
        }
        let path = expand(&request.location, home);
        let (requester, shown) = (requester.to_owned(), shown.to_owned());
        Ok(Self { id, requester, shown, request, path, approvers: Vec::new(), copier: None })
    }

    /// What those at the terminal read.
    pub fn words(&self) -> String {
        let (user, path) = (&self.shown, self.path.display());
        match self.request.download {
            true => format!("User {user} would like to download: {path}"),
            false => format!("User {user} would like to upload {} to: {path}", self.request.filename),
        }
    }

    /// Somebody approves.
    pub fn approve(&mut self, by: Participant) {
        self.approvers.retain(|earlier| earlier.user != by.user); // who came back may take part in another way
        self.approvers.push(by);
    }

    /// Whether those who approved are enough: by the rules of the session, and by those of whoever waits to copy.
    pub fn is_approved(&self, session: &Moderation) -> bool {
        let copier = self.copier.as_ref().filter(|copier| !copier.answer.is_closed());
        let mut rules = std::iter::once(session).chain(copier.map(|copier| &copier.rules));
        rules.all(|rules| rules.judge(&self.approvers) == Verdict::Run)
    }

    /// The transfer as an event of this kind.
    pub fn event(&self, kind: &str, session: &str) -> Value {
        let approvers: Vec<&str> = self.approvers.iter().map(|approver| approver.user.as_str()).collect();
        json!({
            "event": kind, "sid": session, "time": chrono::Utc::now().to_rfc3339(),
            "requestID": self.id, "requester": self.shown, "location": self.path.to_string_lossy(),
            "download": self.request.download, "filename": self.request.filename, "approvers": approvers,
        })
    }

    /// Whether it is this user who asked, and may copy once it is approved.
    pub fn is_of(&self, user: &str) -> bool {
        self.requester == user
    }

    /// Lets somebody wait for the approval; an earlier one waits no more.
    pub fn wait(&mut self, copier: Copier) {
        if let Some(earlier) = self.copier.replace(copier) {
            let _ = earlier.answer.send(Err("another copy waits for the approval".to_owned())); // it may be gone
        }
    }

    /// Whoever waits.
    pub fn take_copier(&mut self) -> Option<Copier> {
        self.copier.take().filter(|copier| !copier.answer.is_closed())
    }

    /// What may be copied.
    pub fn only(&self) -> Only {
        let path = self.path.to_string_lossy().into_owned();
        match self.request.download {
            true => Only { path, within: None, upload: false },
            false => Only { path, within: Some(self.request.filename.clone()), upload: true },
        }
    }
}

/// A path without `.` and `..`, from the home folder where it does not begin at the root.
fn expand(location: &str, home: &Path) -> PathBuf {
    let location = location.strip_prefix("~/").unwrap_or(if location == "~" { "." } else { location });
    let mut path = PathBuf::from("/");
    for component in home.join(location).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => drop(path.pop()),
            _ => {}
        }
    }
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rbac::JoinMode;

    use super::super::moderation::tests::{auditor, guarded, guarded_of};
    use super::*;

    fn transfer(download: bool, location: &str, filename: &str) -> Result<Transfer, String> {
        let request = TransferRequest { download, location: location.into(), filename: filename.into() };
        Transfer::new("the-id".into(), "alice", "alice", request, Path::new("/home/dev"))
    }

    #[test]
    fn paths_are_those_of_the_accounts_home() {
        let words = |location| transfer(true, location, "").unwrap().words();
        for (location, path) in [
            ("~/a", "/home/dev/a"),
            ("a", "/home/dev/a"),
            ("/x/../etc/./passwd", "/etc/passwd"),
            ("../../../..", "/"),
            ("~", "/home/dev"),
        ] {
            assert_eq!(words(location), format!("User alice would like to download: {path}"));
        }
        let upload = transfer(false, "/srv", "notes").unwrap();
        assert_eq!(upload.words(), "User alice would like to upload notes to: /srv");
        assert_eq!(upload.only(), Only { path: "/srv".into(), within: Some("notes".into()), upload: true });
    }

    #[test]
    fn requests_without_a_file_are_refused() {
        assert_eq!(transfer(false, "/srv", "").unwrap_err(), "no source file is set for the upload");
        assert!(transfer(false, "/srv", "../x").is_err() && transfer(true, "", "").is_err());
    }

    #[test]
    fn those_who_have_to_be_present_have_to_approve() {
        let moderation = guarded("pause");
        let mut wanted = transfer(true, "a", "").unwrap();
        assert!(!wanted.is_approved(&moderation));
        wanted.approve(auditor(JoinMode::Observer));
        assert!(!wanted.is_approved(&moderation));
        wanted.approve(auditor(JoinMode::Moderator));
        assert!(wanted.is_approved(&moderation));
        assert_eq!(wanted.event("file_transfer_request_approve", "sid")["approvers"], json!(["bob"]));
    }

    #[test]
    fn who_copies_brings_rules_that_those_who_approved_have_to_meet_as_well() {
        let moderation = guarded("pause");
        let mut wanted = transfer(true, "a", "").unwrap();
        wanted.approve(auditor(JoinMode::Moderator));
        // Bob does not count where he is the one who copies.
        let (answer, waiting) = oneshot::channel();
        wanted.wait(Copier { user: "bob".into(), rules: guarded_of("bob", "pause"), answer });
        assert!(!wanted.is_approved(&moderation));
        drop(waiting);
        assert!(wanted.is_approved(&moderation) && wanted.take_copier().is_none());
    }
}
