//! X11 forwarding (RFC 4254 §6.3): windows of programs on the host on this machine's display.
//!
//! The host never learns the display's own cookie. It gets a random one, and connections that show it have it replaced
//! here; any other connection is ended.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::str::FromStr;
use std::time::Duration;

use russh::Channel;
use russh::client::{ChannelOpenHandle, Msg};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::{Both, Endpoint, Say, connect};

/// The only authentication protocol that is forwarded.
pub const PROTOCOL: &str = "MIT-MAGIC-COOKIE-1";
/// Where displays of this machine have their sockets.
const SOCKETS: &str = "/tmp/.X11-unix";
/// TCP port of display 0.
const FIRST_PORT: u16 = 6000;
/// Length of a cookie.
const COOKIE: usize = 16;
/// Longest name or data of authentication that is read.
const LONGEST_PART: usize = 1024;
/// Time for `xauth`, and for a program to introduce itself.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How far programs on the host are trusted with the display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Not with other windows, and no longer than this for new connections (`-X`).
    Untrusted(Duration),
    /// As programs of this machine are (`-Y`).
    Trusted,
}

/// Why X11 is not forwarded.
#[derive(Debug, thiserror::Error)]
pub enum X11Error {
    /// There is no display.
    #[error("DISPLAY is not set: there is no display to forward")]
    NoDisplay,
    /// It is not understood.
    #[error("DISPLAY={0:?} does not name a display")]
    Malformed(String),
    /// `xauth` did not make a restricted cookie.
    #[error("xauth made no cookie for untrusted programs ({0}): use -Y if the host is to be trusted with the display")]
    Untrusted(String),
    /// There are no random numbers.
    #[error("no random numbers for a cookie")]
    Random,
}

/// A display, as `DISPLAY` names it: `[host]:number[.screen]`, or a socket's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Display {
    /// Where it listens.
    endpoint: Endpoint,
    /// The screen on it.
    screen: u32,
    /// As written.
    name: String,
}

/// A display that is forwarded.
pub struct X11 {
    display: Display,
    /// What the host is told.
    spoofed: [u8; COOKIE],
    /// What the display wants to see.
    real: Zeroizing<Vec<u8>>,
    /// When an untrusted forward takes no more connections.
    until: Option<Instant>,
}

impl FromStr for Display {
    type Err = X11Error;

    fn from_str(text: &str) -> Result<Self, X11Error> {
        let bad = || X11Error::Malformed(text.to_owned());
        let (host, number) = text.rsplit_once(':').ok_or_else(bad)?;
        let (number, screen) = number.split_once('.').unwrap_or((number, "0"));
        let (number, screen): (u16, u32) = (number.parse().map_err(|_| bad())?, screen.parse().map_err(|_| bad())?);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let endpoint = match host {
            "" | "unix" => Endpoint::Unix(Path::new(SOCKETS).join(format!("X{number}"))),
            path if path.starts_with('/') => Endpoint::Unix(PathBuf::from(format!("{path}:{number}"))),
            host => {
                let port = FIRST_PORT.checked_add(number).ok_or_else(bad)?;
                Endpoint::Tcp { host: host.to_owned(), port }
            }
        };
        Ok(Self { endpoint, screen, name: text.to_owned() })
    }
}

impl Display {
    /// The one of this process.
    pub fn from_environment() -> Result<Self, X11Error> {
        let named = env::var("DISPLAY").ok().filter(|display| !display.is_empty());
        named.ok_or(X11Error::NoDisplay)?.parse()
    }
}

impl X11 {
    /// Prepares a display for being forwarded. Without `xauth`, or without a cookie of the display, the display is
    /// shown a random cookie: one that lets everybody in does not mind.
    pub async fn prepare(display: Display, trust: Trust) -> Result<Self, X11Error> {
        let spoofed = random()?;
        let (real, until) = match trust {
            Trust::Trusted => (cookie(&display, None).await, None),
            Trust::Untrusted(life) => {
                let cookie = untrusted_cookie(&display, life).await.map_err(X11Error::Untrusted)?;
                (Some(cookie), (!life.is_zero()).then(|| Instant::now() + life))
            }
        };
        let real = match real {
            Some(real) => real,
            None => Zeroizing::new(random()?.to_vec()),
        };
        Ok(Self { display, spoofed, real, until })
    }

    /// The cookie for the host, in hexadecimal.
    pub(in crate::ssh) fn cookie(&self) -> String {
        self.spoofed.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The screen that is forwarded.
    pub(in crate::ssh) fn screen(&self) -> u32 {
        self.display.screen
    }

    /// Answers a channel that the host opens to the display.
    pub(super) async fn serve(&self, channel: Channel<Msg>, reply: ChannelOpenHandle, say: Option<Say>) {
        let tell = |text: &str| {
            if let Some(say) = &say {
                say(text);
            }
        };
        if self.until.is_some_and(|until| until <= Instant::now()) {
            tell("X11 connection refused: the time for untrusted programs is over (--x11-untrusted-timeout)");
            return reply.reject(russh::ChannelOpenFailure::AdministrativelyProhibited).await;
        }
        reply.accept().await;
        let mut channel_stream = channel.into_stream();
        let hello = match timeout(TIMEOUT, Hello::read(&mut channel_stream)).await {
            Ok(Ok(hello)) if hello.shows(&self.spoofed) => hello,
            Ok(Ok(_)) => return tell("X11 connection ended: the program on the host showed a wrong cookie"),
            Ok(Err(error)) => return tracing::debug!(%error, "X11 connection"),
            Err(_) => return tracing::debug!("X11 connection: gave up waiting for the program on the host"),
        };
        match connect(&self.display.endpoint).await {
            Ok(stream) => self.carry(stream, channel_stream, hello).await,
            Err(error) => tell(&format!("X11 connection: display {}: {error}", self.display.name)),
        }
    }

    async fn carry(&self, mut stream: Box<dyn Both>, mut far: impl Both, hello: Hello) {
        if let Err(error) = stream.write_all(&hello.with_cookie(&self.real)).await {
            return tracing::debug!(%error, "X11 display");
        }
        let copied = tokio::io::copy_bidirectional(&mut stream, &mut far).await;
        if let Err(error) = copied {
            tracing::debug!(%error, "X11 connection");
        }
    }
}

impl fmt::Debug for X11 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X11").field("display", &self.display).finish_non_exhaustive()
    }
}

/// The first message of an X11 client.
struct Hello {
    little_endian: bool,
    /// Byte order, padding and version.
    start: [u8; 6],
    protocol: Vec<u8>,
    data: Zeroizing<Vec<u8>>,
}

impl Hello {
    async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        let little_endian = match head[0] {
            b'l' => true,
            b'B' => false,
            other => return Err(invalid(format!("byte order {other:#04x} is unknown"))),
        };
        let number = |low: usize| {
            let bytes = [head[low], head[low + 1]];
            usize::from(if little_endian { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
        };
        let (name, data) = (number(6), number(8));
        if name > LONGEST_PART || data > LONGEST_PART {
            return Err(invalid("authentication without measure".to_owned()));
        }
        let mut parts = Zeroizing::new(vec![0; padded(name) + padded(data)]);
        stream.read_exact(&mut parts).await?;
        let (protocol, rest) = parts.split_at(padded(name));
        let mut start = [0; 6];
        start.copy_from_slice(&head[..6]);
        Ok(Self {
            little_endian,
            start,
            protocol: protocol[..name].to_vec(),
            data: Zeroizing::new(rest[..data].to_vec()),
        })
    }

    /// Whether the client shows this cookie. Takes the same time for every wrong one.
    fn shows(&self, cookie: &[u8]) -> bool {
        let differing = self.data.iter().zip(cookie).fold(0, |differing, (a, b)| differing | (a ^ b));
        self.protocol == PROTOCOL.as_bytes() && self.data.len() == cookie.len() && differing == 0
    }

    /// The message with another cookie.
    fn with_cookie(&self, cookie: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut message = Zeroizing::new(self.start.to_vec());
        for length in [self.protocol.len(), cookie.len()] {
            let length = u16::try_from(length).unwrap_or_default();
            let bytes = if self.little_endian { length.to_le_bytes() } else { length.to_be_bytes() };
            message.extend_from_slice(&bytes);
        }
        message.extend_from_slice(&[0, 0]);
        for part in [&self.protocol[..], cookie] {
            message.extend_from_slice(part);
            let end = message.len() + padded(part.len()) - part.len();
            message.resize(end, 0);
        }
        message
    }
}

/// Parts of X11 messages have lengths in multiples of four.
fn padded(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn invalid(problem: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, problem)
}

fn random() -> Result<[u8; COOKIE], X11Error> {
    let mut bytes = [0; COOKIE];
    pki::tls::crypto_provider().secure_random.fill(&mut bytes).map_err(|_| X11Error::Random)?;
    Ok(bytes)
}

/// The display's cookie in an authority file, or in the user's.
async fn cookie(display: &Display, file: Option<&Path>) -> Option<Zeroizing<Vec<u8>>> {
    let mut arguments: Vec<&OsStr> = Vec::new();
    if let Some(file) = file {
        arguments.extend([OsStr::new("-f"), file.as_os_str()]);
    }
    arguments.extend([OsStr::new("list"), OsStr::new(&display.name)]);
    let listed = xauth(&arguments).await.inspect_err(|error| tracing::debug!(error, "xauth list")).ok()?;
    let mut lines = listed.lines().map(|line| line.split_whitespace().skip(1));
    let hexadecimal = lines.find_map(|mut words| words.next().filter(|p| *p == PROTOCOL).and_then(|_| words.next()))?;
    let digits =
        hexadecimal.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    digits.collect::<Option<Vec<u8>>>().map(Zeroizing::new)
}

/// A cookie that the display takes for programs that are not trusted.
async fn untrusted_cookie(display: &Display, life: Duration) -> Result<Zeroizing<Vec<u8>>, String> {
    let folder = env::temp_dir().join(format!("tsh-x11-{}", uuid::Uuid::new_v4()));
    let private = std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&folder);
    private.map_err(|error| format!("{}: {error}", folder.display()))?;
    let file = folder.join("authority");
    let seconds = life.as_secs().to_string();
    let mut arguments = vec![OsStr::new("-f"), file.as_os_str(), OsStr::new("generate"), OsStr::new(&display.name)];
    arguments.extend([PROTOCOL, "untrusted"].map(OsStr::new));
    if !life.is_zero() {
        arguments.extend(["timeout", &seconds].map(OsStr::new));
    }
    let made = match xauth(&arguments).await {
        Ok(_) => cookie(display, Some(&file)).await.ok_or_else(|| "the display gave none".to_owned()),
        Err(error) => Err(error),
    };
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        tracing::debug!(path = %folder.display(), %error, "remove folder");
    }
    made
}

/// Runs `xauth`; returns what it prints.
async fn xauth(arguments: &[&OsStr]) -> Result<Zeroizing<String>, String> {
    let mut command = Command::new("xauth");
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(TIMEOUT, command.output()).await.map_err(|_| "it did not end within 10 s".to_owned())?;
    let output = output.map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(crate::text::line(String::from_utf8_lossy(&output.stderr).trim()).into_owned());
    }
    Ok(Zeroizing::new(String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn displays_are_read_in_every_form() {
        let read = |text: &str| text.parse::<Display>().ok().map(|d| (d.endpoint.to_string(), d.screen));
        assert_eq!(read(":0"), Some(("/tmp/.X11-unix/X0".into(), 0)));
        assert_eq!(read("unix:10.2"), Some(("/tmp/.X11-unix/X10".into(), 2)));
        assert_eq!(read("localhost:10.0"), Some(("localhost:6010".into(), 0)));
        assert_eq!(read("[::1]:1"), Some(("[::1]:6001".into(), 0)));
        assert_eq!(read("/private/tmp/org.xquartz:0"), Some(("/private/tmp/org.xquartz:0".into(), 0)));
        for bad in ["", "host", ":", ":x", "host:60000", ":0.x"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn a_cookie_is_checked_and_replaced_in_either_byte_order() {
        for order in *b"lB" {
            let number = |n: u16| if order == b'l' { n.to_le_bytes() } else { n.to_be_bytes() };
            let head = [&[order, 0][..], &number(11), &number(0), &number(18), &number(16), &[0, 0]].concat();
            let hello = [&head[..], b"MIT-MAGIC-COOKIE-1\0\0", &[7; 16]].concat();
            let read = Hello::read(&mut &hello[..]).await.unwrap();
            assert!(read.shows(&[7; 16]) && !read.shows(&[8; 16]) && !read.shows(&[7; 15]));
            let replaced = [&head[..], b"MIT-MAGIC-COOKIE-1\0\0", &[9; 16]].concat();
            assert_eq!(*read.with_cookie(&[9; 16]), replaced);
        }
    }

    #[tokio::test]
    async fn what_is_no_x11_is_refused() {
        for bad in [
            &b""[..],
            b"GET / HTTP/1.1\r\n",
            b"l\0\x0b\0\0\0\xff\xff\xff\xff\0\0",
            b"l\0\x0b\0\0\0\x12\0\x10\0\0\0short",
        ] {
            assert!(Hello::read(&mut &bad[..]).await.is_err(), "{bad:?}");
        }
    }
}
