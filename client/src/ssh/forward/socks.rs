//! What programs at a dynamic forward ask for: SOCKS 5 (RFC 1928) without authentication, SOCKS 4 and 4a.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The only command that makes sense here.
const CONNECT: u8 = 1;
/// Longest user or host name of SOCKS 4.
const LONGEST_NAME: usize = 255;

/// A request that waits for its answer.
pub(super) struct Asked {
    /// Name or address to connect to.
    pub host: String,
    /// Port to connect to.
    pub port: u16,
    version: Version,
}

#[derive(Clone, Copy)]
enum Version {
    Four,
    Five,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is a connection.
    Connected,
    /// The host does not let the user forward.
    NotAllowed,
    /// There is no connection.
    Failed,
}

impl Asked {
    /// Reads a request.
    pub async fn read<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<Self> {
        match stream.read_u8().await? {
            4 => read_4(stream).await,
            5 => read_5(stream).await,
            other => Err(invalid(format!("expected SOCKS 4 or 5, found {other:#04x}"))),
        }
    }

    /// Answers it. Where the other end of the connection is bound is not known here: the address is left empty.
    pub async fn answer<S: AsyncWrite + Unpin>(&self, stream: &mut S, answer: Answer) -> io::Result<()> {
        let message: &[u8] = match (self.version, answer) {
            (Version::Five, Answer::Connected) => &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            (Version::Five, Answer::NotAllowed) => &[5, 2, 0, 1, 0, 0, 0, 0, 0, 0],
            (Version::Five, Answer::Failed) => &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0],
            (Version::Four, Answer::Connected) => &[0, 90, 0, 0, 0, 0, 0, 0],
            (Version::Four, _) => &[0, 91, 0, 0, 0, 0, 0, 0],
        };
        stream.write_all(message).await
    }
}

async fn read_5<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<Asked> {
    let count = stream.read_u8().await?;
    let mut methods = vec![0; count.into()];
    stream.read_exact(&mut methods).await?;
    if !methods.contains(&0) {
        stream.write_all(&[5, 0xff]).await?;
        return Err(invalid("the program wants to authenticate, which is not offered".to_owned()));
    }
    stream.write_all(&[5, 0]).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [5, command, _, kind] = head else { return Err(invalid("the request is not of SOCKS 5".to_owned())) };
    let host = match kind {
        1 => Ipv4Addr::from(stream.read_u32().await?).to_string(),
        4 => Ipv6Addr::from(stream.read_u128().await?).to_string(),
        3 => {
            let mut name = vec![0; stream.read_u8().await?.into()];
            stream.read_exact(&mut name).await?;
            text(name)?
        }
        other => return Err(invalid(format!("address of unknown type {other}"))),
    };
    let port = stream.read_u16().await?;
    if command != CONNECT {
        stream.write_all(&[5, 7, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
        return Err(invalid(format!("only connections are made, command {command} was asked for")));
    }
    Ok(Asked { host, port, version: Version::Five })
}

async fn read_4<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<Asked> {
    let command = stream.read_u8().await?;
    let port = stream.read_u16().await?;
    let address = stream.read_u32().await?;
    read_name(stream).await?; // the user: nobody asks
    // 0.0.0.x, which is no address, says that a name follows (SOCKS 4a).
    let host = if (1..=255).contains(&address) {
        text(read_name(stream).await?)?
    } else {
        Ipv4Addr::from(address).to_string()
    };
    if command != CONNECT {
        stream.write_all(&[0, 91, 0, 0, 0, 0, 0, 0]).await?;
        return Err(invalid(format!("only connections are made, command {command} was asked for")));
    }
    Ok(Asked { host, port, version: Version::Four })
}

/// Bytes up to a zero.
async fn read_name<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    let mut name = Vec::new();
    loop {
        match stream.read_u8().await? {
            0 => return Ok(name),
            _ if name.len() == LONGEST_NAME => return Err(invalid("a name is too long".to_owned())),
            byte => name.push(byte),
        }
    }
}

fn text(name: Vec<u8>) -> io::Result<String> {
    let name = String::from_utf8(name).ok().filter(|name| !name.is_empty() && !name.contains(char::is_control));
    name.ok_or_else(|| invalid("that is no host name".to_owned()))
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// What is asked for by these bytes, and what is answered.
    async fn ask(bytes: &[u8], answer: Answer) -> (io::Result<(String, u16)>, Vec<u8>) {
        let (mut near, mut far) = tokio::io::duplex(1024);
        near.write_all(bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let asked = Asked::read(&mut far).await;
        if let Ok(asked) = &asked {
            asked.answer(&mut far, answer).await.unwrap();
        }
        drop(far);
        let mut said = Vec::new();
        near.read_to_end(&mut said).await.unwrap();
        (asked.map(|asked| (asked.host, asked.port)), said)
    }

    #[tokio::test]
    async fn every_form_of_address_is_understood() {
        let cases: [(&[u8], &str); 6] = [
            (b"\x05\x01\x00\x05\x01\x00\x03\x03web\x00\x50", "web"),
            (b"\x05\x02\x02\x00\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50", "10.0.0.1"),
            (b"\x05\x01\x00\x05\x01\x00\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x50", "::1"),
            (b"\x04\x01\x00\x50\x0a\x00\x00\x01me\0", "10.0.0.1"),
            (b"\x04\x01\x00\x50\x00\x00\x00\x01\0web\0", "web"),
            (b"\x04\x01\x00\x50\x00\x00\x00\x00\0", "0.0.0.0"),
        ];
        for (bytes, host) in cases {
            let (asked, _) = ask(bytes, Answer::Connected).await;
            assert_eq!(asked.unwrap(), (host.to_owned(), 80), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn answers_are_those_of_the_version() {
        let five = b"\x05\x01\x00\x05\x01\x00\x03\x03web\x00\x50";
        assert_eq!(ask(five, Answer::Connected).await.1, b"\x05\0\x05\0\0\x01\0\0\0\0\0\0");
        assert_eq!(ask(five, Answer::NotAllowed).await.1[3], 2);
        assert_eq!(ask(b"\x04\x01\x00\x50\x0a\x00\x00\x01\0", Answer::Failed).await.1[1], 91);
    }

    #[tokio::test]
    async fn what_is_no_request_for_a_connection_is_refused() {
        let cases: [(&[u8], &[u8]); 7] = [
            (b"GET / HTTP/1.1\r\n", b""),
            (b"\x05\x01\x02", b"\x05\xff"),
            (b"\x05\x01\x00\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x50", b"\x05\x00\x05\x07\0\x01\0\0\0\0\0\0"),
            (b"\x05\x01\x00\x05\x01\x00\x09", b"\x05\x00"),
            (b"\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", b"\x05\x00"),
            (b"\x04\x02\x00\x50\x0a\x00\x00\x01\0", b"\0\x5b\0\0\0\0\0\0"),
            (b"\x05", b""),
        ];
        for (bytes, said) in cases {
            let (asked, answer) = ask(bytes, Answer::Connected).await;
            assert!(asked.is_err() && answer == said, "{bytes:?}: {answer:?}");
        }
        let endless = [b"\x04\x01\x00\x50\x0a\x00\x00\x01".as_slice(), &[b'a'; 300]].concat();
        assert!(ask(&endless, Answer::Connected).await.0.is_err());
    }
}
