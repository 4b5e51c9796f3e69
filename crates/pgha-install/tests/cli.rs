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

/// A directory with the programs to install. Any ELF program will do where no host is reached.
fn programs() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for name in ["pgha-agent", "pgha-guard", "pghactl"] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pgha-install"), directory.path().join(name)).unwrap();
    }
    directory
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
fn a_missing_program_is_status_2_and_names_the_flag() {
    let (directory, programs) = (tempfile::tempdir().unwrap(), programs());
    let missing = programs.path().join("pgha-guard");
    std::fs::remove_file(&missing).unwrap();
    let output = run(directory.path(), INVENTORY, &["--programs", programs.path().to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&format!("cannot read {}", missing.display())) && said.contains("--programs"), "{said}");
}

#[test]
fn an_unreachable_host_is_status_1_and_leaves_nothing() {
    let (directory, programs) = (tempfile::tempdir().unwrap(), programs());
    let output = run(directory.path(), INVENTORY, &["--programs", programs.path().to_str().unwrap()]);
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
