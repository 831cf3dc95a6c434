//! A network on the way that forgets connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How often a connection that has nothing to say looks whether it was forgotten.
const LOOK: Duration = Duration::from_millis(100);

/// Passes connections on, until it forgets them: then they stay open on both sides, and nothing gets through any more.
pub struct Valve {
    address: SocketAddr,
    generation: Arc<AtomicUsize>,
}

impl Valve {
    /// Listens at a port of loopback, which is given, and passes connections on to `target`.
    pub fn start(port: u16, target: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("listen");
        let address = listener.local_addr().expect("an address");
        let (target, generation) = (target.to_owned(), Arc::new(AtomicUsize::new(0)));
        let current = generation.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let born = current.load(Ordering::SeqCst);
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().expect("a handle"), to.try_clone().expect("a handle"));
                    let current = current.clone();
                    thread::spawn(move || pass(from, to, || current.load(Ordering::SeqCst) == born));
                }
            }
        });
        Self { address, generation }
    }

    /// Host and port.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Forgets the connections there are; new ones get through.
    pub fn forget(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

/// Copies until one side closes; a forgotten connection is held without a word.
fn pass(mut from: TcpStream, mut to: TcpStream, known: impl Fn() -> bool) {
    let mut buffer = vec![0; 64 * 1024];
    from.set_read_timeout(Some(LOOK)).expect("a time limit");
    while known() {
        match from.read(&mut buffer) {
            Ok(0) => {
                to.shutdown(std::net::Shutdown::Write).ok();
                return;
            }
            Ok(count) if known() && to.write_all(&buffer[..count]).is_err() => return,
            Err(e) if !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => return,
            _ => {}
        }
    }
    // Both ends stay open for as long as the test runs.
    std::mem::forget((from, to));
}
