//! Code installs that take more than a slice, and what limits a canister afterwards.

use super::stub::{Action, Action::*, BASE, PRE_UPGRADE_WORK, script};
use super::world::{START, World, id};
use crate::NextRound;
use crate::state::CyclesUseCase;
use candid::{CandidType, Encode, Principal};
use replicore_types::*;

const BASE_FEE: u128 = 5_000_000;
/// What preparing any module costs the stub, the first time.
const COMPILING: u64 = 20_006_000;
const PREPAID: u128 = BASE_FEE + limits::INSTALL_CODE_INSTRUCTIONS_MAX as u128;

#[derive(CandidType)]
#[expect(non_camel_case_types, reason = "the Candid names")]
enum Mode {
    reinstall,
    upgrade,
}

#[derive(CandidType)]
struct Install {
    mode: Mode,
    canister_id: Principal,
    wasm_module: serde_bytes::ByteBuf,
    arg: serde_bytes::ByteBuf,
}

fn install(world: &mut World, canister: u64, mode: Mode, module: &str, hook: &[Action]) -> Ingress {
    let argument = Install {
        mode,
        canister_id: id(canister).0,
        wasm_module: serde_bytes::ByteBuf::from(module.as_bytes()),
        arg: serde_bytes::ByteBuf::from(script(hook).to_vec()),
    };
    let message = world.ingress(
        CanisterId::MANAGEMENT,
        "install_code",
        Encode!(&argument).unwrap().into(),
    );
    Ingress {
        effective_canister_id: Some(id(canister)),
        ..message
    }
}

fn consumed(world: &World, canister: u64) -> Cycles {
    world
        .canister(canister)
        .system
        .consumed
        .get(CyclesUseCase::Instructions)
}

#[test]
fn an_install_takes_a_slice_a_round_and_holds_up_nobody_else() {
    let mut world = World::new(2, &[]);
    let work = 5_000_000_000;
    let installing = install(&mut world, 0, Mode::reinstall, "new", &[Work(work), Write]);
    let fee = world.state.metadata.subnet.ingress_induction_cost(NumBytes(100));
    world.round(vec![installing.clone()]);
    assert_eq!(world.status(&installing), Some(IngressState::Processing));
    assert_eq!(
        world.balance(0),
        START - fee - Cycles(PREPAID),
        "all that it may cost is taken at the start"
    );
    assert_eq!(world.state.next_round(), NextRound::Now);
    let own = world.update(0, &[ReplyCounter]);
    let other = world.update(1, &[Reply(vec![1])]);
    world.round(vec![own.clone(), other.clone()]);
    assert_eq!(world.reply(&other), [1]);
    assert_eq!(
        world.status(&own),
        Some(IngressState::Received),
        "the canister itself waits"
    );
    assert_eq!(world.canister(0).system.version, 0);
    world.round(Vec::new());
    assert!(matches!(world.status(&installing), Some(IngressState::Completed(_))));
    assert_eq!(world.canister(0).system.version, 1);
    let used = u128::from(COMPILING + BASE + work);
    assert_eq!(consumed(&world, 0), Cycles(BASE_FEE + used));
    assert_eq!(world.balance(0), START - fee - fee - Cycles(BASE_FEE + used));
    world.settle();
    assert_eq!(world.reply(&own), 1i64.to_le_bytes(), "what the hook wrote is there");
}

#[test]
fn a_canister_that_installed_too_much_waits_until_rounds_have_worked_it_off() {
    let mut world = World::new(1, &[]);
    let installing = install(&mut world, 0, Mode::reinstall, "new", &[Work(5_400_000_000)]);
    world.round(vec![installing]);
    world.round(Vec::new());
    world.round(Vec::new());
    let message = world.update(0, &[Reply(vec![])]);
    let again = install(&mut world, 0, Mode::reinstall, "new", &[]);
    world.round(vec![message.clone(), again.clone()]);
    assert_eq!(
        world.status(&message),
        Some(IngressState::Received),
        "5.4e9 less 2e9 is a whole round's share"
    );
    assert_eq!(world.error(&again).code.number(), 209);
    world.round(Vec::new());
    assert!(world.reply(&message).is_empty());
}

#[test]
fn what_a_canister_writes_beyond_its_share_is_worked_off_by_rounds() {
    let mut world = World::new(1, &[]);
    let height = world.state.metadata.height;
    let share = NumBytes(limits::HEAP_DELTA_PER_CANISTER_AND_ROUND_BYTES);
    let written = NumBytes(share.0 * 3 - 1);
    world
        .state
        .canister_mut(&id(0))
        .unwrap()
        .system
        .add_heap_delta_debit(written, height);
    let message = world.update(0, &[Reply(vec![])]);
    world.round(vec![message.clone()]);
    assert_eq!(world.status(&message), Some(IngressState::Received));
    world.round(Vec::new());
    assert!(world.reply(&message).is_empty());
}

#[test]
fn only_one_install_is_under_way_and_calls_about_its_canister_wait() {
    let mut world = World::new(2, &[]);
    let first = install(&mut world, 0, Mode::reinstall, "new", &[Work(3_000_000_000)]);
    world.round(vec![first.clone()]);
    let second = install(&mut world, 1, Mode::reinstall, "new", &[]);
    let stop = world.ingress(
        CanisterId::MANAGEMENT,
        "stop_canister",
        Encode!(&StopArgument { canister_id: id(0).0 }).unwrap().into(),
    );
    let messages = vec![second.clone(), stop.clone()];
    world.round(messages);
    // The first ends at the beginning of this round, and the two behind it follow.
    for message in [&first, &second, &stop] {
        assert!(matches!(world.status(message), Some(IngressState::Completed(_))));
    }
    let third = install(&mut world, 1, Mode::reinstall, "new", &[Work(5_000_000_000)]);
    world.round(vec![third.clone()]);
    let fourth = install(&mut world, 0, Mode::reinstall, "new", &[]);
    world.round(vec![fourth.clone()]);
    assert_eq!(world.status(&fourth), Some(IngressState::Received));
    world.settle();
    assert!(matches!(world.status(&fourth), Some(IngressState::Completed(_))));
}

#[derive(CandidType)]
struct StopArgument {
    canister_id: Principal,
}

#[test]
fn a_failing_install_pays_for_its_slices_and_changes_nothing() {
    let mut world = World::new(1, &[]);
    let installing = install(
        &mut world,
        0,
        Mode::reinstall,
        "new",
        &[Write, Work(3_000_000_000), Trap],
    );
    world.round(vec![installing.clone()]);
    world.settle();
    assert_eq!(world.error(&installing).code, ErrorCode::CanisterTrapped);
    assert_eq!(&*world.canister(0).execution.as_ref().unwrap().module.bytes, b"module");
    assert_eq!(
        consumed(&world, 0),
        Cycles(BASE_FEE + u128::from(COMPILING + BASE) + 3_000_000_000)
    );
}

#[test]
fn an_install_without_its_live_work_comes_to_the_same_state() {
    let mut live = World::new(2, &[]);
    live.state.metadata.subnet.rate_limits = false;
    let first = install(&mut live, 0, Mode::reinstall, "first", &[]);
    live.round(vec![first]);
    // Two hooks of several slices each, with fees taken from the canister in between.
    let upgrade = install(&mut live, 0, Mode::upgrade, "second", &[Write, Work(4_500_000_000)]);
    live.round(vec![upgrade.clone()]);
    let mut restarted = World::new(2, &[]);
    for round in 0..6 {
        let message = live.update(0, &[ReplyCounter]);
        // The first to go on takes the live work; the other executes the slices again.
        restarted.state = live.state.clone();
        live.round(vec![message.clone()]);
        restarted.round(vec![message]);
        assert_eq!(live.state.state_hash(), restarted.state.state_hash(), "round {round}");
    }
    assert!(matches!(live.status(&upgrade), Some(IngressState::Completed(_))));
    assert_eq!(live.canister(0).system.instructions_executed, NumInstructions(6 * BASE));
    let used = 2 * BASE + PRE_UPGRADE_WORK + 4_500_000_000;
    assert!(consumed(&live, 0) > Cycles(u128::from(used)));
}
