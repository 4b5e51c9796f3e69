//! When a leader last showed that it lives, as far as a member has heard.

use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// The newest renewal of a lease that a member has seen, whoever's it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// Version of `status`, which each renewal raises; `None` where there is none, because somebody has deleted it.
    pub version: Option<i32>,
    /// When this version was first seen, or the leadership that it belongs to where that is younger: the renewal was sent
    /// before that.
    pub seen: Instant,
}

/// A renewal, as `status` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// Version of the znode; begins anew when somebody deletes that.
    pub version: i32,
    /// The transaction that made this version (`mzxid`): the number of a later one is greater, for as long as the ensemble has
    /// its data.
    pub zxid: i64,
}

/// Keeps a [`Pulse`] from what answers of ZooKeeper show.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heart {
    /// What the newest answer showed of `status`, and since when.
    status: Option<(Option<Renewal>, Instant)>,
    /// The transaction of the newest renewal that was ever seen.
    zxid: i64,
    /// The version of `pgha/epoch`, and when it was first seen.
    epoch: Option<(i32, Instant)>,
    /// The session is another than the one in which that was seen.
    reborn: bool,
}

impl Heart {
    /// An answer that is here at `now` shows `status` as this renewal left it.
    ///
    /// Answers may overtake one another: an older one is no news. By the version alone they could not be told from those
    /// after somebody has deleted the znode, and whoever took them for old would evict a leader when its version is where it
    /// was.
    pub fn renewed(&mut self, renewal: Renewal, now: Instant) {
        let old = renewal.zxid < self.zxid && !self.reborn;
        if !old && self.status.is_none_or(|(shown, _)| shown != Some(renewal)) {
            (self.status, self.zxid) = (Some((Some(renewal), now)), renewal.zxid);
        }
        self.reborn = false;
    }

    /// An answer that is here at `now` shows no `status`. Renewals that nobody saw may have come before: they count from now.
    pub fn missed(&mut self, now: Instant) {
        if self.status.is_none_or(|(shown, _)| shown.is_some()) {
            self.status = Some((None, now));
        }
    }

    /// An event at `now` tells that `status` is gone: perhaps once more, after a renewal that nobody saw.
    pub fn vanished(&mut self, now: Instant) {
        self.status = Some((None, now));
    }

    /// A session has begun, perhaps with an ensemble that has lost its data, whose transactions are counted anew.
    pub fn reborn(&mut self) {
        self.reborn = true;
    }

    /// An answer that is here at `now` shows `pgha/epoch` at this version.
    pub fn led(&mut self, version: Option<i32>, now: Instant) {
        if self.epoch.map(|(known, _)| known) != version {
            self.epoch = version.map(|version| (version, now));
        }
    }

    /// The newest sign of life: a renewal, or the beginning of a leadership.
    pub fn pulse(&self) -> Option<Pulse> {
        let ((renewal, renewed), (_, begun)) = self.status.zip(self.epoch)?;
        Some(Pulse { version: renewal.map(|renewal| renewal.version), seen: renewed.max(begun) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewal(version: i32, zxid: i64) -> Renewal {
        Renewal { version, zxid }
    }

    fn pulse(version: i32, seen: u64) -> Pulse {
        Pulse { version: Some(version), seen: Instant(seen) }
    }

    #[test]
    fn a_renewal_counts_from_when_it_was_first_seen() {
        let mut heart = Heart::default();
        heart.renewed(renewal(7, 70), Instant(100));
        assert_eq!(heart.pulse(), None);
        heart.led(Some(1), Instant(100));
        heart.renewed(renewal(7, 70), Instant(200));
        assert_eq!(heart.pulse(), Some(pulse(7, 100)));
        heart.renewed(renewal(8, 80), Instant(300));
        // This answer was under way before the other.
        heart.renewed(renewal(7, 70), Instant(301));
        assert_eq!(heart.pulse(), Some(pulse(8, 300)));
        // A leadership that begins has a lease before its first renewal.
        heart.led(Some(2), Instant(400));
        assert_eq!(heart.pulse(), Some(pulse(8, 400)));
    }

    #[test]
    fn a_znode_that_was_deleted_and_made_anew_is_news() {
        let mut heart = Heart::default();
        heart.led(Some(1), Instant(100));
        heart.renewed(renewal(50, 500), Instant(100));
        heart.renewed(renewal(0, 501), Instant(200));
        assert_eq!(heart.pulse(), Some(pulse(0, 200)));
        heart.renewed(renewal(50, 500), Instant(201));
        assert_eq!(heart.pulse(), Some(pulse(0, 200)));
    }

    #[test]
    fn a_znode_that_is_gone_counts_from_when_that_was_seen() {
        let mut heart = Heart::default();
        heart.led(Some(1), Instant(100));
        heart.renewed(renewal(50, 500), Instant(100));
        heart.missed(Instant(200));
        heart.missed(Instant(300));
        assert_eq!(heart.pulse(), Some(Pulse { version: None, seen: Instant(200) }));
        heart.vanished(Instant(200));
        heart.renewed(renewal(49, 490), Instant(301));
        assert_eq!(heart.pulse(), Some(Pulse { version: None, seen: Instant(200) }));
        // The absence was old when it was heard of.
        heart.renewed(renewal(50, 500), Instant(400));
        assert_eq!(heart.pulse(), Some(pulse(50, 400)));
    }

    #[test]
    fn an_ensemble_that_lost_its_data_counts_anew() {
        let mut heart = Heart::default();
        heart.led(Some(1), Instant(100));
        heart.renewed(renewal(50, 500), Instant(100));
        heart.reborn();
        // The same ensemble, as it shows.
        heart.renewed(renewal(50, 500), Instant(200));
        assert_eq!(heart.pulse(), Some(pulse(50, 100)));
        heart.reborn();
        heart.renewed(renewal(0, 9), Instant(300));
        assert_eq!(heart.pulse(), Some(pulse(0, 300)));
        heart.renewed(renewal(1, 10), Instant(400));
        assert_eq!(heart.pulse(), Some(pulse(1, 400)));
    }
}
