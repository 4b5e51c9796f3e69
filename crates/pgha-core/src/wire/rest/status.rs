//! `GET /patroni`: what a member says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::lsn::{Lsn, Timeline};
use crate::name::SystemId;
use crate::wire::codec::{self, document};
use crate::wire::{MemberRole, MemberState, MemberTags, ScheduledRestart, ValueChange};

/// What a member says of itself, to its peers too. Keys that are false or unknown are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatroniStatus {
    /// What its Postgres is doing.
    pub state: MemberState,
    /// When Postgres started, as Postgres prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postmaster_start_time: Option<String>,
    /// What it is.
    pub role: MemberRole,
    /// Postgres's version, such as 150008.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<u32>,
    /// Where it is in the write-ahead log; absent while Postgres does not answer.
    #[serde(default, alias = "wal", skip_serializing_if = "Option::is_none")]
    pub xlog: Option<Xlog>,
    /// It is a synchronous standby.
    #[serde(default, skip_serializing_if = "codec::is_false")]
    pub sync_standby: bool,
    /// It is one of the standbys of the quorum.
    #[serde(default, skip_serializing_if = "codec::is_false")]
    pub quorum_standby: bool,
    /// The timeline it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// `streaming` or `in archive recovery`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication_state: Option<String>,
    /// Who streams from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replication: Vec<Replication>,
    /// The cluster is paused.
    #[serde(default, skip_serializing_if = "codec::is_false")]
    pub pause: bool,
    /// The cluster has no leader.
    #[serde(default, skip_serializing_if = "codec::is_false")]
    pub cluster_unlocked: bool,
    /// `ZooKeeper` is lost and the primary goes on with the consent of the members.
    #[serde(default, skip_serializing_if = "codec::is_false")]
    pub failsafe_mode_is_active: bool,
    /// When `ZooKeeper` last answered, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dcs_last_seen: Option<u64>,
    /// What it may become.
    #[serde(default, skip_serializing_if = "MemberTags::is_empty")]
    pub tags: MemberTags,
    /// The system identifier, as text.
    #[serde(
        default,
        serialize_with = "write_id",
        deserialize_with = "read_id",
        skip_serializing_if = "Option::is_none"
    )]
    pub database_system_identifier: Option<SystemId>,
    /// A changed setting waits for a restart.
    #[serde(default, skip_serializing_if = "codec::is_false")]
    pub pending_restart: bool,
    /// Which settings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pending_restart_reason: BTreeMap<String, ValueChange>,
    /// Which agent of which cluster answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub patroni: Option<About>,
    /// A restart at a set time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_restart: Option<ScheduledRestart>,
    /// The watchdog is required and does not work: it cannot be promoted.
    #[serde(default, skip_serializing_if = "codec::is_false")]
    pub watchdog_failed: bool,
    /// Keys that pgha does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

document!(PatroniStatus, "the body of /patroni", "a member's JSON object");

impl PatroniStatus {
    /// What a member says while nothing is known of its Postgres.
    pub fn bare(state: MemberState, role: MemberRole) -> Self {
        Self {
            state,
            postmaster_start_time: None,
            role,
            server_version: None,
            xlog: None,
            sync_standby: false,
            quorum_standby: false,
            timeline: None,
            replication_state: None,
            replication: Vec::new(),
            pause: false,
            cluster_unlocked: false,
            failsafe_mode_is_active: false,
            dcs_last_seen: None,
            tags: MemberTags::default(),
            database_system_identifier: None,
            pending_restart: false,
            pending_restart_reason: BTreeMap::new(),
            patroni: None,
            scheduled_restart: None,
            watchdog_failed: false,
            other: Map::new(),
        }
    }
}

/// Where a member is in the write-ahead log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Xlog {
    /// A primary.
    Primary {
        /// Its write position.
        location: Lsn,
    },
    /// A standby.
    Standby {
        /// How far it has received.
        received_location: Option<Lsn>,
        /// How far it has replayed.
        replayed_location: Option<Lsn>,
        /// When the last replayed transaction was committed, as Postgres prints it.
        #[serde(default)]
        replayed_timestamp: Option<String>,
        /// Replay stands still on purpose.
        #[serde(default)]
        paused: bool,
    },
}

impl Xlog {
    /// The furthest position that the member has on disk.
    pub fn furthest(&self) -> Lsn {
        match self {
            Self::Primary { location } => *location,
            Self::Standby { received_location, replayed_location, .. } => {
                received_location.max(replayed_location).unwrap_or_default()
            }
        }
    }
}

/// One line of `pg_stat_replication`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Replication {
    /// The role it connects as.
    pub usename: String,
    /// The member's name, if it is one.
    pub application_name: String,
    /// Where it connects from; `None` for the Unix socket.
    pub client_addr: Option<String>,
    /// `streaming`, `catchup`, `startup`, `backup`.
    pub state: String,
    /// `async`, `potential`, `sync`, `quorum`.
    pub sync_state: String,
    /// Its place in `synchronous_standby_names`.
    pub sync_priority: i32,
}

/// Which agent of which cluster answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The agent's version.
    pub version: String,
    /// The cluster.
    pub scope: String,
    /// The member; absent before Patroni 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn write_id<S: Serializer>(id: &Option<SystemId>, serializer: S) -> Result<S::Ok, S::Error> {
    id.map(|id| id.to_string()).serialize(serializer)
}

fn read_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemId>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    Ok(codec::whole_number(&value).map(SystemId))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_member_says_little() {
        let status = PatroniStatus::bare(MemberState::Stopped, MemberRole::Replica);
        assert_eq!(status.render(), br#"{"state":"stopped","role":"replica"}"#);
    }

    #[test]
    fn both_names_of_the_position_are_read() {
        let read = |text: &str| PatroniStatus::parse(text.as_bytes()).unwrap().xlog.unwrap().furthest();
        assert_eq!(read(r#"{"state":"running","role":"primary","xlog":{"location":7}}"#), Lsn(7));
        assert_eq!(
            read(r#"{"state":"running","role":"replica","wal":{"received_location":null,"replayed_location":5}}"#),
            Lsn(5)
        );
    }
}
