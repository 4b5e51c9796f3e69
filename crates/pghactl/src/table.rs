//! Rows for people and for programs: a bordered table, tab-separated values, JSON or YAML.

use clap::ValueEnum;
use serde_json::{Map, Value};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table with borders.
    Pretty,
    /// Tab-separated values.
    Tsv,
    /// One JSON array.
    Json,
    /// One YAML sequence.
    #[value(alias = "yml")]
    Yaml,
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Its name for programs.
    pub(crate) name: &'static str,
    /// Its heading in a bordered table.
    pub(crate) heading: &'static str,
    /// Numbers stand at the right.
    pub(crate) right: bool,
}

/// A column of text.
pub(crate) const fn left(name: &'static str) -> Column {
    Column { name, heading: name, right: false }
}

/// A column of numbers.
pub(crate) const fn right(name: &'static str) -> Column {
    Column { name, heading: name, right: true }
}

/// Rows, the same for all formats. `Value::Null` is an empty place.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    /// Stands in the upper border.
    pub(crate) title: Option<String>,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<Value>>,
    /// Programs are not shown empty places.
    pub(crate) skip_empty: bool,
    /// Columns at the left that only programs are shown, because the title says the same.
    pub(crate) hidden: usize,
}

impl Table {
    /// The rows as text, without a line break at the end.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Pretty => self.pretty(true),
            Format::Tsv => self.tsv(),
            Format::Json => Value::Array(self.objects()).to_string(),
            Format::Yaml => yaml_sequence(&self.objects()),
        }
    }

    /// The bordered table; a place with several parts takes several lines if `tall`.
    pub(crate) fn pretty(&self, tall: bool) -> String {
        let columns = self.columns.get(self.hidden..).unwrap_or_default();
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| row.iter().skip(self.hidden).map(|value| shown(value, tall)).collect())
            .collect();
        let widths: Vec<usize> = columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let places = rows.iter().filter_map(|row| row.get(index));
                let longest = places.flat_map(|text| text.lines()).map(width).max();
                longest.unwrap_or(0).max(width(column.heading))
            })
            .collect();
        let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        let rule = format!("+{}+", dashes.join("+"));
        let between = rows.iter().flatten().any(|text| text.contains('\n'));

        let headings: Vec<String> = columns.iter().map(|column| column.heading.to_owned()).collect();
        let mut lines = vec![self.upper_border(&rule)];
        lines.extend(row_lines(columns, &widths, &headings));
        lines.push(rule.clone());
        for (index, row) in rows.iter().enumerate() {
            if between && index > 0 {
                lines.push(rule.clone());
            }
            lines.extend(row_lines(columns, &widths, row));
        }
        lines.push(rule);
        lines.join("\n")
    }

    fn upper_border(&self, rule: &str) -> String {
        let Some(title) = &self.title else {
            return rule.to_owned();
        };
        // Borders are ASCII; a title longer than its place is cut.
        let title: String = title.chars().take(rule.len().saturating_sub(2)).collect();
        let rest = rule.get(1 + width(&title)..).unwrap_or_default();
        format!("+{title}{rest}")
    }

    fn tsv(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| column.name.to_owned()).collect();
        let rows = self.rows.iter().map(|row| {
            let places = row.iter().map(|value| shown(value, false));
            places.collect::<Vec<_>>()
        });
        let lines = std::iter::once(names).chain(rows).map(|row| {
            let clean = row.iter().map(|text| text.replace(['\t', '\n'], " "));
            clean.collect::<Vec<_>>().join("\t")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn objects(&self) -> Vec<Value> {
        let object = |row: &Vec<Value>| {
            let places = self.columns.iter().zip(row);
            let kept = places.filter(|(_, value)| !(self.skip_empty && value.is_null()));
            let entries = kept.map(|(column, value)| {
                let value = if value.is_null() { Value::from("") } else { value.clone() };
                (column.name.to_owned(), value)
            });
            Value::Object(entries.collect())
        };
        self.rows.iter().map(object).collect()
    }
}

fn row_lines(columns: &[Column], widths: &[usize], row: &[String]) -> Vec<String> {
    let height = row.iter().map(|text| text.lines().count()).max().unwrap_or(1).max(1);
    let line = |at: usize| {
        let places = columns.iter().zip(widths).zip(row).map(|((column, width), text)| {
            let part = text.lines().nth(at).unwrap_or_default();
            if column.right { format!("| {part:>width$} ") } else { format!("| {part:<width$} ") }
        });
        places.collect::<String>() + "|"
    };
    (0..height).map(line).collect()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A value in a table: an object as YAML, over several lines if `tall`.
fn shown(value: &Value, tall: bool) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(object) if tall => yaml_block(object).join("\n"),
        other => yaml_flow(other),
    }
}

fn yaml_sequence(objects: &[Value]) -> String {
    let mut lines = Vec::new();
    for object in objects.iter().filter_map(Value::as_object) {
        for (index, line) in yaml_block(object).into_iter().enumerate() {
            lines.push(format!("{} {line}", if index == 0 { "-" } else { " " }));
        }
    }
    if lines.is_empty() { "[]".to_owned() } else { lines.join("\n") }
}

/// One line per entry, in the order of their names; objects that are not empty are indented.
fn yaml_block(object: &Map<String, Value>) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, value) in sorted(object) {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                lines.push(format!("{}:", yaml_text(key)));
                lines.extend(yaml_block(inner).into_iter().map(|line| format!("  {line}")));
            }
            _ => lines.push(format!("{}: {}", yaml_text(key), yaml_flow(value))),
        }
    }
    lines
}

fn yaml_flow(value: &Value) -> String {
    match value {
        Value::String(text) => yaml_text(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(yaml_flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(object) => {
            let entries = sorted(object).into_iter();
            let entries: Vec<String> =
                entries.map(|(key, value)| format!("{}: {}", yaml_text(key), yaml_flow(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        plain => plain.to_string(),
    }
}

fn sorted(object: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// Text as a YAML scalar: plain where no reader can take it for something else, else in double quotes (which are
/// JSON's).
fn yaml_text(text: &str) -> String {
    const WORDS: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.' | '/');
    let safe = begins
        && text.chars().all(plain)
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if safe { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn history() -> Table {
        Table {
            title: None,
            columns: vec![right("TL"), right("LSN"), left("Reason"), left("Timestamp"), left("New Leader")],
            rows: vec![
                vec![
                    json!(1),
                    json!(25_623_960),
                    json!("no recovery target specified"),
                    json!("2019-09-23T16:57:57+02:00"),
                    json!("postgres-1"),
                ],
                vec![json!(10), json!(256_239_600), json!("x"), Value::Null, Value::Null],
            ],
            skip_empty: false,
            hidden: 0,
        }
    }

    #[test]
    fn tables_have_borders() {
        let expected = "\
+----+-----------+------------------------------+---------------------------+------------+
| TL |       LSN | Reason                       | Timestamp                 | New Leader |
+----+-----------+------------------------------+---------------------------+------------+
|  1 |  25623960 | no recovery target specified | 2019-09-23T16:57:57+02:00 | postgres-1 |
| 10 | 256239600 | x                            |                           |            |
+----+-----------+------------------------------+---------------------------+------------+";
        assert_eq!(history().render(Format::Pretty), expected);
    }

    #[test]
    fn programs_get_every_place() {
        assert_eq!(
            history().render(Format::Tsv),
            "TL\tLSN\tReason\tTimestamp\tNew Leader\n\
             1\t25623960\tno recovery target specified\t2019-09-23T16:57:57+02:00\tpostgres-1\n\
             10\t256239600\tx\t\t"
        );
        assert_eq!(
            history().render(Format::Json),
            concat!(
                r#"[{"TL":1,"LSN":25623960,"Reason":"no recovery target specified","#,
                r#""Timestamp":"2019-09-23T16:57:57+02:00","New Leader":"postgres-1"},"#,
                r#"{"TL":10,"LSN":256239600,"Reason":"x","Timestamp":"","New Leader":""}]"#
            )
        );
        assert_eq!(
            history().render(Format::Yaml),
            "- LSN: 25623960\n  New Leader: postgres-1\n  Reason: no recovery target specified\n  TL: 1\n  \
             Timestamp: \"2019-09-23T16:57:57+02:00\"\n\
             - LSN: 256239600\n  New Leader: \"\"\n  Reason: x\n  TL: 10\n  Timestamp: \"\""
        );
    }

    #[test]
    fn a_title_is_cut_to_its_place() {
        let mut table = Table {
            title: Some(" A title ".to_owned()),
            columns: vec![left("X")],
            rows: Vec::new(),
            skip_empty: false,
            hidden: 0,
        };
        assert_eq!(table.pretty(true), "+ A +\n| X |\n+---+\n+---+");
        table.columns = vec![left("Longer than it")];
        assert!(table.pretty(true).starts_with("+ A title -------+\n"));
    }

    #[test]
    fn yaml_is_quoted_where_it_must_be() {
        for (text, expected) in [
            ("db1", "db1"),
            ("on", "\"on\""),
            ("5", "\"5\""),
            ("a: b", "\"a: b\""),
            ("", "\"\""),
            ("a\nb", "\"a\\nb\""),
            ("0/5", "\"0/5\""),
        ] {
            assert_eq!(yaml_text(text), expected);
        }
    }
}
