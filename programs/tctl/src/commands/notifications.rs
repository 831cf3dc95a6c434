//! `notifications`: texts for users, which the web interface shows.

use chrono::Utc;
use clap::{ArgGroup, Args, Subcommand};
use resources::{NOTIFICATION_CONTENT, NOTIFICATION_TITLE, Resource as _};
use wire::client::turn_page;
use wire::notifications::{
    ByRoles, CreateGlobalNotificationRequest, CreateUserNotificationRequest, DeleteGlobalNotificationRequest,
    DeleteUserNotificationRequest, GlobalNotification, GlobalNotificationSpec, ListNotificationsRequest, Notification,
    NotificationFilters, global_notification_spec::Matcher,
};
use wire::types::Metadata;

use super::labels;
use crate::api::{Api, Call};
use crate::error::Result;
use crate::output::{self, Format, Table, say, time};

/// Notifications on one page.
const PAGE: i32 = 500;

/// Texts for users.
#[derive(Debug, Subcommand)]
pub enum Notifications {
    /// Make one, for a user or for many.
    Create(Create),
    /// List them.
    #[command(alias = "list")]
    Ls(Ls),
    /// Remove one.
    Rm(Rm),
}

/// Make a notification.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("whom").required(true).args(["user", "roles", "all_users"])))]
pub struct Create {
    /// Only for this user.
    #[arg(long)]
    user: Option<String>,
    /// For all users with one of these roles.
    #[arg(long, value_delimiter = ',')]
    roles: Vec<String>,
    /// For users with all of these roles only.
    #[arg(long, requires = "roles")]
    require_all_roles: bool,
    /// For everybody.
    #[arg(long)]
    all_users: bool,
    /// What it says.
    #[arg(long)]
    title: String,
    /// What it says below the title.
    #[arg(long, default_value = "", hide_default_value = true)]
    content: String,
    /// Whether it warns.
    #[arg(long)]
    warning: bool,
    /// How long it is kept.
    #[arg(long, default_value = "720h")]
    ttl: String,
    /// Labels, as key=value.
    #[arg(long, default_value = "", hide_default_value = true)]
    labels: String,
}

/// List notifications.
#[derive(Args, Debug)]
pub struct Ls {
    /// Only those for this user alone.
    #[arg(long)]
    user: Option<String>,
    /// Only those with these labels.
    #[arg(long, default_value = "", hide_default_value = true)]
    labels: String,
    /// How to show them.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Remove a notification.
#[derive(Args, Debug)]
pub struct Rm {
    /// Its id.
    id: String,
    /// The user that it is for, when it is for one only.
    #[arg(long)]
    user: Option<String>,
}

impl Notifications {
    /// Does what the command line says.
    pub async fn run(self, api: &Api) -> Result<()> {
        match self {
            Self::Create(command) => command.run(api).await,
            Self::Ls(command) => command.run(api).await,
            Self::Rm(command) => command.run(api).await,
        }
    }
}

impl Create {
    async fn run(self, api: &Api) -> Result<()> {
        let notification = self.notification()?;
        let id = match self.user {
            Some(username) => {
                let request = CreateUserNotificationRequest { username, notification: Some(notification) };
                let made = api.notifications().create_user_notification(request).within("making it").await?;
                made.name().to_owned()
            }
            None => {
                let matcher = match self.all_users {
                    true => Matcher::All(true),
                    false => Matcher::ByRoles(ByRoles { roles: self.roles }),
                };
                let global = GlobalNotification {
                    metadata: notification
                        .metadata
                        .clone()
                        .map(|m| Metadata { expires: m.expires, ..Metadata::default() }),
                    spec: Some(GlobalNotificationSpec {
                        matcher: Some(matcher),
                        match_all_conditions: self.require_all_roles,
                        notification: Some(notification),
                    }),
                    ..GlobalNotification::default()
                };
                let request = CreateGlobalNotificationRequest { global_notification: Some(global) };
                let made = api.notifications().create_global_notification(request).within("making it").await?;
                made.name().to_owned()
            }
        };
        say(&format!("Created notification {id}\n"));
        Ok(())
    }

    fn notification(&self) -> Result<Notification> {
        let mut labels = labels::parse(&self.labels)?;
        labels.insert(NOTIFICATION_TITLE.to_owned(), self.title.clone());
        labels.insert(NOTIFICATION_CONTENT.to_owned(), self.content.clone());
        let ends = time::after(Utc::now(), time::lifetime(&self.ttl)?)?;
        let metadata = Metadata { labels, expires: Some(wire::time::timestamp(ends)), ..Metadata::default() };
        let kind = if self.warning { "user-created-warning" } else { "user-created-informational" };
        Ok(Notification { sub_kind: kind.to_owned(), metadata: Some(metadata), ..Notification::default() })
    }
}

impl Ls {
    async fn run(self, api: &Api) -> Result<()> {
        let filters = NotificationFilters {
            username: self.user.unwrap_or_default(),
            user_created_only: true,
            labels: labels::parse(&self.labels)?,
            ..NotificationFilters::default()
        };
        let mut request =
            ListNotificationsRequest { page_size: PAGE, filters: Some(filters), ..ListNotificationsRequest::default() };
        let mut found = Vec::new();
        loop {
            let page = api.notifications().list_notifications(request.clone()).within("listing them").await?;
            found.extend(page.notifications);
            if !turn_page(&mut request.page_token, page.next_page_token)? {
                break;
            }
        }
        say(&match self.format {
            Format::Json => output::json(&found, 4)?,
            Format::Yaml => output::yaml(&found)?,
            Format::Text => table(&found),
        });
        Ok(())
    }
}

fn table(found: &[Notification]) -> String {
    let mut table = Table::new(["ID", "Created", "Expires", "User", "Title"]);
    for one in found {
        let spec = one.spec.clone().unwrap_or_default();
        let created = wire::time::moment(spec.created.as_ref()).map(time::exact).unwrap_or_default();
        let expires = time::expiry(one.metadata().expires.as_ref(), Utc::now());
        let title = one.metadata().labels.get(NOTIFICATION_TITLE).cloned().unwrap_or_default();
        table.row([one.name().to_owned(), created, expires, spec.username, title]);
    }
    table.fitted()
}

impl Rm {
    async fn run(self, api: &Api) -> Result<()> {
        let notification_id = self.id.clone();
        match self.user {
            Some(username) => {
                let request = DeleteUserNotificationRequest { username, notification_id };
                api.notifications().delete_user_notification(request).within("removing it").await?;
            }
            None => {
                let request = DeleteGlobalNotificationRequest { notification_id };
                api.notifications().delete_global_notification(request).within("removing it").await?;
            }
        }
        say(&format!("Notification {:?} has been deleted\n", self.id));
        Ok(())
    }
}
