//! A watchdog device: the kernel's calls, and what sysfs shows from outside. The crate's only `unsafe`.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{major, minor};

/// A watchdog that does not do as it is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("there is no {path}")]
    Missing { path: PathBuf },
    #[error(
        "{path} cannot be stopped once it runs (its driver has nowayout set): its host would be reset after each switchover"
    )]
    NoWayOut { path: PathBuf },
    #[error("cannot open {path}: {source}")]
    Open { path: PathBuf, source: Errno },
    /// A watchdog has one owner at a time (kernel documentation, watchdog-kernel-api: `WDOG_DEV_OPEN`).
    #[error(
        "{path} is held by another program: a watchdog daemon, or systemd with RuntimeWatchdogSec= (which, says as root: \
         find /proc/*/fd -lname '/dev/watchdog*')"
    )]
    Held { path: PathBuf },
    #[error("{path} cannot be set to {wanted} s (it says {got} s): the host would reset after its lease, or never")]
    Timeout { path: PathBuf, wanted: u32, got: i32 },
    #[error("{path} cannot be set to {wanted} s: {source}")]
    Set { path: PathBuf, wanted: u32, source: Errno },
    #[error("{path}: {source}")]
    Call { path: PathBuf, source: Errno },
}

/// `linux/watchdog.h`, and whose the descriptor is.
mod raw {
    #![expect(unsafe_code, reason = "the watchdog is driven by ioctls; see the kernel's watchdog-api")]

    use std::fs::File;
    use std::os::fd::{FromRawFd as _, RawFd};

    nix::ioctl_read!(set_options, b'W', 4, i32);
    nix::ioctl_read!(keep_alive, b'W', 5, i32);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, i32);
    nix::ioctl_read!(get_timeout, b'W', 7, i32);

    const DISABLE: i32 = 1;
    const ENABLE: i32 = 2;

    /// Sets the timeout and returns the one in force: drivers round.
    pub(super) fn timeout(fd: RawFd, seconds: i32) -> nix::Result<i32> {
        let mut value = seconds;
        // SAFETY: `fd` is an open watchdog device, `value` a valid i32 for the whole of the call.
        unsafe { set_timeout(fd, &raw mut value) }?;
        in_force(fd)
    }

    pub(super) fn in_force(fd: RawFd) -> nix::Result<i32> {
        let mut value = 0;
        // SAFETY: as above.
        unsafe { get_timeout(fd, &raw mut value) }.map(|_| value)
    }

    pub(super) fn pet(fd: RawFd) -> nix::Result<()> {
        let mut unused = 0;
        // SAFETY: as above; WDIOC_KEEPALIVE ignores its argument.
        unsafe { keep_alive(fd, &raw mut unused) }.map(|_| ())
    }

    /// A file that is open and owned by nobody else.
    pub(super) fn owned(fd: RawFd) -> File {
        // SAFETY: that is what the caller promises, who has it from systemd.
        unsafe { File::from_raw_fd(fd) }
    }

    pub(super) fn switch(fd: RawFd, on: bool) -> nix::Result<()> {
        let mut value = if on { ENABLE } else { DISABLE };
        // SAFETY: as above; WDIOC_SETOPTIONS reads its argument, whatever its name in the header says.
        unsafe { set_options(fd, &raw mut value) }.map(|_| ())
    }
}

/// An open one. To close it does not end its countdown, but begins that anew.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    path: PathBuf,
}

impl Device {
    /// Opens it, which starts it with whatever timeout it has.
    pub(super) fn open(path: &Path) -> Result<Self, DeviceError> {
        let path = path.to_owned();
        if sysfs(&path, "nowayout").as_deref() == Some("1") {
            return Err(DeviceError::NoWayOut { path });
        }
        match OpenOptions::new().write(true).open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(error) => Err(match error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw) {
                Errno::ENOENT => DeviceError::Missing { path },
                Errno::EBUSY => DeviceError::Held { path },
                source => DeviceError::Open { path, source },
            }),
        }
    }

    /// One that an earlier process has opened, and that is nobody else's; `None` where it is none.
    pub(super) fn inherited(fd: RawFd) -> Option<Self> {
        let file = raw::owned(fd);
        // Its path is that in the mounts of who opened it.
        let number = file.metadata().ok()?.rdev();
        let sysfs = format!("/sys/dev/char/{}:{}", major(number), minor(number));
        let name = std::fs::read_link(sysfs).ok()?.file_name()?.to_str()?.to_owned();
        name.starts_with("watchdog").then(|| Self { file, path: Path::new("/dev").join(name) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it counts down; where nobody tells, it is taken to.
    pub(super) fn is_running(&self) -> bool {
        sysfs(&self.path, "state").as_deref() != Some("inactive")
    }

    /// The timeout in force, in seconds.
    pub(super) fn timeout(&self) -> Result<u32, DeviceError> {
        let seconds = raw::in_force(self.file.as_raw_fd()).map_err(|source| self.failed(source))?;
        Ok(u32::try_from(seconds).unwrap_or(0))
    }

    /// Drivers round, and one that rounds up would reset the host after its lease.
    pub(super) fn set(&self, seconds: u32) -> Result<(), DeviceError> {
        let wanted = i32::try_from(seconds).unwrap_or(i32::MAX);
        match raw::timeout(self.file.as_raw_fd(), wanted) {
            Ok(got) if got <= wanted && got > 0 => Ok(()),
            Ok(got) => Err(DeviceError::Timeout { path: self.path.clone(), wanted: seconds, got }),
            Err(source) => Err(DeviceError::Set { path: self.path.clone(), wanted: seconds, source }),
        }
    }

    /// Starts one that was stopped.
    pub(super) fn start(&self) -> Result<(), DeviceError> {
        raw::switch(self.file.as_raw_fd(), true).map_err(|source| self.failed(source))
    }

    /// Stops it at once, whoever else has it open.
    pub(super) fn stop(&self) -> Result<(), DeviceError> {
        raw::switch(self.file.as_raw_fd(), false).map_err(|source| self.failed(source))
    }

    pub(super) fn pet(&self) -> Result<(), DeviceError> {
        raw::pet(self.file.as_raw_fd()).map_err(|source| self.failed(source))
    }

    /// For good, so that it does not run. "Magic close": with a `V` it stops when nobody has it open any more (kernel
    /// documentation, watchdog-api). One that is stopped gets none: the kernel would remember that for its next owner.
    pub(super) fn close(mut self) {
        if self.stop().is_err()
            && let Err(error) = self.file.write_all(b"V")
        {
            tracing::error!(device = %self.path.display(), %error, "cannot stop the watchdog; the host will reset");
        }
    }

    fn failed(&self, source: Errno) -> DeviceError {
        DeviceError::Call { path: self.path.clone(), source }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether two paths name one device.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    sysfs_name(one) == sysfs_name(other)
}

/// An attribute of the device, where the kernel shows them (`CONFIG_WATCHDOG_SYSFS`; sysfs-class-watchdog).
fn sysfs(device: &Path, attribute: &str) -> Option<String> {
    let path = Path::new("/sys/class/watchdog").join(sysfs_name(device)?).join(attribute);
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// `/dev/watchdog` is the first device under its old name (kernel documentation, watchdog-kernel-api: `id`).
fn sysfs_name(device: &Path) -> Option<String> {
    let device = device.canonicalize().unwrap_or_else(|_| device.to_owned());
    let name = device.file_name()?.to_str()?;
    Some(if name == "watchdog" { "watchdog0".to_owned() } else { name.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;

    use super::*;

    #[test]
    fn the_first_device_has_two_names() {
        let [old, first, second] = ["/dev/watchdog", "/dev/watchdog0", "/dev/watchdog1"].map(Path::new);
        assert!(is_same(old, first) && !is_same(old, second) && !is_same(first, second));
    }

    #[test]
    fn what_is_no_watchdog_is_not_inherited() {
        let file = tempfile::tempfile().unwrap();
        assert!(Device::inherited(file.into_raw_fd()).is_none());
    }

    #[test]
    fn a_device_that_is_not_there_says_so() {
        let error = Device::open(Path::new("/dev/watchdog-that-is-not-there")).unwrap_err();
        assert_eq!(error.to_string(), "there is no /dev/watchdog-that-is-not-there");
    }
}
