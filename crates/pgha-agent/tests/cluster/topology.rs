//! Three members: quorum commit, members that stream from members, and names that are taken.

use std::time::{Duration, Instant};

use super::{SOON, count, make_worms, nothing_lost, under_load};
use crate::world::{self, World};

/// `one` leads; the others are its standbys. `more` is added to the configuration of each.
async fn three_members(more: [&str; 3]) -> World {
    let mut world = World::new();
    for (name, more) in ["one", "two", "three"].into_iter().zip(more) {
        world.add_as(name, name, more);
        world.member(name).start();
        if name == "one" {
            world.await_primary(&[], SOON).await;
        }
    }
    world.await_standbys(&["two", "three"], SOON).await;
    world
}

/// An error is an answer too: a member that is coming up has no other.
async fn ask(world: &mut World, name: &str, sql: &str) -> String {
    let answer = async {
        let client = world.member(name).connect().await?;
        client.query_one(sql, &[]).await?.try_get(0)
    };
    answer.await.unwrap_or_else(|error: tokio_postgres::Error| error.to_string())
}

async fn await_answer(world: &mut World, name: &str, sql: &str, expected: &str) {
    let begun = Instant::now();
    loop {
        let answer = ask(world, name, sql).await;
        if answer == expected {
            return;
        }
        assert!(begun.elapsed() < SOON, "{name}: {sql}: {answer}\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quorum_of_standbys_keeps_every_row() {
    if !world::is_possible() {
        return;
    }
    let mut world = three_members([""; 3]).await;
    world.configure("one", serde_json::json!({"synchronous_mode": "quorum"})).await;
    let names = "SHOW synchronous_standby_names";
    await_answer(&mut world, "one", names, "ANY 1 (\"three\",\"two\")").await;
    let begun = Instant::now();
    for name in ["two", "three"] {
        while world.member(name).probe("/quorum").await != Some(200) {
            assert!(begun.elapsed() < SOON, "{name} has no vote\n{}", world.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let writer = under_load(&mut world, "one", |world| world.member("one").power_off()).await;
    let primary = world.await_primary(&["one"], SOON).await;
    world.member("one").start();
    world.await_standbys(&["one"], SOON).await;
    await_answer(
        &mut world,
        &primary,
        "SELECT count(*)::text FROM pg_stat_replication WHERE sync_state = 'quorum'",
        "2",
    )
    .await;
    nothing_lost(&mut world, writer, "quorum commit, power off").await;
    // Two of three are gone: the third knows that it may lack something, and waits.
    let last = if primary == "two" { "three" } else { "two" };
    for name in [primary.as_str(), "one"] {
        world.member(name).power_off();
    }
    world.await_reason(last, "no_quorum", SOON).await;
    world.member("one").start();
    let primary = world.await_primary(&[], SOON).await;
    make_worms(&mut world, &primary, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_streams_from_another_while_that_one_runs() {
    if !world::is_possible() {
        return;
    }
    let relayed = "[tags]\nreplicatefrom = \"two\"";
    let mut world = three_members(["", "[tags]\nclonefrom = true", relayed]).await;
    let senders =
        "SELECT coalesce(string_agg(application_name, ',' ORDER BY application_name), '') FROM pg_stat_replication";
    await_answer(&mut world, "one", senders, "two").await;
    await_answer(&mut world, "two", senders, "three").await;
    let slots = "SELECT coalesce(string_agg(slot_name::text, ',' ORDER BY slot_name), '') FROM pg_replication_slots";
    await_answer(&mut world, "one", slots, "two").await;
    await_answer(&mut world, "two", slots, "three").await;
    make_worms(&mut world, "one", 3).await;
    // Its source is gone: the leader stands in.
    world.member("two").power_off();
    await_answer(&mut world, "one", senders, "three").await;
    make_worms(&mut world, "one", 3).await;
    world.member("two").start();
    await_answer(&mut world, "two", senders, "three").await;
    await_answer(&mut world, "one", slots, "two").await;
    await_answer(&mut world, "three", "SELECT count(*)::text FROM worms", "6").await;
    // It follows its source through a failover.
    assert_eq!(world.await_sync(SOON).await, "two");
    world.member("one").power_off();
    assert_eq!(world.await_primary(&["one"], SOON).await, "two");
    await_answer(&mut world, "two", senders, "three").await;
    make_worms(&mut world, "two", 1).await;
    assert_eq!(count(&mut world, "two").await, 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_is_left_to_its_owner() {
    if !world::is_possible() {
        return;
    }
    let mut world = World::new();
    for (name, place) in [("one", "one"), ("two", "two"), ("two", "impostor")] {
        world.add_as(name, place, "");
    }
    world.member("one").start();
    world.await_primary(&[], SOON).await;
    world.member("two").start();
    world.await_standbys(&["two"], SOON).await;
    world.member("impostor").start();
    world.await_reason("impostor", "duplicate_name", SOON).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!world.member("impostor").dir.join("data").exists(), "the impostor has made data\n{}", world.logs());
    world.await_standbys(&["two"], SOON).await;
    // The owner is gone: who is left with the name is the member.
    world.member("two").power_off();
    world.await_standbys(&["impostor"], SOON).await;
}

const CHANGES: &str =
    "SELECT count(*)::text FROM pg_logical_slot_get_changes('cdc', NULL, NULL) WHERE data LIKE 'table%'";

/// A consumer of changes goes on after a failover where it was; a receiver of WAL finds its slot.
#[tokio::test(flavor = "multi_thread")]
async fn permanent_slots_survive_a_failover() {
    if !world::is_possible() {
        return;
    }
    let mut world = World::new();
    for name in ["one", "two"] {
        world.add(name);
        world.member(name).start();
        if name == "one" {
            world.await_primary(&[], SOON).await;
        }
    }
    world.await_standbys(&["two"], SOON).await;
    let slots = serde_json::json!({
        "backup": {"type": "physical"},
        "cdc": {"type": "logical", "database": "postgres", "plugin": "test_decoding"},
    });
    let patch = serde_json::json!({"postgresql": {"parameters": {"wal_level": "logical"}}});
    world.configure("one", patch).await;
    // wal_level needs a restart.
    let begun = Instant::now();
    while world.member("one").status().await.is_none_or(|status| !status.pending_restart) {
        assert!(begun.elapsed() < SOON, "no restart is pending\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let body = pgha_core::wire::rest::RestartBody::default();
    world.member("one").authorized().restart(&body).await.unwrap();
    assert_eq!(world.await_primary(&[], SOON).await, "one");
    // While a transaction is open the slot is only being made, and nobody copies it.
    world.await_sync(SOON).await;
    let mut client = world.member("one").connect().await.unwrap();
    let open = client.transaction().await.unwrap();
    open.query_one("SELECT txid_current()", &[]).await.unwrap();
    world.configure("one", serde_json::json!({"slots": slots})).await;
    let postmaster = world.member("two").postmaster();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.member("two").postmaster(), postmaster, "restarted for nothing\n{}", world.logs());
    open.commit().await.unwrap();
    let names = "SELECT coalesce(string_agg(slot_name::text, ',' ORDER BY slot_name), '') FROM pg_replication_slots";
    await_answer(&mut world, "one", names, "backup,cdc,two").await;
    await_answer(&mut world, "two", names, "backup,cdc").await;
    make_worms(&mut world, "one", 3).await;
    assert_eq!(ask(&mut world, "one", CHANGES).await, "3");
    // What was consumed is known to the standby soon.
    let confirmed = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'cdc'";
    let consumed = ask(&mut world, "one", confirmed).await;
    await_answer(&mut world, "two", confirmed, &consumed).await;
    make_worms(&mut world, "one", 4).await;
    world.await_sync(SOON).await;
    world.member("one").power_off();
    assert_eq!(world.await_primary(&["one"], SOON).await, "two");
    make_worms(&mut world, "two", 2).await;
    assert_eq!(ask(&mut world, "two", CHANGES).await, "6", "{}", world.logs());
    // The old primary's own slots are of use again, or copied anew; and go when they are not asked for any more.
    world.member("one").start();
    world.await_standbys(&["one"], SOON).await;
    await_answer(&mut world, "one", names, "backup,cdc").await;
    world.configure("two", serde_json::json!({"slots": null})).await;
    await_answer(&mut world, "two", names, "one").await;
    await_answer(&mut world, "one", names, "").await;
}
