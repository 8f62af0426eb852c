//! The messages that wait before and behind one canister.
//!
//! Between two canisters everything is in order of sending. Among the senders of one canister turns go round, and
//! ingress messages and messages from canisters alternate. Every open call holds a slot for its response on both
//! sides, so that a response always finds room.

use imbl::OrdMap;
use replicore_types::limits::{QUEUE_CAPACITY, REPLY_BYTES_MAX};
use replicore_types::{CanisterId, Ingress, Request, Response, ResponsePayload, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A message from a canister.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CanisterMessage {
    /// A call.
    Request(Arc<Request>),
    /// The answer to a call.
    Response(Arc<Response>),
}

/// The next message that a canister executes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CanisterInput {
    /// From a user.
    Ingress(Arc<Ingress>),
    /// From a canister.
    Canister(CanisterMessage),
}

/// Which kind of input has its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputTurn {
    /// A message from a canister.
    #[default]
    Canister,
    /// An ingress message.
    Ingress,
}

/// Both directions between this canister and one other (or itself).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// What the other canister sent, in its order.
    pub input: VecDeque<CanisterMessage>,
    /// Requests among `input`.
    pub input_requests: usize,
    /// Open calls to the other canister: response slots taken in `input`, waiting responses included.
    pub open_calls: usize,
    /// Requests of the other canister that are not answered yet: response slots taken in the output.
    pub open_requests: usize,
}

impl Pair {
    fn is_unused(&self) -> bool {
        self.input.is_empty() && self.open_calls == 0 && self.open_requests == 0
    }
}

/// Input and output of one canister.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CanisterQueues {
    ingress: VecDeque<Arc<Ingress>>,
    pairs: OrdMap<CanisterId, Pair>,
    /// Senders with input, in the order of their turns.
    senders: VecDeque<CanisterId>,
    /// Sent messages that are not routed yet, in the order of sending.
    output: VecDeque<CanisterMessage>,
    turn: InputTurn,
    pub(crate) message_bytes: u64,
}

/// Message memory held for a guaranteed response that may come.
const RESPONSE_RESERVATION_BYTES: u64 = REPLY_BYTES_MAX as u64;

fn request_bytes(request: &Request) -> u64 {
    (request.payload.len() + request.method_name.len()) as u64
}

/// Bytes of a response's payload, as transmission counts them: a reject has one more for its code.
pub(crate) fn response_bytes(payload: &ResponsePayload) -> u64 {
    match payload {
        ResponsePayload::Data(data) => data.len() as u64,
        ResponsePayload::Reject(reject) => 1 + reject.message.len() as u64,
    }
}

impl CanisterQueues {
    /// True while a message waits for execution.
    pub fn has_input(&self) -> bool {
        !self.ingress.is_empty() || !self.senders.is_empty()
    }

    /// True while a sent message waits to be routed.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Messages that wait for execution.
    pub fn input_len(&self) -> usize {
        self.ingress.len() + self.pairs.values().map(|pair| pair.input.len()).sum::<usize>()
    }

    /// Ingress messages that wait for execution.
    pub fn ingress_len(&self) -> usize {
        self.ingress.len()
    }

    /// Memory of waiting messages and of the guaranteed responses that may come: counts towards the freezing threshold.
    pub fn message_bytes(&self) -> u64 {
        self.message_bytes
    }

    /// Response slots free towards the receivers that have fewer than the capacity.
    pub fn free_slots(&self) -> BTreeMap<CanisterId, usize> {
        let taken = self.pairs.iter().filter(|(_, pair)| pair.open_calls > 0);
        taken
            .map(|(id, pair)| (*id, QUEUE_CAPACITY.saturating_sub(pair.open_calls)))
            .collect()
    }

    /// True while calls to or from other canisters are open.
    pub fn has_open_calls(&self) -> bool {
        self.pairs
            .values()
            .any(|pair| pair.open_calls > 0 || pair.open_requests > 0)
    }

    /// Every message of a canister, waiting before or behind this one.
    pub(crate) fn canister_messages(&self) -> impl Iterator<Item = &CanisterMessage> {
        let inputs = self.pairs.values().flat_map(|pair| &pair.input);
        inputs.chain(&self.output)
    }

    /// Response slots taken: by own calls, and by requests of others.
    pub(crate) fn slots_taken(&self) -> (usize, usize) {
        let sum = |of: fn(&Pair) -> usize| self.pairs.values().map(of).sum();
        (sum(|pair| pair.open_calls), sum(|pair| pair.open_requests))
    }

    /// Queues an ingress message.
    pub fn push_ingress(&mut self, ingress: Arc<Ingress>) {
        self.message_bytes += ingress.method_payload.len() as u64;
        self.ingress.push_back(ingress);
    }

    /// Queues a call from another canister.
    ///
    /// # Errors
    /// The request, where 500 of the sender wait or are unanswered.
    pub fn push_request(&mut self, request: Arc<Request>) -> Result<(), Arc<Request>> {
        let pair = self.pairs.entry(request.sender).or_default();
        if pair.input_requests >= QUEUE_CAPACITY || pair.open_requests >= QUEUE_CAPACITY {
            return Err(request);
        }
        pair.input_requests += 1;
        pair.open_requests += 1;
        self.message_bytes += request_bytes(&request);
        if request.deadline.is_none() {
            self.message_bytes += RESPONSE_RESERVATION_BYTES;
        }
        if pair.input.is_empty() {
            self.senders.push_back(request.sender);
        }
        pair.input.push_back(CanisterMessage::Request(request));
        Ok(())
    }

    /// Queues the answer to a call of this canister, in the slot that the call holds.
    pub fn push_response(&mut self, response: Arc<Response>) {
        if response.deadline.is_none() {
            self.message_bytes = self.message_bytes.saturating_sub(RESPONSE_RESERVATION_BYTES);
        }
        self.message_bytes += response_bytes(&response.payload);
        let pair = self.pairs.entry(response.respondent).or_default();
        if pair.input.is_empty() {
            self.senders.push_back(response.respondent);
        }
        pair.input.push_back(CanisterMessage::Response(response));
    }

    /// Takes the next message to execute.
    pub fn pop_input(&mut self) -> Option<CanisterInput> {
        for _ in 0..2 {
            let turn = self.turn;
            self.turn = match turn {
                InputTurn::Canister => InputTurn::Ingress,
                InputTurn::Ingress => InputTurn::Canister,
            };
            let input = match turn {
                InputTurn::Canister => self.pop_canister_message().map(CanisterInput::Canister),
                InputTurn::Ingress => self.pop_ingress().map(CanisterInput::Ingress),
            };
            if input.is_some() {
                return input;
            }
        }
        None
    }

    fn pop_ingress(&mut self) -> Option<Arc<Ingress>> {
        let ingress = self.ingress.pop_front()?;
        self.message_bytes -= ingress.method_payload.len() as u64;
        Some(ingress)
    }

    fn pop_canister_message(&mut self) -> Option<CanisterMessage> {
        let sender = self.senders.pop_front()?;
        let pair = self.pairs.get_mut(&sender)?;
        let message = pair.input.pop_front()?;
        match &message {
            CanisterMessage::Request(request) => {
                pair.input_requests -= 1;
                self.message_bytes -= request_bytes(request);
            }
            CanisterMessage::Response(response) => {
                pair.open_calls = pair.open_calls.saturating_sub(1);
                self.message_bytes -= response_bytes(&response.payload);
            }
        }
        if !pair.input.is_empty() {
            self.senders.push_back(sender);
        }
        self.forget_if_unused(&sender);
        Some(message)
    }

    fn forget_if_unused(&mut self, other: &CanisterId) {
        if self.pairs.get(other).is_some_and(Pair::is_unused) {
            self.pairs.remove(other);
        }
    }

    /// Sends a call; its response slot is taken. The engine has checked that one is free.
    pub fn push_output_request(&mut self, request: Arc<Request>) {
        self.pairs.entry(request.receiver).or_default().open_calls += 1;
        if request.deadline.is_none() {
            self.message_bytes += RESPONSE_RESERVATION_BYTES;
        }
        self.output.push_back(CanisterMessage::Request(request));
    }

    /// Sends the answer to a call; the slot that the call held is free again.
    pub fn push_output_response(&mut self, response: Arc<Response>) {
        if response.deadline.is_none() {
            self.message_bytes = self.message_bytes.saturating_sub(RESPONSE_RESERVATION_BYTES);
        }
        if let Some(pair) = self.pairs.get_mut(&response.originator) {
            pair.open_requests = pair.open_requests.saturating_sub(1);
            self.forget_if_unused(&response.originator);
        }
        self.output.push_back(CanisterMessage::Response(response));
    }

    /// Takes everything that was sent and is not routed, in the order of sending.
    pub fn take_output(&mut self) -> VecDeque<CanisterMessage> {
        std::mem::take(&mut self.output)
    }

    /// Takes the ingress messages whose expiry has passed.
    pub fn take_expired_ingress(&mut self, now: Time) -> Vec<Arc<Ingress>> {
        if self.ingress.iter().all(|ingress| ingress.expiry >= now) {
            return Vec::new();
        }
        let (expired, kept): (Vec<_>, Vec<_>) = self.ingress.drain(..).partition(|ingress| ingress.expiry < now);
        self.ingress = kept.into();
        self.message_bytes -= expired
            .iter()
            .map(|ingress| ingress.method_payload.len() as u64)
            .sum::<u64>();
        expired
    }

    /// Takes the waiting best-effort requests whose deadline has passed; nobody waits for their answers any more.
    pub fn take_expired_requests(&mut self, now: Time) -> Vec<Arc<Request>> {
        let is_expired = |message: &CanisterMessage| {
            matches!(message, CanisterMessage::Request(request)
                if request.deadline.is_some_and(|deadline| deadline.to_time() <= now))
        };
        let late: Vec<CanisterId> = self
            .pairs
            .iter()
            .filter(|(_, pair)| pair.input.iter().any(is_expired))
            .map(|(id, _)| *id)
            .collect();
        let mut expired = Vec::new();
        for sender in late {
            let Some(pair) = self.pairs.get_mut(&sender) else {
                continue;
            };
            let (out, kept): (VecDeque<_>, VecDeque<_>) = pair.input.drain(..).partition(is_expired);
            pair.input = kept;
            pair.input_requests -= out.len();
            pair.open_requests = pair.open_requests.saturating_sub(out.len());
            if pair.input.is_empty() {
                self.senders.retain(|other| *other != sender);
            }
            for message in out {
                if let CanisterMessage::Request(request) = message {
                    self.message_bytes -= request_bytes(&request);
                    expired.push(request);
                }
            }
            self.forget_if_unused(&sender);
        }
        expired
    }

    /// The earliest deadline among waiting best-effort requests and expiry among ingress messages.
    pub fn next_expiry(&self) -> Option<Time> {
        let ingress = self.ingress.iter().map(|ingress| ingress.expiry);
        let requests = self
            .pairs
            .values()
            .flat_map(|pair| &pair.input)
            .filter_map(|message| match message {
                CanisterMessage::Request(request) => request.deadline.map(|deadline| deadline.to_time()),
                CanisterMessage::Response(_) => None,
            });
        ingress.chain(requests).min()
    }
}

#[cfg(test)]
#[path = "queues_tests.rs"]
mod tests;
