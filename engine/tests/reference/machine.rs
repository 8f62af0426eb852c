//! Walks the operators of a message, and counts.

use super::module::{Function, Module};
use super::numeric;
use super::published_costs::{ENTRY, MSG_REPLY, PERFORMANCE_COUNTER, changed_page, ends_line};
use wasmparser::{BlockType, MemArg, Operator};

const WASM_PAGE: usize = 65_536;
const OS_PAGE: usize = 4_096;

/// Why a message ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Unreachable,
    HeapOutOfBounds,
    TableOutOfBounds,
    DivisionByZero,
    /// The function that an indirect call found has another type.
    WrongSignature,
    /// What the engine has no name for: overflow of a division or conversion, an indirect call to null.
    OtherTrap,
    /// `performance_counter` of a counter that does not exist.
    NoSuchCounter,
    OutOfInstructions,
}

/// How control goes on behind an operator.
enum Next {
    /// With the operator at this position.
    At(usize),
    Return,
}

/// An open block.
struct Label {
    /// Where a branch to it goes.
    target: usize,
    /// Height of the operand stack below its operands.
    height: usize,
    /// Values that a branch to it carries.
    carries: usize,
    is_loop: bool,
}

/// One function in execution.
struct Activation<'m, 'a> {
    function: &'m Function<'a>,
    locals: Vec<u64>,
    stack: Vec<u64>,
    labels: Vec<Label>,
    results: usize,
}

/// A module's state, and the account of the message that runs.
pub struct Machine<'m, 'a> {
    module: &'m Module<'a>,
    pub memory: Vec<u8>,
    pub globals: Vec<u64>,
    dropped: Vec<bool>,
    /// Instructions that a message may use.
    pub limit: u64,
    /// Operators executed so far, with what they charge at run time.
    spent: u64,
    /// What is left of the straight lines of the functions that wait for a call to return: paid already.
    paid_by_callers: u64,
}

impl<'m, 'a> Machine<'m, 'a> {
    /// The state after installation, before any code ran.
    pub fn new(module: &'m Module<'a>, limit: u64) -> Self {
        let pages = module.memory.map_or(0, |memory| memory.initial as usize);
        let mut memory = vec![0; pages * WASM_PAGE];
        for data in &module.data {
            if let Some(offset) = data.offset {
                memory[offset as usize..offset as usize + data.bytes.len()].copy_from_slice(data.bytes);
            }
        }
        Self {
            memory,
            globals: module.globals.iter().map(|(_, _, value)| *value).collect(),
            dropped: Vec::new(),
            limit,
            spent: 0,
            paid_by_callers: 0,
            module,
        }
    }

    /// Calls a function without operands as a message: it leaves everything as it was unless it ends well. Gives its
    /// end and its instructions.
    pub fn message(&mut self, function: u32) -> (Result<(), Ending>, u64) {
        let (memory, globals) = (self.memory.clone(), self.globals.clone());
        let result = self.call_export(function, Vec::new()).map(drop);
        // Who runs out has used all there was.
        let executed = match result {
            Err(Ending::OutOfInstructions) => self.limit,
            _ => self.spent.min(self.limit),
        };
        let zeros = vec![0; OS_PAGE];
        let committed = |page: usize| memory.get(page * OS_PAGE..(page + 1) * OS_PAGE).unwrap_or(&zeros);
        let pages = self.memory.chunks(OS_PAGE).enumerate();
        let changed = pages.filter(|(number, page)| *page != committed(*number)).count();
        let memory64 = self.module.memory.is_some_and(|memory| memory.memory64);
        if result.is_err() {
            (self.memory, self.globals) = (memory, globals);
        }
        (result, executed + changed as u64 * changed_page(memory64))
    }

    /// Calls a function from outside; gives its results. What it did stays.
    pub fn call_export(&mut self, function: u32, arguments: Vec<u64>) -> Result<Vec<u64>, Ending> {
        self.dropped = self.module.data.iter().map(|data| data.offset.is_some()).collect();
        (self.spent, self.paid_by_callers) = (0, 0);
        let result = self.call(function, arguments);
        // Lines that a trap left open were paid as a whole: `call` added their rest.
        debug_assert_eq!(self.paid_by_callers, 0);
        result
    }

    fn call(&mut self, function: u32, arguments: Vec<u64>) -> Result<Vec<u64>, Ending> {
        let imported = self.module.imports.len();
        let Some(defined) = (function as usize).checked_sub(imported) else {
            return self.system_call(self.module.imports[function as usize], &arguments);
        };
        let function_type = self.module.function_type(function);
        let function = &self.module.functions[defined];
        let mut locals = arguments;
        locals.resize(locals.len() + function.locals, 0);
        let mut activation = Activation {
            function,
            locals,
            stack: Vec::new(),
            labels: Vec::new(),
            results: function_type.results().len(),
        };
        self.spent += ENTRY;
        self.run(&mut activation)?;
        let first = activation.stack.len() - activation.results;
        Ok(activation.stack.split_off(first))
    }

    fn system_call(&mut self, name: &str, arguments: &[u64]) -> Result<Vec<u64>, Ending> {
        let fee = match name {
            "performance_counter" => PERFORMANCE_COUNTER,
            "msg_reply" => MSG_REPLY,
            other => panic!("the reference does not know {other}"),
        };
        self.spent += fee;
        self.check(0)?;
        match (name, arguments) {
            ("performance_counter", [0 | 1]) => Ok(vec![self.spent + self.paid_by_callers]),
            ("performance_counter", _) => Err(Ending::NoSuchCounter),
            _ => Ok(Vec::new()),
        }
    }

    /// Ends the message where more was paid than it may use. `open` is what is paid of the line that runs.
    fn check(&self, open: u64) -> Result<(), Ending> {
        if self.spent + self.paid_by_callers + open > self.limit {
            return Err(Ending::OutOfInstructions);
        }
        Ok(())
    }

    fn run(&mut self, activation: &mut Activation<'m, 'a>) -> Result<(), Ending> {
        let function = activation.function;
        let mut position = 0;
        let mut line_begins = true;
        // Function entry and loop heads look at the account.
        let mut looks = true;
        loop {
            let operator = &function.code[position];
            if line_begins {
                let bulk = is_bulk(operator);
                if bulk {
                    // It pays its size ahead of the line that it begins.
                    self.pay_size(activation, 0)?;
                }
                if looks {
                    self.check(function.rest_of_line(position))?;
                }
                if bulk {
                    self.spent += function.costs[position];
                    self.bulk(activation, operator)
                        .inspect_err(|_| self.spent += function.rest_of_line(position + 1))?;
                    position += 1;
                    (line_begins, looks) = (false, false);
                    continue;
                }
            }
            self.spent += function.costs[position];
            let next = self.step(activation, position).inspect_err(|_| {
                if !ends_line(operator) {
                    self.spent += function.rest_of_line(position + 1);
                }
            })?;
            line_begins = ends_line(operator);
            looks = matches!(operator, Operator::Loop { .. });
            match next {
                Next::Return => return Ok(()),
                Next::At(next) => {
                    // A branch to a loop comes to its head.
                    looks |= next > 0 && matches!(function.code[next - 1], Operator::Loop { .. });
                    position = next;
                }
            }
        }
    }

    fn step(&mut self, activation: &mut Activation<'m, 'a>, position: usize) -> Result<Next, Ending> {
        use Operator::*;
        let function = activation.function;
        let operator = &function.code[position];
        match operator {
            Unreachable => return Err(Ending::Unreachable),
            Block { blockty } | Loop { blockty } => {
                let is_loop = matches!(operator, Loop { .. });
                self.open(activation, position, *blockty, is_loop);
            }
            If { blockty } => {
                let taken = activation.pop() as u32 != 0;
                let (middle, end) = function.blocks[&position];
                match (taken, middle) {
                    (true, _) => self.open(activation, position, *blockty, false),
                    (false, Some(middle)) => {
                        self.open(activation, position, *blockty, false);
                        return Ok(Next::At(middle + 1));
                    }
                    (false, None) => return Ok(Next::At(end + 1)),
                }
            }
            // The first branch of an `if` ran: on behind its `end`.
            Else => {
                let target = activation.labels.pop().expect("`else` stands in a block").target;
                return Ok(Next::At(target));
            }
            End => {
                if activation.labels.pop().is_none() {
                    return Ok(Next::Return);
                }
            }
            Br { relative_depth } => return Ok(activation.branch(*relative_depth)),
            BrIf { relative_depth } => {
                if activation.pop() as u32 != 0 {
                    return Ok(activation.branch(*relative_depth));
                }
            }
            BrTable { targets } => {
                let index = activation.pop() as u32;
                let target = targets
                    .targets()
                    .nth(index as usize)
                    .map(|target| target.expect("valid"));
                return Ok(activation.branch(target.unwrap_or(targets.default())));
            }
            Return => return Ok(Next::Return),
            Call { function_index } => self.invoke(activation, position, *function_index)?,
            CallIndirect { type_index, .. } => {
                let index = activation.pop() as usize;
                let element = self.module.table.get(index).ok_or(Ending::TableOutOfBounds)?;
                let callee = element.ok_or(Ending::OtherTrap)?;
                let types = &self.module.types;
                if types[*type_index as usize] != *self.module.function_type(callee) {
                    return Err(Ending::WrongSignature);
                }
                self.invoke(activation, position, callee)?;
            }
            MemoryFill { .. } | MemoryCopy { .. } | MemoryInit { .. } => {
                self.pay_size(activation, function.rest_of_line(position + 1))?;
                self.bulk(activation, operator)?;
            }
            _ => self.plain(activation, operator)?,
        }
        Ok(Next::At(position + 1))
    }

    fn open(&self, activation: &mut Activation<'m, 'a>, position: usize, ty: BlockType, is_loop: bool) {
        let (parameters, results) = match ty {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(index) => {
                let ty = &self.module.types[index as usize];
                (ty.params().len(), ty.results().len())
            }
        };
        activation.labels.push(Label {
            target: if is_loop {
                position + 1
            } else {
                activation.function.blocks[&position].1 + 1
            },
            height: activation.stack.len() - parameters,
            carries: if is_loop { parameters } else { results },
            is_loop,
        });
    }

    fn invoke(&mut self, activation: &mut Activation<'m, 'a>, position: usize, callee: u32) -> Result<(), Ending> {
        let parameters = self.module.function_type(callee).params().len();
        let first = activation.stack.len() - parameters;
        let arguments = activation.stack.split_off(first);
        let open = activation.function.rest_of_line(position + 1);
        self.paid_by_callers += open;
        let results = self.call(callee, arguments);
        self.paid_by_callers -= open;
        activation.stack.extend(results?);
        Ok(())
    }

    /// A byte of a bulk operation costs 1.
    fn pay_size(&mut self, activation: &Activation<'m, 'a>, open: u64) -> Result<(), Ending> {
        let size = activation.stack.last().copied().unwrap_or(0);
        self.spent = self.spent.saturating_add(size);
        self.check(open)
    }

    fn bulk(&mut self, activation: &mut Activation<'m, 'a>, operator: &Operator<'a>) -> Result<(), Ending> {
        let size = activation.pop();
        let (middle, destination) = (activation.pop(), activation.pop());
        let target = self.range(destination, 0, size);
        match operator {
            Operator::MemoryFill { .. } => self.memory[target?].fill(middle as u8),
            Operator::MemoryCopy { .. } => {
                let source = self.range(middle, 0, size)?;
                self.memory.copy_within(source, target?.start);
            }
            Operator::MemoryInit { data_index, .. } => {
                let segment = *data_index as usize;
                let bytes = if self.dropped[segment] {
                    &[][..]
                } else {
                    self.module.data[segment].bytes
                };
                let source = middle as usize..(middle + size) as usize;
                let source = bytes.get(source).ok_or(Ending::HeapOutOfBounds)?;
                self.memory[target?].copy_from_slice(source);
            }
            other => panic!("no bulk operation: {other:?}"),
        }
        Ok(())
    }

    fn plain(&mut self, activation: &mut Activation<'m, 'a>, operator: &Operator<'a>) -> Result<(), Ending> {
        use Operator::*;
        match operator {
            Nop => {}
            Drop => drop(activation.pop()),
            Select | TypedSelect { .. } => {
                let (condition, other, one) = (activation.pop(), activation.pop(), activation.pop());
                activation.stack.push(if condition as u32 != 0 { one } else { other });
            }
            LocalGet { local_index } => activation.stack.push(activation.locals[*local_index as usize]),
            LocalSet { local_index } => activation.locals[*local_index as usize] = activation.pop(),
            LocalTee { local_index } => {
                let value = activation.pop();
                activation.locals[*local_index as usize] = value;
                activation.stack.push(value);
            }
            GlobalGet { global_index } => activation.stack.push(self.globals[*global_index as usize]),
            GlobalSet { global_index } => self.globals[*global_index as usize] = activation.pop(),
            I32Const { value } => activation.stack.push(u64::from(*value as u32)),
            I64Const { value } => activation.stack.push(*value as u64),
            F32Const { value } => activation.stack.push(u64::from(value.bits())),
            F64Const { value } => activation.stack.push(value.bits()),
            MemorySize { .. } => activation.stack.push((self.memory.len() / WASM_PAGE) as u64),
            MemoryGrow { .. } => {
                let result = self.grow(activation.pop());
                activation.stack.push(result);
            }
            DataDrop { data_index } => self.dropped[*data_index as usize] = true,
            ElemDrop { .. } => {}
            _ => match access(operator) {
                Some((access, memarg)) => self.access(activation, access, memarg)?,
                None => compute(activation, operator)?,
            },
        }
        Ok(())
    }

    fn grow(&mut self, additional: u64) -> u64 {
        let memory = self.module.memory.expect("only modules with a memory grow it");
        let before = (self.memory.len() / WASM_PAGE) as u64;
        match before.checked_add(additional) {
            Some(pages) if pages <= memory.maximum => {
                self.memory.resize(pages as usize * WASM_PAGE, 0);
                before
            }
            _ if memory.memory64 => u64::MAX,
            _ => u64::from(u32::MAX),
        }
    }

    fn access(&mut self, activation: &mut Activation<'m, 'a>, access: Access, memarg: &MemArg) -> Result<(), Ending> {
        match access {
            Access::Store(bytes) => {
                let value = activation.pop();
                let range = self.range(activation.pop(), memarg.offset, bytes as u64)?;
                self.memory[range].copy_from_slice(&value.to_le_bytes()[..bytes]);
            }
            Access::Load { bytes, signed_bits } => {
                let range = self.range(activation.pop(), memarg.offset, bytes as u64)?;
                let mut value = [0; 8];
                value[..bytes].copy_from_slice(&self.memory[range]);
                let value = u64::from_le_bytes(value);
                let unused = 64 - 8 * bytes as u32;
                let extended = ((value << unused) as i64 >> unused) as u64;
                activation.stack.push(match signed_bits {
                    None => value,
                    Some(32) => u64::from(extended as u32),
                    Some(_) => extended,
                });
            }
        }
        Ok(())
    }

    /// The checked range of an access.
    fn range(&self, address: u64, offset: u64, size: u64) -> Result<std::ops::Range<usize>, Ending> {
        let start = u128::from(address) + u128::from(offset);
        let end = start + u128::from(size);
        if end > self.memory.len() as u128 {
            return Err(Ending::HeapOutOfBounds);
        }
        Ok(start as usize..end as usize)
    }
}

impl Activation<'_, '_> {
    fn pop(&mut self) -> u64 {
        self.stack.pop().expect("the module is valid")
    }

    fn branch(&mut self, depth: u32) -> Next {
        // The outermost label is the function itself.
        let Some(position) = self.labels.len().checked_sub(depth as usize + 1) else {
            return Next::Return;
        };
        let label = &self.labels[position];
        let first_carried = self.stack.len() - label.carries;
        self.stack.drain(label.height..first_carried);
        let target = label.target;
        let kept = position + usize::from(label.is_loop);
        self.labels.truncate(kept);
        Next::At(target)
    }
}

fn is_bulk(operator: &Operator<'_>) -> bool {
    use Operator::*;
    matches!(operator, MemoryFill { .. } | MemoryCopy { .. } | MemoryInit { .. })
}

fn compute(activation: &mut Activation<'_, '_>, operator: &Operator<'_>) -> Result<(), Ending> {
    let last = activation.pop();
    let value = match numeric::unary(operator, last) {
        Some(value) => value?,
        None => {
            let first = activation.pop();
            numeric::binary(operator, first, last)
                .unwrap_or_else(|| panic!("the reference does not know {operator:?}"))?
        }
    };
    activation.stack.push(value);
    Ok(())
}

#[derive(Clone, Copy)]
enum Access {
    /// Bytes stored.
    Store(usize),
    /// Bytes loaded, and the width of the result where the sign is extended.
    Load { bytes: usize, signed_bits: Option<u32> },
}

fn access<'o>(operator: &'o Operator<'_>) -> Option<(Access, &'o MemArg)> {
    use Operator::*;
    let load = |bytes, signed_bits| Access::Load { bytes, signed_bits };
    Some(match operator {
        I32Load { memarg } | F32Load { memarg } | I64Load32U { memarg } => (load(4, None), memarg),
        I64Load { memarg } | F64Load { memarg } => (load(8, None), memarg),
        I32Load8U { memarg } | I64Load8U { memarg } => (load(1, None), memarg),
        I32Load16U { memarg } | I64Load16U { memarg } => (load(2, None), memarg),
        I32Load8S { memarg } => (load(1, Some(32)), memarg),
        I32Load16S { memarg } => (load(2, Some(32)), memarg),
        I64Load8S { memarg } => (load(1, Some(64)), memarg),
        I64Load16S { memarg } => (load(2, Some(64)), memarg),
        I64Load32S { memarg } => (load(4, Some(64)), memarg),
        I32Store { memarg } | F32Store { memarg } | I64Store32 { memarg } => (Access::Store(4), memarg),
        I64Store { memarg } | F64Store { memarg } => (Access::Store(8), memarg),
        I32Store8 { memarg } | I64Store8 { memarg } => (Access::Store(1), memarg),
        I32Store16 { memarg } | I64Store16 { memarg } => (Access::Store(2), memarg),
        _ => return None,
    })
}
