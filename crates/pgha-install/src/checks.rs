//! What must be true of the hosts before anything is changed on them.

use std::collections::BTreeMap;

use pgha_core::config::WatchdogMode;

use crate::cluster::{
    Archive, Cluster, Host, PGBACKREST_PORT, REST_PORT, WATCHDOG, ZOOKEEPER_PEER_PORTS, ZOOKEEPER_PORT,
};
use crate::facts::Facts;
use crate::inventory::Role;
use crate::programs::Programs;
use crate::role::units;

/// Distributions that are supported: `ID`, `VERSION_ID`, and whether they come with PostgreSQL 15.
const SUPPORTED: &[(&str, &str, bool)] = &[("debian", "12", true), ("debian", "13", false), ("ubuntu", "24.04", false)];
const SUPPORTED_TEXT: &str = "Debian 12, and with packages from apt.postgresql.org Debian 13 and Ubuntu 24.04";
/// Free space that an installation needs below /var before the database holds a byte, in KiB.
const DISK_NEEDED: u64 = 2 * 1024 * 1024;
/// What a host that is already installed must have left.
const DISK_SPARE: u64 = 256 * 1024;
/// Clocks further apart than this make logs, certificates and backups lie.
const SKEW_LIMIT_MS: i64 = 2000;

/// A reason not to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The host, where it is about one.
    pub host: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

/// What is found: reasons not to begin, and what is worth saying.
#[derive(Debug, Default)]
pub struct Findings {
    /// Reasons not to begin.
    pub refusals: Vec<Refusal>,
    /// What is worth saying.
    pub remarks: Vec<String>,
}

impl Findings {
    fn refuse(&mut self, host: &Host, what: impl Into<String>, help: impl Into<String>) {
        self.refusals.push(Refusal { host: Some(host.name.to_string()), what: what.into(), help: help.into() });
    }
}

/// Judges the facts of all hosts.
pub fn judge(cluster: &Cluster, programs: &Programs, facts: &BTreeMap<String, Facts>) -> Findings {
    let mut findings = Findings::default();
    let known: Vec<(&Host, &Facts)> =
        cluster.hosts.iter().filter_map(|host| facts.get(host.name.as_str()).map(|facts| (host, facts))).collect();
    for (host, facts) in &known {
        if !facts.root {
            findings.refuse(
                host,
                format!("user {} is not root, and sudo is off", host.ssh.user),
                "remove `sudo = false` from the inventory",
            );
        }
        distribution(host, facts, &mut findings);
        machine(host, facts, programs, &mut findings);
        disk(host, facts, &mut findings);
        ports(cluster, host, facts, &mut findings);
        watchdog(cluster, host, facts, &mut findings);
    }
    twins(&known, &mut findings);
    clocks(&known, &mut findings);
    findings
}

fn distribution(host: &Host, facts: &Facts, findings: &mut Findings) {
    let name = if facts.os_name.is_empty() { "an unknown system" } else { &facts.os_name };
    let Some((_, _, native)) =
        SUPPORTED.iter().find(|(id, version, _)| (*id, *version) == (facts.os.as_str(), facts.os_version.as_str()))
    else {
        let why = match (facts.os.as_str(), facts.os_version.as_str()) {
            ("debian", "11") | ("ubuntu", "22.04") => {
                "; its ZooKeeper (3.4) and polkit (0.105) are too old: polkit there cannot allow one unit only"
            }
            _ => "",
        };
        findings.refuse(host, format!("{name} is not supported{why}"), format!("supported: {SUPPORTED_TEXT}"));
        return;
    };
    if !facts.systemd {
        findings.refuse(host, "systemd does not run this host", "boot it with systemd as its first process");
    }
    let installed = facts.packages.contains_key("postgresql-15");
    if host.has(Role::Postgres) && !native && !installed && !facts.candidates.contains_key("postgresql-15") {
        findings.refuse(
            host,
            format!("{name} does not come with postgresql-15, and its package lists know no other source"),
            "on the host: apt-get install postgresql-common && /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh -y",
        );
    }
}

fn machine(host: &Host, facts: &Facts, programs: &Programs, findings: &mut Findings) {
    if let Some(machine) = programs.machine
        && host.has(Role::Postgres)
        && facts.machine != machine
    {
        findings.refuse(
            host,
            format!("the host is {}, but pgha-agent is built for {machine}", facts.machine),
            "build the programs for the host and name their directory with --programs",
        );
    }
}

fn disk(host: &Host, facts: &Facts, findings: &mut Findings) {
    for disk in &facts.disks {
        // Packages go below /var and /usr, most often one disk; elsewhere only the first megabytes are ours.
        let needed = if facts.missing.is_empty() || disk.path != "/var" { DISK_SPARE } else { DISK_NEEDED };
        if disk.free < needed {
            findings.refuse(
                host,
                format!(
                    "disk too full: {} needs {} MiB, and {} MiB are free on {}",
                    disk.path,
                    needed / 1024,
                    disk.free / 1024,
                    disk.target
                ),
                format!("make room, or give {} a larger disk", disk.path),
            );
        }
    }
}

fn ports(cluster: &Cluster, host: &Host, facts: &Facts, findings: &mut Findings) {
    let mut wanted: Vec<(u16, &str)> = Vec::new();
    if host.has(Role::Postgres) {
        wanted.extend([(cluster.port, units::POSTGRES), (REST_PORT, units::AGENT)]);
    }
    if host.has(Role::Zookeeper) {
        wanted.extend(
            [ZOOKEEPER_PORT, ZOOKEEPER_PEER_PORTS.0, ZOOKEEPER_PEER_PORTS.1].map(|port| (port, units::ZOOKEEPER)),
        );
    }
    if host.has(Role::Haproxy) {
        let ports = &cluster.haproxy;
        wanted.extend([ports.port, ports.read_port, ports.stats_port].map(|port| (port, units::HAPROXY)));
    }
    let pgbackrest = matches!(cluster.archive, Archive::Pgbackrest { .. });
    if pgbackrest && (host.has(Role::Archive) || host.has(Role::Postgres)) {
        wanted.push((PGBACKREST_PORT, units::PGBACKREST));
    }
    for (port, unit) in wanted {
        let other = facts
            .listeners
            .iter()
            .find(|listener| listener.port == port && !listener.unit.is_empty() && listener.unit != unit);
        let nameless = facts
            .listeners
            .iter()
            .find(|listener| listener.port == port && listener.unit.is_empty() && !facts.runs(unit))
            // systemd keeps the port of an agent that is about to be started again.
            .filter(|listener| {
                listener.process != "systemd" || facts.units.get(unit).is_none_or(|it| it.load != "loaded")
            });
        if let Some(listener) = other.or(nameless) {
            findings.refuse(
                host,
                format!(
                    "port {port} is in use by {} ({})",
                    listener.process,
                    if listener.unit.is_empty() { &listener.address } else { &listener.unit }
                ),
                format!("{unit} needs it: stop the other one, or choose another port in the inventory"),
            );
        }
    }
}

fn watchdog(cluster: &Cluster, host: &Host, facts: &Facts, findings: &mut Findings) {
    if !host.has(Role::Postgres) || cluster.watchdog == WatchdogMode::Off {
        return;
    }
    let Some((lack, help)) = watchdog_lack(&cluster.watchdog_device, facts) else { return };
    let what = format!("{}: no kernel watchdog: {lack}", host.name);
    if cluster.watchdog == WatchdogMode::Required {
        findings.refuse(
            host,
            what,
            help.unwrap_or_else(|| "set cluster.watchdog = \"automatic\" to do without".to_owned()),
        );
    } else {
        findings.remarks.push(help.map_or(what.clone(), |help| format!("{what}: {help}")));
    }
}

/// Why a host has no watchdog for an agent, and what can be done about it.
fn watchdog_lack(device: &str, facts: &Facts) -> Option<(String, Option<String>)> {
    if let Some(kind) = &facts.container {
        return Some((format!("it is a container ({kind})"), None));
    }
    let same = |other: &String| Facts::is_same_watchdog(other, device);
    let others: Vec<&str> = facts.watchdogs.keys().filter(|other| !same(other)).map(String::as_str).collect();
    let another = match others.as_slice() {
        [] => String::new(),
        some => format!(", or name another in cluster.watchdog_device ({})", some.join(", ")),
    };
    if !facts.watchdogs.keys().any(same) && facts.fed.as_ref().is_none_or(|(fed, _)| !same(fed)) {
        let first = Facts::is_same_watchdog(device, WATCHDOG);
        if facts.watchdogs.is_empty() && first {
            let lack = "it has no device, and its kernel has no module softdog".to_owned();
            return (!facts.softdog).then_some((lack, None));
        }
        let there = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        return Some((format!("there is no {device} ({there})"), Some("mend cluster.watchdog_device".to_owned())));
    }
    if let Some((_, every)) = facts.fed.as_ref().filter(|(fed, _)| same(fed)) {
        let help = "set RuntimeWatchdogSec=off in a file of /etc/systemd/system.conf.d there and run `systemctl daemon-reexec`";
        return Some((
            format!("systemd is set to feed {device} (RuntimeWatchdogSec={every})"),
            Some(format!("{help}{another}")),
        ));
    }
    if facts.no_way_out.iter().any(same) {
        let lack = format!("{device} cannot be disarmed (its driver has nowayout set)");
        return Some((lack, Some(format!("load its driver without nowayout{another}"))));
    }
    let program = facts.watchdog_holder(device)?;
    Some((format!("{program} holds {device}"), Some(format!("stop and disable that{another}"))))
}

/// Hosts that are copies of one image often share what should tell them apart.
fn twins(known: &[(&Host, &Facts)], findings: &mut Findings) {
    for (what, of, help) in [
        (
            "machine-id",
            (|facts: &Facts| facts.machine_id.clone()) as fn(&Facts) -> String,
            "on one of them: rm /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup; reboot",
        ),
        (
            "host name",
            |facts: &Facts| facts.hostname.clone(),
            "on one of them: hostnamectl set-hostname NAME; or is one address in the inventory wrong?",
        ),
    ] {
        let mut seen: BTreeMap<String, &Host> = BTreeMap::new();
        for (host, facts) in known {
            let value = of(facts);
            if value.is_empty() {
                continue;
            }
            if let Some(first) = seen.insert(value.clone(), host) {
                findings.refuse(host, format!("{} has the same {what} ({value})", first.name), help);
            }
        }
    }
}

fn clocks(known: &[(&Host, &Facts)], findings: &mut Findings) {
    let slowest = known.iter().min_by_key(|(_, facts)| facts.clock.most);
    let fastest = known.iter().max_by_key(|(_, facts)| facts.clock.least);
    if let (Some((slow, behind)), Some((fast, ahead))) = (slowest, fastest) {
        // What is certain, however slowly they answered.
        let apart = ahead.clock.least.saturating_sub(behind.clock.most);
        if apart > SKEW_LIMIT_MS {
            findings.refuse(
                fast,
                format!("its clock is {}.{} s ahead of {}'s", apart / 1000, apart % 1000 / 100, slow.name),
                "set the clocks, best by a time service: apt-get install chrony",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::facts::{ClockAhead, DiskFact, ListenerFact, UnitFact};
    use crate::inventory;
    use crate::resource::Content;

    const INVENTORY: &str = "hosts = [\n{ name = \"a\", roles = [\"postgres\", \"zookeeper\", \"archive\"] },\n\
                             { name = \"b\", roles = [\"haproxy\"] } ]";

    fn good(name: &str) -> Facts {
        Facts {
            os: "debian".to_owned(),
            os_version: "12".to_owned(),
            os_name: "Debian GNU/Linux 12".to_owned(),
            machine: "x86_64".to_owned(),
            hostname: name.to_owned(),
            machine_id: format!("id-{name}"),
            root: true,
            systemd: true,
            softdog: true,
            packages: BTreeMap::from([("locales".to_owned(), "2.36".to_owned())]),
            missing: BTreeSet::from(["postgresql-15".to_owned()]),
            disks: vec![DiskFact { path: "/var".to_owned(), free: 9 * DISK_NEEDED, target: "/".to_owned() }],
            ..Facts::default()
        }
    }

    /// What is found when the facts of host `a` are changed.
    fn found(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        let cluster = inventory::parse("t", INVENTORY).unwrap();
        let programs = Programs {
            agent: Content::new(Vec::new()),
            guard: Content::new(Vec::new()),
            pghactl: Content::new(Vec::new()),
            machine: Some("x86_64"),
        };
        let mut facts = BTreeMap::from([("a".to_owned(), good("a")), ("b".to_owned(), good("b"))]);
        change(facts.get_mut("a").unwrap());
        let findings = judge(&cluster, &programs, &facts);
        findings.refusals.into_iter().map(|refusal| refusal.what).collect()
    }

    #[test]
    fn good_hosts_are_let_in() {
        assert_eq!(found(|_| {}), [""; 0]);
    }

    /// What is wrong, and what is said about it.
    type Case = (fn(&mut Facts), &'static str);

    #[test]
    fn each_bad_fact_is_refused() {
        let cases: [Case; 11] = [
            (|facts| facts.os_version = "11".to_owned(), "too old"),
            (|facts| facts.os = "fedora".to_owned(), "is not supported"),
            (|facts| facts.os_version = "13".to_owned(), "does not come with postgresql-15"),
            (|facts| facts.machine = "aarch64".to_owned(), "is built for x86_64"),
            (|facts| facts.disks[0].free = 1024, "disk too full: /var needs 2048 MiB, and 1 MiB"),
            (|facts| facts.machine_id = "id-b".to_owned(), "the same machine-id"),
            (|facts| facts.hostname = "b".to_owned(), "the same host name"),
            (|facts| facts.clock = ClockAhead { least: 90_500, most: 90_900 }, "its clock is 90.5 s ahead of b's"),
            (|facts| facts.root = false, "is not root"),
            (|facts| facts.systemd = false, "systemd does not run"),
            (
                |facts| {
                    facts.listeners.push(ListenerFact {
                        address: "0.0.0.0".to_owned(),
                        port: 5432,
                        process: "postgres".to_owned(),
                        unit: "postgresql@15-main.service".to_owned(),
                    });
                },
                "port 5432 is in use by postgres (postgresql@15-main.service)",
            ),
        ];
        for (change, expected) in cases {
            let what = found(change);
            assert!(what.iter().any(|what| what.contains(expected)), "{expected}: {what:?}");
        }
    }

    #[test]
    fn a_port_that_systemd_keeps_for_an_agent_is_not_in_use() {
        let kept = |facts: &mut Facts| {
            facts.listeners.push(ListenerFact {
                address: "0.0.0.0".to_owned(),
                port: 8008,
                process: "systemd".to_owned(),
                unit: String::new(),
            });
        };
        assert!(
            found(kept).iter().any(|what| what.contains("port 8008 is in use by systemd")),
            "some other socket unit"
        );
        // It is between two starts.
        let ours = |facts: &mut Facts| {
            kept(facts);
            let unit = UnitFact { load: "loaded".to_owned(), active: "activating".to_owned(), ..UnitFact::default() };
            facts.units.insert("pgha-agent.service".to_owned(), unit);
        };
        assert_eq!(found(ours), [""; 0]);
    }

    #[test]
    fn our_own_listeners_are_no_strangers() {
        let ours = |facts: &mut Facts| {
            facts.listeners.push(ListenerFact {
                address: "0.0.0.0".to_owned(),
                port: 8008,
                process: "pgha-agent".to_owned(),
                unit: "pgha-agent.service".to_owned(),
            });
        };
        assert_eq!(found(ours), [""; 0]);
    }

    /// What is said about the watchdog, in either mode, when the facts of host `a` are changed.
    fn watched(mode: &str, change: impl FnOnce(&mut Facts)) -> (Vec<Refusal>, Vec<String>) {
        let inventory = format!("cluster = {{ watchdog = \"{mode}\" }}\n{INVENTORY}");
        let cluster = inventory::parse("t", &inventory).unwrap();
        let mut facts = good("a");
        change(&mut facts);
        let mut findings = Findings::default();
        watchdog(&cluster, &cluster.hosts[0], &facts, &mut findings);
        (findings.refusals, findings.remarks)
    }

    #[test]
    fn a_watchdog_with_another_owner_is_named() {
        let first = |facts: &mut Facts| {
            facts.watchdogs =
                ["/dev/watchdog", "/dev/watchdog0"].map(|device| (device.to_owned(), "root".to_owned())).into();
        };
        let fed = |facts: &mut Facts| {
            first(facts);
            facts.fed = Some(("/dev/watchdog0".to_owned(), "30s".to_owned()));
        };
        let (refusals, remarks) = watched("required", fed);
        let what = "a: no kernel watchdog: systemd is set to feed /dev/watchdog (RuntimeWatchdogSec=30s)";
        assert_eq!(refusals[0].what, what);
        assert!(refusals[0].help.contains("RuntimeWatchdogSec=off"), "{}", refusals[0].help);
        assert_eq!(remarks, [""; 0]);
        let (refusals, remarks) = watched("automatic", fed);
        assert_eq!(refusals, []);
        assert!(remarks[0].contains("RuntimeWatchdogSec=30s") && remarks[0].contains("=off"), "{remarks:?}");
        let held = |program: &'static str| {
            move |facts: &mut Facts| {
                first(facts);
                facts.holders = vec![("/dev/watchdog".to_owned(), program.to_owned())];
            }
        };
        assert_eq!(watched("required", held("wd_keepalive")).0.len(), 1);
        let elsewhere = |facts: &mut Facts| {
            first(facts);
            facts.fed = Some(("/dev/watchdog1".to_owned(), "30s".to_owned()));
        };
        for (mode, calm) in [("off", watched("off", fed)), ("required", watched("required", elsewhere))] {
            assert_eq!(calm, (vec![], vec![]), "{mode}");
        }
        // Systemd keeps what the agent has opened.
        for program in ["pgha-agent", "systemd"] {
            assert_eq!(watched("required", held(program)), (vec![], vec![]));
        }
        let stuck = |facts: &mut Facts| {
            first(facts);
            facts.watchdogs.insert("/dev/watchdog1".to_owned(), "root".to_owned());
            facts.no_way_out.insert("/dev/watchdog0".to_owned());
        };
        let (refusals, _) = watched("required", stuck);
        assert!(refusals[0].what.contains("nowayout"), "{refusals:?}");
        assert!(refusals[0].help.ends_with("another in cluster.watchdog_device (/dev/watchdog1)"), "{refusals:?}");
        assert_eq!(watched("required", |facts| facts.softdog = false).0.len(), 1);
        assert_eq!(watched("required", |_| {}), (vec![], vec![]));
    }
}
