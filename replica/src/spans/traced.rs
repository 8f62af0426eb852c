//! The service as the network stack sees it, with spans around its calls and queries.

use super::{Attributes, Span, Spans, Stage, Value};
use replicore_netstack::{
    CallReply, Query, QueryReply, QueryResponse, ReadState, ReadStateError, ReplicaService, Responder, ServiceBusy,
    StatusReport, Target, VerifiedIngress,
};
use replicore_types::{CanisterId, MessageId, Payload, Time};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A service whose calls and queries are traced.
pub struct Traced<S> {
    service: Arc<S>,
    spans: Arc<Spans>,
}

impl<S> Traced<S> {
    /// `service`, with spans.
    pub fn new(service: Arc<S>, spans: Arc<Spans>) -> Self {
        Self { service, spans }
    }
}

/// A sampled request that is not answered yet.
struct Open {
    spans: Arc<Spans>,
    message: MessageId,
    whole: Stage,
    received: Instant,
    verified: Instant,
    attributes: Attributes,
}

impl Open {
    /// It is verified, and was received when its arrival was told.
    fn new(spans: &Arc<Spans>, (message, whole): (MessageId, Stage)) -> Self {
        let verified = Instant::now();
        let received = spans.gone(&message).unwrap_or(verified);
        spans.record(message, Stage::Verify, received, verified, Vec::new());
        Self {
            spans: Arc::clone(spans),
            message,
            whole,
            received,
            verified,
            attributes: Vec::new(),
        }
    }

    /// It is answered; with an error where there is one.
    fn close(self, outcome: &'static str, error: Option<String>) {
        let end = Instant::now();
        if self.whole == Stage::Query {
            let begin = self.verified;
            self.spans.record(self.message, Stage::Answer, begin, end, Vec::new());
        }
        let mut attributes = self.attributes;
        attributes.push(("replicore.outcome", Value::Text(outcome.to_owned())));
        self.spans.send(Span {
            message: self.message,
            stage: self.whole,
            begin: self.received,
            end,
            attributes,
            error,
        });
    }
}

fn about(canister: &impl ToString, method: &str) -> Attributes {
    vec![
        ("replicore.canister", Value::Text(canister.to_string())),
        ("replicore.method", Value::Text(method.to_owned())),
    ]
}

impl<S: ReplicaService> ReplicaService for Traced<S> {
    fn status(&self) -> StatusReport {
        self.service.status()
    }

    fn now(&self) -> Time {
        self.service.now()
    }

    fn wants_arrivals(&self) -> bool {
        true
    }

    fn arrived(&self, message: &MessageId, at: Instant) {
        if self.spans.is_sampled(message) {
            self.spans.came(*message, at);
        }
    }

    fn has_room(&self, canister: &CanisterId, waited: Duration) -> Result<(), ServiceBusy> {
        self.service.has_room(canister, waited)
    }

    fn call(&self, message: VerifiedIngress, target: Target, wait: bool, respond: Responder<CallReply>) {
        let id = message.message_id;
        if !self.spans.is_sampled(&id) {
            return self.service.call(message, target, wait, respond);
        }
        let mut open = Open::new(&self.spans, (id, Stage::Call));
        open.attributes = about(&message.receiver, &message.method_name);
        self.spans.came(id, open.verified);
        let respond = Box::new(move |reply: CallReply| {
            match &reply {
                CallReply::Certificate(_) => open.close("certified", None),
                CallReply::Accepted => open.close("accepted", None),
                CallReply::Rejected(error) => {
                    open.spans.gone(&id);
                    let error = error.description.clone();
                    open.close("rejected", Some(error));
                }
                CallReply::Busy(busy) => {
                    open.spans.gone(&id);
                    open.close("refused", Some(busy.0.to_owned()));
                }
            }
            respond(reply);
        });
        self.service.call(message, target, wait, respond);
    }

    fn query(&self, query: Query, respond: Responder<Result<QueryReply, ServiceBusy>>) {
        if !self.spans.is_sampled(&query.message_id) {
            return self.service.query(query, respond);
        }
        let mut open = Open::new(&self.spans, (query.message_id, Stage::Query));
        open.attributes = about(&query.receiver, &query.method_name);
        let respond = Box::new(move |reply: Result<QueryReply, ServiceBusy>| {
            match &reply {
                Err(busy) => open.close("refused", Some(busy.0.to_owned())),
                Ok(answered) => match &answered.response {
                    QueryResponse::Replied(_) => open.close("replied", None),
                    QueryResponse::Rejected(error) => {
                        let error = error.description.clone();
                        open.close("rejected", Some(error));
                    }
                },
            }
            respond(reply);
        });
        self.service.query(query, respond);
    }

    fn read_state(&self, read: ReadState, respond: Responder<Result<Payload, ReadStateError>>) {
        self.service.read_state(read, respond);
    }
}
