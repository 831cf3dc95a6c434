//! What a process uses: memory and processor time.
#![allow(dead_code)] // each program here compares what suits it

use std::fs;

/// Proportional set size of a process in KiB, without its children.
pub fn memory(pid: u32) -> u64 {
    field(pid, "Pss:")
}

/// What a process alone has written to, in KiB: its share of the programs it is made of does not change this.
pub fn private_memory(pid: u32) -> u64 {
    field(pid, "Private_Dirty:")
}

/// A field of `smaps_rollup`, see proc(5).
fn field(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the memory of a process");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a line with this name");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Seconds of CPU that a process has used; see proc(5), `stat`.
pub fn cpu(pid: u32) -> f64 {
    /// Clock ticks in a second, as Linux shows them to programs on every architecture.
    const TICKS: f64 = 100.0;
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the times of a process");
    let (_, after_name) = text.rsplit_once(')').expect("a name in parentheses");
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number of ticks");
    (ticks(11) + ticks(12)) / TICKS
}
