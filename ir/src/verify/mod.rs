//! The verifier: everything that is wrong with a module, not the first thing.
//!
//! It checks
//! - the module holds functions and nothing else, and functions stand nowhere else; their names differ;
//! - every op has as many operands, results and regions as its row says, and every region has one block;
//! - every operand is defined earlier in its block or in a block that encloses it; functions and stages
//!   capture nothing;
//! - `func.return` ends functions and `strata.yield` ends stages and phases, and neither stands anywhere
//!   else;
//! - a function's type is that of its arguments and of its return; `arg_attrs` and `res_attrs` have a
//!   dictionary for each;
//! - a stage's region arguments mirror its operands, none of which is a constant; it holds TOSA ops only and
//!   yields one value of its result's type;
//! - a phase stands in a function, a stage in a function or a phase; a phase yields values of its results'
//!   types;
//! - no tensor that is computed is empty (arguments and constants may be), none is beyond
//!   [`MAX_ELEMENTS`](crate::infer::MAX_ELEMENTS);
//! - the operands of every TOSA op are what [`infer`](mod@crate::infer) takes, and its result type is what
//!   follows.
//!
//! It does not check what serde values of later phases (`code`, `plan`, `strata.*` attributes) mean, which is
//! the affair of the passes that write them, nor the levels and profiles of TOSA, nor whether integer sums
//! overflow.

mod regions;

use std::collections::BTreeMap;

use cranelift_entity::SecondaryMap;

use crate::diag::{Code, Diagnostic, Diagnostics, Place, code};
use crate::dialect::{Arity, Op};
use crate::infer::{infer, is_sane_shape};
use crate::module::{BlockId, Module, OpId, RegionId, ValueId};
use crate::text::print::Names;
use crate::types::Type;

/// Checks a module.
///
/// # Errors
/// Everything that is wrong, in the order of the text, each at its op.
pub fn verify(module: &Module) -> Result<(), Diagnostics> {
    let mut verifier = Verifier {
        module,
        names: None,
        errors: Vec::new(),
        level: 0,
        floor: 0,
        visible: SecondaryMap::new(),
        function: None,
    };
    verifier.op(module.top());
    verifier.function_names();
    if verifier.errors.is_empty() { Ok(()) } else { Err(Diagnostics(verifier.errors)) }
}

struct Verifier<'m> {
    module: &'m Module,
    /// Made when the first error needs them.
    names: Option<Names>,
    errors: Vec<Diagnostic>,
    /// How many regions enclose the present block.
    level: u32,
    /// Values of levels below this are not visible: an isolated region begins here.
    floor: u32,
    /// The level at which a value is defined, 0 if it is not yet or no longer in scope.
    visible: SecondaryMap<ValueId, u32>,
    function: Option<&'m str>,
}

impl<'m> Verifier<'m> {
    fn report(&mut self, op: OpId, code: Code, message: impl Into<String>) {
        self.report_diagnostic(op, Diagnostic::error(code, message));
    }

    fn report_diagnostic(&mut self, op: OpId, diagnostic: Diagnostic) {
        let place = self.place(op);
        self.errors.push(diagnostic.at(place));
    }

    /// `%4 = "tosa.add"(%1, %2) in @main`.
    fn place(&mut self, op: OpId) -> Place {
        let names = self.names.get_or_insert_with(|| Names::of(self.module));
        let data = self.module.op(op);
        let mut text = String::new();
        if let Some(&first) = data.results().first() {
            let name = names.get(first);
            text = format!("{} = ", name.split('#').next().unwrap_or_default());
        }
        let operands: Vec<String> = data.operands().iter().map(|&v| names.get(v)).collect();
        text.push_str(&format!("\"{}\"({})", data.op.name(), operands.join(", ")));
        match (&data.op, self.function) {
            (Op::Func(func), _) => text.push_str(&format!(" @{}", func.sym_name)),
            (_, Some(function)) => text.push_str(&format!(" in @{function}")),
            _ => {}
        }
        Place::of_op(text, &data.loc)
    }

    fn op(&mut self, op: OpId) {
        let data = self.module.op(op);
        if let Op::Func(func) = &data.op {
            self.function = Some(&func.sym_name);
        }
        self.dominance(op);
        if self.counts(op) {
            self.types(op);
            self.structure(op);
        }
        let isolated = matches!(data.op, Op::BuiltinModule(_) | Op::Func(_) | Op::Stage(_));
        for &region in data.regions() {
            self.region(region, isolated);
        }
        for &result in data.results() {
            self.visible[result] = self.level;
        }
        if matches!(data.op, Op::Func(_)) {
            self.function = None;
        }
    }

    fn region(&mut self, region: RegionId, isolated: bool) {
        let outer_floor = self.floor;
        self.level += 1;
        if isolated {
            self.floor = self.level;
        }
        for &block in self.module.region_blocks(region) {
            for &arg in self.module.args(block) {
                self.visible[arg] = self.level;
            }
            for &op in self.module.block_ops(block) {
                self.op(op);
            }
            self.leave(block);
        }
        self.level -= 1;
        self.floor = outer_floor;
    }

    fn leave(&mut self, block: BlockId) {
        for &arg in self.module.args(block) {
            self.visible[arg] = 0;
        }
        for &op in self.module.block_ops(block) {
            for &result in self.module.op(op).results() {
                self.visible[result] = 0;
            }
        }
    }

    fn dominance(&mut self, op: OpId) {
        for (index, &operand) in self.module.op(op).operands().iter().enumerate() {
            let level = self.visible[operand];
            if level == 0 {
                let message = format!("operand {index} is not defined before its use in an enclosing block");
                self.report(op, code::DOMINANCE, message);
            } else if level < self.floor {
                let message =
                    format!("operand {index} is captured from outside a region that may capture nothing");
                let help = "pass it as an operand, or put a copy of the constant inside";
                self.report_diagnostic(op, Diagnostic::error(code::DOMINANCE, message).help(help));
            }
        }
    }

    /// Checks the numbers of operands, results, regions and blocks; the other checks need them right.
    fn counts(&mut self, op: OpId) -> bool {
        let data = self.module.op(op);
        let info = data.op.info();
        let found = self.errors.len();
        let counts = [
            ("operands", info.n_operands, data.operands().len()),
            ("results", info.n_results, data.results().len()),
            ("regions", Arity::Exactly(info.n_regions), data.regions().len()),
        ];
        for (what, want, n) in counts {
            if !want.allows(n) {
                self.report(op, code::ARITY, format!("`{}` has {want} {what}, found {n}", info.name));
            }
        }
        for &region in data.regions() {
            let n = self.module.region_blocks(region).len();
            if n != 1 {
                self.report(op, code::ARITY, format!("the region must have one block, it has {n}"));
            }
        }
        self.errors.len() == found
    }

    fn types(&mut self, op: OpId) {
        let data = self.module.op(op);
        let declared: Vec<Type> = data.results().iter().map(|&v| self.module.ty(v).clone()).collect();
        // What a constant may be is for its own rule.
        let unchecked = matches!(data.op, Op::Const(_));
        for ty in declared.iter().filter(|ty| !unchecked && !is_sane(ty)) {
            self.report(op, code::SHAPE, format!("{ty} is empty or too large"));
        }
        if matches!(data.op, Op::Stage(_) | Op::Phase(_)) {
            return;
        }
        let elem = declared.first().and_then(Type::as_tensor).map(|t| t.elem);
        match infer(self.module, &data.op, data.operands(), elem) {
            Ok(inferred) if inferred == declared => {}
            Ok(inferred) => {
                let message =
                    format!("the result type is {}, it must be {}", list(&declared), list(&inferred));
                self.report(op, code::RESULT_TYPE, message);
            }
            Err(error) => self.report_diagnostic(op, error),
        }
    }

    fn function_names(&mut self) {
        let mut first = BTreeMap::new();
        for func in self.module.functions() {
            if let Op::Func(data) = &self.module.op(func).op
                && first.insert(data.sym_name.as_str(), func).is_some()
            {
                self.report(func, code::FUNCTION, format!("two functions are called @{}", data.sym_name));
            }
        }
    }
}

fn is_sane(ty: &Type) -> bool {
    match ty {
        Type::Tensor(tensor) => is_sane_shape(&tensor.shape),
        Type::Shape(_) => true,
    }
}

fn is_empty(ty: &Type) -> bool {
    ty.as_tensor().is_some_and(|tensor| tensor.shape.contains(&0))
}

fn list(types: &[Type]) -> String {
    match types {
        [one] => one.to_string(),
        many => format!("({})", many.iter().map(Type::to_string).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests;
