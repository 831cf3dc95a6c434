use std::collections::BTreeMap;

use wire::{types::UserV2, wrappers::LabelValues};

/// What is known about a user besides the name: lists of texts by name, such as `logins` or `team`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits(BTreeMap<String, Vec<String>>);

impl Traits {
    /// The values of a trait; empty when there are none.
    pub fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Sets the values of a trait.
    pub fn set(&mut self, name: impl Into<String>, values: Vec<String>) {
        self.0.insert(name.into(), values);
    }

    /// The traits by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// The traits of a user.
    pub fn of(user: &UserV2) -> Self {
        user.spec.as_ref().and_then(|s| s.traits.as_ref()).map(Self::from).unwrap_or_default()
    }

    /// The message form, as it stands in users and requests.
    pub fn to_message(&self) -> LabelValues {
        let entries = self.0.iter();
        let values = entries.map(|(k, v)| (k.clone(), wire::wrappers::StringValues { values: v.clone() })).collect();
        LabelValues { values }
    }
}

impl From<&LabelValues> for Traits {
    fn from(message: &LabelValues) -> Self {
        Self(message.values.iter().map(|(k, v)| (k.clone(), v.values.clone())).collect())
    }
}

impl From<BTreeMap<String, Vec<String>>> for Traits {
    fn from(map: BTreeMap<String, Vec<String>>) -> Self {
        Self(map)
    }
}

impl FromIterator<(String, Vec<String>)> for Traits {
    fn from_iter<I: IntoIterator<Item = (String, Vec<String>)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}
