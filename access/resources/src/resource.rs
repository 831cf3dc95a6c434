use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};
use wire::{time, types::Metadata};

use crate::{Place, ResourceError, Result};

/// The only namespace there is.
pub const NAMESPACE: &str = "default";

/// The label that says where a resource came from.
pub const ORIGIN_LABEL: &str = "teleport.dev/origin";

/// What has a kind, a name, labels, a revision, perhaps an expiry, and a place in storage.
///
/// Values read from storage or from a peer need [`Resource::set_defaults`] before use; values that somebody wrote
/// need [`Resource::check_and_set_defaults`].
pub trait Resource: Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind this type is for; a server record may carry another one, see [`Resource::kind`].
    const KIND: &'static str;
    /// The version given to a value without one.
    const VERSION: &'static str;
    /// The name of a kind that exists once in a cluster.
    const SINGLETON: Option<&'static str> = None;

    /// The kind of this value.
    fn kind(&self) -> &str;
    /// The variant of the kind, often empty.
    fn sub_kind(&self) -> &str;
    /// The version of the shape.
    fn version(&self) -> &str;
    /// Sets kind and version where they are empty or fixed.
    #[doc(hidden)]
    fn set_header(&mut self);
    /// Name, labels, expiry and revision.
    fn metadata(&self) -> &Metadata;
    /// The same, to change.
    fn metadata_mut(&mut self) -> &mut Metadata;
    /// Where this value is stored.
    fn place(&self) -> Place;

    /// Fills blanks of the parts that only this kind has.
    fn set_spec_defaults(&mut self) {}

    /// Checks the parts that only this kind has; blanks are filled already.
    ///
    /// # Errors
    /// The first value that is refused, with what was expected.
    fn check_spec(&self) -> Result<()> {
        Ok(())
    }

    /// The name.
    fn name(&self) -> &str {
        &self.metadata().name
    }

    /// When the value ends to exist; `None` means never.
    fn expires(&self) -> Option<DateTime<Utc>> {
        time::moment(self.metadata().expires.as_ref())
    }

    /// Sets or clears the expiry.
    fn set_expires(&mut self, moment: Option<DateTime<Utc>>) {
        self.metadata_mut().expires = moment.map(time::timestamp);
    }

    /// The opaque mark of the stored state this value was read from; empty when it was not.
    fn revision(&self) -> &str {
        &self.metadata().revision
    }

    /// Sets the revision mark.
    fn set_revision(&mut self, revision: impl Into<String>) {
        self.metadata_mut().revision = revision.into();
    }

    /// Where the value came from, when its labels say so.
    fn origin(&self) -> Option<Origin> {
        self.metadata().labels.get(ORIGIN_LABEL).and_then(|text| Origin::from_text(text))
    }

    /// Says where the value came from.
    fn set_origin(&mut self, origin: Origin) {
        self.metadata_mut().labels.insert(ORIGIN_LABEL.into(), origin.text().into());
    }

    /// Fills all blanks; doing it again changes nothing.
    fn set_defaults(&mut self) {
        self.set_header();
        let metadata = self.metadata_mut();
        if metadata.namespace.is_empty() {
            metadata.namespace = NAMESPACE.into();
        }
        if let Some(name) = Self::SINGLETON {
            metadata.name = name.into();
        }
        self.set_spec_defaults();
    }

    /// Checks every value; blanks are expected to be filled.
    ///
    /// # Errors
    /// The first value that is refused.
    fn check(&self) -> Result<()> {
        check_metadata(self.metadata())?;
        self.check_spec()
    }

    /// Fills the blanks, then checks.
    ///
    /// # Errors
    /// The first value that is refused, with the kind and the name of the resource.
    fn check_and_set_defaults(&mut self) -> Result<()> {
        self.set_defaults();
        self.check().map_err(|e| e.within(self.title()))
    }

    /// Kind and name for messages: `role "dev"`.
    fn title(&self) -> String {
        match self.name() {
            "" => self.kind().to_owned(),
            name => format!("{} {name:?}", self.kind()),
        }
    }
}

/// Where a resource came from: the value of [`ORIGIN_LABEL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Nobody chose it.
    Defaults,
    /// The configuration file of the Auth Service or of an agent.
    ConfigFile,
    /// An administrator, at run time.
    Dynamic,
    /// A discovered cloud resource.
    Cloud,
    /// A discovered Kubernetes cluster.
    Kubernetes,
    /// The Okta integration.
    Okta,
    /// SCIM provisioning.
    Scim,
    /// A service discovered in a Kubernetes cluster.
    DiscoveryKubernetes,
    /// The Entra ID integration.
    EntraId,
}

impl Origin {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Defaults, "defaults"),
        (Self::ConfigFile, "config-file"),
        (Self::Dynamic, "dynamic"),
        (Self::Cloud, "cloud"),
        (Self::Kubernetes, "kubernetes"),
        (Self::Okta, "okta"),
        (Self::Scim, "scim"),
        (Self::DiscoveryKubernetes, "discovery-kubernetes"),
        (Self::EntraId, "entra-id"),
    ];

    /// The value of the label.
    pub fn text(self) -> &'static str {
        Self::ALL.iter().find(|(origin, _)| *origin == self).map_or("", |(_, text)| text)
    }

    /// The origin a label stands for.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, t)| *t == text).map(|(origin, _)| *origin)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Metadata of values that have none.
pub(crate) static NO_METADATA: Metadata = Metadata {
    name: String::new(),
    namespace: String::new(),
    description: String::new(),
    labels: std::collections::BTreeMap::new(),
    expires: None,
    revision: String::new(),
};

/// The accessors of types that have `kind`, `sub_kind`, `version` and `metadata` as fields.
macro_rules! plain_header {
    () => {
        fn kind(&self) -> &str {
            if self.kind.is_empty() { Self::KIND } else { &self.kind }
        }
        fn sub_kind(&self) -> &str {
            &self.sub_kind
        }
        fn version(&self) -> &str {
            &self.version
        }
        fn set_header(&mut self) {
            if self.kind.is_empty() {
                self.kind = Self::KIND.into();
            }
            if self.version.is_empty() {
                self.version = Self::VERSION.into();
            }
        }
        fn metadata(&self) -> &wire::types::Metadata {
            self.metadata.as_ref().unwrap_or(&$crate::resource::NO_METADATA)
        }
        fn metadata_mut(&mut self) -> &mut wire::types::Metadata {
            self.metadata.get_or_insert_default()
        }
    };
}
pub(crate) use plain_header;

/// The accessors of types that keep them in a header.
macro_rules! embedded_header {
    () => {
        fn kind(&self) -> &str {
            self.header.as_ref().map(|h| h.kind.as_str()).filter(|k| !k.is_empty()).unwrap_or(Self::KIND)
        }
        fn sub_kind(&self) -> &str {
            self.header.as_ref().map_or("", |h| &h.sub_kind)
        }
        fn version(&self) -> &str {
            self.header.as_ref().map_or("", |h| &h.version)
        }
        fn set_header(&mut self) {
            let header = self.header.get_or_insert_default();
            if header.kind.is_empty() {
                header.kind = Self::KIND.into();
            }
            if header.version.is_empty() {
                header.version = Self::VERSION.into();
            }
        }
        fn metadata(&self) -> &wire::types::Metadata {
            self.header.as_ref().and_then(|h| h.metadata.as_ref()).unwrap_or(&$crate::resource::NO_METADATA)
        }
        fn metadata_mut(&mut self) -> &mut wire::types::Metadata {
            self.header.get_or_insert_default().metadata.get_or_insert_default()
        }
    };
}
pub(crate) use embedded_header;

/// Refuses versions other than the only one a kind has.
pub(crate) fn check_version<T: Resource>(value: &T) -> Result<()> {
    if value.version() == T::VERSION {
        return Ok(());
    }
    Err(ResourceError::invalid(format!(
        "{} resource version {:?} is not supported: expected {:?}",
        value.kind(),
        value.version(),
        T::VERSION
    )))
}

fn check_metadata(metadata: &Metadata) -> Result<()> {
    check_name(&metadata.name)?;
    if metadata.namespace != NAMESPACE {
        return Err(ResourceError::invalid(format!("namespace {:?} is not supported", metadata.namespace)));
    }
    for key in metadata.labels.keys() {
        if !is_label_key(key) {
            return Err(ResourceError::invalid(format!(
                "invalid label key: {key:?}: expected letters, digits and the characters / . _ : * -"
            )));
        }
    }
    match metadata.labels.get(ORIGIN_LABEL).map(|text| (text, Origin::from_text(text))) {
        Some((text, None)) => {
            Err(ResourceError::invalid(format!("invalid value of label {ORIGIN_LABEL}: {text:?} is no known origin")))
        }
        _ => Ok(()),
    }
}

/// Names become parts of storage keys and are printed on terminals.
fn check_name(name: &str) -> Result<()> {
    let reason = match name {
        "" => {
            return Err(ResourceError::invalid("missing parameter Name: set metadata.name"));
        }
        "." | ".." => "is a relative path",
        _ if name.contains('/') => "contains a slash",
        _ if name.chars().any(char::is_control) => "contains control characters",
        _ => return Ok(()),
    };
    Err(ResourceError::invalid(format!("metadata.name {name:?} {reason}")))
}

/// Whether a text can be the key of a label.
pub(crate) fn is_label_key(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "/._:*-".contains(c))
}
