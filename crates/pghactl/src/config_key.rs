//! `KEY=VALUE` of `pghactl config set`, and the patch it stands for.

use serde_json::{Map, Value};

/// Below this, a name is one Postgres setting, dots and all (`pg_stat_statements.max`).
const PARAMETERS: &str = "postgresql.parameters.";

/// One setting to change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Assignment {
    path: Vec<String>,
    /// `null` removes the setting.
    value: Value,
}

impl std::str::FromStr for Assignment {
    type Err = String;

    /// The value is JSON where it can be read as JSON, else text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, as in synchronous_node_count=2")?;
        let path: Vec<String> = match key.strip_prefix(PARAMETERS) {
            Some(parameter) => vec!["postgresql".to_owned(), "parameters".to_owned(), parameter.to_owned()],
            None => key.split('.').map(str::to_owned).collect(),
        };
        if path.iter().any(String::is_empty) {
            return Err(format!("`{key}` has an empty part"));
        }
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        Ok(Self { path, value })
    }
}

impl Assignment {
    /// The key, with dots.
    pub(crate) fn key(&self) -> String {
        self.path.join(".")
    }

    /// Puts the assignment into a patch.
    pub(crate) fn add_to(&self, patch: &mut Map<String, Value>) {
        let Some((last, above)) = self.path.split_last() else {
            return;
        };
        let mut place = patch;
        for part in above {
            let inner = place.entry(part).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            let Value::Object(object) = inner else { return };
            place = object;
        }
        place.insert(last.clone(), self.value.clone());
    }

    /// What `settings` hold under the key; `None`: nothing.
    pub(crate) fn value_in<'a>(&self, settings: &'a Map<String, Value>) -> Option<&'a Value> {
        let (first, rest) = self.path.split_first()?;
        let mut value = settings.get(first)?;
        for part in rest {
            value = value.get(part)?;
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patch(assignments: &[&str]) -> Value {
        let mut patch = Map::new();
        for text in assignments {
            text.parse::<Assignment>().unwrap().add_to(&mut patch);
        }
        Value::Object(patch)
    }

    #[test]
    fn assignments_become_one_patch() {
        assert_eq!(
            patch(&[
                "pause=null",
                "synchronous_mode=quorum",
                "postgresql.other=false",
                "postgresql.parameters.work_mem=8MB",
                "postgresql.parameters.pg_stat_statements.max=5000",
                "postgresql.parameters.search_path=\"$user\", public",
            ]),
            json!({"pause": null, "synchronous_mode": "quorum", "postgresql": {"other": false, "parameters": {
                "work_mem": "8MB", "pg_stat_statements.max": 5000, "search_path": "\"$user\", public"}}})
        );
        assert_eq!(patch(&["a=1", "a.b=2"]), json!({"a": {"b": 2}}));
    }

    #[test]
    fn what_is_no_assignment_is_refused() {
        for bad in ["pause", "=1", "a..b=1", "postgresql.parameters.=1"] {
            assert!(bad.parse::<Assignment>().is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_found() {
        let settings = json!({"postgresql": {"parameters": {"a.b": 1}}});
        let assignment: Assignment = "postgresql.parameters.a.b=2".parse().unwrap();
        assert_eq!(assignment.value_in(settings.as_object().unwrap()), Some(&json!(1)));
        assert_eq!(assignment.key(), "postgresql.parameters.a.b");
    }
}
