//! Certificates for databases and for those who log in to them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use pki::{
    authority::CaType,
    x509::{self, AlternativeNames, CertificateRequest, ExtendedUsage, LeafTemplate, oid},
};
use wire::error::{Error, Result};

use crate::{
    Auth,
    authority::{crypto, trusted_tls},
    join::check_names,
    store::kind,
};

/// The longest life of a database's certificate.
const MAX_SERVER_TTL: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
/// The longest life of a certificate with which an agent logs in.
pub(super) const MAX_CLIENT_TTL: Duration = Duration::from_secs(30 * 3600);

/// Which end of the connection a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseEnd {
    /// A database server shows it to agents.
    Server,
    /// An agent shows it to a database; its common name is the account there.
    Client,
}

/// A certificate with the authorities that its holder must trust at the other end.
#[derive(Clone, Debug)]
pub struct DatabaseCertificate {
    /// PEM.
    pub certificate: Vec<u8>,
    /// PEM, one by one.
    pub trusted: Vec<Vec<u8>>,
}

impl Auth {
    /// Signs a request for one end of connections to databases. Of the request itself only key and subject are taken;
    /// `names` are the host names and addresses of a server.
    ///
    /// # Errors
    /// `BadParameter` for unusable requests and names, and for a lifetime out of range.
    pub async fn sign_for_database(
        &self,
        end: DatabaseEnd,
        request: &CertificateRequest,
        names: &[String],
        ttl: Duration,
    ) -> Result<DatabaseCertificate> {
        check_names("server names", names)?;
        if request.subject.first(oid::COMMON_NAME).is_none_or(str::is_empty) {
            return Err(Error::bad_parameter("CSR: the subject has no common name"));
        }
        let (own, other, usage, longest) = match end {
            DatabaseEnd::Server => {
                (CaType::Database, CaType::DatabaseClient, ExtendedUsage::ServerAuth, MAX_SERVER_TTL)
            }
            DatabaseEnd::Client => {
                (CaType::DatabaseClient, CaType::Database, ExtendedUsage::ClientAuth, MAX_CLIENT_TTL)
            }
        };
        let now = self.now();
        let until = end_of_life(now, ttl, longest)?;
        let mut template = LeafTemplate::new(request.subject.clone(), request.public_key.clone(), now, until);
        template.extended_usages = vec![usage];
        template.alternative_names = AlternativeNames::from_hosts(names);
        let signers = match end {
            // Databases get theirs by hand: one that was made during a rotation must last beyond it.
            DatabaseEnd::Server => self.lasting_signers(own).await?,
            DatabaseEnd::Client => self.signers(own).await?,
        };
        let issuer = signers.tls.as_ref();
        let issuer = issuer.ok_or_else(|| Error::not_found(format!("the authority {own} has no usable keys")))?;
        let certificate = x509::to_pem(&issuer.issue(&template).map_err(crypto)?).into_bytes();
        self.ensure_authority(other).await?;
        let trusted = self.store().cached::<kind::CertAuthority>(&format!("{other}/{}", self.cluster_name()))?;
        Ok(DatabaseCertificate { certificate, trusted: trusted_tls(&trusted) })
    }
}

/// When something ends that starts now, if it may last that long.
pub(super) fn end_of_life(now: DateTime<Utc>, ttl: Duration, longest: Duration) -> Result<DateTime<Utc>> {
    if ttl.is_zero() || ttl > longest {
        let longest = wire::duration::text(longest);
        return Err(Error::bad_parameter(format!("TTL: expected more than nothing and at most {longest}")));
    }
    Ok(now + TimeDelta::from_std(ttl).map_err(|_| Error::bad_parameter("TTL: too long"))?)
}
