//! What may be done with bytes from strangers: nothing that panics, hangs, grows without bound or contradicts itself.
//!
//! Each function takes any bytes and asserts what has to hold for all of them. The programs in `fuzz_targets/` hand
//! them to libFuzzer, `tests/replay.rs` runs them on the corpus and on mutations of it with a stable compiler.

// A promise that does not hold is a panic: that is what the fuzzer looks for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod documents;
pub mod mutation;
mod network;
mod recordings;

pub use certificates::{certificate, credentials, key_pem, subject};
pub use documents::{configuration, expression, resource_documents, role};
pub use network::{alpn, client_hello, detect, framing, proxy_header, resumption, tunnel_request};
pub use recordings::{audit_line, recording, recording_events};

/// One way of reading bytes from strangers.
#[derive(Clone, Copy)]
pub struct Target {
    /// What it is called; also its folder below `corpus/`.
    pub name: &'static str,
    /// Panics when the bytes break a promise.
    pub run: fn(&[u8]),
    /// Words of the format, for mutations.
    pub words: &'static [&'static str],
}

/// All of them, in alphabetical order.
pub const TARGETS: &[Target] = &[
    Target { name: "alpn", run: alpn, words: network::NAMES },
    Target { name: "audit_line", run: audit_line, words: recordings::EVENTS },
    Target { name: "certificate", run: certificate, words: certificates::VALUES },
    Target { name: "client_hello", run: client_hello, words: network::NAMES },
    Target { name: "configuration", run: configuration, words: documents::SETTINGS },
    Target { name: "credentials", run: credentials, words: certificates::TEXTS },
    Target { name: "detect", run: detect, words: network::FIRST_BYTES },
    Target { name: "expression", run: expression, words: documents::OPERATORS },
    Target { name: "framing", run: framing, words: network::FIRST_BYTES },
    Target { name: "proxy_header", run: proxy_header, words: network::FIRST_BYTES },
    Target { name: "recording", run: recording, words: &[] },
    Target { name: "recording_events", run: recording_events, words: &[] },
    Target { name: "resource_documents", run: resource_documents, words: documents::RESOURCES },
    Target { name: "resumption", run: resumption, words: network::FIRST_BYTES },
    Target { name: "role", run: role, words: documents::RESOURCES },
    Target { name: "subject", run: subject, words: certificates::VALUES },
    Target { name: "tunnel_request", run: tunnel_request, words: network::REQUESTS },
];
