//! The standard streams of this process, for async code.
//!
//! They are read and written by threads of their own: they may be terminals, pipes or files, and setting them to be
//! non-blocking would do the same to every program that shares them. A thread begins with the first byte.

use std::io::{self, Read, Write};
use std::thread;

use bytes::Bytes;
use tokio::sync::mpsc;

/// Bytes read at once.
const CHUNK: usize = tunnel::ssh::CHANNEL_PACKET as usize;
/// Chunks that may wait: bounds memory, and is where a slow reader stops a fast writer.
const WAITING: usize = 8;

/// What comes from standard input, in pieces; ends with it.
pub struct Input(mpsc::Receiver<Bytes>);

/// Where output goes.
pub struct Output {
    sender: mpsc::Sender<Bytes>,
    /// Taken by the thread that writes.
    pending: Option<(mpsc::Receiver<Bytes>, Box<dyn Write + Send>)>,
    writer: Option<thread::JoinHandle<io::Result<()>>>,
}

impl Input {
    /// Standard input.
    pub fn stdin() -> Self {
        Self::reading(io::stdin())
    }

    /// No input at all.
    pub fn none() -> Self {
        Self(mpsc::channel(1).1)
    }

    /// From any source. The thread ends with the source or with the process.
    pub fn reading(mut source: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        thread::spawn(move || {
            let mut buffer = vec![0; CHUNK];
            loop {
                match source.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) if sender.blocking_send(Bytes::copy_from_slice(&buffer[..n])).is_err() => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        tracing::debug!(%error, "standard input");
                        return;
                    }
                }
            }
        });
        Self(receiver)
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await
    }
}

impl Output {
    /// Standard output.
    pub fn stdout() -> Self {
        Self::writing(io::stdout())
    }

    /// Standard error.
    pub fn stderr() -> Self {
        Self::writing(io::stderr())
    }

    /// To any sink; flushed after every piece.
    pub fn writing(sink: impl Write + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, pending: Some((receiver, Box::new(sink))), writer: None }
    }

    /// Hands over a piece; waits while earlier ones are not yet written.
    ///
    /// # Errors
    /// When the sink takes no more; [`Output::finish`] says why.
    pub async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        if let Some((receiver, sink)) = self.pending.take() {
            self.writer = Some(thread::spawn(move || write_all(receiver, sink)));
        }
        self.sender.send(bytes).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits until everything is written.
    pub async fn finish(self) -> io::Result<()> {
        drop(self.sender);
        let Some(writer) = self.writer else { return Ok(()) };
        let joined = tokio::task::spawn_blocking(|| writer.join()).await;
        match joined {
            Ok(Ok(written)) => written,
            _ => Err(io::Error::other("the thread that writes has failed")),
        }
    }
}

fn write_all(mut receiver: mpsc::Receiver<Bytes>, mut sink: Box<dyn Write + Send>) -> io::Result<()> {
    while let Some(bytes) = receiver.blocking_recv() {
        sink.write_all(&bytes)?;
        if receiver.is_empty() {
            sink.flush()?;
        }
    }
    sink.flush()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_goes_in_comes_out() {
        let data = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>();
        let (mut input, sink) = (Input::reading(io::Cursor::new(data.clone())), Sink::default());
        let mut output = Output::writing(sink.clone());
        while let Some(bytes) = input.next().await {
            output.write(bytes).await.unwrap();
        }
        output.finish().await.unwrap();
        assert!(*sink.0.lock().unwrap() == data);
    }

    #[tokio::test]
    async fn a_sink_that_takes_no_more_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = Output::writing(Full);
        while output.write(Bytes::from_static(b"x")).await.is_ok() {}
        assert_eq!(output.finish().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
