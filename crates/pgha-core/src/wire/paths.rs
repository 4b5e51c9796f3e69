//! Where each znode of a cluster lies.

use crate::name::{ClusterName, NodeName};

/// The znode paths of one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    base: String,
}

impl Paths {
    /// Paths under `/<namespace>/<cluster>`; superfluous slashes of the namespace are dropped.
    pub fn new(namespace: &str, cluster: &ClusterName) -> Self {
        let mut base = String::new();
        for part in namespace.split('/').chain([cluster.as_str()]) {
            if !part.is_empty() {
                base.push('/');
                base.push_str(part);
            }
        }
        Self { base }
    }

    /// The znode above all others.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Ephemeral: the leader's name.
    pub fn leader(&self) -> String {
        self.under("leader")
    }

    /// Above the members.
    pub fn members(&self) -> String {
        self.under("members")
    }

    /// Ephemeral: one [member](super::Member).
    pub fn member(&self, name: &NodeName) -> String {
        self.under(&format!("members/{name}"))
    }

    /// The [system identifier](super::Initialize).
    pub fn initialize(&self) -> String {
        self.under("initialize")
    }

    /// The [cluster-wide settings](super::ClusterConfig).
    pub fn config(&self) -> String {
        self.under("config")
    }

    /// The leader's [position](super::Status).
    pub fn status(&self) -> String {
        self.under("status")
    }

    /// The [synchronous standbys](super::SyncState).
    pub fn sync(&self) -> String {
        self.under("sync")
    }

    /// The [failover asked for](super::FailoverRequest).
    pub fn failover(&self) -> String {
        self.under("failover")
    }

    /// The [timeline history](super::History).
    pub fn history(&self) -> String {
        self.under("history")
    }

    /// The [members that must answer](super::Failsafe) when `ZooKeeper` does not.
    pub fn failsafe(&self) -> String {
        self.under("failsafe")
    }

    /// The leader's position where Patroni kept it before 2.1.
    pub fn optime_leader(&self) -> String {
        self.under("optime/leader")
    }

    /// pgha's own: the [epoch](super::EpochDoc).
    pub fn epoch(&self) -> String {
        self.under("pgha/epoch")
    }

    /// pgha's own: the [timelines](super::Timelines).
    pub fn timelines(&self) -> String {
        self.under("pgha/timelines")
    }

    fn under(&self, name: &str) -> String {
        format!("{}/{name}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_are_collapsed() {
        let cluster = ClusterName::try_from("demo").unwrap();
        for namespace in ["/service", "service", "/service/", "//service//"] {
            let paths = Paths::new(namespace, &cluster);
            assert_eq!(paths.leader(), "/service/demo/leader", "{namespace}");
        }
        assert_eq!(Paths::new("/", &cluster).config(), "/demo/config");
        assert_eq!(Paths::new("/a/b", &cluster).epoch(), "/a/b/demo/pgha/epoch");
        let paths = Paths::new("service", &cluster);
        // Patroni's names: `patronictl` looks for them there.
        for (path, name) in [
            (paths.members(), "members"),
            (paths.initialize(), "initialize"),
            (paths.status(), "status"),
            (paths.sync(), "sync"),
            (paths.failover(), "failover"),
            (paths.failsafe(), "failsafe"),
            (paths.history(), "history"),
            (paths.optime_leader(), "optime/leader"),
            (paths.timelines(), "pgha/timelines"),
        ] {
            assert_eq!(path, format!("{}/{name}", paths.base()));
        }
        let member = NodeName::try_from("db1").unwrap();
        assert_eq!(Paths::new("/service", &cluster).member(&member), "/service/demo/members/db1");
    }
}
