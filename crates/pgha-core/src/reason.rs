//! Why a member does what it does: the single source of log lines, REST fields and metric labels.

#![expect(clippy::doc_markdown, reason = "the documentation of a reason is its sentence, for operators")]
#![expect(missing_docs, reason = "the fields of a reason are named in its text")]

use std::fmt;

use crate::lsn::Lsn;
use crate::name::{NodeName, SystemId};
use crate::observation::{Disk, JobKind};

/// How much a reason matters to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// The cluster is as it should be.
    Calm,
    /// Something changes.
    Change,
    /// Somebody should look.
    Trouble,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident $({ $($field:ident: $type:ty),* })? = $code:literal, $weight:ident, $text:literal;)*) => {
        /// The outcome of one decision.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* #[doc = ""] #[doc = $text] $variant $({ $($field: $type),* })?,)*
        }

        impl Reason {
            /// A stable word for metrics and scripts.
            pub fn code(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => $code,)*
                }
            }

            /// How much it matters.
            pub fn weight(&self) -> Weight {
                match self {
                    $(Self::$variant { .. } => Weight::$weight,)*
                }
            }

            /// Every code, weight and text, in the order of this file.
            pub const TABLE: &'static [(&'static str, Weight, &'static str)] =
                &[$(($code, Weight::$weight, $text),)*];
        }

        impl fmt::Display for Reason {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant $({ $($field),* })? => write!(f, $text),)*
                }
            }
        }
    };
}

reasons! {
    /// Leader.
    Leading = "leading", Calm, "I am the primary and my lease holds";
    /// Leader.
    LeadingAlone = "leading_alone", Trouble, "I am the primary and my lease holds; no standby is synchronous: what is committed is on this host alone";
    /// Leader.
    CommitsWait = "commits_wait", Trouble, "I am the primary and my lease holds; no standby is synchronous, and commits wait until one is (synchronous_mode_strict)";
    /// Leader.
    AwaitingRenewal = "awaiting_renewal", Trouble, "the leadership is mine, but my lease does not hold: doing nothing before a renewal is acknowledged";
    /// Leader.
    PreparingCluster = "preparing_cluster", Change, "the new cluster runs: creating the roles that its members need";
    /// Leader.
    RecordingCluster = "recording_cluster", Change, "the new cluster is complete: recording its identity";
    /// Leader.
    RecordingHistory = "recording_history", Change, "recording the new timeline in the cluster's history";
    /// Leader.
    RecordingFailsafe = "recording_failsafe", Change, "recording which members may lead, for failsafe mode";
    /// Leader.
    AddingSyncStandby { names: String } = "adding_sync_standby", Change, "recording {names} as synchronous: Postgres waits for it and it has everything";
    /// Leader.
    RemovingSyncStandby { names: String } = "removing_sync_standby", Change, "striking {names} off the synchronous standbys before Postgres stops waiting";
    /// Leader.
    ChangingQuorum { quorum: usize } = "changing_quorum", Change, "recording that a standby may take over once {quorum} others are not ahead of it";
    /// Leader.
    ChangingSyncNames { value: String } = "changing_sync_names", Change, "setting synchronous_standby_names = '{value}'";
    /// Leader.
    ClaimingSync = "claiming_sync", Change, "recording myself as the primary whose standbys count as synchronous";
    /// Leader.
    ConfirmingSync = "confirming_sync", Change, "an earlier change of the synchronous record was not answered: writing the record again, so that it cannot come late";
    /// Leader.
    ReleasingAgain = "releasing_again", Change, "my release of the leadership was not answered: releasing it again";
    /// Leader.
    WaitingForSync = "waiting_for_sync", Calm, "I am the primary; waiting until every Postgres process has taken the new synchronous_standby_names";
    /// Leader.
    CatchingUpSync = "catching_up_sync", Calm, "I am the primary; waiting until the standby has everything committed before it became synchronous";
    /// Leader.
    HandingOver { to: String } = "handing_over", Change, "stopping Postgres cleanly to hand over to {to}";
    /// Leader.
    HandedOver = "handed_over", Change, "Postgres is stopped cleanly: releasing the leadership";
    /// Leader.
    SwitchoverRefused { why: String } = "switchover_refused", Trouble, "not switching over: {why}";
    /// Leader.
    SwitchoverDone = "switchover_done", Change, "the requested switchover is done: clearing the request";
    /// Leader.
    CrashedHandingOver = "crashed_handing_over", Trouble, "Postgres died; a synchronous standby is ready: releasing the leadership to it";
    /// Leader.
    CrashedRestarting = "crashed_restarting", Trouble, "Postgres died and no synchronous standby is ready: restarting it in place";
    /// Leader.
    StartOverdue = "start_overdue", Trouble, "Postgres has not come back within primary_start_timeout: letting another member take over";
    /// Leader.
    StopOverdue = "stop_overdue", Trouble, "Postgres has not stopped within primary_stop_timeout: killing it; its standbys have everything";
    /// Leader.
    StartingToLead = "starting_to_lead", Change, "I hold the leadership: starting Postgres read-only, to be promoted";
    /// Leader.
    Promoting = "promoting", Change, "I hold the leadership: promoting";
    /// Leader.
    GuardMissing = "guard_missing", Trouble, "not promoting: the guard process (pgha-guard) does not answer";
    /// Leader.
    WatchdogRequired = "watchdog_required", Trouble, "not leading: watchdog.mode is required and the watchdog cannot be used";
    /// Leader.
    CannotLead { why: String } = "cannot_lead", Trouble, "giving the leadership up: {why}";
    /// Leader.
    Bootstrapping = "bootstrapping", Change, "making a new cluster";
    /// Leader.
    FirstStart = "first_start", Change, "starting Postgres as the primary of a cluster that nobody else has data of";
    /// Leader.
    Restarting = "restarting", Change, "restarting Postgres, as asked";
    /// Leader.
    PostgresMute = "postgres_mute", Trouble, "Postgres does not answer queries";
    /// Leader.
    Reowning = "reowning", Change, "the agent was restarted within its lease: taking the leadership over from the old session";
    /// Leader.
    RestoringEpoch = "restoring_epoch", Trouble, "somebody deleted pgha/epoch: taking my own leadership anew to restore it";
    /// Leader.
    FormerSession = "former_session", Calm, "a former session holds the leadership under my name; waiting until it expires";
    /// Leader.
    DroppingStaleLock = "dropping_stale_lock", Change, "removing the leadership of my previous life";

    /// Fencing.
    LeaseOver = "lease_over", Trouble, "the lease is over without a renewal: stopping Postgres at once";
    /// Fencing.
    Deposed { by: NodeName } = "deposed", Trouble, "{by} is the leader now: stopping Postgres at once";
    /// Fencing.
    StandingDown = "standing_down", Change, "Postgres accepts no writes any more: disarming watchdog and guard";
    /// Silence.
    SilentLeading = "silent_leading", Trouble, "ZooKeeper does not answer; serving until the lease ends";
    /// Silence.
    Failsafe = "failsafe", Trouble, "ZooKeeper does not answer; serving for as long as every member promises not to lead (failsafe mode)";
    /// Silence.
    SilentWaiting = "silent_waiting", Trouble, "ZooKeeper does not answer; changing nothing";

    /// Standby.
    Following { leader: NodeName } = "following", Calm, "streaming from {leader}";
    /// Standby.
    Replaying = "replaying", Calm, "replaying from the archive, as the tag nostream asks";
    /// Standby.
    CopyingSlots { leader: NodeName } = "copying_slots", Change, "copying the permanent logical slots that {leader} has and I lack; Postgres is restarted for it";
    /// Standby.
    Redirecting { leader: NodeName } = "redirecting", Change, "following {leader}";
    /// Standby.
    NotStreaming { leader: NodeName } = "not_streaming", Trouble, "running, but not streaming from {leader}";
    /// Standby.
    GivingUpStreaming { leader: NodeName } = "giving_up_streaming", Trouble, "{leader} answers, but I have got no WAL for too long: stopping to rewind or copy";
    /// Standby.
    GivingUpStarting { times: u32 } = "giving_up_starting", Trouble, "Postgres has ended {times} times in recovery: rewinding or copying";
    /// Standby.
    Diverged { leader: NodeName } = "diverged", Trouble, "my WAL has left the history of {leader}: stopping to rewind";
    /// Standby.
    Starting = "starting", Calm, "Postgres is starting";
    /// Rejoin.
    RejoinStart { leader: NodeName } = "rejoin_start", Change, "same history as {leader}: starting as its standby";
    /// Rejoin.
    RejoinRewind { leader: NodeName } = "rejoin_rewind", Change, "history has parted from {leader}: rewinding";
    /// Rejoin.
    RejoinClone { leader: NodeName } = "rejoin_clone", Change, "making a fresh copy, with {leader} as the source";
    /// Rejoin.
    WaitingForHistory { leader: NodeName } = "waiting_for_history", Calm, "waiting until {leader} has recorded its timeline";
    /// Rejoin.
    WaitingForCheckpoint { leader: NodeName } = "waiting_for_checkpoint", Calm, "waiting until {leader} has written the checkpoint after its promotion";
    /// Rejoin.
    WaitingForLeader { leader: NodeName } = "waiting_for_leader", Calm, "waiting until {leader} runs as primary";
    /// Rejoin.
    DroppingOldData = "dropping_old_data", Change, "nothing needs it any more: removing the data that a fresh copy replaced, or what a copy that was given up left";
    /// Rejoin.
    Reinitializing = "reinitializing", Change, "stopping Postgres for a fresh copy, as asked";

    /// No leader.
    TakingLeadership = "taking_leadership", Change, "there is no leader and nobody is ahead of me: taking the leadership";
    /// No leader.
    Evicting { leader: NodeName } = "evicting", Change, "{leader} has let its lease lapse and nobody is ahead of me: taking the leadership from it";
    /// No leader.
    RetakingLeadership = "retaking_leadership", Trouble, "my leadership vanished within its lease: taking it again";
    /// No leader.
    TakingToBootstrap = "taking_to_bootstrap", Change, "there is no cluster yet: taking the leadership to make it";
    /// No leader.
    AskingPeers = "asking_peers", Change, "there is no leader: asking the others how far they are";
    /// No leader.
    Detaching = "detaching", Change, "there is no leader: leaving the last one, so that I can vote";
    /// No leader.
    PeerAhead { peer: NodeName } = "peer_ahead", Calm, "there is no leader; {peer} has more WAL than I have";
    /// No leader.
    PeerPreferred { peer: NodeName } = "peer_preferred", Calm, "there is no leader; {peer} has as much as I have and a greater failover_priority";
    /// No leader.
    Promised { to: NodeName } = "promised", Trouble, "there is no leader in ZooKeeper; {to} cannot reach it and has my promise not to lead";
    /// No leader.
    JustBooted = "just_booted", Calm, "there is no leader; this host has just booted and may have promised another not to lead";
    /// No leader.
    NotInFailsafe = "not_in_failsafe", Trouble, "there is no leader; the last one, in failsafe mode, did not count on me and may be alive; if it is not, `pghactl failover` makes me leader";
    /// No leader.
    AwaitingLapse { leader: String } = "awaiting_lapse", Trouble, "there is no leader, and {leader} has not given the leadership back: waiting until its lease must be over";
    /// No leader.
    NoQuorum { votes: usize, needed: usize } = "no_quorum", Trouble, "there is no leader; only {votes} of {needed} other members are known not to be ahead of me";
    /// No leader.
    NotSynchronous = "not_synchronous", Calm, "there is no leader; I was not a synchronous standby and may lack commits";
    /// No leader.
    LacksConfirmed { confirmed: Lsn } = "lacks_confirmed", Trouble, "there is no leader; I have less than {confirmed}, which I have confirmed: I am still replaying, or my data is older than it was";
    /// No leader.
    TooFarBehind = "too_far_behind", Trouble, "there is no leader; I am further behind than maximum_lag_on_failover";
    /// No leader.
    StaleTimeline = "stale_timeline", Trouble, "there is no leader; my timeline is older than the cluster's";
    /// No leader.
    NoFailoverTag = "nofailover_tag", Calm, "there is no leader; the tag nofailover keeps me from it";
    /// No leader.
    OtherCandidate { candidate: NodeName } = "other_candidate", Calm, "there is no leader; {candidate} was asked to take over";
    /// No leader.
    StartingUnled = "starting_unled", Change, "there is no leader: starting read-only to be able to take over";
    /// No leader.
    WaitingForCluster = "waiting_for_cluster", Calm, "waiting until the cluster has been made";

    /// Anywhere.
    Busy { job: JobKind } = "busy", Calm, "busy: {job}";
    /// Anywhere.
    BackingOff { job: JobKind } = "backing_off", Trouble, "waiting before the next try: {job} failed";
    /// Anywhere.
    SystemIdMismatch { mine: SystemId, cluster: SystemId } = "system_id_mismatch", Trouble, "the data directory belongs to another cluster (system identifier {mine}, not {cluster}): doing nothing; move it away to join";
    /// Anywhere.
    DiskFailing { disk: Disk } = "disk_failing", Trouble, "the disk under the data directory {disk}: not leading with it";
    /// Anywhere.
    DuplicateName { at: String } = "duplicate_name", Trouble, "another host runs under my name ({at}): doing nothing; give one of the two another name";
    /// Anywhere.
    DataUnusable { why: String } = "data_unusable", Trouble, "the data directory cannot be used: {why}";
    /// Anywhere.
    Paused = "paused", Calm, "paused: changing nothing";
    /// Anywhere.
    ShuttingDown = "shutting_down", Change, "stopping Postgres before the agent ends";
    /// Anywhere.
    ShutDown = "shut_down", Change, "Postgres is stopped: the agent ends";
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bootstrap => "making a new cluster",
            Self::Prepare => "creating the members' roles",
            Self::Start => "starting Postgres",
            Self::Stop => "stopping Postgres",
            Self::Promote => "promoting",
            Self::Rewind => "pg_rewind",
            Self::Clone => "making a fresh copy",
            Self::CopySlots => "copying logical slots",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique() {
        let codes: BTreeSet<_> = Reason::TABLE.iter().map(|row| row.0).collect();
        assert_eq!(codes.len(), Reason::TABLE.len());
    }

    /// `docs/decisions.md` is made from the table above; PGHA_BLESS=1 writes it anew.
    #[test]
    fn the_documentation_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/decisions.md");
        let mut text = String::from(
            "# What an agent says, and what it means\n\n\
             Each turn of an agent's loop ends in one of these. The word is the `code` of `GET /pgha`, of the metric\n\
             `pgha_reason` and of the log line; the sentence is what `pghactl why` and `systemctl status` show.\n\
             *Calm*: all is well. *Change*: something is being done. *Trouble*: somebody should look.\n\n\
             Generated from `crates/pgha-core/src/reason.rs`.\n\n| word | weight | sentence |\n|---|---|---|\n",
        );
        for (code, weight, sentence) in Reason::TABLE {
            text.push_str(&format!("| `{code}` | {weight:?} | {sentence} |\n"));
        }
        #[expect(clippy::disallowed_methods, reason = "a test of a file")]
        {
            if option_env!("PGHA_BLESS").is_some() {
                std::fs::write(path, &text).unwrap();
            }
            assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text, "run the tests with PGHA_BLESS=1");
        }
    }

    #[test]
    fn texts_name_their_fields() {
        let reason = Reason::Deposed { by: NodeName::try_from("db2").unwrap() };
        assert_eq!(reason.to_string(), "db2 is the leader now: stopping Postgres at once");
        assert_eq!(reason.code(), "deposed");
    }
}
