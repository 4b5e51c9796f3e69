//! A Postgres 15 on loopback, as its own user, in a temporary directory.

use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Child, Command},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, geteuid},
};
use tempfile::TempDir;

use crate::SOON;

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// A server of its own in a temporary directory; it ends with the test.
pub(crate) struct Postgres {
    dir: TempDir,
    user: User,
    pub(crate) port: u16,
    process: Option<Child>,
}

impl Postgres {
    /// A running server, or nothing where there cannot be one.
    pub(crate) fn new() -> Option<Self> {
        let user = User::from_name("postgres").ok().flatten();
        let (Some(user), true, true) = (user, geteuid().is_root(), Path::new(PROGRAMS).exists()) else {
            eprintln!("SKIPPED: this test needs root and package postgresql-15");
            return None;
        };
        let mut server = Self::empty(user);
        server.must("initdb", &["--auth=trust", "--no-sync", "--pgdata", "data"]);
        server.start(&[]);
        Some(server)
    }

    /// A running standby that has everything by now and streams the rest.
    pub(crate) fn standby(&self) -> Self {
        let mut standby = Self::empty(self.user.clone());
        let port = self.port.to_string();
        let from = ["-h", "127.0.0.1", "-p", &port, "--checkpoint=fast", "--no-sync"];
        standby.must("pg_basebackup", &[&from[..], &["-D", "data", "--write-recovery-conf"]].concat());
        standby.start(&[]);
        standby
    }

    fn empty(user: User) -> Self {
        let dir = tempfile::Builder::new().prefix("pgha-append-").tempdir().expect("a directory");
        chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("it is given away");
        Self { dir, user, port: free_port(), process: None }
    }

    /// A program as the server's user, whose output goes to a file.
    fn command(&self, program: &str) -> Command {
        let log = File::options().append(true).create(true).open(self.dir.path().join("log")).expect("a log");
        let mut command = Command::new(Path::new(PROGRAMS).join(program));
        command
            .uid(self.user.uid.as_raw())
            .gid(self.user.gid.as_raw())
            .current_dir(self.dir.path())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log);
        command
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn must(&self, program: &str, arguments: &[&str]) {
        let end = self.command(program).args(arguments).status().expect("it runs");
        assert!(end.success(), "{}", self.log());
    }

    pub(crate) fn start(&mut self, settings: &[&str]) {
        let started = Instant::now();
        loop {
            let port = self.port.to_string();
            let mut command = self.command("postgres");
            command.args(["-D", "data", "-p", &port, "-k", "", "-c", "listen_addresses=127.0.0.1"]);
            let mut process = command.args(settings).spawn().expect("it starts");
            while process.try_wait().expect("it can be asked").is_none() {
                if self.run("select 1") || started.elapsed() > SOON {
                    self.process = Some(process);
                    return;
                }
                thread::sleep(Duration::from_millis(20));
            }
            // Backends of a killed server may hold its memory for a moment.
            assert!(started.elapsed() < SOON, "{}", self.log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The server dies without a word; its backends follow.
    pub(crate) fn crash(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it dies");
            process.wait().expect("it is dead");
        }
    }

    /// Runs one statement; false if there is no server to run it.
    pub(crate) fn run(&self, statement: &str) -> bool {
        let port = self.port.to_string();
        let mut psql = self.command("psql");
        psql.args(["-X", "-q", "-h", "127.0.0.1", "-p", &port, "-c", statement]).status().is_ok_and(|end| end.success())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Immediate shutdown: with it the backends end, too.
            let pid = process.id().try_into().map(Pid::from_raw);
            if pid.is_ok_and(|pid| kill(pid, Signal::SIGQUIT).is_ok()) {
                let _ = process.wait();
            }
        }
    }
}

/// Not one that the kernel picks: those are also given to outgoing connections, which may hold it after a crash.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time begin at different places.
    let begin = u16::try_from(std::process::id() % 20_000).expect("it is small");
    loop {
        let port = 10_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 22_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
