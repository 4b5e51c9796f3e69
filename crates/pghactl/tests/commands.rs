//! The program itself against agents that are played by this test: what it prints, what it asks for, how it ends.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

/// Requests that an agent has seen, head and body.
type Seen = Arc<Mutex<Vec<String>>>;

/// Plays an agent: `answer` gives status and body for a request line such as `GET /cluster`.
fn agent(answer: impl Fn(&str) -> (u16, String) + Send + 'static) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = read_request(&mut stream);
            let line = request.split(" HTTP/").next().unwrap().to_owned();
            log.lock().unwrap().push(request);
            let (status, body) = answer(&line);
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).unwrap();
        }
    });
    (address, seen)
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the client hung up after: {text}");
        seen.extend_from_slice(&buffer[..count]);
    }
}

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn cluster(leader: &str) -> String {
    let member = |name: &str, host: u8| {
        let (role, rest) = if name == leader {
            ("leader", "")
        } else {
            ("sync_standby", r#","receive_lsn":"0/5","receive_lag":0,"replay_lsn":"0/5","replay_lag":0"#)
        };
        format!(
            r#"{{"name":"{name}","role":"{role}","state":"running","host":"10.0.0.{host}","port":5432,"timeline":3{rest}}}"#
        )
    };
    format!(r#"{{"members":[{},{}],"scope":"main"}}"#, member("db1", 1), member("db2", 2))
}

const STATUS: &str = r#"{"state":"running","role":"primary","server_version":150008,"dcs_last_seen":7,
    "database_system_identifier":"42","patroni":{"version":"4.1.4","scope":"main","name":"db1"}}"#;

/// A cluster at rest.
fn calm(line: &str) -> (u16, String) {
    match line {
        "GET /cluster" => (200, cluster("db1")),
        "GET /patroni" => (200, STATUS.to_owned()),
        "GET /config" => (200, r#"{"ttl":30,"synchronous_mode":true}"#.to_owned()),
        _ => (404, "not played".to_owned()),
    }
}

/// A directory with `pghactl.toml` and `secrets.toml`; removed at the end.
struct Home(PathBuf);

impl Home {
    fn new(test: &str, agents: &[String]) -> Self {
        let path = std::env::temp_dir().join(format!("pghactl-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let secrets = path.join("secrets.toml");
        fs::write(&secrets, "superuser_password = \"a\"\nrest_username = \"admin\"\nrest_password = \"secret\"\n")
            .unwrap();
        let file = format!("cluster = \"main\"\nagents = {agents:?}\nsecrets_file = \"{}\"\n", secrets.display());
        fs::write(path.join("pghactl.toml"), file).unwrap();
        Self(path)
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        run(Command::new(env!("CARGO_BIN_EXE_pghactl"))
            .arg("--config")
            .arg(self.0.join("pghactl.toml"))
            .args(arguments))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A directory left behind in /tmp is no reason to fail.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How the program ended.
#[derive(Debug)]
struct Outcome {
    code: i32,
    out: String,
    err: String,
}

fn run(command: &mut Command) -> Outcome {
    let Output { status, stdout, stderr } =
        command.env_remove("PGHACTL_CONFIG").stdin(std::process::Stdio::null()).output().unwrap();
    Outcome {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

#[test]
fn list_names_the_agents_that_are_silent() {
    let (up, _) = agent(calm);
    let down = nobody();
    let home = Home::new("list", &[down.clone(), up]);
    let outcome = home.run(&["list"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.out.starts_with("+ Cluster: main (42) "), "{outcome:?}");
    assert!(
        outcome
            .out
            .contains("| db2    | 10.0.0.2 | Sync Standby | running |  3 |         0/5 |   0 |        0/5 |   0 |"),
        "{outcome:?}"
    );
    assert!(outcome.err.contains(&format!("{down}: connection refused")), "{outcome:?}");
}

#[test]
fn list_believes_the_agent_that_heard_from_zookeeper_last() {
    let (stale, _) = agent(|line| match line {
        "GET /cluster" => (200, cluster("db2")),
        "GET /patroni" => (200, STATUS.replace(":7,", ":6,")),
        _ => (404, String::new()),
    });
    let (fresh, _) = agent(calm);
    let home = Home::new("stale", &[stale, fresh]);
    let outcome = home.run(&["list", "--format", "tsv"]);
    assert!(outcome.out.contains("main\tdb1\t10.0.0.1\tLeader\t"), "{outcome:?}");
}

#[test]
fn nobody_answers() {
    let home = Home::new("nobody", &[nobody(), nobody()]);
    for arguments in [&["list"][..], &["config", "show"], &["why"], &["version"], &["pause"]] {
        let outcome = home.run(arguments);
        assert_eq!(outcome.code, 1, "{arguments:?}: {outcome:?}");
        assert_eq!(outcome.err.matches("connection refused").count(), 2, "{outcome:?}");
    }
}

#[test]
fn another_clusters_agents_are_refused() {
    let (other, _) = agent(|line| match line {
        "GET /cluster" => (200, cluster("db1").replace("\"main\"", "\"test\"")),
        other => calm(other),
    });
    let outcome = Home::new("other", &[other]).run(&["list"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.err.contains("belongs to cluster `test`"), "{outcome:?}");
}

#[test]
fn mistakes_in_usage_exit_with_2() {
    let home = Home::new("usage", &[nobody()]);
    for arguments in [
        &["lst"][..],
        &["failover"],
        &["switchover", "--candidate", "a/b"],
        &["config", "set", "pause"],
        &["list", "--format", "xml"],
        &["--agent", "db1", "list"],
    ] {
        let outcome = home.run(arguments);
        assert_eq!(outcome.code, 2, "{arguments:?}: {outcome:?}");
    }
    let missing = run(Command::new(env!("CARGO_BIN_EXE_pghactl")).args(["--config", "/nonexistent/x.toml", "list"]));
    assert_eq!(missing.code, 2, "{missing:?}");
    assert!(missing.err.contains("/nonexistent/x.toml") && missing.err.contains("--agent"), "{missing:?}");

    fs::write(home.0.join("pghactl.toml"), "agents = []\nagent = 1\n").unwrap();
    let mistyped = home.run(&["list"]);
    assert_eq!(mistyped.code, 2, "{mistyped:?}");
    assert!(mistyped.err.contains("unknown field `agent`"), "{mistyped:?}");
}

#[test]
fn without_a_password_nothing_is_sent() {
    let (up, seen) = agent(calm);
    let home = Home::new("password", &[up]);
    fs::remove_file(home.0.join("secrets.toml")).unwrap();
    let outcome = home.run(&["switchover", "--yes"]);
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(outcome.err.contains("secrets.toml: no such file"), "{outcome:?}");
    assert!(seen.lock().unwrap().is_empty());

    fs::write(home.0.join("secrets.toml"), "rest_username = \"admin\"\nrest_password = 5\n").unwrap();
    let outcome = home.run(&["pause"]);
    assert_eq!(outcome.code, 2, "{outcome:?}");
    assert!(outcome.err.contains("expected a string") && !outcome.err.contains("admin"), "{outcome:?}");
}

#[test]
fn a_scheduled_switchover_is_dropped_without_a_question() {
    let (up, seen) = agent(|line| match line {
        "DELETE /switchover" => (200, "scheduled switchover deleted".to_owned()),
        line => calm(line),
    });
    let home = Home::new("cancel", &[up]);
    let outcome = home.run(&["switchover", "--cancel"]);
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "scheduled switchover deleted\n"), "{outcome:?}");
    let sent = seen.lock().unwrap().iter().find(|request| request.starts_with("DELETE")).cloned().unwrap();
    assert!(sent.contains("authorization: Basic "), "{sent}");
    let outcome = home.run(&["switchover", "--cancel", "--candidate", "db2"]);
    assert_eq!(outcome.code, 2, "{outcome:?}");
}

#[test]
fn a_switchover_shows_before_and_after() {
    let done = Arc::new(Mutex::new(false));
    let (up, seen) = agent(move |line| {
        let mut done = done.lock().unwrap();
        match line {
            "POST /switchover" => {
                *done = true;
                (200, "Successfully switched over to \"db2\"".to_owned())
            }
            "GET /cluster" if *done => (200, cluster("db2")),
            other => calm(other),
        }
    });
    let home = Home::new("switchover", &[up]);
    let outcome = home.run(&["switchover", "--candidate", "db2", "--yes"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let (before, after) = outcome.out.split_once("Successfully switched over to \"db2\"\n").unwrap();
    assert!(before.contains("| db1    | 10.0.0.1 | Leader "), "{before}");
    assert!(after.contains("| db2    | 10.0.0.2 | Leader "), "{after}");
    let requests = seen.lock().unwrap();
    let request = requests.iter().find(|request| request.starts_with("POST")).unwrap();
    assert!(request.ends_with(r#"{"leader":"db1","candidate":"db2"}"#), "{request}");
    assert!(request.contains("authorization: Basic YWRtaW46c2VjcmV0"), "{request}");
}

#[test]
fn a_refusal_is_a_failure() {
    let (up, _) = agent(|line| match line {
        "POST /switchover" | "POST /failover" => (412, "switchover is not possible: no candidate".to_owned()),
        other => calm(other),
    });
    let home = Home::new("refusal", &[up]);
    for arguments in [&["switchover", "--yes"][..], &["failover", "--candidate", "db2", "--yes"]] {
        let outcome = home.run(arguments);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.err.contains("412: switchover is not possible: no candidate"), "{outcome:?}");
    }
}

#[test]
fn what_makes_no_sense_is_not_asked_for() {
    let (up, seen) = agent(calm);
    let home = Home::new("sense", &[up]);
    for (arguments, code, words) in [
        (&["switchover", "--candidate", "db1", "--yes"][..], 1, "is the leader already"),
        (&["switchover", "--candidate", "db9", "--yes"], 1, "its members are: db1, db2"),
        (&["switchover"], 2, "--yes"),
        (&["reinit", "db1", "--yes"], 1, "Hand over first"),
        (&["restart", "db2"], 1, "does not say where its agent listens"),
        (&["config", "set", "synchronous_node_count=0"], 1, "expected a whole number of 1 or more"),
    ] {
        let outcome = home.run(arguments);
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(outcome.err.contains(words), "{outcome:?}");
    }
    let changes = seen.lock().unwrap().iter().filter(|request| !request.starts_with("GET")).count();
    assert_eq!(changes, 0);
}

#[test]
fn settings_are_changed_once() {
    let (up, seen) = agent(|line| match line {
        "PATCH /config" => {
            (200, r#"{"ttl":30,"synchronous_mode":true,"sycnhronous_node_count":2,"pause":true}"#.to_owned())
        }
        other => calm(other),
    });
    let home = Home::new("config", &[up]);
    let outcome = home.run(&["config", "set", "sycnhronous_node_count=2", "ttl=30"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.out, "sycnhronous_node_count: unset -> 2\n");
    assert!(outcome.err.contains("mistyped?"), "{outcome:?}");

    let unchanged = home.run(&["config", "set", "ttl=30"]);
    assert!(unchanged.out.contains("nothing was changed"), "{unchanged:?}");
    let resumed = home.run(&["resume"]);
    assert_eq!(resumed.out, "The cluster is not paused; nothing was changed.\n");
    let paused = home.run(&["pause"]);
    assert_eq!(paused.code, 0, "{paused:?}");
    assert!(paused.out.contains("The cluster is paused"), "{paused:?}");

    let requests = seen.lock().unwrap();
    let bodies: Vec<&str> = requests
        .iter()
        .filter(|request| request.starts_with("PATCH"))
        .filter_map(|request| request.split("\r\n\r\n").nth(1))
        .collect();
    assert_eq!(bodies, [r#"{"sycnhronous_node_count":2,"ttl":30}"#, r#"{"pause":true}"#]);
}

#[test]
fn why_and_history_and_version() {
    let (up, _) = agent(|line| match line {
        "GET /pgha" => (
            200,
            r#"{"name":"db1","version":"0.9.1","reason":"I am the primary","code":"leading",
                "since":"2026-01-01T10:00:00+00:00","epoch":7,"lease_ms":4000,"watchdog":"armed"}"#
                .to_owned(),
        ),
        "GET /history" => {
            (200, r#"[[1,83886080,"no recovery target specified","2026-01-01T10:00:00+00:00","db1"]]"#.to_owned())
        }
        other => calm(other),
    });
    let home = Home::new("why", &[up]);
    let why = home.run(&["why"]);
    assert_eq!(why.code, 0, "{why:?}");
    assert!(why.out.starts_with("db1: I am the primary\n    leading, since 2026-01-01T10:00:00+00:00"), "{why:?}");
    assert!(why.out.ends_with("epoch 7, lease holds 4s, watchdog armed\n"), "{why:?}");
    let history = home.run(&["history"]);
    assert!(history.out.contains("|  1 | 83886080 | no recovery target specified |"), "{history:?}");
    let version = home.run(&["version"]);
    assert!(version.out.ends_with("db1: pgha-agent 0.9.1, PostgreSQL 15.8\n"), "{version:?}");
}

#[test]
fn help_is_complete() {
    let outcome = run(Command::new(env!("CARGO_BIN_EXE_pghactl")).arg("--help"));
    assert_eq!(outcome.code, 0);
    for word in ["switchover", "reinit", "Exit status:", "/etc/pgha/pghactl.toml", "PGHACTL_CONFIG", "Examples:"] {
        assert!(outcome.out.contains(word), "{word} is missing:\n{}", outcome.out);
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure_to_report() {
    let (up, _) = agent(calm);
    let home = Home::new("pipe", &[up]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_pghactl"))
        .arg("--config")
        .arg(home.0.join("pghactl.toml"))
        .arg("list")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let outcome = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&outcome.stderr), "");
}
