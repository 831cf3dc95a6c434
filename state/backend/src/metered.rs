//! A backend that counts what is asked of another one.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::{Backend, ConditionalAction, ErrorKind, Item, Key, KeyRange, Lease, Result, Watch, Watcher};

/// Hands everything on to another backend, and counts it.
pub struct Metered {
    inner: Arc<dyn Backend>,
    meters: Meters,
}

/// What was asked for: by the first part of the key, and whether it was a range.
type Asked = [(&'static str, String); 2];

#[derive(Clone, Default)]
struct Meters {
    asked: Family<Asked, Gauge>,
    reads: Counter,
    writes: Counter,
    read: Meter,
    batch_read: Meter,
    write: Meter,
    batch_write: Meter,
    atomic_write: Meter,
}

/// Calls of one sort.
#[derive(Clone)]
struct Meter {
    calls: Counter,
    /// Those that the storage could not do.
    failed: Counter,
    /// Those that did not fit to what is stored.
    refused: Counter,
    seconds: Histogram,
}

impl Default for Meter {
    fn default() -> Self {
        // From 0.1 ms to 6.5 s.
        let seconds = Histogram::new(exponential_buckets(0.0001, 2.0, 17));
        Self { calls: Counter::default(), failed: Counter::default(), refused: Counter::default(), seconds }
    }
}

impl Meter {
    async fn measure<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let started = Instant::now();
        let outcome = call.await;
        self.calls.inc();
        self.seconds.observe(started.elapsed().as_secs_f64());
        if let Err(error) = &outcome {
            match error.kind() {
                ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::CompareFailed => self.refused.inc(),
                _ => self.failed.inc(),
            };
        }
        outcome
    }

    fn register(&self, registry: &mut Registry, sort: &str) {
        registry.register(format!("backend_{sort}_requests"), format!("Calls: {sort}"), self.calls.clone());
        registry.register(
            format!("backend_{sort}_requests_failed"),
            format!("Calls that the storage could not do: {sort}"),
            self.failed.clone(),
        );
        registry.register(
            format!("backend_{sort}_seconds"),
            format!("How long calls took: {sort}"),
            self.seconds.clone(),
        );
    }
}

impl Metered {
    /// Counts what is asked of `inner`.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Self { inner, meters: Meters::default() }
    }

    /// Adds what is counted to the metrics of a process.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_label(("component".into(), "backend".into()));
        let meters = &self.meters;
        registry.register("backend_requests", "Calls by the first part of the key", meters.asked.clone());
        registry.register("backend_reads", "Items read", meters.reads.clone());
        registry.register("backend_writes", "Items written", meters.writes.clone());
        for (sort, meter) in [
            ("read", &meters.read),
            ("batch_read", &meters.batch_read),
            ("write", &meters.write),
            ("batch_write", &meters.batch_write),
            ("atomic_write", &meters.atomic_write),
        ] {
            meter.register(registry, sort);
        }
        registry.register(
            "backend_write_requests_failed_precondition",
            "Writes that did not fit to what is stored",
            meters.write.refused.clone(),
        );
        registry.register(
            "backend_atomic_write_condition_failed",
            "Atomic writes whose conditions did not hold",
            meters.atomic_write.refused.clone(),
        );
    }

    fn asked(&self, key: &Key, range: bool) {
        // The first part is written in the code, others come from outside and are without number.
        let first = format!("/{}", key.parts().next().unwrap_or_default());
        self.meters.asked.get_or_create(&[("req", first), ("range", range.to_string())]).inc();
    }

    async fn write<T>(&self, key: &Key, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.asked(key, false);
        let written = self.meters.write.measure(call).await?;
        self.meters.writes.inc();
        Ok(written)
    }
}

#[async_trait]
impl Backend for Metered {
    async fn create(&self, item: Item) -> Result<String> {
        self.write(&item.key.clone(), self.inner.create(item)).await
    }

    async fn put(&self, item: Item) -> Result<String> {
        self.write(&item.key.clone(), self.inner.put(item)).await
    }

    async fn update(&self, item: Item) -> Result<String> {
        self.write(&item.key.clone(), self.inner.update(item)).await
    }

    async fn compare_and_swap(&self, expected: &Item, new: Item) -> Result<String> {
        self.write(&expected.key, self.inner.compare_and_swap(expected, new)).await
    }

    async fn conditional_update(&self, item: Item) -> Result<String> {
        self.write(&item.key.clone(), self.inner.conditional_update(item)).await
    }

    async fn conditional_delete(&self, key: &Key, revision: &str) -> Result<()> {
        self.write(key, self.inner.conditional_delete(key, revision)).await
    }

    async fn get(&self, key: &Key) -> Result<Item> {
        self.asked(key, false);
        let item = self.meters.read.measure(self.inner.get(key)).await?;
        self.meters.reads.inc();
        Ok(item)
    }

    async fn get_range(&self, range: &KeyRange, limit: usize) -> Result<Vec<Item>> {
        self.asked(&Key::stored(range.start.clone()), true);
        let items = self.meters.batch_read.measure(self.inner.get_range(range, limit)).await?;
        self.meters.reads.inc_by(items.len() as u64);
        Ok(items)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.write(key, self.inner.delete(key)).await
    }

    async fn delete_range(&self, range: &KeyRange) -> Result<u64> {
        self.asked(&Key::stored(range.start.clone()), true);
        let removed = self.meters.batch_write.measure(self.inner.delete_range(range)).await?;
        self.meters.writes.inc_by(removed);
        Ok(removed)
    }

    async fn keep_alive(&self, lease: &Lease, expires: DateTime<Utc>) -> Result<Lease> {
        self.write(&lease.key, self.inner.keep_alive(lease, expires)).await
    }

    async fn atomic_write(&self, actions: Vec<ConditionalAction>) -> Result<String> {
        let count = actions.len() as u64;
        let written = self.meters.atomic_write.measure(self.inner.atomic_write(actions)).await?;
        self.meters.writes.inc_by(count);
        Ok(written)
    }

    async fn watch(&self, watch: Watch) -> Result<Watcher> {
        self.inner.watch(watch).await
    }

    async fn sync(&self) -> Result<()> {
        self.inner.sync().await
    }

    fn now(&self) -> DateTime<Utc> {
        self.inner.now()
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::Memory;

    #[tokio::test]
    async fn what_is_asked_for_is_counted() {
        let backend = Metered::new(Arc::new(Memory::new()));
        let mut registry = Registry::default();
        backend.register(&mut registry);
        let root = Key::root("/things");
        let item = Item::new(root.child("one").unwrap(), "1");
        backend.create(item.clone()).await.unwrap();
        assert!(backend.create(item.clone()).await.is_err());
        assert!(backend.get(&root.child("two").unwrap()).await.is_err());
        backend.get(&item.key).await.unwrap();
        assert_eq!(backend.get_range(&root.children(), 0).await.unwrap().len(), 1);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "backend_requests{component=\"backend\",req=\"/things\",range=\"false\"} 4",
            "backend_requests{component=\"backend\",req=\"/things\",range=\"true\"} 1",
            "backend_write_requests_total{component=\"backend\"} 2",
            "backend_write_requests_failed_precondition_total{component=\"backend\"} 1",
            "backend_write_requests_failed_total{component=\"backend\"} 0",
            "backend_read_seconds_count{component=\"backend\"} 2",
            "backend_batch_read_requests_total{component=\"backend\"} 1",
            "backend_reads_total{component=\"backend\"} 2",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in {text}");
        }
    }
}
