//! An SFTP server, protocol version 3 (draft-ietf-secsh-filexfer-02) with the extensions of OpenSSH.
//!
//! Written here because names of files are bytes, which the existing crate takes for text, and because a worker that
//! answers one request after the other needs no runtime. Requests are answered in their order; answers are sent when
//! no further request waits, so a client that asks ahead gets full packets.

mod files;
mod only;
mod packet;

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use serde::{Deserialize, Serialize};

use files::Files;
pub(crate) use only::Only;

/// The longest request taken: a write of 256 KiB and its head.
const MAX_PACKET: usize = 256 * 1024 + 1024;
/// Streams are read and written in pieces of this size.
const BUFFER: usize = 256 * 1024;

/// An operation as the audit log tells it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Performed {
    /// Number of the action, as in events.
    pub action: i32,
    /// Absolute path.
    pub path: String,
    /// The other path, of operations that have two.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Flags of an open, as the client sent them.
    #[serde(default)]
    pub flags: u32,
    /// Attributes that were set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
    /// Why it failed; empty when it did not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Attributes of a file, each present or not.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub size: Option<u64>,
    pub owner: Option<(u32, u32)>,
    pub permissions: Option<u32>,
    /// Seconds since 1970: last access, last modification.
    pub times: Option<(u32, u32)>,
}

/// Serves the standard streams until the client ends. Operations go to the error stream, a line each. With a file named,
/// nothing is done to others.
pub(super) fn serve_standard_streams(only: Option<Only>) -> io::Result<()> {
    let mut log = io::stderr().lock();
    let report = move |performed: Performed| {
        if let Ok(mut line) = serde_json::to_vec(&performed) {
            line.push(b'\n');
            let _ = log.write_all(&line); // the daemon is gone, and so is the client
        }
    };
    serve(io::stdin().lock(), io::stdout().lock(), only, report)
}

/// Serves one client to the end of its stream.
fn serve(input: impl Read, output: impl Write, only: Option<Only>, report: impl FnMut(Performed)) -> io::Result<()> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    let mut output = BufWriter::with_capacity(BUFFER, output);
    let mut files = Files::new(only, report)?;
    let mut request = Vec::new();
    loop {
        if input.buffer().is_empty() {
            output.flush()?;
            if input.fill_buf()?.is_empty() {
                return Ok(());
            }
        }
        let mut head = [0; 4];
        input.read_exact(&mut head)?;
        let length = u32::from_be_bytes(head) as usize;
        if length == 0 || length > MAX_PACKET {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a packet of {length} bytes")));
        }
        if input.buffer().len() < length {
            // What was asked before is answered before more is waited for.
            output.flush()?;
        }
        request.resize(length, 0);
        input.read_exact(&mut request)?;
        let reply = files.answer(&request);
        let length = u32::try_from(reply.len()).map_err(io::Error::other)?;
        output.write_all(&length.to_be_bytes())?;
        output.write_all(&reply)?;
    }
}

#[cfg(test)]
mod tests;
