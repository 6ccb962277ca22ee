//! What the allocator of the C library keeps for itself.

/// Has all threads share one heap: a second thread would get its own, which takes 10 MiB of addresses, and which
/// `give_back` does not empty to its end. After passes over 4,000 taps `watch` rests at 7.1 MiB with two heaps, and at
/// 5.8 MiB with one (measured; a pass takes as long).
#[expect(unsafe_code, reason = "nothing safe tells the allocator so")]
pub fn share_one() {
    // SAFETY: sets a number that the allocator reads when it makes a heap for another thread.
    unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
}

/// A pass over thousands of taps takes megabytes for a moment, and the allocator keeps what it was given: after passes
/// over 4,000 taps `watch` rests at 7.5 MiB without this, and at 4 to 5 MiB with it (measured; 6.3 MiB with glibc's
/// thresholds set by environment instead).
#[expect(unsafe_code, reason = "nothing safe gives memory back to the kernel")]
pub fn give_back() {
    // SAFETY: looks for free pages at the end of the heap, and touches no memory that is in use.
    unsafe { nix::libc::malloc_trim(0) };
}
