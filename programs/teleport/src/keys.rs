//! Where the private keys of authorities are, as the file says.

use std::sync::Arc;
use std::time::Duration;

use auth_service::AuthConfig;
use config::Config;
use keystore::KeyStore;
use keystore::pkcs11::Pkcs11Module;
use pki::suite::SignatureSuite;
use tokio::time::timeout;

use crate::error::{Failure, Result};

/// How long a module may take to be ready; some look for their hardware on a network.
const OPENING: Duration = Duration::from_secs(120);

/// Logs in to the module that keeps the keys of authorities, if there is one.
pub async fn configure(config: &Config, settings: &mut AuthConfig, host_uuid: &str) -> Result<()> {
    let Some(module) = &config.auth.key_module else { return Ok(()) };
    let path = module.module_path.display();
    let failed = |reason: &str| Failure(format!("PKCS#11 module {path}: {reason}"));
    let (module, host) = (module.clone(), host_uuid.to_owned());
    let opening = tokio::task::spawn_blocking(move || {
        let module = Pkcs11Module::open(&module, &host)?;
        Ok::<_, keystore::Error>(KeyStore::in_module(&host, Arc::new(module)))
    });
    settings.key_store = match timeout(OPENING, opening).await {
        Ok(Ok(opened)) => opened.map_err(|error| Failure(error.to_string()))?,
        Ok(Err(_)) => return Err(failed("opening it failed")),
        Err(_) => return Err(failed("it was not ready within 2 minutes")),
    };
    // What a new cluster has otherwise needs keys that modules do not make.
    settings.default_suite = SignatureSuite::HsmV1;
    Ok(())
}
