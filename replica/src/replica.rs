//! The process: opens a state directory, recovers it, starts the threads, and stops them in order.

use crate::admission::AdmissionPolicy;
use crate::certification::RootKey;
use crate::checkpoints::{self, CheckpointError, CheckpointQueue, CheckpointWriter};
use crate::commit::{self, Commit, Publisher};
use crate::config::Config;
use crate::dirty_memory::DirtyMemory;
use crate::exposition::Observed;
use crate::failure::Failure;
use crate::follow::{Feed, SyncServer, SyncState};
use crate::log_writer::LogWriter;
use crate::machine::StateMachine;
use crate::metrics::Metrics;
use crate::observation;
use crate::open_files;
use crate::outside::{OutsideCalls, ThresholdSecrets, World};
use crate::pool::IngressPool;
use crate::port_file::PortFile;
use crate::queries::{self, Queries, QueryHandler, QueryStats};
use crate::recorder::{Recorded, Recording};
use crate::recovery::{self, Recovered, RecoveryError};
use crate::rounds::{Rounds, wall_clock};
use crate::service::{Calls, SHUTTING_DOWN, Service};
use crate::snapshot::{CertifiedSnapshot, Published};
use crate::spans::{Spans, Traced};
use crate::waiters::Waiters;
use replicore_netstack::{CallReply, NetLimits, ReplicaService, Server, ServerConfig, ServerHandle};
use replicore_persistence::StateDirectory;
use replicore_scheduler::keep_apart;
use replicore_types::SubnetId;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::info;

/// How long the first round of a recovered state may take; it needs one write to disk.
const FRESH_WAIT_MAX: Duration = Duration::from_secs(60);

/// A running replica. Dropping it without [`Replica::stop`] ends it as a crash would, only that the round under way is
/// finished: nothing acknowledged is lost, what waits for a batch is given up, no checkpoint is written.
pub struct Replica {
    // In the order of dropping: nobody new comes in, nobody new finds the way, then the threads end.
    server: ServerHandle,
    _port_file: Option<PortFile>,
    sync: Option<SyncServer>,
    workers: Workers,
    observed: Observed,
    // Last to go: what happens at the end can be seen too.
    observation: Option<ServerHandle>,
    root_key_der: Arc<[u8]>,
    subnet_id: SubnetId,
    /// How long open requests are given on shutdown.
    drain: Duration,
}

/// The threads behind the network, and what they share with their owner.
struct Workers {
    pool: Arc<IngressPool>,
    waiters: Arc<Waiters>,
    failure: Arc<Failure>,
    metrics: Arc<Metrics>,
    writer: Arc<CheckpointWriter>,
    memory: Arc<DirtyMemory>,
    round: Option<JoinHandle<StateMachine>>,
    commit: Option<JoinHandle<()>>,
    /// The checkpoint thread, the signer and the query threads.
    others: Vec<JoinHandle<()>>,
    recording: Option<Recording>,
    /// Where messages are traced.
    spans: Option<Arc<Spans>>,
    // Last, so that the lock outlives everything that writes.
    _directory: StateDirectory,
}

/// Why a replica does not start or does not stop cleanly.
#[derive(Debug)]
pub enum ReplicaError {
    /// The state directory cannot be opened or recovered.
    Recovery(RecoveryError),
    /// A thread or a socket cannot be had; what for.
    Io(&'static str, io::Error),
    /// The admission policy is wrong; how.
    Admission(String),
    /// The final checkpoint failed; the batch log still holds everything.
    Checkpoint(CheckpointError),
    /// A thread ended with an error while serving.
    Failed(String),
}

impl fmt::Display for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovery(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Admission(rule) => write!(f, "the admission policy is wrong: {rule}"),
            Self::Checkpoint(error) => write!(f, "the final checkpoint failed (the log holds every batch): {error}"),
            Self::Failed(text) => write!(f, "the replica failed: {text}"),
        }
    }
}

impl std::error::Error for ReplicaError {}

impl From<RecoveryError> for ReplicaError {
    fn from(error: RecoveryError) -> Self {
        Self::Recovery(error)
    }
}

impl Replica {
    /// Opens the state directory of `config`, recovers it, and serves it.
    ///
    /// # Errors
    /// [`ReplicaError`] with what to do about it. Nothing keeps running after an error.
    pub fn start(config: &Config) -> Result<Self, ReplicaError> {
        let Recovered {
            directory,
            machine,
            log,
            writer,
            root_key,
            node_key,
            secrets,
        } = recovery::open(config)?;
        let engine = Arc::clone(machine.engine());
        let root_key_der: Arc<[u8]> = root_key.public_key_der().into();
        let subnet_id = root_key.subnet_id();
        let published = Arc::new(Published::default());
        let snapshot = published.store(CertifiedSnapshot::certify(machine.state().clone(), &root_key));

        let mut workers = Workers::new(config, writer, directory);
        workers.start_spans(config, subnet_id)?;
        let truncate_below = Arc::new(AtomicU64::new(0));
        let world = World {
            pool: Arc::clone(&workers.pool),
            published: Arc::clone(&published),
            engine: Arc::clone(&engine),
            failure: Arc::clone(&workers.failure),
        };
        let mut outside = workers.start_outside(config, secrets, world)?;
        // Calls that were open when the process before this one ended.
        outside.notice(&snapshot);
        let feed = config
            .sync
            .listen
            .map(|_| Arc::new(Feed::new(machine.state().metadata.height.next().0)));
        let sync = workers.start_sync(config, &root_key, feed.as_ref())?;
        let checkpoints = workers.start_checkpoints(config, &truncate_below)?;
        let log = LogWriter {
            log,
            truncate_below,
            log_bytes: 0,
            has_followers: feed.is_some(),
            spans: workers.spans.clone(),
            failure: Arc::clone(&workers.failure),
        };
        let publisher = Publisher {
            root_key,
            checkpoints,
            published: Arc::clone(&published),
            waiters: Arc::clone(&workers.waiters),
            pool: Arc::clone(&workers.pool),
            outside,
            feed,
            spans: workers.spans.clone(),
            failure: Arc::clone(&workers.failure),
        };
        workers.start_rounds(config, machine, Commit { log, publisher })?;
        let handler = QueryHandler::new(
            Arc::clone(&published),
            Arc::clone(&engine),
            node_key,
            Arc::clone(&workers.failure),
            &config.queries,
        );
        let calls = Calls {
            admission: Arc::new(AdmissionPolicy::new(&config.admission).map_err(ReplicaError::Admission)?),
            published,
            pool: Arc::clone(&workers.pool),
            waiters: Arc::clone(&workers.waiters),
            engine,
            statuses_max: config.pool.statuses_max,
            unpublished_max: commit::UNPUBLISHED_ROUNDS_MAX * config.rounds.batch_messages_max,
            call_wait: Duration::from_millis(config.pool.call_wait_ms),
            metrics: Arc::clone(&workers.metrics),
            failure: Arc::clone(&workers.failure),
        };
        let queries = workers.start_queries(config, handler)?;
        workers.wait_until_fresh(config, &calls.published, &snapshot)?;
        drop(snapshot);
        let (calls, observer) = (Arc::new(calls), queries.observer());
        let service = Service {
            calls: Arc::clone(&calls),
            queries,
            root_key_der: Arc::clone(&root_key_der),
        };
        let server = workers.start_server(config, service)?;
        let observed = Observed {
            metrics: Arc::clone(&calls.metrics),
            queries: observer,
            published: Arc::clone(&calls.published),
            server: server.observer(),
            admission: Arc::clone(&calls.admission),
            pool: Arc::clone(&calls.pool),
            waiters: Arc::clone(&calls.waiters),
            engine: Arc::clone(&calls.engine),
            scheduler_cores: config.scheduler_cores(),
            started: Instant::now(),
            checkpoints: Arc::clone(&workers.writer),
        };
        let observation = observation::start(&config.observation, &observed)
            .map_err(|error| ReplicaError::Io("start the listener for metrics", error))?;
        let address = server.local_addr();
        let port_file = config
            .port_file
            .as_deref()
            .map(|path| PortFile::write(path, address.port()));
        let port_file = port_file
            .transpose()
            .map_err(|error| ReplicaError::Io("write the port file", error))?;
        info!(%address, %subnet_id, backend = server.backend(), "serving");
        Ok(Self {
            server,
            _port_file: port_file,
            sync,
            workers,
            observed,
            observation,
            root_key_der,
            subnet_id,
            drain: Duration::from_millis(config.http.drain_timeout_ms),
        })
    }

    /// The address that the HTTP interface is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// The address of metrics and dashboard, if they are served.
    pub fn observation_addr(&self) -> Option<SocketAddr> {
        self.observation.as_ref().map(ServerHandle::local_addr)
    }

    /// The address that followers connect to, where there is one.
    pub fn sync_addr(&self) -> Option<SocketAddr> {
        self.sync.as_ref().map(SyncServer::local_addr)
    }

    /// DER encoding of the root key.
    pub fn root_key_der(&self) -> &[u8] {
        &self.root_key_der
    }

    /// The subnet.
    pub fn subnet_id(&self) -> SubnetId {
        self.subnet_id
    }

    /// What queries have come to, and what is under way.
    pub fn query_stats(&self) -> QueryStats {
        self.observed.queries.stats()
    }

    /// Counters, gauges and latencies in the exposition format of Prometheus.
    pub fn metrics_text(&self) -> String {
        self.observed.to_text()
    }

    /// Returns when no better code is being made in the background: from then on canisters run on the best there is, as
    /// measurements want it.
    pub fn finish_compiling(&self) {
        self.observed.engine.finish_compiling();
    }

    /// Why the replica cannot go on, once that has happened. It then accepts nothing more; its owner should stop it.
    pub fn failure(&self) -> Option<String> {
        self.workers.failure.get()
    }

    /// Finishes what was accepted (for a few seconds at most), answers everybody, writes a checkpoint and ends every
    /// thread.
    ///
    /// # Errors
    /// A thread failed, or the final checkpoint did. Nothing acknowledged is lost by either.
    pub fn stop(self) -> Result<(), ReplicaError> {
        let Self {
            server,
            _port_file,
            sync,
            mut workers,
            drain,
            ..
        } = self;
        workers.pool.close();
        drop(sync);
        let machine = workers.finish_rounds();
        let network = server.shutdown(drain);
        workers.join_others();
        if let Some(failure) = workers.failure.get() {
            return Err(ReplicaError::Failed(failure));
        }
        network.map_err(|error| ReplicaError::Io("shut the HTTP interface down", error))?;
        match machine {
            Some(machine) => workers.writer.write(machine.state()).map_err(ReplicaError::Checkpoint),
            None => Ok(()),
        }
    }
}

impl Workers {
    fn new(config: &Config, writer: Arc<CheckpointWriter>, directory: StateDirectory) -> Self {
        let (pool, waiters) = (
            Arc::new(IngressPool::new(config.pool.clone())),
            Arc::new(Waiters::default()),
        );
        Self {
            failure: Arc::new(Failure::new(Arc::clone(&pool), Arc::clone(&waiters))),
            pool,
            waiters,
            metrics: Arc::default(),
            writer,
            memory: Arc::new(DirtyMemory::new(&config.checkpoints)),
            round: None,
            commit: None,
            others: Vec::new(),
            recording: None,
            spans: None,
            _directory: directory,
        }
    }

    /// The HTTP interface of a service, with spans and a recording of its requests where they are asked for.
    fn start_server(&mut self, config: &Config, service: Service) -> Result<ServerHandle, ReplicaError> {
        let service = match &self.spans {
            None => self.recorded(config, Arc::new(service))?,
            Some(spans) => {
                let traced = Traced::new(Arc::new(service), Arc::clone(spans));
                self.recorded(config, Arc::new(traced))?
            }
        };
        Server::start_placed(server_config(config), service, keep_apart)
            .map_err(|error| ReplicaError::Io("start the HTTP interface", error))
    }

    /// The service, with a recording of its requests where one is asked for.
    fn recorded(
        &mut self,
        config: &Config,
        service: Arc<impl ReplicaService>,
    ) -> Result<Arc<dyn ReplicaService>, ReplicaError> {
        let Some(path) = &config.record else {
            return Ok(service);
        };
        let (recorded, recording) =
            Recorded::begin(service, path).map_err(|error| ReplicaError::Io("begin the recording", error))?;
        self.recording = Some(recording);
        Ok(Arc::new(recorded))
    }

    fn start_spans(&mut self, config: &Config, subnet: SubnetId) -> Result<(), ReplicaError> {
        let started = Spans::start(&config.tracing, &subnet.to_string())
            .map_err(|error| ReplicaError::Io("start the thread for spans", error))?;
        if let Some((spans, thread)) = started {
            self.spans = Some(spans);
            self.others.push(thread);
        }
        Ok(())
    }

    fn start_checkpoints(
        &mut self,
        config: &Config,
        truncate_below: &Arc<AtomicU64>,
    ) -> Result<CheckpointQueue, ReplicaError> {
        let (queue, thread) = checkpoints::start(
            Arc::clone(&self.writer),
            &config.checkpoints,
            Arc::clone(&self.memory),
            Arc::clone(truncate_below),
            &self.failure,
        )
        .map_err(|error| ReplicaError::Io("start the checkpoint thread", error))?;
        self.others.push(thread);
        Ok(queue)
    }

    fn start_sync(
        &self,
        config: &Config,
        root_key: &Arc<RootKey>,
        feed: Option<&Arc<Feed>>,
    ) -> Result<Option<SyncServer>, ReplicaError> {
        let (Some(address), Some(feed)) = (config.sync.listen, feed) else {
            return Ok(None);
        };
        let state = SyncState {
            root_key: Arc::clone(root_key),
            writer: Arc::clone(&self.writer),
            feed: Arc::clone(feed),
            memory: Arc::clone(&self.memory),
        };
        let server = SyncServer::start(address, state);
        server
            .map(Some)
            .map_err(|error| ReplicaError::Io("listen for followers", error))
    }

    fn start_outside(
        &mut self,
        config: &Config,
        secrets: ThresholdSecrets,
        world: World,
    ) -> Result<OutsideCalls, ReplicaError> {
        let (calls, signer) = OutsideCalls::start(&config.outcalls, secrets, world)
            .map_err(|error| ReplicaError::Io("start the threads for outcalls and signatures", error))?;
        self.others.push(signer);
        Ok(calls)
    }

    fn start_rounds(&mut self, config: &Config, machine: StateMachine, commit: Commit) -> Result<(), ReplicaError> {
        let (queue, receiver) = commit::queue();
        let rounds = Rounds {
            machine,
            pool: Arc::clone(&self.pool),
            commit: queue,
            config: config.rounds.clone(),
            rebases: self.writer.rebases(),
            memory: Arc::clone(&self.memory),
            metrics: Arc::clone(&self.metrics),
            spans: self.spans.clone(),
            failure: Arc::clone(&self.failure),
        };
        self.commit = Some(spawn("commit", move || commit.run(receiver))?);
        self.round = Some(spawn("round", move || rounds.run())?);
        Ok(())
    }

    /// Waits for the round that a state from before this process begins with: clients refuse what is certified with a
    /// time minutes ago.
    ///
    /// # Errors
    /// A failure before that round, or no round within [`FRESH_WAIT_MAX`].
    fn wait_until_fresh(
        &self,
        config: &Config,
        published: &Published,
        recovered: &Arc<CertifiedSnapshot>,
    ) -> Result<(), ReplicaError> {
        let deadline = Instant::now() + FRESH_WAIT_MAX;
        let freshness = Duration::from_millis(config.rounds.freshness_ms);
        if recovered.state.metadata.time.plus(freshness) > wall_clock() {
            return Ok(());
        }
        let is_recovered = |snapshot: Arc<CertifiedSnapshot>| Arc::ptr_eq(&snapshot, recovered);
        while published.load().is_none_or(is_recovered) {
            if let Some(failure) = self.failure.get() {
                return Err(ReplicaError::Failed(failure));
            }
            if Instant::now() >= deadline {
                let text =
                    "no round was certified within a minute of the start; is the disk of the state directory stuck?";
                return Err(ReplicaError::Failed(text.into()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn start_queries(&mut self, config: &Config, handler: QueryHandler) -> Result<Queries, ReplicaError> {
        let (queries, threads) = queries::start(handler, config.query_threads())
            .map_err(|error| ReplicaError::Io("start the query threads", error))?;
        self.others.extend(threads);
        Ok(queries)
    }

    /// Waits for the last round and its commit, and answers who still waits. The pool is closed. The final state, unless
    /// the round thread panicked or was never started.
    fn finish_rounds(&mut self) -> Option<StateMachine> {
        // A panic has been recorded as the failure.
        let machine = self.round.take().and_then(|thread| thread.join().ok());
        let _recorded = self.commit.take().map(JoinHandle::join);
        self.pool.abandon();
        // What has been inducted is part of the state and goes on after the next start: 202. All else was in no batch
        // and has to be sent again: 503.
        let history = machine.as_ref().map(|machine| &machine.state().ingress_history);
        self.waiters
            .close(|id| match history.and_then(|history| history.get(id)) {
                Some(_) => CallReply::Accepted,
                None => CallReply::Busy(SHUTTING_DOWN),
            });
        machine
    }

    /// Waits for the checkpoint thread and the signer, which end with the commit thread, and for the query threads, which end with the
    /// server.
    fn join_others(&mut self) {
        // The last reference but those of the threads: their end ends the sending of spans.
        self.spans = None;
        for thread in self.others.drain(..) {
            let _recorded = thread.join();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.pool.abandon();
        self.finish_rounds();
        self.join_others();
    }
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, ReplicaError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| ReplicaError::Io("start a thread", error))
}

pub(crate) fn server_config(config: &Config) -> ServerConfig {
    ServerConfig {
        listen: config.listen,
        threads: config.net_threads,
        backend: config.net,
        limits: NetLimits {
            connections_max: open_files::connections_max(config.http.connections_max),
            ..config.http.clone()
        },
        signature_cache: config.signature_cache.clone(),
        signature_batches: config.signature_batches,
        ..ServerConfig::default()
    }
}
