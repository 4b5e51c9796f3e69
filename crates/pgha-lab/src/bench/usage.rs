//! What software needs beside Postgres and the ensemble while nothing happens.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::{COMPLETE, QUIET};
use crate::{Error, Host, Result, cluster::Cluster, faults::Software};

/// For how long processor time is counted.
const TIME: Duration = Duration::from_mins(1);
/// In which the kernel counts it, on every architecture of Debian (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
const KIB_PER_MIB: f64 = 1024.0;

/// What the software's processes on one host need.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Usage {
    /// How many they are.
    pub processes: usize,
    /// Resident memory, in MiB. What several of them share counts for each.
    pub memory: f64,
    /// Processor time, in percent of one core.
    pub processor: f64,
}

/// A complete cluster without clients.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Rest {
    /// On the primary's host.
    pub primary: Usage,
    /// On that of the synchronous standby.
    pub standby: Usage,
}

impl Rest {
    /// Watches for a minute.
    pub fn watch(cluster: &Cluster<'_>, software: &Software) -> Result<Self> {
        thread::sleep(QUIET);
        let before = cluster.await_complete(COMPLETE)?;
        let hosts = [cluster.host(&before.primary)?, cluster.host(&before.sync)?];
        let begun = Instant::now();
        let first = hosts.each_ref().map(|host| Look::at(host, software));
        thread::sleep(TIME);
        let seconds = begun.elapsed().as_secs_f64();
        let second = hosts.each_ref().map(|host| Look::at(host, software));
        let [primary, standby] = first;
        let [primary_later, standby_later] = second;
        Ok(Self {
            primary: primary_later?.since(&primary?, seconds)?,
            standby: standby_later?.since(&standby?, seconds)?,
        })
    }
}

/// The processes at one moment.
struct Look {
    pids: Vec<i32>,
    memory_kib: u32,
    ticks: u32,
}

impl Look {
    fn at(host: &Host, software: &Software) -> Result<Self> {
        let mut look = Self { pids: Vec::new(), memory_kib: 0, ticks: 0 };
        for target in (software.resident)() {
            look.pids.extend(host.pids(&target)?);
        }
        look.pids.sort_unstable();
        for pid in &look.pids {
            let read = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
            let status = read("status").and_then(|text| memory(&text));
            let stat = read("stat").and_then(|text| ticks(&text));
            let (Some(memory), Some(ticks)) = (status, stat) else {
                return Err(Error::State(format!("process {pid} of {} is gone", host.name())));
            };
            look.memory_kib += memory;
            look.ticks += ticks;
        }
        Ok(look)
    }

    fn since(&self, earlier: &Self, seconds: f64) -> Result<Usage> {
        Error::unless(!self.pids.is_empty() && self.pids == earlier.pids, || {
            format!("processes came and went at rest: {:?}, then {:?}", earlier.pids, self.pids)
        })?;
        Ok(Usage {
            processes: self.pids.len(),
            memory: f64::from(self.memory_kib) / KIB_PER_MIB,
            processor: f64::from(self.ticks.saturating_sub(earlier.ticks)) / TICKS_PER_SECOND / seconds * 100.0,
        })
    }
}

/// Resident memory in KiB, from `/proc/…/status`.
fn memory(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
}

/// Time in user space and in the kernel, from `/proc/…/stat`.
fn ticks(stat: &str) -> Option<u32> {
    // The program's name may hold anything; what follows it begins with the third field.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u32>().ok();
    Some(field(14)? + field(15)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 7 8 20 0 5 0 100 200 300";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(memory("Name:\tx\nVmRSS:\t   20480 kB\nRssAnon:\t 1 kB\n"), Some(20480));
        assert_eq!((ticks("42 (x) S 1"), memory("Name:\tx\n")), (None, None));
    }

    #[test]
    fn usage_is_what_came_between() {
        let look = |pids: &[i32], ticks| Look { pids: pids.to_vec(), memory_kib: 2048, ticks };
        let usage = look(&[1, 2], 160).since(&look(&[1, 2], 100), 60.0).expect("the same processes");
        assert_eq!(usage, Usage { processes: 2, memory: 2.0, processor: 1.0 });
        assert!(look(&[1, 3], 160).since(&look(&[1, 2], 100), 60.0).is_err());
        assert!(look(&[], 0).since(&look(&[], 0), 60.0).is_err());
    }
}
