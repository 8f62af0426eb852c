//! The mechanisms that make the replica fast, each with the conservative design that stands in its place when it is
//! switched off: what `--without` names, and what ablations measure.
//!
//! None of them changes a result. Switching one off sets keys of the configuration and nothing else, so that the same can
//! be had from a configuration file.

use crate::config::Config;
use replicore_engine::{Tiers, WriteTracking};
use replicore_netstack::NetBackend;
use std::fmt;
use std::str::FromStr;

/// One mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// Canisters keep their instance between messages.
    WarmInstances,
    /// The code itself marks the pages that it writes.
    WriteBarrier,
    /// First messages run on quickly compiled code.
    Tiering,
    /// Signatures that were verified are remembered.
    SignatureCache,
    /// Ed25519 signatures are verified together.
    BatchVerify,
    /// Answers of queries are remembered.
    QueryCache,
    /// The network goes through io_uring.
    IoUring,
    /// Canisters execute on every core.
    ParallelRounds,
    /// The certified tree is brought up to date.
    IncrementalHash,
    /// Messages that come in during a round share one record of the log and one sync.
    GroupCommit,
}

impl Mechanism {
    /// Every mechanism, from the engine outward.
    pub const ALL: [Self; 10] = [
        Self::WarmInstances,
        Self::WriteBarrier,
        Self::Tiering,
        Self::SignatureCache,
        Self::BatchVerify,
        Self::QueryCache,
        Self::IoUring,
        Self::ParallelRounds,
        Self::IncrementalHash,
        Self::GroupCommit,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::WarmInstances => "warm-instances",
            Self::WriteBarrier => "write-barrier",
            Self::Tiering => "tiering",
            Self::SignatureCache => "signature-cache",
            Self::BatchVerify => "batch-verify",
            Self::QueryCache => "query-cache",
            Self::IoUring => "io-uring",
            Self::ParallelRounds => "parallel-rounds",
            Self::IncrementalHash => "incremental-hash",
            Self::GroupCommit => "group-commit",
        }
    }

    /// What stands in its place.
    pub fn alternative(self) -> &'static str {
        match self {
            Self::WarmInstances => "every message instantiates its module and maps its memory",
            Self::WriteBarrier => "written pages are found by write-protecting the heap",
            Self::Tiering => "the first message waits for the optimising compiler",
            Self::SignatureCache => "every signature and delegation is verified every time",
            Self::BatchVerify => "every signature is verified by itself",
            Self::QueryCache => "every query is executed",
            Self::IoUring => "the network goes through epoll",
            Self::ParallelRounds => "one core executes all canisters",
            Self::IncrementalHash => "every round makes the whole certified tree anew",
            Self::GroupCommit => "every message is a batch of its own, with its own round, log record and sync",
        }
    }

    /// The configuration without it.
    pub fn switch_off(self, config: &mut Config) {
        match self {
            Self::WarmInstances => config.engine.warm_instances_max = 0,
            Self::WriteBarrier => config.engine.write_tracking = WriteTracking::Faults,
            Self::Tiering => config.engine.tiers = Tiers::Optimised,
            Self::SignatureCache => config.signature_cache.enabled = false,
            Self::BatchVerify => config.signature_batches = false,
            Self::QueryCache => config.queries.cache_bytes_max = 0,
            Self::IoUring => config.net = NetBackend::Epoll,
            Self::ParallelRounds => config.cores = 1,
            Self::IncrementalHash => config.rounds.incremental_hash = false,
            Self::GroupCommit => config.rounds.batch_messages_max = 1,
        }
    }

    /// The key that [`Mechanism::switch_off`] sets, and to what, as in a configuration file.
    pub fn setting(self) -> (&'static str, &'static str) {
        match self {
            Self::WarmInstances => ("engine.warm_instances_max", "0"),
            Self::WriteBarrier => ("engine.write_tracking", "\"faults\""),
            Self::Tiering => ("engine.tiers", "\"optimised\""),
            Self::SignatureCache => ("signature_cache.enabled", "false"),
            Self::BatchVerify => ("signature_batches", "false"),
            Self::QueryCache => ("queries.cache_bytes_max", "0"),
            Self::IoUring => ("net", "\"epoll\""),
            Self::ParallelRounds => ("cores", "1"),
            Self::IncrementalHash => ("rounds.incremental_hash", "false"),
            Self::GroupCommit => ("rounds.batch_messages_max", "1"),
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No mechanism has this name.
#[derive(Debug)]
pub struct UnknownMechanism(String);

impl fmt::Display for UnknownMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = Mechanism::ALL.map(Mechanism::name).join(", ");
        write!(f, "no mechanism is called `{}`; there are: {known}", self.0)
    }
}

impl std::error::Error for UnknownMechanism {}

impl FromStr for Mechanism {
    type Err = UnknownMechanism;

    fn from_str(name: &str) -> Result<Self, UnknownMechanism> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name() == name)
            .ok_or_else(|| UnknownMechanism(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switching_off_sets_the_key_that_it_names_and_nothing_else() {
        for mechanism in Mechanism::ALL {
            let mut switched = Config::default();
            mechanism.switch_off(&mut switched);
            let (key, value) = mechanism.setting();
            let written = match key.rsplit_once('.') {
                Some((table, key)) => format!("[{table}]\n{key} = {value}\n"),
                None => format!("{key} = {value}\n"),
            };
            let from_file: Config = toml::from_str(&written).unwrap();
            assert_eq!(switched, from_file, "{mechanism}");
            assert_ne!(switched, Config::default(), "{mechanism}");
            switched.validate().unwrap();
        }
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.name().parse::<Mechanism>().unwrap(), mechanism);
        }
        let error = "tiers".parse::<Mechanism>().unwrap_err().to_string();
        assert!(error.contains("`tiers`") && error.contains("tiering"), "{error}");
    }

    #[test]
    fn all_off_is_valid() {
        let mut config = Config::default();
        Mechanism::ALL
            .iter()
            .for_each(|mechanism| mechanism.switch_off(&mut config));
        config.validate().unwrap();
    }
}
