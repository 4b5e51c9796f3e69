//! Znode `members/<name>`: what a member says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::codec::{self, document};
use super::{MemberRole, MemberState, MemberTags};
use crate::lsn::{Lsn, Timeline};

/// What a member says of itself. Keys are written in Patroni's order, those without a value are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where its Postgres listens: `postgres://host:port/postgres`.
    pub conn_url: String,
    /// Where its agent listens: `http://host:port/patroni`.
    pub api_url: String,
    /// What its Postgres is doing.
    pub state: MemberState,
    /// What it is.
    pub role: MemberRole,
    /// The agent's version; Patroni compares it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Where a pooler in front of its Postgres listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_url: Option<String>,
    /// `Some(false)` from a promotion until the checkpoint after it: `pg_rewind` must wait that long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_after_promote: Option<bool>,
    /// What it may become.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "MemberTags::is_empty")]
    pub tags: MemberTags,
    /// A changed setting waits for a restart.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "codec::is_false")]
    pub pending_restart: bool,
    /// Which settings.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub pending_restart_reason: BTreeMap<String, ValueChange>,
    /// A primary's write position; the further one of a standby's two positions.
    #[serde(default, deserialize_with = "codec::position", skip_serializing_if = "Option::is_none")]
    pub xlog_location: Option<Lsn>,
    /// How far a standby has replayed.
    #[serde(default, deserialize_with = "codec::position", skip_serializing_if = "Option::is_none")]
    pub replay_lsn: Option<Lsn>,
    /// How far a standby has received.
    #[serde(default, deserialize_with = "codec::position", skip_serializing_if = "Option::is_none")]
    pub receive_lsn: Option<Lsn>,
    /// `streaming` or `in archive recovery`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_state: Option<String>,
    /// The timeline it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// A restart at a set time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_restart: Option<ScheduledRestart>,
    /// It has seen that the cluster is paused.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "codec::is_false")]
    pub pause: bool,
    /// pgha's own: something about it keeps it from leading; `GET /pgha` says what.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "codec::is_false")]
    pub pgha_cannot_lead: bool,
    /// Keys that pgha does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

document!(Member, "znode `members/<name>`", "a member's JSON object");

impl Member {
    /// Host and port of its Postgres, from `conn_url`.
    pub fn postgres_address(&self) -> Option<(String, u16)> {
        host_and_port(&self.conn_url, 5432)
    }

    /// Host and port of its agent, from `api_url`.
    pub fn api_address(&self) -> Option<(String, u16)> {
        host_and_port(&self.api_url, 80)
    }

    /// Whether `pg_rewind` may use it as its source: a primary whose first checkpoint is done.
    pub fn ready_for_rewind(&self) -> bool {
        self.role == MemberRole::Primary && self.checkpoint_after_promote.is_none()
    }
}

/// The old and the new value of a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueChange {
    /// What Postgres runs with.
    #[serde(deserialize_with = "text")]
    pub old_value: String,
    /// What it will run with after a restart.
    #[serde(deserialize_with = "text")]
    pub new_value: String,
}

/// A restart at a set time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledRestart {
    /// The time, in ISO form.
    pub schedule: String,
    /// Conditions, and the start time of the Postgres that is meant.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(codec::scalar_text(&value).unwrap_or_else(|| value.to_string()))
}

/// The host and port of a URL such as `postgres://user@[::1]:5432/postgres`.
pub(in crate::wire) fn host_and_port(url: &str, default_port: u16) -> Option<(String, u16)> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = match port {
        None | Some("") => default_port,
        Some(digits) => digits.parse().ok()?,
    };
    (!host.is_empty()).then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_urls() {
        for (url, expected) in [
            ("postgres://127.0.0.1:5432/postgres", Some(("127.0.0.1", 5432))),
            ("postgres://Db1/postgres", Some(("db1", 5432))),
            ("postgres://user:p@ss@[fe80::1]:5433/postgres", Some(("fe80::1", 5433))),
            ("postgres://[::1]", Some(("::1", 5432))),
            ("postgres://:5432/x", None),
            ("postgres://db1:x/", None),
            ("postgres://[::1", None),
            ("db1:5432", None),
            ("", None),
        ] {
            let expected = expected.map(|(host, port)| (host.to_owned(), port));
            assert_eq!(host_and_port(url, 5432), expected, "{url}");
        }
    }

    #[test]
    fn a_strange_peer_is_still_read() {
        let member = Member::parse(
            br#"{"conn_url":"postgres://a:1/","api_url":"http://a:2/patroni","state":"meditating","role":"oracle",
                "tags":null,"pause":null,"xlog_location":"42","site":"north","pending_restart_reason":{"x":{"old_value":1,"new_value":null}}}"#,
        )
        .unwrap();
        assert_eq!(member.state, MemberState::Other("meditating".into()));
        assert_eq!(member.xlog_location, Some(Lsn(42)));
        assert_eq!(member.other["site"], "north");
        assert_eq!(member.pending_restart_reason["x"].old_value, "1");
    }

    #[test]
    fn an_error_says_where_and_why() {
        let error = Member::parse(br#"{"conn_url":"x"}"#).unwrap_err().to_string();
        assert!(error.contains("members/<name>") && error.contains("api_url"), "{error}");
    }
}
