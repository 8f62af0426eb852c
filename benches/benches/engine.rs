//! What one message costs in the engine, path by path; kernels beside plain wasmtime.
//!
//! ```console
//! $ cargo bench -p replicore-benches --bench engine
//! ```
//! The figures of `replicore bench engine` are differences and ratios taken in the same run; these are the times that
//! they are made of, with Criterion's statistics.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use replicore_benches::engine_canister::{Canister, HEAP_WASM_PAGES, HOST_CALLS};
use replicore_benches::engine_kernels::{self, NAMES, Plain};
use replicore_engine::{Engine, EngineConfig, Tiers};
use replicore_types::limits::MESSAGE_INSTRUCTIONS_MAX;
use std::time::Duration;

fn canister(heap_wasm_pages: u64) -> Canister {
    Canister::new(heap_wasm_pages).expect("it installs")
}

/// The no-op, and what is measured over it.
fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("message");
    let mut small = canister(16);
    group.bench_function("noop", |bencher| bencher.iter(|| small.execute("noop")));
    group.bench_function("trap", |bencher| bencher.iter(|| small.execute("trap_only")));
    group.bench_function("write_64_pages_and_trap", |bencher| {
        bencher.iter(|| small.execute("touch_and_trap"));
    });
    small.with_limits(1_000, 1_000, |small| {
        group.bench_function("run_out_of_instructions", |bencher| {
            bencher.iter(|| small.execute("exhaust"));
        });
    });
    let mut large = canister(HEAP_WASM_PAGES);
    large.update("fill").expect("it fills its heap");
    group.bench_function("write_5_of_256_mib", |bencher| bencher.iter(|| large.execute("write5")));
    let mut stable = canister(1);
    stable.update("stable_grow").expect("it grows");
    group.bench_function("stable_write_of_10_gib", |bencher| {
        bencher.iter(|| stable.execute("stable_write"));
    });
    group.finish();
}

fn host_calls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("host_call");
    let mut canister = canister(1);
    group.throughput(Throughput::Elements(HOST_CALLS));
    group.bench_function("msg_caller_size", |bencher| {
        bencher.iter(|| canister.execute("host_calls"))
    });
    group.bench_function("msg_arg_data_copy_1_kib", |bencher| {
        bencher.iter(|| canister.copy_arguments());
    });
    group.finish();
}

/// The same million turns in one slice and in about a thousand.
fn slices(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slices");
    let mut canister = canister(1);
    let instructions = canister.update("spin").expect("it replies").instructions.get();
    for (name, slice) in [("one", MESSAGE_INSTRUCTIONS_MAX), ("about_300", instructions / 300)] {
        canister.with_limits(MESSAGE_INSTRUCTIONS_MAX, slice, |canister| {
            group.bench_function(name, |bencher| bencher.iter(|| canister.execute("spin")));
        });
    }
    group.finish();
}

/// What a canister costs that has no warm instance, its 64 MiB heap all written.
fn cold(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cold");
    let config = EngineConfig {
        warm_canisters_max: 1,
        ..EngineConfig::default()
    };
    let engine = Engine::new(config).expect("the engine starts");
    let mut canister = Canister::with_engine(engine.into(), 1_024).expect("it installs");
    canister.update("fill").expect("it fills its heap");
    group.bench_function("write_5_of_64_mib", |bencher| {
        bencher.iter(|| {
            canister.make_cold().expect("another canister runs");
            canister.execute("write5")
        });
    });
    group.finish();
}

fn kernels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kernel");
    let config = EngineConfig {
        tiers: Tiers::Optimised,
        ..EngineConfig::default()
    };
    let engine = Engine::new(config).expect("the engine starts");
    let mut canister = engine_kernels::Canister::new(engine).expect("it installs");
    let mut plain = Plain::new().expect("it compiles");
    for kernel in NAMES {
        group.bench_function(BenchmarkId::new("replicore", kernel), |bencher| {
            bencher.iter(|| canister.query(kernel).expect("it ends"));
        });
        group.bench_function(BenchmarkId::new("wasmtime", kernel), |bencher| {
            bencher.iter(|| plain.run(kernel).expect("it ends"));
        });
    }
    group.finish();
}

criterion_group! {
    name = engine;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = messages, host_calls, slices, cold, kernels
}
criterion_main!(engine);
