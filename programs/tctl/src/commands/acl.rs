//! `acl`: access lists and their members.

use chrono::Utc;
use clap::{Args, Subcommand, ValueEnum};
use resources::{AnyResource, Reference, Resource, kind};
use wire::accesslist::{
    AccessList, DeleteAccessListMemberRequest, Member, MemberSpec, MembershipKind, UpsertAccessListMemberRequest,
};
use wire::types::{Metadata, ResourceHeader};

use crate::api::{Api, Call};
use crate::error::{Error, Result};
use crate::output::{self, Format, Table, say, text, time};
use crate::resource::{self, Secrets};

/// Access lists and their members.
#[derive(Debug, Subcommand)]
pub enum Acl {
    /// List access lists.
    #[command(alias = "list")]
    Ls(Ls),
    /// Show an access list.
    Get(Get),
    /// Members of access lists.
    #[command(subcommand)]
    Users(Users),
}

/// List access lists.
#[derive(Args, Debug)]
pub struct Ls {
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Show an access list.
#[derive(Args, Debug)]
pub struct Get {
    /// The name of the access list.
    name: String,
    /// How to show it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Members of access lists.
#[derive(Debug, Subcommand)]
pub enum Users {
    /// Add a user.
    Add(Add),
    /// Remove a user.
    Rm(Rm),
    /// List the users.
    #[command(alias = "list")]
    Ls(Get),
}

/// Add a user to an access list.
#[derive(Args, Debug)]
pub struct Add {
    /// The name of the access list.
    name: String,
    /// The user, or the name of the list.
    user: String,
    /// What is added: a user, or an access list with all its members.
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,
    /// When the membership ends, in RFC 3339 [default: never].
    expires: Option<String>,
    /// Why.
    #[arg(default_value = "", hide_default_value = true)]
    reason: String,
}

/// What a member of an access list is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A user.
    #[default]
    User,
    /// An access list.
    List,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::List => "list",
        }
    }
}

/// Remove a user from an access list.
#[derive(Args, Debug)]
pub struct Rm {
    /// The name of the access list.
    name: String,
    /// The user.
    user: String,
}

impl Acl {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Ls(command) => show(&find(api, None).await?, command.format),
            Self::Get(command) => show(&find(api, Some(command.name)).await?, command.format),
            Self::Users(Users::Add(command)) => command.run(api).await,
            Self::Users(Users::Rm(command)) => command.run(api).await,
            Self::Users(Users::Ls(command)) => command.users(api).await,
        }
    }
}

async fn find(api: &Api, name: Option<String>) -> Result<Vec<AnyResource>> {
    let reference = Reference { kind: kind::ACCESS_LIST.to_owned(), sub_kind: None, name };
    resource::get(api, &reference, Secrets::Hidden).await
}

fn show(found: &[AnyResource], format: Format) -> Result<()> {
    say(&output::resources(found, format, || {
        let mut table =
            Table::new(["ID", "Title", "Review Frequency", "Review Day Of Month", "Granted Roles", "Granted Traits"]);
        for resource in found {
            if let AnyResource::AccessList(list) = resource {
                table.row(row(list));
            }
        }
        table.fitted()
    })?);
    Ok(())
}

fn row(list: &AccessList) -> [String; 6] {
    let spec = list.spec.clone().unwrap_or_default();
    let recurrence = spec.audit.and_then(|audit| audit.recurrence).unwrap_or_default();
    let grants = spec.grants.unwrap_or_default();
    let months = match recurrence.frequency {
        0 => String::new(),
        1 => "1 month".to_owned(),
        months => format!("{months} months"),
    };
    let day = match recurrence.day_of_month {
        0 => String::new(),
        31 => "last".to_owned(),
        day => day.to_string(),
    };
    let traits: Vec<String> = grants.traits.iter().map(|one| format!("{}={}", one.key, one.values.join(","))).collect();
    [list.name().to_owned(), spec.title, months, day, grants.roles.join(","), traits.join(" ")]
}

impl Add {
    async fn run(self, api: &Api) -> Result<()> {
        let expires = self.expires.as_deref().filter(|at| !at.is_empty()).map(time::rfc3339).transpose()?;
        if expires.is_some_and(|at| at <= Utc::now()) {
            return Err(Error::bad("the membership would end before it begins"));
        }
        // A member of nothing would be stored, and nobody would see it.
        find(api, Some(self.name.clone())).await?;
        let member = Member {
            header: Some(ResourceHeader {
                kind: kind::ACCESS_LIST_MEMBER.to_owned(),
                version: "v1".to_owned(),
                metadata: Some(Metadata { name: self.user.clone(), ..Metadata::default() }),
                ..ResourceHeader::default()
            }),
            spec: Some(MemberSpec {
                access_list: self.name.clone(),
                name: self.user.clone(),
                joined: Some(wire::time::timestamp(Utc::now())),
                expires: expires.map(wire::time::timestamp),
                reason: self.reason.clone(),
                added_by: "tctl".to_owned(),
                membership_kind: match self.kind {
                    Kind::User => MembershipKind::User,
                    Kind::List => MembershipKind::List,
                } as i32,
                ..MemberSpec::default()
            }),
        };
        let request = UpsertAccessListMemberRequest { member: Some(member) };
        api.access_lists().upsert_access_list_member(request).within("adding the user").await?;
        let what = self.kind.word();
        say(&text::lines(&format!("Successfully added {what} {} to access list {}\n", self.user, self.name)));
        Ok(())
    }
}

impl Rm {
    async fn run(self, api: &Api) -> Result<()> {
        let request = DeleteAccessListMemberRequest { access_list: self.name.clone(), member_name: self.user.clone() };
        api.access_lists().delete_access_list_member(request).within("removing the user").await?;
        say(&text::lines(&format!("Successfully removed user {} from access list {}\n", self.user, self.name)));
        Ok(())
    }
}

impl Get {
    async fn users(self, api: &Api) -> Result<()> {
        let found = resource::list_members(api, &self.name).await?;
        match self.format {
            Format::Json => say(&output::json(&found, 4)?),
            Format::Yaml => say(&output::yaml(&found)?),
            Format::Text if found.is_empty() => {
                say(&text::lines(&format!("No users in access list {}.\n", self.name)));
            }
            Format::Text => {
                let mut table = Table::new(["User", "Kind", "Expires", "Added By", "Reason"]);
                for member in &found {
                    let spec = member.spec.clone().unwrap_or_default();
                    let ends = time::expiry(spec.expires.as_ref(), Utc::now());
                    let kind =
                        if spec.membership_kind == MembershipKind::List as i32 { Kind::List } else { Kind::User };
                    table.row([spec.name, kind.word().to_owned(), ends, spec.added_by, spec.reason]);
                }
                say(&table.fitted());
            }
        }
        Ok(())
    }
}
