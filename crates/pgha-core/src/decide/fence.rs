//! When Postgres must not accept one more write.

use std::ops::ControlFlow::{self, Break, Continue};

use super::{Decision, View, may_accept_writes};
use crate::action::Action;
use crate::observation::{Cluster, Dcs, Postgres};
use crate::reason::Reason;

/// A Postgres that may accept writes without a lease that holds is stopped at once, whatever else is the case.
pub(super) fn lease_over(view: View<'_>) -> ControlFlow<Decision, View<'_>> {
    if may_accept_writes(view.obs) && view.lease().is_none() {
        let mut actions = Vec::new();
        if view.obs.job.is_some() {
            actions.push(Action::CancelJob);
        }
        actions.push(Action::Fence);
        return Break(view.say(Reason::LeaseOver, actions));
    }
    Continue(view)
}

/// Somebody else leads, or led since: the lease is void before its time.
pub(super) fn deposed<'a>(view: View<'a>, cluster: &Cluster) -> ControlFlow<Decision, View<'a>> {
    let other = cluster.leader.as_ref().map(|leader| &leader.name).filter(|name| *name != view.me());
    let led_since = cluster.epoch.leader.as_ref().filter(|name| *name != view.me());
    if may_accept_writes(view.obs) {
        let Some(by) = other.or(led_since).cloned() else {
            return Continue(view);
        };
        let mut actions = Vec::new();
        if view.obs.job.is_some() {
            actions.push(Action::CancelJob);
        }
        actions.push(Action::Fence);
        return Break(view.say(Reason::Deposed { by }, actions));
    }
    Continue(view)
}

/// Nothing here accepts writes any more, and the leadership is gone or its lease over: watchdog and guard have nothing
/// left to guard. A watchdog that stays armed resets a host that did everything right.
pub(super) fn stand_down(view: View<'_>) -> ControlFlow<Decision, View<'_>> {
    let leads = match &view.obs.dcs {
        Dcs::Seen(cluster) => cluster.leader.as_ref().is_some_and(|leader| leader.name == *view.me()),
        Dcs::Silent { .. } => view.lease().is_some(),
    };
    let settled = !matches!(view.obs.postgres, Postgres::Starting { .. } | Postgres::Mute { .. });
    let idle = view.obs.job.is_none() && settled && !may_accept_writes(view.obs);
    if !leads && idle && view.obs.lease.is_some() {
        return Break(view.say(Reason::StandingDown, vec![Action::DisarmWatchdog, Action::ForgetLease]));
    }
    Continue(view)
}
