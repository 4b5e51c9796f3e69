//! True time, in microseconds since a history began; and the clock of a host, which is only nearly right.

use std::fmt;
use std::ops::{Add, Sub};

use pgha_core::time::Instant;

/// A length of true time, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span(pub u64);

/// A point of true time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub u64);

impl Span {
    /// `n` milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(n * 1000)
    }

    /// `n` seconds.
    pub const fn secs(n: u64) -> Self {
        Self(n * 1_000_000)
    }

    /// In whole milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }
}

impl Time {
    /// Time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Span> for Time {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0 + span.0)
    }
}

impl Sub<Span> for Time {
    type Output = Self;

    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}.{:03}", self.0 / 1_000_000, self.0 / 1000 % 1000)
    }
}

/// `CLOCK_BOOTTIME` of one host: it began somewhere and runs a little too fast or too slow.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// What it showed when the history began, in milliseconds; negative for a boot that came later.
    pub offset: i64,
    /// How much it is off, in parts per million.
    pub drift: i64,
}

impl Clock {
    /// What it shows.
    pub fn show(&self, now: Time) -> Instant {
        // A history is far too short for this to overflow.
        let micros = now.0.cast_signed();
        let shown = micros + micros * self.drift / 1_000_000;
        Instant((self.offset + shown / 1000).max(0).cast_unsigned())
    }

    /// The first true time at which it shows `instant` or later.
    pub fn when(&self, instant: Instant) -> Time {
        let shown = (instant.0.cast_signed() - self.offset).max(0) * 1000;
        let guess = shown * 1_000_000 / (1_000_000 + self.drift);
        let mut time = Time(guess.cast_unsigned());
        // Rounding in both directions; at most a millisecond off.
        while self.show(time) < instant {
            time = time + Span(100);
        }
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_turned_back_into_true_time() {
        for drift in [-1000, 0, 1000] {
            let clock = Clock { offset: 77_000, drift };
            for millis in [0, 1, 999, 123_456, 600_000] {
                let instant = clock.show(Time(millis * 1000)) + pgha_core::time::Millis(5);
                let time = clock.when(instant);
                assert!(
                    clock.show(time) >= instant && clock.show(time - Span::millis(2)) < instant,
                    "{drift} {millis}"
                );
            }
        }
    }
}
