//! A game: a world that moves with every heartbeat, one steering to four looks.
//!
//! Stands for worlds that live without their players. They move in ticks: twenty a second in Minecraft, 64 or 128 in shooters;
//! here with every heartbeat, which comes with each round, hence as fast as the replica makes them under load. A thousand
//! entities of 32 bytes move at every one: servers of the kind of Minecraft hold some thousands in the parts of the world that
//! are loaded. That players look four times as often as they steer is a guess.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload, check_count};
use candid::Principal;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};

const SIDE: i64 = 1_000;
/// Entities below this number are never steered, so that where they are follows from the ticks.
const UNSTEERED: u32 = 500;

/// The model.
pub struct Game;

struct World {
    canister: Principal,
    moves: AtomicU64,
}

impl Workload for Game {
    fn name(&self) -> &'static str {
        "game"
    }

    fn about(&self) -> &'static str {
        "a world moved by heartbeats, players who steer and look"
    }

    fn deploy(&self, agent: &mut Agent, _scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let canister = deploy(agent, canisters::GAME, &[])?;
        Ok(Box::new(World {
            canister,
            moves: AtomicU64::new(0),
        }))
    }
}

/// Where an entity that nobody steers is after so many ticks.
fn position(entity: u32, ticks: u64) -> (i64, i64) {
    let (number, ticks) = (i64::from(entity), ticks as i64);
    let x = (number + (number % 5 - 2) * ticks).rem_euclid(SIDE);
    (x, (number * 7 % SIDE + (number % 3 - 1) * ticks).rem_euclid(SIDE))
}

impl Deployed for World {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, _user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let entity = choices.random_range(0..UNSTEERED);
        let (kind, method, argument) = if choices.random_range(0..5) == 0 {
            let (x, y) = (choices.random_range(-9..10_i64), choices.random_range(-9..10_i64));
            (Kind::Call, "steer", arguments_of((x, y))?)
        } else {
            (Kind::Query, "look", arguments_of((entity,))?)
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected: u64::from(entity),
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        if operation.kind == Kind::Call {
            self.moves.fetch_add(1, Ordering::Relaxed);
            return reply_of::<(u64,)>(reply).map(drop);
        }
        let (ticks, _, x, y) = reply_of::<(u64, u64, i64, i64)>(reply)?;
        let expected = position(operation.expected as u32, ticks);
        if (x, y) == expected {
            return Ok(());
        }
        let entity = operation.expected;
        Err(WorkloadError::Unexpected(format!(
            "entity {entity} is at {x}, {y} after {ticks} ticks, not at {expected:?}"
        )))
    }

    /// Every move counted once.
    fn check(&self, agent: &mut Agent, is_exact: bool) -> Result<(), WorkloadError> {
        let (_, moves, _, _) = ask::<_, (u64, u64, i64, i64)>(agent, self.canister, "look", (0_u32,))?;
        check_count("moves", moves, self.moves.load(Ordering::Relaxed), is_exact)
    }
}
