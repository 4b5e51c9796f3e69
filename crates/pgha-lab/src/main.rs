//! The lab's command line.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use clap::{Args, Parser, Subcommand};
use pgha_lab::{
    Direction, Error, Host, HostSpec, Image, Kind, Lab, Result, Target,
    sql::Server,
    workload::{Settings, Workload},
};

/// Test hosts on one machine: systemd, sshd, a disk and an address each, and every fault on demand.
#[derive(Parser)]
#[command(name = "pgha-lab", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build the hosts' image, unless the cache has it
    Image {
        /// Build that of virtual machines too
        #[arg(long)]
        machines: bool,
    },
    /// Start fresh hosts and leave them running
    Up {
        /// Hosts, parted by commas
        #[arg(long, value_delimiter = ',', default_value = "db1,db2,db3,lb1")]
        hosts: Vec<String>,
        /// Those of them that are virtual machines with a watchdog of their own, parted by commas
        #[arg(long, value_delimiter = ',')]
        machines: Vec<String>,
        /// Remove a running lab first
        #[arg(long)]
        fresh: bool,
    },
    /// Remove the hosts; their image stays for the next time
    Down {
        /// Remove the cached image and packages too
        #[arg(long)]
        purge: bool,
    },
    /// Show the hosts
    Status,
    /// Switch a host on and wait until it has booted
    #[command(alias = "start")]
    PowerOn {
        /// The host
        host: String,
    },
    /// Power loss: kill a host as it stands
    PowerOff {
        /// The host
        host: String,
    },
    /// Shut a host down in order
    Shutdown {
        /// The host
        host: String,
    },
    /// Cut a host's network: its cable, or one direction, or some peers only
    Cut {
        /// The host
        host: String,
        /// Lose only what it would receive
        #[arg(long, conflicts_with = "outgoing")]
        incoming: bool,
        /// Lose only what it sends
        #[arg(long)]
        outgoing: bool,
        /// Lose only packets from and to these hosts, parted by commas
        #[arg(long, value_delimiter = ',')]
        peers: Vec<String>,
    },
    /// End every cut of a host
    Heal {
        /// The host
        host: String,
    },
    /// Stop processes where they stand (SIGSTOP)
    Freeze(Aim),
    /// Let frozen processes go on (SIGCONT)
    Thaw(Aim),
    /// Kill processes (SIGKILL)
    Kill(Aim),
    /// Run a command as root on a host; a single word is a shell script
    Exec {
        /// The host
        host: String,
        /// The command
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Log in to a host as ops, as an operator does
    Ssh {
        /// The host
        host: String,
        /// A command instead of a shell
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Run a command on the controller, inside the lab's network
    Controller {
        /// The command
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Write through the balancer for a while and count what was acknowledged and what is there
    Workload(Load),
    /// Show a unit's journal; of a host that is off, as its disk has it
    Journal {
        /// The host
        host: String,
        /// The unit
        unit: String,
        /// How many lines
        #[arg(long, short = 'n', default_value_t = 50)]
        lines: usize,
    },
}

#[derive(Args)]
struct Load {
    /// Address and port of the server
    #[arg(long, default_value = "10.77.0.14:5432")]
    server: SocketAddr,
    /// Role
    #[arg(long, default_value = "postgres")]
    user: String,
    /// Database
    #[arg(long, default_value = "postgres")]
    database: String,
    /// A file with the role's password
    #[arg(long)]
    password_file: PathBuf,
    /// How many clients write at once
    #[arg(long, default_value_t = 4)]
    writers: u32,
    /// For how long
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Aim {
    /// The host
    host: String,
    #[command(flatten)]
    what: What,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct What {
    /// All processes of this unit
    #[arg(long)]
    unit: Option<String>,
    /// All processes of this name
    #[arg(long)]
    process: Option<String>,
    /// The whole host
    #[arg(long)]
    all: bool,
}

impl What {
    fn target(&self) -> Target {
        match (&self.unit, &self.process) {
            (Some(unit), _) => Target::unit(unit),
            (_, Some(process)) => Target::process(process),
            _ => Target::Everything,
        }
    }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).without_time().with_target(false).with_level(false).init();
    match act(Cli::parse().action) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("pgha-lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn act(action: Action) -> Result<ExitCode> {
    let started = Instant::now();
    let host = |name: &str| -> Result<Host> { Lab::attach()?.host(name) };
    match action {
        Action::Image { machines } => {
            Image::ensure()?;
            if machines {
                Image::ensure_for_machines()?;
            }
        }
        Action::Up { hosts, machines, fresh } => {
            let hosts = specs(hosts, &machines)?;
            if fresh {
                pgha_lab::down()?;
            }
            pgha_lab::remove_on_signals()?;
            let lab = Lab::up_hosts(&hosts)?;
            lab.keep()?;
            tracing::info!(
                "the lab is up ({:.1} s); `cargo xtask lab down` removes it",
                started.elapsed().as_secs_f64()
            );
        }
        Action::Down { purge } => {
            if purge {
                pgha_lab::purge()?;
            } else {
                pgha_lab::down()?;
            }
            tracing::info!("nothing of the lab is left ({:.1} s)", started.elapsed().as_secs_f64());
        }
        Action::Status => status()?,
        Action::PowerOn { host: name } => host(&name)?.power_on()?,
        Action::PowerOff { host: name } => host(&name)?.power_off()?,
        Action::Shutdown { host: name } => host(&name)?.shutdown()?,
        Action::Cut { host: name, incoming, outgoing, peers } => {
            let host = host(&name)?;
            let direction = match (incoming, outgoing) {
                (true, _) => Direction::Incoming,
                (_, true) => Direction::Outgoing,
                _ => Direction::Both,
            };
            if direction == Direction::Both && peers.is_empty() {
                host.cut()?;
            } else {
                host.cut_partly(direction, &peers.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
        }
        Action::Heal { host: name } => host(&name)?.heal()?,
        Action::Freeze(aim) => say(host(&aim.host)?.freeze(&aim.what.target())?, "frozen"),
        Action::Thaw(aim) => say(host(&aim.host)?.thaw(&aim.what.target())?, "thawed"),
        Action::Kill(aim) => say(host(&aim.host)?.kill(&aim.what.target())?, "killed"),
        Action::Exec { host: name, command } => {
            let host = host(&name)?;
            return match &command[..] {
                [script] => become_command(host.command("bash")?.args(["-c", script])),
                [program, arguments @ ..] => become_command(host.command(program)?.args(arguments)),
                [] => Ok(ExitCode::SUCCESS),
            };
        }
        Action::Ssh { host: name, command } => return become_command(host(&name)?.ssh().args(command)),
        Action::Controller { command } => {
            let lab = Lab::attach()?;
            let [program, arguments @ ..] = &command[..] else {
                return Ok(ExitCode::SUCCESS);
            };
            return become_command(lab.controller(program).args(arguments));
        }
        Action::Workload(load) => return workload(load),
        Action::Journal { host: name, unit, lines } => print(&host(&name)?.journal(&unit, lines)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn workload(load: Load) -> Result<ExitCode> {
    let unreadable = |source| Error::Io { what: format!("reading {}", load.password_file.display()), source };
    let password = fs::read_to_string(&load.password_file).map_err(unreadable)?;
    let mut settings = Settings::new(Server {
        address: load.server,
        user: load.user,
        password: password.trim_end().to_owned(),
        database: load.database,
    });
    settings.writers = load.writers;
    let workload = Workload::start(settings)?;
    thread::sleep(Duration::from_secs(load.seconds));
    let report = workload.finish()?;
    let text = if load.json {
        serde_json::to_string(&report)
            .map_err(|source| Error::Io { what: "describing the report".to_owned(), source: source.into() })?
    } else {
        report.to_string()
    };
    print(&(text + "\n"))?;
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Which hosts are to be of which kind.
fn specs(hosts: Vec<String>, machines: &[String]) -> Result<Vec<HostSpec>> {
    if let Some(name) = machines.iter().find(|name| !hosts.contains(name)) {
        return Err(Error::State(format!("`{name}` of --machines is none of --hosts {}", hosts.join(","))));
    }
    let kind = |name: &String| if machines.contains(name) { Kind::Machine } else { Kind::Container };
    Ok(hosts.into_iter().map(|name| HostSpec { kind: kind(&name), name }).collect())
}

fn status() -> Result<()> {
    let head = ["host", "kind", "address", "power", "network", "process 1"];
    let line = |[host, kind, address, power, network, init]: [&str; 6]| {
        format!("{host:<14} {kind:<10} {address:<12} {power:<5} {network:<8} {init}\n")
    };
    let mut lines = vec![line(head)];
    for host in Lab::attach()?.status()? {
        let power = if host.init.is_some() { "on" } else { "off" };
        let network = if host.cut { "cut" } else { "whole" };
        let init = host.init.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let kind = match host.kind {
            Kind::Container => "container",
            Kind::Machine => "machine",
        };
        lines.push(line([&host.name, kind, &host.address.to_string(), power, network, &init]));
    }
    print(&lines.concat())
}

fn say(count: usize, done: &str) {
    tracing::info!("{count} {} {done}", if count == 1 { "process" } else { "processes" });
}

/// The command takes our place: its input, output and exit code are the caller's.
fn become_command(command: &mut Command) -> Result<ExitCode> {
    Err(Error::Io { what: format!("starting {}", command.get_program().display()), source: command.exec() })
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| Error::Io { what: "writing the answer".to_owned(), source })
}
