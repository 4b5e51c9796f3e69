//! The cluster's members as rows, with the columns, the words and the rounding of patronictl.

use std::collections::BTreeSet;

use pgha_core::name::SystemId;
use pgha_core::wire::ClusterView;
use pgha_core::wire::rest::{Lag, MemberView, Position};
use serde_json::{Value, json};

use crate::table::{Column, Format, Table, left, right};

const USUAL_PORT: u16 = 5432;
const LONGEST_REASON: usize = 50;

/// What a member has in a column that is left out when nobody has anything.
type OptionalColumn = fn(&MemberView, Style) -> Value;

/// How the members are shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) format: Format,
    /// Standbys stand under the member that they stream from.
    pub(crate) tree: bool,
    /// Columns that nobody has a value for are shown too.
    pub(crate) extended: bool,
}

/// The members as text, and below it what concerns the whole cluster.
pub(crate) fn render(view: &ClusterView, system_id: Option<SystemId>, style: Style) -> String {
    let table = table(view, system_id, style);
    if style.format != Format::Pretty {
        return table.render(style.format);
    }
    let mut text = table.pretty(!style.tree);
    for note in notes(view) {
        text.push_str("\n ");
        text.push_str(&note);
    }
    text
}

fn notes(view: &ClusterView) -> Vec<String> {
    let mut notes = Vec::new();
    if view.pause {
        notes.push("Maintenance mode: on".to_owned());
    }
    if let Some(switchover) = &view.scheduled_switchover {
        let mut lines = vec![format!("Switchover scheduled at: {}", switchover.at)];
        let parties = [("from", &switchover.from), ("to", &switchover.to)];
        lines.extend(parties.into_iter().filter_map(|(word, name)| Some(format!("{word:>24}: {}", name.as_ref()?))));
        notes.push(lines.join("\n"));
    }
    notes
}

fn table(view: &ClusterView, system_id: Option<SystemId>, style: Style) -> Table {
    let lag = |name| Column { name, heading: "Lag", right: true };
    let mut columns = vec![
        left("Cluster"),
        left("Member"),
        left("Host"),
        left("Role"),
        left("State"),
        right("TL"),
        right("Receive LSN"),
        lag("Receive Lag"),
        right("Replay LSN"),
        lag("Replay Lag"),
    ];
    let optional: [(&'static str, OptionalColumn); 4] = [
        ("Pending restart", |member, _| if member.pending_restart { json!("*") } else { Value::Null }),
        ("Pending restart reason", pending_restart_reason),
        ("Scheduled restart", |member, _| scheduled_restart(member)),
        ("Tags", |member, _| if member.tags.is_empty() { Value::Null } else { Value::Object(member.tags.0.clone()) }),
    ];
    let optional: Vec<_> = optional
        .into_iter()
        .filter(|(_, value)| style.extended || view.members.iter().any(|member| !value(member, style).is_null()))
        .collect();
    columns.extend(optional.iter().map(|(name, _)| left(name)));

    let with_port = ports_matter(view);
    let order = if style.tree {
        tree(view)
    } else {
        let plain = view.members.iter().map(|member| (member.name.clone(), member));
        plain.collect()
    };
    let rows = order.into_iter().map(|(shown_name, member)| {
        let place = Place::of(member);
        let mut row = vec![
            json!(view.scope),
            json!(shown_name),
            host(member, with_port),
            json!(title_case(member.role.as_str())),
            json!(member.state),
            member.timeline.map_or(Value::Null, |timeline| json!(timeline)),
            place.receive_lsn,
            place.receive_lag,
            place.replay_lsn,
            place.replay_lag,
        ];
        row.extend(optional.iter().map(|(_, value)| value(member, style)));
        row
    });
    let made = system_id.map_or_else(|| "uninitialized".to_owned(), |id| id.to_string());
    Table {
        title: Some(format!(" Cluster: {} ({made}) ", view.scope)),
        columns,
        rows: rows.collect(),
        skip_empty: true,
        hidden: 1,
    }
}

/// Positions and lags as they are shown.
struct Place {
    receive_lsn: Value,
    receive_lag: Value,
    replay_lsn: Value,
    replay_lag: Value,
}

impl Place {
    fn of(member: &MemberView) -> Self {
        let lsn = |position: Option<Position>| position.map_or(Value::Null, |position| json!(position));
        let lag = |lag: Option<Lag>| match lag {
            Some(Lag::Bytes(bytes)) => json!(mebibytes(bytes)),
            Some(Lag::Unknown) | None => Value::Null,
        };
        let mut place = Self {
            receive_lsn: lsn(member.receive_lsn),
            receive_lag: lag(member.receive_lag),
            replay_lsn: lsn(member.replay_lsn),
            replay_lag: lag(member.replay_lag),
        };
        let unknown = Some(Position::Unknown);
        let only_one = member.receive_lsn == unknown && member.replay_lsn == unknown;
        // An agent of an older version, or a former primary, says only one position.
        if let (true, Some(Position::At(_))) = (only_one, member.lsn) {
            if member.state == "streaming" {
                (place.receive_lsn, place.receive_lag) = (lsn(member.lsn), lag(member.lag));
            } else {
                (place.replay_lsn, place.replay_lag) = (lsn(member.lsn), lag(member.lag));
            }
        }
        place
    }
}

/// To the nearest MiB; a half goes to the even one, as Python rounds.
fn mebibytes(bytes: u64) -> u64 {
    let (whole, rest) = (bytes >> 20, bytes & ((1 << 20) - 1));
    let half = 1 << 19;
    let up = rest > half || (rest == half && whole % 2 == 1);
    whole + u64::from(up)
}

/// The port is shown when somebody uses an unusual one or two members share a host.
fn ports_matter(view: &ClusterView) -> bool {
    let hosts: Vec<&str> = view.members.iter().filter_map(|member| member.host.as_deref()).collect();
    let distinct: BTreeSet<&str> = hosts.iter().copied().collect();
    let unusual = |member: &MemberView| member.port.is_some_and(|port| port != USUAL_PORT);
    view.members.iter().any(unusual) || distinct.len() < hosts.len()
}

fn host(member: &MemberView, with_port: bool) -> Value {
    match (&member.host, member.port) {
        (Some(host), Some(port)) if with_port => json!(format!("{host}:{port}")),
        (Some(host), _) => json!(host),
        (None, _) => Value::Null,
    }
}

/// `sync_standby` becomes `Sync Standby`.
fn title_case(words: &str) -> String {
    let words = words.split('_').map(|word| {
        let mut letters = word.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    words.collect::<Vec<_>>().join(" ")
}

fn pending_restart_reason(member: &MemberView, style: Style) -> Value {
    let changes = member.pending_restart_reason.iter().map(|(setting, change)| {
        let whole = format!("{setting}: {}->{}", change.old_value, change.new_value);
        if style.format == Format::Pretty && whole.chars().count() > LONGEST_REASON {
            format!("{setting}: [hidden - too long]")
        } else {
            whole
        }
    });
    let lines: Vec<String> = changes.collect();
    if lines.is_empty() { Value::Null } else { json!(lines.join("\n")) }
}

fn scheduled_restart(member: &MemberView) -> Value {
    let Some(restart) = &member.scheduled_restart else {
        return Value::Null;
    };
    match restart.other.get("postgres_version").and_then(Value::as_str) {
        Some(version) => json!(format!("{} if version < {version}", restart.schedule)),
        None => json!(restart.schedule),
    }
}

/// Members in the order of replication, each with its name indented.
///
/// Every member appears exactly once, even where `replicatefrom` tags form a ring.
fn tree(view: &ClusterView) -> Vec<(String, &MemberView)> {
    let mut rest: Vec<&MemberView> = view.members.iter().collect();
    let mut order = Vec::new();
    if let Some(at) = rest.iter().position(|member| member.role.is_leader()) {
        let leader = rest.remove(at);
        order.push((leader.name.clone(), leader));
    }
    let replicas: BTreeSet<&str> = rest.iter().map(|member| member.name.as_str()).collect();
    let source = |member: &MemberView| {
        let tag = member.tags.replicatefrom();
        tag.filter(|source| *source != member.name && replicas.contains(source)).map(str::to_owned)
    };
    let (direct, cascaded): (Vec<_>, Vec<_>) = rest.into_iter().partition(|member| source(member).is_none());
    let mut waiting = cascaded;
    for member in direct {
        descend(member, 1, &mut waiting, &source, &mut order);
    }
    while !waiting.is_empty() {
        let member = waiting.remove(0);
        descend(member, 1, &mut waiting, &source, &mut order);
    }
    order
}

fn descend<'a>(
    member: &'a MemberView,
    level: usize,
    waiting: &mut Vec<&'a MemberView>,
    source: &impl Fn(&MemberView) -> Option<String>,
    order: &mut Vec<(String, &'a MemberView)>,
) {
    order.push((format!("{:1$}+ {2}", "", (level - 1) * 2, member.name), member));
    while let Some(at) = waiting.iter().position(|other| source(other).as_deref() == Some(member.name.as_str())) {
        let next = waiting.remove(at);
        descend(next, level + 1, waiting, source, order);
    }
}

#[cfg(test)]
mod tests;
