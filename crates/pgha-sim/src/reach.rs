//! What histories reach: reasons, actions and turns of fate. What none reaches is a rule that nothing tests.

use std::collections::BTreeMap;

use pgha_core::action::Action;
use pgha_core::reason::Reason;

/// Counts.
#[derive(Debug, Default, Clone)]
pub struct Reached {
    /// By reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// By action.
    pub actions: BTreeMap<&'static str, u64>,
    /// By turn of fate.
    pub marks: BTreeMap<&'static str, u64>,
    /// Reasons that gave way to another.
    pub left: BTreeMap<&'static str, u64>,
}

impl Reached {
    /// A member has decided otherwise than before.
    pub fn decided(&mut self, before: Option<&Reason>, now: &Reason) {
        *self.reasons.entry(now.code()).or_insert(0) += 1;
        if let Some(before) = before.filter(|before| before.code() != now.code()) {
            *self.left.entry(before.code()).or_insert(0) += 1;
        }
    }

    /// An action is done.
    pub fn acted(&mut self, action: &Action) {
        *self.actions.entry(name(action)).or_insert(0) += 1;
    }

    /// Something else that a test wants to see.
    pub fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_insert(0) += 1;
    }

    /// Adds another history.
    pub fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.reasons, &other.reasons),
            (&mut self.actions, &other.actions),
            (&mut self.marks, &other.marks),
            (&mut self.left, &other.left),
        ];
        for (mine, theirs) in pairs {
            for (key, count) in theirs {
                *mine.entry(key).or_insert(0) += count;
            }
        }
    }

    /// Codes of reasons that were given and never gave way to another: dead ends.
    pub fn dead_ends(&self) -> Vec<&'static str> {
        self.reasons.keys().copied().filter(|code| !self.left.contains_key(code)).collect()
    }

    /// Codes of reasons that were never given.
    pub fn never(&self) -> Vec<&'static str> {
        Reason::TABLE.iter().map(|(code, _, _)| *code).filter(|code| !self.reasons.contains_key(code)).collect()
    }
}

fn name(action: &Action) -> &'static str {
    match action {
        Action::TakeLeadership { .. } => "TakeLeadership",
        Action::ReownLeadership { .. } => "ReownLeadership",
        Action::Renew { .. } => "Renew",
        Action::ReleaseLeadership { .. } => "ReleaseLeadership",
        Action::RecordCluster { .. } => "RecordCluster",
        Action::WriteSync { .. } => "WriteSync",
        Action::ReserveTimeline { .. } => "ReserveTimeline",
        Action::WriteFailsafe { .. } => "WriteFailsafe",
        Action::RenewByPromise { .. } => "RenewByPromise",
        Action::WriteHistory { .. } => "WriteHistory",
        Action::ClearFailover { .. } => "ClearFailover",
        Action::AskPeers(_) => "AskPeers",
        Action::Fence => "Fence",
        Action::ForgetLease => "ForgetLease",
        Action::Bootstrap => "Bootstrap",
        Action::Prepare => "Prepare",
        Action::Start(_) => "Start",
        Action::Stop { .. } => "Stop",
        Action::Promote { .. } => "Promote",
        Action::Follow(_) => "Follow",
        Action::SetSyncNames(_) => "SetSyncNames",
        Action::CreateSlots(_) => "CreateSlots",
        Action::CreateLogicalSlots(_) => "CreateLogicalSlots",
        Action::AdvanceSlots(_) => "AdvanceSlots",
        Action::CopySlots(..) => "CopySlots",
        Action::DropSlots(_) => "DropSlots",
        Action::Checkpoint => "Checkpoint",
        Action::Rewind(_) => "Rewind",
        Action::Clone(_) => "Clone",
        Action::RemoveOldData => "RemoveOldData",
        Action::CancelJob => "CancelJob",
        Action::ArmWatchdog => "ArmWatchdog",
        Action::DisarmWatchdog => "DisarmWatchdog",
        Action::Exit => "Exit",
    }
}
