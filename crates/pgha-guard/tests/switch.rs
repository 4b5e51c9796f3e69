//! The program itself, and a process that has the looks of a postmaster: whom it kills, when, and whom it leaves alone.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pgha_core::decide::Electorate;
use pgha_core::lease::Lease;
use pgha_core::name::Epoch;
use pgha_core::time::Millis;
use pgha_core::timing::Timing;
use pgha_guard::lease_file::{LeaseFile, Record};
use pgha_guard::postmaster::Postmaster;
use pgha_guard::{clock, heartbeat};
use tempfile::TempDir;

/// A member's directories, and what runs on them.
struct Member {
    dir: TempDir,
    postmaster: Child,
    guard: Child,
}

impl Member {
    /// A postmaster, a standby or not, and whatever `before` says about its lease; then the guard.
    fn new(standby: bool, before: impl FnOnce(&LeaseFile, Option<Postmaster>)) -> Self {
        Self::with(Command::new("sleep").arg("600"), standby, before)
    }

    /// The same with a process of one's own.
    fn with(process: &mut Command, standby: bool, before: impl FnOnce(&LeaseFile, Option<Postmaster>)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, run) = (dir.path().join("data"), dir.path().join("run"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&run).unwrap();
        let postmaster = process.current_dir(&data).spawn().unwrap();
        fs::write(data.join("postmaster.pid"), format!("{}\n", postmaster.id())).unwrap();
        if standby {
            fs::write(data.join("standby.signal"), "").unwrap();
        }
        before(&LeaseFile::in_dir(&run), Postmaster::find(&data));
        let config = dir.path().join("agent.toml");
        let (data, run) = (data.display(), run.display());
        let text = format!(
            "cluster = \"main\"\nname = \"db1\"\nrun_dir = \"{run}\"\n[zookeeper]\nhosts = [\"127.0.0.1:1\"]\n\
             [rest]\nadvertise = \"127.0.0.1:2\"\n[postgres]\nadvertise = \"127.0.0.1:3\"\ndata_dir = \"{data}\"\n"
        );
        fs::write(&config, text).unwrap();
        let guard = Command::new(env!("CARGO_BIN_EXE_pgha-guard"))
            .arg("--config")
            .arg(&config)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { dir, postmaster, guard }
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn lease_file(&self) -> LeaseFile {
        LeaseFile::in_dir(&self.run_dir())
    }

    /// Whether the postmaster is dead within `patience`.
    fn dies_within(&mut self, patience: Duration) -> bool {
        let begun = std::time::Instant::now();
        while begun.elapsed() < patience {
            if self.postmaster.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        for child in [&mut self.guard, &mut self.postmaster] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A lease that has to be fenced that much later.
fn lease(left: Millis, postmaster: Option<Postmaster>) -> Record {
    let now = clock::now();
    Record {
        lease: Lease::taken(Epoch(7), now, &Timing::default()),
        fence_at: now + left,
        postmaster,
        electorate: Electorate::default(),
        addresses: BTreeMap::default(),
    }
}

const LONG: Millis = Millis(600_000);
/// More than a busy machine needs.
const SOON: Duration = Duration::from_secs(20);
/// How late a guard may be on a busy machine; on hosts it runs in real time.
const IN_TIME: Millis = Millis(3000);
/// Several looks of the guard.
const A_WHILE: Duration = Duration::from_millis(2500);

#[test]
fn a_lease_that_holds_is_left_alone_and_one_that_ends_is_not() {
    let mut member = Member::new(false, |file, postmaster| file.write(&lease(LONG, postmaster)).unwrap());
    assert!(!member.dies_within(A_WHILE));
    assert!(heartbeat::is_alive(&member.run_dir(), clock::now()));

    let record = lease(Millis(3000), None);
    member.lease_file().write(&record).unwrap();
    assert!(member.dies_within(SOON));
    let late = clock::now().since(record.fence_at);
    assert!(clock::now() >= record.fence_at && late < IN_TIME, "{late:?}");
}

/// SIGQUIT is not enough for one that is stopped, or that takes it for something else.
#[test]
fn who_does_not_listen_is_killed_all_the_same() {
    let mut deaf = Command::new("sh");
    deaf.args(["-c", "trap '' QUIT; while :; do sleep 600 & wait; done"]);
    let mut member = Member::with(&mut deaf, false, |file, it| file.write(&lease(Millis(1500), it)).unwrap());
    let mut stopped = Member::new(false, |file, it| file.write(&lease(Millis(1500), it)).unwrap());
    let pid = nix::unistd::Pid::from_raw(stopped.postmaster.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    assert!(member.dies_within(SOON) && stopped.dies_within(SOON));
}

#[test]
fn a_lease_of_another_boot_is_over() {
    let mut member = Member::new(false, |file, it| {
        let mut record = lease(LONG, it);
        record.lease.sent = record.lease.sent + LONG;
        file.write(&record).unwrap();
    });
    assert!(member.dies_within(SOON));
}

#[test]
fn a_guard_is_alive_until_it_is_not() {
    let mut member = Member::new(true, |_, _| {});
    let begun = std::time::Instant::now();
    while !heartbeat::is_alive(&member.run_dir(), clock::now()) {
        assert!(begun.elapsed() < SOON);
        std::thread::sleep(Duration::from_millis(10));
    }
    member.guard.kill().unwrap();
    member.guard.wait().unwrap();
    assert!(!heartbeat::is_alive(&member.run_dir(), clock::now()), "its process is gone");
    // As the file of a host that was started anew would look.
    heartbeat::give(&member.run_dir(), clock::now() + LONG).unwrap();
    assert!(!heartbeat::is_alive(&member.run_dir(), clock::now()));
}

#[test]
fn a_postmaster_whose_directory_does_not_say_so_dies_with_its_lease() {
    let mut member = Member::new(false, |file, postmaster| file.write(&lease(Millis(1500), postmaster)).unwrap());
    fs::remove_file(member.dir.path().join("data/postmaster.pid")).unwrap();
    assert!(member.dies_within(SOON));
}

#[test]
fn without_a_lease_only_a_standby_may_run() {
    let mut standby = Member::new(true, |_, _| {});
    let mut primary = Member::new(false, |_, _| {});
    assert!(primary.dies_within(SOON));
    assert!(!standby.dies_within(A_WHILE));
    // Promoted by somebody who has no lease.
    fs::remove_file(standby.dir.path().join("data/standby.signal")).unwrap();
    assert!(standby.dies_within(SOON));
}

#[test]
fn a_lease_that_cannot_be_read_is_none() {
    let mut member = Member::new(true, |_, _| {});
    fs::write(member.run_dir().join("lease.json"), "{\"lease\":").unwrap();
    assert!(member.dies_within(SOON));
}

#[test]
fn another_process_with_the_number_of_a_postmaster_is_left_alone() {
    let mut member = Member::new(true, |_, _| {});
    let mut other = Command::new("sleep").arg("600").current_dir("/").spawn().unwrap();
    fs::write(member.dir.path().join("data/postmaster.pid"), format!("{}\n", other.id())).unwrap();
    member.lease_file().write(&lease(Millis(200), None)).unwrap();
    assert!(!member.dies_within(A_WHILE));
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}
