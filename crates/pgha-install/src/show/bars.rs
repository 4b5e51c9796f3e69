//! One line per host on a terminal: what it is doing, and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{Show, closing};
use crate::event::Event;

pub(super) struct Bars {
    all: MultiProgress,
    hosts: BTreeMap<String, ProgressBar>,
}

impl Bars {
    pub(super) fn new(hosts: &[String]) -> Self {
        let all = MultiProgress::new();
        let width = hosts.iter().map(String::len).max().unwrap_or(0);
        // The template is a constant that its own test reads; the default is as good a line.
        let style = ProgressStyle::with_template("{spinner} {prefix} [{elapsed:>4}] {wide_msg}")
            .unwrap_or_else(|_wrong| ProgressStyle::default_spinner())
            .tick_strings(&["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "✓"]);
        let hosts = hosts
            .iter()
            .map(|host| {
                let bar = all.add(ProgressBar::new_spinner());
                bar.set_style(style.clone());
                bar.set_prefix(format!("{host:width$}"));
                (host.clone(), bar)
            })
            .collect();
        Self { all, hosts }
    }

    fn set(&self, host: &str, text: String) {
        if let Some(bar) = self.hosts.get(host) {
            bar.enable_steady_tick(Duration::from_millis(100));
            bar.set_message(text);
        }
    }

    fn print(&self, text: &str) {
        // Nobody reads any more: the run goes on all the same.
        let _closed = self.all.println(text);
    }
}

impl Show for Bars {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Remark { text } => self.print(&format!("note: {text}")),
            Event::Connecting { host, address } => self.set(host, format!("connecting to {address}")),
            Event::Gathered { host } => self.set(host, "looked at".to_owned()),
            Event::Planned { text, .. } => self.print(text.trim_end()),
            Event::PhaseStarted { .. } => {}
            Event::StepStarted { host, step } => {
                if let Some(bar) = self.hosts.get(host) {
                    bar.reset_elapsed();
                }
                self.set(host, step.clone());
            }
            Event::StepDone { host, step, .. } => self.set(host, format!("{step}: done")),
            Event::Waiting { what } => {
                for bar in self.hosts.values() {
                    bar.set_message(format!("waiting: {what}"));
                }
            }
            Event::Failed(failure) => {
                if let Some(bar) = failure.host.as_ref().and_then(|host| self.hosts.get(host)) {
                    bar.abandon_with_message(format!("failed: {}", failure.step));
                }
                self.print(&format!("error: {failure}"));
            }
            Event::HostDone { host } => {
                if let Some(bar) = self.hosts.get(host) {
                    bar.finish_with_message("done");
                }
            }
            Event::Verified { what } => self.print(&format!("verified: {what}")),
            Event::Finished { changes, milliseconds, next } => {
                for bar in self.hosts.values() {
                    bar.finish_and_clear();
                }
                self.print(&closing(*changes, *milliseconds, next));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_well_formed() {
        assert!(ProgressStyle::with_template("{spinner} {prefix} [{elapsed:>4}] {wide_msg}").is_ok());
    }
}
