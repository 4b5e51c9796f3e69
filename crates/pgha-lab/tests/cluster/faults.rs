//! Every fault of a host or a process, while clients write through the balancer: no acknowledged row may be lost, the
//! clients may not wait for long, and the cluster must become complete again by itself.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use pgha_lab::{
    Host, Target,
    cluster::{Cluster, Complete, DATABASES, until},
    workload::{Settings, Workload},
};

use crate::sections::Sections;

/// From a fault to a complete cluster again.
pub(crate) const CONVERGED: Duration = Duration::from_secs(90);
/// For everything that only has to happen.
const SOON: Duration = Duration::from_secs(60);
/// Rows that show that writing goes on.
const SOME: usize = 100;
/// Longer than a session with ZooKeeper lasts: what an ended one does to the cluster has happened by then.
const SESSION: Duration = Duration::from_secs(8);

/// What a failover may cost, generously: this is a test of what holds, not of speed.
const FAILOVER: f64 = 30.0;
/// What clients may notice where the primary stays the primary.
const HICCUP: f64 = 2.0;

const DATA: &str = "/var/lib/postgresql/15/pgha";

/// What a fault is played on.
struct Scene<'a> {
    cluster: &'a Cluster<'a>,
    workload: &'a Workload,
    before: Complete,
}

/// Its name, the longest gap in seconds that clients may see, and what happens; what it tells is shown.
type Fault = (&'static str, f64, fn(&Scene<'_>) -> Result<String>);

const FAULTS: [Fault; 11] = [
    ("power loss of the primary's host", FAILOVER, power_loss),
    ("network cut of the primary's host", FAILOVER, network_cut),
    ("agent of the primary frozen", FAILOVER, agent_frozen),
    ("primary's host frozen", FAILOVER, host_frozen),
    ("agent of the primary killed", HICCUP, agent_killed),
    ("postmaster of the primary killed", FAILOVER, postmaster_killed),
    ("agent of the primary restarted", HICCUP, agent_restarted),
    ("agent of the primary stopped", FAILOVER, agent_stopped),
    ("switchover by an operator", FAILOVER, switchover),
    ("clean reboot of the primary's host", FAILOVER, reboot),
    ("power loss of the synchronous standby", FAILOVER, standby_lost),
];

pub(crate) fn outlived(cluster: &Cluster<'_>, sections: &mut Sections<'_>) {
    let mut whole = true;
    for (name, limit, fault) in FAULTS {
        if !whole {
            sections.skip(name);
        } else if !sections.run(name, || play(cluster, limit, fault)) {
            // The next fault is worth trying only if this one's traces can be removed.
            whole = mend(cluster).is_ok();
        }
    }
}

fn play(cluster: &Cluster<'_>, limit: f64, fault: fn(&Scene<'_>) -> Result<String>) -> Result<String> {
    let before = cluster.await_complete(CONVERGED)?;
    let workload = Workload::start(Settings::new(cluster.balancer.clone()))?;
    workload.await_more(SOME, SOON)?;
    let told = fault(&Scene { cluster, workload: &workload, before })?;
    workload.await_more(SOME, SOON)?;
    let started = Instant::now();
    cluster.await_complete(CONVERGED)?;
    let complete = started.elapsed().as_secs_f64();
    let report = workload.finish()?;
    ensure!(report.holds(), "a promise was broken:\n{report}");
    ensure!(report.longest_gap < limit, "nothing could be written for too long:\n{report}");
    same_everywhere(cluster)?;
    Ok(format!(
        "gap {:>5.2} s, {} of {} rows lost, {told}, complete {complete:.1} s later",
        report.longest_gap, report.lost, report.acknowledged
    ))
}

/// Undoes what a failed section left, as far as an operator at the switch could.
fn mend(cluster: &Cluster<'_>) -> Result<()> {
    for name in DATABASES {
        let host = cluster.host(name)?;
        if !host.is_on()? {
            host.power_on()?;
            continue;
        }
        host.heal()?;
        host.thaw(&Target::Everything)?;
        host.run("systemctl start pgha-agent")?;
    }
    cluster.await_complete(CONVERGED)?;
    Ok(())
}

// ---- faults

fn power_loss(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    let successor = thread::scope(|scope| {
        // The host is dead at once; that nothing of it is left on this machine takes longer and delays nobody.
        let off = scope.spawn(|| host.power_off());
        let successor = scene.successor();
        match off.join() {
            Ok(off) => off?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        successor
    })?;
    scene.workload.await_more(SOME, SOON)?;
    host.power_on()?;
    Ok(successor)
}

fn network_cut(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    host.cut()?;
    let successor = scene.successor()?;
    // The other side has a new primary: from here on, and not a moment later, this side may have none.
    for _ in 0..10 {
        ensure!(!writable(&host)?, "{} still takes writes, and {successor}", host.name());
        thread::sleep(Duration::from_millis(100));
    }
    scene.workload.await_more(SOME, SOON)?;
    ensure!(!writable(&host)?, "{} takes writes again, cut off", host.name());
    host.heal()?;
    Ok(successor)
}

/// systemd's watchdog ends a frozen agent, so it is frozen again and again, until somebody else leads: meanwhile only
/// the guard is left to end the old primary.
fn agent_frozen(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    let agent = Target::unit("pgha-agent");
    host.freeze(&agent)?;
    let over = AtomicBool::new(false);
    let successor = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // Between its end and its next start there is nothing to freeze.
                let _between = host.freeze(&agent);
                thread::sleep(Duration::from_millis(10));
            }
        });
        let successor = scene.successor();
        over.store(true, Ordering::Relaxed);
        successor
    })?;
    ensure!(!writable(&host)?, "{} still takes writes, and {successor}", host.name());
    // The present one may be awaiting its end already.
    let _ended = host.thaw(&agent);
    Ok(successor)
}

fn host_frozen(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    host.freeze(&Target::Everything)?;
    let successor = scene.successor()?;
    scene.workload.await_more(SOME, SOON)?;
    host.thaw(&Target::Everything)?;
    // It wakes up as the primary that it was; its lease is long over, and that is noticed at once.
    let started = Instant::now();
    until("the end of the old primary", SOON, || {
        Ok(match writable(&host) {
            Ok(false) => Ok(()),
            Ok(true) => Err("it takes writes".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    })?;
    Ok(format!("{successor}, the old one dead {:.1} s after its thaw", started.elapsed().as_secs_f64()))
}

fn agent_killed(scene: &Scene<'_>) -> Result<String> {
    scene.undisturbed(|host| Ok(host.kill(&Target::unit("pgha-agent")).map(drop)?))
}

fn agent_restarted(scene: &Scene<'_>) -> Result<String> {
    scene.undisturbed(|host| Ok(host.run("systemctl restart pgha-agent").map(drop)?))
}

fn postmaster_killed(scene: &Scene<'_>) -> Result<String> {
    scene.primary()?.run(&format!("kill -KILL $(head --lines=1 {DATA}/postmaster.pid)"))?;
    scene.workload.await_more(SOME, SOON)?;
    let after = scene.cluster.await_complete(CONVERGED)?;
    Ok(if after.primary == scene.before.primary {
        format!("{} recovered", after.primary)
    } else {
        format!("{} took over", after.primary)
    })
}

fn agent_stopped(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    host.run("systemctl stop pgha-agent")?;
    let state = host.exec("systemctl is-active pgha-postgres")?;
    ensure!(!state.success(), "Postgres outlives its agent: {}", state.stdout.trim());
    let successor = scene.successor()?;
    scene.workload.await_more(SOME, SOON)?;
    host.run("systemctl start pgha-agent")?;
    Ok(successor)
}

fn switchover(scene: &Scene<'_>) -> Result<String> {
    let candidate = &scene.before.sync;
    scene.cluster.host(&scene.before.other)?.run(&format!("pghactl switchover --candidate {candidate} --yes"))?;
    let after = scene.cluster.await_complete(CONVERGED)?;
    ensure!(after.primary == *candidate, "{} leads instead of {candidate}", after.primary);
    Ok(format!("{candidate} took over"))
}

fn reboot(scene: &Scene<'_>) -> Result<String> {
    let host = scene.primary()?;
    host.shutdown()?;
    let successor = scene.successor()?;
    scene.workload.await_more(SOME, SOON)?;
    host.power_on()?;
    Ok(successor)
}

fn standby_lost(scene: &Scene<'_>) -> Result<String> {
    let host = scene.cluster.host(&scene.before.sync)?;
    host.power_off()?;
    scene.workload.await_more(SOME, SOON)?;
    let roles = scene.cluster.await_roles(1, SOON)?;
    ensure!(roles.primary()? == scene.before.primary, "the loss of a standby changed the primary: {roles:?}");
    host.power_on()?;
    Ok(format!("{} went on", scene.before.primary))
}

// ---- what they have in common

impl Scene<'_> {
    fn primary(&self) -> Result<Host> {
        Ok(self.cluster.host(&self.before.primary)?)
    }

    /// Waits until somebody else is primary, and says who and when.
    fn successor(&self) -> Result<String> {
        let started = Instant::now();
        let (name, seen) = self.cluster.await_successor(&self.before.primary, CONVERGED)?;
        let took = seen.saturating_duration_since(started).as_secs_f64();
        Ok(format!("{name} took over after {took:.1} s"))
    }

    /// Does to the primary's host what must leave the same Postgres the primary.
    fn undisturbed(&self, disturb: impl FnOnce(&Host) -> Result<()>) -> Result<String> {
        let host = self.primary()?;
        let before = postmaster(&host)?;
        disturb(&host)?;
        let started = Instant::now();
        while started.elapsed() < SESSION {
            let roles = self.cluster.roles()?;
            if roles.primaries.iter().any(|primary| *primary != self.before.primary) {
                bail!("there was a failover: {roles:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        let after = postmaster(&host)?;
        ensure!(before == after, "Postgres was started anew: {before}, then {after}");
        let complete = self.cluster.await_complete(CONVERGED)?;
        ensure!(complete.primary == self.before.primary, "{} leads now", complete.primary);
        Ok(format!("{} went on", self.before.primary))
    }
}

/// What tells one run of Postgres from another: its number and when it started.
fn postmaster(host: &Host) -> Result<String> {
    let seen = host.run(&format!("sed --quiet '1p;3p' {DATA}/postmaster.pid"))?;
    Ok(seen.split_whitespace().collect::<Vec<_>>().join(" since "))
}

/// Whether a client on the host itself could write there, whatever the network says.
fn writable(host: &Host) -> Result<bool> {
    let asked = host.exec(
        "cd /; PGCONNECT_TIMEOUT=2 timeout 5 runuser -u postgres -- psql --no-psqlrc --tuples-only --no-align \
         --host=/var/run/postgresql --command='select pg_is_in_recovery()'",
    )?;
    Ok(asked.success() && asked.stdout.trim() == "f")
}

/// Every member holds the same rows in the end.
fn same_everywhere(cluster: &Cluster<'_>) -> Result<()> {
    let count = "select count(*), max(written) from pgha_workload";
    let expected = cluster.write(count)?;
    for name in DATABASES {
        until(&format!("all rows on {name}"), SOON, || {
            Ok(match cluster.ask(name, count) {
                Ok(rows) if rows == expected => Ok(()),
                Ok(rows) => Err(format!("{rows:?} instead of {expected:?}")),
                Err(error) => Err(error.to_string()),
            })
        })
        .with_context(|| format!("comparing {name}"))?;
    }
    Ok(())
}
