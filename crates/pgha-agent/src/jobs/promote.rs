//! Promotion, bounded by the lease; and the archive's gap that the old primary left.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgha_core::lsn::Timeline;
use pgha_core::name::Epoch;
use pgha_core::time::Instant;

use super::JobError;
use crate::clock;
use crate::context::Context;
use crate::postgres::numbers;
use crate::postgres::query::{Connection, RoleSeen};

/// Replay of what was received may take a while; the lease, not this, bounds the danger.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) async fn promote(
    context: Arc<Context>,
    epoch: Epoch,
    not_after: Instant,
    timeline: Timeline,
) -> Result<(), JobError> {
    let mut connection = Connection::new(&context.config, Duration::from_secs(2));
    let asking = || JobError::failed("asking Postgres");
    let data_dir = &context.config.postgres.data_dir;
    let own = connection.heartbeat().await.map_err(asking())?.timeline;
    numbers::take(data_dir, own, timeline).map_err(JobError::failed("reserving timeline numbers in pg_wal"))?;
    context.past().leads_in(epoch).map_err(JobError::failed("recording the leadership"))?;
    if clock::now() >= not_after {
        return Err(JobError::Failed("the lease is too short by now".to_owned()));
    }
    connection.execute("SELECT pg_promote(wait => false)", Duration::from_secs(2)).await.map_err(asking())?;
    let promoted = async {
        loop {
            match connection.text("SELECT pg_is_in_recovery()::text").await {
                Ok(Some(answer)) if answer == "false" => return,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, promoted)
        .await
        .map_err(|_| JobError::Failed(format!("not promoted within {PATIENCE:?}")))?;
    let heartbeat = connection.heartbeat().await.map_err(asking())?;
    if !matches!(heartbeat.role, RoleSeen::Primary(_)) {
        return Err(JobError::Failed("Postgres says that it is still a standby".to_owned()));
    }
    if heartbeat.timeline != timeline {
        // The archive knows of one that ZooKeeper does not.
        tracing::warn!(expected = %timeline, got = %heartbeat.timeline, "Postgres has chosen another timeline");
    }
    if context.config.archive.is_some()
        && let Err(error) = numbers::archive(data_dir, own, heartbeat.timeline)
    {
        tracing::error!(%error, "cannot archive the numbers that were skipped; take a backup");
    }
    note(&context, heartbeat.timeline).map_err(JobError::failed("recording the timeline"))
}

/// Remembers a promotion that was seen, once. What belongs to it comes before the record: a crash in between does it again.
pub(crate) fn note(context: &Context, timeline: Timeline) -> io::Result<()> {
    if context.past().view(false).promoted_to == Some(timeline) {
        return Ok(());
    }
    if context.config.archive.is_some() {
        match archive_again(&context.config.postgres.data_dir, timeline.0) {
            Ok(segments) => tracing::info!(segments, "archiving again what the old primary may not have archived"),
            // The promotion stands; a gap in the archive is worth a complaint, not a failover.
            Err(error) => tracing::error!(%error, "cannot archive the old timeline's WAL again; take a backup"),
        }
    }
    context.past().promoted_to(timeline)
}

/// With `archive_mode = on` a standby marks every segment that it received as archived (`XLogArchiveForceDone`), be it
/// true or not. What the dead primary had not archived would be missing for ever; archiving twice is harmless.
fn archive_again(data_dir: &Path, timeline: u32) -> io::Result<usize> {
    let mut again = 0;
    for entry in std::fs::read_dir(data_dir.join("pg_wal/archive_status"))? {
        let path = entry?.path();
        let Some(segment) = path.file_name().and_then(|name| name.to_str()).and_then(|n| n.strip_suffix(".done"))
        else {
            continue;
        };
        let older = segment.len() == 24
            && segment.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).is_some_and(|it| it < timeline);
        if older && data_dir.join("pg_wal").join(segment).exists() {
            match std::fs::rename(&path, path.with_extension("ready")) {
                Ok(()) => again += 1,
                // A checkpoint has recycled the segment meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(again)
}
