//! Bare hosts become a cluster; a second run changes nothing; secrets stay secret.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use pgha_lab::{cluster::Cluster, faults::CONVERGED};
use serde_json::Value;

use crate::{
    sections::Sections,
    site::{Site, feed},
};

/// A run that finds nothing to do.
const RERUN: Duration = Duration::from_secs(5);

/// Notes every command line that it sees, for as long as the unit runs.
const WATCH: &str = "systemd-run --quiet --unit=watch bash -c \
                     'umask 077; while sleep 0.1; do cat /proc/[0-9]*/cmdline; done 2> /dev/null > /run/command-lines'";

/// Where any of the patterns on standard input is found, and must not be. The search through files is that of a user
/// without rights.
const SEARCH: &str = "umask 077; cat > /run/patterns
trap 'rm /run/patterns' EXIT
if grep --quiet --text --fixed-strings --file=/run/patterns <(journalctl --no-pager --output=cat); then echo journal; fi
for lines in /proc/[0-9]*/cmdline /run/command-lines; do
    [ -e $lines ] && grep --quiet --text --no-messages --fixed-strings --file=/run/patterns $lines && echo $lines
done
places='/etc /run /tmp /usr/local /var/cache /var/lib /var/log /var/spool /home'
runuser -u nosudo -- grep --recursive --files-with-matches --text --no-messages --devices=skip --fixed-strings --file=- \
    $places < /run/patterns
exit 0";

pub(crate) fn made<'a>(site: &Site<'a>, sections: &mut Sections<'_>) -> Option<Cluster<'a>> {
    let made = sections.run("install on bare hosts", || {
        for host in site.lab.hosts() {
            host.run(WATCH)?;
        }
        let said = site.install(&site.inventory(), &[])?;
        ensure!(said.code == Some(0), "exit status {:?}:\n{}", said.code, said.text);
        for word in ["postgresql://app@10.77.0.14:5432/app", "http://10.77.0.14:7000/", "pghactl list"] {
            ensure!(said.text.contains(word), "`{word}` is not in:\n{}", said.text);
        }
        let last = said.text.lines().find(|line| line.contains("changes made"));
        Ok(last.unwrap_or_default().to_owned())
    });
    if !made {
        return None;
    }
    let mut cluster = None;
    sections.run("a leader and two streaming standbys", || {
        let opened = Cluster::open(site.lab, &site.secrets())?;
        let seen = opened.await_complete(CONVERGED)?;
        listed(&opened)?;
        cluster = Some(opened);
        Ok(format!("leader {}, synchronous {}", seen.primary, seen.sync))
    });
    sections.run("a second run finds nothing to change", || {
        let said = site.install(&site.inventory(), &["--plan", "--check"])?;
        ensure!(said.code == Some(0), "--plan --check ends with {:?}:\n{}", said.code, said.text);
        let started = Instant::now();
        let said = site.install(&site.inventory(), &[])?;
        let took = started.elapsed();
        ensure!(
            said.code == Some(0) && said.text.contains("Nothing to change; "),
            "exit status {:?}:\n{}",
            said.code,
            said.text
        );
        ensure!(took < RERUN, "it took {:.1} s", took.as_secs_f64());
        Ok(format!("after {:.1} s", took.as_secs_f64()))
    });
    silent(site, sections);
    cluster
}

/// No password where somebody without rights can read it.
pub(crate) fn silent(site: &Site<'_>, sections: &mut Sections<'_>) {
    sections.run("secrets stay secret", || {
        for (file, mode) in [(site.secrets(), 0o600), (site.file("lab.pki"), 0o700)] {
            let seen = fs::metadata(&file)?.permissions().mode() & 0o777;
            ensure!(seen == mode, "{} has mode {seen:o}", file.display());
        }
        let text = fs::read_to_string(site.secrets())?;
        let secrets: BTreeMap<String, String> = toml::from_str(&text).ok().context("the secrets are not TOML")?;
        let patterns: Vec<_> = secrets
            .iter()
            .filter(|(name, _)| name.ends_with("password"))
            .map(|(_, password)| password.as_str())
            .collect();
        ensure!(
            patterns.len() >= 5 && patterns.iter().all(|password| password.len() >= 16),
            "{} passwords, or short ones",
            patterns.len()
        );
        for host in site.lab.hosts() {
            let said = feed(&host, SEARCH, &patterns.join("\n"))?;
            ensure!(
                said.code == Some(0) && said.text.is_empty(),
                "{} shows a password in:\n{}",
                host.name(),
                said.text
            );
            host.run("systemctl stop watch 2> /dev/null || true; rm -f /run/command-lines")?;
        }
        Ok(format!("{} passwords sought on every host", patterns.len()))
    });
}

/// What an operator sees on any database host.
fn listed(cluster: &Cluster<'_>) -> Result<()> {
    let text = cluster.host("db3")?.run("pghactl list --format json")?;
    let Value::Array(members) = serde_json::from_str(&text)? else { bail!("this is no list: {text}") };
    let mut seen: Vec<_> =
        members.iter().map(|member| format!("{} {}", member["Role"], member["State"]).replace('"', "")).collect();
    seen.sort();
    ensure!(seen == ["Leader running", "Replica streaming", "Sync Standby streaming"], "{text}");
    Ok(())
}
