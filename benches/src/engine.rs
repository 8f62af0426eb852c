//! One message through the engine.

use crate::BenchError;
use crate::engine_canister::{Canister, HEAP_WASM_PAGES, HOST_CALLS, PAGES_TOUCHED, engine, mixed};
use crate::engine_peers::{Instances, Messages};
use crate::measure::{Effort, Figure, seconds};
use replicore_engine::ExecutionState;
use replicore_types::CanisterId;
use replicore_types::limits::MESSAGE_INSTRUCTIONS_MAX;
use sha2::{Digest, Sha256};

/// Canisters of the Zipf measurement, and what its pools hold.
use std::sync::Arc;
const FLEET: u64 = 10_000;

/// `engine.noop_update_us`: `Engine::execute` of an update that replies nothing. Beside it the same module in plain wasmtime:
/// a call of an instance that is kept, and an instance for each message, mapped anew, out of a pool, and out of a pool
/// with fuel and epochs.
pub fn noop_update(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(1)?;
    let mut peers = Peers::new(
        &[
            Instances::Kept,
            Instances::Each,
            Instances::Pooled,
            Instances::PooledBounded,
        ],
        1,
    )?;
    let messages = effort.scale(20_000);
    let samples = effort.samples(|| {
        let ours = canister.microseconds("noop", messages);
        Ok((ours, peers.microseconds("noop", messages / 4)?))
    })?;
    let ours = samples.iter().map(|(ours, _)| *ours).collect();
    let mut figure = Figure::of("engine.noop_update_us", "us", ours, canister.root());
    for (peer, name) in [
        "wasmtime_kept",
        "wasmtime_each",
        "wasmtime_pooled",
        "wasmtime_pooled_bounded",
    ]
    .into_iter()
    .enumerate()
    {
        figure = figure.against(name, samples.iter().map(|(_, theirs)| theirs[peer]).collect());
    }
    Ok(vec![figure])
}

/// The same messages in plain wasmtime.
struct Peers(Vec<Messages>);

impl Peers {
    fn new(instances: &[Instances], heap_wasm_pages: u64) -> Result<Self, BenchError> {
        let peers = instances
            .iter()
            .map(|instances| Messages::new(*instances, heap_wasm_pages));
        peers.collect::<Result<_, _>>().map(Self)
    }

    fn microseconds(&mut self, method: &str, messages: u64) -> Result<Vec<f64>, BenchError> {
        let peers = self.0.iter_mut();
        peers.map(|peer| peer.microseconds(method, messages.max(1))).collect()
    }
}

/// `engine.host_call_ns`: one `ic0.msg_caller_size` in a loop of a million.
pub fn host_call(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    host_calls(effort, "engine.host_call_ns", "host_calls")
}

/// `engine.host_copy_1k_ns`: one `ic0.msg_arg_data_copy` of 1 KiB in a loop of a million.
pub fn host_copy(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    host_calls(effort, "engine.host_copy_1k_ns", "host_copies")
}

fn host_calls(effort: &Effort, id: &'static str, method: &str) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(1)?;
    let samples = effort.samples(|| {
        let elapsed = canister.microseconds(method, 1);
        Ok(elapsed / HOST_CALLS as f64 * 1e3)
    })?;
    Ok(vec![Figure::of(id, "ns", samples, canister.root())])
}

/// What one time is over another, which is part of it: nothing where a disturbance made the part take longer than the whole.
fn beyond(whole: f64, part: f64) -> f64 {
    (whole - part).max(0.0)
}

/// `engine.write5_random_pages_us`: an update that reads its argument, writes 8 bytes into each of 5 random pages of a
/// 256 MiB heap and replies 32 bytes, less the no-op of the same canister. The heap is written once before. Beside it the
/// same of plain wasmtime with an instance out of a pool for each message, whose heap is empty every time.
pub fn write_five_pages(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let heap_wasm_pages = if effort.is_smoke() { 256 } else { HEAP_WASM_PAGES };
    let mut canister = Canister::new(heap_wasm_pages)?;
    let mut pooled = Messages::new(Instances::Pooled, heap_wasm_pages)?;
    canister.update("fill")?;
    let messages = effort.scale(4_000);
    let samples = effort.samples(|| {
        let noop = canister.microseconds("noop", messages);
        let ours = beyond(canister.microseconds("write5", messages), noop);
        let noop = pooled.microseconds("noop", messages)?;
        Ok((ours, beyond(pooled.microseconds("write5", messages)?, noop)))
    })?;
    let (ours, theirs) = samples.into_iter().unzip();
    let figure = Figure::of("engine.write5_random_pages_us", "us", ours, canister.root());
    Ok(vec![figure.against("wasmtime_pooled", theirs)])
}

/// `engine.trap_rollback_page_us`: what each of 64 written heap pages adds to a message that ends in `ic0.trap`;
/// `engine.trap_host_us` and `engine.trap_exhausted_us`: what the trap itself and running out of instructions add to a
/// no-op.
pub fn traps(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(16)?;
    let messages = effort.scale(2_000);
    let samples = effort.samples(|| {
        let noop = canister.microseconds("noop", messages);
        let trap = canister.microseconds("trap_only", messages);
        let touched = canister.microseconds("touch_and_trap", messages);
        let exhausted = canister.with_limits(1_000, 1_000, |canister| canister.microseconds("exhaust", messages));
        Ok((
            beyond(touched, trap) / PAGES_TOUCHED as f64,
            beyond(trap, noop),
            beyond(exhausted, noop),
        ))
    })?;
    let figure = |id, value: fn(&(f64, f64, f64)) -> f64| {
        Figure::of(id, "us", samples.iter().map(value).collect(), canister.root())
    };
    Ok(vec![
        figure("engine.trap_rollback_page_us", |sample| sample.0),
        figure("engine.trap_host_us", |sample| sample.1),
        figure("engine.trap_exhausted_us", |sample| sample.2),
    ])
}

/// `engine.stable_single_write_us`: an update that writes 8 bytes into one of 4,096 pages spread over 10 GiB of stable
/// memory, less the no-op. The pages are written before, so that the process has their memory already.
pub fn stable_write(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(1)?;
    canister.update("stable_grow")?;
    let messages = effort.scale(4_000);
    canister.microseconds("stable_write", effort.scale(20_000));
    let samples = effort.samples(|| {
        let noop = canister.microseconds("noop", messages);
        Ok(beyond(canister.microseconds("stable_write", messages), noop))
    })?;
    let root = hex::encode(canister.state.stable.pages.digest());
    Ok(vec![Figure::of("engine.stable_single_write_us", "us", samples, root)])
}

/// `engine.slice_resume_us`: pausing an execution at the end of its slice and going on with it, from the same work done
/// in about 1,000 slices and in one.
pub fn slice_resume(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(1)?;
    let instructions = canister.update("spin")?.instructions.0;
    let samples = effort.samples(|| {
        let (whole, _) = timed_spin(&mut canister, MESSAGE_INSTRUCTIONS_MAX)?;
        let (sliced, slices) = timed_spin(&mut canister, instructions / 300)?;
        Ok(beyond(sliced, whole) / f64::from(slices.max(2) - 1))
    })?;
    Ok(vec![Figure::of(
        "engine.slice_resume_us",
        "us",
        samples,
        canister.root(),
    )])
}

fn timed_spin(canister: &mut Canister, slice: u64) -> Result<(f64, u32), BenchError> {
    canister.with_limits(MESSAGE_INSTRUCTIONS_MAX, slice, |canister| {
        let (elapsed, done) = seconds(|| canister.update("spin"));
        Ok((elapsed * 1e6, done?.stats.slices))
    })
}

/// `engine.cold_1gib_first_message_us`: the first message of a canister with a 1 GiB heap, all of it written, on an
/// engine that holds no instance of it; the message writes one page. Beside it, the second message.
pub fn cold_heap(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let wasm_pages = if effort.is_smoke() { 256 } else { 16_384 };
    let mut canister = Canister::with_engine(engine(1)?, wasm_pages)?;
    canister.update("fill")?;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    effort.samples(|| {
        canister.make_cold()?;
        cold.push(canister.microseconds("write5", 1));
        warm.push(canister.microseconds("write5", 1));
        Ok(())
    })?;
    let root = canister.root();
    Ok(vec![
        Figure::of("engine.cold_1gib_first_message_us", "us", cold, root).against("second_message", warm),
    ])
}

/// `engine.zipf_update_us`: an update that writes one page, to one of 10,000 canisters drawn by a Zipf law with
/// exponent 1, with 500 warm slots; beside it other numbers of slots, for the plot.
pub fn zipf(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let fleet = if effort.is_smoke() { 200 } else { FLEET };
    let messages = effort.scale(20_000);
    let slots = [
        ("slots_50", 50),
        ("slots_200", 200),
        ("slots_500", 500),
        ("slots_2000", 2_000),
        ("slots_10000", 10_000),
    ];
    let mut fleets = Vec::new();
    for (name, slots) in slots {
        fleets.push((name, Fleet::new(fleet, slots)?, Vec::new()));
    }
    effort.samples(|| {
        for (_, fleet, samples) in &mut fleets {
            samples.push(fleet.microseconds(messages)?);
        }
        Ok(())
    })?;
    let root = fleets[0].1.root();
    if fleets.iter().any(|(_, fleet, _)| fleet.root() != root) {
        return Err(BenchError::new("the number of warm slots changed a result"));
    }
    let main = fleets[2].2.clone();
    let figure = Figure::of("engine.zipf_update_us", "us", main, root);
    Ok(vec![fleets.into_iter().fold(figure, |figure, (name, _, samples)| {
        figure.against(name, samples)
    })])
}

/// Canisters with the same module, called with the frequencies of a Zipf law.
struct Fleet {
    canister: Canister,
    states: Vec<ExecutionState>,
    /// Cumulative weights by rank.
    cumulative: Vec<f64>,
    random: u64,
}

impl Fleet {
    fn new(canisters: u64, slots: usize) -> Result<Self, BenchError> {
        let canister = Canister::with_engine(engine(slots)?, 16)?;
        let mut total = 0.0;
        Ok(Self {
            states: (0..canisters).map(|_| canister.state.clone()).collect(),
            cumulative: (1..=canisters)
                .map(|rank| {
                    total += 1.0 / rank as f64;
                    total
                })
                .collect(),
            canister,
            random: 1,
        })
    }

    fn next(&mut self) -> usize {
        self.random = mixed(self.random);
        let total = self.cumulative.last().copied().unwrap_or(1.0);
        let point = (self.random >> 11) as f64 / (1_u64 << 53) as f64 * total;
        self.cumulative.partition_point(|&below| below <= point)
    }

    fn microseconds(&mut self, messages: u64) -> Result<f64, BenchError> {
        let (elapsed, result) = seconds(|| -> Result<(), BenchError> {
            for _ in 0..messages {
                let index = self.next().min(self.states.len() - 1);
                Arc::make_mut(&mut self.canister.view).canister_id = CanisterId::from_index(index as u64);
                std::mem::swap(&mut self.canister.state, &mut self.states[index]);
                let done = self.canister.update("touch");
                std::mem::swap(&mut self.canister.state, &mut self.states[index]);
                done?;
            }
            Ok(())
        });
        result?;
        Ok(elapsed / messages as f64 * 1e6)
    }

    fn root(&self) -> String {
        let mut hasher = Sha256::new();
        for state in &self.states {
            hasher.update(state.heap.pages.digest());
        }
        hex::encode(hasher.finalize())
    }
}
