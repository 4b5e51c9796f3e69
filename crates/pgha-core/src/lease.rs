//! How long a primary may go on serving, counted only from what it did itself.
//!
//! ZooKeeper's leader keeps the session clock. A write that arrives there through a follower does not touch the
//! session; the follower reports touched sessions in its answer to the leader's next ping, half a tick later
//! (`LearnerHandler`, `SessionTrackerImpl.touchSession`, ZooKeeper 3.8). So an acknowledged renewal proves that the
//! leader knows of the session's life at the renewal *before* it, which lies at most one heartbeat back: whatever the
//! follower sent between the two came earlier on the same connection. The lease is counted from there.
//!
//! A session is not all that ends a leadership. Where ZooKeeper loses its own leader, all sessions get their whole time
//! anew; then a standby that has seen no renewal for [`Timing::eviction`] takes the leadership over in a transaction that
//! fails if there has been one.

use serde::{Deserialize, Serialize};

use crate::name::Epoch;
use crate::time::Instant;
use crate::timing::Timing;

/// The right to accept writes, until a point of this host's `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The leadership it belongs to.
    pub epoch: Epoch,
    /// When the newest acknowledged renewal was sent.
    pub sent: Instant,
    /// What the lease is counted from: when the acknowledged renewal before that one was sent, or when the members that
    /// might lead were asked and all gave their word.
    pub counted_from: Instant,
}

impl Lease {
    /// The lease of a leadership just taken by a write sent at `sent`.
    ///
    /// Before it the session was in use at least once a heartbeat: members look at the cluster that often.
    pub fn taken(epoch: Epoch, sent: Instant, timing: &Timing) -> Self {
        Self { epoch, sent, counted_from: sent - timing.heartbeat }
    }

    /// The lease after the renewal sent at `sent` was acknowledged. What promises have added stays.
    ///
    /// It is never counted from later than one heartbeat before that renewal, however soon the renewals followed one another:
    /// [`Timing::eviction`] relies on it.
    #[must_use]
    pub fn renewed(self, sent: Instant, timing: &Timing) -> Self {
        let before = self.sent.min(sent - timing.heartbeat);
        Self { epoch: self.epoch, sent, counted_from: before.max(self.counted_from) }
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

    /// The kernel watchdog's timeout, in whole seconds from `now`, that resets the host before the session can expire;
    /// `None` when that is too soon for one. It uses the guard interval up: a watchdog does not wait for a scheduler, and
    /// needs the time to let a fence come first. Counted anew at each renewal: a fixed timeout would have to be short enough for the
    /// latest renewal, and reset hosts whose renewals are a little late and whose lease is long.
    pub fn watchdog_seconds(&self, now: Instant, timing: &Timing) -> Option<u32> {
        let seconds = (self.counted_from + timing.ttl).since(now).0 / 1000;
        u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
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
    fn the_watchdog_fires_before_the_session_can_expire() {
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
            let fresh = lease.watchdog_seconds(sent, &timing);
            assert!(fresh >= Some(2), "{profile:?}: a watchdog of under 2 s resets healthy hosts");
        }
    }

    proptest! {
        /// Whatever the rhythm of renewals, Postgres is dead before the session can expire: the leader of the
        /// ensemble has seen the session at `counted_from` or later, and waits the whole session timeout.
        #[test]
        fn dead_before_the_session_can_expire(gaps in proptest::collection::vec(1_u64..5000, 1..20)) {
            for profile in [Profile::Fast, Profile::Balanced, Profile::Wide] {
                let timing = Timing::of(profile);
                let mut now = Instant(1_000_000);
                let mut lease = Lease::taken(Epoch(1), now, &timing);
                let mut touched = now - timing.heartbeat;
                for gap in &gaps {
                    let before = now;
                    now = now + Millis(*gap);
                    lease = lease.renewed(now, &timing);
                    touched = touched.max(before);
                }
                let expiry = touched + timing.ttl;
                prop_assert!(lease.fence_at(&timing) + timing.stop_budget + timing.guard <= expiry);
                // Who has seen the newest renewal, and no other, saw it after it was sent.
                let evicted = now + timing.eviction();
                prop_assert!(lease.fence_at(&timing) + timing.stop_budget + timing.guard <= evicted);
            }
        }
    }
}
