//! A database server on the lab's network, asked as a client would.

use std::{fmt, future::Future, net::SocketAddr, time::Duration};

use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::{Error, Result, netns};

/// The rows of an answer, as text; `None` is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

/// Where a server is and who asks.
#[derive(Clone)]
pub struct Server {
    /// Its address and port: names are not resolved.
    pub address: SocketAddr,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The database.
    pub database: String,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgresql://{}@{}/{}", self.user, self.address, self.database)
    }
}

impl Server {
    /// The same database of another server.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// Runs statements on a connection of their own and returns the rows of all of them.
    pub fn query(&self, statements: &str, limit: Duration) -> Result<Rows> {
        netns::within(|| {
            runtime()?.block_on(self.deadline(limit, async {
                let connected = self.connect().await?;
                let messages = connected.client.simple_query(statements).await.map_err(|error| self.failed(&error))?;
                Ok(rows(&messages))
            }))
        })?
    }

    /// A live connection; it ends when dropped, without a farewell that a dead peer could delay.
    pub(crate) async fn connect(&self) -> Result<Connected> {
        let mut config = Config::new();
        config
            .hostaddr(self.address.ip())
            .port(self.address.port())
            .user(&self.user)
            .password(&self.password)
            .dbname(&self.database)
            .application_name("pgha-lab");
        let (client, connection) = config.connect(NoTls).await.map_err(|error| self.failed(&error))?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("connection ended: {error}");
            }
        });
        Ok(Connected { client, driver })
    }

    /// Gives up after `limit`: the client library itself waits for a mute server for ever.
    pub(crate) async fn deadline<T>(&self, limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
        timeout(limit, work).await.unwrap_or_else(|_| {
            Err(Error::Database {
                what: format!("{self:?}"),
                why: format!("no answer within {:.1} s", limit.as_secs_f64()),
                code: None,
            })
        })
    }

    /// The server's own words where it has said something, the library's otherwise.
    pub(crate) fn failed(&self, error: &tokio_postgres::Error) -> Error {
        let why = match error.as_db_error() {
            Some(answer) => format!("{}: {}", answer.severity(), answer.message()),
            None => std::error::Error::source(error).map_or_else(|| error.to_string(), |why| format!("{error}: {why}")),
        };
        Error::Database { what: format!("{self:?}"), why, code: error.code().map(|code| code.code().to_owned()) }
    }
}

/// A client and the task that moves its bytes.
pub(crate) struct Connected {
    pub(crate) client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// One thread, because only one is inside the lab's network.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { what: "starting the client".to_owned(), source })
}

/// The rows among a server's messages.
pub(crate) fn rows(messages: &[SimpleQueryMessage]) -> Rows {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|column| row.try_get(column).ok().flatten().map(str::to_owned)).collect())
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}
