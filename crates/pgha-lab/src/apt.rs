//! This machine's own apt configuration: where it fetches Debian from, and through which proxy.

use std::process::Command;

use crate::{Error, Result, command, requirements::SUITE};

/// What a new root file system needs to fetch packages as this machine does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// One-line sources of the suite, its updates and its security fixes.
    pub(crate) sources: Vec<String>,
    /// Proxies and the like, as apt options.
    pub(crate) options: Vec<String>,
}

/// Reads them.
pub(crate) fn settings() -> Result<Settings> {
    let targets = command::run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT) $(CODENAME)",
        "Identifier: Packages",
    ]))?;
    let dump = command::run(Command::new("apt-config").args(["dump", "Acquire"]))?;
    let settings = Settings { sources: sources(&targets), options: options(&dump) };
    if settings.sources.iter().any(|line| line.split(' ').nth(2) == Some(SUITE)) {
        Ok(settings)
    } else {
        Err(Error::Unsupported(format!(
            "this machine's apt knows no mirror of Debian {SUITE} main; add one to /etc/apt/sources.list and run \
             apt-get update"
        )))
    }
}

fn sources(targets: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for target in targets.lines() {
        let fields: Vec<&str> = target.split(' ').collect();
        let [uri, release, "main", codename] = fields[..] else {
            continue;
        };
        // The code name is known only after an update; until then the release's own name has to do.
        let name = if codename.starts_with("$(") { release } else { codename };
        let wanted = name.strip_prefix(SUITE).is_some_and(|rest| matches!(rest, "" | "-updates" | "-security"));
        let line = format!("deb {uri} {release} main");
        if wanted && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

fn options(dump: &str) -> Vec<String> {
    let wanted = |key: &str| {
        let key = key.to_ascii_lowercase();
        key.contains("::proxy") || key.contains("::cainfo") || key.starts_with("acquire::check-")
    };
    dump.lines()
        .filter(|line| line.split_once(' ').is_some_and(|(key, value)| wanted(key) && value != "\"\";"))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debians_own_suites_are_taken() {
        let targets = "http://mirror/debian/ bookworm main bookworm\n\
                       http://mirror/debian/ bookworm main bookworm\n\
                       http://mirror/debian/ bookworm contrib bookworm\n\
                       http://mirror/debian/ stable-updates main $(CODENAME)\n\
                       http://mirror/security/ stable-security main bookworm-security\n\
                       https://other/pg/ bookworm-pgdg main bookworm-pgdg\n\
                       https://other/docker/ bookworm stable bookworm\n";
        assert_eq!(
            sources(targets),
            ["deb http://mirror/debian/ bookworm main", "deb http://mirror/security/ stable-security main"]
        );
    }

    #[test]
    fn proxies_are_inherited_and_the_rest_is_not() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://proxy:3142\";\nAcquire::https::Proxy \"\";\n\
                    Acquire::Languages:: \"none\";\nAcquire::Check-Date \"false\";\n";
        assert_eq!(options(dump), ["Acquire::http::Proxy \"http://proxy:3142\";", "Acquire::Check-Date \"false\";"]);
    }
}
