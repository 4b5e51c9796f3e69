//! Why a call failed, in words for the person who made it.

use std::io;
use std::time::Duration;

use pgha_core::wire::WireError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be one.
    #[error("`{0}` is not the address of an agent: expected host:port, as in db1:8008")]
    Address(String),
    /// The name has no address.
    #[error("{address}: the host name cannot be resolved: {source}")]
    Resolve {
        /// The agent.
        address: String,
        /// The resolver's words.
        source: io::Error,
    },
    /// There is nobody at the address.
    #[error("{address}: {}", describe_connect(source))]
    Connect {
        /// The agent.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// There was no answer in time.
    #[error("{address}: no answer to {request} within {after:?}{}", describe_loss(request))]
    Timeout {
        /// The agent.
        address: String,
        /// Method and path.
        request: String,
        /// How long.
        after: Duration,
    },
    /// There was no connection in time, so the request was never sent.
    #[error("{address}: no connection within {after:?}: is the host up, and does a firewall drop port {port}?")]
    ConnectTimeout {
        /// The agent.
        address: String,
        /// Its port.
        port: u16,
        /// How long.
        after: Duration,
    },
    /// The answer was cut off or is not HTTP.
    #[error("{address}: the answer to {request} is cut off or not HTTP ({cause}): does an agent listen there?")]
    Broken {
        /// The agent.
        address: String,
        /// Method and path.
        request: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The answer is larger than any that an agent gives.
    #[error("{address}: the answer to {request} is larger than {limit} bytes: does an agent listen there?")]
    TooLarge {
        /// The agent.
        address: String,
        /// Method and path.
        request: String,
        /// The limit.
        limit: usize,
    },
    /// The agent refused.
    #[error("{address} answered {request} with {status}: {}", describe_refusal(*status, text))]
    Status {
        /// The agent.
        address: String,
        /// Method and path.
        request: String,
        /// The HTTP status.
        status: u16,
        /// The agent's words.
        text: String,
    },
    /// The answer is not what it should be.
    #[error("{address}: {source}")]
    Body {
        /// The agent.
        address: String,
        /// What is wrong with it.
        source: WireError,
    },
    /// A path that cannot be asked for.
    #[error("`{0}` is not a path: expected one like /primary")]
    Path(String),
}

impl ClientError {
    /// Whether the agent cannot have seen the request, so that another agent may be asked the same.
    pub fn was_not_sent(&self) -> bool {
        matches!(
            self,
            Self::Address(_)
                | Self::Resolve { .. }
                | Self::Connect { .. }
                | Self::ConnectTimeout { .. }
                | Self::Path(_)
        )
    }

    /// The HTTP status, when the agent refused.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

fn describe_connect(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused: the host is up, but no agent listens; look at `systemctl status pgha-agent` there"
                .to_owned()
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            format!("{error}: is the host up and the network between here and there whole?")
        }
        _ => error.to_string(),
    }
}

fn describe_loss(request: &str) -> &'static str {
    if request.starts_with("GET ") {
        ": does its agent run (`systemctl status pgha-agent`), is its host overloaded, or the network in between broken?"
    } else {
        "; the request may have had its effect all the same"
    }
}

fn describe_refusal(status: u16, text: &str) -> String {
    let text = if text.is_empty() { "(no text)" } else { text };
    match status {
        401 => format!("{text}; user name or password are missing or wrong"),
        _ => text.to_owned(),
    }
}
