//! A look at every database twenty times a second, from its own host: does it take writes, does it acknowledge them?
//!
//! Two databases that take writes at the same time are what a cluster must never have. Every look is an insert. One that
//! is rolled back shows that the server takes writes, one that is committed that it acknowledges them: a primary that
//! has lost its standbys may do the former for as long as its lease holds, never the latter.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::timeout};

use super::clients::{Clients, told_to_stop};
use crate::{
    Host, Result,
    sql::{Connected, Server, rows, runtime},
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// A server that does not answer for so long is looked at anew.
const PATIENCE: Duration = Duration::from_secs(1);
/// For the table.
const STATEMENT: Duration = Duration::from_secs(10);

const TABLE: &str =
    "set client_min_messages = warning; create table if not exists pgha_probe (at timestamptz not null)";
/// Asked first: a refused insert would be an error in the server's log, twenty times a second.
const IS_STANDBY: &str = "select pg_is_in_recovery()";
/// The timeline is that of the insert: the first eight digits of the segment that it goes to.
const TAKE: &str = "begin; insert into pgha_probe values (clock_timestamp()) \
                    returning substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8); rollback";
const ACKNOWLEDGE: &str = "insert into pgha_probe values (clock_timestamp()) \
                           returning substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)";

/// What was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// The server takes writes.
    Takes,
    /// It acknowledges them.
    Acknowledges,
}

/// A look that found a server that writes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sighting {
    kind: Act,
    host: String,
    timeline: u32,
    /// The server did it at some moment from here
    begun: Instant,
    /// to here.
    ended: Instant,
}

/// Two servers that wrote at the same time.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Overlap {
    /// What both did.
    pub kind: Act,
    /// The one on the older timeline, and that timeline.
    pub old: (String, u32),
    /// The other one.
    pub new: (String, u32),
    /// For so many seconds at least.
    pub seconds: f64,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            Act::Takes => "took writes",
            Act::Acknowledges => "acknowledged writes",
        };
        write!(
            f,
            "{} {what} on timeline {} {:.3} s after {} had done so on timeline {}",
            self.old.0, self.old.1, self.seconds, self.new.0, self.new.1
        )
    }
}

/// What the looks came to.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Report {
    /// How often a server was seen to write.
    pub sightings: usize,
    /// Servers that wrote at the same time.
    pub overlaps: Vec<Overlap>,
}

impl Report {
    /// How long two servers did this at once, in seconds; 0 is what must be.
    pub fn twofold(&self, kind: Act) -> f64 {
        self.overlaps.iter().filter(|overlap| overlap.kind == kind).map(|overlap| overlap.seconds).fold(0.0, f64::max)
    }
}

/// Running looks. Dropping it stops them.
#[derive(Debug)]
pub struct Probe {
    seen: Arc<Mutex<Vec<Sighting>>>,
    clients: Vec<Clients>,
}

impl Probe {
    /// Prepares the table through `server` and looks at the databases of all `hosts`, as the same user.
    pub fn start(server: &Server, hosts: &[Host]) -> Result<Self> {
        server.query(TABLE, STATEMENT)?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let start = |host: &Host| {
            let server = server.at(SocketAddr::from((host.address(), server.address.port())));
            let (host, seen) = (host.clone(), Arc::clone(&seen));
            Clients::start("probe", move |stopped| {
                runtime()?.block_on(async {
                    tokio::join!(
                        look(&host, &server, Act::Takes, &seen, stopped.clone()),
                        look(&host, &server, Act::Acknowledges, &seen, stopped.clone())
                    );
                });
                Ok(())
            })
        };
        let clients = hosts.iter().map(start).collect::<Result<_>>()?;
        Ok(Self { seen, clients })
    }

    /// Stops looking and says what was seen.
    pub fn finish(self) -> Result<Report> {
        for clients in self.clients {
            clients.end()?;
        }
        Ok(judge(&lock(&self.seen)))
    }
}

async fn look(host: &Host, server: &Server, kind: Act, seen: &Mutex<Vec<Sighting>>, mut stop: watch::Receiver<bool>) {
    let mut connected: Option<Connected> = None;
    while !told_to_stop(&mut stop) {
        if connected.is_none() {
            // Its network is another one after each power cut. A host that is off has none: nothing to see.
            let inside = host.enter();
            connected = match (inside, timeout(PATIENCE, server.connect()).await) {
                (Ok(()), Ok(Ok(fresh))) => Some(fresh),
                _ => None,
            };
        }
        if let Some(present) = &connected {
            let begun = Instant::now();
            match timeout(PATIENCE, insert(present, kind)).await {
                Ok(Ok(Some(timeline))) => {
                    let (host, ended) = (host.name().to_owned(), Instant::now());
                    lock(seen).push(Sighting { kind, host, timeline, begun, ended });
                }
                Ok(Ok(None)) => {}
                // What says no, or nothing, is asked anew.
                Ok(Err(_)) | Err(_) => connected = None,
            }
        }
        let _told = timeout(PAUSE, async { stop.changed().await.unwrap_or(()) }).await;
    }
}

/// The timeline on which the server took the row; `None` on a standby.
async fn insert(connected: &Connected, kind: Act) -> Result<Option<u32>, tokio_postgres::Error> {
    let first = |messages: Vec<_>| rows(&messages).first().and_then(|row| row.first().cloned().flatten());
    if first(connected.client.simple_query(IS_STANDBY).await?).as_deref() != Some("f") {
        return Ok(None);
    }
    let statement = if kind == Act::Takes { TAKE } else { ACKNOWLEDGE };
    let timeline = first(connected.client.simple_query(statement).await?);
    Ok(timeline.and_then(|digits| u32::from_str_radix(&digits, 16).ok()))
}

/// No holder of the lock can leave the list half written.
fn lock(seen: &Mutex<Vec<Sighting>>) -> MutexGuard<'_, Vec<Sighting>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server on an older timeline that wrote after one on a newer timeline had written, and any two on one timeline: for
/// a timeline begins with a promotion, and those before it must have ended by then.
fn judge(seen: &[Sighting]) -> Report {
    let mut overlaps = Vec::new();
    for kind in [Act::Takes, Act::Acknowledges] {
        let mut servers: BTreeMap<(u32, &str), (Instant, Instant)> = BTreeMap::new();
        for sighting in seen.iter().filter(|sighting| sighting.kind == kind) {
            let place = servers.entry((sighting.timeline, &sighting.host));
            let (first, last) = place.or_insert((sighting.ended, sighting.begun));
            *first = (*first).min(sighting.ended);
            *last = (*last).max(sighting.begun);
        }
        for ((old_timeline, old), (_, last)) in &servers {
            for ((new_timeline, new), (first, _)) in &servers {
                let over = last.saturating_duration_since(*first);
                let twins = old_timeline == new_timeline && old < new;
                if twins || (old_timeline < new_timeline && old != new && !over.is_zero()) {
                    let old = ((*old).to_owned(), *old_timeline);
                    let new = ((*new).to_owned(), *new_timeline);
                    overlaps.push(Overlap { kind, old, new, seconds: over.as_secs_f64() });
                }
            }
        }
    }
    Report { sightings: seen.len(), overlaps }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(start: Instant, host: &str, timeline: u32, begun: u64, ended: u64) -> Sighting {
        let at = |millis| start + Duration::from_millis(millis);
        Sighting { kind: Act::Takes, host: host.to_owned(), timeline, begun: at(begun), ended: at(ended) }
    }

    #[test]
    fn one_after_the_other_is_no_overlap() {
        let now = Instant::now();
        let seen = [sighting(now, "a", 1, 0, 10), sighting(now, "b", 2, 20, 30), sighting(now, "a", 3, 40, 50)];
        assert_eq!(judge(&seen).overlaps, []);
    }

    #[test]
    fn a_look_that_began_before_the_other_was_answered_proves_nothing() {
        let now = Instant::now();
        assert_eq!(judge(&[sighting(now, "a", 1, 0, 90), sighting(now, "b", 2, 20, 30)]).overlaps, []);
    }

    #[test]
    fn an_old_primary_that_still_writes_is_found() {
        let now = Instant::now();
        let report = judge(&[sighting(now, "b", 2, 20, 30), sighting(now, "a", 1, 50, 60)]);
        assert_eq!(report.overlaps.len(), 1);
        assert!((report.twofold(Act::Takes) - 0.02).abs() < 1e-9);
        assert_eq!(
            report.overlaps[0].to_string(),
            "a took writes on timeline 1 0.020 s after b had done so on timeline 2"
        );
    }

    #[test]
    fn twins_on_one_timeline_are_found_whenever_they_write() {
        let now = Instant::now();
        let report = judge(&[sighting(now, "a", 2, 0, 10), sighting(now, "b", 2, 50, 60)]);
        assert_eq!(report.overlaps.len(), 1);
        assert_ne!(report.overlaps[0].old.0, report.overlaps[0].new.0);
    }
}
