//! The story itself: rows are written, the primary's host loses its power, nothing is lost, and the host comes back.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};
use pgha_lab::{
    Error,
    cluster::{Cluster, until},
    sql::Rows,
    workload::{Report, Settings, Workload},
};

use super::narrator::{Narrator, asked, saw};

/// A new cluster is complete within this time, and so is one that has lost or regained a host.
const CONVERGED: Duration = Duration::from_mins(2);
/// A standby replays what is committed within this time.
const REPLAYED: Duration = Duration::from_secs(30);
/// Rows that show that writing goes on.
const SOME: usize = 200;

const CREATE: &str = "create table worms\n(\n    id   uuid default gen_random_uuid() not null constraint worms_pk primary key,\n    \
                      name text              not null,\n    meow bool default true not null\n);\n\
                      alter table worms owner to postgres;";
const READ: &str = "select id, name, meow from worms order by name, id";

/// What the end shows.
pub(super) struct Account {
    report: Report,
    /// From the loss of power to the next acknowledged row.
    failover_gap: Duration,
    /// While the lost host came back.
    rejoin_gap: Duration,
    worms: usize,
}

impl Account {
    pub(super) fn holds(&self) -> bool {
        self.report.holds()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "longest write gap at the power loss     {:.2} s", self.failover_gap.as_secs_f64())?;
        writeln!(f, "longest write gap while it came back    {:.2} s", self.rejoin_gap.as_secs_f64())?;
        writeln!(f, "rows of the story                       {}, the same on every host", self.worms)?;
        write!(f, "{}", self.report)
    }
}

/// Plays it to the end, or to the first thing that is not as it should be.
pub(super) fn play(cluster: &Cluster<'_>, narrator: &mut Narrator) -> Result<Account> {
    let roles = narrator.step("the cluster is complete", || {
        let roles = cluster.await_roles(2, CONVERGED)?;
        saw(&format!("primary {}, replicas {}", roles.primary()?, roles.replicas.join(", ")));
        Ok(roles)
    })?;
    let primary = roles.primary()?;
    let Some(standby) = roles.replicas.first().copied() else { bail!("there is no standby") };

    narrator.step("create a table and write through the balancer", || {
        asked(CREATE);
        cluster.write(CREATE)?;
        insert(cluster, &["Earl", "Jim", "Lowly"])
    })?;

    narrator.step("the standby has the same rows", || {
        asked(&format!("{READ}; on {standby}"));
        saw(&table(&same_on(cluster, standby)?));
        Ok(())
    })?;

    narrator.step("the standby refuses writes", || {
        let statement = "insert into worms (name) values ('Nobody')";
        asked(&format!("{statement}; on {standby}"));
        match cluster.ask(standby, statement) {
            Err(Error::Database { why, code: Some(code), .. }) if code == "25006" => saw(&why),
            Err(error) => bail!("refused for another reason: {error}"),
            Ok(_) => bail!("{standby} took the row"),
        }
        Ok(())
    })?;

    let workload = narrator.step("four clients begin to write without pause", || {
        let workload = Workload::start(Settings::new(cluster.balancer.clone()))?;
        workload.await_more(SOME, REPLAYED)?;
        saw(&format!("{} rows acknowledged so far", workload.acknowledged()));
        Ok(workload)
    })?;

    let (successor, failover_gap) = narrator.step(&format!("power off {primary}, the primary's host"), || {
        let lost = cluster.host(primary)?;
        workload.lap();
        asked(&format!("cargo xtask lab power-off {primary}"));
        let started = Instant::now();
        // The host is dead at once; that nothing of it is left on this machine takes longer and delays nobody.
        let (off, successor) = thread::scope(|scope| {
            let off = scope.spawn(|| lost.power_off());
            let successor = cluster.await_successor(primary, CONVERGED);
            (off.join(), successor)
        });
        let (successor, took) = successor?;
        off.map_err(|_| anyhow!("switching {primary} off failed"))??;
        saw(&format!("{successor} is primary after {:.1} s", took.saturating_duration_since(started).as_secs_f64()));
        workload.await_more(SOME, CONVERGED)?;
        let gap = workload.lap();
        saw(&format!("the clients waited {:.2} s and write again", gap.as_secs_f64()));
        Ok((successor, gap))
    })?;

    narrator.step("write through the balancer, as before", || insert(cluster, &["Tremors", "Squirmle"]))?;

    narrator.step(&format!("switch {primary} on again: it rejoins by itself"), || {
        asked(&format!("cargo xtask lab power-on {primary}"));
        let started = Instant::now();
        cluster.host(primary)?.power_on()?;
        saw(&format!("booted after {:.1} s", started.elapsed().as_secs_f64()));
        until(&format!("{primary} is a replica again"), CONVERGED, || {
            let roles = cluster.roles()?;
            Ok(if roles.replicas.contains(&primary) { Ok(()) } else { Err(format!("{roles:?}")) })
        })?;
        saw(&format!("a replica of {successor} after {:.1} s", started.elapsed().as_secs_f64()));
        asked(&format!("{READ}; on {primary}"));
        saw(&table(&same_on(cluster, primary)?));
        saw("with the rows that were written in its absence");
        Ok(())
    })?;

    narrator.step("every row is accounted for", || {
        let rejoin_gap = workload.lap();
        let report = workload.finish()?;
        saw(&report.to_string());
        let all = cluster.await_roles(2, CONVERGED)?;
        let worms = cluster.write(READ)?;
        ensure!(worms.len() == 5, "the table has {} rows instead of 5", worms.len());
        let count = "select count(*) from pgha_workload";
        let written = cluster.write(count)?;
        for replica in &all.replicas {
            same_on(cluster, replica)?;
            until(&format!("{replica} has all rows"), REPLAYED, || {
                let seen = cluster.ask(replica, count)?;
                Ok(if seen == written { Ok(()) } else { Err(table(&seen)) })
            })?;
            saw(&format!("{replica} has them all"));
        }
        Ok(Account { report, failover_gap, rejoin_gap, worms: worms.len() })
    })
}

/// Inserts rows and shows what the primary made of them.
fn insert(cluster: &Cluster<'_>, names: &[&str]) -> Result<()> {
    let values = names.iter().map(|name| format!("('{name}')")).collect::<Vec<_>>().join(", ");
    let statement = format!("insert into worms (name) values {values} returning id, name, meow");
    asked(&statement);
    let rows = cluster.write(&statement)?;
    ensure!(rows.len() == names.len(), "{} rows came back instead of {}", rows.len(), names.len());
    saw(&table(&rows));
    Ok(())
}

/// Waits until a host has exactly the primary's worms.
fn same_on(cluster: &Cluster<'_>, host: &str) -> pgha_lab::Result<Rows> {
    let expected = cluster.write(READ)?;
    until(&format!("{host} has the primary's rows"), REPLAYED, || {
        Ok(match cluster.ask(host, READ) {
            Ok(rows) if rows == expected => Ok(rows),
            Ok(rows) => Err(table(&rows)),
            Err(error) => Err(error.to_string()),
        })
    })
}

fn table(rows: &Rows) -> String {
    let cell = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "NULL".to_owned());
    rows.iter().map(|row| row.iter().map(cell).collect::<Vec<_>>().join(" | ")).collect::<Vec<_>>().join("\n")
}
