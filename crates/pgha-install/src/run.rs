//! A run: connect, gather, judge, plan, apply phase by phase, verify.
//!
//! ```text
//!  hosts ──► connect ──► lock ──► facts ──► checks ──► plan ──► Prepare ──► Ensemble ──► Services ──► Agents ──► Cluster ──► verify
//!                     (not with --plan)                  │        all hosts at once within a phase;     │
//!                                                        └► --plan ends here    what is restarted goes one host at a time
//! ```

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::future::{join_all, try_join_all};

use crate::checks;
use crate::cluster::Archive;
use crate::event::{Event, Failure};
use crate::facts::{self, Facts};
use crate::inventory::Role;
use crate::plan::{DatabasePlan, HostPlan, Plan};
use crate::remote::{MemberRole, Remote};
use crate::role::{Phase, Wanted, units};
use crate::show::Reporter;
use crate::ssh::{Held, Session, SshError, Trust};

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Stop after the plan.
    pub plan_only: bool,
    /// Which host keys are good.
    pub trust: Trust,
    /// Who runs it, as the lock says.
    pub owner: String,
}

/// How a run ended; failures have been reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All is as wanted, after this many changes.
    Done(usize),
    /// Only planned; this many changes are to be made.
    Planned(usize),
    /// Somebody was asked and said no, or could not be asked.
    Declined,
    /// It failed.
    Failed,
    /// Some hosts failed and others went on.
    SomeFailed,
}

/// Runs. `agree` is asked when something dangerous would happen.
pub async fn run(wanted: &Wanted, options: &Options, reporter: &Reporter, agree: impl Fn(&[String]) -> bool) -> End {
    let started = Instant::now();
    for remark in &wanted.cluster.remarks {
        reporter.say(&Event::Remark { text: remark.clone() });
    }
    let Some(remotes) = connect(wanted, options, reporter).await else {
        return End::Failed;
    };
    let end = with_hosts(wanted, options, reporter, &remotes, started, agree).await;
    join_all(remotes.iter().map(|remote| remote.session.close())).await;
    end
}

async fn connect<'a>(wanted: &'a Wanted, options: &Options, reporter: &Reporter) -> Option<Vec<Remote<'a>>> {
    let attempts = wanted.cluster.hosts.iter().map(|host| async move {
        reporter.say(&Event::Connecting { host: host.name.to_string(), address: host.address.clone() });
        Session::connect(host, &options.trust).await.map(|session| Remote { host, session }).map_err(|error| Failure {
            host: Some(host.name.to_string()),
            step: "connect".to_owned(),
            cause: error.to_string(),
            hint: error.hint().map(str::to_owned),
        })
    });
    all(join_all(attempts).await, reporter)
}

/// All the good results, or `None` after the bad ones were reported.
fn all<T>(results: Vec<Result<T, Failure>>, reporter: &Reporter) -> Option<Vec<T>> {
    let mut good = Vec::new();
    let mut bad = false;
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(failure) => {
                bad = true;
                reporter.say(&Event::Failed(failure));
            }
        }
    }
    (!bad).then_some(good)
}

async fn with_hosts(
    wanted: &Wanted,
    options: &Options,
    reporter: &Reporter,
    remotes: &[Remote<'_>],
    started: Instant,
    agree: impl Fn(&[String]) -> bool,
) -> End {
    let _locks: Vec<Held> = if options.plan_only {
        Vec::new()
    } else {
        match all(join_all(remotes.iter().map(|remote| remote.lock(&options.owner))).await, reporter) {
            Some(locks) => locks,
            None => return End::Failed,
        }
    };
    let Some(facts) = gather(wanted, remotes, reporter).await else {
        return End::Failed;
    };
    let findings = checks::judge(&wanted.cluster, &wanted.programs, &facts);
    for remark in findings.remarks {
        reporter.say(&Event::Remark { text: remark });
    }
    if !findings.refusals.is_empty() {
        for refusal in findings.refusals {
            reporter.say(&Event::Failed(Failure {
                host: refusal.host,
                step: "check".to_owned(),
                cause: refusal.what,
                hint: Some(refusal.help),
            }));
        }
        return End::Failed;
    }
    let plan = match plan(wanted, &facts) {
        Ok(plan) => plan,
        Err(failure) => {
            reporter.say(&Event::Failed(failure));
            return End::Failed;
        }
    };
    reporter.say(&Event::Planned { changes: plan.changes(), text: plan.to_string() });
    if options.plan_only {
        return End::Planned(plan.changes());
    }
    let dangers = plan.dangers(facts.values().any(Facts::is_primary));
    if !dangers.is_empty() && !agree(&dangers) {
        return End::Declined;
    }
    let kept = wanted.secrets.save().map_err(|error| error.to_string());
    if let Err(cause) = kept.and_then(|()| wanted.pki.save().map_err(|error| error.to_string())) {
        reporter.say(&Event::Failed(Failure { host: None, step: "keep the secrets".to_owned(), cause, hint: None }));
        return End::Failed;
    }
    let run = Run { wanted, reporter, remotes, facts: &facts, plan: &plan };
    match run.apply_and_verify().await {
        Ok(()) => {
            for remote in remotes {
                reporter.say(&Event::HostDone { host: remote.name() });
            }
            reporter.say(&Event::Finished {
                changes: plan.changes(),
                milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                next: next_steps(wanted),
            });
            End::Done(plan.changes())
        }
        Err(end) => end,
    }
}

async fn gather(wanted: &Wanted, remotes: &[Remote<'_>], reporter: &Reporter) -> Option<BTreeMap<String, Facts>> {
    let answers = remotes.iter().map(|remote| async move {
        let step = "look at the host";
        let probes = wanted.probes(remote.host).map_err(|error| remote.failure(step, error.to_string()))?;
        let facts = facts::gather(&remote.session, &probes).await.map_err(|error| match error {
            facts::FactsError::Ssh(error @ SshError::NoSudo { .. }) => remote.broken("become root", &error),
            facts::FactsError::Ssh(error) => remote.broken(step, &error),
            cut @ facts::FactsError::Cut { .. } => remote.failure(step, cut.to_string()),
        })?;
        reporter.say(&Event::Gathered { host: remote.name() });
        Ok((remote.name(), facts))
    });
    all(join_all(answers).await, reporter).map(|facts| facts.into_iter().collect())
}

fn plan(wanted: &Wanted, facts: &BTreeMap<String, Facts>) -> Result<Plan, Failure> {
    let mut hosts = Vec::new();
    for host in &wanted.cluster.hosts {
        let Some(facts) = facts.get(host.name.as_str()) else {
            continue;
        };
        hosts.push(HostPlan::make(wanted, host, facts).map_err(|error| Failure {
            host: Some(host.name.to_string()),
            step: "plan".to_owned(),
            cause: error.to_string(),
            hint: None,
        })?);
    }
    Ok(Plan { hosts, database: DatabasePlan::make(&wanted.cluster, facts.values()) })
}

/// A run that has a plan.
struct Run<'a> {
    wanted: &'a Wanted,
    reporter: &'a Reporter,
    remotes: &'a [Remote<'a>],
    facts: &'a BTreeMap<String, Facts>,
    plan: &'a Plan,
}

impl<'a> Run<'a> {
    async fn apply_and_verify(&self) -> Result<(), End> {
        for phase in [Phase::Prepare, Phase::Ensemble, Phase::Services, Phase::Agents] {
            self.phase(phase).await?;
        }
        let primary = self.await_members().await?;
        self.databases(primary).await?;
        self.phase(Phase::Cluster).await?;
        self.verify(primary).await
    }

    fn fail(&self, failure: Failure) -> End {
        self.reporter.say(&Event::Failed(failure));
        End::Failed
    }

    /// Applies what belongs to a phase: first where nothing is interrupted, on all hosts at once; then the rest, one
    /// host after the other, the primary last.
    async fn phase(&self, phase: Phase) -> Result<(), End> {
        let with_work: Vec<(&Remote<'_>, &HostPlan)> = self
            .remotes
            .iter()
            .zip(&self.plan.hosts)
            .filter(|(_, plan)| plan.in_phase(phase).next().is_some())
            .collect();
        if with_work.is_empty() {
            return Ok(());
        }
        self.reporter.say(&Event::PhaseStarted { phase: phase.title() });
        let (mut rolling, at_once): (Vec<_>, Vec<_>) =
            with_work.into_iter().partition(|(_, plan)| phase != Phase::Prepare && plan.interrupts(phase));
        let (first, others) = self.first_member(phase, at_once);
        for group in [first, others] {
            let results = join_all(group.iter().map(|(remote, plan)| self.host(phase, remote, plan))).await;
            self.judge(&results)?;
        }
        if phase == Phase::Ensemble {
            self.await_ensemble().await?;
        }
        rolling.sort_by_key(|(remote, _)| self.facts.get(&remote.name()).is_some_and(Facts::is_primary));
        for (remote, plan) in rolling {
            let done = async {
                self.host(phase, remote, plan).await?;
                match phase {
                    Phase::Ensemble => remote.await_zookeeper().await,
                    Phase::Agents => self.member(remote, false).await.map(|_role| ()),
                    _ => Ok(()),
                }
            };
            if let Err(failure) = done.await {
                // Never two at once: what is left stays as it is.
                return Err(self.fail(failure));
            }
        }
        Ok(())
    }

    /// A new cluster begins with the first database host, so that everybody knows who initialises it.
    fn first_member<'b>(
        &self,
        phase: Phase,
        hosts: Vec<(&'b Remote<'b>, &'b HostPlan)>,
    ) -> (HostGroup<'b>, HostGroup<'b>) {
        let nobody_runs = !self.facts.values().any(|facts| facts.runs(units::AGENT));
        if phase == Phase::Agents && nobody_runs {
            let mut first = hosts;
            let others = first.split_off(first.len().min(1));
            (first, others)
        } else {
            (Vec::new(), hosts)
        }
    }

    fn judge(&self, results: &[Result<(), Failure>]) -> Result<(), End> {
        let failures: Vec<&Failure> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        for failure in &failures {
            self.reporter.say(&Event::Failed((*failure).clone()));
        }
        match failures.len() {
            0 => Ok(()),
            all if all == results.len() => Err(End::Failed),
            _ => Err(End::SomeFailed),
        }
    }

    async fn host(&self, phase: Phase, remote: &Remote<'_>, plan: &HostPlan) -> Result<(), Failure> {
        for item in plan.in_phase(phase) {
            let started = Instant::now();
            let (host, step) = (remote.name(), item.change.summary.clone());
            self.reporter.say(&Event::StepStarted { host: host.clone(), step: step.clone() });
            remote.apply(item).await?;
            self.reporter.say(&Event::StepDone {
                host,
                step,
                milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            });
        }
        Ok(())
    }

    fn with(&self, role: Role) -> impl Iterator<Item = &'a Remote<'a>> {
        self.remotes.iter().filter(move |remote| remote.host.has(role))
    }

    async fn await_ensemble(&self) -> Result<(), End> {
        self.reporter.say(&Event::Waiting { what: "ZooKeeper has a quorum".to_owned() });
        let waits = self.with(Role::Zookeeper).map(Remote::await_zookeeper);
        self.judge(&join_all(waits).await)
    }

    /// Waits until one member is the primary and all others follow it; tells who it is.
    async fn await_members(&self) -> Result<&'a Remote<'a>, End> {
        let changed = self.plan.hosts.iter().any(|plan| {
            plan.in_phase(Phase::Agents).next().is_some() || plan.in_phase(Phase::Ensemble).next().is_some()
        });
        if changed {
            self.reporter.say(&Event::Waiting { what: "one member is the primary, the others follow it".to_owned() });
        }
        // A role read on one host may be gone when another host answers: a second look settles it.
        let mut primaries = Vec::new();
        for _look in 0..3 {
            let waits = self
                .with(Role::Postgres)
                .map(|remote| async move { self.member(remote, !changed).await.map(|role| (remote, role)) });
            let roles = match try_join_all(waits).await {
                Ok(roles) => roles,
                Err(failure) => return Err(self.fail(failure)),
            };
            primaries = roles
                .into_iter()
                .filter_map(|(remote, role)| (role == MemberRole::Primary).then_some(remote))
                .collect();
            if let [primary] = primaries.as_slice() {
                return Ok(primary);
            }
        }
        let names: Vec<String> = primaries.iter().map(|remote| remote.name()).collect();
        Err(self.fail(Failure {
            host: None,
            step: "find the primary".to_owned(),
            cause: if names.is_empty() {
                "every member is a replica".to_owned()
            } else {
                format!("more than one member says it is the primary: {}", names.join(", "))
            },
            hint: Some("look at `pghactl list` and `journalctl -u pgha-agent` on the database hosts".to_owned()),
        }))
    }

    async fn member(&self, remote: &Remote<'_>, settled: bool) -> Result<MemberRole, Failure> {
        remote
            .await_member(settled, |state| {
                self.reporter.say(&Event::StepStarted { host: remote.name(), step: format!("waiting: {state}") });
            })
            .await
    }

    async fn databases(&self, primary: &Remote<'_>) -> Result<(), End> {
        if self.plan.database.is_empty() {
            return Ok(());
        }
        let wanted = self.wanted;
        primary
            .make_databases(&wanted.cluster, &self.plan.database, &wanted.secrets)
            .await
            .map_err(|failure| self.fail(failure))
    }

    async fn verify(&self, primary: &Remote<'_>) -> Result<(), End> {
        let (cluster, secrets) = (&self.wanted.cluster, &self.wanted.secrets);
        let changed = self.plan.changes() > 0;
        let members = self.with(Role::Postgres).count();
        self.verified(format!("{} is the primary, {} follow it", primary.name(), members - 1));
        let balancers = self.with(Role::Haproxy).map(|balancer| async move {
            let ports = &cluster.haproxy;
            primary.ask_balancer(balancer.host, ports.port, cluster, secrets, false).await?;
            primary.ask_balancer(balancer.host, ports.read_port, cluster, secrets, members > 1).await?;
            balancer.ask_statistics(cluster, secrets).await?;
            self.verified(format!(
                "{} leads writers (port {}) to the primary and readers (port {}) to {}",
                balancer.name(),
                ports.port,
                ports.read_port,
                if members > 1 { "the standbys" } else { "it, too" }
            ));
            Ok(())
        });
        let archive = async {
            let repository = match &cluster.archive {
                Archive::Pgbackrest { host, .. } if changed => {
                    self.remotes.iter().find(|remote| remote.host.name.as_str() == host)
                }
                _ => None,
            };
            if let Some(repository) = repository {
                repository.check_repository(cluster).await?;
            }
            if let Archive::Directory { path } = &cluster.archive {
                let others: Vec<&Remote<'_>> =
                    self.with(Role::Postgres).filter(|member| member.name() != primary.name()).collect();
                primary.check_shared(path, &others).await?;
                self.verified(format!("all database hosts see the same {}", path.display()));
            }
            let segments = primary.check_archiver(cluster, changed && repository.is_none()).await?;
            self.verified(format!("the archive takes WAL ({segments} segments so far)"));
            Ok(())
        };
        let (mut results, archived) = tokio::join!(join_all(balancers), archive);
        results.push(archived);
        self.judge(&results)
    }

    fn verified(&self, what: String) {
        self.reporter.say(&Event::Verified { what });
    }
}

type HostGroup<'b> = Vec<(&'b Remote<'b>, &'b HostPlan)>;

/// How a user goes on.
fn next_steps(wanted: &Wanted) -> Vec<String> {
    let cluster = &wanted.cluster;
    let secrets = wanted.secrets.path().display();
    let mut lines = vec![String::new()];
    let balancer = cluster.with(Role::Haproxy).next();
    if let Some(database) = cluster.databases.first() {
        let (owner, name) = (&database.owner, &database.name);
        // A client that is given all addresses goes on when one of them is gone.
        let all = |role: Role, port: u16| -> String {
            let ends: Vec<String> = cluster.with(role).map(|host| host.endpoint(port)).collect();
            ends.join(",")
        };
        if balancer.is_some() {
            let (write, read) = (cluster.haproxy.port, cluster.haproxy.read_port);
            for (what, port) in [("Connect  ", write), ("Read only", read)] {
                let ends = all(Role::Haproxy, port);
                lines.push(format!("  {what}    postgresql://{owner}@{ends}/{name}"));
            }
        } else {
            let ends = all(Role::Postgres, cluster.port);
            lines.push(format!("  Connect      postgresql://{owner}@{ends}/{name}?target_session_attrs=read-write"));
        }
        lines.push(format!("  Password     {owner}_password in {secrets}"));
    }
    if let Some(balancer) = balancer {
        lines.push(format!(
            "  Statistics   http://{}/ (user admin, haproxy_stats_password in {secrets})",
            balancer.endpoint(cluster.haproxy.stats_port)
        ));
    }
    if let Some(member) = cluster.with(Role::Postgres).next() {
        let login = format!("ssh {}@{}", member.ssh.user, member.address);
        lines.push(format!("  Members      {login} sudo pghactl list"));
        lines.push(format!("  Agent        {login} systemctl status pgha-agent"));
    }
    lines
}
