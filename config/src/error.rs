//! What is wrong with a configuration, all of it at once.

use std::{fmt, path::PathBuf};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file named on the command line does not exist.
    #[error("path '{}' does not exist", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("reading {} failed: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text given in place of a file is not base64 of UTF-8.
    #[error("configuration in {name} is not base64 of a YAML file: {reason}")]
    Undecodable {
        /// Where the text came from: a flag or an environment variable.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The text is not what a configuration looks like: syntax, unknown keys, wrong types.
    #[error("failed parsing the config file: {0}")]
    Syntax(Problems),
    /// The values make no sense, alone or together.
    #[error("failed to parse Teleport configuration: {0}")]
    Invalid(Problems),
}

impl ConfigError {
    /// The single problems; empty when there was nothing to parse.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Syntax(problems) | Self::Invalid(problems) => &problems.0,
            _ => &[],
        }
    }

    pub(crate) fn from_problems(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line == 0, problem.line));
        problems.dedup();
        if problems.iter().any(|problem| problem.syntax) {
            Self::Syntax(Problems(problems))
        } else {
            Self::Invalid(Problems(problems))
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, or what stands for it.
    pub file: String,
    /// Line in the file, from 1; 0 when the problem has no line, such as a missing section.
    pub line: usize,
    /// The key, as in `auth_service.tokens[0]`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, with the value found and what was expected.
    pub message: String,
    /// Whether the form is wrong and not the meaning.
    pub syntax: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All that is wrong, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return only.fmt(f);
        }
        write!(f, "{} problems", self.0.len())?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}
