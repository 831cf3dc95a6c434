//! The SSH service.

pub mod os;
mod record;
mod session;
