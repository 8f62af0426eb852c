//! What metering, marks and canonical NaNs cost compute kernels, and how long a module takes to its first answer.

use crate::BenchError;
use crate::engine_canister::view;
use crate::engine_peers::pooling;
use crate::measure::{Effort, Figure, seconds};
use replicore_engine::{
    Call, CallContextView, CanisterModule, Engine, EngineConfig, EntryPoint, Execute, ExecutionOutcome, ExecutionState,
    InstructionLimits, SystemView, Tiers,
};
use replicore_types::{CallContextId, NumInstructions, Payload, PrincipalId, SubnetType};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use wasmtime::{Config, Instance, InstancePre, Linker, Module, Store, Strategy, TypedFunc};

const KERNELS: &str = include_str!("kernels.wat");
/// Their names.
pub const NAMES: [&str; 8] = [
    "hash",
    "sort",
    "matrix_f64",
    "hash_map",
    "recursion",
    "interpreter",
    "byte_stores",
    "fill",
];
const FLOATS: &str = "matrix_f64";
/// Turns of a kernel in one run.
const TURNS: usize = 15;
/// More than any kernel uses: a query that pauses would not be one run.
const LIMITS: InstructionLimits = InstructionLimits {
    message: NumInstructions(100_000_000_000),
    slice: NumInstructions(100_000_000_000),
};

/// `engine.kernels_ratio`, `engine.kernel_worst_ratio`, `engine.kernel_f64_ratio`: time of the kernels as queries of a
/// canister in the optimised tier, over plain wasmtime with the same options and no instrumentation: geometric mean,
/// the worst, and the one over doubles. Beside the mean stands that of wasmtime which bounds execution by its own means,
/// fuel and epochs, and of one that takes an instance out of a pool for every run. Each kernel runs on all of them in turn.
pub fn kernels(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut plain = Plain::new()?;
    let (mut fuel, mut epochs) = (Plain::bounded(Bound::Fuel)?, Plain::bounded(Bound::Epochs)?);
    let mut pooled = Plain::bounded(Bound::Pooled)?;
    let mut canister = Canister::new(engine(Tiers::Optimised, None)?)?;
    let names: &[&str] = if effort.is_smoke() { &NAMES[2..5] } else { &NAMES };
    let mut fingerprint = Sha256::new();
    for name in names {
        for wasmtime in [&mut plain, &mut fuel, &mut epochs, &mut pooled] {
            wasmtime.run(name)?;
        }
        fingerprint.update(canister.query(name)?.to_le_bytes());
    }
    // The least of several turns is what other work on the machine disturbed least.
    let turns = if effort.is_smoke() { 1 } else { TURNS };
    let runs = effort.samples(|| {
        names
            .iter()
            .map(|name| {
                let mut least = [f64::INFINITY; 5];
                for _ in 0..turns {
                    let (elapsed, result) = seconds(|| canister.query(name));
                    result?;
                    let bounded = [fuel.run(name)?, epochs.run(name)?, pooled.run(name)?];
                    let turn = [plain.run(name)?, elapsed, bounded[0], bounded[1], bounded[2]];
                    least
                        .iter_mut()
                        .zip(turn)
                        .for_each(|(least, this)| *least = least.min(this));
                }
                let [expected, measured @ ..] = least;
                Ok(measured.map(|measured| measured / expected))
            })
            .collect::<Result<Vec<[f64; 4]>, BenchError>>()
    })?;
    let root = hex::encode(fingerprint.finalize());
    let of = |kernel: usize| runs.iter().map(|run| run[kernel][0]).collect::<Vec<f64>>();
    let median = |kernel: usize| Figure::of("", "x", of(kernel), String::new()).value;
    let medians: Vec<f64> = (0..names.len()).map(median).collect();
    let worst = (0..names.len()).fold(0, |worst, kernel| {
        if medians[kernel] > medians[worst] {
            kernel
        } else {
            worst
        }
    });
    let floats = names.iter().position(|name| *name == FLOATS).unwrap_or(0);
    let mean = |run: &Vec<[f64; 4]>, design: usize| {
        let logarithms: f64 = run.iter().map(|ratios| ratios[design].ln()).sum();
        (logarithms / run.len() as f64).exp()
    };
    let means = |design: usize| runs.iter().map(|run| mean(run, design)).collect::<Vec<f64>>();
    let mut all = Figure::of("engine.kernels_ratio", "x", means(0), root.clone())
        .against("wasmtime with fuel", means(1))
        .against("wasmtime with epochs", means(2))
        .against("wasmtime with a pool", means(3));
    for (kernel, name) in names.iter().enumerate() {
        all = all.against(name, of(kernel));
    }
    Ok(vec![
        all,
        Figure::of("engine.kernel_worst_ratio", "x", of(worst), root.clone()),
        Figure::of("engine.kernel_f64_ratio", "x", of(floats), root),
    ])
}

/// `engine.first_call_quarter_mb_ms`: a module of a quarter megabyte that was never seen, from its bytes to the end of
/// its first message. Beside it plain wasmtime with its baseline compiler, from the same bytes to the end of the same call:
/// what the compiler alone takes for a module in which nothing counts and nothing marks.
pub fn first_call_quarter_mb(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    first_call("engine.first_call_quarter_mb_ms", 250_000, effort)
}

/// `engine.first_call_1mb_ms`: the same for a megabyte.
pub fn first_call_1mb(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    first_call("engine.first_call_1mb_ms", 1_000_000, effort)
}

fn first_call(id: &'static str, bytes: usize, effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let engine = engine(Tiers::Both, None)?;
    let baseline = wasmtime::Engine::new(Config::new().strategy(Strategy::Winch)).map_err(BenchError::new)?;
    let mut never_seen = 0;
    let samples = effort.samples(|| {
        never_seen += 1;
        let wasm = large_module(module_bytes(bytes, effort), never_seen)?;
        let (plain, result) = seconds(|| plain_first_call(&baseline, &wasm));
        result.map_err(BenchError::new)?;
        let (elapsed, result) = seconds(|| first_answer(&engine, wasm));
        result?;
        engine.finish_compiling();
        Ok((elapsed * 1e3, plain * 1e3))
    })?;
    let (ours, plain) = samples.into_iter().unzip();
    Ok(vec![
        Figure::of(id, "ms", ours, String::new()).against("wasmtime_baseline", plain),
    ])
}

fn plain_first_call(engine: &wasmtime::Engine, wasm: &[u8]) -> wasmtime::Result<()> {
    let module = Module::new(engine, wasm)?;
    let mut store = Store::new(engine, ());
    let instance = Instance::new(&mut store, &module, &[])?;
    let function: TypedFunc<(), ()> = instance.get_typed_func(&mut store, "canister_query go")?;
    function.call(&mut store, ())
}

/// `engine.cached_call_ms`: a module of a megabyte whose code is on disk, from its bytes to the end of its first message
/// in a new process.
pub fn cached_call(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let folder = tempfile::tempdir().map_err(BenchError::new)?;
    let wasm = large_module(module_bytes(1_000_000, effort), 0)?;
    first_answer(&engine(Tiers::Optimised, Some(folder.path().into()))?, wasm.clone())?;
    let samples = effort.samples(|| {
        let engine = engine(Tiers::Both, Some(folder.path().into()))?;
        let wasm = wasm.clone();
        let (elapsed, result) = seconds(|| first_answer(&engine, wasm));
        result?;
        Ok(elapsed * 1e3)
    })?;
    Ok(vec![Figure::of("engine.cached_call_ms", "ms", samples, String::new())])
}

/// Small in a smoke run.
fn module_bytes(bytes: usize, effort: &Effort) -> usize {
    if effort.is_smoke() { bytes / 20 } else { bytes }
}

fn first_answer(engine: &Engine, wasm: Vec<u8>) -> Result<(), BenchError> {
    let (mut state, view) = (install(engine, wasm)?, Arc::new(view()));
    query(engine, &mut state, &view, "go").map(drop)
}

fn engine(tiers: Tiers, cache_folder: Option<PathBuf>) -> Result<Engine, BenchError> {
    let config = EngineConfig {
        tiers,
        cache_folder,
        ..EngineConfig::default()
    };
    Engine::new(config).map_err(BenchError::new)
}

fn install(engine: &Engine, wasm: Vec<u8>) -> Result<ExecutionState, BenchError> {
    let module = CanisterModule {
        hash: Sha256::digest(&wasm).into(),
        bytes: wasm.into(),
    };
    let prepared = engine.prepare(&module, SubnetType::Application);
    Ok(prepared.map_err(|(error, _)| BenchError::new(error))?.initial)
}

/// Runs a query that need not answer; gives its instructions.
fn query(engine: &Engine, state: &mut ExecutionState, view: &Arc<SystemView>, method: &str) -> Result<u64, BenchError> {
    let call = Call {
        entry_point: EntryPoint::Query {
            method: method.into(),
            argument: Payload::default(),
            data_certificate: None,
        },
        caller: PrincipalId::anonymous(),
        caller_info: None,
        call_context: CallContextView {
            id: Some(CallContextId(1)),
            ..CallContextView::default()
        },
        message_id: None,
        view,
    };
    match engine.execute(state, call, LIMITS) {
        ExecutionOutcome::Finished(done) => match done.result {
            Ok(_) => Ok(done.instructions.get()),
            Err(failure) => Err(BenchError::new(failure.error)),
        },
        ExecutionOutcome::Paused(_) => Err(BenchError::new("the message did not end within its slice")),
    }
}

/// The kernels as a canister.
pub struct Canister {
    engine: Engine,
    state: ExecutionState,
    view: Arc<SystemView>,
}

impl Canister {
    /// Installed on this engine.
    ///
    /// # Errors
    /// Where the module is refused.
    pub fn new(engine: Engine) -> Result<Self, BenchError> {
        let wasm = wat::parse_str(KERNELS).map_err(BenchError::new)?;
        Ok(Self {
            state: install(&engine, wasm)?,
            engine,
            view: Arc::new(view()),
        })
    }

    /// Runs a kernel as a query; its instructions.
    ///
    /// # Errors
    /// What the engine says.
    pub fn query(&mut self, kernel: &str) -> Result<u64, BenchError> {
        query(&self.engine, &mut self.state, &self.view, kernel)
    }
}

/// What plain wasmtime is asked for, beyond running a module: how it keeps one from running for ever, where instances come
/// from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Not at all.
    None,
    /// By counting instructions.
    Fuel,
    /// By looking at a clock that another thread would move on.
    Epochs,
    /// Not at all, but every run has an instance of its own out of a pool.
    Pooled,
}

/// The kernels in plain wasmtime: what a Wasm engine does that neither counts nor tracks.
pub struct Plain {
    store: Store<()>,
    instance: Instance,
    /// Makes an instance for every run, where that is asked for.
    each: Option<InstancePre<()>>,
}

impl Plain {
    /// With the settings that wasmtime comes with.
    ///
    /// # Errors
    /// Where the module does not compile.
    pub fn new() -> Result<Self, BenchError> {
        Self::bounded(Bound::None)
    }

    /// The same where execution is bounded, generously.
    ///
    /// # Errors
    /// As [`Plain::new`].
    pub fn bounded(bound: Bound) -> Result<Self, BenchError> {
        let wasm = wat::parse_str(KERNELS).map_err(BenchError::new)?;
        let mut config = match bound {
            Bound::Pooled => pooling(),
            Bound::None | Bound::Fuel | Bound::Epochs => Config::new(),
        };
        config.consume_fuel(bound == Bound::Fuel);
        config.epoch_interruption(bound == Bound::Epochs);
        let engine = wasmtime::Engine::new(&config).map_err(BenchError::new)?;
        let module = Module::new(&engine, &wasm).map_err(BenchError::new)?;
        let mut store = Store::new(&engine, ());
        match bound {
            Bound::None | Bound::Pooled => {}
            Bound::Fuel => store.set_fuel(u64::MAX).map_err(BenchError::new)?,
            Bound::Epochs => store.set_epoch_deadline(1),
        }
        let instance = Instance::new(&mut store, &module, &[]).map_err(BenchError::new)?;
        let each = (bound == Bound::Pooled).then(|| Linker::new(&engine).instantiate_pre(&module));
        Ok(Self {
            store,
            instance,
            each: each.transpose().map_err(BenchError::new)?,
        })
    }

    /// Seconds that a kernel takes.
    ///
    /// # Errors
    /// What wasmtime says.
    pub fn run(&mut self, kernel: &str) -> Result<f64, BenchError> {
        let name = format!("canister_query {kernel}");
        let call = |store: &mut Store<()>, instance: &Instance| {
            let function: TypedFunc<(), ()> = instance.get_typed_func(&mut *store, &name)?;
            function.call(store, ())
        };
        let (elapsed, result) = seconds(|| match &self.each {
            None => call(&mut self.store, &self.instance),
            Some(each) => {
                let mut store = Store::new(self.store.engine(), ());
                let instance = each.instantiate(&mut store)?;
                call(&mut store, &instance)
            }
        });
        result.map_err(BenchError::new)?;
        Ok(elapsed)
    }
}

/// Bytes of one function of [`large_module`], as measured.
const FUNCTION_BYTES: usize = 161;

/// A module of about so many bytes, in functions of the size and mix of instructions that compilers of real canisters
/// make. Another `seed` is another module of the same size.
fn large_module(bytes: usize, seed: u32) -> Result<Vec<u8>, BenchError> {
    let functions = (bytes / FUNCTION_BYTES).max(2);
    let mut text = String::from("(module (memory 4)\n");
    for number in 0..functions {
        let callee = (number * 7 + 1) % functions;
        let constant = 1_000_000 + number as u32 * 31 + seed;
        write!(
            text,
            "(func $f{number} (param $a i32) (param $b i32) (result i32) (local $c i32) (local $d i64)
               (local.set $c (i32.add (local.get $a) (i32.const {constant})))
               (block $out
                 (br_if $out (i32.eqz (local.get $b)))
                 (local.set $d (i64.load offset=16 (i32.and (local.get $c) (i32.const 65528))))
                 (if (i64.gt_u (local.get $d) (i64.const {constant}))
                   (then (i32.store offset=8 (i32.and (local.get $c) (i32.const 65532)) (local.get $b))
                     (local.set $c (call $f{callee} (local.get $c) (i32.sub (local.get $b) (i32.const 1)))))
                   (else (i64.store (i32.and (local.get $a) (i32.const 65528))
                     (i64.add (local.get $d) (i64.extend_i32_u (local.get $c))))))
                 (loop $again
                   (i32.store8 offset=65536 (i32.and (local.get $b) (i32.const 4095)) (local.get $c))
                   (local.set $c (i32.xor (i32.rotl (local.get $c) (i32.const 5)) (local.get $b)))
                   (br_if $again (local.tee $b (i32.shr_u (local.get $b) (i32.const 1))))))
               (local.get $c))\n"
        )
        .map_err(BenchError::new)?;
    }
    text.push_str("(func (export \"canister_query go\") (drop (call $f0 (i32.const 1) (i32.const 9)))))");
    wat::parse_str(&text).map_err(BenchError::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_modules_have_about_the_size_that_was_asked_for() {
        let bytes = large_module(100_000, 1).unwrap().len();
        assert!((90_000..110_000).contains(&bytes), "{bytes}");
    }
}
