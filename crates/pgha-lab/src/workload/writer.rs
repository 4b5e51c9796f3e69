//! One client: connects, writes a row, writes the next, and starts over when something fails.

use std::sync::Arc;

use tokio::{sync::watch, time::timeout};
use tokio_postgres::{Statement, error::SqlState};

use super::{Settings, clients::told_to_stop, ledger::Ledger};
use crate::{Result, sql::Connected};

const INSERT: &str = "insert into pgha_workload (run, writer, seq) values ($1, $2, $3)";

/// Writes until told to stop; every attempt ends in the ledger.
pub(super) async fn write(
    settings: Settings,
    run: String,
    number: i32,
    ledger: Arc<Ledger>,
    mut stop: watch::Receiver<bool>,
) {
    let mut session: Option<(Connected, Statement)> = None;
    let mut seq: i64 = 0;
    while !told_to_stop(&mut stop) {
        let Some((connected, insert)) = &session else {
            match settings.server.deadline(settings.connect_timeout, connect(&settings)).await {
                Ok(fresh) => session = Some(fresh),
                Err(error) => {
                    ledger.unconnected(error.to_string());
                    // Ends early when told to stop.
                    let _ = timeout(settings.retry_pause, stop.changed()).await;
                }
            }
            continue;
        };
        seq += 1;
        let key = (number, seq);
        match timeout(settings.statement_timeout, connected.client.execute(insert, &[&run, &number, &seq])).await {
            Ok(Ok(_)) => {
                ledger.acknowledge(key);
                continue;
            }
            Ok(Err(error)) => {
                let why = settings.server.failed(&error).to_string();
                if error.code().is_some_and(is_refusal) {
                    ledger.refuse(key, why);
                } else {
                    ledger.doubt(key, why);
                }
            }
            Err(_) => ledger.doubt(key, format!("no answer within {:?}", settings.statement_timeout)),
        }
        // After any failure a new connection may reach another server.
        session = None;
    }
}

async fn connect(settings: &Settings) -> Result<(Connected, Statement)> {
    let connected = settings.server.connect().await?;
    let insert = connected.client.prepare(INSERT).await.map_err(|error| settings.server.failed(&error))?;
    Ok((connected, insert))
}

/// Answers that come before anything could be committed. A session that is ended from outside is not one of them: its
/// commit may have happened already.
pub(super) fn is_refusal(code: &SqlState) -> bool {
    [SqlState::READ_ONLY_SQL_TRANSACTION, SqlState::CANNOT_CONNECT_NOW, SqlState::TOO_MANY_CONNECTIONS].contains(code)
}
