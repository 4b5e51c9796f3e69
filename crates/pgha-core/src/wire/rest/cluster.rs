//! `GET /cluster`: the whole cluster as one member sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::lsn::{Lsn, Timeline};
use crate::name::{ClusterName, NodeName};
use crate::wire::codec::{self, document};
use crate::wire::member::host_and_port;
use crate::wire::{
    ClusterSettings, FailoverRequest, Member, MemberTags, ScheduledRestart, Status, SyncState, SynchronousMode,
    ValueChange,
};

/// The whole cluster as one member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Every member, by name.
    pub members: Vec<MemberView>,
    /// The cluster's name.
    #[serde(default)]
    pub scope: String,
    /// Nobody is promoted, started or stopped.
    #[serde(default, skip_serializing_if = "codec::is_false")]
    pub pause: bool,
    /// A switchover at a set time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_switchover: Option<ScheduledSwitchover>,
    /// Keys that pgha does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

document!(ClusterView, "the body of /cluster", "a JSON object with `members`");

/// One member in [`ClusterView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// What it is.
    pub role: ViewRole,
    /// What its Postgres is doing; of a standby rather how it gets its WAL.
    #[serde(default)]
    pub state: String,
    /// Where its agent listens.
    #[serde(default)]
    pub api_url: Option<String>,
    /// Where its Postgres listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// On which port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The timeline it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// A changed setting waits for a restart.
    #[serde(default, skip_serializing_if = "codec::is_false")]
    pub pending_restart: bool,
    /// Which settings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pending_restart_reason: BTreeMap<String, ValueChange>,
    /// A restart at a set time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_restart: Option<ScheduledRestart>,
    /// What it may become.
    #[serde(default, skip_serializing_if = "MemberTags::is_empty")]
    pub tags: MemberTags,
    /// How far it has received; absent for the leader, as all that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_lsn: Option<Position>,
    /// How far that is behind the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receive_lag: Option<Lag>,
    /// How far it has replayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_lsn: Option<Position>,
    /// How far that is behind the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_lag: Option<Lag>,
    /// The further one of the two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<Position>,
    /// How far that is behind the leader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<Lag>,
    /// Keys that pgha does not know.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl MemberView {
    /// `host:port` of its agent, from `api_url`.
    pub fn agent(&self) -> Option<String> {
        let (host, port) = host_and_port(self.api_url.as_deref()?, 80)?;
        Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }
}

/// A switchover at a set time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduledSwitchover {
    /// When, in ISO form.
    pub at: String,
    /// Who steps down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Who takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// What a member is, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ViewRole {
    /// It takes writes.
    Leader,
    /// Commits wait for it.
    SyncStandby,
    /// Commits wait for some, and it is one of them.
    QuorumStandby,
    /// Commits do not wait for it.
    Replica,
    /// A word of a newer agent.
    Other(String),
}

impl ViewRole {
    /// The word in JSON.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Leader => "leader",
            Self::SyncStandby => "sync_standby",
            Self::QuorumStandby => "quorum_standby",
            Self::Replica => "replica",
            Self::Other(word) => word,
        }
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        matches!(self, Self::Leader)
    }
}

impl From<String> for ViewRole {
    fn from(word: String) -> Self {
        match word.as_str() {
            "leader" => Self::Leader,
            "sync_standby" => Self::SyncStandby,
            "quorum_standby" => Self::QuorumStandby,
            "replica" => Self::Replica,
            _ => Self::Other(word),
        }
    }
}

impl From<ViewRole> for String {
    fn from(role: ViewRole) -> Self {
        role.as_str().to_owned()
    }
}

/// A position in the write-ahead log, as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The member has said it.
    At(Lsn),
    /// It has not.
    Unknown,
}

impl From<Option<Lsn>> for Position {
    /// Position 0 counts as not said, as in Patroni.
    fn from(lsn: Option<Lsn>) -> Self {
        match lsn {
            Some(lsn) if lsn != Lsn::INVALID => Self::At(lsn),
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(lsn) => lsn.fmt(f),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Lsn::from_str(&text).map_or(Self::Unknown, Self::At))
    }
}

/// Bytes that a member is behind the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// So many.
    Bytes(u64),
    /// Not known, because its position is not.
    Unknown,
}

impl Serialize for Lag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes),
            Self::Unknown => serializer.serialize_str("unknown"),
        }
    }
}

impl<'de> Deserialize<'de> for Lag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Ok(codec::whole_number(&value).map_or(Self::Unknown, Self::Bytes))
    }
}

/// The documents that [`ClusterView::build`] puts together.
#[derive(Debug, Clone, Copy)]
pub struct ClusterDocs<'a> {
    /// The cluster's name.
    pub scope: &'a ClusterName,
    /// The members that are there.
    pub members: &'a BTreeMap<NodeName, Member>,
    /// Who leads.
    pub leader: Option<&'a NodeName>,
    /// How far the leader has written.
    pub status: &'a Status,
    /// Who may take over in synchronous mode.
    pub sync: &'a SyncState,
    /// The change of leader that was asked for.
    pub failover: Option<&'a FailoverRequest>,
    /// The cluster's settings.
    pub settings: &'a ClusterSettings,
}

impl ClusterView {
    /// Puts the documents together by Patroni's rules.
    pub fn build(docs: &ClusterDocs<'_>) -> Self {
        let members = docs.members.iter().map(|(name, member)| view(docs, name, member));
        let scheduled = docs.failover.and_then(|request| {
            let at = request.scheduled_at?.to_string();
            Some(ScheduledSwitchover {
                at,
                from: request.leader.as_ref().map(NodeName::to_string),
                to: request.member.as_ref().map(NodeName::to_string),
            })
        });
        Self {
            members: members.collect(),
            scope: docs.scope.to_string(),
            pause: docs.settings.pause,
            scheduled_switchover: scheduled,
            other: Map::new(),
        }
    }

    /// The member that leads.
    pub fn leader(&self) -> Option<&MemberView> {
        self.members.iter().find(|member| member.role.is_leader())
    }

    /// The member of that name.
    pub fn member(&self, name: &str) -> Option<&MemberView> {
        self.members.iter().find(|member| member.name == name)
    }
}

fn view(docs: &ClusterDocs<'_>, name: &NodeName, member: &Member) -> MemberView {
    let leads = docs.leader == Some(name);
    let role = role(docs, name, leads);
    let replication = member.replication_state.as_deref().filter(|state| !state.is_empty());
    let state = match replication {
        Some(state) if role != ViewRole::Leader => state.to_owned(),
        _ => member.state.to_string(),
    };
    let (host, port) = member.postgres_address().unzip();
    let place = |lsn: Option<Lsn>| {
        if leads {
            return (None, None);
        }
        let position = Position::from(lsn);
        let lag = match position {
            Position::At(lsn) => Lag::Bytes(docs.status.optime.ahead_of(lsn)),
            Position::Unknown => Lag::Unknown,
        };
        (Some(position), Some(lag))
    };
    let (receive_lsn, receive_lag) = place(member.receive_lsn);
    let (replay_lsn, replay_lag) = place(member.replay_lsn);
    let (lsn, lag) = place(member.xlog_location);
    MemberView {
        name: name.to_string(),
        role,
        state,
        api_url: Some(member.api_url.clone()),
        host,
        port,
        timeline: member.timeline,
        pending_restart: member.pending_restart,
        pending_restart_reason: member.pending_restart_reason.clone(),
        scheduled_restart: member.scheduled_restart.clone(),
        tags: member.tags.clone(),
        receive_lsn,
        receive_lag,
        replay_lsn,
        replay_lag,
        lsn,
        lag,
        other: Map::new(),
    }
}

fn role(docs: &ClusterDocs<'_>, name: &NodeName, leads: bool) -> ViewRole {
    match docs.settings.synchronous_mode {
        _ if leads => ViewRole::Leader,
        _ if !docs.sync.has_standby(name) => ViewRole::Replica,
        SynchronousMode::Off => ViewRole::Replica,
        SynchronousMode::On => ViewRole::SyncStandby,
        SynchronousMode::Quorum => ViewRole::QuorumStandby,
    }
}
