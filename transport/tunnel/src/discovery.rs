//! The list of proxies that a proxy gives its agents, so that each agent holds a tunnel to each proxy.

use serde::{Deserialize, Serialize};

/// One proxy of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiscoveredProxy {
    /// The proxy's host UUID.
    pub id: String,
    /// The group it belongs to, if proxies are deployed in groups.
    pub group: String,
    /// Which deployment of its group it belongs to. Agents leave the older ones.
    pub generation: u64,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    #[serde(default)]
    proxies: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(default)]
    version: String,
    metadata: Metadata,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    gid: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    ggen: u64,
}

#[derive(Serialize, Deserialize)]
struct Metadata {
    name: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The JSON form of the list.
pub fn to_payload(proxies: &[DiscoveredProxy]) -> Vec<u8> {
    let payload = Payload {
        proxies: proxies
            .iter()
            .map(|proxy| Entry {
                version: "v2".to_owned(),
                metadata: Metadata { name: proxy.id.clone() },
                gid: proxy.group.clone(),
                ggen: proxy.generation,
            })
            .collect(),
    };
    serde_json::to_vec(&payload).unwrap_or_default()
}

/// Reads the JSON form of the list.
pub fn from_payload(payload: &[u8]) -> Result<Vec<DiscoveredProxy>, serde_json::Error> {
    let payload: Payload = serde_json::from_slice(payload)?;
    Ok(payload
        .proxies
        .into_iter()
        .map(|entry| DiscoveredProxy { id: entry.metadata.name, group: entry.gid, generation: entry.ggen })
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn the_list_has_the_form_that_agents_know() {
        let plain = DiscoveredProxy { id: "a".to_owned(), ..DiscoveredProxy::default() };
        let grouped = DiscoveredProxy { id: "b".to_owned(), group: "g".to_owned(), generation: 7 };
        let payload = to_payload(&[plain.clone(), grouped.clone()]);
        assert_eq!(
            String::from_utf8(payload.clone()).unwrap(),
            r#"{"proxies":[{"version":"v2","metadata":{"name":"a"}},{"version":"v2","metadata":{"name":"b"},"gid":"g","ggen":7}]}"#,
        );
        assert_eq!(from_payload(&payload).unwrap(), [plain, grouped]);
    }

    #[test]
    fn unknown_fields_are_tolerated_and_nonsense_is_not() {
        assert_eq!(from_payload(br#"{"proxies":[{"kind":"proxy","metadata":{"name":"a","x":1}}]}"#).unwrap().len(), 1);
        assert!(from_payload(b"7").is_err());
        assert!(from_payload(br#"{"proxies":[{}]}"#).is_err());
    }
}
