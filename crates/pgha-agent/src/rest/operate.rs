//! Calls that change something. Each ends as a document in ZooKeeper or as a request to the loop.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use pgha_core::observation::Request;
use pgha_core::restart::{Conditions, Member, Scheduled};
use pgha_core::wire::rest::{FailsafeBody, RestartBody, SwitchoverBody};
use pgha_core::wire::{ClusterConfig, FailoverRequest, IsoTime, MemberState, ParseIsoTimeError, Paths};
use pgha_guard::clock;
use tokio::sync::oneshot;

use super::{Api, json};
use crate::agent::{Command, Published};
use crate::dcs::{DcsError, Write};

/// A call may wait this long for a switchover to be complete.
const SWITCHOVER: Duration = Duration::from_secs(60);

pub(super) async fn operate(api: &Api, published: &Published, method: &Method, path: &str, body: &Bytes) -> Response {
    let body = body.as_ref();
    match (method.as_str(), path) {
        ("PATCH", "/config") => patch_config(api, published, body).await,
        ("PUT", "/config") => put_config(api, published, body).await,
        ("POST", "/switchover") => switchover(api, published, body, true).await,
        ("POST", "/failover") => switchover(api, published, body, false).await,
        ("DELETE", "/switchover") => cancel_switchover(api, published).await,
        ("POST", "/restart") => restart(api, published, body).await,
        ("DELETE", "/restart") => cancel_restart(api, published).await,
        ("POST", "/failsafe") => failsafe(api, published, body),
        ("POST", "/reinitialize") => reinitialize(api, published).await,
        ("POST", "/reload") => file(api, Command::Reload)
            .await
            .unwrap_or_else(|| (StatusCode::ACCEPTED, "reload scheduled").into_response()),
        _ => (StatusCode::NOT_FOUND, "no such resource").into_response(),
    }
}

/// Hands a command to the loop; `Some` is the refusal.
async fn file(api: &Api, command: Command) -> Option<Response> {
    let sent = tokio::time::timeout(Duration::from_secs(5), api.commands.send(command)).await;
    (!matches!(sent, Ok(Ok(())))).then(|| (StatusCode::SERVICE_UNAVAILABLE, "the agent is busy").into_response())
}

/// Writes a document through the loop.
async fn write(api: &Api, path: String, data: Vec<u8>, expect: Option<i32>) -> Result<(), Box<Response>> {
    let (answer, answered) = oneshot::channel();
    if let Some(refusal) = file(api, Command::Write(Write::Free { path, data, expect }, answer)).await {
        return Err(Box::new(refusal));
    }
    match answered.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ DcsError::Changed(_))) => {
            Err(Box::new((StatusCode::CONFLICT, error.to_string()).into_response()))
        }
        Ok(Err(error)) => Err(Box::new((StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response())),
        Err(_) => Err(Box::new((StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping").into_response())),
    }
}

fn paths(api: &Api) -> Paths {
    Paths::new(&api.context.config.namespace, &api.context.config.cluster)
}

fn bad(why: impl std::fmt::Display) -> Response {
    (StatusCode::BAD_REQUEST, why.to_string()).into_response()
}

fn object(body: &[u8]) -> Result<serde_json::Map<String, serde_json::Value>, Box<Response>> {
    serde_json::from_slice(body).map_err(|error| Box::new(bad(format!("the body is not a JSON object: {error}"))))
}

async fn patch_config(api: &Api, published: &Published, body: &[u8]) -> Response {
    let patch = match object(body) {
        Ok(patch) => patch,
        Err(refusal) => return *refusal,
    };
    let Some(config) = &published.documents.config else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the cluster has no settings yet").into_response();
    };
    save_config(api, published, &config.patched(&patch)).await
}

async fn put_config(api: &Api, published: &Published, body: &[u8]) -> Response {
    match object(body) {
        Ok(settings) => save_config(api, published, &ClusterConfig::new(settings)).await,
        Err(refusal) => *refusal,
    }
}

async fn save_config(api: &Api, published: &Published, config: &ClusterConfig) -> Response {
    // A setting that would be read as its default is refused here, where somebody is there to read why.
    if let [warning, ..] = config.warnings() {
        return bad(warning);
    }
    match write(api, paths(api).config(), config.render(), published.documents.config_version).await {
        Ok(()) => json(StatusCode::OK, config.raw()),
        Err(refusal) => *refusal,
    }
}

async fn switchover(api: &Api, published: &Published, body: &[u8], planned: bool) -> Response {
    let asked = match SwitchoverBody::parse(body) {
        Ok(asked) => asked,
        Err(error) => return bad(error),
    };
    let leader = published.documents.leader.clone();
    let planned = planned || asked.leader.is_some();
    let scheduled_at = match asked.scheduled_at.as_deref().map(str::parse::<IsoTime>).transpose() {
        Ok(time) => time,
        Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    };
    if scheduled_at.as_ref().is_some_and(|time| time.at <= Timestamp::now()) {
        return (StatusCode::UNPROCESSABLE_ENTITY, "Cannot schedule switchover in the past").into_response();
    }
    if let Err(why) = possible(published, &asked, planned) {
        return (StatusCode::PRECONDITION_FAILED, why).into_response();
    }
    let request = FailoverRequest {
        leader: planned.then(|| leader.clone()).flatten(),
        member: asked.candidate.clone(),
        scheduled_at,
    };
    let expect = published.documents.failover_version;
    if let Err(refusal) = write(api, paths(api).failover(), request.render(), expect).await {
        return *refusal;
    }
    if scheduled_at.is_some() {
        return (StatusCode::ACCEPTED, "Switchover scheduled").into_response();
    }
    followed(api, leader.as_ref(), asked.candidate.as_ref(), planned).await
}

/// Refusals that can be told at once. The leader checks again, and has the last word.
fn possible(published: &Published, asked: &SwitchoverBody, planned: bool) -> Result<(), String> {
    let documents = &published.documents;
    let what = if planned { "switchover" } else { "failover" };
    match (&documents.leader, &asked.leader) {
        (None, _) if planned => return Err("switchover is not possible: the cluster has no leader".into()),
        (Some(leader), Some(named)) if leader != named => {
            return Err(format!("{what} is not possible: the leader is {leader}, not {named}"));
        }
        _ => {}
    }
    match &asked.candidate {
        None if !planned => Err("failover is not possible: it needs a candidate".into()),
        None if published.status.pause && asked.scheduled_at.is_none() => {
            Err("switchover is not possible: the cluster is paused, and it needs a candidate then".into())
        }
        None => Ok(()),
        Some(candidate) if documents.leader.as_ref() == Some(candidate) => {
            Err(format!("{what} is not possible: {candidate} is the leader already"))
        }
        Some(candidate) => match documents.members.get(candidate) {
            None => Err(format!("{what} is not possible: there is no member {candidate}")),
            Some(member) if member.tags.nofailover() => {
                Err(format!("{what} is not possible: {candidate} is tagged nofailover"))
            }
            Some(member) if member.state != MemberState::Running => {
                Err(format!("{what} is not possible: {candidate} is {}", member.state))
            }
            Some(_) => Ok(()),
        },
    }
}

/// Waits until another leads, or the request has been refused.
async fn followed(
    api: &Api,
    old: Option<&pgha_core::name::NodeName>,
    candidate: Option<&pgha_core::name::NodeName>,
    planned: bool,
) -> Response {
    let mut published = api.published.clone();
    let did = if planned { "switched" } else { "failed" };
    let outcome = tokio::time::timeout(SWITCHOVER, async {
        let mut filed = false;
        loop {
            if published.changed().await.is_err() {
                return (StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping".to_owned());
            }
            let now = published.borrow_and_update().clone();
            let documents = &now.documents;
            filed |= documents.failover.is_some();
            if let Some(leader) = documents.leader.as_ref().filter(|leader| Some(*leader) != old) {
                let runs =
                    documents.members.get(leader).is_some_and(|it| it.role == pgha_core::wire::MemberRole::Primary);
                if runs {
                    return match candidate {
                        Some(wanted) if wanted != leader => {
                            (StatusCode::OK, format!("{did} over to \"{leader}\" instead of \"{wanted}\""))
                        }
                        _ => (StatusCode::OK, format!("Successfully {did} over to \"{leader}\"")),
                    };
                }
            } else if filed && documents.failover.is_none() && documents.leader.as_ref() == old {
                let why = now.reason.as_ref().map(|(reason, _)| reason.to_string()).unwrap_or_default();
                return (StatusCode::PRECONDITION_FAILED, format!("not done: {why}"));
            }
        }
    })
    .await;
    outcome.unwrap_or((StatusCode::SERVICE_UNAVAILABLE, format!("not complete within {SWITCHOVER:?}"))).into_response()
}

/// A primary without ZooKeeper asks for this member's word not to lead. Answered without the loop: it may be waiting for
/// ZooKeeper itself.
fn failsafe(api: &Api, published: &Published, body: &[u8]) -> Response {
    let asked = match FailsafeBody::parse(body) {
        Ok(asked) => asked,
        Err(error) => return bad(error),
    };
    let Some(epoch) = asked.epoch else {
        return bad("without `epoch`, the number of the leadership, nothing is promised");
    };
    match api.context.promises.give(asked.name.clone(), epoch, clock::now(), published.timing.ttl) {
        Ok(()) => {
            tracing::debug!(to = %asked.name, %epoch, "promised not to lead");
            let lsn = published.position.map_or(0, |position| position.lsn.0);
            (StatusCode::OK, [("lsn", lsn.to_string())], "Accepted").into_response()
        }
        Err(refusal) => {
            tracing::warn!(to = %asked.name, %epoch, %refusal, "gave no promise not to lead");
            (StatusCode::INTERNAL_SERVER_ERROR, refusal.to_string()).into_response()
        }
    }
}

async fn cancel_switchover(api: &Api, published: &Published) -> Response {
    match (&published.documents.failover, published.documents.failover_version) {
        (Some(request), Some(version)) if request.scheduled_at.is_some() => {
            let data = FailoverRequest::default().render();
            match write(api, paths(api).failover(), data, Some(version)).await {
                Ok(()) => (StatusCode::OK, "scheduled switchover deleted").into_response(),
                Err(refusal) => *refusal,
            }
        }
        _ => (StatusCode::NOT_FOUND, "no switchover is scheduled").into_response(),
    }
}

async fn restart(api: &Api, published: &Published, body: &[u8]) -> Response {
    let asked = if body.is_empty() { Ok(RestartBody::default()) } else { RestartBody::parse(body) };
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return bad(error),
    };
    let conditions = match Conditions::of(&asked) {
        Ok(conditions) => conditions,
        Err(error) => return bad(error),
    };
    if let Some(text) = asked.schedule.clone() {
        return schedule_restart(api, published, asked, &text).await;
    }
    let status = &published.status;
    let member = Member { role: status.role.as_str(), version: status.server_version, pending: status.pending_restart };
    if let Some(why) = conditions.unmet(&member) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("restart conditions are not satisfied: {why}"))
            .into_response();
    }
    let before = published.status.postmaster_start_time.clone();
    if let Some(refusal) = file(api, Command::Request(Request::Restart)).await {
        return refusal;
    }
    let mut published = api.published.clone();
    let patience = asked.timeout.map_or(Duration::from_secs(60), pgha_core::time::Millis::duration);
    let restarted = tokio::time::timeout(patience, async {
        while published.changed().await.is_ok() {
            let now = published.borrow_and_update();
            let started = &now.status.postmaster_start_time;
            if now.running && started.is_some() && *started != before {
                return true;
            }
        }
        false
    });
    match restarted.await {
        Ok(true) => (StatusCode::OK, "restarted successfully").into_response(),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "restart failed; see the agent's log").into_response(),
    }
}

async fn schedule_restart(api: &Api, published: &Published, body: RestartBody, text: &str) -> Response {
    let at: IsoTime = match text.parse() {
        Ok(at) => at,
        Err(error @ ParseIsoTimeError::NoOffset(_)) => return bad(error),
        Err(error) => return (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    };
    if at.at <= Timestamp::now() {
        return (StatusCode::UNPROCESSABLE_ENTITY, "Cannot schedule restart in the past").into_response();
    }
    if published.status.pause {
        return (StatusCode::INTERNAL_SERVER_ERROR, "Can't schedule restart in the paused state").into_response();
    }
    if published.status.scheduled_restart.is_some() {
        return (StatusCode::CONFLICT, "Another restart is already scheduled").into_response();
    }
    let scheduled = Scheduled { at, body, started: published.status.postmaster_start_time.clone() };
    file(api, Command::Schedule(Some(scheduled)))
        .await
        .unwrap_or_else(|| (StatusCode::ACCEPTED, "Restart scheduled").into_response())
}

async fn cancel_restart(api: &Api, published: &Published) -> Response {
    if published.status.scheduled_restart.is_none() {
        return (StatusCode::NOT_FOUND, "no restarts are scheduled").into_response();
    }
    file(api, Command::Schedule(None))
        .await
        .unwrap_or_else(|| (StatusCode::OK, "scheduled restart deleted").into_response())
}

async fn reinitialize(api: &Api, published: &Published) -> Response {
    if published.leads {
        return (StatusCode::SERVICE_UNAVAILABLE, "I am the leader, can not reinitialize").into_response();
    }
    if published.documents.leader.is_none() {
        return (StatusCode::SERVICE_UNAVAILABLE, "Cluster has no leader, can not reinitialize").into_response();
    }
    if let Some(job) = published.job {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{job} already in progress")).into_response();
    }
    file(api, Command::Request(Request::Reinitialize))
        .await
        .unwrap_or_else(|| (StatusCode::OK, "reinitialize started").into_response())
}
