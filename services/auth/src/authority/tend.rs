//! Looking after the keys of this Auth Service where Auth Services keep keys in modules of their own.
//!
//! A key in a module signs for one Auth Service only. One that finds none it can use adds its own to those that are
//! trusted, so that it can sign after the next rotation; during the first phase of a rotation every Auth Service adds one.
//! What no authority names any more is removed from the module.

use std::{collections::BTreeSet, sync::Arc, sync::atomic::Ordering};

use keystore::{KeyStore, Place, Usability};
use pki::authority::{CaKeyKind, CaType};
use resources::Resource as _;
use wire::{
    error::{Error, ErrorKind, Result},
    types::{AlertSeverity, CaKeySet, CertAuthorityV2, ClusterAlert, ClusterAlertSpec, Metadata},
};

use super::{kept, key_sets, signers::stored, usability};
use crate::{Auth, grpc::alerts::VERB_PERMIT, rotation::Phase, store::kind};

const KINDS: [CaKeyKind; 3] = [CaKeyKind::Ssh, CaKeyKind::Tls, CaKeyKind::Jwt];

impl Auth {
    /// Looks after the keys of this service if authorities have changed since.
    pub(crate) async fn tend_changed_keys(&self) {
        if self.0.authorities.tended.load(Ordering::Relaxed) == self.store().authority_generation() {
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
    /// When keys cannot be made or stored.
    pub(crate) async fn tend_keys(&self) -> Result<()> {
        let _one_at_a_time = self.0.authorities.making.lock().await;
        let generation = self.store().authority_generation();
        let store = self.key_store();
        let (mut unusable, mut elsewhere) = (Vec::new(), Vec::new());
        for (ca_type, ca) in self.own_authorities() {
            if wants_keys(store, ca_type, &ca) {
                self.add_keys(ca_type).await?;
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
        self.delete_unused_keys().await;
        self.0.authorities.tended.store(generation, Ordering::Relaxed);
        Ok(())
    }

    fn own_authorities(&self) -> Vec<(CaType, Arc<CertAuthorityV2>)> {
        let all = self.store().cached_list::<kind::CertAuthority>().into_iter();
        let own = all.filter_map(|ca| {
            let spec = ca.spec.as_ref().filter(|spec| spec.cluster_name == self.cluster_name())?;
            Some((spec.r#type.parse().ok()?, Arc::clone(&ca)))
        });
        own.collect()
    }

    /// Makes keys and adds them to those that are trusted, unless somebody was faster.
    async fn add_keys(&self, ca_type: CaType) -> Result<()> {
        let made = self.make_keys(ca_type).await?;
        let name = format!("{ca_type}/{}", self.cluster_name());
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
        if *self.0.authorities.told.lock() == advice && (advice.is_some() || !self.key_store().has_module()) {
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
        *self.0.authorities.told.lock() = advice;
        Ok(())
    }

    /// What cannot be removed now is removed another time.
    async fn delete_unused_keys(&self) {
        if !self.key_store().has_module() {
            return;
        }
        let (store, authorities) = (self.key_store().clone(), self.own_authorities());
        let deleting = tokio::task::spawn_blocking(move || {
            let named = authorities.iter().flat_map(|(_, ca)| key_sets(ca));
            store.delete_unused(named.flat_map(|keys| KINDS.iter().flat_map(|kind| stored(keys, *kind))))
        });
        match deleting.await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(count)) => tracing::info!(count, "keys that no authority names were removed from the module"),
            Ok(Err(error)) => tracing::error!(error = %kept(error), "unused keys of authorities could not be removed"),
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
    use keystore::memory::MemoryModule;
    use pki::{suite::SignatureSuite, x509::Certificate};

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
        for (ca_type, _) in auth.own_authorities().into_iter().filter(|(ca_type, _)| *ca_type != CaType::Host) {
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
