//! What canisters ask of the world outside the rounds: HTTP requests, and signatures with secrets that no round may see.
//!
//! ```text
//! round      call is put aside in the state
//! commit     its batch is durable, the state certified         -> notice()
//! here       a worker makes the request or the signature       -> IngressPool::answer()
//! round      the answer enters with the next batch, and so the log
//! ```
//! Replay finds every answer in the log: it needs neither network nor secrets. A call that was open when the process
//! ended is begun anew by the next one, so a request may be made more than once; its answer enters once.

mod address;
mod http;
mod secrets;

use http::HttpClient;
pub use secrets::{THRESHOLD_SEED_FILE, ThresholdSecrets};

use crate::config::OutcallsConfig;
use crate::failure::Failure;
use crate::pool::IngressPool;
use crate::snapshot::{CertifiedSnapshot, Published};
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use replicore_engine::Engine;
use replicore_scheduler::outcall::HttpOutcall;
use replicore_scheduler::state::{SubnetCallContext, SubnetCallKind, SubnetMessage};
use replicore_scheduler::threshold::ThresholdRequest;
use replicore_types::{CallbackId, CanisterId, ConsensusResponse, RejectCode, RejectContext, ResponsePayload};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Finds calls to the outside in certified states and hands them to the workers. Dropping it ends the workers once they
/// have finished what they are at.
pub struct OutsideCalls {
    /// Calls up to this one have been handed out.
    handed_out: u64,
    signatures: Sender<Signature>,
    requests: Sender<Request>,
    pool: Arc<IngressPool>,
}

/// A signature or vetKey to be made. The state holds at most 20 for each of the 12 keys.
struct Signature {
    id: CallbackId,
    caller: CanisterId,
    request: Arc<ThresholdRequest>,
}

/// An HTTP request to be made.
struct Request {
    id: CallbackId,
    caller: CanisterId,
    outcall: Arc<HttpOutcall>,
}

/// What the workers share with the rest of the process.
pub struct World {
    /// Where answers go.
    pub pool: Arc<IngressPool>,
    /// Transformations run on the last certified state.
    pub published: Arc<Published>,
    /// Runs them.
    pub engine: Arc<Engine>,
    /// Learns of a panic.
    pub failure: Arc<Failure>,
}

impl OutsideCalls {
    /// Starts the workers. Those for HTTP requests are not waited for at the end: a server that does not answer must not
    /// hold up a shutdown. The handle is that of the thread that makes signatures.
    ///
    /// # Errors
    /// The configured root certificates cannot be read, or the system gives no thread.
    pub fn start(
        config: &OutcallsConfig,
        secrets: ThresholdSecrets,
        world: World,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (signatures, to_sign) = unbounded();
        let (requests, to_request) = bounded(config.waiting_max);
        let world = Arc::new(world);
        let client = Arc::new(HttpClient::new(config)?);
        let spawn = |name: String, work: Box<dyn FnOnce() + Send>| std::thread::Builder::new().name(name).spawn(work);
        for number in 0..config.threads {
            let (world, client, requests) = (Arc::clone(&world), Arc::clone(&client), Receiver::clone(&to_request));
            let work = move || make_requests(&world, &client, &requests);
            spawn(format!("outcall-{number}"), Box::new(work))?;
        }
        let pool = Arc::clone(&world.pool);
        let signer = spawn("signer".into(), Box::new(move || sign(&world, &secrets, &to_sign)))?;
        let calls = Self {
            handed_out: 0,
            signatures,
            requests,
            pool,
        };
        Ok((calls, signer))
    }

    /// Hands out what is new in a certified state.
    pub fn notice(&mut self, snapshot: &CertifiedSnapshot) {
        let contexts = &snapshot.state.subnet.call_contexts;
        let Some((newest, _)) = contexts.get_max() else { return };
        if newest.0 <= self.handed_out {
            return;
        }
        for (id, context) in contexts.range(CallbackId(self.handed_out + 1)..) {
            self.hand_out(*id, context);
        }
        self.handed_out = newest.0;
    }

    fn hand_out(&self, id: CallbackId, context: &SubnetCallContext) {
        let SubnetMessage::Request(call) = &context.message else {
            return;
        };
        let caller = call.sender;
        match &context.kind {
            SubnetCallKind::RawRand => {}
            SubnetCallKind::Threshold(request) => {
                let request = Arc::clone(request);
                // A signer that is gone has failed, and the process with it.
                let _failed = self.signatures.send(Signature { id, caller, request });
            }
            SubnetCallKind::HttpRequest(outcall) => {
                let outcall = Arc::clone(outcall);
                if let Err(TrySendError::Full(_)) = self.requests.try_send(Request { id, caller, outcall }) {
                    let busy = reject(
                        RejectCode::SysTransient,
                        "outcalls.waiting_max HTTP requests wait already",
                    );
                    self.pool.answer(ConsensusResponse {
                        callback: id,
                        payload: busy,
                    });
                }
            }
        }
    }
}

fn sign(world: &World, secrets: &ThresholdSecrets, requests: &Receiver<Signature>) {
    let _watch = world.failure.watch("signer");
    for Signature { id, caller, request } in requests {
        let payload = match secrets.answer(caller, &request) {
            Some(payload) => ResponsePayload::Data(payload),
            None => reject(RejectCode::SysFatal, "the signature could not be made"),
        };
        world.pool.answer(ConsensusResponse { callback: id, payload });
    }
}

fn make_requests(world: &World, client: &HttpClient, requests: &Receiver<Request>) {
    let _watch = world.failure.watch("outcall");
    for Request { id, caller, outcall } in requests {
        let payload = match http::answer(client, world, caller, &outcall) {
            Ok(reply) => ResponsePayload::Data(reply.into()),
            Err(reject) => ResponsePayload::Reject(reject),
        };
        world.pool.answer(ConsensusResponse { callback: id, payload });
    }
}

fn reject(code: RejectCode, message: &str) -> ResponsePayload {
    ResponsePayload::Reject(RejectContext {
        code,
        message: message.into(),
    })
}
