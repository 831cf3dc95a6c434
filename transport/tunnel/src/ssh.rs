//! How every SSH client and server of this product is set up: algorithms, windows, identification lines, timeouts.
//!
//! Services start from [`server_config`] or [`client_config`] and change what is particular to them.

use std::borrow::Cow;
use std::time::Duration;

use russh::keys::{Algorithm, Certificate, EcdsaCurve, HashAlg, PrivateKey};
use russh::{
    GlobalRequestReply, MethodKind, MethodSet, Preferred, SshId, cipher, client, compression, kex, mac, server,
};

/// The identification line of servers. Clients take a server for one of ours if its line starts with this.
pub const SERVER_VERSION: &str = "SSH-2.0-Teleport";

/// The identification line of clients.
pub const CLIENT_VERSION: &str = "SSH-2.0-Teleport";

/// How many bytes a peer may send on one channel before we take any of them. Nothing is allocated ahead of use.
pub const CHANNEL_WINDOW: u32 = 8 << 20;

/// The most data in one packet of a channel. With all that SSH, resumption, gRPC and TLS put around it, it still fits what TCP
/// hands to the network at once (64 KiB with its headers) and four records of TLS. A packet of 64 KiB would make one more of
/// each, with little in them, and wake who reads twice.
pub const CHANNEL_PACKET: u32 = 63 << 10;

/// The most data in one packet of a tunnel's channel: a packet of a session, with what SSH and resumption put around it, is
/// one there as well, and one message of the proxy.
pub const TUNNEL_PACKET: u32 = CHANNEL_PACKET + (2 << 10);

/// The longest a handshake, a login or a first request may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection on which nothing at all arrives for so long is given up.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How often a server asks a silent client whether it is still there.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The extension of SSH certificates that names the cluster that issued them.
pub const AUTHORITY_EXTENSION: &str = "x-teleport-authority";

/// The extension of SSH host certificates that names the role of the holder.
pub const ROLE_EXTENSION: &str = "x-teleport-role";

/// Global request for a sign of life.
const KEEP_ALIVE: &str = "keepalive@openssh.com";
/// Global request for the version of the cluster.
const VERSION: &str = "x-teleport-version";
/// Global request for whether the proxy records sessions, and whether it is in FIPS mode.
const CLUSTER_DETAILS: &str = "cluster-details@goteleport.com";

/// What every SSH server of this product answers to a global request.
pub fn answer(name: &str, version: &str, recorded_by_proxy: bool) -> GlobalRequestReply {
    match name {
        KEEP_ALIVE => GlobalRequestReply::Success(Vec::new()),
        VERSION => GlobalRequestReply::Success(version.as_bytes().to_vec()),
        // This build has no FIPS mode.
        CLUSTER_DETAILS => GlobalRequestReply::Success(vec![u8::from(recorded_by_proxy), 0]),
        _ => GlobalRequestReply::Failure,
    }
}

const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Key exchanges, and what is announced in their list. None of Diffie-Hellman's over finite fields: a stranger can make a server
/// compute those at little cost of its own. None over NIST's curves, unless an administrator chooses them.
const KEY_EXCHANGES: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// Message authentication codes over what is encrypted.
const MACS: &[mac::Name] = &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM];

/// Key algorithms without SHA-1, fast ones first.
const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

const COMPRESSION: &[compression::Name] = &[compression::NONE];

/// The algorithms to offer. AES-GCM first: it is done in hardware nearly everywhere and is more than twice as fast as
/// ChaCha20-Poly1305; with 128 bits, as in TLS, a fourth faster than with 256. No compression: what is worth compressing over a slow line rarely passes here, and it costs
/// memory per connection.
pub fn preferences() -> Preferred {
    Preferred {
        key: Cow::Borrowed(KEYS),
        cipher: Cow::Borrowed(CIPHERS),
        kex: Cow::Borrowed(KEY_EXCHANGES),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(COMPRESSION),
        ..Preferred::DEFAULT
    }
}

/// SSH algorithms an administrator chose, by their names, best first. An empty list is the built-in choice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Algorithms {
    /// Ciphers.
    pub ciphers: Vec<&'static str>,
    /// Key exchanges.
    pub key_exchanges: Vec<&'static str>,
    /// Message authentication codes, for ciphers that need one.
    pub macs: Vec<&'static str>,
}

impl Algorithms {
    /// The algorithms to offer. Names that this build does not know are left out; if none is left of a list, nothing
    /// is offered rather than something the administrator did not choose.
    pub fn preferences(&self) -> Preferred {
        let built_in = preferences();
        Preferred {
            cipher: choose(&built_in.cipher, &self.ciphers, |name| cipher::Name::try_from(name).ok()),
            kex: self.key_exchanges(&built_in.kex),
            mac: choose(&built_in.mac, &self.macs, |name| mac::Name::try_from(name).ok()),
            ..built_in
        }
    }

    fn key_exchanges(&self, built_in: &[kex::Name]) -> Cow<'static, [kex::Name]> {
        // Extensions are announced in the list of key exchanges; strict key exchange is not to be chosen away.
        let is_extension =
            |name: &&kex::Name| name.as_ref().starts_with("ext-info") || name.as_ref().starts_with("kex-strict");
        let chosen = choose(built_in, &self.key_exchanges, |name| kex::Name::try_from(name).ok());
        if self.key_exchanges.is_empty() {
            return chosen;
        }
        chosen.iter().chain(built_in.iter().filter(is_extension)).copied().collect()
    }
}

fn choose<N: Copy>(built_in: &[N], wanted: &[&str], named: impl Fn(&str) -> Option<N>) -> Cow<'static, [N]> {
    if wanted.is_empty() {
        return Cow::Owned(built_in.to_vec());
    }
    wanted.iter().filter_map(|name| named(name)).collect()
}

/// A server that presents `certificates` over `keys` and takes nothing but public keys and certificates.
pub fn server_config(keys: Vec<PrivateKey>, certificates: Vec<Certificate>) -> server::Config {
    server::Config {
        server_id: SshId::Standard(Cow::Borrowed(SERVER_VERSION)),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        // Certificates are public; how long it takes to refuse one tells nothing.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: None,
        keys,
        certificates,
        window_size: CHANNEL_WINDOW,
        maximum_packet_size: CHANNEL_PACKET,
        preferred: preferences(),
        max_auth_attempts: 6,
        inactivity_timeout: Some(IDLE_TIMEOUT),
        keepalive_interval: Some(KEEP_ALIVE_INTERVAL),
        keepalive_max: 3,
        nodelay: true,
        ..server::Config::default()
    }
}

/// A client that asks servers for host certificates first. Whether a plain host key will do as well is for the
/// handler's check of the server's key to say.
pub fn client_config() -> client::Config {
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed(CLIENT_VERSION)),
        window_size: CHANNEL_WINDOW,
        maximum_packet_size: CHANNEL_PACKET,
        preferred: Preferred { host_key_certificates: Cow::Borrowed(KEYS), ..preferences() },
        inactivity_timeout: None,
        nodelay: true,
        ..client::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_algorithms_replace_the_built_in_ones_and_keep_strict_key_exchange() {
        let algorithms = Algorithms {
            ciphers: vec!["chacha20-poly1305@openssh.com"],
            key_exchanges: vec!["curve25519-sha256"],
            macs: Vec::new(),
        };
        let chosen = algorithms.preferences();
        assert_eq!(chosen.cipher.as_ref(), [cipher::CHACHA20_POLY1305]);
        let exchanges: Vec<&str> = chosen.kex.iter().map(AsRef::as_ref).collect();
        assert_eq!(exchanges.first(), Some(&"curve25519-sha256"));
        assert!(exchanges.contains(&"kex-strict-s-v00@openssh.com"));
        assert_eq!(chosen.mac, preferences().mac);
        assert!(!exchanges.iter().any(|name| name.starts_with("ecdh")));
    }
}
