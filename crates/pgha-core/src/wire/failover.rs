//! Znode `failover`: a change of leader that somebody asked for.

use serde::{Deserialize, Serialize};

use super::codec;
use super::{IsoTime, ParseIsoTimeError, WireError};
use crate::name::NodeName;

/// A change of leader that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FailoverRequest {
    /// The leader that shall step down; with it the request is a switchover, and void under another leader.
    pub leader: Option<NodeName>,
    /// Who shall lead; anybody who can if it is absent.
    pub member: Option<NodeName>,
    /// When, if not now.
    pub scheduled_at: Option<IsoTime>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leader: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scheduled_at: Option<String>,
}

const DOCUMENT: &str = "znode `failover`";
const EXPECTED: &str = "a JSON object with `leader`, `member` and `scheduled_at`";

fn wrong(error: &dyn std::error::Error) -> WireError {
    WireError { document: DOCUMENT, expected: EXPECTED, problem: error.to_string() }
}

fn parse_time(text: &str) -> Result<IsoTime, WireError> {
    text.parse().map_err(|error: ParseIsoTimeError| wrong(&error))
}

impl FailoverRequest {
    /// Reads the znode; nothing, `null` and `{}` ask for nothing. Very old tools wrote `leader:member`.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let raw = match codec::read::<Option<Raw>>(DOCUMENT, EXPECTED, bytes) {
            Ok(raw) => raw,
            Err(error) => Some(legacy(bytes).ok_or(error)?),
        };
        let Some(raw) = raw else {
            return Ok(Self::default());
        };
        let name = |name: Option<String>| {
            let given = name.filter(|name| !name.is_empty());
            given.map(|name| NodeName::try_from(name).map_err(|error| wrong(&error))).transpose()
        };
        let scheduled_at = raw.scheduled_at.filter(|text| !text.is_empty());
        Ok(Self {
            leader: name(raw.leader)?,
            member: name(raw.member)?,
            scheduled_at: scheduled_at.map(|text| parse_time(&text)).transpose()?,
        })
    }

    /// Writes the znode; `{}` when nothing is asked for.
    pub fn render(&self) -> Vec<u8> {
        codec::write(&Raw {
            leader: self.leader.as_ref().map(NodeName::to_string),
            member: self.member.as_ref().map(NodeName::to_string),
            scheduled_at: self.scheduled_at.as_ref().map(IsoTime::to_string),
        })
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.leader.is_none() && self.member.is_none()
    }
}

fn legacy(bytes: &[u8]) -> Option<Raw> {
    let (leader, member) = std::str::from_utf8(bytes).ok()?.split_once(':')?;
    let part = |text: &str| {
        let text = text.trim();
        (text.is_empty() || NodeName::try_from(text).is_ok()).then(|| text.to_owned())
    };
    Some(Raw { leader: Some(part(leader)?), member: Some(part(member)?), scheduled_at: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for() {
        for nothing in ["", "null", "{}", r#"{"leader":"","member":null}"#, ":"] {
            let request = FailoverRequest::parse(nothing.as_bytes()).unwrap();
            assert!(request.is_empty(), "{nothing}");
            assert_eq!(request.render(), b"{}");
        }
    }

    #[test]
    fn the_old_form_is_read() {
        let request = FailoverRequest::parse(b"a: b").unwrap();
        assert_eq!(request.render(), br#"{"leader":"a","member":"b"}"#);
    }

    #[test]
    fn garbage_is_refused() {
        for garbage in ["x", "{", "[1]", "7", r#"{"leader":"a/b"}"#, r#"{"member":"a","scheduled_at":"soon"}"#] {
            assert!(FailoverRequest::parse(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }
}
