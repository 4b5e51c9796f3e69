//! Restarts that an operator asked for: under which conditions, and when.

use crate::wire::rest::RestartBody;
use crate::wire::{IsoTime, ScheduledRestart};

/// What must be the case for a restart to happen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// The member has this role.
    pub role: Option<String>,
    /// Postgres is older than this (`server_version_num`).
    pub older_than: Option<u32>,
    /// A changed setting waits for a restart.
    pub pending: bool,
}

/// A member at the moment of a restart.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// Its role.
    pub role: &'a str,
    /// `server_version_num` of its Postgres.
    pub version: Option<u32>,
    /// A changed setting waits for a restart.
    pub pending: bool,
}

impl Conditions {
    /// Those of a request; an error names what is wrong with it.
    pub fn of(body: &RestartBody) -> Result<Self, String> {
        let role = body.role.as_deref().map(|role| match role {
            "primary" | "master" => Ok("primary".to_owned()),
            "replica" => Ok("replica".to_owned()),
            other => Err(format!("role = {other:?} is not a role: expected primary or replica")),
        });
        let older_than = body.postgres_version.as_deref().map(version).transpose()?;
        Ok(Self { role: role.transpose()?, older_than, pending: body.restart_pending })
    }

    /// What is not the case, in Patroni's words.
    pub fn unmet(&self, member: &Member<'_>) -> Option<&'static str> {
        if self.role.as_deref().is_some_and(|role| role != member.role) {
            Some("host role mismatch")
        } else if self.older_than.is_some_and(|version| member.version.is_none_or(|it| it >= version)) {
            Some("postgres version mismatch")
        } else if self.pending && !member.pending {
            Some("pending restart flag is not set")
        } else {
            None
        }
    }
}

/// `15.4` as Postgres numbers it: 150004.
fn version(text: &str) -> Result<u32, String> {
    let wrong = || format!("postgres_version = {text:?} is not a version: expected a form like 15.4");
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number < 10_000);
    let (major, minor) = (number(major).ok_or_else(wrong)?, number(minor).ok_or_else(wrong)?);
    if major < 10 { Err(wrong()) } else { Ok(major * 10_000 + minor) }
}

/// A restart at a set time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// When.
    pub at: IsoTime,
    /// What was asked for, as it was asked.
    pub body: RestartBody,
    /// Only for the Postgres that was started then: any other restart has done it.
    pub started: Option<String>,
}

impl Scheduled {
    /// For the member's znode.
    pub fn announced(&self) -> ScheduledRestart {
        let body = serde_json::to_value(RestartBody { schedule: None, ..self.body.clone() });
        let mut other = match body {
            Ok(serde_json::Value::Object(object)) => object,
            _ => serde_json::Map::new(),
        };
        if let Some(started) = &self.started {
            other.insert("postmaster_start_time".to_owned(), started.as_str().into());
        }
        ScheduledRestart { schedule: self.at.to_string(), other }
    }

    /// From the member's znode, after the agent was restarted; nothing where it is not understood.
    pub fn announced_before(znode: &ScheduledRestart) -> Option<Self> {
        let mut body: RestartBody = serde_json::from_value(znode.other.clone().into()).ok()?;
        body.schedule = Some(znode.schedule.clone());
        let started = znode.other.get("postmaster_start_time").and_then(serde_json::Value::as_str);
        Some(Self { at: znode.schedule.parse().ok()?, body, started: started.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: Member<'_> = Member { role: "replica", version: Some(150_004), pending: false };

    fn conditions(text: &str) -> Result<Conditions, String> {
        Conditions::of(&RestartBody::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn conditions_hold_or_say_which_does_not() {
        for (body, unmet) in [
            ("{}", None),
            (r#"{"role":"replica"}"#, None),
            (r#"{"role":"master"}"#, Some("host role mismatch")),
            (r#"{"postgres_version":"15.5"}"#, None),
            (r#"{"postgres_version":"15.4"}"#, Some("postgres version mismatch")),
            (r#"{"restart_pending":true}"#, Some("pending restart flag is not set")),
        ] {
            assert_eq!(conditions(body).unwrap().unmet(&MEMBER), unmet, "{body}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for body in [
            r#"{"role":"king"}"#,
            r#"{"postgres_version":"9.6"}"#,
            r#"{"postgres_version":"x"}"#,
            r#"{"postgres_version":"15.99999"}"#,
        ] {
            assert!(conditions(body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_schedule_survives_in_the_members_znode() {
        let body =
            RestartBody::parse(br#"{"schedule":"2026-01-01T10:00:00+00:00","role":"replica","timeout":30}"#).unwrap();
        let scheduled = Scheduled {
            at: "2026-01-01T10:00:00+00:00".parse().unwrap(),
            body,
            started: Some("2025-12-31 00:00:00+00:00".to_owned()),
        };
        let announced = scheduled.announced();
        assert_eq!(announced.other.get("role").unwrap(), "replica");
        assert_eq!(Scheduled::announced_before(&announced), Some(scheduled));
    }
}
