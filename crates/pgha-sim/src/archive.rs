//! WAL that is kept, archived, recycled, and fetched back.

use crate::invariant;
use crate::model::archive::Archive;
use crate::model::postgres::Life;
use crate::time::Span;
use crate::world::World;

/// `checkpoint_timeout`, in a world where everything is quicker.
const CHECKPOINT: Span = Span::secs(15);

impl World {
    /// What a server does about its WAL by itself, now and then: archive what is full, and write a checkpoint.
    pub(crate) fn keep_wal(&mut self, host: usize) {
        let now = self.now;
        if !self.moves(host) {
            return;
        }
        let pg = &mut self.hosts[host].pg;
        let (Some(server), Some(data)) = (&mut pg.server, &mut pg.data) else { return };
        if server.life != Life::Running {
            return;
        }
        if server.primary {
            // What was full at the last look has got there since.
            let full = std::mem::replace(&mut server.full, Archive::full(data.at.lsn));
            if full > 0 {
                self.archive.add(&self.wal, data.at.branch, full);
            }
        }
        if server.checkpoint_due <= now {
            server.checkpoint_due = now + CHECKPOINT;
            let archived = if server.primary { self.archive.end(&self.wal, data.at.branch) } else { u64::MAX };
            data.checkpointed(archived);
        }
    }

    /// A standby that streams from nobody replays what it finds in the archive.
    pub(crate) fn restore(&mut self, host: usize) {
        let pg = &mut self.hosts[host].pg;
        let (Some(server), Some(data)) = (&mut pg.server, &mut pg.data) else { return };
        let at = self.archive.replayed(&self.wal, data.at);
        if server.promoting.is_none() && at != data.at {
            server.restored = self.now;
            data.at = at;
            data.catch_up(&self.wal);
        }
    }

    /// Whether `upstream` still has the WAL that `member` needs next.
    pub(crate) fn has_wal(&mut self, upstream: usize, member: usize) -> bool {
        let kept = self.hosts[upstream].pg.data.as_ref().map_or(0, |data| data.kept);
        let needed = self.hosts[member].pg.data.as_ref().map_or(0, |data| data.at.lsn);
        if needed < kept {
            self.reached.mark("needed WAL was recycled");
            invariant::held::check_recycled(self, upstream, member);
        }
        needed >= kept
    }
}
