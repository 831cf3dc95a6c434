//! Looking after the keys of this Auth Service where Auth Services keep keys in modules of their own.
//!
//! A key in a module signs for one Auth Service only. One that finds none it can use adds its own to those that are
//! trusted, so that it can sign after the next rotation; during the first phase of a rotation every Auth Service adds one.
//!
//! What no authority names any more is removed from the module, for good. So what they name is read from the storage itself,
//! and nothing is removed unless all of it can be read and the storage is still that of the cluster. See also
//! [`check_module`].

use std::{collections::BTreeSet, sync::atomic::Ordering};

use keystore::{KeyStore, Place, Usability};
use pki::authority::{CaKeyKind, CaType};
use resources::Resource as _;
use wire::{
    error::{Error, ErrorKind, Result},
    types::{AlertSeverity, CaKeySet, CertAuthorityV2, ClusterAlert, ClusterAlertSpec, Metadata},
};

use super::{Told, kept, key_sets, signers::stored, usability};
use crate::{
    Auth,
    grpc::alerts::VERB_PERMIT,
    rotation::Phase,
    store::{
        self, Store,
        kind::{self, Kind as _},
    },
};

const KINDS: [CaKeyKind; 3] = [CaKeyKind::Ssh, CaKeyKind::Tls, CaKeyKind::Jwt];

/// Refuses a module with keys of this host of which the storage names none: as when it is empty or another cluster's, which
/// must not cost the right one its keys.
///
/// # Errors
/// Then, and when the module does not answer.
pub(crate) async fn check_module(store: &Store, keys: &KeyStore) -> Result<()> {
    if !keys.has_module() {
        return Ok(());
    }
    let authorities = match store.cached::<kind::ClusterName>("") {
        Ok(_) => all_authorities(store).await,
        // A cluster that is yet to be made has none, whatever is left in its storage.
        Err(_) => Ok(Vec::new()),
    };
    let authorities = match authorities {
        Ok(authorities) => authorities,
        Err(error) => {
            tracing::warn!(%error, "not all authorities can be read: no key is removed from the module while that is so");
            return Ok(());
        }
    };
    let keys = keys.clone();
    let checked = tokio::task::spawn_blocking(move || keys.check_named(stored_keys(&authorities)));
    checked.await.map_err(|_| Error::other("looking at the keys in the module failed"))?.map_err(kept)
}

/// Every authority that is stored, also of other clusters and of types that are not known here.
///
/// # Errors
/// When one of them cannot be read.
async fn all_authorities(store: &Store) -> Result<Vec<CertAuthorityV2>> {
    let stored = backend::get_all(store.backend(), kind::CertAuthority::PLACE.root().children()).await;
    stored.map_err(|error| store::storage(&error))?.iter().map(kind::decode::<kind::CertAuthority>).collect()
}

/// What is stored for all private keys of authorities.
pub(super) fn stored_keys(authorities: &[CertAuthorityV2]) -> impl Iterator<Item = &[u8]> {
    let sets = authorities.iter().flat_map(key_sets);
    sets.flat_map(|keys| KINDS.iter().flat_map(|kind| stored(keys, *kind)))
}

impl Auth {
    /// Looks after the keys of this service if authorities have changed since, or it is time to try again.
    pub(crate) async fn tend_changed_keys(&self) {
        let is_due = self.0.authorities.owed.lock().is_due();
        if !is_due && self.0.authorities.tended.load(Ordering::Relaxed) == self.store().authority_generation() {
            return;
        }
        if let Err(error) = self.tend_keys().await {
            tracing::warn!(%error, "the keys of authorities could not be looked after, it is tried again");
        }
    }

    /// Adds keys of this service where none can be used here, tells administrators what they have to do about it, and
    /// removes keys of this service that are not used.
    ///
    /// # Errors
    /// When keys cannot be made or stored; the rest is done all the same, and what was made for nothing removed.
    pub(crate) async fn tend_keys(&self) -> Result<()> {
        let _one_at_a_time = self.0.authorities.making.lock().await;
        let generation = self.store().authority_generation();
        let store = self.key_store();
        let (mut unusable, mut elsewhere, mut added) = (Vec::new(), Vec::new(), Ok(()));
        for (ca_type, ca) in self.own_authorities() {
            // After a failure no more are made: each may take the module a minute.
            if added.is_ok() && wants_keys(store, ca_type, &ca) {
                added = self.add_keys(ca_type).await;
            }
            let active = ca.spec.as_ref().and_then(|spec| spec.active_keys.clone()).unwrap_or_default();
            match usability(store, ca_type, &active) {
                Usability::Foreign => unusable.push((ca_type, active)),
                Usability::Usable => elsewhere.push((ca_type, active)),
                Usability::Preferred => {}
            }
        }
        let advice = advice(self.host_uuid(), &unusable, &elsewhere);
        if let Err(error) = self.tell(advice).await {
            tracing::warn!(%error, "an alert about keys of authorities could not be stored");
        }
        let deleted = self.delete_unused_keys().await;
        self.0.authorities.owed.lock().note(deleted);
        added?;
        self.0.authorities.tended.store(generation, Ordering::Relaxed);
        Ok(())
    }

    /// Makes keys and adds them to those that are trusted, unless somebody was faster.
    async fn add_keys(&self, ca_type: CaType) -> Result<()> {
        let made = self.make_keys(ca_type).await?;
        let name = self.authority_name(ca_type);
        let added = self.store().change::<kind::CertAuthority>(&name, |ca| {
            if !wants_keys(self.key_store(), ca_type, ca) {
                return Err(Error::already_exists("the authority has usable keys by now"));
            }
            let trusted = ca.spec.get_or_insert_default().additional_trusted_keys.get_or_insert_default();
            append(trusted, &made);
            Ok(())
        });
        match added.await {
            Ok(_) => {
                tracing::info!(%ca_type, "keys of this Auth Service were added to those that are trusted");
                Ok(())
            }
            Err(error) if error.kind == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Stores the alert, or removes it when there is nothing to tell any more.
    async fn tell(&self, advice: Option<String>) -> Result<()> {
        if matches!(&*self.0.authorities.told.lock(), Told::Advice(before) if *before == advice) {
            return Ok(());
        }
        let name = format!("authority-keys-{}", self.host_uuid());
        match &advice {
            Some(advice) => {
                tracing::warn!("{advice}");
                let mut alert = alert(&name, advice);
                alert.spec.get_or_insert_default().created = Some(wire::time::timestamp(self.now()));
                alert.check_and_set_defaults()?;
                self.store().upsert::<kind::ClusterAlert>(alert).await?;
            }
            None => match self.store().delete::<kind::ClusterAlert>(&name).await {
                Err(error) if error.kind != ErrorKind::NotFound => return Err(error),
                _ => {}
            },
        }
        *self.0.authorities.told.lock() = Told::Advice(advice);
        Ok(())
    }

    /// Whether nothing is left to remove; what cannot be removed now is removed another time.
    async fn delete_unused_keys(&self) -> bool {
        if !self.key_store().has_module() {
            return true;
        }
        let authorities = match self.stored_authorities().await {
            Ok(authorities) => authorities,
            Err(error) => {
                tracing::warn!(%error, "unused keys stay in the module, because not all authorities can be read");
                return false;
            }
        };
        let store = self.key_store().clone();
        let deleting = tokio::task::spawn_blocking(move || store.delete_unused(stored_keys(&authorities)));
        match deleting.await {
            Ok(Ok(0)) => true,
            Ok(Ok(count)) => {
                tracing::info!(count, "keys that no authority names were removed from the module");
                true
            }
            Ok(Err(error)) => {
                tracing::error!(error = %kept(error), "unused keys of authorities could not be removed, it is tried again");
                false
            }
            Err(_) => false,
        }
    }

    /// Every authority in the storage, unless that was emptied or replaced since the start.
    async fn stored_authorities(&self) -> Result<Vec<CertAuthorityV2>> {
        let authorities = all_authorities(self.store()).await?;
        let name = kind::ClusterName::key("")?;
        let name = self.store().backend().get(&name).await.map_err(|error| store::storage(&error))?;
        let name = kind::decode::<kind::ClusterName>(&name)?;
        if name.spec.is_some_and(|spec| spec.cluster_id == self.cluster_id()) {
            Ok(authorities)
        } else {
            Err(Error::other("the storage is that of another cluster by now"))
        }
    }
}

/// Whether this Auth Service is to add keys of its own to an authority.
fn wants_keys(store: &KeyStore, ca_type: CaType, ca: &CertAuthorityV2) -> bool {
    let spec = ca.spec.clone().unwrap_or_default();
    let of = |keys: Option<CaKeySet>| usability(store, ca_type, &keys.unwrap_or_default());
    match Phase::of(ca) {
        Phase::Standby => [spec.active_keys, spec.additional_trusted_keys].map(of) == [Usability::Foreign; 2],
        Phase::Init => of(spec.additional_trusted_keys) != Usability::Preferred,
        _ => false,
    }
}

/// Adds keys behind those of a set.
pub(crate) fn append(keys: &mut CaKeySet, more: &CaKeySet) {
    keys.ssh.extend(more.ssh.iter().cloned());
    keys.tls.extend(more.tls.iter().cloned());
    keys.jwt.extend(more.jwt.iter().cloned());
}

/// What administrators have to do about authorities whose keys cannot be used by this Auth Service, and about those whose
/// keys are not where new ones are made.
fn advice(host: &str, unusable: &[(CaType, CaKeySet)], elsewhere: &[(CaType, CaKeySet)]) -> Option<String> {
    let (authorities, what) = match (unusable, elsewhere) {
        ([], []) => return None,
        ([], elsewhere) => (elsewhere, "signs with keys that are not where new ones are made, for the authorities"),
        (unusable, _) => (unusable, "cannot sign for the authorities"),
    };
    let names: Vec<&str> = authorities.iter().map(|(ca_type, _)| ca_type.as_str()).collect();
    let kept: Vec<&[u8]> =
        authorities.iter().flat_map(|(_, keys)| KINDS.iter().flat_map(|kind| stored(keys, *kind))).collect();
    let places: BTreeSet<String> = kept.into_iter().map(|key| Place::of(key).to_string()).collect();
    Some(format!(
        "Auth Service {host} {what} {}, which have {}. Rotate each of them: tctl auth rotate --type=<type>",
        names.join(", "),
        places.into_iter().collect::<Vec<_>>().join(" and "),
    ))
}

/// For administrators.
fn alert(name: &str, message: &str) -> ClusterAlert {
    let mut alert = ClusterAlert {
        spec: Some(ClusterAlertSpec {
            severity: AlertSeverity::Medium.into(),
            message: message.to_owned(),
            ..ClusterAlertSpec::default()
        }),
        ..ClusterAlert::default()
    };
    let labels = [(VERB_PERMIT.to_owned(), "cert_authority:list".to_owned())].into();
    *alert.metadata_mut() = Metadata { name: name.to_owned(), labels, ..Metadata::default() };
    alert
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::sync::Arc;

    use backend::{Backend as _, Item};
    use keystore::memory::MemoryModule;
    use pki::{keys::KeyAlgorithm, suite::SignatureSuite, x509::Certificate};
    use wire::types::{CertAuthoritySpecV2, JwtKeyPair};

    use super::*;
    use crate::{LocalIdentityRequest, RotationRequest, SystemRole, testing::Service};

    const SECOND: &str = "22222222-0000-4000-8000-000000000002";

    fn module(host: &str) -> (Arc<MemoryModule>, KeyStore) {
        let module = Arc::new(MemoryModule::default());
        (Arc::clone(&module), KeyStore::in_module(host, module))
    }

    /// An Auth Service that is ready, and all its authorities.
    async fn first(store: KeyStore) -> Service {
        let service = Service::start_with(|config| {
            config.default_suite = SignatureSuite::HsmV1;
            config.host_uuid = Some("one".to_owned());
            config.key_store = store;
        });
        let service = service.await;
        for ca_type in CaType::ALL {
            service.auth.ensure_authority(ca_type).await.unwrap();
        }
        service
    }

    /// An Auth Service with a module on the storage of another.
    async fn second(service: &Service) -> (Arc<MemoryModule>, Auth) {
        let (module, store) = module(SECOND);
        let auth = service.again(|config| {
            config.host_uuid = Some(SECOND.to_owned());
            config.key_store = store;
        });
        (module, auth.await)
    }

    async fn keys(auth: &Auth, ca_type: &str) -> (CaKeySet, CaKeySet) {
        let ca = auth.get_cert_authority(ca_type, auth.cluster_name(), true).await.unwrap();
        let spec = ca.spec.unwrap();
        (spec.active_keys.unwrap_or_default(), spec.additional_trusted_keys.unwrap_or_default())
    }

    async fn step(auth: &Auth, ca_type: CaType, phase: &str) {
        let request = RotationRequest { target: phase.to_owned(), ..Default::default() };
        auth.rotate_authority(ca_type, &request).await.unwrap();
    }

    async fn is_told(auth: &Auth, word: &str) -> bool {
        let alerts = auth.store().list::<kind::ClusterAlert>().await.unwrap();
        alerts.iter().any(|alert| alert.spec.as_ref().is_some_and(|spec| spec.message.contains(word)))
    }

    #[tokio::test]
    async fn keys_of_a_cluster_with_a_module_are_references() {
        let (module, store) = module("one");
        let service = first(store).await;
        let mut count = 0;
        for ca_type in CaType::ALL {
            let (active, _) = keys(&service.auth, ca_type.as_str()).await;
            for (kind, _) in ca_type.keys() {
                let [key] = stored(&active, *kind)[..] else { panic!("one key") };
                assert!(matches!(Place::of(key), Place::Pkcs11(reference) if reference.host_id == "one"));
                count += 1;
            }
            assert!(active.tls.iter().all(|pair| pair.key_type == 1), "{ca_type}");
        }
        assert_eq!(module.ids().len(), count);
        let identity = service.auth.local_identity(SystemRole::Node, LocalIdentityRequest::default()).await.unwrap();
        let (active, _) = keys(&service.auth, "host").await;
        let ca = Certificate::from_pem(&String::from_utf8_lossy(&active.tls[0].cert)).unwrap();
        let leaf = Certificate::from_pem(&identity.tls_certificate).unwrap();
        assert!(leaf.verify_issued_by(&[ca], service.auth.now()).is_some());
    }

    #[tokio::test]
    async fn a_rotation_moves_keys_into_the_module_and_the_next_one_removes_them() {
        let service = first(KeyStore::default()).await;
        let (module, auth) = second(&service).await;
        assert!(module.ids().is_empty(), "keys in the storage are good enough until a rotation");
        assert!(is_told(&auth, "raw software keys").await);
        for round in 1..=2 {
            step(&auth, CaType::Host, "init").await;
            assert_eq!(module.ids().len(), 2 * round);
            step(&auth, CaType::Host, "update_clients").await;
            step(&auth, CaType::Host, "update_servers").await;
            step(&auth, CaType::Host, "standby").await;
            let (active, trusted) = keys(&auth, "host").await;
            assert!(active.tls.len() == 1 && active.tls[0].key_type == 1 && trusted == CaKeySet::default());
            assert_eq!(module.ids().len(), 2, "what was rotated away is removed");
        }
        for ca_type in CaType::ALL.into_iter().filter(|ca_type| *ca_type != CaType::Host) {
            for phase in ["init", "update_clients", "update_servers", "standby"] {
                step(&auth, ca_type, phase).await;
            }
        }
        assert!(!is_told(&auth, "raw software keys").await);
    }

    #[tokio::test]
    async fn an_auth_service_with_a_new_module_adds_its_keys_and_signs_after_a_rotation() {
        let (_module, store) = module("one");
        let service = first(store).await;
        let (module, auth) = second(&service).await;
        let (active, trusted) = keys(&auth, "host").await;
        assert_eq!((active.tls.len(), trusted.tls.len(), trusted.ssh.len()), (1, 1, 1));
        assert!(is_told(&auth, "PKCS#11 HSM keys created by one").await);
        let signed = |role| auth.local_identity(role, LocalIdentityRequest::default());
        assert!(signed(SystemRole::Admin).await.is_ok(), "tctl works on the new host");
        assert!(signed(SystemRole::Node).await.is_err(), "nobody else has a certificate of keys that do not sign yet");
        let before = module.ids().len();
        auth.tend_keys().await.unwrap();
        assert_eq!((module.ids().len(), keys(&auth, "host").await.1), (before, trusted.clone()));

        // Both have keys from the first phase on, without a restart.
        step(&service.auth, CaType::Host, "init").await;
        let (_, next) = keys(&service.auth, "host").await;
        assert_eq!(next.tls.len(), 2, "the new keys stand before those that were there");
        assert_eq!(next.tls[1], trusted.tls[0]);
        auth.store().refresh().await;
        auth.tend_changed_keys().await;
        assert_eq!(keys(&auth, "host").await.1.tls.len(), 2);
        step(&service.auth, CaType::Host, "update_clients").await;
        auth.store().refresh().await;
        assert!(signed(SystemRole::Node).await.is_ok());
        step(&service.auth, CaType::Host, "update_servers").await;
        step(&service.auth, CaType::Host, "standby").await;
        for auth in [&service.auth, &auth] {
            auth.store().refresh().await;
            auth.tend_changed_keys().await;
            assert_eq!(keys(auth, "host").await.0.tls.len(), 2);
            assert!(auth.local_identity(SystemRole::Node, LocalIdentityRequest::default()).await.is_ok());
        }
    }

    #[tokio::test]
    async fn every_auth_service_adds_keys_in_the_first_phase() {
        let service = first(KeyStore::default()).await;
        let (module, auth) = second(&service).await;
        step(&service.auth, CaType::User, "init").await;
        auth.store().refresh().await;
        auth.tend_changed_keys().await;
        let (_, next) = keys(&auth, "user").await;
        let places: Vec<i32> = next.tls.iter().map(|pair| pair.key_type).collect();
        assert_eq!((places, module.ids().len()), (vec![0, 1], 2));
        step(&service.auth, CaType::User, "rollback").await;
        step(&service.auth, CaType::User, "standby").await;
        auth.store().refresh().await;
        auth.tend_changed_keys().await;
        assert!(module.ids().is_empty());
    }

    /// A host whose module is full before an authority has all its keys.
    #[tokio::test]
    async fn what_was_made_for_nothing_is_removed_and_tried_again() {
        let (_module, store) = module("one");
        let service = first(store).await;
        let (full, store) = module(SECOND);
        full.set_room(1);
        let mut config = service.config();
        (config.host_uuid, config.key_store) = (Some(SECOND.to_owned()), store.clone());
        assert!(Auth::open(config).await.err().unwrap().message.contains("there is no room"));
        assert!(full.ids().is_empty());
        service.auth.store().refresh().await;
        assert!(is_told(&service.auth, "Auth Service 22222222-0000-4000-8000-000000000002 cannot sign").await);

        full.set_room(usize::MAX);
        let auth =
            service.again(|config| (config.host_uuid, config.key_store) = (Some(SECOND.to_owned()), store)).await;
        let before = full.ids().len();
        full.set_room(before + 1);
        step(&service.auth, CaType::Host, "init").await;
        step(&service.auth, CaType::Host, "rollback").await;
        step(&service.auth, CaType::Host, "standby").await;
        auth.store().refresh().await;
        auth.tend_changed_keys().await;
        assert!(full.ids().len() < before, "there is room for one of two keys");
        full.set_room(usize::MAX);
        auth.tend_changed_keys().await;
        assert_eq!(full.ids().len(), before);
    }

    #[tokio::test]
    async fn a_first_start_that_fails_leaves_no_keys_behind() {
        let service = Service::start().await;
        let (full, store) = module("one");
        full.set_room(3);
        let mut config = service.config();
        (config.host_uuid, config.key_store) = (Some("one".to_owned()), store);
        config.backend = Some(Arc::new(backend::Memory::new()));
        config.default_suite = SignatureSuite::HsmV1;
        assert!(Auth::open(config).await.err().unwrap().message.contains("there is no room"));
        assert!(full.ids().is_empty());
    }

    #[tokio::test]
    async fn keys_that_any_stored_authority_names_stay_and_all_do_while_one_cannot_be_read() {
        let (module, store) = module("one");
        let service = first(store.clone()).await;
        let before = module.ids().len();
        let [named, _unnamed] = [(); 2].map(|()| store.generate(KeyAlgorithm::EcdsaP256).unwrap());
        let jwt = vec![JwtKeyPair { private_key: named.stored, private_key_type: 1, ..JwtKeyPair::default() }];
        let spec = CertAuthoritySpecV2 {
            r#type: "of_a_later_release".to_owned(),
            cluster_name: service.auth.cluster_name().to_owned(),
            additional_trusted_keys: Some(CaKeySet { jwt, ..CaKeySet::default() }),
            ..CertAuthoritySpecV2::default()
        };
        let ca = CertAuthorityV2 { spec: Some(spec), ..CertAuthorityV2::default() };
        let key = |name: &str| kind::CertAuthority::key(&format!("{name}/main.test")).unwrap();
        let later = kind::encode_at::<kind::CertAuthority>(key("of_a_later_release"), &ca).unwrap();
        service.backend.put(later).await.unwrap();
        service.backend.put(Item::new(key("unreadable"), b"{".to_vec())).await.unwrap();
        service.auth.tend_keys().await.unwrap();
        assert_eq!(module.ids().len(), before + 2, "one cannot be read");
        service.backend.delete(&key("unreadable")).await.unwrap();
        service.auth.tend_keys().await.unwrap();
        assert_eq!(module.ids().len(), before + 1, "one is not named");
        service.backend.delete(&key("of_a_later_release")).await.unwrap();
        service.auth.tend_keys().await.unwrap();
        assert_eq!(module.ids().len(), before);
    }

    #[tokio::test]
    async fn unused_keys_are_removed_when_the_module_is_back() {
        let (module, store) = module("one");
        let service = first(store.clone()).await;
        let before = module.ids().len();
        store.generate(KeyAlgorithm::EcdsaP256).unwrap();
        module.set_away(true);
        service.auth.tend_keys().await.unwrap();
        module.set_away(false);
        assert_eq!(module.ids().len(), before + 1);
        service.auth.tend_changed_keys().await;
        assert_eq!(module.ids().len(), before, "without any change of an authority");
    }

    /// The storage fails when the keys are in the module.
    #[tokio::test]
    async fn keys_of_a_first_start_that_could_not_be_stored_are_removed_by_the_next_and_no_others() {
        let service = Service::start().await;
        let (module, store) = module("one");
        let config = |storage: &Arc<backend::Memory>| {
            let mut config = service.config();
            (config.host_uuid, config.key_store) = (Some("one".to_owned()), store.clone());
            config.default_suite = SignatureSuite::HsmV1;
            config.backend = Some(storage.clone());
            config
        };
        let broken = Arc::new(backend::Memory::new());
        let storage = Store::open(broken.clone()).await.unwrap();
        broken.close().await;
        crate::init::cluster(&storage, &config(&broken)).await.unwrap_err();
        let made = module.ids();
        assert!(!made.is_empty(), "it is not known whether the storage names them");
        let other = store.generate(KeyAlgorithm::EcdsaP256).unwrap();
        let empty = Arc::new(backend::Memory::new());
        let refused = Auth::open(config(&empty)).await.err().unwrap().message;
        assert!(refused.contains("1 keys of this host that the storage does not name"), "{refused}");
        assert!(made.iter().all(|id| !module.ids().contains(id)));
        store.delete([other.stored.as_slice()]).unwrap();
        let auth = Auth::open(config(&empty)).await.unwrap();
        assert!(auth.local_identity(SystemRole::Node, LocalIdentityRequest::default()).await.is_ok());
        assert!(!config(&empty).data_dir.join("first_keys").exists());
    }

    #[tokio::test]
    async fn storage_that_was_emptied_costs_no_keys() {
        let (module, store) = module("one");
        let service = first(store.clone()).await;
        let before = module.ids();
        for item in backend::get_all(&*service.backend, backend::Key::root("").children()).await.unwrap() {
            service.backend.delete(&item.key).await.unwrap();
        }
        service.auth.store().refresh().await;
        service.auth.tend_changed_keys().await;
        // As a login would.
        service.auth.ensure_authority(CaType::Host).await.unwrap();
        service.auth.tend_changed_keys().await;
        let mut config = service.config();
        (config.host_uuid, config.key_store) = (Some("one".to_owned()), store);
        config.default_suite = SignatureSuite::HsmV1;
        assert!(Auth::open(config).await.err().unwrap().message.contains("is it the right storage?"));
        let now = module.ids();
        assert!(before.iter().all(|id| now.contains(id)) && now.len() > before.len());
    }

    #[tokio::test]
    async fn a_module_whose_keys_the_storage_does_not_name_is_refused_and_keeps_them() {
        let (module, store) = module("one");
        let _right = first(store.clone()).await;
        let before = module.ids();
        let other = Service::start().await;
        let empty = Arc::new(backend::Memory::new());
        for storage in [empty.clone(), other.backend.clone()] {
            let mut config = other.config();
            (config.host_uuid, config.key_store) = (Some("one".to_owned()), store.clone());
            config.backend = Some(storage);
            config.default_suite = SignatureSuite::HsmV1;
            let refused = Auth::open(config).await.err().unwrap().message;
            let count = format!("{} keys of this host that the storage does not name", before.len());
            assert!(refused.contains(&count) && refused.contains("is it the right storage?"), "{refused}");
        }
        assert_eq!(module.ids().len(), before.len());
        let made = backend::get_all(&*empty, backend::Key::root("").children()).await.unwrap();
        assert!(made.is_empty(), "nothing was stored that a second start would take for its cluster");
    }

    #[tokio::test]
    async fn an_alert_of_before_is_removed_when_there_is_nothing_to_tell() {
        let service = first(KeyStore::default()).await;
        let (_module, auth) = second(&service).await;
        assert!(is_told(&auth, "raw software keys").await);
        service.again(|config| config.host_uuid = Some(SECOND.to_owned())).await;
        auth.store().refresh().await;
        assert!(!is_told(&auth, "raw software keys").await, "the module is not used any more");
    }

    #[tokio::test]
    async fn suites_without_keys_in_modules_are_refused() {
        let service = first(KeyStore::default()).await;
        let (_, auth) = second(&service).await;
        let mut preference = (*auth.auth_preference().unwrap()).clone();
        preference.spec.as_mut().unwrap().signature_algorithm_suite = SignatureSuite::BalancedV1.to_number();
        let write = crate::settings::Write::Upsert;
        let error = auth.set_auth_preference(&service.admin(), preference.clone(), write).await.unwrap_err();
        assert!(error.message.contains("use hsm-v1, fips-v1 or legacy"), "{error}");
        service.auth.set_auth_preference(&service.admin(), preference, write).await.unwrap();
        let (_, store) = module(SECOND);
        let mut config = service.config();
        config.key_store = store;
        let refused = Auth::open(config).await.err().unwrap();
        assert!(refused.message.contains("balanced-v1"), "{refused}");
    }
}
