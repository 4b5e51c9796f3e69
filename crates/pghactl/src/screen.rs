//! What the person sees and is asked.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::failure::Failure;

/// Prints a line on standard output.
pub(crate) fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// Prints a line on standard error.
pub(crate) fn warn(line: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "pghactl: {line}")
}

/// Clears the terminal, if there is one.
pub(crate) fn clear() -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        out.write_all(b"\x1b[2J\x1b[H")?;
    }
    out.flush()
}

/// Asks before something is changed; `yes` answers beforehand.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask for confirmation; say --yes to go ahead without".to_owned(),
        ));
    }
    let mut out = io::stdout().lock();
    write!(out, "{question} [y/N]: ")?;
    out.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Declined),
    }
}
