//! Random writes against a map that says what must come out.

use std::{collections::BTreeMap, future::Future};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};

use super::{Fixture, key, watch};
use crate::{Action, Condition, ConditionalAction, Event, Item, Key, KeyRange, ManualClock, Result};

/// One step of the comparison with the model. Keys and values come from few, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Create(u8, u8, bool),
    Put(u8, u8, bool),
    Update(u8, u8),
    Swap(u8, u8, u8),
    ConditionalUpdate(u8, u8, bool),
    ConditionalDelete(u8, bool),
    Delete(u8),
    DeleteRange(u8, u8),
    KeepAlive(u8),
    Atomic(u8, u8, u8),
    LetPass(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (k, v, flag) = (0..4u8, 0..3u8, any::<bool>());
    let step = prop_oneof![
        (k.clone(), v.clone(), flag).prop_map(|(k, v, e)| Step::Create(k, v, e)),
        (k.clone(), v.clone(), flag).prop_map(|(k, v, e)| Step::Put(k, v, e)),
        (k.clone(), v.clone()).prop_map(|(k, v)| Step::Update(k, v)),
        (k.clone(), v.clone(), v.clone()).prop_map(|(k, a, b)| Step::Swap(k, a, b)),
        (k.clone(), v.clone(), flag).prop_map(|(k, v, r)| Step::ConditionalUpdate(k, v, r)),
        (k.clone(), flag).prop_map(|(k, right)| Step::ConditionalDelete(k, right)),
        k.clone().prop_map(Step::Delete),
        (k.clone(), k.clone()).prop_map(|(a, b)| Step::DeleteRange(a, b)),
        k.clone().prop_map(Step::KeepAlive),
        (k.clone(), k.clone(), v).prop_map(|(a, b, v)| Step::Atomic(a, b, v)),
        (1..8u8).prop_map(Step::LetPass),
    ];
    proptest::collection::vec(step, 1..40)
}

fn model_key(number: u8) -> Key {
    key(&number.to_string())
}

/// What a correct backend holds: value and expiry by key.
#[derive(Default)]
struct Model(BTreeMap<Key, (Bytes, Option<DateTime<Utc>>)>);

impl Model {
    fn put(&mut self, item: &Item) {
        self.0.insert(item.key.clone(), (item.value.clone(), item.expires));
    }
}

fn made(key: u8, value: u8, expires: Option<DateTime<Utc>>) -> Item {
    Item::new(model_key(key), vec![value]).with_expires(expires)
}

/// Does a step on both and says whether both agree on its success.
async fn step(fixture: &Fixture, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    let backend = &*fixture.backend;
    let now = backend.now();
    let soon = now + TimeDelta::seconds(10);
    model.0.retain(|_, (_, expires)| expires.is_none_or(|expires| expires > now));
    let known = |model: &Model, k: u8| model.0.get(&model_key(k)).cloned();
    let right = |k: u8| async move { backend.get(&model_key(k)).await.map(|item| item.revision).unwrap_or_default() };
    let (succeeded, expected) = match step {
        Step::Create(k, v, expires) => {
            let item = made(k, v, expires.then_some(soon));
            let free = known(model, k).is_none();
            if free {
                model.put(&item);
            }
            (backend.create(item).await.is_ok(), free)
        }
        Step::Put(k, v, expires) => {
            let item = made(k, v, expires.then_some(soon));
            model.put(&item);
            (backend.put(item).await.is_ok(), true)
        }
        Step::Update(k, v) => {
            let item = made(k, v, None);
            let present = known(model, k).is_some();
            if present {
                model.put(&item);
            }
            (backend.update(item).await.is_ok(), present)
        }
        Step::Swap(k, old, new) => {
            let item = made(k, new, None);
            let equal = known(model, k).is_some_and(|(value, _)| value == [old].as_slice());
            if equal {
                model.put(&item);
            }
            (backend.compare_and_swap(&made(k, old, None), item).await.is_ok(), equal)
        }
        Step::ConditionalUpdate(k, v, is_right) => {
            let revision = if is_right { right(k).await } else { "wrong".to_owned() };
            let item = made(k, v, Some(soon)).with_revision(revision);
            let holds = is_right && known(model, k).is_some();
            if holds {
                model.put(&item);
            }
            (backend.conditional_update(item).await.is_ok(), holds)
        }
        Step::ConditionalDelete(k, is_right) => {
            let revision = if is_right { right(k).await } else { "wrong".to_owned() };
            let holds = is_right && model.0.remove(&model_key(k)).is_some();
            (backend.conditional_delete(&model_key(k), &revision).await.is_ok(), holds)
        }
        Step::Delete(k) => {
            let present = model.0.remove(&model_key(k)).is_some();
            (backend.delete(&model_key(k)).await.is_ok(), present)
        }
        Step::DeleteRange(from, to) => {
            let range = KeyRange::new(model_key(from).as_str(), model_key(to).as_str());
            let before = model.0.len();
            model.0.retain(|key, _| !range.contains(key));
            let removed = (before - model.0.len()) as u64;
            (backend.delete_range(&range).await.ok() == Some(removed), true)
        }
        Step::KeepAlive(k) => {
            let entry = model.0.get_mut(&model_key(k));
            let present = entry.is_some();
            if let Some((_, expires)) = entry {
                *expires = Some(soon);
            }
            (backend.keep_alive(&made(k, 0, None).lease(), soon).await.is_ok(), present)
        }
        Step::Atomic(k, other, v) => {
            if k == other {
                return Ok(());
            }
            let holds = known(model, k).is_some() && known(model, other).is_none();
            if holds {
                model.0.remove(&model_key(k));
                model.put(&made(other, v, None));
            }
            let actions = vec![
                ConditionalAction { key: model_key(k), condition: Condition::Exists, action: Action::Delete },
                ConditionalAction::put(model_key(other), Condition::NotExists, vec![v], None),
            ];
            (backend.atomic_write(actions).await.is_ok(), holds)
        }
        Step::LetPass(seconds) => {
            fixture.let_pass(seconds.into());
            (true, true)
        }
    };
    prop_assert_eq!(succeeded, expected);
    Ok(())
}

/// Compares what is stored with the model, and what a watcher saw with what is stored.
async fn compare(fixture: &Fixture, model: &mut Model) -> Result<(), TestCaseError> {
    let now = fixture.backend.now();
    model.0.retain(|_, (_, expires)| expires.is_none_or(|expires| expires > now));
    let items = fixture.backend.get_range(&KeyRange::prefix("/"), 0).await.unwrap();
    let stored: Vec<_> = items.into_iter().map(|item| (item.key, (item.value, item.expires))).collect();
    let expected: Vec<_> = model.0.clone().into_iter().collect();
    prop_assert_eq!(stored, expected);
    Ok(())
}

/// Random writes have the same effect as on a map, and a watcher that applies the events has the same state.
pub fn it_behaves_like_the_model<F: Future<Output = Fixture>>(open: impl Fn(ManualClock) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 48, ..Config::default() });
    let outcome = runner.run(&steps(), |steps| {
        runtime.block_on(async {
            let fixture = open(ManualClock::default()).await;
            let mut watcher = watch(&*fixture.backend).await;
            let mut model = Model::default();
            for one in steps {
                step(&fixture, &mut model, one).await?;
                compare(&fixture, &mut model).await?;
            }
            let mut replica = Model::default();
            while let Some(event) = watcher.try_recv().unwrap() {
                match event {
                    Event::Init => {}
                    Event::Put(item) => replica.put(&item),
                    Event::Delete(key) => drop(replica.0.remove(&*key)),
                }
            }
            compare(&fixture, &mut replica).await
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
