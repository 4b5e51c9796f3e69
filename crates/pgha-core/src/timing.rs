//! The timings of leadership and the arithmetic that ties them together.

use serde::{Deserialize, Serialize};

use crate::time::Millis;

/// A named set of timings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One rack, quiet hosts: the lease lasts 4 s.
    Fast,
    /// One data centre: the lease lasts 6 s.
    #[default]
    Balanced,
    /// Several sites or noisy virtual machines: the lease lasts 20 s.
    Wide,
}

/// Timings of one cluster; equal on all its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// How long a leadership outlasts its last sign of life, at most.
    pub ttl: Millis,
    /// How often the primary renews its lease, and every member looks at the cluster.
    pub heartbeat: Millis,
    /// Kept unused at the lease's end, for clock drift and a slow process scheduler.
    pub guard: Millis,
    /// The time in which Postgres is dead for certain once fencing has begun.
    pub stop_budget: Millis,
    /// ZooKeeper's `tickTime`: sessions expire in steps of it.
    pub tick: Millis,
}

/// Timings that cannot keep two primaries apart, or cannot work at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// ZooKeeper would not grant the session.
    #[error(
        "timing.ttl = {ttl} needs sessions of {session}; with timing.tick = {tick} ZooKeeper grants {least} to {most}"
    )]
    Session {
        /// The leadership's length.
        ttl: Millis,
        /// The session timeout that goes with it.
        session: Millis,
        /// ZooKeeper's tick.
        tick: Millis,
        /// Two ticks.
        least: Millis,
        /// Twenty ticks, or one minute where that is more.
        most: Millis,
    },
    /// A single late heartbeat would fence a healthy primary.
    #[error(
        "timing.ttl = {ttl} leaves {left} before a primary must fence itself, but two heartbeats need {need}: \
         lengthen timing.ttl or shorten timing.heartbeat, timing.guard or timing.stop_budget"
    )]
    NoSlack {
        /// The session timeout.
        ttl: Millis,
        /// What is left of it.
        left: Millis,
        /// Two heartbeats.
        need: Millis,
    },
    /// A length that must not be zero.
    #[error("timing.{0} must be longer than zero")]
    Zero(&'static str),
}

impl Timing {
    /// The timings of a profile.
    pub const fn of(profile: Profile) -> Self {
        let (ttl, heartbeat, guard, stop_budget, tick) = match profile {
            Profile::Fast => (4000, 500, 400, 800, 400),
            Profile::Balanced => (6000, 1000, 500, 1000, 500),
            Profile::Wide => (20_000, 3000, 1500, 3000, 2000),
        };
        Self {
            ttl: Millis(ttl),
            heartbeat: Millis(heartbeat),
            guard: Millis(guard),
            stop_budget: Millis(stop_budget),
            tick: Millis(tick),
        }
    }

    /// The shortest and longest session that an ensemble with this `tick` grants.
    ///
    /// ZooKeeper clamps silently to `minSessionTimeout` (2 ticks) and `maxSessionTimeout` (20 ticks by default;
    /// the installer sets at least one minute).
    pub fn session_bounds(&self) -> (Millis, Millis) {
        (Millis(self.tick.0 * 2), Millis((self.tick.0 * 20).max(60_000)))
    }

    /// The ZooKeeper session timeout: see [`crate::lease`] for why it is longer than `ttl`.
    pub fn session(&self) -> Millis {
        self.ttl + self.ttl
    }

    /// How long after its newest renewal was sent a primary goes on serving without another one: until it may be evicted,
    /// less the guard and the time that fencing takes.
    pub fn silence_tolerated(&self) -> Millis {
        self.ttl.saturating_sub(self.heartbeat + self.guard + self.stop_budget)
    }

    /// How long after a standby has seen the newest renewal it may take the leadership over, if there is no newer one.
    pub fn eviction(&self) -> Millis {
        self.ttl.saturating_sub(self.heartbeat)
    }

    /// How long an agent may be silent towards systemd (`WatchdogSec=`) before it is taken for hung: longer than one look
    /// with every deadline used up, which takes a heartbeat.
    pub fn hung_after(&self) -> Millis {
        Millis((self.heartbeat.0 * 2 + 1000).max(3000))
    }

    /// Checks that the timings can hold together.
    pub fn check(&self) -> Result<(), TimingError> {
        for (name, length) in [
            ("ttl", self.ttl),
            ("heartbeat", self.heartbeat),
            ("guard", self.guard),
            ("stop_budget", self.stop_budget),
            ("tick", self.tick),
        ] {
            if length.0 == 0 {
                return Err(TimingError::Zero(name));
            }
        }
        let (least, most) = self.session_bounds();
        let session = self.session();
        if session < least || session > most {
            return Err(TimingError::Session { ttl: self.ttl, session, tick: self.tick, least, most });
        }
        let (left, need) = (self.silence_tolerated(), Millis(self.heartbeat.0 * 2));
        if left < need {
            return Err(TimingError::NoSlack { ttl: self.ttl, left, need });
        }
        Ok(())
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::of(Profile::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_holds_together() {
        for profile in [Profile::Fast, Profile::Balanced, Profile::Wide] {
            let timing = Timing::of(profile);
            assert_eq!(timing.check(), Ok(()), "{profile:?}");
        }
    }

    #[test]
    fn a_session_that_zookeeper_would_clamp_is_refused() {
        let timing = Timing { ttl: Millis(499), ..Timing::default() };
        assert!(matches!(timing.check(), Err(TimingError::Session { .. })));
    }

    #[test]
    fn a_lease_without_slack_is_refused() {
        let timing = Timing { heartbeat: Millis(2000), ..Timing::default() };
        assert!(matches!(timing.check(), Err(TimingError::NoSlack { .. })));
    }
}
