//! Programs drawn from a seed: calls of calls with cycles, traps, rejects, deadlines, long messages, stops and
//! uninstalls in flight. On any number of cores, and read back from its parts after any round, the state is the same; and
//! what the abstract behaviour promises holds after every round.
//!
//! `REPLICORE_SEEDS=1000..9000 cargo test -p replicore-scheduler generated` runs more seeds; a failure names its seed.

use super::stub::{Action, Action::*, CallAction, script};
use super::world::{START, World, id};
use crate::ReplicatedState;
use crate::state::{CallOrigin, CanisterInput, CanisterMessage, CanisterStatus, StopContext, SubnetMessage, WorkItem};
use candid::{CandidType, Encode, Principal};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_types::*;

const CANISTERS: u64 = 5;
const BATCHES: u64 = 12;
/// Seeds that every test run takes.
const SEEDS: std::ops::Range<u64> = 0..40;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("REPLICORE_SEEDS") else {
        return SEEDS;
    };
    let bounds = text.split_once("..").expect("REPLICORE_SEEDS=FROM..TO");
    bounds.0.parse().unwrap()..bounds.1.parse().unwrap()
}

struct Generator(ChaCha8Rng);

impl Generator {
    fn up_to(&mut self, end: u64) -> u64 {
        self.0.random_range(0..end)
    }

    fn script(&mut self, depth: u32) -> Vec<Action> {
        (0..=self.up_to(4)).map(|_| self.action(depth)).collect()
    }

    fn action(&mut self, depth: u32) -> Action {
        match self.up_to(if depth == 0 { 15 } else { 25 }) {
            0..=3 => Reply(vec![self.up_to(256) as u8; self.up_to(20) as usize]),
            4 => ReplyCounter,
            5 => Reject("no".into()),
            6 => Trap,
            7..=9 => Write,
            10 => Work(if self.up_to(8) == 0 {
                3_000_000_000
            } else {
                self.up_to(100_000)
            }),
            11 | 12 => Accept(u128::from(self.up_to(2_000_000))),
            13 => Burn(u128::from(self.up_to(1_000))),
            14 => Print("log".into()),
            _ => Call(Box::new(self.call(depth - 1))),
        }
    }

    fn call(&mut self, depth: u32) -> CallAction {
        let method = ["u", "u", "u", "u", "q", "nope"][self.up_to(6) as usize];
        CallAction {
            to: Some(id(self.up_to(CANISTERS + 1))),
            method: method.into(),
            argument: script(&self.script(depth)).to_vec(),
            cycles: u128::from(self.up_to(3) * 1_000_000),
            timeout_seconds: (self.up_to(3) == 0).then(|| self.up_to(300) as u32),
            on_reply: self.script(depth),
            on_reject: self.script(depth),
            on_cleanup: (self.up_to(2) == 0).then(|| self.script(0)),
        }
    }

    fn message(&mut self, world: &mut World) -> Ingress {
        let canister = id(self.up_to(CANISTERS));
        let method = match self.up_to(30) {
            0 => "stop_canister",
            1..=3 => "start_canister",
            4 => "uninstall_code",
            5 => "canister_status",
            _ => {
                let script = script(&self.script(3));
                return world.ingress(canister, ["u", "q"][usize::from(self.up_to(8) == 0)], script);
            }
        };
        let argument = Encode!(&About {
            canister_id: canister.0
        })
        .unwrap();
        let message = world.ingress(CanisterId::MANAGEMENT, method, argument.into());
        Ingress {
            effective_canister_id: Some(canister),
            ..message
        }
    }

    fn nanoseconds(&mut self) -> u64 {
        match self.up_to(6) {
            0 => 1_000_000_000 * self.up_to(350),
            _ => self.up_to(1_000_000_000),
        }
        .max(1)
    }
}

#[derive(CandidType)]
struct About {
    canister_id: Principal,
}

/// Runs the program of a seed; `between` sees the world after every round. Returns the state hash after every round.
fn run(seed: u64, cores: usize, mut between: impl FnMut(&mut World)) -> Vec<[u8; 32]> {
    let mut generator = Generator(ChaCha8Rng::seed_from_u64(seed));
    let mut world = World::new(CANISTERS, &[]).on_cores(cores);
    let mut trace = Vec::new();
    for batch in 0.. {
        let messages = match batch {
            0..BATCHES => (0..generator.up_to(12))
                .map(|_| generator.message(&mut world))
                .collect(),
            // Stopped canisters start again, so that nothing waits for ever.
            BATCHES => (0..CANISTERS).map(|index| start(&mut world, index)).collect(),
            _ if world.state.next_round() != crate::NextRound::Now => break,
            _ => Vec::new(),
        };
        let nanoseconds = generator.nanoseconds();
        let stats = world.round_after(nanoseconds, messages);
        assert_eq!(stats.root_hash, world.state.certified_root());
        trace.push(world.state.state_hash());
        between(&mut world);
        assert!(batch < 500, "seed {seed} never comes to rest");
    }
    assert_at_rest(seed, &world);
    trace
}

fn start(world: &mut World, index: u64) -> Ingress {
    let argument = Encode!(&About {
        canister_id: id(index).0
    })
    .unwrap();
    world.ingress(CanisterId::MANAGEMENT, "start_canister", argument.into())
}

/// Reads the state back from what a checkpoint holds: indices, tree and live executions are gone.
fn read_back(state: &ReplicatedState) -> ReplicatedState {
    let canisters = state
        .canisters
        .iter()
        .map(|(id, canister)| (id.as_slice().to_vec(), canister.to_parts()));
    ReplicatedState::from_parts(&state.system_bytes(), canisters).unwrap()
}

/// Cycles that are in no balance: attached to messages on their way, or to calls that are being worked on.
fn cycles_on_their_way(state: &ReplicatedState) -> Cycles {
    let of_message = |message: &CanisterMessage| match message {
        CanisterMessage::Request(request) => request.payment,
        CanisterMessage::Response(response) => response.refund,
    };
    let mut sum = Cycles::ZERO;
    for canister in state.canisters.values() {
        let system = &canister.system;
        sum += system.queues.canister_messages().map(of_message).sum();
        sum += system
            .calls
            .call_contexts
            .values()
            .map(|context| context.available_cycles)
            .sum();
        if let Some(WorkItem::Message(CanisterInput::Canister(message))) =
            canister.paused.as_ref().map(|paused| &paused.item)
        {
            sum += of_message(message);
        }
        if let CanisterStatus::Stopping(contexts) = &system.status {
            sum += contexts
                .iter()
                .map(|context| match context {
                    StopContext::Canister { cycles, .. } => *cycles,
                    StopContext::Ingress { .. } => Cycles::ZERO,
                })
                .sum();
        }
    }
    let subnet = &state.subnet;
    sum += subnet.outbound.iter().map(|request| request.payment).sum();
    sum += subnet.responses.iter().map(|response| response.refund).sum();
    sum += subnet
        .inbox
        .iter()
        .map(|message| match message {
            SubnetMessage::Request(request) => request.payment,
            SubnetMessage::Ingress(_) => Cycles::ZERO,
        })
        .sum();
    sum
}

/// What holds after every round.
fn check_promises(seed: u64, world: &World) {
    let state = &world.state;
    let held: Cycles = state
        .canisters
        .values()
        .map(|canister| canister.system.balance + canister.system.reserved_balance + canister.system.consumed.total())
        .sum();
    let height = state.metadata.height.0;
    assert_eq!(
        held + cycles_on_their_way(state),
        Cycles(START.0 * u128::from(CANISTERS)),
        "seed {seed}, height {height}: cycles are neither made nor lost"
    );
    for canister in state.canisters.values() {
        let system = &canister.system;
        let (calls, _) = system.queues.slots_taken();
        let executing = usize::from(canister.paused.is_some());
        let open = system.calls.callbacks.len();
        assert!(
            calls == open || calls + executing == open,
            "seed {seed}, height {height}: {open} calls of {} hold {calls} response slots",
            canister.id()
        );
    }
    // Whoever works on a request of a canister of this subnet, that canister waits for the answer.
    for canister in state.canisters.values() {
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
            let waits = state
                .canister(sender)
                .is_some_and(|sender| sender.system.calls.callbacks.contains_key(callback));
            assert!(
                waits || context.responded,
                "seed {seed}, height {height}: nobody waits for {context:?}"
            );
        }
    }
}

/// Every call has had its one response, and every user an answer.
fn assert_at_rest(seed: u64, world: &World) {
    for canister in world.state.canisters.values() {
        let system = &canister.system;
        let id = canister.id();
        assert!(
            system.calls.callbacks.is_empty(),
            "seed {seed}: calls of {id} have no response"
        );
        assert!(system.calls.call_contexts.is_empty(), "seed {seed}: {id} owes answers");
        assert_eq!(
            system.queues.slots_taken(),
            (0, 0),
            "seed {seed}: slots of {id} stay taken"
        );
        assert_eq!(
            system.queues.message_bytes(),
            0,
            "seed {seed}: {id} holds memory for messages"
        );
    }
    for (request, status) in world.state.ingress_history.iter() {
        assert!(status.state.is_terminal(), "seed {seed}: {request} is never answered");
    }
}

#[test]
fn generated_programs_keep_the_promises_on_any_cores_and_after_any_restart() {
    for seed in seeds() {
        let expected = run(seed, 1, |world| check_promises(seed, world));
        let cores = [2, 3, 4, 8][seed as usize % 4];
        assert_eq!(run(seed, cores, |_| {}), expected, "seed {seed} on {cores} cores");
        let mut restarts = ChaCha8Rng::seed_from_u64(seed);
        let restarted = run(seed, 1, |world| {
            if restarts.random_bool(0.4) {
                world.state = read_back(&world.state);
            }
        });
        assert_eq!(restarted, expected, "seed {seed} with restarts");
    }
}
