//! What the data directory has been through, kept where it survives a reboot.

use std::io;
use std::path::{Path, PathBuf};

use pgha_core::lsn::Timeline;
use pgha_core::name::Epoch;
use pgha_core::observation::Past;
use pgha_guard::files;
use serde::{Deserialize, Serialize};

/// The record and its file.
#[derive(Debug)]
pub(crate) struct PastFile {
    path: PathBuf,
    record: Record,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    promoted_to: Option<Timeline>,
    promoting_to: Option<Timeline>,
    led_in: Option<Epoch>,
    rewind_unfinished: bool,
    unrecorded: bool,
}

impl PastFile {
    /// Opens it. An unreadable record is an error: guessing here could bless a diverged copy.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("past.json");
        let record = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, record })
    }

    /// For an observation.
    pub(crate) fn view(&self, old_data_kept: bool) -> Past {
        let Record { promoted_to, promoting_to, led_in, rewind_unfinished, unrecorded } = self.record;
        Past { promoted_to, promoting_to, led_in, unrecorded, rewind_unfinished, old_data_kept }
    }

    /// Before the first write can be accepted under `epoch`.
    pub(crate) fn leads_in(&mut self, epoch: Epoch) -> io::Result<()> {
        self.change(|record| record.led_in = Some(epoch))
    }

    /// Before a promotion under `epoch`, which begins this timeline.
    pub(crate) fn promotes(&mut self, epoch: Epoch, timeline: Timeline) -> io::Result<()> {
        self.change(|record| {
            record.led_in = Some(epoch);
            record.promoting_to = Some(timeline);
        })
    }

    /// The order to promote was not given.
    pub(crate) fn promotes_not(&mut self) -> io::Result<()> {
        self.change(|record| record.promoting_to = None)
    }

    /// After a promotion.
    pub(crate) fn promoted_to(&mut self, timeline: Timeline) -> io::Result<()> {
        self.change(|record| {
            record.promoted_to = Some(timeline);
            // Where ZooKeeper held nonsense it is not the one that was ordered, and nobody will ever record that one.
            record.promoting_to = record.promoting_to.map(|_| timeline);
        })
    }

    /// Before a cluster is made; and once it is seen on record.
    pub(crate) fn making(&mut self, unrecorded: bool) -> io::Result<()> {
        if self.record.unrecorded == unrecorded {
            return Ok(());
        }
        self.change(|record| record.unrecorded = unrecorded)
    }

    /// Before `pg_rewind`; and after one that changed nothing.
    pub(crate) fn rewinding(&mut self, begun: bool) -> io::Result<()> {
        self.change(|record| record.rewind_unfinished = begun)
    }

    /// The data is the leader's now: rewound, or copied.
    pub(crate) fn rebased(&mut self) -> io::Result<()> {
        // What this member promoted before is not in it any more.
        self.change(|record| *record = Record { led_in: record.led_in, ..Record::default() })
    }

    fn change(&mut self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let mut record = self.record;
        change(&mut record);
        files::replace(&self.path, &serde_json::to_vec(&record)?)?;
        self.record = record;
        Ok(())
    }
}
