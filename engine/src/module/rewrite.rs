//! Function bodies with charges and marks.
//!
//! What does not change is copied byte for byte. What is added:
//! ```text
//! line       counter -= cost                        at a loop head or function entry also: if counter < 0: refill()
//!            the counter is a local; stored to its global where others may see it, loaded after calls, see `metering`
//!            (in short code, for baseline compilers, it is in its global only)
//! store      a, v -> locals; store; marks[(a + offset) >> 12] = 1     in steps: unless it was marked before, see `loops`
//! bulk op    operands -> locals; charge(size); op; mark(destination, size)
//! grow       delta -> local; if try_grow_memory(size, delta): memory.grow else -1
//! entry      left = stack - frame; if left < 0: stack_overflow()        in functions that are counted, see `frames`
//! loop       turns that nobody can tell apart are paid together, see `chunks`
//! call       stack = left; call                                         of functions that are counted
//! float      operation; x == x ? x : NaN                                where the bits may be seen, see `nans`
//! extern     externref -> funcref: nothing gives a canister a reference from outside, so that every one is null
//! ```
//! Marks are set after the access: an access out of bounds traps before it could mark anything.

mod chunk;

use super::CodeStyle;
use super::accesses;
use super::chunks::ChunkedLoop;
use super::floats::FloatResult;
use super::frames::Frame;
use super::helpers::counter_test;
use super::loops::TightLoop;
use super::metering::{Charge, Meter};
use replicore_types::fees::WasmWidth;
use std::collections::BTreeMap;
use wasm_encoder::reencode::{Error, Reencode};
use wasm_encoder::{BlockType, Encode, Function, HeapType, Instruction, MemArg, MemArgTarget, ValType};
use wasmparser::{FunctionBody, Operator};

/// Index of the memory of marks.
pub(super) const MARKS_MEMORY: u32 = 1;
/// Bits of an address within an OS page.
pub(super) const OS_PAGE_BITS: i32 = 12;

/// Parameters and locals of one function that Wasm engines accept.
const LOCALS_MAX: usize = 50_000;

/// Room for all locals that instrumentation may add. A function without it keeps the counter in its global and does
/// without what makes loops fast, so that it is refused only where it cannot do without a local.
const LOCALS_ADDED_MAX: usize = 32;

/// A function has no room for the locals that it needs.
#[derive(Debug)]
pub(super) struct TooManyLocals;

impl std::fmt::Display for TooManyLocals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too many locals")
    }
}

/// Where things are in the instrumented module.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub width: WasmWidth,
    /// Functions imported by the original module.
    pub imported_functions: u32,
    pub out_of_instructions: u32,
    pub try_grow_memory: u32,
    pub stack_overflow: u32,
    pub charge_system_call: u32,
    /// Index of the first of the helpers: refill, charge, mark.
    pub first_helper: u32,
    /// Index of the function that stands for the first imported one.
    pub first_system_call: u32,
    /// Index of the instruction counter.
    pub counter: u32,
    /// Index of what is left of the stack.
    pub stack: u32,
    /// Where in the memory of marks a loop saves its locals, if there is such a memory.
    pub scratch: Option<u64>,
    /// Stores and bulk operations mark what they write.
    pub marks: bool,
    pub style: CodeStyle,
}

impl Layout {
    pub fn refill(self) -> u32 {
        self.first_helper
    }

    fn charge(self) -> u32 {
        self.first_helper + 1
    }

    fn mark(self) -> u32 {
        self.first_helper + 2
    }

    fn address(self) -> ValType {
        match self.width {
            WasmWidth::Wasm32 => ValType::I32,
            WasmWidth::Wasm64 => ValType::I64,
        }
    }

    /// What stands for a function of the original module.
    pub fn function(self, original: u32) -> u32 {
        if original < self.imported_functions {
            self.first_system_call + original
        } else {
            original + super::instrument::HOST_FUNCTIONS
        }
    }
}

/// What a local that the instrumentation adds is for. Values live in one between two instructions only, so that all
/// sites of a function share them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Address,
    Value,
    Length,
    /// Stack left for what this function calls. Lives throughout.
    Left,
    /// A float that may be NaN.
    Float,
    /// The instruction counter. Lives throughout.
    Counter,
    /// The page that is written.
    Page,
    /// The page that the store in steps with this number marked last. Lives as long as the loop.
    Marked(u8),
    /// Turns that are left of those that were paid together.
    Turns,
    /// What a local that tells turns holds behind the last of them.
    Stop,
    /// Bytes that addresses may move.
    Room,
    /// Bytes of an address within its page.
    InPage,
}

/// What is known of the function that is rewritten.
pub(super) struct Source<'a> {
    pub parameter_types: &'a [wasmparser::ValType],
    pub frame: Frame,
    /// Frames of all functions that the module defines.
    pub frames: &'a [Frame],
    /// The operators whose result is made canonical.
    pub canonicalised: BTreeMap<usize, FloatResult>,
    /// Its tight loops by their first operator.
    pub tight_loops: BTreeMap<usize, TightLoop>,
    /// Its loops whose turns are paid together, by the branch that goes back.
    pub chunked_loops: BTreeMap<usize, ChunkedLoop>,
}

/// An instrumented function.
pub(super) struct Rewritten {
    pub function: Function,
    /// Positions of the `if`s whose branch is almost never taken, in bytes from the function's start.
    pub rare: Vec<u32>,
}

/// Rewrites one function.
pub(super) struct Rewriter<'a> {
    layout: Layout,
    wasm: &'a [u8],
    code: Vec<u8>,
    source: Source<'a>,
    /// Parameters and locals, ours included.
    locals: u32,
    ours: BTreeMap<(Role, u8), u32>,
    added: Vec<ValType>,
    /// Types of parameters and locals of the original function.
    types: Vec<ValType>,
    /// Stores in steps, with the number of the page that each remembers.
    stepped: BTreeMap<usize, u8>,
    /// There is room for locals of ours, and use for them.
    roomy: bool,
    /// Instructions of the line that the code is in.
    line_cost: u64,
    /// The global holds what the local counter holds, on every way to where the code ends now.
    stored: bool,
    /// Positions in `code` of `if`s whose branch is almost never taken.
    rare: Vec<u32>,
}

impl<'a> Rewriter<'a> {
    /// `wasm` is the original module.
    pub fn new(layout: Layout, wasm: &'a [u8], source: Source<'a>) -> Self {
        Self {
            layout,
            wasm,
            code: Vec::new(),
            locals: source.parameter_types.len() as u32,
            source,
            ours: BTreeMap::new(),
            added: Vec::new(),
            types: Vec::new(),
            stepped: BTreeMap::new(),
            roomy: true,
            line_cost: 0,
            stored: false,
            rare: Vec::new(),
        }
    }

    /// The instrumented function.
    pub fn rewrite(
        mut self,
        body: &FunctionBody<'_>,
        types: &mut impl Reencode<Error = TooManyLocals>,
    ) -> Result<Rewritten, Error<TooManyLocals>> {
        let mut locals = Vec::new();
        for declaration in body.get_locals_reader()? {
            let (count, ty) = declaration?;
            locals.push((count, types.val_type(ty)?));
        }
        for ty in self.source.parameter_types {
            self.types.push(types.val_type(*ty)?);
        }
        for (count, ty) in &locals {
            self.types.resize(self.types.len() + *count as usize, *ty);
        }
        self.locals = self.types.len() as u32;
        self.roomy = self.layout.style == CodeStyle::Fast && self.types.len() + LOCALS_ADDED_MAX <= LOCALS_MAX;
        if !self.roomy {
            self.source.tight_loops.clear();
            self.source.chunked_loops.clear();
        }
        self.operators(body)?;
        if self.locals as usize + self.added.len() > LOCALS_MAX {
            return Err(Error::UserError(TooManyLocals));
        }
        locals.extend(self.added.iter().map(|ty| (1, *ty)));
        let mut function = Function::new(locals);
        let begin = function.byte_len() as u32;
        function.raw(self.code.iter().copied());
        let rare = self.rare.iter().map(|position| begin + position).collect();
        Ok(Rewritten { function, rare })
    }

    fn operators(&mut self, body: &FunctionBody<'_>) -> Result<(), Error<TooManyLocals>> {
        if self.source.frame.counted {
            self.enter();
        }
        let mut charges = self.charges(body)?.into_iter().peekable();
        let mut reader = body.get_operators_reader()?;
        // Start of the bytes that are still to be copied.
        let mut pending = reader.original_position();
        let mut index = 0;
        while !reader.eof() {
            let (operator, start) = reader.read_with_offset()?;
            let end = reader.original_position();
            if let Some(pages) = self.pages_to_forget(index + 1) {
                self.copy(pending, start);
                pending = start;
                self.forget_pages(pages);
            }
            let charge = charges.next_if(|charge| charge.before == index);
            self.stored &= charge.is_none_or(|charge| charge.continues);
            if let Some(charge) = charge {
                self.line_cost = charge.cost;
            }
            let float = self.source.canonicalised.get(&index).copied();
            if charge.is_some() || changes(&operator) {
                self.copy(pending, start);
                pending = start;
            }
            if let Some(chunked) = self.source.chunked_loops.remove(&index) {
                self.copy(pending, start);
                pending = end;
                self.repeat(&chunked, self.line_cost);
            } else if changes(&operator) {
                self.replace(index, &operator, charge, &self.wasm[start as usize..end as usize]);
                pending = end;
            } else if let Some(charge) = charge {
                self.charge(charge);
            }
            if let Some(result) = float {
                self.copy(pending, end);
                pending = end;
                let local = self.local(Role::Float, result.ty());
                result.canonicalise(local, &mut self.code);
            }
            index += 1;
        }
        self.copy(pending, reader.original_position());
        Ok(())
    }

    fn charges(&self, body: &FunctionBody<'_>) -> Result<Vec<Charge>, Error<TooManyLocals>> {
        let mut meter = Meter::new(self.layout.width);
        let mut reader = body.get_operators_reader()?;
        while !reader.eof() {
            meter.add(&reader.read()?);
        }
        Ok(meter.finish().0)
    }

    fn copy(&mut self, start: u64, end: u64) {
        self.code.extend_from_slice(&self.wasm[start as usize..end as usize]);
    }

    fn emit(&mut self, instructions: &[Instruction<'_>]) {
        for instruction in instructions {
            instruction.encode(&mut self.code);
        }
    }

    /// The index of our local for this role and type.
    fn local(&mut self, role: Role, ty: ValType) -> u32 {
        let added = &mut self.added;
        let next = self.locals + added.len() as u32;
        *self.ours.entry((role, type_code(ty))).or_insert_with(|| {
            added.push(ty);
            next
        })
    }

    fn charge(&mut self, charge: Charge) {
        if !self.roomy {
            return self.charge_global(charge);
        }
        let counter = self.local(Role::Counter, ValType::I64);
        if charge.cost > 0 {
            self.emit(&[
                match charge.before {
                    0 => Instruction::GlobalGet(self.layout.counter),
                    _ => Instruction::LocalGet(counter),
                },
                Instruction::I64Const(charge.cost as i64),
                Instruction::I64Sub,
                Instruction::LocalSet(counter),
            ]);
            self.stored = false;
        }
        if charge.observed {
            self.store_counter();
        }
        if charge.reentrant {
            self.test_counter(charge.before);
        }
    }

    /// The same without a local.
    fn charge_global(&mut self, charge: Charge) {
        if charge.cost > 0 {
            self.emit(&[
                Instruction::GlobalGet(self.layout.counter),
                Instruction::I64Const(charge.cost as i64),
                Instruction::I64Sub,
                Instruction::GlobalSet(self.layout.counter),
            ]);
        }
        if charge.reentrant {
            self.emit(&counter_test(self.layout));
        }
    }

    /// `if`, of which compilers are told to keep the branch out of the way.
    fn rarely(&mut self) {
        self.rare.push(self.code.len() as u32);
        self.emit(&[Instruction::If(BlockType::Empty)]);
    }

    /// Lets others see the counter.
    fn store_counter(&mut self) {
        if !self.stored && self.roomy {
            let counter = self.local(Role::Counter, ValType::I64);
            self.emit(&[
                Instruction::LocalGet(counter),
                Instruction::GlobalSet(self.layout.counter),
            ]);
            self.stored = true;
        }
    }

    /// Takes the counter back from who may have changed it.
    fn load_counter(&mut self) {
        if !self.roomy {
            return;
        }
        let counter = self.local(Role::Counter, ValType::I64);
        self.emit(&[
            Instruction::GlobalGet(self.layout.counter),
            Instruction::LocalSet(counter),
        ]);
        self.stored = true;
    }

    /// `if counter < 0: refill()`, ahead of the operator with index `before`.
    fn test_counter(&mut self, before: usize) {
        let counter = self.local(Role::Counter, ValType::I64);
        self.emit(&[
            Instruction::LocalGet(counter),
            Instruction::I64Const(0),
            Instruction::I64LtS,
        ]);
        self.rarely();
        let stored = self.stored;
        self.store_counter();
        let saved = self.saved_locals(before);
        for (local, ty, place) in &saved {
            self.emit(&[
                Instruction::I32Const(0),
                Instruction::LocalGet(*local),
                save(*ty, *place),
            ]);
        }
        self.emit(&[Instruction::Call(self.layout.refill())]);
        for (local, ty, place) in &saved {
            self.emit(&[
                Instruction::I32Const(0),
                restore(*ty, *place),
                Instruction::LocalSet(*local),
            ]);
        }
        self.load_counter();
        self.emit(&[Instruction::End]);
        self.stored = stored;
    }

    /// How many stores in steps the loop with this first operator has, if any.
    fn pages_to_forget(&mut self, head: usize) -> Option<u8> {
        let stores = &self.source.tight_loops.get(&head)?.stepped_stores;
        if stores.is_empty() || !self.layout.marks {
            return None;
        }
        self.stepped.extend(stores.iter().copied().zip(0..));
        Some(stores.len() as u8)
    }

    /// Ahead of a loop: no page is marked that its stores know of.
    fn forget_pages(&mut self, pages: u8) {
        for number in 0..pages {
            let marked = self.local(Role::Marked(number), ValType::I32);
            self.emit(&[Instruction::I32Const(-1), Instruction::LocalSet(marked)]);
        }
    }

    /// The locals that the loop with this first operator saves, with their types and places.
    fn saved_locals(&mut self, head: usize) -> Vec<(u32, ValType, u64)> {
        let (Some(scratch), Some(tight)) = (self.layout.scratch, self.source.tight_loops.get(&head)) else {
            return Vec::new();
        };
        let typed = tight.locals.iter().map(|local| (*local, self.types[*local as usize]));
        let mut saved: Vec<_> = typed.filter(|(_, ty)| !matches!(ty, ValType::Ref(_))).collect();
        let pages = tight.stepped_stores.len() as u8;
        if self.layout.marks {
            saved.extend((0..pages).map(|number| (self.local(Role::Marked(number), ValType::I32), ValType::I32)));
        }
        let places = (scratch..).step_by(SAVED_BYTES);
        let placed = saved.into_iter().zip(places);
        placed.map(|((local, ty), place)| (local, ty, place)).collect()
    }

    /// Emits what stands for an operator that is not copied. `original` are its bytes.
    fn replace(&mut self, index: usize, operator: &Operator<'_>, charge: Option<Charge>, original: &[u8]) {
        // A bulk operation at the start of a line pays its size before the line.
        if let Some(charge) = charge.filter(|_| !is_bulk(operator)) {
            self.charge(charge);
        }
        let layout = self.layout;
        match operator {
            Operator::Call { function_index } => {
                if self.counts(*function_index) {
                    self.pass_on_stack(0);
                }
                self.emit(&[Instruction::Call(layout.function(*function_index))]);
                self.load_counter();
            }
            Operator::ReturnCall { function_index } => {
                if self.source.frame.counted && self.counts(*function_index) {
                    self.pass_on_stack(self.source.frame.bytes);
                }
                self.emit(&[Instruction::ReturnCall(layout.function(*function_index))]);
            }
            Operator::CallIndirect { .. } => {
                self.pass_on_stack(0);
                self.code.extend_from_slice(original);
                self.load_counter();
            }
            Operator::ReturnCallIndirect { .. } => {
                if self.source.frame.counted {
                    self.pass_on_stack(self.source.frame.bytes);
                }
                self.code.extend_from_slice(original);
            }
            Operator::RefFunc { function_index } => {
                self.emit(&[Instruction::RefFunc(layout.function(*function_index))]);
            }
            Operator::MemoryFill { .. } => self.bulk(charge, original, ValType::I32, layout.address()),
            Operator::MemoryCopy { .. } => self.bulk(charge, original, layout.address(), layout.address()),
            Operator::MemoryInit { .. } => self.bulk(charge, original, ValType::I32, ValType::I32),
            Operator::MemoryGrow { .. } => self.grow(original),
            Operator::RefNull { .. } => self.emit(&[Instruction::RefNull(HeapType::FUNC)]),
            Operator::TypedSelect { .. } => self.emit(&[Instruction::TypedSelect(ValType::FUNCREF)]),
            Operator::Block { .. } => self.emit(&[Instruction::Block(BlockType::Result(ValType::FUNCREF))]),
            Operator::Loop { .. } => self.emit(&[Instruction::Loop(BlockType::Result(ValType::FUNCREF))]),
            Operator::If { .. } => self.emit(&[Instruction::If(BlockType::Result(ValType::FUNCREF))]),
            _ => match accesses::stored(operator) {
                Some((ty, memarg)) if layout.marks => {
                    self.store(self.stepped.get(&index).copied(), ty, memarg.offset, original)
                }
                _ => self.code.extend_from_slice(original),
            },
        }
    }

    /// Takes the function's frame off the stack, if there is room for it.
    fn enter(&mut self) {
        let left = self.local(Role::Left, ValType::I32);
        self.emit(&[
            Instruction::GlobalGet(self.layout.stack),
            Instruction::I32Const(self.source.frame.bytes as i32),
            Instruction::I32Sub,
            Instruction::LocalTee(left),
            Instruction::I32Const(0),
            Instruction::I32LtS,
        ]);
        self.rarely();
        self.emit(&[
            Instruction::Call(self.layout.stack_overflow),
            Instruction::Unreachable,
            Instruction::End,
        ]);
    }

    /// True where the function with this original index takes from the stack.
    fn counts(&self, function: u32) -> bool {
        let defined = function.checked_sub(self.layout.imported_functions);
        defined.is_some_and(|defined| self.source.frames[defined as usize].counted)
    }

    /// Tells the next function what is left, `returned` bytes of this one's frame included.
    fn pass_on_stack(&mut self, returned: u32) {
        let left = self.local(Role::Left, ValType::I32);
        self.emit(&[Instruction::LocalGet(left)]);
        if returned > 0 {
            self.emit(&[Instruction::I32Const(returned as i32), Instruction::I32Add]);
        }
        self.emit(&[Instruction::GlobalSet(self.layout.stack)]);
    }

    /// `stepped` is the number of the page that the store remembers, if it does.
    fn store(&mut self, stepped: Option<u8>, ty: ValType, offset: u64, original: &[u8]) {
        let address = self.local(Role::Address, self.layout.address());
        let value = self.local(Role::Value, ty);
        self.emit(&[
            Instruction::LocalSet(value),
            Instruction::LocalTee(address),
            Instruction::LocalGet(value),
        ]);
        self.code.extend_from_slice(original);
        self.emit(&[Instruction::LocalGet(address)]);
        // The store has succeeded, so the sum does not wrap.
        match self.layout.width {
            WasmWidth::Wasm32 => {
                if offset != 0 {
                    self.emit(&[Instruction::I32Const(offset as u32 as i32), Instruction::I32Add]);
                }
                self.emit(&[Instruction::I32Const(OS_PAGE_BITS), Instruction::I32ShrU]);
            }
            WasmWidth::Wasm64 => {
                if offset != 0 {
                    self.emit(&[Instruction::I64Const(offset as i64), Instruction::I64Add]);
                }
                self.emit(&[
                    Instruction::I64Const(OS_PAGE_BITS.into()),
                    Instruction::I64ShrU,
                    Instruction::I32WrapI64,
                ]);
            }
        }
        match stepped {
            None => self.emit(&[Instruction::I32Const(1), Instruction::I32Store8(MARK)]),
            Some(number) => self.mark_unless_marked(number),
        }
    }

    /// Marks the page whose number is on the stack, unless it is the one that was marked last.
    fn mark_unless_marked(&mut self, number: u8) {
        let page = self.local(Role::Page, ValType::I32);
        let marked = self.local(Role::Marked(number), ValType::I32);
        self.emit(&[
            Instruction::LocalTee(page),
            Instruction::LocalGet(marked),
            Instruction::I32Ne,
        ]);
        self.rarely();
        self.emit(&[
            Instruction::LocalGet(page),
            Instruction::I32Const(1),
            Instruction::I32Store8(MARK),
            Instruction::LocalGet(page),
            Instruction::LocalSet(marked),
            Instruction::End,
        ]);
    }

    /// A bulk operation with the operands destination, `middle` and size.
    fn bulk(&mut self, charge: Option<Charge>, original: &[u8], middle: ValType, size: ValType) {
        let destination_type = self.layout.address();
        let destination = self.local(Role::Address, destination_type);
        let middle = self.local(Role::Value, middle);
        let length = self.local(Role::Length, size);
        self.emit(&[
            Instruction::LocalSet(length),
            Instruction::LocalSet(middle),
            Instruction::LocalSet(destination),
        ]);
        self.store_counter();
        self.get_as_i64(length, size);
        self.emit(&[Instruction::Call(self.layout.charge())]);
        self.load_counter();
        if let Some(charge) = charge {
            self.charge(charge);
        }
        self.emit(&[
            Instruction::LocalGet(destination),
            Instruction::LocalGet(middle),
            Instruction::LocalGet(length),
        ]);
        self.code.extend_from_slice(original);
        if self.layout.marks {
            self.get_as_i64(destination, destination_type);
            self.get_as_i64(length, size);
            self.emit(&[Instruction::Call(self.layout.mark())]);
        }
    }

    fn grow(&mut self, original: &[u8]) {
        let ty = self.layout.address();
        let delta = self.local(Role::Length, ty);
        let refused = match ty {
            ValType::I64 => Instruction::I64Const(-1),
            _ => Instruction::I32Const(-1),
        };
        self.emit(&[Instruction::LocalSet(delta), Instruction::MemorySize(0)]);
        self.extend_to_i64(ty);
        self.get_as_i64(delta, ty);
        self.emit(&[
            Instruction::Call(self.layout.try_grow_memory),
            Instruction::If(BlockType::Result(ty)),
            Instruction::LocalGet(delta),
        ]);
        self.code.extend_from_slice(original);
        self.emit(&[Instruction::Else, refused, Instruction::End]);
    }

    fn get_as_i64(&mut self, local: u32, ty: ValType) {
        self.emit(&[Instruction::LocalGet(local)]);
        self.extend_to_i64(ty);
    }

    fn extend_to_i64(&mut self, ty: ValType) {
        if ty == ValType::I32 {
            self.emit(&[Instruction::I64ExtendI32U]);
        }
    }
}

/// Where the page whose number is on the stack is marked.
pub(super) const MARK: MemArg = MemArg {
    offset: 0,
    align: 0,
    target: MemArgTarget::Memory(MARKS_MEMORY),
    ordering: None,
};

/// Bytes for one saved local.
const SAVED_BYTES: usize = 16;

fn scratch(place: u64) -> MemArg {
    MemArg { offset: place, ..MARK }
}

fn save(ty: ValType, place: u64) -> Instruction<'static> {
    let place = scratch(place);
    match ty {
        ValType::I32 => Instruction::I32Store(place),
        ValType::I64 => Instruction::I64Store(place),
        ValType::F32 => Instruction::F32Store(place),
        ValType::F64 => Instruction::F64Store(place),
        ValType::V128 | ValType::Ref(_) => Instruction::V128Store(place),
    }
}

fn restore(ty: ValType, place: u64) -> Instruction<'static> {
    let place = scratch(place);
    match ty {
        ValType::I32 => Instruction::I32Load(place),
        ValType::I64 => Instruction::I64Load(place),
        ValType::F32 => Instruction::F32Load(place),
        ValType::F64 => Instruction::F64Load(place),
        ValType::V128 | ValType::Ref(_) => Instruction::V128Load(place),
    }
}

/// Orders the types of values that are stored.
fn type_code(ty: ValType) -> u8 {
    match ty {
        ValType::I32 => 0,
        ValType::I64 => 1,
        ValType::F32 => 2,
        ValType::F64 => 3,
        ValType::V128 | ValType::Ref(_) => 4,
    }
}

/// True for what is not copied.
pub(super) fn changes(operator: &Operator<'_>) -> bool {
    use Operator::*;
    matches!(
        operator,
        Call { .. }
            | CallIndirect { .. }
            | ReturnCall { .. }
            | ReturnCallIndirect { .. }
            | RefFunc { .. }
            | MemoryGrow { .. }
    ) || is_bulk(operator)
        || accesses::is_store(operator)
        || names_externref(operator)
}

/// True where the operator carries the type `externref`.
fn names_externref(operator: &Operator<'_>) -> bool {
    use wasmparser::{BlockType, ValType};
    match operator {
        Operator::RefNull { hty } => *hty == wasmparser::HeapType::EXTERN,
        Operator::TypedSelect { ty } => *ty == ValType::EXTERNREF,
        Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
            *blockty == BlockType::Type(ValType::EXTERNREF)
        }
        _ => false,
    }
}

fn is_bulk(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::MemoryFill { .. } | Operator::MemoryCopy { .. } | Operator::MemoryInit { .. }
    )
}
