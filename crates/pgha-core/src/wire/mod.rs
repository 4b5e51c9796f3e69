//! Documents in ZooKeeper and bodies of REST calls, as Patroni writes them.
