//! A cluster of real processes on loopback: ZooKeeper, agents in `direct` mode, Postgres 15.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use pgha_client::Client;
use pgha_core::wire::rest::{PatroniStatus, PghaStatus, ViewRole};
use pgha_core::wire::{MemberRole, MemberState};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PASSWORD: &str = "secret-for-tests";
const ZOOKEEPER: &str = "/usr/share/java/zookeeper.jar";
const POSTGRES: &str = "/usr/lib/postgresql/15/bin/postgres";

/// Whether the real parts are here; says what is missing.
pub(crate) fn is_possible() -> bool {
    let root = nix::unistd::geteuid().is_root();
    for (there, what) in [
        (root, "root"),
        (Path::new(ZOOKEEPER).exists(), "package zookeeper"),
        (Path::new(POSTGRES).exists(), "package postgresql-15"),
    ] {
        if !there {
            eprintln!("SKIPPED: this test needs {what}; `cargo xtask test` installs what is missing");
            return false;
        }
    }
    true
}

/// A port for a server that starts later, and again after a crash. Not one that the kernel picks: those are also given
/// to outgoing connections, which may hold it when the server comes.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at the same time begin at different places.
    let begin = u16::try_from(std::process::id() % 20_000).unwrap();
    loop {
        let port = 10_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 22_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The world; everything ends with it.
pub(crate) struct World {
    dir: tempfile::TempDir,
    zookeeper: Child,
    zookeeper_port: u16,
    pub(crate) members: Vec<MemberProcess>,
}

/// One member.
pub(crate) struct MemberProcess {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) rest_port: u16,
    pub(crate) postgres_port: u16,
    agent: Option<Child>,
}

/// An agent without systemd starts the guard that is beside it, which a test of this crate alone does not build.
fn build_guard() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let beside = Path::new(env!("CARGO_BIN_EXE_pgha-agent")).parent().unwrap();
        // The directory has the profile's name, but for the profile `dev`.
        let profile = beside.file_name().and_then(std::ffi::OsStr::to_str).map(|it| it.replace("debug", "dev"));
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "pgha-guard", "--profile", &profile.unwrap()]);
        build.arg("--target-dir").arg(beside.parent().unwrap());
        assert!(build.status().unwrap().success() && beside.join("pgha-guard").exists());
    });
}

impl World {
    /// Starts ZooKeeper; members come with [`Self::add`].
    pub(crate) fn new() -> Self {
        build_guard();
        let dir = tempfile::Builder::new().prefix("pgha-test-").tempdir().unwrap();
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("archive")).unwrap();
        give_to_postgres(&dir.path().join("archive"));
        let zookeeper_port = free_port();
        let zookeeper = start_zookeeper(dir.path(), zookeeper_port);
        Self { dir, zookeeper, zookeeper_port, members: Vec::new() }
    }

    /// A member with its own directories; not started yet.
    pub(crate) fn add(&mut self, name: &str) {
        self.add_as(name, name, "");
    }

    /// A member in the directory `place`, with more in its configuration.
    pub(crate) fn add_as(&mut self, name: &str, place: &str, more: &str) {
        let dir = self.dir.path().join(place);
        for part in ["", "state", "run"] {
            fs::create_dir_all(dir.join(part)).unwrap();
            give_to_postgres(&dir.join(part));
        }
        let (rest_port, postgres_port) = (free_port(), free_port());
        let d = dir.display();
        let config = format!(
            r#"
            cluster = "test"
            name = "{name}"
            secrets_file = "{d}/secrets.toml"
            state_dir = "{d}/state"
            run_dir = "{d}/run"
            [zookeeper]
            hosts = ["127.0.0.1:{zk}"]
            [timing]
            profile = "fast"
            [rest]
            listen = "127.0.0.1:{rest_port}"
            advertise = "127.0.0.1:{rest_port}"
            [postgres]
            data_dir = "{d}/data"
            socket_dir = "{d}/run"
            listen = "127.0.0.1"
            port = {postgres_port}
            advertise = "127.0.0.1:{postgres_port}"
            supervisor = "direct"
            locale = "C.UTF-8"
            hba = ["host all all 127.0.0.1/32 scram-sha-256"]
            replication_networks = ["127.0.0.1/32"]
            [postgres.parameters]
            shared_buffers = "32MB"
            max_connections = "40"
            [archive]
            kind = "directory"
            path = "{archive}"
            [watchdog]
            mode = "off"
            {more}
            "#,
            zk = self.zookeeper_port,
            archive = self.dir.path().join("archive").display(),
        );
        fs::write(dir.join("agent.toml"), config).unwrap();
        let secrets = format!(
            "superuser_password = \"{PASSWORD}\"\nreplication_password = \"r:e\\\\p\"\nrewind_password = \"rw\"\n\
             rest_username = \"admin\"\nrest_password = \"rest\"\n"
        );
        fs::write(dir.join("secrets.toml"), secrets).unwrap();
        self.members.push(MemberProcess { name: place.to_owned(), dir, rest_port, postgres_port, agent: None });
    }

    pub(crate) fn member(&mut self, name: &str) -> &mut MemberProcess {
        self.members.iter_mut().find(|member| member.name == name).unwrap()
    }

    /// The one member that says it is the primary, and its lease holds.
    pub(crate) async fn primary(&self) -> Option<String> {
        let mut primaries = Vec::new();
        for member in &self.members {
            if member.probe("/primary").await == Some(200) {
                primaries.push(member.name.clone());
            }
        }
        assert!(primaries.len() < 2, "two primaries: {primaries:?}");
        primaries.pop()
    }

    /// Waits for a primary that is not one of `not`.
    pub(crate) async fn await_primary(&self, not: &[&str], patience: Duration) -> String {
        let begun = Instant::now();
        loop {
            if let Some(name) = self.primary().await.filter(|name| !not.contains(&name.as_str())) {
                return name;
            }
            assert!(begun.elapsed() < patience, "no primary within {patience:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every named member is a streaming standby.
    pub(crate) async fn await_standbys(&self, names: &[&str], patience: Duration) {
        self.await_all(names, patience, "streaming", |status| {
            status.role == MemberRole::Replica
                && status.state == MemberState::Running
                && status.replication_state.as_deref() == Some("streaming")
        })
        .await;
    }

    /// Waits until one of the members is a synchronous standby.
    pub(crate) async fn await_sync(&self, patience: Duration) -> String {
        let begun = Instant::now();
        loop {
            for member in &self.members {
                if member.probe("/sync").await == Some(200) {
                    return member.name.clone();
                }
            }
            assert!(begun.elapsed() < patience, "no synchronous standby within {patience:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until `primary` itself has seen `standby` stream, from now on, and counts it as synchronous. What the standby
    /// says comes a moment earlier, and may be from before it was last restarted.
    pub(crate) async fn await_heir(&self, primary: &str, standby: &str, patience: Duration) {
        let begun = Instant::now();
        let primary = self.members.iter().find(|member| member.name == primary).unwrap();
        loop {
            let asked = begun.elapsed().as_millis();
            let looked = primary.why().await.and_then(|why| why.looked_ms_ago);
            let fresh = looked.is_some_and(|ago| u128::from(ago) < asked);
            let streams = primary.status().await.is_some_and(|status| {
                status.replication.iter().any(|it| it.application_name == standby && it.state == "streaming")
            });
            let recorded = primary.client().cluster().await.is_ok_and(|view| {
                view.members.iter().any(|member| member.name == standby && member.role == ViewRole::SyncStandby)
            });
            if fresh && streams && recorded {
                return;
            }
            assert!(begun.elapsed() < patience, "{standby} is no heir within {patience:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a member says that its last decision was for this reason.
    pub(crate) async fn await_reason(&self, name: &str, code: &str, patience: Duration) {
        let begun = Instant::now();
        let member = self.members.iter().find(|member| member.name == name).unwrap();
        while member.why().await.is_none_or(|why| why.code != code) {
            assert!(begun.elapsed() < patience, "{name} is not {code}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Changes cluster-wide settings, through `name`.
    pub(crate) async fn configure(&self, name: &str, patch: serde_json::Value) {
        let member = self.members.iter().find(|member| member.name == name).unwrap();
        let serde_json::Value::Object(patch) = patch else { panic!("not an object") };
        member.authorized().patch_config(&patch).await.unwrap();
    }

    async fn await_all(&self, names: &[&str], patience: Duration, what: &str, is: impl Fn(&PatroniStatus) -> bool) {
        let begun = Instant::now();
        for name in names {
            let member = self.members.iter().find(|member| member.name == *name).unwrap();
            loop {
                if member.status().await.is_some_and(|status| is(&status)) {
                    break;
                }
                assert!(begun.elapsed() < patience, "{name} is not {what} within {patience:?}\n{}", self.logs());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// Waits until the primary no longer waits for any standby.
    pub(crate) async fn await_async(&self, primary: &str, patience: Duration) {
        let begun = Instant::now();
        let member = self.members.iter().find(|member| member.name == primary).unwrap();
        loop {
            if let Ok(client) = member.connect().await
                && let Ok(row) = client.query_one("SHOW synchronous_standby_names", &[]).await
                && row.get::<_, String>(0).is_empty()
            {
                return;
            }
            assert!(begun.elapsed() < patience, "still synchronous\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// For a writer that runs beside.
    pub(crate) fn targets(&self) -> Vec<Target> {
        self.members.iter().map(|it| Target { rest_port: it.rest_port, postgres_port: it.postgres_port }).collect()
    }

    pub(crate) fn zookeeper_address(&self) -> String {
        format!("127.0.0.1:{}", self.zookeeper_port)
    }

    pub(crate) fn stop_zookeeper(&self) {
        signal(&self.zookeeper, nix::sys::signal::Signal::SIGSTOP);
    }

    pub(crate) fn continue_zookeeper(&self) {
        signal(&self.zookeeper, nix::sys::signal::Signal::SIGCONT);
    }

    /// The logs of all members, for a failed assertion.
    pub(crate) fn logs(&self) -> String {
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
        self.members
            .iter()
            .map(|member| {
                format!(
                    "=== {}: agent\n{}\n=== {}: postgres\n{}\n",
                    member.name,
                    tail(&read(member.dir.join("agent.log")), 60),
                    member.name,
                    tail(&read(member.dir.join("state/postgres.log")), 25)
                )
            })
            .collect()
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

impl MemberProcess {
    pub(crate) fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("agent.log")).unwrap();
        let postgres = nix::unistd::User::from_name("postgres").unwrap().expect("the package made it");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgha-agent"));
        command.arg("run").arg("--config").arg(self.dir.join("agent.toml"));
        std::os::unix::process::CommandExt::uid(&mut command, postgres.uid.as_raw());
        std::os::unix::process::CommandExt::gid(&mut command, postgres.gid.as_raw());
        command.current_dir("/").env("PGHA_LOG", "info,pgha_agent=debug");
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.agent = Some(child);
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            signal(&agent, nix::sys::signal::Signal::SIGTERM);
            agent.wait().unwrap();
        }
    }

    pub(crate) fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
    }

    pub(crate) fn freeze_agent(&self) {
        signal(self.agent.as_ref().unwrap(), nix::sys::signal::Signal::SIGSTOP);
    }

    pub(crate) fn thaw_agent(&self) {
        signal(self.agent.as_ref().unwrap(), nix::sys::signal::Signal::SIGCONT);
    }

    /// The end of the whole host, as far as processes go: agent, guard and Postgres at once.
    pub(crate) fn power_off(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.kill().unwrap();
            agent.wait().unwrap();
        }
        for pid in self.processes() {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = fs::remove_file(self.dir.join("run/lease.json"));
        let _ = fs::remove_file(self.dir.join("run/promise.json"));
        let _ = fs::remove_file(self.dir.join("run/up-since"));
        let _ = fs::remove_file(self.dir.join("run/guard"));
    }

    /// Processes of this member: those that have its directory in their command line or as their working directory.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let dir = self.dir.to_string_lossy().into_owned();
        let data = self.dir.join("data");
        fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| *pid != i32::try_from(std::process::id()).unwrap())
            .filter(|pid| {
                let named = fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&format!("{dir}/")));
                named || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == data)
            })
            .collect()
    }

    pub(crate) fn postmaster(&self) -> Option<i32> {
        let text = fs::read_to_string(self.dir.join("data/postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok()
    }

    /// Whether that postmaster still runs. A frozen agent does not bury its dead.
    pub(crate) fn is_running(postmaster: Option<i32>) -> bool {
        let stat = postmaster.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        stat.is_some_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
    }

    pub(crate) fn kill_postmaster(&self) {
        let pid = nix::unistd::Pid::from_raw(self.postmaster().expect("a postmaster"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    fn client(&self) -> Client {
        Client::new(&format!("127.0.0.1:{}", self.rest_port)).unwrap().with_credentials("admin", "rest")
    }

    pub(crate) fn authorized(&self) -> Client {
        self.client()
    }

    pub(crate) async fn probe(&self, path: &str) -> Option<u16> {
        tokio::time::timeout(Duration::from_secs(1), self.client().probe(path)).await.ok()?.ok()
    }

    /// A check as HAProxy makes it with `http-check send-state`: how long it took, and the answer's first line.
    pub(crate) async fn balancer_check(&self, path: &str, state: &str) -> (Duration, String) {
        let begun = Instant::now();
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.rest_port)).await.unwrap();
        let request =
            format!("OPTIONS {path} HTTP/1.0\r\nX-Haproxy-Server-State: {state}; node=lb; weight=1/1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (begun.elapsed(), answer.lines().next().unwrap_or_default().to_owned())
    }

    pub(crate) async fn status(&self) -> Option<PatroniStatus> {
        tokio::time::timeout(Duration::from_secs(1), self.client().status()).await.ok()?.ok()
    }

    pub(crate) async fn why(&self) -> Option<PghaStatus> {
        tokio::time::timeout(Duration::from_secs(1), self.client().pgha()).await.ok()?.ok()
    }

    /// A connection over TCP, as an application makes it.
    pub(crate) async fn connect(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        connect(self.postgres_port).await
    }
}

async fn connect(port: u16) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(port)
        .user("postgres")
        .password(PASSWORD)
        .dbname("postgres")
        .connect_timeout(Duration::from_secs(2))
        .connect(tokio_postgres::NoTls)
        .await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A member as a writer sees it.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    rest_port: u16,
    postgres_port: u16,
}

impl Target {
    pub(crate) async fn is_primary(self) -> bool {
        let client = Client::new(&format!("127.0.0.1:{}", self.rest_port)).unwrap();
        let probe = tokio::time::timeout(Duration::from_secs(1), client.probe("/primary")).await;
        matches!(probe, Ok(Ok(200)))
    }

    /// One row; whether it was acknowledged.
    pub(crate) async fn insert(self) -> bool {
        let insert = async {
            let client = connect(self.postgres_port).await?;
            client.execute("INSERT INTO worms DEFAULT VALUES", &[]).await
        };
        matches!(tokio::time::timeout(Duration::from_secs(2), insert).await, Ok(Ok(1)))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.power_off();
        }
        let _ = self.zookeeper.kill();
        let _ = self.zookeeper.wait();
    }
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

fn give_to_postgres(path: &Path) {
    let postgres = nix::unistd::User::from_name("postgres").unwrap().expect("the package made it");
    std::os::unix::fs::chown(path, Some(postgres.uid.as_raw()), Some(postgres.gid.as_raw())).unwrap();
}

fn start_zookeeper(dir: &Path, port: u16) -> Child {
    let data = dir.join("zookeeper");
    fs::create_dir(&data).unwrap();
    let config = dir.join("zoo.cfg");
    let text = format!(
        "tickTime=400\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxSessionTimeout=60000\n\
         admin.enableServer=false\n4lw.commands.whitelist=srvr,ruok\n",
        data.display()
    );
    fs::write(&config, text).unwrap();
    let log = fs::File::create(dir.join("zookeeper.log")).unwrap();
    let mut child = Command::new("java")
        .args(["-Xmx128m", "-Dzookeeper.admin.enableServer=false", "-cp", ZOOKEEPER])
        .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let text = || fs::read_to_string(dir.join("zookeeper.log")).unwrap_or_default();
        assert!(child.try_wait().unwrap().is_none(), "ZooKeeper ended:\n{}", text());
        assert!(begun.elapsed() < Duration::from_secs(30), "ZooKeeper does not listen:\n{}", text());
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}
