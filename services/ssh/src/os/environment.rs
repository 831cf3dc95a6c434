//! The environment of a session's process.
//!
//! Later entries win: the base, then what the client sent, then what the server knows about the session; the user's own
//! file adds what is not there yet. A client can never set what the server vouches for, nor what changes how programs are
//! loaded. Where PAM opens the session, its variables come last and win (`worker::login`).

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::account::Account;

/// Names only the server sets.
const TRUSTED: [&str; 11] = [
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_SESSION_ID",
    "SSH_TELEPORT_CLUSTER_NAME",
    "SSH_TELEPORT_HOST_UUID",
    "SSH_TELEPORT_USER",
    "SSH_TTY",
    "TERM",
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "DISPLAY",
];
/// Search path of ordinary accounts where `login.defs` sets none.
const USER_PATH: &str = "/bin:/usr/bin:/usr/local/bin:/sbin";
/// Search path of root where `login.defs` sets none.
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Entries a client may send on one channel, so that it cannot fill memory.
const MAX_CLIENT_ENTRIES: usize = 256;
/// Bytes of all of them. A kernel takes no more than 2 MiB of arguments and environment.
const MAX_CLIENT_BYTES: usize = 1024 * 1024;

/// What the server knows about a session and tells its process.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Where the client is.
    pub client: SocketAddr,
    /// Where the client's connection arrived.
    pub server: SocketAddr,
    /// UUID of this host.
    pub host_uuid: &'a str,
    /// Name of the cluster.
    pub cluster: &'a str,
    /// Name of the cluster's user, not of the login.
    pub user: &'a str,
    /// Id of the session, when it has one.
    pub session_id: Option<&'a str>,
    /// Terminal type and path, when there is a terminal.
    pub terminal: Option<(&'a str, &'a Path)>,
}

/// What a process is told beyond [`Facts`].
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Socket of the client's agent.
    pub agent: Option<String>,
    /// Display for graphical programs.
    pub display: Option<String>,
    /// Entries of the user's environment file, where the node reads it.
    pub file: Vec<(String, String)>,
}

/// Environment entries sent by a client, in order.
#[derive(Clone, Debug, Default)]
pub struct ClientEnvironment(BTreeMap<String, String>);

impl ClientEnvironment {
    /// Keeps an entry; false when the client has sent too many, or too much.
    pub fn set(&mut self, name: String, value: String) -> bool {
        let others = self.0.iter().filter(|(other, _)| **other != name);
        let (count, bytes) = others.fold((0, 0), |(n, bytes), (name, value)| (n + 1, bytes + name.len() + value.len()));
        if count >= MAX_CLIENT_ENTRIES || bytes + name.len() + value.len() > MAX_CLIENT_BYTES {
            return false;
        }
        self.0.insert(name, value);
        true
    }

    /// The value sent for a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// What every process of `account` gets.
pub fn minimal(account: &Account) -> BTreeMap<String, String> {
    let text = |p: &Path| p.to_string_lossy().into_owned();
    BTreeMap::from([
        ("LANG".to_owned(), "en_US.UTF-8".to_owned()),
        ("PATH".to_owned(), search_path(account.uid.is_root(), Path::new("/etc/login.defs"))),
        ("HOME".to_owned(), text(&account.home)),
        ("USER".to_owned(), account.name.clone()),
        ("LOGNAME".to_owned(), account.name.clone()),
        ("SHELL".to_owned(), text(&account.shell)),
    ])
}

/// The environment of a process of `account`.
pub fn build(
    account: &Account,
    facts: &Facts<'_>,
    extras: &Extras,
    client: &ClientEnvironment,
) -> BTreeMap<String, String> {
    let mut env = minimal(account);
    for (name, value) in &client.0 {
        if acceptable(name) && !value.contains('\0') {
            env.insert(name.clone(), value.clone());
        }
    }
    let (c, s) = (facts.client, facts.server);
    env.insert("SSH_CLIENT".into(), format!("{} {} {}", c.ip(), c.port(), s.port()));
    env.insert("SSH_CONNECTION".into(), format!("{} {} {} {}", c.ip(), c.port(), s.ip(), s.port()));
    env.insert("SSH_TELEPORT_HOST_UUID".into(), facts.host_uuid.to_owned());
    env.insert("SSH_TELEPORT_CLUSTER_NAME".into(), facts.cluster.to_owned());
    env.insert("SSH_TELEPORT_USER".into(), facts.user.to_owned());
    if let Some(id) = facts.session_id {
        env.insert("SSH_SESSION_ID".into(), id.to_owned());
    }
    if let Some((term, path)) = facts.terminal {
        env.insert("TERM".into(), term.to_owned());
        env.insert("SSH_TTY".into(), path.to_string_lossy().into_owned());
    }
    if let Some(socket) = &extras.agent {
        env.insert("SSH_AUTH_SOCK".into(), socket.clone());
        env.insert("SSH_AGENT_PID".into(), std::process::id().to_string());
    }
    if let Some(display) = &extras.display {
        env.insert("DISPLAY".into(), display.clone());
    }
    for (name, value) in &extras.file {
        if acceptable(name) && !env.contains_key(name) {
            env.insert(name.clone(), value.clone());
        }
    }
    env
}

/// Lines read of a user's environment file.
const MAX_FILE_LINES: usize = 1000;

/// The entries of a user's environment file: `NAME=value` lines; `#` begins a comment.
pub fn parse_file(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().take(MAX_FILE_LINES).map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let entries = lines.filter_map(|line| line.split_once('='));
    entries
        .map(|(name, value)| (name.trim().to_owned(), value.to_owned()))
        .filter(|(n, v)| !n.is_empty() && !v.contains('\0'))
        .collect()
}

/// Whether a client may set this name.
fn acceptable(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    !name.is_empty()
        && !name.contains(['=', '\0'])
        && !TRUSTED.contains(&upper.as_str())
        && !upper.starts_with("LD_")
        && !upper.starts_with("DYLD_")
}

/// The search path `login.defs` gives, or the built-in one.
fn search_path(root: bool, login_defs: &Path) -> String {
    let (key, fallback) = if root { ("ENV_SUPATH", ROOT_PATH) } else { ("ENV_PATH", USER_PATH) };
    let text = fs::read_to_string(login_defs).unwrap_or_default();
    let mut set = text.lines().rev().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == key).then(|| words.next()).flatten()
    });
    set.next().map_or(fallback, |v| v.strip_prefix("PATH=").unwrap_or(v)).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::PathBuf;

    use nix::unistd::{Gid, Uid};

    use super::*;

    fn environment(client: &ClientEnvironment) -> BTreeMap<String, String> {
        let account = Account {
            name: "dev".into(),
            uid: Uid::from_raw(1000),
            gid: Gid::from_raw(1000),
            groups: vec![],
            home: PathBuf::from("/home/dev"),
            shell: PathBuf::from("/bin/bash"),
        };
        let facts = Facts {
            client: "10.0.0.1:5000".parse().unwrap(),
            server: "10.0.0.2:3022".parse().unwrap(),
            host_uuid: "uuid",
            cluster: "main",
            user: "alice",
            session_id: Some("sid"),
            terminal: Some(("xterm", Path::new("/dev/pts/3"))),
        };
        let file = parse_file("# mine\nEDITOR=vi\nTERM=dumb\nLD_PRELOAD=/x\n\nno line\n");
        let extras = Extras { file, agent: Some("/tmp/a.socket".into()), display: None };
        build(&account, &facts, &extras, client)
    }

    #[test]
    fn the_server_says_who_is_connected_and_from_where() {
        let env = environment(&ClientEnvironment::default());
        assert_eq!(env["SSH_CONNECTION"], "10.0.0.1 5000 10.0.0.2 3022");
        assert_eq!((env["USER"].as_str(), env["SSH_TELEPORT_USER"].as_str()), ("dev", "alice"));
        assert_eq!((env["TERM"].as_str(), env["SSH_TTY"].as_str()), ("xterm", "/dev/pts/3"));
    }

    #[test]
    fn a_client_sets_its_locale_but_neither_facts_nor_loader_variables() {
        let mut client = ClientEnvironment::default();
        for (name, value) in
            [("LANG", "de_DE"), ("ssh_client", "x"), ("SSH_TELEPORT_USER", "root"), ("ld_preload", "/x")]
        {
            assert!(client.set(name.into(), value.into()));
        }
        let env = environment(&client);
        assert_eq!(env["LANG"], "de_DE");
        assert_eq!(env["SSH_TELEPORT_USER"], "alice");
        assert!(!env.contains_key("ld_preload") && !env.contains_key("ssh_client"));
    }

    #[test]
    fn the_users_file_adds_variables_and_changes_none() {
        let env = environment(&ClientEnvironment::default());
        assert_eq!((env["EDITOR"].as_str(), env["TERM"].as_str()), ("vi", "xterm"));
        assert!(!env.contains_key("LD_PRELOAD") && !env.contains_key("no line"));
        assert_eq!(env["SSH_AUTH_SOCK"], "/tmp/a.socket");
    }

    #[test]
    fn a_client_cannot_send_entries_without_end() {
        let mut client = ClientEnvironment::default();
        assert_eq!((0..1000).filter(|i| client.set(format!("N{i}"), String::new())).count(), MAX_CLIENT_ENTRIES);
        let long = || "x".repeat(100 * 1024);
        let mut client = ClientEnvironment::default();
        assert_eq!((0..100).filter(|i| client.set(format!("N{i}"), long())).count(), 10);
        assert!(client.set("N1".into(), long()), "another value in place of the one before");
    }

    #[test]
    fn the_search_path_of_the_host_is_used() {
        let file = std::env::temp_dir().join(format!("login.defs.{}", std::process::id()));
        fs::write(&file, "# comment\nENV_SUPATH\tPATH=/root/bin\nENV_PATH PATH=/user/bin\n").unwrap();
        assert_eq!(search_path(true, &file), "/root/bin");
        assert_eq!(search_path(false, &file), "/user/bin");
        fs::remove_file(&file).unwrap();
        assert_eq!(search_path(false, &file), USER_PATH);
    }
}
