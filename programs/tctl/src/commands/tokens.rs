//! `tokens`.

use std::time::Duration;

use chrono::Utc;
use clap::{Args, Subcommand};
use rand::RngExt;
use resources::{AnyResource, Resource, SystemRole};
use serde::Serialize;
use wire::proto::{CreateTokenV2Request, create_token_v2_request};
use wire::types::{Metadata, ProvisionTokenSpecV2, ProvisionTokenV2, ResourceRequest};

use super::labels;
use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{self, Format, say, time};
use crate::resource::tokens_table;

/// How long a token lets services in when nothing is said.
pub const DEFAULT_TTL: &str = "30m";

/// Manage tokens that let services join the cluster.
#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Make a token.
    #[command(alias = "create")]
    Add(Add),
    /// List tokens, also those of invitations.
    #[command(alias = "list")]
    Ls(Ls),
    /// Remove tokens.
    #[command(aliases = ["del", "delete"])]
    Rm(Rm),
}

/// Make a token.
#[derive(Args, Debug)]
pub struct Add {
    /// What may join with it: node, app, db, kube, proxy, discovery, windowsdesktop, bot, trusted_cluster…
    #[arg(long = "type", required = true, value_name = "TYPES")]
    types: String,
    /// The token itself [default: a random one].
    #[arg(long)]
    value: Option<String>,
    /// Labels of the token, as key=value,key2=value2.
    #[arg(long)]
    labels: Option<String>,
    /// How long it can be used.
    #[arg(long, value_name = "DURATION", default_value = DEFAULT_TTL)]
    ttl: String,
    /// How to show it; `text` is the token alone [default: what to do with it].
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// For an application: its name.
    #[arg(long, requires = "app_uri")]
    app_name: Option<String>,
    /// For an application: where it is.
    #[arg(long, requires = "app_name")]
    app_uri: Option<String>,
    /// For a database: its name.
    #[arg(long, requires = "db_uri")]
    db_name: Option<String>,
    /// For a database: its protocol.
    #[arg(long, requires = "db_name")]
    db_protocol: Option<String>,
    /// For a database: where it is.
    #[arg(long, requires = "db_name")]
    db_uri: Option<String>,
}

/// List tokens.
#[derive(Args, Debug)]
pub struct Ls {
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Remove tokens.
#[derive(Args, Debug)]
pub struct Rm {
    /// The tokens.
    #[arg(required = true, value_name = "TOKEN")]
    tokens: Vec<String>,
}

impl Tokens {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Add(command) => command.run(api).await,
            Self::Ls(command) => command.run(api).await,
            Self::Rm(command) => command.run(api).await,
        }
    }
}

/// A token for programs.
#[derive(Serialize)]
struct Made<'a> {
    token: &'a str,
    roles: &'a [String],
    expires: String,
}

impl Add {
    async fn run(self, api: &Api) -> Result<()> {
        let roles = self.roles()?;
        let labels = self.labels.as_deref().map(labels::parse).transpose()?.unwrap_or_default();
        let ttl = time::lifetime(&self.ttl)?;
        let value = match &self.value {
            Some(value) if value.trim().is_empty() => return Err(Error::bad("--value is empty")),
            Some(value) => value.clone(),
            None => random_token(),
        };
        let token = create(api, value, &roles, labels, ttl).await?;
        let made = Made {
            token: token.name(),
            roles: &token.spec.as_ref().map(|spec| spec.roles.clone()).unwrap_or_default(),
            expires: token.expires().map(time::exact).unwrap_or_default(),
        };
        match self.format {
            Some(Format::Text) => say(&format!("{}\n", token.name())),
            Some(Format::Json) => say(&output::json(&made, 1)?),
            Some(Format::Yaml) => say(&output::yaml(&made)?),
            None => {
                let place = Place::of(api).await?;
                say(&self.instructions(token.name(), &roles, ttl, &place));
            }
        }
        Ok(())
    }

    fn roles(&self) -> Result<Vec<SystemRole>> {
        let mut roles = SystemRole::parse_list(&self.types).map_err(|e| Error::bad(format!("--type: {e}")))?;
        // A Kubernetes agent finds clusters and the applications in them.
        if roles == [SystemRole::Kube] {
            roles.extend([SystemRole::App, SystemRole::Discovery]);
        }
        match roles.is_empty() {
            true => Err(Error::bad("--type names no type of service")),
            false => Ok(roles),
        }
    }

    fn instructions(&self, token: &str, roles: &[SystemRole], ttl: Duration, place: &Place) -> String {
        let names: Vec<String> = roles.iter().map(|role| role.name().to_lowercase()).collect();
        let life = time::short(ttl);
        let head = format!("The invite token: {token}\nIt lets in: {}. It expires in {life}.\n\n", names.join(", "));
        let command = |roles: &str, more: &[String]| place.start(roles, token, more);
        let body = match roles {
            [SystemRole::TrustedCluster] => trusted_cluster(token, place),
            [SystemRole::App] => {
                let more = [
                    format!("--app-name={}", self.app_name.as_deref().unwrap_or("<name>")),
                    format!("--app-uri={}", self.app_uri.as_deref().unwrap_or("<address of the application>")),
                ];
                format!("Run this where the application can be reached:\n\n{}", command("app", &more))
            }
            [SystemRole::Db] => {
                let more = [
                    format!("--db-name={}", self.db_name.as_deref().unwrap_or("<name>")),
                    format!("--db-protocol={}", self.db_protocol.as_deref().unwrap_or("<protocol>")),
                    format!("--db-uri={}", self.db_uri.as_deref().unwrap_or("<address of the database>")),
                ];
                format!("Run this where the database can be reached:\n\n{}", command("db", &more))
            }
            _ => format!("Run this on the new host to join the cluster:\n\n{}", command(&names.join(","), &[])),
        };
        format!("{head}{body}\n{}", place.notes(&life))
    }
}

/// What a new host has to know about the cluster.
pub struct Place {
    cluster: String,
    proxy: String,
    auth: String,
    pins: Vec<String>,
}

impl Place {
    /// Asks the cluster.
    pub async fn of(api: &Api) -> Result<Self> {
        let ping = api.ping().await?;
        let servers = api.http().get::<Vec<wire::types::ServerV2>>("/v2/authservers").await.unwrap_or_default();
        let auth = servers.into_iter().find_map(|s| s.spec.map(|spec| spec.addr)).unwrap_or_default();
        Ok(Self { cluster: ping.cluster_name, proxy: ping.proxy_public_addr, auth, pins: api.pins().await? })
    }

    /// The command that starts a service there.
    pub fn start(&self, roles: &str, token: &str, more: &[String]) -> String {
        let mut arguments = vec![format!("--roles={roles}"), format!("--token={token}")];
        arguments.extend(self.pins.iter().map(|pin| format!("--ca-pin={pin}")));
        arguments.push(format!("--auth-server={}", self.server()));
        arguments.extend(more.iter().cloned());
        format!("> teleport start \\\n   {}\n", arguments.join(" \\\n   "))
    }

    /// The command that starts a bot there.
    pub fn tbot(&self, token: &str) -> String {
        let mut arguments = vec!["--destination-dir=./tbot-user".to_owned(), format!("--token={token}")];
        arguments.extend(self.pins.iter().map(|pin| format!("--ca-pin={pin}")));
        arguments.push(format!("--proxy-server={}", self.server()));
        arguments.push("--join-method=token".to_owned());
        format!("> tbot start identity \\\n   {}\n", arguments.join(" \\\n   "))
    }

    /// Where a new host connects to: a proxy can be reached from everywhere, so it comes first.
    fn server(&self) -> &str {
        match (self.proxy.as_str(), self.auth.as_str()) {
            ("", "") => "<address of the proxy or the Auth Service>",
            ("", auth) => auth,
            (proxy, _) => proxy,
        }
    }

    fn notes(&self, life: &str) -> String {
        format!(
            "Please note:\n\n  - This token expires in {life}.\n  - The host must be able to reach {}.\n  \
             - The pin changes when the host authority of {} is rotated.\n",
            self.server(),
            self.cluster
        )
    }
}

fn trusted_cluster(token: &str, place: &Place) -> String {
    format!(
        "Create this resource on the cluster that is to be reached through this one:\n\n\
         kind: trusted_cluster\nversion: v2\nmetadata:\n  name: {}\nspec:\n  enabled: true\n  token: {token}\n  \
         web_proxy_addr: {}\n  role_map:\n  - remote: access\n    local: [access]\n",
        place.cluster,
        place.server()
    )
}

/// Makes a token in the cluster.
///
/// # Errors
/// `AlreadyExists` when there is one with this value.
pub async fn create(
    api: &Api,
    value: String,
    roles: &[SystemRole],
    labels: std::collections::BTreeMap<String, String>,
    ttl: Duration,
) -> Result<ProvisionTokenV2> {
    let expires = Some(wire::time::timestamp(time::after(Utc::now(), ttl)?));
    let mut token = ProvisionTokenV2 {
        metadata: Some(Metadata { name: value, labels, expires, ..Default::default() }),
        spec: Some(ProvisionTokenSpecV2 {
            roles: roles.iter().map(|role| role.name().to_owned()).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    token.check_and_set_defaults()?;
    let request = CreateTokenV2Request { token: Some(create_token_v2_request::Token::V2(token.clone())) };
    api.auth().create_token_v2(request).within("making the token").await?;
    Ok(token)
}

/// 128 random bits.
pub fn random_token() -> String {
    let bytes: [u8; 16] = rand::rng().random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Ls {
    async fn run(self, api: &Api) -> Result<()> {
        let mut tokens = api.auth().get_tokens(()).within("listing tokens").await?.provision_tokens;
        // Those that end first come first, those that never end last.
        tokens.sort_by_key(|token| (token.expires().is_none(), token.expires(), token.name().to_owned()));
        let found: Vec<AnyResource> = tokens.iter().cloned().map(Into::into).collect();
        say(&output::resources(&found, self.format, || tokens_table(&tokens, Utc::now()).full())?);
        Ok(())
    }
}

impl Rm {
    async fn run(self, api: &Api) -> Result<()> {
        for name in self.tokens {
            let request = ResourceRequest { name: name.clone() };
            api.auth().delete_token(request).within("removing the token").await?;
            say(&format!("Token {} has been deleted\n", output::text::line(&name)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        tokens: Tokens,
    }

    fn add(line: &str) -> Add {
        match Line::try_parse_from(line.split(' ')).unwrap().tokens {
            Tokens::Add(add) => add,
            other => panic!("{other:?}"),
        }
    }

    fn place() -> Place {
        Place {
            cluster: "main.test".into(),
            proxy: "proxy.test:443".into(),
            auth: "127.0.0.1:3025".into(),
            pins: vec!["sha256:aa".into(), "sha256:bb".into()],
        }
    }

    #[test]
    fn the_text_says_how_to_join() {
        let add = add("tokens add --type=node --ttl=25m");
        let text = add.instructions("secret", &add.roles().unwrap(), Duration::from_secs(1500), &place());
        for part in [
            "25m",
            "teleport start",
            "--roles=node",
            "--token=secret",
            "--ca-pin=sha256:aa",
            "--ca-pin=sha256:bb",
            "proxy.test:443",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_trusted_cluster_is_told_as_a_resource() {
        let add = add("tokens add --type=trusted_cluster");
        let text = add.instructions("secret", &add.roles().unwrap(), Duration::from_secs(1500), &place());
        assert!(text.contains("kind: trusted_cluster") && text.contains("token: secret"), "{text}");
    }

    #[test]
    fn unknown_types_are_named() {
        for line in ["tokens add --type=nonsense", "tokens add --type=node,nonsense"] {
            assert!(add(line).roles().unwrap_err().to_string().contains("nonsense"));
        }
        assert_eq!(add("tokens add --type=kube").roles().unwrap().len(), 3);
    }

    #[test]
    fn random_tokens_are_32_digits_and_differ() {
        let (a, b) = (random_token(), random_token());
        assert!(a.len() == 32 && a != b);
    }
}
