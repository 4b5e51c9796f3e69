//! The smallest set of faults that still breaks something.

use crate::history::play;
use crate::mutant::Mutant;
use crate::scenario::Scenario;
use crate::time::Span;

/// Takes faults away, and then makes those that are left shorter, as long as the history still fails.
pub fn shrink(scenario: &Scenario, mutant: Option<Mutant>) -> Scenario {
    let fails = |scenario: &Scenario| play(scenario.clone(), mutant, false).violation.is_some();
    let mut best = scenario.clone();
    // Halves first, then quarters, …, then one by one.
    let mut size = best.faults.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        while from < best.faults.len() {
            let mut smaller = best.clone();
            let to = (from + size).min(smaller.faults.len());
            smaller.faults.drain(from..to);
            if fails(&smaller) {
                best = smaller;
            } else {
                from += size;
            }
        }
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    for index in 0..best.faults.len() {
        loop {
            let mut shorter = best.clone();
            let lasts = shorter.faults[index].lasts;
            if lasts <= Span::millis(2) {
                break;
            }
            shorter.faults[index].lasts = Span(lasts.0 / 2);
            if !fails(&shorter) {
                break;
            }
            best = shorter;
        }
    }
    best
}
