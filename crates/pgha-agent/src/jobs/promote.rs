//! Promotion, bounded by the lease; and the archive's gap that the old primary left.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgha_core::lsn::{Segment, Timeline, TimelineHistory};
use pgha_core::name::Epoch;
use pgha_core::time::Instant;
use pgha_guard::clock;

use super::JobError;
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
    let run_dir = &context.config.run_dir;
    let reserved = numbers::take(data_dir, own, timeline).and_then(|()| numbers::order(run_dir, timeline));
    reserved.map_err(JobError::failed("reserving timeline numbers in pg_wal"))?;
    context.past().promotes(epoch, timeline).map_err(JobError::failed("recording the promotion"))?;
    if clock::now() >= not_after {
        context.past().promotes_not().map_err(JobError::failed("recording that there is no promotion"))?;
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
    numbers::forget_order(run_dir).map_err(JobError::file(run_dir))?;
    if heartbeat.timeline != timeline {
        // Somebody wrote nonsense into ZooKeeper: see there.
        tracing::warn!(expected = %timeline, got = %heartbeat.timeline, "Postgres has chosen another timeline");
    }
    note(&context, heartbeat.timeline).map_err(JobError::failed("recording the timeline"))
}

/// Remembers a promotion that was seen, once. What belongs to it comes before the record: a crash in between does it again.
pub(crate) fn note(context: &Context, timeline: Timeline) -> io::Result<()> {
    if context.past().view(false).promoted_to == Some(timeline) {
        return Ok(());
    }
    if context.config.archive.is_some() {
        match archive_again(&context.config.postgres.data_dir, timeline) {
            Ok(files) => tracing::info!(files, "archiving again what the old primary may not have archived"),
            // The promotion stands; a gap in the archive is worth a complaint, not a failover.
            Err(error) => tracing::error!(%error, "cannot archive the old timeline's WAL again; take a backup"),
        }
    }
    context.past().promoted_to(timeline)
}

/// With `archive_mode = on` a standby marks every segment, and every history, that it received as archived
/// (`XLogArchiveForceDone`), be it true or not. What the dead primary had not archived would be missing for ever; archiving
/// twice is harmless. Numbers that this promotion has skipped go with them.
///
/// Not so the segment in which a timeline ended: here it has the history's part and then whatever was in its file before,
/// another member has something else behind that part, and an archive that has the one refuses the other for ever. Nobody
/// needs it, because the next timeline's first segment begins with the same part.
fn archive_again(data_dir: &Path, timeline: Timeline) -> io::Result<usize> {
    let wal = data_dir.join("pg_wal");
    let history = std::fs::read_to_string(wal.join(format!("{:08X}.history", timeline.0)))?;
    let history = TimelineHistory::parse(&history).map_err(io::Error::other)?;
    if let Some(parent) = history.0.last() {
        numbers::archive(data_dir, parent.parent, timeline)?;
    }
    leave_out(&wal, timeline, &history)?;
    let mut again = 0;
    for entry in std::fs::read_dir(wal.join("archive_status"))? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).and_then(|n| n.strip_suffix(".done")) else {
            continue;
        };
        if (is_whole(name, &history) || is_ancestor(name, &history)) && wal.join(name).exists() {
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

/// Marks as archived what is not to be: segments in which an earlier timeline ended, and those behind such an end. One that has
/// no mark, as `pg_rewind` may leave it, gets the other mark at the next checkpoint (`XLogArchiveCheckDone`), and where the old
/// primary had gone on and archived it, the archive would refuse this one, and take nothing else, for ever.
fn leave_out(wal: &Path, timeline: Timeline, history: &TimelineHistory) -> io::Result<()> {
    for entry in std::fs::read_dir(wal)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        if Segment::parse(name).is_none_or(|it| it.timeline >= timeline) || is_whole(name, history) {
            continue;
        }
        let status = wal.join("archive_status").join(name);
        let (ready, done) = (status.with_added_extension("ready"), status.with_added_extension("done"));
        match std::fs::rename(&ready, &done) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !done.exists() => std::fs::write(&done, "")?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Whether it is the history of an earlier timeline.
fn is_ancestor(name: &str, history: &TimelineHistory) -> bool {
    let number = name.strip_suffix(".history").and_then(|number| u32::from_str_radix(number, 16).ok());
    number.is_some_and(|number| history.end_of(Timeline(number)).is_some())
}

/// Whether a segment of an earlier timeline ends where that timeline does, or before.
fn is_whole(name: &str, history: &TimelineHistory) -> bool {
    let segment = Segment::parse(name);
    segment.is_some_and(|it| history.end_of(it.timeline).is_some_and(|ended| it.end() <= ended))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two members that were standbys when a timeline ended each has its own rest behind that end.
    #[test]
    fn the_segment_in_which_a_timeline_ended_is_not_archived_again() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("pg_wal/archive_status");
        std::fs::create_dir_all(&status).unwrap();
        let history = "1\t0/5000098\tno recovery target specified\n2\t1/0\tno recovery target specified\n";
        std::fs::write(dir.path().join("pg_wal/00000003.history"), history).unwrap();
        let files = [
            "000000010000000000000004",
            "000000010000000000000005",
            "000000010000000000000006",
            "0000000200000000000000FF",
            "000000020000000100000000",
            "000000030000000100000000",
            "000000090000000000000001",
            "00000002.history",
            "00000009.history",
        ];
        for file in files {
            std::fs::write(dir.path().join("pg_wal").join(file), "").unwrap();
            std::fs::write(status.join(file).with_added_extension("done"), "").unwrap();
        }
        // Without a mark, and with the wrong one.
        std::fs::remove_file(status.join("000000010000000000000005.done")).unwrap();
        std::fs::rename(status.join("000000010000000000000006.done"), status.join("000000010000000000000006.ready"))
            .unwrap();
        // Recycled meanwhile.
        std::fs::write(status.join("000000010000000000000003.done"), "").unwrap();
        assert_eq!(archive_again(dir.path(), Timeline(3)).unwrap(), 3);
        let ready = |file: &&str| status.join(file).with_added_extension("ready").exists();
        let again: Vec<_> = files.iter().copied().filter(|file| ready(file)).collect();
        assert_eq!(again, ["000000010000000000000004", "0000000200000000000000FF", "00000002.history"]);
        for left_out in ["000000010000000000000005", "000000010000000000000006", "000000020000000100000000"] {
            assert!(status.join(left_out).with_added_extension("done").exists(), "{left_out}");
        }
    }
}
