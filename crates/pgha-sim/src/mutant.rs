//! Faults in the code, put in on purpose: a simulator that does not find them proves nothing.
//!
//! A mutant changes what a decision sees, what it orders, or how the shell does it. Each names the rule that it breaks.

use std::sync::Arc;

use clap::ValueEnum;
use pgha_core::action::{Action, StartAs};
use pgha_core::decide::Decision;
use pgha_core::lsn::Lsn;
use pgha_core::observation::{Dcs, Initialize, Observation, Postgres, Primary, Role, Tie};
use pgha_core::reason::Reason;
use pgha_core::sync::Form;
use pgha_core::time::Millis;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutant {
    /// No guard process; agents believe that there is one.
    NoGuard,
    /// Neither agent nor guard kills Postgres when its lease is over.
    NoFence,
    /// Leader writes do not check the epoch.
    SkipEpochCheck,
    /// A read renews the lease.
    RenewOnRead,
    /// The lease counts from the newest renewal.
    CountNewestRenewal,
    /// The lease counts from the answer.
    CountFromAnswer,
    /// A promotion begun in time is carried out late.
    IgnoreNotAfter,
    /// A candidate does not ask the others how far they are.
    IgnorePeers,
    /// Anybody may lead in synchronous mode.
    IgnoreSyncRecord,
    /// A promotion leaves the standbys of the old primary on record.
    KeepSyncAtPromotion,
    /// A standby is recorded before Postgres waits for it.
    RecordSyncEarly,
    /// Postgres stops waiting before a standby is struck off.
    RemoveSyncLate,
    /// Diverged data is started as if nothing were.
    StartDiverged,
    /// Timelines are not reserved, and twins not recognised.
    IgnoreTwins,
    /// That a rewind was begun is not recorded.
    ForgetUnfinishedRewind,
    /// The leadership is released before Postgres has stopped.
    ReleaseBeforeStop,
    /// A standby without data makes a new cluster.
    IgnoreInitialize,
    /// A member forgets the word that it has given.
    ForgetPromise,
    /// A primary in failsafe mode makes do with any one promise.
    PromiseOfOne,
    /// Who is not in the record of failsafe mode leads all the same.
    IgnoreFailsafeRecord,
    /// A candidate counts every voter as behind it.
    IgnoreQuorum,
    /// A voter's answer counts however old it is.
    BelieveOldAnswers,
    /// A voter counts that has not replayed all that it has.
    BelieveIncompleteAnswers,
    /// A setting counts as applied as soon as a query shows it.
    BelieveShownSetting,
    /// A leader is evicted long before its lease is over.
    EvictEarly,
    /// A leader is evicted by who has not heard of its renewals, and nothing else is looked at.
    EvictUnchecked,
    /// Renewals are told apart by their version, which begins anew where somebody has deleted the znode.
    CompareVersions,
    /// A leadership that somebody has deleted counts as given back.
    TakeDeleted,
    /// A voter goes on streaming from the old primary.
    StayBound,
    /// The slot of a member that is away is dropped at once.
    DropAbsentSlots,
    /// The slots of a standby are moved on further than the leader's.
    AdvanceSlotsTooFar,
    /// A copy of a logical slot begins where the standby is, not where the consumer is.
    CopySlotsAtReplayed,
}

impl Mutant {
    /// Whether hosts are without a guard: it would catch what the mutant lets slip.
    pub(crate) fn is_unguarded(self) -> bool {
        matches!(self, Self::NoGuard | Self::NoFence)
    }

    /// Whether the lease is counted without margins: they would catch what the mutant counts wrong.
    pub(crate) fn is_without_margins(self) -> bool {
        matches!(self, Self::CountNewestRenewal | Self::CountFromAnswer | Self::RenewOnRead)
    }

    /// Changes what a decision sees.
    pub(crate) fn blind(self, observation: &mut Observation) {
        let Dcs::Seen(cluster) = &mut observation.dcs else { return };
        let cluster = Arc::make_mut(cluster);
        match self {
            Self::IgnoreSyncRecord => {
                let standby = matches!(&observation.postgres, Postgres::Running(running)
                    if matches!(running.role, Role::Standby(_)));
                if standby {
                    cluster.sync.leader = None;
                    cluster.sync.standbys.clear();
                }
            }
            Self::ForgetPromise => observation.promise = None,
            Self::IgnoreFailsafeRecord if observation.lease.is_none() => cluster.failsafe.members.clear(),
            Self::IgnoreQuorum if observation.lease.is_none() => cluster.sync.quorum = 0,
            Self::BelieveOldAnswers => {
                if let Some(peers) = &mut observation.peers {
                    for peer in peers.positions.values_mut() {
                        peer.looked = peers.asked;
                        peer.detached = true;
                    }
                }
            }
            Self::BelieveIncompleteAnswers => {
                if let Some(peers) = &mut observation.peers {
                    for peer in peers.positions.values_mut() {
                        peer.complete = true;
                        // Who is known to be at rest without the old primary has replayed all that it has.
                        peer.detached = true;
                    }
                }
            }
            Self::TakeDeleted => cluster.epoch.released = cluster.leader.is_none(),
            Self::EvictUnchecked => {
                if let Some(pulse) = &mut observation.pulse {
                    pulse.seen = pulse.seen - Millis(30_000);
                }
            }
            Self::EvictEarly => {
                if let Some(pulse) = &mut observation.pulse {
                    pulse.seen = pulse.seen - Millis(1500);
                }
            }
            Self::StayBound => {
                if let Postgres::Running(running) = &mut observation.postgres
                    && let Role::Standby(standby) = &mut running.role
                {
                    standby.tie = Tie::Free;
                }
            }
            Self::BelieveShownSetting => {
                if let Postgres::Running(running) = &mut observation.postgres
                    && let Role::Primary(primary) = &mut running.role
                {
                    primary.checkpointer_settled = true;
                    show_as_applied(primary);
                }
            }
            Self::RecordSyncEarly => {
                if let Postgres::Running(running) = &mut observation.postgres
                    && let Role::Primary(primary) = &mut running.role
                {
                    primary.checkpointer_settled = true;
                    show_as_applied(primary);
                    for sender in &mut primary.senders {
                        sender.flushed = primary.flushed;
                    }
                }
            }
            Self::IgnoreTwins => {
                (observation.past.promoted_to, observation.past.promoting_to) = (None, None);
                cluster.history.begun_by.clear();
            }
            Self::IgnoreInitialize => {
                if matches!(observation.postgres, Postgres::NoData) {
                    cluster.initialize = Initialize::Absent;
                }
            }
            Self::DropAbsentSlots => {
                if let Some(settings) = &mut cluster.config {
                    settings.member_slots_ttl = Millis(0);
                }
            }
            Self::AdvanceSlotsTooFar => {
                for position in cluster.slot_positions.values_mut() {
                    *position = Lsn(position.0 + 1000);
                }
            }
            _ => {}
        }
    }

    /// Changes what a decision orders.
    pub(crate) fn distort(self, decision: &mut Decision) {
        match self {
            Self::NoFence => decision.actions.retain(|action| !matches!(action, Action::Fence)),
            Self::StartDiverged => {
                for action in &mut decision.actions {
                    if let Action::Rewind(leader) | Action::Clone(leader) = action {
                        *action = Action::Start(StartAs::Standby(Some(leader.clone())));
                    }
                }
            }
            Self::ReleaseBeforeStop => {
                if matches!(decision.reason, Reason::HandingOver { .. }) {
                    decision.actions.insert(0, Action::ReleaseLeadership { version: 0 });
                }
            }
            Self::RemoveSyncLate => {
                if let Reason::RemovingSyncStandby { .. } = decision.reason {
                    decision.actions = vec![Action::SetSyncNames(String::new())];
                }
            }
            _ => {}
        }
    }
}

/// As if every walsender had the setting that a query shows.
fn show_as_applied(primary: &mut Primary) {
    let form = if primary.sync_names.contains("_pgha_first_") { Form::First } else { Form::Any };
    for sender in &mut primary.senders {
        let named = primary.sync_names.contains(&format!("\"{}\"", sender.name));
        sender.named = named.then_some(form);
    }
}
