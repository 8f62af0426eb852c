//! The two compilers, and what they need around them.
//!
//! The baseline compiler is ten times faster than the optimising one and its code two times slower. Which of them made
//! the code can be seen by no canister: charges, marks, the stack rule and canonical NaNs are in the Wasm that each
//! compiles, which differs in nothing but where the counter is kept and what is done for tight loops.

use super::address_space::{AddressSpace, Mappings};
use super::disk_cache::DiskCache;
use super::host;
use crate::module::{CodeStyle, MACHINE_FACTOR, MACHINE_RESERVE_BYTES, STACK_BYTES, WriteTracking};
use crate::system_api::{self, HostState};
use crate::trap::BACKTRACE_FRAMES_MAX;
use replicore_types::fees::WasmWidth;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use wasmtime::{Config, Linker, MemoryCreator, OptLevel, Strategy};

/// Frames collected from the engine: those that are shown, and those of helpers, which stand innermost and are left out.
const FRAMES_COLLECTED: NonZeroUsize = NonZeroUsize::new(BACKTRACE_FRAMES_MAX + 4).unwrap();
/// Memory is reserved as address space for the largest heap, so that a heap never moves and 32-bit addresses need no
/// bounds checks.
const HEAP_RESERVATION_BYTES: u64 = replicore_types::limits::WASM64_HEAP_BYTES_MAX;
/// Address space for the stack of Wasm code: more than any code needs that the stack rule lets run, so that the rule
/// and not the machine decides. Only what is touched takes memory.
const MACHINE_STACK_BYTES: usize = STACK_BYTES as usize * MACHINE_FACTOR + MACHINE_RESERVE_BYTES;
/// Stack for host functions below the Wasm code's.
const HOST_STACK_BYTES: usize = 1024 * 1024;

/// Which compilers make the code of modules. No result depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tiers {
    /// The baseline compiler for the first message, the optimising one in the background for those that follow.
    #[default]
    Both,
    /// The optimising compiler alone: the first message waits for it.
    Optimised,
    /// The baseline compiler alone, but for modules that it cannot compile.
    Baseline,
}

/// What made a module's code; better code is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    Baseline,
    Optimised,
}

impl Tier {
    /// What its compiler is given.
    pub(crate) fn code_style(self) -> CodeStyle {
        match self {
            Self::Baseline => CodeStyle::Short,
            Self::Optimised => CodeStyle::Fast,
        }
    }

    fn config(self, mappings: &Arc<Mappings>) -> Config {
        let stack_bytes = MACHINE_STACK_BYTES + HOST_STACK_BYTES;
        let space = Arc::new(AddressSpace {
            mappings: Arc::clone(mappings),
            stack_bytes,
        });
        let mut config = Config::new();
        config
            .wasm_multi_memory(true)
            .wasm_memory64(true)
            .wasm_bulk_memory(true)
            .wasm_simd(true)
            .wasm_relaxed_simd(false)
            .memory_reservation(HEAP_RESERVATION_BYTES)
            .memory_may_move(false)
            // Heaps begin empty: what a module puts there is part of the canister's state.
            .memory_init_cow(false)
            .with_host_memory(Arc::clone(&space) as Arc<dyn MemoryCreator>)
            .with_host_stack(space)
            .wasm_backtrace_max_frames(Some(FRAMES_COLLECTED))
            // Backtraces show functions; looking up positions would be half the cost of a trap.
            .generate_address_map(false)
            // Stacks are walked by frame pointers, and no panic passes through Wasm code.
            .native_unwind_info(false)
            .max_wasm_stack(MACHINE_STACK_BYTES)
            .async_stack_size(stack_bytes);
        match self {
            Self::Baseline => config.strategy(Strategy::Winch),
            Self::Optimised => config
                .strategy(Strategy::Cranelift)
                .wasm_tail_call(true)
                .wasm_branch_hinting(true)
                .cranelift_opt_level(OptLevel::Speed),
        };
        config
    }
}

/// One compiler with its engine: code runs in the engine that it was compiled for.
pub(super) struct TierEngine {
    pub tier: Tier,
    pub engine: wasmtime::Engine,
    pub tracking: WriteTracking,
    linkers: [Linker<HostState>; 2],
    pub disk: Option<DiskCache>,
}

impl TierEngine {
    pub fn new(
        tier: Tier,
        tracking: WriteTracking,
        folder: Option<PathBuf>,
        mappings: &Arc<Mappings>,
    ) -> wasmtime::Result<Self> {
        let engine = wasmtime::Engine::new(&tier.config(mappings))?;
        let linker = |width| -> wasmtime::Result<Linker<HostState>> {
            let mut linker = Linker::new(&engine);
            system_api::link(&mut linker, width)?;
            host::link(&mut linker)?;
            Ok(linker)
        };
        Ok(Self {
            tier,
            tracking,
            linkers: [linker(WasmWidth::Wasm32)?, linker(WasmWidth::Wasm64)?],
            disk: folder.map(|folder| DiskCache::new(folder, &engine, tracking)),
            engine,
        })
    }

    pub fn linker(&self, width: WasmWidth) -> &Linker<HostState> {
        match width {
            WasmWidth::Wasm32 => &self.linkers[0],
            WasmWidth::Wasm64 => &self.linkers[1],
        }
    }
}
