//! The fields that messages have in JSON, where serde does not tell: in messages whose fields stand among those of
//! another one, and in choices. Such messages give their full protobuf name as what they expect
//! ([`serde::de::Expected`]).

/// A field of a message in JSON.
pub type Field = (
    // Its name.
    &'static str,
    // The full name of the message that is its value, or the value of its items; empty for anything else.
    &'static str,
    // Whether it is taken from an embedded message or a choice, so that serde reads its value without looking twice.
    bool,
);

/// Messages by full name, with their fields.
static MESSAGES: &[(&str, &[Field])] = include!(concat!(env!("OUT_DIR"), "/fields.rs"));

/// The fields of a message, by its full protobuf name; `None` for messages whose fields serde tells.
pub fn of(message: &str) -> Option<&'static [Field]> {
    let place = MESSAGES.binary_search_by_key(&message, |(name, _)| *name).ok()?;
    MESSAGES.get(place).map(|(_, fields)| *fields)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn fields_of_embedded_messages_and_of_choices_are_known() {
        let names = |message: &str| of(message).unwrap().iter().map(|field| field.0).collect::<Vec<_>>();
        assert!(names("types.OIDCConnectorSpecV3").contains(&"max_age"));
        let access_list = names("teleport.accesslist.v1.AccessList");
        assert!(access_list.contains(&"metadata") && access_list.contains(&"spec"), "{access_list:?}");
        assert!(of("types.IntegrationSpecV1").unwrap().iter().all(|field| field.2 && !field.1.is_empty()));
        assert!(of("types.Metadata").is_some());
        assert_eq!(of("types.Nothing"), None);
    }
}
