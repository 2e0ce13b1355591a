//! Where ops may stand, and how regions agree with the ops that own them.

use super::{Verifier, is_empty, is_sane, list};
use crate::attr::Attribute;
use crate::diag::{Diagnostic, code};
use crate::dialect::{Func, Op};
use crate::module::{BlockId, OpId};
use crate::types::Type;

impl Verifier<'_> {
    /// Checks an op whose counts are right.
    pub(super) fn structure(&mut self, op: OpId) {
        let data = self.module.op(op);
        let parent = data.parent().map(|block| &self.module.op(self.module.block_op(block)).op);
        let (is_placed, where_to) = match data.op {
            Op::BuiltinModule(_) => (parent.is_none(), "at the top"),
            Op::Func(_) => (matches!(parent, Some(Op::BuiltinModule(_))), "in the module"),
            Op::FuncReturn(_) => (matches!(parent, Some(Op::Func(_))), "in a function"),
            Op::Phase(_) => (matches!(parent, Some(Op::Func(_))), "in a function"),
            Op::Stage(_) => (matches!(parent, Some(Op::Func(_) | Op::Phase(_))), "in a function or a phase"),
            Op::Yield(_) => (matches!(parent, Some(Op::Stage(_) | Op::Phase(_))), "in a stage or a phase"),
            _ => {
                let in_region = matches!(parent, Some(Op::Func(_) | Op::Phase(_) | Op::Stage(_)));
                (in_region, "in a function, a phase or a stage")
            }
        };
        if !is_placed {
            self.report(op, code::MISPLACED, format!("`{}` must stand {where_to}", data.op.name()));
        }
        let is_last = || data.parent().is_none_or(|block| self.module.terminator(block) == Some(op));
        if data.op.is_terminator() && !is_last() {
            self.report(op, code::TERMINATOR, format!("`{}` must end its block", data.op.name()));
        }
        match &data.op {
            Op::BuiltinModule(_) => self.module_body(op),
            Op::Func(func) => self.function(op, func),
            Op::Stage(_) => self.stage(op),
            Op::Phase(_) => self.phase(op),
            _ => {}
        }
    }

    fn module_body(&mut self, op: OpId) {
        if !self.module.args(self.module.entry_block(op)).is_empty() {
            self.report(op, code::FUNCTION, "the module's block has arguments");
        }
    }

    fn block_types(&self, block: BlockId) -> Vec<Type> {
        self.module.args(block).iter().map(|&v| self.module.ty(v).clone()).collect()
    }

    /// The types that the terminator of an op's block passes on, if `is_right` for it.
    fn terminator_types(
        &mut self,
        op: OpId,
        name: &str,
        is_right: impl Fn(&Op) -> bool,
    ) -> Option<(OpId, Vec<Type>)> {
        let last = self.module.terminator(self.module.entry_block(op));
        match last.filter(|&last| is_right(&self.module.op(last).op)) {
            Some(last) => {
                let operands = self.module.op(last).operands();
                Some((last, operands.iter().map(|&v| self.module.ty(v).clone()).collect()))
            }
            None => {
                self.report(op, code::TERMINATOR, format!("the block must end in `{name}`"));
                None
            }
        }
    }

    fn function(&mut self, op: OpId, func: &Func) {
        if func.sym_name.is_empty() {
            self.report(op, code::FUNCTION, "the function has no name");
        }
        let args = self.block_types(self.module.entry_block(op));
        let ty = &func.function_type;
        if args != ty.inputs {
            let message = format!("the type takes {}, the block has {}", list(&ty.inputs), list(&args));
            self.report(op, code::FUNCTION, message);
        }
        // As a constant, an argument may be empty: ONNX has inputs of no elements. What is computed may not.
        for arg in args.iter().filter(|arg| !is_sane(arg) && !is_empty(arg)) {
            self.report(op, code::SHAPE, format!("{arg} is too large"));
        }
        for (what, attrs, n) in [
            ("arg_attrs", &func.arg_attrs, ty.inputs.len()),
            ("res_attrs", &func.res_attrs, ty.results.len()),
        ] {
            let is_right = match attrs {
                None => true,
                Some(Attribute::Array(items)) => {
                    items.len() == n && items.iter().all(|item| matches!(item, Attribute::Dict(_)))
                }
                Some(_) => false,
            };
            if !is_right {
                self.report(op, code::FUNCTION, format!("{what} must be an array of {n} dictionaries"));
            }
        }
        let returned = self.terminator_types(op, "func.return", |op| matches!(op, Op::FuncReturn(_)));
        if let Some((last, found)) = returned
            && found != ty.results
        {
            let message =
                format!("returns {}, the function's type gives {}", list(&found), list(&ty.results));
            self.report(last, code::FUNCTION, message);
        }
    }

    fn yielded(&mut self, op: OpId) {
        let data = self.module.op(op);
        let want: Vec<Type> = data.results().iter().map(|&v| self.module.ty(v).clone()).collect();
        let found = self.terminator_types(op, "strata.yield", |op| matches!(op, Op::Yield(_)));
        if let Some((last, found)) = found
            && found != want
        {
            let message = format!("yields {}, `{}` gives {}", list(&found), data.op.name(), list(&want));
            self.report(last, code::STAGE, message);
        }
    }

    fn stage(&mut self, op: OpId) {
        let data = self.module.op(op);
        let block = self.module.entry_block(op);
        let operands: Vec<Type> = data.operands().iter().map(|&v| self.module.ty(v).clone()).collect();
        let args = self.block_types(block);
        if operands != args {
            let message = format!("the operands are {}, the block has {}", list(&operands), list(&args));
            self.report(op, code::STAGE, message);
        }
        for (index, &operand) in data.operands().iter().enumerate() {
            if self.module.constant(operand).is_some() {
                let error = Diagnostic::error(code::STAGE, format!("operand {index} is a constant"))
                    .help("a stage's constants stand inside its region");
                self.report_diagnostic(op, error);
            }
        }
        self.yielded(op);
    }

    fn phase(&mut self, op: OpId) {
        if !self.module.args(self.module.entry_block(op)).is_empty() {
            self.report(op, code::STAGE, "a phase's block has no arguments: it captures what it uses");
        }
        self.yielded(op);
    }
}
