//! Build script of every program: how the finished program is linked.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=../link.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    // Cargo strips only programs whose profile has no exception for them.
    println!("cargo:rustc-link-arg-bins=-Wl,--strip-all");
    // What these need is certain only here: LLD, which Rust brings and uses on this target, and glibc 2.36.
    if is("TARGET", "x86_64-unknown-linux-gnu") {
        // Generic code is compiled once for each type, often to the same instructions: one copy is kept.
        println!("cargo:rustc-link-arg-bins=-Wl,--icf=all");
        // The list of addresses that are adjusted at start is read whole: packed, it takes a fiftieth of the memory.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
