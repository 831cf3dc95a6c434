//! The services over real TLS and HTTP/2 in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agent;
mod clients;
mod databases;
mod desktops;
mod kinds;
mod lists;
mod requests;
mod strangers;
mod table;
