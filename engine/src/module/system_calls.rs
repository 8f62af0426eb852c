//! What calls of the System API cost, charged in Wasm ahead of the call.
//!
//! Every import is called through a function of ours, wherever the module names it:
//! ```text
//! fee = fixed + per_byte * sizes
//! if counter < fee: charge_system_call(fixed, per_byte, size, size)     a slice or the message ends
//! else:             counter -= fee
//! import(parameters)
//! ```
//! The host would have to reach the counter through the Wasm engine's interface for globals: five times the cost of the
//! call itself. Where the counter does not cover the fee, and for sizes that a fee might overflow with, the host
//! charges: it knows about slices.

use super::rewrite::Layout;
use wasm_encoder::{BlockType, Function, Instruction, ValType};

/// Instructions for a byte that leaves the canister in a message.
const TRANSMITTED: u64 = 50;

/// What a call of one System API function costs before anything else happens, legality and bounds checks included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Price {
    /// Instructions of every call.
    pub fixed: u64,
    /// Instructions a byte.
    pub per_byte: u64,
    /// The parameters that hold numbers of bytes; none where the price is fixed, at most two.
    pub sizes: &'static [u32],
}

impl Price {
    const fn fixed(fixed: u64) -> Self {
        Self {
            fixed,
            per_byte: 0,
            sizes: &[],
        }
    }

    const fn bytes(fixed: u64, per_byte: u64, sizes: &'static [u32]) -> Self {
        Self { fixed, per_byte, sizes }
    }

    /// The price of a function of module `ic0`.
    pub(super) fn of(name: &str) -> Self {
        match name {
            // `debug_print` and `trap` charge by the room that is left in the log.
            "debug_print" | "trap" | "stable64_size" | "stable_size" | "mint_cycles128" => Self::fixed(0),
            "stable64_grow" | "stable_grow" => Self::fixed(100),
            "stable64_read" | "stable64_write" | "stable_read" | "stable_write" => Self::bytes(20, 1, &[2]),
            "performance_counter" => Self::fixed(200),
            "call_perform" => Self::fixed(5_000),
            "call_new" => Self::bytes(1_500, 1, &[1, 3]),
            "call_data_append" | "msg_reply_data_append" | "msg_reject" => Self::bytes(500, TRANSMITTED, &[1]),
            "cost_http_request_v2" => Self::fixed(10_000),
            "is_controller" => Self::bytes(1_000, 1, &[1]),
            "certified_data_set" | "cost_sign_with_ecdsa" | "cost_sign_with_schnorr" | "cost_vetkd_derive_key" => {
                Self::bytes(500, 1, &[1])
            }
            "env_var_name_copy" => Self::bytes(500, 1, &[3]),
            "env_var_value_copy" => Self::bytes(500, 1, &[4]),
            copy if copy.ends_with("_copy") => Self::bytes(500, 1, &[2]),
            _ => Self::fixed(500),
        }
    }

    /// True where nothing is charged.
    fn is_free(self) -> bool {
        self.fixed == 0
    }
}

/// An imported function that is called through one of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct PricedImport {
    /// Its index among the imports.
    import: u32,
    /// Number of its parameters.
    parameters: u32,
    /// True where the sizes that it is charged for are 64 bits wide.
    long_sizes: bool,
    price: Price,
}

impl PricedImport {
    /// The import with index `import`, whose name is `name` and whose parameters have these types.
    pub(super) fn new(import: u32, name: &str, parameters: &[wasmparser::ValType]) -> Self {
        let price = Price::of(name);
        let first_size = price.sizes.first().and_then(|size| parameters.get(*size as usize));
        Self {
            import,
            parameters: parameters.len() as u32,
            long_sizes: first_size == Some(&wasmparser::ValType::I64),
            price,
        }
    }

    /// The function that charges and then calls it.
    pub(super) fn body(&self, layout: Layout) -> Function {
        let mut function = Function::new([(1, ValType::I64)]);
        let mut emit = |instructions: &[Instruction<'_>]| {
            for instruction in instructions {
                function.instruction(instruction);
            }
        };
        if !self.price.is_free() {
            self.charge(layout, &mut emit);
        }
        for parameter in 0..self.parameters {
            emit(&[Instruction::LocalGet(parameter)]);
        }
        emit(&[Instruction::Call(self.import), Instruction::End]);
        function
    }

    fn charge(&self, layout: Layout, emit: &mut impl FnMut(&[Instruction<'_>])) {
        let fee = self.parameters;
        self.fee(emit);
        emit(&[Instruction::LocalSet(fee)]);
        self.not_covered(layout, fee, emit);
        emit(&[
            Instruction::If(BlockType::Empty),
            Instruction::I64Const(self.price.fixed as i64),
            Instruction::I64Const(self.price.per_byte as i64),
        ]);
        for position in 0..2 {
            match self.price.sizes.get(position) {
                Some(size) => self.size(*size, emit),
                None => emit(&[Instruction::I64Const(0)]),
            }
        }
        emit(&[
            Instruction::Call(layout.charge_system_call),
            Instruction::Else,
            Instruction::GlobalGet(layout.counter),
            Instruction::LocalGet(fee),
            Instruction::I64Sub,
            Instruction::GlobalSet(layout.counter),
            Instruction::End,
        ]);
    }

    fn fee(&self, emit: &mut impl FnMut(&[Instruction<'_>])) {
        emit(&[Instruction::I64Const(self.price.fixed as i64)]);
        for size in self.price.sizes {
            self.size(*size, emit);
            if self.price.per_byte != 1 {
                emit(&[Instruction::I64Const(self.price.per_byte as i64), Instruction::I64Mul]);
            }
            emit(&[Instruction::I64Add]);
        }
    }

    /// True on the stack where the host has to charge.
    fn not_covered(&self, layout: Layout, fee: u32, emit: &mut impl FnMut(&[Instruction<'_>])) {
        emit(&[
            Instruction::GlobalGet(layout.counter),
            Instruction::LocalGet(fee),
            Instruction::I64LtS,
        ]);
        if self.long_sizes {
            // The fee of a size from 2^32 on is left to arithmetic that does not wrap.
            for size in self.price.sizes {
                emit(&[
                    Instruction::LocalGet(*size),
                    Instruction::I64Const(32),
                    Instruction::I64ShrU,
                    Instruction::I64Const(0),
                    Instruction::I64Ne,
                    Instruction::I32Or,
                ]);
            }
        }
    }
    fn size(&self, parameter: u32, emit: &mut impl FnMut(&[Instruction<'_>])) {
        emit(&[Instruction::LocalGet(parameter)]);
        if !self.long_sizes {
            emit(&[Instruction::I64ExtendI32U]);
        }
    }
}
