//! Configuration for OpenSSH's clients: how to reach the hosts of a cluster with `ssh`, `scp` and `sftp`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use pki::known_hosts;

use crate::account::Account;
use crate::error::{Error, Result};
use crate::home::{Home, Privacy, write};

/// Algorithms of host keys to ask for. All are certificates, so that known authorities decide; hosts of clusters made
/// by older releases have RSA keys.
const HOST_KEY_ALGORITHMS: &str = "ssh-ed25519-cert-v01@openssh.com,ecdsa-sha2-nistp256-cert-v01@openssh.com,\
    rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com";

/// The port in the generated configuration; hosts behind tunnels have any.
const DEFAULT_PORT: u16 = 3022;

/// What the configuration says besides the account.
#[derive(Clone, Debug)]
pub struct OpensshConfig<'a> {
    /// The client's folder.
    pub home: &'a Home,
    /// The identity file, where there is one in place of a login.
    pub identity: Option<&'a Path>,
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
    /// The text for `ssh_config(5)`. What an identity file holds is written to the client's folder, in files that
    /// OpenSSH can read.
    ///
    /// # Errors
    /// Files that cannot be written, and paths and names that cannot stand in such a text.
    pub fn text(&self, account: &Account) -> Result<String> {
        let files = match &account.home {
            Some(home) => Files::of_login(home, account)?,
            None => Files::of_identity(self.home, account)?,
        };
        let known_hosts = quoted(&files.known_hosts)?;
        let key = quoted(&files.key)?;
        let certificate = quoted(&files.certificate)?;
        let program = in_shell(self.program)?;
        let identity = self.identity.map(|path| Ok::<_, Error>(format!(" -i {}", in_shell(path)?))).transpose()?;
        let identity = identity.unwrap_or_default();
        let web = checked(&account.profile.web_proxy_addr)?;
        let proxy = checked(account.proxy_host())?;
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
                     ProxyCommand {program}{identity} proxy ssh --cluster={cluster} --proxy={web} %r@%h:%p\n"
            );
        }
        text.push_str("\n# End generated configuration\n");
        Ok(text)
    }
}

/// The files of an account that OpenSSH reads.
struct Files {
    key: PathBuf,
    certificate: PathBuf,
    known_hosts: PathBuf,
}

impl Files {
    fn of_login(home: &Home, account: &Account) -> Result<Self> {
        let (proxy, user) = (account.proxy_host(), account.username.as_str());
        Ok(Self {
            key: home.ssh_key(proxy, user)?,
            certificate: home.ssh_certificate(proxy, user, account.root_cluster())?,
            known_hosts: home.known_hosts(),
        })
    }

    /// Written anew each time: the identity file may be another one of the same user. A login's files stay as they are.
    fn of_identity(home: &Home, account: &Account) -> Result<Self> {
        let folder = home.user_file(account.proxy_host(), &account.username, "-identity")?;
        let file = |name: &str| folder.join(name);
        let files = Self { key: file("key"), certificate: file("key-cert.pub"), known_hosts: file("known_hosts") };
        let (key, certificate) = account.keys.to_openssh()?;
        let proxy = Some(account.proxy_host());
        let authorities = account.keys.trusted.iter().flat_map(|cluster| {
            cluster.ssh_keys.iter().map(move |key| known_hosts::host_authority_line(proxy, &cluster.name, key))
        });
        write(&files.key, key.as_bytes(), Privacy::Secret)?;
        write(&files.certificate, certificate.as_bytes(), Privacy::Secret)?;
        write(&files.known_hosts, authorities.collect::<String>().as_bytes(), Privacy::Shared)?;
        Ok(files)
    }
}

/// A path in quotes, in a command that a shell reads.
fn in_shell(path: &Path) -> Result<String> {
    let text = quoted(path)?;
    if text.contains(['$', '`', '\\']) {
        return Err(Error::other(format!("path {path:?} cannot be written for the shell that OpenSSH starts")));
    }
    Ok(text)
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
        for bad in ["/home/$(x)", "/home/`x`", "/home/a\\b"] {
            assert!(in_shell(Path::new(bad)).is_err(), "{bad:?}");
        }
    }
}
