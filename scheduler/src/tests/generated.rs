//! Programs drawn from a seed: calls of calls with cycles, traps, rejects, deadlines, long messages, stops and
//! uninstalls in flight. On any number of cores, and read back from its parts after any round, the state is the same; and
//! what the abstract behaviour promises holds after every round.
//!
//! `REPLICORE_SEEDS=1000..9000 cargo test -p replicore-scheduler generated` runs more seeds; a failure names its seed.

use super::stub::{Action, Action::*, CallAction, script};
use super::world::{START, World, id};
use crate::ReplicatedState;
use candid::{CandidType, Encode, Principal};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_types::*;

const CANISTERS: u64 = 5;
const BATCHES: u64 = 12;
/// Seeds that every test run takes.
const SEEDS: std::ops::Range<u64> = 0..100;

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
pub fn read_back(state: &ReplicatedState) -> ReplicatedState {
    let items = state.items().map(|(key, parts)| (key.to_bytes(), parts));
    ReplicatedState::from_parts(&state.system_bytes(), items).unwrap()
}

/// What holds after every round.
fn check_promises(seed: u64, world: &World) {
    let state = &world.state;
    let height = state.metadata.height.0;
    if let Err(broken) = state.audit() {
        panic!("seed {seed}, height {height}: {broken}");
    }
    assert_eq!(
        state.cycles_accounted(),
        Cycles(START.0 * u128::from(CANISTERS)),
        "seed {seed}, height {height}: cycles are neither made nor lost"
    );
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
