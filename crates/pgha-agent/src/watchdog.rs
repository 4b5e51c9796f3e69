//! The kernel watchdog: armed before a promotion, petted by acknowledged renewals only. The crate's only `unsafe`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use pgha_core::config::WatchdogMode;
use pgha_core::observation::Watchdog as State;

/// The device and what we did with it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    mode: WatchdogMode,
    path: PathBuf,
    device: Option<File>,
    /// The timeout in force.
    seconds: u32,
    /// Why it could not be armed, said once.
    problem: Option<String>,
}

/// Some devices refuse timeouts below this, in seconds.
const SHORT: u32 = 3;

/// A watchdog that does not do as it is told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchdogError {
    #[error("cannot open {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{path} cannot be set to {wanted} s (it says {got} s): the host would reset after its lease, or never")]
    Timeout { path: PathBuf, wanted: u32, got: i32 },
    #[error("{path}: {source}")]
    Ioctl { path: PathBuf, source: nix::Error },
}

/// `linux/watchdog.h`.
mod ioctl {
    #![expect(unsafe_code, reason = "the watchdog is driven by ioctls; see the kernel's watchdog-api")]
    nix::ioctl_read!(keep_alive, b'W', 5, i32);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, i32);
    nix::ioctl_read!(get_timeout, b'W', 7, i32);

    /// Sets the timeout and returns the one in force: drivers round.
    pub(super) fn timeout(fd: std::os::fd::RawFd, seconds: i32) -> nix::Result<i32> {
        let mut value = seconds;
        // SAFETY: `fd` is an open watchdog device, `value` a valid i32 for the whole of both calls.
        unsafe {
            set_timeout(fd, &raw mut value)?;
            get_timeout(fd, &raw mut value)?;
        }
        Ok(value)
    }

    pub(super) fn pet(fd: std::os::fd::RawFd) -> nix::Result<()> {
        let mut unused = 0;
        // SAFETY: `fd` is an open watchdog device; WDIOC_KEEPALIVE ignores its argument.
        unsafe { keep_alive(fd, &raw mut unused) }.map(|_| ())
    }
}

impl Watchdog {
    pub(crate) fn new(mode: WatchdogMode, path: PathBuf) -> Self {
        Self { mode, path, device: None, seconds: 0, problem: None }
    }

    /// For an observation.
    pub(crate) fn state(&self) -> State {
        match (self.mode, &self.device) {
            (WatchdogMode::Off, _) => State::Off,
            (_, Some(_)) => State::Armed,
            (_, None) if self.problem.is_none() && self.path.exists() => State::Ready,
            (_, None) => State::Unusable,
        }
    }

    /// Opens the device, which arms it: without a pet the host resets after `seconds`.
    pub(crate) fn arm(&mut self, seconds: u32) -> Result<(), WatchdogError> {
        if self.device.is_some() {
            return Ok(());
        }
        let armed = self.try_arm(seconds);
        if let Err(error) = &armed {
            // That a moment was too short for the device says nothing of the device.
            self.problem = (seconds >= SHORT).then(|| error.to_string());
        }
        armed
    }

    fn try_arm(&mut self, seconds: u32) -> Result<(), WatchdogError> {
        let path = self.path.clone();
        let device = OpenOptions::new()
            .write(true)
            .open(&self.path)
            .map_err(|source| WatchdogError::Open { path: path.clone(), source })?;
        if let Err(refusal) = set(&device, &path, seconds) {
            disarm(device, &self.path);
            return Err(refusal);
        }
        tracing::info!(device = %self.path.display(), seconds, "watchdog armed");
        self.device = Some(device);
        self.seconds = seconds;
        Ok(())
    }

    /// At most another `seconds` of life.
    pub(crate) fn pet(&mut self, seconds: u32) {
        let Some(device) = &self.device else { return };
        if seconds != self.seconds {
            match ioctl::timeout(device.as_raw_fd(), i32::try_from(seconds).unwrap_or(i32::MAX)) {
                // Drivers round; what is in force is what counts.
                Ok(got) => self.seconds = u32::try_from(got).unwrap_or(u32::MAX),
                Err(error) => tracing::debug!(%error, seconds, "the watchdog keeps its timeout"),
            }
        }
        if self.seconds > seconds {
            tracing::warn!(
                wanted = seconds,
                in_force = self.seconds,
                "not petting the watchdog: it would outlive the lease"
            );
        } else if let Err(error) = ioctl::pet(device.as_raw_fd()) {
            tracing::error!(device = %self.path.display(), %error, "cannot pet the watchdog; the host may reset");
        }
    }

    /// Closes the device so that it does not fire.
    pub(crate) fn disarm(&mut self) {
        if let Some(device) = self.device.take() {
            disarm(device, &self.path);
            tracing::info!(device = %self.path.display(), "watchdog disarmed");
        }
    }
}

/// Drivers round, and one that rounds up would reset the host after its lease.
fn set(device: &File, path: &Path, seconds: u32) -> Result<(), WatchdogError> {
    let wanted = i32::try_from(seconds).unwrap_or(i32::MAX);
    match ioctl::timeout(device.as_raw_fd(), wanted) {
        Ok(got) if got <= wanted && got > 0 => Ok(()),
        Ok(got) => Err(WatchdogError::Timeout { path: path.to_owned(), wanted: seconds, got }),
        Err(source) => Err(WatchdogError::Ioctl { path: path.to_owned(), source }),
    }
}

/// "Magic close": without the `V` most drivers go on counting (kernel documentation, watchdog-api).
fn disarm(mut device: File, path: &Path) {
    if let Err(error) = device.write_all(b"V") {
        tracing::error!(device = %path.display(), %error, "cannot disarm the watchdog; the host will reset");
    }
}
