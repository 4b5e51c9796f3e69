//! The HTTP interface: Patroni's, so that HAProxy, `patronictl`, dashboards and scripts work as they are.
//!
//! Answers are made from the last snapshot that the loop published, in memory; only calls that change something talk
//! to the loop.

mod health;
mod listener;
mod metrics;
mod operate;

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use pgha_core::wire::rest::{ClusterDocs, ClusterView};
use pgha_guard::clock;
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use crate::agent::{Command, Published, pgha_status};
use crate::context::Context;
use crate::quarantine;

/// What every handler sees.
#[derive(Clone)]
struct Api {
    context: Arc<Context>,
    published: watch::Receiver<Arc<Published>>,
    commands: mpsc::Sender<Command>,
}

/// Begins to answer, on a thread of its own: many questions do not hold the loop up, nor the loop an answer.
pub(crate) fn serve(
    context: &Arc<Context>,
    kept: Option<std::net::TcpListener>,
    published: watch::Receiver<Arc<Published>>,
    commands: mpsc::Sender<Command>,
) -> anyhow::Result<()> {
    let address = &context.config.rest.listen;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listening = |kept| {
        let _reactor = runtime.enter();
        tokio::net::TcpListener::from_std(listener::listen(address, kept)?)
    };
    let listener = listening(kept).with_context(|| format!("rest.listen = {address:?}: cannot listen"))?;
    let api = Api { context: context.clone(), published, commands };
    let router = Router::new().fallback(route).with_state(api);
    std::thread::Builder::new().name("rest".to_owned()).stack_size(256 << 10).spawn(move || {
        if let Err(error) = runtime.block_on(async { axum::serve(listener, router).await }) {
            tracing::error!(%error, "the REST interface ended");
        }
    })?;
    Ok(())
}

async fn route(State(api): State<Api>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let published = api.published.borrow().clone();
    let path = uri.path().trim_end_matches('/');
    match method {
        Method::GET => match document(&api, &published, path) {
            Some(answer) => answer,
            None => health_check(&api, path, uri.query().unwrap_or_default(), &headers, true).await,
        },
        Method::HEAD | Method::OPTIONS => {
            health_check(&api, path, uri.query().unwrap_or_default(), &headers, false).await
        }
        Method::POST | Method::PUT | Method::PATCH | Method::DELETE => {
            if !is_authorized(&api, &headers) {
                let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"pgha\"")];
                return (StatusCode::UNAUTHORIZED, challenge, "no auth header received or wrong").into_response();
            }
            operate::operate(&api, &published, &method, path, &body).await
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// Documents that are read; none of them changes anything or needs a password.
fn document(api: &Api, published: &Published, path: &str) -> Option<Response> {
    let documents = &published.documents;
    Some(match path {
        "/patroni" => text_of(StatusCode::OK, published.status_text.clone()),
        "/pgha" => json(StatusCode::OK, &pgha_status(published)),
        "/pgha/discarded" => {
            // Somebody may have deleted some of it.
            quarantine::measure(&api.context);
            json(StatusCode::OK, &quarantine::listed(&api.context.config.state_dir))
        }
        "/cluster" => json(StatusCode::OK, &cluster(api, published)),
        "/failsafe" if documents.failsafe.0.is_empty() => StatusCode::BAD_GATEWAY.into_response(),
        "/failsafe" => json(StatusCode::OK, &documents.failsafe),
        "/history" => json(StatusCode::OK, &documents.history),
        "/config" => match &documents.config {
            Some(config) => json(StatusCode::OK, config.raw()),
            None => StatusCode::BAD_GATEWAY.into_response(),
        },
        "/metrics" => {
            let text = metrics::render(&api.context, published);
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        _ => return None,
    })
}

fn cluster(api: &Api, published: &Published) -> ClusterView {
    let documents = &published.documents;
    let settings = documents.config.as_ref().map(|config| config.settings().clone()).unwrap_or_default();
    ClusterView::build(&ClusterDocs {
        scope: &api.context.config.cluster,
        members: &documents.members,
        leader: documents.leader.as_ref(),
        status: &documents.status,
        sync: &documents.sync,
        failover: documents.failover.as_ref(),
        settings: &settings,
    })
}

/// One who waits for this check to succeed hears of it at once, and need not ask many times a second. An agent that has not
/// looked yet does not say that anything fails.
async fn health_check(api: &Api, path: &str, query: &str, headers: &HeaderMap, with_body: bool) -> Response {
    let mut published = api.published.clone();
    let down = health::has_down(headers);
    let told = |now: &Published| {
        now.reason.is_some() && !(down && health::healthy(now, clock::now(), path, query) == Some(false))
    };
    if !told(&published.borrow()) {
        // What comes of it is asked below.
        drop(tokio::time::timeout(health::HOLD, published.wait_for(|now| told(now))).await);
    }
    let published = published.borrow().clone();
    match health::healthy(&published, clock::now(), path, query) {
        None => (StatusCode::NOT_FOUND, "no such resource").into_response(),
        Some(healthy) => {
            let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            if with_body { text_of(status, published.status_text.clone()) } else { status.into_response() }
        }
    }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => text_of(status, bytes.into()),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn text_of(status: StatusCode, json: Bytes) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], json).into_response()
}

fn is_authorized(api: &Api, headers: &HeaderMap) -> bool {
    let secrets = &api.context.secrets;
    let expected = format!("{}:{}", secrets.rest_username, secrets.rest_password);
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
        .and_then(|value| base64::engine::general_purpose::STANDARD.decode(value.trim()).ok())
        .is_some_and(|given| same(&given, expected.as_bytes()))
}

/// Compares in a time that tells nothing about where the difference is.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
