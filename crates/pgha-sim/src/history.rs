//! One history from its scenario to its end; and many of them, on all cores.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::invariant::Violation;
use crate::journal::Journals;
use crate::mutant::Mutant;
use crate::reach::Reached;
use crate::scenario::Scenario;
use crate::time::Span;
use crate::world::World;

/// What became of a history.
#[derive(Debug)]
pub struct Outcome {
    /// What was broken.
    pub violation: Option<Violation>,
    /// What was reached.
    pub reached: Reached,
    /// Rows acknowledged.
    pub acknowledged: u32,
    /// Longest time without one.
    pub longest_gap: Span,
    /// Events that it took.
    pub events: u64,
    /// The story, if it was wanted.
    pub story: Vec<String>,
}

/// Plays one.
pub fn play(scenario: Scenario, mutant: Option<Mutant>, trace: bool) -> Outcome {
    let mut world = World::new(scenario, mutant, trace);
    world.run();
    Outcome {
        violation: world.violation,
        reached: world.reached,
        acknowledged: world.oracle.acknowledged,
        longest_gap: world.oracle.longest_gap,
        events: world.queue.made(),
        story: world.story.unwrap_or_default(),
    }
}

/// Plays one for the journals that it leaves.
#[doc(hidden)]
pub fn journals(scenario: Scenario) -> Journals {
    let mut world = World::new(scenario, None, false);
    world.journals = Some(Journals::default());
    world.run();
    world.journals.unwrap_or_default()
}

/// The result of many histories.
#[derive(Debug, Default)]
pub struct Sweep {
    /// How many were played.
    pub played: u64,
    /// Seeds that failed, and how.
    pub failed: Vec<(u64, Violation)>,
    /// What was reached in all of them.
    pub reached: Reached,
    /// Rows acknowledged in all of them.
    pub acknowledged: u64,
}

/// Plays the seeds on `threads` threads, up to the first `limit` failures. `progress` is told of each.
pub fn sweep(
    seeds: impl Iterator<Item = u64> + Send,
    threads: usize,
    mutant: Option<Mutant>,
    limit: usize,
    progress: impl Fn(u64) + Sync,
) -> Sweep {
    let seeds = Mutex::new(seeds);
    let total = Mutex::new(Sweep::default());
    let played = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut mine = Sweep::default();
                while !enough.load(Ordering::Relaxed) {
                    let next = seeds.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(seed) = next else { break };
                    let outcome = play(Scenario::of(seed), mutant, false);
                    mine.played += 1;
                    mine.acknowledged += u64::from(outcome.acknowledged);
                    mine.reached.add(&outcome.reached);
                    progress(played.fetch_add(1, Ordering::Relaxed) + 1);
                    if let Some(violation) = outcome.violation {
                        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                        total.failed.push((seed, violation));
                        if total.failed.len() >= limit {
                            enough.store(true, Ordering::Relaxed);
                        }
                    }
                }
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                total.played += mine.played;
                total.acknowledged += mine.acknowledged;
                total.reached.add(&mine.reached);
            });
        }
    });
    let mut sweep = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    sweep.failed.sort_by_key(|(seed, _)| *seed);
    sweep
}
