//! Replication slots on disk: `pg_replslot/<name>/state`, as Postgres 15 writes it (`ReplicationSlotOnDisk`, `slot.c`).
//!
//! A directory without a whole state file ends every start in a panic, and a logical slot under a lower `wal_level` in a
//! fatal error. On a standby such slots are copies, and can be done without.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use pgha_core::name::SlotName;
use pgha_guard::files;

const MAGIC: u32 = 0x0105_1CA1;
/// Magic, checksum, version, length.
const HEADER: usize = 16;
/// The name comes first (`NAMEDATALEN`), then the database, then the persistency.
const DATABASE: usize = HEADER + 64;
const PERSISTENCY: usize = DATABASE + 4;

/// A state file that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    bytes: Vec<u8>,
}

impl State {
    /// `None` for anything that Postgres would not take, as far as it can be told without its checksum.
    pub(crate) fn parse(bytes: Vec<u8>) -> Option<Self> {
        let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let length = usize::try_from(word(12)?).ok()?;
        (word(0)? == MAGIC && bytes.len() == HEADER + length && length > PERSISTENCY).then_some(())?;
        Some(Self { bytes })
    }

    fn word(&self, at: usize) -> u32 {
        self.bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
    }

    /// Physical slots belong to no database.
    pub(crate) fn is_logical(&self) -> bool {
        self.word(DATABASE) != 0
    }

    /// One that is still being made would be removed at the next start.
    pub(crate) fn is_persistent(&self) -> bool {
        self.word(PERSISTENCY) == 0
    }

    /// Puts it where Postgres, which must be stopped, finds it when it starts; whole or not at all.
    pub(crate) fn write(&self, data_dir: &Path, name: &SlotName) -> io::Result<()> {
        let dir = data_dir.join("pg_replslot").join(name.as_str());
        // Postgres removes what ends so when it starts.
        let temporary = dir.with_added_extension("tmp");
        files::remove(&temporary)?;
        DirBuilder::new().mode(0o700).create(&temporary)?;
        files::replace(&temporary.join("state"), &self.bytes)?;
        files::remove(&dir)?;
        std::fs::rename(&temporary, &dir)?;
        files::sync_parent(&dir)
    }
}

/// Removes what would keep a standby from starting. Gives the names.
pub(crate) fn remove_unusable(data_dir: &Path, logical_wal: bool) -> io::Result<Vec<String>> {
    let mut removed = Vec::new();
    let entries = match std::fs::read_dir(data_dir.join("pg_replslot")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(removed),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if SlotName::parse(&name).is_none() {
            continue;
        }
        let state = std::fs::read(entry.path().join("state")).ok().and_then(State::parse);
        if state.is_none_or(|state| state.is_logical() && !logical_wal) {
            files::remove(&entry.path())?;
            removed.push(name);
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(database: u32, persistency: u32) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + 184];
        for (at, word) in [(0, MAGIC), (8, 3), (12, 184), (DATABASE, database), (PERSISTENCY, persistency)] {
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn kinds_are_told_apart_and_torn_files_refused() {
        assert!(State::parse(state(5, 0)).is_some_and(|it| it.is_logical() && it.is_persistent()));
        assert!(State::parse(state(0, 1)).is_some_and(|it| !it.is_logical() && !it.is_persistent()));
        for torn in [vec![], vec![7; 200], state(5, 0)[..100].to_vec()] {
            assert_eq!(State::parse(torn), None);
        }
    }

    #[test]
    fn what_would_stop_a_standby_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let slots = dir.path().join("pg_replslot");
        std::fs::create_dir_all(slots.join("empty")).unwrap();
        std::fs::create_dir_all(slots.join("left.tmp")).unwrap();
        for (name, database) in [("cdc", 5), ("backup", 0)] {
            State::parse(state(database, 0)).unwrap().write(dir.path(), &SlotName::parse(name).unwrap()).unwrap();
        }
        assert_eq!(remove_unusable(dir.path(), true).unwrap(), ["empty"]);
        assert_eq!(remove_unusable(dir.path(), false).unwrap(), ["cdc"]);
        assert!(slots.join("backup/state").exists());
    }
}
