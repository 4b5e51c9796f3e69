//! The program itself: exit codes, and that nothing is left behind where nothing was done.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::Path;
use std::process::{Command, Output};

const INVENTORY: &str = "[ssh]\nuser = \"nobody\"\nkey = \"/nowhere/key\"\nport = 1\nknown_hosts = \"/nowhere/known_hosts\"\n\
                         [[hosts]]\nname = \"a\"\naddress = \"127.0.0.1\"\nroles = [\"postgres\", \"zookeeper\", \"archive\"]\n";

fn run(directory: &Path, inventory: &str, arguments: &[&str]) -> Output {
    std::fs::write(directory.join("cluster.toml"), inventory).unwrap();
    Command::new(env!("CARGO_BIN_EXE_pgha-install"))
        .arg("cluster.toml")
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

fn own() -> &'static str {
    // Any ELF program will do where no host is reached.
    env!("CARGO_BIN_EXE_pgha-install")
}

fn left_behind(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_bad_inventory_is_status_2() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), &INVENTORY.replace("user =", "usr ="), &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("unknown field `usr`") && said.contains("cluster.toml:2:1"), "{said}");
    assert_eq!(left_behind(directory.path()), ["cluster.toml"]);
}

#[test]
fn a_missing_agent_is_status_2_and_names_its_flag() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), INVENTORY, &["--agent-binary", "/nowhere/pgha-agent"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot read /nowhere/pgha-agent") && said.contains("--agent-binary"), "{said}");
}

#[test]
fn an_unreachable_host_is_status_1_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--agent-binary", own(), "--pghactl-binary", own()];
    let output = run(directory.path(), INVENTORY, &arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("a: connect: no connection to 127.0.0.1 port 1"), "{said}");
    assert!(said.contains("try: "), "{said}");
    assert_eq!(left_behind(directory.path()), ["cluster.toml"]);
}

#[test]
fn check_needs_plan() {
    let directory = tempfile::tempdir().unwrap();
    let output = run(directory.path(), INVENTORY, &["--check"]);
    assert_eq!(output.status.code(), Some(2));
}
