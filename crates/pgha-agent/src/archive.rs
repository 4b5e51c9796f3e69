//! WAL archive of kind `directory`: what `archive_command` and `restore_command` run.
//!
//! `cp` is not enough: an archived segment must be on disk before Postgres recycles its own, must never be seen half
//! written, and must never be replaced by a different one (the manual's section "Setting Up WAL Archiving").

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pgha_guard::files;

use crate::postgres::numbers;

/// Puts `segment` into `archive`. One that is already there with the same content is fine.
pub(crate) fn put(archive: &Path, segment: &Path) -> anyhow::Result<()> {
    let name = segment.file_name().ok_or_else(|| anyhow::anyhow!("{} has no file name", segment.display()))?;
    let target = archive.join(name);
    if target.exists() {
        // A number that we took may turn out to be a timeline that somebody has archived.
        if same(segment, &target)? || numbers::is_taken(segment) {
            return Ok(());
        }
        anyhow::bail!("{} is already there with other content; refusing to replace it", target.display());
    }
    // Two members may archive the same segment at once: each its own temporary name.
    let temporary = archive.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let copied = std::fs::copy(segment, &temporary).and_then(|_| File::open(&temporary)?.sync_all());
    let linked = copied.and_then(|()| std::fs::hard_link(&temporary, &target));
    files::remove(&temporary)?;
    match linked {
        Ok(()) => Ok(files::sync_parent(&target)?),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && same(segment, &target)? => Ok(()),
        Err(error) => Err(anyhow::anyhow!("{}: {error}", target.display())),
    }
}

/// Fetches `archived` to `target`. Postgres takes a failure for "not there".
pub(crate) fn get(archived: &Path, target: &Path) -> anyhow::Result<()> {
    std::fs::copy(archived, target).map_err(|error| anyhow::anyhow!("{}: {error}", archived.display()))?;
    Ok(())
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = one.read(&mut a)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut b[..read])?;
        if a[..read] != b[..read] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        std::fs::create_dir(&archive).unwrap();
        let segment = dir.path().join("000000010000000000000001");
        std::fs::write(&segment, b"one").unwrap();
        put(&archive, &segment).unwrap();
        put(&archive, &segment).unwrap();
        std::fs::write(&segment, b"two").unwrap();
        assert!(put(&archive, &segment).is_err());
        let back = dir.path().join("back");
        get(&archive.join("000000010000000000000001"), &back).unwrap();
        assert_eq!(std::fs::read(&back).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(&archive).unwrap().count(), 1, "a temporary file was left");
    }
}
