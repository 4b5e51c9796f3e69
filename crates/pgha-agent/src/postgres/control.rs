//! `pg_controldata`: what a data directory at rest says of itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pgha_core::lsn::{Lsn, Timeline};
use pgha_core::name::SystemId;
use pgha_core::observation::{Control, ControlState};
use tokio::process::Command;

/// Why there is no [`Control`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("cannot run pg_controldata: {0}")]
    Run(#[from] std::io::Error),
    #[error("pg_controldata has not answered within {0:?}: the disk may hang")]
    Late(Duration),
    #[error("pg_controldata: {0}")]
    Failed(String),
    #[error("pg_controldata does not say `{0}`")]
    Missing(&'static str),
}

/// Reads the control file of a stopped Postgres.
pub(crate) async fn read(bin_dir: &Path, data_dir: &Path, patience: Duration) -> Result<Control, ControlError> {
    let text = tokio::time::timeout(patience, text(bin_dir, data_dir)).await;
    let control = parse(&text.map_err(|_| ControlError::Late(patience))??)?;
    Ok(Control {
        standby_signal: data_dir.join("standby.signal").exists(),
        backup_label: data_dir.join("backup_label").exists(),
        ..control
    })
}

/// Settings of the primary that wrote the WAL; a standby with less refuses to start
/// (`CheckRequiredParameterValues`).
pub(crate) async fn floors(bin_dir: &Path, data_dir: &Path) -> Result<BTreeMap<&'static str, u64>, ControlError> {
    let text = text(bin_dir, data_dir).await?;
    let known = [
        ("max_connections setting", "max_connections"),
        ("max_worker_processes setting", "max_worker_processes"),
        ("max_wal_senders setting", "max_wal_senders"),
        ("max_prepared_xacts setting", "max_prepared_transactions"),
        ("max_locks_per_xact setting", "max_locks_per_transaction"),
    ];
    let value = |label| text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':')?.trim().parse().ok());
    Ok(known.into_iter().filter_map(|(label, name)| Some((name, value(label)?))).collect())
}

async fn text(bin_dir: &Path, data_dir: &Path) -> Result<String, ControlError> {
    let output = Command::new(bin_dir.join("pg_controldata"))
        .arg(data_dir)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        return Err(ControlError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn parse(text: &str) -> Result<Control, ControlError> {
    let field = |label: &'static str| {
        let line = text.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(':'));
        line.map(str::trim).ok_or(ControlError::Missing(label))
    };
    let number = |label: &'static str| field(label)?.parse().map_err(|_| ControlError::Missing(label));
    let position = |label: &'static str| field(label)?.parse::<Lsn>().map_err(|_| ControlError::Missing(label));
    let timeline = |label: &'static str| field(label)?.parse::<u32>().map_err(|_| ControlError::Missing(label));
    let state = match field("Database cluster state")? {
        "shut down" => ControlState::ShutDown,
        "shut down in recovery" => ControlState::ShutDownInRecovery,
        "in production" => ControlState::InProduction,
        "in archive recovery" => ControlState::InArchiveRecovery,
        _ => ControlState::Other,
    };
    Ok(Control {
        system_id: SystemId(number("Database system identifier")?),
        timeline: Timeline(
            timeline("Latest checkpoint's TimeLineID")?.max(timeline("Min recovery ending loc's timeline")?),
        ),
        state,
        checkpoint: position("Latest checkpoint location")?,
        min_recovery_end: position("Minimum recovery ending location")?,
        standby_signal: false,
        backup_label: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found() {
        let text = "Database system identifier:           7268616322854375442\n\
                    Database cluster state:               shut down in recovery\n\
                    Latest checkpoint location:           0/3000060\n\
                    Latest checkpoint's TimeLineID:       2\n\
                    Minimum recovery ending location:     0/30000D8\n\
                    Min recovery ending loc's timeline:   3\n";
        let control = parse(text).unwrap();
        assert_eq!(control.timeline, Timeline(3));
        assert_eq!(control.state, ControlState::ShutDownInRecovery);
        assert_eq!(control.min_recovery_end, Lsn(0x0300_00D8));
        assert!(matches!(parse(""), Err(ControlError::Missing(_))));
    }
}
