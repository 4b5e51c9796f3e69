//! `switchover` and `failover`: another leader.

use std::time::Duration;

use pgha_client::{Answer, Client};
use pgha_core::name::NodeName;
use pgha_core::wire::rest::{MemberView, SwitchoverBody, ViewRole};

use super::{leader_name, show_members};
use crate::agents::{Snapshot, agent_of, ask_any};
use crate::cli::{Failover, Switchover};
use crate::failure::Failure;
use crate::screen;
use crate::settings::Settings;

/// The member keys follow the new leader within a few heartbeats.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);
/// An agent that lives says within this time that another leads.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// `pghactl switchover`.
pub(super) async fn switchover(settings: &Settings, arguments: &Switchover) -> Result<(), Failure> {
    let credentials = settings.credentials()?;
    let before = Snapshot::take(settings).await?;
    before.warn_of_unanswered()?;
    let scope = &before.view.scope;
    if arguments.cancel {
        // What was scheduled is known to the leader first.
        let first = before.view.leader().and_then(|leader| agent_of(leader).ok());
        let cancel = |agent: Client| async move { agent.cancel_switchover().await };
        let answer = ask_any(first, settings, &credentials, cancel).await?;
        screen::say(&answer.text)?;
        return Ok(());
    }
    let leader = before.view.leader().ok_or_else(|| {
        Failure::Refused(format!(
            "cluster {scope} has no leader that could hand over; `pghactl why` says why, and `pghactl failover \
             --candidate MEMBER` makes one if the cluster does not"
        ))
    })?;
    let from = NodeName::try_from(leader.name.as_str()).map_err(|error| Failure::Refused(error.to_string()))?;
    if let Some(candidate) = &arguments.candidate {
        follower(&before, candidate)?;
    }
    show_members(&before)?;
    let to = match &arguments.candidate {
        Some(candidate) => candidate.to_string(),
        None => "a standby that the cluster chooses".to_owned(),
    };
    let when = arguments.at.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
    let question = format!("Hand over the lead of cluster {scope} from {from} to {to}{when}?");
    screen::confirm(&question, arguments.yes)?;

    let body = SwitchoverBody {
        leader: Some(from.clone()),
        candidate: arguments.candidate.clone(),
        scheduled_at: arguments.at.clone(),
    };
    let first = agent_of(leader).ok();
    let answer = ask_any(first, settings, &credentials, |agent| {
        let body = body.clone();
        async move { agent.switchover(&body).await }
    });
    let answer = answer_or_outcome(settings, Some(from.as_str()), arguments.candidate.as_ref(), answer).await?;
    finish(settings, Some(from.as_str()), answer).await
}

/// `pghactl failover`.
pub(super) async fn failover(settings: &Settings, arguments: &Failover) -> Result<(), Failure> {
    let credentials = settings.credentials()?;
    let before = Snapshot::take(settings).await?;
    before.warn_of_unanswered()?;
    let candidate = follower(&before, &arguments.candidate)?;
    show_members(&before)?;
    let warning = match candidate.role {
        ViewRole::SyncStandby => "",
        ViewRole::QuorumStandby => {
            "It may lack commits that others have, and is made leader all the same: they are lost. "
        }
        _ => "It is not a synchronous standby: commits that it has not received are lost. ",
    };
    let question =
        format!("Make {} the leader of cluster {}? {warning}Go ahead?", arguments.candidate, before.view.scope);
    screen::confirm(&question, arguments.yes)?;

    let body = SwitchoverBody { candidate: Some(arguments.candidate.clone()), ..SwitchoverBody::default() };
    let first = agent_of(candidate).ok();
    let answer = ask_any(first, settings, &credentials, |agent| {
        let body = body.clone();
        async move { agent.failover(&body).await }
    });
    let former = leader_name(&before.view);
    let answer = answer_or_outcome(settings, former, Some(&arguments.candidate), answer).await?;
    finish(settings, former, answer).await
}

/// The member of that name, unless it leads already.
fn follower<'a>(snapshot: &'a Snapshot, name: &NodeName) -> Result<&'a MemberView, Failure> {
    let member = snapshot.member(name.as_str())?;
    if member.role.is_leader() {
        return Err(Failure::Refused(format!("{name} is the leader already")));
    }
    Ok(member)
}

/// The agent's answer; or what became of the cluster, where the agent that was asked is lost before it can tell.
async fn answer_or_outcome(
    settings: &Settings,
    former: Option<&str>,
    candidate: Option<&NodeName>,
    answer: impl Future<Output = Result<Answer, Failure>>,
) -> Result<Answer, Failure> {
    let leader = tokio::select! {
        answer = answer => return answer,
        leader = overtaken(settings, former) => leader,
    };
    let lost = "the agent that was asked does not answer any more";
    match candidate {
        Some(candidate) if candidate.as_str() != leader => {
            Err(Failure::Refused(format!("{leader} has taken over, and not {candidate}; {lost}")))
        }
        _ => Ok(Answer { status: 200, text: format!("{leader} has taken over; {lost}") }),
    }
}

/// Waits until another than `former` has led for so long that whoever was asked must have said so.
async fn overtaken(settings: &Settings, former: Option<&str>) -> String {
    let mut since: Option<(String, tokio::time::Instant)> = None;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let seen = Snapshot::take(settings).await;
        let leader = seen.ok().and_then(|seen| leader_name(&seen.view).map(str::to_owned));
        since = match (leader.filter(|leader| former != Some(leader)), since) {
            (Some(leader), Some((same, since))) if leader == same => {
                if since.elapsed() >= ANSWERS_WITHIN {
                    return leader;
                }
                Some((same, since))
            }
            (Some(leader), _) => Some((leader, tokio::time::Instant::now())),
            (None, _) => None,
        };
    }
}

/// Shows what the agent said, and the cluster once it has another leader than `former`.
async fn finish(settings: &Settings, former: Option<&str>, answer: Answer) -> Result<(), Failure> {
    screen::say(&answer.text)?;
    let end = tokio::time::Instant::now() + SETTLES_WITHIN;
    loop {
        let after = Snapshot::take(settings).await;
        let settled = after.as_ref().is_ok_and(|after| {
            let leader = leader_name(&after.view);
            leader.is_some() && leader != former
        });
        // A switchover that is only scheduled (202) changes nothing now.
        if settled || answer.status != 200 || tokio::time::Instant::now() >= end {
            return show_members(&after?);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
