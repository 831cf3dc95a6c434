//! The PROXY protocol, versions 1 and 2, as HAProxy's `proxy-protocol.txt` defines it, with the signed extension.
//!
//! [`parse`] does no I/O and never consumes: it says whether the bytes so far hold a header, and how long it is.
//!
//! # Signed headers
//!
//! Inside a cluster a Proxy tells Auth and agents where its client really is. So that nobody else can claim this,
//! the version 2 header carries one TLV of type `0xE4` whose value is again a list of TLVs: `0x01` the host
//! certificate of the proxy (DER) and `0x02` a JWT over source and destination, made with that certificate's key.
//! Checking the signature needs the cluster's authorities and is left to a [`VerifySignedHeader`].

pub mod signed;
mod v1;
mod v2;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use async_trait::async_trait;

pub use v2::{SIGNATURE as V2_SIGNATURE, encode_v2};

/// TLV type of the container with certificate and token of a signed header.
pub const TLV_SIGNED: u8 = 0xe4;
/// Sub-TLV with the signing certificate, X.509 DER.
pub const TLV_SIGNED_CERTIFICATE: u8 = 0x01;
/// Sub-TLV with the token, JWT compact serialization.
pub const TLV_SIGNED_TOKEN: u8 = 0x02;

/// What the bytes received so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// They do not begin a PROXY header.
    NotAHeader,
    /// They may become one; at least this many more bytes are needed to say.
    Incomplete {
        /// Bytes missing, never 0.
        missing: usize,
    },
    /// A complete header; what follows it begins at `length`.
    Complete {
        /// What it says.
        header: Header,
        /// Bytes it takes.
        length: usize,
    },
}

/// A parsed header of either version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Which encoding it had.
    pub version: Version,
    /// The addresses of the original connection; `None` for a LOCAL header (a health check of the balancer itself).
    pub addresses: Option<Addresses>,
    /// Extensions, version 2 only.
    pub tlvs: Vec<Tlv>,
}

/// The encoding of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The text line.
    V1,
    /// The binary form.
    V2,
}

/// Both ends of the connection a header speaks of; always of one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    source: SocketAddr,
    destination: SocketAddr,
}

/// One type-length-value of a version 2 header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlv {
    /// Type byte.
    pub kind: u8,
    /// Value bytes.
    pub value: Vec<u8>,
}

/// Certificate and token of a signed header; either may be missing, then it cannot be verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature<'a> {
    /// X.509 DER.
    pub certificate: Option<&'a [u8]>,
    /// JWT, compact serialization.
    pub token: Option<&'a [u8]>,
}

/// Why bytes that begin like a PROXY header are not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text line breaks its grammar.
    #[error("malformed PROXY protocol v1 line: {0}")]
    V1(&'static str),
    /// The binary header breaks its grammar.
    #[error("malformed PROXY protocol v2 header: {0}")]
    V2(&'static str),
    /// The addresses are of a kind that is not TCP over IPv4 or IPv6.
    #[error("PROXY protocol v2 address family {0:#04x} is not supported")]
    Family(u8),
}

/// Source and destination are of different address families, so no header can carry both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("source {origin} and destination {target} are of different address families")]
pub struct MixedFamilies {
    /// The source given.
    pub origin: IpAddr,
    /// The destination given.
    pub target: IpAddr,
}

/// Outcome of checking a signed header that was not a success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The authorities needed for the check cannot be fetched now: the header is skipped.
    #[error("cluster authorities are not available: {0}")]
    Unavailable(String),
    /// The signature is wrong: the connection ends.
    #[error("signed PROXY header refused: {0}")]
    Refused(String),
}

/// Checks signed headers against the cluster's host authority.
#[async_trait]
pub trait VerifySignedHeader: Send + Sync {
    /// Succeeds when certificate and token of the header were made by a Proxy of this cluster for these addresses. The
    /// answer is the address for which things count, where the source's is only the client's own word.
    async fn verify(&self, addresses: &Addresses, signature: Signature<'_>) -> Result<Option<IpAddr>, VerifyError>;
}

/// Makes signed headers; a Proxy has one.
#[async_trait]
pub trait SignHeader: Send + Sync {
    /// The complete encoded header for this pair, with the address for which counts what the client asks for.
    async fn sign(&self, addresses: &Addresses, counted: IpAddr) -> Result<Vec<u8>, SignError>;
}

/// A signed header could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("sign PROXY header: {0}")]
pub struct SignError(pub String);

/// Looks for a header at the start of `input`; needs 12 bytes at most to say that there is none.
pub fn parse(input: &[u8]) -> Result<Parsed, ParseError> {
    if begins(input, v1::PREFIX) {
        return v1::parse(input);
    }
    if begins(input, &v2::SIGNATURE) {
        return v2::parse(input);
    }
    Ok(Parsed::NotAHeader)
}

impl Addresses {
    /// A pair for one header. IPv4 addresses that are written as IPv6 (`::ffff:a.b.c.d`) count as IPv4.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Result<Self, MixedFamilies> {
        let (source, destination) = (canonical(source), canonical(destination));
        if source.is_ipv4() == destination.is_ipv4() {
            Ok(Self { source, destination })
        } else {
            Err(MixedFamilies { origin: source.ip(), target: destination.ip() })
        }
    }

    /// A pair of which only the client's end is known in the client's family: the other is that family's unspecified address.
    pub fn from_source(source: SocketAddr, port: u16) -> Self {
        let source = canonical(source);
        let any: IpAddr = if source.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        Self { source, destination: SocketAddr::new(any, port) }
    }

    /// The client.
    pub fn source(&self) -> SocketAddr {
        self.source
    }

    /// What the client dialled.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }
}

impl Header {
    /// An unsigned version 2 header, encoded.
    pub fn unsigned(addresses: &Addresses) -> Vec<u8> {
        encode_v2(Some(addresses), &[])
    }

    /// A signed version 2 header, encoded, from a DER certificate and a compact JWT.
    ///
    /// `None` when certificate and token together exceed what a header can hold (65,535 bytes).
    pub fn signed(addresses: &Addresses, certificate: &[u8], token: &str) -> Option<Vec<u8>> {
        let mut value = Vec::with_capacity(certificate.len() + token.len() + 6);
        for (kind, content) in [(TLV_SIGNED_CERTIFICATE, certificate), (TLV_SIGNED_TOKEN, token.as_bytes())] {
            value.push(kind);
            value.extend_from_slice(&u16::try_from(content.len()).ok()?.to_be_bytes());
            value.extend_from_slice(content);
        }
        // 36 bytes of addresses and 3 of this TLV's own head go into the same 16-bit length.
        if value.len() > usize::from(u16::MAX) - 39 {
            return None;
        }
        Some(encode_v2(Some(addresses), &[Tlv { kind: TLV_SIGNED, value }]))
    }

    /// Certificate and token when the header carries at least one of them. Only the first container counts.
    pub fn signature(&self) -> Option<Signature<'_>> {
        let container = self.tlvs.iter().find(|tlv| tlv.kind == TLV_SIGNED)?;
        let mut signature = Signature { certificate: None, token: None };
        for (kind, value) in v2::tlvs(&container.value).map_while(Result::ok) {
            match kind {
                TLV_SIGNED_CERTIFICATE => signature.certificate = signature.certificate.or(Some(value)),
                TLV_SIGNED_TOKEN => signature.token = signature.token.or(Some(value)),
                _ => {}
            }
        }
        (signature.certificate.is_some() || signature.token.is_some()).then_some(signature)
    }
}

impl std::fmt::Debug for Signature<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signature")
            .field("certificate", &self.certificate.map(<[u8]>::len))
            .field("token", &self.token.map(|_| "<redacted>"))
            .finish()
    }
}

/// Whether `input` and `prefix` agree as far as both reach.
fn begins(input: &[u8], prefix: &[u8]) -> bool {
    let common = input.len().min(prefix.len());
    input[..common] == prefix[..common]
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests;
