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
        let dir = tempfile::tempdir().unwrap();
        let (data, run) = (dir.path().join("data"), dir.path().join("run"));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&run).unwrap();
        let postmaster = Command::new("sleep").arg("600").current_dir(&data).spawn().unwrap();
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
    assert!(clock::now() >= record.fence_at);
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
