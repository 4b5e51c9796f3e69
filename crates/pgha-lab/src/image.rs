//! The hosts' common root file systems and their packages: built once, found again by what went into them.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result, apt, cgroup, command, lock::Lock, mount, process, requirements::SUITE, topology::CACHE};

/// What a bare host has beside Debian's packages of priority `important`.
const INCLUDED: [&str; 12] = [
    "ca-certificates",
    "curl",
    "dbus",
    "iproute2",
    "iputils-ping",
    "locales",
    "openssh-server",
    "passwd",
    "procps",
    "sudo",
    "systemd",
    "systemd-sysv",
];
/// What installers may ask for; fetched with all that it depends on.
const OFFERED: [&str; 20] = [
    "acl",
    "chrony",
    "dbus",
    "default-jre-headless",
    "haproxy",
    "hatop",
    "jq",
    "libpam-systemd",
    "locales",
    "lz4",
    "netcat-openbsd",
    "pgbackrest",
    "polkitd",
    "postgresql-15",
    "postgresql-client-15",
    "postgresql-contrib",
    "rsync",
    "strace",
    "zookeeper",
    "zstd",
];
/// What makes a bare host one that boots on a machine of its own.
const KERNEL: [&str; 2] = ["initramfs-tools", "linux-image-amd64"];
/// Fast installs: no fsync for each file (the disk is thrown away anyway), no manuals.
const DPKG: [&str; 4] = [
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
];
/// Changed whenever the same ingredients are put together in another way.
const FORMAT: &str = "1";
const CUSTOMISE: Hook = Hook { stage: "customize", name: "customise.sh", text: include_str!("../image/customise.sh") };
const MACHINE: Hook = Hook { stage: "essential", name: "machine.sh", text: include_str!("../image/machine.sh") };
/// Begins the names of virtual machines' images, which are kept beside those of containers.
const PREFIX: &str = "machine-";
/// Apart from the hosts' group: an image may be built while they run.
const GROUP: &str = "/pgha-lab-image";

/// A script that mmdebstrap calls.
struct Hook {
    stage: &'static str,
    name: &'static str,
    text: &'static str,
}

/// What an image is made of.
struct Recipe {
    prefix: &'static str,
    included: Vec<&'static str>,
    offered: &'static [&'static str],
    hooks: &'static [Hook],
}

impl Recipe {
    fn containers() -> Self {
        Self { prefix: "", included: INCLUDED.to_vec(), offered: &OFFERED, hooks: &[CUSTOMISE] }
    }

    /// The packages are those of the containers' image.
    fn machines() -> Self {
        let included = [&INCLUDED[..], &KERNEL].concat();
        Self { prefix: PREFIX, included, offered: &[], hooks: &[CUSTOMISE, MACHINE] }
    }

    /// The name of the image: a digest of everything that it is made of.
    fn name(&self) -> String {
        let mut hasher = Sha256::new();
        let scripts: Vec<_> = self.hooks.iter().map(|hook| hook.text).collect();
        for part in [&[FORMAT, SUITE, std::env::consts::ARCH], &scripts[..], &self.included, self.offered, &DPKG] {
            for text in part {
                hasher.update(text.len().to_le_bytes());
                hasher.update(text);
            }
        }
        hasher.finalize()[..8].iter().fold(self.prefix.to_owned(), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// A complete image in the cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// Finds the containers' image, building it first where the cache lacks it.
    pub fn ensure() -> Result<Self> {
        Self::ensure_by(&Recipe::containers())
    }

    /// The same for the image from which virtual machines' disks are made.
    pub fn ensure_for_machines() -> Result<Self> {
        Self::ensure_by(&Recipe::machines())
    }

    fn ensure_by(recipe: &Recipe) -> Result<Self> {
        let cache = Path::new(CACHE);
        fs::create_dir_all(cache).map_err(Error::io("creating", cache))?;
        let image = Self { dir: cache.join(recipe.name()) };
        if image.dir.is_dir() {
            return Ok(image);
        }
        let _lock = Lock::take(&cache.join("lock"), "the image cache")?;
        clean(cache)?;
        if !image.dir.is_dir() {
            image.build(recipe)?;
            cgroup::remove(GROUP)?;
            forget_others(cache, &image.dir)?;
        }
        Ok(image)
    }

    /// The root file system below every host's own disk.
    pub(crate) fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// The offline package repository.
    pub(crate) fn packages(&self) -> PathBuf {
        self.dir.join("packages")
    }

    /// Builds beside the final place and moves there in one step, so that a killed build leaves no half image.
    fn build(&self, recipe: &Recipe) -> Result<()> {
        let started = Instant::now();
        let whose = if recipe.prefix == PREFIX { "virtual machines'" } else { "hosts'" };
        tracing::info!("building the {whose} image (once; about a minute)");
        let temporary = self.dir.with_extension("building");
        let packages = temporary.join("packages");
        fs::create_dir_all(&packages).map_err(Error::io("creating", &packages))?;
        let apt = apt::settings()?;
        let mut bootstrap = vec!["--variant=important".to_owned(), format!("--include={}", recipe.included.join(","))];
        for hook in recipe.hooks {
            let script = temporary.join(hook.name);
            fs::write(&script, hook.text).map_err(Error::io("writing", &script))?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))
                .map_err(Error::io("making executable", &script))?;
            bootstrap.push(format!("--{}-hook={}", hook.stage, script.display()));
        }
        bootstrap.extend(DPKG.iter().map(|option| format!("--dpkgopt={option}")));
        bootstrap.extend(apt.options.iter().map(|option| format!("--aptopt={option}")));
        bootstrap.extend([SUITE.to_owned(), temporary.join("root").display().to_string()]);
        bootstrap.extend(apt.sources);
        follow(
            grouped("mmdebstrap")?.args(&bootstrap).env("packages", &packages).env("wanted", recipe.offered.join(" ")),
            started,
        )?;

        tracing::info!("indexing the packages ({:.0} s)", started.elapsed().as_secs_f64());
        for (kind, name) in [("packages", "Packages"), ("release", "Release")] {
            let index = command::run(grouped("apt-ftparchive")?.args([kind, "."]).current_dir(&packages))?;
            let file = packages.join(name);
            fs::write(&file, index).map_err(Error::io("writing", &file))?;
        }
        // apt reads as its own user.
        for dir in [&temporary, &packages] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(Error::io("opening", dir))?;
        }
        nix::unistd::sync();
        fs::rename(&temporary, &self.dir).map_err(Error::io("completing", &self.dir))?;
        tracing::info!("image complete after {:.0} s", started.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Deletes every image and package.
pub(crate) fn purge() -> Result<()> {
    let cache = Path::new(CACHE);
    if !cache.is_dir() {
        return Ok(());
    }
    let lock = Lock::take(&cache.join("lock"), "the image cache")?;
    clean(cache)?;
    remove(cache)?;
    drop(lock);
    Ok(())
}

/// Ends what a killed build left: processes, mounts, half an image.
fn clean(cache: &Path) -> Result<()> {
    process::end("an abandoned image build", Duration::from_secs(30), |process| process.in_cgroup(GROUP))?;
    cgroup::remove(GROUP)?;
    for entry in entries(cache)? {
        if entry.extension().is_some_and(|kind| kind == "building" || kind == "deleting") {
            remove(&entry)?;
        }
    }
    Ok(())
}

/// Drops images of the same kind and of earlier versions, unless a host still runs on one.
fn forget_others(cache: &Path, current: &Path) -> Result<()> {
    let kind = |dir: &Path| dir.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    for entry in entries(cache)? {
        let outdated = entry != current && kind(&entry) == kind(current) && entry.is_dir();
        if outdated && !mount::in_use(&entry)? {
            let doomed = entry.with_extension("deleting");
            fs::rename(&entry, &doomed).map_err(Error::io("removing", &entry))?;
            remove(&doomed)?;
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(dir).map_err(Error::io("reading", dir))?;
    Ok(list.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

/// Never through a mount: below one could be the machine's own /dev.
fn remove(dir: &Path) -> Result<()> {
    mount::release(dir)?;
    fs::remove_dir_all(dir).map_err(Error::io("removing", dir))
}

/// A command that can be found again when the build is killed.
fn grouped(program: &str) -> Result<Command> {
    let mut command = cgroup::command(GROUP, program)?;
    command.stdin(Stdio::null());
    Ok(command)
}

/// Runs mmdebstrap and passes its milestones on.
fn follow(command: &mut Command, started: Instant) -> Result<()> {
    let failed = |source| Error::Io { what: "running mmdebstrap".to_owned(), source };
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let mut seen = String::new();
    if let Some(pipe) = child.stderr.take() {
        for line in BufReader::new(pipe).split(b'\n') {
            let line = line.map_err(failed)?;
            let line = String::from_utf8_lossy(&line);
            if let Some(milestone) = line.strip_prefix("I: ") {
                tracing::info!("{milestone} ({:.0} s)", started.elapsed().as_secs_f64());
            }
            seen.push_str(&line);
            seen.push('\n');
        }
    }
    let code = command::exit_code(child.wait().map_err(failed)?);
    if code == 0 {
        Ok(())
    } else {
        let output = command::Output { code, stdout: String::new(), stderr: seen };
        Err(command::failure("mmdebstrap".to_owned(), &output))
    }
}
