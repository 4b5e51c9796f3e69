//! Real agents, real Postgres, real ZooKeeper on loopback: the cluster lives through what hosts live through.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "a test that cannot go on fails")]

mod topology;
mod world;

use std::time::{Duration, Instant};

use world::{MemberProcess, World};

const SOON: Duration = Duration::from_secs(30);

async fn two_members() -> (World, String, String) {
    let mut world = World::new();
    for name in ["one", "two"] {
        world.add(name);
        world.member(name).start();
    }
    let primary = world.await_primary(&[], SOON).await;
    let standby = if primary == "one" { "two" } else { "one" }.to_owned();
    world.await_standbys(&[&standby], SOON).await;
    assert_eq!(world.await_sync(SOON).await, standby);
    (world, primary, standby)
}

async fn count(world: &mut World, name: &str) -> i64 {
    let client = world.member(name).connect().await.unwrap();
    client.query_one("SELECT count(*) FROM worms", &[]).await.unwrap().get(0)
}

async fn make_worms(world: &mut World, primary: &str, rows: usize) {
    let client = world.member(primary).connect().await.unwrap();
    client
        .batch_execute("CREATE TABLE IF NOT EXISTS worms (id uuid DEFAULT gen_random_uuid() PRIMARY KEY)")
        .await
        .unwrap();
    for _ in 0..rows {
        client.execute("INSERT INTO worms DEFAULT VALUES", &[]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_primary_is_replaced_and_comes_back() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    make_worms(&mut world, &primary, 10).await;
    let begun = Instant::now();
    world.member(&primary).power_off();
    assert_eq!(world.await_primary(&[&primary], SOON).await, standby);
    eprintln!("new primary after {:?}", begun.elapsed());
    assert_eq!(count(&mut world, &standby).await, 10, "acknowledged rows were lost");
    make_worms(&mut world, &standby, 5).await;
    let begun = Instant::now();
    world.member(&primary).start();
    world.await_standbys(&[&primary], SOON).await;
    eprintln!("old primary streams after {:?}", begun.elapsed());
    assert_eq!(world.await_sync(SOON).await, primary);
    assert_eq!(count(&mut world, &primary).await, 15);
}

/// Rows written one by one, until it is stopped; gives the number acknowledged and the longest pause between two.
struct Writer {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    task: tokio::task::JoinHandle<(i64, Duration)>,
}

impl Writer {
    /// Writes to whichever member says that it is the primary, as HAProxy would send it there.
    fn begin(world: &World) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let targets = world.targets();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut rows, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                for target in &targets {
                    if target.is_primary().await {
                        while target.insert().await {
                            longest = longest.max(last.elapsed());
                            last = Instant::now();
                            rows += 1;
                            if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                                break;
                            }
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (rows, longest)
        });
        Self { stop, task }
    }

    async fn end(self) -> (i64, Duration) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// Begins a workload, does `harm`, waits until `healed`, and accounts for every row.
async fn under_load(world: &mut World, primary: &str, harm: impl FnOnce(&mut World)) -> Writer {
    make_worms(world, primary, 0).await;
    let writer = Writer::begin(world);
    settle().await;
    harm(world);
    writer
}

async fn nothing_lost(world: &mut World, writer: Writer, what: &str) {
    settle().await;
    let (rows, longest) = writer.end().await;
    let primary = world.await_primary(&[], SOON).await;
    let kept = count(world, &primary).await;
    eprintln!("{what}: {rows} rows acknowledged, {kept} kept, longest pause {longest:?}");
    assert!(rows > 0, "nothing was written");
    assert!(kept >= rows, "{} acknowledged rows were lost", rows - kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_owns_its_leadership_again() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, _) = two_members().await;
    let postmaster = world.member(&primary).postmaster();
    let writer = under_load(&mut world, &primary, |world| {
        world.member(&primary).kill_agent();
        world.member(&primary).start();
    })
    .await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.await_primary(&[], SOON).await, primary, "leadership moved\n{}", world.logs());
    assert_eq!(world.member(&primary).postmaster(), postmaster, "Postgres was restarted\n{}", world.logs());
    nothing_lost(&mut world, writer, "agent killed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_postmaster_hands_over_at_once() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    let writer = under_load(&mut world, &primary, |world| world.member(&primary).kill_postmaster()).await;
    assert_eq!(world.await_primary(&[&primary], SOON).await, standby);
    world.await_standbys(&[&primary], SOON).await;
    nothing_lost(&mut world, writer, "postmaster killed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_postmaster_without_standby_restarts_in_place() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    make_worms(&mut world, &primary, 3).await;
    world.member(&standby).power_off();
    world.await_async(&primary, SOON).await;
    let before = world.member(&primary).postmaster();
    world.member(&primary).kill_postmaster();
    let begun = Instant::now();
    loop {
        let now = world.member(&primary).postmaster();
        if now.is_some() && now != before && world.primary().await.as_deref() == Some(&primary) {
            break;
        }
        assert!(begun.elapsed() < SOON, "not restarted\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    make_worms(&mut world, &primary, 1).await;
    assert_eq!(count(&mut world, &primary).await, 4);
}

/// The guard ends Postgres when the lease is over, whatever the agent does.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_agent_is_fenced_before_another_leads() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    let before = world.member(&primary).postmaster();
    let writer = under_load(&mut world, &primary, |world| world.member(&primary).freeze_agent()).await;
    let begun = Instant::now();
    while MemberProcess::is_running(before) {
        assert!(begun.elapsed() < SOON, "Postgres still runs\n{}", world.logs());
        assert_ne!(world.member(&standby).probe("/primary").await, Some(200), "two primaries\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(world.await_primary(&[&primary], SOON).await, standby);
    world.member(&primary).thaw_agent();
    world.await_standbys(&[&primary], SOON).await;
    nothing_lost(&mut world, writer, "agent frozen").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_zookeeper_nobody_writes_after_the_lease() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, _) = two_members().await;
    make_worms(&mut world, &primary, 1).await;
    let before = world.member(&primary).postmaster();
    world.stop_zookeeper();
    let begun = Instant::now();
    while MemberProcess::is_running(before) {
        assert!(begun.elapsed() < Duration::from_secs(6), "still running after its lease\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    eprintln!("fenced after {:?}", begun.elapsed());
    world.continue_zookeeper();
    world.await_primary(&[], SOON).await;
    let names: Vec<String> = world.members.iter().map(|member| member.name.clone()).collect();
    let primary = world.await_primary(&[], SOON).await;
    let others: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != primary).collect();
    world.await_standbys(&others, SOON).await;
    make_worms(&mut world, &primary, 1).await;
    assert_eq!(count(&mut world, &primary).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_loses_nothing_and_needs_no_rewind() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    let writer = under_load(&mut world, &primary, |_| ()).await;
    // A balancer that has the standby down waits for it; one that does not is answered at once.
    let hold = Duration::from_millis(700);
    for (member, state, status, held) in [
        (&standby, "DOWN", "503", true),
        (&standby, "DOWN 1/2", "503", true),
        (&standby, "UP", "503", false),
        (&primary, "DOWN", "200", false),
    ] {
        let (took, answer) = world.member(member).balancer_check("/primary", state).await;
        assert!(answer.contains(status) && (took >= hold) == held, "{member}, {state}: {answer} after {took:?}");
    }
    let body = pgha_core::wire::rest::SwitchoverBody {
        leader: Some(primary.as_str().try_into().unwrap()),
        candidate: Some(standby.as_str().try_into().unwrap()),
        scheduled_at: None,
    };
    let answer = world.member(&primary).authorized().switchover(&body).await;
    let answer = answer.unwrap_or_else(|error| panic!("{error}\n{}", world.logs()));
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(world.await_primary(&[&primary], SOON).await, standby);
    world.await_standbys(&[&primary], SOON).await;
    assert!(!world.logs().contains("history has parted"), "a clean switchover was rewound\n{}", world.logs());
    nothing_lost(&mut world, writer, "switchover").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeline_numbers_that_are_taken_are_skipped() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    make_worms(&mut world, &primary, 1).await;
    // Promotions that came to nothing have taken 2 to 4.
    let zookeeper = zookeeper_client::Client::connect(&world.zookeeper_address()).await.unwrap();
    let (path, record) = ("/service/test/pgha/timelines", br#"{"newest":1,"reserved":4}"#);
    // It is there from the beginning.
    zookeeper.set_data(path, record, None).await.unwrap();
    // One of them was this member's, which then went on as a standby: its traces must not keep it from starting.
    let trace = world.member(&standby).dir.join("data/pg_wal/00000002.history");
    std::fs::write(&trace, b"# taken by a promotion that came to nothing here\n").unwrap();
    world.member(&standby).kill_postmaster();
    let begun = Instant::now();
    while trace.exists() {
        assert!(begun.elapsed() < SOON, "a file of a promotion that did not happen was left\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.await_standbys(&[&standby], SOON).await;
    world.await_heir(&primary, &standby, SOON).await;
    world.member(&primary).kill_postmaster();
    assert_eq!(world.await_primary(&[&primary], SOON).await, standby);
    assert_eq!(world.member(&standby).status().await.unwrap().timeline.unwrap().0, 5, "{}", world.logs());
    make_worms(&mut world, &standby, 1).await;
    world.await_standbys(&[&primary], SOON).await;
    let first = world.member(&primary).postmaster();
    world.member(&primary).kill_postmaster();
    let begun = Instant::now();
    while [None, first].contains(&world.member(&primary).postmaster()) {
        assert!(begun.elapsed() < SOON, "the standby was not started again\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.await_standbys(&[&primary], SOON).await;
    let begun = Instant::now();
    while world.member(&primary).connect().await.is_err() {
        assert!(begun.elapsed() < SOON, "the standby does not answer\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(count(&mut world, &primary).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_primary_hands_over() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    let writer = under_load(&mut world, &primary, |world| world.member(&primary).stop()).await;
    assert_eq!(world.await_primary(&[&primary], SOON).await, standby);
    assert_eq!(world.member(&primary).processes(), Vec::<i32>::new(), "processes are left");
    world.member(&primary).start();
    world.await_standbys(&[&primary], SOON).await;
    nothing_lost(&mut world, writer, "primary stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_stops_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    make_worms(&mut world, &primary, 1).await;
    let postmaster = world.member(&primary).postmaster();
    let zookeeper = zookeeper_client::Client::connect(&world.zookeeper_address()).await.unwrap();
    for znode in ["initialize", "config", "status", "sync", "failover", "history", "leader", "pgha/epoch"] {
        for garbage in [&b"\xff\x00{"[..], b"[[1,2,", b"null", b"{\"a\":{\"b\":[]}}"] {
            let path = format!("/service/test/{znode}");
            let written = match zookeeper.set_data(&path, garbage, None).await {
                Err(zookeeper_client::Error::NoNode) => {
                    let options =
                        zookeeper_client::CreateMode::Persistent.with_acls(zookeeper_client::Acls::anyone_all());
                    zookeeper.create(&path, garbage, &options).await.map(|_| ())
                }
                other => other.map(|_| ()),
            };
            written.unwrap_or_else(|error| panic!("{path}: {error}"));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let why = world.member(&primary).why().await.unwrap_or_else(|| panic!("{znode}\n{}", world.logs()));
        assert!(why.lease_ms.is_some_and(|left| left > 0), "garbage in {znode}: {why:?}\n{}", world.logs());
    }
    zookeeper.delete("/service/test/pgha/epoch", None).await.unwrap();
    // Longer than a lease: it was renewed under the restored record.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(zookeeper.check_stat("/service/test/pgha/epoch").await.unwrap().is_some(), "{}", world.logs());
    for rest_port in [world.member(&primary).rest_port, world.member(&standby).rest_port] {
        for garbage in [&b"\xff\xfe\r\n\r\n"[..], b"PATCH /config HTTP/1.1\r\nContent-Length: 5\r\n\r\n{{{{{", b"GET"] {
            let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", rest_port)).await.unwrap();
            socket.write_all(garbage).await.unwrap();
            socket.shutdown().await.unwrap();
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(Duration::from_secs(1), socket.read_to_end(&mut answer)).await;
        }
    }
    assert_eq!(world.await_primary(&[], SOON).await, primary);
    assert_eq!(world.member(&primary).postmaster(), postmaster, "Postgres was restarted\n{}", world.logs());
    make_worms(&mut world, &primary, 1).await;
    world.await_standbys(&[&standby], SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_is_copied_anew_on_request_and_only_with_the_password() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    make_worms(&mut world, &primary, 3).await;
    let anonymous = pgha_client::Client::new(&format!("127.0.0.1:{}", world.member(&standby).rest_port)).unwrap();
    let refused = anonymous.reinitialize().await.unwrap_err();
    assert_eq!(refused.status(), Some(401));
    assert!(world.member(&primary).authorized().reinitialize().await.is_err(), "the leader agreed");
    let inode =
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(world.member(&standby).dir.join("data")).unwrap());
    world.member(&standby).authorized().reinitialize().await.unwrap();
    let begun = Instant::now();
    loop {
        let data = std::fs::metadata(world.member(&standby).dir.join("data"));
        if data.is_ok_and(|data| std::os::unix::fs::MetadataExt::ino(&data) != inode) {
            break;
        }
        assert!(begun.elapsed() < SOON, "not copied\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.await_standbys(&[&standby], SOON).await;
    assert_eq!(world.await_sync(SOON).await, standby);
    assert_eq!(count(&mut world, &standby).await, 3);
    let old = world.member(&standby).dir.join("data.old");
    while old.exists() {
        assert!(begun.elapsed() < SOON, "the replaced data directory is still there");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// `postmaster.pid` names a process that lives, as after a boot in which the number was used again; then neither a start nor a
/// rewind can succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_data_is_broken_is_copied_by_itself() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    make_worms(&mut world, &primary, 3).await;
    world.member(&standby).power_off();
    let data = world.member(&standby).dir.join("data");
    let other = world.member(&primary).postmaster().unwrap();
    let left = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let (_, rest) = left.split_once('\n').unwrap();
    std::fs::write(data.join("postmaster.pid"), format!("{other}\n{rest}")).unwrap();
    world.member(&standby).start();
    world.await_standbys(&[&standby], SOON).await;

    world.member(&standby).power_off();
    std::fs::write(data.join("backup_label"), "nonsense\n").unwrap();
    let begun = Instant::now();
    world.member(&standby).start();
    world.await_standbys(&[&standby], 6 * SOON).await;
    eprintln!("copied after {:?}", begun.elapsed());
    let log = std::fs::read_to_string(world.member(&standby).dir.join("agent.log")).unwrap();
    assert!(log.contains("giving_up_starting") && log.contains("rejoin_clone"), "{log}");
    assert_eq!(world.await_sync(SOON).await, standby);
    assert_eq!(count(&mut world, &standby).await, 3);
}

/// ZooKeeper is away for several leases: the primary goes on while every member promises not to lead, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn failsafe_mode_bridges_a_silent_zookeeper() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    world.configure(&primary, serde_json::json!({"failsafe_mode": true})).await;
    let begun = Instant::now();
    while world.member(&standby).probe("/failsafe").await != Some(200) {
        assert!(begun.elapsed() < SOON, "nobody is on record\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = world.member(&primary).postmaster();
    let writer = under_load(&mut world, &primary, |world| world.stop_zookeeper()).await;
    world.await_reason(&primary, "failsafe", SOON).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(world.await_primary(&[], SOON).await, primary, "{}", world.logs());
    let why = world.member(&standby).why().await.unwrap();
    assert!(why.promised.as_ref().is_some_and(|(to, _)| to.as_str() == primary), "{why:?}\n{}", world.logs());
    // The sessions expire as soon as it goes on: nobody takes the seat before the primary is back in it.
    world.continue_zookeeper();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(world.await_primary(&[], SOON).await, primary, "{}", world.logs());
    assert_eq!(world.member(&primary).postmaster(), before, "Postgres was restarted\n{}", world.logs());
    nothing_lost(&mut world, writer, "ZooKeeper away, failsafe mode").await;
    // Who does not answer may lead: without its word the lease ends.
    world.await_reason(&primary, "leading", SOON).await;
    world.member(&standby).kill_agent();
    world.stop_zookeeper();
    let begun = Instant::now();
    while MemberProcess::is_running(before) {
        assert!(begun.elapsed() < Duration::from_secs(8), "still running after its lease\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.continue_zookeeper();
}

/// A primary that would take too long to come back is passed over, also where no commit waits for a standby.
#[tokio::test(flavor = "multi_thread")]
async fn with_no_time_to_start_a_dead_postmaster_is_passed_over() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    world.configure(&primary, serde_json::json!({"synchronous_mode": false, "primary_start_timeout": 0})).await;
    world.await_async(&primary, SOON).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.member(&primary).kill_postmaster();
    assert_eq!(world.await_primary(&[&primary], SOON).await, standby);
    assert!(world.logs().contains("code=\"start_overdue\""), "{}", world.logs());
    world.await_standbys(&[&primary], SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_comes_at_its_time_and_under_its_conditions() {
    use pgha_core::wire::rest::RestartBody;
    if !world::is_possible() {
        return;
    }
    let (mut world, _, standby) = two_members().await;
    let body = |text: &str| RestartBody::parse(text.as_bytes()).unwrap();
    let before = world.member(&standby).postmaster();
    let agent = world.member(&standby).authorized();
    let refused = agent.restart(&body(r#"{"role":"primary"}"#)).await.unwrap_err();
    assert!(refused.to_string().contains("host role mismatch"), "{refused}");
    let at = |seconds: i64| {
        let time = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        pgha_core::wire::IsoTime::utc(time).to_string()
    };
    let schedule = |seconds: i64| body(&format!(r#"{{"schedule":"{}","postgres_version":"99.0"}}"#, at(seconds)));
    assert_eq!(agent.restart(&schedule(-5)).await.unwrap_err().status(), Some(422));
    assert_eq!(agent.restart(&schedule(3600)).await.unwrap().status, 202);
    let begun = Instant::now();
    while world.member(&standby).status().await.is_none_or(|status| status.scheduled_restart.is_none()) {
        assert!(begun.elapsed() < SOON, "not scheduled\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(agent.restart(&schedule(3600)).await.unwrap_err().status(), Some(409));
    // It outlives the agent.
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.member(&standby).kill_agent();
    world.member(&standby).start();
    let begun = Instant::now();
    while agent.cancel_restart().await.is_err() {
        assert!(begun.elapsed() < SOON, "the schedule was lost\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while world.member(&standby).status().await.is_none_or(|status| status.scheduled_restart.is_some()) {
        assert!(begun.elapsed() < SOON, "still scheduled\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(agent.restart(&schedule(2)).await.unwrap().status, 202);
    let begun = Instant::now();
    while [None, before].contains(&world.member(&standby).postmaster()) {
        assert!(begun.elapsed() < SOON, "not restarted\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.await_standbys(&[&standby], SOON).await;
}

/// An agent with another configuration brings a Postgres up to date that has been running since before.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_applies_its_configuration() {
    if !world::is_possible() {
        return;
    }
    let (mut world, primary, standby) = two_members().await;
    for name in [&primary, &standby] {
        let member = world.member(name);
        let path = member.dir.join("agent.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("[postgres.parameters]", "[postgres.parameters]\nwork_mem = \"7MB\"");
        std::fs::write(&path, text.replace("hba = [", "hba = [\"host all nobody 127.0.0.9/32 reject\", ")).unwrap();
        let postmaster = member.postmaster();
        member.kill_agent();
        member.start();
        let begun = Instant::now();
        let shown = "SELECT current_setting('work_mem') || (SELECT count(*) FROM pg_hba_file_rules \
                     WHERE user_name = '{nobody}' AND address = '127.0.0.9')";
        loop {
            if let Ok(client) = world.member(name).connect().await
                && let Ok(row) = client.query_one(shown, &[]).await
                && row.get::<_, String>(0) == "7MB1"
            {
                break;
            }
            assert!(begun.elapsed() < SOON, "{name} has its old settings\n{}", world.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(world.member(name).postmaster(), postmaster, "{name} was restarted\n{}", world.logs());
    }
}
