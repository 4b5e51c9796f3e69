//! Slow actions: each on a thread of its own, given up by the loop at any time, and part of the next observation.

mod bootstrap;
mod copy;
mod copy_slots;
mod prepare;
mod promote;
mod rewind;
mod run;
mod start;
mod stop;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use bootstrap::bootstrap;
pub(crate) use copy::copy;
pub(crate) use copy_slots::copy_slots;
use pgha_core::observation::{EndedJob, JobKind, Outcome, RunningJob};
use pgha_core::time::Instant;
use pgha_guard::clock;
pub(crate) use prepare::prepare;
pub(crate) use promote::{note as note_promotion, promote};
pub(crate) use rewind::rewind;
pub(crate) use start::{Mode, start};
pub(crate) use stop::stop;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// Why a slow action did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// It may work later.
    #[error("{0}")]
    Failed(String),
    /// It cannot work.
    #[error("{0}")]
    Impossible(String),
}

impl JobError {
    /// For `map_err`: what was being done, and the cause.
    pub(crate) fn failed<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self::Failed(format!("{what}: {error}"))
    }

    /// For `map_err` on a file operation.
    pub(crate) fn file<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Self {
        Self::failed(path.display().to_string())
    }
}

/// A slow action under way.
#[derive(Debug)]
pub(crate) struct Job {
    kind: JobKind,
    since: Instant,
    writes: bool,
    /// `None` when it is given up.
    wanted: Option<oneshot::Sender<Infallible>>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), JobError>>,
}

/// Tells of the end, whichever it is.
struct End {
    done: Arc<AtomicBool>,
    finished: Arc<Notify>,
}

impl Drop for End {
    fn drop(&mut self) {
        // In this order: who is woken finds it done.
        self.done.store(true, Ordering::Release);
        self.finished.notify_one();
    }
}

impl Job {
    /// Begins; `finished` is notified at the end. `writes`: it ends with a Postgres that accepts writes.
    ///
    /// It may copy files, wait for disks, and take its time: the loop does not share a thread with it.
    pub(crate) fn begin(
        kind: JobKind,
        writes: bool,
        finished: &Arc<Notify>,
        work: impl Future<Output = Result<(), JobError>> + Send + 'static,
    ) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let end = End { done: done.clone(), finished: finished.clone() };
        let (wanted, unwanted) = oneshot::channel();
        let thread = tokio::task::spawn_blocking(move || {
            let _end = end;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map_err(JobError::failed("starting a job")).and_then(|runtime| {
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        _ = unwanted => Err(JobError::Failed("given up".to_owned())),
                        outcome = work => outcome,
                    }
                })
            })
        });
        Self { kind, since: clock::now(), writes, wanted: Some(wanted), done, thread }
    }

    /// For an observation.
    pub(crate) fn view(&self) -> RunningJob {
        RunningJob { kind: self.kind, since: self.since, writes: self.writes }
    }

    /// Whether there is an outcome to collect.
    pub(crate) fn is_finished(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// The outcome.
    pub(crate) async fn outcome(self) -> EndedJob {
        let outcome = match self.thread.await {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(JobError::Failed(why))) => Outcome::Failed(why),
            Ok(Err(JobError::Impossible(why))) => Outcome::Impossible(why),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        let millis = clock::now().since(self.since).0;
        match &outcome {
            Outcome::Done => tracing::info!(job = %self.kind, millis, "done"),
            Outcome::Failed(why) | Outcome::Impossible(why) => {
                tracing::error!(job = %self.kind, millis, %why, "failed");
            }
        }
        EndedJob { kind: self.kind, outcome }
    }

    /// Gives it up. Its child processes end with it.
    pub(crate) async fn cancel(mut self) -> EndedJob {
        self.wanted = None;
        self.outcome().await
    }
}
