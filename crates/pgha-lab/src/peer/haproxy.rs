//! The peer's balancer.

use super::{Profile, fill, packages, put};
use crate::{
    Result,
    cluster::{BALANCER, Cluster, DATABASES},
};

const TEMPLATE: &str = include_str!("haproxy.cfg");
const CONFIG: &str = "/etc/haproxy/haproxy.cfg";

/// Installs it.
pub(super) fn install(cluster: &Cluster<'_>) -> Result<()> {
    packages(&cluster.host(BALANCER)?, &["haproxy"])
}

/// Gives it the intervals of a profile.
pub(super) fn set(cluster: &Cluster<'_>, profile: Profile) -> Result<()> {
    let server = |name: &&str| {
        let address = cluster.host(name)?.address();
        Ok(format!("    server {name} {address}:5432 maxconn 100 check port 8008"))
    };
    let servers = DATABASES.iter().map(server).collect::<Result<Vec<_>>>()?.join("\n");
    let host = cluster.host(BALANCER)?;
    put(&host, CONFIG, &config(profile, &servers), ("root", "0644"))?;
    host.run(&format!("haproxy -c -q -f {CONFIG} && systemctl restart haproxy")).map(drop)
}

fn config(profile: Profile, servers: &str) -> String {
    let (connect, check, intervals) = match profile {
        // Of the configuration in Patroni's documentation.
        Profile::Defaults => ("4s", "5s", "inter 3s fall 3 rise 2"),
        Profile::Tightest => ("1s", "1s", "inter 1s fastinter 250ms downinter 250ms fall 2 rise 1"),
    };
    fill(TEMPLATE, &[("CONNECT", connect), ("CHECK", check), ("INTERVALS", intervals), ("SERVERS", servers)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_template_is_left() {
        for profile in [Profile::Defaults, Profile::Tightest] {
            let text = config(profile, "    server db1 10.77.0.11:5432");
            assert!(!text.contains('@') && text.contains("fall") && text.contains("server db1"), "{text}");
        }
    }
}
