//! `GET /metrics`: Patroni's names, so that dashboards work, and a few of our own.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use pgha_core::lsn::Lsn;
use pgha_core::wire::rest::Xlog;
use pgha_core::wire::{MemberRole, SynchronousMode};
use pgha_guard::clock;

use super::health::loop_age;
use crate::agent::Published;
use crate::context::Context;

pub(super) fn render(context: &Context, published: &Published) -> String {
    let config = &context.config;
    let now = clock::now();
    let status = &published.status;
    let labels = format!("{{scope=\"{}\",name=\"{}\"}}", config.cluster, config.name);
    let flag = u64::from;
    let is = |role: MemberRole| flag(published.running && status.role == role);
    let (location, received, replayed, replayed_at, paused) = match &status.xlog {
        Some(Xlog::Primary { location }) => (location.0, 0, 0, None, false),
        Some(Xlog::Standby { received_location, replayed_location, replayed_timestamp, paused }) => {
            let position = |it: &Option<Lsn>| it.unwrap_or_default().0;
            (0, position(received_location), position(replayed_location), replayed_timestamp.as_deref(), *paused)
        }
        None => (0, 0, 0, None, false),
    };
    let streams = status.replication_state.is_some();
    let replays = published.running && status.role == MemberRole::Replica && !streams;
    let documents = &published.documents;
    let settings = documents.config.as_ref().map(pgha_core::wire::ClusterConfig::settings);
    let failsafe = settings.is_some_and(|settings| settings.failsafe_mode);
    let quorum = settings.is_some_and(|settings| settings.synchronous_mode == SynchronousMode::Quorum);
    let lease = published.lease.filter(|_| published.leads);
    let lease_left = lease.map_or(0, |lease| lease.fence_at(&published.timing).since(now).0);
    let mut text = String::new();
    for (name, help, value) in [
        ("patroni_postgres_running", "Postgres answers.", flag(published.running)),
        (
            "patroni_postmaster_start_time",
            "When Postgres was started (Unix time).",
            unix_time(status.postmaster_start_time.as_deref()),
        ),
        ("patroni_primary", "Postgres accepts writes.", is(MemberRole::Primary)),
        ("patroni_replica", "Postgres is a standby.", is(MemberRole::Replica)),
        ("patroni_sync_standby", "Commits wait for this standby.", flag(!quorum && status.sync_standby)),
        ("patroni_xlog_location", "Write position of a primary.", location),
        ("patroni_xlog_received_location", "Received position of a standby.", received),
        ("patroni_xlog_replayed_location", "Replayed position of a standby.", replayed),
        (
            "patroni_xlog_replayed_timestamp",
            "When the newest transaction that a standby has replayed was committed (Unix time).",
            unix_time(replayed_at),
        ),
        ("patroni_xlog_paused", "Replay is paused.", flag(paused)),
        ("patroni_postgres_streaming", "The standby streams.", flag(streams)),
        ("patroni_postgres_in_archive_recovery", "The standby replays from the archive.", flag(replays)),
        ("patroni_postgres_server_version", "Version of Postgres.", u64::from(status.server_version.unwrap_or(0))),
        ("patroni_cluster_unlocked", "Nobody leads.", flag(status.cluster_unlocked)),
        (
            "patroni_failsafe_mode_is_active",
            "ZooKeeper is silent, and failsafe mode bridges that.",
            flag(status.failsafe_mode_is_active),
        ),
        ("patroni_failsafe_mode_enabled", "Failsafe mode is on.", flag(failsafe)),
        (
            "patroni_failsafe_member",
            "A primary in failsafe mode counts on this member.",
            flag(documents.failsafe.0.contains_key(&config.name)),
        ),
        ("patroni_quorum_standby", "This standby has a vote (quorum commit).", flag(quorum && status.sync_standby)),
        (
            "pgha_quarantine_bytes",
            "WAL in quarantine, which the cluster does not have.",
            context.quarantined.load(Ordering::Relaxed),
        ),
        ("pgha_archive_time", "When a primary last archived WAL (Unix time).", published.archiver.archived),
        ("pgha_archive_failed_time", "When that last failed (Unix time).", published.archiver.failed),
        ("pgha_can_lead", "Nothing about this member itself keeps it from leading.", flag(published.can_lead)),
        ("patroni_postgres_timeline", "Timeline.", u64::from(status.timeline.map_or(0, |timeline| timeline.0))),
        ("patroni_dcs_last_seen", "When ZooKeeper was last seen (Unix time).", status.dcs_last_seen.unwrap_or(0)),
        ("patroni_pending_restart", "A changed setting waits for a restart.", flag(status.pending_restart)),
        ("patroni_is_paused", "Automatic failover is paused.", flag(status.pause)),
        ("pgha_leader", "This member leads and its lease holds.", flag(published.is_primary(now))),
        ("pgha_lease_milliseconds", "How long the lease still holds.", lease_left),
        ("pgha_epoch", "Number of the newest leadership.", published.epoch.map_or(0, |epoch| epoch.0)),
        ("pgha_watchdog_armed", "The kernel watchdog is armed.", flag(published.watchdog == "armed")),
        ("pgha_loop_age_milliseconds", "Time since the agent's loop went round.", loop_age(published, now).0),
    ] {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{labels} {value}");
    }
    if let Some((reason, _)) = &published.reason {
        let _ = writeln!(
            text,
            "# HELP pgha_reason Why this member is what it is.\n# TYPE pgha_reason gauge\n\
             pgha_reason{{scope=\"{}\",name=\"{}\",code=\"{}\"}} 1",
            config.cluster,
            config.name,
            reason.code()
        );
    }
    text
}

/// Seconds, of a time as Postgres prints it; 0 where there is none.
fn unix_time(text: Option<&str>) -> u64 {
    let time = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.and_then(|time| u64::try_from(time.as_second()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::unix_time;

    #[test]
    fn times_are_read_as_postgres_prints_them() {
        assert_eq!(unix_time(Some("2026-01-01 10:00:00.5+02")), 1_767_254_400);
        assert_eq!(unix_time(Some("2026-01-01 10:00:00+05:30")), 1_767_241_800);
        assert_eq!([None, Some("infinity")].map(unix_time), [0, 0]);
    }
}
