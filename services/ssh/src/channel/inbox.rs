//! What a client says on a channel.

use std::collections::VecDeque;

use russh::{ChannelMsg, ChannelReadHalf};

use crate::connection::Connection;

/// How much a client may say ahead of being heard before nothing more is read of it.
const MAX_EARLY: usize = 256 * 1024;
/// What is counted for a message beside its data.
const MESSAGE: usize = 64;

/// A client's words on a channel, in order. Those that come while something else is waited for are kept: programs send
/// their input ahead of the answer.
pub(crate) struct Inbox {
    read: ChannelReadHalf,
    early: VecDeque<ChannelMsg>,
    /// Bytes that came early.
    size: usize,
}

impl Inbox {
    pub fn new(read: ChannelReadHalf) -> Self {
        Self { read, early: VecDeque::new(), size: 0 }
    }

    /// The next message; `None` when the channel is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<ChannelMsg> {
        match self.early.pop_front() {
            Some(message) => Some(message),
            None => self.read.wait().await,
        }
    }

    /// Waits for something, but not for longer than the client does and nothing ends its connection.
    ///
    /// # Errors
    /// In words, when that is over first. The work is dropped then.
    pub async fn meanwhile<T>(&mut self, connection: &Connection, work: impl Future<Output = T>) -> Result<T, String> {
        tokio::select! {
            done = work => Ok(done),
            () = self.closed() => Err("the client went away".to_owned()),
            words = connection.ending() => Err(words.to_string()),
        }
    }

    /// Returns when the client has closed the channel. Cancel-safe.
    async fn closed(&mut self) {
        while self.size < MAX_EARLY {
            let message = self.read.wait().await;
            let gone = matches!(message, None | Some(ChannelMsg::Close));
            if let Some(message) = message {
                self.size += MESSAGE + data(&message);
                self.early.push_back(message);
            }
            if gone {
                return;
            }
        }
        // What comes behind so much is not looked at: the connection's end is seen all the same.
        std::future::pending().await
    }
}

/// The length of a message's data.
fn data(message: &ChannelMsg) -> usize {
    match message {
        ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } | ChannelMsg::Request { data, .. } => {
            data.len()
        }
        ChannelMsg::SetEnv { variable_name, variable_value, .. } => variable_name.len() + variable_value.len(),
        ChannelMsg::Exec { command, .. } => command.len(),
        _ => 0,
    }
}
