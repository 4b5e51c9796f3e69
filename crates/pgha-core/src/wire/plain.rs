//! `leader` and `initialize`: znodes that hold text, not JSON.

use super::WireError;
use crate::name::{NodeName, SystemId};

/// Znode `leader`: the name of the member that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderName(pub NodeName);

impl LeaderName {
    /// Reads the znode.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let wrong = |problem: String| WireError { document: "znode `leader`", expected: "a member's name", problem };
        let name = std::str::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
        NodeName::try_from(name).map(Self).map_err(|error| wrong(error.to_string()))
    }

    /// Writes the znode.
    pub fn render(&self) -> Vec<u8> {
        self.0.as_str().into()
    }
}

/// Znode `initialize`: whether the cluster has been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initialize {
    /// Empty: a member is making it.
    InProgress,
    /// The system identifier that all members share.
    Done(SystemId),
}

impl Initialize {
    /// Reads the znode.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.is_empty() {
            return Ok(Self::InProgress);
        }
        std::str::from_utf8(bytes)
            .ok()
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .map(|id| Self::Done(SystemId(id)))
            .ok_or_else(|| WireError {
                document: "znode `initialize`",
                expected: "nothing, or PostgreSQL's 64-bit system identifier",
                problem: format!("found `{}`", String::from_utf8_lossy(bytes).escape_debug()),
            })
    }

    /// Writes the znode.
    pub fn render(&self) -> Vec<u8> {
        match self {
            Self::InProgress => Vec::new(),
            Self::Done(id) => id.to_string().into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initialize_is_empty_or_an_identifier() {
        for (bytes, expected) in [
            (&b""[..], Initialize::InProgress),
            (b"7268616322854375442", Initialize::Done(SystemId(7_268_616_322_854_375_442))),
        ] {
            assert_eq!(Initialize::parse(bytes), Ok(expected));
            assert_eq!(expected.render(), bytes);
        }
        for bad in [&b"x"[..], b"+1", b"18446744073709551616", b"\xff"] {
            assert!(Initialize::parse(bad).is_err());
        }
    }

    #[test]
    fn the_leader_is_a_name() {
        assert_eq!(LeaderName::parse(b"postgres-0").unwrap().render(), b"postgres-0");
        assert!(LeaderName::parse(b"").is_err());
        assert!(LeaderName::parse(b"a/b").is_err());
    }
}
