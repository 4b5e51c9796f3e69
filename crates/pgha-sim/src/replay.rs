//! `pgha-sim replay`: what agents have decided, decided again by the core of today, and told as a story.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pgha_core::action::Action;
use pgha_core::decide::{Memory, Settings, decide};
use pgha_core::journal::{Head, JournalError, Line, Turn, lines, torn};
use serde_json::Value;

/// A journal that cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file cannot be read at all.
    #[error("cannot read {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// One of its lines cannot.
    #[error("{path}:{source}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Where in it, and why.
        source: JournalError,
    },
    /// There is nowhere to tell the story.
    #[error("cannot write the story: {0}")]
    Story(#[from] io::Error),
}

/// What came of a replay.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Files.
    pub files: u64,
    /// Turns in them.
    pub turns: u64,
    /// Turns that the agents could not write.
    pub lost: u64,
    /// Files whose last line was torn.
    pub torn: u64,
    /// Turns that are decided otherwise today.
    pub otherwise: u64,
    /// Turns that leave another memory today than the next one was recorded with.
    pub misremembered: u64,
}

impl Summary {
    /// Whether today's core does what was done.
    pub fn agrees(&self) -> bool {
        self.otherwise == 0 && self.misremembered == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, turns, lost, torn, otherwise, misremembered } = self;
        write!(f, "files {files}, turns {turns}, lost {lost}, torn {torn}: ")?;
        if self.agrees() {
            f.write_str("today all is decided the same")
        } else {
            write!(f, "today {otherwise} are decided otherwise, {misremembered} leave another memory")
        }
    }
}

/// Replays the files one after the other. `quiet` tells no story.
pub fn replay(paths: &[PathBuf], quiet: bool, out: &mut impl Write) -> Result<Summary, ReplayError> {
    let mut replay = Replay { quiet, out, summary: Summary::default() };
    let mut run = None;
    for path in paths {
        replay.file(path, &mut run)?;
    }
    Ok(replay.summary)
}

struct Replay<'a, W> {
    quiet: bool,
    out: &'a mut W,
    summary: Summary,
}

/// One run of an agent, across files.
struct Run {
    started: Timestamp,
    settings: Settings,
    /// The turn that came last, and the memory that it leaves today.
    last: Option<(u64, Memory)>,
}

impl<W: Write> Replay<'_, W> {
    fn file(&mut self, path: &Path, run: &mut Option<Run>) -> Result<(), ReplayError> {
        let file = std::fs::read(path).map_err(|source| ReplayError::File { path: path.to_owned(), source })?;
        self.summary.files += 1;
        for line in lines(&file) {
            let (_, line) = line.map_err(|source| ReplayError::Line { path: path.to_owned(), source })?;
            match (line, run.as_mut()) {
                (Line::Head(head), _) => self.head(*head, run)?,
                (Line::Turn(turn), Some(run)) => self.turn(*turn, run)?,
                // The first line of each file is a head.
                (Line::Turn(_), None) => {}
            }
        }
        if torn(&file) > 0 {
            self.summary.torn += 1;
            self.tell(format_args!("  the last line of {} is torn", path.display()))?;
        }
        Ok(())
    }

    fn head(&mut self, head: Head, run: &mut Option<Run>) -> io::Result<()> {
        let Head { pgha, started, settings, .. } = head;
        match run {
            Some(run) if run.started == started && run.settings == settings => Ok(()),
            _ => {
                let told = self.tell(format_args!("{started:.3}  {}  started, pgha {pgha}", settings.me));
                *run = Some(Run { started, settings, last: None });
                told
            }
        }
    }

    fn turn(&mut self, turn: Turn, run: &mut Run) -> io::Result<()> {
        let Turn { number, at, lost, code, text, actions, memory, observation } = turn;
        self.summary.turns += 1;
        if lost > 0 {
            self.summary.lost += lost;
            self.tell(format_args!("  LOST       {lost} turns"))?;
        }
        let before = run.last.take().filter(|(last, before)| last + 1 == number && *before != memory);
        if let Some((last, before)) = before {
            self.summary.misremembered += 1;
            let differences = differences(&before, &memory);
            self.tell(format_args!(
                "  MEMORY     turn {last} leaves another today than {number} was given: {differences}"
            ))?;
        }
        self.tell(format_args!("{at:.3}  {}  {number}  {code}: {text}{}", run.settings.me, orders(&actions)))?;
        let today = decide(&run.settings, &memory, &observation);
        if today.reason.code() != code || today.actions != actions {
            self.summary.otherwise += 1;
            let reason = &today.reason;
            self.tell(format_args!("  OTHERWISE  today {}: {reason}{}", reason.code(), orders(&today.actions)))?;
        }
        run.last = Some((number, today.memory));
        Ok(())
    }

    fn tell(&mut self, line: fmt::Arguments<'_>) -> io::Result<()> {
        if self.quiet { Ok(()) } else { writeln!(self.out, "{line}") }
    }
}

fn orders(actions: &[Action]) -> String {
    let order = |action: &Action| match serde_json::to_value(action) {
        Ok(Value::String(word)) => word,
        Ok(Value::Object(fields)) => fields.iter().map(|(word, details)| format!("{word} {details}")).collect(),
        _ => format!("{action:?}"),
    };
    actions.iter().map(|action| format!("  > {}", order(action))).collect()
}

/// The fields that differ.
fn differences(today: &Memory, recorded: &Memory) -> String {
    let (Ok(Value::Object(today)), Ok(Value::Object(recorded))) =
        (serde_json::to_value(today), serde_json::to_value(recorded))
    else {
        return String::new();
    };
    let differing = today.iter().filter_map(|(field, today)| {
        let recorded = recorded.get(field).filter(|recorded| *recorded != today)?;
        Some(format!("{field} is {today}, was {recorded}"))
    });
    differing.collect::<Vec<_>>().join("; ")
}
