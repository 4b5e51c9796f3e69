//! When a leader last showed that it lives, as far as a member has heard.

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// The newest renewal of a lease that a member has seen, whoever's it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Version of `status`, which each renewal raises.
    pub version: i32,
    /// When this version was first seen, or the leadership that it belongs to where that is younger: the renewal was sent
    /// before that.
    pub seen: Instant,
}

/// Keeps a [`Pulse`] from what answers of ZooKeeper show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heart {
    /// The newest version of `status`, and when it was first seen.
    status: Option<(i32, Instant)>,
    /// The version of `pgha/epoch`, and when it was first seen.
    epoch: Option<(i32, Instant)>,
}

impl Heart {
    /// An answer that is here at `now` shows `status` at this version.
    ///
    /// Answers may overtake one another: an older one is no news. Versions begin anew when somebody deletes the znode; until
    /// they are where they were nobody is evicted, and leaderships end with their sessions.
    pub fn renewed(&mut self, version: i32, now: Instant) {
        if self.status.is_none_or(|(newest, _)| newest < version) {
            self.status = Some((version, now));
        }
    }

    /// An answer that is here at `now` shows `pgha/epoch` at this version.
    pub fn led(&mut self, version: Option<i32>, now: Instant) {
        if self.epoch.map(|(known, _)| known) != version {
            self.epoch = version.map(|version| (version, now));
        }
    }

    /// The newest sign of life: a renewal, or the beginning of a leadership.
    pub fn pulse(&self) -> Option<Pulse> {
        let ((version, renewed), (_, begun)) = self.status.zip(self.epoch)?;
        Some(Pulse { version, seen: renewed.max(begun) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_counts_from_when_it_was_first_seen() {
        let mut heart = Heart::default();
        heart.renewed(7, Instant(100));
        assert_eq!(heart.pulse(), None);
        heart.led(Some(1), Instant(100));
        heart.renewed(7, Instant(200));
        assert_eq!(heart.pulse(), Some(Pulse { version: 7, seen: Instant(100) }));
        heart.renewed(8, Instant(300));
        // This answer was under way before the other.
        heart.renewed(7, Instant(301));
        assert_eq!(heart.pulse(), Some(Pulse { version: 8, seen: Instant(300) }));
        // A leadership that begins has a lease before its first renewal.
        heart.led(Some(2), Instant(400));
        assert_eq!(heart.pulse(), Some(Pulse { version: 8, seen: Instant(400) }));
    }
}
