//! Escape sequences of an interactive session: `~` after a newline, as OpenSSH's client has them.

/// What the user wants besides typing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escape {
    /// `~.`: end the connection.
    Disconnect,
    /// `~?`: say which sequences there are.
    Help,
    /// A moderator's `t`: end the session for all. No sequence of a shell.
    Terminate,
    /// A moderator's `y`: approve a file transfer.
    Approve,
    /// A moderator's `n`: deny it.
    Deny,
}

/// What is shown for `~?`.
pub(super) const HELP: &str = "\r\nEscape sequences, after a newline:\r\n\
    \x20 ~.  end the connection\r\n\
    \x20 ~~  type the character itself\r\n\
    \x20 ~?  this help\r\n";

/// Finds the sequences in what is typed.
#[derive(Debug)]
pub(super) struct Keys {
    enabled: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the beginning of a line.
    LineStart,
    /// After `~` at the beginning of a line; it is held back.
    Tilde,
    /// Anywhere else.
    Inside,
}

impl Keys {
    pub(super) fn new(enabled: bool) -> Self {
        Self { enabled, state: State::LineStart }
    }

    /// Takes what was typed; returns what goes to the server and what the user wants. Keys after an escape that ends
    /// the connection are dropped.
    pub(super) fn typed(&mut self, keys: &[u8]) -> (Vec<u8>, Option<Escape>) {
        if !self.enabled {
            return (keys.to_vec(), None);
        }
        let (mut sent, mut wanted) = (Vec::with_capacity(keys.len() + 1), None);
        for &key in keys {
            let next = if matches!(key, b'\r' | b'\n') { State::LineStart } else { State::Inside };
            match (self.state, key) {
                (State::LineStart, b'~') => self.state = State::Tilde,
                (State::Tilde, b'.') => return (sent, Some(Escape::Disconnect)),
                (State::Tilde, b'?') => {
                    wanted = Some(Escape::Help);
                    self.state = State::LineStart;
                }
                (State::Tilde, b'~') => {
                    sent.push(b'~');
                    self.state = State::Inside;
                }
                (State::Tilde, _) => {
                    sent.extend([b'~', key]);
                    self.state = next;
                }
                _ => {
                    sent.push(key);
                    self.state = next;
                }
            }
        }
        (sent, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(pieces: &[&[u8]]) -> (Vec<u8>, Option<Escape>) {
        let mut keys = Keys::new(true);
        let (mut all, mut last) = (Vec::new(), None);
        for piece in pieces {
            let (sent, wanted) = keys.typed(piece);
            all.extend(sent);
            last = wanted.or(last);
        }
        (all, last)
    }

    #[test]
    fn sequences_are_recognised_at_the_beginning_of_a_line_only() {
        assert_eq!(typed(&[b"~."]), (vec![], Some(Escape::Disconnect)));
        assert_eq!(typed(&[b"ls\r", b"~", b"."]), (b"ls\r".to_vec(), Some(Escape::Disconnect)));
        assert_eq!(typed(&[b"cd ~.\r"]), (b"cd ~.\r".to_vec(), None));
        assert_eq!(typed(&[b"~~.\r"]), (b"~.\r".to_vec(), None));
        assert_eq!(typed(&[b"~/bin\r~x"]), (b"~/bin\r~x".to_vec(), None));
        assert_eq!(typed(&[b"~?~?"]), (vec![], Some(Escape::Help)));
        assert_eq!(Keys::new(false).typed(b"~."), (b"~.".to_vec(), None));
    }
}
