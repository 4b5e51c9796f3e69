//! What clients were told about each row, and when.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{Key, Report};

/// Shared by all writers of a workload.
#[derive(Debug)]
pub(super) struct Ledger(Mutex<Book>);

#[derive(Debug)]
struct Book {
    started: Instant,
    acknowledged: HashSet<Key>,
    in_doubt: HashSet<Key>,
    refused: HashSet<Key>,
    /// Attempts that never became a row.
    unconnected: usize,
    last: Instant,
    longest: Duration,
    longest_from: Instant,
    lap: Duration,
    first_error: Option<(Instant, String)>,
    last_error: Option<String>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Book {
            started: now,
            acknowledged: HashSet::new(),
            in_doubt: HashSet::new(),
            refused: HashSet::new(),
            unconnected: 0,
            last: now,
            longest: Duration::ZERO,
            longest_from: now,
            lap: Duration::ZERO,
            first_error: None,
            last_error: None,
        }))
    }

    /// A commit was confirmed.
    pub(super) fn acknowledge(&self, key: Key) {
        let mut book = self.book();
        book.close_gap(Instant::now());
        book.acknowledged.insert(key);
    }

    /// A row was sent, and no answer tells whether it counts.
    pub(super) fn doubt(&self, key: Key, why: String) {
        let mut book = self.book();
        book.in_doubt.insert(key);
        book.fail(why);
    }

    /// A row was certainly not taken.
    pub(super) fn refuse(&self, key: Key, why: String) {
        let mut book = self.book();
        book.refused.insert(key);
        book.fail(why);
    }

    /// There was no server to send a row to.
    pub(super) fn unconnected(&self, why: String) {
        let mut book = self.book();
        book.unconnected += 1;
        book.fail(why);
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.book().acknowledged.len()
    }

    pub(super) fn last_error(&self) -> Option<String> {
        self.book().last_error.clone()
    }

    pub(super) fn lap(&self) -> Duration {
        let mut book = self.book();
        let present = book.last.elapsed();
        std::mem::take(&mut book.lap).max(present)
    }

    /// The final account, given the rows that the table holds, and when the clients had ended.
    pub(super) fn settle(&self, rows: &HashSet<Key>, end: Instant) -> Report {
        let mut book = self.book();
        let kept = |keys: &HashSet<Key>| keys.intersection(rows).count();
        let since = |moment: Instant, book: &Book| moment.saturating_duration_since(book.started).as_secs_f64();
        // A silence that lasted to the end is a gap, too.
        book.close_gap(end);
        Report {
            acknowledged: book.acknowledged.len(),
            lost: book.acknowledged.len() - kept(&book.acknowledged),
            in_doubt: book.in_doubt.len(),
            in_doubt_kept: kept(&book.in_doubt),
            refused: book.refused.len() + book.unconnected,
            refused_kept: kept(&book.refused),
            longest_gap: book.longest.as_secs_f64(),
            longest_gap_at: since(book.longest_from, &book),
            first_error: book.first_error.as_ref().map(|(when, why)| (since(*when, &book), why.clone())),
            seconds: since(end, &book),
        }
    }

    /// No holder of the lock can leave the book half written.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn close_gap(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.last);
        if gap > self.longest {
            self.longest = gap;
            self.longest_from = self.last;
        }
        self.lap = self.lap.max(gap);
        self.last = now;
    }

    fn fail(&mut self, why: String) {
        self.first_error.get_or_insert_with(|| (Instant::now(), why.clone()));
        self.last_error = Some(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_tells_lost_from_doubtful() {
        let ledger = Ledger::new();
        ledger.acknowledge((0, 1));
        ledger.acknowledge((0, 2));
        ledger.doubt((1, 1), "cut".to_owned());
        ledger.doubt((1, 2), "cut again".to_owned());
        ledger.refuse((2, 1), "read-only".to_owned());
        ledger.unconnected("nobody there".to_owned());
        let report = ledger.settle(&HashSet::from([(0, 1), (1, 2)]), Instant::now());
        assert_eq!((report.acknowledged, report.lost), (2, 1));
        assert_eq!((report.in_doubt, report.in_doubt_kept), (2, 1));
        assert_eq!((report.refused, report.refused_kept), (2, 0));
        assert_eq!(report.first_error.as_ref().map(|(_, why)| why.as_str()), Some("cut"));
        assert!(!report.holds());
    }

    #[test]
    fn a_refused_row_in_the_table_is_a_broken_promise() {
        let ledger = Ledger::new();
        ledger.refuse((2, 1), "read-only".to_owned());
        assert!(!ledger.settle(&HashSet::from([(2, 1)]), Instant::now()).holds());
    }

    #[test]
    fn gaps_are_kept_in_all_and_by_lap() {
        let mut book = Ledger::new().0.into_inner().expect("not poisoned");
        let start = book.started;
        for seconds in [1, 6, 7] {
            book.close_gap(start + Duration::from_secs(seconds));
        }
        assert_eq!(book.longest, Duration::from_secs(5));
        assert_eq!(book.longest_from, start + Duration::from_secs(1));
        assert_eq!(std::mem::take(&mut book.lap), Duration::from_secs(5));
        book.close_gap(start + Duration::from_secs(9));
        assert_eq!((book.lap, book.longest), (Duration::from_secs(2), Duration::from_secs(5)));
    }
}
