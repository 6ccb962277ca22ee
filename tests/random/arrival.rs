//! A guest that arrives from another host, as the manual tells of it.

use std::time::Instant;

use crate::model::{LATE, LEFT, SETTLE};

/// What came of the claimer that waits for a guest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrival {
    /// When the first frame came.
    pub claimed: Option<Instant>,
    /// Something has deleted the routes since: the claim may be there or not.
    pub doubtful: bool,
    /// When somebody killed the claimer.
    pub killed: Option<Instant>,
    /// For how many batches it has been one or the other.
    pub age: usize,
}

impl Arrival {
    /// Whether its guest has the settled route, which it has from its first frame on, or when nobody waits for that any
    /// more; `None` if it may be either.
    pub fn is_routed(&self, now: Instant) -> Option<bool> {
        match self.killed {
            _ if self.claimed.is_some() => Some(true),
            None if !self.doubtful => Some(false),
            Some(killed) if now >= killed + LEFT + LATE => Some(true),
            _ => None,
        }
    }

    /// Until when there may be a claim.
    pub fn end(&self) -> Option<Instant> {
        let settled = self.claimed.map(|claimed| claimed + SETTLE + LATE);
        settled.into_iter().chain(self.killed.map(|killed| killed + LEFT + LATE)).min()
    }
}
