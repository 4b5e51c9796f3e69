//! One HTTP/1 request over one connection, and its whole answer.

use std::time::Duration;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::ClientError;

/// No agent answers with more.
pub(crate) const LIMIT: usize = 1 << 20;

/// Where an agent listens.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    /// As it was given.
    pub(crate) text: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A whole answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// Sends `request` and reads the answer; `name` is the request's name in errors.
pub(crate) async fn exchange(
    address: &Address,
    name: &str,
    request: Request<Full<Bytes>>,
    connect_within: Duration,
    within: Duration,
) -> Result<Reply, ClientError> {
    let end = Instant::now() + within;
    let stream = connect(address, connect_within.min(within)).await?;
    timeout_at(end, talk(address, name, request, stream)).await.map_err(|_| ClientError::Timeout {
        address: address.text.clone(),
        request: name.to_owned(),
        after: within,
    })?
}

async fn connect(address: &Address, within: Duration) -> Result<TcpStream, ClientError> {
    let resolve_and_connect = async {
        let resolved = lookup_host((address.host.as_str(), address.port)).await;
        let found: Vec<_> =
            resolved.map_err(|source| ClientError::Resolve { address: address.text.clone(), source })?.collect();
        TcpStream::connect(found.as_slice())
            .await
            .map_err(|source| ClientError::Connect { address: address.text.clone(), source })
    };
    timeout(within, resolve_and_connect).await.map_err(|_| ClientError::ConnectTimeout {
        address: address.text.clone(),
        port: address.port,
        after: within,
    })?
}

async fn talk(
    address: &Address,
    name: &str,
    request: Request<Full<Bytes>>,
    stream: TcpStream,
) -> Result<Reply, ClientError> {
    let broken = |error: &dyn std::error::Error| ClientError::Broken {
        address: address.text.clone(),
        request: name.to_owned(),
        cause: with_sources(error),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // Drives the connection; is aborted with the set when the deadline drops this future.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), LIMIT).collect().await;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            ClientError::TooLarge { address: address.text.clone(), request: name.to_owned(), limit: LIMIT }
        } else {
            broken(error.as_ref())
        }
    })?;
    Ok(Reply { status, body: body.to_bytes() })
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
