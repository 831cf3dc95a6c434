//! Limits that a user's roles set across the cluster: simultaneous connections.

pub(crate) use process::leases::{Lease, Leases, NoLease, too_many};
