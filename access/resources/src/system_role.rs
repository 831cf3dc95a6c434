use std::{fmt, str::FromStr};

/// What a certificate of a part of the cluster itself is for; also what a join token grants.
///
/// The spelling of [`SystemRole::name`] stands in certificates (organisation and the system-roles extension), in
/// tokens and in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SystemRole {
    /// An Auth Service.
    Auth,
    /// An SSH agent.
    Node,
    /// A Proxy Service.
    Proxy,
    /// The administrator of the auth host.
    Admin,
    /// Somebody who holds a join token and no certificate yet.
    ProvisionToken,
    /// A cluster that wants to be trusted; only in tokens.
    TrustedCluster,
    /// Somebody who accepts an invitation.
    Signup,
    /// Nobody: a caller without a certificate.
    Nop,
    /// The Proxy Service of another cluster.
    RemoteProxy,
    /// A Kubernetes agent.
    Kube,
    /// An application agent.
    App,
    /// A database agent.
    Db,
    /// A desktop agent.
    WindowsDesktop,
    /// A machine; only in tokens.
    Bot,
    /// A process with any number of services.
    Instance,
    /// A discovery agent.
    Discovery,
    /// An Okta agent.
    Okta,
    /// A device management agent.
    Mdm,
    /// A plugin of the access graph.
    AccessGraphPlugin,
}

/// A text that names no system role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("role {0:?} is not registered: expected a system role such as \"Node\", \"Proxy\", \"App\" or \"Bot\"")]
pub struct UnknownSystemRole(pub String);

impl SystemRole {
    /// Every system role.
    pub const ALL: [Self; 19] = [
        Self::Auth,
        Self::Node,
        Self::Proxy,
        Self::Admin,
        Self::ProvisionToken,
        Self::TrustedCluster,
        Self::Signup,
        Self::Nop,
        Self::RemoteProxy,
        Self::Kube,
        Self::App,
        Self::Db,
        Self::WindowsDesktop,
        Self::Bot,
        Self::Instance,
        Self::Discovery,
        Self::Okta,
        Self::Mdm,
        Self::AccessGraphPlugin,
    ];

    /// The canonical spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "Auth",
            Self::Node => "Node",
            Self::Proxy => "Proxy",
            Self::Admin => "Admin",
            Self::ProvisionToken => "ProvisionToken",
            Self::TrustedCluster => "Trusted_cluster",
            Self::Signup => "Signup",
            Self::Nop => "Nop",
            Self::RemoteProxy => "RemoteProxy",
            Self::Kube => "Kube",
            Self::App => "App",
            Self::Db => "Db",
            Self::WindowsDesktop => "WindowsDesktop",
            Self::Bot => "Bot",
            Self::Instance => "Instance",
            Self::Discovery => "Discovery",
            Self::Okta => "Okta",
            Self::Mdm => "MDM",
            Self::AccessGraphPlugin => "AccessGraphPlugin",
        }
    }

    /// The role with exactly this canonical spelling: how certificates name it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Whether this is a service that runs in a process of the cluster, with a host certificate of its own.
    pub const fn is_local_service(self) -> bool {
        matches!(
            self,
            Self::Auth
                | Self::Node
                | Self::Proxy
                | Self::Kube
                | Self::App
                | Self::Db
                | Self::WindowsDesktop
                | Self::Discovery
                | Self::Okta
                | Self::Mdm
        )
    }

    /// Reads a list such as `node,app`; blanks around the names are ignored.
    ///
    /// # Errors
    /// The first name that is no system role.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, UnknownSystemRole> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::parse).collect()
    }
}

impl FromStr for SystemRole {
    type Err = UnknownSystemRole;

    /// Reads a name as administrators write it: in any case, with or without underscores.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |s: &str| s.chars().filter(|c| *c != '_').collect::<String>().to_ascii_lowercase();
        let wanted = plain(text.trim());
        Self::ALL
            .into_iter()
            .find(|role| plain(role.name()) == wanted)
            .ok_or_else(|| UnknownSystemRole(text.trim().to_owned()))
    }
}

impl fmt::Display for SystemRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_read_in_any_case() {
        for (text, role) in [
            ("node", SystemRole::Node),
            ("Trusted_cluster", SystemRole::TrustedCluster),
            ("trustedcluster", SystemRole::TrustedCluster),
            ("windows_desktop", SystemRole::WindowsDesktop),
            ("remote_proxy", SystemRole::RemoteProxy),
            ("mdm", SystemRole::Mdm),
        ] {
            assert_eq!(text.parse::<SystemRole>().unwrap(), role);
        }
        assert_eq!(SystemRole::parse_list("node, app").unwrap(), [SystemRole::Node, SystemRole::App]);
        assert!("bogus".parse::<SystemRole>().unwrap_err().to_string().contains("bogus"));
    }

    #[test]
    fn certificates_use_one_spelling_only() {
        for role in SystemRole::ALL {
            assert_eq!(SystemRole::from_name(role.name()), Some(role));
        }
        assert_eq!(SystemRole::from_name("node"), None);
    }
}
