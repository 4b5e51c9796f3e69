//! Every bad inventory in `tests/inventory` is refused with the text beside it; every example is taken.
//!
//! `UPDATE=1 cargo test -p pgha-install --test inventory` writes the texts anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::{Path, PathBuf};

use pgha_install::inventory;

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn bad_inventories_are_refused_with_place_and_expectation() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inventory");
    let cases = files(&directory);
    assert!(cases.len() > 10);
    for path in cases {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let error = inventory::parse(name, &text).expect_err(name).to_string() + "\n";
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&golden, &error).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(error, expected, "{name}");
    }
}

#[test]
fn every_example_is_taken() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../inventory");
    let examples: Vec<PathBuf> =
        files(&directory).into_iter().filter(|path| !path.to_string_lossy().ends_with(".secrets.toml")).collect();
    assert!(examples.len() >= 4);
    for path in examples {
        inventory::load(&path).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = inventory::load(Path::new("/nowhere/cluster.toml")).unwrap_err().to_string();
    assert!(error.starts_with("error: cannot read the inventory /nowhere/cluster.toml"), "{error}");
}

#[test]
fn files_are_found_from_the_inventorys_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cluster.toml");
    let hosts = "[[hosts]]\nname = \"a\"\nroles = [\"postgres\", \"zookeeper\", \"archive\"]\n";
    std::fs::write(&path, format!("[ssh]\nkey = \"id\"\nknown_hosts = \"/etc/known\"\n{hosts}")).unwrap();
    let cluster = inventory::load(&path).unwrap();
    assert_eq!(cluster.hosts[0].ssh.key, Some(directory.path().join("id")));
    assert_eq!(cluster.known_hosts, Some(PathBuf::from("/etc/known")));
}

#[test]
fn hosts_and_roles_are_enough() {
    let cluster =
        inventory::parse("t", "[[hosts]]\nname = \"db1\"\nroles = [\"postgres\", \"zookeeper\", \"archive\"]\n")
            .unwrap();
    assert_eq!(cluster.name.as_str(), "main");
    assert_eq!(cluster.hosts[0].address, "db1");
    assert_eq!(cluster.databases[0].owner, "app");
}
