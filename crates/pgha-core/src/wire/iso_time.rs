//! Times of the wall clock with their offset, as Python's `isoformat` prints them.

use std::fmt;
use std::str::FromStr;

use jiff::fmt::temporal::{Pieces, PiecesOffset};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, civil};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment, and the offset from UTC in which it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsoTime {
    /// The moment.
    pub at: Timestamp,
    /// How it is written.
    pub offset: Offset,
}

impl IsoTime {
    /// A moment, written in UTC.
    pub fn utc(at: Timestamp) -> Self {
        Self { at, offset: Offset::UTC }
    }
}

/// Text that is not a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIsoTimeError {
    /// Not a date with a time.
    #[error("`{0}` is not a time (expected a form like 2026-01-01T10:00:00+00:00)")]
    Malformed(String),
    /// Which moment it means depends on the reader.
    #[error("`{0}` does not say its offset from UTC (expected a form like 2026-01-01T10:00:00+00:00)")]
    NoOffset(String),
}

impl FromStr for IsoTime {
    type Err = ParseIsoTimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseIsoTimeError::Malformed(text.to_owned());
        let pieces = Pieces::parse(text).map_err(|_| malformed())?;
        let time = pieces.time().ok_or_else(malformed)?;
        let offset = match pieces.offset() {
            None => return Err(ParseIsoTimeError::NoOffset(text.to_owned())),
            Some(PiecesOffset::Zulu) => Offset::UTC,
            Some(PiecesOffset::Numeric(numeric)) => numeric.offset(),
            Some(_) => return Err(malformed()),
        };
        let at = offset.to_timestamp(civil::DateTime::from_parts(pieces.date(), time)).map_err(|_| malformed())?;
        Ok(Self { at, offset })
    }
}

impl fmt::Display for IsoTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zoned = self.at.to_zoned(TimeZone::fixed(self.offset));
        let form = if zoned.microsecond() == 0 && zoned.millisecond() == 0 {
            "%Y-%m-%dT%H:%M:%S%:z"
        } else {
            "%Y-%m-%dT%H:%M:%S.%6f%:z"
        };
        zoned.strftime(form).fmt(f)
    }
}

impl Serialize for IsoTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IsoTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn python_reads_what_is_printed() {
        for text in ["2026-01-01T10:00:00+00:00", "2019-09-23T16:57:57+02:00", "2019-09-23T16:57:57.123456-03:30"] {
            assert_eq!(text.parse::<IsoTime>().unwrap().to_string(), text);
        }
        let zulu: IsoTime = "2026-01-01T10:00:00Z".parse().unwrap();
        assert_eq!(zulu.to_string(), "2026-01-01T10:00:00+00:00");
        let spaced: IsoTime = "2024-08-28 19:39:26.352526+00:00".parse().unwrap();
        assert_eq!(spaced.to_string(), "2024-08-28T19:39:26.352526+00:00");
    }

    #[test]
    fn a_missing_offset_is_told_apart() {
        let no_offset = |text: &str| matches!(text.parse::<IsoTime>(), Err(ParseIsoTimeError::NoOffset(_)));
        assert!(no_offset("2026-01-01T10:00:00"));
        for malformed in ["", "tomorrow", "2026-01-01", "2026-13-01T10:00:00Z"] {
            assert!(matches!(malformed.parse::<IsoTime>(), Err(ParseIsoTimeError::Malformed(_))), "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn the_parser_never_panics(text in "\\PC*") {
            let _ = text.parse::<IsoTime>();
        }

        #[test]
        fn near_misses_never_panic(text in "[-+]?[0-9]{4,6}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?([-+][0-9]{2}:[0-9]{2}|Z)") {
            if let Ok(time) = text.parse::<IsoTime>() {
                let _ = time.to_string();
            }
        }
    }
}
