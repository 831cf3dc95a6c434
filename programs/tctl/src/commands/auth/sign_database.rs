//! `auth sign --host` for databases.

use std::time::Duration;

use pki::authority::CaType;
use pki::keys::{KeyAlgorithm, PrivateKey};
use pki::x509::{CertificateRequest, DistinguishedName, oid};
use wire::proto::DatabaseCertRequest;
use wire::proto::database_cert_request::Requester;
use wire::trust::GetCertAuthorityRequest;

use super::files::Files;
use super::key_store::{self, Dialect};
use crate::api::{Api, Call};
use crate::error::Result;

/// The name that nodes of CockroachDB have in each other's eyes.
const COCKROACH_NODE: &str = "node";
/// The files in the folder that CockroachDB reads.
pub const COCKROACH_FILES: &[&str] = &["/node.crt", "/node.key", "/ca.crt", "/ca-client.crt"];

/// What key stores call the database's key.
const CASSANDRA: &str = "cassandra";
const ORACLE: &str = "oracle";

/// How a database takes its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Key, certificate and authorities apart.
    Apart,
    /// Certificate and key in one file.
    Mongo,
    /// A folder with fixed names.
    Cockroach,
    /// Key stores, as Java reads them.
    Cassandra,
    /// A key store from which a wallet is made.
    Oracle,
}

impl Layout {
    /// What to do with the files at this path.
    pub fn advice(self, path: &str, password: &str) -> String {
        match self {
            Self::Cassandra => {
                return format!(
                    "Set in cassandra.yaml:\n\nclient_encryption_options:\n  enabled: true\n  optional: false\n  \
                     require_client_auth: true\n  store_type: PKCS12\n  keystore: {path}.keystore\n  \
                     keystore_password: \"{password}\"\n  truststore: {path}.truststore\n  \
                     truststore_password: \"{password}\"\n"
                );
            }
            Self::Oracle => {
                return format!(
                    "Make the wallet on the database server with Oracle's tool, for each file with an authority the last line:\
                     \n\norapki wallet create -wallet {path} -auto_login_only\norapki wallet import_pkcs12 -wallet {path} \
                     -auto_login_only -pkcs12file {path}.p12 -pkcs12pwd {password}\norapki wallet add -wallet {path} \
                     -trusted_cert -auto_login_only -cert {path}.ca-client.crt\n\nThen name it as WALLET_LOCATION in \
                     listener.ora and sqlnet.ora, with SSL_CLIENT_AUTHENTICATION = TRUE and \
                     SQLNET.AUTHENTICATION_SERVICES = (TCPS).\n"
                );
            }
            Self::Apart => {
                "Have the database use the .key and .crt files for TLS, and verify certificates of clients with the \
                 authorities in the .cas file."
            }
            Self::Mongo => {
                "Have MongoDB use the .crt file as net.tls.certificateKeyFile and the .cas file as net.tls.CAFile."
            }
            Self::Cockroach => "Start CockroachDB with --certs-dir set to this folder.",
        }
        .to_owned()
    }

    /// What the server's certificate says, of the given names.
    fn subject(self, cluster: &str, names: &[String]) -> DistinguishedName {
        let mut subject = DistinguishedName::new();
        if self == Self::Mongo {
            // Members of a replica set recognise each other by it.
            subject.push(oid::ORGANIZATION, cluster);
        }
        subject.push(oid::COMMON_NAME, names.first().map(String::as_str).unwrap_or_default());
        subject
    }
}

/// Key and certificate of a database server, and the authorities it is to trust; key stores have this password.
pub async fn files(api: &Api, layout: Layout, hosts: &[String], ttl: Duration, password: &str) -> Result<Files> {
    let mut names = hosts.to_vec();
    if layout == Layout::Cockroach && !names.iter().any(|name| name == COCKROACH_NODE) {
        names.insert(0, COCKROACH_NODE.to_owned());
    }
    // Not every database knows other keys.
    let key = PrivateKey::generate(KeyAlgorithm::Rsa2048)?;
    let request = DatabaseCertRequest {
        csr: CertificateRequest::make(&layout.subject(api.cluster(), &names), &key)?.into_bytes(),
        server_name: names.first().cloned().unwrap_or_default(),
        server_names: names,
        ttl: i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX),
        requester_name: Requester::Tctl as i32,
        ..Default::default()
    };
    let signed = api.auth().generate_database_cert(request).within("signing the certificate").await?;
    let (pem, clients) = (key.to_pem()?, signed.ca_certs.concat());
    let mut files = Files::default();
    match layout {
        Layout::Apart => {
            files.add(".key", pem.as_bytes());
            files.add(".crt", signed.cert);
            files.add(".cas", clients);
        }
        Layout::Mongo => {
            files.add(".crt", [signed.cert.as_slice(), pem.as_bytes()].concat());
            files.add(".cas", clients);
        }
        Layout::Cockroach => {
            files.add("/node.crt", signed.cert);
            files.add("/node.key", pem.as_bytes());
            files.add("/ca.crt", servers(api).await?);
            files.add("/ca-client.crt", clients);
        }
        Layout::Cassandra => {
            let own = key_store::with_key(CASSANDRA, &key, &signed.cert, Dialect::Java, password)?;
            files.add(".keystore", own);
            files.add(".truststore", key_store::with_authorities(CASSANDRA, &clients, password)?);
        }
        Layout::Oracle => {
            files.add(".p12", key_store::with_key(ORACLE, &key, &signed.cert, Dialect::Oracle, password)?);
            let single = signed.ca_certs.len() == 1;
            for (number, authority) in signed.ca_certs.into_iter().enumerate() {
                let suffix = if single { ".ca-client.crt".to_owned() } else { format!(".ca-client-{number}.crt") };
                files.add(suffix, authority);
            }
        }
    }
    Ok(files)
}

/// What vouches for databases towards each other.
async fn servers(api: &Api) -> Result<Vec<u8>> {
    let request = GetCertAuthorityRequest {
        r#type: CaType::Database.as_str().to_owned(),
        domain: api.cluster().to_owned(),
        include_key: false,
    };
    let authority = api.trust().get_cert_authority(request).within("reading an authority").await?;
    let spec = authority.spec.unwrap_or_default();
    let sets = spec.active_keys.into_iter().chain(spec.additional_trusted_keys);
    Ok(sets.flat_map(|keys| keys.tls).flat_map(|pair| pair.cert).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_a_mongodb_server_names_the_cluster() {
        let names = ["db.example.com".to_owned()];
        let subject = Layout::Mongo.subject("example.com", &names);
        assert_eq!(subject.first(oid::ORGANIZATION), Some("example.com"));
        assert_eq!(Layout::Apart.subject("example.com", &names).first(oid::ORGANIZATION), None);
        assert_eq!(subject.first(oid::COMMON_NAME), Some("db.example.com"));
    }
}
