//! Disks of a container beside the one that all hosts share: an image each, mounted in its place while the power is on.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{Error, Image, Node, Result, cluster::until, command, machine, mount};

/// Of which the empty part takes no room.
const SIZE: &str = "8G";
/// Not in everybody's PATH.
const FSCK: &str = "/usr/sbin/e2fsck";
/// Errors that it could correct end it with a code of up to 3.
const CORRECTED: std::ops::RangeInclusive<i32> = 0..=3;

/// What is left of a host that has lost its power goes within this.
const GONE: Duration = Duration::from_secs(10);

/// What a container can have a disk of its own for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Data directories of Postgres.
    Databases,
    /// WAL.
    Wal,
}

impl Disk {
    /// One that is mounted inside another one comes after it.
    const ALL: [Self; 2] = [Self::Databases, Self::Wal];

    /// Where it is inside the host. Both are where the agent's sandbox lets it write.
    pub fn mount_point(self) -> &'static str {
        match self {
            Self::Databases => "/var/lib/postgresql",
            Self::Wal => "/var/lib/postgresql/wal",
        }
    }

    /// Where it is mounted outside.
    fn place(self, node: &Node) -> PathBuf {
        let name = match self {
            Self::Databases => "databases",
            Self::Wal => "wal",
        };
        node.dir().join("disks").join(name)
    }

    fn image(self, node: &Node) -> PathBuf {
        self.place(node).with_extension("img")
    }
}

/// Whether the host has it.
pub(crate) fn is_fitted(node: &Node, disk: Disk) -> bool {
    disk.image(node).exists()
}

/// Makes it for a host that is off, with what is in its place on the host's shared disk.
pub(crate) fn fit(node: &Node, image: &Image, disk: Disk) -> Result<()> {
    mount::overlay(&image.root(), &node.dir())?;
    let content = node.root().join(disk.mount_point().trim_start_matches('/'));
    fs::create_dir_all(&content).map_err(Error::io("creating", &content))?;
    let owner = fs::metadata(&content).map_err(Error::io("looking at", &content))?;
    let place = disk.place(node);
    fs::create_dir_all(&place).map_err(Error::io("creating", &place))?;
    // Given its name when it is whole: a host whose making was interrupted has none.
    let new = place.with_extension("new");
    command::run(
        Command::new(machine::MKFS)
            // Nothing is kept back for root: full is full for everybody.
            .args(["-q", "-F", "-m", "0", "-E"])
            .arg(format!("root_owner={}:{}", owner.uid(), owner.gid()))
            .arg("-d")
            .args([&content, &new])
            .arg(SIZE),
    )?;
    fs::rename(&new, disk.image(node)).map_err(Error::io("completing", &new))?;
    mount::release(&node.dir())
}

/// A disk that is whole and in nobody's hands.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) image: PathBuf,
    /// Where it has to be mounted, in a namespace of the host's own: one that started meanwhile would hold a copy of the
    /// mount that nobody sees, and this host's disk would never be free again.
    pub(crate) place: PathBuf,
    /// What tells nspawn of it.
    pub(crate) bind: String,
}

/// How it is mounted.
pub(crate) const OPTIONS: &str = "loop,errors=remount-ro";

/// Checks what the host has.
pub(crate) fn attach(node: &Node) -> Result<Vec<Attached>> {
    let fitted = Disk::ALL.into_iter().filter(|disk| is_fitted(node, *disk));
    let attach = |disk: Disk| {
        let (image, place) = (disk.image(node), disk.place(node));
        // Mounted while the host's last namespace is still being taken apart, it would be the file system from before,
        // errors and all.
        until(&format!("the end of what was mounted of {}", image.display()), GONE, || {
            let devices = device(&image)?;
            Ok(if devices.is_empty() { Ok(()) } else { Err(devices) })
        })?;
        let mut check = Command::new(FSCK);
        check.arg("-p").arg(&image);
        let checked = command::capture(&mut check)?;
        if !CORRECTED.contains(&checked.code) {
            return Err(command::failure(command::display(&check), &checked));
        }
        let bind = format!("--bind={}:{}", place.display(), disk.mount_point());
        Ok(Attached { image, place, bind })
    };
    fitted.map(attach).collect()
}

/// Lets the file system find an error, as on a disk that begins to fail: from then on every write ends with EROFS, those
/// to open files too, until it was checked. A remount is no way there: it is refused while a file is open for writing, and
/// where only a bind mount is made read-only, whoever has a file open writes on.
pub(crate) fn fail(node: &Node, disk: Disk) -> Result<()> {
    let device = device(&disk.image(node))?;
    let name = Path::new(&device).file_name().unwrap_or_default();
    let trigger = Path::new("/sys/fs/ext4").join(name).join("trigger_fs_error");
    fs::write(&trigger, "1").map_err(Error::io("writing", &trigger))
}

/// The loop device of an image; nothing while it has none.
fn device(image: &Path) -> Result<String> {
    let named = ["--noheadings", "--output=NAME", "--associated"];
    let devices = command::run(Command::new("losetup").args(named).arg(image))?;
    Ok(devices.trim().to_owned())
}
