//! Timeline numbers that must not be taken again.
//!
//! A promotion takes the first number above its own without a history file in `pg_wal` or the archive
//! (`findNewestTimeLine`, xlogrecovery.c). A member that took such a number may have died before anybody else saw its WAL;
//! were the number taken again, Postgres would take the two timelines for one. So files are put where it looks. Standbys
//! fetch them together with the real ones (`WalRcvFetchTimeLineHistoryFiles`) and do not follow them: the history of the
//! new timeline does not name them.
//!
//! The number that was reserved is taken whatever the archive has under it: nobody else may take it, and a host that stood
//! still with its promotion must not take the one after it, which others will reserve. `restore_command` does not find it.

use std::io;
use std::path::{Path, PathBuf};

use pgha_core::lsn::Timeline;
use pgha_guard::files;

/// Comments are allowed in history files (`readTimeLineHistory`).
const MARK: &[u8] = b"# taken by a promotion that came to nothing here\n";

/// More numbers than this are not taken by promotions: somebody wrote nonsense into ZooKeeper.
const MANY: u32 = 100;

fn file(data_dir: &Path, number: u32) -> PathBuf {
    data_dir.join(format!("pg_wal/{number:08X}.history"))
}

fn is_mark(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes == MARK)
}

/// Whether a file of `pg_wal` is one of ours.
pub(crate) fn is_taken(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "history") && is_mark(path)
}

/// Makes every number between `own` and `next` look used.
pub(crate) fn take(data_dir: &Path, own: Timeline, next: Timeline) -> io::Result<()> {
    if next.0.saturating_sub(own.0) > MANY {
        tracing::error!(%own, %next, "not skipping so many timelines; Postgres takes the next one");
        return Ok(());
    }
    for path in (own.0.saturating_add(1)..next.0).map(|number| file(data_dir, number)) {
        if !path.exists() {
            files::replace(&path, MARK)?;
        }
    }
    Ok(())
}

/// Names the history that a promotion under way begins; for `restore_command`.
pub(crate) fn order_file(run_dir: &Path) -> PathBuf {
    run_dir.join("promotion")
}

/// A promotion to `next` begins.
pub(crate) fn order(run_dir: &Path, next: Timeline) -> io::Result<()> {
    files::replace(&order_file(run_dir), format!("{:08X}.history\n", next.0).as_bytes())
}

/// It is over, or will not be: from here on the archive is asked for that history like for any other.
pub(crate) fn forget_order(run_dir: &Path) -> io::Result<()> {
    files::remove(&order_file(run_dir))
}

/// After a promotion the archive needs our files, too: a recovery from it looks for one number after the other, and would
/// stop where one is missing.
pub(crate) fn archive(data_dir: &Path, own: Timeline, next: Timeline) -> io::Result<()> {
    for number in own.0.saturating_add(1)..next.0.min(own.0.saturating_add(MANY)) {
        if is_mark(&file(data_dir, number)) {
            let status = data_dir.join(format!("pg_wal/archive_status/{number:08X}.history"));
            if !status.with_added_extension("done").exists() {
                files::replace(&status.with_added_extension("ready"), b"")?;
            }
        }
    }
    Ok(())
}

/// Removes our files where no real history follows: the promotion that they were for did not happen. A standby that starts
/// on `own` looks for one number after the other, takes the last for its target, and refuses one of ours: "requested
/// timeline is not a child of this server's history".
pub(crate) fn forget_dangling(data_dir: &Path, own: Timeline) -> io::Result<()> {
    let mut dangling = Vec::new();
    for path in (own.0.saturating_add(1)..).map(|number| file(data_dir, number)).take_while(|path| path.exists()) {
        if is_mark(&path) {
            dangling.push(path);
        } else {
            dangling.clear();
        }
    }
    dangling.iter().try_for_each(|path| files::remove(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_promotion_did_not_use_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("pg_wal");
        std::fs::create_dir(&wal).unwrap();
        let files = || {
            let mut names: Vec<_> =
                std::fs::read_dir(&wal).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        take(dir.path(), Timeline(2), Timeline(5)).unwrap();
        assert_eq!(files(), ["00000003.history", "00000004.history"]);
        std::fs::write(wal.join("00000004.history"), "2\t0/3000000\tno recovery target specified\n").unwrap();
        take(dir.path(), Timeline(4), Timeline(7)).unwrap();
        forget_dangling(dir.path(), Timeline(2)).unwrap();
        assert_eq!(files(), ["00000003.history", "00000004.history"]);
        // Nothing follows 6 but a gap.
        take(dir.path(), Timeline(5), Timeline(7)).unwrap();
        std::fs::write(wal.join("00000008.history"), "2\t0/3000000\tno recovery target specified\n").unwrap();
        forget_dangling(dir.path(), Timeline(5)).unwrap();
        assert_eq!(files(), ["00000003.history", "00000004.history", "00000008.history"]);
    }
}
