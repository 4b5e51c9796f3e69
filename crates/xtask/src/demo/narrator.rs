//! What the audience reads: each step, what was asked, what was seen, and the table at the end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::story::Account;

/// Counts the steps and their time.
pub(super) struct Narrator {
    started: Instant,
    steps: Vec<(String, Duration, bool)>,
}

/// Shows what somebody types or sends.
pub(super) fn asked(text: &str) {
    println!("   > {}", text.replace('\n', "\n     "));
}

/// Shows what came back.
pub(super) fn saw(text: &str) {
    println!("     {}", text.trim_end().replace('\n', "\n     "));
}

impl Narrator {
    pub(super) fn new(started: Instant) -> Self {
        Self { started, steps: Vec::new() }
    }

    /// One step; a failed one names itself in the error.
    pub(super) fn step<T>(&mut self, title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n{}. {}", self.steps.len() + 1, title);
        let started = Instant::now();
        let result = work();
        let took = started.elapsed();
        self.steps.push((title.to_owned(), took, result.is_ok()));
        println!("   {} {:.1} s", if result.is_ok() { "done in" } else { "failed after" }, took.as_secs_f64());
        result.with_context(|| format!("step {}, {title}", self.steps.len()))
    }

    /// The table; without an account where the story ended early.
    pub(super) fn summary(&self, account: Option<&Account>) {
        println!("\n{:>3}  {:<58} {:>8}", "", "step", "seconds");
        for (number, (title, took, done)) in self.steps.iter().enumerate() {
            let mark = if *done { "" } else { "  FAILED" };
            println!("{:>3}  {title:<58} {:>8.1}{mark}", number + 1, took.as_secs_f64());
        }
        println!("{:>3}  {:<58} {:>8.1}", "", "all", self.started.elapsed().as_secs_f64());
        if let Some(account) = account {
            println!("\n{account}");
        }
    }
}
