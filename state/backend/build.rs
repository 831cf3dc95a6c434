//! Generates the messages and the client of etcd's API.

use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("proto");
    println!("cargo:rerun-if-changed={}", folder.display());
    println!("cargo:rerun-if-changed=build.rs");
    let files = protox::compile([folder.join("etcd.proto")], [&folder])?;
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
