//! The kernel watchdog: armed before a promotion, petted by acknowledged renewals only. The crate's only `unsafe`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use pgha_core::config::WatchdogMode;
use pgha_core::observation::Watchdog as State;

/// The device and what we did with it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    mode: WatchdogMode,
    path: PathBuf,
    timeout_secs: u32,
    device: Option<File>,
    /// Why it could not be armed, said once.
    problem: Option<String>,
}

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
    pub(crate) fn new(mode: WatchdogMode, path: PathBuf, timeout_secs: u32) -> Self {
        Self { mode, path, timeout_secs, device: None, problem: None }
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

    /// Opens the device, which arms it.
    pub(crate) fn arm(&mut self) -> Result<(), WatchdogError> {
        if self.device.is_some() {
            return Ok(());
        }
        let armed = self.try_arm();
        if let Err(error) = &armed {
            self.problem = Some(error.to_string());
        }
        armed
    }

    fn try_arm(&mut self) -> Result<(), WatchdogError> {
        let path = || self.path.clone();
        let device = OpenOptions::new()
            .write(true)
            .open(&self.path)
            .map_err(|source| WatchdogError::Open { path: path(), source })?;
        let wanted = i32::try_from(self.timeout_secs).unwrap_or(i32::MAX);
        let got = ioctl::timeout(device.as_raw_fd(), wanted);
        let refusal = match got {
            Ok(got) if got <= wanted && got > 0 => None,
            Ok(got) => Some(WatchdogError::Timeout { path: path(), wanted: self.timeout_secs, got }),
            Err(source) => Some(WatchdogError::Ioctl { path: path(), source }),
        };
        if let Some(refusal) = refusal {
            disarm(device, &self.path);
            return Err(refusal);
        }
        tracing::info!(device = %self.path.display(), seconds = self.timeout_secs, "watchdog armed");
        self.device = Some(device);
        Ok(())
    }

    /// Another `timeout_secs` of life.
    pub(crate) fn pet(&mut self) {
        if let Some(device) = &self.device
            && let Err(error) = ioctl::pet(device.as_raw_fd())
        {
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

/// "Magic close": without the `V` most drivers go on counting (kernel documentation, watchdog-api).
fn disarm(mut device: File, path: &std::path::Path) {
    if let Err(error) = device.write_all(b"V") {
        tracing::error!(device = %path.display(), %error, "cannot disarm the watchdog; the host will reset");
    }
}
