//! `auth crl`.

use clap::{Args, ValueEnum};
use wire::proto::CertAuthorityRequest;

use crate::api::{Api, Call};
use crate::error::Result;
use crate::output::{is_terminal, raw, say};

/// Write an empty list of revoked certificates.
#[derive(Args, Debug)]
pub struct Crl {
    /// Whose list.
    #[arg(long = "type", value_enum)]
    authority: Issuer,
    /// How to write it [default: DER, PEM on a terminal].
    #[arg(long, value_enum)]
    format: Option<Encoding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Issuer {
    Host,
    #[value(name = "db")]
    Db,
    #[value(name = "db_client", alias = "db-client")]
    DbClient,
    User,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Encoding {
    Der,
    Pem,
}

impl Crl {
    /// Writes it to standard output.
    pub async fn run(self, api: &Api) -> Result<()> {
        let name = match self.authority {
            Issuer::Host => "host",
            Issuer::Db => "db",
            Issuer::DbClient => "db_client",
            Issuer::User => "user",
        };
        let request = CertAuthorityRequest { r#type: name.to_owned() };
        let answer = api.auth().generate_cert_authority_crl(request).within("making the list").await?;
        let default = if is_terminal() { Encoding::Pem } else { Encoding::Der };
        match self.format.unwrap_or(default) {
            Encoding::Der => raw(&answer.crl),
            Encoding::Pem => say(&pki::pem::encode("X509 CRL", &answer.crl)),
        }
        Ok(())
    }
}
