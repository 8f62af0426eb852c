//! A batch's messages into the queues: duplicates, fees, refusals.

use crate::management::{self, error};
use crate::round::Round;
use crate::round_statuses::{Place, Request, places_by_id};
use crate::state::{CanisterState, CanisterStatus, CyclesUseCase, SubnetMessage};
use replicore_engine::Execute;
use replicore_types::{
    CanisterId, Cycles, ErrorCode, Ingress, IngressState, IngressStatus, NumBytes, SubnetConfig, UserError,
};
use rustc_hash::FxHashMap;
use std::sync::Arc;

impl<E: Execute> Round<'_, E> {
    /// Inducts the messages. Those for one canister keep their order, also with calls of the management canister for
    /// which it pays.
    pub fn induct(&mut self, messages: Vec<Ingress>) {
        let mut seats = InductionSeats::default();
        for (receiver, message) in self.take_up(messages) {
            if self.state.is_subnet(&receiver.0) {
                // It may be charged to a canister with messages before it.
                self.induct_seated(std::mem::take(&mut seats));
                self.induct_for_subnet(message);
            } else {
                seats.add(receiver, message);
            }
        }
        self.induct_seated(seats);
    }

    /// The messages that are taken up, in their order, now noted as received. The others are dropped: those that the history
    /// knows, of several with one request id all but the first, expired ones, and those for which the history has no room.
    fn take_up(&mut self, messages: Vec<Ingress>) -> Vec<(CanisterId, Arc<Ingress>)> {
        let mut arrivals = self.look_up(messages);
        let places = places_by_id(self.cores, &arrivals, |arrival| &arrival.request.id);
        drop_repeated(&mut arrivals, &places);
        let room = self.state.ingress_history.room();
        if arrivals.len() > room {
            let taken_up = arrivals.iter_mut().filter(|arrival| arrival.is_taken_up);
            taken_up.skip(room).for_each(|arrival| arrival.is_taken_up = false);
        }
        let mut requests = Vec::with_capacity(arrivals.len());
        let mut messages = Vec::with_capacity(arrivals.len());
        for arrival in arrivals {
            requests.push(arrival.is_taken_up.then_some(arrival.request));
            if arrival.is_taken_up {
                messages.push((arrival.request.receiver, arrival.message));
            }
        }
        self.stats.ingress_dropped += (requests.len() - messages.len()) as u64;
        self.statuses.take_up(requests, places);
        messages
    }

    /// Looks the messages up in the history. Among hundreds of thousands of statuses each is a walk through memory that
    /// no cache holds, hence side by side.
    fn look_up(&self, messages: Vec<Ingress>) -> Vec<Arrival> {
        let history = &self.state.ingress_history;
        let now = self.context.time;
        let is_parallel = self.cores.are_worth_it(messages.len());
        self.cores.map(is_parallel, messages, |message| Arrival {
            request: Request {
                id: message.message_id,
                receiver: message.receiver,
                source: message.source,
            },
            is_taken_up: message.expiry >= now && history.get(&message.message_id).is_none(),
            message: Arc::new(message),
        })
    }

    /// Refuses a message that was taken up.
    fn refuse(&mut self, message: &Ingress, error: UserError) {
        self.stats.ingress_refused += 1;
        let status = IngressStatus {
            receiver: message.receiver,
            source: message.source,
            time: self.context.time,
            state: IngressState::Failed(error),
        };
        self.statuses.give(message.message_id, status);
    }

    fn induct_for_subnet(&mut self, message: Arc<Ingress>) {
        let payer = management::ingress_payer(&message.method_name, &message.method_payload);
        let charged = payer.and_then(|payer| {
            let Some(id) = payer else { return Ok(()) };
            let subnet = self.context.subnet;
            let canister = self
                .state
                .canister_mut(&id)
                .ok_or_else(|| error::canister_not_found(id))?;
            charge_induction(canister, &message, &subnet)
        });
        match charged {
            Ok(()) => {
                self.stats.ingress_inducted += 1;
                self.state.subnet.inbox.push_back(SubnetMessage::Ingress(message));
            }
            Err(error) => self.refuse(&message, error),
        }
    }

    /// Inducts the messages of each canister: canisters side by side, the messages of one in their order.
    fn induct_seated(&mut self, seats: InductionSeats) {
        let mut seats = seats.seats;
        for seat in &mut seats {
            seat.canister = self.take_canister(seat.receiver);
        }
        let subnet = self.context.subnet;
        let messages: usize = seats.iter().map(|seat| seat.messages.len()).sum();
        let is_parallel = self.cores.are_worth_it(messages);
        self.cores
            .for_each_if(is_parallel, &mut seats, |seat| seat.induct(&subnet));
        for seat in seats {
            let id = seat.receiver;
            self.stats.ingress_inducted += seat.inducted;
            for (message, error) in seat.refused {
                self.refuse(&message, error);
            }
            if let Some(canister) = seat.canister {
                self.put_canister(id, canister);
                if seat.inducted > 0 {
                    self.ready.insert(id);
                }
            }
        }
    }
}

/// A message of the batch, with what decides over it beside it: the message itself may be in the cache of another core.
struct Arrival {
    request: Request,
    is_taken_up: bool,
    message: Arc<Ingress>,
}

/// Of several arrivals with one request id that are taken up, all but the first are not. `places` are in the order of
/// the ids: equal ones stand side by side and begin alike, so that hardly any arrival is looked at.
fn drop_repeated(arrivals: &mut [Arrival], places: &[Place]) {
    for alike in places
        .chunk_by(|left, right| left.0 == right.0)
        .filter(|alike| alike.len() > 1)
    {
        let mut last = None;
        for (_, place) in alike {
            let arrival = &mut arrivals[*place as usize];
            if arrival.is_taken_up {
                arrival.is_taken_up = last != Some(arrival.request.id);
                last = Some(arrival.request.id);
            }
        }
    }
}

/// Messages by their receivers.
#[derive(Default)]
struct InductionSeats {
    /// In the order in which the receivers came.
    seats: Vec<InductionSeat>,
    /// Where the seat of a canister stands. Ids that collide could be ground, but not worth more than a slow round.
    places: FxHashMap<CanisterId, usize>,
}

impl InductionSeats {
    fn add(&mut self, receiver: CanisterId, message: Arc<Ingress>) {
        let place = *self.places.entry(receiver).or_insert(self.seats.len());
        if place == self.seats.len() {
            self.seats.push(InductionSeat::new(receiver));
        }
        self.seats[place].messages.push(message);
    }
}

/// A canister on its way through induction, with its messages of the batch.
struct InductionSeat {
    receiver: CanisterId,
    /// `None` where it does not exist.
    canister: Option<Arc<CanisterState>>,
    messages: Vec<Arc<Ingress>>,
    inducted: u64,
    refused: Vec<(Arc<Ingress>, UserError)>,
}

impl InductionSeat {
    fn new(receiver: CanisterId) -> Self {
        Self {
            receiver,
            canister: None,
            messages: Vec::new(),
            inducted: 0,
            refused: Vec::new(),
        }
    }

    fn induct(&mut self, subnet: &SubnetConfig) {
        let mut canister = self.canister.as_mut().map(Arc::make_mut);
        for message in std::mem::take(&mut self.messages) {
            let accepted = match &mut canister {
                Some(canister) => charge_induction(canister, &message, subnet)
                    .and_then(|()| accepts_calls(self.receiver, &canister.system.status)),
                None => Err(error::canister_not_found(self.receiver)),
            };
            match (accepted, &mut canister) {
                (Ok(()), Some(canister)) => {
                    self.inducted += 1;
                    canister.system.queues.push_ingress(message);
                }
                (Err(error), _) => self.refused.push((message, error)),
                (Ok(()), None) => {}
            }
        }
    }
}

fn charge_induction(canister: &mut CanisterState, message: &Ingress, subnet: &SubnetConfig) -> Result<(), UserError> {
    let fee = subnet.ingress_induction_cost(NumBytes(u64::from(message.envelope_bytes)));
    canister.withdraw(fee, subnet).map_err(|missing| {
        let shows_amount = canister.system.is_controller(&message.source);
        out_of_cycles(canister.id(), missing, shows_amount)
    })?;
    canister.system.consumed.add(CyclesUseCase::IngressInduction, fee);
    Ok(())
}

/// The canister cannot pay; only its controllers learn how much is missing.
pub(crate) fn out_of_cycles(id: CanisterId, missing: Cycles, shows_amount: bool) -> UserError {
    match shows_amount {
        true => error::out_of_cycles(id, missing),
        false => UserError::new(
            ErrorCode::CanisterOutOfCycles,
            format!("Canister {id} is out of cycles"),
        ),
    }
}

/// Whether a canister takes new calls.
pub(crate) fn accepts_calls(id: CanisterId, status: &CanisterStatus) -> Result<(), UserError> {
    match status {
        CanisterStatus::Running => Ok(()),
        CanisterStatus::Stopping(_) => Err(UserError::new(
            ErrorCode::CanisterStopping,
            format!("Canister {id} is stopping"),
        )),
        CanisterStatus::Stopped => Err(UserError::new(
            ErrorCode::CanisterStopped,
            format!("Canister {id} is stopped"),
        )),
    }
}
