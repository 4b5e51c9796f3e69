//! What cannot work is refused: with a message that names the host and the cause, and with nothing changed anywhere.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use pgha_lab::Host;

use crate::{sections::Sections, site::Site};

/// A host refused the run, or could not be asked.
const FAILED: i32 = 1;
/// The inventory cannot be used.
const USAGE: i32 = 2;

/// Everything an installation would leave on a host, line by line. What systemd and sudo note for themselves is not.
const LISTING: &str = "dpkg-query --show; getent passwd; systemctl list-unit-files --no-pager; \
                       find /etc /usr/local /opt /root /home /var/lib -path /var/lib/systemd -prune -o -path /var/lib/sudo \
                       -prune -o -printf '%p %y %m %u %g %s %T@\\n' | sort";

/// Less free space on /var than an installation needs, for as long as it is mounted.
const FILL: &str = "set -e; mkdir /run/small; mount -t tmpfs -o size=1g tmpfs /run/small; mkdir /run/small/upper /run/small/work; \
                    mount -t overlay -o lowerdir=/var,upperdir=/run/small/upper,workdir=/run/small/work overlay /var";
/// Lazily: whatever has a file open there must not keep the others from the real /var.
const EMPTY: &str = "set -e; umount --lazy /var; umount --lazy /run/small; rmdir /run/small";

/// Another name for the host's system, for as long as it is mounted.
const AGE: &str = "sed -e s/12/11/ -e s/bookworm/bullseye/ /usr/lib/os-release > /run/os-release && \
                   mount --bind /run/os-release /usr/lib/os-release";
const REJUVENATE: &str = "umount /usr/lib/os-release; rm /run/os-release";

/// A way to write an inventory that cannot be used: its file, what is changed to what, and what is said about it.
type Mistake = (&'static str, &'static str, &'static str, [&'static str; 2]);

const MISTAKES: [Mistake; 4] = [
    (
        "unknown-key.toml",
        "name = \"main\"",
        "name = \"main\"\ntimming = \"fast\"",
        ["unknown field `timming`", "unknown-key.toml:6:1"],
    ),
    (
        "duplicate-host.toml",
        "name = \"db2\"",
        "name = \"db1\"",
        ["two hosts are named `db1`", "duplicate-host.toml:18:8"],
    ),
    ("no-zookeeper.toml", ", \"zookeeper\"", "", ["no host has the role `zookeeper`", "no-zookeeper.toml"]),
    (
        "port-clash.toml",
        "[\"haproxy\"",
        "[\"postgres\", \"haproxy\"",
        ["two roles want port 5432 of host `lb1`", "port-clash.toml:30:22"],
    ),
];

/// Whether all of it was refused: hosts on which something went on regardless are not bare any more.
pub(crate) fn refused(site: &Site<'_>, sections: &mut Sections<'_>) -> bool {
    let mut all = sections.run("inventories that cannot be used", || {
        for (file, from, to, words) in MISTAKES {
            refuses(site, &site.variant(file, from, to)?, USAGE, &words).context(file)?;
        }
        Ok(format!("{} refused", MISTAKES.len()))
    });
    all &= sections.run("a host that cannot be reached", || {
        untouched(site, |site| {
            let host = site.lab.host("db3")?;
            host.cut()?;
            let words = ["db3: connect: no connection to 10.77.0.13 port 22"];
            let result = refuses(site, &site.inventory(), FAILED, &words);
            host.heal()?;
            result
        })
    });
    all &= sections.run("a host that shows another key", || {
        untouched(site, |site| {
            let known = site.file("known_hosts");
            fs::write(&known, swapped(&fs::read_to_string(site.lab.known_hosts())?)?)?;
            let recorded = site.lab.known_hosts().display().to_string();
            let inventory = site.variant("wrong-key.toml", &recorded, &known.display().to_string())?;
            let words = ["db2: connect: the host key of 10.77.0.12 has changed"];
            refuses(site, &inventory, FAILED, &words)
        })
    });
    all &= sections.run("a user who may not use sudo", || {
        untouched(site, |site| {
            let inventory = site.variant("no-sudo.toml", "user = \"ops\"", "user = \"nosudo\"")?;
            let words = ["db1: become root: ", "nosudo", "sudo"];
            refuses(site, &inventory, FAILED, &words)
        })
    });
    all &= sections.run("a disk that is too full", || {
        untouched(site, |site| {
            let host = site.lab.host("db1")?;
            host.run(FILL)?;
            let words = ["db1: check: disk too full: /var needs 2048 MiB, and"];
            let result = refuses(site, &site.inventory(), FAILED, &words);
            host.run(EMPTY)?;
            result
        })
    });
    all &= sections.run("a distribution that is not supported", || {
        untouched(site, |site| {
            let host = site.lab.host("db2")?;
            host.run(AGE)?;
            let words = ["db2: check: Debian GNU/Linux 11 (bullseye) is not supported"];
            let result = refuses(site, &site.inventory(), FAILED, &words);
            host.run(REJUVENATE)?;
            result
        })
    });
    all
}

/// Whether the installer ends with this status and says all of these words.
fn refuses(site: &Site<'_>, inventory: &Path, code: i32, words: &[&str]) -> Result<()> {
    let said = site.install(inventory, &["--yes"])?;
    let missing: Vec<_> = words.iter().filter(|word| !said.text.contains(**word)).collect();
    ensure!(
        said.code == Some(code) && missing.is_empty(),
        "exit status {:?} instead of {code}, {missing:?} is not in what was said:\n{}",
        said.code,
        said.text
    );
    let left: Vec<_> =
        site.files()?.into_iter().filter(|name| name.contains(".secrets") || name.contains(".pki")).collect();
    ensure!(left.is_empty(), "left beside the inventory: {left:?}");
    Ok(())
}

/// Runs a case and compares all hosts before and after it.
fn untouched(site: &Site<'_>, case: impl FnOnce(&Site<'_>) -> Result<()>) -> Result<String> {
    let look = || -> Result<Vec<(Host, String)>> {
        let hosts = site.lab.hosts().into_iter();
        hosts
            .map(|host| {
                let listing = host.run(LISTING)?;
                Ok((host, listing))
            })
            .collect()
    };
    let before = look()?;
    case(site)?;
    for ((host, before), (_, after)) in before.iter().zip(look()?) {
        if *before != after {
            let [old, new] = [before, &after].map(|listing| listing.lines().collect::<BTreeSet<_>>());
            let changed: Vec<_> = old.symmetric_difference(&new).collect();
            bail!("{} is not as it was before: {changed:#?}", host.name());
        }
    }
    Ok("refused, nothing changed".to_owned())
}

/// The recorded keys with that of db1 in place of that of db2.
fn swapped(known: &str) -> Result<String> {
    let key = |host: &str| {
        known
            .lines()
            .find(|line| line.contains(host))
            .and_then(|line| line.split_whitespace().nth(2))
            .with_context(|| format!("no key of {host} is recorded"))
    };
    Ok(known.replace(key("db2")?, key("db1")?))
}
