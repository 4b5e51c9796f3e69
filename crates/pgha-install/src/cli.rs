//! The command line.

use std::path::PathBuf;

use clap::Parser;

const AFTER: &str = "\
WHAT IT DOES
  Connects to every host of the inventory over SSH, looks at it, compares
  what is there with what the inventory asks for, prints the differences,
  removes them and checks the finished cluster through the balancer. Running
  it again changes nothing where nothing differs. An interrupted run is
  resumed by running it again.

FILES
  STEM is the inventory's path without `.toml`.
  STEM.secrets.toml   passwords, made once; keep it with the inventory
  STEM.pki/           the cluster's own authority, the hosts' certificates
  ~/.ssh/known_hosts  keys of the hosts, unless ssh.known_hosts of the
                      inventory names another file

EXIT STATUS
  0  the cluster is as the inventory says (--plan: the plan was made)
  1  failed, declined or refused by a check; the message names host, step,
     cause and what to try
  2  wrong usage, or an inventory or program that cannot be used
  3  with --plan --check: there are differences
  4  some hosts failed, others have gone on; run again when the cause is
     removed

EXAMPLES
  pgha-install inventory.toml                    install, or bring up to date
  pgha-install inventory.toml --plan             show what would change
  pgha-install inventory.toml --plan --check     the same for scripts
  pgha-install inventory.toml --accept-host-key  first contact with new hosts

docs/install.md describes every section and key of the inventory.";

/// Install a highly available PostgreSQL cluster on plain hosts, over SSH.
#[derive(Debug, Parser)]
#[command(name = "pgha-install", version, about, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Cli {
    /// The inventory: hosts, their roles, a few choices (TOML)
    #[arg(value_name = "INVENTORY")]
    pub(crate) inventory: PathBuf,

    /// Print the differences and change nothing
    #[arg(long)]
    pub(crate) plan: bool,

    /// With --plan: exit with status 3 if there are differences
    #[arg(long, requires = "plan")]
    pub(crate) check: bool,

    /// Do not ask before something that disturbs a running cluster
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,

    /// Accept unknown host keys and record them; a changed key is refused all the same
    #[arg(long)]
    pub(crate) accept_host_key: bool,

    /// Where the pgha-agent, pgha-guard and pghactl to install are [default: beside pgha-install]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) programs: Option<PathBuf>,

    /// Print events as JSON, one object per line
    #[arg(long)]
    pub(crate) json: bool,
}
