//! A batch's messages into the queues: duplicates, fees, refusals.

use crate::management::{self, error};
use crate::round::Round;
use crate::state::{CanisterStatus, CyclesUseCase, SubnetMessage};
use replicore_engine::Execute;
use replicore_types::{CanisterId, Cycles, ErrorCode, Ingress, IngressState, IngressStatus, NumBytes, UserError};
use std::sync::Arc;

impl<E: Execute> Round<'_, E> {
    /// Inducts the messages in their order.
    pub fn induct(&mut self, messages: Vec<Ingress>) {
        for message in messages {
            let id = message.message_id;
            let is_known = self.statuses.contains_key(&id) || self.state.ingress_history.get(&id).is_some();
            if is_known || message.expiry < self.context.time {
                self.stats.ingress_dropped += 1;
                continue;
            }
            let (receiver, source, time) = (message.receiver, message.source, self.context.time);
            let state = match self.induct_one(message) {
                Ok(()) => {
                    self.stats.ingress_inducted += 1;
                    IngressState::Received
                }
                Err(error) => {
                    self.stats.ingress_refused += 1;
                    IngressState::Failed(error)
                }
            };
            self.statuses.insert(
                id,
                IngressStatus {
                    receiver,
                    source,
                    time,
                    state,
                },
            );
        }
    }

    fn induct_one(&mut self, message: Ingress) -> Result<(), UserError> {
        let is_for_subnet = self.state.is_subnet(&message.receiver.0);
        let payer = match is_for_subnet {
            true => management::ingress_payer(&message.method_name, &message.method_payload)?,
            false => Some(message.receiver),
        };
        if let Some(payer) = payer {
            self.charge_induction(payer, &message)?;
        }
        let message = Arc::new(message);
        if is_for_subnet {
            self.state.subnet.inbox.push_back(SubnetMessage::Ingress(message));
            return Ok(());
        }
        let id = message.receiver;
        let canister = self
            .state
            .canister_mut(&id)
            .ok_or_else(|| error::canister_not_found(id))?;
        accepts_calls(id, &canister.system.status)?;
        canister.system.queues.push_ingress(message);
        self.ready.insert(id);
        Ok(())
    }

    fn charge_induction(&mut self, payer: CanisterId, message: &Ingress) -> Result<(), UserError> {
        let subnet = self.context.subnet;
        let fee = subnet.ingress_induction_cost(NumBytes(u64::from(message.envelope_bytes)));
        let canister = self
            .state
            .canister_mut(&payer)
            .ok_or_else(|| error::canister_not_found(payer))?;
        let shows_amount = canister.system.is_controller(&message.source);
        canister
            .withdraw(fee, &subnet)
            .map_err(|missing| out_of_cycles(payer, missing, shows_amount))?;
        canister.system.consumed.add(CyclesUseCase::IngressInduction, fee);
        Ok(())
    }
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
