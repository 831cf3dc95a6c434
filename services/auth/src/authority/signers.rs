//! The keys of an authority that can sign here.

use keystore::{KeyStore, Usability};
use pki::{
    authority::{CaKeyKind, CaType},
    keys::PublicKey,
    ssh_cert::SshIssuer,
    x509::{CaCertificate, Issuer},
};
use wire::{
    error::Result,
    types::{CaKeySet, CertAuthorityV2, SshKeyPair, TlsKeyPair},
};

use super::{crypto, kept};

/// The keys with which one authority signs.
pub(crate) struct Signers {
    pub(crate) tls: Option<Issuer>,
    pub(crate) ssh: Option<SshIssuer>,
}

impl Signers {
    pub(super) fn of(store: &KeyStore, ca: &CertAuthorityV2) -> Result<Self> {
        match ca.spec.as_ref().and_then(|spec| spec.active_keys.as_ref()) {
            Some(active) => Self::of_keys(store, active),
            None => Ok(Self { tls: None, ssh: None }),
        }
    }

    /// Of each kind the key that is best to sign with here, if any can.
    pub(super) fn of_keys(store: &KeyStore, keys: &CaKeySet) -> Result<Self> {
        let tls = best(store, &keys.tls, |pair| &pair.key).map(|pair| tls_issuer(store, pair));
        let ssh = best(store, &keys.ssh, |pair| &pair.private_key).map(|pair| ssh_issuer(store, pair));
        Ok(Self { tls: tls.transpose()?, ssh: ssh.transpose()? })
    }

    /// These, and others for the kinds that are missing.
    pub(super) fn or(&self, others: &Self) -> Self {
        Self {
            tls: self.tls.clone().or_else(|| others.tls.clone()),
            ssh: self.ssh.clone().or_else(|| others.ssh.clone()),
        }
    }
}

fn best<'a, P>(store: &KeyStore, pairs: &'a [P], stored: impl Fn(&P) -> &[u8]) -> Option<&'a P> {
    let ranked = pairs.iter().map(|pair| (store.usability(stored(pair)), pair));
    let usable = ranked.filter(|(usability, _)| *usability != Usability::Foreign);
    usable.min_by_key(|(usability, _)| *usability).map(|(_, pair)| pair)
}

fn tls_issuer(store: &KeyStore, pair: &TlsKeyPair) -> Result<Issuer> {
    let ca = CaCertificate::from_pem(&String::from_utf8_lossy(&pair.cert)).map_err(crypto)?;
    let public = PublicKey::from_spki_der(ca.certificate().spki_der()).map_err(crypto)?;
    Issuer::new(ca, store.signer(&pair.key, &public).map_err(kept)?).map_err(crypto)
}

fn ssh_issuer(store: &KeyStore, pair: &SshKeyPair) -> Result<SshIssuer> {
    let public = PublicKey::from_ssh_line(&String::from_utf8_lossy(&pair.public_key)).map_err(crypto)?;
    Ok(SshIssuer::new(store.signer(&pair.private_key, &public).map_err(kept)?))
}

/// How well keys of an authority can be used here: as well as the kind of key that can be used least.
pub(crate) fn usability(store: &KeyStore, ca_type: CaType, keys: &CaKeySet) -> Usability {
    let best_of = |stored: Vec<&[u8]>| stored.into_iter().map(|key| store.usability(key)).min();
    let kinds = ca_type.keys().iter().map(|(kind, _)| best_of(stored(keys, *kind)).unwrap_or(Usability::Foreign));
    kinds.max().unwrap_or(Usability::Foreign)
}

/// What is stored for the private keys of one kind.
pub(super) fn stored(keys: &CaKeySet, kind: CaKeyKind) -> Vec<&[u8]> {
    match kind {
        CaKeyKind::Ssh => keys.ssh.iter().map(|pair| pair.private_key.as_slice()).collect(),
        CaKeyKind::Tls => keys.tls.iter().map(|pair| pair.key.as_slice()).collect(),
        CaKeyKind::Jwt => keys.jwt.iter().map(|pair| pair.private_key.as_slice()).collect(),
    }
}
