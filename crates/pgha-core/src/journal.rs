//! The field journal: what a member observed and decided, as JSON Lines that can be decided again.
//!
//! ```text
//! {"head":{"format":1,"pgha":"0.1.0","at":"…","started":"…","settings":{…}}}
//! {"turn":{"number":17,"at":"…","code":"leading","text":"…","actions":[…],"memory":{…},"observation":{…}}}
//! ```
//!
//! A head stands first in each file, and again where an agent was started anew. A turn holds all that
//! [`decide`](crate::decide::decide) was given and what it said. Turns in which nothing but time passed are left out
//! ([`Turn::is_news_after`]); their numbers are missing.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::action::Action;
use crate::decide::{Decision, Memory, Settings};
use crate::lsn::Lsn;
use crate::observation::{Dcs, Observation, Postgres, Role, Slots};
use crate::time::{Instant, Millis};

/// The version of the format. A field that is new and has a default needs no new version.
pub const FORMAT: u32 = 1;

/// A turn is written at least this often.
pub const HEARTBEAT: Millis = Millis::from_secs(60);

/// One line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Who writes.
    Head(Box<Head>),
    /// What was observed and decided.
    Turn(Box<Turn>),
}

/// Who writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// See [`FORMAT`]. The first field, so that another format is refused for what it is.
    #[serde(deserialize_with = "known_format")]
    pub format: u32,
    /// The version of pgha.
    pub pgha: String,
    /// When the line was written, by the wall clock.
    #[serde(serialize_with = "millis")]
    pub at: Timestamp,
    /// When the agent was started: tells one run from another.
    #[serde(serialize_with = "millis")]
    pub started: Timestamp,
    /// The member's settings.
    pub settings: Settings,
}

/// One turn of an agent's loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Counts the turns of one run, the ones that are left out too.
    pub number: u64,
    /// When it was decided, by the wall clock.
    #[serde(serialize_with = "millis")]
    pub at: Timestamp,
    /// Turns since the line before that were not written although they may have had news.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// The reason's word.
    pub code: String,
    /// The reason's sentence.
    pub text: String,
    /// What was ordered.
    pub actions: Vec<Action>,
    /// The memory before.
    pub memory: Memory,
    /// What was observed.
    pub observation: Observation,
}

/// A line that cannot be read: where, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {why}")]
pub struct JournalError {
    /// 1-based.
    pub line: usize,
    /// 1-based, in bytes.
    pub column: usize,
    /// What is wrong.
    pub why: String,
}

impl Head {
    /// The head of a file that is begun now.
    pub fn new(at: Timestamp, started: Timestamp, settings: Settings) -> Self {
        Self { format: FORMAT, pgha: env!("CARGO_PKG_VERSION").to_owned(), at, started, settings }
    }

    /// The line, with its end.
    pub fn render(&self) -> Vec<u8> {
        render("head", self)
    }
}

impl Turn {
    /// A turn as it was decided.
    pub fn new(number: u64, at: Timestamp, memory: &Memory, observation: &Observation, decision: &Decision) -> Self {
        Self {
            number,
            at,
            lost: 0,
            code: decision.reason.code().to_owned(),
            text: decision.reason.to_string(),
            actions: decision.actions.clone(),
            memory: memory.clone(),
            observation: observation.clone(),
        }
    }

    /// The line, with its end.
    pub fn render(&self) -> Vec<u8> {
        render("turn", self)
    }

    /// Whether the turn is worth a line, after the one that was written last: it has another reason, orders more than
    /// what is done every second, differs in more than the passing of time, or comes a heartbeat later.
    ///
    /// Time passes in the clock, in the times that the lease is counted from, and in the WAL positions of servers that run.
    pub fn is_news_after(&self, last: &Self) -> bool {
        (&self.code, &self.text) != (&last.code, &last.text)
            || !self.actions.iter().all(|action| {
                matches!(action, Action::Renew { .. } | Action::RenewByPromise { .. } | Action::AdvanceSlots(_))
            })
            || self.observation.now.since(last.observation.now) >= HEARTBEAT
            || self.memory_out_of_time() != last.memory_out_of_time()
            || self.observation_out_of_time() != last.observation_out_of_time()
    }

    fn memory_out_of_time(&self) -> Memory {
        let mut memory = self.memory.clone();
        if let Some(standstill) = &mut memory.standstill {
            (standstill.position, standstill.since) = (Lsn::INVALID, Instant(0));
        }
        memory.asked = None;
        memory.slot_work = None;
        if let Some(trouble) = &mut memory.disk {
            trouble.flushed = None;
        }
        memory
    }

    fn observation_out_of_time(&self) -> Observation {
        let mut seen = self.observation.clone();
        seen.now = Instant(0);
        if let Some(lease) = &mut seen.lease {
            (lease.sent, lease.counted_from) = (Instant(0), Instant(0));
        }
        if let Some(promise) = &mut seen.promise {
            promise.until = Instant(0);
        }
        if let Dcs::Seen(cluster) = &mut seen.dcs {
            let cluster = Arc::make_mut(cluster);
            cluster.optime = Lsn::INVALID;
            cluster.slot_positions.clear();
        }
        if let Postgres::Running(running) = &mut seen.postgres {
            match &mut running.role {
                Role::Primary(primary) => {
                    primary.flushed = Lsn::INVALID;
                    forget_positions(&mut primary.slots);
                    primary.senders.iter_mut().for_each(|sender| sender.flushed = Lsn::INVALID);
                }
                Role::Standby(standby) => {
                    (standby.received, standby.replayed) = (Lsn::INVALID, Lsn::INVALID);
                    forget_positions(&mut standby.slots);
                }
            }
        }
        seen
    }
}

fn forget_positions(slots: &mut Slots) {
    slots.physical.values_mut().chain(slots.logical.values_mut()).for_each(|slot| slot.position = Lsn::INVALID);
}

/// The lines of a file, each with its number. What a crash has torn off at the end is not among them: see [`torn`].
pub fn lines(file: &[u8]) -> impl Iterator<Item = Result<(usize, Line), JournalError>> {
    let whole = &file[..file.len() - torn(file)];
    whole.split_inclusive(|byte| *byte == b'\n').enumerate().map(|(index, text)| {
        let wrong = |column, why| JournalError { line: index + 1, column, why };
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        match serde_json::from_slice(text) {
            Ok(Line::Turn(_)) if index == 0 => Err(wrong(1, "a journal begins with a head".to_owned())),
            Ok(line) => Ok((index + 1, line)),
            Err(error) => {
                let (why, place) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
                Err(wrong(error.column().max(1), why.trim_end_matches(&place).to_owned()))
            }
        }
    })
}

/// Bytes at the end of a file that are not a whole line: the writer died while it wrote them.
pub fn torn(file: &[u8]) -> usize {
    file.iter().rev().take_while(|byte| **byte != b'\n').count()
}

#[expect(clippy::expect_used, reason = "serializing fails only for maps whose keys are neither text nor numbers")]
fn render(kind: &str, what: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(&BTreeMap::from([(kind, what)])).expect("keys are names and timelines");
    line.push(b'\n');
    line
}

fn known_format<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        FORMAT => Ok(FORMAT),
        other => Err(serde::de::Error::custom(format!("format {other} is not known here, only {FORMAT}"))),
    }
}

fn millis<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.3}"))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
