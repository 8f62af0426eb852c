//! One message through the engine.

use crate::BenchError;
use crate::engine_canister::{
    Canister, HEAP_WASM_PAGES, HOST_CALLS, PAGES_TOUCHED, STABLE_PAGES_WRITTEN, engine, mixed,
};
use crate::engine_peers::{Instances, Messages};
use crate::measure::{Effort, Figure, seconds};
use replicore_engine::{ExecutionState, WorkDone};
use replicore_types::limits::MESSAGE_INSTRUCTIONS_MAX;
use replicore_types::{CanisterId, OS_PAGE_BYTES};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Canisters of the Zipf measurement, and what its pools hold.
const FLEET: u64 = 10_000;

/// `engine.noop_update_us`: `Engine::execute` of an update that replies nothing. Beside it the same module in plain wasmtime:
/// a call of an instance that is kept, the same on a stack that can be left in the middle (what slices take), and an instance
/// for each message, mapped anew, out of a pool, and out of a pool with fuel and epochs.
pub fn noop_update(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(1)?;
    let mut peers = Peers::new(
        &[
            Instances::Kept,
            Instances::KeptSuspendable,
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
        "wasmtime_kept_suspendable",
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
    host_calls(effort, "engine.host_call_ns", |canister| canister.execute("host_calls"))
}

/// `engine.host_copy_1k_ns`: one `ic0.msg_arg_data_copy` of 1 KiB in a loop of a million.
pub fn host_copy(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    host_calls(effort, "engine.host_copy_1k_ns", Canister::copy_arguments)
}

fn host_calls(
    effort: &Effort,
    id: &'static str,
    message: impl Fn(&mut Canister) -> WorkDone,
) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(1)?;
    let samples = effort.samples(|| {
        let (elapsed, done) = seconds(|| message(&mut canister));
        match done.result {
            Ok(_) => Ok(elapsed / HOST_CALLS as f64 * 1e9),
            Err(failed) => Err(BenchError::new(&failed.error)),
        }
    })?;
    Ok(vec![Figure::of(id, "ns", samples, canister.root())])
}

/// What one time is over another, which is part of it: nothing where a disturbance made the part take longer than the whole.
fn beyond(whole: f64, part: f64) -> f64 {
    (whole - part).max(0.0)
}

/// `engine.write5_random_pages_us`: an update that reads its argument, writes 8 bytes into each of 5 random pages of a
/// 256 MiB heap and replies 32 bytes, less the no-op of the same canister. The heap is written once before. Beside it the
/// same of plain wasmtime with an instance out of a pool for each message, whose heap is empty every time; and what this
/// machine takes to write into five random pages of as much memory and to copy them to where they were committed, which is
/// the least that keeping the state before costs.
pub fn write_five_pages(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let heap_wasm_pages = if effort.is_smoke() { 256 } else { HEAP_WASM_PAGES };
    let mut canister = Canister::new(heap_wasm_pages)?;
    let mut pooled = Messages::new(Instances::Pooled, heap_wasm_pages)?;
    canister.update("fill")?;
    let mut copies = PageCopies::new(heap_wasm_pages * 16);
    let messages = effort.scale(4_000);
    let samples = effort.samples(|| {
        let noop = canister.microseconds("noop", messages);
        let ours = beyond(canister.microseconds("write5", messages), noop);
        let noop = pooled.microseconds("noop", messages)?;
        let theirs = beyond(pooled.microseconds("write5", messages)?, noop);
        Ok((ours, theirs, copies.microseconds(5, messages)))
    })?;
    let of = |value: fn(&(f64, f64, f64)) -> f64| samples.iter().map(value).collect::<Vec<f64>>();
    let figure = Figure::of(
        "engine.write5_random_pages_us",
        "us",
        of(|sample| sample.0),
        canister.root(),
    );
    let figure = figure.against("wasmtime_pooled", of(|sample| sample.1));
    Ok(vec![figure.against("pages_copied", of(|sample| sample.2))])
}

/// Two memories of the same size: one that is written, one that holds what was committed.
struct PageCopies {
    written: Vec<[u8; OS_PAGE_BYTES]>,
    committed: Vec<[u8; OS_PAGE_BYTES]>,
    random: u64,
}

impl PageCopies {
    /// Of so many pages, all of which are in memory.
    fn new(pages: u64) -> Self {
        let memory = |byte| vec![[byte; OS_PAGE_BYTES]; pages as usize];
        Self {
            written: memory(1),
            committed: memory(2),
            random: 1,
        }
    }

    /// Microseconds to write into so many random pages and to copy them.
    fn microseconds(&mut self, pages: usize, turns: u64) -> f64 {
        let mut chosen = vec![0; pages];
        let (elapsed, ()) = seconds(|| {
            for _ in 0..turns {
                for page in &mut chosen {
                    self.random = mixed(self.random);
                    *page = (self.random >> 33) as usize % self.written.len();
                    self.written[*page][..8].copy_from_slice(&self.random.to_le_bytes());
                }
                for &page in &chosen {
                    self.committed[page].copy_from_slice(&self.written[page]);
                }
                std::hint::black_box(&self.committed);
            }
        });
        elapsed / turns as f64 * 1e6
    }
}

/// `engine.trap_rollback_page_us`: what each of 64 written heap pages adds to a message that ends in `ic0.trap`;
/// `engine.trap_host_us` and `engine.trap_exhausted_us`: what the trap itself and running out of instructions add to a
/// no-op. Beside both what the same adds in plain wasmtime, where running out is running out of fuel.
pub fn traps(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(16)?;
    let mut kept = Messages::new(Instances::Kept, 16)?;
    let mut fuel = Messages::new(Instances::KeptFuel, 16)?;
    let messages = effort.scale(2_000);
    let samples = effort.samples(|| {
        let noop = canister.microseconds("noop", messages);
        let trap = canister.microseconds("trap_only", messages);
        let touched = canister.microseconds("touch_and_trap", messages);
        // Few instructions, so that the trap is measured and not what was executed before it.
        let exhausted = canister.with_limits(10, 10, |canister| canister.microseconds("exhaust", messages));
        let theirs = kept.microseconds("noop", messages)?;
        let their_trap = beyond(kept.trap_microseconds("trap_only", messages)?, theirs);
        let theirs = fuel.microseconds("noop", messages)?;
        let their_end = beyond(fuel.trap_microseconds("exhaust", messages)?, theirs);
        Ok([
            beyond(touched, trap) / PAGES_TOUCHED as f64,
            beyond(trap, noop),
            beyond(exhausted, noop),
            their_trap,
            their_end,
        ])
    })?;
    let of = |value: usize| samples.iter().map(|sample| sample[value]).collect::<Vec<f64>>();
    let figure = |id, value| Figure::of(id, "us", of(value), canister.root());
    Ok(vec![
        figure("engine.trap_rollback_page_us", 0),
        figure("engine.trap_host_us", 1).against("wasmtime", of(3)),
        figure("engine.trap_exhausted_us", 2).against("wasmtime_fuel", of(4)),
    ])
}

/// `engine.stable_single_write_us`: an update that writes 8 bytes into one of 4,096 pages spread over 10 GiB of stable
/// memory, less the no-op. The pages are written before, so that the process has their memory already. The message reads
/// its argument to choose the page, which changes a heap page: beside the whole stands what a message that only reads its
/// argument takes, and what this machine takes to write and copy a random one of as many pages.
pub fn stable_write(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(1)?;
    canister.update("stable_grow")?;
    let messages = effort.scale(4_000);
    canister.microseconds("stable_write", effort.scale(20_000));
    let mut copies = PageCopies::new(STABLE_PAGES_WRITTEN);
    let samples = effort.samples(|| {
        let noop = canister.microseconds("noop", messages);
        let argument = beyond(canister.microseconds("argument", messages), noop);
        let whole = beyond(canister.microseconds("stable_write", messages), noop);
        Ok((whole, argument, copies.microseconds(1, messages)))
    })?;
    let root = hex::encode(canister.state.stable.pages.digest());
    let of = |value: fn(&(f64, f64, f64)) -> f64| samples.iter().map(value).collect::<Vec<f64>>();
    let figure = Figure::of("engine.stable_single_write_us", "us", of(|sample| sample.0), root);
    let figure = figure.against("argument_alone", of(|sample| sample.1));
    Ok(vec![figure.against("page_copied", of(|sample| sample.2))])
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
