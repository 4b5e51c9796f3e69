//! systemd over D-Bus: start the Postgres unit or take that back, ask why we are being stopped, and who feeds the watchdog.
//! Fencing never comes through here.

use std::path::PathBuf;
use std::time::Duration;

use zbus::proxy::CacheProperties;
use zbus::{Connection, OwnedObjectPath};

/// What went wrong between us and systemd.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SystemdError {
    #[error("D-Bus: {0}")]
    Bus(#[from] zbus::Error),
    #[error("systemd did not answer within {0:?}")]
    Timeout(Duration),
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    #[zbus(name = "GetUnitByPID")]
    fn get_unit_by_pid(&self, pid: u32) -> zbus::Result<OwnedObjectPath>;
    #[zbus(property, name = "RuntimeWatchdogUSec")]
    fn runtime_watchdog_usec(&self) -> zbus::Result<u64>;
    #[zbus(property)]
    fn watchdog_device(&self) -> zbus::Result<String>;
}

#[zbus::proxy(interface = "org.freedesktop.systemd1.Unit", default_service = "org.freedesktop.systemd1")]
trait Unit {
    #[zbus(property)]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property)]
    fn job(&self) -> zbus::Result<(u32, OwnedObjectPath)>;
}

#[zbus::proxy(interface = "org.freedesktop.systemd1.Job", default_service = "org.freedesktop.systemd1")]
trait Job {
    #[zbus(property)]
    fn job_type(&self) -> zbus::Result<String>;
}

/// For questions of the loop: a leader must get round to its next renewal.
const SHORT: Duration = Duration::from_secs(1);
/// For orders of a job, which the loop does not wait for. A machine that boots is slow to answer.
const LONG: Duration = Duration::from_secs(15);

async fn within<T>(deadline: Duration, work: impl Future<Output = zbus::Result<T>>) -> Result<T, SystemdError> {
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(SystemdError::Timeout(deadline)),
    }
}

/// Orders the start of `unit`. Whether it succeeds is seen from the postmaster itself.
pub(crate) async fn start(unit: &str) -> Result<(), SystemdError> {
    within(LONG, async {
        let bus = Connection::system().await?;
        let manager = ManagerProxy::new(&bus).await?;
        // A unit that failed too often refuses to start until this; an error means that it did not fail.
        let _ = manager.reset_failed_unit(unit).await;
        manager.start_unit(unit, "replace").await.map(|_| ())
    })
    .await
}

/// Takes back a start of `unit` that systemd has not carried out yet, and ends what it may have begun. Nothing of the unit
/// runs, nor will, after this.
pub(crate) async fn settle(unit: &str) -> Result<(), SystemdError> {
    within(LONG, async {
        let bus = Connection::system().await?;
        let manager = ManagerProxy::new(&bus).await?;
        let path = manager.load_unit(unit).await?;
        // What it was before is no answer.
        let proxy = UnitProxy::builder(&bus).path(path).cache_properties(CacheProperties::No).build().await?;
        let mut ordered = false;
        loop {
            let ((job, _), state) = (proxy.job().await?, proxy.active_state().await?);
            if job == 0 && matches!(state.as_str(), "inactive" | "failed") {
                return Ok(());
            }
            if !ordered && state != "deactivating" {
                tracing::info!(unit, state, "ending what is left of an earlier start");
                manager.stop_unit(unit, "replace").await?;
                ordered = true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Whether `unit` has failed.
pub(crate) async fn has_failed(unit: &str) -> Result<bool, SystemdError> {
    within(LONG, async {
        let bus = Connection::system().await?;
        let unit = ManagerProxy::new(&bus).await?.get_unit(unit).await?;
        let unit = UnitProxy::builder(&bus).path(unit).build().await?;
        Ok(unit.active_state().await? == "failed")
    })
    .await
}

/// Whether systemd is stopping this process only to start it again (`systemctl restart`).
pub(crate) async fn is_restarting_us() -> Result<bool, SystemdError> {
    within(SHORT, async {
        let bus = Connection::system().await?;
        let manager = ManagerProxy::new(&bus).await?;
        let unit = manager.get_unit_by_pid(std::process::id()).await?;
        let unit = UnitProxy::builder(&bus).path(unit).build().await?;
        let (id, job) = unit.job().await?;
        if id == 0 {
            return Ok(false);
        }
        let job = JobProxy::builder(&bus).path(job).build().await?;
        Ok(job.job_type().await?.contains("restart"))
    })
    .await
}

/// The watchdog that systemd feeds, if it does, and its timeout as `RuntimeWatchdogSec=` has it.
pub(crate) async fn runtime_watchdog() -> Result<Option<(PathBuf, String)>, SystemdError> {
    within(LONG, async {
        let bus = Connection::system().await?;
        let manager = ManagerProxy::builder(&bus).cache_properties(CacheProperties::No).build().await?;
        let every = match manager.runtime_watchdog_usec().await? {
            0 => return Ok(None),
            // "default": what the hardware has.
            u64::MAX => "default".to_owned(),
            micros => format!("{}s", micros / 1_000_000),
        };
        // Without WatchdogDevice= it is the first (systemd-system.conf(5)); versions before 252 do not tell.
        let device = manager.watchdog_device().await.ok().filter(|device| !device.is_empty());
        Ok(Some((device.unwrap_or_else(|| "/dev/watchdog0".to_owned()).into(), every)))
    })
    .await
}
