//! Timeline numbers that must not be taken again.
//!
//! A promotion takes the first number above its own without a history file in `pg_wal` or the archive
//! (`findNewestTimeLine`, xlogrecovery.c). A member that took such a number may have died before anybody else saw its WAL;
//! were the number taken again, Postgres would take the two timelines for one. So files are put where it looks. Standbys
//! fetch them together with the real ones (`WalRcvFetchTimeLineHistoryFiles`) and do not follow them: the history of the
//! new timeline does not name them.

use std::io;
use std::path::{Path, PathBuf};

use pgha_core::lsn::Timeline;

use crate::files;

/// Comments are allowed in history files (`readTimeLineHistory`).
const MARK: &[u8] = b"# taken by a promotion that came to nothing here\n";

/// Makes every number between `own` and `next` look used.
pub(crate) fn take(data_dir: &Path, own: Timeline, next: Timeline) -> io::Result<()> {
    for number in own.0.saturating_add(1)..next.0 {
        let path = data_dir.join(format!("pg_wal/{number:08X}.history"));
        if !path.exists() {
            files::replace(&path, MARK)?;
        }
    }
    Ok(())
}

/// Removes our files above the newest real history: the promotion that they were for did not happen. A standby that starts
/// would take the highest for its target, and refuse: "requested timeline is not a child of this server's history".
pub(crate) fn forget_dangling(data_dir: &Path) -> io::Result<()> {
    let mut ours: Vec<(u32, PathBuf)> = Vec::new();
    let mut newest = 1;
    for entry in std::fs::read_dir(data_dir.join("pg_wal"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".history"));
        let Some(number) = name.and_then(|hex| u32::from_str_radix(hex, 16).ok()) else { continue };
        if std::fs::read(&path)? == MARK {
            ours.push((number, path));
        } else {
            newest = newest.max(number);
        }
    }
    for (_, path) in ours.into_iter().filter(|(number, _)| *number > newest) {
        files::remove(&path)?;
    }
    Ok(())
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
        forget_dangling(dir.path()).unwrap();
        assert_eq!(files(), ["00000003.history", "00000004.history"]);
    }
}
