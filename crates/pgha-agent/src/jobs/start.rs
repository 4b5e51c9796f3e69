//! Start the postmaster, as a primary or as a standby, and wait until it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use pgha_core::name::Epoch;
use pgha_core::time::Instant;
use pgha_guard::clock;
use pgha_guard::postmaster::Postmaster;

use super::JobError;
use super::copy_slots::has_logical_wal;
use crate::context::Context;
use crate::postgres::conf::Upstream;
use crate::postgres::control;
use crate::postgres::numbers;
use crate::postgres::query::Connection;
use crate::postgres::slots;
use crate::postgres::supervisor::{self, Ordered};

/// How to start.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    /// On the same timeline, accepting writes under `epoch`; not begun after `not_after`.
    Primary { epoch: Epoch, not_after: Instant },
    /// Read-only.
    Standby(Option<Upstream>),
}

/// A postmaster that has not appeared by then does not come.
const APPEARANCE: Duration = Duration::from_secs(15);

/// A standby that lives this long is left alone, ready or not.
const CONSISTENCY: Duration = Duration::from_secs(5);

/// Crash recovery and replay up to consistency may take this long (Patroni's `primary_start_timeout`).
const READINESS: Duration = Duration::from_secs(300);

/// Between two looks at a postmaster that starts.
const LOOK: Duration = Duration::from_millis(20);

/// What ends its recovery at once must not be missed.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// See the module.
pub(crate) async fn start(
    context: Arc<Context>,
    parameters: BTreeMap<String, String>,
    mode: Mode,
) -> Result<(), JobError> {
    let conf = &context.conf;
    let data_dir = &context.config.postgres.data_dir;
    supervisor::settle(&context.config).await.map_err(|error| JobError::Failed(error.to_string()))?;
    let writing = || JobError::file(data_dir);
    let floors = match mode {
        Mode::Primary { .. } => BTreeMap::new(),
        Mode::Standby(_) => control::floors(&context.config.postgres.bin_dir, data_dir).await.unwrap_or_default(),
    };
    conf.write_settings_at_least(&parameters, &floors).map_err(writing())?;
    match &mode {
        Mode::Primary { epoch, not_after } => {
            conf.write_upstream(None).map_err(writing())?;
            conf.set_standby(false).map_err(writing())?;
            context.past().leads_in(*epoch).map_err(JobError::failed("recording the leadership"))?;
            if clock::now() >= *not_after {
                return Err(JobError::Failed("the lease is too short by now".to_owned()));
            }
        }
        Mode::Standby(upstream) => {
            let control = control::read(&context.config.postgres.bin_dir, data_dir, APPEARANCE).await;
            let control = control.map_err(JobError::failed("reading the control file"))?;
            numbers::forget_dangling(data_dir, control.timeline).map_err(writing())?;
            numbers::forget_order(&context.config.run_dir).map_err(writing())?;
            conf.write_upstream(upstream.as_ref()).map_err(writing())?;
            conf.write_sync_names("").map_err(writing())?;
            conf.set_standby(true).map_err(writing())?;
            let logical_wal = has_logical_wal(&context).await.unwrap_or(true);
            let removed = slots::remove_unusable(data_dir, logical_wal).map_err(writing())?;
            if !removed.is_empty() {
                tracing::warn!(slots = ?removed, logical_wal, "removed replication slots that would keep Postgres from starting");
            }
        }
    }
    let ordered = supervisor::start(&context.config).await.map_err(|error| JobError::Failed(error.to_string()))?;
    ready(&context, &ordered, matches!(mode, Mode::Standby(_))).await
}

/// Waits until Postgres answers queries, or is seen to have died. A standby that is not consistent yet may need WAL from
/// a leader that is not there; it is left alone after a while, so that it can be told of another.
async fn ready(context: &Context, ordered: &Ordered, standby: bool) -> Result<(), JobError> {
    let config = &context.config;
    let data_dir = &config.postgres.data_dir;
    let died = |what: &str| Err(JobError::Failed(format!("{what}; {}", supervisor::log_hint(config))));
    let mut connection = Connection::new(config, Duration::from_secs(2));
    let begun = StdInstant::now();
    let (mut appeared, mut recovered) = (false, false);
    while begun.elapsed() < READINESS {
        let alive = Postmaster::find(data_dir).is_some();
        if recovered && !alive {
            return Err(JobError::Impossible(format!("Postgres ended in recovery; {}", supervisor::log_hint(config))));
        }
        if appeared && !alive {
            return died("Postgres died while starting");
        }
        // By then it has its configuration, its memory and its port; what it ends of is in its data.
        recovered |= alive && standby && Postmaster::says_starting(data_dir);
        appeared |= alive;
        if !appeared && (begun.elapsed() > APPEARANCE || ordered.is_over().await) {
            return died("Postgres did not start");
        }
        if alive && !Postmaster::says_starting(data_dir) && connection.text("SELECT 'ready'").await.is_ok() {
            return Ok(());
        }
        if standby && appeared && begun.elapsed() > CONSISTENCY {
            return Ok(());
        }
        tokio::time::sleep(if recovered { LOOK } else { FIRST_LOOK }).await;
    }
    died("Postgres did not become ready in time")
}
