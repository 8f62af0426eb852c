//! Where the time of a signed update goes: every stage by itself, in the processor time of one core.

use super::http::{Load, Peer};
use super::ladder::server_nanos;
use super::sessions::{Session, now_nanos};
use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use crate::scheduler::Subnet;
use rayon::{ThreadPool, ThreadPoolBuilder};
use replicore::certification::RootKey;
use replicore_engine::{
    Call, CanisterModule, Engine, Execute, ExecutionOutcome, ExecutionState, InstructionLimits, PausedExecution,
    PreparedModule,
};
use replicore_netstack::envelope::{Endpoint, Envelope};
use replicore_netstack::verify::{Batch as Signatures, Circumstances, Verifier};
use replicore_netstack::{NetBackend, RingFeatures, SignatureCacheConfig};
use replicore_persistence::{BatchLog, BatchLogOptions, FileDisk};
use replicore_scheduler::certified_state::PathSet;
use replicore_scheduler::{ReplicatedState, SchedulerCores, execute_round};
use replicore_types::fees::WasmWidth;
use replicore_types::{Batch, CanisterId, MessageId, NumInstructions, SubnetType, Time, UserError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Messages of one batch: what comes in while a round of a loaded replica runs.
const BATCH_MESSAGES: u64 = 200;
const CANISTERS: u64 = 50;
/// Signatures that are verified together: what a turn of an event loop has received under load.
const TURN_MESSAGES: usize = 64;

/// Stages in the order of a message. What each is:
///
/// - `network`: sockets and HTTP of a request of 400 bytes answered with 300, the server's thread alone;
/// - `verify`: envelope, request id, Ed25519 in batches of 64;
/// - `induct`: from the batch to the first message executed;
/// - `execute`: the engine;
/// - `commit`: turns, queues, statuses, the rest of the round;
/// - `hash`: the certified tree brought up to date;
/// - `log`: the batch appended and synced, with the disk's time;
/// - `certify`: the root's signature and the message's witness.
const STAGES: [&str; 8] = [
    "network", "verify", "induct", "execute", "commit", "hash", "log", "certify",
];

/// `stages.update_us`: microseconds that a signed update which does nothing costs over all stages, in batches of 200 on
/// one core; beside it each stage.
pub fn update_stages(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let peer = Peer::replicore(NetBackend::Auto, RingFeatures::default())?;
    let load = Load {
        connections: 64,
        pipeline: 1,
        duration: Duration::from_millis(effort.scale(500)),
    };
    let mut rounds = Rounds::new()?;
    let mut log = Log::new()?;
    let samples = effort.samples(|| {
        let network = server_nanos(&load, &peer)? / 1e3;
        let verify = verify(effort)?;
        let [induct, execute, commit, hash, sync, certify] = rounds.measure(&mut log, effort.scale(40).max(2))?;
        Ok([network, verify, induct, execute, commit, hash, sync, certify])
    })?;
    let totals = samples.iter().map(|stages| stages.iter().sum()).collect();
    let figure = Figure::of("stages.update_us", "us", totals, rounds.root());
    let with_stages = STAGES.iter().enumerate().fold(figure, |figure, (index, name)| {
        figure.against(name, samples.iter().map(|stages| stages[index]).collect())
    });
    Ok(vec![with_stages])
}

/// Microseconds per envelope from bytes to verified, as many together as an event loop takes.
fn verify(effort: &Effort) -> Result<f64, BenchError> {
    let config = SignatureCacheConfig::default();
    let verifier = Verifier::new(&config).map_err(BenchError::new)?;
    let canister = CanisterId::from_index(0);
    let envelopes: Vec<Vec<u8>> = (0..effort.scale(512).max(TURN_MESSAGES as u64))
        .map(|number| body_of(&Session::own(number % 64).call(canister, number)))
        .collect();
    let circumstances = Circumstances {
        now: Time(now_nanos()),
        root_key: &|| Arc::from(&[][..]),
    };
    let mut held = 0;
    let (elapsed, result) = seconds(|| {
        for turn in envelopes.chunks(TURN_MESSAGES) {
            let mut signatures = Signatures::default();
            for envelope in turn {
                let envelope = Envelope::decode(envelope, Endpoint::Call).map_err(BenchError::new)?;
                let unproven = verifier.examine(envelope, &circumstances).map_err(BenchError::new)?;
                signatures.push(unproven);
            }
            verifier.prove(&mut signatures, circumstances.now, |_, outcome| {
                held += usize::from(outcome.is_ok())
            });
        }
        Ok(())
    });
    result?;
    match held == envelopes.len() {
        true => Ok(elapsed / held as f64 * 1e6),
        false => Err(BenchError::new("an envelope of ours was not believed")),
    }
}

/// What follows the head of an HTTP request.
fn body_of(request: &[u8]) -> Vec<u8> {
    let head = request.windows(4).position(|window| window == b"\r\n\r\n");
    request[head.map_or(0, |at| at + 4)..].to_vec()
}

/// A batch log on the disk of the temporary directory.
struct Log {
    log: BatchLog,
    _directory: tempfile::TempDir,
}

impl Log {
    fn new() -> Result<Self, BenchError> {
        let directory = tempfile::tempdir().map_err(BenchError::new)?;
        let (log, _) = BatchLog::open(Arc::new(FileDisk), directory.path(), BatchLogOptions::default())
            .map_err(BenchError::new)?;
        Ok(Self {
            log,
            _directory: directory,
        })
    }

    /// Seconds until a batch is durable.
    fn append(&mut self, batch: &Batch, number: u64) -> Result<f64, BenchError> {
        let (elapsed, result) = seconds(|| {
            let record = serde_bytes_of(batch)?;
            self.log.append(number, &record).map_err(BenchError::new)?;
            self.log.sync().map_err(BenchError::new)
        });
        result.map(|_| elapsed)
    }
}

fn serde_bytes_of(batch: &Batch) -> Result<Vec<u8>, BenchError> {
    postcard::to_stdvec(&([0_u8; 32], batch)).map_err(BenchError::new)
}

/// Rounds on a subnet of our own, taken apart.
struct Rounds {
    subnet: Subnet,
    state: ReplicatedState,
    engine: Timed,
    key: RootKey,
    logged: u64,
    /// What a round on one core does on its own thread, a call from outside would share.
    one_core: ThreadPool,
}

impl Rounds {
    fn new() -> Result<Self, BenchError> {
        let subnet = Subnet::of_copies(CANISTERS, 1)?;
        let mut rounds = Self {
            state: subnet.machine.state().clone(),
            engine: Timed::new(Arc::clone(subnet.machine.engine())),
            subnet,
            key: RootKey::from_seed(&[1; 32]).map_err(BenchError::new)?,
            logged: 0,
            one_core: ThreadPoolBuilder::new()
                .num_threads(1)
                .build()
                .map_err(BenchError::new)?,
        };
        // Warm instances.
        rounds.measure(&mut Log::new()?, 2)?;
        Ok(rounds)
    }

    fn root(&self) -> String {
        hex::encode(self.state.certified_root())
    }

    fn batch(&mut self) -> Batch {
        let messages = (0..BATCH_MESSAGES).map(|number| self.subnet.noop((number % CANISTERS) as usize));
        Batch {
            messages: messages.collect(),
            height: self.state.metadata.height.next(),
            time: Time(self.state.metadata.time.0 + 1_000_000),
            ..Batch::default()
        }
    }

    /// Microseconds per message to induct, execute, commit, hash, log and certify.
    fn measure(&mut self, log: &mut Log, rounds: u64) -> Result<[f64; 6], BenchError> {
        let mut sums = [0.0; 6];
        for _ in 0..rounds {
            let batch = self.batch();
            self.logged += 1;
            let logged = log.append(&batch, self.logged)?;
            let mut tree = self.state.certified.clone();
            let ids: Vec<MessageId> = batch.messages.iter().map(|message| message.message_id).collect();
            self.engine.begin();
            let start = Instant::now();
            let state = self.state.clone();
            let (state, statistics) = execute_round(state, batch, &self.engine, SchedulerCores(1));
            let whole = start.elapsed().as_secs_f64();
            let (executing, first) = self.engine.end();
            let induct = first.map_or(whole, |first| (first - start).as_secs_f64());
            let touched: Vec<CanisterId> = (0..CANISTERS).map(CanisterId::from_index).collect();
            let (hash, root) = self
                .one_core
                .install(|| seconds(|| tree.update(&state, &touched, &ids)));
            if root != statistics.root_hash || statistics.finished.len() as u64 != BATCH_MESSAGES {
                return Err(BenchError::new("a round taken apart is not the round"));
            }
            let (certify, ()) = seconds(|| {
                std::hint::black_box(self.key.sign_root(&root));
                for id in &ids {
                    let paths = PathSet::new([[&b"request_status"[..], id.as_bytes()]]);
                    std::hint::black_box(state.certified.witness(&state, paths));
                }
            });
            let commit = (whole - induct - executing - hash).max(0.0);
            for (sum, part) in sums.iter_mut().zip([induct, executing, commit, hash, logged, certify]) {
                *sum += part;
            }
            self.state = state;
        }
        Ok(sums.map(|sum| sum / (rounds * BATCH_MESSAGES) as f64 * 1e6))
    }
}

/// An engine that says how long it executed.
struct Timed {
    engine: Arc<Engine>,
    nanos: AtomicU64,
    first: Mutex<Option<Instant>>,
}

impl Timed {
    fn new(engine: Arc<Engine>) -> Self {
        Self {
            engine,
            nanos: AtomicU64::new(0),
            first: Mutex::default(),
        }
    }

    fn begin(&self) {
        self.nanos.store(0, Ordering::Relaxed);
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Seconds executed, and when it began to.
    fn end(&self) -> (f64, Option<Instant>) {
        let first = *self.first.lock().unwrap_or_else(PoisonError::into_inner);
        (self.nanos.load(Ordering::Relaxed) as f64 / 1e9, first)
    }

    fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(start);
        drop(first);
        let result = work();
        self.nanos
            .fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}

impl Execute for Timed {
    fn prepare(
        &self,
        module: &CanisterModule,
        subnet_type: SubnetType,
    ) -> Result<PreparedModule, (UserError, NumInstructions)> {
        self.engine.prepare(module, subnet_type)
    }

    fn declared_width(&self, module: &CanisterModule) -> WasmWidth {
        self.engine.declared_width(module)
    }

    fn execute(&self, canister: &mut ExecutionState, call: Call<'_>, limits: InstructionLimits) -> ExecutionOutcome {
        self.timed(|| self.engine.execute(canister, call, limits))
    }

    fn resume(&self, canister: &mut ExecutionState, paused: PausedExecution) -> ExecutionOutcome {
        self.timed(|| self.engine.resume(canister, paused))
    }
}
