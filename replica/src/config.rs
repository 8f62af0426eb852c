//! Everything that an operator can set, in one struct, validated once.
//!
//! Bounds that change results are not here: they are part of the protocol (`replicore_types::limits`) or of the
//! replicated state (`[subnet]`, fixed when a state directory is created).

use crate::admission::{AdmissionConfig, AdmissionPolicy};
use crate::commit::UNPUBLISHED_ROUNDS_MAX;
use crate::spans::traces_url;
use replicore_engine::{Tiers, WriteTracking};
use replicore_netstack::{NetBackend, NetLimits, SignatureCacheConfig};
use replicore_types::{SubnetConfig, limits};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// The configuration of one replica process. `replicore config --show` prints it as TOML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the state lives: keys, batch log, checkpoints.
    pub state_dir: PathBuf,
    /// If set, the state directory is encrypted: a file with the operator's key, 64 hexadecimal digits.
    pub encryption_key: Option<PathBuf>,
    /// Address of the public HTTP interface; port 0 picks a free one.
    pub listen: SocketAddr,
    /// If set, the bound port is written here once the replica is ready.
    pub port_file: Option<PathBuf>,
    /// If set, every verified call and query is written to this new file, to be sent again by `replicore replay`.
    pub record: Option<PathBuf>,
    /// Scheduler cores: threads that execute canisters. Zero means one per CPU. Never changes a result.
    pub cores: usize,
    /// Network backend.
    pub net: NetBackend,
    /// Network threads, each with its own event loop. Zero means one per CPU.
    pub net_threads: usize,
    /// Whether Ed25519 signatures that came together are verified together. Never changes an answer.
    pub signature_batches: bool,
    /// What kind of subnet a new state directory is created as. An existing directory keeps its own.
    pub subnet: SubnetConfig,
    /// Which calls are admitted.
    pub admission: AdmissionConfig,
    /// The ingress pool.
    pub pool: PoolConfig,
    /// Batches and rounds.
    pub rounds: RoundsConfig,
    /// Checkpoints.
    pub checkpoints: CheckpointsConfig,
    /// Followers.
    pub sync: SyncConfig,
    /// Queries.
    pub queries: QueriesConfig,
    /// The Wasm engine.
    pub engine: EngineSettings,
    /// HTTP outcalls of canisters.
    pub outcalls: OutcallsConfig,
    /// The public HTTP interface.
    pub http: NetLimits,
    /// What is remembered of verified signatures.
    pub signature_cache: SignatureCacheConfig,
    /// Metrics and the dashboard.
    pub observation: ObservationConfig,
    /// Spans of messages.
    pub tracing: TracingConfig,
}

/// Spans of messages across the stages, sent to a collector that speaks OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracingConfig {
    /// The collector: OTLP over HTTP, as JSON. Without a path `/v1/traces` is meant. None switches tracing off.
    pub otlp_url: Option<String>,
    /// Of so many messages one is traced, chosen by its request id.
    pub sample_one_in: u64,
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self {
            otlp_url: None,
            sample_one_in: 1_000,
        }
    }
}

/// A second listener for who runs the replica: `/metrics` and `/_/dashboard`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObservationConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Its address; port 0 picks a free one. What it shows is for who runs the replica: anybody who reaches the address
    /// can read it.
    pub listen: SocketAddr,
}

impl Default for ObservationConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        }
    }
}

/// Bounds of the ingress pool. Over a bound a call gets 503 at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Messages waiting for a batch.
    pub messages_max: usize,
    /// Bytes of arguments waiting for a batch.
    pub bytes_max: usize,
    /// Messages of one canister waiting for a batch: those that are for it, and management calls that are about it.
    pub messages_per_canister_max: usize,
    /// Messages of one sender that wait for a batch or are in rounds that are not published yet. The anonymous sender is
    /// nobody in particular and is not counted.
    pub messages_per_sender_max: usize,
    /// How long a call may have to wait for its certificate, in milliseconds, judged by how long the last ones of its
    /// canister took; where it would be longer further calls are refused, those of one sender where half of that many are
    /// under way. All canisters together may take twice as long.
    /// Some calls are taken in any case, and those of the management canister. Zero lets calls wait as long as they may.
    pub waiting_ms_max: u64,
    /// Statuses of messages above which calls get 503. A status is kept for six minutes, so this bounds the rate that can
    /// last, at about 0.8 KiB of memory each: 2,400,000 stand for 6,600 calls a second and 2 GiB.
    pub statuses_max: usize,
    /// How long a v3/v4 call waits for its certificate before it is answered 202, in milliseconds.
    pub call_wait_ms: u64,
}

/// Bounds of one batch, and when rounds happen without messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoundsConfig {
    /// Messages of one batch: what a loaded replica fills, and so a bound on latency under load.
    pub batch_messages_max: usize,
    /// Argument bytes of one batch.
    pub batch_bytes_max: usize,
    /// How often rounds happen for canisters that only wait (heartbeats, deadlines), in milliseconds.
    pub idle_interval_ms: u64,
    /// How old the certified time of an idle replica may get, in milliseconds: clients refuse certificates and query
    /// answers that are minutes old.
    pub freshness_ms: u64,
    /// Whether a round brings the certified tree up to date, instead of making all of it anew. Never changes a result.
    pub incremental_hash: bool,
}

/// When checkpoints are taken. More often means faster recovery and more writing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointsConfig {
    /// After this many rounds since the last one.
    pub interval_rounds: u64,
    /// After this many bytes of batch log since the last one.
    pub interval_log_bytes: u64,
    /// Bytes of changed pages in memory, which no checkpoint holds yet: from half of them on a checkpoint is taken early,
    /// and where they are reached while it is being written, rounds wait for it.
    pub dirty_bytes_max: u64,
    /// How fast the files are written anew where less than half of them is in use, in bytes a second, so that the disk
    /// stays free for batches. Zero means as fast as the disk is.
    pub compaction_bytes_per_second: u64,
}

/// Replicas that follow this one: they fetch its checkpoints and execute its batches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyncConfig {
    /// If set, followers are served at this address. Whoever reaches it can read the whole state.
    pub listen: Option<SocketAddr>,
}

/// How queries run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueriesConfig {
    /// Threads. Zero means one per CPU.
    pub threads: usize,
    /// Queries waiting for a thread; above it a query gets 503.
    pub waiting_max: usize,
    /// Queries of one canister waiting for a thread.
    pub waiting_per_canister_max: usize,
    /// How long a query may wait for a thread before it gets 503, in milliseconds: who asked has given up by then.
    pub waiting_ms_max: u64,
    /// Bytes of the result cache; zero switches it off. Never changes an answer.
    pub cache_bytes_max: usize,
}

/// Bounds of the Wasm engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EngineSettings {
    /// Canisters that keep a warm instance for updates, and as many for queries. Zero sets one up with each message.
    pub warm_instances_max: usize,
    /// Compiled modules kept in memory.
    pub compiled_modules_max: usize,
    /// Whether compiled modules are kept in the state directory across restarts; never where that is encrypted.
    pub compilation_cache: bool,
    /// Which compilers make the code of modules.
    pub tiers: Tiers,
    /// How the pages that a message writes are found.
    pub write_tracking: WriteTracking,
    /// Whether the names of canister functions are written to `/tmp/perf-PID.map`, for Linux `perf`.
    pub perf_map: bool,
    /// Whether the code of canister functions is written to `/tmp/jit-PID.dump`, for `perf inject --jit`.
    pub jitdump: bool,
}

/// What HTTP outcalls of canisters may reach, and how many are made at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutcallsConfig {
    /// Whether requests are made at all; where not, calls are rejected.
    pub enabled: bool,
    /// Requests made at the same time, each on a thread.
    pub threads: usize,
    /// Requests waiting for a thread; above it a call is rejected.
    pub waiting_max: usize,
    /// Whether this machine's loopback may be reached, over plain HTTP too: for tests and development.
    pub allow_loopback: bool,
    /// Hosts that may be reached; a name that begins with a dot stands for all that end with it. Empty means every host.
    pub allow: Vec<String>,
    /// Hosts that may not be reached; written like those in `allow` and stronger.
    pub deny: Vec<String>,
    /// A file with the root certificates that servers are checked against (PEM). None means those of Mozilla's list.
    pub root_certificates: Option<PathBuf>,
}

impl Default for OutcallsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            threads: 8,
            waiting_max: 1_000,
            allow_loopback: false,
            allow: Vec::new(),
            deny: Vec::new(),
            root_certificates: None,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("replicore-state"),
            encryption_key: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            port_file: None,
            record: None,
            cores: 0,
            net: NetBackend::default(),
            net_threads: 0,
            signature_batches: true,
            subnet: SubnetConfig::default(),
            admission: AdmissionConfig::default(),
            pool: PoolConfig::default(),
            rounds: RoundsConfig::default(),
            checkpoints: CheckpointsConfig::default(),
            sync: SyncConfig::default(),
            queries: QueriesConfig::default(),
            engine: EngineSettings::default(),
            outcalls: OutcallsConfig::default(),
            http: NetLimits::default(),
            signature_cache: SignatureCacheConfig::default(),
            observation: ObservationConfig::default(),
            tracing: TracingConfig::default(),
        }
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            messages_max: 50_000,
            bytes_max: 256 * 1024 * 1024,
            messages_per_canister_max: 25_000,
            messages_per_sender_max: 10_000,
            waiting_ms_max: 500,
            statuses_max: 2_400_000,
            call_wait_ms: 10_000,
        }
    }
}

impl Default for RoundsConfig {
    fn default() -> Self {
        Self {
            batch_messages_max: 5_000,
            batch_bytes_max: 32 * 1024 * 1024,
            idle_interval_ms: 1_000,
            freshness_ms: 5_000,
            incremental_hash: true,
        }
    }
}

impl Default for CheckpointsConfig {
    fn default() -> Self {
        Self {
            interval_rounds: 10_000,
            interval_log_bytes: 512 * 1024 * 1024,
            dirty_bytes_max: 4 * 1024 * 1024 * 1024,
            compaction_bytes_per_second: 200 * 1000 * 1000,
        }
    }
}

impl Default for QueriesConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            waiting_max: 10_000,
            waiting_per_canister_max: 2_500,
            waiting_ms_max: 10_000,
            cache_bytes_max: 64 * 1024 * 1024,
        }
    }
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            warm_instances_max: 500,
            compiled_modules_max: 500,
            compilation_cache: true,
            tiers: Tiers::default(),
            write_tracking: WriteTracking::default(),
            perf_map: false,
            jitdump: false,
        }
    }
}

/// What is wrong with a configuration, and where.
#[derive(Debug)]
pub enum ConfigError {
    /// The file, or one that it names, cannot be read.
    Unreadable(PathBuf, std::io::Error),
    /// The file is not TOML of this shape.
    Malformed(PathBuf, toml::de::Error),
    /// A value is outside its bounds: the key, and what must hold.
    Invalid(&'static str, String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(
                f,
                "cannot read {}, which the configuration needs: {error}",
                path.display()
            ),
            Self::Malformed(path, error) => write!(f, "the configuration {} is malformed: {error}", path.display()),
            Self::Invalid(key, rule) => write!(f, "the configuration value `{key}` is invalid: {rule}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and validates a TOML file.
    ///
    /// # Errors
    /// [`ConfigError`] with the file, or the key and the rule that it breaks.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable(path.into(), error))?;
        let config: Self = toml::from_str(&text).map_err(|error| ConfigError::Malformed(path.into(), error))?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every bound and every relation between bounds.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for the first value that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let http = |rule| ConfigError::Invalid("http", rule);
        self.http.check().map_err(http)?;
        AdmissionPolicy::new(&self.admission).map_err(|rule| ConfigError::Invalid("admission", rule))?;
        for (key, value, bounds) in self.bounded() {
            within(key, value, bounds)?;
        }
        if let Some(path) = &self.outcalls.root_certificates {
            std::fs::File::open(path).map_err(|error| ConfigError::Unreadable(path.clone(), error))?;
        }
        if let Some(url) = &self.tracing.otlp_url {
            traces_url(url).map_err(|rule| ConfigError::Invalid("tracing.otlp_url", rule))?;
        }
        // Otherwise the connection would be answered 504 before the call is answered 202.
        match self.pool.call_wait_ms < self.http.answer_timeout_ms {
            true => Ok(()),
            false => Err(ConfigError::Invalid(
                "pool.call_wait_ms",
                format!(
                    "it is {} and must be less than http.answer_timeout_ms, which is {}",
                    self.pool.call_wait_ms, self.http.answer_timeout_ms
                ),
            )),
        }
    }

    /// The numbers that have bounds by themselves or by other numbers, with these bounds.
    fn bounded(&self) -> [(&'static str, usize, RangeInclusive<usize>); 25] {
        const ANY: usize = usize::MAX;
        let Self { pool, rounds, .. } = self;
        let (checkpoints, queries, engine) = (&self.checkpoints, &self.queries, &self.engine);
        // Messages that are in batches already count, so a bound below that would let nothing in.
        let statuses_min = rounds.batch_messages_max.saturating_mul(2 * UNPUBLISHED_ROUNDS_MAX);
        let pool_bytes_min = limits::INGRESS_BYTES_MAX.max(self.http.ingress_bytes_max);
        let batch_bytes = limits::INGRESS_BYTES_MAX..=limits::BATCH_BYTES_MAX;
        [
            ("cores", self.cores, 0..=THREADS_MAX),
            ("net_threads", self.net_threads, 0..=THREADS_MAX),
            ("subnet.size", self.subnet.size as usize, 1..=ANY),
            ("pool.messages_max", pool.messages_max, 1..=ANY),
            ("pool.bytes_max", pool.bytes_max, pool_bytes_min..=ANY),
            (
                "pool.messages_per_canister_max",
                pool.messages_per_canister_max,
                1..=ANY,
            ),
            ("pool.messages_per_sender_max", pool.messages_per_sender_max, 1..=ANY),
            (
                "rounds.batch_messages_max",
                rounds.batch_messages_max,
                1..=limits::BATCH_MESSAGES_MAX,
            ),
            ("rounds.batch_bytes_max", rounds.batch_bytes_max, batch_bytes),
            (
                "pool.statuses_max",
                pool.statuses_max,
                statuses_min..=limits::INGRESS_HISTORY_ENTRIES_MAX,
            ),
            ("rounds.idle_interval_ms", rounds.idle_interval_ms as usize, 10..=ANY),
            ("rounds.freshness_ms", rounds.freshness_ms as usize, 10..=ANY),
            (
                "checkpoints.interval_rounds",
                checkpoints.interval_rounds as usize,
                1..=ANY,
            ),
            (
                "checkpoints.interval_log_bytes",
                checkpoints.interval_log_bytes as usize,
                LOG_BYTES_MIN..=ANY,
            ),
            (
                "checkpoints.dirty_bytes_max",
                checkpoints.dirty_bytes_max as usize,
                DIRTY_BYTES_MIN..=ANY,
            ),
            ("queries.threads", queries.threads, 0..=THREADS_MAX),
            ("queries.waiting_max", queries.waiting_max, 1..=QUERIES_WAITING_MAX),
            (
                "queries.waiting_per_canister_max",
                queries.waiting_per_canister_max,
                1..=ANY,
            ),
            ("queries.waiting_ms_max", queries.waiting_ms_max as usize, 1..=ANY),
            (
                "signature_cache.entries",
                self.signature_cache.entries,
                0..=SIGNATURES_MAX,
            ),
            ("engine.warm_instances_max", engine.warm_instances_max, 0..=KEPT_MAX),
            ("engine.compiled_modules_max", engine.compiled_modules_max, 1..=KEPT_MAX),
            ("outcalls.threads", self.outcalls.threads, 1..=THREADS_MAX),
            (
                "outcalls.waiting_max",
                self.outcalls.waiting_max,
                1..=QUERIES_WAITING_MAX,
            ),
            ("tracing.sample_one_in", self.tracing.sample_one_in as usize, 1..=ANY),
        ]
    }

    /// Scheduler cores, with zero resolved to the number of CPUs.
    pub fn scheduler_cores(&self) -> usize {
        or_cpus(self.cores)
    }

    /// Query threads, with zero resolved to the number of CPUs.
    pub fn query_threads(&self) -> usize {
        or_cpus(self.queries.threads)
    }

    /// The configuration as a TOML document without comments that [`Config::load`] reads back.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# not representable as TOML: {error}\n"))
    }
}

/// Threads of one kind: more than the largest machines have cores is a slip of the pen.
const THREADS_MAX: usize = 1_024;
/// Smallest interval of checkpoints by log bytes: a checkpoint writes more than that by itself.
const LOG_BYTES_MIN: usize = 1024 * 1024;
/// Smallest bound on changed pages in memory: what a few messages may write.
const DIRTY_BYTES_MIN: usize = 16 * 1024 * 1024;
/// More signatures than this are a slip of the pen: they take 40 bytes each from the start.
const SIGNATURES_MAX: usize = 1 << 30;
/// More waiting queries than this are a slip of the pen: they hold their arguments.
const QUERIES_WAITING_MAX: usize = 1_000_000;

/// Warm instances and compiled modules: room is made for so many at the start.
const KEPT_MAX: usize = 1_000_000;

fn or_cpus(threads: usize) -> usize {
    if threads > 0 {
        threads
    } else {
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

fn within(key: &'static str, value: usize, bounds: RangeInclusive<usize>) -> Result<(), ConfigError> {
    let rule = match (value < *bounds.start(), value > *bounds.end()) {
        (true, _) => format!("it is {value} and must be at least {}", bounds.start()),
        (_, true) => format!("it is {value} and must be at most {}", bounds.end()),
        (false, false) => return Ok(()),
    };
    Err(ConfigError::Invalid(key, rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_survives_a_round_trip() {
        let config = Config::default();
        config.validate().unwrap();
        assert_eq!(toml::from_str::<Config>(&config.to_toml()).unwrap(), config);
    }

    #[test]
    fn errors_name_the_key() {
        let mut config = Config::default();
        config.rounds.batch_messages_max = 0;
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("rounds.batch_messages_max"), "{error}");
        assert!(toml::from_str::<Config>("no_such_key = 1").is_err());
        for (text, key) in [
            ("cores = 100000", "cores"),
            ("[http]\nreceive_buffers = 3", "receive_buffers"),
            ("[pool]\ncall_wait_ms = 300000", "pool.call_wait_ms"),
            (
                "[checkpoints]\ninterval_log_bytes = 1",
                "checkpoints.interval_log_bytes",
            ),
            ("[checkpoints]\ndirty_bytes_max = 1", "checkpoints.dirty_bytes_max"),
            ("[queries]\nwaiting_max = 10000000", "queries.waiting_max"),
            ("[pool]\nstatuses_max = 20000000", "pool.statuses_max"),
            (
                "[pool]\nbytes_max = 3000000\n[http]\ningress_bytes_max = 4000000",
                "pool.bytes_max",
            ),
            (
                "[engine]\nwarm_instances_max = 9000000000000000",
                "engine.warm_instances_max",
            ),
            (
                "[engine]\ncompiled_modules_max = 1000000000",
                "engine.compiled_modules_max",
            ),
            ("[http]\ncalls_in_flight_max = 0", "calls_in_flight_max"),
            (
                "[http]\nreceive_buffers = 32768\nreceive_buffer_bytes = 1048576",
                "receive_buffers",
            ),
            ("[tracing]\notlp_url = 'localhost:4318'", "tracing.otlp_url"),
            ("[tracing]\nsample_one_in = 0", "tracing.sample_one_in"),
            ("[outcalls]\nroot_certificates = '/no/such/file'", "/no/such/file"),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
