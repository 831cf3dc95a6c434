#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;
use crate::pem;

const ALL: [KeyAlgorithm; 3] = [KeyAlgorithm::Rsa2048, KeyAlgorithm::EcdsaP256, KeyAlgorithm::Ed25519];

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn private_keys_survive_every_form() {
    for algorithm in ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        let pem_text = key.to_pem().unwrap();
        let label = if algorithm == KeyAlgorithm::Rsa2048 { "RSA PRIVATE KEY" } else { "PRIVATE KEY" };
        assert!(pem_text.starts_with(&format!("-----BEGIN {label}-----\n")));
        assert_eq!(PrivateKey::from_pem(&pem_text).unwrap().public(), key.public());
        let pkcs8 = pem::encode("PRIVATE KEY", key.to_pkcs8_der());
        assert_eq!(PrivateKey::from_pem(&pkcs8).unwrap().public(), key.public());
        let openssh = key.to_ssh().unwrap().to_openssh(ssh_key::LineEnding::LF).unwrap();
        let back = PrivateKey::from_pem(&openssh).unwrap();
        assert_eq!(back.public(), key.public());
        assert_eq!(back.to_pkcs8_der(), key.to_pkcs8_der());
    }
}

#[test]
fn public_keys_survive_every_form() {
    for algorithm in ALL {
        let key = PrivateKey::generate(algorithm).unwrap().public().clone();
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(PublicKey::from_pem(&key.to_pem()).unwrap(), key);
        assert_eq!(PublicKey::from_pem(&key.to_spki_pem()).unwrap(), key);
        assert_eq!(PublicKey::from_spki_der(key.to_spki_der()).unwrap(), key);
        assert_eq!(PublicKey::from_ssh_line(&key.to_ssh_line()).unwrap(), key);
        assert_eq!(PublicKey::from_ssh(key.to_ssh().key_data()).unwrap(), key);
        assert!(key.to_ssh_line().ends_with('\n') && key.to_ssh_line().matches(' ').count() == 1);
        // The quirk of some writers: the general form in a block that announces PKCS#1.
        let quirk = pem::encode("RSA PUBLIC KEY", key.to_spki_der());
        assert_eq!(PublicKey::from_pem(&quirk).unwrap(), key);
    }
}

#[test]
fn signatures_verify_only_for_their_message_and_scheme() {
    for algorithm in ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        for scheme in [algorithm.x509_scheme(), algorithm.ssh_scheme()] {
            let signature = Signer::sign(&key, scheme, b"message").unwrap();
            assert!(key.public().verifies(scheme, b"message", &signature));
            assert!(!key.public().verifies(scheme, b"other", &signature));
        }
        let jws = key.sign_jws(b"message").unwrap();
        assert!(algorithm == KeyAlgorithm::Rsa2048 || jws.len() == 64);
    }
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    assert!(Signer::sign(&key, SignatureScheme::RsaPkcs1Sha256, b"message").is_err());
}

#[test]
fn keys_of_ssh_keygen_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, bits) in [("rsa", "2048"), ("ecdsa", "256"), ("ed25519", "256")] {
        for form in ["RFC4716", "PEM", "PKCS8"] {
            let path = folder.path().join(format!("{kind}-{form}"));
            run("ssh-keygen", &["-q", "-t", kind, "-b", bits, "-m", form, "-N", "", "-C", "x y", "-f", text(&path)]);
            let key = PrivateKey::from_pem(&fs::read_to_string(&path).unwrap()).unwrap();
            let line = fs::read_to_string(path.with_extension("pub")).unwrap();
            assert_eq!(&PublicKey::from_ssh_line(&line).unwrap(), key.public(), "{kind} {form}");
            let fingerprint = run("ssh-keygen", &["-l", "-f", text(&path)]);
            assert!(fingerprint.contains(&key.public().ssh_fingerprint()));
        }
    }
}

#[test]
fn openssh_and_openssl_read_our_keys() {
    let folder = tempfile::tempdir().unwrap();
    for algorithm in ALL {
        let key = PrivateKey::generate(algorithm).unwrap();
        let path = folder.path().join(algorithm.jws_name());
        fs::write(&path, key.to_pem().unwrap().as_bytes()).unwrap();
        let public = run("openssl", &["pkey", "-in", text(&path), "-pubout"]);
        assert_eq!(&PublicKey::from_pem(&public).unwrap(), key.public());
        // ssh-keygen 9.2 derives public keys of Ed25519 only from its own form.
        let openssh = key.to_ssh().unwrap().to_openssh(ssh_key::LineEnding::LF).unwrap();
        fs::write(&path, openssh.as_bytes()).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let public = run("ssh-keygen", &["-y", "-f", text(&path)]);
        assert_eq!(&PublicKey::from_ssh_line(&public).unwrap(), key.public());
    }
}

#[test]
fn sec1_keys_of_openssl_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    run("openssl", &["ecparam", "-name", "prime256v1", "-genkey", "-out", text(&path)]);
    let written = fs::read_to_string(&path).unwrap();
    assert!(written.contains("EC PRIVATE KEY"));
    assert_eq!(PrivateKey::from_pem(&written).unwrap().algorithm(), KeyAlgorithm::EcdsaP256);
}

#[test]
fn an_openssh_key_with_a_short_private_number_is_read() {
    let key = loop {
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
        let ssh = key.to_ssh().unwrap();
        if ssh.key_data().ecdsa().unwrap().private_key_bytes()[0] == 0 {
            break key;
        }
    };
    // OpenSSH drops leading zero bytes of numbers, the library we write with keeps them: rewrite as OpenSSH does.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, key.to_pem().unwrap().as_bytes()).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    run("ssh-keygen", &["-q", "-p", "-N", "", "-f", text(&path)]);
    let written = fs::read_to_string(&path).unwrap();
    assert!(written.contains("OPENSSH PRIVATE KEY"));
    assert_eq!(PrivateKey::from_pem(&written).unwrap().public(), key.public());
}

#[test]
fn keys_that_nothing_uses_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    run("openssl", &["genrsa", "-out", text(&path), "1024"]);
    assert!(PrivateKey::from_pem(&fs::read_to_string(&path).unwrap()).is_err());
    run("openssl", &["ecparam", "-name", "secp384r1", "-genkey", "-noout", "-out", text(&path)]);
    let error = PrivateKey::from_pem(&fs::read_to_string(&path).unwrap()).unwrap_err();
    assert!(matches!(error, crate::Error::UnsupportedKey(_)), "{error}");
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "secret", "-f", text(&folder.path().join("locked"))]);
    let error = PrivateKey::from_pem(&fs::read_to_string(folder.path().join("locked")).unwrap()).unwrap_err();
    assert!(error.to_string().contains("passphrase"), "{error}");
    assert!(PrivateKey::from_pem("").is_err());
}

#[test]
fn private_keys_do_not_show_up_in_debug_output() {
    let key = PrivateKey::generate(KeyAlgorithm::Ed25519).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(Ed25519, redacted)");
}

proptest! {
    #[test]
    fn hostile_keys_never_panic(bytes: Vec<u8>, label in "(RSA |EC |OPENSSH |)(PRIVATE|PUBLIC) KEY") {
        let text = pem::encode(&label, &bytes);
        let _ = PrivateKey::from_pem(&text);
        let _ = PublicKey::from_pem(&text);
        let _ = PublicKey::from_spki_der(&bytes);
        let _ = PublicKey::from_ssh_line(&format!("ssh-ed25519 {}", String::from_utf8_lossy(&bytes)));
        let _ = ecdsa_der_from_ssh(&bytes);
        let _ = ecdsa_ssh_from_der(&bytes);
    }

    #[test]
    fn damaged_keys_never_panic(position in 0_usize..1200, value: u8, algorithm in 0_usize..3) {
        thread_local! {
            static KEYS: Vec<Vec<Vec<u8>>> = ALL.iter().map(|algorithm| {
                let key = PrivateKey::generate(*algorithm).unwrap();
                let openssh = key.to_ssh().unwrap().to_bytes().unwrap().to_vec();
                vec![key.to_pkcs8_der().to_vec(), openssh]
            }).collect();
        }
        for (label, form) in ["PRIVATE KEY", "OPENSSH PRIVATE KEY"].into_iter().zip(0..) {
            let mut bytes = KEYS.with(|keys| keys[algorithm][form].clone());
            let position = position % bytes.len();
            bytes[position] = value;
            let _ = PrivateKey::from_pem(&pem::encode(label, &bytes));
        }
    }
}

#[test]
fn signatures_of_hardware_modules_get_the_form_of_certificates() {
    let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256).unwrap();
    // Among so many, some begin with a zero byte.
    for message in 0..600_u32 {
        let message = message.to_be_bytes();
        let fixed = key.sign_jws(&message).unwrap();
        let der = ecdsa_der_from_fixed(&fixed).unwrap();
        assert!(key.public().verifies(SignatureScheme::EcdsaP256Sha256, &message, &der));
    }
    assert!(ecdsa_der_from_fixed(&[]).is_err() && ecdsa_der_from_fixed(&[1; 63]).is_err());
}

#[test]
fn public_keys_are_made_of_the_numbers_that_modules_tell() {
    let rsa = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
    let key = <pkcs1::RsaPublicKey as der::Decode>::from_der(rsa.public().raw()).unwrap();
    let (modulus, exponent) = (key.modulus.as_bytes(), key.public_exponent.as_bytes());
    assert_eq!(&PublicKey::from_rsa_numbers(modulus, exponent).unwrap(), rsa.public());
    let padded = [&[0], modulus].concat();
    assert_eq!(&PublicKey::from_rsa_numbers(&padded, exponent).unwrap(), rsa.public());
    assert!(PublicKey::from_p256_point(&[4; 65]).is_err());
}

#[test]
fn rsa_keys_of_unsafe_sizes_are_refused() {
    for bits in [512, 1024, 2047, 8193] {
        let mut modulus = vec![0xff; bits / 8];
        if bits % 8 != 0 {
            modulus.insert(0, 0xff >> (8 - bits % 8));
        }
        let error = PublicKey::from_rsa_numbers(&modulus, &[1, 0, 1]).unwrap_err().to_string();
        assert_eq!(error, format!("unsupported key: RSA key of {bits} bits, expected 2048 to 8192"));
    }
    let line = run_keygen_1024();
    assert!(PublicKey::from_ssh_line(&line).is_err(), "{line}");
}

/// An SSH key as old programs made them.
fn run_keygen_1024() -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    run("ssh-keygen", &["-q", "-t", "rsa", "-b", "1024", "-N", "", "-f", text(&file)]);
    fs::read_to_string(file.with_extension("pub")).unwrap()
}
