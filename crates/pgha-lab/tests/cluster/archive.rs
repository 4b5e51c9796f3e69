//! The archive at the end of everything.

use anyhow::{Context as _, Result, ensure};
use pgha_lab::cluster::BALANCER;
use serde_json::Value;

use crate::{sections::Sections, site::Site};

pub(crate) fn kept(site: &Site<'_>, sections: &mut Sections<'_>) {
    sections.run("the archive holds WAL of the last timeline", || {
        let host = site.lab.host(BALANCER)?;
        let pgbackrest = |what: &str| host.run(&format!("runuser -u postgres -- pgbackrest --stanza=main {what}"));
        pgbackrest("check")?;
        let text = pgbackrest("info --output=json")?;
        let newest = newest(&text).with_context(|| format!("in {text}"))?;
        // The first eight digits of a segment's name are its timeline.
        ensure!(newest.get(..8) > Some("00000001"), "the newest is {newest}");
        Ok(format!("up to {newest}"))
    });
}

fn newest(text: &str) -> Result<String> {
    let info: Value = serde_json::from_str(text)?;
    let newest = info[0]["archive"][0]["max"].as_str();
    Ok(newest.context("there is none")?.to_owned())
}
