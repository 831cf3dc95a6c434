//! Bots: machines that log in. Bot `X` is the user `bot-X` with the only role `bot-X`, which lets it have certificates
//! with the roles of the bot.

use std::collections::BTreeMap;

use audit::{EventExt, codes};
use backend::Condition;
use resources::{Resource, kind};
use wire::{
    error::{Error, ErrorKind, Result},
    events::{OneOf, ResourceMetadata},
    machineid::{Bot, BotSpec, BotStatus, Trait},
    types::{
        ImpersonateConditions, Metadata, RoleConditions, RoleOptions, RoleSpecV6, RoleV6, Rule, UserSpecV2, UserV2,
    },
    wrappers::{LabelValues, StringValues},
};

use crate::{Auth, Caller, store, store::kind as stored};

/// The label of a bot's user and role: its name.
const BOT_LABEL: &str = "teleport.internal/bot";
/// The label that counts the renewals of a bot's certificate.
const GENERATION_LABEL: &str = "teleport.internal/bot-generation";
/// Whether a user stands for a bot.
pub(crate) fn is_bot(user: &UserV2) -> bool {
    user.metadata().labels.contains_key(BOT_LABEL)
}

/// How long a certificate of a bot lives at most.
const LIFETIME: i64 = 12 * 3600 * 1_000_000_000;

impl Auth {
    /// The bot of a name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn bot(&self, name: &str) -> Result<Bot> {
        let missing = || Error::not_found(format!("bot {name:?} not found"));
        let user = self.store().cached::<stored::User>(&account(name)).map_err(|_| missing())?;
        self.bot_of(&user).filter(|bot| bot.name() == name).ok_or_else(missing)
    }

    /// All bots, by name.
    pub fn bots(&self) -> Vec<Bot> {
        let users = self.store().cached_list::<stored::User>();
        let mut bots: Vec<Bot> = users.iter().filter_map(|user| self.bot_of(user)).collect();
        bots.sort_by(|a, b| a.name().cmp(b.name()));
        bots
    }

    /// Makes a bot: its user and its role, or neither.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for roles that do not exist.
    pub async fn create_bot(&self, caller: &Caller, bot: Bot) -> Result<Bot> {
        let bot = self.checked_bot(bot)?;
        let (user, role) = (user_of(&bot, None), role_of(&bot));
        let writes = vec![
            store::put::<stored::User>(&user, Condition::NotExists)?,
            store::put::<stored::Role>(&role, Condition::NotExists)?,
        ];
        self.store().atomic(writes).await.map_err(|error| match error.kind {
            ErrorKind::CompareFailed => Error::already_exists(format!("bot {:?} already exists", bot.name())),
            _ => error,
        })?;
        self.emit_bot(caller, bot.name(), codes::BOT_CREATE.event(Default::default())).await?;
        self.bot(bot.name())
    }

    /// Makes a bot or replaces the one there is; whoever it is logged in as stays so.
    ///
    /// # Errors
    /// `NotFound` for roles that do not exist; `AlreadyExists` when a user that is no bot has its name.
    pub async fn upsert_bot(&self, caller: &Caller, bot: Bot) -> Result<Bot> {
        let bot = self.checked_bot(bot)?;
        let name = bot.name().to_owned();
        let before = self.store().cached::<stored::User>(&account(&name)).ok();
        if let Some(user) = &before
            && self.bot_of(user).is_none()
        {
            return Err(Error::already_exists(format!("user {:?} exists and is no bot", user.name())));
        }
        let Some(before) = before else { return self.create_bot(caller, bot).await };
        let writes = vec![
            store::put::<stored::User>(&user_of(&bot, Some(&before)), Condition::Whatever)?,
            store::put::<stored::Role>(&role_of(&bot), Condition::Whatever)?,
        ];
        self.store().atomic(writes).await?;
        self.emit_bot(caller, &name, codes::BOT_UPDATE.event(Default::default())).await?;
        self.bot(&name)
    }

    /// Removes a bot with its user, its role and its instances.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_bot(&self, caller: &Caller, name: &str) -> Result<()> {
        self.bot(name)?;
        self.delete_user(caller, &account(name)).await?;
        match self.delete_role(caller, &account(name)).await {
            Err(error) if error.kind != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        for instance in self.store().cached_list::<stored::BotInstance>() {
            if instance.spec.as_ref().is_some_and(|spec| spec.bot_name == name) {
                let key = format!("{name}/{}", instance.name());
                self.store().delete::<stored::BotInstance>(&key).await.or_else(|error| match error.kind {
                    ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })?;
            }
        }
        self.emit_bot(caller, name, codes::BOT_DELETE.event(Default::default())).await
    }

    /// The bot that a user stands for; `None` for people.
    fn bot_of(&self, user: &UserV2) -> Option<Bot> {
        let name = user.metadata().labels.get(BOT_LABEL)?;
        let role = self.role(user.name()).ok();
        let allow = role.as_ref().and_then(|role| role.spec.as_ref()?.allow.as_ref());
        let roles = allow.and_then(|allow| allow.impersonate.as_ref()).map(|i| i.roles.clone()).unwrap_or_default();
        let traits = user.spec.as_ref().and_then(|spec| spec.traits.as_ref());
        let traits = traits.into_iter().flat_map(|traits| &traits.values);
        let shown = traits.filter(|(_, list)| !list.values.is_empty());
        let mut metadata = Metadata { name: name.clone(), expires: user.metadata().expires, ..Metadata::default() };
        metadata.namespace = resources::NAMESPACE.to_owned();
        Some(Bot {
            kind: kind::BOT.to_owned(),
            version: "v1".to_owned(),
            metadata: Some(metadata),
            spec: Some(BotSpec {
                roles,
                traits: shown.map(|(n, list)| Trait { name: n.clone(), values: list.values.clone() }).collect(),
            }),
            status: Some(BotStatus { user_name: user.name().to_owned(), role_name: user.name().to_owned() }),
            ..Bot::default()
        })
    }

    fn checked_bot(&self, mut bot: Bot) -> Result<Bot> {
        bot.check_and_set_defaults().map_err(Error::from)?;
        let title = bot.title();
        for role in bot.spec.iter().flat_map(|spec| &spec.roles) {
            self.role(role).map_err(|error| match error.kind {
                ErrorKind::NotFound => Error::not_found(format!("{title}: role {role:?} not found")),
                _ => error,
            })?;
        }
        Ok(bot)
    }

    async fn emit_bot(&self, caller: &Caller, name: &str, mut event: OneOf) -> Result<()> {
        let groups = event.groups_mut();
        if let Some(user) = groups.user {
            *user = Some(caller.user_metadata());
        }
        if let Some(resource) = groups.resource {
            *resource = Some(ResourceMetadata { name: name.to_owned(), ..ResourceMetadata::default() });
        }
        self.emit(event).await
    }
}

/// The name of a bot's user and role.
pub(crate) fn account(bot: &str) -> String {
    format!("bot-{}", bot.replace(' ', "-"))
}

fn labels(bot: &Bot) -> BTreeMap<String, String> {
    BTreeMap::from([(BOT_LABEL.to_owned(), bot.name().to_owned())])
}

fn user_of(bot: &Bot, before: Option<&UserV2>) -> UserV2 {
    let generation = before.and_then(|user| user.metadata().labels.get(GENERATION_LABEL).cloned());
    let mut labels = labels(bot);
    labels.insert(GENERATION_LABEL.to_owned(), generation.unwrap_or_else(|| "0".to_owned()));
    let traits = bot.spec.iter().flat_map(|spec| &spec.traits);
    let values = traits.map(|t| (t.name.clone(), StringValues { values: t.values.clone() })).collect();
    let mut user = before.cloned().unwrap_or_default();
    let metadata = user.metadata_mut();
    metadata.name = account(bot.name());
    metadata.labels = labels;
    metadata.expires = bot.metadata().expires;
    user.spec = Some(UserSpecV2 {
        roles: vec![account(bot.name())],
        traits: Some(LabelValues { values }),
        ..user.spec.take().unwrap_or_default()
    });
    user.set_defaults();
    user
}

fn role_of(bot: &Bot) -> RoleV6 {
    let roles = bot.spec.as_ref().map(|spec| spec.roles.clone()).unwrap_or_default();
    let rule = Rule {
        resources: vec![kind::CERT_AUTHORITY.to_owned()],
        verbs: vec!["readnosecrets".to_owned()],
        ..Rule::default()
    };
    let impersonate = (!roles.is_empty()).then(|| ImpersonateConditions { roles, ..ImpersonateConditions::default() });
    let mut role = RoleV6 {
        metadata: Some(Metadata {
            name: account(bot.name()),
            description: format!("Automatically generated role for bot {}", bot.name()),
            labels: labels(bot),
            expires: bot.metadata().expires,
            ..Metadata::default()
        }),
        spec: Some(RoleSpecV6 {
            options: Some(RoleOptions { max_session_ttl: LIFETIME, ..RoleOptions::default() }),
            allow: Some(RoleConditions { rules: vec![rule], impersonate, ..RoleConditions::default() }),
            ..RoleSpecV6::default()
        }),
        ..RoleV6::default()
    };
    role.set_defaults();
    role
}
