//! Who asks, and whether he may.
//!
//! Every connection has a [`Peer`]; before a call of a peer is served, [`Authorizer::admit`] looks the call up in
//! the table of [`permissions`] and hands the handler an [`AuthContext`]: the caller with everything that decides about
//! access, as of now. A context is kept with its connection and made anew when a user, a role, a lock or the
//! authentication settings change.

pub mod permissions;

mod context;
mod gate;
mod limits;

pub use context::AuthContext;
pub use gate::{Authorizer, Peer};
