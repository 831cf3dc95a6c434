//! How fast a directory takes durable writes: `cargo run --release -p backend --example throughput [DIRECTORY]`.

use std::{error::Error, sync::Arc, time::Instant};

use backend::{Backend, Item, Key, Sqlite, SqliteOptions};

const NODES: Key = Key::root("/nodes/default");
const WRITERS: usize = 256;
const WRITES: usize = 40;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir_in(std::env::args().nth(1).unwrap_or_else(|| "/tmp".to_owned()))?;
    let start = Instant::now();
    let backend = Arc::new(Sqlite::open(SqliteOptions::new(directory.path())).await?);
    println!("open, new         {:>10.2?}", start.elapsed());

    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let backend = Arc::clone(&backend);
        tasks.spawn(async move {
            for _ in 0..WRITES {
                let expires = backend.now() + chrono::TimeDelta::minutes(10);
                let item = Item::new(NODES.child(writer.to_string())?, vec![b'x'; 1200]);
                backend.put(item.with_expires(expires)).await?;
            }
            Ok::<_, backend::BackendError>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let rate = (WRITERS * WRITES) as f64 / start.elapsed().as_secs_f64();
    println!("durable puts      {rate:>10.0}/s with {WRITERS} writers");

    let start = Instant::now();
    for _ in 0..200 {
        backend.put(Item::new(NODES.child("one")?, "x")).await?;
    }
    println!("one put           {:>10.2?}", start.elapsed() / 200);
    let start = Instant::now();
    for _ in 0..1000 {
        backend.get(&NODES.child("one")?).await?;
    }
    println!("one get           {:>10.2?}", start.elapsed() / 1000);

    backend.close().await;
    let start = Instant::now();
    let backend = Sqlite::open(SqliteOptions::new(directory.path())).await?;
    println!("open, existing    {:>10.2?}", start.elapsed());
    backend.close().await;
    Ok(())
}
