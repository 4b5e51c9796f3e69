//! The peer itself: installed on bare hosts, and set to one of its profiles.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    fill, haproxy,
    model::Model,
    packages,
    programs::{PLACE, Programs},
    put,
};
use crate::{
    Error, Host, Lab, Result, Target,
    bench::COMPLETE,
    cluster::{Cluster, DATABASES},
    faults::Software,
};

const CONFIG: &str = "/etc/patroni.yml";
const DATA: &str = "/var/lib/postgresql/15/patroni";
const TEMPLATE: &str = include_str!("patroni.yml");
const UNIT: &str = include_str!("patroni.service");
/// The hosts' packages bring Python along.
const PACKAGES: [&str; 2] = ["postgresql-15", "python3"];

/// What faults must know of it. Its unit holds Postgres, too, so that its processes are known by their program.
pub const PATRONI: Software = Software {
    name: "Patroni",
    units: &["pgha-zookeeper", "patroni"],
    agent: || Target::process("python3"),
    resident: || vec![Target::process("python3")],
    data: DATA,
    switchover: |from, to| {
        format!(
            "{PLACE}/bin/python3 {PLACE}/bin/patronictl -c {CONFIG} switchover main --leader {from} --candidate {to} --force"
        )
    },
};

/// How soon the peer acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// What it is without any settings.
    Defaults,
    /// The shortest times that it accepts.
    Tightest,
}

impl Profile {
    /// `ttl`, `loop_wait` and `retry_timeout`, in seconds.
    fn times(self) -> (u64, u64, u64) {
        match self {
            Self::Defaults => (30, 10, 10),
            Self::Tightest => (20, 1, 3),
        }
    }

    /// For readers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Defaults => "Patroni, defaults",
            Self::Tightest => "Patroni, tightest",
        }
    }
}

/// A running peer.
#[derive(Debug)]
pub struct Peer<'a> {
    /// Its REST interface, its members' names and the balancer's port are those that a cluster of ours has.
    pub cluster: Cluster<'a>,
    profile: Profile,
}

impl<'a> Peer<'a> {
    /// Installs it on bare hosts, with its defaults.
    pub fn install(lab: &'a Lab, programs: &Programs, model: &Model) -> Result<Self> {
        let password = format!("{:032x}", fastrand::u128(..));
        let cluster = Cluster::with_password(lab, password)?;
        lab.in_parallel(|host| {
            let started = Instant::now();
            if DATABASES.contains(&host.name()) {
                member(&cluster, host, programs, model)?;
            } else {
                haproxy::install(&cluster)?;
            }
            tracing::info!("{} has its packages ({:.0} s)", host.name(), started.elapsed().as_secs_f64());
            Ok(())
        })?;
        haproxy::set(&cluster, Profile::Defaults)?;
        for name in DATABASES {
            cluster.host(name)?.run("systemctl enable --quiet --now patroni")?;
        }
        cluster.await_complete(COMPLETE)?;
        Ok(Self { cluster, profile: Profile::Defaults })
    }

    /// Changes its settings and the balancer's while it runs.
    pub fn set(&mut self, profile: Profile) -> Result<()> {
        haproxy::set(&self.cluster, profile)?;
        let (ttl, loop_wait, retry_timeout) = profile.times();
        let settings = serde_json::json!({ "ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout });
        let host = self.cluster.host(DATABASES[0])?;
        host.run(&format!(
            "curl --silent --show-error --fail --request PATCH --data '{settings}' http://127.0.0.1:8008/config"
        ))?;
        // Each member takes them up when its present pause is over, and then begins a new session with ZooKeeper.
        let (_, present, _) = self.profile.times();
        thread::sleep(Duration::from_secs(2 * present + 5));
        self.profile = profile;
        self.cluster.await_complete(COMPLETE).map(drop)
    }
}

/// A member with its part of the ensemble; Patroni itself is not started yet.
fn member(cluster: &Cluster<'_>, host: &Host, programs: &Programs, model: &Model) -> Result<()> {
    // Debian's package would make and start a database of its own.
    put(host, "/etc/postgresql-common/createcluster.d/peer.conf", "create_main_cluster = false\n", ("root", "0644"))?;
    host.run("systemctl mask --quiet postgresql.service postgresql@.service")?;
    packages(host, &PACKAGES)?;
    model.install(host)?;
    programs.copy(host)?;
    host.run("install --directory --mode=0755 --owner=postgres --group=postgres /var/lib/postgresql/15")?;
    put(host, CONFIG, &config(cluster, host, model)?, ("postgres", "0600"))?;
    put(host, "/etc/systemd/system/patroni.service", UNIT, ("root", "0644"))?;
    let seen = host.run(&format!("{PLACE}/bin/python3 -m patroni --version && systemctl daemon-reload"))?;
    if seen.contains(Programs::version()) {
        Ok(())
    } else {
        Err(Error::State(format!("{} has another Patroni: {}", host.name(), seen.trim())))
    }
}

fn config(cluster: &Cluster<'_>, host: &Host, model: &Model) -> Result<String> {
    let server = |name: &&str| Ok(format!("'{}:2181'", cluster.host(name)?.address()));
    let ensemble = DATABASES.iter().map(server).collect::<Result<Vec<_>>>()?.join(", ");
    let (ttl, loop_wait, retry_timeout) = Profile::Defaults.times();
    Ok(fill(
        TEMPLATE,
        &[
            ("NAME", host.name()),
            ("ADDRESS", &host.address().to_string()),
            ("ENSEMBLE", &ensemble),
            ("TTL", &ttl.to_string()),
            ("LOOP_WAIT", &loop_wait.to_string()),
            ("RETRY_TIMEOUT", &retry_timeout.to_string()),
            ("PARAMETERS", &model.parameters(8)),
            ("DATA", DATA),
            ("PASSWORD", &cluster.balancer.password),
        ],
    ))
}
