//! Random names and waits.

use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use wire::error::{Error, Result};

/// `N` bytes nobody can guess.
///
/// # Errors
/// When the system's source of randomness fails.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::other("the system's source of randomness failed"))?;
    Ok(bytes)
}

/// Lower-case hexadecimal text of `N` bytes nobody can guess: tokens and session ids.
///
/// # Errors
/// When the system's source of randomness fails.
pub(crate) fn token<const N: usize>() -> Result<String> {
    Ok(hex::encode(bytes::<N>()?))
}

/// Between half of a wait and all of it, so that many who wait do not come back together.
pub(crate) fn jitter(wait: Duration) -> Duration {
    let share = bytes::<1>().map_or(255, |[byte]| u32::from(byte));
    wait / 2 + wait / 2 * share / 255
}
