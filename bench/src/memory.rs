//! What a process holds in memory.

use std::fs;

/// Proportional set size of a process in KiB, without its children; see proc(5), `smaps_rollup`.
pub fn of(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the memory of a process");
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a line with the proportional set size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
