//! Who streams from whom, and who may be copied from.

use std::collections::BTreeSet;

use crate::name::{NodeName, SlotName};
use crate::observation::{Cluster, Member};

/// Where a member gets its WAL from while `leader` leads; `None` where it lives on the archive alone.
///
/// A member that it shall stream from (`replicatefrom`) but that does not run is passed over, as is a ring of members
/// that wait for each other.
pub(super) fn upstream<'a>(cluster: &'a Cluster, leader: &'a NodeName, member: &NodeName) -> Option<&'a NodeName> {
    cluster.members.get(member).map_or(Some(leader), |tags| source(cluster, leader, member, tags))
}

/// The same of one whose tags are at hand.
fn source<'a>(cluster: &Cluster, leader: &'a NodeName, member: &NodeName, tags: &'a Member) -> Option<&'a NodeName> {
    let relay = tags.replicatefrom.as_ref().filter(|relay| relays(cluster, leader, member, relay));
    (!tags.nostream).then(|| relay.unwrap_or(leader))
}

/// Whether `relay` can hand WAL of `leader` on to `member`.
fn relays(cluster: &Cluster, leader: &NodeName, member: &NodeName, relay: &NodeName) -> bool {
    let mut seen = BTreeSet::from([member]);
    let mut at = relay;
    while at != leader {
        let Some(it) = cluster.members.get(at).filter(|it| it.is_running && !it.is_primary && !it.nostream) else {
            return false;
        };
        if !seen.insert(at) {
            return false;
        }
        at = it.replicatefrom.as_ref().unwrap_or(leader);
    }
    true
}

/// Slots of the members that stream from `from`.
pub(super) fn slots_of(cluster: &Cluster, leader: &NodeName, from: &NodeName) -> impl Iterator<Item = SlotName> {
    let streams = move |(member, tags): &(&NodeName, &Member)| source(cluster, leader, member, tags) == Some(from);
    let others = cluster.members.iter().filter(move |(member, _)| *member != from);
    others.filter(streams).map(|(member, _)| member.slot())
}

/// Whom to copy from: a standby that is offered for it (`clonefrom`) and is where the leader is, else the leader.
pub(super) fn copy_source(cluster: &Cluster, leader: &NodeName, me: &NodeName) -> NodeName {
    let timeline = cluster.members.get(leader).and_then(|it| it.timeline);
    let offered = cluster.members.iter().find(|(name, member)| {
        *name != me && *name != leader && member.clonefrom && member.is_running && member.timeline == timeline
    });
    offered.map_or(leader, |(name, _)| name).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Timeline;

    fn name(text: &str) -> NodeName {
        NodeName::try_from(text).unwrap()
    }

    /// `a` leads; `b` and `c` stream from it, `d` from `c`, `e` and `f` from each other.
    fn cluster() -> Cluster {
        let member = |from: Option<&str>| Member {
            is_running: true,
            timeline: Some(Timeline(1)),
            replicatefrom: from.map(name),
            ..Member::default()
        };
        let mut members: std::collections::BTreeMap<_, _> =
            [("a", None), ("b", None), ("c", None), ("d", Some("c")), ("e", Some("f")), ("f", Some("e"))]
                .map(|(it, from)| (name(it), member(from)))
                .into();
        members.get_mut(&name("a")).unwrap().is_primary = true;
        Cluster { members, ..Cluster::default() }
    }

    fn slots(cluster: &Cluster, from: &str) -> Vec<String> {
        slots_of(cluster, &name("a"), &name(from)).map(|slot| slot.to_string()).collect()
    }

    #[test]
    fn members_stream_through_others_that_run() {
        let mut cluster = cluster();
        assert_eq!(upstream(&cluster, &name("a"), &name("d")), Some(&name("c")));
        assert_eq!(slots(&cluster, "a"), ["b", "c", "e", "f"]);
        assert_eq!(slots(&cluster, "c"), ["d"]);
        cluster.members.get_mut(&name("c")).unwrap().is_running = false;
        assert_eq!(upstream(&cluster, &name("a"), &name("d")), Some(&name("a")));
    }

    #[test]
    fn a_ring_falls_back_to_the_leader() {
        assert_eq!(upstream(&cluster(), &name("a"), &name("e")), Some(&name("a")));
        assert_eq!(upstream(&cluster(), &name("e"), &name("f")), Some(&name("e")));
    }

    #[test]
    fn who_lives_on_the_archive_needs_no_slot() {
        let mut cluster = cluster();
        cluster.members.get_mut(&name("c")).unwrap().nostream = true;
        assert_eq!(upstream(&cluster, &name("a"), &name("c")), None);
        assert_eq!(upstream(&cluster, &name("a"), &name("d")), Some(&name("a")));
    }

    #[test]
    fn copies_come_from_who_is_offered_for_it() {
        let mut cluster = cluster();
        assert_eq!(copy_source(&cluster, &name("a"), &name("b")), name("a"));
        cluster.members.get_mut(&name("c")).unwrap().clonefrom = true;
        assert_eq!(copy_source(&cluster, &name("a"), &name("b")), name("c"));
        assert_eq!(copy_source(&cluster, &name("a"), &name("c")), name("a"));
    }
}
