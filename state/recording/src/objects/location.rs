//! Addresses of object stores: `s3://bucket/path?region=…` and the like.

use std::sync::Arc;

use object_store::{
    ObjectStore,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
    path::Path,
};
use url::Url;

use crate::SessionId;

/// The container of an Azure account for complete recordings.
const AZURE_CONTAINER: &str = "session";
/// The region of stores that have none.
const DEFAULT_REGION: &str = "us-east-1";

/// A place in an object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectLocation {
    kind: Kind,
    /// What is before the name of a recording.
    prefix: Path,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    S3(S3),
    Google { bucket: String, endpoint: Option<String>, credentials: Option<String> },
    Azure { host: String, container: String, plain: bool },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct S3 {
    bucket: String,
    region: Option<String>,
    endpoint: Option<String>,
    /// HTTP instead of HTTPS.
    insecure: bool,
    /// Not encrypted by the store.
    plain: bool,
    key: Option<String>,
    fips: bool,
}

/// Why an address is not one of an object store.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LocationError {
    /// It is none at all.
    #[error("{0:?}: expected s3://bucket/path, gs://bucket/path or azblob://account.blob.core.windows.net")]
    Address(String),
    /// An option that it does not have.
    #[error("{scheme}:// has no option {name:?}")]
    Unknown {
        /// The kind of store.
        scheme: String,
        /// The option.
        name: String,
    },
    /// An option that this build does not follow, and must not pass over.
    #[error("{scheme}:// option {name}: {reason}")]
    NotFollowed {
        /// The kind of store.
        scheme: String,
        /// The option.
        name: String,
        /// Why.
        reason: &'static str,
    },
}

impl ObjectLocation {
    /// The schemes of object stores.
    pub const SCHEMES: [&str; 4] = ["s3", "gs", "azblob", "azblob-http"];

    /// Reads an address.
    ///
    /// # Errors
    ///
    /// [`LocationError`]; what is not followed is refused by name.
    pub fn parse(address: &str) -> Result<Self, LocationError> {
        let wrong = || LocationError::Address(address.to_owned());
        let url = Url::parse(address).map_err(|_| wrong())?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?.to_owned();
        let mut prefix = Path::from(url.path().trim_matches('/'));
        let kind = match url.scheme() {
            "s3" => Kind::S3(S3::read(&url, host)?),
            "gs" => {
                let (mut endpoint, mut credentials) = (None, None);
                for (name, value) in url.query_pairs() {
                    match &*name {
                        "endpoint" => endpoint = Some(value.into_owned()),
                        "credentialsPath" => credentials = Some(value.into_owned()),
                        "path" => prefix = Path::from(value.trim_matches('/')),
                        "projectID" => {} // says who pays for making the bucket, which is not done here
                        "keyName" => {
                            return Err(not_followed(&url, "keyName", "set the key as the bucket's default instead"));
                        }
                        _ => return Err(unknown(&url, &name)),
                    }
                }
                Kind::Google { bucket: host, endpoint, credentials }
            }
            scheme @ ("azblob" | "azblob-http") => {
                let mut container = AZURE_CONTAINER.to_owned();
                let fragment = url.fragment().unwrap_or_default();
                for (name, value) in url::form_urlencoded::parse(fragment.as_bytes()).chain(url.query_pairs()) {
                    match &*name {
                        "session_container" => container = value.into_owned(),
                        "inprogress_container" => {} // what is under way is in a folder here
                        _ => return Err(unknown(&url, &name)),
                    }
                }
                let host = url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
                Kind::Azure { host, container, plain: scheme == "azblob-http" }
            }
            _ => return Err(wrong()),
        };
        Ok(Self { kind, prefix })
    }

    /// The store itself. Credentials come from the environment, the platform's metadata service, or the files that the
    /// environment names.
    pub(super) fn store(&self) -> object_store::Result<Arc<dyn ObjectStore>> {
        Ok(match &self.kind {
            Kind::S3(s3) => Arc::new(s3.builder().build()?),
            Kind::Google { bucket, endpoint, credentials } => {
                let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
                if let Some(endpoint) = endpoint {
                    builder = builder.with_base_url(endpoint);
                }
                if let Some(path) = credentials {
                    builder = builder.with_service_account_path(path);
                }
                Arc::new(builder.build()?)
            }
            Kind::Azure { host, container, plain } => {
                let account = host.split('.').next().unwrap_or_default();
                let scheme = if *plain { "http" } else { "https" };
                let builder = MicrosoftAzureBuilder::from_env()
                    .with_account(account)
                    .with_container_name(container)
                    .with_endpoint(format!("{scheme}://{host}"))
                    .with_allow_http(*plain);
                Arc::new(builder.build()?)
            }
        })
    }

    /// What an S3 store is made with.
    #[cfg(test)]
    pub(super) fn s3(&self) -> Option<AmazonS3Builder> {
        match &self.kind {
            Kind::S3(s3) => Some(s3.builder()),
            _ => None,
        }
    }

    /// The object of a session's recording.
    pub(super) fn object(&self, session: SessionId) -> Path {
        match self.kind {
            Kind::Azure { .. } => self.prefix.clone().join(session.to_string()),
            _ => self.prefix.clone().join(format!("{session}.tar")),
        }
    }

    /// Where a recording is, for people and for the audit log.
    pub(super) fn url(&self, session: SessionId) -> String {
        let with = |name: String| self.prefix.clone().join(name);
        match &self.kind {
            Kind::S3(s3) => format!("s3://{}/{}", s3.bucket, with(session.to_string())),
            Kind::Google { bucket, .. } => format!("gs://{bucket}/{}", with(format!("{session}.tar"))),
            Kind::Azure { host, container, plain } => {
                let scheme = if *plain { "http" } else { "https" };
                format!("{scheme}://{host}/{container}/{}", with(session.to_string()))
            }
        }
    }
}

impl S3 {
    fn read(url: &Url, bucket: String) -> Result<Self, LocationError> {
        let mut s3 = Self { bucket, ..Self::default() };
        for (name, value) in url.query_pairs() {
            let on = || matches!(&*value, "true" | "1" | "yes");
            let text = || Some(value.clone().into_owned()).filter(|value| !value.is_empty());
            match &*name {
                "region" => s3.region = text(),
                "endpoint" => s3.endpoint = text(),
                "insecure" => s3.insecure = on(),
                "disablesse" => s3.plain = on(),
                "sse_kms_key" => s3.key = text(),
                "use_fips_endpoint" => s3.fips = on(),
                "acl" => return Err(not_followed(url, "acl", "set the bucket's own access rules instead")),
                _ => return Err(unknown(url, &name)),
            }
        }
        Ok(s3)
    }

    fn builder(&self) -> AmazonS3Builder {
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&self.bucket).with_allow_http(self.insecure);
        let in_environment = std::env::var("AWS_REGION").or_else(|_| std::env::var("AWS_DEFAULT_REGION"));
        let region = self.region.clone().or(in_environment.ok()).unwrap_or_else(|| DEFAULT_REGION.to_owned());
        match &self.endpoint {
            Some(endpoint) if endpoint.contains("://") => builder = builder.with_endpoint(endpoint),
            Some(endpoint) => {
                let scheme = if self.insecure { "http" } else { "https" };
                builder = builder.with_endpoint(format!("{scheme}://{endpoint}"));
            }
            None if self.fips => builder = builder.with_endpoint(format!("https://s3-fips.{region}.amazonaws.com")),
            None => {}
        }
        builder = builder.with_region(region);
        match (&self.key, self.plain) {
            (Some(key), _) => builder.with_sse_kms_encryption(key),
            (None, true) => builder,
            (None, false) => match "aws_server_side_encryption".parse::<AmazonS3ConfigKey>() {
                Ok(option) => builder.with_config(option, "aws:kms"),
                Err(_) => builder,
            },
        }
    }
}

fn unknown(url: &Url, name: &str) -> LocationError {
    LocationError::Unknown { scheme: url.scheme().to_owned(), name: name.to_owned() }
}

fn not_followed(url: &Url, name: &str, reason: &'static str) -> LocationError {
    LocationError::NotFollowed { scheme: url.scheme().to_owned(), name: name.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn recordings_have_the_names_that_other_programs_expect() {
        let session: SessionId = "7e1a0c1e-3d0a-4a1b-9c3e-5a2f6d7b8c90".parse().unwrap();
        for (address, object, url) in [
            ("s3://bucket/a/b?region=eu-central-1", "a/b/{}.tar", "s3://bucket/a/b/{}"),
            ("s3://bucket?endpoint=minio:9000&insecure=true&disablesse=true", "{}.tar", "s3://bucket/{}"),
            ("gs://bucket?projectID=p&path=a", "a/{}.tar", "gs://bucket/a/{}.tar"),
            ("azblob://acc.blob.core.windows.net", "{}", "https://acc.blob.core.windows.net/session/{}"),
            ("azblob-http://127.0.0.1:10000#session_container=s", "{}", "http://127.0.0.1:10000/s/{}"),
        ] {
            let location = ObjectLocation::parse(address).unwrap();
            let with_id = |text: &str| text.replace("{}", &session.to_string());
            assert_eq!(location.object(session).to_string(), with_id(object), "{address}");
            assert_eq!(location.url(session), with_id(url), "{address}");
        }
    }

    #[test]
    fn what_is_not_followed_is_refused_by_name() {
        for (address, word) in [
            ("s3://", "s3://bucket"),
            ("s3://b?regoin=x", "regoin"),
            ("s3://b?acl=public-read", "acl"),
            ("gs://b?keyName=k", "keyName"),
            ("azblob://a.b.c#x=1", "\"x\""),
            ("ftp://b", "ftp"),
            ("nonsense", "nonsense"),
        ] {
            let said = ObjectLocation::parse(address).unwrap_err().to_string();
            assert!(said.contains(word), "{said}");
        }
    }
}
