//! When Postgres must not accept one more write.

use std::ops::ControlFlow::{self, Break, Continue};

use super::{Verdict, View};
use crate::action::Action;
use crate::observation::{Cluster, Dcs, Postgres, Watchdog};
use crate::reason::Reason;

/// A Postgres that may accept writes without a lease that holds is stopped at once, whatever else is the case.
pub(super) fn lease_over(view: View<'_>) -> ControlFlow<Verdict, View<'_>> {
    if view.obs.may_accept_writes() && view.lease().is_none() {
        let actions = fence(&view);
        return Break(view.say(Reason::LeaseOver, actions));
    }
    Continue(view)
}

/// Kills Postgres, and then has nothing left to guard: a watchdog that stays armed until the next look, which may have to
/// wait for ZooKeeper, would reset a host that did everything right. A start under way may still bring up a Postgres;
/// then it stays armed.
fn fence(view: &View<'_>) -> Vec<Action> {
    if view.obs.job.is_some() {
        vec![Action::CancelJob, Action::Fence]
    } else {
        vec![Action::Fence, Action::DisarmWatchdog, Action::ForgetLease]
    }
}

/// Somebody else leads, or led since: the lease is void before its time.
pub(super) fn deposed<'a>(view: View<'a>, cluster: &Cluster) -> ControlFlow<Verdict, View<'a>> {
    let other = cluster.leader.as_ref().map(|leader| &leader.name).filter(|name| *name != view.me());
    let led_since = cluster.epoch.leader.as_ref().filter(|name| *name != view.me());
    if view.obs.may_accept_writes() {
        let Some(by) = other.or(led_since).cloned() else {
            return Continue(view);
        };
        let actions = fence(&view);
        return Break(view.say(Reason::Deposed { by }, actions));
    }
    Continue(view)
}

/// Nothing here accepts writes any more, and the leadership is gone or its lease over: watchdog and guard have nothing
/// left to guard. A watchdog that stays armed resets a host that did everything right; it may be armed without a lease,
/// because the guard has ended that, an agent before this one left it so, or renewals fail.
pub(super) fn stand_down(view: View<'_>) -> ControlFlow<Verdict, View<'_>> {
    let leads = match &view.obs.dcs {
        Dcs::Seen(cluster) => cluster.leader.as_ref().is_some_and(|leader| leader.is_my_session),
        Dcs::Silent { .. } => view.lease().is_some(),
    };
    let settled = !matches!(view.obs.postgres, Postgres::Starting { .. } | Postgres::Mute { .. });
    let idle = view.obs.job.is_none() && settled && !view.obs.may_accept_writes();
    let armed = view.obs.watchdog == Watchdog::Armed;
    let guarded = view.obs.lease.is_some() || armed;
    let over = armed && view.lease().is_none();
    if idle && (over || !leads && guarded) {
        return Break(view.say(Reason::StandingDown, vec![Action::DisarmWatchdog, Action::ForgetLease]));
    }
    Continue(view)
}
