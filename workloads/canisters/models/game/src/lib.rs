//! A game loop: every heartbeat moves every entity of a closed world; players steer theirs. Interface: `game.did`.

use candid::Principal;
use std::cell::RefCell;
use std::collections::BTreeMap;

const SIDE: i64 = 1_000;
const ENTITIES: usize = 1_000;

struct Entity {
    position: (i64, i64),
    velocity: (i64, i64),
}

struct World {
    ticks: u64,
    entities: Vec<Entity>,
    players: BTreeMap<Principal, usize>,
    moves: u64,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World {
        ticks: 0,
        entities: (0..ENTITIES as i64)
            .map(|number| Entity { position: (number, number * 7 % SIDE), velocity: (number % 5 - 2, number % 3 - 1) })
            .collect(),
        players: BTreeMap::new(),
        moves: 0,
    });
}

#[ic_cdk::heartbeat]
fn heartbeat() {
    WORLD.with_borrow_mut(|world| {
        world.ticks += 1;
        for entity in &mut world.entities {
            entity.position.0 = (entity.position.0 + entity.velocity.0).rem_euclid(SIDE);
            entity.position.1 = (entity.position.1 + entity.velocity.1).rem_euclid(SIDE);
        }
    });
}

/// Steers the caller's entity, which it gets with its first move (entity 500 and up; those below are never steered), and
/// answers how many moves there were.
#[ic_cdk::update]
fn steer(x: i64, y: i64) -> u64 {
    let caller = ic_cdk::api::msg_caller();
    WORLD.with_borrow_mut(|world| {
        let next = ENTITIES / 2 + world.players.len() % (ENTITIES / 2);
        let entity = *world.players.entry(caller).or_insert(next);
        world.entities[entity].velocity = (x.clamp(-9, 9), y.clamp(-9, 9));
        world.moves += 1;
        world.moves
    })
}

/// Ticks so far, the number of moves, and where an entity is.
#[ic_cdk::query]
fn look(entity: u32) -> (u64, u64, i64, i64) {
    WORLD.with_borrow(|world| {
        let (x, y) = world.entities[entity as usize % ENTITIES].position;
        (world.ticks, world.moves, x, y)
    })
}
