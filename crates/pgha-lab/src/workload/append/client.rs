//! One client: appends, reads, and transactions of both; starts over with a new connection when something fails.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{sync::watch, time::timeout};
use tokio_postgres::{Row, Statement};

use super::{
    Element, Key,
    history::{Append, Fate, Operation, Recorder},
    keys::{Keys, LANES},
};
use crate::{
    Result,
    sql::Connected,
    workload::{Settings, clients::told_to_stop, writer::is_refusal},
};

/// Waits for the row's lock and shows what it has made of the newest list: atomic for the list, in one statement.
const APPEND: &str = "insert into pgha_append as old (run, key, list) values ($1, $2, array[$3::bigint]) \
                      on conflict (run, key) do update set list = old.list || excluded.list returning list";
const READ: &str = "select list from pgha_append where run = $1 and key = $2";
/// Each statement sees what is committed when it begins, whatever the server's default is.
const BEGIN: &str = "begin isolation level read committed";

pub(super) struct Client {
    number: u32,
    settings: Settings,
    run: String,
    keys: Arc<Keys>,
    recorder: Arc<Recorder>,
    dice: Rng,
}

/// A connection with its prepared statements.
struct Session {
    connected: Connected,
    append: Statement,
    read: Statement,
}

/// A statement without a usable answer.
struct Failure {
    why: String,
    /// The server said that it did nothing.
    refused: bool,
}

impl Failure {
    fn fate(&self) -> Fate {
        if self.refused { Fate::Refused } else { Fate::InDoubt }
    }
}

/// An append whose fate depends on the transaction, or what such a transaction saw of its own.
struct Pending {
    key: Key,
    element: Option<Element>,
    started: Duration,
    seen: Option<Vec<Element>>,
}

impl Client {
    pub(super) fn new(
        number: u32,
        settings: Settings,
        run: String,
        keys: &Arc<Keys>,
        recorder: &Arc<Recorder>,
    ) -> Self {
        let (keys, recorder) = (Arc::clone(keys), Arc::clone(recorder));
        Self { number, settings, run, keys, recorder, dice: Rng::with_seed(number.into()) }
    }

    /// Works until told to stop; every operation ends in the history.
    pub(super) async fn work(mut self, mut stop: watch::Receiver<bool>) {
        let mut session = None;
        while !told_to_stop(&mut stop) {
            let Some(open) = &session else {
                match self.settings.server.deadline(self.settings.connect_timeout, self.connect()).await {
                    Ok(fresh) => session = Some(fresh),
                    Err(error) => {
                        self.recorder.unconnected(error.to_string());
                        // Ends early when told to stop.
                        let _ = timeout(self.settings.retry_pause, stop.changed()).await;
                    }
                }
                continue;
            };
            let lane = self.dice.usize(0..LANES);
            let done = match self.dice.u8(0..10) {
                0..5 => self.append(open, self.keys.key(lane)).await,
                5..7 => self.read(open, self.keys.key(lane)).await,
                7..9 => self.transact(open, true).await,
                _ => self.transact(open, false).await,
            };
            if let Err(failure) = done {
                self.recorder.fail(failure.why);
                // After any failure a new connection may reach another server.
                session = None;
            }
        }
    }

    async fn connect(&self) -> Result<Session> {
        let connected = self.settings.server.connect().await?;
        let prepare =
            async |text| connected.client.prepare(text).await.map_err(|error| self.settings.server.failed(&error));
        let (append, read) = (prepare(APPEND).await?, prepare(READ).await?);
        Ok(Session { connected, append, read })
    }

    /// One append that commits by itself.
    async fn append(&self, session: &Session, key: Key) -> Result<(), Failure> {
        let (pending, answer) = self.send_append(session, key).await;
        self.record(pending, answer.as_ref().map_or_else(Failure::fate, |()| Fate::Acknowledged));
        answer
    }

    /// One read outside a transaction.
    async fn read(&self, session: &Session, key: Key) -> Result<(), Failure> {
        let pending = self.send_read(session, key).await?;
        self.record(pending, Fate::Acknowledged);
        Ok(())
    }

    /// Two appends with a read between them, kept or taken back.
    async fn transact(&mut self, session: &Session, keep: bool) -> Result<(), Failure> {
        // Nobody waits for a lower lane with a higher one locked: no deadlocks.
        let mut lanes = [self.dice.usize(0..LANES), self.dice.usize(0..LANES)];
        lanes.sort_unstable();
        let [first, last] = lanes.map(|lane| self.keys.key(lane));
        let between = self.keys.key(self.dice.usize(0..LANES));
        let mut pending = Vec::new();
        let before = self.statements(session, [first, between, last], &mut pending).await;
        let end = if keep { "commit" } else { "rollback" };
        let (fate, answer) = match before {
            // Without an order to commit nothing is ever committed.
            Err(failure) => (Fate::Refused, Err(failure)),
            Ok(()) => match self.ask(session.connected.client.batch_execute(end)).await {
                Ok(()) if keep => (Fate::Acknowledged, Ok(())),
                Err(failure) if keep => (failure.fate(), Err(failure)),
                answer => (Fate::Refused, answer),
            },
        };
        for operation in pending {
            self.record(operation, fate);
        }
        answer
    }

    async fn statements(
        &self,
        session: &Session,
        [first, between, last]: [Key; 3],
        pending: &mut Vec<Pending>,
    ) -> Result<(), Failure> {
        self.ask(session.connected.client.batch_execute(BEGIN)).await?;
        let (append, answer) = self.send_append(session, first).await;
        pending.push(append);
        answer?;
        let read = self.send_read(session, between).await?;
        if between == first {
            // It shows an append that is not committed.
            pending.push(read);
        } else {
            self.record(read, Fate::Acknowledged);
        }
        let (append, answer) = self.send_append(session, last).await;
        pending.push(append);
        answer
    }

    async fn send_append(&self, session: &Session, key: Key) -> (Pending, Result<(), Failure>) {
        let element = self.keys.element();
        let mut pending = Pending { key, element: Some(element), started: self.recorder.now(), seen: None };
        let query = async {
            let row = session.connected.client.query_one(&session.append, &[&self.run, &key, &element]).await?;
            list(Some(&row))
        };
        match self.ask(query).await {
            Ok(list) => {
                pending.seen = Some(list);
                (pending, Ok(()))
            }
            Err(failure) => (pending, Err(failure)),
        }
    }

    async fn send_read(&self, session: &Session, key: Key) -> Result<Pending, Failure> {
        let started = self.recorder.now();
        let query =
            async { list(session.connected.client.query_opt(&session.read, &[&self.run, &key]).await?.as_ref()) };
        let seen = Some(self.ask(query).await?);
        Ok(Pending { key, element: None, started, seen })
    }

    /// Gives up after the client's patience.
    async fn ask<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
        match timeout(self.settings.statement_timeout, work).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure {
                refused: error.code().is_some_and(is_refusal),
                why: self.settings.server.failed(&error).to_string(),
            }),
            Err(_) => {
                Err(Failure { refused: false, why: format!("no answer within {:?}", self.settings.statement_timeout) })
            }
        }
    }

    /// Ends an operation now. What a transaction showed of its own counts only if it is acknowledged.
    fn record(&self, Pending { key, element, started, seen }: Pending, fate: Fate) {
        let seen = seen.filter(|_| fate == Fate::Acknowledged);
        if let Some(list) = &seen {
            self.keys.seen(key, list.len());
        }
        if element.is_none() && seen.is_none() {
            return;
        }
        let append = element.map(|element| Append { element, fate });
        let ended = self.recorder.now();
        let operation = Operation { client: self.number, key, append, seen: None, started, ended };
        self.recorder.history().record(operation, seen);
    }
}

/// The list in an answer; one that nobody has begun is empty.
fn list(row: Option<&Row>) -> Result<Vec<Element>, tokio_postgres::Error> {
    row.map_or_else(|| Ok(Vec::new()), |row| row.try_get(0))
}
