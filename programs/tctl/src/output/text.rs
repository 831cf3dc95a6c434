//! Texts of others on the administrator's terminal, which obeys escape sequences in what it shows.

pub use client::text::{line, lines};
