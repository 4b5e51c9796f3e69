//! Plans against hosts that exist only here: what is applied is not planned again, and what drifts is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgha_install::cluster::{Cluster, Host};
use pgha_install::facts::{Facts, FileFact, UnitFact};
use pgha_install::inventory;
use pgha_install::pki::Pki;
use pgha_install::plan::{HostPlan, Item};
use pgha_install::programs::Programs;
use pgha_install::render::Templates;
use pgha_install::resource::{ChangeKind, Content};
use pgha_install::role::Wanted;
use pgha_install::secrets::Secrets;

const EXAMPLES: [&str; 4] = ["lab", "vagrant", "two-node", "three-node"];

fn wanted(cluster: Cluster, keep: &Path) -> Wanted {
    let inventory = keep.join("cluster.toml");
    Wanted {
        secrets: Secrets::load(&inventory, &cluster).unwrap(),
        pki: Pki::load(&inventory, &cluster).unwrap(),
        programs: Programs {
            agent: Content::new(b"agent".to_vec()),
            guard: Content::new(b"guard".to_vec()),
            pghactl: Content::new(b"pghactl".to_vec()),
            machine: None,
        },
        templates: Templates::new().unwrap(),
        cluster,
    }
}

fn example(name: &str) -> Cluster {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../inventory/{name}.toml"));
    inventory::load(&path).unwrap()
}

/// The word after `before` in a script.
fn word<'a>(script: &'a str, before: &str) -> &'a str {
    let rest = script.split_once(before).unwrap_or_else(|| panic!("no `{before}` in {script}")).1;
    rest.split([' ', ';', '\'']).next().unwrap()
}

/// A host that does what scripts say, as far as facts can tell.
#[derive(Default)]
struct Fake {
    facts: Facts,
    now: i64,
}

impl Fake {
    fn apply(&mut self, item: &Item) {
        self.now += 1;
        let (kind, name) = item.id.split_once(' ').unwrap_or((&item.id, ""));
        let script = &item.change.action.script;
        match kind {
            "file" | "directory" => {
                let (owner, group) = word(script, "chown ").split_once(':').unwrap();
                let sum = if kind == "file" { word(script, "echo '") } else { "" };
                self.facts.files.insert(
                    name.to_owned(),
                    FileFact {
                        mode: u32::from_str_radix(word(script, "chmod "), 8).unwrap(),
                        owner: owner.to_owned(),
                        group: group.to_owned(),
                        changed: self.now,
                        sum: sum.to_owned(),
                        text: String::from_utf8(item.change.action.input.to_vec()).ok(),
                        ..FileFact::default()
                    },
                );
            }
            "mask" => {
                let link = self.facts.files.entry(format!("/etc/systemd/system/{name}")).or_default();
                link.target = Some("/dev/null".to_owned());
            }
            "packages" => {
                let names = script.rsplit_once(" install ").unwrap().1;
                let installed = names.split(' ').map(|name| (name.to_owned(), "1".to_owned()));
                self.facts.packages.extend(installed);
            }
            "user" => _ = self.facts.users.insert(name.to_owned()),
            "unit" => {
                let unit = UnitFact {
                    active: "active".to_owned(),
                    file: "enabled".to_owned(),
                    started: Some(self.now),
                    touched: Some(self.now),
                    ..UnitFact::default()
                };
                self.facts.units.insert(name.to_owned(), unit);
            }
            "command" => match name {
                "locale" => _ = self.facts.locales.insert("en_us.utf8".to_owned()),
                "softdog" => {
                    _ = self.facts.watchdogs.insert("/dev/watchdog".to_owned(), "root".to_owned());
                }
                "watchdog" => {
                    for group in self.facts.watchdogs.values_mut() {
                        "postgres".clone_into(group);
                    }
                }
                "stanza" => self.touch("archive", "archive.info"),
                "first-backup" => self.touch("backup", "latest"),
                other => panic!("unknown command {other}"),
            },
            "systemd" => {}
            other => panic!("unknown kind {other}"),
        }
    }

    fn touch(&mut self, directory: &str, file: &str) {
        for stanza in ["main", "vagrant"] {
            let path = format!("/var/lib/pgbackrest/{directory}/{stanza}/{file}");
            self.facts.files.insert(path, FileFact::default());
        }
    }

    fn install(&mut self, wanted: &Wanted, host: &Host) -> HostPlan {
        let plan = HostPlan::make(wanted, host, &self.facts).unwrap();
        for item in &plan.items {
            self.apply(item);
        }
        plan
    }
}

fn summaries(plan: &HostPlan) -> Vec<&str> {
    plan.items.iter().map(|item| item.change.summary.as_str()).collect()
}

#[test]
fn a_second_plan_is_empty() {
    for name in EXAMPLES {
        for container in [None, Some("systemd-nspawn".to_owned())] {
            let keep = tempfile::tempdir().unwrap();
            let wanted = wanted(example(name), keep.path());
            for host in &wanted.cluster.hosts {
                let mut fake = Fake::default();
                fake.facts.memory = 8 * 1024 * 1024;
                fake.facts.softdog = true;
                fake.facts.container.clone_from(&container);
                assert!(fake.install(&wanted, host).items.len() > 5);
                let second = HostPlan::make(&wanted, host, &fake.facts).unwrap();
                assert!(second.items.is_empty(), "{name}: {}: {:?}", host.name, summaries(&second));
            }
        }
    }
}

#[test]
fn every_fact_that_a_plan_looks_at_is_asked_for() {
    for name in EXAMPLES {
        let keep = tempfile::tempdir().unwrap();
        let wanted = wanted(example(name), keep.path());
        for host in &wanted.cluster.hosts {
            let probes = wanted.probes(host).unwrap();
            let mut fake = Fake::default();
            fake.facts.softdog = true;
            for item in fake.install(&wanted, host).items {
                let (kind, name) = item.id.split_once(' ').unwrap_or((&item.id, ""));
                let asked = match kind {
                    "file" | "directory" => probes.files.contains(name),
                    "unit" => probes.units.contains(name),
                    "user" => probes.users.contains(name),
                    _ => true,
                };
                assert!(asked, "{name}: {} is planned but not asked for", item.id);
            }
        }
    }
}

#[test]
fn drift_is_found_and_only_that() {
    let keep = tempfile::tempdir().unwrap();
    let wanted = wanted(example("lab"), keep.path());
    let host = &wanted.cluster.hosts[0];
    let mut fake = Fake::default();
    fake.install(&wanted, host);
    let config = fake.facts.files.get_mut("/etc/pgha/zookeeper/zoo.cfg").unwrap();
    config.sum = "0".repeat(64);
    config.text = Some("tickTime=2000\n".to_owned());
    let plan = HostPlan::make(&wanted, host, &fake.facts).unwrap();
    assert_eq!(summaries(&plan), ["change /etc/pgha/zookeeper/zoo.cfg", "restart pgha-zookeeper.service"]);
    assert!(plan.items[0].change.detail.contains(&"-tickTime=2000".to_owned()));
    assert_eq!(plan.items[1].change.kind, ChangeKind::Restart);
}

#[test]
fn a_restart_of_the_primarys_agent_is_asked_about() {
    let keep = tempfile::tempdir().unwrap();
    let mut wanted = wanted(example("lab"), keep.path());
    let host = wanted.cluster.hosts[0].clone();
    let mut fake = Fake::default();
    fake.install(&wanted, &host);
    fake.facts.agent.insert("primary".to_owned(), 200);
    wanted.programs.agent = Content::new(b"newer agent".to_vec());
    let plan = HostPlan::make(&wanted, &host, &fake.facts).unwrap();
    assert_eq!(summaries(&plan), ["change /usr/local/bin/pgha-agent", "restart pgha-agent.service"]);
    assert!(plan.items[1].change.danger.is_some());
}

#[test]
fn a_newer_guard_is_restarted_and_nothing_else() {
    let keep = tempfile::tempdir().unwrap();
    let mut wanted = wanted(example("lab"), keep.path());
    let host = wanted.cluster.hosts[0].clone();
    let mut fake = Fake::default();
    fake.install(&wanted, &host);
    wanted.programs.guard = Content::new(b"newer guard".to_vec());
    let plan = HostPlan::make(&wanted, &host, &fake.facts).unwrap();
    assert_eq!(summaries(&plan), ["change /usr/local/bin/pgha-guard", "restart pgha-guard.service"]);
}

#[test]
fn no_secret_is_shown_or_put_into_a_script() {
    let keep = tempfile::tempdir().unwrap();
    let wanted = wanted(example("three-node"), keep.path());
    let secrets: BTreeMap<&str, &str> = [
        "superuser_password",
        "replication_password",
        "rewind_password",
        "rest_password",
        "haproxy_stats_password",
        "app_password",
    ]
    .map(|key| (key, wanted.secrets.get(key)))
    .into();
    for host in &wanted.cluster.hosts {
        let mut fake = Fake::default();
        let first = fake.install(&wanted, host);
        for file in fake.facts.files.values_mut() {
            file.sum.clear();
        }
        let second = HostPlan::make(&wanted, host, &fake.facts).unwrap();
        for item in first.items.iter().chain(&second.items) {
            let shown = format!("{} {:?} {}", item.change.summary, item.change.detail, item.change.action.script);
            for (key, secret) in &secrets {
                assert!(secret.len() > 20 && !shown.contains(secret), "{key} in {}", item.id);
            }
            assert!(!shown.contains("PRIVATE KEY"), "{}", item.id);
        }
    }
}
