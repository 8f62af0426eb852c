//! The queues against a plain model: one list per pair, and the rules of turns written out.

use super::*;
use proptest::prelude::*;
use replicore_types::{CallbackId, Cycles, MessageId, Payload, PrincipalId, Time};

fn canister(index: u64) -> CanisterId {
    CanisterId::from_index(index)
}

fn request(sender: u64, receiver: u64, number: u64) -> Arc<Request> {
    Arc::new(Request {
        receiver: canister(receiver),
        sender: canister(sender),
        sender_reply_callback: CallbackId(number),
        payment: Cycles(0),
        method_name: "m".into(),
        payload: Payload::default(),
        deadline: None,
    })
}

fn response(request: &Request) -> Arc<Response> {
    Arc::new(Response {
        originator: request.sender,
        respondent: request.receiver,
        originator_reply_callback: request.sender_reply_callback,
        refund: Cycles(0),
        payload: ResponsePayload::Data(Payload::default()),
        deadline: None,
    })
}

fn ingress(number: u8, expiry: u64) -> Arc<Ingress> {
    Arc::new(Ingress {
        message_id: MessageId([number; 32]),
        source: PrincipalId::anonymous(),
        receiver: canister(0),
        effective_canister_id: None,
        method_name: "m".into(),
        method_payload: Payload::from(vec![number]),
        expiry: Time(expiry),
        envelope_bytes: 0,
        sender_info: None,
    })
}

#[test]
fn the_501st_request_of_one_sender_is_refused_until_one_is_answered() {
    let mut queues = CanisterQueues::default();
    for number in 0..500 {
        queues.push_request(request(1, 0, number)).unwrap();
    }
    assert!(queues.push_request(request(1, 0, 500)).is_err());
    assert!(queues.push_request(request(2, 0, 0)).is_ok());
    // Executing it does not free the response slot; answering does.
    let Some(CanisterInput::Canister(CanisterMessage::Request(first))) = queues.pop_input() else {
        panic!()
    };
    assert!(queues.push_request(request(1, 0, 500)).is_err());
    queues.push_output_response(response(&first));
    assert!(queues.push_request(request(1, 0, 500)).is_ok());
}

#[test]
fn calls_take_slots_until_their_response_is_executed() {
    let mut queues = CanisterQueues::default();
    let call = request(0, 1, 7);
    queues.push_output_request(call.clone());
    assert_eq!(queues.free_slots(), BTreeMap::from([(canister(1), 499)]));
    assert_eq!(queues.message_bytes(), RESPONSE_RESERVATION_BYTES);
    queues.push_response(response(&call));
    assert_eq!(queues.free_slots().len(), 1);
    assert!(queues.pop_input().is_some());
    assert!(queues.free_slots().is_empty());
    assert_eq!(queues.message_bytes(), 0);
    assert!(queues.pairs.is_empty());
}

#[test]
fn expired_messages_leave_and_the_others_stay_in_order() {
    let mut queues = CanisterQueues::default();
    for (number, expiry) in [(1, 10), (2, 5), (3, 20)] {
        queues.push_ingress(ingress(number, expiry));
    }
    assert_eq!(queues.take_expired_ingress(Time(10)).len(), 1);
    let order: Vec<u8> = std::iter::from_fn(|| queues.pop_input())
        .map(|input| match input {
            CanisterInput::Ingress(ingress) => ingress.method_payload[0],
            CanisterInput::Canister(_) => unreachable!("none was pushed"),
        })
        .collect();
    assert_eq!(order, [1, 3]);
    assert_eq!(queues.message_bytes(), 0);
}

/// What the model says comes next: turns go round among senders with input, ingress and canisters alternate.
#[derive(Default)]
struct Model {
    ingress: VecDeque<u8>,
    senders: VecDeque<(u64, VecDeque<u64>)>,
    ingress_turn: bool,
}

impl Model {
    fn push(&mut self, sender: u64, number: u64) {
        match self.senders.iter_mut().find(|(id, _)| *id == sender) {
            Some((_, queue)) => queue.push_back(number),
            None => self.senders.push_back((sender, VecDeque::from([number]))),
        }
    }

    fn pop(&mut self) -> Option<(u64, u64)> {
        let from_ingress = if self.ingress_turn {
            !self.ingress.is_empty()
        } else {
            self.senders.is_empty()
        };
        if from_ingress {
            let number = self.ingress.pop_front()?;
            self.ingress_turn = false;
            return Some((u64::MAX, u64::from(number)));
        }
        let (sender, mut queue) = self.senders.pop_front()?;
        let number = queue.pop_front()?;
        if !queue.is_empty() {
            self.senders.push_back((sender, queue));
        }
        self.ingress_turn = true;
        Some((sender, number))
    }
}

proptest! {
    #[test]
    fn messages_come_out_as_the_model_says(steps in prop::collection::vec((0u8..4, 1u64..4), 1..200)) {
        let (mut queues, mut model) = (CanisterQueues::default(), Model::default());
        for (number, (step, sender)) in steps.into_iter().enumerate() {
            match step {
                0 => {
                    queues.push_ingress(ingress(number as u8, 100));
                    model.ingress.push_back(number as u8);
                }
                1 | 2 => {
                    queues.push_request(request(sender, 0, number as u64)).unwrap();
                    model.push(sender, number as u64);
                }
                _ => {
                    let popped = queues.pop_input().map(|input| match input {
                        CanisterInput::Ingress(ingress) => (u64::MAX, u64::from(ingress.method_payload[0])),
                        CanisterInput::Canister(CanisterMessage::Request(request)) => {
                            (request.sender.index().unwrap(), request.sender_reply_callback.0)
                        }
                        CanisterInput::Canister(CanisterMessage::Response(_)) => unreachable!("none was pushed"),
                    });
                    prop_assert_eq!(popped, model.pop());
                }
            }
        }
    }
}
