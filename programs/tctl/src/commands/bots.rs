//! `bots`: the records of machines that log in.

use chrono::Utc;
use clap::{Args, Subcommand};
use resources::{AnyResource, Resource, SystemRole};
use serde::Serialize;
use wire::machineid::{Bot, BotSpec, CreateBotRequest, DeleteBotRequest, GetBotRequest, Trait, UpsertBotRequest};
use wire::proto::{UpsertTokenV2Request, upsert_token_v2_request};
use wire::types::{LockTarget, Metadata, ProvisionTokenSpecV2, ProvisionTokenV2, ResourceRequest};

use super::lock::Terms;
use super::tokens::{Place, random_token};
use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{self, Format, Table, say, time};
use crate::resource::{self, Secrets};

/// The trait with the logins that a bot can use.
const LOGINS: &str = "logins";

/// Manage bots: machines that log in.
#[derive(Debug, Subcommand)]
pub enum Bots {
    /// List bots.
    #[command(alias = "list")]
    Ls(Ls),
    /// Make a bot, and a token with which it joins.
    #[command(alias = "create")]
    Add(Add),
    /// Remove a bot with its user and its role.
    #[command(aliases = ["del", "delete"])]
    Rm(Name),
    /// Change the roles or logins of a bot.
    Update(Update),
    /// Keep a bot out.
    Lock(Lock),
    /// List running bots.
    #[command(subcommand)]
    Instances(Instances),
}

/// List bots.
#[derive(Args, Debug)]
pub struct Ls {
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A bot.
#[derive(Args, Debug)]
pub struct Name {
    /// The name of the bot.
    name: String,
}

/// Make a bot, and a token with which it joins.
#[derive(Args, Debug)]
pub struct Add {
    /// The name of the bot.
    name: String,
    /// Roles whose certificates it can have.
    #[arg(long, required = true, value_delimiter = ',', value_name = "ROLES")]
    roles: Vec<String>,
    /// Logins it can use on servers.
    #[arg(long, value_delimiter = ',', value_name = "LOGINS")]
    logins: Vec<String>,
    /// A join token that exists, made for this bot [default: a new one].
    #[arg(long)]
    token: Option<String>,
    /// How long a new token can be used.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    ttl: String,
    /// How to show it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Change the roles or logins of a bot.
#[derive(Args, Debug)]
pub struct Update {
    /// The name of the bot.
    name: String,
    /// Its roles from now on.
    #[arg(long, value_delimiter = ',', value_name = "ROLES", conflicts_with = "add_roles")]
    set_roles: Vec<String>,
    /// Roles to add to those it has.
    #[arg(long, value_delimiter = ',', value_name = "ROLES")]
    add_roles: Vec<String>,
    /// Its logins from now on.
    #[arg(long, value_delimiter = ',', value_name = "LOGINS", conflicts_with = "add_logins")]
    set_logins: Vec<String>,
    /// Logins to add to those it has.
    #[arg(long, value_delimiter = ',', value_name = "LOGINS")]
    add_logins: Vec<String>,
}

/// Keep a bot out.
#[derive(Args, Debug)]
pub struct Lock {
    /// The name of the bot.
    name: String,
    #[command(flatten)]
    terms: Terms,
}

/// Running bots.
#[derive(Debug, Subcommand)]
pub enum Instances {
    /// List running bots.
    #[command(alias = "list")]
    Ls(Ls),
}

impl Bots {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Ls(command) => show(api, "bot", command.format).await,
            Self::Instances(Instances::Ls(command)) => show(api, "bot_instance", command.format).await,
            Self::Add(command) => command.run(api).await,
            Self::Rm(Name { name }) => {
                let request = DeleteBotRequest { bot_name: name.clone() };
                api.bots().delete_bot(request).within("removing the bot").await?;
                say(&format!("Bot {name:?} deleted successfully.\n"));
                Ok(())
            }
            Self::Update(command) => command.run(api).await,
            Self::Lock(command) => command.run(api).await,
        }
    }
}

async fn show(api: &Api, kind: &str, format: Format) -> Result<()> {
    let found = resource::get(api, &kind.parse()?, Secrets::Hidden).await?;
    say(&output::resources(&found, format, || table(&found))?);
    Ok(())
}

fn table(found: &[AnyResource]) -> String {
    let mut bots = Table::new(["Bot", "User", "Roles"]);
    let mut instances = Table::new(["Bot", "Instance"]);
    let running = found.iter().any(|resource| matches!(resource, AnyResource::BotInstance(_)));
    for resource in found {
        match resource {
            AnyResource::Bot(bot) => {
                let user = bot.status.as_ref().map(|status| status.user_name.clone()).unwrap_or_default();
                let roles = bot.spec.as_ref().map(|spec| spec.roles.join(",")).unwrap_or_default();
                bots.row([bot.name().to_owned(), user, roles]);
            }
            AnyResource::BotInstance(instance) => {
                let bot = instance.spec.as_ref().map(|spec| spec.bot_name.clone()).unwrap_or_default();
                instances.row([bot, instance.name().to_owned()]);
            }
            _ => {}
        }
    }
    if running { instances.full() } else { bots.full() }
}

/// What a script learns about a new bot.
#[derive(Serialize)]
struct Made<'a> {
    user_name: &'a str,
    role_name: &'a str,
    token_id: &'a str,
    token_ttl: i64,
}

impl Add {
    async fn run(self, api: &Api) -> Result<()> {
        // Whatever can be refused is refused before the bot exists.
        let ttl = time::lifetime(&self.ttl)?;
        if let Some(token) = &self.token {
            self.check_token(api, token).await?;
        }
        let traits = match self.logins.is_empty() {
            true => Vec::new(),
            false => vec![Trait { name: LOGINS.to_owned(), values: self.logins.clone() }],
        };
        let bot = Bot {
            metadata: Some(Metadata { name: self.name.clone(), ..Default::default() }),
            spec: Some(BotSpec { roles: self.roles.clone(), traits }),
            ..Default::default()
        };
        let request = CreateBotRequest { bot: Some(bot) };
        let made = api.bots().create_bot(request).within("making the bot").await?;
        let token = match &self.token {
            Some(token) => token.clone(),
            None => match self.make_token(api, ttl).await {
                Ok(token) => token,
                Err(cause) => {
                    let request = DeleteBotRequest { bot_name: self.name.clone() };
                    let gone = api.bots().delete_bot(request).within("taking the bot back").await;
                    let done = if gone.is_ok() { "no bot was made" } else { "the bot was made, its token was not" };
                    return Err(Error::Partly { cause: Box::new(cause), done: done.to_owned() });
                }
            },
        };
        let status = made.status.unwrap_or_default();
        let token_ttl = i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX);
        let shown = Made { user_name: &status.user_name, role_name: &status.role_name, token_id: &token, token_ttl };
        match self.format {
            Format::Json => say(&output::json(&shown, 2)?),
            Format::Yaml => say(&output::yaml(&shown)?),
            Format::Text => {
                let place = Place::of(api).await?;
                say(&format!(
                    "The bot token: {token}\nThis token will expire in {}.\n\nRun this on the machine of the bot, \
                     with the address of a proxy of this cluster:\n\n{}",
                    time::short(ttl),
                    place.tbot(&token)
                ));
            }
        }
        Ok(())
    }

    async fn check_token(&self, api: &Api, token: &str) -> Result<()> {
        let request = ResourceRequest { name: token.to_owned() };
        let found = api.auth().get_token(request).within("reading the token").await?;
        let of = found.spec.map(|spec| spec.bot_name).unwrap_or_default();
        if of == self.name {
            return Ok(());
        }
        Err(Error::bad(format!("the token is for bot {of:?}, not for {:?}", self.name)))
    }

    async fn make_token(&self, api: &Api, ttl: std::time::Duration) -> Result<String> {
        let value = random_token();
        let token = ProvisionTokenV2 {
            metadata: Some(Metadata {
                name: value.clone(),
                expires: Some(wire::time::timestamp(time::after(Utc::now(), ttl)?)),
                ..Default::default()
            }),
            spec: Some(ProvisionTokenSpecV2 {
                roles: vec![SystemRole::Bot.name().to_owned()],
                join_method: "token".to_owned(),
                bot_name: self.name.clone(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let token = Some(upsert_token_v2_request::Token::V2(token));
        api.auth().upsert_token_v2(UpsertTokenV2Request { token }).within("making the token").await?;
        Ok(value)
    }
}

impl Update {
    async fn run(self, api: &Api) -> Result<()> {
        let lists = [&self.set_roles, &self.add_roles, &self.set_logins, &self.add_logins];
        if lists.iter().all(|list| list.is_empty()) {
            return Err(Error::bad("nothing to change: give --set-roles, --add-roles, --set-logins or --add-logins"));
        }
        let request = GetBotRequest { bot_name: self.name.clone() };
        let mut bot = api.bots().get_bot(request).within("reading the bot").await?;
        let spec = bot.spec.get_or_insert_default();
        changed(&mut spec.roles, &self.set_roles, &self.add_roles);
        if !self.set_logins.is_empty() || !self.add_logins.is_empty() {
            let at = spec.traits.iter().position(|t| t.name == LOGINS).unwrap_or_else(|| {
                spec.traits.push(Trait { name: LOGINS.to_owned(), values: Vec::new() });
                spec.traits.len() - 1
            });
            changed(&mut spec.traits[at].values, &self.set_logins, &self.add_logins);
        }
        api.bots().upsert_bot(UpsertBotRequest { bot: Some(bot) }).within("changing the bot").await?;
        say(&format!("Bot {:?} has been updated.\n", self.name));
        Ok(())
    }
}

fn changed(list: &mut Vec<String>, set: &[String], add: &[String]) {
    if !set.is_empty() {
        *list = set.to_vec();
    }
    for value in add {
        if !list.contains(value) {
            list.push(value.clone());
        }
    }
}

impl Lock {
    async fn run(self, api: &Api) -> Result<()> {
        let request = GetBotRequest { bot_name: self.name.clone() };
        let bot = api.bots().get_bot(request).within("reading the bot").await?;
        let user = bot.status.unwrap_or_default().user_name;
        self.terms.lock(api, LockTarget { user, ..Default::default() }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_set_or_added_once() {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let mut list = owned(&["a"]);
        changed(&mut list, &[], &owned(&["a", "b"]));
        assert_eq!(list, owned(&["a", "b"]));
        changed(&mut list, &owned(&["c"]), &[]);
        assert_eq!(list, owned(&["c"]));
    }
}
