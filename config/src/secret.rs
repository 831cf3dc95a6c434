//! Values that must not show up in logs.

use std::{fmt, io, path::PathBuf};

use zeroize::Zeroizing;

/// A secret text. Its `Debug` form hides it and its memory is wiped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps `text` secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself. Not for logs or messages.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A join token: given in the configuration, or kept in a file that may go away after the first join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// The token itself.
    Value(Secret),
    /// The file that holds it.
    File(PathBuf),
}

impl Token {
    /// A text that begins with a slash is the path of a file.
    pub fn new(text: &str) -> Self {
        if text.starts_with('/') { Self::File(PathBuf::from(text)) } else { Self::Value(Secret::new(text)) }
    }

    /// The token, read from its file when it is in one.
    ///
    /// # Errors
    /// When the file cannot be read or is empty; the message names it.
    pub fn read(&self) -> io::Result<Secret> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => {
                let named = |text: String| io::Error::other(format!("{}: {text}", path.display()));
                let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?);
                match text.trim() {
                    "" => Err(named("token file is empty".to_owned())),
                    token => Ok(Secret::new(token)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", Token::new("hunter2")), "Value(<secret>)");
    }

    #[test]
    fn a_token_is_read_from_its_file_when_needed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let token = Token::new(path.to_str().unwrap());
        assert!(token.read().unwrap_err().to_string().contains("token"));
        std::fs::write(&path, "\n").unwrap();
        assert!(token.read().unwrap_err().to_string().contains("empty"));
        std::fs::write(&path, "for-nodes\n").unwrap();
        assert_eq!(token.read().unwrap().expose(), "for-nodes");
        assert_eq!(Token::new("plain").read().unwrap().expose(), "plain");
    }
}
