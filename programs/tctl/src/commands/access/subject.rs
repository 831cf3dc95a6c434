//! Who asks: a user of the cluster, or roles and traits that somebody thought of.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::Utc;
use rbac::{AccessState, ListCandidate, ListGrants, RoleSet, Traits};
use resources::{AnyResource, Fields, Reference, Resource, kind};
use tokio::sync::OnceCell;
use wire::error::ErrorKind;
use wire::proto::ListResourcesRequest;
use wire::types::{AuthPreferenceV2, RoleV6, UserV2};

use super::reach;
use crate::api::Api;
use crate::commands::create::check;
use crate::connect::{Wanted, connect};
use crate::error::{Error, Result};
use crate::resource::{self, Secrets};

/// What the cluster knows, asked for when it is needed, with proposed roles over it.
pub struct Cluster<'a> {
    wanted: &'a Wanted,
    api: OnceCell<Api>,
    proposed: BTreeMap<String, RoleV6>,
    nodes: OnceCell<Vec<AnyResource>>,
    preference: OnceCell<AuthPreferenceV2>,
}

impl<'a> Cluster<'a> {
    /// The cluster that the command line leads to. `proposed` roles count in place of stored ones of the same name.
    pub fn new(wanted: &'a Wanted, proposed: Vec<RoleV6>) -> Self {
        let proposed = proposed.into_iter().map(|role| (role.name().to_owned(), role)).collect();
        Self { wanted, api: OnceCell::new(), proposed, nodes: OnceCell::new(), preference: OnceCell::new() }
    }

    /// The Auth Service.
    pub async fn api(&self) -> Result<&Api> {
        self.api.get_or_try_init(|| connect(self.wanted)).await
    }

    /// A user.
    pub async fn user(&self, name: &str) -> Result<UserV2> {
        match self.one(kind::USER, name).await? {
            AnyResource::User(user) => Ok(*user),
            other => Err(Error::other(format!("expected a user, got {}", other.title()))),
        }
    }

    /// Something that roles reach: a server by its id or hostname, anything else by its name.
    pub async fn reachable(&self, kind: &str, name: &str) -> Result<AnyResource> {
        let api = self.api().await?;
        if kind == kind::NODE {
            let all = || async {
                let nodes = resource::nodes(api, &Default::default()).await?;
                Ok::<_, Error>(nodes.into_iter().map(AnyResource::from).collect::<Vec<_>>())
            };
            return one(kind, name, self.nodes.get_or_try_init(all).await?);
        }
        let record = reach::KINDS.iter().find(|(thing, _)| *thing == kind).map_or(kind, |(_, record)| *record);
        let request = ListResourcesRequest { resource_type: record.to_owned(), ..Default::default() };
        let mut served = resource::listed(api, &request).await?;
        served.retain(|thing| reach::is_named(thing, name));
        match served.into_iter().next() {
            // Several agents may serve the same.
            Some(found) => Ok(found),
            None if record == kind => Err(Error::not_found(format!("{kind} {name:?} not found"))),
            // It may be registered although no agent serves it.
            None => self.one(kind, name).await,
        }
    }

    /// The settings that decide about second factors and devices.
    pub async fn preference(&self) -> Result<&AuthPreferenceV2> {
        let read = || async {
            match self
                .one_of(Reference { kind: kind::CLUSTER_AUTH_PREFERENCE.into(), sub_kind: None, name: None })
                .await?
            {
                AnyResource::AuthPreference(preference) => Ok(*preference),
                other => Err(Error::other(format!("expected settings, got {}", other.title()))),
            }
        };
        self.preference.get_or_try_init(read).await
    }

    /// The rights of these roles with these traits.
    pub async fn role_set(&self, names: &[String], traits: Traits) -> Result<RoleSet> {
        let mut roles = Vec::with_capacity(names.len());
        for name in names {
            roles.push(match self.proposed.get(name) {
                Some(role) => role.clone(),
                None => match self.one(kind::ROLE, name).await? {
                    AnyResource::Role(role) => *role,
                    other => return Err(Error::other(format!("expected a role, got {}", other.title()))),
                },
            });
        }
        Ok(RoleSet::compile(roles, traits))
    }

    /// The rights of a user as they are, at the next login: with what access lists add, and whether it is known what
    /// they add.
    pub async fn rights(&self, user: &UserV2) -> Result<(RoleSet, bool)> {
        let mut roles = user.spec.as_ref().map(|spec| spec.roles.clone()).unwrap_or_default();
        let mut traits = Traits::of(user);
        let given = self.grants(user.name(), &roles, &traits).await?;
        let lists_seen = given.is_some();
        let given = given.unwrap_or_default();
        roles.extend(given.roles);
        for (name, more) in given.traits {
            let mut values = traits.get(&name).to_vec();
            values.extend(more);
            traits.set(name, values);
        }
        Ok((self.role_set(&roles, traits).await?, lists_seen))
    }

    /// What access lists give a user; `None` when whoever asks may not see all of them. Members see the lists that they
    /// are in: the members of all lists are for those who may see all.
    async fn grants(&self, name: &str, roles: &[String], traits: &Traits) -> Result<Option<ListGrants>> {
        let api = self.api().await?;
        let all = |kind: &str| Reference { kind: kind.to_owned(), sub_kind: None, name: None };
        let found = match resource::get(api, &all(kind::ACCESS_LIST_MEMBER), Secrets::Hidden).await {
            Err(error) if error.kind() == ErrorKind::AccessDenied => return Ok(None),
            found => found?,
        };
        let (mut members, mut nested, mut lists) = (HashMap::new(), Vec::new(), Vec::new());
        for resource in found {
            let AnyResource::AccessListMember(member) = resource else { continue };
            let list = member.spec.as_ref().map(|spec| spec.access_list.clone()).unwrap_or_default();
            let member = Arc::new(*member);
            if member.name() == name {
                members.insert(list, Arc::clone(&member));
            }
            nested.push(member);
        }
        for resource in resource::get(api, &all(kind::ACCESS_LIST), Secrets::Hidden).await? {
            let AnyResource::AccessList(list) = resource else { continue };
            lists.push(Arc::new(*list));
        }
        let who = ListCandidate { name, roles, traits };
        let own = |list: &str, _: &str| members.get(list).cloned();
        let standing = rbac::list_standing(who, &lists, own, &nested, Utc::now());
        Ok(Some(rbac::list_grants(who, &lists, &standing)))
    }

    /// What was proved, in this cluster.
    pub async fn state(&self, rights: &RoleSet, mfa: bool, device: bool) -> Result<AccessState> {
        Ok(AccessState::of(rights, self.preference().await?, mfa, device))
    }

    async fn one(&self, kind: &str, name: &str) -> Result<AnyResource> {
        self.one_of(Reference { kind: kind.to_owned(), sub_kind: None, name: Some(name.to_owned()) }).await
    }

    async fn one_of(&self, reference: Reference) -> Result<AnyResource> {
        let found = resource::get(self.api().await?, &reference, Secrets::Hidden).await?;
        found.into_iter().next().ok_or_else(|| Error::not_found(format!("{reference} not found")))
    }
}

fn one(kind: &str, name: &str, all: &[AnyResource]) -> Result<AnyResource> {
    let mut found = all.iter().filter(|thing| reach::is_named(thing, name));
    match (found.next(), found.next()) {
        (None, _) => Err(Error::not_found(format!("{kind} {name:?} not found"))),
        (Some(_), Some(_)) => Err(Error::bad(format!("several servers are named {name:?}: use the id"))),
        (Some(thing), None) => Ok(thing.clone()),
    }
}

/// The roles in files, which count in place of stored ones of the same name.
pub fn proposed(files: &[PathBuf]) -> Result<Vec<RoleV6>> {
    let mut roles = Vec::new();
    for path in files {
        let (resources, _) = check(&read(path)?, Fields::Known)?;
        for resource in resources {
            roles.push(match resource {
                AnyResource::Role(role) => *role,
                other => return Err(Error::bad(format!("{}: {} is no role", path.display(), other.title()))),
            });
        }
    }
    Ok(roles)
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io(format!("reading {}", path.display())))
}
