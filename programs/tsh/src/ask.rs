//! Questions to the person at the terminal.

use std::io;

use client::login::Ask;
use client::terminal::{Echo, Prompter};
use client::{Error, text};
use zeroize::Zeroizing;

/// Asks on the terminal, which is opened when it is first needed.
#[derive(Debug, Default)]
pub struct Terminal {
    prompter: Option<Prompter>,
}

impl Terminal {
    /// Asks a question.
    pub fn ask(&mut self, question: &str, echo: Echo) -> Result<Zeroizing<String>, Error> {
        let prompter = self.prompter.get_or_insert_with(Prompter::open);
        prompter.ask(question, echo).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => Error::other("interrupted"),
            io::ErrorKind::UnexpectedEof => Error::other("nobody answers: there is no terminal to ask on"),
            _ => Error::io("asking on the terminal")(error),
        })
    }
}

impl Ask for Terminal {
    fn password(&mut self, user: &str) -> Result<Zeroizing<String>, Error> {
        self.ask(&format!("Enter password for user {}: ", text::line(user)), Echo::Off)
    }

    fn code(&mut self) -> Result<Zeroizing<String>, Error> {
        let code = self.ask("Enter one-time code: ", Echo::Off)?;
        Ok(Zeroizing::new(code.trim().to_owned()))
    }

    fn acknowledge(&mut self, message: &str) -> Result<(), Error> {
        self.ask(&format!("{}\nPress Enter to continue. ", message.trim_end()), Echo::Off)?;
        Ok(())
    }

    fn warn(&mut self, warning: &str) {
        eprintln!("WARNING: {warning}");
    }
}
