//! `access`: what roles decide, and why.

mod explain;
mod reach;
mod subject;
mod test;

use clap::Subcommand;

use crate::connect::Wanted;
use crate::error::Result;

/// What roles decide, and why.
#[derive(Debug, Subcommand)]
pub enum Access {
    /// Show which rule lets a user at a resource or keeps them out, field by field.
    Explain(explain::Explain),
    /// Check a table of expected decisions, for policies that are tested like code.
    Test(test::Test),
}

impl Access {
    /// Does what the command line says. A connection is made only if something has to be asked.
    pub async fn run(self, wanted: &Wanted) -> Result<()> {
        match self {
            Self::Explain(command) => command.run(wanted).await,
            Self::Test(command) => command.run(wanted).await,
        }
    }
}
