//! What a comparison came to, for readers (Markdown) and programs (JSON).

use std::fmt::Write as _;

use super::{Figures, Rest, SUBJECTS, Subject, Usage};

/// One subject on one side.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Entry {
    /// The subject's name on command lines.
    pub slug: &'static str,
    /// What was measured; `None` where it could not be.
    pub figures: Option<Figures>,
    /// Why it could not.
    pub error: Option<String>,
}

impl Entry {
    /// A subject that was measured.
    pub fn new(subject: &Subject, result: crate::Result<Figures>) -> Self {
        let (figures, error) = match result {
            Ok(figures) => (Some(figures), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { slug: subject.slug, figures, error }
    }
}

/// All that was measured of one kind of software with one kind of settings.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Side {
    /// For readers.
    pub name: &'static str,
    /// In the order in which they were played.
    pub entries: Vec<Entry>,
    /// What it needs.
    pub rest: Option<Rest>,
}

impl Side {
    /// Nothing is measured yet.
    pub fn new(name: &'static str) -> Self {
        Self { name, entries: Vec::new(), rest: None }
    }

    /// Whether all of it could be measured, and nothing was lost.
    pub fn holds(&self) -> bool {
        self.entries.iter().all(|entry| entry.figures.as_ref().is_some_and(|figures| figures.lost == 0))
    }

    fn entry(&self, slug: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.slug == slug)
    }
}

/// The comparison.
#[derive(Debug, Default, serde::Serialize)]
pub struct Report {
    /// The version of the peer.
    pub peer: &'static str,
    /// Ours first: the others are measured by it.
    pub sides: Vec<Side>,
    /// Why a side, or part of it, is missing.
    pub missing: Vec<String>,
}

impl Report {
    /// For readers.
    pub fn markdown(&self) -> String {
        let mut text = "# Comparison\n\n\
            Four clients write single rows through the balancer and reconnect when something fails. Seconds: the longest \
            time between two acknowledged commits of all clients, from before the fault until the cluster is complete \
            again; in the last row, from switching the host on to its database as a standby that streams. The ratio is to \
            the first column. *Lost*: rows that were acknowledged and are not there afterwards, of each in turn.\n\n"
            .to_owned();
        if self.sides.len() > 1 {
            let _infallible = writeln!(text, "The peer is Patroni {}.\n", self.peer);
        }
        for missing in &self.missing {
            let _infallible = writeln!(text, "{missing}\n");
        }
        self.faults(&mut text);
        self.needs(&mut text);
        text
    }

    fn faults(&self, text: &mut String) {
        let mut header = "| fault |".to_owned();
        let mut line = "|---|".to_owned();
        for (number, side) in self.sides.iter().enumerate() {
            header += &format!(" {}, s |", side.name);
            line += "---:|";
            if number > 0 {
                header += " ratio |";
                line += "---:|";
            }
        }
        *text += &format!("{header} lost |\n{line}---:|\n");
        let mut failures = Vec::new();
        for Subject { slug, name, .. } in &SUBJECTS {
            let entries: Vec<_> = self.sides.iter().map(|side| side.entry(slug)).collect();
            if entries.iter().all(Option::is_none) {
                continue;
            }
            let figures: Vec<_> = entries.iter().map(|entry| entry.and_then(|entry| entry.figures.as_ref())).collect();
            let seconds = |side: usize| figures.get(side)?.map(|figures| figures.seconds);
            let mut row = format!("| {name} |");
            for number in 0..figures.len() {
                row += &seconds(number).map_or(" – |".to_owned(), |seconds| format!(" {seconds:.2} |"));
                if number > 0 {
                    let ratio = ratio(seconds(number), seconds(0));
                    row += &ratio.map_or(" – |".to_owned(), |ratio| format!(" {ratio:.1} |"));
                }
            }
            for (side, entry) in self.sides.iter().zip(&entries) {
                if let Some(error) = entry.and_then(|entry| entry.error.as_ref()) {
                    failures.push(format!("{}, {name}: {}", side.name, error.replace('\n', " ")));
                }
            }
            let lost =
                figures.iter().map(|figures| figures.map_or("–".to_owned(), |figures| figures.lost.to_string()));
            *text += &format!("{row} {} |\n", lost.collect::<Vec<_>>().join(", "));
        }
        for failure in failures {
            *text += &format!("\n**Not measured**: {failure}\n");
        }
    }

    fn needs(&self, text: &mut String) {
        if self.sides.iter().all(|side| side.rest.is_none()) {
            return;
        }
        *text += "\nAt rest, without clients: resident memory of the agent (and of what else stays beside Postgres and \
                  ZooKeeper), and its processor time in percent of one core, over a minute.\n\n\
                  | | processes | memory, MiB | processor, % | on a standby: memory, MiB | processor, % |\n\
                  |---|---:|---:|---:|---:|---:|\n";
        for Side { name, rest, .. } in &self.sides {
            if let Some(Rest { primary, standby }) = rest {
                let Usage { processes, memory, processor } = primary;
                *text += &format!(
                    "| {name} | {processes} | {memory:.1} | {processor:.2} | {:.1} | {:.2} |\n",
                    standby.memory, standby.processor
                );
            }
        }
    }
}

/// How many times longer; there is no multiple of nothing.
fn ratio(seconds: Option<f64>, first: Option<f64>) -> Option<f64> {
    let (seconds, first) = (seconds?, first?);
    (first > 0.0).then_some(seconds / first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &'static str, seconds: f64, lost: usize) -> Side {
        let figures = Figures { seconds, acknowledged: 1000, lost, told: "db2 took over".to_owned() };
        Side { entries: vec![Entry::new(&SUBJECTS[0], Ok(figures))], ..Side::new(name) }
    }

    #[test]
    fn each_side_is_measured_by_the_first() {
        let report = Report { peer: "4", sides: vec![side("pgha", 2.0, 0), side("Patroni", 5.0, 3)], missing: vec![] };
        let text = report.markdown();
        assert!(
            text.contains("| fault | pgha, s | Patroni, s | ratio | lost |\n|---|---:|---:|---:|---:|\n"),
            "{text}"
        );
        assert!(text.contains("| planned switchover | 2.00 | 5.00 | 2.5 | 0, 3 |\n"), "{text}");
        assert!(report.sides[0].holds() && !report.sides[1].holds());
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut other = Side::new("Patroni");
        let error = crate::Error::State("it\nfailed".to_owned());
        other.entries.push(Entry::new(&SUBJECTS[0], Err(error)));
        let missing = vec!["Nothing came.".to_owned()];
        let text = Report { peer: "4", sides: vec![side("pgha", 0.0, 0), other], missing }.markdown();
        assert!(text.contains("| planned switchover | 0.00 | – | – | 0, – |\n"), "{text}");
        assert!(text.contains("Nothing came.") && text.contains("Patroni, planned switchover: it failed"), "{text}");
    }
}
