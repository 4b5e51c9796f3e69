//! A new cluster: `initdb`. The data directory appears under its name only when it is whole.

use std::path::Path;
use std::sync::Arc;

use pgha_guard::files;

use super::JobError;
use super::run::run;
use crate::context::Context;
use crate::file_systems::FileSystems;

/// See the module.
pub(crate) async fn bootstrap(context: Arc<Context>) -> Result<(), JobError> {
    let data_dir = &context.config.postgres.data_dir;
    let new = context.new_data_dir();
    files::remove(&new).map_err(JobError::file(&new))?;
    context.past().making(true).map_err(JobError::failed("recording that a cluster is being made"))?;
    let disk = FileSystems::around(&new).map_err(JobError::file(&new))?;
    initdb(&context, &new).await?;
    disk.sync().map_err(JobError::file(&new))?;
    if data_dir.exists() {
        // Empty, or the decision would have been another.
        std::fs::remove_dir(data_dir).map_err(JobError::file(data_dir))?;
    }
    std::fs::rename(&new, data_dir).map_err(JobError::file(data_dir))?;
    files::sync_parent(data_dir).map_err(JobError::file(data_dir))
}

async fn initdb(context: &Context, new: &Path) -> Result<(), JobError> {
    let postgres = &context.config.postgres;
    // In a file, because arguments are for everybody to read.
    let password = context.config.run_dir.join("initdb.password");
    files::replace(&password, context.secrets.superuser_password.as_bytes()).map_err(JobError::file(&password))?;
    let args = [
        format!("--pgdata={}", new.display()),
        format!("--username={}", postgres.superuser),
        format!("--pwfile={}", password.display()),
        format!("--locale={}", postgres.locale),
        "--encoding=UTF8".to_owned(),
        "--data-checksums".to_owned(),
        "--auth-local=peer".to_owned(),
        "--auth-host=scram-sha-256".to_owned(),
        "--no-sync".to_owned(),
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let made = run(&context.program("initdb"), &args).await;
    files::remove(&password).map_err(JobError::file(&password))?;
    made?;
    Ok(())
}
