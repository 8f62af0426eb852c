//! What the network stack asks for, answered from the last certified state, the pool and the query threads.

use crate::admission::{AdmissionPolicy, Refusal};
use crate::failure::Failure;
use crate::metrics::Metrics;
use crate::pool::{Admission, IngressPool};
use crate::queries::Queries;
use crate::rounds::wall_clock;
use crate::snapshot::{CertifiedSnapshot, Published};
use crate::waiters::Waiters;
use replicore_engine::Engine;
use replicore_netstack::{
    CallReply, Query, QueryReply, ReadState, ReadStateError, ReplicaService, Responder, ServiceBusy, StatusReport,
    Target, VerifiedIngress,
};
use replicore_scheduler::{inspect, management};
use replicore_types::{CanisterId, ErrorCode, Ingress, Payload, SubnetId, Time, UserError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The replica as the network stack sees it.
pub struct Service {
    /// Takes calls up.
    pub calls: Arc<Calls>,
    /// Answers queries.
    pub queries: Queries,
    /// DER encoding of the root key.
    pub root_key_der: Arc<[u8]>,
}

/// Told to callers whose message will not enter a batch before the replica is started again.
pub const SHUTTING_DOWN: ServiceBusy = ServiceBusy("the replica is shutting down");

/// What a call passes on its way into the pool.
pub struct Calls {
    /// Which calls the operator admits.
    pub admission: Arc<AdmissionPolicy>,
    /// The last certified state.
    pub published: Arc<Published>,
    /// Messages waiting for a batch.
    pub pool: Arc<IngressPool>,
    /// Callers waiting for certificates.
    pub waiters: Arc<Waiters>,
    /// Runs `canister_inspect_message`.
    pub engine: Arc<Engine>,
    /// Statuses in the ingress history above which no new call is taken.
    pub statuses_max: usize,
    /// Messages that may be in batches whose rounds are not published yet.
    pub unpublished_max: usize,
    /// How long a v3/v4 call waits.
    pub call_wait: Duration,
    /// Counts and times the answers.
    pub metrics: Arc<Metrics>,
    /// Makes the replica unhealthy; learns of a panic on a network thread.
    pub failure: Arc<Failure>,
}

impl ReplicaService for Service {
    fn status(&self) -> StatusReport {
        let snapshot = self.calls.published.load();
        StatusReport {
            root_key: Arc::clone(&self.root_key_der),
            healthy: snapshot.is_some() && self.calls.failure.get().is_none(),
            certified_height: snapshot.map_or(0, |snapshot| snapshot.state.metadata.height.0),
            implementation: concat!("replicore-", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    fn now(&self) -> Time {
        wall_clock()
    }

    fn has_room(&self, canister: &CanisterId, waited: Duration) -> Result<(), ServiceBusy> {
        match self.calls.pool.slow(canister, waited) {
            None => Ok(()),
            Some(bound) => {
                self.calls.metrics.calls_refused.add(1);
                Err(ServiceBusy(bound))
            }
        }
    }

    fn call(&self, message: VerifiedIngress, target: Target, wait: bool, respond: Responder<CallReply>) {
        let _watch = self.calls.failure.watch("network");
        let respond = counted(&self.calls.metrics, respond);
        let Some(snapshot) = self.calls.published.load() else {
            return respond(CallReply::Busy(ServiceBusy("no certified state yet")));
        };
        if let Err(refusal) = self.calls.admission.admit(&message, Instant::now()) {
            return respond(match refusal {
                Refusal::Denied(error) => CallReply::Rejected(error),
                Refusal::Limited(busy) => CallReply::Busy(busy),
            });
        }
        let calls = Arc::clone(&self.calls);
        if !runs_filter(&snapshot, &message) {
            return calls.take_up(&snapshot, message, target, wait, respond);
        }
        let receiver = message.receiver;
        let task = Box::new(move |turn| match turn {
            Ok(()) => calls.take_up(&snapshot, message, target, wait, respond),
            Err(busy) => respond(CallReply::Busy(busy)),
        });
        self.queries.run(receiver, task);
    }

    fn query(&self, query: Query, respond: Responder<Result<QueryReply, ServiceBusy>>) {
        self.queries.ask(query, respond);
    }

    fn read_state(&self, read: ReadState, respond: Responder<Result<Payload, ReadStateError>>) {
        let _watch = self.calls.failure.watch("network");
        respond(match self.calls.published.load() {
            Some(snapshot) => snapshot.read_state(&read),
            None => Err(ReadStateError::Unavailable),
        });
    }
}

impl Calls {
    fn take_up(
        &self,
        snapshot: &CertifiedSnapshot,
        message: VerifiedIngress,
        target: Target,
        wait: bool,
        respond: Responder<CallReply>,
    ) {
        match self.admit(snapshot, message, target) {
            Err(error) => respond(CallReply::Rejected(error)),
            Ok(message) => self.enqueue(snapshot, message, wait, respond),
        }
    }

    /// The checks before the pool: is the message for this subnet and this path, and does the canister take it?
    fn admit(
        &self,
        snapshot: &CertifiedSnapshot,
        message: VerifiedIngress,
        target: Target,
    ) -> Result<VerifiedIngress, UserError> {
        let effective = effective_canister_id(&message, target, snapshot)?;
        let message = message.about(effective);
        inspect::should_accept(&snapshot.state, &*self.engine, &message)?;
        Ok(message)
    }

    /// True where the history might have no room for one more message when its turn comes: a round drops what it has no
    /// room for, and nobody would be told.
    fn history_is_full(&self, snapshot: &CertifiedSnapshot) -> bool {
        let on_their_way = self.pool.stats().messages + self.unpublished_max;
        snapshot.state.ingress_history.len() + on_their_way >= self.statuses_max
    }

    /// The one way into the pool.
    fn enqueue(
        &self,
        snapshot: &CertifiedSnapshot,
        message: VerifiedIngress,
        wait: bool,
        respond: Responder<CallReply>,
    ) {
        let id = message.message_id;
        // What has been inducted once is never inducted again: there is no point in offering it to another batch.
        let is_known = snapshot.state.ingress_history.get(&id).is_some();
        if !is_known && self.history_is_full(snapshot) {
            return respond(CallReply::Busy(HISTORY_FULL));
        }
        if !wait {
            let admission = if is_known {
                Admission::Duplicate
            } else {
                self.pool.offer(message.into_message())
            };
            return respond(match admission {
                Admission::Added | Admission::Duplicate => CallReply::Accepted,
                Admission::Full(bound) => CallReply::Busy(ServiceBusy(bound)),
            });
        }
        if snapshot.is_finished(&id) {
            return respond(CallReply::Certificate(snapshot.request_status_certificate(&id)));
        }
        let ticket = match self.waiters.register(id, Instant::now() + self.call_wait, respond) {
            Ok(ticket) => ticket,
            // A message that is part of the state goes on after the next start; another one has to be sent again.
            Err(respond) if is_known => return respond(CallReply::Accepted),
            Err(respond) => return respond(CallReply::Busy(SHUTTING_DOWN)),
        };
        if !is_known && let Admission::Full(bound) = self.pool.offer(message.into_message()) {
            // Others may wait for an earlier copy that was admitted: only this caller is turned away.
            if let Some(respond) = self.waiters.cancel(&id, ticket) {
                respond(CallReply::Busy(ServiceBusy(bound)));
            }
            return;
        }
        // The message may have finished between the first look and the registration (a duplicate of one in flight):
        // then nobody else answers.
        if let Some(now) = self.published.load().filter(|now| now.is_finished(&id)) {
            for respond in self.waiters.take(&id) {
                respond(CallReply::Certificate(now.request_status_certificate(&id)));
            }
        }
    }
}

/// Told to callers for whose messages there is no room in the ingress history.
const HISTORY_FULL: ServiceBusy =
    ServiceBusy("the ingress history holds pool.statuses_max statuses; each is forgotten after six minutes");

/// The responder, which counts what it answers.
fn counted(metrics: &Arc<Metrics>, respond: Responder<CallReply>) -> Responder<CallReply> {
    let (metrics, arrived) = (Arc::clone(metrics), Instant::now());
    Box::new(move |reply| {
        match &reply {
            CallReply::Certificate(_) => {
                metrics.calls_certified.add(1);
                metrics.call_latency.record(arrived.elapsed());
            }
            CallReply::Accepted => metrics.calls_accepted.add(1),
            CallReply::Rejected(_) => metrics.calls_rejected.add(1),
            CallReply::Busy(_) => metrics.calls_refused.add(1),
        }
        respond(reply);
    })
}

/// True where the ingress filter runs code of the canister.
fn runs_filter(snapshot: &CertifiedSnapshot, message: &Ingress) -> bool {
    let canister = snapshot.state.canister(&message.receiver);
    let execution = canister.and_then(|canister| canister.execution.as_ref());
    execution.is_some_and(|execution| execution.interface.has("canister_inspect_message"))
}

/// A request went to the path of another subnet.
pub fn hosts_no_subnet(subnet: SubnetId) -> UserError {
    UserError::new(
        ErrorCode::SubnetNotFound,
        format!("This replica hosts no subnet {subnet}"),
    )
}

/// The calls that may be addressed to a subnet (interface specification, "Effective subnet id").
fn creates_canister(method: &str) -> bool {
    matches!(method, "create_canister" | "provisional_create_canister_with_cycles")
}

/// The effective canister id of a call: it must agree with the request path (interface specification, "Effective
/// canister id").
fn effective_canister_id(
    message: &Ingress,
    target: Target,
    snapshot: &CertifiedSnapshot,
) -> Result<Option<CanisterId>, UserError> {
    let invalid = |text: String| UserError::new(ErrorCode::InvalidManagementPayload, text);
    if message.receiver != CanisterId::MANAGEMENT {
        return match target {
            Target::Canister(path) if path == message.receiver => Ok(Some(message.receiver)),
            Target::Canister(path) => Err(invalid(format!(
                "The effective canister id {path} of the request path is not the canister {} that is called",
                message.receiver
            ))),
            Target::Subnet(_) => Err(invalid(
                "Calls through the subnet endpoint go to the management canister".into(),
            )),
        };
    }
    let effective = management::effective_canister_id(&message.method_name, &message.method_payload)?;
    match (target, effective) {
        (Target::Subnet(subnet), _) if subnet != snapshot.state.metadata.subnet_id => Err(hosts_no_subnet(subnet)),
        (Target::Subnet(_), _) if !creates_canister(&message.method_name) => Err(invalid(format!(
            "The subnet endpoint takes calls that create canisters; send {} to the canister that it is about",
            message.method_name
        ))),
        (Target::Canister(path), Some(effective)) if path != effective => Err(invalid(format!(
            "The effective canister id {path} of the request path is not the canister {effective} that the call is about"
        ))),
        _ => Ok(effective),
    }
}
