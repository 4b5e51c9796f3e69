//! The journals that the agents of a history would have left, with every turn in them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pgha_core::decide::{Decision, Memory, Settings};
use pgha_core::journal::{Head, Turn};
use pgha_core::name::NodeName;
use pgha_core::observation::Observation;

use crate::time::Time;

/// One for each member.
#[derive(Debug, Default, Clone)]
pub struct Journals(pub BTreeMap<NodeName, Vec<u8>>);

impl Journals {
    /// An agent starts.
    pub(crate) fn start(&mut self, now: Time, settings: &Settings) {
        let at = wall_clock(now);
        self.of(settings).extend(Head::new(at, at, settings.clone()).render());
    }

    /// An agent has decided.
    pub(crate) fn turn(
        &mut self,
        (now, number): (Time, u32),
        settings: &Settings,
        memory: &Memory,
        observation: &Observation,
        decision: &Decision,
    ) {
        let turn = Turn::new(number.into(), wall_clock(now), memory, observation, decision);
        self.of(settings).extend(turn.render());
    }

    fn of(&mut self, settings: &Settings) -> &mut Vec<u8> {
        self.0.entry(settings.me.clone()).or_default()
    }
}

/// Histories begin at the epoch of Unix.
fn wall_clock(now: Time) -> Timestamp {
    i64::try_from(now.0).ok().and_then(|micros| Timestamp::from_microsecond(micros).ok()).unwrap_or_default()
}
