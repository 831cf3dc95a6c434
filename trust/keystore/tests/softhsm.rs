//! A real module: SoftHSM.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod token;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use config::{KeyModule, TokenChoice};
use cryptoki::context::Pkcs11;
use cryptoki::object::{Attribute, AttributeType, ObjectClass};
use keystore::pkcs11::Pkcs11Module;
use keystore::{Error, KeyStore, Module};
use pki::keys::{KeyAlgorithm, SignatureScheme};
use token::{PIN, settings, with_token};

const HOST: &str = "6d1f5a3e-0000-4000-8000-000000000001";

#[test]
fn a_token_makes_keys_that_sign_and_cannot_be_read_out() {
    let Some(library) = with_token("a_token_makes_keys_that_sign_and_cannot_be_read_out") else { return };
    let module = Arc::new(Pkcs11Module::open(&settings(&library, "keys", PIN), HOST).unwrap());
    let store = KeyStore::in_module(HOST, module.clone());
    let mut made = Vec::new();
    for algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa2048] {
        let key = store.generate(algorithm).unwrap();
        // As after a restart: from what is stored.
        let signer = store.signer(&key.stored, key.signer.public_key()).unwrap();
        for scheme in [algorithm.x509_scheme(), algorithm.ssh_scheme()] {
            let signature = signer.sign(scheme, b"text").unwrap();
            assert!(key.signer.public_key().verifies(scheme, b"text", &signature), "{scheme:?}");
        }
        made.push(key);
    }
    assert!(store.generate(KeyAlgorithm::Ed25519).is_err());
    assert_eq!(module.key_ids().unwrap().len(), 2);

    // The login of the module counts for the whole process.
    let direct = Pkcs11::new(&library).unwrap();
    let slot = direct.get_slots_with_initialized_token().unwrap()[0];
    let session = direct.open_ro_session(slot).unwrap();
    for key in session.find_objects(&[Attribute::Class(ObjectClass::PRIVATE_KEY)]).unwrap() {
        let secret = [AttributeType::Value, AttributeType::PrivateExponent, AttributeType::Prime1];
        assert!(session.get_attributes(key, &secret).unwrap().is_empty());
        let said = session.get_attributes(key, &[AttributeType::Label, AttributeType::Extractable]).unwrap();
        assert_eq!(said, [Attribute::Label(HOST.into()), Attribute::Extractable(false)]);
    }
    drop(session);

    assert_eq!(store.delete_unused([made[0].stored.as_slice()]).unwrap(), 1);
    assert_eq!(module.key_ids().unwrap().len(), 1);
    let error = made[1].signer.sign(SignatureScheme::RsaPkcs1Sha256, b"text").unwrap_err().to_string();
    assert!(error.contains(&format!("{}, token \"keys\": signing", library.display())), "{error}");
    let other = Pkcs11Module::open(&settings(&library, "keys", PIN), "another-host").unwrap();
    assert!(other.key_ids().unwrap().is_empty());
}

#[test]
fn a_token_that_forgot_its_sessions_is_logged_in_again() {
    let Some(library) = with_token("a_token_that_forgot_its_sessions_is_logged_in_again") else { return };
    let module = Arc::new(Pkcs11Module::open(&settings(&library, "keys", PIN), HOST).unwrap());
    let key = KeyStore::in_module(HOST, module).generate(KeyAlgorithm::EcdsaP256).unwrap();
    let direct = Pkcs11::new(&library).unwrap();
    let scheme = SignatureScheme::EcdsaP256Sha256;
    for _ in 0..4 {
        // All threads at work, each with a session of its own.
        thread::scope(|scope| {
            let signing: Vec<_> =
                (0..16).map(|_| scope.spawn(|| (0..50).all(|_| key.signer.sign(scheme, b"text").is_ok()))).collect();
            assert!(signing.into_iter().all(|thread| thread.join().unwrap()));
        });
        direct.clone().finalize().unwrap();
    }
    assert!(key.signer.sign(scheme, b"text").is_ok());
}

#[test]
fn a_wrong_pin_is_refused_and_shown_to_the_token_once() {
    let Some(library) = with_token("a_wrong_pin_is_refused_and_shown_to_the_token_once") else { return };
    let error = Pkcs11Module::open(&settings(&library, "keys", "13572468"), HOST).err().unwrap();
    assert!(matches!(error, Error::Pin { .. }), "{error:?}");
    let text = error.to_string();
    let place = format!("PKCS#11 module {}, token \"keys\": the PIN was refused", library.display());
    assert!(text.starts_with(&place) && !text.contains("13572468"), "{text}");

    let started = Instant::now();
    let error = Pkcs11Module::open(&settings(&library, "none", PIN), HOST).err().unwrap().to_string();
    assert!(
        error.contains("token \"none\": logging in: not there; found tokens") && error.contains("\"keys\""),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(20));
    let slot = KeyModule { token: TokenChoice::Slot(4_000_000_000), ..settings(&library, "keys", PIN) };
    let error = Pkcs11Module::open(&slot, HOST).err().unwrap().to_string();
    assert!(error.contains("slot 4000000000: logging in: not there; found slots"), "{error}");
}
