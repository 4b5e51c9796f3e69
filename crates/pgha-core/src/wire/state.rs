//! What a member says it is doing and what it says it is.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $type {
            $($(#[$variant_doc])* $variant,)+
            /// A word of a newer or different agent, kept as it is.
            Other(String),
        }

        impl $type {
            /// Every variant that has a word of its own, in Patroni's order.
            pub const KNOWN: &[Self] = &[$(Self::$variant),+];

            /// Patroni's word.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.as_str().to_owned()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(
    /// What a member's Postgres is doing.
    MemberState {
        /// `initdb` is running.
        Initializing = "initializing new cluster",
        /// `initdb` failed.
        InitdbFailed = "initdb failed",
        /// The cluster is being made by a script.
        CustomBootstrap = "running custom bootstrap script",
        /// That script failed.
        CustomBootstrapFailed = "custom bootstrap failed",
        /// A copy of the cluster is being fetched.
        CreatingReplica = "creating replica",
        /// Postgres accepts connections.
        Running = "running",
        /// Postgres does not accept connections yet.
        Starting = "starting",
        /// The same, after a custom bootstrap.
        StartingAfterBootstrap = "starting after custom bootstrap",
        /// Postgres did not start.
        StartFailed = "start failed",
        /// Postgres is being restarted.
        Restarting = "restarting",
        /// Postgres did not come back from a restart.
        RestartFailed = "restart failed",
        /// Postgres is shutting down.
        Stopping = "stopping",
        /// Postgres is not running, as intended.
        Stopped = "stopped",
        /// Postgres did not stop.
        StopFailed = "stop failed",
        /// Postgres died.
        Crashed = "crashed",
    }
);

impl MemberState {
    /// The value of the metric `patroni_postgres_state`; `None` for a word that Patroni does not have.
    pub fn index(&self) -> Option<usize> {
        Self::KNOWN.iter().position(|known| known == self)
    }
}

impl From<String> for MemberState {
    fn from(word: String) -> Self {
        let known = Self::KNOWN.iter().find(|state| state.as_str() == word);
        known.cloned().unwrap_or(Self::Other(word))
    }
}

words!(
    /// What a member is in the cluster.
    MemberRole {
        /// It takes writes. Before Patroni 4: `master`.
        Primary = "primary",
        /// It leads a cluster that follows another cluster.
        StandbyLeader = "standby_leader",
        /// It follows the leader.
        Replica = "replica",
        /// It led and was stopped.
        Demoted = "demoted",
        /// It has no data.
        Uninitialized = "uninitialized",
        /// It is being made the primary.
        Promoted = "promoted",
    }
);

impl From<String> for MemberRole {
    fn from(word: String) -> Self {
        let current = if word == "master" { "primary" } else { &word };
        let known = Self::KNOWN.iter().find(|role| role.as_str() == current);
        known.cloned().unwrap_or(Self::Other(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_patronis_numbers() {
        for (word, index) in [
            ("initializing new cluster", 0),
            ("creating replica", 4),
            ("running", 5),
            ("start failed", 8),
            ("stopped", 12),
            ("crashed", 14),
        ] {
            let state = MemberState::from(word.to_owned());
            assert_eq!(state.index(), Some(index), "{word}");
            assert_eq!(state.as_str(), word);
        }
    }

    #[test]
    fn unknown_words_are_kept() {
        let state = MemberState::from("meditating".to_owned());
        assert_eq!(state.index(), None);
        assert_eq!(state.as_str(), "meditating");
        assert_eq!(MemberRole::from("master".to_owned()), MemberRole::Primary);
        assert_eq!(MemberRole::from("witness".to_owned()).as_str(), "witness");
    }
}
