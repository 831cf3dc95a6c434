//! `teleport backend clone`: the state of a cluster from one storage to another.

use std::path::Path;
use std::sync::Arc;

use backend::{Backend, Item, Key, KeyRange, MAX_PAGE, Pager};
use config::Cloning;
use tokio::task::JoinSet;

use crate::error::{Failure, Result};
use crate::storage;

/// Below here are locks of processes that run: they mean nothing elsewhere.
const LOCKS: Key = Key::root(".locks");
/// Items that are read at once.
const PAGE: usize = MAX_PAGE / 10;

/// Copies all items, and says how many there were.
///
/// # Errors
/// When a storage cannot be opened, read or written, and when the destination holds something and nobody insists.
pub fn run(file: &Path) -> Result<u64> {
    let cloning = Cloning::load(file)?;
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // only fails when it is installed already
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (nowhere, parallel) = (Path::new(""), cloning.parallel);
        let source = storage::open(&cloning.source, nowhere).await.map_err(|e| Failure(format!("src: {e}")))?;
        let opened = storage::open(&cloning.destination, nowhere).await;
        let destination = opened.map_err(|e| Failure(format!("dst: {e}")))?;
        let copied = copy(&*source, &destination, parallel, cloning.force).await;
        source.close().await;
        destination.close().await;
        copied
    })
}

async fn copy(source: &dyn Backend, destination: &Arc<dyn Backend>, parallel: usize, force: bool) -> Result<u64> {
    let all = || KeyRange::prefix("");
    if !force && !destination.get_range(&all(), 1).await?.is_empty() {
        return Err(Failure("dst: the storage is not empty: set force: yes to write over what it holds".to_owned()));
    }
    let mut pages = Pager::new(source, all(), PAGE);
    let mut writes = JoinSet::new();
    let mut copied = 0;
    while let Some(page) = pages.next().await? {
        for item in page.into_iter().filter(|item| !item.key.is_under(LOCKS.as_str())) {
            if writes.len() >= parallel {
                finished(writes.join_next().await)?;
            }
            let destination = Arc::clone(destination);
            writes.spawn(async move { destination.put(Item { revision: String::new(), ..item }).await });
            copied += 1;
        }
    }
    while !writes.is_empty() {
        finished(writes.join_next().await)?;
    }
    Ok(copied)
}

type Written = Result<backend::Result<String>, tokio::task::JoinError>;

fn finished(write: Option<Written>) -> Result<()> {
    match write {
        None => Ok(()),
        Some(Ok(written)) => written.map(drop).map_err(|e| Failure(format!("dst: {e}"))),
        Some(Err(error)) => Err(Failure(format!("dst: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use backend::Memory;

    use super::*;

    #[tokio::test]
    async fn everything_is_copied_except_locks_and_only_over_nothing_unless_told() {
        let source = Memory::new();
        let key = |n: usize| Key::root("/roles").child(format!("r{n}")).unwrap();
        let end = source.now() + chrono::TimeDelta::hours(1);
        for n in 0..2500 {
            source.put(Item::new(key(n), format!("{n}")).with_expires((n % 2 == 0).then_some(end))).await.unwrap();
        }
        source.put(Item::new(LOCKS.child("held").unwrap(), "x")).await.unwrap();
        let destination: Arc<dyn Backend> = Arc::new(Memory::new());
        assert_eq!(copy(&source, &destination, 8, false).await.unwrap(), 2500);
        let found = destination.get_range(&KeyRange::prefix(""), 0).await.unwrap();
        assert_eq!(found.len(), 2500);
        let first = destination.get(&key(0)).await.unwrap();
        assert_eq!((first.value.as_ref(), first.expires), (&b"0"[..], Some(end)));
        let refused = copy(&source, &destination, 8, false).await.unwrap_err().to_string();
        assert!(refused.contains("not empty"), "{refused}");
        assert_eq!(copy(&source, &destination, 1, true).await.unwrap(), 2500);
    }
}
