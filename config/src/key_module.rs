//! `auth_service.ca_key_params`: where the private keys of authorities are.

use std::path::PathBuf;

use crate::{Secret, section::Section};

/// A PKCS#11 module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyModule {
    /// The library that the module's vendor gives out.
    pub module_path: PathBuf,
    /// Which of its tokens.
    pub token: TokenChoice,
    /// What the token is logged in with.
    pub pin: Pin,
}

/// Which token of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenChoice {
    /// The one with this label.
    Label(String),
    /// The one in this slot.
    Slot(u64),
}

/// What a token is logged in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The PIN itself.
    Value(Secret),
    /// The file that holds it.
    File(PathBuf),
}

/// What there is instead of services that sign in the cloud.
const KEY_SERVICES: [(&str, &str); 2] = [
    ("gcp_kms", "keys in Google Cloud KMS are used through pkcs11 and Google's library libkmsp11"),
    (
        "aws_kms",
        "keys in AWS KMS are not part of this build: use pkcs11, for example with AWS CloudHSM, or leave this out for keys \
         in the storage of the cluster",
    ),
];

pub(crate) fn read(section: &Section<'_>) -> Option<KeyModule> {
    let mut found: Vec<&str> = section.has("pkcs11").then_some("pkcs11").into_iter().collect();
    let module = section.section("pkcs11", read_pkcs11);
    for (key, instead) in KEY_SERVICES {
        section.ignore(key);
        if section.has(key) {
            found.push(key);
            section.reject(key, instead);
        }
    }
    if let [one, other, ..] = found.as_slice() {
        section.reject_all(format!("cannot set both {one} and {other} in file config"));
    }
    module
}

fn read_pkcs11(section: &Section<'_>) -> Option<KeyModule> {
    let module_path = section.path("module_path");
    let label = section.text("token_label").map(TokenChoice::Label);
    let slot = section.number("slot_number").map(TokenChoice::Slot);
    let value = section.text("pin").map(|pin| Pin::Value(Secret::new(pin)));
    let file = section.path("pin_path").map(Pin::File);
    if !section.is_present() {
        return None;
    }
    if module_path.as_ref().is_none_or(|path| !path.is_absolute()) {
        section.reject(
            "module_path",
            "expected the absolute path of the module's library, such as /usr/lib/softhsm/libsofthsm2.so",
        );
    }
    let one_of = |names: [&str; 2], found: [bool; 2]| {
        let [first, second] = names;
        match found {
            [true, true] => section.reject(second, format!("cannot set both {first} and {second}")),
            [false, false] => section.reject_all(format!("expected {first} or {second}")),
            _ => {}
        }
    };
    one_of(["token_label", "slot_number"], [label.is_some(), slot.is_some()]);
    one_of(["pin", "pin_path"], [value.is_some(), file.is_some()]);
    Some(KeyModule { module_path: module_path?, token: label.or(slot)?, pin: value.or(file)? })
}
