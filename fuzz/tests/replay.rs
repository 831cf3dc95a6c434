//! Every target on every file of its corpus, and then on mutations of them for a second.
//!
//! `REPLAY_SECONDS` gives more time, `REPLAY_SEED` other mutations. Bytes that break a promise are written to
//! `artifacts/<target>/`, where `cargo fuzz` leaves its own; move them to `corpus/<target>/` with the fix.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fuzz::mutation::{Numbers, mutate};
use fuzz::{TARGETS, Target};

/// Longer for one input is a way to keep a server busy. Generous: machines that run tests are loaded.
const TOO_LONG: Duration = Duration::from_secs(10);

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name}={v}: expected a number")))
}

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn run(target: &Target, data: &[u8]) {
    let start = Instant::now();
    let kept = catch_unwind(AssertUnwindSafe(|| (target.run)(data))).is_ok();
    let took = start.elapsed();
    if kept && took < TOO_LONG {
        return;
    }
    let mut hash = DefaultHasher::new();
    data.hash(&mut hash);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(target.name);
    let file = folder.join(format!("replay-{:016x}", hash.finish()));
    fs::create_dir_all(&folder).unwrap();
    fs::write(&file, data).unwrap();
    panic!("{} broke a promise after {took:?}; the bytes are in {}", target.name, file.display());
}

fn replay(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = corpus(target);
    for data in [&[][..]].into_iter().chain(seeds.iter().map(Vec::as_slice)) {
        run(target, data);
    }
    let end = Instant::now() + Duration::from_secs(variable("REPLAY_SECONDS", 1));
    let mut numbers = Numbers::new(variable("REPLAY_SEED", 17));
    let mut count = 0_u64;
    while Instant::now() < end {
        run(target, &mutate(&mut numbers, &seeds, target.words));
        count += 1;
    }
    println!("{name}: {} files and {count} mutations", seeds.len());
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { replay(stringify!($name)); })*

        #[test]
        fn every_target_is_replayed_and_has_a_program() {
            let here = [$(stringify!($name)),*];
            assert_eq!(TARGETS.iter().map(|t| t.name).collect::<Vec<_>>(), here);
            for name in here {
                let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets").join(format!("{name}.rs"));
                assert!(program.exists(), "{}", program.display());
            }
        }
    };
}

targets! {
    alpn audit_line certificate client_hello configuration credentials detect expression framing proxy_header
    recording recording_events resource_documents resumption role subject tunnel_request
}
