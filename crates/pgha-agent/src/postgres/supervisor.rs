//! Who starts the postmaster: a systemd unit of its own, or the agent itself.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pgha_core::config::{Config, Supervisor};
use pgha_guard::postmaster::Postmaster;

use crate::systemd;

/// Why Postgres could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot start {unit}: {source}")]
    Systemd { unit: String, source: systemd::SystemdError },
    #[error("{unit} may still be about to start: {source}")]
    Settle { unit: String, source: systemd::SystemdError },
    #[error("cannot run {program}: {source}")]
    Spawn { program: String, source: io::Error },
}

/// A start that was ordered.
#[derive(Debug)]
pub(crate) enum Ordered {
    /// Of this unit.
    Unit(String),
    /// Of a child; set when it has ended.
    Child(Arc<AtomicBool>),
}

impl Ordered {
    /// Whether nothing will come of it: what was started has ended.
    pub(crate) async fn is_over(&self) -> bool {
        match self {
            // Where systemd does not answer, the start is given up when its time is over.
            Self::Unit(unit) => systemd::has_failed(unit).await.unwrap_or(false),
            Self::Child(ended) => ended.load(Ordering::Relaxed),
        }
    }
}

/// Orders the start; whether it succeeds is seen from the postmaster.
pub(crate) async fn start(config: &Config) -> Result<Ordered, StartError> {
    let postgres = &config.postgres;
    match postgres.supervisor {
        Supervisor::Systemd => match systemd::start(&postgres.unit).await {
            Ok(()) => Ok(Ordered::Unit(postgres.unit.clone())),
            Err(source) => Err(StartError::Systemd { unit: postgres.unit.clone(), source }),
        },
        Supervisor::Direct => {
            let program = postgres.bin_dir.join("postgres");
            let failed = |source| StartError::Spawn { program: program.display().to_string(), source };
            let log = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(config.state_dir.join("postgres.log"))
                .map_err(failed)?;
            let mut child = std::process::Command::new(&program)
                .arg("-D")
                .arg(&postgres.data_dir)
                .stdin(Stdio::null())
                .stdout(log.try_clone().map_err(failed)?)
                .stderr(log)
                // Not our process group: signals to the agent are not for Postgres.
                .process_group(0)
                .env_remove("NOTIFY_SOCKET")
                .spawn()
                .map_err(failed)?;
            // Reaps it when it ends, so that a dead postmaster does not look alive.
            let ended = Arc::new(AtomicBool::new(false));
            let mark = Arc::clone(&ended);
            std::thread::spawn(move || {
                let _ = child.wait();
                mark.store(true, Ordering::Relaxed);
            });
            Ok(Ordered::Child(ended))
        }
    }
}

/// For a data directory at rest that is about to be changed: a start that was ordered and given up, and that systemd carries
/// out late, must not meet it half changed; and what a power cut left must not be taken for a postmaster.
pub(crate) async fn settle(config: &Config) -> Result<(), StartError> {
    let (unit, data_dir) = (&config.postgres.unit, &config.postgres.data_dir);
    match config.postgres.supervisor {
        Supervisor::Systemd => {
            systemd::settle(unit).await.map_err(|source| StartError::Settle { unit: unit.clone(), source })?;
        }
        // A child is there as soon as it is ordered.
        Supervisor::Direct => {}
    }
    match Postmaster::forget_dead(data_dir) {
        Ok(true) => {
            tracing::info!(data_dir = %data_dir.display(), "removed the postmaster.pid of a postmaster that is dead");
        }
        Ok(false) => {}
        // Whether that matters shows in what comes next; a fresh copy does without.
        Err(error) => tracing::warn!(data_dir = %data_dir.display(), %error, "cannot look after postmaster.pid"),
    }
    Ok(())
}

/// Where Postgres says why it did not start.
pub(crate) fn log_hint(config: &Config) -> String {
    match config.postgres.supervisor {
        Supervisor::Systemd => format!("see: journalctl -u {}", config.postgres.unit),
        Supervisor::Direct => format!("see: {}", config.state_dir.join("postgres.log").display()),
    }
}
