//! System roles that hosts have proven, each over a connection with that role's own certificate.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use parking_lot::Mutex;
use resources::SystemRole;
use uuid::Uuid;
use wire::error::{Error, Result};

/// How long a proof counts: a host asks for its new certificate right after it.
const TTL: TimeDelta = TimeDelta::minutes(2);
/// Proofs kept at a time.
const MAX: usize = 4096;

/// What hosts have proven lately.
#[derive(Default)]
pub struct Assertions(Mutex<HashMap<(String, String), Proven>>);

struct Proven {
    roles: Vec<SystemRole>,
    until: DateTime<Utc>,
}

impl Assertions {
    /// Remembers that a host holds a role; proofs with the same id belong together.
    ///
    /// # Errors
    /// `BadParameter` for malformed ids and unknown roles; `LimitExceeded` when too many proofs wait.
    pub fn add(&self, server_id: &str, assertion_id: &str, role: &str, now: DateTime<Utc>) -> Result<()> {
        if Uuid::try_parse(assertion_id).is_err() {
            return Err(Error::bad_parameter("assertion id: expected a UUID"));
        }
        let role = SystemRole::from_name(role)
            .filter(|role| role.is_local_service())
            .ok_or_else(|| Error::bad_parameter(format!("{role:?} is no role of a service")))?;
        let mut proven = self.0.lock();
        proven.retain(|_, entry| entry.until > now);
        let key = (server_id.to_owned(), assertion_id.to_owned());
        if proven.len() >= MAX && !proven.contains_key(&key) {
            return Err(Error::limit_exceeded("too many role assertions, try again later"));
        }
        let entry = proven.entry(key).or_insert_with(|| Proven { roles: Vec::new(), until: now + TTL });
        if !entry.roles.contains(&role) {
            entry.roles.push(role);
        }
        Ok(())
    }

    /// The roles that a host has proven under an id.
    pub fn of(&self, server_id: &str, assertion_id: &str, now: DateTime<Utc>) -> Vec<SystemRole> {
        let proven = self.0.lock();
        let entry = proven.get(&(server_id.to_owned(), assertion_id.to_owned()));
        entry.filter(|entry| entry.until > now).map(|entry| entry.roles.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_proof_counts_for_its_host_and_id_and_not_for_long() {
        let (assertions, now) = (Assertions::default(), Utc::now());
        let id = Uuid::new_v4().to_string();
        assertions.add("host", &id, "Node", now).unwrap();
        assertions.add("host", &id, "Proxy", now).unwrap();
        assert_eq!(assertions.of("host", &id, now), [SystemRole::Node, SystemRole::Proxy]);
        assert!(assertions.of("other", &id, now).is_empty());
        assert!(assertions.of("host", &Uuid::new_v4().to_string(), now).is_empty());
        assert!(assertions.of("host", &id, now + TTL).is_empty());
        assert!(assertions.add("host", "x", "Node", now).is_err());
        assert!(assertions.add("host", &id, "Admin", now).is_err());
    }
}
