//! What holds of every state between rounds, checked against the whole of it: for tests, and for embedders who doubt a
//! state that they were given. Costs time in proportion to the state; nothing in a round calls it.

use crate::certified_state::CertifiedState;
use crate::state::{
    Activity, CallOrigin, CanisterInput, CanisterMessage, CanisterState, CanisterStatus, ReplicatedState, StopContext,
    SubnetMessage, WorkItem,
};
use replicore_types::Cycles;
use std::fmt;

/// A promise that a state breaks: its text names the canister and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenPromise(String);

impl fmt::Display for BrokenPromise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BrokenPromise {}

impl ReplicatedState {
    /// Checks what holds between rounds: every open call holds one response slot, who works on a call is waited for, and
    /// what is derived from the canisters (who is active, the certified tree) agrees with them.
    ///
    /// # Errors
    /// The first promise that is broken.
    pub fn audit(&self) -> Result<(), BrokenPromise> {
        for canister in self.canisters.values() {
            check_slots(canister)?;
            self.check_callers(canister)?;
        }
        let mut activity = Activity::default();
        for (id, canister) in &self.canisters {
            activity.update(*id, Some(canister));
        }
        demand(activity == self.activity, || {
            "the index of active canisters is stale".into()
        })?;
        let root = CertifiedState::rebuild(self).root_hash();
        demand(root == self.certified_root(), || "the certified tree is stale".into())
    }

    /// Every cycle there is or was: balances, what is attached to messages and open calls, what was consumed and what left
    /// for other subnets. Only minting and what comes from other subnets ([`Streams::cycles_received`]) change the sum.
    ///
    /// [`Streams::cycles_received`]: crate::state::Streams::cycles_received
    pub fn cycles_accounted(&self) -> Cycles {
        let canisters = self.canisters.values().map(|canister| {
            let system = &canister.system;
            system.balance + system.reserved_balance + cycles_on_the_way(canister)
        });
        let subnet = &self.subnet;
        let installing = subnet.long_install.iter().map(|install| &install.message);
        let inbox = subnet.inbox.iter().chain(installing).map(|message| match message {
            SubnetMessage::Request(request) => request.payment,
            SubnetMessage::Ingress(_) => Cycles::ZERO,
        });
        canisters
            .chain(inbox)
            .chain(subnet.outbound.iter().map(|request| request.payment))
            .chain(subnet.responses.iter().map(|response| response.refund))
            .chain(subnet.call_contexts.values().map(|context| context.cycles))
            .chain([self.metadata.metrics.consumed_cycles, subnet.streams.cycles_sent])
            .sum()
    }

    /// A call that a canister of this subnet works on is open at its caller, unless its deadline may have passed.
    fn check_callers(&self, canister: &CanisterState) -> Result<(), BrokenPromise> {
        for context in canister.system.calls.call_contexts.values() {
            let CallOrigin::Canister {
                sender,
                callback,
                deadline: None,
                ..
            } = &context.origin
            else {
                continue;
            };
            let waits = self
                .canister(sender)
                .is_some_and(|sender| sender.system.calls.callbacks.contains_key(callback));
            let is_elsewhere = self.subnet.streams.peer_of(sender).is_some();
            demand(waits || context.responded || is_elsewhere, || {
                format!("{}: nobody waits for {context:?}", canister.id())
            })?;
        }
        Ok(())
    }
}

/// Every open call holds a response slot. A response that is being executed has given its slot back already.
fn check_slots(canister: &CanisterState) -> Result<(), BrokenPromise> {
    let system = &canister.system;
    let (slots, _) = system.queues.slots_taken();
    let executing = usize::from(canister.paused.is_some());
    let open = system.calls.callbacks.len();
    demand(slots == open || slots + executing == open, || {
        format!("{}: {open} open calls hold {slots} response slots", canister.id())
    })
}

/// Cycles of a canister that are in no balance: attached to messages before and behind it, and to calls that it works on.
fn cycles_on_the_way(canister: &CanisterState) -> Cycles {
    let system = &canister.system;
    let attached = |message: &CanisterMessage| match message {
        CanisterMessage::Request(request) => request.payment,
        CanisterMessage::Response(response) => response.refund,
    };
    let contexts = system.calls.call_contexts.values();
    let paused = match canister.paused.as_ref().map(|paused| &paused.item) {
        Some(WorkItem::Message(CanisterInput::Canister(message))) => attached(message),
        _ => Cycles::ZERO,
    };
    let stops = match &system.status {
        CanisterStatus::Stopping(contexts) => contexts.iter().map(stop_cycles).sum(),
        CanisterStatus::Running | CanisterStatus::Stopped => Cycles::ZERO,
    };
    let messages: Cycles = system.queues.canister_messages().map(attached).sum();
    let offered: Cycles = contexts.map(|context| context.available_cycles).sum();
    messages + offered + paused + stops
}

fn stop_cycles(context: &StopContext) -> Cycles {
    match context {
        StopContext::Canister { cycles, .. } => *cycles,
        StopContext::Ingress { .. } => Cycles::ZERO,
    }
}

fn demand(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), BrokenPromise> {
    match holds {
        true => Ok(()),
        false => Err(BrokenPromise(otherwise())),
    }
}
