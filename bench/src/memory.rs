//! What a process holds in memory.
#![allow(dead_code)] // each program here compares what suits it

use std::fs;

/// Proportional set size of a process in KiB, without its children.
pub fn of(pid: u32) -> u64 {
    field(pid, "Pss:")
}

/// What a process alone has written to, in KiB: its share of the programs it is made of does not change this.
pub fn private(pid: u32) -> u64 {
    field(pid, "Private_Dirty:")
}

/// A field of `smaps_rollup`, see proc(5).
fn field(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the memory of a process");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line with this name");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
