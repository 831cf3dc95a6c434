use std::{fmt, str::FromStr};

use crate::{ResourceError, Result, any::known_kind, kind};

/// What `tctl get`, `rm` and `edit` are told to work on: `role`, `roles/dev`, `cap`, `cert_authority/host/example`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The canonical kind.
    pub kind: String,
    /// The variant: the type of an authority, the kind of a semaphore.
    pub sub_kind: Option<String>,
    /// The name; `None` means all of the kind.
    pub name: Option<String>,
}

/// Short and old forms of kinds; plurals are found by [`singular`].
const ALIASES: [(&str, &str); 22] = [
    ("server", kind::NODE),
    ("servers", kind::NODE),
    ("auth", kind::AUTH_SERVER),
    ("auths", kind::AUTH_SERVER),
    ("cas", kind::CERT_AUTHORITY),
    ("ca", kind::CERT_AUTHORITY),
    ("rts", kind::TUNNEL),
    ("reverse_tunnel", kind::TUNNEL),
    ("reverse_tunnels", kind::TUNNEL),
    ("tc", kind::TRUSTED_CLUSTER),
    ("rc", kind::REMOTE_CLUSTER),
    ("cap", kind::CLUSTER_AUTH_PREFERENCE),
    ("cluster_authentication_preference", kind::CLUSTER_AUTH_PREFERENCE),
    ("auth_preference", kind::CLUSTER_AUTH_PREFERENCE),
    ("networking_config", kind::CLUSTER_NETWORKING_CONFIG),
    ("networking", kind::CLUSTER_NETWORKING_CONFIG),
    ("recording_config", kind::SESSION_RECORDING_CONFIG),
    ("sem", kind::SEMAPHORE),
    ("request", kind::ACCESS_REQUEST),
    ("requests", kind::ACCESS_REQUEST),
    ("authentication_connector", kind::CONNECTORS),
    ("connector", kind::CONNECTORS),
];

/// The kind a word stands for: itself, its alias, or its singular.
fn canonical(word: &str) -> Option<&'static str> {
    let known = |w: &str| kind::ALL.into_iter().find(|k| *k == w);
    let alias = |w: &str| ALIASES.into_iter().find(|(a, _)| *a == w).map(|(_, k)| k);
    alias(word).or_else(|| known(word)).or_else(|| singular(word).into_iter().find_map(|w| known(&w)))
}

/// What a word may be the plural of.
fn singular(word: &str) -> Vec<String> {
    let mut forms = Vec::new();
    if let Some(stem) = word.strip_suffix("ies") {
        forms.push(format!("{stem}y"));
    }
    for ending in ["s", "es"] {
        forms.extend(word.strip_suffix(ending).map(str::to_owned));
    }
    forms
}

impl FromStr for Reference {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.trim().splitn(3, '/');
        let word = parts.next().unwrap_or_default().to_ascii_lowercase();
        if word.is_empty() {
            return Err(ResourceError::invalid("missing resource kind: expected kind or kind/name"));
        }
        let kind = canonical(&word).ok_or_else(|| crate::any::unknown_kind(&word))?;
        let rest: Vec<String> = parts.map(str::to_owned).collect();
        let (sub_kind, name) = match rest.as_slice() {
            [] => (None, None),
            [name] => (None, Some(name.clone())),
            [sub_kind, name, ..] => (Some(sub_kind.clone()), Some(name.clone())),
        };
        if name.as_deref() == Some("") {
            return Err(ResourceError::invalid(format!("missing name after {kind:?}: expected {kind}/name")));
        }
        Ok(Self { kind: kind.to_owned(), sub_kind, name })
    }
}

impl Reference {
    /// Whether this build knows the shape of the kind.
    pub fn is_known(&self) -> bool {
        known_kind(&self.kind)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        for part in self.sub_kind.iter().chain(&self.name) {
            write!(f, "/{part}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kinds_have_short_and_plural_forms() {
        for (text, written) in [
            ("roles", "role"),
            ("role/dev", "role/dev"),
            ("proxies", "proxy"),
            ("kube_clusters", "kube_cluster"),
            ("cert_authorities", "cert_authority"),
            ("cap", "cluster_auth_preference"),
            ("rc/leaf", "remote_cluster/leaf"),
            ("cert_authority/host/example.com", "cert_authority/host/example.com"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn unknown_kinds_are_named() {
        let error = "widget/x".parse::<Reference>().unwrap_err().to_string();
        assert_eq!(error, "resource kind \"widget\" is not supported");
        let error = "rol/x".parse::<Reference>().unwrap_err().to_string();
        assert_eq!(error, "resource kind \"rol\" is not supported; did you mean \"role\"?");
    }
}
