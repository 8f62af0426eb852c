//! How the pages that a message writes are found: marks in the code (`barrier`) against page protection (`faults`).
//!
//! ```console
//! $ cargo bench -p replicore-benches --bench write_tracking
//! ```
//! Groups: messages that write so many random pages of a 64 MiB heap and are kept; the same while another thread of the
//! process runs, which makes every change of a protection dearer; messages that write 64 pages and trap; and kernels,
//! which pay for the marks and never for faults. Both leave the same heap: the benchmark compares their hashes.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use replicore_benches::engine_canister::Canister;
use replicore_benches::engine_kernels;
use replicore_engine::{Engine, EngineConfig, Tiers, WriteTracking};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MECHANISMS: [(&str, WriteTracking); 2] = [("barrier", WriteTracking::Barrier), ("faults", WriteTracking::Faults)];
const PAGES: [u32; 4] = [1, 5, 64, 256];
/// 64 MiB.
const HEAP_WASM_PAGES: u64 = 1_024;

fn engine(write_tracking: WriteTracking) -> Engine {
    let config = EngineConfig {
        tiers: Tiers::Optimised,
        write_tracking,
        ..EngineConfig::default()
    };
    Engine::new(config).expect("the engine starts")
}

/// A canister whose heap was written once, so that its memory is there.
fn canister(write_tracking: WriteTracking) -> Canister {
    let mut canister = Canister::with_engine(Arc::new(engine(write_tracking)), HEAP_WASM_PAGES).expect("it installs");
    canister.update("fill").expect("it fills its heap");
    canister
}

fn pages(criterion: &mut Criterion, name: &str) {
    let mut group = criterion.benchmark_group(name);
    for count in PAGES {
        let mut roots = Vec::new();
        for (mechanism, write_tracking) in MECHANISMS {
            let mut canister = canister(write_tracking);
            for _ in 0..100 {
                canister.write_pages(count).expect("it replies");
            }
            roots.push(canister.root());
            group.bench_function(BenchmarkId::new(mechanism, count), |bencher| {
                bencher.iter(|| canister.write_pages(count).expect("it replies"));
            });
        }
        assert!(roots.windows(2).all(|pair| pair[0] == pair[1]), "the mechanisms differ");
    }
    group.finish();
}

fn pages_kept(criterion: &mut Criterion) {
    pages(criterion, "pages_kept");
}

fn pages_kept_beside_a_busy_thread(criterion: &mut Criterion) {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&stop);
    let busy = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    });
    pages(criterion, "pages_kept_beside_a_busy_thread");
    stop.store(true, Ordering::Relaxed);
    busy.join().expect("it only spins");
}

fn pages_undone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pages_undone");
    for (mechanism, write_tracking) in MECHANISMS {
        let mut canister = canister(write_tracking);
        group.bench_function(BenchmarkId::new(mechanism, 64), |bencher| {
            bencher.iter(|| canister.execute("touch_and_trap"));
        });
    }
    group.finish();
}

fn kernels(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kernels");
    for kernel in ["sort", "hash_map", "byte_stores", "fill"] {
        for (mechanism, write_tracking) in MECHANISMS {
            let mut canister = engine_kernels::Canister::new(engine(write_tracking)).expect("it installs");
            group.bench_function(BenchmarkId::new(mechanism, kernel), |bencher| {
                bencher.iter(|| canister.query(kernel).expect("it ends"));
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = write_tracking;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = pages_kept, pages_kept_beside_a_busy_thread, pages_undone, kernels
}
criterion_main!(write_tracking);
