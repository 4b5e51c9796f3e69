//! `pg_rewind`: back onto the leader's history, copying only what differs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::JobError;
use super::run::{RunError, run};
use crate::context::Context;
use crate::file_systems::FileSystems;
use crate::postgres::conf::Upstream;
use crate::postgres::supervisor;
use crate::quarantine::{self, Parting};

/// See the module. WAL that the leader does not have is put into quarantine first: it may hold commits that were never
/// acknowledged, and `pg_rewind` deletes it.
pub(crate) async fn rewind(
    context: Arc<Context>,
    parameters: BTreeMap<String, String>,
    source: Upstream,
    parting: Option<Parting>,
) -> Result<(), JobError> {
    let data_dir = &context.config.postgres.data_dir;
    supervisor::settle(&context.config).await.map_err(|error| JobError::Failed(error.to_string()))?;
    if context.past().view(false).rewind_unfinished {
        // It may be half one history and half another, or whole and unrecorded; pg_rewind cannot tell, and on a whole one
        // it would end recovery on the leader's own timeline. The manual advises a fresh copy.
        return Err(JobError::Impossible("an earlier pg_rewind was interrupted".to_owned()));
    }
    let disks = FileSystems::of(data_dir).map_err(JobError::file(data_dir))?;
    quarantine::keep(&context, parting).await.map_err(JobError::failed("putting WAL into quarantine"))?;
    context.past().rewinding(true).map_err(JobError::failed("recording the rewind"))?;
    // pg_rewind recovers an unclean data directory in single-user mode, which refuses to run as a standby; and it
    // reads restore_command from the configuration.
    context.conf.set_standby(false).map_err(JobError::file(data_dir))?;
    context.conf.write_settings(&parameters).map_err(JobError::file(data_dir))?;
    let args = [
        format!("--target-pgdata={}", data_dir.display()),
        format!("--source-server={}", context.conf.rewind_source(&source)),
        "--restore-target-wal".to_owned(),
        "--progress".to_owned(),
        "--no-sync".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ran = run(&context.program("pg_rewind"), &args).await;
    // Also where it changed nothing: before it compares, it has an unclean data directory recovered by a Postgres that
    // does not sync (`ensureCleanShutdown` in pg_rewind.c), and ends without a sync of its own where it fails.
    // The source may have had tablespaces that were not here before.
    disks.sync().and_then(|()| FileSystems::of(data_dir)?.sync()).map_err(JobError::file(data_dir))?;
    let printed = match ran {
        Ok(printed) => printed,
        Err(error) => {
            if !error.to_string().contains("need to copy") {
                // It had not begun to change anything.
                context.past().rewinding(false).map_err(JobError::failed("recording the rewind"))?;
            }
            return Err(classify(&error));
        }
    };
    let said = format!("{}\n{}", printed.stdout, printed.stderr);
    if said.contains("on the same timeline") {
        // Only a history that has parted is rewound, and a timeline that two members began looks like one to pg_rewind. It
        // stays on record that this has to be copied: the control file does not show it any more.
        return Err(JobError::Impossible("pg_rewind sees one timeline where there are two".to_owned()));
    }
    context.conf.set_standby(true).map_err(JobError::file(data_dir))?;
    context.past().rebased().map_err(JobError::failed("recording the rewind"))?;
    let moved = said.lines().find(|line| line.contains("need to copy") || line.contains("no rewind required"));
    tracing::info!(source = %source.name, moved = moved.unwrap_or("nothing"), "rewound");
    Ok(())
}

/// A source that cannot be reached may come back; anything else will fail again.
fn classify(error: &RunError) -> JobError {
    let text = error.to_string();
    let unreachable = matches!(error, RunError::Start { .. })
        || [
            "could not connect",
            "connection to server",
            "server closed the connection",
            "could not receive data from server",
            "could not send data to server",
            "starting up",
        ]
        .iter()
        .any(|sign| text.contains(sign));
    if unreachable { JobError::Failed(text) } else { JobError::Impossible(text) }
}
