//! From raw znodes to what decisions look at. Garbage in a znode is reported, and read as if it were not there.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pgha_core::config::join_host_port;
use pgha_core::lsn::{Switch, Timeline, TimelineHistory};
use pgha_core::name::{Epoch, NodeName, SlotName, SystemId};
use pgha_core::observation::{
    Cluster, ClusterSettings, EpochRecord, FailoverRequest, FailsafeRecord, History, Initialize, Leader, Member,
    SyncRecord, Synchrony,
};
use pgha_core::wire::{self, ClusterConfig, EpochDoc, MemberRole, MemberState, WireError};

/// A znode's bytes and version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Raw {
    pub(crate) data: Vec<u8>,
    pub(crate) version: i32,
    /// Of the transaction that made this version.
    pub(crate) zxid: i64,
    pub(crate) owner: i64,
}

/// The raw znodes of one look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RawTree {
    pub(crate) session: i64,
    pub(crate) leader: Option<Raw>,
    pub(crate) initialize: Option<Raw>,
    pub(crate) config: Option<Raw>,
    pub(crate) status: Option<Raw>,
    pub(crate) sync: Option<Raw>,
    pub(crate) failover: Option<Raw>,
    pub(crate) failsafe: Option<Raw>,
    pub(crate) history: Option<Raw>,
    pub(crate) epoch: Option<Raw>,
    pub(crate) timelines: Option<Raw>,
    pub(crate) members: BTreeMap<String, Raw>,
}

/// The documents as they were understood.
#[derive(Debug, Clone, Default)]
pub(crate) struct Documents {
    pub(crate) leader: Option<NodeName>,
    pub(crate) system_id: Option<SystemId>,
    pub(crate) config: Option<ClusterConfig>,
    pub(crate) config_version: Option<i32>,
    pub(crate) status: wire::Status,
    pub(crate) sync: wire::SyncState,
    pub(crate) failover: Option<wire::FailoverRequest>,
    pub(crate) failover_version: Option<i32>,
    pub(crate) failsafe: wire::Failsafe,
    pub(crate) history: wire::History,
    pub(crate) history_version: Option<i32>,
    pub(crate) timelines: Option<wire::Timelines>,
    pub(crate) timelines_version: Option<i32>,
    pub(crate) members: BTreeMap<NodeName, wire::Member>,
    pub(crate) own_member: Option<OwnMember>,
    /// What could not be understood.
    pub(crate) garbage: Vec<String>,
}

impl Documents {
    /// Where the agents of members are: by their own word, or by that of who has put them on record for failsafe mode.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&NodeName, String)> {
        let recorded = self.failsafe.0.keys().filter_map(|name| Some((name, self.failsafe.address(name)?)));
        let own = self.members.iter().filter_map(|(name, member)| Some((name, member.api_address()?)));
        recorded.chain(own).map(|(name, (host, port))| (name, join_host_port(&host, port)))
    }
}

/// This member's own znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnMember {
    pub(crate) data: Vec<u8>,
    pub(crate) is_my_session: bool,
}

/// What was understood before: stands in for a document that has become garbage since.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// The cluster's settings.
    pub(crate) config: Option<ClusterConfig>,
    /// The cluster's identity: from the znode, else from our own data directory.
    pub(crate) system_id: Option<SystemId>,
    /// Where members' agents are, or were.
    pub(crate) addresses: BTreeMap<NodeName, String>,
}

/// Understands a look.
pub(crate) fn understand(raw: &RawTree, me: &NodeName, known: &Known) -> (Cluster, Documents) {
    let mut garbage = Vec::new();
    let epoch = match &raw.epoch {
        None => EpochRecord::default(),
        Some(znode) => match parse(&mut garbage, &znode.data, EpochDoc::parse) {
            Some(doc) => EpochRecord {
                epoch: doc.epoch,
                leader: Some(doc.leader),
                released: doc.released,
                version: Some(znode.version),
            },
            // Each epoch is one version further, beginning with epoch 1 at version 0: this can only be too high.
            None => EpochRecord {
                epoch: Epoch(u64::try_from(znode.version).unwrap_or(0) + 1),
                version: Some(znode.version),
                ..EpochRecord::default()
            },
        },
    };
    let leader = raw.leader.as_ref().and_then(|znode| {
        let is_my_session = znode.owner == raw.session;
        let name = parse(&mut garbage, &znode.data, wire::LeaderName::parse).map(|leader| leader.0);
        // The owner counts, not the text; failing both, whoever led last.
        let name = if is_my_session { Some(me.clone()) } else { name.or_else(|| epoch.leader.clone()) };
        Some(Leader { name: name?, is_my_session })
    });
    let initialize = match &raw.initialize {
        None => Initialize::Absent,
        Some(znode) => match parse(&mut garbage, &znode.data, wire::Initialize::parse) {
            Some(wire::Initialize::Done(id)) => Initialize::Done(id),
            Some(wire::Initialize::InProgress) => Initialize::Begun,
            // Never "no cluster yet": a member without data would make a new one. Identity 0 fits no data.
            None => Initialize::Done(known.system_id.unwrap_or(SystemId(0))),
        },
    };
    let config = raw.config.as_ref().and_then(|znode| parse(&mut garbage, &znode.data, ClusterConfig::parse));
    // Garbage must not turn synchronous mode off.
    let config = config.or_else(|| known.config.clone());
    let status = raw.status.as_ref().and_then(|znode| parse(&mut garbage, &znode.data, wire::Status::parse));
    let sync = raw.sync.as_ref().and_then(|znode| parse(&mut garbage, &znode.data, wire::SyncState::parse));
    let sync_garbage = raw.sync.is_some() && sync.is_none();
    let failover = raw
        .failover
        .as_ref()
        .and_then(|znode| parse(&mut garbage, &znode.data, wire::FailoverRequest::parse))
        .filter(|request| !request.is_empty());
    let failsafe = raw.failsafe.as_ref().and_then(|znode| parse(&mut garbage, &znode.data, wire::Failsafe::parse));
    let failsafe_garbage = raw.failsafe.is_some() && failsafe.is_none();
    let history = raw.history.as_ref().and_then(|znode| parse(&mut garbage, &znode.data, wire::History::parse));
    let timelines = raw.timelines.as_ref().and_then(|znode| parse(&mut garbage, &znode.data, wire::Timelines::parse));
    let mut members = BTreeMap::new();
    for (name, znode) in &raw.members {
        let Ok(name) = NodeName::try_from(name.as_str()) else {
            garbage.push(format!("members/{name}: not a member's name"));
            continue;
        };
        if let Some(member) = parse(&mut garbage, &znode.data, wire::Member::parse) {
            members.insert(name, member);
        }
    }
    let retained_slots: BTreeSet<SlotName> =
        status.iter().flat_map(|status| &status.retain_slots).filter_map(|name| SlotName::parse(name)).collect();
    let of_a_member = |slot: &SlotName| members.keys().any(|name| name.owns(slot)) || retained_slots.contains(slot);
    let settings = config.as_ref().map(|config| {
        let mut settings = settings(config);
        // Two would want it, and one of them as another kind.
        settings.permanent_slots.retain(|slot, _| !of_a_member(slot));
        let taken = config.settings().slots.keys().filter(|slot| of_a_member(slot));
        garbage
            .extend(taken.map(|slot| format!("permanent slot {slot} is left out: a member streams through that name")));
        settings
    });
    let documents = Documents {
        leader: leader.as_ref().map(|leader| leader.name.clone()),
        system_id: match initialize {
            Initialize::Done(id) if id != SystemId(0) => Some(id),
            _ => None,
        },
        config_version: raw.config.as_ref().map(|znode| znode.version),
        status: status.unwrap_or_default(),
        sync: sync.unwrap_or_default(),
        failsafe: failsafe.unwrap_or_default(),
        failover_version: raw.failover.as_ref().map(|znode| znode.version),
        history: history.unwrap_or_default(),
        history_version: raw.history.as_ref().map(|znode| znode.version),
        timelines,
        timelines_version: raw.timelines.as_ref().map(|znode| znode.version),
        own_member: raw
            .members
            .get(me.as_str())
            .map(|znode| OwnMember { data: znode.data.clone(), is_my_session: znode.owner == raw.session }),
        config,
        failover,
        members,
        garbage,
    };
    let cluster = Cluster {
        epoch,
        leader,
        initialize,
        config: settings,
        config_lost: raw.config.is_none() && documents.config.is_some(),
        sync: SyncRecord {
            leader: documents.sync.leader.clone(),
            standbys: documents.sync.sync_standby.clone(),
            quorum: usize::try_from(documents.sync.quorum).unwrap_or(usize::MAX),
            unreadable: sync_garbage,
            version: raw.sync.as_ref().map(|znode| znode.version),
        },
        failover: documents.failover.as_ref().zip(documents.failover_version).map(|(request, version)| {
            let now = Timestamp::now();
            FailoverRequest {
                leader: request.leader.clone(),
                candidate: request.member.clone(),
                later: request.scheduled_at.as_ref().is_some_and(|time| time.at > now),
                version,
            }
        }),
        failsafe: FailsafeRecord {
            members: documents.failsafe.0.keys().cloned().collect(),
            unreadable: failsafe_garbage,
            version: raw.failsafe.as_ref().map(|znode| znode.version),
        },
        members: documents.members.iter().map(|(name, member)| (name.clone(), member_view(member))).collect(),
        retained_slots,
        slot_positions: (documents.status.slots.iter())
            .filter_map(|(name, position)| Some((SlotName::parse(name)?, *position)))
            .collect(),
        positions_on: documents.status.pgha_timeline,
        optime: documents.status.optime,
        history: history_view(&documents.history, documents.timelines.as_ref()),
    };
    (cluster, documents)
}

fn parse<T>(garbage: &mut Vec<String>, data: &[u8], parse: fn(&[u8]) -> Result<T, WireError>) -> Option<T> {
    parse(data).map_err(|error| garbage.push(error.to_string())).ok()
}

fn settings(config: &ClusterConfig) -> ClusterSettings {
    let settings = config.settings();
    ClusterSettings {
        synchrony: match settings.synchronous_mode {
            wire::SynchronousMode::Off => Synchrony::Off,
            wire::SynchronousMode::On => Synchrony::Named,
            wire::SynchronousMode::Quorum => Synchrony::Quorum,
        },
        strict: settings.synchronous_mode_strict,
        sync_count: usize::try_from(settings.synchronous_node_count.max(1)).unwrap_or(1),
        maximum_lag_on_syncnode: settings.maximum_lag_on_syncnode,
        maximum_lag: settings.maximum_lag_on_failover,
        member_slots_ttl: settings.member_slots_ttl,
        primary_start_timeout: settings.primary_start_timeout,
        primary_stop_timeout: Some(settings.primary_stop_timeout).filter(|timeout| timeout.0 > 0),
        permanent_slots: settings.slots.clone(),
        paused: settings.pause,
        failsafe: settings.failsafe_mode,
    }
}

fn member_view(member: &wire::Member) -> Member {
    Member {
        is_primary: member.role == MemberRole::Primary,
        is_running: member.state == MemberState::Running,
        timeline: member.timeline,
        checkpoint_pending: member.checkpoint_after_promote == Some(false),
        nofailover: member.tags.nofailover(),
        nosync: member.tags.nosync(),
        failover_priority: member.tags.failover_priority(),
        sync_priority: member.tags.sync_priority(),
        replicatefrom: member.tags.replicatefrom().and_then(|name| NodeName::try_from(name).ok()),
        nostream: member.tags.nostream(),
        can_lead: !member.pgha_cannot_lead,
        clonefrom: member.tags.clonefrom(),
    }
}

/// Who began a timeline stands in our own document; in that of Patroni it can be guessed.
fn history_view(history: &wire::History, timelines: Option<&wire::Timelines>) -> History {
    let switches = history.0.iter().map(|line| Switch {
        parent: line.timeline,
        switched_at: line.switched_at,
        reason: line.reason.clone(),
    });
    let guessed = || {
        let lines = history.0.iter().filter_map(|line| {
            let name = NodeName::try_from(line.new_leader.as_deref()?).ok()?;
            Some((Timeline(line.timeline.0.checked_add(1)?), name))
        });
        lines.collect()
    };
    History {
        newest: timelines.map(|timelines| timelines.newest),
        reserved: timelines.and_then(|timelines| timelines.reserved),
        switches: TimelineHistory(switches.collect()),
        begun_by: timelines.map_or_else(guessed, |timelines| timelines.begun_by.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slot of a member, be it there or away, stays the member's.
    #[test]
    fn a_permanent_slot_does_not_take_the_name_of_a_members() {
        let document = |data: &str| Some(raw(data.as_bytes()));
        let member = br#"{"conn_url": "postgres://a:1/", "api_url": "http://a:2/patroni", "state": "running", "role": "replica"}"#;
        let tree = RawTree {
            config: document(
                r#"{"slots": {"db_2": {"type": "physical"}, "db3": {"type": "physical"}, "backup": {"type": "physical"}}}"#,
            ),
            status: document(r#"{"optime": 5, "retain_slots": ["db3"]}"#),
            members: [("db-2".to_owned(), raw(member))].into(),
            ..RawTree::default()
        };
        let (cluster, documents) = understand(&tree, &NodeName::try_from("db1").unwrap(), &Known::default());
        let slots: Vec<_> = cluster.config.unwrap().permanent_slots.into_keys().collect();
        assert_eq!(slots, [SlotName::parse("backup").unwrap()]);
        assert_eq!(documents.garbage.len(), 2, "{:?}", documents.garbage);
    }

    fn raw(data: &[u8]) -> Raw {
        Raw { data: data.to_vec(), version: 3, zxid: 9, owner: 0 }
    }

    /// Whatever stands in a znode, the agent goes on.
    #[test]
    fn garbage_everywhere_is_reported_and_survived() {
        for garbage in
            [&b"\xff\xfe\x00"[..], b"{", b"[[[1,2", b"null", b"", b"{\"leader\": 5}", b"-1", b"[[4294967295,1,\"x\"]]"]
        {
            let tree = RawTree {
                session: 1,
                leader: Some(raw(garbage)),
                initialize: Some(raw(garbage)),
                config: Some(raw(garbage)),
                status: Some(raw(garbage)),
                sync: Some(raw(garbage)),
                failover: Some(raw(garbage)),
                failsafe: Some(raw(garbage)),
                history: Some(raw(garbage)),
                epoch: Some(raw(garbage)),
                timelines: Some(raw(garbage)),
                members: [("db1".to_owned(), raw(garbage)), ("../x".to_owned(), raw(garbage))].into(),
            };
            let me = NodeName::try_from("db1").unwrap();
            let (_, documents) = understand(&tree, &me, &Known::default());
            assert!(!documents.garbage.is_empty(), "{garbage:?} was not reported");
        }
    }
}
