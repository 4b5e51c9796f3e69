//! How long a primary may go on serving, counted only from what it did itself.
//!
//! A leadership ends when another takes it over: a standby that has seen no renewal for [`Timing::eviction`], a heartbeat
//! less than `ttl`, does so in a transaction that fails if there has been one. Whoever has seen a renewal saw it after it was
//! sent. So a lease is counted from a heartbeat before its newest acknowledged renewal was sent, and lasts for less than
//! `ttl`: it is over then. Nothing in this depends on when ZooKeeper ends sessions.
//!
//! It ends them, too, and then nobody looks at renewals. But sessions are counted by ZooKeeper's leader, and a write that
//! arrives there through a follower does not touch its session; the follower reports touched sessions in its answer to the
//! leader's next ping, if it gets that far (`LearnerHandler`, `SessionTrackerImpl.touchSession`, ZooKeeper 3.8). A follower
//! and a leader do without each other for `syncLimit` ticks, a connection that is made anew is reported at once: the leader
//! knows of a session's life not much later than that, and [`Timing::session`] is longer than `ttl` by far more.

use serde::{Deserialize, Serialize};

use crate::name::Epoch;
use crate::time::{Instant, Millis};
use crate::timing::Timing;

/// The right to accept writes, until a point of this host's `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The leadership it belongs to.
    pub epoch: Epoch,
    /// When the newest acknowledged renewal was sent.
    pub sent: Instant,
    /// What the lease is counted from: a heartbeat before that, or when the members that might lead were asked and all gave
    /// their word.
    pub counted_from: Instant,
}

impl Lease {
    /// The lease of a leadership just taken by a write sent at `sent`.
    pub fn taken(epoch: Epoch, sent: Instant, timing: &Timing) -> Self {
        Self { epoch, sent, counted_from: sent - timing.heartbeat }
    }

    /// The lease after the renewal sent at `sent` was acknowledged. What promises have added stays.
    #[must_use]
    pub fn renewed(self, sent: Instant, timing: &Timing) -> Self {
        Self { epoch: self.epoch, sent, counted_from: self.counted_from.max(sent - timing.heartbeat) }
    }

    /// The lease after every member that might lead has given its word, asked at `asked`, not to do so for a session
    /// timeout: counted by each from when it was asked, which was not before.
    #[must_use]
    pub fn promised(self, asked: Instant) -> Self {
        Self { counted_from: self.counted_from.max(asked), ..self }
    }

    /// From here on another node may be primary.
    pub fn end(&self, timing: &Timing) -> Instant {
        self.counted_from + timing.ttl.saturating_sub(timing.guard)
    }

    /// Fencing must begin here for Postgres to be dead at [`Self::end`].
    pub fn fence_at(&self, timing: &Timing) -> Instant {
        self.end(timing) - timing.stop_budget
    }

    /// The kernel watchdog's timeout, in whole seconds from `now`, that resets the host before another can take over; `None` when that is too soon for one. It uses the guard interval up: a watchdog does not wait for a scheduler, and
    /// needs the time to let a fence come first. Counted anew at each renewal: a fixed timeout would have to be short enough for the
    /// latest renewal, and reset hosts whose renewals are a little late and whose lease is long.
    pub fn watchdog_seconds(&self, now: Instant, timing: &Timing) -> Option<u32> {
        let seconds = (self.counted_from + timing.ttl).since(now).0 / 1000;
        u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
    }

    /// What [`Self::watchdog_seconds`] comes to for a renewal that is acknowledged at once.
    pub fn watchdog_usually(timing: &Timing) -> u32 {
        let left = timing.ttl.saturating_sub(timing.heartbeat).saturating_sub(Millis(1));
        u32::try_from(left.0 / 1000).unwrap_or(u32::MAX).max(1)
    }

    /// Whether writes may still be accepted at `now`.
    pub fn holds(&self, now: Instant, timing: &Timing) -> bool {
        now < self.fence_at(timing)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Millis;
    use crate::timing::Profile;

    #[test]
    fn the_watchdog_fires_before_another_can_take_over() {
        for profile in [Profile::Fast, Profile::Balanced, Profile::Wide] {
            let timing = Timing::of(profile);
            let sent = Instant(1_000_000);
            let lease = Lease::taken(Epoch(1), sent, &timing);
            for late in 0..timing.ttl.0 + 1000 {
                let now = sent + Millis(late);
                let fires = lease.watchdog_seconds(now, &timing).map(|seconds| now + Millis::from_secs(seconds.into()));
                assert!(
                    fires.is_none_or(|fires| fires <= lease.counted_from + timing.ttl),
                    "{profile:?}, {late} ms late"
                );
            }
            assert_eq!(lease.watchdog_seconds(sent + Millis(1), &timing), Some(Lease::watchdog_usually(&timing)));
            let fresh = lease.watchdog_seconds(sent, &timing);
            assert!(fresh >= Some(2), "{profile:?}: a watchdog of under 2 s resets healthy hosts");
        }
    }

    proptest! {
        /// Whatever the rhythm of renewals, Postgres is dead before another can take over: whoever has seen the newest
        /// renewal saw it after it was sent.
        #[test]
        fn dead_before_another_can_take_over(gaps in proptest::collection::vec(1_u64..5000, 1..20)) {
            for profile in [Profile::Fast, Profile::Balanced, Profile::Wide] {
                let timing = Timing::of(profile);
                let mut now = Instant(1_000_000);
                let mut lease = Lease::taken(Epoch(1), now, &timing);
                for gap in &gaps {
                    now = now + Millis(*gap);
                    lease = lease.renewed(now, &timing);
                }
                let evicted = now + timing.eviction();
                prop_assert!(lease.fence_at(&timing) + timing.stop_budget + timing.guard <= evicted);
            }
        }
    }
}
