//! The client against real sockets: agents that answer, refuse, stay mute, talk nonsense or never stop talking.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::time::{Duration, Instant};

use pgha_client::{Client, ClientError, Deadlines};
use pgha_core::wire::rest::SwitchoverBody;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const QUICK: Deadlines = Deadlines {
    connect: Duration::from_millis(500),
    read: Duration::from_millis(300),
    change: Duration::from_millis(300),
    complete: Duration::from_millis(300),
};

/// Reads one request, head and body.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the client hung up after: {text}");
        seen.extend_from_slice(&buffer[..count]);
    }
}

/// A server that gives one answer to one request; the receiver gets the request.
async fn serve(answer: impl Into<Vec<u8>>) -> (Client, oneshot::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = oneshot::channel();
    let answer = answer.into();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        let _ = sender.send(request);
        // The client may hang up in the middle of an answer that it does not want.
        let _ = stream.write_all(&answer).await;
    });
    let client = Client::new(&address).unwrap().with_deadlines(QUICK);
    (client, receiver)
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn documents_are_read() {
    let (client, request) =
        serve(http("200 OK", r#"{"state":"running","role":"primary","xlog":{"location":7}}"#)).await;
    let status = client.with_credentials("u", "p").status().await.unwrap();
    assert_eq!(status.state.as_str(), "running");
    let request = request.await.unwrap();
    assert!(request.starts_with("GET /patroni HTTP/1.1\r\n"), "{request}");
    assert!(!request.contains("authorization"), "a password was sent without need: {request}");
}

#[tokio::test]
async fn patronis_bare_answers_are_read() {
    let (client, _request) = serve("HTTP/1.0 503 Service Unavailable\r\n\r\n").await;
    assert_eq!(client.probe("/primary").await.unwrap(), 503);
    let (client, _request) = serve("HTTP/1.0 200 OK\r\n\r\n[[1,5,\"x\"]]").await;
    assert_eq!(client.history().await.unwrap().0.len(), 1);
}

#[tokio::test]
async fn changes_carry_the_password_and_the_body() {
    let (client, request) = serve(http("200 OK", r#"{"pause":true}"#)).await;
    let patch = json!({"pause": true});
    let config = client.with_credentials("admin", "secret").patch_config(patch.as_object().unwrap()).await.unwrap();
    assert!(config.settings().pause);
    let request = request.await.unwrap();
    assert!(request.starts_with("PATCH /config HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Basic YWRtaW46c2VjcmV0\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"pause\":true}"), "{request}");
}

#[tokio::test]
async fn a_refusal_carries_the_agents_words() {
    let (client, _request) = serve(http("412 Precondition Failed", "switchover is not possible: no candidate\n")).await;
    let error = client.switchover(&SwitchoverBody::default()).await.unwrap_err();
    assert_eq!(error.status(), Some(412));
    assert!(!error.was_not_sent());
    assert!(
        error.to_string().ends_with("answered POST /switchover with 412: switchover is not possible: no candidate"),
        "{error}"
    );
    let (client, _request) = serve(http("401 Unauthorized", "no auth header received")).await;
    let error = client.reload().await.unwrap_err().to_string();
    assert!(error.contains("password"), "{error}");
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Client::new(&address).unwrap().status().await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }) && error.was_not_sent());
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[tokio::test]
async fn the_name_is_unknown() {
    let client = Client::new("no-such-host.invalid:8008").unwrap();
    let error = client.status().await.unwrap_err();
    assert!(matches!(error, ClientError::Resolve { .. } | ClientError::ConnectTimeout { .. }), "{error}");
    assert!(error.was_not_sent());
}

#[tokio::test]
async fn a_mute_agent_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = Client::new(&address).unwrap().with_deadlines(QUICK);
    let begun = Instant::now();
    let error = client.cluster().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(!error.was_not_sent());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_agent_that_drips_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let client = Client::new(&address).unwrap().with_deadlines(QUICK);
    let error = client.cluster().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn garbage_is_told_apart() {
    for nonsense in
        ["SSH-2.0-OpenSSH_9.2\r\n", "", "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"members\"", "\u{15}\u{3}\u{1}"]
    {
        let (client, _request) = serve(nonsense).await;
        let error = client.cluster().await.unwrap_err();
        assert!(matches!(error, ClientError::Broken { .. }), "{nonsense:?}: {error}");
    }
    for (body, expected) in [("<html>", "the body of /cluster"), ("{}", "members"), ("[]", "/cluster")] {
        let (client, _request) = serve(http("200 OK", body)).await;
        let error = client.cluster().await.unwrap_err();
        assert!(matches!(error, ClientError::Body { .. }), "{body}: {error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let announced = format!("HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n{}", "x".repeat(3_000_000));
    let unannounced = format!("HTTP/1.0 200 OK\r\n\r\n{}", "x".repeat(3_000_000));
    for answer in [announced, unannounced] {
        let (client, _request) = serve(answer).await;
        let deadlines = Deadlines { read: Duration::from_secs(20), ..QUICK };
        let error = client.with_deadlines(deadlines).status().await.unwrap_err();
        assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_an_address_or_path_is_refused() {
    for bad in ["db1", "db1:0", "", "http://db1:8008", "db1:8008/x"] {
        let error = Client::new(bad).expect_err(bad);
        assert!(matches!(error, ClientError::Address(_)), "{bad}");
    }
    let client = Client::new("127.0.0.1:1").unwrap();
    for bad in ["primary", "/a b", ""] {
        assert!(matches!(client.probe(bad).await, Err(ClientError::Path(_))), "{bad}");
    }
}

#[test]
fn the_password_is_not_shown() {
    let client = Client::new("db1:8008").unwrap().with_credentials("admin", "hunter2");
    let shown = format!("{client:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("Basic"), "{shown}");
}
