//! `PROXY TCP4 192.0.2.1 198.51.100.7 51234 443\r\n`

use std::net::{IpAddr, SocketAddr};

use super::{Addresses, Header, ParseError, Parsed, Version};

pub(super) const PREFIX: &[u8] = b"PROXY";

/// Longest line of the specification, line end included.
const LONGEST: usize = 107;

pub(super) fn parse(input: &[u8]) -> Result<Parsed, ParseError> {
    let window = &input[..input.len().min(LONGEST)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        if window.len() == LONGEST {
            return Err(ParseError::V1("no line end within 107 bytes"));
        }
        return Ok(Parsed::Incomplete { missing: 1 });
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(ParseError::V1("line does not end in CRLF"))?;
    let line = std::str::from_utf8(line).map_err(|_| ParseError::V1("line is not text"))?;
    let addresses = addresses(line)?;
    let header = Header { version: Version::V1, addresses: Some(addresses), tlvs: Vec::new() };
    Ok(Parsed::Complete { header, length: end + 1 })
}

fn addresses(line: &str) -> Result<Addresses, ParseError> {
    let mut tokens = line.split(' ');
    let mut token = || tokens.next().ok_or(ParseError::V1("expected six fields"));
    if token()? != "PROXY" {
        return Err(ParseError::V1("expected the word PROXY and a space"));
    }
    // Any other word than these two stands for UNKNOWN, whose addresses are read like those of TCP6.
    let ipv4 = token()? == "TCP4";
    let (source, destination) = (ip(token()?, ipv4)?, ip(token()?, ipv4)?);
    let (source_port, destination_port) = (port(token()?)?, port(token()?)?);
    // Kept as written (not through `Addresses::new`): the two are of the announced family already.
    Ok(Addresses {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    })
}

fn ip(text: &str, ipv4: bool) -> Result<IpAddr, ParseError> {
    match text.parse() {
        Ok(address @ IpAddr::V4(_)) if ipv4 => Ok(address),
        Ok(address @ IpAddr::V6(_)) if !ipv4 => Ok(address),
        Ok(_) => Err(ParseError::V1("address is not of the announced family")),
        Err(_) => Err(ParseError::V1("address does not parse")),
    }
}

fn port(text: &str) -> Result<u16, ParseError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseError::V1("port is not a number"));
    }
    text.parse().map_err(|_| ParseError::V1("port is not a number up to 65535"))
}
