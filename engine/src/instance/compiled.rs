//! Modules as they are executed, and the cache of them.

use crate::module::{self, FunctionNames, HeapLayout, refusal_charge};
use crate::system_api::{self, HostState};
use crate::{CanisterModule, ExecutionState, GlobalValue, ModuleInterface, WasmMemory};
use lru::LruCache;
use parking_lot::Mutex;
use replicore_persistence::{PageDelta, PageIndex};
use replicore_types::fees::WasmWidth;
use replicore_types::{ErrorCode, NumInstructions, OS_PAGE_BYTES, UserError};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use wasmtime::{InstancePre, Linker, Module};

use super::disk_cache::DiskCache;
use super::host;

/// A module ready to be instantiated.
pub(crate) struct Compiled {
    pub(crate) hash: [u8; 32],
    pub(crate) interface: Arc<ModuleInterface>,
    pub(crate) instance_pre: InstancePre<HostState>,
    pub(crate) function_names: FunctionNames,
    /// Memory and mutable globals before any code ran.
    pub(crate) initial_heap: WasmMemory,
    pub(crate) initial_globals: Arc<[GlobalValue]>,
    /// Exports of the mutable globals, in the order of `initial_globals`.
    pub(crate) global_exports: Vec<String>,
    /// An instance must not serve a second message.
    pub(crate) drops_data_segments: bool,
    pub(crate) compile_instructions: NumInstructions,
    pub(crate) compile_instructions_known: NumInstructions,
}

impl Compiled {
    /// The index of an imported System API function that production implements in Wasm: the stable memory functions.
    pub(crate) fn import(&self, name: &str) -> Option<u32> {
        if !name.starts_with("stable") {
            return None;
        }
        let functions = self
            .instance_pre
            .module()
            .imports()
            .filter(|import| import.ty().func().is_some());
        let position = functions
            .enumerate()
            .find(|(_, import)| import.module() == "ic0" && import.name() == name)?
            .0;
        u32::try_from(position).ok()
    }

    /// The state of a canister that has just got the module.
    pub(crate) fn initial_state(&self, module: &CanisterModule, version: u64) -> ExecutionState {
        ExecutionState {
            module: module.clone(),
            interface: self.interface.clone(),
            heap: self.initial_heap.clone(),
            stable: WasmMemory::default(),
            globals: self.initial_globals.clone(),
            warm_version: version,
        }
    }
}

/// Compiles modules and keeps them, in memory by recency and on disk where a folder is given.
///
/// This is where a second compiler tier would stand: the key is the module, and what is found under it may be replaced
/// by better code at any time between messages.
pub(crate) struct ModuleCache {
    engine: wasmtime::Engine,
    linkers: [Linker<HostState>; 2],
    compiled: Mutex<LruCache<[u8; 32], Arc<Compiled>>>,
    disk: Option<DiskCache>,
}

impl ModuleCache {
    pub(crate) fn new(
        engine: wasmtime::Engine,
        modules_max: NonZeroUsize,
        folder: Option<PathBuf>,
    ) -> wasmtime::Result<Self> {
        let linker = |width| -> wasmtime::Result<Linker<HostState>> {
            let mut linker = Linker::new(&engine);
            system_api::link(&mut linker, width)?;
            host::link(&mut linker)?;
            Ok(linker)
        };
        Ok(Self {
            linkers: [linker(WasmWidth::Wasm32)?, linker(WasmWidth::Wasm64)?],
            compiled: Mutex::new(LruCache::new(modules_max)),
            disk: folder.map(|folder| DiskCache::new(folder, &engine)),
            engine,
        })
    }

    /// The executable form of a module, compiled if need be.
    pub(crate) fn get(&self, module: &CanisterModule) -> Result<Arc<Compiled>, (UserError, NumInstructions)> {
        if let Some(compiled) = self.compiled.lock().get(&module.hash) {
            return Ok(compiled.clone());
        }
        let compiled = Arc::new(self.compile(module)?);
        self.compiled.lock().push(module.hash, compiled.clone());
        Ok(compiled)
    }

    fn compile(&self, module: &CanisterModule) -> Result<Compiled, (UserError, NumInstructions)> {
        let refused = |error: UserError| (error, refusal_charge(&module.bytes));
        let wasm = module::decode(&module.bytes).map_err(|error| refused(error.error))?;
        let validated = module::validate(&wasm).map_err(|error| refused(error.error))?;
        let interface = Arc::new(validated.interface().clone());
        let instrumented = module::instrument(&validated).map_err(|error| refused(error.error))?;
        let machine = self.machine_code(module, &instrumented.wasm).map_err(refused)?;
        let linker = match interface.width {
            WasmWidth::Wasm32 => &self.linkers[0],
            WasmWidth::Wasm64 => &self.linkers[1],
        };
        let instance_pre = linker
            .instantiate_pre(&machine)
            .map_err(|error| refused(engine_error(&error)))?;
        Ok(Compiled {
            hash: module.hash,
            instance_pre,
            function_names: instrumented.function_names.clone(),
            initial_heap: initial_heap(instrumented.heap, &instrumented.data_segments),
            initial_globals: instrumented.globals.clone().into(),
            global_exports: instrumented.global_exports.clone(),
            drops_data_segments: instrumented.drops_data_segments,
            compile_instructions: instrumented.compile_charge.full(),
            compile_instructions_known: instrumented.compile_charge.known(),
            interface,
        })
    }

    fn machine_code(&self, module: &CanisterModule, instrumented: &[u8]) -> Result<Module, UserError> {
        if let Some(machine) = self
            .disk
            .as_ref()
            .and_then(|disk| disk.load(&self.engine, &module.hash))
        {
            return Ok(machine);
        }
        let machine = Module::new(&self.engine, instrumented).map_err(|error| engine_error(&error))?;
        if let Some(disk) = &self.disk {
            disk.store(&machine, &module.hash);
        }
        Ok(machine)
    }
}

fn engine_error(error: &wasmtime::Error) -> UserError {
    let mut refused = module::WasmError::engine(format_args!("{error:#}")).error;
    debug_assert_eq!(refused.code, ErrorCode::CanisterWasmEngineError);
    refused.code = ErrorCode::CanisterWasmEngineError;
    refused
}

/// The data segments as pages.
fn initial_heap(layout: Option<HeapLayout>, segments: &[module::DataSegment<'_>]) -> WasmMemory {
    let mut pages: BTreeMap<u64, Box<replicore_persistence::Page>> = BTreeMap::new();
    for segment in segments {
        let mut address = segment.offset;
        let mut bytes = segment.bytes;
        while !bytes.is_empty() {
            let start = (address % OS_PAGE_BYTES as u64) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(OS_PAGE_BYTES - start));
            let page = pages
                .entry(address / OS_PAGE_BYTES as u64)
                .or_insert_with(|| Box::new([0; OS_PAGE_BYTES]));
            page[start..start + now.len()].copy_from_slice(now);
            address += now.len() as u64;
            bytes = later;
        }
    }
    let mut delta = PageDelta::default();
    for (index, page) in &pages {
        delta.insert(PageIndex(*index), page);
    }
    let size_wasm_pages = layout.map_or(0, |heap| heap.initial_pages);
    WasmMemory {
        pages: replicore_persistence::PageMap::default().update(delta),
        size_wasm_pages,
    }
}
