//! Queries: on the last certified state, on every core, signed by the node.
//!
//! ```text
//! network thread:  known answer (cache), or a canister that is warm -> first slice, there and then
//!                  cold canister, composite query, slice used up    -> queue (fair between canisters)
//! query threads:   slice by slice, in turn with whatever else waits
//! ```
//! A short query thus wakes no other thread, and a long one holds up no network thread for longer than its first slice.
//! The query threads also run the ingress filters of canisters.

use crate::certification::{NodeKey, QueryOutcome, sign_query_response};
use crate::config::QueriesConfig;
use crate::failure::Failure;
use crate::metrics::{Histogram, QueryCounters};
use crate::query_cache::{QueryCache, QueryCacheStats, Signed};
use crate::query_queue::{FairQueue, QueueFull};
use crate::service::hosts_no_subnet;
use crate::snapshot::{CertifiedSnapshot, Published};
use replicore_engine::{DataCertificate, Engine, MethodKind};
use replicore_netstack::{Query, QueryReply, QueryResponse, Responder, ServiceBusy, Target};
use replicore_scheduler::query::{self, FinishedQuery, QueryCall, QueryEvaluation, QueryProgress};
use replicore_scheduler::{CanisterState, ReplicatedState, management};
use replicore_types::{CanisterId, ErrorCode, MessageId, NumInstructions, SubnetId, UserError, WasmResult};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a network thread executes of a query before it hands it over: some hundred microseconds at most.
const SLICE: NumInstructions = NumInstructions(1_000_000);
/// Slices that a query thread executes before the next canister has its turn: some milliseconds.
const SLICES_PER_TURN: u32 = 20;
/// Queries that wait with their work done so far. Each holds an instance and a stack, so that there are few; above it a
/// query goes on without a pause, or begins anew on its query thread.
const PAUSED_MAX: usize = 64;

type Answer = Responder<Result<QueryReply, ServiceBusy>>;

/// Something else to be done on a query thread: called there with `Ok`, or at once with the bound that is in the way.
pub type Task = Box<dyn FnOnce(Result<(), ServiceBusy>) + Send>;

enum Work {
    Query(Box<Job>),
    Task(Task),
}

/// A query on its way through the query threads.
struct Job {
    call: QueryCall,
    message_id: MessageId,
    respond: Answer,
    arrived: Instant,
    /// The work so far, with the state that it is done on.
    begun: Option<(Arc<CertifiedSnapshot>, QueryEvaluation)>,
}

/// What every thread that answers queries shares.
pub struct QueryHandler {
    published: Arc<Published>,
    engine: Arc<Engine>,
    node_key: Arc<NodeKey>,
    failure: Arc<Failure>,
    cache: QueryCache,
    queue: FairQueue<Work>,
    paused: AtomicUsize,
    waiting_time_max: Duration,
    counters: QueryCounters,
}

/// What queries have come to, and what is under way.
#[derive(Clone, Debug)]
pub struct QueryStats {
    /// Answered on the network thread, from the cache or by executing.
    pub answered_at_once: u64,
    /// Answered by a query thread.
    pub answered_by_thread: u64,
    /// Of all answered ones, the rejections.
    pub rejected: u64,
    /// Refused because of a bound.
    pub refused: u64,
    /// Instructions executed.
    pub instructions: u64,
    /// Queries and ingress filters that wait for a query thread.
    pub waiting: usize,
    /// Queries between slices.
    pub paused: usize,
    /// The result cache.
    pub cache: QueryCacheStats,
}

/// The way to the answers. When the last one is gone the query threads end.
pub struct Queries(Arc<QueryHandler>);

impl Drop for Queries {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

/// Starts the query threads; they end when the [`Queries`] is gone.
///
/// # Errors
/// The system gives no thread.
pub fn start(handler: QueryHandler, threads: usize) -> std::io::Result<(Queries, Vec<JoinHandle<()>>)> {
    let handler = Arc::new(handler);
    // Made first: where a thread cannot be had, those there are end.
    let queries = Queries(Arc::clone(&handler));
    let threads = (0..threads)
        .map(|number| {
            let handler = Arc::clone(&handler);
            std::thread::Builder::new()
                .name(format!("query-{number}"))
                .spawn(move || handler.work())
        })
        .collect::<Result<_, _>>()?;
    Ok((queries, threads))
}

impl Queries {
    /// Answers a query, at once where that is quick.
    pub fn ask(&self, query: Query, respond: Answer) {
        self.0.ask(query, respond);
    }

    /// Hands over a task about a canister, or tells it at once that too many wait.
    pub fn run(&self, canister: CanisterId, task: Task) {
        if let Err((Work::Task(task), full)) = self.0.queue.push(canister, Work::Task(task)) {
            task(Err(self.0.busy(full)));
        }
    }

    /// A reader of the statistics that outlives this handle.
    pub fn observer(&self) -> Arc<QueryHandler> {
        Arc::clone(&self.0)
    }
}

impl QueryHandler {
    /// A handler for the states that appear in `published`.
    pub fn new(
        published: Arc<Published>,
        engine: Arc<Engine>,
        node_key: Arc<NodeKey>,
        failure: Arc<Failure>,
        config: &QueriesConfig,
    ) -> Self {
        Self {
            published,
            engine,
            node_key,
            failure,
            cache: QueryCache::new(config.cache_bytes_max),
            queue: FairQueue::new(config.waiting_max, config.waiting_per_canister_max),
            paused: AtomicUsize::new(0),
            waiting_time_max: Duration::from_millis(config.waiting_ms_max),
            counters: QueryCounters::default(),
        }
    }

    /// What queries have come to.
    pub fn stats(&self) -> QueryStats {
        let counters = &self.counters;
        QueryStats {
            answered_at_once: counters.at_once.get(),
            answered_by_thread: counters.by_thread.get(),
            rejected: counters.rejected.get(),
            refused: counters.refused.get(),
            instructions: counters.instructions.get(),
            waiting: self.queue.len(),
            paused: self.paused.load(Ordering::Relaxed),
            cache: self.cache.stats(),
        }
    }

    /// Seconds from a query's arrival to its answer.
    pub fn latency(&self) -> &Histogram {
        &self.counters.latency
    }

    fn ask(&self, query: Query, respond: Answer) {
        let _watch = self.failure.watch("network");
        let arrived = Instant::now();
        let Some(snapshot) = self.published.load() else {
            self.counters.refused.add(1);
            return respond(Err(ServiceBusy("no certified state yet")));
        };
        let call = QueryCall {
            source: query.source,
            receiver: query.receiver,
            method: query.method_name,
            argument: query.method_payload,
            caller_info: query.sender_info,
        };
        let mut job = Job {
            call,
            message_id: query.message_id,
            respond,
            arrived,
            begun: None,
        };
        // Calls and `read_state` requests for another subnet are refused too. The management canister's queries through
        // the path of any canister are answered, as production does.
        if let Target::Subnet(subnet) = query.target
            && let Err(error) = check_subnet_query(subnet, &job.call, &snapshot)
        {
            self.counters.at_once.add(1);
            return self.respond(job, &snapshot, Err(error));
        }
        if job.call.receiver == CanisterId::MANAGEMENT {
            return self.enqueue(job);
        }
        let canister = match query::check(&snapshot.state, &job.call.receiver, &job.call.method) {
            Ok(canister) => canister,
            Err(error) => {
                self.counters.at_once.add(1);
                return self.respond(job, &snapshot, Err(error));
            }
        };
        if let Some((answer, signed)) = self.cache.get(&job.call, &snapshot.state, canister) {
            self.counters.at_once.add(1);
            return self.respond_again(job, &snapshot, answer, signed);
        }
        if !self.is_quick(canister, &job.call.method) {
            return self.enqueue(job);
        }
        match self.begin(&snapshot, &job.call, SLICE) {
            QueryProgress::Finished(finished) => {
                self.counters.at_once.add(1);
                self.finish(job, &snapshot, finished);
            }
            QueryProgress::Paused(evaluation) => {
                if self.may_park() {
                    job.begun = Some((snapshot, evaluation));
                }
                self.enqueue(job);
            }
        }
    }

    /// True where a network thread may begin the query: the canister is warm and nothing but its own code runs.
    fn is_quick(&self, canister: &CanisterState, method: &str) -> bool {
        let Some(execution) = &canister.execution else {
            return false;
        };
        execution.interface.method(method) == Some(MethodKind::Query)
            && self.engine.is_warm_for_query(canister.id(), execution)
    }

    fn begin(&self, snapshot: &Arc<CertifiedSnapshot>, call: &QueryCall, slice: NumInstructions) -> QueryProgress {
        let certificate = DataCertificate(Arc::clone(snapshot) as _);
        query::begin_query(&snapshot.state, &*self.engine, call.clone(), Some(certificate), slice)
    }

    fn enqueue(&self, job: Job) {
        let receiver = job.call.receiver;
        let was_begun = job.begun.is_some();
        if let Err((Work::Query(job), full)) = self.queue.push(receiver, Work::Query(Box::new(job))) {
            if was_begun {
                self.paused.fetch_sub(1, Ordering::Relaxed);
            }
            self.counters.refused.add(1);
            (job.respond)(Err(self.busy(full)));
        }
    }

    fn busy(&self, full: QueueFull) -> ServiceBusy {
        ServiceBusy(match full {
            QueueFull::Whole => "queries.waiting_max queries wait",
            QueueFull::Canister => "queries.waiting_per_canister_max queries of the canister wait",
            QueueFull::Closed => "the replica is shutting down",
        })
    }

    /// Counts one more query that keeps its work while it waits, if there may be one more.
    fn may_park(&self) -> bool {
        let counted = self
            .paused
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paused| {
                (paused < PAUSED_MAX).then_some(paused + 1)
            });
        counted.is_ok()
    }

    fn work(&self) {
        let _watch = self.failure.watch("query");
        while let Some((canister, work)) = self.queue.pop() {
            match work {
                Work::Task(task) => task(Ok(())),
                Work::Query(job) => self.go_on(canister, job),
            }
        }
    }

    /// One turn of a query.
    fn go_on(&self, canister: CanisterId, mut job: Box<Job>) {
        let (snapshot, mut progress) = match job.begun.take() {
            Some((snapshot, evaluation)) => {
                self.paused.fetch_sub(1, Ordering::Relaxed);
                let progress = evaluation.advance(&snapshot.state, &*self.engine, SLICE);
                (snapshot, progress)
            }
            None => {
                let Some(snapshot) = self
                    .published
                    .load()
                    .filter(|_| job.arrived.elapsed() < self.waiting_time_max)
                else {
                    self.counters.refused.add(1);
                    return (job.respond)(Err(ServiceBusy("the query waited for queries.waiting_ms_max")));
                };
                if job.call.receiver == CanisterId::MANAGEMENT {
                    return self.answer_management(*job, &snapshot);
                }
                let progress = self.begin(&snapshot, &job.call, SLICE);
                (snapshot, progress)
            }
        };
        let mut slices = 1;
        loop {
            match progress {
                QueryProgress::Finished(finished) => {
                    self.counters.by_thread.add(1);
                    return self.finish(*job, &snapshot, finished);
                }
                QueryProgress::Paused(evaluation) if slices >= SLICES_PER_TURN && self.may_park() => {
                    job.begun = Some((snapshot, evaluation));
                    return self.queue.push_again(canister, Work::Query(job));
                }
                QueryProgress::Paused(evaluation) => {
                    slices += 1;
                    progress = evaluation.advance(&snapshot.state, &*self.engine, SLICE);
                }
            }
        }
    }

    fn answer_management(&self, job: Job, snapshot: &CertifiedSnapshot) {
        let answer = management::query(&snapshot.state, job.call.source, &job.call.method, &job.call.argument);
        self.counters.by_thread.add(1);
        self.respond(job, snapshot, answer.map(WasmResult::Reply));
    }

    fn finish(&self, job: Job, snapshot: &CertifiedSnapshot, finished: FinishedQuery) {
        self.counters.instructions.add(finished.instructions.0);
        if let Ok(answer) = &finished.result {
            self.cache.put(job.call.clone(), finished.dependencies, answer);
        }
        self.respond(job, snapshot, finished.result);
    }

    fn respond(&self, job: Job, snapshot: &CertifiedSnapshot, result: Result<WasmResult, UserError>) {
        let response = response(result);
        let signed = self.sign(&response, job.message_id, snapshot);
        self.send(job, response, signed);
    }

    /// Gives a known answer; who repeats the very same request gets the same signature, as long as the time is the same.
    fn respond_again(&self, job: Job, snapshot: &CertifiedSnapshot, answer: WasmResult, signed: Option<Signed>) {
        let response = response(Ok(answer));
        let repeated = signed
            .filter(|signed| (signed.message_id, signed.timestamp) == (job.message_id, snapshot.state.metadata.time));
        let signed = repeated.unwrap_or_else(|| {
            let signed = self.sign(&response, job.message_id, snapshot);
            self.cache.note_signature(&job.call, signed);
            signed
        });
        self.send(job, response, signed);
    }

    fn sign(&self, response: &QueryResponse, message_id: MessageId, snapshot: &CertifiedSnapshot) -> Signed {
        let outcome = match response {
            QueryResponse::Replied(reply) => QueryOutcome::Replied(reply),
            QueryResponse::Rejected(error) => QueryOutcome::Rejected(error),
        };
        let timestamp = snapshot.state.metadata.time;
        Signed {
            message_id,
            timestamp,
            signature: sign_query_response(&self.node_key, outcome, &message_id, timestamp),
        }
    }

    fn send(&self, job: Job, response: QueryResponse, signed: Signed) {
        if matches!(response, QueryResponse::Rejected(_)) {
            self.counters.rejected.add(1);
        }
        self.counters.latency.record(job.arrived.elapsed());
        (job.respond)(Ok(QueryReply {
            response,
            timestamp: signed.timestamp,
            signature: signed.signature,
            node: self.node_key.node_id(),
        }));
    }
}

/// What a query through the path of a subnet may ask for (interface specification, "Effective subnet id").
fn check_subnet_query(subnet: SubnetId, call: &QueryCall, snapshot: &CertifiedSnapshot) -> Result<(), UserError> {
    if subnet != snapshot.state.metadata.subnet_id {
        return Err(hosts_no_subnet(subnet));
    }
    if call.receiver == CanisterId::MANAGEMENT && call.method == "list_canisters" {
        return Ok(());
    }
    let text = format!(
        "The subnet endpoint takes queries of list_canisters; send {} to the canister that it is about",
        call.method
    );
    Err(UserError::new(ErrorCode::InvalidManagementPayload, text))
}

/// Evaluates a query to its end.
pub fn evaluate(
    state: &ReplicatedState,
    engine: &Engine,
    call: QueryCall,
    certificate: Option<DataCertificate>,
) -> QueryResponse {
    response(match call.receiver == CanisterId::MANAGEMENT {
        true => management::query(state, call.source, &call.method, &call.argument).map(WasmResult::Reply),
        false => query::execute_query(state, engine, call, certificate),
    })
}

/// As clients see it: a canister's own reject has a code like every other.
fn response(result: Result<WasmResult, UserError>) -> QueryResponse {
    match result {
        Ok(WasmResult::Reply(reply)) => QueryResponse::Replied(reply),
        Ok(WasmResult::Reject(text)) => QueryResponse::Rejected(UserError {
            code: ErrorCode::CanisterRejectedMessage,
            description: text,
        }),
        Err(error) => QueryResponse::Rejected(error),
    }
}
