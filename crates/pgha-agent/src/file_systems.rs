//! What Postgres' programs wrote in bulk, brought to the disk by one `syncfs` for each file system.
//!
//! `pg_rewind`, `pg_basebackup` and `initdb` would call `fsync` for one file after another, a thousand of them in an empty
//! database: seconds on a busy disk, where this takes a fraction of one. They are told `--no-sync`.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::syncfs;

/// One open directory on each of them.
#[derive(Debug)]
pub(crate) struct FileSystems(Vec<File>);

impl FileSystems {
    /// Those of a data directory, of its `pg_wal` and of its tablespaces. A part that is not there yet has none.
    ///
    /// To be taken before the writing begins: `syncfs` reports the failed writes since its descriptor was opened
    /// (syncfs(2), since Linux 5.8).
    pub(crate) fn of(data_dir: &Path) -> io::Result<Self> {
        let mut places = vec![data_dir.to_path_buf(), data_dir.join("pg_wal")];
        places.extend(tablespaces(data_dir)?);
        let mut found: Vec<(u64, File)> = Vec::new();
        for place in places {
            let directory = match File::open(&place) {
                Ok(directory) => directory,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let device = directory.metadata()?.dev();
            if found.iter().all(|(other, _)| *other != device) {
                found.push((device, directory));
            }
        }
        Ok(Self(found.into_iter().map(|(_, directory)| directory).collect()))
    }

    /// The one on which a directory is going to be made.
    pub(crate) fn around(directory: &Path) -> io::Result<Self> {
        Self::of(directory.ancestors().skip(1).find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")))
    }

    /// Returns when everything that was written to them is on their disks.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|directory| Ok(syncfs(directory)?))
    }
}

fn tablespaces(data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    match data_dir.join("pg_tblspc").read_dir() {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_for_each_device() {
        let here = tempfile::tempdir().unwrap();
        let data = here.path().join("data");
        assert_eq!(FileSystems::of(&data).unwrap().0.len(), 0);
        assert_eq!(FileSystems::around(&data.join("not/yet")).unwrap().0.len(), 1);
        std::fs::create_dir_all(data.join("pg_wal")).unwrap();
        std::fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        std::os::unix::fs::symlink(here.path(), data.join("pg_tblspc/16384")).unwrap();
        std::os::unix::fs::symlink(here.path().join("gone"), data.join("pg_tblspc/16385")).unwrap();
        let one = FileSystems::of(&data).unwrap();
        assert_eq!(one.0.len(), 1);
        one.sync().unwrap();
        // Everybody has this one, and nobody has it for data.
        std::os::unix::fs::symlink("/proc", data.join("pg_tblspc/16386")).unwrap();
        assert_eq!(FileSystems::of(&data).unwrap().0.len(), 2);
    }
}
