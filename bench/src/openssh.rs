//! Two OpenSSH servers on loopback: a jump host and a target.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::{account, free_port, wait_for};
use tempfile::TempDir;

const SSHD: &str = "/usr/sbin/sshd";

/// The servers, ended when this is dropped.
pub struct OpenSsh {
    servers: Vec<Child>,
    folder: TempDir,
}

impl OpenSsh {
    /// Starts both servers, which accept user certificates of a fresh authority.
    ///
    /// # Errors
    /// In words, when OpenSSH is not installed or does not let this account in.
    pub fn start() -> Result<Self, String> {
        if !Path::new(SSHD).exists() {
            return Err(format!("{SSHD} is not installed"));
        }
        fs::create_dir_all("/run/sshd").map_err(|e| format!("/run/sshd, which sshd needs: {e}"))?;
        let folder = tempfile::Builder::new().prefix("bench-").tempdir().expect("make a temporary folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        for key in ["host", "user", "authority"] {
            keygen(&["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])?;
        }
        let user = account();
        keygen(&["-q", "-s", &path("authority"), "-I", &user, "-n", &user, &path("user.pub")])?;
        let ports = [free_port(), free_port()];
        let servers = ports.map(|port| {
            let config = path(&format!("sshd{port}"));
            let text = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nUsePAM no\nPermitRootLogin yes\n\
                 PasswordAuthentication no\nMaxStartups 1000\nTrustedUserCAKeys {}\nAuthorizedKeysFile none\n\
                 Subsystem sftp /usr/lib/openssh/sftp-server\n",
                path("host"),
                path("authority.pub")
            );
            fs::write(&config, text).expect("write a configuration");
            let mut command = Command::new(SSHD);
            command.args(["-D", "-f", &config]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("start sshd")
        });
        let [jump, target] = ports;
        let config = format!(
            "Host jump\n HostName 127.0.0.1\n Port {jump}\nHost target\n HostName 127.0.0.1\n Port {target}\n \
             ProxyCommand ssh -F {0} -W %h:%p jump\nHost *\n User {user}\n IdentityFile {1}\n IdentitiesOnly yes\n \
             StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n",
            path("config"),
            path("user")
        );
        fs::write(path("config"), config).expect("write a configuration");
        for port in ports {
            wait_for("sshd", Duration::from_secs(10), || TcpStream::connect(("127.0.0.1", port)));
        }
        let openssh = Self { servers: servers.into(), folder };
        let tried = openssh.run("true").output().map_err(|e| format!("ssh: {e}"))?;
        match tried.status.success() {
            true => Ok(openssh),
            false => Err(String::from_utf8_lossy(&tried.stderr).trim().to_owned()),
        }
    }

    /// Runs `true` on the target through the jump host and says how long that took.
    pub fn session(&self) -> Duration {
        crate::timed(&mut self.run("true"))
    }

    /// The configuration of OpenSSH's clients.
    pub fn configuration(&self) -> std::path::PathBuf {
        self.folder.path().join("config")
    }

    /// A command that is to run on the target.
    pub fn run(&self, line: &str) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.configuration()).args(["target", line]).stdin(Stdio::null());
        command
    }
}

impl Drop for OpenSsh {
    fn drop(&mut self) {
        for server in &mut self.servers {
            server.kill().ok();
            server.wait().ok();
        }
    }
}

fn keygen(arguments: &[&str]) -> Result<(), String> {
    let ended = Command::new("ssh-keygen").args(arguments).stdout(Stdio::null()).status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        other => Err(format!("ssh-keygen {arguments:?}: {other:?}")),
    }
}
