//! The client's side of SOCKS version 5 (RFC 1928) with user and password (RFC 1929).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::address::HostPort;
use crate::environment::Credentials;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;

/// Why a SOCKS proxy did not connect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocksError {
    #[error("answered with something that is not SOCKS 5")]
    NotSocks,
    #[error("{0}")]
    Refused(&'static str),
    #[error("host name, user or password is longer than 255 bytes")]
    TooLong,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Asks for a connection to `target`; names are resolved by the proxy.
pub(crate) async fn connect<S>(
    stream: &mut S,
    target: &HostPort,
    credentials: Option<&Credentials>,
) -> Result<(), SocksError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let methods: &[u8] =
        if credentials.is_some() { &[NO_AUTHENTICATION, USER_AND_PASSWORD] } else { &[NO_AUTHENTICATION] };
    stream.write_all(&[&[VERSION, methods.len() as u8], methods].concat()).await?;
    let mut choice = [0; 2];
    stream.read_exact(&mut choice).await?;
    match (choice, credentials) {
        ([VERSION, NO_AUTHENTICATION], _) => {}
        ([VERSION, USER_AND_PASSWORD], Some(credentials)) => authenticate(stream, credentials).await?,
        ([VERSION, _], None) => return Err(SocksError::Refused("user and password are required")),
        ([VERSION, _], Some(_)) => return Err(SocksError::Refused("no way to authenticate is acceptable")),
        _ => return Err(SocksError::NotSocks),
    }
    stream.write_all(&request(target)?).await?;
    read_reply(stream).await
}

async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: &Credentials,
) -> Result<(), SocksError> {
    let mut message = vec![1];
    for part in [credentials.user(), credentials.password()] {
        message.push(u8::try_from(part.len()).map_err(|_| SocksError::TooLong)?);
        message.extend_from_slice(part.as_bytes());
    }
    stream.write_all(&message).await?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await?;
    if answer[1] == 0 { Ok(()) } else { Err(SocksError::Refused("wrong user or password")) }
}

fn request(target: &HostPort) -> Result<Vec<u8>, SocksError> {
    let mut message = vec![VERSION, CONNECT, 0];
    match target.ip() {
        Some(std::net::IpAddr::V4(v4)) => {
            message.push(1);
            message.extend_from_slice(&v4.octets());
        }
        Some(std::net::IpAddr::V6(v6)) => {
            message.push(4);
            message.extend_from_slice(&v6.octets());
        }
        None => {
            message.push(3);
            message.push(u8::try_from(target.host.len()).map_err(|_| SocksError::TooLong)?);
            message.extend_from_slice(target.host.as_bytes());
        }
    }
    message.extend_from_slice(&target.port.to_be_bytes());
    Ok(message)
}

async fn read_reply<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), SocksError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [VERSION, reply, _, kind] = head else { return Err(SocksError::NotSocks) };
    match reply {
        0 => {}
        1 => return Err(SocksError::Refused("general failure")),
        2 => return Err(SocksError::Refused("connection not allowed by its rules")),
        3 => return Err(SocksError::Refused("network unreachable")),
        4 => return Err(SocksError::Refused("host unreachable")),
        5 => return Err(SocksError::Refused("connection refused")),
        6 => return Err(SocksError::Refused("time to live expired")),
        _ => return Err(SocksError::Refused("request not supported")),
    }
    // The address it dials from is of no use, but has to be read off.
    let length = match kind {
        1 => 4,
        3 => usize::from(stream.read_u8().await?),
        4 => 16,
        _ => return Err(SocksError::NotSocks),
    };
    let mut rest = vec![0; length + 2];
    stream.read_exact(&mut rest).await?;
    Ok(())
}
