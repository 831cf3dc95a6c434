//! Addresses for processes under test.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::network;

/// Ports below the range from which the system picks ports for outgoing connections: one that is free now
/// is not taken by a client before the process under test listens on it.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Where clusters are: loopback, or an address of the test's own network.
pub(crate) fn host() -> &'static str {
    if network::is_own() { network::HERE } else { "127.0.0.1" }
}

/// The address of a port where clusters are.
pub fn listen(port: u16) -> String {
    format!("{}:{port}", host())
}

/// A port that nobody listens on and that this run hands out once.
pub fn free_port() -> u16 {
    // Runs beside this one begin elsewhere.
    let start = (std::process::id() % u32::from(COUNT / 64)) as u16 * 64;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + ((u32::from(start) + u32::from(step)) % u32::from(COUNT)) as u16;
        if TcpListener::bind((host(), port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}
