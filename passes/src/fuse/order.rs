//! The order in which stages are numbered: it goes by the data flow alone, so that no plan depends on the
//! order in which a file has its nodes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use strata_ir::{BlockId, Module, OpId, ValueId};

/// The ops of a block in an order of the data flow: of some walks, the one in which the fewest bytes wait to
/// be read, on average. What leads to no result stands behind, as it did.
pub fn by_data_flow(module: &Module, block: BlockId) -> Vec<OpId> {
    let flow = Flow::new(module, block);
    let walks = [flow.depth_first(false), flow.depth_first(true), flow.fewest_waiting()];
    // Of equals, the first.
    walks.into_iter().min_by_key(|order| flow.waiting_bytes(order)).unwrap_or_default()
}

/// The ops of a block, and who reads what.
struct Flow<'a> {
    module: &'a Module,
    ops: &'a [OpId],
    readers: BTreeMap<ValueId, BTreeSet<OpId>>,
}

impl<'a> Flow<'a> {
    fn new(module: &'a Module, block: BlockId) -> Self {
        let ops = module.block_ops(block);
        let mut readers: BTreeMap<ValueId, BTreeSet<OpId>> = BTreeMap::new();
        for &op in ops {
            for &operand in module.op(op).operands() {
                readers.entry(operand).or_default().insert(op);
            }
        }
        Self { module, ops, readers }
    }

    /// From the results back, depth first: each op after what its operands come from, in the order of the
    /// operands or from the last to the first. Branches stand one after another.
    fn depth_first(&self, from_last: bool) -> Vec<OpId> {
        let Some((&terminator, others)) = self.ops.split_last() else { return Vec::new() };
        let mut order = Vec::with_capacity(self.ops.len());
        let mut seen = BTreeSet::new();
        let mut path = Vec::new();
        for start in std::iter::once(terminator).chain(others.iter().copied()) {
            path.extend(seen.insert(start).then_some((start, 0)));
            while let Some((op, n_visited)) = path.pop() {
                let operands = self.module.op(op).operands();
                let next =
                    if from_last { operands.iter().rev().nth(n_visited) } else { operands.get(n_visited) };
                let Some(&operand) = next else {
                    order.extend(Some(op).filter(|&op| op != terminator));
                    continue;
                };
                path.push((op, n_visited + 1));
                let before = self.module.defining_op(operand).filter(|&op| seen.insert(op));
                path.extend(before.map(|op| (op, 0)));
            }
        }
        order.push(terminator);
        order
    }

    /// At each step the op after which the fewest bytes wait to be read; of equals, the one whose operands
    /// came last.
    fn fewest_waiting(&self) -> Vec<OpId> {
        let in_depth = self.depth_first(false);
        let Some((&terminator, others)) = in_depth.split_last() else { return Vec::new() };
        let (mut order, others): (Vec<OpId>, Vec<OpId>) =
            others.iter().partition(|&&op| self.module.op(op).op.is_constant());
        let mut left = self.readers.clone();
        let mut made: BTreeMap<OpId, usize> = order.iter().map(|&op| (op, 0)).collect();
        let mut waits: Vec<OpId> = others;
        while !waits.is_empty() {
            let before = |op: OpId| {
                let operands = self.module.op(op).operands().iter();
                operands.filter_map(|&operand| self.module.defining_op(operand))
            };
            let ready =
                waits.iter().enumerate().filter(|(_, op)| before(**op).all(|op| made.contains_key(&op)));
            let best = ready.min_by_key(|&(at, &op)| {
                let last = before(op).map(|op| made[&op]).max();
                (self.growth(op, &left), Reverse(last), at)
            });
            let (at, _) = best.expect("a graph without cycles always has an op that is ready");
            let op = waits.remove(at);
            made.insert(op, order.len());
            order.push(op);
            self.read(op, &mut left);
        }
        order.push(terminator);
        order
    }

    /// By how many bytes what waits to be read grows when an op runs.
    fn growth(&self, op: OpId, left: &BTreeMap<ValueId, BTreeSet<OpId>>) -> i64 {
        let made: i64 = self.module.op(op).results().iter().map(|&result| self.bytes(result)).sum();
        let operands: BTreeSet<ValueId> = self.module.op(op).operands().iter().copied().collect();
        let is_last = |operand: &ValueId| left.get(operand).is_some_and(|readers| readers.len() == 1);
        let freed: i64 = operands.into_iter().filter(is_last).map(|operand| self.bytes(operand)).sum();
        made - freed
    }

    /// Takes an op from those that have yet to read its operands.
    fn read(&self, op: OpId, left: &mut BTreeMap<ValueId, BTreeSet<OpId>>) {
        for operand in self.module.op(op).operands() {
            left.entry(*operand).or_default().remove(&op);
        }
    }

    /// Bytes of a value, but for constants.
    fn bytes(&self, value: ValueId) -> i64 {
        let is_constant = |op: OpId| self.module.op(op).op.is_constant();
        if self.module.defining_op(value).is_some_and(is_constant) {
            return 0;
        }
        self.module.ty(value).as_tensor().map_or(0, |ty| ty.size_bytes() as i64)
    }

    /// The bytes that wait to be read after each op of an order, in all.
    fn waiting_bytes(&self, order: &[OpId]) -> i64 {
        let mut left = self.readers.clone();
        let (mut waiting, mut all) = (0, 0);
        for &op in order {
            waiting += self.growth(op, &left);
            all += waiting;
            self.read(op, &mut left);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use strata_ir::text::parse;

    use super::*;

    #[test]
    fn the_order_of_a_file_does_not_matter() {
        // Two branches, one of two ops, and an op that leads nowhere.
        let head = "func.func @main(%x: tensor<1x2x2x4xf32>) -> tensor<1x2x2x4xf32> {\n";
        let ops = [
            "%long = tosa.abs %x : (tensor<1x2x2x4xf32>) -> tensor<1x2x2x4xf32>\n",
            "%longer = tosa.exp %long : (tensor<1x2x2x4xf32>) -> tensor<1x2x2x4xf32>\n",
            "%short = tosa.log %x : (tensor<1x2x2x4xf32>) -> tensor<1x2x2x4xf32>\n",
            "%nowhere = tosa.ceil %x : (tensor<1x2x2x4xf32>) -> tensor<1x2x2x4xf32>\n",
        ];
        let tail = "%sum = tosa.add %short, %longer : (tensor<1x2x2x4xf32>, tensor<1x2x2x4xf32>) \
            -> tensor<1x2x2x4xf32>\n return %sum : tensor<1x2x2x4xf32>\n}\n";
        for order in [[0, 1, 2, 3], [3, 2, 0, 1], [0, 2, 3, 1]] {
            let text: String = order.iter().map(|&at| ops[at]).collect();
            let mut module = parse(&format!("{head}{text}{tail}"), None).expect("it is a module");
            let block = module.entry_block(module.function("main").expect("it has a function"));
            let order = by_data_flow(&module, block);
            module.set_block_order(block, order);
            let names = module.block_ops(block).iter().map(|&op| module.op(op).op.name().to_owned());
            let names: Vec<String> = names.collect();
            assert_eq!(names, ["tosa.abs", "tosa.exp", "tosa.log", "tosa.add", "tosa.ceil", "func.return"]);
        }
    }
}
