//! Stop the postmaster cleanly, so that its last WAL reaches the standbys.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgha_guard::postmaster::Postmaster;

use super::JobError;
use crate::context::Context;
use crate::postgres::death;
use crate::postgres::query::Connection;

/// A clean stop that takes longer is ended by force; a walsender that waits for a dead receiver can hold it forever.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module. With `checkpoint`, most of the shutdown checkpoint's work is done while clients are still served.
pub(crate) async fn stop(context: Arc<Context>, checkpoint: bool) -> Result<(), JobError> {
    let data_dir = &context.config.postgres.data_dir;
    let Some(postmaster) = Postmaster::find(data_dir) else {
        return Ok(());
    };
    if checkpoint {
        let mut connection = Connection::new(&context.config, Duration::from_secs(2));
        let sql = "SET statement_timeout = 0; CHECKPOINT";
        if let Err(error) = connection.execute(sql, PATIENCE).await {
            tracing::warn!(%error, "no checkpoint before the stop; the stop will take longer");
        }
    }
    context.stopping.store(true, Ordering::Relaxed);
    postmaster.stop_fast().map_err(JobError::failed("signalling Postgres"))?;
    let death = death::of(postmaster);
    let died = async {
        match death {
            Ok(death) => death.await,
            // It is gone already, or the kernel has no pidfd.
            Err(_) => {
                while postmaster.is_alive() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    };
    if tokio::time::timeout(PATIENCE, died).await.is_err() {
        tracing::error!(seconds = PATIENCE.as_secs(), "Postgres does not stop; killing it");
        let kill = move || postmaster.kill_for_certain(Duration::from_secs(1));
        tokio::task::spawn_blocking(kill).await.map_err(JobError::failed("killing Postgres"))?;
    }
    Ok(())
}
