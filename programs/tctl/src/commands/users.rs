//! `users`.

use std::time::Duration;

use chrono::Utc;
use clap::{Args, Subcommand};
use resources::{AnyResource, Resource};
use wire::error::ErrorKind;
use wire::proto::CreateResetPasswordTokenRequest;
use wire::types::{Metadata, UserSpecV2, UserTokenV3, UserV2};
use wire::users::{CreateUserRequest, DeleteUserRequest, GetUserRequest, UpdateUserRequest};
use wire::wrappers::{LabelValues, StringValues};

use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{self, Format, complain, say, time};
use crate::resource;

/// How long an invitation may last.
const LONGEST_INVITE: Duration = Duration::from_secs(48 * 3600);
/// How long a link for a new password may last.
const LONGEST_RESET: Duration = Duration::from_secs(24 * 3600);
/// How often a change is tried again when somebody else was faster.
const ATTEMPTS: usize = 3;

/// Manage local users.
#[derive(Debug, Subcommand)]
pub enum Users {
    /// Make a user and a link with which they set their password.
    Add(Add),
    /// Change roles and traits of a user.
    Update(Update),
    /// List users.
    #[command(alias = "list")]
    Ls(Ls),
    /// Remove users.
    #[command(alias = "del")]
    Rm(Rm),
    /// Make a link with which a user sets a new password and second factor.
    Reset(Reset),
}

/// Make a user and a link with which they set their password.
#[derive(Args, Debug)]
pub struct Add {
    /// Name of the user.
    name: String,
    /// Roles, which have to exist.
    #[arg(long, required = true, value_delimiter = ',')]
    roles: Vec<String>,
    #[command(flatten)]
    traits: Traits,
    /// How long the link can be used [at most 48h].
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    ttl: String,
    /// How to show the invitation.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

macro_rules! traits {
    ($($(#[$doc:meta])* $field:ident, $set:ident, $flag:literal, $set_flag:literal, $trait:literal;)*) => {
        /// Traits of a new user.
        #[derive(Args, Clone, Debug, Default)]
        struct Traits {
            $($(#[$doc])* #[arg(long = $flag, value_delimiter = ',', value_name = "LIST")] $field: Vec<String>,)*
        }

        /// Traits of a user from now on.
        #[derive(Args, Clone, Debug, Default)]
        struct NewTraits {
            $($(#[$doc])* #[arg(long = $set_flag, value_name = "LIST")] $set: Option<String>,)*
        }

        impl Traits {
            /// Those that were given, by the names that roles use.
            fn given(&self) -> Vec<(&'static str, Vec<String>)> {
                let all = [$(($trait, &self.$field)),*];
                all.into_iter().filter(|(_, values)| !values.is_empty()).map(|(n, v)| (n, clean(v))).collect()
            }
        }

        impl NewTraits {
            /// Those that were given; an empty list takes the trait away.
            fn given(&self) -> Vec<(&'static str, Vec<String>)> {
                let all = [$(($trait, &self.$set)),*];
                all.into_iter().filter_map(|(n, text)| Some((n, split(text.as_deref()?)))).collect()
            }
        }
    };
}

traits! {
    /// Accounts on SSH servers.
    logins, set_logins, "logins", "set-logins", "logins";
    /// Accounts on desktops.
    windows_logins, set_windows_logins, "windows-logins", "set-windows-logins", "windows_logins";
    /// Kubernetes users.
    kubernetes_users, set_kubernetes_users, "kubernetes-users", "set-kubernetes-users", "kubernetes_users";
    /// Kubernetes groups.
    kubernetes_groups, set_kubernetes_groups, "kubernetes-groups", "set-kubernetes-groups", "kubernetes_groups";
    /// Database users.
    db_users, set_db_users, "db-users", "set-db-users", "db_users";
    /// Names of databases.
    db_names, set_db_names, "db-names", "set-db-names", "db_names";
    /// Roles of automatically made database users.
    db_roles, set_db_roles, "db-roles", "set-db-roles", "db_roles";
    /// AWS roles.
    aws_role_arns, set_aws_role_arns, "aws-role-arns", "set-aws-role-arns", "aws_role_arns";
    /// Azure identities.
    azure_identities, set_azure_identities, "azure-identities", "set-azure-identities", "azure_identities";
    /// GCP service accounts.
    gcp_service_accounts, set_gcp_service_accounts, "gcp-service-accounts", "set-gcp-service-accounts", "gcp_service_accounts";
    /// Numeric id of automatically made accounts on servers.
    host_user_uid, set_host_user_uid, "host-user-uid", "set-host-user-uid", "host_user_uid";
    /// Numeric id of the group of automatically made accounts on servers.
    host_user_gid, set_host_user_gid, "host-user-gid", "set-host-user-gid", "host_user_gid";
}

/// Change roles and traits of a user.
#[derive(Args, Debug)]
pub struct Update {
    /// Name of the user.
    name: String,
    /// Roles from now on.
    #[arg(long, value_name = "LIST")]
    set_roles: Option<String>,
    #[command(flatten)]
    traits: NewTraits,
}

/// List users.
#[derive(Args, Debug)]
pub struct Ls {
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Remove users.
#[derive(Args, Debug)]
pub struct Rm {
    /// Names of the users.
    #[arg(required = true, value_delimiter = ',')]
    names: Vec<String>,
}

/// Make a link with which a user sets a new password and second factor.
#[derive(Args, Debug)]
pub struct Reset {
    /// Name of the user.
    name: String,
    /// How long the link can be used [at most 24h].
    #[arg(long, value_name = "DURATION", default_value = "8h")]
    ttl: String,
    /// How to show the link.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Users {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Add(command) => command.run(api).await,
            Self::Update(command) => command.run(api).await,
            Self::Ls(command) => command.run(api).await,
            Self::Rm(command) => command.run(api).await,
            Self::Reset(command) => command.run(api).await,
        }
    }
}

impl Add {
    async fn run(self, api: &Api) -> Result<()> {
        // Whatever can be refused is refused before the user exists.
        let ttl = limited(&self.ttl, LONGEST_INVITE)?;
        let user = self.user()?;
        let request = CreateUserRequest { user: Some(user) };
        api.users().create_user(request).within("creating the user").await?;
        let token = match token(api, &self.name, "invite", ttl).await {
            Ok(token) => token,
            Err(cause) => return Err(self.take_back(api, cause).await),
        };
        let text = |url: &str| {
            format!(
                "User {:?} has been created but has no password yet. Share this URL with the user to complete the setup; \
                 it is valid for {}:\n{url}\n\nIt has to be opened where the address in it leads to a proxy of this cluster.\n",
                self.name,
                time::short(ttl)
            )
        };
        say(&link(token, self.format, text)?);
        Ok(())
    }

    fn user(&self) -> Result<UserV2> {
        let roles = clean(&self.roles);
        if roles.is_empty() {
            return Err(Error::bad("--roles names no role"));
        }
        let values = self.traits.given().into_iter().map(|(name, values)| (name.to_owned(), StringValues { values }));
        let mut user = UserV2 {
            metadata: Some(Metadata { name: self.name.clone(), ..Default::default() }),
            spec: Some(UserSpecV2 {
                roles,
                traits: Some(LabelValues { values: values.collect() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        user.check_and_set_defaults()?;
        Ok(user)
    }

    /// A user without a way in is not left behind.
    async fn take_back(&self, api: &Api, cause: Error) -> Error {
        let request = DeleteUserRequest { name: self.name.clone() };
        match api.users().delete_user(request).within("removing the user again").await {
            Ok(()) => cause,
            Err(error) => Error::Partly {
                cause: Box::new(cause),
                done: format!("user {:?} was created and could not be removed again: {error}", self.name),
            },
        }
    }
}

impl Update {
    async fn run(self, api: &Api) -> Result<()> {
        let roles = self.set_roles.as_deref().map(split);
        let traits = self.traits.given();
        if roles.is_none() && traits.is_empty() {
            return Err(Error::bad("nothing to update: use --set-roles or one of the other --set flags"));
        }
        if roles.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::bad("--set-roles names no role"));
        }
        for attempt in 1.. {
            let request = GetUserRequest { name: self.name.clone(), ..Default::default() };
            let found = api.users().get_user(request).within("reading the user").await?;
            let mut user = found.user.ok_or_else(|| Error::not_found(format!("user {:?} not found", self.name)))?;
            apply(&mut user, roles.as_deref(), &traits);
            let request = UpdateUserRequest { user: Some(user) };
            match api.users().update_user(request).within("updating the user").await {
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::CompareFailed && attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
            }
        }
        let mut text = format!("User {} has been updated:\n", self.name);
        let roles = roles.map(|roles| ("roles", roles));
        for (name, values) in roles.into_iter().chain(traits) {
            let values = if values.is_empty() { "none".to_owned() } else { values.join(",") };
            text.push_str(&format!("\tNew {}: {values}\n", name.replace('_', " ")));
        }
        say(&output::text::lines(&text));
        Ok(())
    }
}

fn apply(user: &mut UserV2, roles: Option<&[String]>, traits: &[(&'static str, Vec<String>)]) {
    let spec = user.spec.get_or_insert_default();
    if let Some(roles) = roles {
        spec.roles = roles.to_vec();
    }
    let stored = &mut spec.traits.get_or_insert_default().values;
    for (name, values) in traits {
        match values.is_empty() {
            true => stored.remove(*name),
            false => stored.insert((*name).to_owned(), StringValues { values: values.clone() }),
        };
    }
}

impl Ls {
    async fn run(self, api: &Api) -> Result<()> {
        let users: Vec<AnyResource> = resource::users(api, false).await?.into_iter().map(Into::into).collect();
        let table = || match users.is_empty() {
            true => output::Table::new(["User", "Roles"]).full(),
            false => resource::table(&users, false, Utc::now()),
        };
        say(&output::resources(&users, self.format, table)?);
        Ok(())
    }
}

impl Rm {
    async fn run(self, api: &Api) -> Result<()> {
        for name in clean(&self.names) {
            let request = DeleteUserRequest { name: name.clone() };
            api.users().delete_user(request).within("removing a user").await?;
            say(&format!("User {name:?} has been deleted\n"));
        }
        Ok(())
    }
}

impl Reset {
    async fn run(self, api: &Api) -> Result<()> {
        let ttl = limited(&self.ttl, LONGEST_RESET)?;
        let token = token(api, &self.name, "password", ttl).await?;
        let text = |url: &str| {
            format!(
                "User {:?} has been reset. Share this URL with the user to set a new password and second factor; \
                 it is valid for {}:\n{url}\n",
                self.name,
                time::short(ttl)
            )
        };
        say(&link(token, self.format, text)?);
        Ok(())
    }
}

async fn token(api: &Api, name: &str, r#type: &str, ttl: Duration) -> Result<UserTokenV3> {
    let ttl = i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX);
    let request = CreateResetPasswordTokenRequest { name: name.to_owned(), r#type: r#type.to_owned(), ttl };
    api.auth().create_reset_password_token(request).within("making the link").await
}

/// What a link begins with before the Auth Service has heard of a proxy.
const NO_PROXY: &str = "<proxyhost>";

fn link(token: UserTokenV3, format: Format, text: impl FnOnce(&str) -> String) -> Result<String> {
    if token.spec.as_ref().is_some_and(|spec| spec.url.contains(NO_PROXY)) {
        complain(&format!(
            "WARNING: no Proxy Service has announced itself to the Auth Service yet: \
             put the public address of one in place of {NO_PROXY}:3080 in the link"
        ));
    }
    match format {
        Format::Text => Ok(text(token.spec.as_ref().map_or("", |spec| &spec.url))),
        Format::Json => output::json(&token, 4),
        Format::Yaml => output::yaml(&token),
    }
}

fn limited(text: &str, longest: Duration) -> Result<Duration> {
    let ttl = time::lifetime(text)?;
    match ttl > longest {
        true => Err(Error::bad(format!("--ttl={text} is too long: at most {} is possible", time::short(longest)))),
        false => Ok(ttl),
    }
}

fn split(text: &str) -> Vec<String> {
    clean(&text.split(',').map(str::to_owned).collect::<Vec<_>>())
}

/// Without blanks, empty entries and repetitions.
fn clean(values: &[String]) -> Vec<String> {
    let mut clean: Vec<String> = Vec::with_capacity(values.len());
    for value in values.iter().map(|v| v.trim()) {
        if !value.is_empty() && !clean.iter().any(|known| known == value) {
            clean.push(value.to_owned());
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use clap::Parser;

    use super::*;
    use crate::testing::{Service, State};

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        users: Users,
    }

    fn parse(line: &str) -> Users {
        Line::try_parse_from(line.split(' ')).unwrap().users
    }

    #[test]
    fn each_flag_sets_its_trait() {
        let Users::Add(add) =
            parse("users add ann --roles=access,,access --logins=root,ann --db-users=du --host-user-uid=7")
        else {
            panic!()
        };
        let spec = add.user().unwrap().spec.unwrap();
        assert_eq!(spec.roles, ["access"]);
        let traits: Vec<_> =
            spec.traits.unwrap().values.into_iter().map(|(k, v)| format!("{k}={}", v.values.join("+"))).collect();
        assert_eq!(traits, ["db_users=du", "host_user_uid=7", "logins=root+ann"]);
    }

    #[test]
    fn an_update_changes_what_was_named_and_nothing_else() {
        let Users::Add(add) = parse("users add ann --roles=access --logins=root --db-users=du --db-names=dn") else {
            panic!()
        };
        let mut user = add.user().unwrap();
        let Users::Update(update) = parse("users update ann --set-logins=bob,eve --set-db-names=") else { panic!() };
        apply(&mut user, None, &update.traits.given());
        let spec = user.spec.unwrap();
        let traits: Vec<_> =
            spec.traits.unwrap().values.into_iter().map(|(k, v)| format!("{k}={}", v.values.join("+"))).collect();
        assert_eq!(
            (spec.roles, traits),
            (vec!["access".to_owned()], vec!["db_users=du".to_owned(), "logins=bob+eve".to_owned()])
        );
    }

    #[tokio::test]
    async fn nobody_is_left_behind_without_a_link() {
        let service = Service::default();
        let error = parse("users add ann --roles=access").run(&service.api()).await.unwrap_err();
        assert_eq!(error.to_string(), "no proxy is known");
        assert!(service.0.lock().users.is_empty());
        service.0.lock().links = true;
        parse("users add ann --roles=access").run(&service.api()).await.unwrap();
        assert_eq!(service.0.lock().users.len(), 1);
    }

    #[tokio::test]
    async fn an_update_is_repeated_when_somebody_was_faster() {
        let service = Service::with(State { links: true, races: ATTEMPTS - 1, ..Default::default() });
        let api = service.api();
        parse("users add ann --roles=access").run(&api).await.unwrap();
        parse("users update ann --set-roles=editor").run(&api).await.unwrap();
        assert_eq!(service.0.lock().users[0].spec.as_ref().unwrap().roles, ["editor"]);
        service.0.lock().races = ATTEMPTS;
        let error = parse("users update ann --set-roles=access").run(&api).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CompareFailed);
    }

    #[test]
    fn an_invitation_has_a_longest_life() {
        assert!(limited("99h", LONGEST_INVITE).unwrap_err().to_string().contains("48h"));
        assert_eq!(limited("45m", LONGEST_INVITE).unwrap(), Duration::from_secs(2700));
    }

    #[test]
    fn a_new_user_needs_a_good_name_and_roles() {
        assert!(Line::try_parse_from(["users", "add", "ann"]).is_err());
        let Users::Add(add) = parse("users add a/../b --roles=access") else { panic!() };
        assert!(add.user().is_err());
    }
}
