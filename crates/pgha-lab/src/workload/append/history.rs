//! What clients did, when, and what they were told.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::{Serialize, Serializer};

use super::{Element, Key};

/// What a client knows of its append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Its commit was confirmed.
    Acknowledged,
    /// No answer tells whether it counts. It may happen later, too, when a server gets to it.
    InDoubt,
    /// It certainly did not happen.
    Refused,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acknowledged => "acknowledged",
            Self::InDoubt => "in-doubt",
            Self::Refused => "refused",
        })
    }
}

/// An element and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Append {
    /// What was appended.
    pub element: Element,
    /// What the client was told.
    pub fate: Fate,
}

/// One client's access to one list: a read, or an append that may show the list, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Operation {
    /// The client's number.
    pub client: u32,
    /// The list.
    pub key: Key,
    /// What was appended; a read has nothing.
    pub append: Option<Append>,
    /// How long the list was that the client got to see.
    pub seen: Option<usize>,
    /// From the start of the run until the statement was sent.
    #[serde(serialize_with = "seconds")]
    pub started: Duration,
    /// Until its answer, or that of the transaction it depends on, was there or given up.
    #[serde(serialize_with = "seconds")]
    pub ended: Duration,
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, key, append, seen, started, ended } = self;
        match append {
            Some(Append { element, fate }) => write!(f, "the {fate} append of {element} to list {key}")?,
            None => write!(f, "the read of list {key}")?,
        }
        if let Some(seen) = seen {
            write!(f, " that showed {}", Count(*seen))?;
        }
        write!(f, " (client {client}, {:.6} s to {:.6} s)", started.as_secs_f64(), ended.as_secs_f64())
    }
}

/// A number of elements.
pub(super) struct Count(pub(super) usize);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} element{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// All operations of a run.
///
/// Reads repeat each other: of each list the longest one is kept, of its prefixes the length, and all else in full.
#[derive(Debug, Default)]
pub(super) struct History {
    operations: Vec<Operation>,
    /// The longest lists seen, as long as each continues the one before.
    trunks: HashMap<Key, Vec<Element>>,
    /// By the operation's place.
    branches: HashMap<usize, Vec<Element>>,
    acknowledged: usize,
    /// Attempts that never became an operation.
    pub(super) unconnected: usize,
    pub(super) first_error: Option<(Duration, String)>,
    last_error: Option<String>,
}

impl History {
    /// Adds an operation and the list that it showed.
    pub(super) fn record(&mut self, operation: Operation, seen: Option<Vec<Element>>) {
        if operation.append.is_some_and(|append| append.fate == Fate::Acknowledged) {
            self.acknowledged += 1;
        }
        let length = seen.as_ref().map(Vec::len);
        if let Some(list) = seen {
            let trunk = self.trunks.entry(operation.key).or_default();
            if list.starts_with(trunk) {
                *trunk = list;
            } else if !trunk.starts_with(&list) {
                self.branches.insert(self.operations.len(), list);
            }
        }
        self.operations.push(Operation { seen: length, ..operation });
    }

    pub(super) fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// All appends, with their operations.
    pub(super) fn appends(&self) -> impl Iterator<Item = (&Operation, Append)> {
        self.operations.iter().filter_map(|operation| operation.append.map(|append| (operation, append)))
    }

    /// What the operation at this place showed.
    pub(super) fn seen(&self, place: usize) -> Option<&[Element]> {
        let operation = self.operations.get(place)?;
        match self.branches.get(&place) {
            Some(list) => Some(list),
            None => self.trunks.get(&operation.key)?.get(..operation.seen?),
        }
    }

    fn fail(&mut self, when: Duration, why: String) {
        self.first_error.get_or_insert_with(|| (when, why.clone()));
        self.last_error = Some(why);
    }
}

/// A history that is being made; shared by all clients.
#[derive(Debug)]
pub(super) struct Recorder {
    started: Instant,
    history: Mutex<History>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), history: Mutex::default() }
    }

    /// Since the start of the run.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.history().acknowledged
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.history().last_error.clone()
    }

    /// Something failed; what became of the operation is recorded by itself.
    pub(super) fn fail(&self, why: String) {
        self.history().fail(self.now(), why);
    }

    /// There was no server to ask.
    pub(super) fn unconnected(&self, why: String) {
        let mut history = self.history();
        history.unconnected += 1;
        history.fail(self.now(), why);
    }

    /// No holder of the lock can leave the history half written.
    pub(super) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_kept_as_it_was_seen() {
        let mut history = History::default();
        let lists = [&[][..], &[1, 2], &[1], &[1, 3], &[1, 2, 4], &[2]];
        for list in lists {
            let operation = Operation {
                client: 0,
                key: 0,
                append: None,
                seen: None,
                started: Duration::ZERO,
                ended: Duration::ZERO,
            };
            history.record(operation, Some(list.to_vec()));
        }
        let seen: Vec<_> = (0..lists.len()).filter_map(|place| history.seen(place)).collect();
        assert_eq!(seen, lists);
        assert_eq!((history.branches.len(), history.trunks[&0].as_slice()), (2, &[1, 2, 4][..]));
    }
}
