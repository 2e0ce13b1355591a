//! Where channels may be scaled: convolutions whose result goes, channel by channel, only into other
//! convolutions.
//!
//! An activation that lets no factor pass, such as a hard swish, is where scaling begins: its result is
//! multiplied by the factors, which costs nothing, as they become factors of the rescale that ends the
//! activation. The result may go into several branches, one of which makes the gate that another is
//! multiplied by (squeeze and excitation).

use std::collections::BTreeSet;
use std::sync::Arc;

use cranelift_entity::SecondaryMap;
use strata_ir::{Attribute, BlockId, Module, Op, OpId, Tensor, ValueId};

use crate::quantise::{Function, is_elementwise};

/// A convolution, and those that read what it computes.
#[derive(Debug)]
pub(super) struct Pair {
    pub producer: OpId,
    /// The activation's result that is scaled, where the producer's own cannot be.
    pub bend: Option<ValueId>,
    /// The value that the consumers read, or what it is before gates are multiplied with it; of several the
    /// largest.
    pub value: ValueId,
    pub consumers: Vec<OpId>,
    /// Convolutions that read smaller values with the same channels.
    pub others: Vec<OpId>,
    /// Clamps from 0 to a bound on the way.
    pub clamps: Vec<OpId>,
    pub n_channels: usize,
}

/// What is computed from a value channel by channel.
#[derive(Default)]
struct Branches {
    /// The values whose channels are scaled.
    scaled: BTreeSet<ValueId>,
    /// Convolutions that read one, and which.
    readers: Vec<(OpId, ValueId)>,
    /// Values that scaled ones are multiplied by.
    gates: Vec<ValueId>,
}

/// The result of an activation.
#[derive(Clone, Copy)]
struct Activation {
    value: ValueId,
    /// Whether no factor passes through it.
    is_bent: bool,
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
    let mut pairs: Vec<Pair> = Vec::new();
    for &op in module.block_ops(block) {
        // Of two that are multiplied with each other one is scaled.
        let pair = search.pair(op).filter(|pair| pairs.iter().all(|other| other.consumers != pair.consumers));
        pairs.extend(pair);
    }
    pairs
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
        let (mut clamps, mut bend) = (Vec::new(), None);
        loop {
            value = match *self.users[value].as_slice() {
                [user] if self.passes_channels(user, value) => self.module.result(user),
                [user] if self.is_bounded_relu(user) => {
                    clamps.push(user);
                    self.module.result(user)
                }
                _ => match self.activation(value) {
                    Some(activation) => {
                        if activation.is_bent {
                            // What comes before is not scaled.
                            clamps.clear();
                            bend = Some(activation.value);
                        }
                        activation.value
                    }
                    None => break,
                },
            };
        }
        let mut branches = Branches::default();
        self.follow(value, &mut branches)?;
        if branches.gates.iter().any(|gate| branches.scaled.contains(gate)) {
            return None;
        }
        let size = |value: ValueId| self.shape(value).iter().product::<usize>();
        let largest = branches.readers.iter().map(|&(_, value)| value).max_by_key(|&value| size(value))?;
        // What a gate leaves of a channel says nothing of the value before it, which has integers of its own.
        let value = if branches.gates.is_empty() { largest } else { value };
        let (mut consumers, mut others) = (Vec::new(), Vec::new());
        for (op, read) in branches.readers {
            if size(read) == size(largest) { consumers.push(op) } else { others.push(op) }
        }
        consumers.sort_unstable();
        consumers.dedup();
        Some(Pair { producer, bend, value, consumers, others, clamps, n_channels })
    }

    /// Follows all that reads a value until convolutions do; `None` if something else comes first.
    fn follow(&self, value: ValueId, branches: &mut Branches) -> Option<()> {
        if !branches.scaled.insert(value) {
            return Some(());
        }
        let users = &self.users[value];
        for &user in users {
            let data = self.module.op(user);
            if data.operands().iter().filter(|&&v| v == value).count() != 1 {
                return None;
            }
            if self.is_constant_convolution(user) {
                branches.readers.push((user, value));
            } else if self.passes_channels(user, value) {
                self.follow(self.module.result(user), branches)?;
            } else if let (Op::Mul(_), &[a, b, _]) = (&data.op, data.operands()) {
                if self.shape(self.module.result(user)) != self.shape(value) {
                    return None;
                }
                branches.gates.push(if a == value { b } else { a });
                self.follow(self.module.result(user), branches)?;
            } else {
                return None;
            }
        }
        (!users.is_empty()).then_some(())
    }

    /// Whether an op computes every channel of its result from the same channel of `value`, linearly or as an
    /// extreme.
    fn passes_channels(&self, op: OpId, value: ValueId) -> bool {
        let data = self.module.op(op);
        let is_input = data.operands().first() == Some(&value);
        let Some(&result) = data.results().first() else { return false };
        let result = self.shape(result);
        let same_channels = || {
            // A reshape that keeps the last axis moves pixels only, whatever the rank.
            let same_rank = result.len() == self.shape(value).len() || matches!(data.op, Op::Reshape(_));
            same_rank && result.last() == self.shape(value).last()
        };
        let moves = match &data.op {
            Op::Reshape(_) => true,
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

    /// The activation of `value`, if all that uses `value` is part of it: the nearest through which positive
    /// factors pass, else the farthest of any kind that is the same for all channels.
    fn activation(&self, value: ValueId) -> Option<Activation> {
        let mut inner = BTreeSet::from([value]);
        let mut pending = self.users[value].clone();
        let mut bent = None;
        while let Some(at) = (0..pending.len()).min_by_key(|&at| self.order[pending[at]]) {
            let op = pending.swap_remove(at);
            pending.retain(|&other| other != op);
            let data = self.module.op(op);
            let result = *data.results().first()?;
            let stays = |v: &ValueId| inner.contains(v) || self.constant(*v).is_some();
            if !is_elementwise(&data.op) || !data.operands().iter().all(stays) {
                break;
            }
            inner.insert(result);
            if pending.is_empty() && self.shape(result) == self.shape(value) {
                let function = Function::between(self.module, &|v| self.constant(v), value, result)?;
                if function.as_two_slopes().is_some() {
                    return Some(Activation { value: result, is_bent: false });
                }
                if function.n_channels() == 1 {
                    bent = Some(Activation { value: result, is_bent: true });
                }
            }
            pending.extend(self.users[result].iter().copied());
        }
        bent
    }
}
