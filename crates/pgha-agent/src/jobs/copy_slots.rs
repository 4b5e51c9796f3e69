//! Permanent logical slots of a standby: copied from the leader, file by file, while Postgres is stopped.
//!
//! A standby of Postgres 15 cannot make a logical slot. It takes one that lies in `pg_replslot` when it is started, and moves
//! it on with `pg_replication_slot_advance`; so does Patroni. Consumers go on where they were after a failover, and may
//! be given again what they confirmed since the slot was last moved on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pgha_core::lsn::{Lsn, Segment};
use pgha_core::name::SlotName;
use tokio_postgres::NoTls;

use super::run::run;
use super::{JobError, stop};
use crate::context::Context;
use crate::postgres::conf::Upstream;
use crate::postgres::query::Connection;
use crate::postgres::slots::State;

/// What a state file cannot be longer than (`ReplicationSlotOnDisk` has some 200 bytes).
const LONGEST: i64 = 65_536;

/// How long the leader may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A slot as the leader has it.
struct Copied {
    name: SlotName,
    state: State,
}

/// See the module. Leaves Postgres stopped; stops it only for slots that it will start with and can use.
pub(crate) async fn copy_slots(
    context: Arc<Context>,
    source: Upstream,
    slots: BTreeSet<SlotName>,
) -> Result<(), JobError> {
    if has_logical_wal(&context).await != Some(true) {
        return Err(JobError::Failed("wal_level is not logical here: set it for the whole cluster".to_owned()));
    }
    let replayed = replayed(&context).await?;
    let read = read(&context, &source, &slots);
    let rows = tokio::time::timeout(PATIENCE, read)
        .await
        .map_err(|_| JobError::Failed(format!("{} did not hand the slots over within {PATIENCE:?}", source.name)))?
        .map_err(JobError::failed(format!("reading the slots of {}", source.name)))?;
    let mut copies = Vec::new();
    for row in &rows {
        match usable(&context, row, replayed) {
            Ok(copied) => copies.push(copied),
            Err(why) => tracing::warn!(%why, "not copying a logical slot"),
        }
    }
    if copies.is_empty() {
        return Err(JobError::Failed(format!("{} has no slot that could be used here", source.name)));
    }
    stop(context.clone(), true).await?;
    let data_dir = &context.config.postgres.data_dir;
    for copied in &copies {
        copied.state.write(data_dir, &copied.name).map_err(JobError::file(data_dir))?;
    }
    tracing::info!(source = %source.name, slots = copies.len(), "copied logical slots");
    Ok(())
}

/// What Postgres would be started with; `None` where that cannot be told.
pub(super) async fn has_logical_wal(context: &Context) -> Option<bool> {
    let data_dir = context.config.postgres.data_dir.to_string_lossy().into_owned();
    let shown = run(&context.program("postgres"), &["-C", "wal_level", "-D", &data_dir]).await.ok()?;
    Some(shown.stdout.trim() == "logical")
}

async fn replayed(context: &Context) -> Result<Lsn, JobError> {
    let mut connection = Connection::new(&context.config, Duration::from_secs(2));
    let text = connection.text("SELECT pg_last_wal_replay_lsn()::text").await;
    let text = text.map_err(JobError::failed("asking how far Postgres has replayed"))?;
    text.and_then(|text| text.parse().ok()).ok_or_else(|| JobError::Failed("Postgres has replayed nothing".to_owned()))
}

/// The slots and their state files, through the rights that `pg_rewind` needs.
async fn read(
    context: &Context,
    source: &Upstream,
    slots: &BTreeSet<SlotName>,
) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::Config::new()
        .host(&source.host)
        .port(source.port)
        .user(&context.config.postgres.rewind_user)
        .password(&context.secrets.rewind_password)
        .dbname("postgres")
        .application_name("pgha")
        .connect(NoTls)
        .await?;
    let connection = tokio::spawn(connection);
    let names: Vec<&str> = slots.iter().map(SlotName::as_str).collect();
    let sql = "SELECT slot_name::text, restart_lsn::text, confirmed_flush_lsn::text, \
                      pg_catalog.pg_read_binary_file('pg_replslot/' || slot_name || '/state', 0, $2, true) \
                 FROM pg_catalog.pg_replication_slots \
                WHERE slot_type = 'logical' AND slot_name = ANY ($1) \
                  AND restart_lsn IS NOT NULL AND confirmed_flush_lsn IS NOT NULL";
    let rows = client.query(sql, &[&names, &LONGEST]).await;
    connection.abort();
    rows
}

fn usable(context: &Context, row: &tokio_postgres::Row, replayed: Lsn) -> Result<Copied, String> {
    let broken = |error: tokio_postgres::Error| error.to_string();
    let name: String = row.try_get(0).map_err(broken)?;
    let lsn = |column: usize| -> Result<Lsn, String> {
        let text: String = row.try_get(column).map_err(broken)?;
        text.parse().map_err(|_| format!("{name}: {text} is no position"))
    };
    let (restart, confirmed) = (lsn(1)?, lsn(2)?);
    let bytes: Option<Vec<u8>> = row.try_get(3).map_err(broken)?;
    let state = bytes.and_then(State::parse).ok_or_else(|| format!("{name}: its state is not whole"))?;
    if !state.is_logical() || !state.is_persistent() {
        return Err(format!("{name}: it is still being made"));
    }
    if confirmed > replayed {
        return Err(format!("{name}: its consumer is at {confirmed}, and {replayed} is replayed here"));
    }
    if !has_wal(context, restart) {
        return Err(format!("{name}: it needs WAL from {restart}, which is not here any more"));
    }
    let name = SlotName::parse(&name).ok_or_else(|| format!("{name} is no name of a slot"))?;
    Ok(Copied { name, state })
}

/// Whether the segment with that position is here, of whichever timeline.
fn has_wal(context: &Context, position: Lsn) -> bool {
    let names = std::fs::read_dir(context.config.postgres.data_dir.join("pg_wal"));
    names.is_ok_and(|names| {
        names.flatten().any(|entry| {
            let segment = entry.file_name().to_str().and_then(Segment::parse);
            segment.is_some_and(|segment| segment.covers(position))
        })
    })
}
