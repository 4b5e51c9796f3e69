//! Asks the agents, several at once, and tells apart who answered.

use std::future::Future;
use std::time::Duration;

use pgha_client::{Answer, Client, ClientError};
use pgha_core::name::SystemId;
use pgha_core::wire::rest::MemberView;
use pgha_core::wire::{ClusterView, PatroniStatus};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::failure::{Failure, Unanswered};
use crate::screen;
use crate::settings::{Credentials, Settings};

/// Once somebody has answered, the others get this much longer.
const GRACE: Duration = Duration::from_millis(700);

/// The cluster, as the agent that knows it best sees it.
pub(crate) struct Snapshot {
    pub(crate) view: ClusterView,
    pub(crate) system_id: Option<SystemId>,
    /// Agents that gave no usable answer.
    pub(crate) unanswered: Vec<Unanswered>,
}

impl Snapshot {
    /// Asks every agent for its view and takes that of the one that has heard from `ZooKeeper` last.
    pub(crate) async fn take(settings: &Settings) -> Result<Self, Failure> {
        let answers =
            ask_each(&settings.agents, |agent| async move { tokio::try_join!(agent.cluster(), agent.status()) });
        let mut unanswered = Vec::new();
        let mut best: Option<(ClusterView, PatroniStatus)> = None;
        let mut system_id = None;
        for (agent, answer) in answers.await {
            match answer {
                Err(error) => unanswered.push(error),
                Ok((view, _)) if is_other_cluster(settings, &view) => unanswered.push(Unanswered(format!(
                    "{agent}: this agent belongs to cluster `{}`: correct `agents` in pghactl.toml",
                    view.scope
                ))),
                Ok((view, status)) => {
                    system_id = system_id.or(status.database_system_identifier);
                    let older = best.as_ref().is_some_and(|(_, best)| best.dcs_last_seen >= status.dcs_last_seen);
                    if !older {
                        best = Some((view, status));
                    }
                }
            }
        }
        match best {
            Some((view, _)) => Ok(Self { view, system_id, unanswered }),
            None => Err(Failure::NoAnswer(unanswered)),
        }
    }

    /// Says on standard error which agents gave no usable answer.
    pub(crate) fn warn_of_unanswered(&self) -> Result<(), Failure> {
        for agent in &self.unanswered {
            screen::warn(&agent.to_string())?;
        }
        Ok(())
    }

    /// The member of that name; the failure lists those there are.
    pub(crate) fn member(&self, name: &str) -> Result<&MemberView, Failure> {
        self.view.member(name).ok_or_else(|| {
            let names: Vec<&str> = self.view.members.iter().map(|member| member.name.as_str()).collect();
            Failure::Refused(format!(
                "`{name}` is not a member of cluster {}; its members are: {}",
                self.view.scope,
                if names.is_empty() { "none".to_owned() } else { names.join(", ") }
            ))
        })
    }
}

fn is_other_cluster(settings: &Settings, view: &ClusterView) -> bool {
    let expected = settings.cluster.as_deref();
    !view.scope.is_empty() && expected.is_some_and(|expected| expected != view.scope)
}

/// The agent of a member.
pub(crate) fn agent_of(member: &MemberView) -> Result<Client, Failure> {
    let address = member.agent().ok_or_else(|| {
        Failure::Refused(format!(
            "member {} does not say where its agent listens (api_url = {:?})",
            member.name,
            member.api_url.as_deref().unwrap_or_default()
        ))
    })?;
    Ok(Client::new(&address)?)
}

/// Makes one call to every agent, all at once; the answers come in the agents' order.
pub(crate) async fn ask_each<T, F>(
    agents: &[Client],
    call: impl Fn(Client) -> F,
) -> Vec<(String, Result<T, Unanswered>)>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ClientError>> + Send + 'static,
{
    let mut calls = JoinSet::new();
    for (index, agent) in agents.iter().enumerate() {
        let answer = call(agent.clone());
        calls.spawn(async move { (index, answer.await) });
    }
    let mut answers: Vec<Option<Result<T, ClientError>>> = agents.iter().map(|_| None).collect();
    let mut patience: Option<Instant> = None;
    loop {
        let next = match patience {
            None => calls.join_next().await,
            Some(end) => tokio::select! {
                next = calls.join_next() => next,
                () = sleep_until(end) => None,
            },
        };
        match next {
            None => break,
            Some(Ok((index, answer))) => {
                if answer.is_ok() && patience.is_none() {
                    patience = Some(Instant::now() + GRACE);
                }
                if let Some(place) = answers.get_mut(index) {
                    *place = Some(answer);
                }
            }
            // The call panicked; its place stays empty and the agent counts as not answering.
            Some(Err(_)) => {}
        }
    }
    let named = agents.iter().zip(answers).map(|(agent, answer)| {
        let answer = match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(Unanswered(error.to_string())),
            None => Err(Unanswered(format!(
                "{}: still no answer {GRACE:?} after another agent had answered",
                agent.address()
            ))),
        };
        (agent.address().to_owned(), answer)
    });
    named.collect()
}

/// An agent that runs answers within this. Where none does, its port may be open all the same: systemd keeps it.
const PRESENCE: Duration = Duration::from_secs(2);

/// Sends a request that any agent can take: to `first`, then, as long as it cannot have been sent, to the others.
pub(crate) async fn ask_any<F>(
    first: Option<Client>,
    settings: &Settings,
    credentials: &Credentials,
    call: impl Fn(Client) -> F,
) -> Result<Answer, Failure>
where
    F: Future<Output = Result<Answer, ClientError>>,
{
    let first_address = first.as_ref().map(|agent| agent.address().to_owned());
    let others = settings.agents.iter().filter(|agent| Some(agent.address()) != first_address.as_deref());
    let mut unanswered = Vec::new();
    for agent in first.into_iter().chain(others.cloned()) {
        if tokio::time::timeout(PRESENCE, agent.pgha()).await.is_err() {
            let why = format!("no answer within {PRESENCE:?}; look at `systemctl status pgha-agent` there");
            unanswered.push(Unanswered(format!("{}: {why}", agent.address())));
            continue;
        }
        match call(credentials.give_to(agent)).await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.was_not_sent() => unanswered.push(Unanswered(error.to_string())),
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::NoAnswer(unanswered))
}
