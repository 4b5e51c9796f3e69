//! Which lists are appended to now, and what comes next into them.

use std::sync::atomic::{AtomicI64, Ordering};

use super::{Element, Key};

/// Lists in use at one time: fewer than clients, so that they meet.
pub(super) const LANES: usize = 3;
/// A list is full at about this length. An append rewrites its whole row; one of 200 stays below the two kilobytes at
/// which Postgres would begin to compress it.
const FULL: usize = 200;

/// Shared by all clients of a workload.
#[derive(Debug)]
pub(super) struct Keys {
    /// The list that each lane is filling; its successor takes its place.
    lanes: [AtomicI64; LANES],
    numbers: Numbers,
}

/// Each number once, for lists and for elements.
#[derive(Debug)]
struct Numbers(AtomicI64);

impl Numbers {
    fn next(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Keys {
    pub(super) fn new() -> Self {
        let numbers = Numbers(AtomicI64::new(0));
        Self { lanes: std::array::from_fn(|_| numbers.next().into()), numbers }
    }

    /// The list that a lane is filling.
    pub(super) fn key(&self, lane: usize) -> Key {
        self.lanes[lane % LANES].load(Ordering::Relaxed)
    }

    /// An element that nobody else has.
    pub(super) fn element(&self) -> Element {
        self.numbers.next()
    }

    /// A list was seen at this length: a full one gets a successor. Appends that are under way may still come into it.
    pub(super) fn seen(&self, key: Key, length: usize) {
        if length < FULL {
            return;
        }
        for lane in &self.lanes {
            if lane.load(Ordering::Relaxed) == key {
                let _ = lane.compare_exchange(key, self.numbers.next(), Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_list_has_one_successor() {
        let keys = Keys::new();
        let all = || [0, 1, 2].map(|lane| keys.key(lane));
        assert_eq!(all(), [0, 1, 2]);
        keys.seen(1, FULL - 1);
        assert_eq!(all(), [0, 1, 2]);
        keys.seen(1, FULL);
        keys.seen(1, FULL + 1);
        assert_eq!(all(), [0, 3, 2]);
        assert_eq!(keys.element(), 4);
        keys.seen(3, FULL);
        assert_eq!(all(), [0, 5, 2]);
    }
}
