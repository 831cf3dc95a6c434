//! Certificates with which one logs in to Windows desktops.

use std::time::Duration;

use pki::authority::CaType;
use pki::x509::{
    self, CREATE_USER, CertificateRequest, DistinguishedName, ExtraExtension, KeyUsages, LICENSE, LIMIT_EXCEEDED,
    LeafTemplate, SMART_CARD_USAGES, SmartCardAccount, oid,
};
use wire::error::{Error, Result};

use super::database::{MAX_CLIENT_TTL, end_of_life};
use crate::Auth;
use crate::authority::crypto;

/// The longest address of a revocation list.
const MAX_ADDRESS: usize = 1024;
/// The longest wish for an account that is made with the login.
const MAX_CREATE_USER: usize = 4096;

impl Auth {
    /// Signs a request for the certificate of one account on Windows desktops, which names the address of the revocation
    /// list if there is one; PEM.
    ///
    /// The authority is the one of users. What makes a certificate a user's of this cluster stands in the subject, so of
    /// that nothing is taken but the common name.
    ///
    /// # Errors
    /// `BadParameter` for requests of another kind, and for a lifetime out of range.
    pub async fn sign_for_desktop(&self, request: &CertificateRequest, crl: &str, ttl: Duration) -> Result<Vec<u8>> {
        let name = request.subject.first(oid::COMMON_NAME).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Error::bad_parameter("CSR: the subject has no common name"))?;
        let account = SmartCardAccount::from_request(&request.extensions).map_err(crypto)?;
        if crl.len() > MAX_ADDRESS || !crl.is_ascii() {
            return Err(Error::bad_parameter(format!(
                "CRLEndpoint: expected at most {MAX_ADDRESS} characters of ASCII"
            )));
        }
        let mut subject = DistinguishedName::new();
        subject.push(oid::COMMON_NAME, name);
        let now = self.now();
        let end = end_of_life(now, ttl, MAX_CLIENT_TTL)?;
        let mut template = LeafTemplate::new(subject, request.public_key.clone(), now, end);
        template.key_usages = vec![KeyUsages::DigitalSignature];
        template.extended_usages = SMART_CARD_USAGES.to_vec();
        template.crl_distribution_points = Some(crl.to_owned()).filter(|crl| !crl.is_empty()).into_iter().collect();
        template.extra_extensions = account.to_extensions().map_err(crypto)?;
        template.extra_extensions.extend(logon_package(request)?);
        let signers = self.signers(CaType::User).await?;
        let issuer = signers.tls.as_ref();
        let issuer = issuer.ok_or_else(|| Error::not_found("the authority of users has no usable keys"))?;
        Ok(x509::to_pem(&issuer.issue(&template).map_err(crypto)?).into_bytes())
    }
}

/// What the logon package reads that hosts outside of any domain have.
fn logon_package(request: &CertificateRequest) -> Result<Vec<ExtraExtension>> {
    let of = |(id, value): (_, &str)| ExtraExtension { id, critical: false, value: value.as_bytes().to_vec() };
    let mut extensions = [(LICENSE, "oss"), (LIMIT_EXCEEDED, "false")].map(of).to_vec();
    if let Some(create) = request.extensions.iter().find(|extension| extension.id == CREATE_USER) {
        if create.value.len() > MAX_CREATE_USER {
            return Err(Error::bad_parameter("CSR: the account to make has too many groups"));
        }
        extensions.push(create.clone());
    }
    Ok(extensions)
}
