//! A peer to compare with: Patroni from `PyPI`, on hosts of the same kind, with the same ensemble and the same Postgres.

mod haproxy;
mod model;
mod patroni;
mod programs;

pub use self::{
    model::Model,
    patroni::{PATRONI, Peer, Profile},
    programs::Programs,
};
use crate::{Host, Result, command};

/// Replaces each `@NAME@` of a template.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

/// Writes a file of a running host; its directory is made where it is missing.
fn put(host: &Host, path: &str, text: &str, (owner, mode): (&str, &str)) -> Result<()> {
    // Closed first: it may hold passwords.
    let script = format!(
        "set -eu; umask 077; install --directory --mode=0755 \"$(dirname {path})\"; cat > {path}; \
         chown {owner}: {path}; chmod {mode} {path}"
    );
    command::feed(host.command("bash")?.args(["-c", &script]), text)
}

/// Installs Debian packages as the installer does.
fn packages(host: &Host, names: &[&str]) -> Result<()> {
    let script = format!(
        "set -eu; export DEBIAN_FRONTEND=noninteractive LC_ALL=C; apt-get -q update; \
         apt-get -q -y -o Dpkg::Use-Pty=0 --no-install-recommends install {}",
        names.join(" ")
    );
    host.run(&script).map(drop)
}

#[cfg(test)]
mod tests {
    use super::fill;

    #[test]
    fn templates_are_filled_wholly() {
        assert_eq!(fill("a: @A@, b: @B@, @A@", &[("A", "1"), ("B", "x")]), "a: 1, b: x, 1");
    }
}
