//! Passwords: generated once, kept beside the inventory where only its owner reads them.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rand::Rng as _;
use rand::distr::Alphanumeric;

use crate::cluster::Cluster;

/// Letters and digits in a generated password: 24 of 62 are 142 bits.
const LENGTH: usize = 24;
const HEADER: &str = "# Passwords of the cluster, made by pgha-install. Keep this file: without it the installer makes new ones, and\n\
                      # the roles of a cluster that exists keep the old ones.\n";

/// The passwords of one cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    path: PathBuf,
    values: BTreeMap<String, String>,
    incomplete_on_disk: bool,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.path.display())
    }
}

/// Passwords that cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The file cannot be read or written.
    #[error("the secrets file {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file holds something else. The text is never quoted.
    #[error("the secrets file {}: {why}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Others may read the file.
    #[error("the secrets file {} can be read by others (mode {mode:04o}): chmod 600 it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl Secrets {
    /// Reads the file beside `inventory` and makes up what it lacks. Nothing is written before [`Secrets::save`].
    pub fn load(inventory: &Path, cluster: &Cluster) -> Result<Self, SecretsError> {
        let path = inventory.with_extension("secrets.toml");
        let io = |source| SecretsError::Io { path: path.clone(), source };
        let mut values: BTreeMap<String, String> = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let mode = mode(&path).map_err(io)?;
                if mode & 0o077 != 0 {
                    return Err(SecretsError::Exposed { path, mode });
                }
                toml::from_str(&text).map_err(|error| SecretsError::Text {
                    path: path.clone(),
                    why: format!("expected lines of the form name = \"password\": {}", error.message()),
                })?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(io(error)),
        };
        let before = values.len();
        for key in keys(cluster) {
            values.entry(key).or_insert_with(generate);
        }
        values.entry("rest_username".to_owned()).or_insert_with(|| "pgha".to_owned());
        Ok(Self { incomplete_on_disk: values.len() != before, path, values })
    }

    /// Writes the file if it lacks something.
    pub fn save(&self) -> Result<(), SecretsError> {
        if !self.incomplete_on_disk {
            return Ok(());
        }
        let text = format!("{HEADER}{}", toml::to_string(&self.values).unwrap_or_default());
        write_private(&self.path, text.as_bytes())
            .map_err(|source| SecretsError::Io { path: self.path.clone(), source })
    }

    /// Where the passwords are kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One of them; empty when nobody asked for it in time.
    pub fn get(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    /// Password of a role that owns databases.
    pub fn of_owner(&self, owner: &str) -> &str {
        self.get(&owner_key(owner))
    }
}

fn owner_key(owner: &str) -> String {
    format!("{owner}_password")
}

fn keys(cluster: &Cluster) -> Vec<String> {
    let mut keys: Vec<String> = ["superuser", "replication", "rewind", "rest", "haproxy_stats"]
        .iter()
        .map(|name| format!("{name}_password"))
        .collect();
    keys.extend(cluster.owners().into_iter().map(owner_key));
    keys
}

fn generate() -> String {
    rand::rng().sample_iter(Alphanumeric).take(LENGTH).map(char::from).collect()
}

fn mode(path: &Path) -> io::Result<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::metadata(path)?.permissions().mode() & 0o7777)
}

/// Writes a file that only its owner may read; a crash leaves the old one or the new one.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    // Temporary files are made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory;

    fn cluster() -> Cluster {
        inventory::parse("t", "hosts = [{ name = \"a\", roles = [\"postgres\", \"zookeeper\", \"archive\"] }]").unwrap()
    }

    #[test]
    fn passwords_are_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let inventory = directory.path().join("lab.toml");
        let first = Secrets::load(&inventory, &cluster()).unwrap();
        assert_eq!(first.get("rest_username"), "pgha");
        assert_eq!(first.of_owner("app").len(), LENGTH);
        assert_ne!(first.get("superuser_password"), first.get("rewind_password"));
        assert!(!first.path().exists(), "a plan writes nothing");
        first.save().unwrap();
        assert_eq!(mode(first.path()).unwrap(), 0o600);
        let second = Secrets::load(&inventory, &cluster()).unwrap();
        assert_eq!(first.values, second.values);
        assert!(!second.incomplete_on_disk);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let inventory = directory.path().join("lab.toml");
        let secrets = Secrets::load(&inventory, &cluster()).unwrap();
        secrets.save().unwrap();
        std::fs::set_permissions(secrets.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Secrets::load(&inventory, &cluster()), Err(SecretsError::Exposed { mode: 0o644, .. })));
    }

    #[test]
    fn garbage_is_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let inventory = directory.path().join("lab.toml");
        write_private(&inventory.with_extension("secrets.toml"), b"a = [\"hunter2\"]\n").unwrap();
        let error = Secrets::load(&inventory, &cluster()).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
