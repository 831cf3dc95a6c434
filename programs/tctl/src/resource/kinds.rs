//! The kinds whose calls differ in their names only.

mod get;
mod put;
mod remove;

pub use get::get;
pub use put::put;
pub use remove::remove;
