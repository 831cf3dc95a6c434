//! An HTTP proxy that serves `CONNECT` and remembers what it was asked, or behaves badly.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// How long a connection may stay silent.
const SILENCE: Duration = Duration::from_secs(60);

/// What it does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Connects.
    Serves,
    /// Answers this in place of a connection.
    Answers(&'static str),
    /// Never answers.
    Hangs,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Host and port.
    pub target: String,
    /// The value of `Proxy-Authorization`.
    pub credentials: Option<String>,
}

/// The proxy; it listens as long as the test runs.
pub struct HttpProxy {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    carried: Carried,
}

/// Connections that were made for clients: both ends of each.
type Carried = Arc<Mutex<Vec<[TcpStream; 2]>>>;

impl HttpProxy {
    /// A proxy at an address of its own, at any port.
    pub fn start(host: &str, manner: Manner) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("listen");
        let address = listener.local_addr().expect("an address").to_string();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let carried = Carried::default();
        let (remembered, kept) = (asked.clone(), carried.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (asked, carried) = (remembered.clone(), kept.clone());
                thread::spawn(move || serve(client, manner, &asked, &carried).ok());
            }
        });
        Self { address, asked, carried }
    }

    /// Ends all connections that go through it, as a network does that is lost; says how many there were.
    pub fn cut(&self) -> usize {
        let all = std::mem::take(&mut *self.carried.lock().expect("the list"));
        // One side may have gone before.
        let cut = |[client, server]: &[TcpStream; 2]| {
            let (client, server) = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            client.is_ok() || server.is_ok()
        };
        all.iter().filter(|ends| cut(ends)).count()
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("the list").clone()
    }

    /// The distinct targets it was asked for, and forgets them.
    pub fn take_targets(&self) -> Vec<String> {
        let mut targets: Vec<_> =
            std::mem::take(&mut *self.asked.lock().expect("the list")).into_iter().map(|asked| asked.target).collect();
        targets.sort();
        targets.dedup();
        targets
    }
}

fn serve(client: TcpStream, manner: Manner, asked: &Mutex<Vec<Asked>>, carried: &Carried) -> io::Result<()> {
    client.set_read_timeout(Some(SILENCE))?;
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut credentials = None;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("proxy-authorization")
        {
            credentials = Some(value.trim().to_owned());
        }
    }
    asked.lock().expect("the list").push(Asked { target: target.clone(), credentials });
    let mut answer = client.try_clone()?;
    match manner {
        Manner::Hangs => {
            thread::sleep(SILENCE);
            return Ok(());
        }
        Manner::Answers(text) => return answer.write_all(text.as_bytes()),
        Manner::Serves => {}
    }
    let Ok(server) = TcpStream::connect(&target) else {
        return answer.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n");
    };
    answer.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    carried.lock().expect("the list").push([client.try_clone()?, server.try_clone()?]);
    let (back_from, back_to) = (server.try_clone()?, client);
    thread::spawn(move || copy(back_from, &back_to));
    copy(reader, &server);
    Ok(())
}

fn copy(mut from: impl Read, mut to: &TcpStream) {
    io::copy(&mut from, &mut to).ok();
    to.shutdown(Shutdown::Write).ok();
}
