//! The rules for canister modules, in the order in which the production replica checks them: the first broken one is
//! the one that the user reads.

mod code;
mod engine_limits;
mod sections;

use super::compile_charge::CompileCharge;
use super::decode::undecodable;
use super::error::{Advice, WasmError};
use super::frames::{self, Frame};
use super::instrument::DataSegment;
use super::names::FunctionNames;
use super::parsed::Parsed;
use crate::{CustomSection, MethodKind, ModuleInterface};
use replicore_types::fees::WasmWidth;
use replicore_types::limits::WASM_CODE_SECTION_BYTES_MAX;
use std::collections::BTreeMap;
use wasmparser::{Parser, Payload, WasmFeatures};

/// What canister modules may use of Wasm. No relaxed SIMD, threads, exceptions or garbage collection: determinism.
/// Several memories are for the instrumented module only.
const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::GC_TYPES);

/// A module that keeps all rules, taken apart. Borrows the Wasm that it was read from.
pub struct ValidatedModule<'a> {
    pub(super) wasm: &'a [u8],
    pub(super) parsed: Parsed<'a>,
    pub(super) data_segments: Vec<DataSegment<'a>>,
    pub(super) drops_data_segments: bool,
    /// The stack that every defined function takes.
    pub(super) frames: Vec<Frame>,
    interface: ModuleInterface,
    compile_charge: CompileCharge,
}

impl<'a> ValidatedModule<'a> {
    /// What the module offers to the system.
    pub fn interface(&self) -> &ModuleInterface {
        &self.interface
    }

    /// What preparing the module costs.
    pub fn compile_charge(&self) -> CompileCharge {
        self.compile_charge
    }

    /// How backtraces name the functions of the instrumented module.
    pub fn function_names(&self) -> FunctionNames {
        FunctionNames::new(&self.parsed)
    }

    pub(crate) fn width(&self) -> WasmWidth {
        self.interface.width
    }
}

/// Checks `wasm` (after [`super::decode()`]) against all rules.
///
/// # Errors
/// IC0505 for a module that breaks a rule; IC0521 for one that the Wasm engine underneath would not instantiate.
pub fn validate(wasm: &[u8]) -> Result<ValidatedModule<'_>, WasmError> {
    check_code_section_size(wasm)?;
    let frames = frames::validate(wasm, FEATURES)?;
    let parsed = Parsed::new(wasm)?;
    sections::check_imports(&parsed)?;
    let (methods, system_entry_points) = sections::check_exports(&parsed)?;
    sections::check_tables(&parsed)?;
    sections::check_data(&parsed)?;
    sections::check_globals(&parsed)?;
    sections::check_function_count(&parsed)?;
    sections::check_memory_size(&parsed)?;
    let code = code::check(&parsed)?;
    let custom_sections = sections::custom_sections(&parsed)?;
    let data_segments = sections::data_segments(&parsed)?;
    engine_limits::check(&parsed)?;

    let interface = interface(&parsed, methods, system_entry_points, custom_sections);
    let compile_charge = CompileCharge {
        instrumented_instructions: code.instrumented_instructions,
    };
    let drops_data_segments = code.drops_data_segments;
    Ok(ValidatedModule {
        wasm,
        parsed,
        data_segments,
        drops_data_segments,
        frames,
        interface,
        compile_charge,
    })
}

fn interface(
    parsed: &Parsed<'_>,
    methods: BTreeMap<String, MethodKind>,
    mut system_entry_points: std::collections::BTreeSet<String>,
    custom_sections: BTreeMap<String, CustomSection>,
) -> ModuleInterface {
    if parsed.start.is_some() {
        system_entry_points.insert("start".to_owned());
    }
    ModuleInterface {
        methods,
        system_entry_points,
        custom_sections,
        width: parsed.width(),
    }
}

fn check_code_section_size(wasm: &[u8]) -> Result<(), WasmError> {
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(|error| undecodable(format_args!("Error finding code section: {error}")))?;
        let Payload::CodeSectionStart { size, .. } = payload else {
            continue;
        };
        if size as usize <= WASM_CODE_SECTION_BYTES_MAX {
            break;
        }
        return Err(WasmError::invalid_with(
            format_args!(
                "Wasm module code section size of {size} exceeds the maximum allowed size of \
                 {WASM_CODE_SECTION_BYTES_MAX}."
            ),
            Advice::User(
                "Try shrinking the module code section using tools like `ic-wasm` or splitting the logic across \
                 multiple canisters."
                    .to_owned(),
                "wasm-module-code-section-too-large",
            ),
        ));
    }
    Ok(())
}
