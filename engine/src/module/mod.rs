//! From the bytes that a user uploads to the module that the Wasm engine compiles.
//!
//! ```text
//! bytes --decode--> Wasm --validate--> ValidatedModule --instrument--> Instrumented
//!        magic, gzip      published rules                metering, write marks, System names
//! ```
//!
//! Nothing here runs Wasm or knows a Wasm engine. Validation follows the published rules for canister modules in the
//! order of the production replica, with its error texts; instrumentation gives every instruction the published cost,
//! charged at the same points, so that instruction counts agree wherever a canister can observe them.
//!
//! Departures from the production replica; a canister can observe at most how deep it may recurse:
//! - stable memory stays host functions instead of a second Wasm memory;
//! - pages written are recorded by marks in a second memory instead of page faults;
//! - where the stack ends is decided by a rule of our own, see `frames`, instead of machine code;
//! - `memory.grow` asks the host before it grows instead of afterwards;
//! - `externref`, of which a canister never has any but null, is encoded as `funcref`, so that the Wasm engine needs no
//!   garbage collector. (Of two function types that differ in nothing else, `call_indirect` takes one for the other.)

mod accesses;
mod arity;
mod chunks;
mod code_style;
mod compile_charge;
mod cost;
mod decode;
mod error;
mod floats;
mod frames;
mod helpers;
mod imports;
mod instrument;
mod loops;
mod metering;
mod names;
mod nans;
mod parallel;
mod parsed;
#[cfg(feature = "wasm")]
mod profiled;
mod rewrite;
mod system_calls;
mod validate;
mod write_tracking;

pub use code_style::CodeStyle;
pub use compile_charge::{CompileCharge, refusal_charge};
pub use decode::{declared_width, decode};
pub use error::WasmError;
pub use frames::{MACHINE_FACTOR, MACHINE_RESERVE_BYTES, STACK_BYTES};
pub use instrument::{DataSegment, HeapLayout, Instrumented, instrument};
pub use names::{FrameName, FunctionNames};
#[cfg(feature = "wasm")]
pub(crate) use profiled::add_events;
pub use validate::{ValidatedModule, validate};
pub use write_tracking::WriteTracking;

/// Names that the instrumented module adds. User exports other than methods and system entry points are dropped, so
/// that none of these can collide.
pub mod symbols {
    /// Module of the host functions below.
    pub const HOST_MODULE: &str = "__replicore";
    /// Host function `(counter: i64) -> i64`: called where the instruction counter has become negative, with its
    /// value; the result is the new counter. It may suspend the execution in between, or end it with an error.
    pub const OUT_OF_INSTRUCTIONS: &str = "out_of_instructions";
    /// Host function `(current_pages: i64, additional_pages: i64) -> i32`: called before `memory.grow`. Returns 1 to
    /// let it grow, 0 to make `memory.grow` answer -1; ends the execution with an error where the growth breaks a
    /// limit. It must answer 0 where the sum is above [`super::HeapLayout::maximum_pages`], before it books anything.
    pub const TRY_GROW_MEMORY: &str = "try_grow_memory";
    /// Host function `() -> ()`: called where the stack is used up; must end the execution with an error.
    pub const STACK_OVERFLOW: &str = "stack_overflow";
    /// Export of what is left of the stack: a mutable `i32` global, to be set to [`super::STACK_BYTES`] before the
    /// instance is entered.
    pub const STACK: &str = "__replicore.stack";
    /// Host function `(fixed: i64, per_byte: i64, size: i64, size: i64)`: called where the instruction counter may not
    /// cover the price of a System API call, right before that call. Takes `fixed + per_byte * (size + size)`, all
    /// unsigned, off the counter, or ends the execution with an error.
    pub const CHARGE_SYSTEM_CALL: &str = "charge_system_call";
    /// Export of the instruction counter: a mutable `i64` global that counts down.
    pub const COUNTER: &str = "__replicore.counter";
    /// Export of the heap, where the module has one.
    pub const HEAP: &str = "__replicore.heap";
    /// Export of the memory of marks, one byte per OS page of the largest heap, where the module has a heap.
    ///
    /// A byte is 1 where a page *starts* a write. A store may reach over the end of its page: whoever reads the marks
    /// must also compare the first [`STRADDLE_BYTES`] bytes of the page behind every marked one. A mark does not say
    /// that the content changed.
    pub const MARKS: &str = "__replicore.marks";
    /// Export of the function table, where the module has one.
    pub const TABLE: &str = "__replicore.table";
    /// Export of the Wasm start function, which the instrumented module no longer runs by itself.
    pub const START: &str = "__replicore.start";
    /// Host function `(id: i32)` of profiled modules: a function was entered.
    #[cfg(feature = "wasm")]
    pub(crate) const ENTER: &str = "enter";
    /// Host function of profiled modules: the function that was entered last is left.
    #[cfg(feature = "wasm")]
    pub(crate) const LEAVE: &str = "leave";
    /// Host function `(address: i64, size: i64)` of profiled modules: a bulk operation is about to read from the heap.
    #[cfg(feature = "wasm")]
    pub(crate) const READ: &str = "read";
    /// Export of profiled modules: a memory with one byte per OS page of the largest heap, 1 where a load began.
    #[cfg(feature = "wasm")]
    pub(crate) const READS: &str = "__replicore.reads";
    /// Bytes that the widest store can write into the page after the one that it starts in.
    pub const STRADDLE_BYTES: usize = 15;

    /// Export of the mutable global with this index in the original module.
    pub fn global(index: u32) -> String {
        format!("__replicore.global.{index}")
    }
}

#[cfg(test)]
mod tests;
