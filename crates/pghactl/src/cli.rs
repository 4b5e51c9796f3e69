//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use pgha_core::name::NodeName;
use pgha_core::time::Millis;

use crate::config_key::Assignment;
use crate::table::Format;

const FILES: &str = "\
Files:
  /etc/pgha/pghactl.toml   cluster = \"main\"             the cluster that must answer
                           agents = [\"db1:8008\", …]     agents to ask
                           secrets_file = \"…\"           where the password is, if not in
  /etc/pgha/secrets.toml   rest_username, rest_password for commands that change something;
                           readable by root and postgres

Exit status:
  0  done
  1  failed: no agent answered, a member refused, or you said no
  2  the command line or a configuration file is wrong

Examples:
  pghactl list -W                                watch the cluster
  sudo pghactl switchover --candidate db2        hand over to db2
  pghactl why                                    why each member is what it is
  sudo pghactl config set postgresql.parameters.work_mem=64MB synchronous_node_count=2";

/// Look at a pgha cluster and change it
#[derive(Debug, Parser)]
#[command(
    name = "pghactl",
    version,
    after_long_help = FILES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true,
    long_about = "Look at a pgha cluster and change it.\n\n\
        pghactl asks the agents on the database hosts over their REST interface; it runs on any host that reaches \
        one of them. All agents are asked at once, and the one that has heard from ZooKeeper last is believed. \
        Agents that do not answer are named on standard error."
)]
pub(crate) struct Cli {
    /// Configuration file
    #[arg(short, long, global = true, value_name = "FILE", env = "PGHACTL_CONFIG")]
    pub(crate) config: Option<PathBuf>,

    /// Ask this agent, in place of those in the configuration file; may be repeated
    #[arg(short, long, global = true, value_name = "HOST:PORT")]
    pub(crate) agent: Vec<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the members: who leads, who follows, and how far behind
    List(List),
    /// Show the members in the order of replication
    Topology(Watch),
    /// Say why each member is what it is: its last decision, its lease, its watchdog
    Why(Why),
    /// List what members had written and the cluster had not when they came back, and where it is kept
    #[command(
        long_about = "List what members had written and the cluster had not when they came back, and where it is \
        kept.\n\n\
        A primary that is cut off may commit what nobody else has; when it comes back, that is rewound. Its WAL stays \
        in a directory on its host. With synchronous mode no client was told of these transactions."
    )]
    Discarded(Discarded),
    /// Hand over from a healthy leader to a standby; nothing is lost
    #[command(long_about = "Hand over from a healthy leader to a standby.\n\n\
        The leader stops accepting writes, waits until the standby has everything, and steps down: nothing that was \
        acknowledged is lost. Without --candidate the cluster chooses among the standbys that may take over. \
        The cluster is shown before and after.")]
    Switchover(Switchover),
    /// Make a standby the leader though there is no healthy leader; may lose commits
    #[command(long_about = "Make a standby the leader though there is no healthy leader.\n\n\
        For the case that the cluster does not do so by itself. If the candidate is not a synchronous standby, commits \
        that were acknowledged and that it has not received are lost. While the leader is healthy use `switchover`.")]
    Failover(Failover),
    /// Suspend failover, for maintenance, until `resume`
    #[command(long_about = "Suspend failover, for maintenance, until `resume`.\n\n\
        Nobody takes over, and no standby is started, redirected or made anew. A primary is still stopped when its lease \
        ends, and one whose Postgres dies is started again. A switchover needs --candidate meanwhile.")]
    Pause,
    /// Act on the cluster again
    Resume,
    /// Copy a standby's data anew, and remove the old
    #[command(long_about = "Copy a standby's data anew, and remove the old.\n\n\
        The copy is made beside the old data: the disk must have room for both. The old data is removed when the copy \
        streams; what only this member had is lost then, except for WAL that `pghactl discarded` lists.")]
    Reinit(Reinit),
    /// Restart the Postgres of a member
    Restart(Restart),
    /// Show or change the settings of the cluster
    #[command(subcommand)]
    Config(Config),
    /// Show every change of timeline: where, why, when, and who led from then on
    History(Output),
    /// Show the versions of pghactl, of every agent and of every Postgres
    Version,
}

/// How rows are printed.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// How to print
    #[arg(short, long, value_enum, default_value = "pretty")]
    pub(crate) format: Format,
}

/// Whether to print again and again.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Print again every 2 seconds
    #[arg(short = 'W')]
    pub(crate) every_two_seconds: bool,

    /// Print again every so many seconds
    #[arg(short, long, value_name = "SECONDS", conflicts_with = "every_two_seconds", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) watch: Option<u64>,
}

impl Watch {
    /// Time between two prints; `None`: print once.
    pub(crate) fn pause(&self) -> Option<Millis> {
        let two = self.every_two_seconds.then_some(2);
        self.watch.or(two).map(Millis::from_secs)
    }
}

/// `pghactl list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Show the columns for restarts and tags even if they are empty
    #[arg(short, long)]
    pub(crate) extended: bool,

    #[command(flatten)]
    pub(crate) output: Output,

    #[command(flatten)]
    pub(crate) watch: Watch,
}

/// `pghactl why`.
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// Only this member
    #[arg(value_parser = node_name)]
    pub(crate) member: Option<NodeName>,
}

/// `pghactl discarded`.
#[derive(Debug, Args)]
pub(crate) struct Discarded {
    /// Only this member
    #[arg(value_parser = node_name)]
    pub(crate) member: Option<NodeName>,

    /// One by one: when each transaction was committed, and what it changed
    #[arg(short, long)]
    pub(crate) transactions: bool,
}

/// `pghactl switchover`.
#[derive(Debug, Args)]
pub(crate) struct Switchover {
    /// Who shall lead
    #[arg(long, value_name = "MEMBER", value_parser = node_name)]
    pub(crate) candidate: Option<NodeName>,

    /// Not now but then, as in 2026-01-01T03:00:00+00:00
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,

    /// Drop the switchover that is scheduled
    #[arg(long, conflicts_with_all = ["candidate", "at"])]
    pub(crate) cancel: bool,

    /// Do not ask for confirmation
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `pghactl failover`.
#[derive(Debug, Args)]
pub(crate) struct Failover {
    /// Who shall lead
    #[arg(long, value_name = "MEMBER", value_parser = node_name)]
    pub(crate) candidate: NodeName,

    /// Do not ask for confirmation
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `pghactl reinit`.
#[derive(Debug, Args)]
pub(crate) struct Reinit {
    /// The standby
    #[arg(value_parser = node_name)]
    pub(crate) member: NodeName,

    /// Do not ask for confirmation
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `pghactl restart`.
#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// The member
    #[arg(value_parser = node_name)]
    pub(crate) member: NodeName,

    /// Only if a changed setting waits for a restart
    #[arg(long)]
    pub(crate) pending: bool,

    /// Only if the member has this role
    #[arg(long, value_name = "ROLE", value_parser = ["primary", "replica"])]
    pub(crate) role: Option<String>,

    /// Only if its Postgres is older than this, as in 15.8
    #[arg(long, value_name = "VERSION")]
    pub(crate) older_than: Option<String>,

    /// How long Postgres may take, as in 90s or 5min
    #[arg(long, value_name = "LENGTH")]
    pub(crate) timeout: Option<Millis>,

    /// Not now but then, as in 2026-01-01T03:00:00+00:00; conditions are looked at when the time has come
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,

    /// Drop the restart that is scheduled
    #[arg(long, conflicts_with_all = ["pending", "role", "older_than", "timeout", "at"])]
    pub(crate) cancel: bool,

    /// Do not ask for confirmation
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// `pghactl config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print the settings as JSON
    Show,
    /// Change settings; all of them at once or none
    #[command(long_about = "Change settings; all of them at once or none.\n\n\
        KEY is the name of a setting, with dots for the levels: pause, maximum_lag_on_failover, \
        postgresql.parameters.work_mem. VALUE is JSON where it can be read as JSON, else text; null removes the \
        setting. A value that the agents would ignore is refused.")]
    Set {
        /// What to change
        #[arg(required = true, value_name = "KEY=VALUE")]
        assignments: Vec<Assignment>,
    },
}

fn node_name(text: &str) -> Result<NodeName, String> {
    NodeName::try_from(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn watching_has_two_spellings() {
        let pause = |arguments: &[&str]| match Cli::try_parse_from(arguments).map(|cli| cli.command) {
            Ok(Command::List(list)) => Ok(list.watch.pause()),
            other => Err(format!("{other:?}")),
        };
        assert_eq!(pause(&["pghactl", "list"]), Ok(None));
        assert_eq!(pause(&["pghactl", "list", "-W"]), Ok(Some(Millis(2000))));
        assert_eq!(pause(&["pghactl", "list", "--watch", "5"]), Ok(Some(Millis(5000))));
        assert!(pause(&["pghactl", "list", "-W", "-w", "5"]).is_err());
        assert!(pause(&["pghactl", "list", "-w", "0"]).is_err());
    }
}
