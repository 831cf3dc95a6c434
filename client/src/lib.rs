//! The library behind `tsh`: profiles and keys on disk, login, and dialling what a cluster protects.

pub mod home;
pub mod keys;
pub mod profile;
