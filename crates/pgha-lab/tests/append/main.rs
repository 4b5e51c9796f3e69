//! The append workload against real servers on loopback that are killed, promoted and forgetful; no lab is needed.
//!
//! It needs root, because Postgres runs as its own user, and passes itself over where something is missing.

#![expect(clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on fails, and says what it saw")]

mod balancer;
mod postgres;

use std::{net::SocketAddr, thread, time::Duration};

use balancer::Balancer;
use pgha_lab::{
    sql::Server,
    workload::{
        Settings,
        append::{Anomaly, Appends, Report},
    },
};
use postgres::Postgres;

/// For everything that only has to happen.
const SOON: Duration = Duration::from_mins(1);

fn start(address: SocketAddr) -> Appends {
    let (user, database) = ("postgres".to_owned(), "postgres".to_owned());
    let server = Server { address, user, password: String::new(), database };
    Appends::start_outside(Settings::new(server)).expect("it starts")
}

fn finish(appends: Appends) -> Report {
    let report = appends.finish().expect("a report");
    eprintln!("{report}");
    report
}

fn has(report: &Report, what: fn(&Anomaly) -> bool) -> bool {
    report.anomalies.iter().any(what)
}

#[test]
fn a_crash_loses_and_invents_nothing() {
    let Some(mut postgres) = Postgres::new() else { return };
    let appends = start(([127, 0, 0, 1], postgres.port).into());
    for _ in 0..3 {
        appends.await_more(1000, SOON).expect("appends");
        postgres.crash();
        thread::sleep(Duration::from_millis(300));
        postgres.start(&[]);
    }
    appends.await_more(1000, SOON).expect("appends after the crashes");
    let report = finish(appends);
    assert!(report.holds(), "{report}");
    assert!(report.acknowledged >= 4000 && report.in_doubt <= 12 && report.unconnected > 0, "{report}");
    assert!(report.refused > 0 && report.reads > 0 && report.keys > 6, "{report}");
}

/// Commits that wait for a standby are in doubt and not seen by others; a crash ends the wait, and they are.
#[test]
fn what_was_never_confirmed_comes_after_a_crash() {
    let Some(mut postgres) = Postgres::new() else { return };
    let appends = start(([127, 0, 0, 1], postgres.port).into());
    appends.await_more(200, SOON).expect("appends");
    assert!(postgres.run("alter system set synchronous_standby_names = 'nobody'"));
    assert!(postgres.run("select pg_reload_conf()"));
    // Longer than a client has patience.
    thread::sleep(Duration::from_secs(4));
    postgres.crash();
    postgres.start(&["-c", "synchronous_standby_names="]);
    appends.await_more(200, SOON).expect("appends after the crash");
    let report = finish(appends);
    assert!(report.holds(), "{report}");
    assert!(report.in_doubt_kept > 0 && report.in_doubt_kept <= report.in_doubt, "{report}");
}

#[test]
fn a_server_that_forgets_is_found_out() {
    let Some(postgres) = Postgres::new() else { return };
    let appends = start(([127, 0, 0, 1], postgres.port).into());
    appends.await_more(300, SOON).expect("appends");
    assert!(postgres.run("update pgha_append set list = trim_array(list, 1) where key = 0"));
    appends.await_more(100, SOON).expect("more appends");
    let report = finish(appends);
    assert!(has(&report, |one| matches!(one, Anomaly::Lost { .. })), "{report}");
    assert!(has(&report, |one| matches!(one, Anomaly::Diverged { .. })), "{report}");
}

/// The old primary takes appends that the new one never gets.
#[test]
fn a_split_brain_is_found_out() {
    let Some(old) = Postgres::new() else { return };
    let new = old.standby();
    let balancer = Balancer::new(old.port);
    let appends = start(balancer.address);
    appends.await_more(300, SOON).expect("appends");
    assert!(new.run("select pg_promote()"));
    appends.await_more(100, SOON).expect("appends on the wrong side");
    balancer.aim(&[new.port]);
    balancer.cut();
    appends.await_more(100, SOON).expect("appends on the right side");
    let report = finish(appends);
    assert!(has(&report, |one| matches!(one, Anomaly::Lost { .. })), "{report}");
    assert!(has(&report, |one| matches!(one, Anomaly::Diverged { .. })), "{report}");
}

/// The old primary takes no appends any more, but still answers: nothing is lost, and reads are old.
#[test]
fn a_primary_that_is_not_fenced_is_found_out() {
    let Some(old) = Postgres::new() else { return };
    let new = old.standby();
    let balancer = Balancer::new(old.port);
    let appends = start(balancer.address);
    appends.await_more(300, SOON).expect("appends");
    assert!(old.run("alter system set default_transaction_read_only = on"));
    assert!(old.run("select pg_reload_conf()"));
    // Nothing is on its way any more.
    thread::sleep(Duration::from_secs(1));
    assert!(new.run("select pg_promote()"));
    balancer.aim(&[old.port, new.port]);
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(50));
        balancer.cut();
    }
    balancer.aim(&[new.port]);
    balancer.cut();
    appends.await_more(100, SOON).expect("appends on the right side");
    let report = finish(appends);
    assert!(!report.holds(), "{report}");
    assert!(!has(&report, |one| !matches!(one, Anomaly::Backwards { .. })), "{report}");
}
