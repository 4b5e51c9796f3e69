//! `why` and `version`: what each member says of itself.

use std::collections::BTreeMap;

use jiff::{Timestamp, Unit};
use pgha_client::{Client, ClientError};
use pgha_core::name::NodeName;
use pgha_core::time::Millis;
use pgha_core::wire::PghaStatus;

use crate::agents::{Snapshot, agent_of, ask_each};
use crate::cli::Why;
use crate::failure::{Failure, Unanswered};
use crate::screen;
use crate::settings::Settings;

/// `pghactl why`.
pub(super) async fn why(settings: &Settings, arguments: &Why) -> Result<(), Failure> {
    let clients: Vec<Client> = agents_of(settings, arguments.member.as_ref()).await?.into_values().collect();
    let answers = ask_each(&clients, |agent| async move { agent.pgha().await }).await;
    let now = Timestamp::now();
    let (mut answered, mut unanswered) = (false, Vec::new());
    for (_, answer) in answers {
        match answer {
            Ok(status) => {
                answered = true;
                screen::say(&explanation(&status, now))?;
            }
            Err(error) => unanswered.push(error),
        }
    }
    if !answered {
        return Err(Failure::NoAnswer(unanswered));
    }
    for agent in unanswered {
        screen::warn(&agent.to_string())?;
    }
    Ok(())
}

/// The agent of one member, or those of all, by name.
pub(super) async fn agents_of(
    settings: &Settings,
    member: Option<&NodeName>,
) -> Result<BTreeMap<String, Client>, Failure> {
    let Some(name) = member else { return Ok(every_agent(settings).await) };
    let snapshot = Snapshot::take(settings).await?;
    Ok(BTreeMap::from([(name.to_string(), agent_of(snapshot.member(name.as_str())?)?)]))
}

/// The agents of all members; those of the configuration where the cluster says nothing.
async fn every_agent(settings: &Settings) -> BTreeMap<String, Client> {
    let members = match Snapshot::take(settings).await {
        Ok(snapshot) => snapshot.view.members,
        // Each agent can still say why it knows of no cluster.
        Err(_) => Vec::new(),
    };
    let known: BTreeMap<String, Client> =
        members.iter().filter_map(|member| Some((member.name.clone(), agent_of(member).ok()?))).collect();
    if known.is_empty() {
        let configured = settings.agents.iter();
        return configured.map(|agent| (agent.address().to_owned(), agent.clone())).collect();
    }
    known
}

fn explanation(status: &PghaStatus, now: Timestamp) -> String {
    let mut facts = vec![status.code.clone()];
    facts.push(match age(status, now) {
        Some(age) => format!("since {} ({age} ago)", status.since),
        None => format!("since {}", status.since),
    });
    if let Some(epoch) = status.epoch {
        facts.push(format!("epoch {epoch}"));
    }
    if let Some(lease) = status.lease_ms {
        facts.push(format!("lease holds {}", Millis(lease)));
    }
    facts.push(format!("watchdog {}", status.watchdog));
    format!("{}: {}\n    {}", status.name, status.reason, facts.join(", "))
}

/// How long the reason has held, in the two greatest units; `None` if that lies in the future.
fn age(status: &PghaStatus, now: Timestamp) -> Option<String> {
    let seconds = (now - status.since.at).total(Unit::Second).ok()?;
    if seconds < 0.0 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative; the age of a timestamp fits"
    )]
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    Some(match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    })
}

/// `pghactl version`.
pub(super) async fn version(settings: &Settings) -> Result<(), Failure> {
    screen::say(&format!("pghactl {}", env!("CARGO_PKG_VERSION")))?;
    let agents: Vec<Client> = every_agent(settings).await.into_values().collect();
    let answers = ask_each(&agents, |agent| async move { describe(&agent).await }).await;
    let (mut answered, mut unanswered): (bool, Vec<Unanswered>) = (false, Vec::new());
    for (_, answer) in answers {
        match answer {
            Ok(line) => {
                answered = true;
                screen::say(&line)?;
            }
            Err(error) => unanswered.push(error),
        }
    }
    if !answered {
        return Err(Failure::NoAnswer(unanswered));
    }
    for agent in unanswered {
        screen::warn(&agent.to_string())?;
    }
    Ok(())
}

async fn describe(agent: &Client) -> Result<String, ClientError> {
    let (about, status) = (agent.pgha().await?, agent.status().await?);
    let version = about.version.as_deref().unwrap_or("of an unknown version");
    let postgres = match status.server_version {
        Some(version) => format!("PostgreSQL {}.{}", version / 10_000, version % 10_000),
        None => format!("PostgreSQL {}", status.state),
    };
    Ok(format!("{}: pgha-agent {version}, {postgres}", about.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_in_two_lines() {
        let status = PghaStatus::parse(
            br#"{"name":"db1","reason":"I hold the lease","code":"leading","since":"2026-01-01T10:00:00+00:00",
                "epoch":7,"lease_ms":4321,"watchdog":"armed"}"#,
        )
        .unwrap();
        let at = |text: &str| explanation(&status, text.parse().unwrap());
        assert_eq!(
            at("2026-01-01T10:03:20Z"),
            "db1: I hold the lease\n    leading, since 2026-01-01T10:00:00+00:00 (3 min 20 s ago), epoch 7, lease holds \
             4321ms, watchdog armed"
        );
        assert!(at("2026-01-03T11:00:00Z").contains("(2 d 1 h ago)"));
        assert!(!at("2026-01-01T09:00:00Z").contains("ago"));
    }
}
