//! A machine that is many times slower than ours, such as a QEMU without KVM: tests/kernels says how many times in
//! TAP32_SLOW, and nobody else sets it.

use std::time::Duration;

/// How many times slower than this test's limits are made for.
pub fn slower() -> usize {
    std::env::var("TAP32_SLOW").map_or(1, |times| times.parse().expect("TAP32_SLOW is a number"))
}

/// So long does a test wait for what must come.
pub fn limit(usual: Duration) -> Duration {
    usual * u32::try_from(slower()).unwrap()
}

/// So often does a test repeat what seldom goes wrong.
pub fn rounds(usual: usize) -> usize {
    usual.div_ceil(slower())
}
