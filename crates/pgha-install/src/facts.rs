//! What is true of a host: gathered in one round trip by one script, read here, judged elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cluster::WATCHDOG;
use crate::ssh::{Session, SshError, quote};

const SCRIPT: &str = include_str!("facts.sh");
/// Gathering takes a fraction of a second; a host that needs longer than this is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to ask a host for beyond what every host is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes {
    /// Files and directories: kind, mode, owner, checksum, time of change.
    pub files: BTreeSet<String>,
    /// Files whose text may be shown in a plan.
    pub shown: BTreeSet<String>,
    /// systemd units.
    pub units: BTreeSet<String>,
    /// Packages.
    pub packages: BTreeSet<String>,
    /// Users.
    pub users: BTreeSet<String>,
    /// `package:path` of configuration files that may be replaced while they are as the package left them.
    pub conffiles: BTreeSet<String>,
    /// Port of Postgres, on hosts with a member.
    pub port: Option<u16>,
}

/// What is true of a host.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// `ID` of os-release.
    pub os: String,
    /// `VERSION_ID` of os-release.
    pub os_version: String,
    /// `PRETTY_NAME` of os-release.
    pub os_name: String,
    /// `uname -m`.
    pub machine: String,
    /// `uname -n`.
    pub hostname: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Whether the commands run as root.
    pub root: bool,
    /// Whether systemd runs the host.
    pub systemd: bool,
    /// Kind of container, if it is one.
    pub container: Option<String>,
    /// Memory that Postgres may count on, in KiB.
    pub memory: u64,
    /// Whether a limit of the control group bounds `memory`.
    pub memory_limited: bool,
    /// Directories that will hold much, each with its free space.
    pub disks: Vec<DiskFact>,
    /// How far the host's clock is ahead of ours.
    pub clock: ClockAhead,
    /// Locales that exist.
    pub locales: BTreeSet<String>,
    /// Watchdog devices, each with its group.
    pub watchdogs: BTreeMap<String, String>,
    /// Watchdog devices that cannot be stopped again.
    pub no_way_out: BTreeSet<String>,
    /// Programs that hold a watchdog device, each after the device that it opened.
    pub holders: Vec<(String, String)>,
    /// The watchdog that systemd is set to feed, and its timeout.
    pub fed: Option<(String, String)>,
    /// Whether the kernel has the module `softdog`.
    pub softdog: bool,
    /// Users that exist, of those asked for.
    pub users: BTreeSet<String>,
    /// Files that exist, of those asked for.
    pub files: BTreeMap<String, FileFact>,
    /// Configuration files that are as the package left them, of those asked for.
    pub pristine: BTreeSet<String>,
    /// Units asked for.
    pub units: BTreeMap<String, UnitFact>,
    /// Versions of the packages that are installed, of those asked for.
    pub packages: BTreeMap<String, String>,
    /// Packages that are not installed, of those asked for.
    pub missing: BTreeSet<String>,
    /// Versions that could be installed of packages that are not; a host without package lists knows none.
    pub candidates: BTreeMap<String, String>,
    /// TCP listeners.
    pub listeners: Vec<ListenerFact>,
    /// Status codes of the agent's REST API.
    pub agent: BTreeMap<String, u16>,
    /// Roles that may log in to Postgres, on the primary.
    pub roles: BTreeSet<String>,
    /// Databases, on the primary.
    pub databases: BTreeSet<String>,
}

/// Where a directory is, and how much room it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFact {
    /// The directory.
    pub path: String,
    /// Free space, in KiB.
    pub free: u64,
    /// The mount point that holds it.
    pub target: String,
}

/// A file, directory or link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileFact {
    /// As `stat` names it.
    pub kind: String,
    /// Permission bits.
    pub mode: u32,
    /// Name of the owner.
    pub owner: String,
    /// Name of the group.
    pub group: String,
    /// Time of last change of content, in seconds since 1970.
    pub changed: i64,
    /// SHA-256 of a regular file.
    pub sum: String,
    /// Text, where it was asked for.
    pub text: Option<String>,
    /// Where a link leads.
    pub target: Option<String>,
}

/// A systemd unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitFact {
    /// `LoadState`.
    pub load: String,
    /// `ActiveState`.
    pub active: String,
    /// `UnitFileState`.
    pub file: String,
    /// When it last started, in seconds since 1970.
    pub started: Option<i64>,
    /// When it last changed its state, reloads included.
    pub touched: Option<i64>,
    /// Whether systemd has not read its files since they changed.
    pub stale: bool,
}

/// Something that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerFact {
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Name of the process.
    pub process: String,
    /// Unit of the process; empty when unknown.
    pub unit: String,
}

/// Why the facts of a host are not known.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The host cannot be asked.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The script did not come to its end.
    #[error("the host did not answer what it was asked (exit status {status}): {said}")]
    Cut {
        /// Exit status of the script.
        status: u32,
        /// What it said.
        said: String,
    },
}

impl Probes {
    fn script(&self) -> String {
        let mut script = String::new();
        let mut list = |name: &str, words: &BTreeSet<String>| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let _infallible = writeln!(script, "{name}={}", quote(&words.join(" ")));
        };
        list("files", &self.files);
        list("shown", &self.shown);
        list("units", &self.units);
        list("packages", &self.packages);
        list("users", &self.users);
        list("conffiles", &self.conffiles);
        let _infallible = writeln!(script, "port={}", self.port.map(|port| port.to_string()).unwrap_or_default());
        script + SCRIPT
    }
}

/// How far a host's clock is ahead of ours, in milliseconds: within these bounds, because an answer takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockAhead {
    /// At least.
    pub least: i64,
    /// At most.
    pub most: i64,
}

impl ClockAhead {
    /// The host's clock showed `nanos` at some time in `asked`.
    fn seen(nanos: &str, asked: &RangeInclusive<SystemTime>) -> Self {
        let theirs = nanos.parse::<i128>().unwrap_or(0) / 1_000_000;
        let ahead = |ours: &SystemTime| {
            let ours = ours.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            i64::try_from(theirs - i128::try_from(ours).unwrap_or(0)).unwrap_or(i64::MAX)
        };
        Self { least: ahead(asked.end()), most: ahead(asked.start()) }
    }
}

/// Asks a host.
pub async fn gather(session: &Session, probes: &Probes) -> Result<Facts, FactsError> {
    let asked_at = SystemTime::now();
    let output = session.run("exec /bin/sh -s", probes.script().as_bytes(), PATIENCE).await?;
    Facts::read(&output.stdout, asked_at..=SystemTime::now())
        .ok_or_else(|| FactsError::Cut { status: output.status, said: output.complaint() })
}

impl Facts {
    /// Reads what the script printed; `None` when its last line is missing.
    fn read(text: &str, asked: RangeInclusive<SystemTime>) -> Option<Self> {
        let mut facts = Self::default();
        let mut unit = UnitFact::default();
        let mut unit_name = String::new();
        let mut policy = String::new();
        let mut complete = false;
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields.as_slice() {
                ["clock", nanos] => facts.clock = ClockAhead::seen(nanos, &asked),
                ["uid", uid] => facts.root = *uid == "0",
                ["os", id, version, name] => {
                    (facts.os, facts.os_version) = ((*id).to_owned(), (*version).to_owned());
                    (*name).clone_into(&mut facts.os_name);
                }
                ["machine", machine, name, id] => {
                    (facts.machine, facts.hostname) = ((*machine).to_owned(), (*name).to_owned());
                    (*id).clone_into(&mut facts.machine_id);
                }
                ["container", kind] if !kind.is_empty() && *kind != "none" => {
                    facts.container = Some((*kind).to_owned());
                }
                ["systemd", _] => facts.systemd = true,
                ["memory", kib] => facts.memory = kib.parse().unwrap_or(0),
                ["memory_limit", bytes] => {
                    if let Ok(limit) = bytes.parse::<u64>().map(|bytes| bytes / 1024)
                        && limit < facts.memory
                    {
                        (facts.memory, facts.memory_limited) = (limit, true);
                    }
                }
                ["disk", path, free, target] => facts.disks.push(DiskFact {
                    path: (*path).to_owned(),
                    free: free.parse().unwrap_or(0),
                    target: (*target).to_owned(),
                }),
                ["locale", name] => _ = facts.locales.insert(name.to_ascii_lowercase().replace('-', "")),
                ["watchdog", device, group] => {
                    facts.watchdogs.insert((*device).to_owned(), (*group).to_owned());
                }
                ["nowayout", device] => _ = facts.no_way_out.insert((*device).to_owned()),
                ["holder", device, program] => facts.holders.push(((*device).to_owned(), (*program).to_owned())),
                ["fed", device, every] => facts.fed = Some(((*device).to_owned(), (*every).to_owned())),
                ["softdog", _] => facts.softdog = true,
                ["user", name] => _ = facts.users.insert((*name).to_owned()),
                ["link", path, target] => facts.file(path).target = Some((*target).to_owned()),
                ["file", path, kind, mode, owner, group, changed] => {
                    let file = facts.file(path);
                    (*kind).clone_into(&mut file.kind);
                    file.mode = u32::from_str_radix(mode, 8).unwrap_or(0);
                    (file.owner, file.group) = ((*owner).to_owned(), (*group).to_owned());
                    file.changed = changed.parse().unwrap_or(0);
                }
                ["sum", path, sum] => (*sum).clone_into(&mut facts.file(path).sum),
                ["text", path, encoded] => {
                    facts.file(path).text =
                        STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                }
                ["pristine", path] => _ = facts.pristine.insert((*path).to_owned()),
                ["unit", line] => match line.split_once('=') {
                    Some(("Id", id)) => {
                        facts.keep_unit(&mut unit_name, &mut unit);
                        id.clone_into(&mut unit_name);
                    }
                    Some((key, value)) => unit.learn(key, value),
                    None => {}
                },
                ["package", name, version] => {
                    facts.packages.insert((*name).to_owned(), (*version).to_owned());
                }
                ["missing", name] => _ = facts.missing.insert((*name).to_owned()),
                ["policy", line] => match (line.strip_suffix(':'), line.trim().strip_prefix("Candidate: ")) {
                    (Some(name), _) if !line.starts_with(' ') => name.clone_into(&mut policy),
                    (_, Some(version)) if version != "(none)" => {
                        facts.candidates.insert(policy.clone(), version.to_owned());
                    }
                    _ => {}
                },
                ["listen", local, process, unit] => {
                    if let Some((address, port)) = local.rsplit_once(':')
                        && let Ok(port) = port.parse()
                    {
                        facts.listeners.push(ListenerFact {
                            address: address.to_owned(),
                            port,
                            process: (*process).to_owned(),
                            unit: (*unit).to_owned(),
                        });
                    }
                }
                ["agent", path, code] => {
                    facts.agent.insert((*path).to_owned(), code.parse().unwrap_or(0));
                }
                ["role", name] => _ = facts.roles.insert((*name).to_owned()),
                ["database", name] => _ = facts.databases.insert((*name).to_owned()),
                ["done"] => complete = true,
                _ => {}
            }
        }
        facts.keep_unit(&mut unit_name, &mut unit);
        complete.then_some(facts)
    }

    /// Whether two paths name one watchdog: the first has two names (kernel documentation, watchdog-kernel-api: `id`).
    pub fn is_same_watchdog(one: &str, other: &str) -> bool {
        let name = |device: &str| if device == WATCHDOG { format!("{WATCHDOG}0") } else { device.to_owned() };
        name(one) == name(other)
    }

    /// A program that holds a watchdog. Systemd is none: it keeps the agent's, and whether it has one of its own is in `fed`.
    pub fn watchdog_holder(&self, device: &str) -> Option<&str> {
        let ours = |program: &str| ["pgha-agent", "systemd"].contains(&program);
        let held = |(held, program): &&(String, String)| Self::is_same_watchdog(held, device) && !ours(program);
        self.holders.iter().find(held).map(|(_, program)| program.as_str())
    }

    /// Whether this host's member is the primary.
    pub fn is_primary(&self) -> bool {
        self.agent.get("primary") == Some(&200)
    }

    /// Whether a unit runs.
    pub fn runs(&self, unit: &str) -> bool {
        self.units.get(unit).is_some_and(|unit| matches!(unit.active.as_str(), "active" | "reloading"))
    }

    fn file(&mut self, path: &str) -> &mut FileFact {
        self.files.entry(path.to_owned()).or_default()
    }

    fn keep_unit(&mut self, name: &mut String, unit: &mut UnitFact) {
        let (name, unit) = (std::mem::take(name), std::mem::take(unit));
        if !name.is_empty() {
            self.units.insert(name, unit);
        }
    }
}

impl UnitFact {
    fn learn(&mut self, key: &str, value: &str) {
        match key {
            "LoadState" => value.clone_into(&mut self.load),
            "ActiveState" => value.clone_into(&mut self.active),
            "UnitFileState" => value.clone_into(&mut self.file),
            "ActiveEnterTimestamp" => self.started = timestamp(value),
            "StateChangeTimestamp" => self.touched = timestamp(value),
            "NeedDaemonReload" => self.stale = value == "yes",
            _ => {}
        }
    }
}

/// Reads systemd's `Mon 2026-11-23 08:02:11 UTC`.
fn timestamp(text: &str) -> Option<i64> {
    let mut words = text.split_ascii_whitespace().skip(1);
    let mut date = words.next()?.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut clock = words.next()?.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    // Days since 1970 in the Gregorian calendar, years counted from March so that the leap day comes last.
    let shifted = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + day_of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_systemd_are_read() {
        assert_eq!(timestamp("Thu 1970-01-01 00:00:00 UTC"), Some(0));
        assert_eq!(timestamp("Tue 2000-02-29 12:00:01 UTC"), Some(951_825_601));
        assert_eq!(timestamp("Mon 2026-11-23 08:02:11 UTC"), Some(1_795_420_931));
        assert_eq!(timestamp(""), None);
        assert_eq!(timestamp("n/a"), None);
    }

    #[test]
    fn what_the_script_prints_is_read() {
        let text = "clock\t1000000000\nuid\t0\nos\tdebian\t12\tDebian GNU/Linux 12 (bookworm)\nmemory\t2048\n\
                    memory_limit\t1048576\nfile\t/etc/a\tregular file\t640\troot\tpostgres\t7\nsum\t/etc/a\tabc\n\
                    text\t/etc/a\taGk=\nunit\tId=a.service\nunit\tActiveState=active\nunit\t\nunit\tId=b.service\n\
                    unit\tLoadState=not-found\npolicy\tpostgresql-15:\npolicy\t  Installed: (none)\n\
                    policy\t  Candidate: 15.18\nlisten\t[::]:22\tsshd\tssh.service\nrole\tapp\ndone\n";
        let facts = Facts::read(text, UNIX_EPOCH..=UNIX_EPOCH + Duration::from_millis(400)).unwrap();
        assert!(facts.root);
        assert_eq!(facts.clock, ClockAhead { least: 600, most: 1000 });
        assert_eq!((facts.memory, facts.memory_limited), (1024, true));
        let file = &facts.files["/etc/a"];
        assert_eq!((file.mode, file.text.as_deref()), (0o640, Some("hi")));
        assert!(facts.runs("a.service") && !facts.runs("b.service"));
        assert_eq!(facts.candidates["postgresql-15"], "15.18");
        assert_eq!(facts.listeners[0].port, 22);
        assert!(facts.roles.contains("app"));
    }

    #[test]
    fn a_cut_answer_is_no_answer() {
        assert!(Facts::read("uid\t0\n", UNIX_EPOCH..=UNIX_EPOCH).is_none());
    }

    #[test]
    fn the_script_is_a_shell_script() {
        let mut probes = Probes::default();
        probes.files.insert("/etc/hostname".to_owned());
        let status = std::process::Command::new("sh").args(["-n", "-c", &probes.script()]).status().unwrap();
        assert!(status.success());
    }
}
