//! The reading side.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use tokio::task::AbortHandle;
use tonic::Streaming;

use super::{
    EtcdOptions, PAGE,
    api::{
        KeyValue, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest, WatchResponse,
        watch_request::RequestUnion,
    },
    connect::Client,
    value,
};
use crate::{BackendError, Item, Key, KeyRange, Result, local::Reader, writer::Look};

/// Waits before the watch that hears of changes is made anew.
const MIN_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(5);

/// Reads what is committed.
pub struct EtcdReader {
    options: EtcdOptions,
    client: Client,
    listener: AbortHandle,
    closed: std::sync::atomic::AtomicBool,
}

impl EtcdReader {
    /// A reader, and a task that has the writer look when another process has written.
    pub(super) fn new(options: EtcdOptions, client: Client, look: Look) -> Self {
        let listener = tokio::spawn(listen(options.clone(), client.clone(), look)).abort_handle();
        Self { options, client, listener, closed: false.into() }
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        if self.closed.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(BackendError::Closed);
        }
        self.client.within(work).await
    }
}

impl Drop for EtcdReader {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

#[async_trait]
impl Reader for EtcdReader {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        self.within(one(&self.client, &self.options, key)).await
    }

    async fn range(&self, wanted: &KeyRange, now: DateTime<Utc>, limit: usize) -> Result<Vec<Item>> {
        self.within(range(&self.client, &self.options, wanted, 0, |item| !item.is_expired(now), limit)).await
    }

    fn close(&self) {
        self.closed.store(true, std::sync::atomic::Ordering::Relaxed);
        self.listener.abort();
    }
}

/// The item at a key, expired or not.
pub(super) async fn one(client: &Client, options: &EtcdOptions, key: &Key) -> Result<Option<Item>> {
    let question = RangeRequest { key: options.place(key), ..RangeRequest::default() };
    let answer = ask(client, question).await?;
    answer.kvs.first().map(|kv| value::decode(key.clone(), &kv.value)).transpose()
}

/// Asks for keys.
pub(super) async fn ask(client: &Client, question: RangeRequest) -> Result<RangeResponse> {
    let ask = |client: Client| {
        let question = question.clone();
        async move { client.kv().range(question).await }
    };
    client.ask(ask).await
}

/// The items of a range that are wanted, at most `limit`, all as they were at one revision; 0 stands for now.
pub(super) async fn range(
    client: &Client,
    options: &EtcdOptions,
    range: &KeyRange,
    mut revision: i64,
    wanted: impl Fn(&Item) -> bool,
    limit: usize,
) -> Result<Vec<Item>> {
    let (mut key, range_end) = options.range(range);
    let mut found = Vec::new();
    loop {
        // A page has few items that are not wanted, as expired ones are removed soon.
        let limit_of_page = i64::try_from(limit.saturating_sub(found.len())).unwrap_or(PAGE).clamp(1, PAGE);
        let question = RangeRequest { key, range_end: range_end.clone(), limit: limit_of_page, revision };
        let answer = ask(client, question).await?;
        if revision == 0 {
            revision = answer.header.map_or(0, |header| header.revision);
        }
        let Some(last) = answer.kvs.last().map(|kv| kv.key.clone()) else { return Ok(found) };
        for kv in &answer.kvs {
            let item = read(options, kv)?;
            if wanted(&item) {
                found.push(item);
            }
            if found.len() >= limit {
                return Ok(found);
            }
        }
        if !answer.more {
            return Ok(found);
        }
        key = last;
        key.push(0);
    }
}

fn read(options: &EtcdOptions, kv: &KeyValue) -> Result<Item> {
    let key = options.key(&kv.key);
    let key = key.ok_or_else(|| BackendError::Storage("a key in the storage is not text".to_owned()))?;
    value::decode(key, &kv.value)
}

/// Changes of keys from `key` (included) to `end` (excluded; empty: of this key alone), from a revision on (0: from now).
pub(super) async fn follow(client: &Client, key: Vec<u8>, end: Vec<u8>, from: i64) -> Result<Streaming<WatchResponse>> {
    let create = WatchCreateRequest { key, range_end: end, start_revision: from };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The stream of requests stays open as long as that of answers is read.
    let requests = |request| futures::stream::iter([request]).chain(futures::stream::pending());
    let watch = |client: Client| {
        let requests = requests(request.clone());
        async move { client.watch().watch(requests).await }
    };
    client.ask(watch).await
}

/// Has the writer look whenever a process has written, for ever.
async fn listen(options: EtcdOptions, client: Client, look: Look) {
    let look = Arc::new(look);
    let mut retry = MIN_RETRY;
    loop {
        let started = std::time::Instant::now();
        if let Ok(mut watch) = follow(&client, options.fence(), Vec::new(), 0).await {
            look.now();
            while let Ok(Some(message)) = watch.message().await {
                if message.canceled {
                    break;
                }
                look.now();
            }
        }
        tracing::warn!(
            "the watch of the storage was lost: changes made by other processes are looked for every second"
        );
        if started.elapsed() > MAX_RETRY {
            retry = MIN_RETRY;
        }
        let share = f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 512.0;
        tokio::time::sleep(retry.mul_f64(0.5 + share)).await;
        retry = (retry * 2).min(MAX_RETRY);
    }
}
