//! Messages in plain wasmtime, as services use it that give every request an instance of its own.
//!
//! Nothing is kept between messages there: no heap, no globals. What the engine adds (metering, marks, memory that lasts,
//! rollback, cycles) these do not do; they are the floor and the usual designs to be measured against.

use crate::BenchError;
use crate::engine_canister::module;
use crate::measure::seconds;
use std::future::Future;
use std::task::{Context, Poll, Waker};
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, PoolingAllocationConfig, Store, TypedFunc,
};

/// Memory that a slot of the pool has at most: that of the largest canister here.
const HEAP_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Slots of the pool.
const SLOTS: u32 = 16;
/// Fuel of a message: more than any uses.
const FUEL: u64 = 1 << 40;
/// Fuel of a message that is to run out of it at once.
const FUEL_SCARCE: u64 = 10;

/// Where instances come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instances {
    /// One for all messages, as with a warm canister.
    Kept,
    /// The same, on a stack of its own that can be left and come back to, as slices need it.
    KeptSuspendable,
    /// One for all messages, bounded by fuel: what a message that runs out of instructions has.
    KeptFuel,
    /// One for each, mapped and unmapped.
    Each,
    /// One for each out of a pool, whose memory is reset.
    Pooled,
    /// The same, bounded by fuel and epochs.
    PooledBounded,
}

/// The settings of a wasmtime that takes its instances out of a pool.
pub(crate) fn pooling() -> Config {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_core_instances(SLOTS)
        .total_memories(SLOTS)
        .total_tables(SLOTS)
        .max_memory_size(HEAP_BYTES_MAX);
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// What host functions of a message see.
#[derive(Default)]
struct Host {
    argument: u64,
    replied: bool,
}

/// The canister of the engine's measurements in plain wasmtime.
pub(crate) struct Messages {
    instances: Instances,
    engine: Engine,
    module: InstancePre<Host>,
    argument: u64,
}

impl Messages {
    /// With a heap of so many Wasm pages.
    ///
    /// # Errors
    /// Where wasmtime refuses the settings or the module.
    pub(crate) fn new(instances: Instances, heap_wasm_pages: u64) -> Result<Self, BenchError> {
        let mut config = match instances {
            Instances::Pooled | Instances::PooledBounded => pooling(),
            Instances::Kept | Instances::KeptSuspendable | Instances::KeptFuel | Instances::Each => Config::new(),
        };
        let is_bounded = instances == Instances::PooledBounded;
        config.consume_fuel(is_bounded || instances == Instances::KeptFuel);
        config.epoch_interruption(is_bounded);
        let engine = Engine::new(&config).map_err(BenchError::new)?;
        let wasm = wat::parse_str(module(heap_wasm_pages)).map_err(BenchError::new)?;
        let module = Module::new(&engine, &wasm).map_err(BenchError::new)?;
        let module = linker(&engine, &module)
            .and_then(|linker| linker.instantiate_pre(&module))
            .map_err(BenchError::new)?;
        Ok(Self {
            instances,
            engine,
            module,
            argument: 0,
        })
    }

    /// Microseconds of one message, as the mean of `messages` ones, all of which reply.
    ///
    /// # Errors
    /// One does not.
    pub(crate) fn microseconds(&mut self, method: &str, messages: u64) -> Result<f64, BenchError> {
        let name = format!("canister_update {method}");
        let (elapsed, result) = seconds(|| match self.instances {
            Instances::Each | Instances::Pooled | Instances::PooledBounded => {
                (0..messages).try_for_each(|_| self.on_an_instance(&name))
            }
            _ => self.on_one_instance(&name, messages, true),
        });
        result.map_err(BenchError::new)?;
        Ok(elapsed / messages as f64 * 1e6)
    }

    /// The same for messages on one instance that all end in a trap.
    ///
    /// # Errors
    /// One does not.
    pub(crate) fn trap_microseconds(&mut self, method: &str, messages: u64) -> Result<f64, BenchError> {
        let name = format!("canister_update {method}");
        let (elapsed, result) = seconds(|| self.on_one_instance(&name, messages, false));
        result.map_err(BenchError::new)?;
        Ok(elapsed / messages as f64 * 1e6)
    }

    fn on_an_instance(&mut self, name: &str) -> wasmtime::Result<()> {
        self.argument = crate::engine_canister::mixed(self.argument);
        let mut store = self.store()?;
        let instance = self.module.instantiate(&mut store)?;
        let function: TypedFunc<(), ()> = instance.get_typed_func(&mut store, name)?;
        function.call(&mut store, ())?;
        replied(&store)
    }

    fn on_one_instance(&mut self, name: &str, messages: u64, ends_well: bool) -> wasmtime::Result<()> {
        let mut store = self.store()?;
        let instance = self.module.instantiate(&mut store)?;
        let function: TypedFunc<(), ()> = instance.get_typed_func(&mut store, name)?;
        for _ in 0..messages {
            self.argument = crate::engine_canister::mixed(self.argument);
            *store.data_mut() = Host {
                argument: self.argument,
                replied: false,
            };
            if self.instances == Instances::KeptFuel {
                store.set_fuel(if ends_well { FUEL } else { FUEL_SCARCE })?;
            }
            let result = match self.instances {
                Instances::KeptSuspendable => at_once(function.call_async(&mut store, ())),
                _ => function.call(&mut store, ()),
            };
            match result {
                Ok(()) if ends_well => replied(&store)?,
                Ok(()) => return Err(wasmtime::Error::msg("the message did not trap")),
                Err(error) if ends_well => return Err(error),
                Err(error) => drop(std::hint::black_box(error)),
            }
        }
        Ok(())
    }

    fn store(&self) -> wasmtime::Result<Store<Host>> {
        let host = Host {
            argument: self.argument,
            replied: false,
        };
        let mut store = Store::new(&self.engine, host);
        match self.instances {
            Instances::PooledBounded => {
                store.set_fuel(FUEL)?;
                store.set_epoch_deadline(1);
            }
            Instances::KeptFuel => store.set_fuel(FUEL)?,
            _ => {}
        }
        Ok(store)
    }
}

/// The result of a call that nothing suspends.
fn at_once<T>(call: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
    match std::pin::pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(wasmtime::Error::msg("the call was suspended")),
    }
}

fn replied(store: &Store<Host>) -> wasmtime::Result<()> {
    match store.data().replied {
        true => Ok(()),
        false => Err(wasmtime::Error::msg("the message did not reply")),
    }
}

/// The functions that the measured methods import; others trap.
fn linker(engine: &Engine, module: &Module) -> wasmtime::Result<Linker<Host>> {
    let mut linker: Linker<Host> = Linker::new(engine);
    linker.func_wrap("ic0", "msg_reply", |mut caller: wasmtime::Caller<'_, Host>| {
        caller.data_mut().replied = true;
    })?;
    linker.func_wrap("ic0", "trap", |_: u32, _: u32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg("the canister trapped"))
    })?;
    linker.func_wrap("ic0", "msg_reply_data_append", |_: u32, _: u32| {})?;
    linker.func_wrap(
        "ic0",
        "msg_arg_data_copy",
        |mut caller: wasmtime::Caller<'_, Host>, to: u32, _: u32, bytes: u32| -> wasmtime::Result<()> {
            let argument = caller.data().argument.to_le_bytes();
            let memory = caller.get_export("memory").and_then(wasmtime::Extern::into_memory);
            let memory = memory.ok_or_else(|| wasmtime::Error::msg("no memory"))?;
            memory.write(
                &mut caller,
                to as usize,
                &argument[..argument.len().min(bytes as usize)],
            )?;
            Ok(())
        },
    )?;
    linker.define_unknown_imports_as_traps(module)?;
    Ok(linker)
}
