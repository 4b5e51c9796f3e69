//! Patroni's own samples, byte for byte, and garbage for every parser.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::rest::{ClusterDocs, FailsafeBody, Lag, Position, RestartBody, SwitchoverBody, ViewRole, Xlog};
use super::*;
use crate::lsn::{Lsn, Timeline};
use crate::name::{ClusterName, Epoch, NodeName};

/// Reads and writes; what comes out must be what went in.
macro_rules! golden {
    ($type:ty, $text:expr) => {{
        let text: &str = $text;
        let document = <$type>::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(String::from_utf8(document.render()).unwrap(), text);
        document
    }};
}

fn node(name: &str) -> NodeName {
    NodeName::try_from(name).unwrap()
}

const PRIMARY: &str = r#"{"conn_url":"postgres://127.0.0.1:5432/postgres","api_url":"http://127.0.0.1:8008/patroni","state":"running","role":"primary","version":"4.1.4","checkpoint_after_promote":false,"xlog_location":67395656,"timeline":1}"#;

const FULL: &str = r#"{"conn_url":"postgres://127.0.0.1:5433/postgres","api_url":"http://127.0.0.1:8009/patroni","state":"running","role":"replica","version":"4.1.4","proxy_url":"postgres://127.0.0.1:6432/postgres","tags":{"nosync":true,"clonefrom":true},"pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"101"}},"xlog_location":67419744,"replay_lsn":67419000,"receive_lsn":67419744,"replication_state":"streaming","timeline":1,"scheduled_restart":{"schedule":"2026-01-01T10:00:00+00:00","postmaster_start_time":"2024-08-28 19:39:26.352526+00:00"},"pause":true}"#;

#[test]
fn members() {
    let primary = golden!(Member, PRIMARY);
    assert!(!primary.ready_for_rewind());
    let full = golden!(Member, FULL);
    assert_eq!(full.receive_lsn, Some(Lsn(67_419_744)));
    assert_eq!(full.postgres_address(), Some(("127.0.0.1".into(), 5433)));
    assert!(full.tags.nosync() && full.pause);
}

#[test]
fn other_znodes() {
    let status = golden!(
        Status,
        r#"{"optime":67395656,"slots":{"postgres_0":67395656,"postgres_1":67395656},"retain_slots":["postgres_0","postgres_1"]}"#
    );
    assert_eq!(status.optime, Lsn(67_395_656));
    golden!(Status, r#"{"optime":67395656}"#);

    let sync = golden!(SyncState, r#"{"leader":"postgres-0","quorum":0,"sync_standby":"postgres-1,postgres-2"}"#);
    assert_eq!(sync.sync_standby, [node("postgres-1"), node("postgres-2")].into());
    golden!(SyncState, r#"{"leader":"postgres-0","quorum":0,"sync_standby":null}"#);
    golden!(SyncState, "{}");

    golden!(FailoverRequest, r#"{"leader":"a","member":"b","scheduled_at":"2026-01-01T10:00:00+00:00"}"#);
    golden!(FailoverRequest, r#"{"member":"b"}"#);
    golden!(FailoverRequest, "{}");

    let history = golden!(
        History,
        r#"[[1,25623960,"no recovery target specified","2019-09-23T16:57:57+02:00","postgres-1"],[2,25624000,"x","2019-09-23T16:58:57+02:00"],[3,25625000,"y"]]"#
    );
    assert_eq!(history.timeline(), Some(Timeline(4)));
    assert_eq!(golden!(History, "[]").timeline(), None);

    golden!(Failsafe, r#"{"postgres-0":"http://127.0.0.1:8008/patroni","postgres-1":"http://127.0.0.1:8009/patroni"}"#);

    let config = golden!(
        ClusterConfig,
        r#"{"ttl":30,"loop_wait":10,"retry_timeout":10,"maximum_lag_on_failover":1048576,"postgresql":{"use_pg_rewind":true,"parameters":{"max_connections":100}}}"#
    );
    assert!(config.warnings().is_empty());

    let epoch = golden!(EpochDoc, r#"{"epoch":7,"leader":"db1"}"#);
    assert_eq!(epoch.epoch, Epoch(7));

    let timelines = golden!(Timelines, r#"{"newest":4,"reserved":5,"begun_by":{"2":"db1","4":"db2"}}"#);
    assert_eq!(timelines.begun_by.get(&Timeline(4)), Some(&node("db2")));
}

#[test]
fn rest_bodies() {
    let status = golden!(
        PatroniStatus,
        r#"{"state":"running","postmaster_start_time":"2024-08-28 19:39:26.352526+00:00","role":"replica","server_version":150008,"xlog":{"received_location":67419744,"replayed_location":67419744,"replayed_timestamp":null,"paused":false},"sync_standby":true,"timeline":1,"replication_state":"streaming","replication":[{"usename":"replicator","application_name":"p3","client_addr":"10.0.0.3","state":"streaming","sync_state":"async","sync_priority":0}],"pause":true,"cluster_unlocked":true,"failsafe_mode_is_active":true,"dcs_last_seen":1692356928,"tags":{"clonefrom":true},"database_system_identifier":"7268616322854375442","pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"101"}},"patroni":{"version":"4.1.4","scope":"demo","name":"p2"},"watchdog_failed":true,"logger_queue_size":3}"#
    );
    assert_eq!(status.xlog.unwrap().furthest(), Lsn(67_419_744));
    let primary = golden!(
        PatroniStatus,
        r#"{"state":"running","role":"primary","server_version":150008,"xlog":{"location":67395656},"timeline":1}"#
    );
    assert_eq!(primary.xlog, Some(Xlog::Primary { location: Lsn(67_395_656) }));
    golden!(
        PghaStatus,
        r#"{"name":"db1","version":"0.1.0","reason":"holds the lease","code":"lead","since":"2026-01-01T10:00:00+00:00","epoch":7,"lease_ms":4321,"watchdog":"armed","timeline":2,"position":67395656,"position_complete":true,"detached":true,"looked_ms_ago":12,"can_lead":true}"#
    );
    golden!(FailsafeBody, r#"{"name":"db1","conn_url":"postgres://a/","api_url":"http://a/","slots":{"db2":5}}"#);
}

/// Three members, of which db2 is synchronous and db3 has said nothing of its positions.
fn three_members() -> (ClusterName, BTreeMap<NodeName, Member>, Status, SyncState) {
    let parse = |text: &str| Member::parse(text.as_bytes()).unwrap();
    let mut silent = parse(PRIMARY);
    silent.role = MemberRole::Replica;
    silent.state = MemberState::CreatingReplica;
    silent.xlog_location = Some(Lsn(0));
    silent.timeline = None;
    let members = BTreeMap::from([(node("db3"), silent), (node("db1"), parse(PRIMARY)), (node("db2"), parse(FULL))]);
    let status = Status { optime: Lsn(67_419_744), ..Status::default() };
    let sync = SyncState { leader: Some(node("db1")), quorum: 0, sync_standby: [node("db2")].into() };
    (ClusterName::try_from("demo").unwrap(), members, status, sync)
}

#[test]
fn the_cluster_is_put_together_as_patroni_does() {
    let (scope, members, status, sync) = three_members();
    let settings = ClusterSettings { synchronous_mode: SynchronousMode::On, ..ClusterSettings::default() };
    let leader = node("db1");
    let view = ClusterView::build(&ClusterDocs {
        scope: &scope,
        members: &members,
        leader: Some(&leader),
        status: &status,
        sync: &sync,
        failover: None,
        settings: &settings,
    });
    assert_eq!(
        String::from_utf8(view.render()).unwrap(),
        concat!(
            r#"{"members":[{"name":"db1","role":"leader","state":"running","api_url":"http://127.0.0.1:8008/patroni","#,
            r#""host":"127.0.0.1","port":5432,"timeline":1},"#,
            r#"{"name":"db2","role":"sync_standby","state":"streaming","api_url":"http://127.0.0.1:8009/patroni","#,
            r#""host":"127.0.0.1","port":5433,"timeline":1,"pending_restart":true,"#,
            r#""pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"101"}},"#,
            r#""scheduled_restart":{"schedule":"2026-01-01T10:00:00+00:00","#,
            r#""postmaster_start_time":"2024-08-28 19:39:26.352526+00:00"},"tags":{"nosync":true,"clonefrom":true},"#,
            r#""receive_lsn":"0/404BE60","receive_lag":0,"replay_lsn":"0/404BB78","replay_lag":744,"#,
            r#""lsn":"0/404BE60","lag":0},"#,
            r#"{"name":"db3","role":"replica","state":"creating replica","api_url":"http://127.0.0.1:8008/patroni","#,
            r#""host":"127.0.0.1","port":5432,"receive_lsn":"unknown","receive_lag":"unknown","#,
            r#""replay_lsn":"unknown","replay_lag":"unknown","lsn":"unknown","lag":"unknown"}],"scope":"demo"}"#,
        )
    );
    assert_eq!(ClusterView::parse(&view.render()).unwrap(), view);
    assert_eq!(view.leader().unwrap().name, "db1");
}

#[test]
fn roles_follow_the_settings() {
    use ViewRole::{Leader, QuorumStandby, Replica, SyncStandby};

    let (scope, members, status, sync) = three_members();
    let leader = node("db1");
    let request = FailoverRequest::parse(br#"{"leader":"db1","scheduled_at":"2026-01-01T10:00:00+02:00"}"#).unwrap();
    let build = |settings: &ClusterSettings, leader| {
        ClusterView::build(&ClusterDocs {
            scope: &scope,
            members: &members,
            leader,
            status: &Status { optime: Lsn(1), ..status.clone() },
            sync: &sync,
            failover: Some(&request),
            settings,
        })
    };
    let roles = |mode| {
        let settings = ClusterSettings { synchronous_mode: mode, ..ClusterSettings::default() };
        let view = build(&settings, Some(&leader));
        view.members.into_iter().map(|member| member.role).collect::<Vec<_>>()
    };
    assert_eq!(roles(SynchronousMode::Off), [Leader, Replica, Replica]);
    assert_eq!(roles(SynchronousMode::Quorum), [Leader, QuorumStandby, Replica]);
    assert_eq!(roles(SynchronousMode::On), [Leader, SyncStandby, Replica]);

    let paused = ClusterSettings { pause: true, ..ClusterSettings::default() };
    let leaderless = build(&paused, None);
    assert!(leaderless.leader().is_none() && leaderless.pause);
    let former = leaderless.member("db1").unwrap();
    assert_eq!(former.lsn, Some(Position::At(Lsn(67_395_656))));
    assert_eq!(former.lag, Some(Lag::Bytes(0)));
    let tail = String::from_utf8(leaderless.render()).unwrap();
    assert!(
        tail.ends_with(
            r#""scope":"demo","pause":true,"scheduled_switchover":{"at":"2026-01-01T10:00:00+02:00","from":"db1"}}"#
        ),
        "{tail}"
    );
}

/// Calls every parser; none may panic, and what one has read it must read again after writing it.
fn feed(bytes: &[u8]) {
    macro_rules! each {
        ($($type:ty),+ $(,)?) => {
            $(if let Ok(document) = <$type>::parse(bytes) {
                let written = document.render();
                assert_eq!(<$type>::parse(&written).as_ref(), Ok(&document), "{}", stringify!($type));
            })+
        };
    }
    each!(
        ClusterConfig,
        ClusterView,
        EpochDoc,
        FailoverRequest,
        Failsafe,
        FailsafeBody,
        History,
        Initialize,
        LeaderName,
        Member,
        PatroniStatus,
        PghaStatus,
        RestartBody,
        Status,
        SwitchoverBody,
        SyncState,
        Timelines,
    );
}

/// JSON that uses the documents' own keys, so that the parsers get past the first one.
fn any_json() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "conn_url",
        "api_url",
        "state",
        "role",
        "version",
        "tags",
        "pending_restart",
        "pending_restart_reason",
        "old_value",
        "new_value",
        "xlog_location",
        "receive_lsn",
        "timeline",
        "scheduled_restart",
        "schedule",
        "pause",
        "optime",
        "slots",
        "retain_slots",
        "leader",
        "quorum",
        "sync_standby",
        "member",
        "scheduled_at",
        "ttl",
        "synchronous_mode",
        "postgresql",
        "parameters",
        "epoch",
        "members",
        "scope",
        "name",
        "xlog",
        "location",
        "received_location",
        "replayed_location",
        "reason",
        "code",
        "since",
        "watchdog",
        "lag",
        "candidate",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(|number: f64| json!(number)),
        "\\PC{0,8}".prop_map(Value::from),
        prop::sample::select(vec!["running", "replica", "db1", "0/5", "2026-01-01T10:00:00Z", "a,b", "5"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..12).prop_map(|entries| {
                let entries = entries.into_iter().map(|(key, value)| (key.to_owned(), value));
                Value::Object(entries.collect::<Map<_, _>>())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_parser_panics_on_bytes(bytes: Vec<u8>) {
        feed(&bytes);
    }

    #[test]
    fn no_parser_panics_on_text(text in "[\\[\\]{}\":,0-9a-z. -]{0,40}") {
        feed(text.as_bytes());
    }

    #[test]
    fn no_parser_panics_on_json(value in any_json()) {
        feed(value.to_string().as_bytes());
    }

    /// A sample with one value replaced by anything.
    #[test]
    fn no_parser_panics_on_a_damaged_sample(pick: prop::sample::Index, value in any_json()) {
        for sample in [PRIMARY, FULL] {
            let mut document: Map<String, Value> = serde_json::from_str(sample).unwrap();
            let place = pick.index(document.len());
            if let Some(slot) = document.values_mut().nth(place) {
                *slot = value.clone();
            }
            feed(Value::Object(document).to_string().as_bytes());
        }
    }

    #[test]
    fn a_patch_applied_twice_changes_nothing_more(target in any_json(), patch in any_json()) {
        if let (Value::Object(mut target), Value::Object(patch)) = (target, patch) {
            merge_patch(&mut target, &patch);
            let once = target.clone();
            merge_patch(&mut target, &patch);
            prop_assert_eq!(target, once);
        }
    }
}
