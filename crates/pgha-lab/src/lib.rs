//! Test hosts on one machine: containers and virtual machines on a private network, their faults, and a workload that
//! counts rows.
//!
//! [`Lab::up`] and [`Lab::up_hosts`] give running hosts, [`Lab::host`] one of them, [`workload`] the clients that write
//! while faults happen, [`cluster`] what the agents of an installed cluster say, [`calm`] whether they leave a healthy one
//! alone, [`bench`] what faults cost the clients of a cluster and of its [`peer`].
//! Everything lives in network namespaces, on loop devices, in `/var/lib/pgha-lab` and in `/var/cache/pgha-lab`; nothing
//! else of the machine is touched. The lab knows no other crate of the workspace: it drives their binaries as a user would.

mod apt;
mod cgroup;
mod command;
mod disk;
mod error;
mod guest;
mod host;
mod image;
mod keys;
mod lab;
mod lock;
mod machine;
mod metrics;
mod mount;
mod net;
mod netns;
mod nspawn;
mod power;
mod process;
mod qmp;
mod topology;

pub mod bench;
pub mod calm;
pub mod cluster;
pub mod faults;
pub mod http;
pub mod peer;
pub mod requirements;
pub mod sql;
pub mod workload;

pub use command::{Output, quote};
pub use disk::Disk;
pub use error::{Error, Result};
pub use host::{Host, Target};
pub use image::Image;
pub use lab::{Lab, Status, down, purge, remove_on_signals};
pub use metrics::Metrics;
pub use net::Direction;
pub use netns::within;
pub use topology::{HostSpec, Kind, Node, layout, layout_hosts};
