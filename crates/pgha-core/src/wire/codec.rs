//! The way all documents are read from and written to bytes, and scalars that peers spell in several ways.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::WireError;
use crate::lsn::Lsn;
use crate::time::Millis;

/// Gives a type `parse` and `render`.
macro_rules! document {
    ($type:ty, $name:literal, $expected:literal) => {
        impl $type {
            /// Reads the document.
            pub fn parse(bytes: &[u8]) -> Result<Self, $crate::wire::WireError> {
                $crate::wire::codec::read($name, $expected, bytes)
            }

            /// Writes the document in Patroni's compact form.
            pub fn render(&self) -> Vec<u8> {
                $crate::wire::codec::write(self)
            }
        }
    };
}
pub(super) use document;

/// Reads JSON by way of [`Value`], so that a repeated key counts once (the last one, as in Python) and is no error.
pub(super) fn read<T: DeserializeOwned>(
    document: &'static str,
    expected: &'static str,
    bytes: &[u8],
) -> Result<T, WireError> {
    serde_json::from_slice::<Value>(bytes).and_then(serde_json::from_value).map_err(|error| WireError {
        document,
        expected,
        problem: error.to_string(),
    })
}

/// Writes compact JSON.
#[expect(
    clippy::expect_used,
    reason = "serializing fails only for maps whose keys are not text, and no document has one"
)]
pub(super) fn write<T: Serialize>(document: &T) -> Vec<u8> {
    serde_json::to_vec(document).expect("documents have text for keys")
}

/// Text from a string, number or boolean, as Postgres spells them; `None` for anything else.
pub(super) fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(true) => Some("on".to_owned()),
        Value::Bool(false) => Some("off".to_owned()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A boolean, or a word that Patroni takes for one.
pub(super) fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Some(true),
            "off" | "false" | "no" | "0" => Some(false),
            _ => None,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A whole number of 0 or more, or text that holds one.
pub(super) fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(digits) => digits.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A whole number of seconds.
pub(super) fn seconds(value: &Value) -> Option<Millis> {
    let seconds = whole_number(value)?;
    seconds.checked_mul(1000).map(Millis)
}

/// For `deserialize_with`: a position as a number, or as text that holds a number.
pub(super) fn position<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Lsn>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    match &value {
        Value::Null => Ok(None),
        other => match whole_number(other) {
            Some(number) => Ok(Some(Lsn(number))),
            None => Err(D::Error::custom(format_args!("a WAL position is not a number: {other}"))),
        },
    }
}

/// For `skip_serializing_if`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
pub(super) fn is_false(value: &bool) -> bool {
    !value
}
