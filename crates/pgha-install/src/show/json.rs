//! One JSON object per line.

use std::io::Write as _;

use super::Show;
use crate::event::Event;

pub(super) struct Json;

impl Show for Json {
    fn event(&mut self, event: &Event) {
        if let Ok(line) = serde_json::to_string(event) {
            // Nobody reads any more: the run goes on all the same.
            let _closed = writeln!(std::io::stdout(), "{line}");
        }
    }
}
