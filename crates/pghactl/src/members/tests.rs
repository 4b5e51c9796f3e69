//! Tables that patronictl 4.1.5 printed for the same clusters.

use pgha_core::name::SystemId;
use pgha_core::wire::ClusterView;

use super::*;

const ID: Option<SystemId> = Some(SystemId(7_268_616_322_854_375_442));

const STYLE: Style = Style { format: Format::Pretty, tree: false, extended: false };

fn view(text: &str) -> ClusterView {
    ClusterView::parse(text.as_bytes()).unwrap()
}

/// A primary, a standby with every optional key and one that is still being made; two share host and port.
fn busy() -> ClusterView {
    view(concat!(
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
    ))
}

/// The same without the optional keys, each member on a host of its own, paused, with a switchover ahead.
fn paused() -> ClusterView {
    view(concat!(
        r#"{"members":[{"name":"db1","role":"leader","state":"running","host":"10.77.0.11","port":5432,"timeline":1},"#,
        r#"{"name":"db2","role":"sync_standby","state":"streaming","host":"10.77.0.12","port":5432,"timeline":1,"#,
        r#""receive_lsn":"0/404BE60","receive_lag":0,"replay_lsn":"0/3E8","replay_lag":67418744},"#,
        r#"{"name":"db3","role":"replica","state":"creating replica","host":"10.77.0.13","port":5432,"#,
        r#""receive_lsn":"unknown","receive_lag":"unknown","replay_lsn":"unknown","replay_lag":"unknown"}],"#,
        r#""scope":"demo","pause":true,"scheduled_switchover":{"at":"2026-01-01T10:00:00+00:00","from":"db1","to":"db2"}}"#,
    ))
}

/// A cascade: db2 streams from db3.
fn cascade(leader: &str) -> ClusterView {
    view(&format!(
        concat!(
            r#"{{"members":[{{"name":"db1","role":{leader},"state":"running","host":"10.77.0.11","port":5432,"timeline":100}},"#,
            r#"{{"name":"db2","role":"replica","state":"streaming","host":"10.77.0.12","port":5432,"timeline":100,"#,
            r#""tags":{{"replicatefrom":"db3"}},"receive_lag":2621440,"receive_lsn":"10/2580000","#,
            r#""replay_lag":41943040,"replay_lsn":"10/0","lag":2621440,"lsn":"10/2580000"}},"#,
            r#"{{"name":"db3","role":"replica","state":"in archive recovery","host":"10.77.0.13","port":5432,"#,
            r#""timeline":99,"receive_lag":0,"receive_lsn":"80000000/5","replay_lag":1572864,"#,
            r#""replay_lsn":"10/2680000","lag":5,"lsn":"0/1"}}],"scope":"demo"}}"#
        ),
        leader = leader
    ))
}

#[test]
fn list_with_everything() {
    let expected = "\
+ Cluster: demo (7268616322854375442) ---+------------------+----+-------------+-----+------------+-----+-----------------+---------------------------+---------------------------+-----------------+
| Member | Host           | Role         | State            | TL | Receive LSN | Lag | Replay LSN | Lag | Pending restart | Pending restart reason    | Scheduled restart         | Tags            |
+--------+----------------+--------------+------------------+----+-------------+-----+------------+-----+-----------------+---------------------------+---------------------------+-----------------+
| db1    | 127.0.0.1:5432 | Leader       | running          |  1 |             |     |            |     |                 |                           |                           |                 |
+--------+----------------+--------------+------------------+----+-------------+-----+------------+-----+-----------------+---------------------------+---------------------------+-----------------+
| db2    | 127.0.0.1:5433 | Sync Standby | streaming        |  1 |   0/404BE60 |   0 |  0/404BB78 |   0 | *               | max_connections: 100->101 | 2026-01-01T10:00:00+00:00 | clonefrom: true |
|        |                |              |                  |    |             |     |            |     |                 |                           |                           | nosync: true    |
+--------+----------------+--------------+------------------+----+-------------+-----+------------+-----+-----------------+---------------------------+---------------------------+-----------------+
| db3    | 127.0.0.1:5432 | Replica      | creating replica |    |     unknown |     |    unknown |     |                 |                           |                           |                 |
+--------+----------------+--------------+------------------+----+-------------+-----+------------+-----+-----------------+---------------------------+---------------------------+-----------------+";
    assert_eq!(render(&busy(), ID, STYLE), expected);
}

#[test]
fn list_of_a_paused_cluster() {
    let notes = "
 Maintenance mode: on
 Switchover scheduled at: 2026-01-01T10:00:00+00:00
                    from: db1
                      to: db2";
    let expected = "\
+ Cluster: demo (7268616322854375442) ------------------+----+-------------+-----+------------+-----+
| Member | Host       | Role         | State            | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+------------+--------------+------------------+----+-------------+-----+------------+-----+
| db1    | 10.77.0.11 | Leader       | running          |  1 |             |     |            |     |
| db2    | 10.77.0.12 | Sync Standby | streaming        |  1 |   0/404BE60 |   0 |      0/3E8 |  64 |
| db3    | 10.77.0.13 | Replica      | creating replica |    |     unknown |     |    unknown |     |
+--------+------------+--------------+------------------+----+-------------+-----+------------+-----+";
    assert_eq!(render(&paused(), ID, STYLE), format!("{expected}{notes}"));

    let extended = "\
+ Cluster: demo (7268616322854375442) ------------------+----+-------------+-----+------------+-----+-----------------+------------------------+-------------------+------+
| Member | Host       | Role         | State            | TL | Receive LSN | Lag | Replay LSN | Lag | Pending restart | Pending restart reason | Scheduled restart | Tags |
+--------+------------+--------------+------------------+----+-------------+-----+------------+-----+-----------------+------------------------+-------------------+------+
| db1    | 10.77.0.11 | Leader       | running          |  1 |             |     |            |     |                 |                        |                   |      |
| db2    | 10.77.0.12 | Sync Standby | streaming        |  1 |   0/404BE60 |   0 |      0/3E8 |  64 |                 |                        |                   |      |
| db3    | 10.77.0.13 | Replica      | creating replica |    |     unknown |     |    unknown |     |                 |                        |                   |      |
+--------+------------+--------------+------------------+----+-------------+-----+------------+-----+-----------------+------------------------+-------------------+------+";
    let style = Style { extended: true, ..STYLE };
    assert_eq!(render(&paused(), ID, style), format!("{extended}{notes}"));
}

#[test]
fn topology() {
    let style = Style { tree: true, ..STYLE };
    let expected = "\
+ Cluster: demo (7268616322854375442) -----------------+-----+-------------+-----+------------+-----+----------------------+
| Member  | Host       | Role    | State               |  TL | Receive LSN | Lag | Replay LSN | Lag | Tags                 |
+---------+------------+---------+---------------------+-----+-------------+-----+------------+-----+----------------------+
| db1     | 10.77.0.11 | Leader  | running             | 100 |             |     |            |     |                      |
| + db3   | 10.77.0.13 | Replica | in archive recovery |  99 |  80000000/5 |   0 | 10/2680000 |   2 |                      |
|   + db2 | 10.77.0.12 | Replica | streaming           | 100 |  10/2580000 |   2 |       10/0 |  40 | {replicatefrom: db3} |
+---------+------------+---------+---------------------+-----+-------------+-----+------------+-----+----------------------+";
    assert_eq!(render(&cascade("\"leader\""), ID, style), expected);

    let expected = "\
+ Cluster: demo (uninitialized) -+---------------------+-----+-------------+-----+------------+-----+----------------------+
| Member  | Host       | Role    | State               |  TL | Receive LSN | Lag | Replay LSN | Lag | Tags                 |
+---------+------------+---------+---------------------+-----+-------------+-----+------------+-----+----------------------+
| + db1   | 10.77.0.11 | Replica | running             | 100 |     unknown |     | 10/2800000 |   0 |                      |
| + db3   | 10.77.0.13 | Replica | in archive recovery |  99 |  80000000/5 |   0 | 10/2680000 |   2 |                      |
|   + db2 | 10.77.0.12 | Replica | streaming           | 100 |  10/2580000 |   2 |       10/0 |  40 | {replicatefrom: db3} |
+---------+------------+---------+---------------------+-----+-------------+-----+------------+-----+----------------------+";
    let former = r#""replica","receive_lsn":"unknown","receive_lag":"unknown","replay_lsn":"unknown","replay_lag":"unknown","lsn":"10/2800000","lag":0"#;
    assert_eq!(render(&cascade(former), None, style), expected);
}

#[test]
fn a_ring_of_tags_loses_nobody() {
    let ring = view(
        r#"{"members":[{"name":"a","role":"replica","tags":{"replicatefrom":"b"}},
            {"name":"b","role":"replica","tags":{"replicatefrom":"a"}},
            {"name":"c","role":"replica","tags":{"replicatefrom":"c"}}]}"#,
    );
    let names: Vec<String> = tree(&ring).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["+ c", "+ a", "  + b"]);
}

#[test]
fn list_of_nobody() {
    let empty = view(r#"{"members":[],"scope":"demo"}"#);
    let expected = "\
+ Cluster: demo (uninitialized) ----+-------------+-----+------------+-----+
| Member | Host | Role | State | TL | Receive LSN | Lag | Replay LSN | Lag |
+--------+------+------+-------+----+-------------+-----+------------+-----+
+--------+------+------+-------+----+-------------+-----+------------+-----+";
    assert_eq!(render(&empty, None, STYLE), expected);
}

#[test]
fn list_for_programs() {
    let format = |format| {
        let style = Style { format, ..STYLE };
        render(&busy(), ID, style)
    };
    assert_eq!(
        format(Format::Tsv),
        "Cluster\tMember\tHost\tRole\tState\tTL\tReceive LSN\tReceive Lag\tReplay LSN\tReplay Lag\tPending restart\t\
         Pending restart reason\tScheduled restart\tTags\n\
         demo\tdb1\t127.0.0.1:5432\tLeader\trunning\t1\t\t\t\t\t\t\t\t\n\
         demo\tdb2\t127.0.0.1:5433\tSync Standby\tstreaming\t1\t0/404BE60\t0\t0/404BB78\t0\t*\t\
         max_connections: 100->101\t2026-01-01T10:00:00+00:00\t{clonefrom: true, nosync: true}\n\
         demo\tdb3\t127.0.0.1:5432\tReplica\tcreating replica\t\tunknown\t\tunknown\t\t\t\t\t"
    );
    assert_eq!(
        format(Format::Json),
        concat!(
            r#"[{"Cluster":"demo","Member":"db1","Host":"127.0.0.1:5432","Role":"Leader","State":"running","TL":1},"#,
            r#"{"Cluster":"demo","Member":"db2","Host":"127.0.0.1:5433","Role":"Sync Standby","State":"streaming","#,
            r#""TL":1,"Receive LSN":"0/404BE60","Receive Lag":0,"Replay LSN":"0/404BB78","Replay Lag":0,"#,
            r#""Pending restart":"*","Pending restart reason":"max_connections: 100->101","#,
            r#""Scheduled restart":"2026-01-01T10:00:00+00:00","Tags":{"nosync":true,"clonefrom":true}},"#,
            r#"{"Cluster":"demo","Member":"db3","Host":"127.0.0.1:5432","Role":"Replica","State":"creating replica","#,
            r#""Receive LSN":"unknown","Replay LSN":"unknown"}]"#,
        )
    );
    let yaml = format(Format::Yaml);
    assert!(yaml.contains("\n  Tags:\n    clonefrom: true\n    nosync: true\n"), "{yaml}");
}

#[test]
fn lags_are_rounded_as_python_does() {
    for (bytes, shown) in [(0, 0), (524_288, 0), (524_289, 1), (1_572_864, 2), (2_621_440, 2), (u64::MAX, 1 << 44)] {
        assert_eq!(mebibytes(bytes), shown, "{bytes}");
    }
}
