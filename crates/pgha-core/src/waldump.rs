//! What `pg_waldump` (Postgres 15) tells of a stretch of WAL: the transactions that were committed in it, and what they
//! changed.
//!
//! Lines of the resource managers Heap, Heap2 and Transaction are read; whatever else a line says is passed over.

use std::collections::BTreeMap;
use std::fmt;

use crate::lsn::Lsn;

/// Transactions that are told one by one; of more only the sum is told.
pub const TOLD: usize = 1000;

/// A file of a relation, as WAL names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Relation {
    /// The tablespace's oid.
    pub tablespace: u32,
    /// The database's oid; 0 for what all databases share.
    pub database: u32,
    /// The relation's file, which is not always its oid.
    pub filenode: u32,
}

impl Relation {
    /// `1663/5/16384`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('/').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let relation = Self { tablespace: next()?, database: next()?, filenode: next()? };
        numbers.next().is_none().then_some(relation)
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tablespace, self.database, self.filenode)
    }
}

/// How many rows of what.
pub type Changes = BTreeMap<Relation, u64>;

/// A committed transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its number.
    pub xid: u32,
    /// When, by the clock of the primary that committed it.
    pub at: String,
    /// What it changed, its subtransactions included.
    pub changes: Changes,
}

/// What the lines so far have told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    open: BTreeMap<u32, Changes>,
    /// The first [`TOLD`] committed transactions, in the order of their commits.
    pub committed: Vec<Committed>,
    /// How many were committed in all.
    pub count: u64,
    /// What all of them changed.
    pub changes: Changes,
    /// Where the last record begins.
    pub last: Option<Lsn>,
}

impl Tally {
    /// Takes one line.
    pub fn line(&mut self, line: &str) {
        let Some((head, description)) = line.split_once("desc: ") else { return };
        let Some(xid) = field(head, "tx:").and_then(|text| text.parse().ok()) else { return };
        self.last = field(head, "lsn:").and_then(|text| text.parse().ok()).or(self.last);
        match field(head, "rmgr:") {
            Some("Heap" | "Heap2") => {
                let rows = rows(description);
                if let Some(relation) = relation(description).filter(|_| rows > 0) {
                    *self.open.entry(xid).or_default().entry(relation).or_default() += rows;
                }
            }
            Some("Transaction") => self.transaction(xid, description),
            _ => {}
        }
    }

    /// Transactions that changed something, and neither committed nor were rolled back.
    pub fn unfinished(&self) -> usize {
        self.open.len()
    }

    fn transaction(&mut self, xid: u32, description: &str) {
        let (verb, rest) = description.split_once(' ').unwrap_or((description, ""));
        // That of a prepared transaction names it: `COMMIT_PREPARED 735: 2026-… UTC`.
        let (xid, rest) = match rest.split_once(": ") {
            Some((named, after)) if verb.ends_with("_PREPARED") => (named.parse().unwrap_or(xid), after),
            _ => (xid, rest),
        };
        let parts = || rest.split("; ");
        let subtransactions = parts().find_map(|part| part.strip_prefix("subxacts: ")).unwrap_or_default();
        let family = subtransactions.split_ascii_whitespace().filter_map(|text| text.parse().ok()).chain([xid]);
        match verb {
            "COMMIT" | "COMMIT_PREPARED" => {
                let mut changes = Changes::new();
                for (relation, rows) in family.filter_map(|member| self.open.remove(&member)).flatten() {
                    *changes.entry(relation).or_default() += rows;
                    *self.changes.entry(relation).or_default() += rows;
                }
                self.count += 1;
                if self.committed.len() < TOLD {
                    let at = parts().next().unwrap_or_default().trim().to_owned();
                    self.committed.push(Committed { xid, at, changes });
                }
            }
            "ABORT" | "ABORT_PREPARED" => family.for_each(|member| drop(self.open.remove(&member))),
            _ => {}
        }
    }
}

/// The word after a label.
fn field<'a>(head: &'a str, label: &str) -> Option<&'a str> {
    let (_, after) = head.split_once(label)?;
    after.split([' ', ',', '\t']).find(|word| !word.is_empty())
}

/// The relation of the first block.
fn relation(description: &str) -> Option<Relation> {
    let (_, after) = description.split_once("blkref #0: rel ")?;
    Relation::parse(after.split(' ').next()?)
}

/// How many rows a record changes. Those that only lock, prune or freeze change none.
fn rows(description: &str) -> u64 {
    let mut words = description.split(' ');
    match words.next().and_then(|verb| verb.split('+').next()) {
        Some("INSERT" | "UPDATE" | "HOT_UPDATE" | "DELETE") => 1,
        Some("MULTI_INSERT") => words.next().and_then(|text| text.parse().ok()).unwrap_or(1),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Told by `pg_waldump` 15.13.
    const TOLD_BY_POSTGRES: &str = "\
rmgr: Heap        len (rec/tot):     54/   294, tx:        727, lsn: 0/01526188, prev 0/01526110, desc: INSERT off 6 flags 0x00, blkref #0: rel 1663/5/16384 blk 0 FPW
rmgr: Transaction len (rec/tot):     34/    34, tx:        727, lsn: 0/01526388, prev 0/015262B0, desc: COMMIT 2026-11-25 18:57:49.627523 UTC
rmgr: Heap        len (rec/tot):     69/    69, tx:        728, lsn: 0/015263B0, prev 0/01526388, desc: HOT_UPDATE off 1 xmax 728 flags 0x20 ; new off 7 xmax 0, blkref #0: rel 1663/5/16384 blk 0
rmgr: Heap2       len (rec/tot):     56/    56, tx:        728, lsn: 0/015263C8, prev 0/01526388, desc: PRUNE latestRemovedXid 0 nredirected 0 ndead 1, blkref #0: rel 1663/5/16384 blk 0
rmgr: Transaction len (rec/tot):     34/    34, tx:        728, lsn: 0/01526440, prev 0/015263F8, desc: COMMIT 2026-11-25 18:57:49.629692 UTC
rmgr: Heap        len (rec/tot):     61/    61, tx:        729, lsn: 0/01526468, prev 0/01526440, desc: INSERT off 9 flags 0x00, blkref #0: rel 1663/5/16384 blk 0
rmgr: Heap        len (rec/tot):     59/    59, tx:        730, lsn: 0/015264E8, prev 0/015264A8, desc: INSERT+INIT off 1 flags 0x00, blkref #0: rel 1663/5/16391 blk 0
rmgr: Heap        len (rec/tot):     59/    59, tx:        731, lsn: 0/01526528, prev 0/015264E8, desc: INSERT off 2 flags 0x00, blkref #0: rel 1663/5/16391 blk 0
rmgr: Transaction len (rec/tot):     34/    34, tx:        731, lsn: 0/01526568, prev 0/01526528, desc: ABORT 2026-11-25 18:57:49.631215 UTC
rmgr: Heap        len (rec/tot):     54/    54, tx:        732, lsn: 0/01526590, prev 0/01526568, desc: DELETE off 7 flags 0x00 KEYS_UPDATED , blkref #0: rel 1663/5/16384 blk 0
rmgr: Transaction len (rec/tot):     50/    50, tx:        729, lsn: 0/015265C8, prev 0/01526590, desc: COMMIT 2026-11-25 18:57:49.631373 UTC; subxacts: 730 732
rmgr: Heap        len (rec/tot):     61/    61, tx:        733, lsn: 0/01526600, prev 0/015265C8, desc: INSERT off 10 flags 0x00, blkref #0: rel 1663/5/16384 blk 0
rmgr: Transaction len (rec/tot):     34/    34, tx:        733, lsn: 0/01526680, prev 0/01526640, desc: ABORT 2026-11-25 18:57:49.632934 UTC
rmgr: Heap2       len (rec/tot):     92/    92, tx:        734, lsn: 0/015266A8, prev 0/01526680, desc: MULTI_INSERT 3 tuples flags 0x02, blkref #0: rel 1663/5/16391 blk 0
rmgr: Transaction len (rec/tot):    114/   114, tx:        734, lsn: 0/0152A4B8, prev 0/01528B10, desc: COMMIT 2026-11-25 18:57:49.634490 UTC; rels: base/5/16391; inval msgs: catcache 55 catcache 54 relcache 16391
rmgr: Heap        len (rec/tot):     61/    61, tx:        735, lsn: 0/0152A500, prev 0/0152A4B8, desc: INSERT off 11 flags 0x00, blkref #0: rel 1663/5/16384 blk 0
rmgr: Transaction len (rec/tot):    114/   114, tx:          0, lsn: 0/0152A600, prev 0/0152A500, desc: COMMIT_PREPARED 735: 2026-11-25 18:57:50.000000 UTC
rmgr: Heap        len (rec/tot):     61/    61, tx:        736, lsn: 0/0152A700, prev 0/0152A600, desc: INSERT off 12 flags 0x00, blkref #0: rel 1663/5/16384 blk 0
";

    #[test]
    fn committed_transactions_are_told_with_what_they_changed() {
        let mut tally = Tally::default();
        TOLD_BY_POSTGRES.lines().for_each(|line| tally.line(line));
        let (t, u) = (Relation::parse("1663/5/16384").unwrap(), Relation::parse("1663/5/16391").unwrap());
        let told: Vec<_> = tally.committed.iter().map(|it| (it.xid, it.at.as_str(), it.changes.clone())).collect();
        assert_eq!(
            told,
            [
                (727, "2026-11-25 18:57:49.627523 UTC", [(t, 1)].into()),
                (728, "2026-11-25 18:57:49.629692 UTC", [(t, 1)].into()),
                (729, "2026-11-25 18:57:49.631373 UTC", [(t, 2), (u, 1)].into()),
                (734, "2026-11-25 18:57:49.634490 UTC", [(u, 3)].into()),
                (735, "2026-11-25 18:57:50.000000 UTC", [(t, 1)].into()),
            ]
        );
        assert_eq!((tally.count, tally.unfinished()), (5, 1));
        assert_eq!(tally.changes, [(t, 5), (u, 4)].into());
        assert_eq!(tally.last, Some(Lsn(0x0152_A700)));
    }

    #[test]
    fn of_many_only_the_sum_is_told() {
        let mut tally = Tally::default();
        for xid in 0..1500 {
            tally.line(&format!(
                "rmgr: Transaction len (rec/tot): 34/34, tx: {xid}, lsn: 0/1, prev 0/0, desc: COMMIT x"
            ));
        }
        assert_eq!((tally.committed.len(), tally.count), (TOLD, 1500));
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in ".{0,200}", xid: u32) {
            let mut tally = Tally::default();
            tally.line(&line);
            tally.line(&format!("rmgr: Heap tx: {xid}, lsn: 0/1, desc: {line}"));
            tally.line(&format!("rmgr: Transaction tx: {xid}, lsn: 0/1, desc: COMMIT {line}"));
        }
    }
}
