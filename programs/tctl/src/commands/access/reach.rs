//! What somebody wants to reach: a resource, and the account on it.

use rbac::{Ask, Labelled, Target};
use resources::{AnyResource, kind};

use crate::error::{Error, Result};

/// Kinds that roles reach by labels, and the kind of the records of agents that serve them.
pub const KINDS: [(&str, &str); 5] = [
    (kind::NODE, kind::NODE),
    (kind::APP, kind::APP_SERVER),
    (kind::DB, kind::DB_SERVER),
    (kind::KUBE_CLUSTER, kind::KUBE_SERVER),
    (kind::WINDOWS_DESKTOP, kind::WINDOWS_DESKTOP),
];

/// The kind that is reached, of a kind or of that of its records.
pub fn reached(kind: &str) -> Option<&'static str> {
    KINDS.iter().find(|(thing, record)| *thing == kind || *record == kind).map(|(thing, _)| *thing)
}

/// What a role is asked about a resource; `None` for what is not reached by labels.
pub fn target(resource: &AnyResource) -> Option<Target<'_>> {
    Some(match resource {
        AnyResource::Server(thing) => thing.target(),
        AnyResource::App(thing) => thing.target(),
        AnyResource::AppServer(thing) => thing.target(),
        AnyResource::Database(thing) => thing.target(),
        AnyResource::DatabaseServer(thing) => thing.target(),
        AnyResource::KubernetesCluster(thing) => thing.target(),
        AnyResource::KubernetesServer(thing) => thing.target(),
        AnyResource::WindowsDesktop(thing) => thing.target(),
        _ => return None,
    })
}

/// Whether a resource goes by a name: servers also go by their host's.
pub fn is_named(resource: &AnyResource, name: &str) -> bool {
    let hostname = match resource {
        AnyResource::Server(node) => node.spec.as_ref().map_or("", |spec| &spec.hostname),
        _ => "",
    };
    hostname == name || target(resource).is_some_and(|target| target.name == name)
}

/// Who on the resource: an account, and in a database the database.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account<'a> {
    /// The account.
    pub login: Option<&'a str>,
    /// The database.
    pub database: Option<&'a str>,
}

impl<'a> Account<'a> {
    /// What has to be allowed besides the labels.
    ///
    /// # Errors
    /// When resources of the kind have no accounts, or no databases.
    pub fn asks(self, kind: &str) -> Result<Vec<Ask<'a>>> {
        let mut asks = Vec::new();
        if let Some(login) = self.login {
            asks.push(match kind {
                kind::NODE => Ask::Login(login),
                kind::WINDOWS_DESKTOP => Ask::WindowsLogin(login),
                kind::DB => Ask::DatabaseUser { name: login, ignore_case: false },
                _ => return Err(Error::bad("an account goes with node, db and windows_desktop only")),
            });
        }
        match (self.database, kind) {
            (Some(database), kind::DB) => asks.push(Ask::DatabaseName(database)),
            (Some(_), _) => return Err(Error::bad("a database goes with db only")),
            (None, _) => {}
        }
        Ok(asks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_go_with_what_has_them() {
        let account = |login, database| Account { login, database };
        assert!(matches!(account(Some("a"), None).asks(kind::NODE), Ok(asks) if asks == [Ask::Login("a")]));
        assert!(matches!(account(Some("a"), Some("d")).asks(kind::DB), Ok(asks) if asks.len() == 2));
        assert!(account(Some("a"), None).asks(kind::APP).is_err());
        assert!(account(None, Some("d")).asks(kind::NODE).is_err());
        assert_eq!((reached("db_server"), reached("role")), (Some(kind::DB), None));
    }
}
