//! External commands: run, capture, and say what failed.

use std::{
    io::Write,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Stdio},
};

use crate::{Error, Result};

/// In the environment of every command of the lab, so that one whose owner was killed is found and ended.
pub(crate) const MARK: &str = "PGHA_LAB_COMMAND";

/// How much of a failed command's output goes into the error.
const TAIL: usize = 2000;

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Whether the exit code is 0.
    pub fn success(&self) -> bool {
        self.code == 0
    }
}

/// Runs to the end and returns what was seen, whatever the exit code.
pub(crate) fn capture(command: &mut Command) -> Result<Output> {
    let name = display(command);
    let output = command
        .env(MARK, "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Io { what: format!("starting `{name}`"), source })?;
    Ok(Output {
        code: exit_code(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs to the end; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = capture(command)?;
    if output.success() { Ok(output.stdout) } else { Err(failure(display(command), &output)) }
}

/// Runs with `input` on standard input; an exit code other than 0 is an error.
pub(crate) fn feed(command: &mut Command, input: &str) -> Result<()> {
    let name = display(command);
    let failed = |source| Error::Io { what: format!("running `{name}`"), source };
    let mut child = command
        .env(MARK, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // A command that stops reading early has failed for a reason that its own output tells better.
    let written = child.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        let output = Output {
            code: exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        return Err(failure(name, &output));
    }
    written.map_err(failed)
}

/// The error for a command that ended badly.
pub(crate) fn failure(command: String, output: &Output) -> Error {
    let text = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    Error::Command { command, status: format!("exit code {}", output.code), output: tail(text).to_owned() }
}

/// Exit code as a shell reports it.
pub(crate) fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// The command line for people.
pub(crate) fn display(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quote(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// One word of a shell command line.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The last part of a text, cut at a line.
pub(crate) fn tail(text: &str) -> &str {
    let text = text.trim_end();
    let mut start = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    if start == 0 {
        return text;
    }
    text[start..].split_once('\n').map_or(&text[start..], |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for word in ["plain", "", "two words", "it's", "$(rm -rf /)", "a\nb"] {
            let output = run(Command::new("sh").args(["-c", &format!("printf %s {}", quote(word))])).expect("sh runs");
            assert_eq!(output, word);
        }
    }

    #[test]
    fn failure_carries_the_commands_own_words() {
        let error = run(Command::new("sh").args(["-c", "echo because >&2; exit 3"])).expect_err("exit code 3");
        assert_eq!(error.to_string(), "`sh -c 'echo because >&2; exit 3'` failed (exit code 3):\nbecause");
    }

    #[test]
    fn signals_count_as_the_shell_counts_them() {
        assert_eq!(capture(Command::new("sh").args(["-c", "kill -9 $$"])).expect("sh runs").code, 137);
    }

    #[test]
    fn long_output_is_cut_at_a_line() {
        let text = "line of text\n".repeat(1000);
        assert!(tail(&text).len() <= TAIL && tail(&text).starts_with("line"));
    }
}
