//! The binary form: signature, version and command, family, length, addresses, TLVs.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Header, ParseError, Parsed, Tlv, Version};

/// First bytes of every version 2 header.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

const FIXED: usize = 16;
const COMMAND_LOCAL: u8 = 0x20;
const COMMAND_PROXY: u8 = 0x21;
const FAMILY_UNSPECIFIED: u8 = 0x00;
const FAMILY_TCP4: u8 = 0x11;
const FAMILY_TCP6: u8 = 0x21;

pub(super) fn parse(input: &[u8]) -> Result<Parsed, ParseError> {
    let Some((fixed, rest)) = input.split_first_chunk::<FIXED>() else {
        return Ok(Parsed::Incomplete { missing: FIXED - input.len() });
    };
    let (command, family) = (fixed[12], fixed[13]);
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if !matches!(command, COMMAND_LOCAL | COMMAND_PROXY) {
        return Err(ParseError::V2("version is not 2, or the command is unknown"));
    }
    let Some(body) = rest.get(..length) else {
        return Ok(Parsed::Incomplete { missing: length - rest.len() });
    };
    let header = match command {
        // Addresses of a LOCAL header mean nothing and may be absent, whatever the family says.
        COMMAND_LOCAL => Header { version: Version::V2, addresses: None, tlvs: Vec::new() },
        _ => proxied(family, body)?,
    };
    Ok(Parsed::Complete { header, length: FIXED + length })
}

/// Encodes a version 2 header; without addresses it is a LOCAL one.
///
/// The caller keeps the TLVs under 65,499 bytes together; what does not fit the length field is left out.
pub fn encode_v2(addresses: Option<&Addresses>, extensions: &[Tlv]) -> Vec<u8> {
    let mut body = Vec::new();
    let (command, family) = match addresses.map(|pair| (pair.source(), pair.destination())) {
        Some((SocketAddr::V4(source), SocketAddr::V4(destination))) => {
            body.extend_from_slice(&source.ip().octets());
            body.extend_from_slice(&destination.ip().octets());
            (COMMAND_PROXY, FAMILY_TCP4)
        }
        Some((source, destination)) => {
            body.extend_from_slice(&ipv6(source).octets());
            body.extend_from_slice(&ipv6(destination).octets());
            (COMMAND_PROXY, FAMILY_TCP6)
        }
        None => (COMMAND_LOCAL, FAMILY_UNSPECIFIED),
    };
    if let Some(pair) = addresses {
        body.extend_from_slice(&pair.source().port().to_be_bytes());
        body.extend_from_slice(&pair.destination().port().to_be_bytes());
    }
    for tlv in extensions {
        let Ok(length) = u16::try_from(tlv.value.len()) else {
            continue;
        };
        if body.len() + 3 + tlv.value.len() > usize::from(u16::MAX) {
            continue;
        }
        body.push(tlv.kind);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&tlv.value);
    }
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut encoded = Vec::with_capacity(FIXED + body.len());
    encoded.extend_from_slice(&SIGNATURE);
    encoded.extend_from_slice(&[command, family]);
    encoded.extend_from_slice(&length.to_be_bytes());
    encoded.extend_from_slice(&body);
    encoded
}

/// Walks a list of TLVs; yields one error and ends where the list breaks off.
pub(super) fn tlvs(mut rest: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), ParseError>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let head = rest.split_first_chunk::<3>();
        let found = head.and_then(|(&[kind, high, low], tail)| {
            let length = usize::from(u16::from_be_bytes([high, low]));
            Some((kind, tail.split_at_checked(length)?))
        });
        match found {
            Some((kind, (value, tail))) => {
                rest = tail;
                Some(Ok((kind, value)))
            }
            None => {
                rest = &[];
                Some(Err(ParseError::V2("a TLV reaches beyond the header")))
            }
        }
    })
}

fn proxied(family: u8, body: &[u8]) -> Result<Header, ParseError> {
    let (addresses, rest) = match family {
        FAMILY_TCP4 => {
            let (raw, rest) = body.split_first_chunk::<12>().ok_or(ParseError::V2("addresses are cut off"))?;
            (tcp4(raw), rest)
        }
        FAMILY_TCP6 => {
            let (raw, rest) = body.split_first_chunk::<36>().ok_or(ParseError::V2("addresses are cut off"))?;
            (tcp6(raw), rest)
        }
        other => return Err(ParseError::Family(other)),
    };
    let tlvs = tlvs(rest)
        .map(|found| found.map(|(kind, value)| Tlv { kind, value: value.to_vec() }))
        .collect::<Result<_, _>>()?;
    Ok(Header { version: Version::V2, addresses: Some(addresses), tlvs })
}

fn tcp4(raw: &[u8; 12]) -> Addresses {
    let &[a, b, c, d, e, f, g, h, p, q, r, s] = raw;
    Addresses {
        source: SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([p, q])),
        destination: SocketAddr::new(Ipv4Addr::new(e, f, g, h).into(), u16::from_be_bytes([r, s])),
    }
}

fn tcp6(raw: &[u8; 36]) -> Addresses {
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&raw[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    let port = |at: usize| u16::from_be_bytes([raw[at], raw[at + 1]]);
    Addresses {
        source: SocketAddr::new(address(0).into(), port(32)),
        destination: SocketAddr::new(address(16).into(), port(34)),
    }
}

fn ipv6(address: SocketAddr) -> Ipv6Addr {
    match address {
        SocketAddr::V4(v4) => v4.ip().to_ipv6_mapped(),
        SocketAddr::V6(v6) => *v6.ip(),
    }
}
