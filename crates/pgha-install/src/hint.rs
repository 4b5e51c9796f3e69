//! Known causes: what to try when a step fails with words that were seen before.

const KNOWN: &[(&str, &str)] = &[
    (
        "Could not get lock",
        "another package manager runs on the host (unattended-upgrades?); wait for it and run again",
    ),
    ("Unable to locate package", "the host's package sources lack it: see /etc/apt/sources.list and apt-get update"),
    ("Could not resolve", "the host cannot resolve the package server: see /etc/resolv.conf and the network"),
    ("Failed to fetch", "the host cannot reach its package server; proxy or mirror?"),
    ("No space left on device", "make room on the host's disk"),
    ("Read-only file system", "the host's disk is mounted read-only; dmesg tells why"),
    ("Address already in use", "something else listens there: ss -ltnp on the host"),
    ("BindException", "something else listens there: ss -ltnp on the host"),
    ("Address family not supported", "the unit's sandbox or the kernel forbids it: systemctl cat the unit"),
    ("OutOfMemoryError", "the host has too little memory"),
    ("Cannot allocate memory", "the host has too little memory"),
    (
        "dpkg: error processing",
        "a package's own script failed: `dpkg --configure --pending` on the host runs it again; then run this again",
    ),
    ("No such file or directory", "systemctl cat the unit, and see which file it misses"),
    ("could not find a primary", "the archive waits for a primary: pghactl list on a database host"),
    (
        "does not match the stanza",
        "the repository is of another cluster: move /var/lib/pgbackrest aside, or choose another cluster.name",
    ),
    ("unable to find primary", "the archive waits for a primary: pghactl list on a database host"),
    (
        "password authentication failed",
        "the role exists with another password: ALTER ROLE it, or put its password into the secrets file",
    ),
    ("no pg_hba.conf entry", "add the client's network to postgres.clients in the inventory"),
    ("system ID mismatch", "this data directory is of another cluster: move it aside, or choose another cluster.name"),
    ("Exec format error", "the program is built for another kind of machine"),
    ("GLIBC_", "the program was built on a newer system than the host: build it on the oldest one"),
];

/// What to try, where the cause is known.
pub(crate) fn hint(words: &str) -> Option<String> {
    KNOWN.iter().find(|(sign, _)| words.contains(sign)).map(|(_, hint)| (*hint).to_owned())
}
