//! Failsafe mode, the side that is asked: this member's word not to lead.
//!
//! A primary that cannot reach ZooKeeper goes on for as long as every member that might lead promises not to. The word
//! is given by the REST interface at once, without waiting for the loop; so before the loop reaches for the leadership it
//! says so here, and from then on until it knows what has become of that no word is given.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pgha_core::name::{Epoch, NodeName};
use pgha_core::observation::{Observation, Promise};
use pgha_core::time::{Instant, Millis};
use pgha_guard::{clock, files};

/// What was promised, and whether anything may be.
#[derive(Debug)]
pub(crate) struct Promises {
    path: PathBuf,
    up_since: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    promise: Option<Promise>,
    /// The loop has reached for this leadership, and does not know yet what has become of that.
    bid: Option<Epoch>,
    /// At the last look this member had nothing to do with the leadership. False until it has looked once.
    free: bool,
    /// The newest leadership that it has seen.
    newest: Epoch,
}

/// Why no word is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// This member leads, or may be about to.
    #[error("Running as a leader")]
    Leading,
    /// Somebody has led since.
    #[error("there has been a newer leadership (epoch {0})")]
    Newer(Epoch),
    /// What is not kept is not promised.
    #[error("the promise cannot be kept across a restart of the agent")]
    Unkept,
}

impl Promises {
    /// In `run_dir`: a promise outlives the agent, not the host. What a host that was just started may have promised is for
    /// the decision; the clock does not tell, it is the same for a container and its host.
    pub(crate) fn open(run_dir: &std::path::Path) -> io::Result<Self> {
        let path = run_dir.join("promise.json");
        let mark = run_dir.join("up-since");
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let known = match std::fs::read_to_string(&mark) {
            // One of another boot, in a directory that has survived it, is of another clock; so is what was promised.
            Ok(text) => {
                text.split_once(' ').filter(|(of, _)| *of == boot.trim()).and_then(|(_, at)| at.trim().parse().ok())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let promise = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => return Err(error),
        };
        if let (Some(since), Ok(promise)) = (known, &promise) {
            let state = State { promise: promise.clone(), ..State::default() };
            return Ok(Self { path, up_since: Instant(since), state: Mutex::new(state) });
        }
        if let Err(error) = promise {
            tracing::warn!(path = %path.display(), %error, "not a promise; taking this for the host's start");
        }
        // What was promised is not known: as after a start of the host, when it is all forgotten.
        let now = clock::now();
        files::replace(&mark, format!("{} {}", boot.trim(), now.0).as_bytes())?;
        files::remove(&path)?;
        Ok(Self { path, up_since: now, state: Mutex::new(State::default()) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the first agent ran since the host, or its container, was started.
    pub(crate) fn up_since(&self) -> Instant {
        self.up_since
    }

    /// For an observation.
    pub(crate) fn current(&self) -> Option<Promise> {
        self.state().promise.clone()
    }

    /// The loop has looked. `settled`: it has seen that the leadership is not this member's, and no write is on its way.
    pub(crate) fn looked(&self, seen: &Observation, settled: bool, epoch: Option<Epoch>) {
        let mut state = self.state();
        // A look may be older than the bid, but not if it shows that leadership or a later one.
        let known = settled.then_some(epoch).flatten();
        state.bid = state.bid.filter(|bid| known.is_none_or(|known| known < *bid));
        state.free = state.bid.is_none() && seen.lease.is_none() && !seen.may_accept_writes();
        state.newest = state.newest.max(epoch.unwrap_or_default());
    }

    /// The loop is about to reach for the leadership `epoch`. Says whether it may.
    pub(crate) fn bid(&self, now: Instant, epoch: Epoch) -> bool {
        let mut state = self.state();
        let binds = |promise: &Promise| promise.holds(now) && epoch <= promise.epoch.next();
        if state.promise.as_ref().is_some_and(binds) {
            return false;
        }
        state.bid = Some(epoch);
        state.free = false;
        true
    }

    /// Nothing came of it, for certain.
    pub(crate) fn withdraw(&self) {
        self.state().bid = None;
    }

    /// Gives this member's word, for `length` from `now`.
    pub(crate) fn give(&self, to: NodeName, epoch: Epoch, now: Instant, length: Millis) -> Result<(), Refusal> {
        let mut state = self.state();
        if !state.free {
            return Err(Refusal::Leading);
        }
        if state.newest > epoch {
            return Err(Refusal::Newer(state.newest));
        }
        let known = state.promise.as_ref();
        let promise = Promise {
            to,
            epoch: known.map_or(epoch, |known| known.epoch.max(epoch)),
            until: known.map_or(now + length, |known| known.until.max(now + length)),
        };
        let kept = serde_json::to_vec(&promise).map_err(io::Error::from).and_then(|it| files::replace(&self.path, &it));
        kept.map_err(|error| {
            tracing::error!(path = %self.path.display(), %error, "cannot keep a promise; giving none");
            Refusal::Unkept
        })?;
        state.promise = Some(promise);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(dir: &std::path::Path) -> Promises {
        let promises = Promises::open(dir).unwrap();
        promises.state().free = true;
        promises
    }

    fn give(promises: &Promises, epoch: u64, now: u64) -> Result<(), Refusal> {
        promises.give(NodeName::try_from("a").unwrap(), Epoch(epoch), Instant(now), Millis(1000))
    }

    #[test]
    fn a_word_binds_and_outlives_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let promises = free(dir.path());
        assert_eq!(give(&promises, 3, 10), Ok(()));
        assert!(!promises.bid(Instant(1009), Epoch(4)));
        let restarted = Promises::open(dir.path()).unwrap();
        assert!(!restarted.bid(Instant(1009), Epoch(4)));
        assert!(restarted.bid(Instant(1009), Epoch(5)), "another has led since");
        assert!(promises.bid(Instant(1010), Epoch(4)));
    }

    #[test]
    fn a_promise_of_another_boot_is_of_another_clock() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(give(&free(dir.path()), 3, 10), Ok(()));
        std::fs::write(dir.path().join("up-since"), "another-boot 7").unwrap();
        let restarted = Promises::open(dir.path()).unwrap();
        assert!(restarted.current().is_none() && restarted.up_since() > Instant(7));
    }

    #[test]
    fn garbage_counts_as_a_promise_that_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let before = free(dir.path()).up_since();
        std::fs::write(dir.path().join("promise.json"), b"\xff{").unwrap();
        let restarted = Promises::open(dir.path()).unwrap();
        assert!(restarted.current().is_none() && restarted.up_since() >= before);
        assert!(!dir.path().join("promise.json").exists());
    }

    #[test]
    fn who_reaches_for_the_leadership_gives_no_word() {
        let dir = tempfile::tempdir().unwrap();
        let promises = free(dir.path());
        assert!(promises.bid(Instant(0), Epoch(4)));
        assert_eq!(give(&promises, 3, 0), Err(Refusal::Leading));
        assert_eq!(give(&Promises::open(dir.path()).unwrap(), 3, 0), Err(Refusal::Leading), "before the first look");
    }

    #[test]
    fn a_former_leader_gets_no_word() {
        let dir = tempfile::tempdir().unwrap();
        let promises = free(dir.path());
        promises.state().newest = Epoch(4);
        assert_eq!(give(&promises, 3, 0), Err(Refusal::Newer(Epoch(4))));
    }
}
