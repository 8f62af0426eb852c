//! The host functions that instrumented code calls besides the System API.

use crate::module::symbols;
use crate::profile::Recorder;
use crate::system_api::{Host, HostState, try_grow_heap};
use crate::trap::{Failure, TrapCode};
use replicore_types::limits::{WASM32_HEAP_BYTES_MAX, WASM64_HEAP_BYTES_MAX};
use replicore_types::{OS_PAGE_BYTES, WASM_PAGE_BYTES, fees::WasmWidth};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use wasmtime::{AsContext, Caller, Linker};

/// Defines them.
pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker.func_wrap_async(
        symbols::HOST_MODULE,
        symbols::OUT_OF_INSTRUCTIONS,
        |mut caller: Caller<'_, HostState>, (counter,): (i64,)| {
            Box::new(async move {
                let counter = open_slice(&mut caller, counter)?;
                PauseOnce::default().await;
                Ok::<i64, wasmtime::Error>(counter)
            })
        },
    )?;
    linker.func_wrap(
        symbols::HOST_MODULE,
        symbols::STACK_OVERFLOW,
        |mut caller: Caller<'_, HostState>| -> wasmtime::Result<()> {
            Err(Host::new(&mut caller).fail(Failure::Trapped(TrapCode::StackOverflow)))
        },
    )?;
    linker.func_wrap(
        symbols::HOST_MODULE,
        symbols::TRY_GROW_MEMORY,
        |mut caller: Caller<'_, HostState>, current: i64, additional: i64| -> wasmtime::Result<i32> {
            let (current, additional) = (current as u64, additional as u64);
            if exceeds_maximum(&caller, current, additional) {
                return Ok(0);
            }
            let mut host = Host::new(&mut caller);
            match try_grow_heap(&mut host, current, additional) {
                Ok(()) => Ok(1),
                Err(failure) => Err(host.fail(failure)),
            }
        },
    )?;
    linker.func_wrap(
        symbols::HOST_MODULE,
        symbols::CHARGE_SYSTEM_CALL,
        |mut caller: Caller<'_, HostState>, fixed: u64, per_byte: u64, first: u64, second: u64| {
            let mut host = Host::new(&mut caller);
            let bytes = first.saturating_add(second);
            let fee = fixed.saturating_add(bytes.saturating_mul(per_byte));
            host.charge(fee).map_err(|failure| host.fail(failure))
        },
    )?;
    link_events(linker)
}

/// What profiled modules report.
fn link_events(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker.func_wrap(
        symbols::HOST_MODULE,
        symbols::ENTER,
        |mut caller: Caller<'_, HostState>, function: u32| {
            record(&mut caller, |recorder, executed| recorder.enter(function, executed));
        },
    )?;
    linker.func_wrap(
        symbols::HOST_MODULE,
        symbols::LEAVE,
        |mut caller: Caller<'_, HostState>| record(&mut caller, Recorder::leave),
    )?;
    linker.func_wrap(
        symbols::HOST_MODULE,
        symbols::READ,
        |mut caller: Caller<'_, HostState>, address: u64, size: u64| {
            let heap_bytes = Host::new(&mut caller).heap_bytes();
            // What is out of bounds traps in a moment, without having read.
            if size > 0 && address.checked_add(size).is_some_and(|end| end <= heap_bytes) {
                let page = |address: u64| address / OS_PAGE_BYTES as u64;
                record(&mut caller, |recorder, _| {
                    recorder.read(page(address), page(address + size - 1));
                });
            }
        },
    )?;
    Ok(())
}

/// Passes an event on, with the instructions executed until then.
fn record(caller: &mut Caller<'_, HostState>, event: impl FnOnce(&mut Recorder, u64)) {
    let mut host = Host::new(caller);
    let executed = host.instructions_executed();
    if let Some(recorder) = &mut host.running().recorder {
        event(recorder, executed);
    }
}

fn open_slice(caller: &mut Caller<'_, HostState>, counter: i64) -> wasmtime::Result<i64> {
    let mut host = Host::new(caller);
    let running = host.running();
    let executed = running.meter.executed(counter);
    match running.meter.out_of_instructions(counter) {
        Ok(counter) => {
            caller.data_mut().pause(executed);
            Ok(counter)
        }
        Err(failure) => {
            running.counter_at_failure = Some(counter);
            Err(host.fail(failure))
        }
    }
}

fn exceeds_maximum(caller: &Caller<'_, HostState>, current: u64, additional: u64) -> bool {
    let state = caller.data();
    let width = state
        .running
        .as_ref()
        .map_or(WasmWidth::Wasm32, |running| running.message.width);
    let bound = match width {
        WasmWidth::Wasm32 => WASM32_HEAP_BYTES_MAX,
        WasmWidth::Wasm64 => WASM64_HEAP_BYTES_MAX,
    } / WASM_PAGE_BYTES as u64;
    let declared = state
        .exports
        .heap
        .and_then(|heap| heap.ty(caller.as_context()).maximum());
    let maximum = declared.map_or(bound, |declared| declared.min(bound));
    current.checked_add(additional).is_none_or(|pages| pages > maximum)
}

/// Suspends the execution once.
#[derive(Default)]
struct PauseOnce {
    paused: bool,
}

impl Future for PauseOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.paused, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
