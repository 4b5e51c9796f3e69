//! The kernel watchdog: armed before a promotion, petted by acknowledged renewals only.
//!
//! The agent opens the device when it starts and keeps it, stopped, so that whether there is a watchdog is known before
//! somebody leads, and nobody else takes it. An agent that dies while it is armed leaves it so: its host is reset, unless
//! the next agent comes to lead or sees that there is nothing to guard. Systemd keeps the device open for that one: the
//! kernel begins the countdown anew when the last owner closes a device (`watchdog_release` in its `watchdog_dev.c`).

mod device;

use std::os::fd::{AsFd as _, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pgha_core::config::WatchdogMode;
use pgha_core::observation::Watchdog as State;
use tokio::sync::watch;

use self::device::Device;
pub(crate) use self::device::DeviceError;
use crate::{kept, systemd};

/// The device and what we did with it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    mode: WatchdogMode,
    path: PathBuf,
    /// Ours for as long as the agent runs.
    device: Option<Device>,
    /// One that could not be stopped: petted for ever, and of no use.
    runaway: Option<Device>,
    armed: bool,
    /// The timeout in force.
    seconds: u32,
    /// The timeout that a renewal sets.
    usual: u32,
    /// Why it could not be opened or armed, and when.
    refusal: Option<(DeviceError, Instant)>,
    /// Who has it, where that is known.
    holder: watch::Sender<Option<String>>,
}

/// Some devices refuse timeouts below this, in seconds.
const SHORT: u32 = 3;
/// What was refused is tried again after this.
const AGAIN: Duration = Duration::from_mins(1);

impl Watchdog {
    /// Takes over what the agent before this one had open (`kept`), or opens the device. A renewal will set it to `usual`
    /// seconds. Within a runtime.
    pub(crate) fn new(mode: WatchdogMode, path: PathBuf, usual: u32, kept: Option<RawFd>) -> Self {
        let device = kept.and_then(|fd| {
            let device = Device::inherited(fd);
            if device.is_none() {
                kept::forget(kept::WATCHDOG);
            }
            device
        });
        let armed = device.as_ref().is_some_and(Device::is_running);
        // What is not known is taken for too long, and not petted before it is set.
        let seconds = device.as_ref().and_then(|device| device.timeout().ok()).unwrap_or(u32::MAX);
        if let Some(device) = &device {
            tracing::info!(device = %device.path().display(), armed, seconds, "took over the watchdog");
        }
        let mut watchdog = Self {
            mode,
            path,
            device,
            runaway: None,
            armed,
            seconds,
            usual,
            refusal: None,
            holder: watch::Sender::new(None),
        };
        if mode == WatchdogMode::Off || !armed {
            watchdog.let_go_of_another();
        }
        watchdog.look();
        watchdog
    }

    /// Tries to get a device that was not to be had: its owner may have let it go. Once a turn.
    pub(crate) fn look(&mut self) {
        if let Some(device) = &self.runaway {
            // Its timeout is its driver's own, and longer than a turn.
            let _ = device.pet();
            return;
        }
        let waits = self.refusal.as_ref().is_some_and(|(_, since)| since.elapsed() < AGAIN);
        if self.mode == WatchdogMode::Off || self.device.is_some() || waits {
            return;
        }
        let opened = self.open();
        self.remember(opened.as_ref().err());
        self.device = opened.ok();
    }

    /// Stopped, and known to take timeouts. (Those first: there are drivers that start when they are set.)
    fn open(&mut self) -> Result<Device, DeviceError> {
        let device = Device::open(&self.path)?;
        let set = device.set(self.usual);
        if let Err(refusal) = device.stop() {
            // A host that is reset for nothing is worse than one without a watchdog.
            self.runaway = Some(device);
            return Err(refusal);
        }
        set?;
        if let Err(error) = kept::store(kept::WATCHDOG, device.as_fd()) {
            tracing::warn!(%error, "systemd does not keep the watchdog; an agent that dies while it is armed costs a reset");
        }
        Ok(device)
    }

    /// Says what is new.
    fn remember(&mut self, refusal: Option<&DeviceError>) {
        let known = self.refusal.as_ref().map(|(error, _)| error);
        match refusal {
            Some(missing @ DeviceError::Missing { .. }) if known != refusal => tracing::info!("{missing}"),
            Some(error) if known != refusal => tracing::warn!(%error, "no kernel watchdog"),
            None if known.is_some() => tracing::info!(device = %self.path.display(), "there is a kernel watchdog now"),
            _ => {}
        }
        if matches!(refusal, Some(DeviceError::Held { .. })) {
            tokio::spawn(name_holder(self.path.clone(), self.holder.clone()));
        } else {
            self.holder.send_replace(None);
        }
        self.refusal = refusal.map(|error| (error.clone(), Instant::now()));
    }

    /// For an observation.
    pub(crate) fn state(&self) -> State {
        match self.mode {
            _ if self.armed => State::Armed,
            WatchdogMode::Off => State::Off,
            _ if self.device.is_some() && self.trouble().is_none() => State::Ready,
            _ => State::Unusable,
        }
    }

    /// Why it is unusable.
    pub(crate) fn trouble(&self) -> Option<String> {
        let (refusal, since) = self.refusal.as_ref()?;
        if self.device.is_some() && since.elapsed() >= AGAIN {
            return None;
        }
        Some(self.holder.borrow().clone().unwrap_or_else(|| refusal.to_string()))
    }

    /// Arms it: without a pet the host resets after `seconds`.
    pub(crate) fn arm(&mut self, seconds: u32) -> Result<(), DeviceError> {
        if self.armed {
            return Ok(());
        }
        let Some(device) = &self.device else { return Err(DeviceError::Missing { path: self.path.clone() }) };
        let armed = device.set(seconds).and_then(|()| device.start());
        match &armed {
            Ok(()) => {
                tracing::info!(device = %device.path().display(), seconds, "watchdog armed");
                (self.armed, self.seconds) = (true, seconds);
                self.remember(None);
            }
            // That a moment was too short for the device says nothing of the device.
            Err(DeviceError::Timeout { .. } | DeviceError::Set { .. }) if seconds < SHORT => {}
            Err(error) => {
                // One that may have been started must not be left so.
                let _ = device.stop();
                self.remember(Some(error));
            }
        }
        armed
    }

    /// At most another `seconds` of life.
    pub(crate) fn pet(&mut self, seconds: u32) {
        let Some(device) = self.device.as_ref().filter(|_| self.armed) else { return };
        if seconds != self.seconds {
            match device.set(seconds) {
                Ok(()) => self.seconds = seconds,
                // Drivers round; what is in force is what counts.
                Err(error) => {
                    tracing::debug!(%error, "the watchdog keeps its timeout");
                    self.seconds = device.timeout().unwrap_or(u32::MAX);
                }
            }
        }
        if self.seconds > seconds {
            tracing::warn!(
                wanted = seconds,
                in_force = self.seconds,
                "not petting the watchdog: it outlives the lease"
            );
        } else if let Err(error) = device.pet() {
            tracing::error!(%error, "cannot pet the watchdog; the host may reset");
        }
    }

    /// Stops it, and keeps it for the next time.
    pub(crate) fn disarm(&mut self) {
        let Some(device) = self.device.as_ref().filter(|_| self.armed) else { return };
        self.armed = false;
        match device.stop() {
            Ok(()) => {
                tracing::info!(device = %device.path().display(), "watchdog disarmed");
                self.let_go_of_another();
            }
            Err(error) => {
                self.runaway = self.device.take();
                self.remember(Some(&error));
            }
        }
    }

    /// The configuration may be another than that of the agent before this one.
    fn let_go_of_another(&mut self) {
        let same = |device: &Device| self.mode != WatchdogMode::Off && device::is_same(device.path(), &self.path);
        if !self.device.as_ref().is_none_or(same) {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        if let Some(device) = self.device.take() {
            self.armed = false;
            device.close();
            kept::forget(kept::WATCHDOG);
        }
    }
}

/// Systemd is asked whether it is the one; it says so to everybody.
async fn name_holder(path: PathBuf, holder: watch::Sender<Option<String>>) {
    let Ok(fed) = systemd::runtime_watchdog().await else { return };
    let why = fed.filter(|(fed, _)| device::is_same(fed, &path)).map(|(_, every)| {
        format!(
            "systemd holds {} (RuntimeWatchdogSec={every}): to give it up, set RuntimeWatchdogSec=off in a file of \
             /etc/systemd/system.conf.d and run `systemctl daemon-reexec`",
            path.display()
        )
    });
    let known = holder.send_replace(why.clone());
    if let Some(why) = why.filter(|why| known.as_ref() != Some(why)) {
        tracing::warn!("{why}");
    }
}
