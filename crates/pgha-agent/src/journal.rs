//! The field journal: what was observed and decided, written by a thread of its own that the loop never waits for.
//!
//! The format, and what is worth a line, is in [`pgha_core::journal`]. Files have growing numbers; the newest is written,
//! and the oldest are removed. Nothing is synced: a power cut may take the last seconds, a killed agent loses nothing.

use std::convert::Infallible;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use pgha_core::config::{self, Config};
use pgha_core::decide::{Decision, Memory, Settings};
use pgha_core::journal::{Head, Turn};
use pgha_core::observation::Observation;
use pgha_core::time::{Instant, Millis};

/// Turns that wait for the disk; more are lost.
const WAITING: usize = 128;

/// What failed is not tried again before.
const RETRY: Millis = Millis::from_secs(60);

/// How long the end of the agent waits for the last lines.
const LAST_LINES: Duration = Duration::from_millis(200);

/// The loop's end of the journal.
#[derive(Debug)]
pub(crate) struct Journal {
    number: u64,
    lost: u64,
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    turns: SyncSender<Turn>,
    /// Closed when the last line is written.
    ended: Receiver<Infallible>,
}

impl Journal {
    /// Begins, unless the configuration says otherwise. What goes wrong is reported, and no error of the agent.
    pub(crate) fn open(config: &Config, settings: &Settings) -> Self {
        let mut journal = Self { number: 0, lost: 0, thread: None };
        if config.journal.enabled {
            let mut writer = Writer::new(&config.state_dir, config.journal, settings.clone());
            let (turns, inbox) = sync_channel(WAITING);
            let (end, ended) = channel();
            // All memory is locked: the stack is no larger than it need be.
            let thread = std::thread::Builder::new().name("journal".to_owned()).stack_size(256 << 10);
            let spawned = thread.spawn(move || {
                let _end = end;
                for turn in inbox {
                    writer.take(turn);
                }
            });
            match spawned {
                Ok(_) => journal.thread = Some(Thread { turns, ended }),
                Err(error) => tracing::warn!(%error, "no journal is kept"),
            }
        }
        journal
    }

    /// Hands one turn over.
    pub(crate) fn record(&mut self, memory: &Memory, observation: &Observation, decision: &Decision) {
        self.number += 1;
        let Some(thread) = &self.thread else { return };
        let mut turn = Turn::new(self.number, Timestamp::now(), memory, observation, decision);
        turn.lost = self.lost;
        match thread.turns.try_send(turn) {
            Ok(()) => self.lost = 0,
            Err(_) => self.lost += 1,
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(Thread { turns, ended }) = self.thread.take() {
            drop(turns);
            // A disk that hangs does not hold the end up.
            let _ = ended.recv_timeout(LAST_LINES);
        }
    }
}

/// The thread's end.
#[derive(Debug)]
struct Writer {
    dir: PathBuf,
    limits: config::Journal,
    settings: Settings,
    started: Timestamp,
    file: Option<Open>,
    last: Option<Turn>,
    lost: u64,
    /// It failed; by the clock of the turns.
    retry_at: Option<Instant>,
}

/// The file that is written.
#[derive(Debug)]
struct Open {
    number: u64,
    file: File,
    length: u64,
}

impl Writer {
    fn new(state_dir: &Path, limits: config::Journal, settings: Settings) -> Self {
        Self {
            dir: state_dir.join("journal"),
            limits,
            settings,
            started: Timestamp::now(),
            file: None,
            last: None,
            lost: 0,
            retry_at: None,
        }
    }

    fn take(&mut self, mut turn: Turn) {
        self.lost += turn.lost;
        if self.last.as_ref().is_some_and(|last| !turn.is_news_after(last)) {
            return;
        }
        let now = turn.observation.now;
        if self.retry_at.is_some_and(|at| now < at) {
            self.lost += 1;
            return;
        }
        turn.lost = self.lost;
        match self.write(&turn) {
            Ok(()) => {
                if self.retry_at.take().is_some() {
                    tracing::info!(dir = %self.dir.display(), lost = self.lost, "the journal is written again");
                }
                self.lost = 0;
                self.last = Some(turn);
            }
            Err(error) => {
                if self.retry_at.replace(now + RETRY).is_none() {
                    tracing::warn!(dir = %self.dir.display(), %error, "cannot write the journal; trying each minute");
                }
                self.lost += 1;
            }
        }
    }

    /// Writes a line; an error leaves no file open.
    fn write(&mut self, turn: &Turn) -> io::Result<()> {
        let line = turn.render();
        let headed = || [Head::new(turn.at, self.started, self.settings.clone()).render(), line.clone()].concat();
        let (file, text) = match self.file.take() {
            Some(file) => (Some(file), line.clone()),
            None => (self.newest()?, headed()),
        };
        let (mut file, text) = match file {
            Some(file) if file.length.saturating_add(text.len() as u64) <= self.limits.max_file_bytes => (file, text),
            Some(file) => (self.begin(file.number + 1)?, headed()),
            None => (self.begin(1)?, text),
        };
        file.append(&text)?;
        self.file = Some(file);
        Ok(())
    }

    /// The file that an earlier run, or an earlier try, wrote last. An agent that dies again and again goes on with it, and
    /// does not push the story of how that began out of the journal.
    fn newest(&self) -> io::Result<Option<Open>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let Some(number) = self.numbers()?.pop() else { return Ok(None) };
        let file = OpenOptions::new().read(true).append(true).open(self.path(number))?;
        let length = file.metadata()?.len();
        let mut end = *b"\n";
        if let Some(before) = length.checked_sub(1) {
            file.read_exact_at(&mut end, before)?;
        }
        // Nothing is added to a torn line.
        let length = if end == *b"\n" { length } else { u64::MAX };
        Ok(Some(Open { number, file, length }))
    }

    fn begin(&self, number: u64) -> io::Result<Open> {
        let numbers = self.numbers()?;
        let kept = self.limits.files.saturating_sub(1) as usize;
        for old in numbers.iter().rev().skip(kept) {
            std::fs::remove_file(self.path(*old))?;
        }
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(self.path(number))?;
        Ok(Open { number, file, length: 0 })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:08}.jsonl"))
    }

    /// The numbers of the files that there are, in order. Files of others do not count.
    fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok()).map(u64::from);
            numbers.extend(number.filter(|number| self.path(*number) == path));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

impl Open {
    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(text) {
            // A disk that is full takes half a line. Should that stay, the next try begins another file.
            let _ = self.file.set_len(self.length);
            return Err(error);
        }
        self.length += text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use pgha_core::decide::decide;
    use pgha_core::journal::{Line, lines};
    use pgha_core::name::NodeName;
    use pgha_core::observation::{Dcs, Past, Postgres, Watchdog};
    use pgha_core::timing::Timing;

    use super::*;

    fn settings() -> Settings {
        Settings {
            me: NodeName::try_from("db1").unwrap(),
            timing: Timing::default(),
            nofailover: false,
            failover_priority: 1,
            watchdog_required: false,
            replicatefrom: None,
            nostream: false,
            standstill: Millis::from_secs(300),
            torn: 0,
        }
    }

    fn observation(seconds: u64) -> Observation {
        Observation {
            now: Instant(seconds * 1000),
            dcs: Dcs::Silent { since: Instant(0) },
            lease: None,
            postgres: Postgres::NoData,
            past: Past::default(),
            job: None,
            ended: None,
            peers: None,
            watchdog: Watchdog::Off,
            guard_alive: true,
            request: None,
            disk: pgha_core::observation::Disk::Sound,
            up_since: Instant(0),
            namesake: None,
            promise: None,
            pulse: None,
        }
    }

    fn decided(observation: &Observation) -> Decision {
        decide(&settings(), &Memory::default(), observation)
    }

    /// A turn at this second, with news.
    fn turn(seconds: u64) -> Turn {
        let mut observation = observation(seconds);
        observation.postgres = Postgres::Unusable(format!("news of second {seconds}"));
        Turn::new(seconds, Timestamp::now(), &Memory::default(), &observation, &decided(&observation))
    }

    fn writer(state_dir: &Path, limits: config::Journal) -> Writer {
        Writer::new(state_dir, limits, settings())
    }

    /// The turns of each file: number, and how many were lost before.
    fn written(state_dir: &Path) -> Vec<Vec<(u64, u64)>> {
        let mut paths: Vec<_> =
            std::fs::read_dir(state_dir.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let turns = |path: &PathBuf| {
            let text = std::fs::read(path).unwrap();
            let lines: Vec<_> = lines(&text).map(Result::unwrap).collect();
            let turn = |(_, line)| if let Line::Turn(turn) = line { Some((turn.number, turn.lost)) } else { None };
            lines.into_iter().filter_map(turn).collect()
        };
        paths.iter().map(turns).collect()
    }

    #[test]
    fn a_turn_without_news_is_written_once_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), config::Journal::default());
        for seconds in 0..150 {
            let observation = observation(seconds);
            writer.take(Turn::new(seconds, Timestamp::now(), &Memory::default(), &observation, &decided(&observation)));
        }
        assert_eq!(written(dir.path()), [[(0, 0), (60, 0), (120, 0)]]);
    }

    #[test]
    fn files_are_bounded_in_size_and_number_and_readable_by_their_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let limits = config::Journal { max_file_bytes: 4096, files: 3, ..config::Journal::default() };
        let mut writer = writer(dir.path(), limits);
        (1..=100).for_each(|seconds| writer.take(turn(seconds)));
        let stray = dir.path().join("journal/99.jsonl");
        std::fs::write(&stray, "not ours").unwrap();
        (101..=200).for_each(|seconds| writer.take(turn(seconds)));
        std::fs::remove_file(stray).unwrap();
        let files = written(dir.path());
        assert_eq!(files.len(), 3);
        let numbers: Vec<u64> = files.concat().iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (numbers[0]..=200).collect::<Vec<_>>());
        let journal = dir.path().join("journal");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&journal), 0o700);
        for entry in std::fs::read_dir(&journal).unwrap() {
            let path = entry.unwrap().path();
            assert!(path.metadata().unwrap().len() <= 4096);
            assert_eq!(mode(&path), 0o600);
        }
    }

    #[test]
    fn a_restarted_agent_goes_on_in_the_same_file_but_not_after_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let write = |number| writer(dir.path(), config::Journal::default()).take(turn(number));
        write(1);
        write(2);
        assert_eq!(written(dir.path()), [[(1, 0), (2, 0)]]);
        let path = dir.path().join("journal/00000001.jsonl");
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 1]).unwrap();
        write(3);
        write(4);
        assert_eq!(written(dir.path()), [vec![(1, 0)], vec![(3, 0), (4, 0)]]);
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_tried_again_later() {
        let dir = tempfile::tempdir().unwrap();
        let in_the_way = dir.path().join("journal");
        std::fs::write(&in_the_way, "a file").unwrap();
        let mut writer = writer(dir.path(), config::Journal::default());
        writer.take(turn(0));
        std::fs::remove_file(&in_the_way).unwrap();
        writer.take(turn(59));
        assert!(!in_the_way.exists(), "tried too early");
        writer.take(turn(60));
        writer.take(turn(61));
        assert_eq!(written(dir.path()), [[(60, 2), (61, 0)]]);
    }

    #[test]
    fn turns_that_the_thread_cannot_keep_up_with_are_counted() {
        let (turns, inbox) = sync_channel(1);
        let (_, ended) = channel();
        let mut journal = Journal { number: 0, lost: 0, thread: Some(Thread { turns, ended }) };
        let mut record = || {
            let observation = observation(0);
            journal.record(&Memory::default(), &observation, &decided(&observation));
        };
        (0..3).for_each(|_| record());
        let first = inbox.recv().unwrap();
        record();
        let fourth = inbox.recv().unwrap();
        assert_eq!([(first.number, first.lost), (fourth.number, fourth.lost)], [(1, 0), (4, 2)]);

        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path(), config::Journal::default());
        writer.take(first);
        // It is no news itself; the next that is tells what was lost.
        writer.take(fourth);
        writer.take(turn(5));
        assert_eq!(written(dir.path()), [[(1, 0), (5, 2)]]);
    }

    #[test]
    fn the_end_of_the_agent_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "cluster = 'main'\nname = 'db1'\nstate_dir = '{}'\n[zookeeper]\nhosts = ['a:1']\n\
             [rest]\nadvertise = 'a:1'\n[postgres]\nadvertise = 'a:1'\n",
            dir.path().display()
        );
        let mut journal = Journal::open(&Config::parse(&text).unwrap(), &settings());
        journal.record(&Memory::default(), &observation(1), &decided(&observation(1)));
        drop(journal);
        assert_eq!(written(dir.path()), [[(1, 0)]]);
        let mut off =
            Journal::open(&Config::parse(&format!("{text}[journal]\nenabled = false\n")).unwrap(), &settings());
        off.record(&Memory::default(), &observation(2), &decided(&observation(2)));
        drop(off);
        assert_eq!(written(dir.path()), [[(1, 0)]]);
    }
}
