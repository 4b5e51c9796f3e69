//! What every host of a cluster gets.

use super::{List, Site};
use crate::resource::{Directory, File};

/// Adds it.
pub(super) fn add(_site: &Site<'_>, list: &mut List) {
    list.packages(&["curl"]);
    list.first(Directory::new("/etc/pgha", 0o755, "root", "root"));
    list.first(Directory::new("/etc/needrestart/conf.d", 0o755, "root", "root"));
    list.file(File::public(
        "/etc/needrestart/conf.d/50-pgha.conf",
        include_str!("../../../../units/needrestart/conf.d/50-pgha.conf"),
    ));
}
