//! Journals are decided again the same, and what was tampered with is found.

#![expect(clippy::expect_used, reason = "a test that cannot go on says why")]

use std::path::{Path, PathBuf};
use std::process::Command;

use pgha_sim::history::journals;
use pgha_sim::replay::{Summary, replay};
use pgha_sim::scenario::Scenario;

/// A history with many faults: every member leads and follows, and agents are restarted.
const SEED: u64 = 11;

/// The journal of one member.
fn journal(seed: u64) -> Vec<u8> {
    journals(Scenario::of(seed)).0.into_values().next().expect("a member")
}

fn write(dir: &Path, name: &str, text: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("a file");
    path
}

/// The summary and the story.
fn told(paths: &[PathBuf]) -> (Summary, String) {
    let mut story = Vec::new();
    let summary = replay(paths, false, &mut story).expect("journals that can be read");
    (summary, String::from_utf8(story).expect("text"))
}

/// Replaces the first.
fn tampered(journal: &[u8], what: &str, by: &str) -> Vec<u8> {
    let text = std::str::from_utf8(journal).expect("text");
    assert!(text.contains(what), "no {what}");
    text.replacen(what, by, 1).into_bytes()
}

#[test]
fn what_was_decided_in_a_history_is_decided_again() {
    for seed in SEED..SEED + 3 {
        let dir = tempfile::tempdir().expect("a directory");
        let journals = journals(Scenario::of(seed)).0;
        let paths: Vec<_> = journals.iter().map(|(name, text)| write(dir.path(), name.as_str(), text)).collect();
        let (summary, story) = told(&paths);
        assert!(summary.agrees(), "seed {seed}: {summary}");
        assert!(summary.turns > 500, "seed {seed}: {summary}");
        assert!(story.contains("leading: I am the primary and my lease holds  > renew {\"version\":"));
    }
}

#[test]
fn a_run_goes_on_in_the_next_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = journal(SEED);
    let lines: Vec<&[u8]> = journal.split_inclusive(|byte| *byte == b'\n').collect();
    let first = write(dir.path(), "1", &lines[..4].concat());
    let wrong = tampered(lines[4], "\"prepared\":false", "\"prepared\":true");
    let second = write(dir.path(), "2", &[lines[0], &wrong].concat());
    let (summary, story) = told(&[first.clone(), second.clone()]);
    assert_eq!((summary.turns, summary.misremembered), (4, 1), "{story}");
    assert!(story.contains("prepared is false, was true"), "{story}");
    assert_eq!(told(&[second, first]).0.misremembered, 0);
}

#[test]
fn a_journal_that_was_tampered_with_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = journal(SEED);
    for (what, by) in [
        ("\"code\":\"following\"", "\"code\":\"leading\""),
        ("\"actions\":[]", "\"actions\":[\"fence\"]"),
        ("\"request\":null", "\"request\":\"shutdown\""),
    ] {
        let (summary, story) = told(&[write(dir.path(), "tampered", &tampered(&journal, what, by))]);
        assert_eq!(summary.otherwise, 1, "{what}: {summary}");
        assert!(story.contains("\n  OTHERWISE  today "), "{story}");
    }
}

#[test]
fn exit_codes_and_places() {
    let dir = tempfile::tempdir().expect("a directory");
    let run = |path: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_pgha-sim")).args(["replay", "--quiet"]).arg(path).output();
        let output = output.expect("a program that runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let journal = journal(SEED);
    let (code, said, _) = run(&write(dir.path(), "good", &journal));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("files 1, ") && said.ends_with(" torn 0: today all is decided the same\n"), "{said}");

    let (code, said, _) = run(&write(dir.path(), "torn", &journal[..journal.len() - 1]));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(" torn 1: today all is"), "{said}");

    let (code, said, _) =
        run(&write(dir.path(), "other", &tampered(&journal, "\"actions\":[]", "\"actions\":[\"exit\"]")));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.ends_with(": today 1 are decided otherwise, 0 leave another memory\n"), "{said}");

    let bad = write(dir.path(), "bad", &tampered(&journal, "{\"turn\":{\"number\":", "{\"turn\":{\"number\":x"));
    let (code, _, said) = run(&bad);
    assert_eq!(code, Some(2), "{said}");
    assert_eq!(said, format!("pgha-sim: {}:2:19: expected value\n", bad.display()));

    let (code, _, said) = run(&dir.path().join("nowhere"));
    assert_eq!(code, Some(2), "{said}");
}
