//! Permanent logical slots of a standby: copied from the leader, file by file, while Postgres is stopped.
//!
//! A standby of Postgres 15 cannot make a logical slot. It takes one that lies in `pg_replslot` when it is started, and moves
//! it on with `pg_replication_slot_advance`; so does Patroni. Consumers go on where they were after a failover, and may
//! be given again what they confirmed since the slot was last moved on.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgha_core::name::SlotName;
use tokio_postgres::NoTls;

use super::{JobError, stop};
use crate::context::Context;
use crate::files;
use crate::postgres::conf::Upstream;

/// What a state file cannot be longer than (`ReplicationSlotOnDisk` has some 200 bytes).
const LONGEST: i64 = 65_536;

/// How long the leader may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module. Leaves Postgres stopped.
pub(crate) async fn copy_slots(
    context: Arc<Context>,
    source: Upstream,
    slots: BTreeSet<SlotName>,
) -> Result<(), JobError> {
    let read = read(&context, &source, &slots);
    let states = tokio::time::timeout(PATIENCE, read)
        .await
        .map_err(|_| JobError::Failed(format!("{} did not hand the slots over within {PATIENCE:?}", source.name)))?
        .map_err(JobError::failed(format!("reading the slots of {}", source.name)))?;
    if states.is_empty() {
        return Err(JobError::Failed(format!("{} has none of the slots", source.name)));
    }
    stop(context.clone(), true).await?;
    let dir = context.config.postgres.data_dir.join("pg_replslot");
    for (name, state) in &states {
        write(&dir.join(name), state).map_err(JobError::file(&dir))?;
    }
    tracing::info!(source = %source.name, slots = states.len(), "copied logical slots");
    Ok(())
}

/// The state files, through the rights that `pg_rewind` needs.
async fn read(
    context: &Context,
    source: &Upstream,
    slots: &BTreeSet<SlotName>,
) -> Result<Vec<(String, Vec<u8>)>, tokio_postgres::Error> {
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
    let sql = "SELECT slot_name::text, pg_catalog.pg_read_binary_file('pg_replslot/' || slot_name || '/state', 0, $2, true) \
                 FROM pg_catalog.pg_replication_slots WHERE slot_type = 'logical' AND slot_name = ANY ($1)";
    let rows = client.query(sql, &[&names, &LONGEST]).await;
    connection.abort();
    rows?.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<_, Option<Vec<u8>>>(1)?.unwrap_or_default()))).collect()
}

fn write(dir: &Path, state: &[u8]) -> std::io::Result<()> {
    files::remove(dir)?;
    DirBuilder::new().mode(0o700).create(dir)?;
    files::replace(&dir.join("state"), state)?;
    files::sync_parent(dir)
}
