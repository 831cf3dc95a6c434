//! `auth sign`.

use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use clap::{ArgGroup, Args, ValueEnum};
use client::keys::{KeyRing, TrustedCluster};
use pki::keys::{KeyAlgorithm, PrivateKey, PublicKey};
use pki::ssh_cert;
use pki::x509::Certificate;
use resources::kind;
use wire::error::ErrorKind;
use wire::proto::{Certs, UserCertsRequest};
use wire::trust::GetCertAuthoritiesRequest;
use wire::types::CertAuthorityV2;

use super::files::{Files, Target};
use super::sign_database::{self, Layout};
use super::sign_route::Route;
use super::sign_windows::Windows;
use super::{key_store, kubeconfig, sign_host};
use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{complain, say, time};

/// Make credentials for a user or a host.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("whom").required(true).args(["user", "host", "windows_user"])))]
pub struct Sign {
    /// The user who gets them.
    #[arg(long)]
    user: Option<String>,
    /// Names and addresses of the host that gets them, separated by commas.
    #[arg(long, value_delimiter = ',')]
    host: Vec<String>,
    /// Where to write; endings are added where there are several files.
    #[arg(short, long, value_name = "PATH")]
    out: PathBuf,
    /// What to write.
    #[arg(long, value_enum, default_value_t = Format::File)]
    format: Format,
    /// How long the credentials of a user or a database last.
    #[arg(long, value_name = "DURATION", default_value = "12h")]
    ttl: String,
    /// Form of SSH certificates: standard, or oldssh for OpenSSH before 7.4.
    #[arg(long, value_name = "FORM", value_parser = ["standard", "oldssh"])]
    compat: Option<String>,
    /// Address of the proxy, for files that name it.
    #[arg(long, value_name = "ADDRESS")]
    proxy: Option<String>,
    /// Replace files without asking.
    #[arg(long)]
    overwrite: bool,
    /// Write an archive of the files to standard output.
    #[arg(long)]
    tar: bool,
    /// The cluster to which the credentials lead.
    #[arg(long, value_name = "CLUSTER")]
    leaf_cluster: Option<String>,
    /// The Kubernetes cluster to which the credentials lead.
    #[arg(long, value_name = "NAME")]
    kube_cluster_name: Option<String>,
    #[command(flatten)]
    route: Route,
    #[command(flatten)]
    windows: Windows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    File,
    #[value(name = "openssh")]
    OpenSsh,
    Tls,
    Kubernetes,
    Db,
    Windows,
    #[value(name = "mongodb")]
    MongoDb,
    #[value(name = "cockroachdb")]
    CockroachDb,
    Redis,
    Snowflake,
    Elasticsearch,
    Cassandra,
    Scylla,
    Oracle,
}

impl Format {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What is added to the path of the output.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::OpenSsh => &["", "-cert.pub"],
            Self::Tls => &[".key", ".crt", ".cas"],
            Self::Snowflake => &[".pub"],
            Self::MongoDb => &[".crt", ".cas"],
            Self::CockroachDb => sign_database::COCKROACH_FILES,
            Self::Cassandra => &[".keystore", ".truststore"],
            Self::Oracle => &[".p12", ".ca-client.crt"],
            Self::Db | Self::Redis | Self::Elasticsearch | Self::Scylla => &[".key", ".crt", ".cas"],
            _ => &[""],
        }
    }

    /// How a database that this is the form of takes its files.
    fn layout(self) -> Option<Layout> {
        match self {
            Self::Db | Self::Redis | Self::Elasticsearch | Self::Scylla => Some(Layout::Apart),
            Self::MongoDb => Some(Layout::Mongo),
            Self::CockroachDb => Some(Layout::Cockroach),
            Self::Cassandra => Some(Layout::Cassandra),
            Self::Oracle => Some(Layout::Oracle),
            _ => None,
        }
    }
}

impl Sign {
    /// Makes the credentials and writes them.
    pub async fn run(self, api: &Api) -> Result<()> {
        let ttl = time::lifetime(&self.ttl)?;
        self.check_route()?;
        let target = Target { path: self.out.clone(), overwrite: self.overwrite, tar: self.tar };
        let password = key_store::password();
        let files = match (&self.user, self.format) {
            (None, Format::Windows) => {
                target.check(&self.windows.suffixes()?)?;
                self.windows.files(api, ttl).await?
            }
            (Some(user), Format::File | Format::OpenSsh | Format::Tls | Format::Kubernetes) => {
                target.check(self.format.suffixes())?;
                self.user_files(api, user, ttl).await?
            }
            (None, Format::OpenSsh) => {
                target.check(self.format.suffixes())?;
                sign_host::ssh(api, &self.hosts()?).await?
            }
            (None, Format::Snowflake) => {
                target.check(self.format.suffixes())?;
                sign_host::snowflake(api).await?
            }
            (None, Format::File | Format::Tls | Format::Kubernetes) => {
                return Err(Error::bad(format!("--format={} goes with --user", self.format.name())));
            }
            (user, format) => match (user, format.layout()) {
                (None, Some(layout)) => {
                    target.check(format.suffixes())?;
                    sign_database::files(api, layout, &self.hosts()?, ttl, &password).await?
                }
                _ => return Err(Error::bad(format!("--format={} goes with --host", format.name()))),
            },
        };
        let written = target.write(&files)?;
        if !written.is_empty() {
            let paths: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
            say(&format!("The credentials have been written to {}\n", paths.join(", ")));
        }
        if let Some(layout) = self.format.layout() {
            let advice = layout.advice(&self.out.display().to_string(), &password);
            // An archive has the standard output for itself.
            if written.is_empty() { complain(&advice) } else { say(&advice) }
        }
        Ok(())
    }

    fn check_route(&self) -> Result<()> {
        if self.windows.is_some() != (self.format == Format::Windows) {
            return Err(Error::bad("--format=windows goes with --windows-user and --windows-domain"));
        }
        let takes = self.user.is_some() && matches!(self.format, Format::File | Format::Tls);
        if self.route.is_some() && !takes {
            return Err(Error::bad("--app-name and --db-service go with --user and --format=file or tls"));
        }
        Ok(())
    }

    fn hosts(&self) -> Result<Vec<String>> {
        let hosts: Vec<String> = self.host.iter().map(|h| h.trim().to_owned()).filter(|h| !h.is_empty()).collect();
        if hosts.is_empty() { Err(Error::bad("--host names no host")) } else { Ok(hosts) }
    }

    async fn user_files(&self, api: &Api, user: &str, ttl: Duration) -> Result<Files> {
        // One key for both certificates: an identity file has room for one.
        let key = PrivateKey::generate(KeyAlgorithm::EcdsaP256)?;
        let certs = self.certificates(api, user, &key, ttl).await?;
        let keys = KeyRing {
            ssh_certificate: ssh_cert::from_line(&String::from_utf8_lossy(&certs.ssh))?,
            tls_certificate: Certificate::from_pem(&String::from_utf8_lossy(&certs.tls))?,
            trusted: trusted(api).await?,
            ssh_key: key.clone(),
            tls_key: key,
        };
        let pem = keys.tls_key.to_pem()?;
        let authorities = || keys.tls_authorities().iter().map(Certificate::to_pem).collect::<String>();
        let mut files = Files::default();
        match self.format {
            Format::OpenSsh => {
                files.add("", pem.as_bytes());
                files.add("-cert.pub", ssh_cert::to_line(&keys.ssh_certificate)?);
            }
            Format::Tls => {
                files.add(".key", pem.as_bytes());
                files.add(".crt", keys.tls_certificate.to_pem());
                files.add(".cas", authorities());
            }
            Format::Kubernetes => {
                let proxy = self.proxy(api).await?;
                files.add("", kubeconfig::text(&keys, api.cluster(), self.kube_cluster_name.as_deref(), &proxy)?);
            }
            _ => files.add("", keys.to_identity_file().to_text()?.as_bytes()),
        }
        Ok(files)
    }

    async fn certificates(&self, api: &Api, user: &str, key: &PrivateKey, ttl: Duration) -> Result<Certs> {
        let mut request = UserCertsRequest {
            ssh_public_key: key.public().to_ssh_line().into_bytes(),
            tls_public_key: key.public().to_pem().into_bytes(),
            username: user.to_owned(),
            expires: Some(wire::time::timestamp(time::after(Utc::now(), ttl)?)),
            format: self.compat.clone().unwrap_or_default(),
            route_to_cluster: self.leaf_cluster.clone().unwrap_or_else(|| api.cluster().to_owned()),
            kubernetes_cluster: self.kube_cluster_name.clone().unwrap_or_default(),
            ..Default::default()
        };
        self.route.narrow(api, &mut request).await?;
        let answer = api.auth().generate_user_certs(request).within("signing the certificates").await;
        match answer {
            Ok(certs) if certs.ssh.is_empty() || certs.tls.is_empty() => {
                Err(Error::other("the Auth Service did not sign both certificates"))
            }
            // The reason is more often a misspelt name than a missing right.
            Err(error) if error.kind() == ErrorKind::AccessDenied && !is_known(api, user).await => {
                Err(Error::not_found(format!("user {user:?} not found")))
            }
            other => other,
        }
    }

    /// Address of the proxy: as given, or as the cluster knows it.
    async fn proxy(&self, api: &Api) -> Result<String> {
        match &self.proxy {
            Some(proxy) => Ok(proxy.clone()),
            None => match api.ping().await?.proxy_public_addr {
                address if address.is_empty() => {
                    Err(Error::bad("the cluster does not know the public address of its proxy: add --proxy=<address>"))
                }
                address => Ok(address),
            },
        }
    }
}

/// Whether a user exists, for somebody who may know; otherwise yes.
async fn is_known(api: &Api, user: &str) -> bool {
    let reference = resources::Reference { kind: kind::USER.to_owned(), sub_kind: None, name: Some(user.to_owned()) };
    let found = crate::resource::get(api, &reference, Default::default()).await;
    !found.is_err_and(|error| error.is_not_found())
}

/// Host authorities of all clusters, this one first.
async fn trusted(api: &Api) -> Result<Vec<TrustedCluster>> {
    let request = GetCertAuthoritiesRequest { r#type: "host".to_owned(), include_key: false };
    let found = api.trust().get_cert_authorities(request).within("reading the host authorities").await?;
    let mut clusters = found.cert_authorities_v2.into_iter().map(cluster).collect::<Result<Vec<_>>>()?;
    clusters.sort_by_key(|trusted| (trusted.name != api.cluster(), trusted.name.clone()));
    Ok(clusters)
}

/// What the authorities of one cluster are.
fn cluster(authority: CertAuthorityV2) -> Result<TrustedCluster> {
    let spec = authority.spec.unwrap_or_default();
    let mut trusted = TrustedCluster { name: spec.cluster_name, ..Default::default() };
    for keys in spec.active_keys.iter().chain(&spec.additional_trusted_keys) {
        for pair in &keys.ssh {
            trusted.ssh_keys.push(PublicKey::from_ssh_line(String::from_utf8_lossy(&pair.public_key).trim())?);
        }
        for pair in &keys.tls {
            trusted.tls_certificates.extend(Certificate::bundle_from_pem(&String::from_utf8_lossy(&pair.cert))?);
        }
    }
    Ok(trusted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        sign: Sign,
    }

    fn said(line: &str) -> String {
        Line::try_parse_from(line.split(' ')).unwrap_err().to_string()
    }

    #[test]
    fn credentials_are_for_a_user_or_a_host() {
        let text = said("sign --out=x");
        assert!(text.contains("--user") && text.contains("--host"), "{text}");
        assert!(said("sign --out=x --user=a --host=b").contains("cannot be used with"));
        let text = said("sign --out=x --user=a --format=bogus");
        assert!(text.contains("bogus") && text.contains("--format"), "{text}");
        assert!(said("sign --out=x --user=a --app-name=b --db-service=c").contains("cannot be used with"));
        assert!(said("sign --out=x --user=a --db-user=b").contains("--db-service"));
    }

    #[tokio::test]
    async fn credentials_for_one_service_are_those_of_a_user() {
        let api = crate::testing::Service::default().api();
        for (line, said) in [
            ("sign --out=x --host=h --app-name=a", "go with --user"),
            ("sign --out=x --user=u --format=openssh --db-service=d", "go with --user"),
            ("sign --out=x --windows-user=w --windows-domain=d", "--format=windows goes with"),
            ("sign --out=x --host=h --format=windows", "--format=windows goes with"),
            ("sign --out=x --windows-user=w --format=windows", "--windows-domain"),
            ("sign --out=x --user=u --format=cassandra", "goes with --host"),
        ] {
            let line = Line::try_parse_from(line.split(' ')).unwrap();
            let error = line.sign.run(&api).await.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn hosts_are_a_list() {
        let line = Line::try_parse_from(["sign", "--out=x", "--host=a, b,,10.0.0.1"]).unwrap();
        assert_eq!(line.sign.hosts().unwrap(), ["a", "b", "10.0.0.1"]);
    }
}
