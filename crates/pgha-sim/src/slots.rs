//! Slots at work: what agents order, at once and in the background, and the consumers of permanent ones.

use std::collections::{BTreeMap, BTreeSet};

use pgha_core::lsn::Lsn;
use pgha_core::name::SlotName;
use pgha_core::observation::PermanentSlot;

use crate::event::{Event, Who};
use crate::invariant;
use crate::model::network::CLIENTS;
use crate::model::postgres::Life;
use crate::model::slots::{Kind, Slot};
use crate::model::wal::{Position, Wal};
use crate::world::World;

/// Work on slots that an agent does beside its turns.
#[derive(Debug, Clone)]
pub enum SlotWork {
    /// Logical slots are made on a primary.
    Create(BTreeSet<SlotName>),
    /// Slots of a standby are moved on.
    Advance(BTreeMap<SlotName, Lsn>),
}

/// Who reads through a permanent slot, from whoever is primary.
#[derive(Debug)]
pub struct Consumer {
    /// Its slot.
    pub slot: SlotName,
    /// It reads changes, not WAL.
    pub logical: bool,
    /// Everything up to these it has read and confirmed; some of it the cluster may have lost.
    pub has: Vec<Position>,
    /// Where its slot was made, and made anew: what lies before is given to nobody.
    pub made: Vec<Position>,
    /// What it had confirmed in time for every member to know it at the end.
    pub settled: u64,
    /// The server that it reads from.
    reads: Option<Who>,
}

impl Consumer {
    /// One that has read nothing yet.
    pub fn new(slot: &SlotName, kind: &PermanentSlot) -> Self {
        Self {
            slot: slot.clone(),
            logical: *kind != PermanentSlot::Physical,
            has: Vec::new(),
            made: Vec::new(),
            settled: 0,
            reads: None,
        }
    }
}

impl Consumer {
    /// How much of what `at` has it has read.
    pub fn known(&self, wal: &Wal, at: Position) -> Option<u64> {
        self.has.iter().filter_map(|has| wal.shared(at, *has)).max()
    }
}

impl World {
    /// Physical slots are made where the last checkpoint began (`ReplicationSlotReserveWal`).
    pub(crate) fn create_slots(&mut self, host: usize, slots: BTreeSet<SlotName>) {
        let pg = &mut self.hosts[host].pg;
        let (Some(data), Some(_)) = (&mut pg.data, &pg.server) else { return };
        for name in slots {
            let member = self.names.iter().position(|member| member.owns(&name));
            let kind = member.map_or(Kind::Physical, Kind::Member);
            data.slots.create(name, Slot::new(kind, data.redo));
        }
    }

    pub(crate) fn drop_slots(&mut self, host: usize, slots: &BTreeSet<SlotName>) {
        let pg = &mut self.hosts[host].pg;
        let (Some(data), Some(server)) = (&mut pg.data, &pg.server) else { return };
        let dropped: Vec<_> = slots.iter().filter_map(|name| data.slots.remove(name, server)).collect();
        for (member, of_use) in dropped {
            if of_use {
                invariant::held::check_dropped(self, host, member);
            } else if let Some(server) = &mut self.hosts[host].pg.server {
                // It has been away for too long already.
                server.left[member] = None;
            }
        }
    }

    /// Begins work on slots, unless some is under way.
    pub(crate) fn begin_slot_work(&mut self, who: Who, work: SlotWork) {
        let Some(agent) = self.agent(who) else { return };
        if !std::mem::replace(&mut agent.works_on_slots, true) {
            // Decoding all the WAL in between may take its time, as may transactions that a new slot waits for.
            let most = if self.rng.u8(0..32) == 0 { 8000 } else { 100 };
            let takes = self.between(2, most);
            self.later(takes, Event::SlotWork { who, work: Box::new(work) });
        }
    }

    pub(crate) fn slot_work(&mut self, who: Who, work: SlotWork) {
        let Some(agent) = self.agent(who) else { return };
        agent.works_on_slots = false;
        let (host, now) = (who.host, self.now);
        let pg = &mut self.hosts[host].pg;
        let (Some(data), Some(server)) = (&mut pg.data, &pg.server) else { return };
        if server.life != Life::Running {
            return;
        }
        match work {
            SlotWork::Create(slots) if server.primary => {
                let at = data.at;
                for name in &slots {
                    data.slots.create(name.clone(), Slot::new(Kind::Logical, at.lsn));
                }
                self.say(|world| format!("{}: makes {slots:?} at {at:?}", world.names[host]));
                for consumer in self.consumers.iter_mut().filter(|consumer| slots.contains(&consumer.slot)) {
                    consumer.made.push(at);
                }
            }
            // Postgres 15 makes none on a standby.
            SlotWork::Create(_) => {}
            SlotWork::Advance(slots) => {
                let end = server.replayed(data, now);
                for (name, to) in slots {
                    data.slots.advance(&name, to.0.min(end), server);
                }
            }
        }
    }

    /// A consumer's turn: it reads on, connects, or stays away for a while.
    pub(crate) fn consume(&mut self, index: usize) {
        // In the end it does not: a slot that is given up is made anew, and its copies take their time.
        let away = self.rng.u8(0..48) == 0 && !self.calm;
        let again = if away { self.between(5000, 60_000) } else { self.between(300, 1500) };
        self.later(again, Event::Consume(index));
        let now = self.now;
        let name = self.consumers[index].slot.clone();
        let reads = self.consumers[index].reads.filter(|who| self.is_read(*who));
        if let Some(who) = self.consumers[index].reads.filter(|_| away || reads.is_none()) {
            self.consumers[index].reads = None;
            if let Some(data) = &mut self.hosts[who.host].pg.data {
                data.slots.attach(&name, None);
            }
        }
        let Some(host) = reads.map(|who| who.host).or_else(|| self.offered_primary()).filter(|_| !away) else { return };
        let pg = &mut self.hosts[host].pg;
        let Some(server) = pg.server.as_ref().filter(|it| it.writable() && it.stuck_until <= now) else { return };
        let Some(data) = &mut pg.data else { return };
        let Some(slot) = data.slots.usable(&name) else { return };
        let (number, from, at) = (server.number, slot.position, data.at);
        data.slots.attach(&name, Some(number));
        if reads.is_none() {
            self.consumers[index].reads = Some(Who { host, start: number });
            self.say(|world| {
                let has = &world.consumers[index].has;
                format!("{name} is read on {} from {from} on; its consumer has {has:?}", world.names[host])
            });
            invariant::consumer::check(self, index, host, from);
        }
        let end = if self.rng.u8(0..4) == 0 { from + (at.lsn.saturating_sub(from)) / 2 } else { at.lsn };
        if let Some(data) = &mut self.hosts[host].pg.data {
            data.slots.consumed(&name, number, end);
        }
        if now < invariant::permanent::SETTLED {
            self.consumers[index].settled = end;
        }
        // What it has read twice it had before.
        let known = self.consumers[index].known(&self.wal, at).unwrap_or(0);
        let has = self.wal.on_the_way(at.branch, known.max(end));
        self.consumers[index].has.retain(|had| !self.wal.contains(has, *had));
        self.consumers[index].has.push(has);
    }

    /// Whether a consumer can go on reading from a server.
    fn is_read(&self, who: Who) -> bool {
        let at = &self.hosts[who.host];
        let serves = at.pg.server.as_ref().is_some_and(|server| server.number == who.start && server.writable());
        serves && at.on && at.frozen_until <= self.now && self.network.talks(CLIENTS, who.host)
    }
}
