//! Hosts of the lab: power, network, processes, and that nothing stays behind.
//!
//! They need root and Debian 12; `cargo xtask test` runs them, a plain `cargo test` passes them over.

#![expect(clippy::expect_used, reason = "what fails here fails the test")]

use std::{
    fs,
    io::{ErrorKind, Read},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use pgha_lab::{Direction, Error, Host, Lab, Target, http, quote, within};

/// There is one lab on a machine: tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for what must happen soon.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(10), "{what} did not happen within 10 s");
        thread::sleep(Duration::from_millis(20));
    }
}

fn reaches(from: &Host, to: &Host) -> bool {
    from.exec(&format!("ping -c 1 -W 1 {}", to.name())).expect("ping runs").success()
}

/// A unit that counts for as long as it lives; the file with its count.
fn start_counter(host: &Host) -> &'static str {
    host.run("systemd-run --quiet --unit=counter bash -c 'while :; do echo $((++n)) > /run/count; sleep 0.01; done'")
        .expect("the unit starts");
    eventually("the first count", || host.exec("test -s /run/count").expect("test runs").success());
    "/run/count"
}

fn assert_no_trace() {
    assert_eq!(traces(), Vec::<String>::new());
}

/// Everything that carries the lab's name on this machine.
fn traces() -> Vec<String> {
    let mut found = Vec::new();
    for path in ["/var/lib/pgha-lab", "/etc/netns/pgha-lab", "/run/netns/pgha-lab"] {
        found.extend(Path::new(path).exists().then(|| path.to_owned()));
    }
    let lines = |path: &str| fs::read_to_string(path).unwrap_or_default();
    found.extend(lines("/proc/self/mountinfo").lines().filter(|line| line.contains("pgha-lab")).map(str::to_owned));
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        found.extend(entry.file_name().to_str().filter(|name| name.starts_with("pgha-lab")).map(str::to_owned));
    }
    for entry in fs::read_dir("/proc").expect("/proc is readable").flatten() {
        let file = |name: &str| lines(&format!("{}/{name}", entry.path().display()));
        // A zombie has ended; burying it is up to the machine's process 1.
        if file("cgroup").contains("/pgha-lab") && !file("status").contains("State:\tZ") {
            found.push(format!("{}: {}", entry.path().display(), file("comm")));
        }
    }
    for hierarchy in ["", "systemd/", "unified/"] {
        let group = format!("/sys/fs/cgroup/{hierarchy}pgha-lab");
        found.extend(Path::new(&group).exists().then_some(group));
    }
    found
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn six_hosts_come_up_and_nothing_stays() {
    let _turn = turn();
    let names = ["db1", "db2", "db3", "lb1", "host5", "host6"];
    let lab = Lab::up(&names).expect("the lab comes up");
    for host in lab.hosts() {
        assert_eq!(host.run("hostname").expect("a host name").trim(), host.name());
        assert_eq!(host.run("systemctl is-system-running").expect("no failed unit").trim(), "running");
        for other in names {
            assert!(reaches(&host, &lab.host(other).expect("a host")), "{} to {other}", host.name());
        }
        let login = host.ssh().args(["sudo", "id", "-u"]).output().expect("ssh runs");
        assert_eq!(String::from_utf8_lossy(&login.stdout).trim(), "0", "{}", String::from_utf8_lossy(&login.stderr));
    }
    lab.down().expect("the lab goes down");
    assert_no_trace();
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn bare_hosts_can_install_what_a_cluster_needs() {
    let _turn = turn();
    let lab = Lab::up(&["db1"]).expect("the lab comes up");
    let host = lab.host("db1").expect("a host");
    for absent in ["psql", "java", "haproxy", "pgbackrest"] {
        assert!(!host.exec(&format!("command -v {absent}")).expect("it runs").success(), "{absent} is there already");
    }
    let update = host.exec("apt-get update 2>&1").expect("apt-get runs");
    assert!(update.success() && !update.stdout.contains("Err:"), "{}", update.stdout);
    for recommends in ["true", "false"] {
        host.run(&format!(
            "apt-get install --simulate --yes -o APT::Install-Recommends={recommends} postgresql-15 \
             postgresql-contrib zookeeper default-jre-headless haproxy pgbackrest polkitd chrony libpam-systemd dbus"
        ))
        .expect("everything is offered");
    }
    assert!(!host.run("locale --all-locales").expect("locale runs").contains("en_US"));
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn units_may_lock_memory_and_run_in_real_time() {
    let _turn = turn();
    let lab = Lab::up(&["db1"]).expect("the lab comes up");
    // mlockall of present and future pages, then more of them than any usual limit allows.
    let script = "chrt -p $BASHPID; perl -e 'syscall(151, 3) == 0 or die $!; $_ = q(x) x 50_000_000; print qq(locked)'";
    let unit = "systemd-run --quiet --wait --pipe -p User=ops -p CPUSchedulingPolicy=rr -p CPUSchedulingPriority=5 \
                -p AmbientCapabilities=CAP_IPC_LOCK bash -c";
    let run = format!("{unit} {}", quote(script));
    let seen = lab.host("db1").and_then(|host| host.run(&run)).expect("the unit runs");
    assert!(seen.contains("SCHED_RR") && seen.contains("locked"), "{seen}");
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn the_disk_outlives_a_power_loss() {
    let _turn = turn();
    let lab = Lab::up(&["db1", "db2"]).expect("the lab comes up");
    let host = lab.host("db1").expect("a host");
    host.run("echo kept > /var/lib/kept; echo told | systemd-cat --identifier=witness; journalctl --sync")
        .expect("it writes");
    start_counter(&host);

    host.power_off().expect("the power goes off");
    assert!(!host.is_on().expect("a state"));
    assert!(!host.disk().expect("a container's").join("etc").exists(), "the disk is still mounted");
    assert!(matches!(host.exec("true"), Err(Error::State(_))));
    assert!(host.journal("counter", 5).expect("the disk's journal").contains("Started"));

    host.power_on().expect("the power comes on");
    assert_eq!(host.run("cat /var/lib/kept").expect("the file").trim(), "kept");
    assert!(!host.exec("test -e /run/count").expect("test runs").success(), "/run outlived the power loss");
    assert!(reaches(&lab.host("db2").expect("a host"), &host));
    assert!(matches!(host.power_on(), Err(Error::State(_))), "a running host was started again");

    host.shutdown().expect("it shuts down");
    host.power_on().expect("the power comes on again");
    assert_eq!(host.run("cat /var/lib/kept").expect("the file").trim(), "kept");
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn a_power_loss_says_no_goodbye() {
    let _turn = turn();
    let lab = Lab::up(&["db1"]).expect("the lab comes up");
    let host = lab.host("db1").expect("a host");
    let seen = within(|| {
        let mut peer = TcpStream::connect((host.address(), 22)).expect("sshd answers");
        let mut greeting = [0; 4];
        peer.read_exact(&mut greeting).expect("a greeting");
        peer.set_read_timeout(Some(Duration::from_millis(300))).expect("a limit");
        // What sshd has said already is read; from then on there must be silence.
        let mut rest = [0; 4096];
        while peer.read(&mut rest).is_ok_and(|count| count > 0) {}
        host.power_off().expect("the power goes off");
        peer.read(&mut rest).map_err(|error| error.kind())
    });
    assert_eq!(seen.expect("inside the lab"), Err(ErrorKind::WouldBlock), "the peer was told");
    let again = http::get((host.address(), 22).into(), "/", Duration::from_millis(300));
    assert!(again.is_err());
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn cuts_heal() {
    let _turn = turn();
    let lab = Lab::up(&["db1", "db2", "lb1"]).expect("the lab comes up");
    let [one, two, balancer] = ["db1", "db2", "lb1"].map(|name| lab.host(name).expect("a host"));
    // Packets that arrive at a closed port count, whether or not the answer gets away.
    let arrived = |host: &Host| -> u64 {
        let count = host.run("awk '/^Udp: [0-9]/ { print $3 }' /proc/net/snmp").expect("counters");
        count.trim().parse().expect("a number")
    };
    let send = |from: &Host, to: &Host| {
        from.exec(&format!("echo x > /dev/udp/{}/9999", to.address())).expect("bash runs");
    };

    one.cut().expect("a cut");
    assert!(one.is_cut().expect("a state"));
    assert!(!reaches(&one, &two) && !reaches(&two, &one) && reaches(&two, &balancer));
    one.heal().expect("it heals");
    assert!(!one.is_cut().expect("a state"));
    eventually("the first answer after the cut", || reaches(&one, &two));

    one.cut_partly(Direction::Outgoing, &[]).expect("a cut");
    assert!(!reaches(&one, &two) && !reaches(&two, &one));
    let before = arrived(&one);
    send(&two, &one);
    eventually("arrival at a host that cannot answer", || arrived(&one) > before);

    one.cut_partly(Direction::Incoming, &[]).expect("another cut in its place");
    let (before, before_two) = (arrived(&one), arrived(&two));
    send(&one, &two);
    eventually("arrival from a host that cannot hear", || arrived(&two) > before_two);
    send(&two, &one);
    assert!(!reaches(&two, &one));
    assert_eq!(arrived(&one), before);

    one.cut_partly(Direction::Both, &["db2"]).expect("another cut in its place");
    assert!(!reaches(&one, &two) && !reaches(&two, &one) && reaches(&one, &balancer) && reaches(&balancer, &one));
    assert!(matches!(one.cut_partly(Direction::Both, &["db9"]), Err(Error::State(_))));

    one.heal().expect("it heals");
    assert!(reaches(&one, &two) && reaches(&two, &one));

    one.cut().expect("a cut");
    one.power_off().expect("the power goes off");
    one.power_on().expect("the power comes on");
    assert!(reaches(&two, &one), "a cut outlived the power loss");
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn frozen_processes_stand_still_until_thawed() {
    let _turn = turn();
    let lab = Lab::up(&["db1", "db2"]).expect("the lab comes up");
    let host = lab.host("db1").expect("a host");
    let file = start_counter(&host);
    start_counter(&lab.host("db2").expect("a host"));
    let count = |host: &Host| host.run(&format!("cat {file}")).expect("the count");
    let unit = Target::unit("counter");

    assert!(host.freeze(&unit).expect("it freezes") >= 1);
    let before = count(&host);
    // The other host's unit of the same name runs on, and shows that time passes.
    let other = lab.host("db2").expect("a host");
    let others = count(&other);
    eventually("counting on the other host", || {
        let now = count(&other);
        !now.is_empty() && now != others
    });
    assert_eq!(count(&host), before);
    host.thaw(&unit).expect("it thaws");
    eventually("counting after the thaw", || {
        let now = count(&host);
        !now.is_empty() && now != before
    });

    host.freeze(&Target::Everything).expect("the host freezes");
    let ssh = http::get((host.address(), 22).into(), "/", Duration::from_millis(300));
    assert!(ssh.is_err(), "a frozen host answers: {ssh:?}");
    host.thaw(&Target::Everything).expect("the host thaws");
    host.await_ready().expect("it answers again");

    assert!(host.kill(&Target::process("sshd")).expect("it dies") >= 1);
    eventually("the restart of sshd", || host.exec("systemctl is-active ssh").expect("it runs").success());
    host.kill(&unit).expect("it dies");
    eventually("the end of the unit", || !host.exec("systemctl is-active counter").expect("it runs").success());
    assert!(matches!(host.kill(&unit), Err(Error::State(_))), "nothing was left to kill");
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn a_killed_labs_leftovers_are_removed_by_the_next() {
    let _turn = turn();
    for milliseconds in [1, 20, 60, 120, 200, 300, 450, 600] {
        let mut killed = Command::new(env!("CARGO_BIN_EXE_pgha-lab"))
            .args(["up", "--hosts", "db1,db2"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the lab starts");
        thread::sleep(Duration::from_millis(milliseconds));
        killed.kill().expect("it is ours");
        // Dead by the signal, unless it was ready sooner: then it left its lab on purpose.
        if killed.wait().expect("it ends").success() {
            pgha_lab::down().expect("the lab goes down");
        }
        let lab = Lab::up(&["db1"]).unwrap_or_else(|error| panic!("after {milliseconds} ms: {error}"));
        lab.host("db1").and_then(|host| host.run("true")).expect("a working host");
        drop(lab);
        assert_no_trace();
    }
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn a_second_lab_is_refused() {
    let _turn = turn();
    let lab = Lab::up(&["db1"]).expect("the lab comes up");
    let second = Lab::up(&["db1"]).expect_err("one at a time").to_string();
    assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
    assert!(matches!(pgha_lab::down(), Err(Error::Busy(_))), "somebody else's lab was removed");

    lab.keep().expect("it stays");
    let third = Lab::up(&["db1"]).expect_err("one at a time").to_string();
    assert!(third.contains("lab down"), "{third}");
    let found = Lab::attach().expect("it is found");
    found.host("db1").and_then(|host| host.run("true")).expect("it still works");
    found.down().expect("it goes down");
    assert!(Lab::attach().is_err());
    assert_no_trace();
}
