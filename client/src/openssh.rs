//! Configuration for OpenSSH's clients: how to reach the hosts of a cluster with `ssh`, `scp` and `sftp`.

use std::fmt::Write;
use std::path::Path;

use crate::account::Account;
use crate::error::{Error, Result};

/// Algorithms of host keys to ask for. All are certificates, so that known authorities decide; hosts of clusters made
/// by older releases have RSA keys.
const HOST_KEY_ALGORITHMS: &str = "ssh-ed25519-cert-v01@openssh.com,ecdsa-sha2-nistp256-cert-v01@openssh.com,\
    rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com";

/// The port in the generated configuration; hosts behind tunnels have any.
const DEFAULT_PORT: u16 = 3022;

/// What the configuration says besides the account.
#[derive(Clone, Debug)]
pub struct OpensshConfig<'a> {
    /// This program.
    pub program: &'a Path,
    /// The clusters to reach.
    pub clusters: &'a [String],
    /// The account on hosts, if one is to be the default.
    pub login: Option<&'a str>,
    /// The port of hosts.
    pub port: Option<u16>,
}

impl OpensshConfig<'_> {
    /// The text for `ssh_config(5)`.
    ///
    /// # Errors
    /// An identity file has no separate files that OpenSSH could use, and a path with a quote cannot be written.
    pub fn text(&self, account: &Account) -> Result<String> {
        let home = account.home.as_ref().ok_or_else(|| {
            Error::other("OpenSSH needs the files of a login: use 'tsh login', or 'tctl auth sign --format=openssh'")
        })?;
        let (proxy, user) = (account.proxy_host(), account.username.as_str());
        let known_hosts = quoted(&home.known_hosts())?;
        let key = quoted(&home.ssh_key(proxy, user)?)?;
        let certificate = quoted(&home.ssh_certificate(proxy, user, account.root_cluster())?)?;
        let program = quoted(self.program)?;
        let web = checked(&account.profile.web_proxy_addr)?;
        let proxy = checked(proxy)?;
        let port = self.port.unwrap_or(DEFAULT_PORT);
        let mut text = format!("# Begin generated configuration for {proxy}: written by tsh config\n");
        for cluster in self.clusters {
            let cluster = checked(cluster)?;
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "\n# Hosts of the cluster {cluster}\n\
                 Host *.{cluster} {proxy}\n    \
                     UserKnownHostsFile {known_hosts}\n    \
                     IdentityFile {key}\n    \
                     CertificateFile {certificate}\n    \
                     HostKeyAlgorithms {HOST_KEY_ALGORITHMS}\n"
            );
            if let Some(login) = self.login {
                let _ = writeln!(text, "    User {}", checked(login)?);
            }
            let _ = write!(
                text,
                "\nHost *.{cluster} !{proxy}\n    \
                     Port {port}\n    \
                     ProxyCommand {program} proxy ssh --cluster={cluster} --proxy={web} %r@%h:%p\n"
            );
        }
        text.push_str("\n# End generated configuration\n");
        Ok(text)
    }
}

/// A path in quotes.
fn quoted(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.contains(['"', '\n', '\r']));
    // A percent sign begins a token of ssh_config(5).
    let text = text.map(|text| text.replace('%', "%%"));
    text.map(|text| format!("\"{text}\""))
        .ok_or_else(|| Error::other(format!("path {path:?} cannot be written for OpenSSH")))
}

/// A name that stays one word, in the configuration and in the shell that runs `ProxyCommand`.
fn checked(name: &str) -> Result<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '@' | '+');
    let fits = !name.is_empty() && !name.starts_with('-') && name.chars().all(plain);
    fits.then_some(name).ok_or_else(|| Error::other(format!("name {name:?} cannot be written for OpenSSH")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_that_a_shell_would_obey_are_refused() {
        for bad in ["", "a b", "a;b", "$(x)", "-x", "a\nb", "*"] {
            assert!(checked(bad).is_err(), "{bad:?}");
        }
        assert_eq!(checked("main.test").unwrap(), "main.test");
        assert_eq!(quoted(Path::new("/home/a b/50%")).unwrap(), "\"/home/a b/50%%\"");
        assert!(quoted(Path::new("/home/a\"b")).is_err());
    }
}
