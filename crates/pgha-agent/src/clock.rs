//! The clock of leases: `CLOCK_BOOTTIME`, which does not stand still while the machine is suspended.

use nix::time::{ClockId, clock_gettime};
use pgha_core::time::Instant;

/// Milliseconds since boot.
pub(crate) fn now() -> Instant {
    // The kernel knows CLOCK_BOOTTIME since 2.6.39; the call cannot fail with a valid clock and pointer.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    let millis = i128::from(time.tv_sec()) * 1000 + i128::from(time.tv_nsec()) / 1_000_000;
    Instant(u64::try_from(millis).unwrap_or(0))
}
