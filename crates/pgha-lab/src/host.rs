//! One host as tests and operators use it: commands, power, network, processes, journal.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    Direction, Disk, Error, Image, Kind, Node, Output, Result, command, disk, guest, keys,
    lock::Lock,
    machine, mount, net, netns, nspawn, power,
    process::{self, Process},
    topology::{NAMESPACE, hosts_file},
};

/// From power on to a complete boot; a host with a database to recover takes longer than a bare one.
const BOOT: Duration = Duration::from_secs(90);
/// The same on an emulated processor.
const EMULATED_BOOT: Duration = Duration::from_mins(4);
/// For an orderly shutdown: systemd's own limit for a stubborn unit.
const SHUTDOWN: Duration = Duration::from_mins(2);
/// For signals to take effect.
const SETTLE: Duration = Duration::from_secs(10);
/// A login that gets no answer for this long is given up; a machine that was reset would never say goodbye.
const PATIENCE: [&str; 3] = ["ConnectTimeout=10", "ServerAliveInterval=5", "ServerAliveCountMax=4"];
/// The exit code of an SSH that has failed itself.
const SSH_FAILED: i32 = 255;
/// Where root's commands run.
const ENVIRONMENT: [&str; 3] =
    ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"];
/// Numbers of the image's users: name, user and group.
const USERS: [(&str, u32); 2] = [("ops", 1000), ("nosudo", 1001)];

/// What inside a host a signal is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// All processes of a systemd unit.
    Unit(String),
    /// All processes of this name.
    Process(String),
    /// The whole host.
    Everything,
}

impl Target {
    /// A unit; `.service` may be left out.
    pub fn unit(name: &str) -> Self {
        let full = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
        Self::Unit(full)
    }

    /// Processes by name.
    pub fn process(name: &str) -> Self {
        Self::Process(name.to_owned())
    }

    fn matches(&self, process: &Process) -> bool {
        match self {
            Self::Unit(unit) => process.in_unit(unit),
            // The kernel keeps 15 bytes of a name.
            Self::Process(name) => process.name == name.get(..15).unwrap_or(name),
            Self::Everything => true,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unit(name) => write!(f, "unit {name}"),
            Self::Process(name) => write!(f, "process {name}"),
            Self::Everything => write!(f, "all processes"),
        }
    }
}

/// A handle to one host; cheap to clone, usable from several threads.
#[derive(Debug, Clone)]
pub struct Host {
    pub(crate) node: Node,
    pub(crate) image: Image,
    pub(crate) nodes: Vec<Node>,
}

impl Host {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Its address on the lab network.
    pub fn address(&self) -> Ipv4Addr {
        self.node.address
    }

    /// What it is made of.
    pub fn kind(&self) -> Kind {
        self.node.kind
    }

    /// A container's file system seen from outside; a path inside a running host's own mounts is not here. A virtual
    /// machine keeps its disk to itself.
    pub fn disk(&self) -> Result<PathBuf> {
        match self.node.kind {
            Kind::Container => Ok(self.node.root()),
            Kind::Machine => Err(self.keeps_its_disk()),
        }
    }

    fn keeps_its_disk(&self) -> Error {
        Error::State(format!("host {} is a virtual machine: its disk is read by itself alone", self.name()))
    }

    // ---- commands

    /// Runs a shell script as root; its exit code is for the caller to judge.
    pub fn exec(&self, script: &str) -> Result<Output> {
        let output = command::capture(self.command("bash")?.args(["-c", script]))?;
        if self.node.kind == Kind::Machine && output.code == SSH_FAILED {
            return Err(command::failure(format!("ssh {}: {script}", self.name()), &output));
        }
        Ok(output)
    }

    /// Runs a shell script as root and returns its standard output; an exit code other than 0 is an error.
    pub fn run(&self, script: &str) -> Result<String> {
        let output = self.exec(script)?;
        if output.success() {
            Ok(output.stdout)
        } else {
            Err(command::failure(format!("{}: {script}", self.name()), &output))
        }
    }

    /// A command inside the host, as root, to be configured further and started by the caller.
    ///
    /// A virtual machine gets it over SSH: not while its network is cut, and exit code 255 means that SSH failed.
    pub fn command(&self, program: &str) -> Result<Command> {
        let init = self.init()?;
        if self.node.kind == Kind::Machine {
            // The words that the caller adds reach the remote shell as one: a shell in between quotes each of them.
            let ssh = command::display(&self.login(&PATIENCE));
            let remote = format!("sudo -n env -i -C / {}", ENVIRONMENT.join(" "));
            let mut shell = Command::new("bash");
            shell.args(["-c", &format!("exec {ssh} \"{remote} ${{*@Q}}\""), "ssh", program]).current_dir("/");
            return Ok(shell);
        }
        let mut nsenter = Command::new("nsenter");
        nsenter
            .arg(format!("--target={}", init.pid))
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--wdns=/", "--", "env", "-i"])
            .args(ENVIRONMENT)
            .arg(program)
            .current_dir("/");
        Ok(nsenter)
    }

    /// An SSH login as `ops` from the controller, as an operator has it.
    pub fn ssh(&self) -> Command {
        self.login(&[])
    }

    fn login(&self, options: &[&str]) -> Command {
        let mut ssh = Command::new("ip");
        ssh.args(["netns", "exec", NAMESPACE, "ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o"])
            .arg(format!("UserKnownHostsFile={}", keys::known_hosts().display()))
            .args(options.iter().flat_map(|option| ["-o", option]))
            .arg("-i")
            .arg(keys::identity())
            .arg(format!("ops@{}", self.node.address));
        ssh
    }

    /// The last lines of a unit's journal; of a container that is off, as its disk has them.
    pub fn journal(&self, unit: &str, lines: usize) -> Result<String> {
        let mut journal = if self.is_on()? {
            self.command("journalctl")?
        } else if self.node.kind == Kind::Machine {
            return Err(self.keeps_its_disk());
        } else {
            let mut journal = Command::new("journalctl");
            journal.arg(format!("--directory={}", self.node.dir().join("upper/var/log/journal").display()));
            journal
        };
        command::run(journal.args([
            "--no-pager",
            "--output=short-iso-precise",
            &format!("--lines={lines}"),
            "--unit",
            unit,
        ]))
    }

    // ---- power

    /// Whether the power is on.
    pub fn is_on(&self) -> Result<bool> {
        Ok(power::init(&self.node)?.is_some())
    }

    /// Switches the power on and waits until the host has booted and takes logins.
    pub fn power_on(&self) -> Result<()> {
        self.power_on_only()?;
        self.await_ready()
    }

    /// Switches the power on and returns at once.
    pub fn power_on_only(&self) -> Result<()> {
        let _lock = self.lock()?;
        power::on(&self.node, &self.image)
    }

    /// Power loss: nothing is flushed, no connection is closed; returns when the host is certainly gone.
    pub fn power_off(&self) -> Result<()> {
        let _lock = self.lock()?;
        power::off(&self.node)
    }

    /// An orderly shutdown, to its end.
    pub fn shutdown(&self) -> Result<()> {
        let _lock = self.lock()?;
        // The connection to systemd may end before its answer: what counts is that the host goes off.
        let asked = command::capture(self.command("systemctl")?.arg("poweroff"))?;
        power::await_off(&self.node, SHUTDOWN).map_err(|error| match error {
            Error::Timeout { what, waited, hint } => {
                Error::Timeout { what, waited, hint: format!("{}{hint}", asked.stderr) }
            }
            other => other,
        })
    }

    /// Waits until systemd has finished booting and sshd answers.
    pub fn await_ready(&self) -> Result<()> {
        let started = Instant::now();
        let limit = match self.node.kind {
            Kind::Container => BOOT,
            Kind::Machine => EMULATED_BOOT,
        };
        loop {
            match self.probe() {
                Ok(()) => return Ok(()),
                Err(why) if started.elapsed() > limit => {
                    let log = fs::read(self.node.dir().join("console.log")).unwrap_or_default();
                    let log = String::from_utf8_lossy(&log);
                    return Err(Error::Timeout {
                        what: format!("boot of host {}", self.name()),
                        waited: limit,
                        hint: format!("{why}\nits console:\n{}", command::tail(&log)),
                    });
                }
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn probe(&self) -> Result<(), String> {
        if !self.is_on().map_err(|error| error.to_string())? {
            return Err("it has no process 1".to_owned());
        }
        let banner = netns::within(|| banner(self.node.address)).map_err(|error| error.to_string())?;
        banner.map_err(|error| format!("sshd: {error}"))?;
        // sshd listens a little before systemd lets users in.
        let state = self.exec("systemctl is-system-running --wait").map_err(|error| error.to_string())?;
        match state.stdout.trim() {
            "running" | "degraded" => Ok(()),
            other => Err(format!("systemd says `{other}` {}", state.stderr.trim())),
        }
    }

    /// Makes a new disk from an image and puts on it what is this host's own.
    pub(crate) fn provision(&self, image: &Image) -> Result<()> {
        mount::overlay(&image.root(), &self.node.dir())?;
        let root = self.node.root();
        let write = |path: &str, text: &str| {
            let file = root.join(path);
            fs::write(&file, text).map_err(Error::io("writing", &file))?;
            Ok::<_, Error>(file)
        };
        write("etc/hostname", &format!("{}\n", self.name()))?;
        write("etc/hosts", &hosts_file(&self.nodes))?;
        write("etc/resolv.conf", "# The lab has no name server.\n")?;
        let uuid = Path::new("/proc/sys/kernel/random/uuid");
        let uuid = fs::read_to_string(uuid).map_err(Error::io("reading", uuid))?;
        write("etc/machine-id", &format!("{}\n", uuid.trim().replace('-', "")))?;
        for kind in ["", ".pub"] {
            let from = PathBuf::from(format!("{}{kind}", keys::host_key(&self.node).display()));
            let to = root.join(format!("etc/ssh/ssh_host_ed25519_key{kind}"));
            fs::copy(&from, &to).map_err(Error::io("writing", &to))?;
        }
        let operator = keys::public(&keys::identity())?;
        for (user, number) in USERS {
            let file = write(&format!("home/{user}/.ssh/authorized_keys"), &operator)?;
            chown(&file, Some(number), Some(number)).map_err(Error::io("giving away", &file))?;
        }
        match self.node.kind {
            Kind::Container => Ok(()),
            Kind::Machine => machine::make_disk(&self.node, &self.image.packages()),
        }
    }

    // ---- disks

    /// Whether it has a disk of its own for this.
    pub fn has_disk(&self, disk: Disk) -> bool {
        disk::is_fitted(&self.node, disk)
    }

    /// Puts a disk into a container that is off; what is in its place so far moves there.
    pub fn fit_disk(&self, disk: Disk) -> Result<()> {
        let _lock = self.lock()?;
        if self.node.kind == Kind::Machine {
            return Err(self.keeps_its_disk());
        }
        if self.is_on()? {
            return Err(Error::State(format!("host {} is on: no disk can be put in", self.name())));
        }
        disk::fit(&self.node, &self.image, disk)
    }

    /// Makes a disk fail: nothing can be written to it any more until the host is switched off and on.
    pub fn fail_disk(&self, disk: Disk) -> Result<()> {
        disk::fail(&self.node, disk)
    }

    // ---- network

    /// Pulls the cable: nothing in, nothing out, and nobody is told. A virtual machine then takes no commands either.
    pub fn cut(&self) -> Result<()> {
        net::plug(&self.node, false)
    }

    /// Loses packets of one direction, or of some peers only (all, when `peers` is empty).
    pub fn cut_partly(&self, direction: Direction, peers: &[&str]) -> Result<()> {
        net::drop_packets(&self.node, direction, &self.named(peers)?, &[])
    }

    /// Loses what goes from and to these TCP ports, at either end, between this host and `peers`.
    pub fn cut_ports(&self, peers: &[&str], ports: &[u16]) -> Result<()> {
        net::drop_packets(&self.node, Direction::Both, &self.named(peers)?, ports)
    }

    fn named(&self, names: &[&str]) -> Result<Vec<Node>> {
        let find = |name: &&str| {
            let found = self.nodes.iter().find(|node| node.name == *name);
            found.cloned().ok_or_else(|| unknown(name, &self.nodes))
        };
        names.iter().map(find).collect()
    }

    /// Ends every cut of this host.
    pub fn heal(&self) -> Result<()> {
        net::pass_packets(&self.node)?;
        net::plug(&self.node, true)
    }

    /// Whether a cut of this host is in force; a host that is off has no network to cut.
    pub fn is_cut(&self) -> Result<bool> {
        if !net::connected(&self.node)? {
            return Ok(false);
        }
        Ok(!net::plugged(&self.node)? || net::drops_packets(&self.node)?)
    }

    /// Moves the calling thread into this host's network: what it reaches from there is not cut by cuts of the host. A
    /// virtual machine's network is inside of it; it is reached from the lab's.
    pub(crate) fn enter(&self) -> Result<()> {
        match self.node.kind {
            Kind::Container => netns::enter_named(&self.node.namespace()),
            Kind::Machine => netns::enter(),
        }
    }

    // ---- processes

    /// The processes of a target, by their numbers on this machine; those inside a virtual machine, which is one
    /// process here, by their numbers there.
    pub fn pids(&self, target: &Target) -> Result<Vec<i32>> {
        Ok(self.processes(target)?.into_iter().map(|process| process.pid).collect())
    }

    /// Stops all processes of a target where they stand (SIGSTOP); returns how many. A virtual machine as a whole
    /// counts as one: its processors stop, and the clocks of its watchdogs with them.
    pub fn freeze(&self, target: &Target) -> Result<usize> {
        if self.is_whole_machine(target) {
            self.init()?;
            return machine::stop(&self.node).map(|()| 1);
        }
        self.settle(target, Signal::SIGSTOP, is_stopped)
    }

    /// Lets them go on (SIGCONT); returns how many.
    pub fn thaw(&self, target: &Target) -> Result<usize> {
        if self.is_whole_machine(target) {
            self.init()?;
            return machine::resume(&self.node).map(|()| 1);
        }
        self.settle(target, Signal::SIGCONT, |process| !is_stopped(process))
    }

    /// Kills them (SIGKILL) once; what systemd starts again is not waited for. Returns how many.
    pub fn kill(&self, target: &Target) -> Result<usize> {
        let found = self.some(target, self.processes(target)?)?;
        self.signal(target, Signal::SIGKILL, &found)?;
        Ok(found.len())
    }

    /// Signals until every process of the target, forked meanwhile or not, is as it should be.
    fn settle(&self, target: &Target, signal: Signal, done: impl Fn(&Process) -> bool) -> Result<usize> {
        let started = Instant::now();
        let mut found = self.processes(target)?;
        loop {
            found = self.some(target, found)?;
            let count = found.len();
            found.retain(|process| !done(process));
            if found.is_empty() {
                return Ok(count);
            }
            if started.elapsed() > SETTLE {
                let left: Vec<_> =
                    found.iter().map(|p| format!("  {} {} (state {})", p.pid, p.name, p.state)).collect();
                return Err(Error::Timeout {
                    what: format!("{signal} of {target} on {}", self.name()),
                    waited: SETTLE,
                    hint: left.join("\n"),
                });
            }
            found = self.signal(target, signal, &found)?;
        }
    }

    fn some(&self, target: &Target, found: Vec<Process>) -> Result<Vec<Process>> {
        if found.is_empty() {
            return Err(Error::State(format!("host {} runs nothing that belongs to {target}", self.name())));
        }
        Ok(found)
    }

    fn processes(&self, target: &Target) -> Result<Vec<Process>> {
        let all = if self.node.kind == Kind::Container {
            nspawn::inside(&self.node)?
        } else if self.is_whole_machine(target) {
            power::init(&self.node)?.into_iter().collect()
        } else {
            guest::parse(&self.run(&guest::script(None, &[]))?)
        };
        Ok(all.into_iter().filter(|process| target.matches(process)).collect())
    }

    /// Sends a signal to processes of the target, and returns those that it has a moment later.
    fn signal(&self, target: &Target, signal: Signal, to: &[Process]) -> Result<Vec<Process>> {
        if self.node.kind == Kind::Machine && !self.is_whole_machine(target) {
            // In one login, since what is stopped may be what the next one would need.
            let all = guest::parse(&self.run(&guest::script(Some(signal), to))?);
            return Ok(all.into_iter().filter(|process| target.matches(process)).collect());
        }
        for process in to {
            process::signal(process.pid, signal)?;
        }
        thread::sleep(Duration::from_millis(2));
        self.processes(target)
    }

    fn is_whole_machine(&self, target: &Target) -> bool {
        self.node.kind == Kind::Machine && *target == Target::Everything
    }

    fn init(&self) -> Result<Process> {
        power::init(&self.node)?.ok_or_else(|| Error::State(format!("host {} is off", self.name())))
    }

    /// Power is switched by one at a time.
    fn lock(&self) -> Result<Lock> {
        Lock::wait(&self.node.dir().join("lock"))
    }
}

fn is_stopped(process: &Process) -> bool {
    matches!(process.state, 'T' | 't')
}

/// The error for a name that is no host of the lab.
pub(crate) fn unknown(name: &str, nodes: &[Node]) -> Error {
    let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
    Error::State(format!("the lab has no host `{name}`; it has {}", names.join(", ")))
}

/// Whether sshd answers with its version.
fn banner(address: Ipv4Addr) -> std::io::Result<()> {
    use std::io::{Error, Read};
    let limit = Duration::from_secs(1);
    let mut stream = std::net::TcpStream::connect_timeout(&(address, 22).into(), limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut start = [0; 4];
    stream.read_exact(&mut start)?;
    if &start == b"SSH-" { Ok(()) } else { Err(Error::other("something else than sshd answers on port 22")) }
}
