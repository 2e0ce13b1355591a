//! The layers of a function of the IR.
//!
//! Until there are stages, a layer is what has the name of one ONNX node as its location; from then on it is
//! a stage, or an op outside of stages, which moves nothing.

use std::collections::{BTreeMap, BTreeSet};

use strata_backend::model::StageGraph;
use strata_ir::{BlockId, Module, Op, OpId, ValueId};

use super::{Counting, Layer, Step, joined};
use crate::work;

/// The layers of a function.
pub(super) fn of_function(module: &Module, func: OpId, counting: Counting) -> Vec<Layer> {
    let mut table = Table { module, counting, units: Vec::new(), unit_of: BTreeMap::new() };
    table.gather(module.entry_block(func), None);
    table.layers(func)
}

/// Ops that are one row, and where they stand.
struct Unit {
    ops: Vec<OpId>,
    phase: Option<u32>,
    stage: Option<u32>,
}

struct Table<'a> {
    module: &'a Module,
    counting: Counting,
    units: Vec<Unit>,
    /// The unit that gives a value.
    unit_of: BTreeMap<ValueId, usize>,
}

impl Table<'_> {
    /// Gathers the units of a block.
    fn gather(&mut self, block: BlockId, phase: Option<u32>) {
        let mut n_phases = 0;
        let mut n_stages = 0;
        let mut of_node: BTreeMap<String, usize> = BTreeMap::new();
        for &op in self.module.block_ops(block) {
            let data = self.module.op(op);
            match &data.op {
                Op::Const(_) | Op::ConstShape(_) => {}
                Op::Phase(_) => {
                    self.gather(self.module.entry_block(op), Some(n_phases));
                    n_phases += 1;
                }
                Op::Stage(_) => {
                    self.push(Unit { ops: vec![op], phase, stage: Some(n_stages) });
                    n_stages += 1;
                }
                // A return or a yield.
                _ if data.results().is_empty() => {}
                _ => {
                    let known = data.loc.name().map(|_| data.loc.to_string());
                    let at = known.as_ref().and_then(|node| of_node.get(node).copied());
                    match at {
                        Some(at) => self.extend(at, op),
                        None => {
                            let at = self.push(Unit { ops: vec![op], phase, stage: None });
                            of_node.extend(known.map(|node| (node, at)));
                        }
                    }
                }
            }
        }
    }

    fn push(&mut self, unit: Unit) -> usize {
        let at = self.units.len();
        for &op in &unit.ops {
            self.unit_of.extend(self.module.op(op).results().iter().map(|&value| (value, at)));
        }
        self.units.push(unit);
        at
    }

    fn extend(&mut self, at: usize, op: OpId) {
        self.units[at].ops.push(op);
        self.unit_of.extend(self.module.op(op).results().iter().map(|&value| (value, at)));
    }

    fn bytes(&self, value: ValueId) -> u64 {
        self.module.ty(value).as_tensor().map_or(0, |ty| self.counting.bytes(ty))
    }

    /// The constants that an op uses, those of its region among them.
    fn constants(&self, op: OpId) -> Vec<ValueId> {
        let mut ops = vec![op];
        for &region in self.module.op(op).regions() {
            let blocks = self.module.region_blocks(region);
            ops.extend(blocks.iter().flat_map(|&block| self.module.walk(block)));
        }
        let operands = ops.iter().flat_map(|&op| self.module.op(op).operands());
        operands.copied().filter(|&value| self.module.constant(value).is_some()).collect()
    }

    /// The activations that a unit reads from elsewhere.
    fn reads(&self, at: usize) -> BTreeSet<ValueId> {
        let operands = self.units[at].ops.iter().flat_map(|&op| self.module.op(op).operands());
        let is_read = |value: &ValueId| {
            self.unit_of.get(value) != Some(&at)
                && self
                    .module
                    .defining_op(*value)
                    .is_none_or(|op| !matches!(self.module.op(op).op, Op::Const(_) | Op::ConstShape(_)))
        };
        operands.copied().filter(is_read).collect()
    }

    fn layers(&self, func: OpId) -> Vec<Layer> {
        let reads: Vec<BTreeSet<ValueId>> = (0..self.units.len()).map(|at| self.reads(at)).collect();
        let last_use = self.last_uses(func, &reads);
        let live = self.live(func, &last_use);
        let codes = self.stage_macs(func);
        let mut seen = BTreeSet::new();
        let mut weights_so_far = 0;
        let mut layers = Vec::with_capacity(self.units.len());
        for (at, unit) in self.units.iter().enumerate() {
            let constants: BTreeSet<ValueId> = unit.ops.iter().flat_map(|&op| self.constants(op)).collect();
            let weight_bytes = constants.iter().map(|&value| self.bytes(value)).sum();
            let new = constants.into_iter().filter(|value| seen.insert(*value));
            weights_so_far += new.map(|value| self.bytes(value)).sum::<u64>();
            let mut layer = self.named(unit);
            let written = self.written(unit, at, &last_use);
            if let Some(ty) = written.last().and_then(|&value| self.module.ty(value).as_tensor()) {
                (layer.shape, layer.dtype) = (ty.shape.clone(), ty.elem.to_string());
            }
            layer.macs = unit.ops.iter().map(|&op| self.macs(op, &codes)).sum();
            layer.input_bytes = reads[at].iter().map(|&value| self.bytes(value)).sum();
            layer.output_bytes = written.iter().map(|&value| self.bytes(value)).sum();
            (layer.weight_bytes, layer.weight_bytes_so_far) = (weight_bytes, weights_so_far);
            layer.live_bytes = live.as_ref().map(|live| live[at]);
            (layer.phase, layer.stage) = (unit.phase, unit.stage);
            layers.push(layer);
        }
        layers
    }

    /// The results of a unit that others use; all of them if none is used.
    fn written(&self, unit: &Unit, at: usize, last_use: &BTreeMap<ValueId, usize>) -> Vec<ValueId> {
        let results = || unit.ops.iter().flat_map(|&op| self.module.op(op).results()).copied();
        let used: Vec<ValueId> =
            results().filter(|value| last_use.get(value).is_some_and(|&last| last > at)).collect();
        if used.is_empty() { results().collect() } else { used }
    }

    /// The last unit that reads each value; beyond all units where the function returns it.
    fn last_uses(&self, func: OpId, reads: &[BTreeSet<ValueId>]) -> BTreeMap<ValueId, usize> {
        let mut last = BTreeMap::new();
        for (at, values) in reads.iter().enumerate() {
            last.extend(values.iter().map(|&value| (value, at)));
        }
        // What a return or a yield hands on is used beyond.
        for op in self.module.walk(self.module.entry_block(func)) {
            let data = self.module.op(op);
            if data.results().is_empty() {
                last.extend(data.operands().iter().map(|&value| (value, self.units.len())));
            }
        }
        last
    }

    /// Bytes that are alive at each unit, as long as units run one at a time in their order. What only its
    /// own unit uses has no memory of its own.
    fn live(&self, func: OpId, last_use: &BTreeMap<ValueId, usize>) -> Option<Vec<u64>> {
        if self.units.iter().any(|unit| unit.phase.is_some()) {
            return None;
        }
        let arguments = self.module.args(self.module.entry_block(func)).iter().map(|&value| (value, 0));
        let units = self.units.iter().enumerate();
        let made = units.flat_map(|(at, unit)| {
            self.written(unit, at, last_use).into_iter().map(move |value| (value, at))
        });
        let mut live = vec![0; self.units.len()];
        for (value, first) in arguments.chain(made) {
            let last = last_use.get(&value).copied().unwrap_or(first);
            let until = (last + 1).min(live.len());
            live.get_mut(first..until).into_iter().flatten().for_each(|sum| *sum += self.bytes(value));
        }
        Some(live)
    }

    /// What the code of each stage multiplies, which is what the machine does and statistics count.
    fn stage_macs(&self, func: OpId) -> BTreeMap<OpId, u64> {
        let graph = StageGraph::from_module(self.module, func).unwrap_or_default();
        graph.stages.values().map(|node| (node.op, node.code.macs_direct())).collect()
    }

    fn macs(&self, op: OpId, codes: &BTreeMap<OpId, u64>) -> u64 {
        if let Some(macs) = codes.get(&op) {
            return *macs;
        }
        let inner = self.module.op(op).regions().iter().flat_map(|&region| self.module.region_blocks(region));
        let inner: u64 =
            inner.flat_map(|&block| self.module.walk(block)).map(|op| work::macs_of(self.module, op)).sum();
        inner + work::macs_of(self.module, op)
    }

    /// A row with the names of a unit and its ops.
    fn named(&self, unit: &Unit) -> Layer {
        let mut steps = Vec::new();
        for &op in &unit.ops {
            let data = self.module.op(op);
            if !matches!(data.op, Op::Stage(_)) {
                steps.push(Step::new(data.op.name(), &data.loc));
                continue;
            }
            for inner in self.module.walk(self.module.entry_block(op)) {
                let data = self.module.op(inner);
                let is_step = !matches!(data.op, Op::Const(_) | Op::ConstShape(_));
                if is_step && !data.results().is_empty() {
                    steps.push(Step::new(data.op.name(), &data.loc));
                }
            }
        }
        let first = unit.ops.first().map(|&op| self.module.op(op));
        let name = match first.map(|data| &data.op) {
            Some(Op::Stage(row)) => row.name.clone(),
            _ => steps.first().map_or_else(String::new, |step| step.node.clone()),
        };
        Layer { name, op: joined(steps.iter().map(|step| step.op.as_str())), ops: steps, ..Layer::default() }
    }
}
