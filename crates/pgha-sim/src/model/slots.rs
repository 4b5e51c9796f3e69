//! Replication slots, as they lie in a data directory: how far who uses them is, and so which WAL must stay.

use std::collections::BTreeMap;

use pgha_core::lsn::Lsn;
use pgha_core::name::SlotName;
use pgha_core::observation;

use super::postgres::Server;

/// `max_slot_wal_keep_size`.
const MOST: u64 = 30_000;

/// Who uses a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A member that streams from here.
    Member(usize),
    /// A receiver of WAL.
    Physical,
    /// A consumer of changes.
    Logical,
}

/// A slot.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    kind: Kind,
    /// `restart_lsn`, or `confirmed_flush_lsn` of a logical one: what lies before is not needed any more.
    pub position: u64,
    /// The same on disk: a crash goes back to it.
    saved: u64,
    /// WAL that it needs is gone.
    lost: bool,
    /// It has held up vacuum for a standby (`xmin`).
    feedback: bool,
    /// The start of the server through which a consumer reads.
    reader: Option<u32>,
}

impl Slot {
    /// One that is made, and saved, at a position.
    pub fn new(kind: Kind, position: u64) -> Self {
        Self { kind, position, saved: position, lost: false, feedback: false, reader: None }
    }

    fn is_active(&self, server: &Server) -> bool {
        match self.kind {
            Kind::Member(member) => server.senders.get(member).is_some_and(Option::is_some),
            Kind::Physical | Kind::Logical => self.reader == Some(server.number),
        }
    }
}

/// The slots of a data directory.
#[derive(Debug, Clone, Default)]
pub struct Slots(BTreeMap<SlotName, Slot>);

impl Slots {
    /// One of them, if it can be used.
    pub fn usable(&self, name: &SlotName) -> Option<&Slot> {
        self.0.get(name).filter(|slot| !slot.lost)
    }

    /// Whether there is a usable one of that kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.0.values().any(|slot| slot.kind == kind && !slot.lost)
    }

    /// Adds one, unless its name is taken.
    pub fn create(&mut self, name: SlotName, slot: Slot) {
        self.0.entry(name).or_insert(slot);
    }

    /// Drops one, unless somebody uses it. Gives the member for whom it was, and whether it was of use to that.
    pub fn remove(&mut self, name: &SlotName, server: &Server) -> Option<(usize, bool)> {
        self.0.get(name).filter(|slot| !slot.is_active(server))?;
        match self.0.remove(name) {
            Some(Slot { kind: Kind::Member(member), lost, .. }) => Some((member, !lost)),
            _ => None,
        }
    }

    /// A member has confirmed WAL, and perhaps told which rows it still reads (`hot_standby_feedback`).
    pub fn confirm(&mut self, member: usize, lsn: u64, feedback: bool) {
        if let Some(slot) = self.0.values_mut().find(|slot| slot.kind == Kind::Member(member)) {
            slot.position = slot.position.max(lsn);
            slot.feedback |= feedback;
        }
    }

    /// `pg_replication_slot_advance`: forwards only, and not under a reader.
    pub fn advance(&mut self, name: &SlotName, to: u64, server: &Server) {
        if let Some(slot) = self.0.get_mut(name).filter(|slot| !slot.lost && !slot.is_active(server)) {
            slot.position = slot.position.max(to);
        }
    }

    /// A consumer connects to a server, or leaves it.
    pub fn attach(&mut self, name: &SlotName, reader: Option<u32>) {
        if let Some(slot) = self.0.get_mut(name) {
            slot.reader = reader;
        }
    }

    /// A consumer has confirmed what it read through a server.
    pub fn consumed(&mut self, name: &SlotName, reader: u32, to: u64) {
        if let Some(slot) = self.0.get_mut(name).filter(|slot| slot.reader == Some(reader)) {
            slot.position = slot.position.max(to);
        }
    }

    /// A checkpoint at `end` saves them, and gives up those that hold back too much. Says from where on WAL is needed.
    pub fn checkpoint(&mut self, end: u64) -> u64 {
        let mut needed = end;
        for slot in self.0.values_mut() {
            slot.saved = slot.position;
            slot.lost |= slot.position + MOST < end;
            if slot.lost {
                // Who reads through it is thrown out.
                slot.reader = None;
            } else {
                needed = needed.min(slot.position);
            }
        }
        needed
    }

    /// After a crash they are as they were saved.
    pub fn recover(&mut self) {
        for slot in self.0.values_mut() {
            slot.position = slot.saved;
        }
    }

    /// As a query shows them.
    pub fn shown(&self, server: &Server) -> observation::Slots {
        let mut shown = observation::Slots::default();
        for (name, slot) in &self.0 {
            let logical = slot.kind == Kind::Logical;
            let held = !logical && slot.feedback && !server.primary;
            let position = Lsn(if slot.lost && !logical { 0 } else { slot.position });
            let seen = observation::Slot { active: slot.is_active(server), spoilt: slot.lost || held, position };
            let of_its_kind = if logical { &mut shown.logical } else { &mut shown.physical };
            of_its_kind.insert(name.clone(), seen);
        }
        shown
    }
}
