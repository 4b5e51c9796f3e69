//! The calls an agent understands.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request};
use pgha_core::config::split_host_port;
use pgha_core::wire::rest::{DiscardedList, FailsafeBody, RestartBody, SwitchoverBody};
use pgha_core::wire::{ClusterConfig, ClusterView, History, PatroniStatus, PghaStatus, WireError};
use serde_json::{Map, Value};

use crate::ClientError;
use crate::exchange::{Address, Reply, exchange};

/// How long each kind of call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the connection stands. Part of the others.
    pub connect: Duration,
    /// Calls that only read.
    pub read: Duration,
    /// Calls that change a document or start something.
    pub change: Duration,
    /// Calls that answer when the change is complete: switchover, failover, restart.
    pub complete: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            read: Duration::from_secs(3),
            change: Duration::from_secs(10),
            complete: Duration::from_secs(120),
        }
    }
}

/// What the agent said to a request that it accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200: done; 202: scheduled.
    pub status: u16,
    /// The agent's words.
    pub text: String,
}

/// An agent. Each call opens a connection of its own.
#[derive(Clone)]
pub struct Client {
    address: Address,
    authorization: Option<HeaderValue>,
    deadlines: Deadlines,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("address", &self.address.text)
            .field("authorized", &self.authorization.is_some())
            .field("deadlines", &self.deadlines)
            .finish()
    }
}

impl Client {
    /// The agent at `host:port`; an IPv6 address stands in brackets.
    pub fn new(address: &str) -> Result<Self, ClientError> {
        let (host, port) = split_host_port(address).ok_or_else(|| ClientError::Address(address.to_owned()))?;
        Ok(Self {
            address: Address { text: address.to_owned(), host: host.to_owned(), port },
            authorization: None,
            deadlines: Deadlines::default(),
        })
    }

    /// Sends user name and password with the calls that change something.
    #[must_use]
    pub fn with_credentials(mut self, username: &str, password: &str) -> Self {
        let encoded = STANDARD.encode(format!("{username}:{password}"));
        self.authorization = HeaderValue::from_str(&format!("Basic {encoded}")).ok().map(|mut value| {
            value.set_sensitive(true);
            value
        });
        self
    }

    /// Other deadlines than the default ones.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// `host:port` of the agent.
    pub fn address(&self) -> &str {
        &self.address.text
    }

    /// `GET /patroni`: what the member says of itself.
    pub async fn status(&self) -> Result<PatroniStatus, ClientError> {
        self.read("/patroni", PatroniStatus::parse).await
    }

    /// `GET /cluster`: the cluster as the member sees it.
    pub async fn cluster(&self) -> Result<ClusterView, ClientError> {
        self.read("/cluster", ClusterView::parse).await
    }

    /// `GET /history`: every change of timeline.
    pub async fn history(&self) -> Result<History, ClientError> {
        self.read("/history", History::parse).await
    }

    /// `GET /pgha`: why the member is what it is.
    pub async fn pgha(&self) -> Result<PghaStatus, ClientError> {
        self.read("/pgha", PghaStatus::parse).await
    }

    /// `GET /pgha/discarded`: what the member had written and the cluster had not, when it came back.
    pub async fn discarded(&self) -> Result<DiscardedList, ClientError> {
        self.read("/pgha/discarded", DiscardedList::parse).await
    }

    /// `GET /config`: the settings of the cluster.
    pub async fn config(&self) -> Result<ClusterConfig, ClientError> {
        self.read("/config", ClusterConfig::parse).await
    }

    /// `PATCH /config`: merges `patch` into the settings; the answer is the settings afterwards.
    pub async fn patch_config(&self, patch: &Map<String, Value>) -> Result<ClusterConfig, ClientError> {
        let body = Value::Object(patch.clone()).to_string();
        let within = self.deadlines.change;
        let reply = self.call(Method::PATCH, "/config", body.into(), within).await?;
        self.parsed(&reply, ClusterConfig::parse)
    }

    /// `POST /switchover`: a healthy leader hands over.
    pub async fn switchover(&self, body: &SwitchoverBody) -> Result<Answer, ClientError> {
        self.ask("/switchover", body.render(), self.deadlines.complete).await
    }

    /// `POST /failover`: another member takes over though there is no leader.
    pub async fn failover(&self, body: &SwitchoverBody) -> Result<Answer, ClientError> {
        self.ask("/failover", body.render(), self.deadlines.complete).await
    }

    /// `POST /reinitialize`: the member fetches its data anew.
    pub async fn reinitialize(&self) -> Result<Answer, ClientError> {
        self.ask("/reinitialize", b"{}".to_vec(), self.deadlines.change).await
    }

    /// `POST /restart`: the member's Postgres is restarted. Waits as long as the request allows Postgres to take.
    pub async fn restart(&self, body: &RestartBody) -> Result<Answer, ClientError> {
        let asked = body.timeout.map_or(Duration::ZERO, pgha_core::time::Millis::duration);
        let within = self.deadlines.complete.max(asked + self.deadlines.change);
        self.ask("/restart", body.render(), within).await
    }

    /// `DELETE /restart`: drops the restart that is scheduled.
    pub async fn cancel_restart(&self) -> Result<Answer, ClientError> {
        self.cancel("/restart").await
    }

    /// `DELETE /switchover`: drops the switchover that is scheduled.
    pub async fn cancel_switchover(&self) -> Result<Answer, ClientError> {
        self.cancel("/switchover").await
    }

    async fn cancel(&self, path: &'static str) -> Result<Answer, ClientError> {
        let reply = self.call(Method::DELETE, path, Bytes::new(), self.deadlines.change).await?;
        Ok(Answer { status: reply.status, text: text(&reply.body) })
    }

    /// `POST /failsafe`: asks the member not to lead for a `ttl`.
    pub async fn failsafe(&self, body: &FailsafeBody) -> Result<Answer, ClientError> {
        self.ask("/failsafe", body.render(), self.deadlines.read).await
    }

    /// `POST /reload`: the member reads its configuration again.
    pub async fn reload(&self) -> Result<Answer, ClientError> {
        self.ask("/reload", Vec::new(), self.deadlines.change).await
    }

    /// `GET` of any path, such as `/primary`: the status code, whatever it is.
    pub async fn probe(&self, path: &str) -> Result<u16, ClientError> {
        let reply = self.send(Method::GET, path, Bytes::new(), self.deadlines.read).await?;
        Ok(reply.status)
    }

    async fn read<T>(&self, path: &str, parse: fn(&[u8]) -> Result<T, WireError>) -> Result<T, ClientError> {
        let within = self.deadlines.read;
        let reply = self.call(Method::GET, path, Bytes::new(), within).await?;
        self.parsed(&reply, parse)
    }

    async fn ask(&self, path: &str, body: Vec<u8>, within: Duration) -> Result<Answer, ClientError> {
        let reply = self.call(Method::POST, path, body.into(), within).await?;
        Ok(Answer { status: reply.status, text: text(&reply.body) })
    }

    fn parsed<T>(&self, reply: &Reply, parse: fn(&[u8]) -> Result<T, WireError>) -> Result<T, ClientError> {
        parse(&reply.body).map_err(|source| ClientError::Body { address: self.address.text.clone(), source })
    }

    /// Sends, and takes any status but 2xx for a refusal.
    async fn call(&self, method: Method, path: &str, body: Bytes, within: Duration) -> Result<Reply, ClientError> {
        let request = format!("{method} {path}");
        let reply = self.send(method, path, body, within).await?;
        if (200..300).contains(&reply.status) {
            return Ok(reply);
        }
        Err(ClientError::Status {
            address: self.address.text.clone(),
            request,
            status: reply.status,
            text: text(&reply.body),
        })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes, within: Duration) -> Result<Reply, ClientError> {
        let name = format!("{method} {path}");
        let changes = method != Method::GET;
        let bad_path = || ClientError::Path(path.to_owned());
        if !path.starts_with('/') {
            return Err(bad_path());
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| bad_path())?;
        let host =
            HeaderValue::from_str(&self.address.text).map_err(|_| ClientError::Address(self.address.text.clone()))?;
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if changes {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if let Some(authorization) = &self.authorization {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
        }
        exchange(&self.address, &name, request, self.deadlines.connect, within).await
    }
}

/// The agent's words: one paragraph, without control characters, not longer than a person reads.
fn text(body: &[u8]) -> String {
    let shown = String::from_utf8_lossy(body);
    let plain = shown.trim().chars().take(1000);
    plain.map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}
