//! An agent's metrics, as a monitoring system reads them.

use std::collections::HashMap;

/// The values of one answer by name. Their labels only say whose they are, which the asker knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics(HashMap<String, u64>);

impl Metrics {
    /// Reads the text format of Prometheus; what is no whole number is passed over.
    pub(crate) fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            let name = name.split_once('{').map_or(name, |(name, _)| name);
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_whatever_their_labels() {
        let text = "# HELP pgha_epoch Number.\n# TYPE pgha_epoch gauge\n\
                    pgha_epoch{scope=\"main\",name=\"db1\"} 5\nplain 7\nhalf 0.5\n\nnonsense\n";
        let metrics = Metrics::parse(text);
        assert_eq!((metrics.get("pgha_epoch"), metrics.get("plain")), (Some(5), Some(7)));
        assert_eq!((metrics.get("half"), metrics.get("nonsense")), (None, None));
    }
}
