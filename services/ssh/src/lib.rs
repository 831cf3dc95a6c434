//! The SSH service.

pub mod os;
