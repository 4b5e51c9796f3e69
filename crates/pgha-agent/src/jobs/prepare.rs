//! The roles that members need: created, or brought up to date.

use std::sync::Arc;
use std::time::Duration;

use postgres_protocol::password::scram_sha_256;

use super::JobError;
use crate::context::Context;
use crate::postgres::query::Connection;

/// See the module. Doing it twice is harmless.
pub(crate) async fn prepare(context: Arc<Context>) -> Result<(), JobError> {
    let mut connection = Connection::new(&context.config, Duration::from_secs(10));
    let sql = format!("SET statement_timeout = 0;\n{}", roles(&context));
    connection.execute(&sql, Duration::from_secs(60)).await.map_err(JobError::failed("creating the roles"))
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
    let mut sql = role(&postgres.replication_user, "REPLICATION", &context.secrets.replication_password);
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
