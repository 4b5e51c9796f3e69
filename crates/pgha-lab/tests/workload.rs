//! The workload's count, against one plain server of which it is known what it does with rows.
//!
//! It needs root and Debian 12; `cargo xtask test` runs it, a plain `cargo test` passes it over.

use std::{thread, time::Duration};

use pgha_lab::{
    Host, Lab, Target,
    sql::Server,
    workload::{
        Settings, Workload,
        append::{Anomaly, Appends},
    },
};

/// For everything that only has to happen.
const SOON: Duration = Duration::from_mins(1);

const INSTALL: &str = "set -e
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --yes --quiet=2 --no-install-recommends postgresql-15 > /dev/null
cd /etc/postgresql/15/main
echo \"listen_addresses = '*'\" > conf.d/lab.conf
echo 'host all all 10.77.0.0/24 trust' >> pg_hba.conf
systemctl restart postgresql@15-main";

fn server(host: &Host) -> Server {
    Server {
        address: (host.address(), 5432).into(),
        user: "postgres".to_owned(),
        password: String::new(),
        database: "postgres".to_owned(),
    }
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn promises_are_counted_as_they_were_kept() {
    let lab = Lab::up(&["db1"]).expect("the lab comes up");
    let host = lab.host("db1").expect("a host");
    host.run(INSTALL).expect("a server");
    let server = server(&host);

    // A server that crashes and recovers loses nothing that it has acknowledged.
    let workload = Workload::start(Settings::new(server.clone())).expect("it starts");
    workload.await_more(100, SOON).expect("rows");
    workload.lap();
    host.kill(&Target::process("postgres")).expect("it dies");
    host.run("systemctl restart postgresql@15-main").expect("it comes back");
    workload.await_more(100, SOON).expect("rows after the crash");
    let gap = workload.lap();
    let report = workload.finish().expect("a report");
    assert!(report.holds(), "{report}");
    assert!(report.acknowledged >= 200 && report.in_doubt <= 4 && report.refused > 0, "{report}");
    assert!(report.first_error.is_some() && gap.as_secs_f64() <= report.longest_gap, "{report}");

    // A mute server: each writer has one row in doubt, and the silence is a gap.
    let workload = Workload::start(Settings::new(server.clone())).expect("it starts");
    workload.await_more(100, SOON).expect("rows");
    host.freeze(&Target::process("postgres")).expect("it freezes");
    thread::sleep(Duration::from_secs(4));
    host.thaw(&Target::process("postgres")).expect("it thaws");
    workload.await_more(100, SOON).expect("rows after the thaw");
    let report = workload.finish().expect("a report");
    assert!(report.holds() && report.in_doubt == 4, "{report}");
    assert!(report.longest_gap > 3.5, "{report}");

    // A server that refuses writes keeps its word, too.
    let workload = Workload::start(Settings::new(server.clone())).expect("it starts");
    workload.await_more(100, SOON).expect("rows");
    host.run("su postgres -c \"psql -qc 'alter system set default_transaction_read_only = on'\"").expect("it is set");
    host.run("systemctl reload postgresql@15-main").expect("it is told");
    // For as long as this the clients meet it.
    thread::sleep(Duration::from_millis(500));
    host.run(
        "su postgres -c \"PGOPTIONS='-c default_transaction_read_only=off' psql -qc 'alter system reset all'\"; \
         systemctl reload postgresql@15-main",
    )
    .expect("it is undone");
    workload.await_more(100, SOON).expect("rows again");
    let report = workload.finish().expect("a report");
    assert!(report.holds() && report.refused > 0, "{report}");
    assert!(report.first_error.as_ref().is_some_and(|(_, why)| why.contains("read-only")), "{report}");

    // A server that forgets is found out.
    let workload = Workload::start(Settings::new(server.clone())).expect("it starts");
    workload.await_more(100, SOON).expect("rows");
    server.query("delete from pgha_workload where seq in (1, 2)", SOON).expect("they are deleted");
    let report = workload.finish().expect("a report");
    assert!(report.lost == 8 && !report.holds(), "{report}");

    // Lists live through a crash as rows do.
    let appends = Appends::start(Settings::new(server.clone())).expect("it starts");
    appends.await_more(300, SOON).expect("appends");
    host.kill(&Target::process("postgres")).expect("it dies");
    host.run("systemctl restart postgresql@15-main").expect("it comes back");
    appends.await_more(300, SOON).expect("appends after the crash");
    let report = appends.finish().expect("a report");
    assert!(report.holds() && report.unconnected > 0 && report.reads > 0 && report.keys >= 3, "{report}");

    // A server that cuts a list has shown its end before.
    let appends = Appends::start(Settings::new(server.clone())).expect("it starts");
    appends.await_more(300, SOON).expect("appends");
    server.query("update pgha_append set list = trim_array(list, 1) where key = 0", SOON).expect("it is cut");
    appends.await_more(100, SOON).expect("more appends");
    let report = appends.finish().expect("a report");
    let found = |what: fn(&Anomaly) -> bool| report.anomalies.iter().any(what);
    assert!(found(|one| matches!(one, Anomaly::Lost { .. })), "{report}");
    assert!(found(|one| matches!(one, Anomaly::Diverged { .. })), "{report}");
}
