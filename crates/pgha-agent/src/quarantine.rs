//! WAL that this member wrote and the cluster does not have: kept before a rewind or a copy, and read for what was in it.
//!
//! A directory for each parting, under `quarantine` in the state directory: the segments; `parting.json`, where it began;
//! and once it has been read `discarded.json`, which is what `GET /pgha/discarded` and `pghactl discarded` show. Segments
//! go when there are too many of them, the lists stay.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use pgha_core::lsn::{Lsn, Segment, Timeline};
use pgha_core::waldump::{Changes, Relation, Tally};
use pgha_core::wire::rest::{Discarded, DiscardedList, DiscardedTransaction};
use pgha_guard::files;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::postgres::query::Connection;

/// For how long the names of tables are waited for, which only a running Postgres knows.
const NAMES_WITHIN: Duration = Duration::from_secs(600);
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);
/// What has not been read by then never will be.
const TO_BE_READ: Duration = Duration::from_secs(24 * 3600);
/// What is left free on a disk that quarantined WAL is copied to.
const LEFT_FREE: u64 = 64 << 20;
/// For one question.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Where a history has parted from the cluster's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parting {
    /// The timeline that went on.
    pub(crate) timeline: Timeline,
    /// The first position that is not the cluster's.
    pub(crate) at: Lsn,
}

impl Parting {
    /// The file of that position.
    fn segment(self) -> Segment {
        Segment::of(self.timeline, self.at)
    }
}

/// Copies the segments from the one in which the histories parted, and all that were not archived, to the disk. An error where
/// there is no room for the former; the latter are left out then.
pub(crate) async fn keep(context: &Context, parting: Option<Parting>) -> io::Result<()> {
    let wal = context.config.postgres.data_dir.join("pg_wal");
    let first = parting.map(Parting::segment);
    let mut segments: Vec<String> = Vec::new();
    let entries = match std::fs::read_dir(&wal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(segment) = Segment::parse(&name) else { continue };
        let unarchived = wal.join("archive_status").join(format!("{name}.ready")).exists();
        if unarchived || first.is_some_and(|first| segment >= first) {
            segments.push(name);
        }
    }
    if segments.is_empty() {
        return Ok(());
    }
    // One place for one parting, however often the rewind is tried.
    segments.sort_unstable();
    let name = first.map_or_else(|| format!("unarchived-{}", segments[0]), |first| first.to_string());
    let dir = place(&context.config.state_dir).join(name);
    std::fs::create_dir_all(&dir)?;
    let length = |path: PathBuf| path.metadata().ok().map(|it| it.len());
    segments.retain(|segment| length(dir.join(segment)) != length(wal.join(segment)));
    let bytes = |segments: &[String]| segments.iter().filter_map(|segment| length(wal.join(segment))).sum::<u64>();
    make_room(context, &dir, bytes(&segments)).await;
    if bytes(&segments) > room(&dir)? {
        tracing::warn!(dir = %dir.display(), bytes = bytes(&segments), "no room for WAL that was not archived: it is not kept");
        segments.retain(|segment| first.is_some_and(|first| Segment::parse(segment).is_some_and(|it| it >= first)));
    }
    if bytes(&segments) > room(&dir)? {
        let (bytes, dir) = (bytes(&segments), dir.display());
        return Err(io::Error::other(format!(
            "there is no room in {dir} for {bytes} bytes of WAL that the leader lacks"
        )));
    }
    for segment in &segments {
        let partial = dir.join(format!(".{segment}"));
        let copied = std::fs::copy(wal.join(segment), &partial).and_then(|_| File::open(&partial)?.sync_all());
        if let Err(error) = copied {
            files::remove(&partial)?;
            return Err(error);
        }
        std::fs::rename(&partial, dir.join(segment))?;
        // Here it can be given up.
        tokio::task::yield_now().await;
    }
    if let Some(parting) = parting {
        files::replace(&dir.join("parting.json"), &serde_json::to_vec(&parting)?)?;
    }
    // Its originals are about to go.
    File::open(&dir)?.sync_all()?;
    files::sync_parent(&dir)?;
    measure(context);
    if !segments.is_empty() {
        tracing::warn!(segments = segments.len(), dir = %dir.display(), "WAL that the leader may lack is kept in quarantine");
    }
    Ok(())
}

/// Bytes that a disk can take, but for what it needs for its other work.
fn room(dir: &Path) -> io::Result<u64> {
    let disk = nix::sys::statvfs::statvfs(dir)?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    Ok(free.saturating_sub(LEFT_FREE))
}

/// Before `bytes` come to `newest`. What cannot be deleted is no reason not to come back.
async fn make_room(context: &Context, newest: &Path, bytes: u64) {
    let limit = context.config.quarantine.max_bytes;
    let total = bytes + wal_of(newest).iter().map(|(_, bytes)| bytes).sum::<u64>();
    if let Err(error) = delete_oldest(&context.config.state_dir, newest, limit.saturating_sub(total)).await {
        tracing::warn!(%error, limit, "cannot delete the oldest WAL in quarantine, and there is too much of it");
    }
}

/// Leaves `limit` bytes of WAL beside that of `newest`: a disk that is full of what is lost would take the database with it.
async fn delete_oldest(state_dir: &Path, newest: &Path, limit: u64) -> io::Result<()> {
    // A directory changes when something in it is deleted, too.
    let made = |dir: &PathBuf| {
        let parting = std::fs::metadata(dir.join("parting.json")).or_else(|_| std::fs::metadata(dir));
        parting.and_then(|it| it.modified()).ok()
    };
    let mut dirs: Vec<_> = directories(state_dir).into_iter().filter(|dir| dir != newest).collect();
    dirs.sort_by_cached_key(|dir| std::cmp::Reverse(made(dir)));
    let mut total = 0_u64;
    for dir in dirs {
        let wal = wal_of(&dir);
        let bytes = wal.iter().map(|(_, bytes)| bytes).sum::<u64>();
        total = total.saturating_add(bytes);
        let recent = made(&dir).is_some_and(|made| made.elapsed().is_ok_and(|age| age < TO_BE_READ));
        let unread = dir.join("parting.json").exists() && !dir.join("discarded.json").exists();
        if total <= limit || bytes == 0 || unread && recent {
            continue;
        }
        tracing::warn!(dir = %dir.display(), bytes, "deleting the oldest WAL in quarantine: there is too much of it");
        for (segment, _) in wal {
            files::remove(&segment)?;
            // Here it can be given up.
            tokio::task::yield_now().await;
        }
        if !dir.join("discarded.json").exists() {
            // Nobody could say what was in it.
            files::remove(&dir)?;
        }
    }
    Ok(())
}

/// The segments in a directory, also those that were not copied to their end, and their sizes; none where it cannot be read.
fn wal_of(dir: &Path) -> Vec<(PathBuf, u64)> {
    let is_wal = |name: &str| Segment::parse(name.strip_prefix('.').unwrap_or(name)).is_some();
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let wal = entries.filter(|entry| is_wal(&entry.file_name().to_string_lossy()));
    wal.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?.len()))).collect()
}

/// Counts what is there, for `/metrics`, which must not wait for a disk.
pub(crate) fn measure(context: &Context) {
    let dirs = directories(&context.config.state_dir);
    let bytes = dirs.iter().flat_map(|dir| wal_of(dir)).map(|(_, bytes)| bytes).sum();
    context.quarantined.store(bytes, Ordering::Relaxed);
}

/// Begins to read what has not been read yet. Nobody waits for it, and what fails is tried again by the next agent.
pub(crate) fn begin_reading(context: &Arc<Context>) -> JoinHandle<()> {
    let context = context.clone();
    // A thread of its own, as for jobs: there may be much to read.
    tokio::task::spawn_blocking(move || {
        measure(&context);
        let read = async {
            let mut tried = BTreeSet::new();
            // Names are waited for, and meanwhile this member may have to come back once more.
            while let Some((dir, parting)) =
                unread(&context.config.state_dir).into_iter().find(|(dir, _)| !tried.contains(dir))
            {
                tried.insert(dir.clone());
                if let Err(error) = read(&context, &dir, parting).await {
                    tracing::warn!(dir = %dir.display(), "cannot tell what was discarded: {error:#}");
                }
            }
        };
        match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(read),
            Err(error) => tracing::warn!(%error, "cannot tell what was discarded"),
        }
    })
}

/// What has been read, the oldest first.
pub(crate) fn listed(state_dir: &Path) -> DiscardedList {
    let read = |dir: &PathBuf| {
        let bytes = std::fs::read(dir.join("discarded.json")).ok()?;
        let kept = !wal_of(dir).is_empty();
        Discarded::parse(&bytes).ok().map(|discarded| Discarded { kept, ..discarded })
    };
    DiscardedList(directories(state_dir).iter().filter_map(read).collect())
}

fn place(state_dir: &Path) -> PathBuf {
    state_dir.join("quarantine")
}

/// By name, and so by timeline and position.
fn directories(state_dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place(state_dir)).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    dirs.sort_unstable();
    dirs
}

fn unread(state_dir: &Path) -> Vec<(PathBuf, Parting)> {
    let parting = |dir: PathBuf| {
        let bytes = std::fs::read(dir.join("parting.json")).ok()?;
        let is_new = !dir.join("discarded.json").exists();
        serde_json::from_slice(&bytes).ok().filter(|_| is_new).map(|parting| (dir, parting))
    };
    directories(state_dir).into_iter().filter_map(parting).collect()
}

async fn read(context: &Context, dir: &Path, parting: Parting) -> anyhow::Result<()> {
    let tally = tally(context, dir, parting).await?;
    let names = names(context, &tally.changes).await;
    let by_table = |changes: &Changes| {
        let mut tables = BTreeMap::<String, u64>::new();
        for (relation, rows) in changes {
            match names.get(relation) {
                // What is stored beside a table is told with it.
                Some(name) if name.is_empty() => {}
                Some(name) => *tables.entry(name.clone()).or_default() += rows,
                None => *tables.entry(format!("unknown table (file {relation})")).or_default() += rows,
            }
        }
        tables
    };
    let discarded = Discarded {
        quarantine: dir.display().to_string(),
        kept: true,
        timeline: parting.timeline,
        from: parting.at,
        last: tally.last,
        committed: tally.count,
        unfinished: tally.unfinished() as u64,
        tables: by_table(&tally.changes),
        transactions: (tally.committed.iter())
            .map(|it| DiscardedTransaction { xid: it.xid, at: it.at.clone(), tables: by_table(&it.changes) })
            .collect(),
    };
    files::replace(&dir.join("discarded.json"), &discarded.render())?;
    if discarded.committed + discarded.unfinished == 0 {
        // Its WAL stays all the same: that one program finds nothing in it is no reason to delete the only copy.
        tracing::info!(dir = %dir.display(), "nothing was discarded that changed any row");
        return Ok(());
    }
    let tables: Vec<&str> = discarded.tables.keys().map(String::as_str).collect();
    tracing::warn!(
        committed = discarded.committed,
        unfinished = discarded.unfinished,
        tables = tables.join(", "),
        dir = %dir.display(),
        "transactions were discarded that nobody else has; `pghactl discarded` lists them"
    );
    Ok(())
}

/// Lets `pg_waldump` read to the end, which is where it finds something that is no record, and calls that an error.
async fn tally(context: &Context, dir: &Path, parting: Parting) -> anyhow::Result<Tally> {
    // There is no hurry, and Postgres is just starting.
    let mut child = tokio::process::Command::new("nice")
        .args(["-n", "19"])
        .arg(context.program("pg_waldump"))
        .arg(format!("--path={}", dir.display()))
        .arg(format!("--timeline={}", parting.timeline))
        .arg(format!("--start={}", parting.at))
        .args(["--rmgr=Transaction", "--rmgr=Heap", "--rmgr=Heap2"])
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run pg_waldump")?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).split(b'\n');
        while let Some(line) = lines.next_segment().await? {
            tally.line(&String::from_utf8_lossy(&line));
        }
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).await?;
    }
    child.wait().await?;
    // There may be nothing behind the parting, which is no error either.
    let nothing = said.contains("could not find a valid record");
    anyhow::ensure!(tally.last.is_some() || nothing, "pg_waldump: {}", said.trim());
    Ok(tally)
}

/// The tables by name; empty for what belongs to another relation, absent where there is none any more, or none yet.
async fn names(context: &Context, changes: &Changes) -> BTreeMap<Relation, String> {
    let mut names = BTreeMap::new();
    let mut connection = Connection::new(&context.config, ANSWER_WITHIN);
    let answers = async {
        while connection.text("SELECT 'yes'").await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    if changes.is_empty() || tokio::time::timeout(NAMES_WITHIN, answers).await.is_err() {
        return names;
    }
    for database in changes.keys().map(|relation| relation.database).collect::<BTreeSet<_>>() {
        let of_database = changes.keys().filter(|relation| relation.database == database);
        if database == 0 {
            names.extend(of_database.map(|relation| (*relation, "catalogs that all databases share".to_owned())));
            continue;
        }
        let asked = connection.text(&format!("SELECT datname::text FROM pg_database WHERE oid = {database}")).await;
        let Ok(Some(datname)) = asked else { continue };
        let mut inside = Connection::to(&context.config, &datname, ANSWER_WITHIN);
        for relation in of_database {
            let asked = inside.text(&name_of(*relation)).await;
            if let Ok(Some(name)) = asked {
                let name = if name.is_empty() { name } else { format!("{datname}.{name}") };
                names.insert(*relation, name);
            }
        }
    }
    names
}

fn name_of(Relation { tablespace, filenode, .. }: Relation) -> String {
    format!(
        "SELECT CASE WHEN n.nspname = 'pg_toast' THEN ''
                     WHEN n.nspname IN ('pg_catalog', 'information_schema') THEN 'catalogs'
                     ELSE quote_ident(n.nspname) || '.' || quote_ident(c.relname) END
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE c.oid = pg_filenode_relation({tablespace}, {filenode})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_been_read_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let parting = Parting { timeline: Timeline(3), at: Lsn(0x0100_0000) };
        let place = place(dir.path()).join(parting.segment().to_string());
        std::fs::create_dir_all(&place).unwrap();
        assert!(unread(dir.path()).is_empty(), "nobody knows where it begins");
        std::fs::write(place.join("parting.json"), serde_json::to_vec(&parting).unwrap()).unwrap();
        assert_eq!(unread(dir.path()), [(place.clone(), parting)]);
        assert_eq!(listed(dir.path()), DiscardedList::default());
        let discarded = Discarded {
            quarantine: place.display().to_string(),
            kept: false,
            timeline: parting.timeline,
            from: parting.at,
            last: None,
            committed: 0,
            unfinished: 0,
            tables: BTreeMap::new(),
            transactions: Vec::new(),
        };
        std::fs::write(place.join("discarded.json"), discarded.render()).unwrap();
        assert!(unread(dir.path()).is_empty());
        assert_eq!(listed(dir.path()), DiscardedList(vec![discarded]));
    }

    #[tokio::test]
    async fn the_oldest_wal_makes_room_for_the_newest_and_stays_listed() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = Vec::new();
        // Timelines do not tell the order: the oldest is in the middle. The last two were not read.
        for (hours, timeline) in [(1, 2), (3, 3), (0, 4), (2, 5), (50, 6)] {
            let parting = Parting { timeline: Timeline(timeline), at: Lsn(0x0100_0000) };
            let place = place(dir.path()).join(parting.segment().to_string());
            std::fs::create_dir_all(&place).unwrap();
            std::fs::write(place.join(format!(".{}", parting.segment())), [0; 40]).unwrap();
            std::fs::write(place.join(parting.segment().to_string()), [0; 60]).unwrap();
            std::fs::write(place.join("parting.json"), serde_json::to_vec(&parting).unwrap()).unwrap();
            if timeline < 5 {
                let list = format!(
                    r#"{{"quarantine":"x","timeline":{timeline},"from":0,"last":null,"committed":1,"unfinished":0,
                        "tables":{{}},"transactions":[]}}"#
                );
                std::fs::write(place.join("discarded.json"), list).unwrap();
            }
            let at = std::time::SystemTime::now() - Duration::from_secs(3600 * hours);
            std::fs::File::open(place.join("parting.json")).unwrap().set_modified(at).unwrap();
            made.push(place);
        }
        std::fs::write(place(dir.path()).join("a note"), "of an operator").unwrap();
        let newest = made[2].clone();
        let sizes = || made.iter().map(|dir| wal_of(dir).iter().map(|(_, bytes)| bytes).sum()).collect::<Vec<u64>>();
        delete_oldest(dir.path(), &newest, 400).await.unwrap();
        assert_eq!(sizes(), [100, 100, 100, 100, 100]);
        delete_oldest(dir.path(), &newest, 250).await.unwrap();
        assert_eq!(sizes(), [100, 0, 100, 100, 0]);
        assert!(!made[4].exists(), "what was not read is of no use without its WAL");
        let listed = listed(dir.path()).0.iter().map(|it| (it.timeline.0, it.kept)).collect::<Vec<_>>();
        assert_eq!(listed, [(2, true), (3, false), (4, true)]);
        delete_oldest(dir.path(), &newest, 0).await.unwrap();
        assert_eq!(sizes(), [0, 0, 100, 100, 0], "what is being read stays");
    }
}
