//! Scenarios from a seed: batches of calls of calls with cycles, traps, rejects, deadlines and long messages, of upgrades,
//! stops, uninstalls and deletes while calls are on their way.

use crate::canister::{SCRATCH, functions};
use crate::program::{Action, Argument, Call};
use candid::{CandidType, Encode, Principal};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_types::CanisterId;
use replicore_workloads::management::InstallMode;

/// Canisters that every scenario begins with.
pub const CANISTERS: u64 = 5;
/// Canisters that calls go to: those that are there, some that may be made later, one that never is.
const TARGETS: u64 = CANISTERS + 3;
const BATCHES: usize = 10;

/// What a sequencer orders, before it has times and ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub batches: Vec<Plan>,
}

/// One batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Time since the batch before.
    pub nanoseconds: u64,
    pub messages: Vec<Message>,
}

/// One ingress message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Call {
        canister: u64,
        method: &'static str,
        actions: Vec<Action>,
    },
    Create,
    Install {
        canister: u64,
        mode: InstallMode,
        has_heartbeat: bool,
        actions: Vec<Action>,
    },
    /// A management method that takes only the canister's id.
    Manage {
        canister: u64,
        method: &'static str,
    },
}

/// Draws scenarios.
pub struct Generator(ChaCha8Rng);

#[derive(CandidType)]
struct About {
    canister_id: Principal,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn scenario(mut self) -> Scenario {
        let create = (0..CANISTERS).map(|_| Message::Create).collect();
        let install = (0..CANISTERS)
            .map(|canister| Message::Install {
                canister,
                mode: InstallMode::Install,
                has_heartbeat: self.one_of(4),
                actions: self.prologue(),
            })
            .collect();
        let mut batches = vec![self.plan(create), self.plan(install)];
        for _ in 0..BATCHES {
            let messages = (0..self.up_to(9)).map(|_| self.message()).collect();
            batches.push(self.plan(messages));
        }
        Scenario { batches }
    }

    fn up_to(&mut self, end: u64) -> u64 {
        self.0.random_range(0..end)
    }

    fn one_of(&mut self, cases: u64) -> bool {
        self.up_to(cases) == 0
    }

    fn plan(&mut self, messages: Vec<Message>) -> Plan {
        let nanoseconds = match self.up_to(6) {
            0 => 1_000_000_000 * self.up_to(350),
            _ => self.up_to(1_000_000_000),
        };
        Plan {
            nanoseconds: nanoseconds.max(1),
            messages,
        }
    }

    fn message(&mut self) -> Message {
        let canister = self.up_to(TARGETS);
        match self.up_to(40) {
            0 => Message::Create,
            1 => self.install(InstallMode::Install),
            2 => self.install(InstallMode::Reinstall),
            3..=6 => self.install(InstallMode::Upgrade),
            7..=13 => Message::Manage {
                canister,
                method: [
                    "stop_canister",
                    "start_canister",
                    "start_canister",
                    "uninstall_code",
                    "delete_canister",
                    "take_canister_snapshot",
                    "canister_status",
                ][self.up_to(7) as usize],
            },
            _ => Message::Call {
                canister: self.up_to(CANISTERS + 1),
                method: ["u", "u", "u", "u", "u", "u", "q", "c", "nope"][self.up_to(9) as usize],
                actions: self.actions(3),
            },
        }
    }

    fn install(&mut self, mode: InstallMode) -> Message {
        Message::Install {
            canister: self.up_to(CANISTERS + 2),
            mode,
            has_heartbeat: self.one_of(3),
            actions: self.prologue(),
        }
    }

    /// What an install runs: mostly it only prepares the hooks.
    fn prologue(&mut self) -> Vec<Action> {
        let mut actions: Vec<_> = (0..4)
            .filter_map(|number| {
                let actions = self.task(number);
                self.one_of(2).then_some(Action::Hook { number, actions })
            })
            .collect();
        if self.one_of(4) {
            actions.push(self.plain());
        }
        actions
    }

    /// What a system task or `pre_upgrade` runs.
    fn task(&mut self, number: u64) -> Vec<Action> {
        let mut actions: Vec<_> = (0..=self.up_to(2)).map(|_| self.plain()).collect();
        if number < 2 && self.one_of(2) {
            actions.push(Action::Call(Box::new(self.call(0))));
        }
        if number == 1 {
            // A timer that leads to a timer would go on for ever.
            actions.iter_mut().for_each(without_timers);
        }
        actions
    }

    fn actions(&mut self, depth: u32) -> Vec<Action> {
        (0..=self.up_to(4)).map(|_| self.action(depth)).collect()
    }

    fn action(&mut self, depth: u32) -> Action {
        match self.up_to(if depth == 0 { 20 } else { 30 }) {
            0..=4 => Action::Reply(vec![self.up_to(256) as u8; self.up_to(20) as usize]),
            5 | 6 => Action::ReplySeen,
            7 => Action::Reject("no".into()),
            8 | 9 => Action::Accept(self.up_to(2_000_000)),
            10 => Action::Hook {
                number: self.up_to(4),
                actions: vec![self.plain()],
            },
            11..=19 => self.plain(),
            _ => Action::Call(Box::new(self.call(depth - 1))),
        }
    }

    /// What is legal in every replicated mode, or nearly so.
    fn plain(&mut self) -> Action {
        let (at, bytes) = (self.up_to(0x8000) as u32, self.up_to(0x4000) as u32);
        match self.up_to(16) {
            0..=2 => Action::Count,
            3 => Action::Work(match self.one_of(6) {
                true => 200_000,
                false => self.up_to(2_000) as u32,
            }),
            4 => Action::Burn(self.up_to(1_000)),
            5 => Action::Certify(vec![self.up_to(256) as u8; self.up_to(34) as usize]),
            6 => Action::Print("a line".into()),
            7 => Action::GrowHeap(self.up_to(3) as u32),
            8 => Action::GrowStable(self.up_to(3) as u32),
            9 | 10 => Action::WriteHeap {
                at,
                value: self.up_to(256) as u8,
                bytes,
            },
            11 => Action::WriteStable { at, bytes: bytes / 4 },
            12 => Action::ReadStable { at, bytes: bytes / 4 },
            13 => Action::Timer(match self.one_of(3) {
                true => 0,
                false => crate::run::START.0 + self.up_to(300_000_000_000),
            }),
            14 if self.one_of(3) => Action::Trap,
            _ => self.any(),
        }
    }

    /// Any function of the System API. Those that end an execution or start something are drawn elsewhere with sense.
    fn any(&mut self) -> Action {
        let all: Vec<_> = functions().collect();
        let function = all[self.up_to(all.len() as u64) as usize];
        let arguments = (0..function.parameters.len())
            .map(|place| match self.up_to(12) {
                0 => u64::MAX,
                1 => self.up_to(1 << 33),
                2..=4 => self.up_to(40),
                _ if place == 0 => SCRATCH + self.up_to(4_096),
                _ => self.up_to(2),
            })
            .collect();
        Action::Any {
            function: function.name,
            arguments,
        }
    }

    fn call(&mut self, depth: u32) -> Call {
        let (to, method, argument) = match self.up_to(10) {
            0 => self.management(),
            _ => {
                let method = ["u", "u", "u", "u", "u", "q", "nope"][self.up_to(7) as usize];
                let to = CanisterId::from_index(self.up_to(TARGETS));
                (to, method, Argument::Program(self.actions(depth)))
            }
        };
        Call {
            to,
            method: method.into(),
            argument,
            cycles: self.up_to(3) * 1_000_000,
            timeout_seconds: self.one_of(3).then(|| self.up_to(300) as u32),
            on_reply: self.actions(depth),
            on_reject: self.actions(depth),
            on_cleanup: self.one_of(2).then(|| vec![self.plain()]),
            panics: self.one_of(12),
        }
    }

    /// A call of the management canister.
    fn management(&mut self) -> (CanisterId, &'static str, Argument) {
        let method = [
            "raw_rand",
            "deposit_cycles",
            "canister_status",
            "create_canister",
            "no_such_method",
        ][self.up_to(5) as usize];
        let argument = match method {
            "raw_rand" => Encode!(),
            _ => Encode!(&about(self.up_to(TARGETS))),
        };
        (
            CanisterId::MANAGEMENT,
            method,
            Argument::Bytes(argument.expect("encodes")),
        )
    }
}

/// Takes the timers out of an action and of all that it leads to.
fn without_timers(action: &mut Action) {
    match action {
        Action::Timer(_)
        | Action::Any {
            function: "global_timer_set",
            ..
        } => *action = Action::Count,
        Action::Hook { actions, .. } => actions.iter_mut().for_each(without_timers),
        Action::Call(call) => {
            if let Argument::Program(actions) = &mut call.argument {
                actions.iter_mut().for_each(without_timers);
            }
            let callbacks = [&mut call.on_reply, &mut call.on_reject]
                .into_iter()
                .chain(&mut call.on_cleanup);
            callbacks.flatten().for_each(without_timers);
        }
        _ => {}
    }
}

fn about(canister: u64) -> impl CandidType {
    About {
        canister_id: CanisterId::from_index(canister).0,
    }
}

/// The Candid argument of a method that takes only the canister's id.
pub fn about_argument(canister: u64) -> Vec<u8> {
    Encode!(&about(canister)).expect("encodes")
}
