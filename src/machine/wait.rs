//! tokio, where something is waited for: events, signals, another program. All else is done when it returns, the kernel's
//! answers too, and a hook that starts in a millisecond does without.

use anyhow::{Context, Result};

/// Runs `work` to its end, on this thread.
///
/// # Errors
/// The kernel gives no descriptors for a tokio runtime.
pub fn wait<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    Ok(runtime.context("cannot start the tokio runtime")?.block_on(work))
}
