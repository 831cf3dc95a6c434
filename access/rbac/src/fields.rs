//! The fields of conditions that come in several of a kind, by name.

use wire::{types::RoleConditions, wrappers::LabelValues};

/// What the label selectors of a role can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LabelField {
    /// `node_labels`: SSH servers.
    Node,
    /// `app_labels`: applications and SAML service providers.
    App,
    /// `cluster_labels`: clusters that trust this one.
    Cluster,
    /// `kubernetes_labels`.
    Kubernetes,
    /// `db_labels`.
    Database,
    /// `db_service_labels`.
    DatabaseService,
    /// `windows_desktop_labels`: desktops and desktop services.
    WindowsDesktop,
    /// `group_labels`: user groups.
    Group,
}

impl LabelField {
    pub(crate) const ALL: [Self; 8] = [
        Self::Node,
        Self::App,
        Self::Cluster,
        Self::Kubernetes,
        Self::Database,
        Self::DatabaseService,
        Self::WindowsDesktop,
        Self::Group,
    ];

    /// The name of the field in a role.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node_labels",
            Self::App => "app_labels",
            Self::Cluster => "cluster_labels",
            Self::Kubernetes => "kubernetes_labels",
            Self::Database => "db_labels",
            Self::DatabaseService => "db_service_labels",
            Self::WindowsDesktop => "windows_desktop_labels",
            Self::Group => "group_labels",
        }
    }

    pub(crate) fn labels(self, c: &RoleConditions) -> Option<&LabelValues> {
        match self {
            Self::Node => &c.node_labels,
            Self::App => &c.app_labels,
            Self::Cluster => &c.cluster_labels,
            Self::Kubernetes => &c.kubernetes_labels,
            Self::Database => &c.database_labels,
            Self::DatabaseService => &c.database_service_labels,
            Self::WindowsDesktop => &c.windows_desktop_labels,
            Self::Group => &c.group_labels,
        }
        .as_ref()
    }

    pub(crate) fn expression(self, c: &RoleConditions) -> &str {
        match self {
            Self::Node => &c.node_labels_expression,
            Self::App => &c.app_labels_expression,
            Self::Cluster => &c.cluster_labels_expression,
            Self::Kubernetes => &c.kubernetes_labels_expression,
            Self::Database => &c.database_labels_expression,
            Self::DatabaseService => &c.database_service_labels_expression,
            Self::WindowsDesktop => &c.windows_desktop_labels_expression,
            Self::Group => &c.group_labels_expression,
        }
    }
}

/// Lists of names in which templates may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListField {
    /// `logins`.
    Logins,
    /// `windows_desktop_logins`.
    WindowsLogins,
    /// `kubernetes_groups`.
    KubernetesGroups,
    /// `kubernetes_users`.
    KubernetesUsers,
    /// `db_names`.
    DatabaseNames,
    /// `db_users`.
    DatabaseUsers,
    /// `db_roles`.
    DatabaseRoles,
    /// `aws_role_arns`.
    AwsRoleArns,
    /// `azure_identities`.
    AzureIdentities,
    /// `gcp_service_accounts`.
    GcpServiceAccounts,
    /// `host_groups`.
    HostGroups,
    /// `host_sudoers`.
    HostSudoers,
    /// `desktop_groups`.
    DesktopGroups,
}

impl ListField {
    pub(crate) const ALL: [Self; 13] = [
        Self::Logins,
        Self::WindowsLogins,
        Self::KubernetesGroups,
        Self::KubernetesUsers,
        Self::DatabaseNames,
        Self::DatabaseUsers,
        Self::DatabaseRoles,
        Self::AwsRoleArns,
        Self::AzureIdentities,
        Self::GcpServiceAccounts,
        Self::HostGroups,
        Self::HostSudoers,
        Self::DesktopGroups,
    ];

    /// The name of the field in a role.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logins => "logins",
            Self::WindowsLogins => "windows_desktop_logins",
            Self::KubernetesGroups => "kubernetes_groups",
            Self::KubernetesUsers => "kubernetes_users",
            Self::DatabaseNames => "db_names",
            Self::DatabaseUsers => "db_users",
            Self::DatabaseRoles => "db_roles",
            Self::AwsRoleArns => "aws_role_arns",
            Self::AzureIdentities => "azure_identities",
            Self::GcpServiceAccounts => "gcp_service_accounts",
            Self::HostGroups => "host_groups",
            Self::HostSudoers => "host_sudoers",
            Self::DesktopGroups => "desktop_groups",
        }
    }

    pub(crate) fn list(self, c: &RoleConditions) -> &[String] {
        match self {
            Self::Logins => &c.logins,
            Self::WindowsLogins => &c.windows_desktop_logins,
            Self::KubernetesGroups => &c.kube_groups,
            Self::KubernetesUsers => &c.kube_users,
            Self::DatabaseNames => &c.database_names,
            Self::DatabaseUsers => &c.database_users,
            Self::DatabaseRoles => &c.database_roles,
            Self::AwsRoleArns => &c.aws_role_ar_ns,
            Self::AzureIdentities => &c.azure_identities,
            Self::GcpServiceAccounts => &c.gcp_service_accounts,
            Self::HostGroups => &c.host_groups,
            Self::HostSudoers => &c.host_sudoers,
            Self::DesktopGroups => &c.desktop_groups,
        }
    }

    /// Whether a name can be used where it goes.
    pub(crate) fn accepts(self, name: &str) -> bool {
        match self {
            Self::Logins => is_unix_login(name),
            Self::WindowsLogins => {
                !name.contains(['"', '/', '\\', '[', ']', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>'])
            }
            _ => true,
        }
    }
}

/// Whether a text can be the name of an account on a server: local, or of a directory (`name@example.com`,
/// `DOMAIN\name`). Names that begin with a hyphen are markers in certificates and would be options of commands.
fn is_unix_login(name: &str) -> bool {
    let body = name.strip_suffix('$').unwrap_or(name);
    let fits = |c: char| c.is_alphanumeric() || "_-.@+\\".contains(c);
    !body.is_empty() && name.len() <= 256 && !body.starts_with(['-', '.']) && body.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_logins_are_dropped() {
        for login in ["root", "tp_alice", "first.last", "a@example.com", "CORP\\ann", "machine$", "jürgen"] {
            assert!(ListField::Logins.accepts(login), "{login}");
        }
        for login in ["", "*", "bad name!", "-teleport-nologin-x", "a:b", "a/b", "a\nb", "$", ".."] {
            assert!(!ListField::Logins.accepts(login), "{login}");
        }
        assert!(ListField::WindowsLogins.accepts("Administrator"));
        assert!(!ListField::WindowsLogins.accepts("a\\b"));
    }
}
