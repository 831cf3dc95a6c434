//! Accounts that the node makes for sessions, where roles say so, and removes again.
//!
//! The host's own programs (`useradd`, `groupadd`, `userdel`, `visudo`) do the work. Only accounts that were made here
//! are ever changed: they are in the group [`KEPT`] or [`DROPPED`]. An account that the host had before stays as it is;
//! rules of `sudo` are written for it too, and removed with its last connection.

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Group, User};
use parking_lot::Mutex;
use rbac::{HostUser, HostUserMode};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

/// Group of accounts that stay.
const KEPT: &str = "teleport-keep";
/// Group of accounts that are removed when nobody uses them.
const DROPPED: &str = "teleport-system";
/// How long a program may take.
const PROGRAM: Duration = Duration::from_secs(30);
/// How often accounts that nobody uses are looked for.
const CLEANUP: Duration = Duration::from_secs(5 * 60);
/// Pauses before an account is removed: its last processes take a moment to end.
const AFTER_SESSION: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(3), Duration::from_secs(10)];
/// Exit status of `userdel` for an account with running processes.
const IN_USE: i32 = 8;
/// Exit status of `useradd` and `groupadd` for a name that is taken.
const NAME_TAKEN: i32 = 9;
/// The longest name of an account or group.
const MAX_NAME: usize = 32;

/// Makes and removes accounts. Clones share what is in use.
#[derive(Clone)]
pub(crate) struct HostUsers {
    host_uuid: String,
    sudoers: PathBuf,
    /// How many connections use each login.
    used: Arc<Mutex<HashMap<String, usize>>>,
    /// One change at a time: the programs lock the same files.
    changing: Arc<tokio::sync::Mutex<()>>,
    tasks: TaskTracker,
}

/// Keeps an account from being removed.
pub(crate) struct InUse {
    users: HostUsers,
    login: String,
}

impl HostUsers {
    pub fn new(host_uuid: &str, tasks: TaskTracker) -> Self {
        Self {
            host_uuid: host_uuid.to_owned(),
            sudoers: PathBuf::from("/etc/sudoers.d"),
            used: Arc::default(),
            changing: Arc::default(),
            tasks,
        }
    }

    /// Makes the account of a login, or brings what was made before up to date.
    ///
    /// # Errors
    /// In words, when a program fails or the name cannot be one of an account.
    pub async fn prepare(&self, login: &str, wanted: &HostUser) -> Result<InUse, String> {
        if !is_name(login) {
            return Err(format!("{login:?} cannot be the name of an account"));
        }
        let in_use = self.hold(login);
        let _changing = self.changing.lock().await;
        let own = match wanted.mode {
            HostUserMode::Keep => KEPT,
            HostUserMode::InsecureDrop => DROPPED,
        };
        let mut groups: Vec<&str> = wanted.groups.iter().map(String::as_str).filter(|g| *g != login).collect();
        groups.push(own);
        if let Some(bad) = groups.iter().find(|g| !is_name(g)) {
            return Err(format!("{bad:?} cannot be the name of a group"));
        }
        match find(login)? {
            Some(_) if made_here(login)? => {
                make_groups(&groups).await?;
                run("usermod", &["--groups", &groups.join(","), "--", login], None).await?;
            }
            Some(_) => debug!(login, "account was there before: it stays as it is"),
            None => {
                make_groups(&groups).await?;
                make_account(login, wanted, &groups).await?;
                info!(login, group = own, "account made");
            }
        }
        self.write_sudoers(login, &wanted.sudoers).await?;
        Ok(in_use)
    }

    fn hold(&self, login: &str) -> InUse {
        *self.used.lock().entry(login.to_owned()).or_default() += 1;
        InUse { users: self.clone(), login: login.to_owned() }
    }

    /// Removes rules of `sudo` that an earlier process left behind, and accounts, now and from time to time.
    pub async fn clean_up(self) {
        self.forget_sudoers().await;
        loop {
            let members = Group::from_name(DROPPED).ok().flatten().map(|g| g.mem).unwrap_or_default();
            for login in members {
                self.remove(&login).await;
            }
            sleep(CLEANUP).await;
        }
    }

    /// Removes an account that was made to be dropped, unless somebody uses it; false when it is to be tried again.
    async fn remove(&self, login: &str) -> bool {
        let _changing = self.changing.lock().await;
        if self.used.lock().contains_key(login) {
            return true;
        }
        remove_rules(&self.sudoers_file(login)).await;
        if !is_member(login, DROPPED) {
            return true;
        }
        match status("userdel", &["--", login], None).await {
            Ok(Some(0)) => {
                info!(login, "account removed");
                true
            }
            Ok(Some(IN_USE)) => false,
            Ok(code) => {
                warn!(login, ?code, "account not removed");
                false
            }
            Err(problem) => {
                warn!(login, problem, "account not removed");
                false
            }
        }
    }

    fn sudoers_prefix(&self) -> String {
        format!("teleport-{}-", self.host_uuid)
    }

    /// `sudo` reads no file with a dot in its name. What stands for it is in no login's name, so no two share a file.
    fn sudoers_file(&self, login: &str) -> PathBuf {
        let name = login.replace('.', "%2E");
        self.sudoers.join(format!("{}{name}", self.sudoers_prefix()))
    }

    /// Removes this node's rules for `sudo`, but those of logins that are in use already.
    async fn forget_sudoers(&self) {
        let _changing = self.changing.lock().await;
        let Ok(mut folder) = tokio::fs::read_dir(&self.sudoers).await else { return };
        let used: Vec<_> = self.used.lock().keys().map(|login| self.sudoers_file(login)).collect();
        while let Ok(Some(entry)) = folder.next_entry().await {
            let own = entry.file_name().to_str().is_some_and(|name| name.starts_with(&self.sudoers_prefix()));
            if own && !used.contains(&entry.path()) {
                remove_rules(&entry.path()).await;
            }
        }
    }

    /// Writes the login's rules for `sudo`, after `visudo` has read them. Without rules, those of an earlier connection
    /// go, unless another one still has them.
    async fn write_sudoers(&self, login: &str, entries: &[String]) -> Result<(), String> {
        if entries.is_empty() {
            if self.used.lock().get(login).is_none_or(|count| *count <= 1) {
                remove_rules(&self.sudoers_file(login)).await;
            }
            return Ok(());
        }
        let uid = find(login)?.ok_or_else(|| format!("there is no account {login}"))?.uid;
        if entries.iter().any(|entry| entry.contains(['\n', '\r', '\0'])) {
            return Err("a role's host_sudoers has an entry of several lines".into());
        }
        // By number: sudo reads a name in capital letters as a group of users, and ALL as everybody.
        let text: String = entries.iter().map(|entry| format!("#{uid} {entry}\n")).collect();
        run("visudo", &["--check", "--file", "-"], Some(text.as_bytes())).await?;
        let path = self.sudoers_file(login);
        let failed = |e: std::io::Error| format!("writing {}: {e}", path.display());
        // Under a name that sudo does not read, then renamed: sudo never sees half a file.
        let new = path.with_extension("new~");
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.write(true).create(true).truncate(true).mode(0o640).open(&new).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        std::fs::rename(&new, &path).map_err(failed)?;
        Ok(())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut used = self.users.used.lock();
        let Some(count) = used.get_mut(&self.login) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        used.remove(&self.login);
        drop(used);
        let (users, login) = (self.users.clone(), std::mem::take(&mut self.login));
        let tasks = users.tasks.clone();
        tasks.spawn(async move {
            for pause in AFTER_SESSION {
                sleep(pause).await;
                if users.remove(&login).await {
                    return;
                }
            }
            debug!(login, "account is still in use: it is removed later");
        });
    }
}

async fn remove_rules(file: &Path) {
    if let Err(error) = tokio::fs::remove_file(file).await
        && error.kind() != ErrorKind::NotFound
    {
        warn!(%error, file = %file.display(), "rules of sudo not removed");
    }
}

async fn make_groups(groups: &[&str]) -> Result<(), String> {
    for group in groups {
        if Group::from_name(group).map_err(|e| format!("looking up group {group}: {e}"))?.is_none() {
            match status("groupadd", &["--", group], None).await? {
                Some(0 | NAME_TAKEN) => {}
                code => return Err(format!("groupadd {group}: exit status {code:?}")),
            }
        }
    }
    Ok(())
}

async fn make_account(login: &str, wanted: &HostUser, groups: &[&str]) -> Result<(), String> {
    let groups = groups.join(",");
    let mut arguments = vec!["--groups", &groups];
    let (uid, gid) = (wanted.uid.map(|id| id.to_string()), wanted.gid.map(|id| id.to_string()));
    if let Some(uid) = &uid {
        arguments.extend(["--uid", uid]);
    }
    if let Some(gid) = &gid {
        if Group::from_name(login).ok().flatten().is_none() {
            run("groupadd", &["--gid", gid, "--", login], None).await?;
        }
        arguments.extend(["--gid", gid]);
    }
    match wanted.mode {
        HostUserMode::Keep => arguments.push("--create-home"),
        HostUserMode::InsecureDrop => arguments.extend(["--no-create-home", "--home-dir", "/"]),
    }
    arguments.extend(["--", login]);
    run("useradd", &arguments, None).await?;
    if wanted.mode == HostUserMode::Keep
        && let Some(user) = find(login)?
    {
        let private = std::fs::Permissions::from_mode(0o700);
        if let Err(error) = std::fs::set_permissions(&user.dir, private) {
            warn!(%error, home = %user.dir.display(), "home folder is not private");
        }
    }
    Ok(())
}

fn find(login: &str) -> Result<Option<User>, String> {
    User::from_name(login).map_err(|e| format!("looking up user {login}: {e}"))
}

/// Whether an account was made by a node.
fn made_here(login: &str) -> Result<bool, String> {
    Ok(is_member(login, KEPT) || is_member(login, DROPPED))
}

fn is_member(login: &str, group: &str) -> bool {
    Group::from_name(group).ok().flatten().is_some_and(|g| g.mem.iter().any(|m| m == login))
}

/// Whether a text can name an account or group; also keeps options of programs out.
fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-@".contains(c);
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(inner)
        && !text.chars().all(|c| c.is_ascii_digit())
}

/// Runs a program that must succeed.
async fn run(program: &str, arguments: &[&str], input: Option<&[u8]>) -> Result<(), String> {
    match status(program, arguments, input).await? {
        Some(0) => Ok(()),
        Some(code) => Err(format!("{program}: exit status {code}")),
        None => Err(format!("{program}: ended by a signal")),
    }
}

/// Runs a program; gives its exit status. What it says goes to the log.
async fn status(program: &str, arguments: &[&str], input: Option<&[u8]>) -> Result<Option<i32>, String> {
    let mut command = Command::new(find_program(program)?);
    command.args(arguments).kill_on_drop(true).stdout(Stdio::null()).stderr(Stdio::piped());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let work = async {
        let mut child = command.spawn()?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            stdin.write_all(input).await?;
        }
        child.wait_with_output().await
    };
    match timeout(PROGRAM, work).await {
        Ok(Ok(output)) => {
            if !output.status.success() {
                debug!(program, said = %String::from_utf8_lossy(&output.stderr).trim(), "program failed");
            }
            Ok(output.status.code())
        }
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!("waited 30 s for {program}")),
    }
}

fn find_program(program: &str) -> Result<PathBuf, String> {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists());
    found.ok_or_else(|| format!("{program} is not installed on this host"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_that_programs_would_take_for_options_are_none() {
        assert!(is_name("alice") && is_name("a.b-c@d") && is_name("_x1"));
        for bad in ["", "-u0", "a b", "a/b", "0", "a:b", "ü", "a\n"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn rules_of_sudo_have_one_file_for_each_login_and_host() {
        let users = HostUsers::new("uuid", TaskTracker::new());
        assert_eq!(users.sudoers_file("a_b"), Path::new("/etc/sudoers.d/teleport-uuid-a_b"));
        assert_eq!(users.sudoers_file("a.b"), Path::new("/etc/sudoers.d/teleport-uuid-a%2Eb"));
        assert!(!is_name("a%2Eb"));
    }

    #[tokio::test]
    async fn rules_that_an_earlier_process_left_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut users = HostUsers::new("uuid", TaskTracker::new());
        users.sudoers = folder.path().to_owned();
        let _in_use = users.hold("bob");
        let before = folder.path().join("teleport-uuid-a_b");
        for file in [users.sudoers_file("alice"), users.sudoers_file("bob"), before.clone()] {
            std::fs::write(file, "rules").unwrap();
        }
        let other = folder.path().join("admins");
        std::fs::write(&other, "rules").unwrap();
        users.forget_sudoers().await;
        assert!(!users.sudoers_file("alice").exists() && !before.exists(), "also of a.b, as it was called before");
        assert!(users.sudoers_file("bob").exists() && other.exists());
        users.write_sudoers("bob", &[]).await.unwrap();
        assert!(!users.sudoers_file("bob").exists(), "nothing is allowed any more");
    }
}
