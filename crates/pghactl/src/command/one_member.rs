//! `reinit` and `restart`: what is done to a single member.

use pgha_core::wire::rest::RestartBody;

use super::show_members;
use crate::agents::{Snapshot, agent_of};
use crate::cli::{Reinit, Restart};
use crate::failure::Failure;
use crate::screen;
use crate::settings::Settings;

/// `pghactl reinit`.
pub(super) async fn reinit(settings: &Settings, arguments: &Reinit) -> Result<(), Failure> {
    let credentials = settings.credentials()?;
    let snapshot = Snapshot::take(settings).await?;
    snapshot.warn_of_unanswered()?;
    let member = snapshot.member(arguments.member.as_str())?;
    if member.role.is_leader() {
        return Err(Failure::Refused(format!(
            "{} is the leader: its data are the cluster's. Hand over first, with `pghactl switchover`",
            member.name
        )));
    }
    let agent = credentials.give_to(agent_of(member)?);
    show_members(&snapshot)?;
    let question = format!("Remove the data of {} and fetch them anew?", member.name);
    screen::confirm(&question, arguments.yes)?;
    let answer = agent.reinitialize().await?;
    screen::say(&format!("{}: {}", member.name, answer.text))?;
    screen::say("`pghactl list -W` shows when it streams again.")?;
    Ok(())
}

/// `pghactl restart`.
pub(super) async fn restart(settings: &Settings, arguments: &Restart) -> Result<(), Failure> {
    let credentials = settings.credentials()?;
    let snapshot = Snapshot::take(settings).await?;
    snapshot.warn_of_unanswered()?;
    let member = snapshot.member(arguments.member.as_str())?;
    let agent = credentials.give_to(agent_of(member)?);
    if arguments.cancel {
        let answer = agent.cancel_restart().await?;
        screen::say(&format!("{}: {}", member.name, answer.text))?;
        return Ok(());
    }
    show_members(&snapshot)?;
    let warning = if member.role.is_leader() { " It is the leader: writes stop meanwhile." } else { "" };
    let when = arguments.at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
    let question = format!("Restart the Postgres of {}{when}?{warning}", member.name);
    screen::confirm(&question, arguments.yes)?;
    let body = RestartBody {
        role: arguments.role.clone(),
        postgres_version: arguments.older_than.clone(),
        restart_pending: arguments.pending,
        timeout: arguments.timeout,
        schedule: arguments.at.clone(),
    };
    let answer = agent.restart(&body).await?;
    screen::say(&format!("{}: {}", member.name, answer.text))?;
    Ok(())
}
