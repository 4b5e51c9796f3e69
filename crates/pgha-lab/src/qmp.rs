//! QEMU's monitor: one command a connection, one answer.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{Error, Result};

/// QEMU answers at once, unless its machine is being emulated on a very busy one.
const LIMIT: Duration = Duration::from_secs(10);

/// Gives a command without arguments to the QEMU behind `socket`, and returns its answer.
pub(crate) fn execute(socket: &Path, command: &str) -> Result<Value> {
    let failed = |source| Error::Io { what: format!("`{command}` by QEMU's monitor {}", socket.display()), source };
    let stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(failed)?;
    stream.set_write_timeout(Some(LIMIT)).map_err(failed)?;
    let mut reader = BufReader::new(&stream);
    let mut greeting = String::new();
    reader.read_line(&mut greeting).map_err(failed)?;
    // Until the capabilities have been settled, the monitor takes nothing else.
    ask(&stream, &mut reader, "qmp_capabilities").map_err(failed)?;
    ask(&stream, &mut reader, command).map_err(failed)
}

fn ask(mut to: impl Write, from: &mut impl BufRead, command: &str) -> io::Result<Value> {
    writeln!(to, "{}", json!({ "execute": command }))?;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut message: Value = serde_json::from_str(&line)?;
        if let Some(error) = message.get("error") {
            return Err(io::Error::other(error.to_string()));
        }
        // What is neither is an event, which may come between a command and its answer.
        if let Some(answer) = message.get_mut("return") {
            return Ok(answer.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_before_the_answer_are_passed_over() {
        let mut sent = Vec::new();
        let mut lines = &b"{\"event\": \"STOP\"}\r\n{\"return\": {\"running\": false}}\r\n"[..];
        let answer = ask(&mut sent, &mut lines, "query-status").expect("an answer");
        assert_eq!(answer, json!({ "running": false }));
        assert_eq!(sent, b"{\"execute\":\"query-status\"}\n");
    }

    #[test]
    fn refusals_and_ends_are_errors() {
        let mut refusal = &b"{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no\"}}\n"[..];
        let error = ask(&mut Vec::new(), &mut refusal, "dance").expect_err("refused").to_string();
        assert!(error.contains("CommandNotFound"), "{error}");
        assert!(ask(&mut Vec::new(), &mut &b""[..], "stop").is_err());
    }
}
