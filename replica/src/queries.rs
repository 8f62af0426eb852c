//! The query threads: queries on the last certified state, in parallel, signed by the node. They also run the ingress
//! filters of canisters, so that no canister's code holds up a network thread.

use crate::certification::{NodeKey, QueryOutcome, sign_query_response};
use crate::failure::Failure;
use crate::snapshot::{CertifiedSnapshot, Published};
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use replicore_engine::Engine;
use replicore_netstack::{Query, QueryReply, QueryResponse, Responder, ServiceBusy};
use replicore_scheduler::{ReplicatedState, management, query};
use replicore_types::{CanisterId, ErrorCode, Payload, PrincipalId, UserError, WasmResult};
use std::sync::Arc;
use std::thread::JoinHandle;

type Answer = Responder<Result<QueryReply, ServiceBusy>>;

/// Something else to be done on a query thread: called there with `Ok`, or at once with the bound that is in the way.
pub type Task = Box<dyn FnOnce(Result<(), ServiceBusy>) + Send>;

#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are queries, and a query costs no allocation on its way"
)]
enum Work {
    Query(Query, Answer),
    Task(Task),
}

impl Work {
    fn refuse(self, busy: ServiceBusy) {
        match self {
            Self::Query(_, respond) => respond(Err(busy)),
            Self::Task(task) => task(Err(busy)),
        }
    }
}

/// The way to the query threads; bounded.
#[derive(Clone)]
pub struct QueryQueue(Sender<Work>);

impl QueryQueue {
    /// Hands over a query, or answers at once that too many wait.
    pub fn offer(&self, query: Query, respond: Answer) {
        self.send(Work::Query(query, respond));
    }

    /// Hands over a task, or tells it at once that too many wait.
    pub fn run(&self, task: Task) {
        self.send(Work::Task(task));
    }

    fn send(&self, work: Work) {
        match self.0.try_send(work) {
            Ok(()) => {}
            Err(TrySendError::Full(work)) => work.refuse(ServiceBusy("queries.waiting_max queries wait")),
            Err(TrySendError::Disconnected(work)) => work.refuse(ServiceBusy("the replica is shutting down")),
        }
    }
}

/// What every query thread shares.
pub struct QueryHandler {
    /// The last certified state.
    pub published: Arc<Published>,
    /// Executes.
    pub engine: Arc<Engine>,
    /// Signs answers.
    pub node_key: Arc<NodeKey>,
    /// Learns of a panic.
    pub failure: Arc<Failure>,
}

/// Starts the threads; they end when every [`QueryQueue`] is gone.
///
/// # Errors
/// The system gives no thread.
pub fn start(
    handler: Arc<QueryHandler>,
    threads: usize,
    waiting_max: usize,
) -> std::io::Result<(QueryQueue, Vec<JoinHandle<()>>)> {
    let (sender, receiver) = bounded(waiting_max);
    let threads = (0..threads)
        .map(|number| {
            let (handler, receiver) = (Arc::clone(&handler), receiver.clone());
            std::thread::Builder::new()
                .name(format!("query-{number}"))
                .spawn(move || handler.run(&receiver))
        })
        .collect::<Result<_, _>>()?;
    Ok((QueryQueue(sender), threads))
}

impl QueryHandler {
    fn run(&self, queue: &Receiver<Work>) {
        let _watch = self.failure.watch("query");
        for work in queue {
            match work {
                Work::Task(task) => task(Ok(())),
                Work::Query(query, respond) => respond(match self.published.load() {
                    Some(snapshot) => Ok(self.answer(&snapshot, query)),
                    None => Err(ServiceBusy("no certified state yet")),
                }),
            }
        }
    }

    fn answer(&self, snapshot: &CertifiedSnapshot, query: Query) -> QueryReply {
        let timestamp = snapshot.state.metadata.time;
        let message_id = query.message_id;
        let response = evaluate(
            &snapshot.state,
            &self.engine,
            query.source,
            query.receiver,
            query.method_name,
            query.method_payload,
            Some(snapshot),
        );
        let outcome = match &response {
            QueryResponse::Replied(reply) => QueryOutcome::Replied(reply),
            QueryResponse::Rejected(error) => QueryOutcome::Rejected(error),
        };
        let signature = sign_query_response(&self.node_key, outcome, &message_id, timestamp);
        QueryReply {
            response,
            timestamp,
            signature,
            node: self.node_key.node_id(),
        }
    }
}

/// Evaluates a query. `certified` provides the data certificate, where there is one.
pub fn evaluate(
    state: &ReplicatedState,
    engine: &Engine,
    source: PrincipalId,
    receiver: CanisterId,
    method: String,
    argument: Payload,
    certified: Option<&CertifiedSnapshot>,
) -> QueryResponse {
    let result = if receiver == CanisterId::MANAGEMENT {
        management::query(state, source, &method, &argument).map(WasmResult::Reply)
    } else {
        let data_certificate = |canister: CanisterId| certified.map(|snapshot| snapshot.data_certificate(&canister));
        query::execute_query(state, engine, source, receiver, method, argument, &data_certificate)
    };
    match result {
        Ok(WasmResult::Reply(reply)) => QueryResponse::Replied(reply),
        Ok(WasmResult::Reject(text)) => QueryResponse::Rejected(UserError {
            code: ErrorCode::CanisterRejectedMessage,
            description: text,
        }),
        Err(error) => QueryResponse::Rejected(error),
    }
}
