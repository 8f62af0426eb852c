//! What the host refuses is never an outcome.

use super::*;
use crate::{CallContextView, MemoryView, SystemView};
use replicore_types::limits::MESSAGE_INSTRUCTIONS_MAX;
use replicore_types::{
    CallContextId, CallbackId, Cycles, NumBytes, Payload, PrincipalId, SubnetConfig, SubnetId, Time, WasmResult,
};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// `count` answers how often it was called; `grow` calls a loop that pauses before and after it grows the heap twice, and
/// answers the size that it had before the second time.
const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (memory 1)
    (global $count (mut i32) (i32.const 0))
    (func $spin (local $left i32)
        (local.set $left (i32.const 1000))
        (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
    (func $answer (param i32)
        (i32.store (i32.const 0) (local.get 0)) (call $append (i32.const 0) (i32.const 4)) (call $reply))
    (func (export "canister_update count")
        (global.set $count (i32.add (global.get $count) (i32.const 1)))
        (call $answer (global.get $count)))
    (func (export "canister_update grow")
        (call $spin)
        (drop (memory.grow (i32.const 3)))
        (call $spin)
        (call $answer (memory.grow (i32.const 2)))
        (call $spin)))"#;

/// An engine whose instances have so many mappings, and canisters on it.
struct World {
    engine: Engine,
    states: Vec<ExecutionState>,
    view: SystemView,
}

impl World {
    fn new(mappings_max: u64, canisters: usize) -> Self {
        let engine = Engine::new(EngineConfig {
            mappings_max,
            ..EngineConfig::default()
        });
        let engine = engine.expect("the engine starts");
        let wasm = wat::parse_str(MODULE).expect("the module parses");
        let module = CanisterModule {
            hash: Sha256::digest(&wasm).into(),
            bytes: wasm.into(),
        };
        let prepared = engine
            .prepare(&module, SubnetType::Application)
            .expect("the module is valid");
        engine.finish_compiling();
        Self {
            engine,
            states: vec![prepared.initial; canisters],
            view: view(),
        }
    }

    /// What a message answers, in how many slices, and what it costs.
    fn update(&mut self, canister: usize, method: &str, slice: u64) -> (u32, u32, NumInstructions) {
        self.view.canister_id = CanisterId::from_index(canister as u64);
        let view = Arc::new(self.view.clone());
        let call = Call {
            entry_point: EntryPoint::Update {
                method: method.into(),
                argument: Payload::default(),
            },
            caller: PrincipalId::anonymous(),
            caller_info: None,
            call_context: CallContextView {
                id: Some(CallContextId(1)),
                ..CallContextView::default()
            },
            message_id: None,
            view: &view,
        };
        let limits = InstructionLimits {
            message: NumInstructions(MESSAGE_INSTRUCTIONS_MAX),
            slice: NumInstructions(slice),
        };
        let state = &mut self.states[canister];
        let mut outcome = self.engine.execute(state, call, limits);
        let mut slices = 1;
        loop {
            match outcome {
                ExecutionOutcome::Paused(paused) => outcome = self.engine.resume(state, paused),
                ExecutionOutcome::Finished(done) => {
                    assert_eq!(done.stats.slices, slices, "the caller saw every slice");
                    let Ok(Some(WasmResult::Reply(answer))) = &done.result else {
                        panic!("{:?}", done.result);
                    };
                    let answer = u32::from_le_bytes(answer[..].try_into().expect("four bytes"));
                    return (answer, slices, done.instructions);
                }
            }
            slices += 1;
        }
    }
}

fn view() -> SystemView {
    SystemView {
        canister_id: CanisterId::from_index(0),
        controllers: Arc::new(BTreeSet::new()),
        status: 1,
        version: 1,
        time: Time(1),
        balance: Cycles(1 << 80),
        reserved_balance: Cycles::ZERO,
        reserved_balance_limit: None,
        freezing_threshold_seconds: 0,
        compute_allocation_percent: 0,
        memory: MemoryView {
            subnet_available_memory: NumBytes(1 << 40),
            message_memory_free: NumBytes(1 << 40),
            ..MemoryView::default()
        },
        certified_data: Payload::default(),
        global_timer: None,
        environment_variables: Arc::new(BTreeMap::new()),
        free_slots: Arc::new(BTreeMap::new()),
        free_callbacks: usize::MAX,
        next_callback_id: CallbackId(1),
        log_next_index: 0,
        log_bytes_max: 0,
        subnet_id: SubnetId(PrincipalId::management_canister()),
        root_key: Arc::from(&[0; 133][..]),
        subnet: SubnetConfig::default(),
    }
}

const WHOLE: u64 = MESSAGE_INSTRUCTIONS_MAX;

#[test]
fn warm_instances_make_room() {
    // For two instances and half of a third.
    let mut narrow = World::new(2 * MAPPINGS_PER_INSTANCE + 2, 12);
    let mut wide = World::new(u64::MAX, 12);
    for round in 1..=3 {
        for canister in 0..12 {
            let done = narrow.update(canister, "count", WHOLE);
            assert_eq!(done, wide.update(canister, "count", WHOLE));
            assert_eq!(done.0, round);
            assert!(narrow.engine.warm_instances().0 <= 2);
        }
    }
    assert_eq!(wide.engine.warm_instances().0, 12);
    assert!(narrow.engine.instances_made() > wide.engine.instances_made());
}

#[test]
fn a_refused_growth_is_no_answer() {
    for slice in [WHOLE, 500, 2_000] {
        for granted in [1, 2] {
            let mut world = World::new(u64::MAX, 2);
            world.update(0, "count", WHOLE);
            let expected = world.update(0, "grow", slice);
            assert_eq!(expected.0, 4, "grown once, by three pages");
            // The first growth of the message is refused, or the second.
            world.engine.mappings.refuse_growth_after(granted - 1);
            assert_eq!(world.update(1, "grow", slice), expected, "slices of {slice}");
            assert!(world.engine.mappings.all_refused(), "a growth was refused");
            assert_eq!(world.update(1, "count", WHOLE).0, 1);
        }
    }
}

#[test]
#[should_panic(expected = "vm.max_map_count")]
fn a_host_without_room_stops_the_replica() {
    World::new(MAPPINGS_PER_INSTANCE - 1, 1).update(0, "count", WHOLE);
}

#[test]
fn warm_instances_fit_into_the_mappings_of_the_process() {
    let default = EngineConfig::default();
    let roomy = default.clone().within_mappings(65_530);
    assert_eq!(
        (roomy.warm_canisters_max, roomy.warm_query_canisters_max),
        (default.warm_canisters_max, default.warm_query_canisters_max),
        "the usual bound of Linux is enough"
    );
    let wanted = EngineConfig {
        warm_canisters_max: 10_000,
        warm_query_canisters_max: 10_000,
        query_instances_per_canister_max: 4,
        ..default
    };
    let cut = wanted.within_mappings(65_530);
    let instances = cut.warm_canisters_max + 4 * cut.warm_query_canisters_max;
    assert!(instances as u64 * MAPPINGS_PER_INSTANCE <= cut.mappings_max);
    assert_eq!((cut.warm_canisters_max, cut.mappings_max), (1_432, 32_765));
    assert_eq!(cut.warm_query_canisters_max, cut.warm_canisters_max);
}
