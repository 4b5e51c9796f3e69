//! The readers of the event stream: bars on a terminal, plain lines elsewhere, JSON for programs.

mod bars;
mod json;
mod plain;

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex};

use crate::event::Event;

/// A reader of events.
pub trait Show: Send {
    /// Takes an event.
    fn event(&mut self, event: &Event);
}

/// Hands events to the one reader of a run; cheap to copy.
#[derive(Clone)]
pub struct Reporter(Arc<Mutex<Box<dyn Show>>>);

impl Reporter {
    /// The reader that fits where standard output goes.
    pub fn new(json: bool, hosts: &[String]) -> Self {
        let show: Box<dyn Show> = if json {
            Box::new(json::Json)
        } else if std::io::stdout().is_terminal() {
            Box::new(bars::Bars::new(hosts))
        } else {
            Box::new(plain::Plain::default())
        };
        Self(Arc::new(Mutex::new(show)))
    }

    /// Passes an event on.
    pub fn say(&self, event: &Event) {
        // A reader that panicked must not silence the rest of the run.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).event(event);
    }
}

/// The closing lines of a run.
fn closing(changes: usize, milliseconds: u64, next: &[String]) -> String {
    let done = match changes {
        0 => "Nothing to change".to_owned(),
        1 => "1 change made".to_owned(),
        more => format!("{more} changes made"),
    };
    let mut text = format!("{done}; {}.{} s.", milliseconds / 1000, milliseconds % 1000 / 100);
    for line in next {
        text.push('\n');
        text.push_str(line);
    }
    text
}
