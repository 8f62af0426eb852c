//! The System API: the functions of module `ic0`, one family a file, and the state that they work on.
//!
//! A call from Wasm enters through `Host::enter`: check the mode, run the function, remember a failure. Its price was
//! paid by the instrumented code; functions charge only for what they alone know. They see pointers as `u64` in both
//! widths; `table` does the conversion.

mod call;
mod certified_data;
mod context;
mod costs;
mod cycles;
mod environment;
mod info;
mod log;
mod memory;
mod message;
mod message_state;
mod stable;
mod table;

pub use context::{Contexts, Mode};
pub use table::{FUNCTIONS, Function};

pub(crate) use log::trap_record;
pub(crate) use memory::try_grow_heap;
pub(crate) use message_state::MessageState;
pub(crate) use table::link;

use crate::meter::Meter;
use crate::profile::Recorder;
use crate::stable_memory::StableMemory;
use crate::trap::Failure;
use replicore_types::NumInstructions;
use std::cell::Cell;
use std::sync::LazyLock;
use wasmtime::{AsContextMut, Caller, Config, Global, Memory, ResourceLimiter, Store, Val, WasmBacktrace};

/// What an instance's store holds beside the Wasm state.
pub(crate) struct HostState {
    /// The instance's exports that System API functions need.
    pub(crate) exports: Exports,
    /// The message that runs, in place: it is read by every host function. `None` between messages.
    pub(crate) running: Option<Running>,
    /// Slices of the message that were begun.
    pub(crate) slices: u32,
    /// True where the module names functions: others have no backtraces to show.
    pub(crate) has_function_names: bool,
    /// Watches the growth of memories.
    pub(crate) growth: Growth,
}

/// Ends the execution where the host has no memory for a growth that the code was allowed: a `memory.grow` that answers
/// -1 would make what the host has part of the result.
pub(crate) struct Growth;

impl ResourceLimiter for Growth {
    fn memory_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        Err(error)
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }
}

/// Exports of an instance, looked up once.
#[derive(Clone, Copy, Default)]
pub(crate) struct Exports {
    pub(crate) heap: Option<Memory>,
    pub(crate) marks: Option<Memory>,
    pub(crate) counter: Option<Global>,
    /// Which pages were read, where the module is profiled.
    pub(crate) reads: Option<Memory>,
    pub(crate) stack: Option<Global>,
}

/// One message in execution.
pub(crate) struct Running {
    pub(crate) message: MessageState,
    pub(crate) meter: Meter,
    pub(crate) stable: StableMemory,
    /// Why a host function ended the execution.
    pub(crate) failure: Option<Failure>,
    /// The System API function that did.
    pub(crate) failed_function: Option<&'static str>,
    /// The counter that was passed to the failing check, where the code had not stored it.
    pub(crate) counter_at_failure: Option<i64>,
    /// Events of the message, where it is profiled.
    pub(crate) recorder: Option<Box<Recorder>>,
}

thread_local! {
    /// Instructions used by the message that was the last to pause on this thread.
    static PAUSED_AT: Cell<u64> = const { Cell::new(0) };
}

impl HostState {
    /// Notes that the message is about to pause: whoever runs it learns how far it is from [`paused_at`].
    pub(crate) fn pause(&mut self, executed: u64) {
        PAUSED_AT.set(executed);
        self.slices += 1;
    }
}

/// Instructions used by the message that has just paused on this thread. Its instance is out of reach until it goes on.
pub(crate) fn paused_at() -> NumInstructions {
    NumInstructions(PAUSED_AT.get())
}

/// What ends the Wasm code after a host function failed; the reason is in [`Running::failure`].
#[derive(Debug)]
pub(crate) struct HostFailure;

impl std::fmt::Display for HostFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a System API function ended the execution")
    }
}

impl std::error::Error for HostFailure {}

/// Where backtraces are switched off. The Wasm engine collects a backtrace for every error that carries none yet, which
/// costs more than all the rest of a failure; an empty one from here keeps it from doing so where nobody reads it.
static NO_BACKTRACE: LazyLock<Option<Store<()>>> = LazyLock::new(|| {
    let mut config = Config::new();
    config.wasm_backtrace_max_frames(None);
    let engine = wasmtime::Engine::new(&config).ok()?;
    Some(Store::new(&engine, ()))
});

/// A System API function's view of the instance that called it.
pub(crate) struct Host<'a, 'c> {
    caller: &'a mut Caller<'c, HostState>,
}

impl<'a, 'c> Host<'a, 'c> {
    pub(crate) fn new(caller: &'a mut Caller<'c, HostState>) -> Self {
        Self { caller }
    }

    /// Runs a System API function: checks the mode, and turns a failure into the end of the execution.
    #[inline]
    pub(crate) fn enter(
        caller: &'a mut Caller<'c, HostState>,
        name: &'static str,
        contexts: Contexts,
        function: impl FnOnce(&mut Host<'_, '_>) -> Result<u64, Failure>,
    ) -> wasmtime::Result<u64> {
        let mut host = Host { caller };
        let result = if contexts.contains(host.message().mode) {
            function(&mut host)
        } else {
            Err(host.wrong_mode(name))
        };
        result.map_err(|failure| host.fail_in(name, failure))
    }

    #[cold]
    fn fail_in(&mut self, name: &'static str, failure: Failure) -> wasmtime::Error {
        self.running().failed_function = Some(name);
        self.fail(failure)
    }

    /// Remembers why the execution ends, and makes the error that ends it.
    pub(crate) fn fail(&mut self, failure: Failure) -> wasmtime::Error {
        let state = self.caller.data_mut();
        let shows_backtrace = failure.is_logged() && state.has_function_names;
        if let Some(running) = &mut state.running {
            running.failure = Some(failure);
        }
        let error = wasmtime::Error::new(HostFailure);
        match &*NO_BACKTRACE {
            Some(store) if !shows_backtrace => error.context(WasmBacktrace::capture(store)),
            _ => error,
        }
    }

    /// The message in execution.
    #[inline]
    pub(crate) fn message(&mut self) -> &mut MessageState {
        &mut self.running().message
    }

    #[inline]
    pub(crate) fn running(&mut self) -> &mut Running {
        self.caller
            .data_mut()
            .running
            .as_mut()
            .expect("host functions are called by a running message only")
    }

    /// Takes instructions off the counter.
    pub(crate) fn charge(&mut self, instructions: u64) -> Result<(), Failure> {
        if instructions == 0 {
            return Ok(());
        }
        let counter = self.counter();
        match self.running().meter.charge(counter, instructions) {
            Ok(counter) => {
                self.set_counter(counter);
                Ok(())
            }
            Err((failure, counter)) => {
                self.set_counter(counter);
                Err(failure)
            }
        }
    }

    /// Instructions that the message has used.
    pub(crate) fn instructions_executed(&mut self) -> u64 {
        let counter = self.counter();
        self.running().meter.executed(counter)
    }

    /// The bytes `src..src + size` of the heap. `what` names them in the error text.
    pub(crate) fn read_heap(&mut self, what: &str, src: u64, size: u64) -> Result<Vec<u8>, Failure> {
        self.with_heap(what, src, size, |bytes, _| bytes.to_vec())
    }

    /// Fails where the module has no memory: what reads from one cannot be called at all then.
    pub(crate) fn check_heap_exists(&mut self) -> Result<(), Failure> {
        self.heap_and_running().map(|_| ())
    }

    /// Lets `use_bytes` see `src..src + size` of the heap together with the running message.
    pub(crate) fn with_heap<T>(
        &mut self,
        what: &str,
        src: u64,
        size: u64,
        use_bytes: impl FnOnce(&[u8], &mut Running) -> T,
    ) -> Result<T, Failure> {
        let (heap, running) = self.heap_and_running()?;
        let range = subslice(what, src, size, heap.len())?;
        Ok(use_bytes(&heap[range], running))
    }

    /// Writes `bytes` to the heap at `dst` and marks the pages. `what` names the target in the error text.
    pub(crate) fn write_heap(&mut self, what: &str, dst: u64, bytes: &[u8]) -> Result<(), Failure> {
        self.write_heap_with(what, dst, bytes.len() as u64, |target, _| target.copy_from_slice(bytes))
    }

    /// Lets `fill` write `dst..dst + size` of the heap and marks the pages.
    pub(crate) fn write_heap_with(
        &mut self,
        what: &str,
        dst: u64,
        size: u64,
        fill: impl FnOnce(&mut [u8], &mut Running),
    ) -> Result<(), Failure> {
        let (heap, running) = self.heap_and_running()?;
        let range = subslice(what, dst, size, heap.len())?;
        fill(&mut heap[range.clone()], running);
        self.mark(range);
        Ok(())
    }

    /// The common shape of the `_copy` functions: `source[offset..offset + size]` to the heap at `dst`.
    ///
    /// `name` is what error texts call the source and, with ` heap`, the target.
    pub(crate) fn copy_out(
        &mut self,
        (source_name, target_name): (&str, &str),
        (dst, offset, size): (u64, u64, u64),
        source: impl FnOnce(&Running) -> &[u8],
    ) -> Result<u64, Failure> {
        let (heap, running) = self.heap_and_running()?;
        let source = source(running);
        let target_range = subslice(target_name, dst, size, heap.len());
        let source_range = subslice(source_name, offset, size, source.len());
        let (target_range, source_range) = (target_range?, source_range?);
        heap[target_range.clone()].copy_from_slice(&source[source_range]);
        self.mark(target_range);
        Ok(0)
    }

    /// Size of the heap in bytes; zero without one.
    pub(crate) fn heap_bytes(&mut self) -> u64 {
        match self.caller.data().exports.heap {
            Some(heap) => heap.data_size(&self.caller) as u64,
            None => 0,
        }
    }

    fn heap_and_running(&mut self) -> Result<(&mut [u8], &mut Running), Failure> {
        let Some(heap) = self.caller.data().exports.heap else {
            return Err(Failure::contract("WebAssembly module must define memory"));
        };
        let (heap, state) = heap.data_and_store_mut(self.caller.as_context_mut());
        Ok((
            heap,
            state
                .running
                .as_mut()
                .expect("host functions are called by a running message only"),
        ))
    }

    fn mark(&mut self, range: std::ops::Range<usize>) {
        if range.is_empty() {
            return;
        }
        let Some(marks) = self.caller.data().exports.marks else {
            return;
        };
        let pages = range.start / replicore_types::OS_PAGE_BYTES..=(range.end - 1) / replicore_types::OS_PAGE_BYTES;
        marks.data_mut(self.caller.as_context_mut())[pages].fill(1);
    }

    /// The failure of a function that may not be called where the message stands.
    #[cold]
    pub(crate) fn wrong_mode(&mut self, name: &'static str) -> Failure {
        let message = self.message();
        table::wrong_mode(name, message.mode.name(&message.entry_point))
    }

    fn counter(&mut self) -> i64 {
        match self.caller.data().exports.counter {
            Some(counter) => counter.get(self.caller.as_context_mut()).i64().unwrap_or(0),
            None => 0,
        }
    }

    fn set_counter(&mut self, value: i64) {
        if let Some(counter) = self.caller.data().exports.counter {
            let written = counter.set(self.caller.as_context_mut(), Val::I64(value));
            debug_assert!(written.is_ok(), "the counter is a mutable i64");
        }
    }
}

/// The checked range of `start..start + length` in something that is `size` bytes long.
pub(crate) fn subslice(what: &str, start: u64, length: u64, size: usize) -> Result<std::ops::Range<usize>, Failure> {
    let Some(end) = start.checked_add(length) else {
        return Err(Failure::contract(format!(
            "{what}: src={start} + length={length} is an invalid address"
        )));
    };
    if end > size as u64 {
        return Err(Failure::contract(format!(
            "{what}: src={start} + length={length} exceeds the slice size={size}"
        )));
    }
    Ok(start as usize..end as usize)
}
