//! Names that reach znode paths, slot names and file names, checked once at the door.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A name that may not be used; says which and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` cannot be a {what}: use 1 to 63 letters, digits, `-`, `_` or `.`, beginning with a letter or digit")]
pub struct NameError {
    /// What the name was for.
    pub what: &'static str,
    /// The name.
    pub name: String,
}

fn check(what: &'static str, name: &str) -> Result<(), NameError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let good = (1..=63).contains(&name.len()) && name.bytes().all(plain) && name.as_bytes()[0].is_ascii_alphanumeric();
    if good { Ok(()) } else { Err(NameError { what, name: name.to_owned() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::try_from(name.as_str())
            }
        }

        impl TryFrom<&str> for $type {
            type Error = NameError;

            fn try_from(name: &str) -> Result<Self, NameError> {
                check($what, name).map(|()| Self(name.into()))
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// The cluster's name (Patroni's `scope`).
    ClusterName,
    "cluster name"
);
name!(
    /// A member's name, unique in its cluster; its standby connects under it (`application_name`).
    NodeName,
    "node name"
);

impl NodeName {
    /// The replication slot that this member uses on the node it streams from.
    ///
    /// Patroni's rule (`slot_name_from_member_name`): lower case, `-` and `.` become `_`; what else remains is legal.
    pub fn slot(&self) -> SlotName {
        let differs = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'.');
        if self.0.bytes().any(differs) {
            SlotName(self.0.to_ascii_lowercase().replace(['-', '.'], "_").into())
        } else {
            SlotName(self.0.clone())
        }
    }

    /// Whether that slot is this member's: [`Self::slot`], without making it.
    pub fn owns(&self, slot: &SlotName) -> bool {
        let plain = |byte: u8| if matches!(byte, b'-' | b'.') { b'_' } else { byte.to_ascii_lowercase() };
        let same = || self.0.bytes().rev().map(plain).eq(slot.0.bytes().rev());
        // Names of one cluster differ near their end, if at all.
        Arc::ptr_eq(&self.0, &slot.0) || self.0.len() == slot.0.len() && same()
    }
}

/// A replication slot's name: 1 to 63 lower-case letters, digits and underscores (`ReplicationSlotValidateName`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(Arc<str>);

impl SlotName {
    /// The name, if it can be one.
    pub fn parse(name: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        ((1..=63).contains(&name.len()) && name.bytes().all(plain)).then(|| Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SlotName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SlotName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| serde::de::Error::custom(format!("`{name}` cannot be a slot name")))
    }
}

/// PostgreSQL's 64-bit system identifier, made by `initdb`, equal on every copy of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of one leadership: greater for each new owner of the `leader` znode, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["db1", "pg-0.example.org", "A_b"] {
            assert!(NodeName::try_from(good).is_ok(), "{good} refused");
        }
        for bad in ["", "-a", ".a", "a/b", "a b", "ä", &"x".repeat(64)] {
            assert!(NodeName::try_from(bad).is_err(), "{bad} taken");
        }
    }

    #[test]
    fn slots_follow_patroni() {
        assert_eq!(NodeName::try_from("PG-0.lab").unwrap().slot().as_str(), "pg_0_lab");
        assert!(SlotName::parse("pg_0_lab").is_some());
        for bad in ["", "PG", "a-b", "x'; DROP", &"a".repeat(64)] {
            assert!(SlotName::parse(bad).is_none(), "{bad} taken");
        }
    }
}
