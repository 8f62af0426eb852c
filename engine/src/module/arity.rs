//! How many operands an operator takes and how many results it leaves, blocks and branches aside.

use super::parsed::Parsed;
use wasmparser::{BlockType, ContType, FrameKind, FuncType, ModuleArity, Operator, RefType, SubType};

/// The module that operators refer to.
#[derive(Clone, Copy)]
pub(super) struct Arity<'m, 'a>(pub &'m Parsed<'a>);

impl Arity<'_, '_> {
    /// Operands and results; nothing for branches, which depend on where they stand.
    pub fn of(self, operator: &Operator<'_>) -> (u32, u32) {
        operator.operator_arity(&self).unwrap_or((0, 0))
    }

    /// Parameters and results of a block.
    pub fn of_block(self, ty: BlockType) -> (u32, u32) {
        self.block_type_arity(ty).unwrap_or((0, 0))
    }
}

impl ModuleArity for Arity<'_, '_> {
    fn sub_type_at(&self, type_index: u32) -> Option<&SubType> {
        self.0.types.get(type_index as usize)
    }

    fn tag_type_arity(&self, _: u32) -> Option<(u32, u32)> {
        None
    }

    fn type_index_of_function(&self, function: u32) -> Option<u32> {
        self.0.type_index_of_function(function)
    }

    fn func_type_of_cont_type(&self, _: &ContType) -> Option<&FuncType> {
        None
    }

    fn sub_type_of_ref_type(&self, _: &RefType) -> Option<&SubType> {
        None
    }

    fn control_stack_height(&self) -> u32 {
        0
    }

    fn label_block(&self, _: u32) -> Option<(BlockType, FrameKind)> {
        None
    }
}
