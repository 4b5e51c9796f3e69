//! `pghactl.toml`: which cluster, which agents, and where the password is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use pgha_client::Client;
use serde::Deserialize;

use crate::cli::Cli;
use crate::failure::Failure;

const DEFAULT_FILE: &str = "/etc/pgha/pghactl.toml";
const DEFAULT_SECRETS: &str = "/etc/pgha/secrets.toml";

/// The whole of `pghactl.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    cluster: Option<String>,
    agents: Vec<String>,
    secrets_file: Option<PathBuf>,
}

/// Which cluster, which agents, and where the password is.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The cluster that must answer, if it is known.
    pub(crate) cluster: Option<String>,
    /// Agents to ask, in order.
    pub(crate) agents: Vec<Client>,
    secrets_file: PathBuf,
}

/// The two values that pghactl reads in `secrets.toml`.
#[derive(Deserialize)]
pub(crate) struct Credentials {
    rest_username: String,
    rest_password: String,
}

impl Credentials {
    /// The same agent, with the password for calls that change something.
    pub(crate) fn give_to(&self, client: Client) -> Client {
        client.with_credentials(&self.rest_username, &self.rest_password)
    }
}

impl Settings {
    /// Settings from the command line and, where that names no agents, from the file.
    pub(crate) fn load(cli: &Cli) -> Result<Self, Failure> {
        let default = Path::new(DEFAULT_FILE);
        let path = cli.config.as_deref().unwrap_or(default);
        let needed = cli.config.is_some() || cli.agent.is_empty();
        let file = if needed || path.exists() { Some(read(path)?) } else { None };
        let file = file.unwrap_or(Document { cluster: None, agents: Vec::new(), secrets_file: None });
        let addresses = if cli.agent.is_empty() { &file.agents } else { &cli.agent };
        if addresses.is_empty() {
            return Err(Failure::File {
                path: path.to_owned(),
                problem: "`agents` is empty: name at least one, as in agents = [\"db1:8008\"]".to_owned(),
            });
        }
        let agents = addresses.iter().map(|address| Client::new(address));
        Ok(Self {
            // Agents given by hand may belong to another cluster than the one this host is part of.
            cluster: file.cluster.filter(|_| cli.agent.is_empty()),
            agents: agents.collect::<Result<_, _>>().map_err(|error| Failure::Usage(error.to_string()))?,
            secrets_file: file.secrets_file.unwrap_or_else(|| DEFAULT_SECRETS.into()),
        })
    }

    /// The password for calls that change something.
    pub(crate) fn credentials(&self) -> Result<Credentials, Failure> {
        let path = &self.secrets_file;
        let wrong = |problem: String| Failure::File { path: path.clone(), problem };
        let text = fs::read_to_string(path).map_err(|error| {
            wrong(match error.kind() {
                io::ErrorKind::PermissionDenied => "permission denied. It holds the password for commands that change \
                     something; run them as root or postgres, as in `sudo pghactl …`"
                    .to_owned(),
                io::ErrorKind::NotFound => "no such file. It holds the password for commands that change something; \
                     run them on a database host, or name a copy with `secrets_file` in pghactl.toml"
                    .to_owned(),
                _ => error.to_string(),
            })
        })?;
        // The error's message names the key; unlike its text, it never quotes the file.
        toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))
    }
}

fn read(path: &Path) -> Result<Document, Failure> {
    let wrong = |problem: String| Failure::File { path: path.to_owned(), problem };
    let text = fs::read_to_string(path).map_err(|error| {
        wrong(format!("{error}. It names the cluster's agents; without it say which, as in --agent db1:8008"))
    })?;
    toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))
}
