//! What the loop and the slow actions share: configuration, files, and the record of the past.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use pgha_core::config::{Config, Secrets};

use crate::past::PastFile;
use crate::postgres::conf::Conf;
use crate::promise::Promises;

/// One per agent.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) secrets: Secrets,
    pub(crate) conf: Conf,
    past: Mutex<PastFile>,
    /// What this member has promised to a primary in failsafe mode.
    pub(crate) promises: Promises,
    /// Postgres has been told to stop: from here on it refuses clients. REST knows it at once.
    pub(crate) stopping: Arc<AtomicBool>,
    /// Held by who makes, or removes, the directories of [`Self::leftovers`].
    pub(crate) copying: tokio::sync::Mutex<()>,
    /// Bytes of WAL in quarantine, as last counted.
    pub(crate) quarantined: AtomicU64,
}

impl Context {
    pub(crate) fn open(config: Config) -> anyhow::Result<Self> {
        let path = &config.secrets_file;
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let secrets = Secrets::parse(&text).with_context(|| format!("{}", path.display()))?;
        for dir in [&config.state_dir, &config.run_dir] {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let conf = Conf::new(config.clone())?;
        conf.write_passfile(&secrets).with_context(|| format!("cannot write {}", conf.passfile().display()))?;
        let past = PastFile::open(&config.state_dir)
            .with_context(|| format!("cannot read the record of past leaderships in {}", config.state_dir.display()))?;
        let promises = Promises::open(&config.run_dir)
            .with_context(|| format!("cannot read what was promised, in {}", config.run_dir.display()))?;
        Ok(Self {
            config,
            secrets,
            conf,
            past: Mutex::new(past),
            promises,
            stopping: Arc::default(),
            copying: tokio::sync::Mutex::default(),
            quarantined: AtomicU64::default(),
        })
    }

    /// The record of the past. Its fields are written whole, so that a panic elsewhere cannot leave it half-changed.
    pub(crate) fn past(&self) -> MutexGuard<'_, PastFile> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program of Postgres.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.config.postgres.bin_dir.join(name)
    }

    /// Where a new data directory is made.
    pub(crate) fn new_data_dir(&self) -> PathBuf {
        self.config.postgres.data_dir.with_added_extension("new")
    }

    /// Where the data directory is kept that a fresh copy replaced.
    pub(crate) fn old_data_dir(&self) -> PathBuf {
        self.config.postgres.data_dir.with_added_extension("old")
    }

    /// What a copy leaves behind: the data that it replaced, or its own beginning, where it was given up.
    pub(crate) fn leftovers(&self) -> [PathBuf; 2] {
        [self.old_data_dir(), self.new_data_dir()]
    }
}
