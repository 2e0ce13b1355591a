//! Where channels may be scaled: convolutions whose result goes, channel by channel, only into other convolutions.

use std::collections::BTreeSet;
use std::sync::Arc;

use cranelift_entity::SecondaryMap;
use strata_ir::{Attribute, BlockId, Module, Op, OpId, Tensor, ValueId};

use crate::quantise::{Function, is_elementwise};

/// A convolution, and those that read what it computes.
#[derive(Debug)]
pub(super) struct Pair {
    pub producer: OpId,
    /// The value that the consumers read.
    pub value: ValueId,
    pub consumers: Vec<OpId>,
    /// Clamps from 0 to a bound on the way.
    pub clamps: Vec<OpId>,
    pub n_channels: usize,
}

struct Search<'a> {
    module: &'a Module,
    users: SecondaryMap<ValueId, Vec<OpId>>,
    /// The ops in order, by id.
    order: SecondaryMap<OpId, usize>,
}

/// All pairs of a block, in the order of their producers.
pub(super) fn find_pairs(module: &Module, block: BlockId) -> Vec<Pair> {
    let mut search = Search { module, users: module.users(block), order: SecondaryMap::new() };
    for (at, &op) in module.block_ops(block).iter().enumerate() {
        search.order[op] = at;
    }
    module.block_ops(block).iter().filter_map(|&op| search.pair(op)).collect()
}

/// The output channel of each element of a convolution's weights.
pub(super) fn output_channels(module: &Module, conv: OpId) -> Vec<usize> {
    let shape = weight_shape(module, conv);
    let n: usize = shape.iter().product();
    let per_channel = (n / shape.first().copied().unwrap_or(1).max(1)).max(1);
    let last = shape.iter().rev().take(2).product::<usize>().max(1);
    match &module.op(conv).op {
        Op::DepthwiseConv2d(_) => (0..n).map(|i| i % last).collect(),
        _ => (0..n).map(|i| i / per_channel).collect(),
    }
}

/// The input channel of each element of a convolution's weights.
pub(super) fn input_channels(module: &Module, conv: OpId, n_channels: usize) -> Vec<usize> {
    let shape = weight_shape(module, conv);
    let n: usize = shape.iter().product();
    match (&module.op(conv).op, shape.last()) {
        (Op::DepthwiseConv2d(_), Some(&multiplier)) => {
            (0..n).map(|i| i / multiplier.max(1) % n_channels).collect()
        }
        _ => (0..n).map(|i| i % n_channels).collect(),
    }
}

fn weight_shape(module: &Module, conv: OpId) -> Vec<usize> {
    let weight = module.op(conv).operands()[1];
    module.ty(weight).as_tensor().map(|ty| ty.shape.clone()).unwrap_or_default()
}

fn is_convolution(op: &Op) -> bool {
    matches!(op, Op::Conv2d(_) | Op::DepthwiseConv2d(_) | Op::TransposeConv2d(_))
}

impl Search<'_> {
    fn op(&self, op: OpId) -> &Op {
        &self.module.op(op).op
    }

    fn constant(&self, value: ValueId) -> Option<Arc<Tensor>> {
        self.module.constant(value).map(|elements| Arc::clone(&elements.tensor))
    }

    fn shape(&self, value: ValueId) -> &[usize] {
        self.module.ty(value).as_tensor().map_or(&[], |ty| &ty.shape)
    }

    /// Whether an op is a convolution of f32 with constant weights and bias.
    fn is_constant_convolution(&self, op: OpId) -> bool {
        let operands = self.module.op(op).operands();
        is_convolution(self.op(op))
            && operands[1..3].iter().all(|&v| self.constant(v).is_some_and(|t| t.as_f32().is_some()))
    }

    fn pair(&self, producer: OpId) -> Option<Pair> {
        if !self.is_constant_convolution(producer) {
            return None;
        }
        let mut value = self.module.result(producer);
        let n_channels = *self.shape(value).last()?;
        let mut clamps = Vec::new();
        loop {
            let users = &self.users[value];
            let reads = |&user: &OpId| {
                let operands = self.module.op(user).operands();
                self.is_constant_convolution(user) && operands.iter().filter(|&&v| v == value).count() == 1
            };
            if !users.is_empty() && users.iter().all(reads) {
                let mut consumers = users.clone();
                consumers.sort_unstable();
                consumers.dedup();
                return Some(Pair { producer, value, consumers, clamps, n_channels });
            }
            value = match *users.as_slice() {
                [user] if self.passes_channels(user, value) => self.module.result(user),
                [user] if self.is_bounded_relu(user) => {
                    clamps.push(user);
                    self.module.result(user)
                }
                _ => self.activation(value)?,
            };
        }
    }

    /// Whether an op computes every channel of its result from the same channel of `value`, linearly or as an extreme.
    fn passes_channels(&self, op: OpId, value: ValueId) -> bool {
        let data = self.module.op(op);
        let is_input = data.operands().first() == Some(&value);
        let same_channels = || {
            let result = self.shape(self.module.result(op));
            result.len() == self.shape(value).len() && result.last() == self.shape(value).last()
        };
        let moves = match &data.op {
            Op::MaxPool2d(_) | Op::AvgPool2d(_) | Op::Resize(_) | Op::Identity(_) | Op::Slice(_) => true,
            Op::Pad(_) => {
                let fill = data.operands().get(2).and_then(|&v| self.constant(v));
                fill.is_some_and(|t| t.as_f32().is_some_and(|v| v == [0.0]))
            }
            _ => false,
        };
        moves && is_input && same_channels()
    }

    fn is_bounded_relu(&self, op: OpId) -> bool {
        let Op::Clamp(clamp) = self.op(op) else { return false };
        let (Attribute::Float(low, _), Attribute::Float(high, _)) = (&clamp.min_val, &clamp.max_val) else {
            return false;
        };
        *low == 0.0 && *high > 0.0 && *high < f64::from(f32::MAX)
    }

    /// The value that is an activation of `value` through which positive factors pass, if all that uses `value` is
    /// part of that activation.
    fn activation(&self, value: ValueId) -> Option<ValueId> {
        let mut inner = BTreeSet::from([value]);
        let mut pending = self.users[value].clone();
        let mut last = None;
        while let Some(at) = (0..pending.len()).min_by_key(|&at| self.order[pending[at]]) {
            let op = pending.swap_remove(at);
            pending.retain(|&other| other != op);
            let data = self.module.op(op);
            let result = *data.results().first()?;
            let stays = |v: &ValueId| inner.contains(v) || self.constant(*v).is_some();
            if !is_elementwise(&data.op) || !data.operands().iter().all(stays) {
                return None;
            }
            inner.insert(result);
            if pending.is_empty() {
                last = Some(result);
                let function = Function::between(self.module, &|v| self.constant(v), value, result);
                if function.is_some_and(|f| f.as_two_slopes().is_some()) {
                    break;
                }
            }
            pending.extend(self.users[result].iter().copied());
        }
        let last = last?;
        let function = Function::between(self.module, &|v| self.constant(v), value, last)?;
        (function.as_two_slopes().is_some() && self.shape(last) == self.shape(value)).then_some(last)
    }
}
