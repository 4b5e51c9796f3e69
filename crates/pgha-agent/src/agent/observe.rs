//! Gathers one [`Observation`], within deadlines.

use std::path::Path;

use pgha_core::config::Config;
use pgha_core::lsn::Timeline;
use pgha_core::observation::{Dcs, Observation, Postgres, Role, Running, Standby};
use pgha_core::time::Instant;
use pgha_core::wire::ClusterConfig;

use super::{Agent, patience};
use crate::dcs::{Documents, Known, understand};
use crate::postgres::conf::Upstream;
use crate::postgres::control;
use crate::postgres::process::Postmaster;
use crate::postgres::query::{Heartbeat, RoleSeen};
use crate::{clock, files, guard};

/// An observation and what it was made of.
pub(super) struct Seen {
    pub(super) observation: Observation,
    pub(super) documents: Documents,
    pub(super) heartbeat: Option<Heartbeat>,
}

/// What is remembered of one postmaster.
#[derive(Debug, Default)]
pub(super) struct PostgresMemory {
    postmaster: Option<Postmaster>,
    since: Instant,
    answered: Option<Instant>,
    was_primary: bool,
    /// Postgres shows its newest timeline in different places at different times; it never goes back.
    timeline: Option<Timeline>,
}

/// Documents kept across restarts, in case ZooKeeper holds garbage then.
pub(super) fn recall(config: &Config) -> Known {
    let bytes = std::fs::read(config.state_dir.join("config.json")).ok();
    Known {
        config: bytes.and_then(|bytes| ClusterConfig::parse(&bytes).ok()),
        system_id: None,
    }
}

impl Agent {
    pub(super) async fn observe(&mut self) -> Seen {
        let deadline = patience(&self.settings.timing);
        let read = self.zookeeper.read(deadline).await;
        let now = clock::now();
        self.take_acknowledgements();
        let (dcs, documents) = match read {
            Ok(tree) => {
                self.dcs_seen = Some(now);
                let (cluster, documents) = understand(&tree, &self.settings.me, &self.known);
                self.learn_documents(&documents);
                (Dcs::Seen(Box::new(cluster)), documents)
            }
            Err(error) => {
                self.complain(vec![error.to_string()]);
                (
                    Dcs::Silent {
                        since: self.dcs_seen.unwrap_or_default(),
                    },
                    Documents::default(),
                )
            }
        };
        let (postgres, heartbeat) = self.look_at_postgres(&documents).await;
        if let (Some(heartbeat), Postgres::Running(running)) = (&heartbeat, &postgres) {
            self.learn_promotion(heartbeat, running);
        }
        let past = self.context.past().view(self.context.old_data_dir().exists());
        let now = clock::now();
        let observation = Observation {
            now,
            dcs,
            lease: self.lease,
            postgres,
            past,
            job: self.job.as_ref().map(crate::jobs::Job::view),
            ended: self.ended.clone(),
            peers: self.peers.clone(),
            watchdog: self.watchdog.state(),
            guard_alive: guard::is_alive(&self.context.config.run_dir, now),
            request: self.request,
        };
        Seen {
            observation,
            documents,
            heartbeat,
        }
    }

    /// Remembers what stands in for a document that becomes garbage, and reports garbage once.
    fn learn_documents(&mut self, documents: &Documents) {
        if let Some(config) = documents
            .config
            .as_ref()
            .filter(|config| self.known.config.as_ref() != Some(*config))
        {
            let path = self.context.config.state_dir.join("config.json");
            if let Err(error) = files::replace(&path, &config.render()) {
                tracing::warn!(path = %path.display(), %error, "cannot keep a copy of the cluster's settings");
            }
            for warning in config.warnings() {
                tracing::warn!(%warning, "a cluster-wide setting is not understood");
            }
            self.known.config = Some(config.clone());
            self.reload = true;
        }
        if documents.system_id.is_some() {
            self.known.system_id = documents.system_id;
        }
        self.complain(documents.garbage.clone());
    }

    fn complain(&mut self, complaints: Vec<String>) {
        if complaints != self.complained {
            for complaint in &complaints {
                tracing::warn!("{complaint}");
            }
            self.complained = complaints;
        }
    }

    /// A crash between a promotion and its record must not lose the record.
    fn learn_promotion(&mut self, heartbeat: &Heartbeat, running: &Running) {
        let primary = matches!(heartbeat.role, RoleSeen::Primary(_));
        let recorded = self.context.past().view(false).promoted_to;
        if primary && running.timeline > Timeline(1) && recorded != Some(running.timeline) {
            let noted = self.context.past().promoted_to(running.timeline);
            if let Err(error) = noted {
                tracing::error!(%error, "cannot record the timeline of this promotion");
            }
        }
    }

    async fn look_at_postgres(&mut self, documents: &Documents) -> (Postgres, Option<Heartbeat>) {
        let context = self.context.clone();
        let config = &context.config;
        let data_dir = &config.postgres.data_dir;
        let now = clock::now();
        let Some(postmaster) = Postmaster::find(data_dir) else {
            self.postgres = PostgresMemory::default();
            self.connection.close();
            return (at_rest(config).await, None);
        };
        if self.postgres.postmaster != Some(postmaster) {
            self.postgres = PostgresMemory {
                postmaster: Some(postmaster),
                since: now,
                ..PostgresMemory::default()
            };
            self.connection.close();
            self.wake_at_death_of(postmaster);
        }
        let error = match self.connection.heartbeat().await {
            Ok(heartbeat) => return self.running(heartbeat, documents),
            Err(error) => error,
        };
        let signal = data_dir.join("standby.signal").exists();
        let memory = &self.postgres;
        let state = match memory.answered {
            Some(since) if !error.is_starting() => {
                tracing::debug!(%error, "Postgres does not answer");
                Postgres::Mute {
                    since,
                    was_primary: memory.was_primary,
                }
            }
            None if !error.is_starting() && !error.is_absent() => {
                tracing::debug!(%error, "Postgres does not answer yet");
                Postgres::Starting {
                    since: memory.since,
                    as_primary: !signal,
                }
            }
            // Shutting down looks the same as starting up, and is as able to accept a write: not at all.
            _ => Postgres::Starting {
                since: memory.since,
                as_primary: memory.was_primary || !signal,
            },
        };
        (state, None)
    }

    fn running(&mut self, heartbeat: Heartbeat, documents: &Documents) -> (Postgres, Option<Heartbeat>) {
        let timeline = self
            .postgres
            .timeline
            .max(Some(heartbeat.timeline))
            .unwrap_or(heartbeat.timeline);
        self.postgres.timeline = Some(timeline);
        self.postgres.answered = Some(clock::now());
        self.postgres.was_primary = matches!(heartbeat.role, RoleSeen::Primary(_));
        let role = match &heartbeat.role {
            RoleSeen::Primary(primary) => Role::Primary(primary.clone()),
            RoleSeen::Standby {
                received,
                replayed,
                streaming,
                conninfo,
                slots,
                ..
            } => Role::Standby(Standby {
                received: *received,
                replayed: *replayed,
                streaming: *streaming,
                slots: slots.clone(),
                upstream: documents.members.keys().find_map(|name| {
                    let upstream = upstream(documents, name)?;
                    (self.context.conf.conninfo(&upstream) == *conninfo).then_some(upstream.name)
                }),
            }),
        };
        if self.known.system_id.is_none() {
            self.known.system_id = Some(heartbeat.system_id);
        }
        let running = Running {
            system_id: heartbeat.system_id,
            timeline,
            role,
        };
        (Postgres::Running(Box::new(running)), Some(heartbeat))
    }

    fn wake_at_death_of(&self, postmaster: Postmaster) {
        let wake = self.wake.clone();
        match postmaster.death() {
            Ok(death) => {
                tokio::spawn(async move {
                    death.await;
                    wake.notify_one();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot watch the postmaster; its death is seen at the next heartbeat");
            }
        }
    }
}

async fn at_rest(config: &Config) -> Postgres {
    let postgres = &config.postgres;
    match is_empty(&postgres.data_dir) {
        Ok(true) => return Postgres::NoData,
        Ok(false) => {}
        Err(error) => return Postgres::Unusable(format!("{}: {error}", postgres.data_dir.display())),
    }
    match control::read(&postgres.bin_dir, &postgres.data_dir).await {
        Ok(control) => Postgres::Stopped(control),
        Err(error) => Postgres::Unusable(error.to_string()),
    }
}

fn is_empty(dir: &Path) -> std::io::Result<bool> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Where a member's Postgres is, from its own znode.
pub(super) fn upstream(documents: &Documents, name: &pgha_core::name::NodeName) -> Option<Upstream> {
    let (host, port) = documents.members.get(name)?.postgres_address()?;
    Some(Upstream {
        name: name.clone(),
        host,
        port,
    })
}
