//! The cluster of `inventory/lab.toml` seen from outside: its agents' answers, its databases, its hosts' journals.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{
    Error, Host, Lab, Result, http,
    metrics::Metrics,
    sql::{Rows, Server},
};

/// The hosts of the inventory.
pub const HOSTS: [&str; 4] = ["db1", "db2", "db3", BALANCER];
/// Those with databases.
pub const DATABASES: [&str; 3] = ["db1", "db2", "db3"];
/// The one with the balancer and the archive.
pub const BALANCER: &str = "lb1";
const AGENT_PORT: u16 = 8008;
const DATABASE_PORT: u16 = 5432;
/// An agent answers from memory; what takes longer is no answer.
const ANSWER: Duration = Duration::from_millis(500);
/// A statement, a failover in its way included.
const STATEMENT: Duration = Duration::from_secs(20);
/// Between two looks at what is awaited.
const PAUSE: Duration = Duration::from_millis(50);

/// An installed cluster on the hosts of a lab.
#[derive(Debug)]
pub struct Cluster<'a> {
    lab: &'a Lab,
    /// The balancer's read-write port, as superuser.
    pub balancer: Server,
}

/// Who is what, by the agents' own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// Who says that it is the primary.
    pub primaries: Vec<&'static str>,
    /// Who says that it is a replica.
    pub replicas: Vec<&'static str>,
}

/// A cluster in which nobody and nothing is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complete {
    /// The primary.
    pub primary: String,
    /// The synchronous standby.
    pub sync: String,
    /// The other standby.
    pub other: String,
}

impl<'a> Cluster<'a> {
    /// Reads the superuser's password from the secrets that the installer keeps beside its inventory.
    pub fn open(lab: &'a Lab, secrets: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Secrets {
            superuser_password: String,
        }
        let text = fs::read_to_string(secrets).map_err(Error::io("reading", secrets))?;
        // toml's own message would quote the line, and with it a secret.
        let Ok(Secrets { superuser_password }) = toml::from_str(&text) else {
            return Err(Error::State(format!("{} lacks a superuser_password", secrets.display())));
        };
        Self::with_password(lab, superuser_password)
    }

    /// The same by the superuser's password.
    pub(crate) fn with_password(lab: &'a Lab, password: String) -> Result<Self> {
        let balancer = Server {
            address: (lab.host(BALANCER)?.address(), DATABASE_PORT).into(),
            user: "postgres".to_owned(),
            password,
            database: "postgres".to_owned(),
        };
        Ok(Self { lab, balancer })
    }

    /// One of its hosts.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.lab.host(name)
    }

    /// Through the balancer, to whoever is primary.
    pub fn write(&self, statements: &str) -> Result<Rows> {
        self.balancer.query(statements, STATEMENT)
    }

    /// One host's own database.
    pub fn ask(&self, host: &str, statements: &str) -> Result<Rows> {
        let address = (self.lab.host(host)?.address(), DATABASE_PORT).into();
        self.balancer.at(address).query(statements, STATEMENT)
    }

    /// Asks all agents at once: a dead host must not delay the others' answers.
    pub fn roles(&self) -> Result<Roles> {
        let answers = self.every_agent(is_primary)?;
        let named = |wanted: bool| {
            let holds = |(_, answer): &(&str, &Option<bool>)| **answer == Some(wanted);
            DATABASES.into_iter().zip(&answers).filter(holds).map(|(name, _)| name).collect()
        };
        Ok(Roles { primaries: named(true), replicas: named(false) })
    }

    /// Waits for one primary and this many replicas.
    pub fn await_roles(&self, replicas: usize, limit: Duration) -> Result<Roles> {
        until("one primary and its replicas", limit, || {
            let roles = self.roles()?;
            if roles.primaries.len() > 1 {
                return Err(Error::State(format!(
                    "two hosts say that they are primary: {}",
                    roles.primaries.join(", ")
                )));
            }
            let complete = roles.primaries.len() == 1 && roles.replicas.len() >= replicas;
            Ok(if complete { Ok(roles) } else { Err(format!("{roles:?}")) })
        })
    }

    /// Waits until another host than `lost` is primary; its name, and when that was seen.
    pub fn await_successor(&self, lost: &str, limit: Duration) -> Result<(&'static str, Instant)> {
        until("a new primary", limit, || {
            let roles = self.roles()?;
            Ok(match roles.primaries[..] {
                [primary] if primary != lost => Ok((primary, Instant::now())),
                _ => Err(format!("{roles:?}")),
            })
        })
    }

    /// Waits until every agent sees the same complete cluster: a primary and two standbys that stream from it, one of
    /// them synchronous.
    pub fn await_complete(&self, limit: Duration) -> Result<Complete> {
        until("a complete cluster", limit, || {
            let seen = self.every_agent(complete)?;
            Ok(match &seen[..] {
                [Ok(first), rest @ ..] if rest.iter().all(|other| other.as_ref() == Ok(first)) => Ok(first.clone()),
                _ => {
                    let told = |answer: &Result<Complete, String>| match answer {
                        Ok(complete) => format!("complete with {} as primary", complete.primary),
                        Err(why) => why.clone(),
                    };
                    let names = DATABASES.iter().zip(&seen);
                    Err(names.fold(String::new(), |text, (name, answer)| format!("{text}\n  {name}: {}", told(answer))))
                }
            })
        })
    }

    /// What every agent's metrics say, in the order of [`DATABASES`]; `None` of one that does not answer.
    pub fn metrics(&self) -> Result<Vec<Option<Metrics>>> {
        self.every_agent(|agent| {
            let answer = http::get(agent, "/metrics", ANSWER).ok().filter(|answer| answer.status == 200)?;
            Some(Metrics::parse(&answer.body))
        })
    }

    /// Does the same with the address of every agent at once; the answers are in the order of [`DATABASES`].
    fn every_agent<T: Send>(&self, work: impl Fn(SocketAddr) -> T + Sync) -> Result<Vec<T>> {
        let agents = DATABASES
            .into_iter()
            .map(|name| Ok(SocketAddr::from((self.lab.host(name)?.address(), AGENT_PORT))))
            .collect::<Result<Vec<_>>>()?;
        Ok(thread::scope(|scope| {
            let work = &work;
            let threads: Vec<_> = agents.into_iter().map(|agent| scope.spawn(move || work(agent))).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, T>| match thread.join() {
                Ok(answer) => answer,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().map(join).collect()
        }))
    }
}

impl Roles {
    /// The primary; [`Cluster::await_roles`] has seen to it that there is one.
    pub fn primary(&self) -> Result<&'static str> {
        match self.primaries[..] {
            [primary] => Ok(primary),
            _ => Err(Error::State(format!("there is no single primary: {self:?}"))),
        }
    }
}

/// Waits until `look` finds what it looks for; otherwise tells what it saw last. Its error ends the wait.
pub fn until<T>(what: &str, limit: Duration, look: impl Fn() -> Result<Result<T, String>>) -> Result<T> {
    let started = Instant::now();
    loop {
        match look()? {
            Ok(found) => return Ok(found),
            Err(seen) if started.elapsed() > limit => {
                return Err(Error::Timeout {
                    what: what.to_owned(),
                    waited: limit,
                    hint: format!("last seen: {seen}"),
                });
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// What each host's units said last, for whoever must find the cause of a failure.
pub fn journals(lab: &Lab, lines: usize) -> String {
    let mut all = String::new();
    for host in lab.hosts() {
        for unit in ["pgha-agent", "pgha-guard", "pgha-postgres", "haproxy"] {
            if let Ok(text) = host.journal(unit, lines)
                && !text.contains("-- No entries --")
            {
                let _infallible = write!(all, "\n{} {unit}:\n{}\n", host.name(), text.trim_end());
            }
        }
    }
    all
}

/// Whether the agent's host is the primary, or a replica; `None` when it is neither or does not answer.
fn is_primary(agent: SocketAddr) -> Option<bool> {
    let says = |path| http::get(agent, path, ANSWER).map(|answer| answer.status == 200);
    // A host that does not answer once is not asked again.
    match says("/primary") {
        Ok(true) => Some(true),
        Ok(false) => says("/replica").is_ok_and(|replica| replica).then_some(false),
        Err(_) => None,
    }
}

/// The complete cluster as this agent sees it, or what it sees instead.
fn complete(agent: SocketAddr) -> Result<Complete, String> {
    #[derive(Deserialize)]
    struct View {
        members: Vec<Member>,
    }
    #[derive(Deserialize)]
    struct Member {
        name: String,
        role: String,
        state: String,
    }
    let answer = http::get(agent, "/cluster", ANSWER).map_err(|error| error.to_string())?;
    let view: View = serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {}", answer.body))?;
    let one = |role: &str, state: &str| {
        let found: Vec<_> = view.members.iter().filter(|member| member.role == role && member.state == state).collect();
        if let [member] = found[..] {
            return Ok(member.name.clone());
        }
        let members = view.members.iter();
        let seen: Vec<_> = members.map(|m| format!("{} {} {}", m.name, m.role, m.state)).collect();
        Err(seen.join(", "))
    };
    Ok(Complete {
        primary: one("leader", "running")?,
        sync: one("sync_standby", "streaming")?,
        other: one("replica", "streaming")?,
    })
}
