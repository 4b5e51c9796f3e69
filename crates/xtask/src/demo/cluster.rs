//! The installed cluster seen from outside: its agents' answers and its databases.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use pgha_lab::{
    Host, Lab, http,
    sql::{Rows, Server},
};
use serde::Deserialize;

/// The hosts with databases.
const DATABASES: [&str; 3] = ["db1", "db2", "db3"];
const BALANCER: &str = "lb1";
const AGENT_PORT: u16 = 8008;
const DATABASE_PORT: u16 = 5432;
/// An agent answers from memory; what takes longer is no answer.
const ANSWER: Duration = Duration::from_millis(500);
/// A statement of the story, a failover in its way included.
const STATEMENT: Duration = Duration::from_secs(20);

pub(super) struct Cluster<'a> {
    pub(super) lab: &'a Lab,
    /// The balancer's read-write port, as superuser.
    pub(super) balancer: Server,
}

/// Who is what, by the agents' own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Roles {
    pub(super) primaries: Vec<&'static str>,
    pub(super) replicas: Vec<&'static str>,
}

impl<'a> Cluster<'a> {
    pub(super) fn open(lab: &'a Lab, secrets: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Secrets {
            superuser_password: String,
        }
        let text = fs::read_to_string(secrets).with_context(|| format!("reading {}", secrets.display()))?;
        // toml's own message would quote the line, and with it a secret.
        let Ok(Secrets { superuser_password }) = toml::from_str(&text) else {
            bail!("{} lacks a superuser_password", secrets.display());
        };
        let balancer = Server {
            address: (lab.host(BALANCER)?.address(), DATABASE_PORT).into(),
            user: "postgres".to_owned(),
            password: superuser_password,
            database: "postgres".to_owned(),
        };
        Ok(Self { lab, balancer })
    }

    pub(super) fn host(&self, name: &str) -> Result<Host> {
        Ok(self.lab.host(name)?)
    }

    /// Through the balancer, to whoever is primary.
    pub(super) fn write(&self, statements: &str) -> Result<Rows> {
        Ok(self.balancer.query(statements, STATEMENT)?)
    }

    /// One host's own database.
    pub(super) fn ask(&self, host: &str, statements: &str) -> pgha_lab::Result<Rows> {
        let address = (self.lab.host(host)?.address(), DATABASE_PORT).into();
        self.balancer.at(address).query(statements, STATEMENT)
    }

    /// Asks all agents at once: a dead host must not delay the others' answers.
    pub(super) fn roles(&self) -> Result<Roles> {
        let address = |name| Ok((self.lab.host(name)?.address(), AGENT_PORT).into());
        let agents: Vec<SocketAddr> = DATABASES.into_iter().map(address).collect::<Result<_>>()?;
        let answers: Vec<Option<bool>> = thread::scope(|scope| {
            let threads: Vec<_> = agents.iter().map(|agent| scope.spawn(|| is_primary(*agent))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_default())
                .collect()
        });
        let named = |wanted: bool| {
            let holds = |(_, answer): &(&str, &Option<bool>)| **answer == Some(wanted);
            DATABASES
                .into_iter()
                .zip(&answers)
                .filter(holds)
                .map(|(name, _)| name)
                .collect()
        };
        Ok(Roles {
            primaries: named(true),
            replicas: named(false),
        })
    }

    /// Waits for one primary and this many replicas; the primary's name.
    pub(super) fn await_roles(&self, replicas: usize, limit: Duration) -> Result<Roles> {
        until("one primary and its replicas", limit, || {
            let roles = self.roles()?;
            if roles.primaries.len() > 1 {
                bail!("two hosts say that they are primary: {}", roles.primaries.join(", "));
            }
            let complete = roles.primaries.len() == 1 && roles.replicas.len() >= replicas;
            Ok(if complete { Ok(roles) } else { Err(format!("{roles:?}")) })
        })
    }

    /// Waits until another host than `lost` is primary; its name, and when that was seen.
    pub(super) fn await_successor(&self, lost: &str, limit: Duration) -> Result<(&'static str, Instant)> {
        until("a new primary", limit, || {
            let roles = self.roles()?;
            Ok(match roles.primaries[..] {
                [primary] if primary != lost => Ok((primary, Instant::now())),
                _ => Err(format!("{roles:?}")),
            })
        })
    }
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

/// Waits until `look` finds what it looks for; otherwise tells what it saw last.
pub(super) fn until<T>(what: &str, limit: Duration, look: impl Fn() -> Result<Result<T, String>>) -> Result<T> {
    let started = Instant::now();
    loop {
        match look()? {
            Ok(found) => return Ok(found),
            Err(seen) if started.elapsed() > limit => {
                bail!("{what}: not within {} s; last seen: {seen}", limit.as_secs())
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}

impl Roles {
    /// The primary; [`Cluster::await_roles`] has seen to it that there is one.
    pub(super) fn primary(&self) -> Result<&'static str> {
        match self.primaries[..] {
            [primary] => Ok(primary),
            _ => bail!("there is no single primary: {self:?}"),
        }
    }
}
