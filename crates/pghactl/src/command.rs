//! One module per family of commands.

mod change_leader;
mod config;
mod discarded;
mod explain;
mod one_member;
mod show;

use pgha_core::wire::ClusterView;

use crate::agents::Snapshot;
use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::members::{self, Style};
use crate::screen;
use crate::settings::Settings;
use crate::table::Format;

/// Does what the command line asks for.
pub(crate) async fn run(cli: &Cli) -> Result<(), Failure> {
    let settings = Settings::load(cli)?;
    match &cli.command {
        Command::List(list) => show::list(&settings, list).await,
        Command::Topology(watch) => show::topology(&settings, watch).await,
        Command::History(output) => show::history(&settings, output).await,
        Command::Why(why) => explain::why(&settings, why).await,
        Command::Discarded(arguments) => discarded::discarded(&settings, arguments).await,
        Command::Version => explain::version(&settings).await,
        Command::Switchover(arguments) => change_leader::switchover(&settings, arguments).await,
        Command::Failover(arguments) => change_leader::failover(&settings, arguments).await,
        Command::Pause => config::pause(&settings, true).await,
        Command::Resume => config::pause(&settings, false).await,
        Command::Config(arguments) => config::config(&settings, arguments).await,
        Command::Reinit(arguments) => one_member::reinit(&settings, arguments).await,
        Command::Restart(arguments) => one_member::restart(&settings, arguments).await,
    }
}

/// The members, as `list` shows them.
fn show_members(snapshot: &Snapshot) -> Result<(), Failure> {
    let style = Style { format: Format::Pretty, tree: false, extended: false };
    screen::say(&members::render(&snapshot.view, snapshot.system_id, style))?;
    Ok(())
}

/// The leader's name, if there is one.
fn leader_name(view: &ClusterView) -> Option<&str> {
    view.leader().map(|leader| leader.name.as_str())
}
