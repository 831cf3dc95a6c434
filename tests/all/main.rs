//! End-to-end tests of the real programs. See the driver in `src/` for the environment they read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod balancers;
mod enhanced;
mod faults;
mod lists;
mod main_job;
mod moderated;
mod modules;
mod network;
mod node;
mod noise;
mod openssh;
mod outward;
mod pam;
mod processes;
mod recording;
mod refusals;
mod requests;
mod resume;
mod scans;
mod secrets;
mod storage;
mod trust;
mod tsh;
