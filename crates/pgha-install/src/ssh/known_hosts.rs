//! `known_hosts`: which keys a host may have, after the format that sshd(8) describes.
//!
//! Plain, wildcard, negated and hashed names, ports in brackets and `@revoked` are understood. Certificate authorities
//! are not: a host that shows only a certificate is refused.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use russh::keys::{Algorithm, PublicKey};
use sha1::Sha1;

/// The keys of one file.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    revoked: bool,
    names: Names,
    key: PublicKey,
    line: usize,
}

#[derive(Debug, Clone)]
enum Names {
    Patterns(Vec<String>),
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

/// What the file says about a key that a host showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Recorded for this host.
    Known,
    /// Nothing is recorded for this host.
    Unknown,
    /// Another key is recorded for this host, on this line.
    Changed {
        /// Line number of the other key.
        line: usize,
    },
    /// The key is marked `@revoked` on this line.
    Revoked {
        /// Line number of the mark.
        line: usize,
    },
}

impl KnownHosts {
    /// Reads a file; a file that does not exist knows nobody.
    pub fn load(path: &Path) -> io::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Reads the text of a file. Lines that make no sense are passed over, as sshd(8) says.
    pub fn parse(text: &str) -> Self {
        let entries = text.lines().enumerate().filter_map(|(index, line)| Entry::parse(index + 1, line)).collect();
        Self { entries }
    }

    /// Judges `key`, shown by a host reached as one of `names` on `port`.
    pub fn judge(&self, names: &[&str], port: u16, key: &PublicKey) -> Verdict {
        let same = |entry: &&Entry| entry.key.key_data() == key.key_data();
        if let Some(entry) = self.entries.iter().filter(|entry| entry.revoked).find(same) {
            return Verdict::Revoked { line: entry.line };
        }
        let mut recorded = self.of(names, port).peekable();
        match recorded.peek() {
            None => Verdict::Unknown,
            Some(first) => {
                let line = first.line;
                if recorded.any(|entry| same(&entry)) { Verdict::Known } else { Verdict::Changed { line } }
            }
        }
    }

    /// Algorithms of the keys recorded for a host: to be asked for first, or a recorded host would look unknown.
    pub fn algorithms(&self, names: &[&str], port: u16) -> Vec<Algorithm> {
        self.of(names, port).map(|entry| entry.key.algorithm()).collect()
    }

    fn of<'a>(&'a self, names: &'a [&'a str], port: u16) -> impl Iterator<Item = &'a Entry> {
        self.entries
            .iter()
            .filter(move |entry| !entry.revoked && names.iter().any(|name| entry.names.matches(&lookup(name, port))))
    }
}

/// The file that is used when the inventory names none.
pub fn default_path() -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".ssh/known_hosts"))
}

/// Adds a key to a file, which is made when it does not exist.
pub fn record(path: &Path, name: &str, port: u16, key: &PublicKey) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;

    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent)?;
    }
    let text = key.to_openssh().map_err(io::Error::other)?;
    // The comment of a key is the host's own; only algorithm and key are recorded.
    let bare: Vec<&str> = text.split_whitespace().take(2).collect();
    let ends_well = std::fs::read(path).map_or(true, |text| text.is_empty() || text.ends_with(b"\n"));
    let mut file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let gap = if ends_well { "" } else { "\n" };
    file.write_all(format!("{gap}{} {}\n", lookup(name, port), bare.join(" ")).as_bytes())
}

/// The name under which a host is recorded: port 22 goes without saying.
fn lookup(name: &str, port: u16) -> String {
    let name = name.to_ascii_lowercase();
    if port == 22 { name } else { format!("[{name}]:{port}") }
}

impl Entry {
    fn parse(line_number: usize, line: &str) -> Option<Self> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let mut fields = line.split_ascii_whitespace().peekable();
        let revoked = match fields.peek()? {
            &"@revoked" => {
                fields.next();
                true
            }
            marker if marker.starts_with('@') => return None,
            _ => false,
        };
        let names = Names::parse(fields.next()?)?;
        let algorithm = fields.next()?;
        let key = PublicKey::from_openssh(&format!("{algorithm} {}", fields.next()?)).ok()?;
        Some(Self { revoked, names, key, line: line_number })
    }
}

impl Names {
    fn parse(field: &str) -> Option<Self> {
        if let Some(hashed) = field.strip_prefix("|1|") {
            let (salt, hash) = hashed.split_once('|')?;
            return Some(Self::Hashed { salt: STANDARD.decode(salt).ok()?, hash: STANDARD.decode(hash).ok()? });
        }
        Some(Self::Patterns(field.split(',').map(str::to_ascii_lowercase).collect()))
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Hashed { salt, hash } => {
                Hmac::<Sha1>::new_from_slice(salt).is_ok_and(|mac| mac.chain_update(name).verify_slice(hash).is_ok())
            }
            Self::Patterns(patterns) => {
                let matching = |pattern: &str| glob(pattern.as_bytes(), name.as_bytes());
                let refused = patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(matching);
                !refused && patterns.iter().any(|pattern| matching(pattern))
            }
        }
    }
}

/// `*` stands for any run of characters, `?` for one.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=text.len()).any(|skip| glob(rest, &text[skip..])),
        (Some((b'?', rest)), Some((_, tail))) => glob(rest, tail),
        (Some((want, rest)), Some((have, tail))) => want == have && glob(rest, tail),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const KEY_B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn key(text: &str) -> PublicKey {
        PublicKey::from_openssh(text).unwrap()
    }

    fn judge(file: &str, name: &str, port: u16, shown: &str) -> Verdict {
        KnownHosts::parse(file).judge(&[name], port, &key(shown))
    }

    #[test]
    fn a_recorded_key_is_known_and_another_one_is_not() {
        let file = format!("# hosts\n\ndb1,10.0.0.1 {KEY_A} comment\n");
        assert_eq!(judge(&file, "db1", 22, KEY_A), Verdict::Known);
        assert_eq!(judge(&file, "10.0.0.1", 22, KEY_A), Verdict::Known);
        assert_eq!(judge(&file, "db1", 22, KEY_B), Verdict::Changed { line: 3 });
        assert_eq!(judge(&file, "db2", 22, KEY_A), Verdict::Unknown);
        assert_eq!(judge(&file, "db1", 2222, KEY_A), Verdict::Unknown);
    }

    #[test]
    fn ports_wildcards_negations_and_revocations_count() {
        assert_eq!(judge(&format!("[db1]:2222 {KEY_A}"), "db1", 2222, KEY_A), Verdict::Known);
        assert_eq!(judge(&format!("db*,!db9 {KEY_A}"), "db1", 22, KEY_A), Verdict::Known);
        assert_eq!(judge(&format!("db*,!db9 {KEY_A}"), "db9", 22, KEY_A), Verdict::Unknown);
        let revoked = format!("db1 {KEY_A}\n@revoked * {KEY_A}");
        assert_eq!(judge(&revoked, "db1", 22, KEY_A), Verdict::Revoked { line: 2 });
        assert_eq!(judge(&format!("@cert-authority db1 {KEY_A}"), "db1", 22, KEY_A), Verdict::Unknown);
    }

    #[test]
    fn several_keys_of_one_host_are_all_good() {
        let file = format!("db1 {KEY_B}\ndb1 {KEY_A}\n");
        assert_eq!(judge(&file, "db1", 22, KEY_A), Verdict::Known);
    }

    #[test]
    fn hashed_names_match() {
        let salt = [7_u8; 20];
        let mac = Hmac::<Sha1>::new_from_slice(&salt).unwrap().chain_update("db1");
        let hash = STANDARD.encode(mac.finalize().into_bytes());
        let file = format!("|1|{}|{hash} {KEY_A}", STANDARD.encode(salt));
        assert_eq!(judge(&file, "db1", 22, KEY_A), Verdict::Known);
        assert_eq!(judge(&file, "db2", 22, KEY_A), Verdict::Unknown);
    }

    #[test]
    fn garbage_is_passed_over() {
        let file = format!("db1\n|1|x {KEY_A}\n\u{0}\ndb1 ssh-ed25519 %%%\ndb1 {KEY_A}");
        assert_eq!(judge(&file, "db1", 22, KEY_A), Verdict::Known);
    }

    #[test]
    fn keys_are_added() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/known_hosts");
        record(&path, "DB1", 22, &key(KEY_A)).unwrap();
        record(&path, "db1", 2222, &key(KEY_B)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("db1 {KEY_A}\n[db1]:2222 {KEY_B}\n"));
    }
}
