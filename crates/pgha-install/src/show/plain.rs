//! Plain lines, for logs and pipes.

use std::io::Write as _;
use std::time::Instant;

use super::{Show, closing};
use crate::event::Event;

pub(super) struct Plain {
    started: Instant,
}

impl Default for Plain {
    fn default() -> Self {
        Self { started: Instant::now() }
    }
}

impl Show for Plain {
    fn event(&mut self, event: &Event) {
        let seconds = self.started.elapsed().as_secs_f32();
        let line = match event {
            Event::Remark { text } => format!("note: {text}"),
            Event::Planned { text, .. } => text.trim_end().to_owned(),
            Event::PhaseStarted { phase } => format!("[{seconds:6.1}s] == {phase}"),
            Event::StepDone { host, step, milliseconds } => {
                format!("[{seconds:6.1}s] {host}: {step} ({}.{} s)", milliseconds / 1000, milliseconds % 1000 / 100)
            }
            Event::Waiting { what } => format!("[{seconds:6.1}s] waiting: {what}"),
            Event::Failed(failure) => {
                let _closed = writeln!(std::io::stderr(), "error: {failure}");
                return;
            }
            Event::Verified { what } => format!("[{seconds:6.1}s] verified: {what}"),
            Event::Finished { changes, milliseconds, next } => closing(*changes, *milliseconds, next),
            Event::Connecting { .. } | Event::Gathered { .. } | Event::StepStarted { .. } | Event::HostDone { .. } => {
                return;
            }
        };
        // Nobody reads any more: the run goes on all the same.
        let _closed = writeln!(std::io::stdout(), "{line}");
    }
}
