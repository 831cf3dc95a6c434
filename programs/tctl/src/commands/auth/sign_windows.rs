//! `auth sign --format=windows`.

use std::time::Duration;

use clap::Args;
use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::x509::{Certificate, CertificateRequest, DistinguishedName, SmartCardAccount, oid};
use wire::proto::WindowsDesktopCertRequest;

use super::files::Files;
use crate::api::{Api, Call};
use crate::error::{Error, Result};

/// A user of Windows desktops.
#[derive(Args, Debug, Default)]
pub struct Windows {
    /// The user of Windows desktops who gets them.
    #[arg(long, value_name = "USER")]
    windows_user: Option<String>,
    /// The Active Directory domain of the user.
    #[arg(long, value_name = "DOMAIN", requires = "windows_user")]
    windows_domain: Option<String>,
    /// The Active Directory domain with the lists of revoked certificates, if that is another one.
    #[arg(long, value_name = "DOMAIN", requires = "windows_user")]
    windows_pki_domain: Option<String>,
    /// The security identifier of the user.
    #[arg(long, value_name = "SID", requires = "windows_user")]
    windows_sid: Option<String>,
}

/// Whom the certificate is for, and in which domain.
struct Account<'a> {
    user: &'a str,
    domain: &'a str,
    lists: &'a str,
    identifier: Option<&'a str>,
}

impl Windows {
    /// Whether the credentials are for a user of desktops.
    pub fn is_some(&self) -> bool {
        self.windows_user.is_some()
    }

    /// What is added to the path of the output.
    pub fn suffixes(&self) -> Result<[String; 2]> {
        let user = self.account()?.user;
        Ok([format!(".{user}.der"), format!(".{user}.key")])
    }

    /// The certificate of the user as on a smart card, and its key.
    pub async fn files(&self, api: &Api, ttl: Duration) -> Result<Files> {
        let account = self.account()?;
        // Windows takes no other keys from smart cards.
        let key = PrivateKey::generate(KeyAlgorithm::Rsa2048)?;
        let request = WindowsDesktopCertRequest {
            csr: account.request(&key)?.into_bytes(),
            crl_endpoint: account.revocations(api.cluster()),
            ttl: i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX),
        };
        let signed = api.auth().generate_windows_desktop_cert(request).within("signing the certificate").await?;
        let certificate = Certificate::from_pem(&String::from_utf8_lossy(&signed.cert))?;
        let [certificate_suffix, key_suffix] = self.suffixes()?;
        let mut files = Files::one(certificate_suffix, certificate.der());
        files.add(key_suffix, key.to_pem()?.as_bytes());
        Ok(files)
    }

    fn account(&self) -> Result<Account<'_>> {
        let (Some(user), Some(domain)) = (&self.windows_user, &self.windows_domain) else {
            return Err(Error::bad("--format=windows goes with --windows-user and --windows-domain"));
        };
        let lists = self.windows_pki_domain.as_ref().unwrap_or(domain);
        // It becomes part of a file's name and of user@domain.
        if user.is_empty() || user.contains(|c: char| c.is_control() || "/\\@\"[]:;|=,+*?<>".contains(c)) {
            return Err(Error::bad(format!("--windows-user={user:?} is no name of a user, without the domain")));
        }
        let is_domain = |text: &str| {
            let is_label =
                |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
            text.split('.').all(is_label)
        };
        match [domain, lists].into_iter().find(|domain| !is_domain(domain)) {
            Some(wrong) => Err(Error::bad(format!("{wrong:?} is no domain, such as corp.example.com"))),
            None => Ok(Account { user, domain, lists, identifier: self.windows_sid.as_deref() }),
        }
    }
}

impl Account<'_> {
    fn request(&self, key: &PrivateKey) -> Result<String> {
        let named = SmartCardAccount {
            principal_name: format!("{}@{}", self.user, self.domain),
            security_identifier: self.identifier.map(str::to_owned),
        };
        let mut subject = DistinguishedName::new();
        subject.push(oid::COMMON_NAME, self.user);
        Ok(CertificateRequest::make_with(&subject, &named.to_request()?, key)?)
    }

    /// Where desktop agents publish the list of revoked certificates.
    fn revocations(&self, cluster: &str) -> String {
        let domain: Vec<String> = self.lists.split('.').map(|label| format!("DC={label}")).collect();
        format!(
            "ldap:///CN={cluster},CN=Teleport,CN=CDP,CN=Public Key Services,CN=Services,CN=Configuration,{}\
             ?certificateRevocationList?base?objectClass=cRLDistributionPoint",
            domain.join(","),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn windows(user: &str, domain: &str) -> Windows {
        let (windows_user, windows_domain) = (Some(user.to_owned()), Some(domain.to_owned()));
        Windows { windows_user, windows_domain, ..Windows::default() }
    }

    #[test]
    fn the_request_names_user_domain_and_identifier() {
        let mut windows = windows("ann", "corp.example");
        windows.windows_sid = Some("S-1-5-21-1-2-3-500".to_owned());
        windows.windows_pki_domain = Some("pki.example".to_owned());
        let account = windows.account().unwrap();
        let key = PrivateKey::generate(KeyAlgorithm::Rsa2048).unwrap();
        let request = CertificateRequest::from_pem(&account.request(&key).unwrap()).unwrap();
        assert_eq!(request.subject.first(oid::COMMON_NAME), Some("ann"));
        let named = SmartCardAccount::from_request(&request.extensions).unwrap();
        assert_eq!(named.principal_name, "ann@corp.example");
        assert_eq!(named.security_identifier.as_deref(), Some("S-1-5-21-1-2-3-500"));
        assert_eq!(
            account.revocations("main.test"),
            "ldap:///CN=main.test,CN=Teleport,CN=CDP,CN=Public Key Services,CN=Services,CN=Configuration,DC=pki,DC=example\
             ?certificateRevocationList?base?objectClass=cRLDistributionPoint"
        );
        assert_eq!(windows.suffixes().unwrap(), [".ann.der", ".ann.key"]);
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for (user, domain, said) in [
            ("../ann", "corp.example", "--windows-user"),
            ("ann@corp.example", "corp.example", "--windows-user"),
            ("", "corp.example", "--windows-user"),
            ("ann", "corp example", "corp.example.com"),
            ("ann", "corp..example", "corp.example.com"),
            ("ann", "", "corp.example.com"),
        ] {
            let error = windows(user, domain).account().err().unwrap().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
