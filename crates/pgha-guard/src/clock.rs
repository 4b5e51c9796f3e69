//! The clock of leases: `CLOCK_BOOTTIME`, which does not stand still while the machine is suspended.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use pgha_core::time::Instant;

/// Milliseconds since boot.
pub fn now() -> Instant {
    // The kernel knows CLOCK_BOOTTIME since 2.6.39; the call cannot fail with a valid clock and pointer.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap_or_else(|_| TimeSpec::new(0, 0));
    let millis = i128::from(time.tv_sec()) * 1000 + i128::from(time.tv_nsec()) / 1_000_000;
    Instant(u64::try_from(millis).unwrap_or(0))
}

/// Returns then, or at once where that has passed: a machine or process that stood still meanwhile is not late by more than
/// its waking takes.
pub fn sleep_until(when: Instant) {
    let when = std::time::Duration::from_millis(when.0);
    // Cut short by a signal: the caller looks once more.
    let _ =
        clock_nanosleep(ClockId::CLOCK_BOOTTIME, ClockNanosleepFlags::TIMER_ABSTIME, &TimeSpec::from_duration(when));
}
