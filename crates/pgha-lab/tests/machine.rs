//! A virtual machine among containers: commands, power, network, processes, and a watchdog that resets it.
//!
//! It needs root and Debian 12; `cargo xtask test` runs it, a plain `cargo test` passes it over.

#![expect(clippy::expect_used, reason = "what fails here fails the test")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use pgha_lab::{Direction, Error, Host, HostSpec, Kind, Lab, Target};

/// From the last sign of life to a reset by a watchdog that was told to wait for this long.
const WATCHDOG: Duration = Duration::from_secs(6);

/// There is one lab on a machine: tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn eventually(what: &str, limit: Duration, holds: impl Fn() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < limit, "{what} did not happen within {limit:?}");
        thread::sleep(Duration::from_millis(100));
    }
    started.elapsed()
}

fn reaches(from: &Host, to: &Host) -> bool {
    from.exec(&format!("ping -c 1 -W 1 {}", to.name())).expect("ping runs").success()
}

fn output(host: &Host, script: &str) -> String {
    host.run(script).expect("it runs").trim().to_owned()
}

/// Everything that carries the lab's name on this machine.
fn traces() -> Vec<String> {
    let mut found = Vec::new();
    for path in ["/var/lib/pgha-lab", "/etc/netns/pgha-lab"] {
        found.extend(Path::new(path).exists().then(|| path.to_owned()));
    }
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    found.extend(text("/proc/self/mountinfo").lines().filter(|line| line.contains("pgha-lab")).map(str::to_owned));
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        found.extend(entry.file_name().to_str().filter(|name| name.starts_with("pgha-lab")).map(str::to_owned));
    }
    for entry in fs::read_dir("/proc").expect("/proc is readable").flatten() {
        let file = |name: &str| text(&format!("{}/{name}", entry.path().display()));
        // A zombie has ended; burying it is up to the machine's process 1.
        let ours = file("cgroup").contains("/pgha-lab") || file("cmdline").contains("/var/lib/pgha-lab");
        if ours && !file("status").contains("State:\tZ") {
            found.push(format!("{}: {}", entry.path().display(), file("comm")));
        }
    }
    let links = Command::new("ip").args(["-o", "link"]).output().expect("ip runs").stdout;
    found.extend(String::from_utf8_lossy(&links).lines().filter(|line| line.contains("v-db")).map(str::to_owned));
    found
}

fn assert_no_trace() {
    assert_eq!(traces(), Vec::<String>::new());
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn a_machine_is_a_host_as_others_are_and_its_watchdog_resets_it() {
    let _turn = turn();
    let started = Instant::now();
    let lab = Lab::up_hosts(&[HostSpec::machine("db1"), HostSpec::container("db2")]).expect("the lab comes up");
    println!("the lab is up after {:.1?}", started.elapsed());
    let [machine, container] = ["db1", "db2"].map(|name| lab.host(name).expect("a host"));
    let found = Lab::attach().and_then(|lab| lab.host("db1")).expect("it is found");
    assert_eq!((found.kind(), container.kind()), (Kind::Machine, Kind::Container));

    commands(&machine);
    devices(&machine);
    cuts(&machine, &container);
    freezes(&machine);
    power(&machine, &container);
    let qemu = machine.pids(&Target::Everything).expect("it is on");
    watchdog(&machine, &container);
    assert_eq!(machine.pids(&Target::Everything).expect("it is on"), qemu, "not a reset but a new start");
    assert!(reaches(&container, &machine));

    lab.down().expect("the lab goes down");
    assert_no_trace();
    println!("all of it took {:.1?}", started.elapsed());
}

fn commands(machine: &Host) {
    assert_eq!(output(machine, "hostname; id -un; pwd; echo $HOME"), "db1\nroot\n/\n/root");
    assert_eq!(output(machine, "printf '<%s>' \"it's\" '$(x)' 'a  b'\necho second"), "<it's><$(x)><a  b>second");
    let failed = machine.exec("echo because >&2; exit 42").expect("it runs");
    assert_eq!((failed.code, failed.stderr.trim()), (42, "because"));
    let words = ["two words", "it's", "", "$HOME", "a\nb"];
    let printed = machine.command("printf").expect("it is on").arg("<%s>").args(words).output().expect("ssh runs");
    assert_eq!(String::from_utf8_lossy(&printed.stdout), "<two words><it's><><$HOME><a\nb>");
    let login = machine.ssh().args(["sudo", "id", "-u"]).output().expect("ssh runs");
    assert_eq!(String::from_utf8_lossy(&login.stdout).trim(), "0", "{}", String::from_utf8_lossy(&login.stderr));
    assert!(matches!(machine.disk(), Err(Error::State(_))));
    assert!(matches!(machine.power_on(), Err(Error::State(_))), "a running host was started again");
    output(machine, "test -s /srv/packages/Packages");
}

fn devices(machine: &Host) {
    let seen = output(machine, "cat /sys/class/watchdog/watchdog0/identity /sys/class/watchdog/watchdog1/identity");
    assert_eq!(seen, "i6300ESB timer\niTCO_wdt");
    assert_eq!(output(machine, "systemctl is-system-running"), "running");
}

fn cuts(machine: &Host, container: &Host) {
    assert!(reaches(machine, container) && reaches(container, machine));
    assert!(!machine.is_cut().expect("a state"));
    machine.cut().expect("a cut");
    assert!(machine.is_cut().expect("a state") && !reaches(container, machine));
    machine.heal().expect("it heals");
    eventually("the first answer after the cut", Duration::from_secs(10), || reaches(container, machine));

    // The controller is no peer, so commands still arrive.
    machine.cut_partly(Direction::Both, &["db2"]).expect("a cut");
    assert!(machine.is_cut().expect("a state") && !reaches(machine, container) && !reaches(container, machine));
    for direction in [Direction::Incoming, Direction::Outgoing] {
        let sent = || output(container, "awk '/^Icmp: [0-9]/ { print $2 }' /proc/net/snmp").parse::<u64>();
        machine.cut_partly(direction, &["db2"]).expect("another cut in its place");
        let before = sent().expect("a number");
        assert!(!reaches(machine, container), "{direction:?}");
        assert_eq!(sent().expect("a number") > before, direction == Direction::Incoming, "{direction:?}");
    }
    machine.cut_ports(&["db2"], &[22]).expect("another cut in its place");
    let greeting = "timeout 2 bash -c 'head -c 4 < /dev/tcp/db2/22'";
    assert!(reaches(machine, container) && !machine.exec(greeting).expect("bash runs").success());
    machine.heal().expect("it heals");
    assert_eq!(output(machine, greeting), "SSH-");
    assert!(reaches(machine, container) && !machine.is_cut().expect("a state"));
}

fn freezes(machine: &Host) {
    output(
        machine,
        "systemd-run --quiet --unit=counter bash -c 'while :; do echo $((++n)) > /run/count; sleep 0.1; done'",
    );
    let count = || output(machine, "cat /run/count");
    let unit = Target::unit("counter");
    assert!(machine.freeze(&unit).expect("it freezes") >= 1);
    let before = count();
    output(machine, "sleep 0.5");
    assert_eq!(count(), before);
    machine.thaw(&unit).expect("it thaws");
    output(machine, "sleep 0.5");
    assert_ne!(count(), before);

    let systemd = Target::unit("init.scope");
    assert_eq!(machine.freeze(&systemd).expect("it freezes"), 1);
    assert!(!machine.exec("timeout 1 systemctl is-active counter").expect("it runs").success(), "systemd answers");
    machine.thaw(&systemd).expect("it thaws");
    assert_eq!(output(machine, "systemctl is-active counter"), "active");

    machine.freeze(&Target::Everything).expect("it freezes");
    let ping = machine.ssh().args(["true"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut ping = ping.expect("ssh starts");
    thread::sleep(Duration::from_secs(2));
    assert!(ping.try_wait().expect("it is ours").is_none(), "a frozen host answers");
    machine.thaw(&Target::Everything).expect("it thaws");
    assert!(ping.wait().expect("it is ours").success());

    assert!(machine.kill(&unit).expect("it dies") >= 1);
    let over = || !machine.exec("systemctl is-active counter").expect("it runs").success();
    eventually("the end of the unit", Duration::from_secs(10), over);
    assert!(matches!(machine.kill(&unit), Err(Error::State(_))), "nothing was left to kill");
}

fn power(machine: &Host, container: &Host) {
    output(machine, "echo kept > /var/lib/kept; sync /var/lib/kept /var/lib; echo lost > /run/lost");
    machine.cut().expect("a cut");
    machine.power_off().expect("the power goes off");
    assert!(!machine.is_on().expect("a state") && !machine.is_cut().expect("a state"));
    assert!(!reaches(container, machine));
    assert!(matches!(machine.exec("true"), Err(Error::State(_))));
    assert!(matches!(machine.journal("ssh", 1), Err(Error::State(_))));

    let started = Instant::now();
    machine.power_on().expect("the power comes on");
    println!("it has booted after {:.1?}", started.elapsed());
    assert_eq!(output(machine, "cat /var/lib/kept"), "kept");
    assert!(!machine.exec("test -e /run/lost").expect("test runs").success(), "/run outlived the power loss");
    assert!(reaches(container, machine), "a cut outlived the power loss");
}

fn watchdog(machine: &Host, container: &Host) {
    let boot = "cat /proc/sys/kernel/random/boot_id";
    let before = output(machine, boot);
    // WDIOC_SETTIMEOUT; then not one more sign of life.
    let script = format!(
        "systemd-run --quiet --unit=silent perl -e 'open(W, q(>), q(/dev/watchdog)) or die $!; \
         $t = pack(q(i), {}); ioctl(W, 0xC0045706, $t) or die $!; sleep 1000'",
        WATCHDOG.as_secs()
    );
    output(machine, &script);
    let started = Instant::now();
    eventually("the reset", 5 * WATCHDOG, || !reaches(container, machine));
    println!("it was reset within {:.1?}", started.elapsed());
    machine.await_ready().expect("it comes back by itself");
    println!("it was back after {:.1?}", started.elapsed());
    assert_ne!(output(machine, boot), before);
}

#[test]
#[ignore = "needs root and the lab: cargo xtask test"]
fn a_killed_labs_machine_is_removed() {
    let _turn = turn();
    let mut killed = Command::new(env!("CARGO_BIN_EXE_pgha-lab"))
        .args(["up", "--hosts", "db1", "--machines", "db1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the lab starts");
    let boots = || fs::read("/var/lib/pgha-lab/hosts/db1/console.log").is_ok_and(|console| !console.is_empty());
    // The image may have to be built first.
    eventually("the first word of its kernel", Duration::from_mins(5), boots);
    killed.kill().expect("it is ours");
    killed.wait().expect("it ends");
    assert!(!traces().is_empty(), "the machine has died with its owner: nothing to test");
    pgha_lab::down().expect("what is left goes");
    assert_no_trace();
}
