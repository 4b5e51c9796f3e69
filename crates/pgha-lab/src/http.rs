//! The little HTTP that tests and demonstrations ask of agents.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{Error, Result, netns};

/// Nothing an agent answers is longer.
const LONGEST: u64 = 1 << 20;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP's status code.
    pub status: u16,
    /// What came after the headers.
    pub body: String,
}

/// Asks a server on the lab's network; the whole exchange ends within `limit`.
pub fn get(server: SocketAddr, path: &str, limit: Duration) -> Result<Answer> {
    netns::within(|| ask(server, path, limit))?
        .map_err(|source| Error::Io { what: format!("GET http://{server}{path}"), source })
}

fn ask(server: SocketAddr, path: &str, limit: Duration) -> io::Result<Answer> {
    let end = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&server, limit)?;
    let left = |end: Instant| {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(Some(left)) }
    };
    stream.set_write_timeout(left(end)?)?;
    // Version 1.0: the answer ends where the connection does.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n\r\n")?;
    let mut text = Vec::new();
    let mut part = [0; 8192];
    loop {
        stream.set_read_timeout(left(end)?)?;
        match stream.read(&mut part)? {
            0 => return parse(&String::from_utf8_lossy(&text)),
            count => text.extend_from_slice(&part[..count]),
        }
        if text.len() as u64 > LONGEST {
            return Err(io::Error::other("the answer does not end"));
        }
    }
}

fn parse(text: &str) -> io::Result<Answer> {
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("the answer is cut short"))?;
    let status = head
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::other("the answer is not HTTP"))?;
    Ok(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_garbage_is_refused() {
        let answer = parse("HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\n{}\n").expect("an answer");
        assert_eq!(answer, Answer { status: 503, body: "{}\n".to_owned() });
        for text in ["", "SSH-2.0\r\n\r\n", "HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
