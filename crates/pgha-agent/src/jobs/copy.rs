//! A fresh copy of the leader, made beside the old data and put in its place only when it is whole.

use std::sync::Arc;

use pgha_guard::files;

use super::JobError;
use super::run::{RunError, run};
use crate::context::Context;
use crate::file_systems::FileSystems;
use crate::postgres::conf::Upstream;
use crate::postgres::supervisor;
use crate::quarantine::{self, Parting};

/// See the module.
pub(crate) async fn copy(context: Arc<Context>, source: Upstream, parting: Option<Parting>) -> Result<(), JobError> {
    let data_dir = &context.config.postgres.data_dir;
    // What the last copy has left is being removed.
    let _alone = context.copying.lock().await;
    supervisor::settle(&context.config).await.map_err(|error| JobError::Failed(error.to_string()))?;
    let (new, old) = (context.new_data_dir(), context.old_data_dir());
    files::remove(&new).map_err(JobError::file(&new))?;
    let disk = FileSystems::around(&new).map_err(JobError::file(&new))?;
    let args = [
        format!("--pgdata={}", new.display()),
        format!("--dbname={}", context.conf.copy_source(&source)),
        "--wal-method=stream".to_owned(),
        "--checkpoint=fast".to_owned(),
        "--no-password".to_owned(),
        "--no-sync".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    if let Err(error) = run(&context.program("pg_basebackup"), &args).await {
        return Err(failed(&context, &error));
    }
    // Once more for its tablespaces, which are known only now.
    disk.sync().and_then(|()| FileSystems::of(&new)?.sync()).map_err(JobError::file(&new))?;
    let bytes = size(&new);
    if data_dir.join("pg_wal").exists()
        && let Err(error) = quarantine::keep(&context, parting).await
    {
        // It may be the reason for the copy; the old data stays until that streams.
        tracing::warn!(%error, "cannot put WAL into quarantine");
    }
    // Each step leaves something that the next start understands: no data, then a whole standby.
    if data_dir.exists() {
        files::remove(&old).map_err(JobError::file(&old))?;
        std::fs::rename(data_dir, &old).map_err(JobError::file(data_dir))?;
        // Before what is recorded of it is forgotten.
        files::sync_parent(data_dir).map_err(JobError::file(data_dir))?;
    }
    context.past().rebased().map_err(JobError::failed("recording the copy"))?;
    files::replace(&new.join("standby.signal"), b"").map_err(JobError::file(&new))?;
    std::fs::rename(&new, data_dir).map_err(JobError::file(data_dir))?;
    files::sync_parent(data_dir).map_err(JobError::file(data_dir))?;
    tracing::info!(source = %source.name, bytes, "copied");
    Ok(())
}

/// Where there is no room for two, people decide what gives way.
fn failed(context: &Context, error: &RunError) -> JobError {
    let data_dir = &context.config.postgres.data_dir;
    if !error.to_string().contains("No space left on device") || !data_dir.exists() {
        return JobError::Failed(error.to_string());
    }
    let useless = context.past().view(false).rewind_unfinished;
    let old = if useless { "the old data, which an unfinished rewind has left useless" } else { "the old data" };
    let advice = format!("if it is this disk that has no room for a copy beside {old}: make room, or move that away");
    JobError::Failed(format!("{error}; {advice} ({})", data_dir.display()))
}

/// Bytes in a directory tree.
fn size(path: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
