//! What becomes of memory that connections have used.

use std::hint::black_box;
use std::sync::Once;

/// The C library asks the kernel for blocks of this size one by one, and gives what is free at the end of its memory back when
/// that is more than twice as much.
const LARGE_BLOCK: usize = 2 << 20;

/// Lets the C library keep memory that was freed for what comes next, instead of giving it back to the kernel and asking for
/// it again: with a session that carries much data that went on all the time, and took an eighth of all that the proxy did;
/// with long lists it took the Auth Service more than to write them. It takes for a large block what is larger than any that
/// was freed so far (mallopt(3), "dynamic mmap threshold"). Called with the first session or long list: until then, what
/// starting took is given back.
pub fn keep() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| drop(black_box(Vec::<u8>::with_capacity(LARGE_BLOCK))));
}
