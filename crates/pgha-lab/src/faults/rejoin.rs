//! A member comes back after the others have gone on without it: by which way, how fast, and how much it copies.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{CONVERGED, Fault, Patience, SOON, scene::Scene};
use crate::{
    Error, Host, Result,
    cluster::{Cluster, DATABASES, until},
};

/// For as much WAL as members keep, and its way into the archive.
const RECYCLED: Duration = Duration::from_mins(4);
/// How long a primary that is cut off writes what nobody else has.
const ALONE: Duration = Duration::from_secs(1);
/// Rows of a kilobyte make the database so large, 2 GB, that a share of it means something; as many in one statement as
/// end within its time.
const STATEMENTS: u32 = 200;
const ROWS: u32 = 10_000;
/// Restartpoints come often enough for members to keep little WAL.
const SMALL_WAL: &str = "128MB";
/// Where a segment is in WAL, whatever its timeline.
const CURRENT: &str = "select substr(pg_walfile_name(pg_current_wal_lsn()), 9)";
const OLDEST: &str = "select min(substr(name, 9)) from pg_ls_waldir() where name ~ '^[0-9A-F]{24}$'";
/// In MB.
const DATABASE_SIZE: &str = "select (sum(pg_database_size(oid)) / 1048576)::bigint from pg_database";
const WAL_SIZE: &str = "select (sum(size) / 1048576)::bigint from pg_ls_waldir()";

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        slug: "standby-away",
        name: "standby away until its WAL is only in the archive",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: |scene| away(scene, &scene.host(&scene.before.other)?),
    },
    Fault {
        slug: "primary-away",
        name: "primary away until its WAL is only in the archive",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: |scene| away(scene, &scene.primary()?),
    },
    Fault {
        slug: "primary-diverged",
        name: "diverged primary returns to a database of 2 GB",
        essential: false,
        machine: false,
        patience: Patience::Failover,
        play: diverged,
    },
];

fn away(scene: &Scene<'_>, host: &Host) -> Result<String> {
    // WAL is kept for who is away, for longer than anybody wants to wait here.
    scene.set("member_slots_ttl=5")?;
    let told = archive_only(scene, host);
    let unset = scene.set("member_slots_ttl=null");
    told.and_then(|told| unset.map(|()| told))
}

fn archive_only(scene: &Scene<'_>, host: &Host) -> Result<String> {
    let gone = if host.name() == scene.before.primary {
        scene.successor_of_lost(host)?
    } else {
        host.power_off()?;
        format!("{} went on", scene.before.primary)
    };
    scene.writes()?;
    let members: Vec<_> = DATABASES.into_iter().filter(|name| *name != host.name()).collect();
    let needed = value(scene.cluster.write(CURRENT)?)?;
    until(&format!("the end of segment {needed} on {}", members.join(" and ")), RECYCLED, || {
        let oldest = members.iter().map(|name| oldest(scene.cluster, name)).collect::<Result<Vec<_>>>();
        Ok(match oldest {
            Ok(oldest) if oldest.iter().all(|oldest| *oldest > needed) => Ok(()),
            Ok(oldest) => Err(format!("their oldest are {}", oldest.join(" and "))),
            Err(error) => Err(error.to_string()),
        })
    })?;
    let back = come_back(scene, host)?;
    let log = said(host, "pgha-postgres")?;
    let restored = log.lines().filter(|line| line.contains("restored log file") && !line.contains(".history"));
    let (restored, way) = (restored.count(), way(&said(host, "pgha-agent")?));
    Error::unless(way != Way::Copied, || format!("{} was copied anew instead of using the archive", host.name()))?;
    Error::unless(restored > 0, || format!("{} streams, and not by the archive: {way}", host.name()))?;
    Ok(format!(
        "{gone}; {} {way}, took {restored} segments from the archive and streamed {back:.0} s after power-on",
        host.name()
    ))
}

/// Ends the present segment, drops what WAL a member may drop, and asks it for its oldest segment.
fn oldest(cluster: &Cluster<'_>, name: &str) -> Result<String> {
    cluster.write("select pg_switch_wal()")?;
    cluster.write("checkpoint")?;
    // A standby's own, as far as it has replayed those of the primary.
    cluster.ask(name, "checkpoint")?;
    value(cluster.ask(name, OLDEST)?)
}

fn diverged(scene: &Scene<'_>) -> Result<String> {
    // pg_rewind takes all of pg_wal, be it of use or not: what was needed to load the database is not what is asked about.
    let usual = value(scene.cluster.write("show max_wal_size")?)?;
    scene.set(&format!("postgresql.parameters.max_wal_size={SMALL_WAL}"))?;
    let told = grown_and_parted(scene);
    let dropped = scene.cluster.write("drop table if exists pgha_ballast");
    let reset = scene.set(&format!("postgresql.parameters.max_wal_size={usual}"));
    told.and_then(|told| dropped.and(reset).map(|()| told))
}

fn grown_and_parted(scene: &Scene<'_>) -> Result<String> {
    scene.cluster.write("drop table if exists pgha_ballast; create table pgha_ballast (number int, text text)")?;
    let rows = format!("select n, repeat(md5(n::text), 31) from generate_series(1, {ROWS}) n");
    for _ in 0..STATEMENTS {
        scene.cluster.write(&format!("insert into pgha_ballast {rows}"))?;
    }
    // pg_rewind copies every block that has changed since the last checkpoint before the histories parted.
    scene.cluster.write("checkpoint")?;
    let host = scene.primary()?;
    host.cut()?;
    thread::sleep(ALONE);
    let successor = scene.successor_of_lost(&host)?;
    scene.writes()?;
    let number = |query| {
        let text = value(scene.cluster.write(query)?)?;
        text.parse::<u64>().map_err(|error| Error::Broken(format!("`{query}` came to {text}: {error}")))
    };
    let (database, wal) = (number(DATABASE_SIZE)?, number(WAL_SIZE)?);
    let back = come_back(scene, &host)?;
    let log = said(&host, "pgha-agent")?;
    let Some(moved) = moved(&log) else {
        return Err(Error::Broken(format!("{} came back without a rewind: {}", host.name(), way(&log))));
    };
    Error::unless(way(&log) == Way::Rewound && moved <= database / 4, || {
        format!("{} {}, {moved} MB for a database of {database} MB and {wal} MB of WAL", host.name(), way(&log))
    })?;
    let discarded = discarded(&host)?;
    Ok(format!(
        "{successor}; {} {}, {moved} MB for a database of {database} MB and {wal} MB of WAL, streamed {back:.0} s after \
         power-on, and told of {discarded} discarded transactions",
        host.name(),
        Way::Rewound
    ))
}

/// How many committed transactions a member says that it has discarded; what tables they were in it must say, too.
fn discarded(host: &Host) -> Result<u32> {
    until(&format!("word from {} of what it has discarded", host.name()), SOON, || {
        let told = host.run(&format!("pghactl discarded {}", host.name()))?;
        Ok(newest_discarded(&told).ok_or(told))
    })
}

/// From what `pghactl discarded` prints, of the newest parting.
fn newest_discarded(told: &str) -> Option<u32> {
    let (before, after) = told.rsplit_once(" committed and ")?;
    let (_, count) = before.rsplit_once(' ')?;
    count.parse().ok().filter(|count| *count > 0 && after.contains(".public.pgha_"))
}

/// Switches a member on; the seconds until it streams.
fn come_back(scene: &Scene<'_>, host: &Host) -> Result<f64> {
    let begun = Instant::now();
    host.power_on()?;
    scene.cluster.await_complete(CONVERGED)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// How a member came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Started,
    Rewound,
    Copied,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Started => "just started",
            Self::Rewound => "was rewound",
            Self::Copied => "was copied anew",
        })
    }
}

/// The dearest way that the agent tells of.
fn way(log: &str) -> Way {
    if log.contains("copied source=") {
        Way::Copied
    } else if log.contains("rewound source=") {
        Way::Rewound
    } else {
        Way::Started
    }
}

/// How many MB `pg_rewind` copied, by its own word in what the agent tells.
fn moved(log: &str) -> Option<u64> {
    let line = log.lines().rev().find(|line| line.contains("rewound source="))?;
    let (_, amount) = line.split_once("need to copy ")?;
    amount.split_once(" MB")?.0.parse().ok()
}

/// What a unit has said since the host was switched on.
fn said(host: &Host, unit: &str) -> Result<String> {
    host.run(&format!("journalctl --boot --no-pager --output=cat --unit={unit}"))
}

/// The first value of an answer.
fn value(rows: crate::sql::Rows) -> Result<String> {
    rows.into_iter().flatten().flatten().next().ok_or_else(|| Error::Broken("an answer without a value".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = " INFO started\n INFO rewound source=db2 moved=\"pg_rewind: need to copy 161 MB (total source \
                       directory size is 512 MB)\"\n INFO decided\n";

    #[test]
    fn of_what_was_discarded_the_newest_counts() {
        let told = "db1: 3 committed and 1 unfinished transactions, timeline 3 from 0/1\n    kept in /q/1\n    \
                    postgres.public.pgha_probe: 3 rows\ndb1: 12 committed and 0 unfinished transactions, timeline 4 from \
                    0/2\n    kept in /q/2";
        assert_eq!(newest_discarded(told), None, "no table is told");
        assert_eq!(newest_discarded(&format!("{told}\n    postgres.public.pgha_probe: 12 rows")), Some(12));
        assert_eq!(newest_discarded("nothing was discarded"), None);
    }

    #[test]
    fn the_agents_log_tells_the_way_back() {
        assert_eq!((way(LOG), moved(LOG)), (Way::Rewound, Some(161)));
        assert_eq!(way(&format!("{LOG} INFO copied source=db2 bytes=1\n")), Way::Copied);
        assert_eq!((way(" INFO started\n"), moved(" INFO started\n")), (Way::Started, None));
        assert_eq!(moved(" INFO rewound source=db2 moved=\"pg_rewind: no rewind required\"\n"), None);
    }
}
