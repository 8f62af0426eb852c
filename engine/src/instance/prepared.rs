//! What the engine knows about a module besides its code, in a form that can be kept on disk.

use crate::module::{CompileCharge, DataSegment, FunctionNames, HeapLayout, Instrumented};
use crate::{GlobalValue, ModuleInterface, WasmMemory};
use replicore_persistence::{Page, PageDelta, PageIndex, PageMap};
use replicore_types::OS_PAGE_BYTES;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A module's facts, the same for every compiler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Prepared<'a> {
    pub interface: ModuleInterface,
    pub function_names: FunctionNames,
    pub heap: Option<HeapLayout>,
    /// Address and content, in the order in which they are written.
    #[serde(borrow)]
    pub data_segments: Vec<(u64, Cow<'a, [u8]>)>,
    pub globals: Vec<GlobalValue>,
    pub global_exports: Vec<String>,
    pub drops_data_segments: bool,
    pub compile_charge: CompileCharge,
}

impl<'a> Prepared<'a> {
    /// The facts of a module that was just instrumented.
    pub fn new(interface: &ModuleInterface, instrumented: &Instrumented<'a>) -> Self {
        let segment = |segment: &DataSegment<'a>| (segment.offset, Cow::Borrowed(segment.bytes));
        Self {
            interface: interface.clone(),
            function_names: instrumented.function_names.clone(),
            heap: instrumented.heap,
            data_segments: instrumented.data_segments.iter().map(segment).collect(),
            globals: instrumented.globals.clone(),
            global_exports: instrumented.global_exports.clone(),
            drops_data_segments: instrumented.drops_data_segments,
            compile_charge: instrumented.compile_charge,
        }
    }

    /// The heap before any code ran: the data segments as pages.
    pub fn initial_heap(&self) -> WasmMemory {
        let mut pages: BTreeMap<u64, Box<Page>> = BTreeMap::new();
        for (offset, bytes) in &self.data_segments {
            let (mut address, mut bytes) = (*offset, bytes.as_ref());
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
        delta.extend(pages.iter().map(|(index, page)| (PageIndex(*index), &**page)));
        WasmMemory {
            pages: PageMap::default().update(delta),
            size_wasm_pages: self.heap.map_or(0, |heap| heap.initial_pages),
        }
    }
}
