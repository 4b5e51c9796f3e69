//! `config`, `pause` and `resume`: the settings of the whole cluster.

use pgha_client::{Client, ClientError};
use pgha_core::wire::ClusterConfig;
use serde_json::{Map, Value, json};

use crate::agents::{Snapshot, agent_of};
use crate::cli::Config;
use crate::config_key::Assignment;
use crate::failure::{Failure, Unanswered};
use crate::screen;
use crate::settings::{Credentials, Settings};

/// `pghactl config`.
pub(super) async fn config(settings: &Settings, arguments: &Config) -> Result<(), Failure> {
    match arguments {
        Config::Show => show(settings).await,
        Config::Set { assignments } => set(settings, assignments).await,
    }
}

async fn show(settings: &Settings) -> Result<(), Failure> {
    let config = read(settings).await?;
    let text = serde_json::to_string_pretty(config.raw()).map_err(std::io::Error::from)?;
    screen::say(&text)?;
    for warning in config.warnings() {
        screen::warn(warning)?;
    }
    Ok(())
}

async fn set(settings: &Settings, assignments: &[Assignment]) -> Result<(), Failure> {
    let credentials = settings.credentials()?;
    let before = read(settings).await?;
    let mut patch = Map::new();
    for assignment in assignments {
        assignment.add_to(&mut patch);
    }
    let planned = before.patched(&patch);
    let new_warnings: Vec<&str> =
        planned.warnings().iter().filter(|warning| !before.warnings().contains(warning)).map(String::as_str).collect();
    if !new_warnings.is_empty() {
        return Err(Failure::Refused(format!(
            "nothing was changed, because the agents would not use it:\n  {}",
            new_warnings.join("\n  ")
        )));
    }
    for key in planned.unread().iter().filter(|key| !before.unread().contains(key)) {
        screen::warn(&format!("{key} is no setting that pgha reads; it is stored and has no effect (mistyped?)"))?;
    }
    if planned == before {
        return Ok(screen::say("The settings are so already; nothing was changed.")?);
    }
    let after = write(settings, &credentials, &patch).await?;
    for assignment in assignments {
        let text = |config: &ClusterConfig| {
            let value = assignment.value_in(config.raw());
            value.map_or_else(|| "unset".to_owned(), Value::to_string)
        };
        let (old, new) = (text(&before), text(&after));
        if old != new {
            screen::say(&format!("{}: {old} -> {new}", assignment.key()))?;
        }
    }
    Ok(())
}

/// `pghactl pause` and `pghactl resume`.
pub(super) async fn pause(settings: &Settings, on: bool) -> Result<(), Failure> {
    let credentials = settings.credentials()?;
    if read(settings).await?.settings().pause == on {
        let state = if on { "paused already" } else { "not paused" };
        return Ok(screen::say(&format!("The cluster is {state}; nothing was changed."))?);
    }
    // Patroni's tools remove the key rather than set it to false.
    let value = if on { json!(true) } else { Value::Null };
    let patch = Map::from_iter([("pause".to_owned(), value)]);
    let after = write(settings, &credentials, &patch).await?;
    if after.settings().pause != on {
        return Err(Failure::Refused(
            "the agent stored the change, but somebody else changed `pause` at the same time".to_owned(),
        ));
    }
    screen::say(if on {
        "The cluster is paused: nobody takes over until `pghactl resume`."
    } else {
        "The cluster is no longer paused."
    })?;
    Ok(())
}

/// The settings, from the first agent that knows them.
async fn read(settings: &Settings) -> Result<ClusterConfig, Failure> {
    let mut unanswered = Vec::new();
    for agent in leader_first(settings).await? {
        match agent.config().await {
            Ok(config) => return Ok(config),
            Err(error) => unanswered.push(Unanswered(error.to_string())),
        }
    }
    Err(Failure::NoAnswer(unanswered))
}

/// Patches the settings through the first agent that can.
async fn write(
    settings: &Settings,
    credentials: &Credentials,
    patch: &Map<String, Value>,
) -> Result<ClusterConfig, Failure> {
    let mut unanswered = Vec::new();
    for agent in leader_first(settings).await? {
        match credentials.give_to(agent).patch_config(patch).await {
            Ok(config) => return Ok(config),
            Err(error) if may_ask_another(&error) => unanswered.push(Unanswered(error.to_string())),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::NoAnswer(unanswered))
}

/// The agents, the leader's first: it is certain to be connected to `ZooKeeper`.
async fn leader_first(settings: &Settings) -> Result<Vec<Client>, Failure> {
    let snapshot = Snapshot::take(settings).await?;
    let leader = snapshot.view.leader().and_then(|leader| agent_of(leader).ok());
    let mut order = Vec::from_iter(leader);
    let other = |agent: &&Client| order.iter().all(|leader: &Client| leader.address() != agent.address());
    let others: Vec<Client> = settings.agents.iter().filter(other).cloned().collect();
    order.extend(others);
    Ok(order)
}

/// A patch is the same whoever applies it and however often, so a lost answer and a lost race are no hindrance.
fn may_ask_another(error: &ClientError) -> bool {
    let refused_for_now = matches!(error.status(), Some(409 | 502 | 503));
    let lost = matches!(error, ClientError::Timeout { .. } | ClientError::Broken { .. });
    error.was_not_sent() || refused_for_now || lost
}
