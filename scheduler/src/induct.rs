//! A batch's messages into the queues: duplicates, fees, refusals.

use crate::management::{self, error};
use crate::round::Round;
use crate::state::{CanisterState, CanisterStatus, CyclesUseCase, SubnetMessage};
use replicore_engine::Execute;
use replicore_types::{
    CanisterId, Cycles, ErrorCode, Ingress, IngressState, IngressStatus, NumBytes, SubnetConfig, UserError,
};
use std::collections::BTreeMap;
use std::sync::Arc;

impl<E: Execute> Round<'_, E> {
    /// Inducts the messages. Those for one canister keep their order, also with calls of the management canister for
    /// which it pays.
    pub fn induct(&mut self, messages: Vec<Ingress>) {
        let arrivals = self.look_up(messages);
        self.statuses.reserve(arrivals.len());
        let mut seats: Vec<InductionSeat> = Vec::new();
        let mut seat_of: BTreeMap<CanisterId, usize> = BTreeMap::new();
        for arrival in arrivals {
            if !self.take_up(&arrival) {
                self.stats.ingress_dropped += 1;
                continue;
            }
            let message = arrival.message;
            if self.state.is_subnet(&message.receiver.0) {
                // It may be charged to a canister with messages before it.
                self.induct_seated(std::mem::take(&mut seats));
                seat_of.clear();
                self.induct_for_subnet(message);
                continue;
            }
            let seat = *seat_of.entry(message.receiver).or_insert_with(|| {
                seats.push(InductionSeat::new(message.receiver));
                seats.len() - 1
            });
            seats[seat].messages.push(message);
        }
        self.induct_seated(seats);
    }

    /// Looks the messages up in the history. Among hundreds of thousands of statuses each is a walk through memory that
    /// no cache holds, hence side by side.
    fn look_up(&self, messages: Vec<Ingress>) -> Vec<Arrival> {
        let history = &self.state.ingress_history;
        let is_parallel = self.cores.are_worth_it(messages.len());
        self.cores.map(is_parallel, messages, |message| Arrival {
            is_known: history.get(&message.message_id).is_some(),
            message: Arc::new(message),
        })
    }

    /// Gives a message its first status; false where it is not taken up: a duplicate, an expired one, or one for which
    /// the history has no room.
    fn take_up(&mut self, arrival: &Arrival) -> bool {
        let message = &arrival.message;
        let is_known = arrival.is_known || self.statuses.contains(&message.message_id);
        let is_full = self.state.ingress_history.is_full(self.statuses.len());
        if is_known || is_full || message.expiry < self.context.time {
            return false;
        }
        let status = self.induction_status(message, IngressState::Received);
        self.statuses.insert(message.message_id, status);
        true
    }

    fn induction_status(&self, message: &Ingress, state: IngressState) -> IngressStatus {
        IngressStatus {
            receiver: message.receiver,
            source: message.source,
            time: self.context.time,
            state,
        }
    }

    /// Refuses a message that was taken up.
    fn refuse(&mut self, message: &Ingress, error: UserError) {
        self.stats.ingress_refused += 1;
        let status = self.induction_status(message, IngressState::Failed(error));
        self.set_status(message.message_id, status);
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
    fn induct_seated(&mut self, mut seats: Vec<InductionSeat>) {
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

/// A message of the batch.
struct Arrival {
    message: Arc<Ingress>,
    /// True where the history knows it: a duplicate.
    is_known: bool,
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
