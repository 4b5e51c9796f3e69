//! `list`, `topology` and `history`: what there is, as rows.

use pgha_core::wire::History;
use serde_json::{Value, json};

use crate::agents::{Snapshot, ask_each};
use crate::cli::{List, Output, Watch};
use crate::failure::Failure;
use crate::members::{self, Style};
use crate::screen;
use crate::settings::Settings;
use crate::table::{Format, Table, left, right};

/// `pghactl list`.
pub(super) async fn list(settings: &Settings, arguments: &List) -> Result<(), Failure> {
    let style = Style { format: arguments.output.format, tree: false, extended: arguments.extended };
    again_and_again(settings, &arguments.watch, style).await
}

/// `pghactl topology`.
pub(super) async fn topology(settings: &Settings, watch: &Watch) -> Result<(), Failure> {
    let style = Style { format: Format::Pretty, tree: true, extended: false };
    again_and_again(settings, watch, style).await
}

async fn again_and_again(settings: &Settings, watch: &Watch, style: Style) -> Result<(), Failure> {
    let Some(pause) = watch.pause() else {
        let snapshot = Snapshot::take(settings).await?;
        screen::say(&members::render(&snapshot.view, snapshot.system_id, style))?;
        return snapshot.warn_of_unanswered();
    };
    loop {
        // Whoever watches an outage wants to see its end: no answer is shown and not the end.
        let shown = match Snapshot::take(settings).await {
            Ok(snapshot) => {
                let notes = snapshot.unanswered.iter().map(|agent| format!("\npghactl: {agent}"));
                members::render(&snapshot.view, snapshot.system_id, style) + &notes.collect::<String>()
            }
            Err(failure) => format!("pghactl: {failure}"),
        };
        screen::clear()?;
        screen::say(&shown)?;
        tokio::time::sleep(pause.duration()).await;
    }
}

/// `pghactl history`.
pub(super) async fn history(settings: &Settings, output: &Output) -> Result<(), Failure> {
    let answers = ask_each(&settings.agents, |agent| async move { agent.history().await }).await;
    let mut unanswered = Vec::new();
    let mut longest: Option<History> = None;
    for (_, answer) in answers {
        match answer {
            Ok(history) => {
                if longest.as_ref().is_none_or(|longest| longest.timeline() < history.timeline()) {
                    longest = Some(history);
                }
            }
            Err(error) => unanswered.push(error),
        }
    }
    let Some(history) = longest else {
        return Err(Failure::NoAnswer(unanswered));
    };
    let rows = history.0.iter().map(|line| {
        vec![
            json!(line.timeline),
            json!(line.switched_at),
            json!(line.reason),
            line.at.as_deref().map_or(Value::Null, Value::from),
            line.new_leader.as_deref().map_or(Value::Null, Value::from),
        ]
    });
    let table = Table {
        title: None,
        columns: vec![right("TL"), right("LSN"), left("Reason"), left("Timestamp"), left("New Leader")],
        rows: rows.collect(),
        skip_empty: false,
        hidden: 0,
    };
    screen::say(&table.render(output.format))?;
    Ok(())
}
