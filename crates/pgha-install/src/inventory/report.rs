//! Draws what is wrong with an inventory: file, line, column, the text itself with a caret, and what was expected.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// An inventory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The file cannot be read.
    #[error("error: cannot read the inventory {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file says something that cannot be; the text is the drawn report.
    #[error("{0}")]
    Wrong(String),
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    /// What is wrong.
    pub(super) title: String,
    /// Where, if it is at a place, with the words under the caret.
    pub(super) place: Option<(Range<usize>, String)>,
    /// A second place that matters.
    pub(super) other: Option<(Range<usize>, String)>,
    /// What to write instead.
    pub(super) help: String,
}

impl InventoryError {
    /// An error of the TOML reader.
    pub(super) fn syntax(name: &str, text: &str, error: &toml::de::Error) -> Self {
        let mut lines = error.message().trim().lines();
        let title = lines.next().unwrap_or("not TOML").to_owned();
        let help = lines.collect::<Vec<_>>().join("; ");
        let span = error.span().unwrap_or(0..0);
        let problem = Problem {
            place: Some((span, String::new())),
            other: None,
            title,
            help: if help.is_empty() { "docs/install.md lists every section and key".to_owned() } else { help },
        };
        Self::semantic(name, text, &[problem])
    }

    /// Errors found after reading.
    pub(super) fn semantic(name: &str, text: &str, problems: &[Problem]) -> Self {
        let mut report = String::new();
        for problem in problems {
            if !report.is_empty() {
                report.push('\n');
            }
            draw(&mut report, name, text, problem);
        }
        Self::Wrong(report.trim_end().to_owned())
    }
}

fn draw(report: &mut String, name: &str, text: &str, problem: &Problem) {
    let title = match &problem.place {
        Some(_) => problem.title.clone(),
        None => format!("{name}: {}", problem.title),
    };
    let mut group = Group::with_title(Level::ERROR.primary_title(title));
    if let Some((span, label)) = &problem.place {
        let mut snippet = Snippet::source(text)
            .path(name)
            .annotation(AnnotationKind::Primary.span(clamp(text, span)).label(label.as_str()));
        if let Some((other, label)) = &problem.other {
            snippet = snippet.annotation(AnnotationKind::Context.span(clamp(text, other)).label(label.as_str()));
        }
        group = group.element(snippet);
    }
    group = group.element(Level::HELP.message(problem.help.as_str()));
    report.push_str(&Renderer::plain().render(&[group]));
    report.push('\n');
}

/// A span inside `text`, at least one byte long where there is one.
fn clamp(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = span.start.min(text.len());
    start..span.end.clamp(start, text.len())
}
