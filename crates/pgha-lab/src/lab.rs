//! The lab as a whole: coming up, being found again, going down without a trace.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{SigSet, Signal};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Host, HostSpec, Image, Kind, Node, Result, cgroup, command,
    host::unknown,
    image, keys, layout_hosts,
    lock::Lock,
    mount, net, power, process, requirements,
    topology::{NAMESPACE, STATE},
};

/// Outside of the state directory, which comes and goes while it is held.
const LOCK: &str = "/run/lock/pgha-lab";
/// Everything of a lab that is killed is gone within this time.
const END: Duration = Duration::from_secs(30);

/// Whether this process has a lab that must not outlive it.
static OWNED: AtomicBool = AtomicBool::new(false);

/// What a later process must know about the lab.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    hosts: Vec<HostSpec>,
    /// What the hosts run on; a newer program would choose another one.
    image: Image,
    /// Left running on purpose; otherwise it ends with its owner.
    kept: bool,
    /// After a restart of the machine nothing of the lab is left but files.
    boot: String,
}

/// One host in a few words.
#[derive(Debug)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub kind: Kind,
    /// Its address.
    pub address: Ipv4Addr,
    /// This machine's number of its process 1, or of the QEMU that runs it, while it is on.
    pub init: Option<i32>,
    /// Whether its network is cut.
    pub cut: bool,
}

/// A running lab. Dropping it takes it down, unless it was found by [`Lab::attach`] or left by [`Lab::keep`].
#[derive(Debug)]
pub struct Lab {
    nodes: Vec<Node>,
    image: Image,
    /// Held by the owner.
    lock: Option<Lock>,
}

impl Lab {
    /// Brings up fresh containers, after removing what a killed lab left.
    pub fn up<S: AsRef<str>>(names: &[S]) -> Result<Self> {
        Self::up_hosts(&names.iter().map(|name| HostSpec::container(name.as_ref())).collect::<Vec<_>>())
    }

    /// Brings up fresh hosts of either kind, after removing what a killed lab left.
    pub fn up_hosts(hosts: &[HostSpec]) -> Result<Self> {
        let nodes = layout_hosts(hosts)?;
        requirements::check(&nodes)?;
        let lock = Lock::take(Path::new(LOCK), "the lab")?;
        if let Some(record) = live_record()? {
            return Err(Error::Busy(format!(
                "a lab with {} is running and was left so on purpose; `cargo xtask lab down` removes it",
                record.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(", ")
            )));
        }
        OWNED.store(true, Ordering::SeqCst);
        clean()?;
        let image = Image::ensure()?;
        let machines = nodes.iter().any(|node| node.kind == Kind::Machine);
        let machine_image = machines.then(Image::ensure_for_machines).transpose()?;
        let lab = Self { nodes, image, lock: Some(lock) };
        lab.record(false)?;
        net::create(&lab.nodes)?;
        keys::create(&lab.nodes)?;
        lab.in_parallel(|host| {
            let started = Instant::now();
            host.provision(machine_image.as_ref().filter(|_| host.kind() == Kind::Machine).unwrap_or(&lab.image))?;
            host.power_on()?;
            tracing::info!("{} is up at {} ({:.1} s)", host.name(), host.address(), started.elapsed().as_secs_f64());
            Ok(())
        })?;
        Ok(lab)
    }

    /// Finds the running lab; its owner, if it has one, stays the owner.
    pub fn attach() -> Result<Self> {
        requirements::check_root()?;
        let record = read_record()?
            .filter(|record| record.boot == boot_id())
            .ok_or_else(|| Error::State("no lab is running; `cargo xtask lab up` starts one".to_owned()))?;
        Ok(Self { nodes: layout_hosts(&record.hosts)?, image: Image::ensure()?, lock: None })
    }

    /// Leaves the lab running when this process ends.
    pub fn keep(mut self) -> Result<()> {
        self.record(true)?;
        OWNED.store(false, Ordering::SeqCst);
        self.lock = None;
        Ok(())
    }

    /// Removes the lab and reports what could not be removed, where dropping can only log it.
    pub fn down(mut self) -> Result<()> {
        if self.lock.take().is_none() {
            return down();
        }
        clean()
    }

    /// One host.
    pub fn host(&self, name: &str) -> Result<Host> {
        let node = self.nodes.iter().find(|node| node.name == name).ok_or_else(|| unknown(name, &self.nodes))?;
        Ok(self.handle(node))
    }

    /// All hosts, in the order in which they were named.
    pub fn hosts(&self) -> Vec<Host> {
        self.nodes.iter().map(|node| self.handle(node)).collect()
    }

    /// Does the same on all hosts at once; the first error counts, after all have ended.
    pub fn in_parallel(&self, work: impl Fn(&Host) -> Result<()> + Sync) -> Result<()> {
        let hosts = self.hosts();
        thread::scope(|scope| {
            let threads: Vec<_> = hosts
                .iter()
                .map(|host| {
                    let work = &work;
                    scope.spawn(move || work(host))
                })
                .collect();
            let results: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
            for result in results {
                match result {
                    Ok(result) => result?,
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            Ok(())
        })
    }

    /// A command that runs on the controller: in the lab's network, hosts known by name.
    pub fn controller(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", NAMESPACE]).arg(program);
        command
    }

    /// The private key that user `ops` of every host accepts.
    pub fn identity(&self) -> PathBuf {
        keys::identity()
    }

    /// The list with every host's public key.
    pub fn known_hosts(&self) -> PathBuf {
        keys::known_hosts()
    }

    /// Each host's state.
    pub fn status(&self) -> Result<Vec<Status>> {
        self.hosts()
            .iter()
            .map(|host| {
                Ok(Status {
                    name: host.name().to_owned(),
                    kind: host.kind(),
                    address: host.address(),
                    init: power::init(&host.node)?.map(|process| process.pid),
                    cut: host.is_cut()?,
                })
            })
            .collect()
    }

    fn handle(&self, node: &Node) -> Host {
        Host { node: node.clone(), image: self.image.clone(), nodes: self.nodes.clone() }
    }

    fn record(&self, kept: bool) -> Result<()> {
        let state = Path::new(STATE);
        fs::create_dir_all(state).map_err(Error::io("creating", state))?;
        let hosts = self.nodes.iter().map(|node| HostSpec { name: node.name.clone(), kind: node.kind }).collect();
        let text = serde_json::to_string(&Record { hosts, image: self.image.clone(), kept, boot: boot_id() })
            .map_err(|source| Error::Io { what: "describing the lab".to_owned(), source: source.into() })?;
        // Replaced in one step: a killed writer leaves the old record.
        let temporary = state.join("lab.json.new");
        fs::write(&temporary, text).map_err(Error::io("writing", &temporary))?;
        fs::rename(&temporary, record_path()).map_err(Error::io("replacing", &record_path()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.lock.is_some()
            && let Err(error) = clean()
        {
            tracing::error!("the lab could not be removed, the next `cargo xtask lab up` tries again: {error}");
        }
    }
}

/// Makes Ctrl-C and the like remove the lab that this process owns before they end it. To be called first in `main`:
/// threads that exist already would still die of the signal.
pub fn remove_on_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(Error::errno("blocking signals"))?;
    let waiter = thread::Builder::new().name("signals".to_owned());
    let waiting = waiter.spawn(move || {
        let Ok(signal) = signals.wait() else { return };
        if OWNED.load(Ordering::SeqCst) {
            tracing::info!("{signal}: removing the lab");
            if let Err(error) = clean() {
                tracing::error!("the lab could not be removed, the next `cargo xtask lab up` tries again: {error}");
            }
        }
        std::process::exit(128 + signal as i32);
    });
    waiting.map(drop).map_err(|source| Error::Io { what: "waiting for signals".to_owned(), source })
}

/// Removes the running lab, or what is left of one.
pub fn down() -> Result<()> {
    requirements::check_root()?;
    let _lock = Lock::take(Path::new(LOCK), "the lab")?;
    clean()
}

/// Removes images and packages too.
pub fn purge() -> Result<()> {
    down()?;
    image::purge()
}

/// Ends and removes everything that carries the lab's mark, in whatever state it is.
fn clean() -> Result<()> {
    // A signal and the end that it causes elsewhere in this process meet here.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);

    let machine = process::namespace_inode(Path::new("/proc/1/ns/net"));
    let networks: Vec<u64> = net::namespaces()?
        .iter()
        .filter_map(|name| process::namespace_inode(&Path::new("/run/netns").join(name)))
        .filter(|network| Some(*network) != machine)
        .collect();
    let own = process::own_line();
    process::end("the lab's processes", END, |process| {
        !own.contains(&process.pid)
            && (process.in_cgroup(power::GROUP)
                || process.has_variable(command::MARK)
                || process.namespace("net").is_some_and(|network| networks.contains(&network)))
    })?;
    let state = Path::new(STATE);
    mount::release(state)?;
    net::remove()?;
    cgroup::remove(power::GROUP)?;
    match fs::remove_dir_all(state) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::io("removing", state)(source)),
        _ => Ok(()),
    }
}

/// The record of a lab that was left running and still can be.
fn live_record() -> Result<Option<Record>> {
    let record = read_record()?.filter(|record| record.kept && record.boot == boot_id());
    Ok(if net::namespaces()?.contains(&NAMESPACE.to_owned()) { record } else { None })
}

/// An unreadable record is that of a killed writer's: as good as none.
fn read_record() -> Result<Option<Record>> {
    match fs::read(record_path()) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io("reading", &record_path())(source)),
    }
}

fn record_path() -> PathBuf {
    Path::new(STATE).join("lab.json")
}

/// What tells one start of this machine from another.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
