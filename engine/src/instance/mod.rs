//! Instances: a module's code with its memory, kept warm between messages.
//!
//! ```text
//! committed state (pages, globals) --bring_to--> instance --message--> marked pages
//!                                                              keep: changed pages -> new committed state
//!                                                              else: changed pages <- committed state
//! ```
//! An instance knows the version of the state that its memory equals. Between messages that is exact: a message
//! either becomes a new version or is undone page by page. A cold canister's large heap is brought in as it is touched,
//! see `cold_heap`; what is not in yet counts as equal.

mod address_space;
mod background;
mod cold_heap;
mod compiled;
mod disk_cache;
mod heap_changes;
mod host;
mod jitdump;
mod perf_map;
mod pool;
mod prepared;
mod tiers;
mod write_faults;

pub(crate) use address_space::{MAPPINGS_PER_INSTANCE, Mappings};
pub(crate) use compiled::{Compiled, ForPerf, ModuleCache, NoCode, Refusal};
pub(crate) use heap_changes::HeapChanges;
pub(crate) use pool::InstancePool;
pub use tiers::Tiers;

use self::address_space::Stack;
use self::cold_heap::ColdHeap;
use self::tiers::Tier;
use self::write_faults::WriteFaults;
use crate::meter::Meter;
use crate::module::{STACK_BYTES, WriteTracking, symbols};
use crate::profile::Recorder;
use crate::stable_memory::StableMemory;
use crate::system_api::{Exports, Growth, HostState, MessageState, Running};
use crate::trap::Failure;
use crate::{ExecutionState, GlobalValue, WasmClosure, WasmMemory};
use replicore_persistence::{Page, PageDelta, PageIndex, PageMap};
use replicore_types::OS_PAGE_BYTES;
use replicore_types::fees::WasmWidth;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::Arc;
use wasmtime::{Global, Ref, Store, Table, Trap, TypedFunc, Val};

/// What an instance takes beside its heap, about: machine stack, marks, the tables of the Wasm engine.
const INSTANCE_BYTES: u64 = 64 * 1024;
/// Messages on a warm instance between two look-ups of its module.
const MESSAGES_PER_LOOK_UP: u64 = 32;
const ZERO_PAGE: Page = [0; OS_PAGE_BYTES];

/// A module in memory.
pub(crate) struct Instance {
    pub(crate) compiled: Arc<Compiled>,
    store: Store<HostState>,
    instance: wasmtime::Instance,
    /// The part of the heap that is not whole yet, if the instance began with a large one. After `store`: dropped last.
    cold: Option<ColdHeap>,
    /// Finds the pages that a message writes where the code does not mark them. After `store`: dropped last.
    faults: Option<WriteFaults>,
    table: Option<Table>,
    globals: Vec<Global>,
    /// Exported functions that were called before.
    functions: Vec<TypedFunc<(), ()>>,
    /// Their positions, by what their export's name begins with and by the rest of it.
    positions: Vec<(&'static str, BTreeMap<Box<str>, usize>)>,
    /// The one that was entered last: mostly it is entered again.
    last_export: (&'static str, Box<str>, usize),
    /// The state that memory and globals equal between messages.
    committed_heap: WasmMemory,
    committed_globals: Arc<[GlobalValue]>,
    /// Its version; 0 where it has none.
    version: u64,
    /// Scratch: pages whose marks are set.
    marked: Vec<u64>,
    /// Messages that began here.
    messages: u64,
    /// The stack that the first of them runs on, and all that follow.
    stack: Option<Stack>,
    /// The memory that a pool counts it with.
    counted: Option<pool::Counted>,
}

/// Where a message enters an instance.
pub(crate) enum Entry {
    /// The export at this position among those that were looked up.
    Export(usize),
    /// A callback with a 32-bit environment.
    Closure32(TypedFunc<u32, ()>, u32),
    /// A callback with a 64-bit environment.
    Closure64(TypedFunc<u64, ()>, u64),
}

impl Instance {
    /// A fresh instance that holds `state`.
    pub(crate) fn new(compiled: Arc<Compiled>, state: &ExecutionState) -> wasmtime::Result<Self> {
        let mut store = Store::new(
            compiled.instance_pre.module().engine(),
            HostState {
                exports: Exports::default(),
                running: None,
                slices: 0,
                has_function_names: !compiled.function_names.is_empty(),
                growth: Growth,
            },
        );
        store.limiter(|state| &mut state.growth);
        let (instance, stack) = address_space::with_marks_above_stack(|| {
            // No code runs yet: start functions are entry points like the others.
            ready(compiled.instance_pre.instantiate_async(&mut store))
        });
        let instance = instance?;
        let exports = Exports {
            heap: instance.get_memory(&mut store, symbols::HEAP),
            marks: match compiled.write_tracking {
                WriteTracking::Barrier => instance.get_memory(&mut store, symbols::MARKS),
                WriteTracking::Faults => None,
            },
            counter: instance.get_global(&mut store, symbols::COUNTER),
            reads: instance.get_memory(&mut store, symbols::READS),
            stack: instance.get_global(&mut store, symbols::STACK),
        };
        store.data_mut().exports = exports;
        let globals = compiled
            .global_exports
            .iter()
            .filter_map(|name| instance.get_global(&mut store, name))
            .collect();
        let table = instance.get_table(&mut store, symbols::TABLE);
        let initial_wasm_pages = exports.heap.map_or(0, |heap| heap.size(&store));
        let mut fresh = Self {
            committed_heap: WasmMemory {
                size_wasm_pages: initial_wasm_pages,
                ..WasmMemory::default()
            },
            committed_globals: compiled.initial_globals.clone(),
            compiled,
            store,
            instance,
            cold: None,
            faults: None,
            table,
            globals,
            functions: Vec::new(),
            positions: Vec::new(),
            last_export: ("", "".into(), 0),
            version: 0,
            marked: Vec::new(),
            messages: 0,
            stack,
            counted: None,
        };
        match fresh.compiled.write_tracking {
            WriteTracking::Barrier => fresh.begin_cold(state)?,
            WriteTracking::Faults => fresh.begin_faults(),
        }
        fresh.load(state)?;
        Ok(fresh)
    }

    /// True where the code of the instance is as good as `compiled`.
    pub(crate) fn is_up_to(&self, compiled: &Compiled) -> bool {
        self.compiled.tier >= compiled.tier
    }

    /// Lets a heap with many pages come in as it is touched.
    fn begin_cold(&mut self, state: &ExecutionState) -> wasmtime::Result<()> {
        let Some(heap) = self.store.data().exports.heap else {
            return Ok(());
        };
        if state.heap.pages.len() < cold_heap::PAGES_MIN {
            return Ok(());
        }
        self.grow_heap(state)?;
        let (base, bytes) = (heap.data_ptr(&self.store), heap.data_size(&self.store));
        // SAFETY: the heap was just made, has grown by zeros only and, by the engine's configuration, never moves.
        // `load`, `heap_changes`, `commit` and `roll_back` touch present pages only, and `cold` is dropped after
        // `store`.
        self.cold = unsafe { ColdHeap::new(&mut self.store, base, bytes, state.heap.pages.clone()) };
        Ok(())
    }

    /// Lets first writes to pages fault.
    fn begin_faults(&mut self) {
        if let Some(heap) = self.store.data().exports.heap {
            let base = heap.data_ptr(&self.store);
            // SAFETY: by the engine's configuration the heap never moves. `load` opens it before it writes and protects
            // it afterwards, `roll_back` writes pages that were written in the message and protects them afterwards, and
            // nobody else writes it between messages. `faults` is dropped after `store`.
            self.faults = Some(unsafe { WriteFaults::new(&mut self.store, base) });
        }
    }

    /// Protects the pages that were written in the message that has just been kept or undone.
    fn protect_written(&mut self) {
        if let (Some(faults), Some(heap)) = (&mut self.faults, self.store.data().exports.heap) {
            faults.protect_again(heap.data_size(&self.store), &self.marked);
        }
    }

    fn grow_heap(&mut self, state: &ExecutionState) -> wasmtime::Result<()> {
        if let Some(heap) = self.store.data().exports.heap {
            let missing = state.heap.size_wasm_pages.saturating_sub(heap.size(&self.store));
            if missing > 0 {
                ready(heap.grow_async(&mut self.store, missing))?;
            }
        }
        Ok(())
    }

    /// True where the instance can be made to hold `state` by [`Instance::bring_to`].
    pub(crate) fn can_hold(&self, state: &ExecutionState) -> bool {
        self.compiled.hash == state.module.hash && self.committed_heap.size_wasm_pages <= state.heap.size_wasm_pages
    }

    /// True where bringing the instance to a state of another canister costs less than a new one: few pages on both
    /// sides, none of which comes in later.
    pub(crate) fn can_turn_into(&self, state: &ExecutionState) -> bool {
        let is_small = |heap: &WasmMemory| heap.pages.len() < cold_heap::PAGES_MIN;
        self.cold.is_none() && self.can_hold(state) && is_small(&self.committed_heap) && is_small(&state.heap)
    }

    /// Bytes of memory that the instance takes, about.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let pages = match &self.cold {
            Some(cold) => cold.present_count() as u64,
            None => self.committed_heap.pages.len(),
        };
        pages * OS_PAGE_BYTES as u64 + INSTANCE_BYTES
    }

    /// True where the instance holds this version of the state already.
    pub(crate) fn holds(&self, version: u64) -> bool {
        version != 0 && self.version == version
    }

    /// Makes the instance hold `state`, copying what differs.
    pub(crate) fn bring_to(&mut self, state: &ExecutionState) -> wasmtime::Result<()> {
        if !self.holds(state.warm_version) {
            return self.load(state);
        }
        // The same content, but read from a checkpoint by now: holding on to the old version would keep its pages in
        // memory for good.
        if !self.committed_heap.pages.is_same_version(&state.heap.pages) {
            self.committed_heap.pages = state.heap.pages.clone();
            if let Some(cold) = &mut self.cold {
                cold.set_source(state.heap.pages.clone());
            }
        }
        Ok(())
    }

    fn load(&mut self, state: &ExecutionState) -> wasmtime::Result<()> {
        self.grow_heap(state)?;
        if let Some(faults) = &mut self.faults
            && !faults.open()
        {
            return Err(wasmtime::Error::msg("the heap cannot be made writable"));
        }
        if let Some(heap) = self.store.data().exports.heap {
            let memory = heap.data_mut(&mut self.store);
            let cold = self.cold.as_ref();
            state
                .heap
                .pages
                .for_each_change(&self.committed_heap.pages, |index, page| {
                    // No reference to a page that is not there, not even an unused one.
                    if is_present(cold, index)
                        && let Some(target) = page_of(memory, index)
                    {
                        target.copy_from_slice(page.as_deref().unwrap_or(&ZERO_PAGE));
                    }
                });
        }
        if let Some(cold) = &mut self.cold {
            cold.set_source(state.heap.pages.clone());
        }
        self.committed_heap = state.heap.clone();
        self.committed_globals = state.globals.clone();
        self.version = state.warm_version;
        if let (Some(faults), Some(heap)) = (&mut self.faults, self.store.data().exports.heap) {
            faults.protect(heap.data_size(&self.store));
        }
        self.restore_globals()
    }

    /// Puts the message in, in place, sets the counter and empties the stack.
    #[inline]
    pub(crate) fn begin(
        &mut self,
        message: MessageState,
        meter: Meter,
        stable: StableMemory,
        recorder: Option<Box<Recorder>>,
    ) {
        let exports = self.store.data().exports;
        let set = |store: &mut Store<HostState>, global: Global, value| {
            let set = global.set(store, value);
            debug_assert!(set.is_ok(), "the globals of the instrumentation have these types");
        };
        if let Some(global) = exports.counter {
            set(&mut self.store, global, Val::I64(meter.initial_counter()));
        }
        // A function says what is left before it calls another one, and nobody takes that back at the end. Reading costs half
        // of writing.
        if let Some(global) = exports.stack
            && global.get(&mut self.store).i32() != Some(STACK_BYTES as i32)
        {
            set(&mut self.store, global, Val::I32(STACK_BYTES as i32));
        }
        self.messages += 1;
        let state = self.store.data_mut();
        state.slices = 1;
        state.running = Some(Running {
            message,
            meter,
            stable,
            failure: None,
            failed_function: None,
            counter_at_failure: None,
            recorder,
        });
    }

    /// Slices of the message that ended last.
    pub(crate) fn slices(&self) -> u32 {
        self.store.data().slices
    }

    /// True where the instance serves the state as it is, on code that nothing better replaces. False for one message in
    /// [`MESSAGES_PER_LOOK_UP`], so that the module counts as used where modules are kept.
    pub(crate) fn is_ready_for(&self, state: &ExecutionState) -> bool {
        self.holds(state.warm_version)
            && self.can_hold(state)
            && self.compiled.tier == Tier::Optimised
            && !self.messages.is_multiple_of(MESSAGES_PER_LOOK_UP)
    }

    /// The function exported as `prefix` and `name` together, if there is one of type `() -> ()`.
    pub(crate) fn export(&mut self, prefix: &'static str, name: &str) -> Option<Entry> {
        let (last_prefix, last_name, last) = &self.last_export;
        if **last_name == *name && *last_prefix == prefix && *last < self.functions.len() {
            return Some(Entry::Export(*last));
        }
        let position = self.export_position(prefix, name)?;
        self.last_export = (prefix, name.into(), position);
        Some(Entry::Export(position))
    }

    fn export_position(&mut self, prefix: &'static str, name: &str) -> Option<usize> {
        let known = self.positions.iter().find(|(known, _)| *known == prefix);
        if let Some(position) = known.and_then(|(_, names)| names.get(name)) {
            return Some(*position);
        }
        let export = format!("{prefix}{name}");
        let function = self.instance.get_typed_func::<(), ()>(&mut self.store, &export).ok()?;
        let position = self.functions.len();
        self.functions.push(function);
        match self.positions.iter_mut().find(|(known, _)| *known == prefix) {
            Some((_, names)) => {
                names.insert(name.into(), position);
            }
            None => self.positions.push((prefix, BTreeMap::from([(name.into(), position)]))),
        }
        Some(position)
    }

    /// The function that a closure names.
    ///
    /// # Errors
    /// As published for callbacks that cannot run.
    pub(crate) fn closure(&mut self, closure: WasmClosure) -> Result<Entry, Failure> {
        let not_found = Failure::FunctionNotFound(closure.function);
        let Some(element) = self
            .table
            .and_then(|table| table.get(&mut self.store, closure.function))
        else {
            return Err(not_found);
        };
        let Ref::Func(Some(function)) = element else {
            return Err(Failure::contract("unexpected null function reference"));
        };
        let entry = match self.compiled.interface.width {
            WasmWidth::Wasm32 => function
                .typed::<u32, ()>(&self.store)
                .map(|function| Entry::Closure32(function, closure.environment as u32)),
            WasmWidth::Wasm64 => function
                .typed::<u64, ()>(&self.store)
                .map(|function| Entry::Closure64(function, closure.environment)),
        };
        entry.map_err(|_| Failure::contract("function invocation does not match its signature"))
    }

    /// Runs the message to its end, over all its slices.
    pub(crate) async fn run(&mut self, entry: Entry) -> wasmtime::Result<()> {
        let Some(stack) = self.stack.take() else {
            return self.call(entry).await;
        };
        // The Wasm engine asks for the stack when the call is polled for the first time, and keeps it.
        let mut call = std::pin::pin!(self.call(entry));
        let mut stack = Some(stack);
        poll_fn(|context| match stack.take() {
            Some(stack) => address_space::on_stack(stack, || call.as_mut().poll(context)),
            None => call.as_mut().poll(context),
        })
        .await
    }

    async fn call(&mut self, entry: Entry) -> wasmtime::Result<()> {
        match entry {
            Entry::Export(position) => self.functions[position].call_async(&mut self.store, ()).await,
            Entry::Closure32(function, environment) => function.call_async(&mut self.store, environment).await,
            Entry::Closure64(function, environment) => function.call_async(&mut self.store, environment).await,
        }
    }

    /// Instructions that the message has used, which has come to its end.
    pub(crate) fn instructions_executed(&mut self) -> u64 {
        let counter = match self.store.data().exports.counter {
            Some(global) => global.get(&mut self.store).i64().unwrap_or(0),
            None => 0,
        };
        let running = self.running();
        running.meter.executed(running.counter_at_failure.unwrap_or(counter))
    }

    /// The message that has come to its end, until [`Instance::end`].
    pub(crate) fn running(&mut self) -> &mut Running {
        let running = &mut self.store.data_mut().running;
        running.as_mut().expect("a message that ends has begun")
    }

    /// True where the message ended because the host refused something, and not by what it did: then nothing of it counts.
    pub(crate) fn was_refused(&mut self, error: &wasmtime::Error) -> bool {
        let page_was_refused = self.cold.as_ref().is_some_and(ColdHeap::was_refused)
            || self.faults.as_ref().is_some_and(WriteFaults::was_refused);
        self.running().failure.is_none() && (page_was_refused || error.downcast_ref::<Trap>().is_none())
    }

    /// The message that has come to its end, taken out.
    pub(crate) fn take_running(&mut self) -> Running {
        let running = self.store.data_mut().running.take();
        running.expect("a message that ends has begun")
    }

    /// Drops what is left of the message.
    pub(crate) fn end(&mut self) {
        self.store.data_mut().running = None;
    }

    /// True where committing would make another state than the one before.
    pub(crate) fn has_changed(&mut self, changes: &HeapChanges) -> bool {
        !changes.pages.is_empty()
            || self.heap_wasm_pages() != self.committed_heap.size_wasm_pages
            || self.globals_have_changed()
    }

    fn heap_wasm_pages(&self) -> u64 {
        let heap = self.store.data().exports.heap;
        heap.map_or(self.committed_heap.size_wasm_pages, |heap| heap.size(&self.store))
    }

    /// Reads and clears which pages the code loaded from, where it was compiled to say so.
    pub(crate) fn take_pages_read(&mut self) -> Vec<u64> {
        let exports = self.store.data().exports;
        let (Some(heap), Some(reads)) = (exports.heap, exports.reads) else {
            return Vec::new();
        };
        let pages = heap.data_size(&self.store) / OS_PAGE_BYTES;
        let reads = reads.data_mut(&mut self.store).iter_mut().take(pages).enumerate();
        reads
            .filter_map(|(page, read)| (std::mem::take(read) != 0).then_some(page as u64))
            .collect()
    }

    /// Keeps a message that changed nothing here: state and version stay.
    pub(crate) fn keep(&mut self) {
        self.protect_written();
    }

    /// Makes the changes the committed state, under a new version, and `state` what heap and globals are now.
    pub(crate) fn commit(&mut self, changes: &HeapChanges, version: u64, state: &mut ExecutionState) {
        if let Some(heap) = self.store.data().exports.heap {
            self.committed_heap.size_wasm_pages = heap.size(&self.store);
            if !changes.pages.is_empty() {
                let memory = heap.data(&self.store);
                let mut delta = PageDelta::default();
                let pages = changes.pages.iter();
                delta.extend(pages.filter_map(|&index| Some((index, page_at(memory, index)?))));
                // Where nobody else holds the version before, no snapshot and no query, its nodes change in place.
                state.heap.pages = PageMap::default();
                if let Some(cold) = &mut self.cold {
                    cold.set_source(PageMap::default());
                }
                self.committed_heap.pages.apply(delta);
                if let Some(cold) = &mut self.cold {
                    // The same for pages that are not in.
                    cold.set_source(self.committed_heap.pages.clone());
                }
            }
        }
        self.protect_written();
        self.read_globals();
        self.version = version;
        state.heap = self.committed_heap.clone();
        state.globals = self.committed_globals.clone();
        state.warm_version = version;
    }

    /// Undoes the message. False where that is impossible, because the heap grew: the instance must be dropped.
    pub(crate) fn roll_back(&mut self, changes: &HeapChanges) -> bool {
        if let Some(heap) = self.store.data().exports.heap {
            if heap.size(&self.store) != self.committed_heap.size_wasm_pages {
                return false;
            }
            let memory = heap.data_mut(&mut self.store);
            for &index in &changes.pages {
                if let Some(target) = page_of(memory, index) {
                    let committed = self.committed_heap.pages.get(index);
                    target.copy_from_slice(committed.as_deref().unwrap_or(&ZERO_PAGE));
                }
            }
        }
        self.protect_written();
        self.restore_globals().is_ok()
    }

    fn globals_have_changed(&mut self) -> bool {
        let mut globals = self.globals.iter().zip(self.committed_globals.iter());
        globals.any(|(global, committed)| value_of(global.get(&mut self.store)) != Some(*committed))
    }

    fn read_globals(&mut self) {
        if self.globals_have_changed() {
            let globals = self.globals.iter();
            self.committed_globals = globals
                .filter_map(|global| value_of(global.get(&mut self.store)))
                .collect();
        }
    }

    fn restore_globals(&mut self) -> wasmtime::Result<()> {
        if !self.globals_have_changed() {
            return Ok(());
        }
        for (global, value) in self.globals.iter().zip(self.committed_globals.iter()) {
            let value = match *value {
                GlobalValue::I32(value) => Val::I32(value),
                GlobalValue::I64(value) => Val::I64(value),
                GlobalValue::F32(bits) => Val::F32(bits),
                GlobalValue::F64(bits) => Val::F64(bits),
                GlobalValue::V128(bits) => Val::V128(bits.into()),
            };
            global.set(&mut self.store, value)?;
        }
        Ok(())
    }
}

/// True where the page may be touched outside of a message.
fn is_present(cold: Option<&ColdHeap>, index: PageIndex) -> bool {
    cold.is_none_or(|cold| cold.is_present(index))
}

fn value_of(value: Val) -> Option<GlobalValue> {
    Some(match value {
        Val::I32(value) => GlobalValue::I32(value),
        Val::I64(value) => GlobalValue::I64(value),
        Val::F32(bits) => GlobalValue::F32(bits),
        Val::F64(bits) => GlobalValue::F64(bits),
        Val::V128(bits) => GlobalValue::V128(bits.into()),
        _ => return None,
    })
}

fn page_at(memory: &[u8], index: PageIndex) -> Option<&Page> {
    let start = usize::try_from(index.0).ok()?.checked_mul(OS_PAGE_BYTES)?;
    memory.get(start..start.checked_add(OS_PAGE_BYTES)?)?.try_into().ok()
}

fn page_of(memory: &mut [u8], index: PageIndex) -> Option<&mut Page> {
    let start = usize::try_from(index.0).ok()?.checked_mul(OS_PAGE_BYTES)?;
    memory
        .get_mut(start..start.checked_add(OS_PAGE_BYTES)?)?
        .try_into()
        .ok()
}

/// The result of a future that never waits: instantiation and growth are asynchronous in form only.
fn ready<T>(future: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
    let mut future = std::pin::pin!(future);
    match future
        .as_mut()
        .poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    {
        std::task::Poll::Ready(result) => result,
        std::task::Poll::Pending => Err(wasmtime::Error::msg("the Wasm engine waited where it must not")),
    }
}
