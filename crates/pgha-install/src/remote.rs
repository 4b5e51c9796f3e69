//! What the installer asks hosts to do, beyond resources: locks, waits, SQL, probes of the finished cluster.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;

use crate::cluster::{Cluster, Host, REST_PORT, ZOOKEEPER_PORT};
use crate::event::Failure;
use crate::hint::hint;
use crate::plan::{DatabasePlan, Item};
use crate::role::units;
use crate::secrets::Secrets;
use crate::ssh::{Held, Output, Session, SshError, quote};

const LOCK: &str = "/run/lock/pgha-install.lock";
/// How long a ZooKeeper server may take to find its ensemble.
const ENSEMBLE_SECONDS: u32 = 90;
/// How long a member may take to be primary or to follow one. Time in which data is copied does not count.
const MEMBER: Duration = Duration::from_secs(90);
/// What a member may take when nothing was changed.
const MEMBER_SETTLED: Duration = Duration::from_secs(5);
/// How long one look at a member may take.
const LOOK_SECONDS: u32 = 3;

/// A connection to a host of the inventory.
pub(crate) struct Remote<'a> {
    /// The host.
    pub(crate) host: &'a Host,
    /// The connection.
    pub(crate) session: Session,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberRole {
    Primary,
    Replica,
}

impl Remote<'_> {
    /// The host's name.
    pub(crate) fn name(&self) -> String {
        self.host.name.to_string()
    }

    /// A failure on this host.
    pub(crate) fn failure(&self, step: impl Into<String>, cause: impl Into<String>) -> Failure {
        let cause = cause.into();
        Failure { host: Some(self.name()), step: step.into(), hint: hint(&cause), cause }
    }

    /// A connection that failed.
    pub(crate) fn broken(&self, step: impl Into<String>, error: &SshError) -> Failure {
        Failure {
            host: Some(self.name()),
            step: step.into(),
            cause: error.to_string(),
            hint: error.hint().map(str::to_owned),
        }
    }

    async fn run(&self, step: &str, script: &str, input: &[u8], patience: Duration) -> Result<Output, Failure> {
        self.session.run(script, input, patience).await.map_err(|error| self.broken(step, &error))
    }

    /// Takes the host's lock, which ends with the connection.
    pub(crate) async fn lock(&self, owner: &str) -> Result<Held, Failure> {
        let step = "take the lock";
        let script = format!(
            "exec 9<>{LOCK}; if ! flock -n 9; then read -r pid since owner <{LOCK}; \
             echo \"$owner has held {LOCK} for $(($(date +%s) - since)) s (process $pid)\" >&2; exit 75; fi; \
             echo \"$$ $(date +%s) {owner}\" >{LOCK}; echo held; exec cat >/dev/null",
        );
        match self.session.hold(&script, Duration::from_secs(20)).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(output)) if output.status == 75 => Err(Failure {
                hint: Some(format!(
                    "wait for it to end; if it is dead, end the process on {}: the lock goes with it",
                    self.host.name
                )),
                ..self.failure(step, format!("another run is at work: {}", output.stderr.trim()))
            }),
            Ok(Err(output)) => Err(self.failure(step, output.complaint())),
            Err(error @ SshError::NoSudo { .. }) => Err(self.broken("become root", &error)),
            Err(error) => Err(self.broken(step, &error)),
        }
    }

    /// Removes one difference.
    pub(crate) async fn apply(&self, item: &Item) -> Result<(), Failure> {
        let (step, action) = (&item.change.summary, &item.change.action);
        let output = self.run(step, &action.script, &action.input, action.patience).await?;
        if output.ok() {
            return Ok(());
        }
        let mut cause = format!("exit status {}: {}", output.status, output.complaint());
        if let Some(unit) = &item.journal {
            cause.push_str(&self.journal(unit).await);
        }
        Err(self.failure(step, cause))
    }

    /// The last words of a unit, ready to be put under a cause.
    async fn journal(&self, unit: &str) -> String {
        let script = format!("journalctl -u {unit} -n 15 --no-pager -o short-iso --no-hostname -q");
        match self.session.run(&script, &[], Duration::from_secs(20)).await {
            Ok(output) if !output.stdout.trim().is_empty() => {
                format!("\nlast words of {unit}:\n{}", output.stdout.trim_end())
            }
            _ => String::new(),
        }
    }

    /// Waits until this server is part of an ensemble that serves.
    pub(crate) async fn await_zookeeper(&self) -> Result<(), Failure> {
        let step = "wait for ZooKeeper";
        // `srvr` answers with a mode only while the server has a quorum.
        let script = format!(
            "for i in $(seq {}); do if timeout 2 bash -c \
             'exec 3<>/dev/tcp/127.0.0.1/{ZOOKEEPER_PORT} && echo srvr >&3 && cat <&3' 2>/dev/null | grep -q '^Mode: '; \
             then exit 0; fi; sleep 0.25; done; exit 1",
            ENSEMBLE_SECONDS * 4
        );
        let patience = Duration::from_secs(u64::from(ENSEMBLE_SECONDS) * 12);
        if self.run(step, &script, &[], patience).await?.ok() {
            return Ok(());
        }
        let cause = format!(
            "the server has found no quorum; is port 3888 open between the ZooKeeper hosts?{}",
            self.journal(units::ZOOKEEPER).await
        );
        Err(self.failure(step, cause))
    }

    /// Waits until this member is the primary or follows one; tells what it does meanwhile.
    pub(crate) async fn await_member(&self, settled: bool, tell: impl Fn(&str)) -> Result<MemberRole, Failure> {
        let step = "wait for the member";
        let script = format!(
            "for i in $(seq {}); do for role in primary replica; do \
             if curl -sf -m 2 -o /dev/null http://127.0.0.1:{REST_PORT}/$role; then echo $role; exit 0; fi; done; \
             sleep 0.25; done; \
             if pgrep -u postgres -x 'pg_basebackup|pg_rewind|pgbackrest' -a | grep -qv ' server$'; then echo copying; exit 0; fi; \
             systemctl show -P StatusText {}",
            LOOK_SECONDS * 4,
            units::AGENT
        );
        let limit = if settled { MEMBER_SETTLED } else { MEMBER };
        let mut waited = Duration::ZERO;
        loop {
            let began = Instant::now();
            let output = self.run(step, &script, &[], Duration::from_secs(60)).await?;
            let state = match output.stdout.trim() {
                "primary" => return Ok(MemberRole::Primary),
                "replica" => return Ok(MemberRole::Replica),
                "copying" => {
                    tell("copying data");
                    continue;
                }
                "" => "its agent says nothing".to_owned(),
                said => said.to_owned(),
            };
            tell(&state);
            waited += began.elapsed();
            if waited >= limit {
                let cause = format!(
                    "neither primary nor replica after {} s: {state}{}{}",
                    waited.as_secs(),
                    self.journal(units::AGENT).await,
                    self.journal(units::POSTGRES).await
                );
                return Err(self.failure(step, cause));
            }
        }
    }

    /// Makes roles and databases; this host is the primary.
    pub(crate) async fn make_databases(
        &self,
        cluster: &Cluster,
        plan: &DatabasePlan,
        secrets: &Secrets,
    ) -> Result<(), Failure> {
        let step = "make roles and databases";
        let sql = sql(plan, |owner| postgres_protocol::password::scram_sha_256(secrets.of_owner(owner).as_bytes()));
        let script = format!(
            "runuser -u postgres -- psql -XqAt -v ON_ERROR_STOP=1 -h /var/run/postgresql -p {} -d postgres",
            cluster.port
        );
        let output = self.run(step, &script, sql.as_bytes(), Duration::from_secs(120)).await?;
        if output.ok() { Ok(()) } else { Err(self.failure(step, output.complaint())) }
    }

    /// Asks through a balancer, as an application would, whether the server behind it is a standby.
    pub(crate) async fn ask_balancer(
        &self,
        balancer: &Host,
        port: u16,
        cluster: &Cluster,
        secrets: &Secrets,
        standby: bool,
    ) -> Result<(), Failure> {
        let step = format!("connect through {} port {port}", balancer.name);
        let Some(database) = cluster.databases.first() else {
            return Ok(());
        };
        let target = format!(
            "host={} port={port} user={} dbname={} connect_timeout=3",
            balancer.cluster_address, database.owner, database.name
        );
        let want = if standby { "t" } else { "f" };
        // The balancer's checks may be a second behind the members.
        let script = format!(
            "read -r PGPASSWORD; export PGPASSWORD; for i in 1 2 3 4 5 6 7 8 9 10; do \
             said=$(psql -XAtq -c 'select pg_is_in_recovery()' {} 2>&1) && [ \"$said\" = {want} ] && exit 0; sleep 0.5; \
             done; echo \"$said\"; exit 1",
            quote(&target)
        );
        let input = format!("{}\n", secrets.of_owner(&database.owner));
        let output = self.run(&step, &script, input.as_bytes(), Duration::from_secs(90)).await?;
        match (output.ok(), output.stdout.trim()) {
            (true, _) => Ok(()),
            (false, "t") => Err(self.failure(step, "a standby answered instead of the primary")),
            (false, "f") => Err(self.failure(step, "the primary answered instead of a standby")),
            (false, said) => Err(self.failure(step, said)),
        }
    }

    /// Looks at the balancer's statistics page; this host is the balancer.
    pub(crate) async fn ask_statistics(&self, cluster: &Cluster, secrets: &Secrets) -> Result<(), Failure> {
        let step = "open the statistics page";
        let script = format!("curl -sSf -m 5 -o /dev/null -K - http://127.0.0.1:{}/", cluster.haproxy.stats_port);
        let input = format!("user = \"admin:{}\"\n", secrets.get("haproxy_stats_password"));
        let output = self.run(step, &script, input.as_bytes(), Duration::from_secs(20)).await?;
        if output.ok() { Ok(()) } else { Err(self.failure(step, output.complaint())) }
    }

    /// Lets pgBackRest check the whole way of a segment into the repository; this host holds the repository.
    pub(crate) async fn check_repository(&self, cluster: &Cluster) -> Result<(), Failure> {
        let step = "check the archive";
        let script = format!(
            "runuser -u postgres -- pgbackrest --config=/etc/pgbackrest/pgbackrest.conf --stanza={} check",
            cluster.name
        );
        let output = self.run(step, &script, &[], Duration::from_secs(150)).await?;
        if output.ok() {
            return Ok(());
        }
        let cause = format!("{}{}", output.complaint(), self.journal(units::PGBACKREST).await);
        Err(self.failure(step, cause))
    }

    /// Whether `others` see what this host writes to the archive's directory.
    pub(crate) async fn check_shared(&self, archive: &Path, others: &[&Remote<'_>]) -> Result<(), Failure> {
        let step = "check the archive";
        // A name that nobody has looked for: NFS remembers for a while what was not there.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mark = archive.join(format!(".pgha-install.{}.{}", std::process::id(), since.as_nanos()));
        let mark = quote(&mark.to_string_lossy());
        let patience = Duration::from_secs(30);
        let written = self.run(step, &format!("runuser -u postgres -- touch {mark}"), &[], patience).await?;
        if !written.ok() {
            return Err(self.failure(step, written.complaint()));
        }
        // As postgres: to a server that squashes root, root is nobody.
        let look = format!(
            "for i in 1 2 3 4 5 6 7 8 9 10; do runuser -u postgres -- test -e {mark} && exit 0; sleep 0.5; done; exit 1"
        );
        let seen = join_all(others.iter().map(|other| other.run(step, &look, &[], patience))).await;
        let removed = self.run(step, &format!("runuser -u postgres -- rm -f {mark}"), &[], patience).await;
        for (other, seen) in others.iter().zip(seen) {
            if !seen?.ok() {
                let cause = format!(
                    "{} does not see what {} has written to {}: that directory must be one and the same on all database \
                     hosts. Mount it there, and run again",
                    other.name(),
                    self.name(),
                    archive.display()
                );
                return Err(other.failure(step, cause));
            }
        }
        removed.map(drop)
    }

    /// Asks the primary's archiver; with `push` it is first given something to do. This host is the primary.
    pub(crate) async fn check_archiver(&self, cluster: &Cluster, push: bool) -> Result<u64, Failure> {
        let step = "check the archive";
        let ask = format!("runuser -u postgres -- psql -XAtq -h /var/run/postgresql -p {} -d postgres", cluster.port);
        let switch = if push {
            format!(
                "{ask} -c \"select pg_create_restore_point('pgha-install')\" -c 'select pg_switch_wal()' >/dev/null; "
            )
        } else {
            String::new()
        };
        // The last attempt counts: a failure before it was made good.
        let script = format!(
            "{switch}for i in $(seq 60); do said=$({ask} -c \"select archived_count, \
             coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false) from pg_stat_archiver\"); \
             case $said in 0\\|*|*\\|t|'') sleep 0.5 ;; *) echo \"$said\"; exit 0 ;; esac; done; echo \"$said\"; exit 1"
        );
        let output = self.run(step, &script, &[], Duration::from_secs(90)).await?;
        let count = output.stdout.split('|').next().and_then(|count| count.trim().parse().ok()).unwrap_or(0);
        if output.ok() {
            Ok(count)
        } else {
            let cause = format!(
                "the last segment was not archived ({count} were before){}",
                self.journal(units::POSTGRES).await
            );
            Err(self.failure(step, cause))
        }
    }
}

/// The statements that make roles and databases. Safe to run again; verifiers stay out of the server's log.
fn sql(plan: &DatabasePlan, verifier: impl Fn(&str) -> String) -> String {
    use std::fmt::Write as _;

    let mut sql = String::from("SET log_min_duration_statement = -1;\nSET log_min_error_statement = 'panic';\n");
    for owner in &plan.owners {
        let statement = format!("CREATE ROLE {} LOGIN PASSWORD {}", identifier(owner), literal(&verifier(owner)));
        let _infallible = writeln!(
            sql,
            "SELECT {} WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {}) \\gexec",
            literal(&statement),
            literal(owner)
        );
    }
    for database in &plan.databases {
        let statement = format!("CREATE DATABASE {} OWNER {}", identifier(&database.name), identifier(&database.owner));
        let _infallible = writeln!(
            sql,
            "SELECT {} WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = {}) \\gexec",
            literal(&statement),
            literal(&database.name)
        );
    }
    sql
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Database;

    #[test]
    fn statements_can_run_twice_and_quote_what_they_hold() {
        let plan = DatabasePlan {
            owners: vec!["app".to_owned()],
            databases: vec![Database { name: "shop".to_owned(), owner: "app".to_owned() }],
        };
        let sql = sql(&plan, |_| "SCRAM'x".to_owned());
        assert_eq!(
            sql,
            "SET log_min_duration_statement = -1;\nSET log_min_error_statement = 'panic';\n\
             SELECT 'CREATE ROLE \"app\" LOGIN PASSWORD ''SCRAM''''x''' WHERE NOT EXISTS \
             (SELECT FROM pg_roles WHERE rolname = 'app') \\gexec\n\
             SELECT 'CREATE DATABASE \"shop\" OWNER \"app\"' WHERE NOT EXISTS \
             (SELECT FROM pg_database WHERE datname = 'shop') \\gexec\n"
        );
    }
}
