//! Health checks: which path answers 200 when (Patroni's paths; see docs/rest.md).

use std::time::Duration;

use axum::http::HeaderMap;
use pgha_core::time::{Instant, Millis};
use pgha_core::wire::rest::Xlog;
use pgha_core::wire::{MemberRole, MemberState, SynchronousMode};

use crate::agent::Published;

/// For so long a check that fails is kept waiting for the moment when it does not, or the agent has looked. Less than the `timeout check` of any
/// `haproxy.cfg` that pgha-install writes.
pub(super) const HOLD: Duration = Duration::from_millis(750);

/// The balancer that asks has this server down, so that an answer which tells it nothing new may come late.
///
/// HAProxy says so with `http-check send-state`: `DOWN`, `DOWN 1/2`, `UP 2/3`, `NOLB` and more, before a semicolon
/// (configuration manual, section 4.2).
pub(super) fn has_down(headers: &HeaderMap) -> bool {
    let state = headers.get("x-haproxy-server-state").and_then(|state| state.to_str().ok());
    state.is_some_and(|state| state.starts_with("DOWN"))
}

/// `None`: there is no such check.
pub(super) fn healthy(published: &Published, now: Instant, path: &str, query: &str) -> Option<bool> {
    let primary = || published.is_primary(now);
    let replica = || is_replica(published, query);
    let settings = published.documents.config.as_ref().map(pgha_core::wire::ClusterConfig::settings);
    let votes = settings.is_some_and(|settings| settings.synchronous_mode == SynchronousMode::Quorum);
    let sync = || !votes && replica() && published.status.sync_standby;
    let quorum = || votes && replica() && published.status.sync_standby;
    Some(match path {
        "" | "/primary" | "/master" | "/read-write" | "/leader" => primary(),
        // This cluster follows no other.
        "/standby-leader" | "/standby_leader" => false,
        "/quorum" => quorum(),
        "/read-only-quorum" => primary() || quorum(),
        "/replica" => replica(),
        "/read-only" => primary() || replica(),
        "/sync" | "/synchronous" => sync(),
        "/read-only-sync" | "/read-only-synchronous" => primary() || sync(),
        "/async" | "/asynchronous" => replica() && !published.status.sync_standby,
        "/health" => published.status.state == MemberState::Running && published.running,
        "/liveness" => is_alive(published, now),
        "/readiness" => primary() || is_ready(published, query),
        _ => return None,
    })
}

/// A peer's life is the age of its loop, not of the thread that answers.
fn is_alive(published: &Published, now: Instant) -> bool {
    let ttl = published.timing.ttl;
    let limit = if published.leads { ttl } else { ttl + ttl };
    now.since(published.at) < limit
}

fn is_replica(published: &Published, query: &str) -> bool {
    let status = &published.status;
    let runs = status.role == MemberRole::Replica && status.state == MemberState::Running && published.running;
    let stream =
        value(query, "replication_state").is_none_or(|state| status.replication_state.as_deref() == Some(state));
    let near = value(query, "lag").is_none_or(|text| bytes(text).is_some_and(|limit| lag(published) <= limit));
    runs && stream && near && !status.tags.noloadbalance() && tags_match(published, query)
}

fn is_ready(published: &Published, query: &str) -> bool {
    let settings = published.documents.config.as_ref().map(pgha_core::wire::ClusterConfig::settings);
    let default = settings.map_or(1 << 20, |settings| settings.maximum_lag_on_failover);
    let limit = value(query, "lag").and_then(bytes).unwrap_or(default);
    published.running
        && published.status.state == MemberState::Running
        && published.status.replication_state.as_deref() == Some("streaming")
        && lag(published) <= limit
}

/// Bytes that the leader has written and this standby has not replayed.
fn lag(published: &Published) -> u64 {
    let leader = published.documents.status.optime;
    match &published.status.xlog {
        Some(Xlog::Standby { replayed_location: Some(replayed), .. }) => leader.ahead_of(*replayed),
        Some(Xlog::Primary { .. }) => 0,
        _ => u64::MAX,
    }
}

fn tags_match(published: &Published, query: &str) -> bool {
    pairs(query).filter_map(|(key, wanted)| Some((key.strip_prefix("tag_")?, wanted))).all(|(tag, wanted)| {
        published.status.tags.0.get(tag).is_some_and(|value| match value {
            serde_json::Value::String(text) => text == wanted,
            other => *other == *wanted || format!("{other}") == wanted,
        })
    })
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter_map(|pair| pair.split_once('='))
}

fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    pairs(query).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// `1048576`, `16kB`, `10MB`, `1GB`: the units of Postgres.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    let unit = match text[end..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        "gb" => 1 << 30,
        "tb" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// For `/metrics`: seconds since the loop went round.
pub(super) fn loop_age(published: &Published, now: Instant) -> Millis {
    now.since(published.at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(bytes("10MB"), Some(10 << 20));
        assert_eq!(bytes("7"), Some(7));
        for wrong in ["", "MB", "1XB", "-1", "99999999999999999999"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
