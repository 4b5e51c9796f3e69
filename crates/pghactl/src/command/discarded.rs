//! `discarded`: what members had written and the cluster had not when they came back.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pgha_client::Client;
use pgha_core::wire::rest::Discarded;

use super::explain::agents_of;
use crate::agents::ask_each;
use crate::cli;
use crate::failure::Failure;
use crate::screen;
use crate::settings::Settings;

/// `pghactl discarded`.
pub(super) async fn discarded(settings: &Settings, arguments: &cli::Discarded) -> Result<(), Failure> {
    let agents = agents_of(settings, arguments.member.as_ref()).await?;
    let names: BTreeMap<&str, &str> = agents.iter().map(|(name, agent)| (agent.address(), name.as_str())).collect();
    let clients: Vec<Client> = agents.values().cloned().collect();
    let answers = ask_each(&clients, |agent| async move { agent.discarded().await }).await;
    let (mut answered, mut told, mut unanswered) = (false, false, Vec::new());
    for (agent, answer) in answers {
        match answer {
            Ok(list) => {
                answered = true;
                let name = names.get(agent.as_str()).copied().unwrap_or(&agent);
                for it in list.0.iter().filter(|it| it.committed + it.unfinished > 0) {
                    told = true;
                    screen::say(&tell(name, it, arguments.transactions))?;
                }
            }
            Err(error) => unanswered.push(error),
        }
    }
    if !answered {
        return Err(Failure::NoAnswer(unanswered));
    }
    if !told {
        screen::say("nothing was discarded")?;
    }
    for agent in unanswered {
        screen::warn(&agent.to_string())?;
    }
    Ok(())
}

fn tell(name: &str, discarded: &Discarded, one_by_one: bool) -> String {
    let Discarded { quarantine, kept, timeline, from, committed, unfinished, tables, transactions, .. } = discarded;
    let kept = if *kept { format!("kept in {quarantine}") } else { "its WAL was deleted to make room".to_owned() };
    let mut text = format!(
        "{name}: {committed} committed and {unfinished} unfinished transactions, timeline {timeline} from {from}\n    \
         {kept}"
    );
    for (table, rows) in tables {
        let _infallible = write!(text, "\n    {table}: {}", rows_of(*rows));
    }
    if one_by_one {
        for it in transactions {
            let tables: Vec<String> =
                it.tables.iter().map(|(table, rows)| format!("{table} {}", rows_of(*rows))).collect();
            let _infallible = write!(text, "\n    {}  transaction {}: {}", it.at, it.xid, tables.join(", "));
        }
        let left = committed.saturating_sub(transactions.len() as u64);
        if left > 0 {
            let _infallible = write!(text, "\n    and {left} more: read the WAL with pg_waldump");
        }
    }
    text
}

fn rows_of(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_discarded_is_told_by_table_and_one_by_one() {
        let discarded = Discarded::parse(
            br#"{"quarantine":"/q/000000030000000000000019","timeline":3,"from":419407840,"last":419407900,"committed":3,
                "unfinished":1,"tables":{"app.public.t":4},"transactions":[
                {"xid":727,"at":"2026-11-25 18:57:49.6 UTC","tables":{"app.public.t":1}},
                {"xid":728,"at":"2026-11-25 18:57:49.7 UTC","tables":{"app.public.t":3}}]}"#,
        )
        .unwrap();
        let short = "db1: 3 committed and 1 unfinished transactions, timeline 3 from 0/18FFA7E0\n    \
                     kept in /q/000000030000000000000019\n    app.public.t: 4 rows";
        assert_eq!(tell("db1", &discarded, false), short);
        let gone = Discarded { kept: false, ..discarded.clone() };
        assert!(tell("db1", &gone, false).contains("\n    its WAL was deleted to make room\n"));
        assert_eq!(
            tell("db1", &discarded, true),
            format!(
                "{short}\n    2026-11-25 18:57:49.6 UTC  transaction 727: app.public.t 1 row\n    \
                 2026-11-25 18:57:49.7 UTC  transaction 728: app.public.t 3 rows\n    \
                 and 1 more: read the WAL with pg_waldump"
            )
        );
    }
}
