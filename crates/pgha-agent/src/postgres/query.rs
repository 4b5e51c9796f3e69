//! The heartbeat: what a running Postgres says of itself, over the Unix socket, within a deadline.

use std::time::Duration;

use futures_util::future::try_join3;
use pgha_core::config::Config;
use pgha_core::lsn::{Lsn, Timeline};
use pgha_core::name::{SlotName, SystemId};
use pgha_core::observation::{Primary, Sender, Slot, Slots, Standby, Tie};
use pgha_core::sync::Form;
use tokio::sync::OnceCell;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Row, Statement};

/// What a heartbeat found.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    pub(crate) system_id: SystemId,
    pub(crate) timeline: Timeline,
    pub(crate) role: RoleSeen,
    pub(crate) started: String,
    pub(crate) version: u32,
    pub(crate) pending_restart: bool,
    pub(crate) archiver: Archiver,
    /// Rows of `pg_stat_replication`, for `GET /patroni`.
    pub(crate) replication: Vec<pgha_core::wire::rest::Replication>,
}

/// How WAL of a primary gets into the archive, in Unix time; 0 where it never did.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Archiver {
    /// When a segment was last archived.
    pub(crate) archived: u64,
    /// When that last failed.
    pub(crate) failed: u64,
}

/// The part that differs by role.
#[derive(Debug, Clone)]
pub(crate) enum RoleSeen {
    Primary(Primary),
    Standby {
        /// Which member `conninfo` means follows from the cluster's documents.
        standby: Standby,
        conninfo: String,
        replayed_at: Option<String>,
    },
}

impl RoleSeen {
    /// Patroni's word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Primary(_) => "primary",
            Self::Standby { .. } => "replica",
        }
    }
}

/// Why there is no heartbeat.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error("`{0}` is not what Postgres 15 answers")]
    Strange(&'static str),
}

impl QueryError {
    /// The postmaster is there but takes no connections: it is starting up, recovering or shutting down.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW))
    }

    /// There is nobody at the socket.
    pub(crate) fn is_absent(&self) -> bool {
        use std::error::Error as _;
        let Self::Postgres(error) = self else { return false };
        let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        io.is_some_and(|io| matches!(io.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused))
    }
}

/// The cause, not only "db error".
fn describe(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => db.message().to_owned(),
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    }
}

/// A connection kept open: opening one costs a process, and may fail when `max_connections` is used up.
#[derive(Debug)]
pub(crate) struct Connection {
    params: tokio_postgres::Config,
    open: Option<Open>,
    deadline: Duration,
}

#[derive(Debug)]
struct Open {
    client: Client,
    /// Prepared at the first heartbeat.
    questions: OnceCell<Questions>,
}

/// What each heartbeat asks. Planned once: that costs Postgres more than to answer.
#[derive(Debug)]
struct Questions {
    senders: Statement,
    slots: Statement,
    state: Statement,
}

impl Questions {
    async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            senders: client.prepare(SENDERS).await?,
            slots: client.prepare(SLOTS).await?,
            state: client.prepare(STATE).await?,
        })
    }
}

// What comes last is evaluated last: no position of the WAL is older than the rest.
const STATE: &str = "
SELECT pg_is_in_recovery() AS standby,
       (SELECT system_identifier FROM pg_control_system()) AS system_id,
       (SELECT timeline_id FROM pg_control_checkpoint()) AS checkpoint_timeline,
       (SELECT min_recovery_end_timeline FROM pg_control_recovery()) AS recovery_timeline,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_lsn()) END AS walfile,
       (SELECT received_tli FROM pg_stat_wal_receiver WHERE status = 'streaming') AS received_timeline,
       EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming') AS streaming,
       EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'walreceiver') AS receiver,
       pg_last_wal_receive_lsn()::text AS received,
       pg_last_wal_replay_lsn()::text AS replayed,
       pg_last_xact_replay_timestamp()::text AS replayed_at,
       CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END AS paused,
       current_setting('primary_conninfo') AS conninfo,
       current_setting('synchronous_standby_names') AS sync_names,
       current_setting('server_version_num')::int AS version,
       pg_postmaster_start_time()::text AS started,
       EXISTS (SELECT FROM pg_settings WHERE pending_restart) AS pending_restart,
       (SELECT extract(epoch FROM last_archived_time)::bigint FROM pg_stat_archiver) AS archived,
       (SELECT extract(epoch FROM last_failed_time)::bigint FROM pg_stat_archiver) AS archive_failed,
       coalesce((SELECT wait_event IN ('CheckpointerMain', 'CheckpointWriteDelay')
                   FROM pg_stat_activity WHERE backend_type = 'checkpointer'), false) AS checkpointer_settled,
       coalesce((SELECT wait_event IN ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval')
                   FROM pg_stat_activity WHERE backend_type = 'startup'), false) AS at_the_end,
       CASE WHEN NOT pg_is_in_recovery() THEN pg_current_wal_flush_lsn()::text END AS flushed";

const SLOTS: &str = "
SELECT slot_name::text AS name, slot_type = 'logical' AS logical, active,
       (CASE slot_type WHEN 'logical' THEN confirmed_flush_lsn ELSE restart_lsn END)::text AS position,
       coalesce(wal_status = 'lost' OR (slot_type = 'physical' AND xmin IS NOT NULL AND pg_is_in_recovery()), false)
         AS spoilt
  FROM pg_replication_slots WHERE NOT temporary";

const SENDERS: &str = "
SELECT coalesce(usename::text, '') AS usename, application_name, client_addr::text AS client_addr,
       coalesce(state, '') AS state, coalesce(sync_state, '') AS sync_state, coalesce(sync_priority, 0) AS sync_priority,
       flush_lsn::text AS flushed, coalesce(extract(epoch FROM backend_start) * 1000000, 0)::bigint AS connected
  FROM pg_stat_replication";

impl Connection {
    pub(crate) fn new(config: &Config, deadline: Duration) -> Self {
        Self::to(config, "postgres", deadline)
    }

    /// To another database than `postgres`.
    pub(crate) fn to(config: &Config, database: &str, deadline: Duration) -> Self {
        let mut params = tokio_postgres::Config::new();
        params
            .host_path(&config.postgres.socket_dir)
            .port(config.postgres.port)
            .user(&config.postgres.superuser)
            .dbname(database)
            .application_name("pgha")
            // Names in the queries mean the system's, whatever a database owner put in front.
            .options("-c search_path=pg_catalog -c statement_timeout=5s -c synchronous_commit=local");
        Self { params, open: None, deadline }
    }

    async fn open(&mut self) -> Result<&Open, QueryError> {
        if self.open.as_ref().is_none_or(|open| open.client.is_closed()) {
            // `connect_timeout` covers only the socket; a stopped postmaster accepts and stays mute.
            let (client, connection) = within(self.deadline, self.params.connect(NoTls)).await?;
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "the connection to Postgres ended");
                }
            });
            self.open = Some(Open { client, questions: OnceCell::new() });
        }
        self.open.as_ref().ok_or(QueryError::Strange("connection"))
    }

    /// Forgets the connection: its Postgres is gone.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// Runs statements that return nothing.
    pub(crate) async fn execute(&mut self, sql: &str, deadline: Duration) -> Result<(), QueryError> {
        let client = &self.open().await?.client;
        within(deadline, client.batch_execute(sql)).await
    }

    /// One text value, or none.
    pub(crate) async fn text(&mut self, sql: &str) -> Result<Option<String>, QueryError> {
        let deadline = self.deadline;
        let client = &self.open().await?.client;
        let row = within(deadline, client.query_opt(sql, &[])).await?;
        Ok(match row {
            Some(row) => row.try_get(0)?,
            None => None,
        })
    }

    /// Looks.
    pub(crate) async fn heartbeat(&mut self) -> Result<Heartbeat, QueryError> {
        let deadline = self.deadline;
        let seen = async {
            let Open { client, questions } = self.open().await?;
            let questions = questions.get_or_try_init(|| within(deadline, Questions::prepare(client))).await?;
            // Sent at once, and executed in the order in which they are first polled: a position that is read after the
            // standbys' states is not older than they are.
            let looks = try_join3(
                client.query(&questions.senders, &[]),
                client.query(&questions.slots, &[]),
                client.query_one(&questions.state, &[]),
            );
            let (senders, slots, state) = within(deadline, looks).await?;
            read(&state, &senders, &slots)
        }
        .await;
        if seen.is_err() {
            self.close();
        }
        seen
    }
}

async fn within<T, E>(deadline: Duration, work: impl Future<Output = Result<T, E>>) -> Result<T, QueryError>
where
    QueryError: From<E>,
{
    match tokio::time::timeout(deadline, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(QueryError::Timeout(deadline)),
    }
}

fn read(state: &Row, senders: &[Row], slots: &[Row]) -> Result<Heartbeat, QueryError> {
    let lsn = |name: &'static str| -> Result<Lsn, QueryError> {
        let text: Option<String> = state.try_get(name)?;
        text.map_or(Ok(Lsn::INVALID), |text| text.parse().map_err(|_| QueryError::Strange(name)))
    };
    let unix_time = |name: &str| -> Result<u64, QueryError> {
        let seconds: Option<i64> = state.try_get(name)?;
        Ok(seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0))
    };
    let standby: bool = state.try_get("standby")?;
    let system_id: i64 = state.try_get("system_id")?;
    let checkpoint_timeline: i32 = state.try_get("checkpoint_timeline")?;
    let replication = senders.iter().map(replication_row).collect::<Result<Vec<_>, _>>()?;
    let slots = read_slots(slots)?;
    let (timeline, role) = if standby {
        let recovery: Option<i32> = state.try_get("recovery_timeline")?;
        let received: Option<i32> = state.try_get("received_timeline")?;
        let newest = [Some(checkpoint_timeline), recovery, received].into_iter().flatten().max();
        let got = lsn("received")?;
        let at_the_end: bool = state.try_get("at_the_end")?;
        let conninfo: String = state.try_get("conninfo")?;
        let standby = Standby {
            received: got,
            replayed: lsn("replayed")?,
            // A walreceiver is started where the WAL on disk ends. Without one the startup process says what it waits for.
            complete: got != Lsn::INVALID || at_the_end,
            streaming: state.try_get("streaming")?,
            upstream: None,
            tie: match !conninfo.is_empty() || state.try_get("receiver")? {
                true => Tie::Bound,
                false if at_the_end => Tie::Free,
                false => Tie::Loose,
            },
            slots,
            checkpoint_pending: received > recovery.max(Some(checkpoint_timeline)),
            paused: state.try_get("paused")?,
        };
        let role = RoleSeen::Standby { standby, conninfo, replayed_at: state.try_get("replayed_at")? };
        (u32::try_from(newest.unwrap_or_default()).unwrap_or_default(), role)
    } else {
        // The control file shows a new timeline only after its first checkpoint; the name of the WAL file at once.
        let walfile: String = state.try_get("walfile")?;
        let timeline = walfile.get(..8).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let timeline = timeline.ok_or(QueryError::Strange("walfile"))?;
        let primary = Primary {
            flushed: lsn("flushed")?,
            sync_names: state.try_get("sync_names")?,
            checkpointer_settled: state.try_get("checkpointer_settled")?,
            senders: senders.iter().map(sender).collect::<Result<_, _>>()?,
            slots,
            checkpoint_pending: u32::try_from(checkpoint_timeline).unwrap_or_default() < timeline,
        };
        (timeline, RoleSeen::Primary(primary))
    };
    Ok(Heartbeat {
        system_id: SystemId(system_id.cast_unsigned()),
        timeline: Timeline(timeline),
        role,
        started: state.try_get("started")?,
        version: u32::try_from(state.try_get::<_, i32>("version")?).unwrap_or_default(),
        pending_restart: state.try_get("pending_restart")?,
        // What a standby remembers of the time when it was a primary is nobody's trouble any more.
        archiver: if standby {
            Archiver::default()
        } else {
            Archiver { archived: unix_time("archived")?, failed: unix_time("archive_failed")? }
        },
        replication,
    })
}

fn sender(row: &Row) -> Result<Sender, QueryError> {
    let flushed: Option<String> = row.try_get("flushed")?;
    Ok(Sender {
        name: row.try_get("application_name")?,
        connected: row.try_get::<_, i64>("connected")?.unsigned_abs(),
        streaming: row.try_get::<_, String>("state")? == "streaming",
        // See `pgha_core::sync`: the priority is the walsender's own, `sync_state` is not.
        named: match row.try_get::<_, i32>("sync_priority")? {
            ..=0 => None,
            1 => Some(Form::Any),
            _ => Some(Form::First),
        },
        flushed: flushed.and_then(|text| text.parse().ok()).unwrap_or(Lsn::INVALID),
    })
}

fn read_slots(rows: &[Row]) -> Result<Slots, QueryError> {
    let mut slots = Slots::default();
    for row in rows {
        let Some(name) = SlotName::parse(row.try_get("name")?) else { continue };
        let position: Option<String> = row.try_get("position")?;
        let position = position.and_then(|text| text.parse().ok()).unwrap_or(Lsn::INVALID);
        let slot = Slot { active: row.try_get("active")?, spoilt: row.try_get("spoilt")?, position };
        let kind = if row.try_get("logical")? { &mut slots.logical } else { &mut slots.physical };
        kind.insert(name, slot);
    }
    Ok(slots)
}

fn replication_row(row: &Row) -> Result<pgha_core::wire::rest::Replication, QueryError> {
    Ok(pgha_core::wire::rest::Replication {
        usename: row.try_get("usename")?,
        application_name: row.try_get("application_name")?,
        client_addr: row.try_get("client_addr")?,
        state: row.try_get("state")?,
        sync_state: row.try_get("sync_state")?,
        sync_priority: row.try_get("sync_priority")?,
    })
}
