//! Positions in the write-ahead log and the timelines they lie on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A byte position in the write-ahead log (`pg_lsn`).
///
/// Printed as PostgreSQL prints it (`16/B374D848`); as a number in JSON, as Patroni's documents hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The invalid position `0/0` (`InvalidXLogRecPtr`).
    pub const INVALID: Self = Self(0);

    /// Bytes from `earlier` to `self`; 0 when `self` is not ahead.
    pub fn ahead_of(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Text that is not a `pg_lsn`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a WAL position (expected two hexadecimal numbers, as in 16/B374D848)")]
pub struct ParseLsnError(pub String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.trim().split_once('/').and_then(|(high, low)| {
            let part = |digits: &str| {
                (!digits.is_empty() && digits.len() <= 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
                    .then(|| u64::from_str_radix(digits, 16).ok())
                    .flatten()
            };
            Some(Self(part(high)? << 32 | part(low)?))
        });
        parsed.ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

/// A timeline number (`TimeLineID`), 1 or greater in a running cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A file of the write-ahead log, of 16 MiB (initdb's default). Sorts as its name does: by timeline, then by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Its timeline.
    pub timeline: Timeline,
    number: u64,
}

impl Segment {
    /// Bits of a position that lie within a segment.
    const BITS: u32 = 24;

    /// The one with this position.
    pub fn of(timeline: Timeline, position: Lsn) -> Self {
        Self { timeline, number: position.0 >> Self::BITS }
    }

    /// By the name of its file (`XLogFileName`); `None` for any other file.
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let part = |from: usize| u32::from_str_radix(name.get(from..from + 8)?, 16).ok();
        let (timeline, high, low) = (part(0).filter(|_| digits)?, part(8)?, part(16)?);
        let number = u64::from(high) << (u32::BITS - Self::BITS) | u64::from(low);
        (low < 1 << (u32::BITS - Self::BITS)).then_some(Self { timeline: Timeline(timeline), number })
    }

    /// Whether it has this position, whatever the timeline.
    pub fn covers(self, position: Lsn) -> bool {
        self.number == position.0 >> Self::BITS
    }

    /// The first position behind it.
    pub fn end(self) -> Lsn {
        Lsn((self.number + 1) << Self::BITS)
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to_a_half = u32::BITS - Self::BITS;
        let (high, low) = (self.number >> to_a_half, self.number & ((1 << to_a_half) - 1));
        write!(f, "{:08X}{high:08X}{low:08X}", self.timeline.0)
    }
}

/// One line of a `.history` file: `parent` ended at `switched_at`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The timeline that ended.
    pub parent: Timeline,
    /// The first position that belongs to the next timeline.
    pub switched_at: Lsn,
    /// PostgreSQL's words, such as `no recovery target specified`.
    pub reason: String,
}

/// The ancestry of one timeline, oldest first (the content of its `.history` file).
///
/// Timeline 1 has an empty history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TimelineHistory(pub Vec<Switch>);

impl TimelineHistory {
    /// Reads a `.history` file. Blank lines and comments are skipped, as PostgreSQL does (`readTimeLineHistory`).
    pub fn parse(text: &str) -> Result<Self, ParseHistoryError> {
        let mut switches = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = || ParseHistoryError { line: index + 1, text: line.to_owned() };
            let mut fields = line.splitn(3, '\t');
            let parent = fields.next().and_then(|field| field.trim().parse().ok()).ok_or_else(wrong)?;
            let switched_at = fields.next().and_then(|field| field.parse().ok()).ok_or_else(wrong)?;
            switches.push(Switch {
                parent: Timeline(parent),
                switched_at,
                reason: fields.next().unwrap_or_default().to_owned(),
            });
        }
        Ok(Self(switches))
    }

    /// Where WAL of `timeline` ceases to be part of this history; `None` if it is not an ancestor.
    ///
    /// That is not always where its successor began. A recovery to a point in time may end before the newest timeline, which it
    /// was to follow, has begun; PostgreSQL then writes that the newest one ended there (`writeTimeLineHistory` is given the
    /// target's timeline, `xlog.c` of version 15).
    pub fn end_of(&self, timeline: Timeline) -> Option<Lsn> {
        self.from(timeline)?.iter().map(|switch| switch.switched_at).min()
    }

    /// Whether `pg_rewind` finds where data of `timeline` has left this history: it goes by where the successor began
    /// (`findCommonAncestorTimeline`).
    pub fn shows_end_of(&self, timeline: Timeline) -> bool {
        let rises = |switches: &[Switch]| switches.is_sorted_by_key(|switch| switch.switched_at);
        match self.from(timeline) {
            Some(switches) => switches.iter().map(|switch| switch.switched_at).min() == Some(switches[0].switched_at),
            None => rises(&self.0),
        }
    }

    /// From the end of `timeline` on.
    fn from(&self, timeline: Timeline) -> Option<&[Switch]> {
        let index = self.0.iter().position(|switch| switch.parent == timeline)?;
        self.0.get(index..)
    }
}

/// A line of a `.history` file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the timeline history is not `timeline<TAB>position<TAB>reason`: `{text}`")]
pub struct ParseHistoryError {
    /// 1-based line number.
    pub line: usize,
    /// The line.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lsn_survives_text(raw: u64) {
            prop_assert_eq!(Lsn(raw).to_string().parse::<Lsn>(), Ok(Lsn(raw)));
        }

        #[test]
        fn lsn_parser_never_panics(text in ".*") {
            let _ = text.parse::<Lsn>();
            let _ = TimelineHistory::parse(&text);
            let _ = Segment::parse(&text);
        }

        #[test]
        fn a_segment_survives_its_name(timeline: u32, position: u64) {
            let segment = Segment::of(Timeline(timeline), Lsn(position));
            prop_assert_eq!(Segment::parse(&segment.to_string()), Some(segment));
            prop_assert!(segment.covers(Lsn(position)));
        }

        #[test]
        fn segments_sort_as_their_names_do(one: (u32, u64), other: (u32, u64)) {
            let [one, other] = [one, other].map(|(timeline, at)| Segment::of(Timeline(timeline), Lsn(at)));
            prop_assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
        }
    }

    #[test]
    fn lsn_refuses_what_postgres_refuses() {
        for text in ["", "/", "1", "1/", "/1", "g/0", "123456789/0", "1/2/3", "+1/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn a_segment_has_the_name_that_postgres_gives_it() {
        let segment = Segment::of(Timeline(3), Lsn(0x1_194F_A7E0));
        assert_eq!(segment.to_string(), "000000030000000100000019");
        assert_eq!(segment.end(), Lsn(0x1_1A00_0000));
        for other in
            ["00000003.history", "0000000300000001000001FF", "000000030000000100000019.partial", "backup_label"]
        {
            assert_eq!(Segment::parse(other), None, "{other}");
        }
    }

    #[test]
    fn history_finds_where_a_timeline_ended() {
        let history = TimelineHistory::parse("1\t0/5000098\tno recovery target specified\n\n2\t0/70000A0\tx\n");
        let history = history.unwrap();
        assert_eq!(history.end_of(Timeline(2)), Some(Lsn(0x0700_00A0)));
        assert_eq!(history.end_of(Timeline(3)), None);
        assert!([1, 2, 3].map(Timeline).into_iter().all(|timeline| history.shows_end_of(timeline)));
    }

    /// Recovered along timeline 2 to a time before that began.
    #[test]
    fn a_history_may_end_before_it_began() {
        let text = "1\t0/B0000A0\tno recovery target specified\n2\t0/A000100\tbefore 2026-11-26 05:37:39+00\n";
        let history = TimelineHistory::parse(text).unwrap();
        let end = Some(Lsn(0x0A00_0100));
        assert_eq!([1, 2, 3].map(|timeline| history.end_of(Timeline(timeline))), [end, end, None]);
        assert_eq!([1, 2, 3].map(|timeline| history.shows_end_of(Timeline(timeline))), [false, true, false]);
    }
}
