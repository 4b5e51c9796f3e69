//! Znode `history`: every change of timeline, for people.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::codec::{self, document};
use crate::lsn::{Lsn, Timeline};

/// Every change of timeline, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History(pub Vec<HistoryLine>);

document!(History, "znode `history`", "a JSON array of [timeline, position, reason, time, leader]");

impl History {
    /// The cluster's timeline: the one after the last that ended.
    pub fn timeline(&self) -> Option<Timeline> {
        self.0.last().map(|line| Timeline(line.timeline.0.saturating_add(1)))
    }
}

/// The end of one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryLine {
    /// The timeline that ended.
    pub timeline: Timeline,
    /// Where it ended.
    pub switched_at: Lsn,
    /// `PostgreSQL`'s words.
    pub reason: String,
    /// When, in ISO form; unknown for old lines.
    pub at: Option<String>,
    /// Who led from then on; unknown for old lines.
    pub new_leader: Option<String>,
}

impl Serialize for HistoryLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = vec![json!(self.timeline), json!(self.switched_at), json!(self.reason)];
        if self.at.is_some() || self.new_leader.is_some() {
            line.push(json!(self.at));
        }
        if let Some(leader) = &self.new_leader {
            line.push(json!(leader));
        }
        line.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for HistoryLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let line = Vec::<Value>::deserialize(deserializer)?;
        let text = |index: usize| line.get(index).and_then(Value::as_str).map(str::to_owned);
        let number = |index: usize| line.get(index).and_then(codec::whole_number);
        let timeline = number(0).and_then(|number| u32::try_from(number).ok());
        match (timeline, number(1), text(2)) {
            (Some(timeline), Some(position), Some(reason)) => Ok(Self {
                timeline: Timeline(timeline),
                switched_at: Lsn(position),
                reason,
                at: text(3),
                new_leader: text(4),
            }),
            _ => Err(D::Error::custom(format_args!(
                "a line is not [timeline, position, reason, …]: {}",
                Value::Array(line.clone())
            ))),
        }
    }
}
