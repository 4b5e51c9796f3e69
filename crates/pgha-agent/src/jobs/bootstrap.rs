//! A new cluster: `initdb`, first start, roles. The data directory appears under its name only when it is whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pgha_core::name::Epoch;
use pgha_core::time::Instant;
use postgres_protocol::password::scram_sha_256;

use super::{JobError, Mode, run::run, start};
use crate::context::Context;
use crate::files;
use crate::postgres::query::Connection;

/// See the module.
pub(crate) async fn bootstrap(
    context: Arc<Context>,
    parameters: BTreeMap<String, String>,
    epoch: Epoch,
    not_after: Instant,
) -> Result<(), JobError> {
    let data_dir = &context.config.postgres.data_dir;
    let new = context.new_data_dir();
    files::remove(&new).map_err(JobError::file(&new))?;
    initdb(&context, &new).await?;
    if data_dir.exists() {
        // Empty, or the decision would have been another.
        std::fs::remove_dir(data_dir).map_err(JobError::file(data_dir))?;
    }
    std::fs::rename(&new, data_dir).map_err(JobError::file(data_dir))?;
    files::sync_parent(data_dir).map_err(JobError::file(data_dir))?;
    start(context.clone(), parameters, Mode::Primary { epoch, not_after }).await?;
    let mut connection = Connection::new(&context.config, Duration::from_secs(2));
    connection
        .execute(&roles(&context), Duration::from_secs(30))
        .await
        .map_err(JobError::failed("creating the roles"))
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
    ];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let made = run(&context.program("initdb"), &args).await;
    files::remove(&password).map_err(JobError::file(&password))?;
    made?;
    Ok(())
}

/// Passwords go as SCRAM verifiers: a statement may end up in a log.
fn roles(context: &Context) -> String {
    let postgres = &context.config.postgres;
    let role = |name: &str, rights: &str, password: &str| {
        let name = identifier(name);
        let verifier = scram_sha_256(password.as_bytes());
        format!(
            "DO $do$ BEGIN CREATE ROLE {name}; EXCEPTION WHEN duplicate_object THEN NULL; END $do$;\n\
             ALTER ROLE {name} WITH LOGIN {rights} PASSWORD '{verifier}';\n"
        )
    };
    let mut sql = role(
        &postgres.replication_user,
        "REPLICATION",
        &context.secrets.replication_password,
    );
    sql += &role(&postgres.rewind_user, "", &context.secrets.rewind_password);
    // What pg_rewind needs when its role is not a superuser (pg_rewind's reference page).
    for function in [
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
    ] {
        let role = identifier(&postgres.rewind_user);
        sql += &format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {role};\n");
    }
    sql
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
