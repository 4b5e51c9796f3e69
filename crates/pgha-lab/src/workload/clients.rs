//! A thread of clients: started, watched while they get on, stopped.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{Error, Result};

/// Between two looks at how far they are.
const PAUSE: Duration = Duration::from_millis(10);

/// Running clients. Dropping it tells them to stop, and does not wait.
#[derive(Debug)]
pub(super) struct Clients {
    stop: watch::Sender<bool>,
    thread: JoinHandle<Result<()>>,
}

impl Clients {
    /// Begins `work`, which ends soon after it is [told to](told_to_stop).
    pub(super) fn start(
        name: &str,
        work: impl FnOnce(watch::Receiver<bool>) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(stopped));
        let thread = thread.map_err(|source| Error::Io { what: format!("starting the {name}"), source })?;
        Ok(Self { stop, thread })
    }

    /// Waits until `done` has grown by `count`; otherwise tells what went wrong last.
    pub(super) fn await_more(
        &self,
        (count, what): (usize, &str),
        limit: Duration,
        done: impl Fn() -> usize,
        last_error: impl FnOnce() -> Option<String>,
    ) -> Result<()> {
        let started = Instant::now();
        let goal = done() + count;
        while done() < goal {
            if started.elapsed() > limit || self.thread.is_finished() {
                let what = format!("{count} more acknowledged {what}");
                return Err(Error::Timeout { what, waited: limit, hint: last_error().unwrap_or_default() });
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Stops them and waits for their end.
    pub(super) fn end(self) -> Result<()> {
        self.stop.send_replace(true);
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// Whether somebody has said to stop, or nobody is left who could.
pub(super) fn told_to_stop(stop: &mut watch::Receiver<bool>) -> bool {
    stop.has_changed().is_err() || *stop.borrow_and_update()
}
