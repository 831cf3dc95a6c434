//! The certificate authorities: their making, their keys ready to sign, and who is trusted.

mod first_keys;
mod owed;
mod signers;
mod tend;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use chrono::{DateTime, Utc};
use keystore::KeyStore;
use parking_lot::Mutex;
use pki::{
    authority::{CaKeyKind, CaType},
    identity::Identity,
    keys::PublicKey,
    suite::{SignatureSuite, algorithm_for},
    x509::{CaCertificate, Certificate},
};
use resources::{Resource, SystemRole};
use wire::{
    error::{Error, ErrorKind, Result},
    types::{
        AuthPreferenceV2, CaKeySet, CertAuthoritySpecV2, CertAuthorityV2, JwtKeyPair, Metadata, SshKeyPair, TlsKeyPair,
    },
};

pub(crate) use first_keys::FirstKeys;
pub(crate) use signers::{Signers, usability};
pub(crate) use tend::{append, check_module};

use crate::{Auth, rotation::Phase, store::kind};

/// The keys that sign at the moment, by type of authority. Rebuilt when an authority changes.
#[derive(Default)]
pub(crate) struct Authorities {
    current: ArcSwapOption<Snapshot>,
    trusted: ArcSwapOption<Trusted>,
    /// Held from the making of keys until an authority names them, and while those are removed that none names.
    pub(crate) making: tokio::sync::Mutex<()>,
    /// The generation of authorities whose keys were looked after.
    tended: AtomicU64,
    /// When unused keys are looked for again that could not be removed.
    owed: Mutex<owed::Owed>,
    told: Mutex<Told>,
}

/// What administrators were told about the keys of this service.
#[derive(Debug, Default)]
enum Told {
    /// Not known after a start: an alert of before may be left.
    #[default]
    Unknown,
    /// What they have to do; nothing if there is nothing to be done.
    Advice(Option<String>),
}

struct Snapshot {
    generation: u64,
    signers: HashMap<CaType, Arc<Signers>>,
}

/// The certificates that are trusted, parsed: every connection is checked against some of them.
struct Trusted {
    generation: u64,
    /// By the name of the authority; only of those that are stored.
    by_name: Mutex<HashMap<String, Arc<[Certificate]>>>,
}

/// Makes the keys of an authority. Waits for the module that makes them, if there is one: not for asynchronous code.
///
/// # Errors
/// When the module or the cryptographic library does not make them.
fn new_keys(
    store: &KeyStore,
    ca_type: CaType,
    cluster: &str,
    suite: SignatureSuite,
    now: DateTime<Utc>,
) -> Result<CaKeySet> {
    let mut keys = CaKeySet::default();
    for (key_kind, purpose) in ca_type.keys() {
        let key = store.generate(algorithm_for(suite, *purpose)).map_err(kept)?;
        let (public, private_key, private_key_type) = (key.signer.public_key(), key.stored, key.place);
        match key_kind {
            CaKeyKind::Ssh => {
                let public_key = public.to_ssh_line().into_bytes();
                keys.ssh.push(SshKeyPair { public_key, private_key, private_key_type });
            }
            CaKeyKind::Tls => {
                let certificate = CaCertificate::self_signed(cluster, &*key.signer, now).map_err(crypto)?;
                let cert = certificate.to_pem().into_bytes();
                keys.tls.push(TlsKeyPair { cert, key: private_key, key_type: private_key_type });
            }
            CaKeyKind::Jwt => {
                let public_key = public.to_pem().into_bytes();
                keys.jwt.push(JwtKeyPair { public_key, private_key, private_key_type });
            }
        }
    }
    Ok(keys)
}

/// Makes an authority with new keys; see [`new_keys`].
///
/// # Errors
/// As [`new_keys`].
pub(crate) fn generate(
    store: &KeyStore,
    ca_type: CaType,
    cluster: &str,
    suite: SignatureSuite,
    now: DateTime<Utc>,
) -> Result<CertAuthorityV2> {
    Ok(with_keys(ca_type, cluster, new_keys(store, ca_type, cluster, suite, now)?))
}

/// An authority that signs with these keys.
fn with_keys(ca_type: CaType, cluster: &str, keys: CaKeySet) -> CertAuthorityV2 {
    let mut ca = CertAuthorityV2 {
        sub_kind: ca_type.as_str().to_owned(),
        metadata: Some(Metadata { name: cluster.to_owned(), ..Metadata::default() }),
        spec: Some(CertAuthoritySpecV2 {
            r#type: ca_type.as_str().to_owned(),
            cluster_name: cluster.to_owned(),
            active_keys: Some(keys),
            additional_trusted_keys: Some(CaKeySet::default()),
            ..CertAuthoritySpecV2::default()
        }),
        ..CertAuthorityV2::default()
    };
    ca.set_defaults();
    ca
}

/// Whether the keys of an authority are so quick to make that a first start can wait for them.
pub(crate) fn is_quick(ca_type: CaType, suite: SignatureSuite) -> bool {
    let quick = |purpose| algorithm_for(suite, purpose) != pki::keys::KeyAlgorithm::Rsa2048;
    ca_type.keys().iter().all(|(_, purpose)| quick(*purpose))
}

/// Takes the private keys out of an authority.
pub(crate) fn strip_secrets(ca: &mut CertAuthorityV2) {
    for keys in key_sets_mut(ca) {
        keys.ssh.iter_mut().for_each(|pair| pair.private_key.clear());
        keys.tls.iter_mut().for_each(|pair| pair.key.clear());
        keys.jwt.iter_mut().for_each(|pair| pair.private_key.clear());
    }
}

/// The certificates of an authority that are trusted, PEM: those that sign, then further ones.
pub(crate) fn trusted_tls(ca: &CertAuthorityV2) -> Vec<Vec<u8>> {
    key_sets(ca).flat_map(|keys| &keys.tls).map(|pair| pair.cert.clone()).collect()
}

/// The SSH keys of an authority that are trusted, as authorized_keys lines.
pub(crate) fn trusted_ssh(ca: &CertAuthorityV2) -> Vec<Vec<u8>> {
    key_sets(ca).flat_map(|keys| &keys.ssh).map(|pair| pair.public_key.clone()).collect()
}

fn key_sets(ca: &CertAuthorityV2) -> impl Iterator<Item = &CaKeySet> {
    let spec = ca.spec.as_ref();
    let active = spec.and_then(|spec| spec.active_keys.as_ref());
    active.into_iter().chain(spec.and_then(|spec| spec.additional_trusted_keys.as_ref()))
}

fn key_sets_mut(ca: &mut CertAuthorityV2) -> impl Iterator<Item = &mut CaKeySet> {
    ca.spec.iter_mut().flat_map(|spec| spec.active_keys.iter_mut().chain(&mut spec.additional_trusted_keys))
}

pub(crate) fn crypto(error: pki::Error) -> Error {
    if let pki::Error::Module(reason) = &error {
        // Where keys are is no business of whoever logs in.
        tracing::error!(%reason, "an authority cannot sign");
        return Error::connection_problem(
            "the key of an authority cannot be used at the moment; the log of the Auth Service says why",
        );
    }
    match error.kind() {
        pki::ErrorKind::BadParameter => Error::bad_parameter(error.to_string()),
        pki::ErrorKind::NotFound => Error::not_found(error.to_string()),
        pki::ErrorKind::Internal => Error::other(error.to_string()),
    }
}

/// An error of the store of keys, for administrators.
pub(crate) fn kept(error: keystore::Error) -> Error {
    match error {
        keystore::Error::Key(error) => crypto(error),
        keystore::Error::Suite(_) => Error::bad_parameter(error.to_string()),
        other => Error::other(other.to_string()),
    }
}

/// Refuses settings with a suite for which the module has no keys.
pub(crate) fn check_suite(store: &KeyStore, preference: &AuthPreferenceV2) -> Result<()> {
    match preference.spec.as_ref().map_or(0, |spec| spec.signature_algorithm_suite) {
        // A suite that is not chosen stays as it is.
        0 => Ok(()),
        number => store.check_suite(SignatureSuite::from_number(number).map_err(crypto)?).map_err(kept),
    }
}

impl Auth {
    /// Where keys of authorities are made, and what signs with them.
    pub(crate) fn key_store(&self) -> &KeyStore {
        &self.0.config.key_store
    }

    /// The keys with which an authority of this cluster signs.
    pub(crate) async fn signers(&self, ca_type: CaType) -> Result<Arc<Signers>> {
        self.ensure_authority(ca_type).await?;
        let generation = self.store().authority_generation();
        let authorities = &self.0.authorities;
        if let Some(current) = &*authorities.current.load()
            && current.generation == generation
            && let Some(signers) = current.signers.get(&ca_type)
        {
            return Ok(signers.clone());
        }
        let mut signers = HashMap::new();
        for (ca_type, ca) in self.own_authorities() {
            signers.insert(ca_type, Arc::new(Signers::of(self.key_store(), &ca)?));
        }
        let found = signers.get(&ca_type).cloned();
        authorities.current.store(Some(Arc::new(Snapshot { generation, signers })));
        found.ok_or_else(|| Error::not_found(format!("certificate authority {ca_type} not found")))
    }

    /// The keys that sign what clients verify: while those who verify are only told of new keys, the old ones.
    pub(crate) async fn serving_signers(&self, ca_type: CaType) -> Result<Arc<Signers>> {
        self.signers_in(ca_type, Phase::UpdateClients).await
    }

    /// The keys that sign what outlives a rotation: once there are new keys, the new ones.
    pub(crate) async fn lasting_signers(&self, ca_type: CaType) -> Result<Arc<Signers>> {
        self.signers_in(ca_type, Phase::Init).await
    }

    /// In this phase the keys that are only trusted, otherwise those that sign.
    async fn signers_in(&self, ca_type: CaType, phase: Phase) -> Result<Arc<Signers>> {
        let signers = self.signers(ca_type).await?;
        match self.own_authority(ca_type) {
            Ok(ca) if Phase::of(&ca) == phase => Ok(Arc::new(self.only_trusted(&ca)?.or(&signers))),
            _ => Ok(signers),
        }
    }

    /// The keys that sign for the Auth Service itself and the administrator of its machine. Where none of those that sign
    /// can be used here, as on a host with a new module, those do that are trusted: with them, a rotation can be begun.
    pub(crate) async fn own_signers(&self, ca_type: CaType, signers: Arc<Signers>) -> Result<Arc<Signers>> {
        if signers.tls.is_some() && signers.ssh.is_some() {
            return Ok(signers);
        }
        Ok(Arc::new(signers.or(&self.only_trusted(&*self.own_authority(ca_type)?)?)))
    }

    fn only_trusted(&self, ca: &CertAuthorityV2) -> Result<Signers> {
        let trusted = ca.spec.as_ref().and_then(|spec| spec.additional_trusted_keys.clone());
        Signers::of_keys(self.key_store(), &trusted.unwrap_or_default())
    }

    /// Makes an authority of this cluster when it is missing: slow keys are left out at the first start.
    pub(crate) async fn ensure_authority(&self, ca_type: CaType) -> Result<()> {
        if self.own_authority(ca_type).is_ok() {
            return Ok(());
        }
        let _one_at_a_time = self.0.authorities.making.lock().await;
        if self.own_authority(ca_type).is_ok() {
            return Ok(());
        }
        let ca = with_keys(ca_type, self.cluster_name(), self.make_keys(ca_type).await?);
        match self.store().create::<kind::CertAuthority>(ca).await {
            Err(e) if e.kind != ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        }
    }

    /// Makes new keys for an authority of this cluster, for those who hold [`Authorities::making`].
    pub(crate) async fn make_keys(&self, ca_type: CaType) -> Result<CaKeySet> {
        // What comes of them is not known yet: those that no authority names in the end are to be removed.
        self.0.authorities.tended.store(0, Ordering::Relaxed);
        let (cluster, suite, now) = (self.cluster_name().to_owned(), self.signature_suite(), self.now());
        let store = self.key_store().clone();
        let made = tokio::task::spawn_blocking(move || new_keys(&store, ca_type, &cluster, suite, now));
        made.await.map_err(|_| Error::other("making keys of an authority failed"))?
    }

    /// The key algorithms of new keys.
    pub(crate) fn signature_suite(&self) -> SignatureSuite {
        let preference = self.auth_preference().ok();
        let number = preference.and_then(|p| p.spec.as_ref().map(|spec| spec.signature_algorithm_suite)).unwrap_or(0);
        SignatureSuite::from_number(number).unwrap_or_default()
    }

    /// An authority of a cluster.
    ///
    /// # Errors
    /// `BadParameter` for types that do not exist; `NotFound`.
    pub async fn get_cert_authority(
        &self,
        ca_type: &str,
        cluster: &str,
        with_secrets: bool,
    ) -> Result<CertAuthorityV2> {
        let ca_type = ca_type.parse::<CaType>().map_err(crypto)?;
        if cluster == self.cluster_name() {
            self.ensure_authority(ca_type).await?;
        }
        let ca = self.store().cached::<kind::CertAuthority>(&format!("{ca_type}/{cluster}"))?;
        Ok(secrets_if(with_secrets, &ca))
    }

    /// The authorities of one type, of all clusters.
    ///
    /// # Errors
    /// `BadParameter` for types that do not exist.
    pub async fn get_cert_authorities(&self, ca_type: &str, with_secrets: bool) -> Result<Vec<CertAuthorityV2>> {
        let ca_type = ca_type.parse::<CaType>().map_err(crypto)?;
        self.ensure_authority(ca_type).await?;
        let all = self.store().cached_list::<kind::CertAuthority>();
        let of_type = all.iter().filter(|ca| ca.spec.as_ref().is_some_and(|spec| spec.r#type == ca_type.as_str()));
        Ok(of_type.map(|ca| secrets_if(with_secrets, ca)).collect())
    }

    /// Refuses a client certificate that claims more than its signer may say: an authority speaks for its own cluster
    /// only, that of hosts for services, and that of users for people. TLS has found some known authority; with other
    /// clusters among them that alone would let each of them name anybody here.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub(crate) fn check_signer(&self, certificate: &Certificate, identity: &Identity) -> Result<()> {
        let service = identity.groups.iter().any(|name| SystemRole::from_name(name).is_some());
        let ca_type = if service { CaType::Host } else { CaType::User };
        let trusted = self.trusted_certificates(&format!("{ca_type}/{}", identity.teleport_cluster));
        if certificate.verify_issued_by(&trusted, self.now()).is_some() {
            return Ok(());
        }
        tracing::warn!(
            claimed = %identity.username, cluster = %identity.teleport_cluster,
            "a certificate was refused: it is not signed by the authority that speaks for its holder"
        );
        Err(Error::access_denied("access denied: invalid client certificate"))
    }

    /// The trusted certificates of the authority of a name; none when there is no such authority.
    fn trusted_certificates(&self, name: &str) -> Arc<[Certificate]> {
        let generation = self.store().authority_generation();
        let kept = self.0.authorities.trusted.load_full().filter(|kept| kept.generation == generation);
        let kept = kept.unwrap_or_else(|| {
            let fresh = Arc::new(Trusted { generation, by_name: Mutex::default() });
            self.0.authorities.trusted.store(Some(Arc::clone(&fresh)));
            fresh
        });
        if let Some(known) = kept.by_name.lock().get(name) {
            return Arc::clone(known);
        }
        let Ok(authority) = self.store().cached::<kind::CertAuthority>(name) else { return Arc::new([]) };
        let parse = |pem: Vec<u8>| Certificate::from_pem(&String::from_utf8_lossy(&pem)).ok();
        let parsed: Arc<[Certificate]> = trusted_tls(&authority).into_iter().filter_map(parse).collect();
        kept.by_name.lock().insert(name.to_owned(), Arc::clone(&parsed));
        parsed
    }

    /// Stores an authority of another cluster, or restores one of this.
    ///
    /// # Errors
    /// `BadParameter` for authorities of this cluster without private keys, and for malformed ones.
    pub async fn upsert_cert_authority(&self, mut ca: CertAuthorityV2) -> Result<CertAuthorityV2> {
        ca.check_and_set_defaults().map_err(Error::from)?;
        self.check_cert_authority(&ca)?;
        self.store().upsert::<kind::CertAuthority>(ca).await.map(Arc::unwrap_or_clone)
    }

    /// Stores an authority that is not known yet.
    ///
    /// # Errors
    /// `AlreadyExists`, and as [`upsert_cert_authority`](Self::upsert_cert_authority).
    pub(crate) async fn create_cert_authority(&self, mut ca: CertAuthorityV2) -> Result<()> {
        ca.check_and_set_defaults().map_err(Error::from)?;
        self.check_cert_authority(&ca)?;
        self.store().create::<kind::CertAuthority>(ca).await.map(drop)
    }

    /// Looks at an authority that is about to be believed.
    ///
    /// # Errors
    /// As [`upsert_cert_authority`](Self::upsert_cert_authority).
    pub(crate) fn check_cert_authority(&self, ca: &CertAuthorityV2) -> Result<()> {
        let spec = ca.spec.clone().unwrap_or_default();
        spec.r#type.parse::<CaType>().map_err(crypto)?;
        if spec.cluster_name == self.cluster_name() {
            Signers::of(self.key_store(), ca)?;
            let keys = spec.active_keys.unwrap_or_default();
            let mut hidden = keys.ssh.iter().map(|p| &p.private_key).chain(keys.tls.iter().map(|p| &p.key));
            if hidden.all(Vec::is_empty) && keys.jwt.is_empty() {
                return Err(Error::bad_parameter("an authority of this cluster needs its private keys"));
            }
        }
        for line in trusted_ssh(ca) {
            PublicKey::from_ssh_line(&String::from_utf8_lossy(&line)).map_err(crypto)?;
        }
        for pem in trusted_tls(ca) {
            let text = String::from_utf8_lossy(&pem);
            CaCertificate::from_pem(&text).map_err(crypto)?;
            // Clients tell by this name which cluster an authority vouches for.
            let subject = Certificate::from_pem(&text).map_err(crypto)?;
            if spec.cluster_name != self.cluster_name() && subject.common_name() != Some(&spec.cluster_name) {
                return Err(Error::bad_parameter(format!(
                    "the certificate of an authority of cluster {:?} is in the name of {:?}",
                    spec.cluster_name,
                    subject.common_name().unwrap_or_default()
                )));
            }
        }
        Ok(())
    }

    /// Removes an authority of another cluster.
    ///
    /// # Errors
    /// `BadParameter` for those of this cluster; `NotFound`.
    pub async fn delete_cert_authority(&self, ca_type: &str, cluster: &str) -> Result<()> {
        let ca_type = ca_type.parse::<CaType>().map_err(crypto)?;
        if cluster == self.cluster_name() {
            return Err(Error::bad_parameter("the authorities of the own cluster cannot be removed"));
        }
        self.store().delete::<kind::CertAuthority>(&format!("{ca_type}/{cluster}")).await
    }

    /// The trusted host certificates of this cluster, PEM, one after the other: what pins are computed over.
    ///
    /// # Errors
    /// `NotFound` never happens after the first start.
    pub fn cluster_ca_pem(&self) -> Result<String> {
        let bundle = trusted_tls(&*self.host_authority()?).join(&b'\n');
        String::from_utf8(bundle).map_err(|_| Error::other("the certificate of an authority is not PEM"))
    }

    /// The pins with which others recognise this cluster when they join.
    ///
    /// # Errors
    /// As [`cluster_ca_pem`](Self::cluster_ca_pem).
    pub fn ca_pins(&self) -> Result<Vec<String>> {
        pki::pin::ca_pins(&self.cluster_ca_pem()?).map_err(crypto)
    }

    /// The host authority of this cluster.
    pub(crate) fn host_authority(&self) -> Result<Arc<CertAuthorityV2>> {
        self.own_authority(CaType::Host)
    }

    /// The name under which an authority of this cluster is stored.
    pub(crate) fn authority_name(&self, ca_type: CaType) -> String {
        format!("{ca_type}/{}", self.cluster_name())
    }

    /// An authority of this cluster.
    pub(crate) fn own_authority(&self, ca_type: CaType) -> Result<Arc<CertAuthorityV2>> {
        self.store().cached::<kind::CertAuthority>(&self.authority_name(ca_type))
    }

    /// Those authorities of this cluster whose types are known.
    pub(crate) fn own_authorities(&self) -> impl Iterator<Item = (CaType, Arc<CertAuthorityV2>)> {
        CaType::ALL.into_iter().filter_map(|ca_type| Some((ca_type, self.own_authority(ca_type).ok()?)))
    }

    /// An empty revocation list of an authority, DER.
    ///
    /// # Errors
    /// `BadParameter` for types that do not exist or issue no certificates.
    pub async fn generate_crl(&self, ca_type: &str) -> Result<Vec<u8>> {
        let ca_type = ca_type.parse::<CaType>().map_err(crypto)?;
        let signers = self.signers(ca_type).await?;
        let issuer = signers.tls.as_ref().ok_or_else(|| {
            Error::bad_parameter(format!("certificate authority {ca_type} issues no X.509 certificates"))
        })?;
        issuer.empty_crl(self.now()).map_err(crypto)
    }
}

fn secrets_if(with_secrets: bool, ca: &CertAuthorityV2) -> CertAuthorityV2 {
    let mut ca = ca.clone();
    if !with_secrets {
        strip_secrets(&mut ca);
    }
    ca
}
