//! What operators have to do by hand, as docs/operations.md says.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use pgha_lab::cluster::{BALANCER, Cluster, DATABASES, until};

use crate::sections::Sections;

/// The manual, whose commands are run as they stand.
const MANUAL: &str = include_str!("../../../../docs/operations.md");
/// ZooKeeper's own client.
const ZOOKEEPER: &str = "java -cp '/usr/share/java/*' org.apache.zookeeper.ZooKeeperMain -server 127.0.0.1:2181";
/// Copies, rewinds and starts included.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn by_hand(cluster: &Cluster<'_>, sections: &mut Sections<'_>) {
    sections.run("ZooKeeper loses all of its data", || ensemble_made_anew(cluster));
    sections.run("everything back to a point in time", || restored(cluster));
}

/// Nobody has to do anything, and no setting is lost.
fn ensemble_made_anew(cluster: &Cluster<'_>) -> Result<String> {
    let before = cluster.await_complete(LIMIT)?;
    let host = cluster.host("db1")?;
    // The last fault was one of ZooKeeper's: agents may still be on their way to another server.
    until("an agent that takes a setting", LIMIT, || {
        let set = host.exec("pghactl config set maximum_lag_on_failover=2097152")?;
        Ok(if set.success() { Ok(()) } else { Err(set.stderr) })
    })?;
    cluster.write("CREATE TABLE kept AS SELECT 1 AS row")?;
    for command in ["systemctl stop pgha-zookeeper", "rm -r /var/lib/pgha-zookeeper/version-2"] {
        on_all(cluster, command)?;
    }
    on_all(cluster, "systemctl start pgha-zookeeper")?;
    let reasons = |what: &str, holds: fn(&str) -> bool| {
        until(what, LIMIT, || {
            let said = host.run("pghactl why")?;
            Ok(if holds(&said) { Ok(()) } else { Err(said) })
        })
    };
    // A server that has no data turns away sessions that have seen more; they end first.
    reasons("that ZooKeeper is missed", |said| !healthy(said))?;
    reasons("everybody back", healthy)?;
    let after = cluster.await_complete(LIMIT)?;
    ensure!(after.primary == before.primary, "{} took over from {}", after.primary, before.primary);
    ensure!(cluster.write("SELECT row FROM kept")? == [[Some("1".to_owned())]]);
    // An agent would also tell what it remembers.
    let config = host.run(&format!("{ZOOKEEPER} get /service/main/config 2> /dev/null"))?;
    ensure!(config.contains("\"maximum_lag_on_failover\":2097152"), "a setting was lost: {config}");
    // Renewals begin anew with the znode: nobody may take them for old ones.
    thread::sleep(Duration::from_secs(15));
    let said = host.run("pghactl why")?;
    ensure!(healthy(&said), "{said}");
    Ok(format!("{} leads again", after.primary))
}

/// What `pghactl why` says of a cluster in which all is well.
fn healthy(said: &str) -> bool {
    said.contains(" leading, ") && said.matches(" following, ").count() == 2
}

fn restored(cluster: &Cluster<'_>) -> Result<String> {
    let (restore, forget) = commands()?;
    let first = cluster.await_complete(LIMIT)?.other;
    // The one of the installation may have lost its primary to a fault.
    let backup = "systemctl stop pgha-backup; systemctl start --wait pgha-backup";
    cluster.host(BALANCER)?.run(&format!("{backup} || {{ journalctl -u pgha-backup -n 20 >&2; false; }}"))?;
    cluster.write("CREATE TABLE wanted AS SELECT 1 AS row")?;
    // The end of a backup is known to the second, and what is restored to must come after it.
    thread::sleep(Duration::from_secs(2));
    let then = cluster.write("SELECT now()::text")?;
    let then = then[0][0].clone().context("no time")?;
    thread::sleep(Duration::from_secs(1));
    cluster.write("DROP TABLE wanted")?;
    // What was committed last must be in the archive, or the end of the time could not be told.
    cluster.write("SELECT pg_switch_wal()")?;
    until("the last segment in the archive", LIMIT, || {
        let waiting = "SELECT count(*)::text FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'";
        let waiting = cluster.write(waiting)?;
        Ok(if waiting == [[Some("0".to_owned())]] { Ok(()) } else { Err(format!("{waiting:?} to go")) })
    })?;
    // In an order that the manual advises against: others take over, and what is restored ends before their timelines begin.
    on_all(cluster, "systemctl stop pgha-agent pgha-guard")?;
    let host = cluster.host(&first)?;
    for command in restore {
        let command = format!("cd /tmp; {}", command.replace("2026-01-31 12:34:56+00", &then));
        if command.contains("pg_is_in_recovery") {
            until("the end of the recovery", LIMIT, || {
                let said = host.run(&command)?;
                Ok(if said.lines().any(|line| line.trim() == "f") { Ok(()) } else { Err(said) })
            })?;
        } else {
            host.run(&format!("{command} < /dev/null > /tmp/said 2>&1 || {{ cat /tmp/said >&2; exit 1; }}"))?;
        }
    }
    host.run(&forget)?;
    host.run("systemctl start pgha-guard pgha-agent")?;
    cluster.await_roles(0, LIMIT)?;
    for name in DATABASES.into_iter().filter(|name| *name != first) {
        cluster.host(name)?.run("systemctl start pgha-guard pgha-agent")?;
    }
    let after = cluster.await_complete(LIMIT)?;
    ensure!(after.primary == first, "{} leads, not {first}", after.primary);
    for name in DATABASES {
        until("the table that was dropped", LIMIT, || {
            let rows = cluster.ask(name, "SELECT count(*)::text FROM pg_class WHERE relname = 'wanted'")?;
            Ok(if rows == [[Some("1".to_owned())]] { Ok(()) } else { Err(format!("{name}: {rows:?}")) })
        })?;
    }
    Ok(format!("as it was at {then}, led by {first}"))
}

fn on_all(cluster: &Cluster<'_>, command: &str) -> Result<()> {
    for name in DATABASES {
        cluster.host(name)?.run(command)?;
    }
    Ok(())
}

/// The commands of steps 2 and 3, one string each.
fn commands() -> Result<(Vec<String>, String)> {
    let steps = MANUAL.split_once("**The cluster as it was").context("no such section")?.1;
    let steps = steps.split_once("\n## ").map_or(steps, |(steps, _)| steps);
    let lines: Vec<&str> = steps.lines().filter_map(|line| line.strip_prefix("       ")).map(str::trim).collect();
    let mut commands: Vec<String> = lines.join("\n").replace("\\\n", "").lines().map(str::to_owned).collect();
    ensure!(commands.len() == 6 && commands[0] == "cd /tmp", "other steps: {commands:#?}");
    let forget = commands.pop().context("no command")?;
    Ok((commands.split_off(1), forget))
}
