//! Overlay mounts of the hosts' disks, and undoing every mount below a directory.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{Error, Result};

/// Mounts a host's disk: `base` below, the host's own changes in `dir/upper`.
pub(crate) fn overlay(base: &Path, dir: &Path) -> Result<()> {
    let root = dir.join("root");
    for part in ["upper", "work", "root"] {
        let part = dir.join(part);
        fs::create_dir_all(&part).map_err(Error::io("creating", &part))?;
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        base.display(),
        dir.join("upper").display(),
        dir.join("work").display()
    );
    mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .map_err(Error::errno(format!("mounting the overlay {} on {}", options, root.display())))
}

/// Shows the directory `from` at `to`, read-only.
pub(crate) fn bind(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("mounting {} on {}", from.display(), to.display());
    let none = None::<&str>;
    mount(Some(from), to, none, MsFlags::MS_BIND, none).map_err(Error::errno(what()))?;
    // A bind mount takes its flags only when it is there.
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, to, none, flags, none).map_err(Error::errno(what()))
}

/// Mount points at or below `dir`, the latest first.
pub(crate) fn below(dir: &Path) -> Result<Vec<PathBuf>> {
    let path = Path::new("/proc/self/mountinfo");
    let table = fs::read(path).map_err(Error::io("reading", path))?;
    Ok(parse(&table).into_iter().filter(|point| point.starts_with(dir)).rev().collect())
}

/// Unmounts everything at or below `dir`.
pub(crate) fn release(dir: &Path) -> Result<()> {
    for point in below(dir)? {
        umount2(&point, MntFlags::UMOUNT_NOFOLLOW)
            .map_err(Error::errno(format!("unmounting {} (who uses it: fuser -vm {0})", point.display())))?;
    }
    Ok(())
}

/// Directories that some overlay mount uses, by the mount table's options.
pub(crate) fn in_use(dir: &Path) -> Result<bool> {
    let path = Path::new("/proc/self/mountinfo");
    let table = fs::read_to_string(path).map_err(Error::io("reading", path))?;
    let needle = format!("lowerdir={}/", dir.display());
    Ok(table.contains(&needle) || !below(dir)?.is_empty())
}

fn parse(table: &[u8]) -> Vec<PathBuf> {
    table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
        .collect()
}

/// The kernel writes blanks and the like as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        if let Some(value) = value {
            bytes.push(value);
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let table = b"22 1 0:20 / /proc rw - proc proc rw\n40 22 0:33 / /a\\040b/c rw shared:1 - overlay overlay rw\n";
        assert_eq!(parse(table), [Path::new("/proc"), Path::new("/a b/c")]);
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(unescape(br"\04"), br"\04");
        assert_eq!(unescape(br"\999x"), br"\999x");
    }
}
