//! Forwards, agents, displays and copies with OpenSSH's server, where it is installed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use pki::keys::{KeyAlgorithm, PrivateKey as Key};
use pki::ssh_cert;
use russh::keys::ssh_key::LineEnding;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::connection::User;
use super::forward::{Display, Endpoint, Forward, ForwardPlan, Forwards, Say, Trust, X11};
use super::session::{Exit, SessionRequest, Streams, run};
use super::stdio::{Input, Output};
use super::tests::{NODE, Sink, World};
use super::{Host, SshConnection};

const SERVER: &str = "/usr/sbin/sshd";

/// A connection with a server that serves nothing else.
struct Session {
    connection: SshConnection,
    said: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
    server: Child,
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Session {
    /// `None` where there is no such server, or it may not be run.
    async fn open(more: &str) -> Option<Self> {
        if !Path::new(SERVER).exists() || !nix::unistd::getuid().is_root() {
            assert!(
                std::env::var_os("TESTS_COMPLETE").is_none(),
                "{SERVER} is missing, or this is not the root account"
            );
            eprintln!("skipped: needs {SERVER} and the root account");
            return None;
        }
        let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            path.display().to_string()
        };
        let key = write("host", &world.host_key.to_ssh().unwrap().to_openssh(LineEnding::LF).unwrap());
        let certificate = write("host-cert.pub", &ssh_cert::to_line(&world.host_certificate).unwrap());
        let authority = write("authority.pub", &world.authority.public().to_ssh_line());
        let files = if more.contains("sftp") { "" } else { "Subsystem sftp internal-sftp" };
        let config = write(
            "config",
            &format!(
                "HostKey {key}\nHostCertificate {certificate}\nTrustedUserCAKeys {authority}\nStrictModes no\n\
                 PermitRootLogin prohibit-password\nX11Forwarding yes\nX11UseLocalhost yes\n\
                 PidFile none\n{more}\n{files}\n"
            ),
        );
        fs::create_dir_all("/run/sshd").unwrap();
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let far = OwnedFd::from(far);
        let server = Command::new(SERVER)
            .args(["-i", "-e", "-f", &config])
            .stdin(Stdio::from(far.try_clone().unwrap()))
            .stdout(Stdio::from(far))
            .stderr(fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        near.set_nonblocking(true).unwrap();
        let key = Key::generate(KeyAlgorithm::Ed25519).unwrap();
        let user = User {
            login: "root",
            certificate: world.user_certificate(&key, "root"),
            key: Arc::new(key.to_ssh().unwrap()),
        };
        let near = UnixStream::from_std(near).unwrap();
        let connection = SshConnection::over(near, &Host::new(NODE, None), world.check(NODE), user).await;
        let connection = connection.unwrap_or_else(|error| {
            panic!("{error}\n{}", fs::read_to_string(folder.path().join("log")).unwrap());
        });
        Some(Self { connection, said: Arc::default(), folder, server })
    }

    fn say(&self) -> Say {
        let said = self.said.clone();
        Arc::new(move |text| said.lock().push(text.to_owned()))
    }

    /// Starts forwards; returns where this machine listens.
    async fn forward(&self, plan: &ForwardPlan) -> (Forwards, Vec<String>) {
        let listeners = plan.bind().await.unwrap();
        let addresses = listeners.addresses();
        let (running, refused) = Forwards::start(&self.connection, plan, listeners, self.say()).await;
        assert!(refused.is_empty(), "{refused:?}");
        (running, addresses)
    }

    async fn command(&self, request: &SessionRequest) -> (Exit, String, String) {
        let (out, err) = (Sink::default(), Sink::default());
        let streams = Streams {
            input: Input::none(),
            output: Output::writing(out.clone()),
            errors: Output::writing(err.clone()),
        };
        let exit = run(&self.connection, request, streams).await.unwrap();
        let text = |sink: Sink| String::from_utf8(sink.0.lock().clone()).unwrap();
        (exit, text(out), text(err))
    }
}

/// A server that sends back what it gets.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    port
}

/// Sends a lot through a connection to the echo, and its end.
async fn bounce(stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let data: Vec<u8> = (0..400_000_u32).flat_map(u32::to_le_bytes).collect();
    let mut came = Vec::new();
    let sending = async {
        writer.write_all(&data).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (_, read) = tokio::join!(sending, reader.read_to_end(&mut came));
    read.unwrap();
    assert!(came == data, "{} of {} bytes came back", came.len(), data.len());
}

#[tokio::test]
async fn local_forwards_reach_ports_and_sockets_of_the_host() {
    let Some(session) = Session::open("").await else { return };
    let port = echo().await;
    let socket = session.folder.path().join("here.sock");
    let plan = ForwardPlan {
        local: vec![
            format!("0:127.0.0.1:{port}").parse().unwrap(),
            format!("{}:localhost:{port}", socket.display()).parse().unwrap(),
        ],
        ..Default::default()
    };
    let (_running, addresses) = session.forward(&plan).await;
    for _ in 0..3 {
        bounce(TcpStream::connect(&addresses[0]).await.unwrap()).await;
    }
    bounce(UnixStream::connect(&socket).await.unwrap()).await;
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_named_and_the_forward_goes_on() {
    let Some(session) = Session::open("").await else { return };
    let plan = ForwardPlan { local: vec!["0:127.0.0.1:1".parse().unwrap()], ..Default::default() };
    let (_running, addresses) = session.forward(&plan).await;
    for _ in 0..2 {
        let mut stream = TcpStream::connect(&addresses[0]).await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
    let said = session.said.lock();
    assert!(said.len() == 2 && said[0].starts_with("forward to 127.0.0.1:1: "), "{said:?}");
}

#[tokio::test]
async fn dynamic_forwards_go_where_the_program_asks() {
    let Some(session) = Session::open("").await else { return };
    let port = echo().await;
    let plan = ForwardPlan { dynamic: vec!["0".parse().unwrap()], ..Default::default() };
    let (_running, addresses) = session.forward(&plan).await;
    let ask = async |name: &[u8], port: u16| {
        let mut stream = TcpStream::connect(&addresses[0]).await.unwrap();
        let length = [u8::try_from(name.len()).unwrap()];
        let request = [b"\x05\x01\x00\x05\x01\x00\x03", &length[..], name, &port.to_be_bytes()].concat();
        stream.write_all(&request).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        (stream, answer[3])
    };
    let (stream, answer) = ask(b"localhost", port).await;
    assert_eq!(answer, 0);
    bounce(stream).await;
    assert_ne!(ask(b"127.0.0.1", 1).await.1, 0);
}

#[tokio::test]
async fn remote_forwards_bring_connections_of_the_host_here() {
    let Some(session) = Session::open("").await else { return };
    let port = echo().await;
    let socket = session.folder.path().join("there.sock");
    let target = Endpoint::Tcp { host: "127.0.0.1".into(), port };
    let chosen = Endpoint::Tcp { host: "localhost".into(), port: 0 };
    let plan = ForwardPlan {
        remote: vec![
            Forward { listen: chosen, target: target.clone() },
            Forward { listen: Endpoint::Unix(socket.clone()), target },
        ],
        ..Default::default()
    };
    let (_running, _) = session.forward(&plan).await;
    let said = session.said.lock()[0].clone();
    let chosen: u16 = said.split(' ').find_map(|word| word.parse().ok()).expect(&said);
    bounce(TcpStream::connect(("127.0.0.1", chosen)).await.unwrap()).await;
    bounce(UnixStream::connect(&socket).await.unwrap()).await;
}

#[tokio::test]
async fn a_refused_remote_forward_is_named() {
    let Some(session) = Session::open("AllowTcpForwarding no").await else { return };
    let plan = ForwardPlan { remote: vec!["0:127.0.0.1:1".parse().unwrap()], ..Default::default() };
    let listeners = plan.bind().await.unwrap();
    let (_running, refused) = Forwards::start(&session.connection, &plan, listeners, session.say()).await;
    assert!(refused[0].to_string().contains("(-R) of 127.0.0.1:0"), "{refused:?}");
}

#[tokio::test]
async fn an_agent_of_our_own_has_the_certificate() {
    let Some(session) = Session::open("").await else { return };
    let agent = super::forward::tests_support::agent();
    let request = SessionRequest { agent: Some(agent), ..SessionRequest::command("ssh-add -l".into(), Vec::new()) };
    let (exit, out, err) = session.command(&request).await;
    assert!(exit == Exit::Status(0) && out.contains("alice") && out.contains("CERT"), "{exit:?} {out} {err}");
    // Only where it was asked for.
    let (_, out, _) = session.command(&SessionRequest::command("echo sock=$SSH_AUTH_SOCK.".into(), Vec::new())).await;
    assert!(out.starts_with("sock="), "{out}");
}

#[tokio::test]
async fn a_display_sees_its_own_cookie_and_the_host_another() {
    let Some(session) = Session::open("").await else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let Some(number) = port.checked_sub(6000) else { return };
    let display: Display = format!("127.0.0.1:{number}").parse().unwrap();
    let x11 = Arc::new(X11::prepare(display, Trust::Trusted).await.unwrap());
    let told = x11.cookie();
    let shown = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 48];
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(b"hello-from-x").await.unwrap();
        hello[32..].to_vec()
    });
    let script = "import os,socket,subprocess as s\nd=os.environ['DISPLAY']\n\
        c=bytes.fromhex(s.check_output(['xauth','list',d]).split()[-1].decode())\n\
        k=socket.create_connection(('127.0.0.1',6000+int(d.split(':')[1].split('.')[0])))\n\
        k.sendall(b'l\\0\\x0b\\0\\0\\0\\x12\\0\\x10\\0\\0\\0MIT-MAGIC-COOKIE-1\\0\\0'+c)\n\
        print(c.hex(),k.recv(100).decode())\n";
    let line = format!("python3 -c \"{}\"", script.replace('"', "\\\""));
    let request = SessionRequest { x11: Some(x11), ..SessionRequest::command(line, Vec::new()) };
    let (exit, out, err) = session.command(&request).await;
    assert_eq!((exit, out.trim()), (Exit::Status(0), format!("{told} hello-from-x").as_str()), "{err}");
    let shown = shown.await.unwrap();
    assert!(!told.contains(&shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
}

#[tokio::test]
async fn the_file_server_of_the_host_serves_its_account() {
    let Some(session) = Session::open("").await else { return };
    let sftp = session.connection.sftp(None).await.unwrap();
    assert_eq!(sftp.real_path(Path::new(".")).await.unwrap(), Path::new("/root"));
    let entries = sftp.read_folder(session.folder.path()).await.unwrap();
    assert!(entries.iter().any(|(name, _)| name == "config"));
    session.connection.probe().await.unwrap();
}

#[tokio::test]
async fn a_host_without_a_file_server_says_so() {
    let Some(session) = Session::open("Subsystem sftp /nowhere/sftp-server").await else { return };
    assert!(session.connection.sftp(None).await.is_err());
}
