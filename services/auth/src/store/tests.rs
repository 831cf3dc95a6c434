#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use backend::{Backend, Item, Key, ManualClock, Memory};
use resources::Resource;
use wire::{
    error::ErrorKind,
    proto::{Operation, event},
    types::{Metadata, RoleV6, ServerV2},
};

use super::{Store, WatchedKind, kind};

async fn store() -> (Store, Arc<Memory>, ManualClock) {
    let clock = ManualClock::default();
    let backend = Arc::new(Memory::with_clock(Arc::new(clock.clone())));
    (Store::open(backend.clone()).await.unwrap(), backend, clock)
}

fn role(name: &str) -> RoleV6 {
    let mut role = RoleV6 {
        metadata: Some(Metadata { name: name.into(), ..Metadata::default() }),
        version: "v7".into(),
        ..RoleV6::default()
    };
    role.set_defaults();
    role
}

fn node(name: &str) -> ServerV2 {
    let mut node = ServerV2 {
        kind: "node".into(),
        metadata: Some(Metadata { name: name.into(), ..Metadata::default() }),
        ..ServerV2::default()
    };
    node.set_defaults();
    node
}

fn watched(kind: &str) -> WatchedKind {
    WatchedKind { kind: kind.into(), ..WatchedKind::default() }
}

#[tokio::test]
async fn a_writer_reads_its_own_writes() {
    let (store, ..) = store().await;
    for number in 0..100 {
        let name = format!("role-{number}");
        let created = store.create::<kind::Role>(role(&name)).await.unwrap();
        let read = store.cached::<kind::Role>(&name).unwrap();
        assert_eq!(created.revision(), read.revision());
        assert_eq!(store.cached_list::<kind::Role>().len(), number + 1);
    }
    store.delete::<kind::Role>("role-7").await.unwrap();
    assert_eq!(store.cached::<kind::Role>("role-7").unwrap_err().message, "role \"role-7\" not found");
}

#[tokio::test]
async fn an_update_needs_the_latest_revision() {
    let (store, ..) = store().await;
    let first = store.create::<kind::Role>(role("dev")).await.unwrap();
    assert_eq!(store.create::<kind::Role>(role("dev")).await.unwrap_err().kind, ErrorKind::AlreadyExists);
    let second = store.update::<kind::Role>((*first).clone()).await.unwrap();
    assert_ne!(first.revision(), second.revision());
    let stale = store.update::<kind::Role>((*first).clone()).await.unwrap_err();
    assert_eq!(stale.kind, ErrorKind::CompareFailed);
    store.upsert::<kind::Role>((*first).clone()).await.unwrap();
    let changed = store
        .change::<kind::Role>("dev", |role| {
            role.metadata_mut().description = "changed".into();
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(store.cached::<kind::Role>("dev").unwrap().revision(), changed.revision());
}

#[tokio::test]
async fn what_is_stored_survives_and_carries_its_expiry() {
    let (store, backend, clock) = store().await;
    let mut short = node("n1");
    short.set_expires(Some(store.now() + chrono::TimeDelta::seconds(60)));
    store.upsert::<kind::Node>(short).await.unwrap();
    let again = Store::open(backend.clone()).await.unwrap();
    let read = again.cached::<kind::Node>("n1").unwrap();
    assert_eq!(read.metadata().namespace, "default");
    assert!(read.expires().is_some() && !read.revision().is_empty());
    store.keep_alive::<kind::Node>("n1", store.now() + chrono::TimeDelta::seconds(600)).await.unwrap();
    clock.advance(Duration::from_secs(61));
    assert!(store.cached::<kind::Node>("n1").is_ok());
    clock.advance(Duration::from_secs(600));
    assert!(store.cached::<kind::Node>("n1").is_err());
    assert!(store.cached_list::<kind::Node>().is_empty());
}

#[tokio::test]
async fn pages_are_full_and_continue_where_they_ended() {
    let (store, ..) = store().await;
    for number in 0..25 {
        store.upsert::<kind::Node>(node(&format!("n{number:02}"))).await.unwrap();
    }
    let even = |node: &ServerV2| node.name().ends_with(['0', '2', '4', '6', '8']);
    let mut names = Vec::new();
    let mut start = String::new();
    loop {
        let page = store.page::<kind::Node>(&start, 5, even).await.unwrap();
        names.extend(page.items.iter().map(|node| node.name().to_owned()));
        if page.next_key.is_empty() {
            break;
        }
        assert_eq!(page.items.len(), 5);
        start = page.next_key;
    }
    assert_eq!(names.len(), 13);
    assert_eq!((names[0].as_str(), names[12].as_str()), ("n00", "n24"));
}

#[tokio::test]
async fn followers_see_changes_of_their_kinds_in_order() {
    let (store, ..) = store().await;
    let mut watch = store.watch(vec![watched("role")]).unwrap();
    store.upsert::<kind::Node>(node("n1")).await.unwrap();
    store.create::<kind::Role>(role("dev")).await.unwrap();
    store.delete::<kind::Role>("dev").await.unwrap();
    let put = watch.next().await.unwrap();
    assert_eq!(put.r#type, Operation::Put as i32);
    let Some(event::Resource::Role(seen)) = put.resource else { panic!("not a role") };
    assert_eq!(seen.name(), "dev");
    let delete = watch.next().await.unwrap();
    let Some(event::Resource::ResourceHeader(header)) = delete.resource else { panic!("not a header") };
    assert_eq!((delete.r#type, header.kind.as_str()), (Operation::Delete as i32, "role"));
    assert_eq!(header.metadata.unwrap().name, "dev");
}

#[tokio::test]
async fn authorities_travel_without_their_keys_and_only_as_filtered() {
    let (store, ..) = store().await;
    let filter = BTreeMap::from([("host".to_owned(), "main".to_owned())]);
    let mut watch = store.watch(vec![WatchedKind { filter, ..watched("cert_authority") }]).unwrap();
    for (ca_type, cluster) in [("user", "main"), ("host", "other"), ("host", "main")] {
        let suite = pki::suite::SignatureSuite::BalancedV1;
        let ca = crate::authority::generate(
            &keystore::KeyStore::default(),
            ca_type.parse().unwrap(),
            cluster,
            suite,
            store.now(),
        )
        .unwrap();
        store.create::<kind::CertAuthority>(ca).await.unwrap();
    }
    store.delete::<kind::CertAuthority>("host/main").await.unwrap();
    let put = watch.next().await.unwrap();
    let Some(event::Resource::CertAuthority(ca)) = put.resource else { panic!("not an authority") };
    let keys = ca.spec.unwrap().active_keys.unwrap();
    assert!(keys.ssh[0].private_key.is_empty() && keys.tls[0].key.is_empty());
    assert!(!keys.tls[0].cert.is_empty());
    let delete = watch.next().await.unwrap();
    let Some(event::Resource::ResourceHeader(header)) = delete.resource else { panic!("not a header") };
    assert_eq!((header.sub_kind.as_str(), header.metadata.unwrap().name.as_str()), ("host", "main"));
}

#[tokio::test]
async fn a_follower_that_does_not_keep_up_is_sent_away() {
    let (store, ..) = store().await;
    let mut watch = store.watch(vec![watched("node")]).unwrap();
    for _ in 0..9000 {
        store.upsert::<kind::Node>(node("busy")).await.unwrap();
    }
    let end = loop {
        if let Err(end) = watch.next().await {
            break end;
        }
    };
    assert_eq!(end.kind, ErrorKind::LimitExceeded);
    assert!(store.watch(vec![watched("bogus")]).is_err());
}

#[tokio::test]
async fn what_cannot_be_read_is_left_out() {
    let (_, backend, _) = store().await;
    backend.put(Item::new(Key::root("/roles/broken/params"), "{]")).await.unwrap();
    backend.put(Item::new(Key::root("/roles/odd/other"), "{}")).await.unwrap();
    let store = Store::open(backend).await.unwrap();
    store.create::<kind::Role>(role("dev")).await.unwrap();
    assert_eq!(store.cached_list::<kind::Role>().len(), 1);
}

#[tokio::test]
async fn names_cannot_leave_their_place() {
    let (store, ..) = store().await;
    for name in ["", "..", "a/b", "a\0b"] {
        assert!(store.cached::<kind::Role>(name).is_err(), "{name:?}");
        assert!(store.delete::<kind::Role>(name).await.is_err(), "{name:?}");
    }
}
