//! Znode `config`: the settings of the whole cluster, changed with `PATCH /config`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::codec::{self, scalar_text, seconds, truth, whole_number};
use super::{WireError, merge_patch};
use crate::name::SlotName;
use crate::observation::PermanentSlot;
use crate::time::Millis;

/// The settings of the whole cluster: the document as it stands, and what pgha reads in it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    raw: Map<String, Value>,
    settings: ClusterSettings,
    warnings: Vec<String>,
    unread: Vec<String>,
}

/// Whether commits wait for standbys, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SynchronousMode {
    /// They do not wait.
    #[default]
    Off,
    /// They wait for named standbys.
    On,
    /// They wait for any so many of them.
    Quorum,
}

impl Serialize for SynchronousMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::On => serializer.serialize_bool(true),
            Self::Quorum => serializer.serialize_str("quorum"),
        }
    }
}

impl<'de> Deserialize<'de> for SynchronousMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom(format_args!("expected true, false or \"quorum\", not {value}"));
        synchronous_mode(&value).ok_or_else(wrong)
    }
}

/// What pgha reads in the cluster's settings. A field is the default where the document is silent or wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSettings {
    /// A standby further behind (bytes) does not take over.
    pub maximum_lag_on_failover: u64,
    /// A standby further behind (bytes) is not waited for; `None`: however far.
    pub maximum_lag_on_syncnode: Option<u64>,
    /// Whether commits wait for standbys.
    pub synchronous_mode: SynchronousMode,
    /// They wait even when no standby is there.
    pub synchronous_mode_strict: bool,
    /// For how many standbys.
    pub synchronous_node_count: u32,
    /// Nobody is promoted, started or stopped.
    pub pause: bool,
    /// How long a crashed primary may take to come back before another one takes over.
    pub primary_start_timeout: Millis,
    /// How long a primary may take to stop; zero: as long as it takes.
    pub primary_stop_timeout: Millis,
    /// A primary that has lost `ZooKeeper` goes on while all members answer it.
    pub failsafe_mode: bool,
    /// How long the slot of an absent member is kept.
    pub member_slots_ttl: Millis,
    /// Slots that are there whoever leads.
    pub slots: BTreeMap<SlotName, PermanentSlot>,
    /// `postgresql.conf` settings of every member.
    pub parameters: BTreeMap<String, String>,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            maximum_lag_on_failover: 1 << 20,
            maximum_lag_on_syncnode: None,
            synchronous_mode: SynchronousMode::Off,
            synchronous_mode_strict: false,
            synchronous_node_count: 1,
            pause: false,
            primary_start_timeout: Millis::from_secs(300),
            primary_stop_timeout: Millis(0),
            failsafe_mode: false,
            member_slots_ttl: Millis::from_secs(1800),
            slots: BTreeMap::new(),
            parameters: BTreeMap::new(),
        }
    }
}

impl ClusterConfig {
    /// Reads the znode. Only a document that is not a JSON object is an error; see [`Self::warnings`] for the rest.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        codec::read("znode `config`", "a JSON object of settings", bytes).map(Self::new)
    }

    /// Settings from a JSON object.
    pub fn new(raw: Map<String, Value>) -> Self {
        let mut reader = Reader { notes: Notes::default(), prefix: "", object: &raw, read: BTreeSet::new() };
        let settings = reader.settings();
        let Notes { warnings, unread } = reader.finish();
        Self { raw, settings, warnings, unread }
    }

    /// Writes the znode: every key that was read, known or not.
    pub fn render(&self) -> Vec<u8> {
        codec::write(&self.raw)
    }

    /// The document as it stands.
    pub fn raw(&self) -> &Map<String, Value> {
        &self.raw
    }

    /// What pgha reads in it.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// One sentence for each value that could not be used.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Dotted names of the settings that pgha does not read: Patroni's others, and mistyped ones.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// The settings after a `PATCH`.
    #[must_use]
    pub fn patched(&self, patch: &Map<String, Value>) -> Self {
        let mut raw = self.raw.clone();
        merge_patch(&mut raw, patch);
        Self::new(raw)
    }
}

/// They tell `patronictl` what to expect; pgha's own timings are in `agent.toml`.
const FOR_PATRONICTL: [&str; 3] = ["ttl", "loop_wait", "retry_timeout"];

/// What a reader could not use and what it did not look at.
#[derive(Default)]
struct Notes {
    warnings: Vec<String>,
    unread: Vec<String>,
}

/// Reads one JSON object.
struct Reader<'a> {
    notes: Notes,
    prefix: &'static str,
    object: &'a Map<String, Value>,
    read: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    fn settings(&mut self) -> ClusterSettings {
        let default = ClusterSettings::default();
        let start_timeout = if self.object.contains_key("primary_start_timeout") {
            "primary_start_timeout"
        } else {
            "master_start_timeout"
        };
        let mut settings = ClusterSettings {
            maximum_lag_on_failover: self
                .get("maximum_lag_on_failover", "a number of bytes", whole_number)
                .unwrap_or(default.maximum_lag_on_failover),
            maximum_lag_on_syncnode: self
                .get("maximum_lag_on_syncnode", "a number of bytes, or -1", bytes_or_unlimited)
                .flatten(),
            synchronous_mode: self
                .get("synchronous_mode", "true, false or \"quorum\"", synchronous_mode)
                .unwrap_or(default.synchronous_mode),
            synchronous_mode_strict: self.flag("synchronous_mode_strict", default.synchronous_mode_strict),
            synchronous_node_count: self
                .get("synchronous_node_count", "a whole number of 1 or more", |value| {
                    count(value).filter(|count| *count > 0)
                })
                .unwrap_or(default.synchronous_node_count),
            pause: self.flag("pause", default.pause),
            primary_start_timeout: self
                .get(start_timeout, "a number of seconds", seconds)
                .unwrap_or(default.primary_start_timeout),
            primary_stop_timeout: self
                .get("primary_stop_timeout", "a number of seconds", seconds)
                .unwrap_or(default.primary_stop_timeout),
            failsafe_mode: self.flag("failsafe_mode", default.failsafe_mode),
            member_slots_ttl: self
                .get("member_slots_ttl", "a number of seconds", seconds)
                .unwrap_or(default.member_slots_ttl),
            ..default
        };
        for name in FOR_PATRONICTL {
            self.get(name, "a number of seconds", seconds);
        }
        // Its leader takes no writes, which nobody should believe of one that does.
        self.get("standby_cluster", "none: pgha makes no standby clusters", |_| None::<()>);
        if let Some(slots) = self.get("slots", "an object", Value::as_object) {
            let mut inner = self.inner("slots.", slots);
            for name in slots.keys() {
                if let Some((name, kind)) = inner.get(name, SLOT, |value| permanent_slot(name, value)) {
                    settings.slots.insert(name, kind);
                }
            }
            self.notes = inner.finish();
        }
        if let Some(postgresql) = self.get("postgresql", "an object", Value::as_object) {
            let mut inner = self.inner("postgresql.", postgresql);
            inner.postgresql(&mut settings);
            self.notes = inner.finish();
        }
        settings
    }

    fn postgresql(&mut self, settings: &mut ClusterSettings) {
        if let Some(parameters) = self.get("parameters", "an object", Value::as_object) {
            let mut inner = self.inner("postgresql.parameters.", parameters);
            for name in parameters.keys() {
                if let Some(text) = inner.get(name, "text, a number or a boolean", scalar_text) {
                    settings.parameters.insert(name.clone(), text);
                }
            }
            self.notes = inner.finish();
        }
    }

    fn inner(&mut self, prefix: &'static str, object: &'a Map<String, Value>) -> Self {
        Self { notes: std::mem::take(&mut self.notes), prefix, object, read: BTreeSet::new() }
    }

    fn finish(mut self) -> Notes {
        let unread = self.object.keys().filter(|key| !self.read.contains(*key));
        let named = unread.map(|key| format!("{}{key}", self.prefix));
        self.notes.unread.extend(named);
        self.notes
    }

    /// The value under `key`; `None`, with a warning unless it is absent or null, when it is not what it should be.
    fn get<T>(&mut self, key: &str, expected: &str, convert: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        self.read.insert(key.to_owned());
        let value = self.object.get(key).filter(|value| !value.is_null())?;
        let converted = convert(value);
        if converted.is_none() {
            let shown: String = value.to_string().chars().take(80).collect();
            self.notes
                .warnings
                .push(format!("cluster setting {}{key} = {shown} is ignored: expected {expected}", self.prefix));
        }
        converted
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        self.get(key, "true or false", truth).unwrap_or(default)
    }
}

const SLOT: &str = "a slot name of lower-case letters, digits and underscores, and {\"type\": \"physical\"} or \
                    {\"type\": \"logical\", \"database\": …, \"plugin\": …}";

/// Patroni's form; a slot without a type is physical.
fn permanent_slot(name: &str, value: &Value) -> Option<(SlotName, PermanentSlot)> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let kind = match (value.is_object(), text("type").as_deref()) {
        (true, None | Some("physical")) => PermanentSlot::Physical,
        (true, Some("logical")) => PermanentSlot::Logical { database: text("database")?, plugin: text("plugin")? },
        _ => return None,
    };
    Some((SlotName::parse(name)?, kind))
}

fn count(value: &Value) -> Option<u32> {
    whole_number(value).and_then(|number| u32::try_from(number).ok())
}

#[expect(clippy::option_option, reason = "the outer one: could be read; the inner one: is there a limit")]
fn bytes_or_unlimited(value: &Value) -> Option<Option<u64>> {
    if value.as_i64().is_some_and(|number| number < 0) {
        return Some(None);
    }
    whole_number(value).map(Some)
}

fn synchronous_mode(value: &Value) -> Option<SynchronousMode> {
    if value.as_str().is_some_and(|word| word.eq_ignore_ascii_case("quorum")) {
        return Some(SynchronousMode::Quorum);
    }
    truth(value).map(|on| if on { SynchronousMode::On } else { SynchronousMode::Off })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ClusterConfig {
        ClusterConfig::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn silence_means_the_default() {
        let empty = config("{}");
        assert_eq!(empty.settings(), &ClusterSettings::default());
        assert!(empty.warnings().is_empty());
        assert!(config(r#"{"pause":null,"postgresql":null}"#).warnings().is_empty());
    }

    #[test]
    fn every_spelling_of_synchronous_mode() {
        for (text, mode) in [
            ("true", SynchronousMode::On),
            ("\"on\"", SynchronousMode::On),
            ("false", SynchronousMode::Off),
            ("\"off\"", SynchronousMode::Off),
            ("\"Quorum\"", SynchronousMode::Quorum),
        ] {
            let config = config(&format!("{{\"synchronous_mode\":{text}}}"));
            assert_eq!(config.settings().synchronous_mode, mode, "{text}");
            assert!(config.warnings().is_empty());
        }
    }

    #[test]
    fn parameters_become_text() {
        let config = config(
            r#"{"postgresql":{"parameters":{"max_connections":100,"work_mem":"4MB","jit":false,"wal_log_hints":true,
                "random_page_cost":1.1,"gone":null,"odd":[1]}}}"#,
        );
        let parameters = &config.settings().parameters;
        let expected = [
            ("jit", "off"),
            ("max_connections", "100"),
            ("random_page_cost", "1.1"),
            ("wal_log_hints", "on"),
            ("work_mem", "4MB"),
        ];
        assert!(parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).eq(expected));
        assert_eq!(
            config.warnings(),
            ["cluster setting postgresql.parameters.odd = [1] is ignored: expected text, a number or a boolean"]
        );
    }

    #[test]
    fn wrong_values_fall_back_and_are_reported() {
        let config = config(
            r#"{"ttl":"soon","pause":"maybe","synchronous_node_count":0,"synchronous_mode":3,"maximum_lag_on_failover":-1,
                "standby_cluster":{"host":"a"},"postgresql":{"parameters":[]}}"#,
        );
        assert_eq!(config.settings(), &ClusterSettings::default());
        assert_eq!(config.warnings().len(), 7, "{:#?}", config.warnings());
    }

    #[test]
    fn permanent_slots_are_of_two_kinds() {
        let config = config(
            r#"{"slots":{"backup":{"type":"physical"},"cdc":{"type":"logical","database":"app","plugin":"pgoutput"},
                "BAD":{"type":"physical"},"half":{"type":"logical","database":"app"},"odd":7}}"#,
        );
        let logical = PermanentSlot::Logical { database: "app".into(), plugin: "pgoutput".into() };
        let slot = |name: &str| SlotName::parse(name).unwrap();
        assert_eq!(config.settings().slots, [(slot("backup"), PermanentSlot::Physical), (slot("cdc"), logical)].into());
        assert_eq!(config.warnings().len(), 3, "{:#?}", config.warnings());
    }

    #[test]
    fn mistyped_names_are_found() {
        let config =
            config(r#"{"ttl":30,"sycnhronous_mode":true,"postgresql":{"parameter":{},"parameters":{"jit":1}}}"#);
        assert_eq!(config.unread(), ["postgresql.parameter", "sycnhronous_mode"]);
        // What Patroni would heed is no different.
        assert_eq!(super::tests::config(r#"{"postgresql":{"use_slots":true}}"#).unread(), ["postgresql.use_slots"]);
    }

    #[test]
    fn older_names_still_count() {
        let settings = config(r#"{"master_start_timeout":"7"}"#).settings().clone();
        assert_eq!(settings.primary_start_timeout, Millis(7000));
        let both = config(r#"{"master_start_timeout":7,"primary_start_timeout":0}"#);
        assert_eq!(both.settings().primary_start_timeout, Millis(0));
    }

    #[test]
    fn a_patch_keeps_what_it_does_not_name() {
        let before = config(r#"{"zeta":1,"pause":true,"postgresql":{"parameters":{"jit":"on"},"x":{"y":2}}}"#);
        let patch = r#"{"pause":null,"postgresql":{"parameters":{"work_mem":"8MB"}}}"#;
        let after = before.patched(&serde_json::from_str(patch).unwrap());
        assert!(!after.settings().pause);
        assert_eq!(
            String::from_utf8(after.render()).unwrap(),
            r#"{"zeta":1,"postgresql":{"parameters":{"jit":"on","work_mem":"8MB"},"x":{"y":2}}}"#
        );
    }
}
