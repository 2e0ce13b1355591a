//! What quantisation decides before it rewrites anything: what is constant, which subgraphs are functions of
//! one value, what the machine cannot run, and which scale every value has.

mod groups;
mod split;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cranelift_entity::SecondaryMap;
use rayon::prelude::*;
use strata_ir::fold::fold;
use strata_ir::pass::PassError;
use strata_ir::{BlockId, ElemType, Module, Op, OpId, Tensor, ValueId};

use crate::quantise::analyse::groups::Groups;
use crate::quantise::function::{Function, OnlyFunction, channel_values, data_operands, is_elementwise};
use crate::quantise::histogram::Ranges;
use crate::quantise::kinds::{is_mac, keeps_scale, rescales};
use crate::quantise::outputs::{self, ChannelRanges};
use crate::quantise::params::Range;
use crate::quantise::table16::Table16;
use crate::quantise::{QuantParams, thin};

/// A value that is computed by looking up a function of another.
#[derive(Debug)]
pub(super) struct Lookup {
    /// The value it is a function of.
    pub base: ValueId,
    pub function: Function,
}

/// How the producer of a value also computes the only function of it that is used.
#[derive(Clone, Copy, Debug)]
enum Fused {
    /// Saturation of the producer's rescale clamps.
    Clamp(ValueId),
    /// The producer's integers stand for numbers greater by this factor.
    Gain(ValueId, f64),
}

impl Fused {
    /// The function's value, and by how much its numbers are greater than the producer's.
    fn result(self) -> (ValueId, f64) {
        match self {
            Self::Clamp(value) => (value, 1.0),
            Self::Gain(value, gain) => (value, gain),
        }
    }
}

/// Which values are to be `i16`.
struct WideWishes<'a> {
    /// Whether one is, with all that shares its scale.
    is_wide: &'a dyn Fn(ValueId) -> bool,
    /// Those that are if all that shares their scale is among them.
    thin: &'a BTreeSet<ValueId>,
    /// Those that are, with all that shares their scale, if no product reads any of it.
    exponents: &'a BTreeSet<ValueId>,
}

/// What is decided before the scales are.
struct Decided<'a> {
    ops: &'a [OpId],
    args: &'a [ValueId],
    results: &'a [ValueId],
    anchored: &'a BTreeSet<ValueId>,
    lookups: &'a BTreeMap<ValueId, Lookup>,
    fused: &'a BTreeMap<ValueId, Fused>,
    wide: &'a BTreeSet<ValueId>,
    wishes: &'a WideWishes<'a>,
}

/// The range that a scale is to cover.
enum Wanted<'a> {
    /// This one, if there is one.
    Known(Option<Range>),
    /// That by which a function of the value, which alone is used of it, loses least.
    Through(OnlyFunction<'a>),
}

/// The decisions.
#[derive(Debug)]
pub(super) struct QuantPlan {
    pub constants: SecondaryMap<ValueId, Option<Arc<Tensor>>>,
    /// Ops that the machine runs, in order: live, not constant.
    pub ops: Vec<OpId>,
    /// Ops that the host runs, in order.
    pub host_ops: Vec<OpId>,
    /// What `@main` returns: the function's results and what the host needs, each once.
    pub results: Vec<ValueId>,
    /// Functions of one value that have to be computed, by their result.
    pub lookups: BTreeMap<ValueId, Lookup>,
    /// Results of elementwise ops that are steps within a function and need not be computed.
    pub inner: BTreeSet<ValueId>,
    pub params: BTreeMap<ValueId, QuantParams>,
    /// The values that share a scale, by one of them.
    pub groups: BTreeMap<ValueId, Vec<ValueId>>,
    /// Values that a function alone uses and that no stage stores.
    internal: BTreeSet<ValueId>,
    /// Sums that another sum takes in `i32`.
    pub wide: BTreeSet<ValueId>,
    /// Values that the model itself rounds, in single precision.
    pub rounded: BTreeSet<ValueId>,
    /// Results that are `i16` since their parts differ so much in range.
    pub uneven: BTreeSet<ValueId>,
    /// Values that are `i16` whatever was wished, since that costs next to nothing.
    pub wide_by_design: BTreeSet<ValueId>,
}

impl QuantPlan {
    pub(super) fn constant(&self, value: ValueId) -> Option<Arc<Tensor>> {
        self.constants[value].clone()
    }

    /// Whether a value is only there for a function to be applied to.
    pub(super) fn is_internal(&self, value: ValueId) -> bool {
        self.internal.contains(&value)
    }
}

/// Whether an op says something true or false of two values, or joins two such statements.
fn is_statement(op: &Op) -> bool {
    matches!(
        op,
        Op::Equal(_)
            | Op::Greater(_)
            | Op::GreaterEqual(_)
            | Op::LogicalAnd(_)
            | Op::LogicalOr(_)
            | Op::LogicalXor(_)
    )
}

/// The values that share a scale, by one of them.
type Groupings = BTreeMap<ValueId, Vec<ValueId>>;

struct Analysis<'a> {
    module: &'a Module,
    /// Values whose integers the model itself fixes.
    fixed: &'a BTreeMap<ValueId, QuantParams>,
    constants: SecondaryMap<ValueId, Option<Arc<Tensor>>>,
    /// Live ops that are no constants, in order, without the terminator.
    live: Vec<OpId>,
    /// Live ops that use a value.
    users: SecondaryMap<ValueId, Vec<OpId>>,
    returned: Vec<ValueId>,
    ranges: &'a Ranges<'a>,
    /// Ranges of whole numbers that follow from their types.
    whole: BTreeMap<ValueId, Range>,
    /// The values that stand for numbers which scaled integers can hold: floats, and what is computed of them
    /// as whole numbers or as true (1) and false (0).
    numbers: BTreeSet<ValueId>,
    /// For the result of an elementwise op that is a function of one value: the first such value.
    leaf: SecondaryMap<ValueId, Option<ValueId>>,
}

/// What is known and wanted of values.
pub(super) struct Wishes<'a> {
    /// The integers that the model itself fixes; all other values need a range.
    pub fixed: &'a BTreeMap<ValueId, QuantParams>,
    /// The range that `i8` shall cover, and all that was seen, which `i16` covers.
    pub ranges: &'a Ranges<'a>,
    /// Whether a value shall be `i16`; what shares its scale then is too.
    pub is_wide: &'a dyn Fn(ValueId) -> bool,
    /// The channels of the parts of outputs.
    pub channels: BTreeMap<ValueId, &'a ChannelRanges>,
}

/// Decides how `block`, the body of `@main`, becomes integers.
///
/// # Errors
/// Every op that neither the machine nor the host can take, or values without a range.
pub(super) fn analyse(module: &Module, block: BlockId, wishes: &Wishes<'_>) -> Result<QuantPlan, PassError> {
    let mut analysis = Analysis::new(module, block, wishes);
    let host = analysis.split()?;
    let (host_ops, ops): (Vec<_>, Vec<_>) = analysis.live.iter().copied().partition(|op| host.contains(op));

    let mut results = Vec::new();
    let from_host = |value: ValueId| module.defining_op(value).is_some_and(|op| host.contains(&op));
    let host_operands = host_ops.iter().flat_map(|&op| module.op(op).operands().iter().copied());
    for value in analysis.returned.iter().copied().chain(host_operands) {
        if !from_host(value) && analysis.constants[value].is_none() && !results.contains(&value) {
            results.push(value);
        }
    }

    let anchored = analysis.anchored(&ops, &results);
    let lookups = analysis.lookups(&ops, &anchored);
    let wide = analysis.wide_sums(&ops, &results);
    let fused = analysis.fused(&lookups, &anchored);
    // A model that fixes scales fixes those of its outputs too.
    let uneven = match wishes.fixed.is_empty() {
        true => outputs::uneven(module, &results, wishes.ranges, &wishes.channels),
        false => BTreeSet::new(),
    };
    let thin = analysis.thin(&ops, &results);
    let exponents = thin::exponents(module, &ops);
    let is_wide = |value| (wishes.is_wide)(value) || uneven.contains(&value);
    let wide_wishes = WideWishes { is_wide: &is_wide, thin: &thin, exponents: &exponents };
    let (mut params, groups) = analysis.params(&Decided {
        ops: &ops,
        args: module.args(block),
        results: &results,
        anchored: &anchored,
        lookups: &lookups,
        fused: &fused,
        wide: &wide,
        wishes: &wide_wishes,
    })?;
    let is_wished = |values: &&Vec<ValueId>| values.iter().any(|&value| (wide_wishes.is_wide)(value));
    let is_wide = |value: &ValueId| params.get(value).is_some_and(|params| params.elem == ElemType::I16);
    let by_design = groups.values().filter(|values| !is_wished(values)).flatten();
    let wide_by_design = by_design.copied().filter(|value| is_wide(value)).collect();
    let internal = analysis.internal(&lookups, &anchored);
    for (base, wider) in analysis.looked_up_wide(&lookups, &internal, &params) {
        params.insert(base, wider);
    }
    let inner = (ops.iter())
        .map(|&op| module.result(op))
        .filter(|&value| analysis.leaf[value].is_some() && !anchored.contains(&value))
        .collect();
    Ok(QuantPlan {
        constants: analysis.constants,
        ops,
        host_ops,
        results,
        lookups,
        inner,
        params,
        groups,
        internal,
        wide,
        rounded: wishes.fixed.keys().copied().collect(),
        uneven,
        wide_by_design,
    })
}

impl<'a> Analysis<'a> {
    fn new(module: &'a Module, block: BlockId, wishes: &Wishes<'a>) -> Self {
        let mut constants: SecondaryMap<ValueId, Option<Arc<Tensor>>> = SecondaryMap::new();
        let mut returned = Vec::new();
        for &op in module.block_ops(block) {
            let data = module.op(op);
            if let Some(elements) = data.op.constant() {
                constants[module.result(op)] = Some(Arc::clone(&elements.tensor));
            } else if data.op.is_terminator() {
                returned = data.operands().to_vec();
            } else if let Some(tensor) = fold(module, op, |value| constants[value].as_deref()) {
                constants[module.result(op)] = Some(Arc::new(tensor));
            }
        }
        let mut needed: BTreeSet<ValueId> = returned.iter().copied().collect();
        let mut live = Vec::new();
        for &op in module.block_ops(block).iter().rev() {
            let data = module.op(op);
            let is_needed = data.results().iter().any(|v| needed.contains(v) && constants[*v].is_none());
            if is_needed && !data.op.is_terminator() {
                needed.extend(data.operands());
                live.push(op);
            }
        }
        live.reverse();
        let mut users: SecondaryMap<ValueId, Vec<OpId>> = SecondaryMap::new();
        for &op in &live {
            for &operand in module.op(op).operands() {
                if !users[operand].contains(&op) {
                    users[operand].push(op);
                }
            }
        }
        let (fixed, ranges) = (wishes.fixed, wishes.ranges);
        let (numbers, leaf) = (BTreeSet::new(), SecondaryMap::new());
        let whole = BTreeMap::new();
        let mut analysis =
            Self { module, fixed, constants, live, users, returned, ranges, whole, numbers, leaf };
        analysis.find_numbers(module.args(block), &BTreeSet::new());
        analysis
    }

    /// Finds the values that stand for numbers; `opaque` are none, whatever they are computed of.
    fn find_numbers(&mut self, args: &[ValueId], opaque: &BTreeSet<ValueId>) {
        // Whole numbers of 8 and 16 bits have become floats of a fixed scale.
        let is_number = |value: &ValueId| matches!(self.elem(*value), Some(ElemType::F32 | ElemType::I1));
        let mut numbers: BTreeSet<ValueId> = args.iter().copied().filter(is_number).collect();
        for &op in &self.live {
            let result = self.module.result(op);
            let keeps_numbers = match self.elem(result) {
                Some(ElemType::F32) => true,
                Some(ElemType::I1 | ElemType::I32) => {
                    let kind = self.op(op);
                    let is_of_numbers = is_elementwise(kind)
                        || keeps_scale(kind)
                        || matches!(kind, Op::Concat(_) | Op::ReduceSum(_));
                    is_of_numbers && self.variables(op).all(|value| numbers.contains(&value))
                }
                _ => false,
            };
            if keeps_numbers && !opaque.contains(&result) {
                numbers.insert(result);
            }
        }
        self.numbers = numbers;
    }

    fn op(&self, op: OpId) -> &'a Op {
        &self.module.op(op).op
    }

    fn constant(&self, value: ValueId) -> Option<Arc<Tensor>> {
        self.constants[value].clone()
    }

    fn elem(&self, value: ValueId) -> Option<ElemType> {
        self.module.ty(value).as_tensor().map(|ty| ty.elem)
    }

    /// The data operands of an op that are not constant.
    fn variables(&self, op: OpId) -> impl Iterator<Item = ValueId> {
        let data = self.module.op(op);
        let operands = data_operands(&data.op, data.operands());
        operands.iter().copied().filter(|&value| self.constants[value].is_none())
    }

    fn function(&self, base: ValueId, value: ValueId) -> Option<Function> {
        let function = Function::between(self.module, &|v| self.constant(v), base, value)?;
        if self.elem(value) != Some(ElemType::F32) && function.n_channels > 1 {
            return None;
        }
        let has_form = function.n_channels == 1
            || function.as_two_slopes().is_some()
            || function.as_gained().is_some()
            || function.as_clamp().is_some_and(|bounds| self.is_within(value, bounds));
        has_form.then_some(function)
    }

    /// Whether the range of a value lies within bounds: what tighter bounds of single channels would cut is
    /// then cut by saturation.
    fn is_within(&self, value: ValueId, (low, high): (f64, f64)) -> bool {
        let within = |range: Range| {
            let slack = 1e-5 * f64::from(range.low.abs().max(range.high.abs()));
            f64::from(range.low) >= low - slack && f64::from(range.high) <= high + slack
        };
        self.ranges.chosen(value).is_some_and(within)
    }

    fn find_functions(&mut self) {
        for at in 0..self.live.len() {
            let op = self.live[at];
            if !is_elementwise(self.op(op)) {
                continue;
            }
            let value = self.module.result(op);
            // A value that the model rounds is needed as such: no function goes through it.
            let leaf = |v| if self.fixed.contains_key(&v) { v } else { self.leaf[v].unwrap_or(v) };
            let leaves: BTreeSet<_> = self.variables(op).map(leaf).collect();
            let Some(&leaf) = leaves.first().filter(|_| leaves.len() == 1) else { continue };
            let shape = |v| self.module.ty(v).as_tensor().map(|ty| &ty.shape);
            if shape(leaf) == shape(value)
                && self.numbers.contains(&leaf)
                && self.numbers.contains(&value)
                && self.constants_are_small(op)
                && self.function(leaf, value).is_some()
            {
                self.leaf[value] = Some(leaf);
            }
        }
    }

    fn constants_are_small(&self, op: OpId) -> bool {
        let operands = self.module.op(op).operands();
        operands.iter().filter_map(|&v| self.constant(v)).all(|tensor| channel_values(&tensor).is_some())
    }

    /// Why the machine has no integer form of an op, if it has none.
    fn obstacle(&self, op: OpId) -> Option<&'static str> {
        let data = self.module.op(op);
        let result = *data.results().first()?;
        let constant_from =
            |first: usize| data.operands()[first..].iter().all(|&v| self.constants[v].is_some());
        if self.leaf[result].is_some() {
            return None;
        }
        if self.variables(op).any(|v| !self.numbers.contains(&v)) {
            return Some("only f32 values can be quantised");
        }
        match &data.op {
            Op::Argmax(_) => None,
            _ if !self.numbers.contains(&result) => Some("only f32 values can be quantised"),
            Op::Conv2d(_) | Op::DepthwiseConv2d(_) | Op::TransposeConv2d(_) => {
                (!constant_from(1)).then_some("weights and bias must be constant")
            }
            Op::Reshape(_)
            | Op::Slice(_)
            | Op::Pad(_)
            | Op::Tile(_)
            | Op::Resize(_)
            | Op::Gather(_)
            | Op::AvgPool2d(_) => (!constant_from(1)).then_some("all but the input must be constant"),
            op if is_statement(op) || matches!(op, Op::Select(_)) => None,
            other if rescales(other) || keeps_scale(other) || matches!(other, Op::Concat(_)) => None,
            _ => Some("there is no integer form of it"),
        }
    }

    /// The values that are needed as such: by ops that are no steps of a function, and as results.
    fn anchored(&self, ops: &[OpId], results: &[ValueId]) -> BTreeSet<ValueId> {
        let mut anchored: BTreeSet<_> = results.iter().copied().collect();
        for &op in ops {
            let result = self.module.result(op);
            if self.leaf[result].is_none() {
                anchored.extend(self.variables(op));
            }
            anchored.extend(self.fixed.contains_key(&result).then_some(result));
        }
        anchored
    }

    /// The functions to compute, each of the nearest value that has to be computed anyway.
    fn lookups(&self, ops: &[OpId], anchored: &BTreeSet<ValueId>) -> BTreeMap<ValueId, Lookup> {
        let mut nearest: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        let mut lookups = BTreeMap::new();
        for &op in ops {
            let value = self.module.result(op);
            let Some(leaf) = self.leaf[value] else { continue };
            let base = |v: ValueId| {
                let inner = self.leaf[v].is_some() && !anchored.contains(&v);
                if inner { nearest.get(&v).copied().unwrap_or(v) } else { v }
            };
            let bases: BTreeSet<_> = self.variables(op).map(base).collect();
            let near = bases.first().copied().filter(|_| bases.len() == 1);
            // From integers that are known exactly a value is rounded once, not by way of another.
            let is_exact = self.fixed.contains_key(&value) && self.fixed.contains_key(&leaf);
            let from = |base: ValueId| self.function(base, value).map(|function| (base, function));
            let far = || from(leaf);
            let found = if is_exact { far() } else { near.and_then(from).or_else(far) };
            let Some((base, function)) = found else { continue };
            nearest.insert(value, base);
            if anchored.contains(&value) {
                lookups.insert(value, Lookup { base, function });
            }
        }
        lookups
    }

    fn wide_sums(&self, ops: &[OpId], results: &[ValueId]) -> BTreeSet<ValueId> {
        let is_sum = |op: &OpId| matches!(self.op(*op), Op::ReduceSum(_));
        let is_wide = |value: &ValueId| {
            matches!(self.users[*value].as_slice(), [user] if is_sum(user)) && !results.contains(value)
        };
        ops.iter().filter(|op| is_sum(op)).map(|&op| self.module.result(op)).filter(is_wide).collect()
    }

    fn fused(
        &self,
        lookups: &BTreeMap<ValueId, Lookup>,
        anchored: &BTreeSet<ValueId>,
    ) -> BTreeMap<ValueId, Fused> {
        let mut by_base: BTreeMap<ValueId, Vec<ValueId>> = BTreeMap::new();
        for (&value, lookup) in lookups {
            by_base.entry(lookup.base).or_default().push(value);
        }
        let mut fused = BTreeMap::new();
        for (base, values) in by_base {
            let [value] = values.as_slice() else { continue };
            let can_rescale = self.takes_scale_of(base, *value, lookups) && self.leaf[base].is_none();
            if !can_rescale || anchored.contains(&base) {
                continue;
            }
            let function = &lookups[value].function;
            if function.as_clamp().is_some() {
                fused.insert(base, Fused::Clamp(*value));
            } else if let Some(gain) = function.as_gain() {
                fused.insert(base, Fused::Gain(*value, gain));
            }
        }
        fused
    }

    /// The values that one function alone is applied to, right after sums that are rescaled.
    fn internal(
        &self,
        lookups: &BTreeMap<ValueId, Lookup>,
        anchored: &BTreeSet<ValueId>,
    ) -> BTreeSet<ValueId> {
        let mut n_lookups: BTreeMap<ValueId, usize> = BTreeMap::new();
        for lookup in lookups.values() {
            *n_lookups.entry(lookup.base).or_default() += 1;
        }
        let is_internal = |(base, n): &(ValueId, usize)| {
            let producer = self.module.defining_op(*base);
            *n == 1
                && producer.is_some_and(|op| rescales(self.op(op)))
                && self.leaf[*base].is_none()
                && !anchored.contains(base)
        };
        n_lookups.into_iter().filter(is_internal).map(|(base, _)| base).collect()
    }

    /// The internal values that a function takes as `i16` because that is closer: it costs no stage more, and
    /// only the function's result is rounded to fewer bits.
    fn looked_up_wide(
        &self,
        lookups: &BTreeMap<ValueId, Lookup>,
        internal: &BTreeSet<ValueId>,
        params: &BTreeMap<ValueId, QuantParams>,
    ) -> Vec<(ValueId, QuantParams)> {
        let wider = |(value, lookup): (&ValueId, &Lookup)| {
            let Lookup { base, function } = lookup;
            let fits =
                internal.contains(base) && function.as_clamp().is_none() && function.as_gain().is_none();
            let (narrow, output) = (*params.get(base).filter(|_| fits)?, *params.get(value)?);
            let wide = QuantParams::of_range_in(self.ranges.seen(*base)?, ElemType::I16);
            // Slopes of channels have stages of their own, whose sums are as good as exact in 16 bits.
            let is_closer = narrow.elem != ElemType::I16
                && (function.n_channels > 1
                    || Table16::is_closer(|x| function.at(x, 0), wide, narrow, output));
            is_closer.then_some((*base, wide))
        };
        lookups.iter().filter_map(wider).collect()
    }

    /// Whether others only pick elements of a value, at its scale: what a maximum leaves out may then be
    /// clipped before, so that the range of what is picked is enough.
    fn is_only_picked_from(&self, value: ValueId, ops: &[OpId], results: &[ValueId]) -> bool {
        let picks = |op: &OpId| {
            let picks = matches!(
                self.op(*op),
                Op::MaxPool2d(_) | Op::ReduceMax(_) | Op::ReduceMin(_) | Op::Slice(_) | Op::Reshape(_)
            );
            picks && ops.contains(op)
        };
        let users = &self.users[value];
        !results.contains(&value) && !users.is_empty() && users.iter().all(picks)
    }

    /// The function of a value that alone is used of it; of slopes that differ from channel to channel, their
    /// quadratic means, which errors follow.
    fn only_function<'l>(
        &self,
        value: ValueId,
        anchored: &BTreeSet<ValueId>,
        lookups: &'l BTreeMap<ValueId, Lookup>,
    ) -> Option<OnlyFunction<'l>> {
        let mut of_value = lookups.values().filter(|lookup| lookup.base == value);
        let only = of_value.next().filter(|_| of_value.next().is_none() && !anchored.contains(&value))?;
        if only.function.n_channels == 1 {
            return Some(OnlyFunction::Plain(&only.function));
        }
        let Some(slopes) = only.function.as_two_slopes() else {
            let (function, gains) = only.function.as_gained()?;
            let squares = gains.iter().map(|gain| gain * gain).sum::<f64>();
            let factor = (squares / gains.len().max(1) as f64).sqrt();
            return Some(OnlyFunction::Scaled { function, factor });
        };
        let mean = |side: usize| {
            let squares = slopes.iter().map(|slopes| slopes[side] * slopes[side]);
            (squares.sum::<f64>() / slopes.len().max(1) as f64).sqrt()
        };
        Some(OnlyFunction::Slopes { below: mean(0), above: mean(1) })
    }

    /// Where values that only move end in one that the model rounds, rounds them before they move.
    fn fix_backwards(&self, members: &[ValueId], lookups: &BTreeMap<ValueId, Lookup>, groups: &mut Groups) {
        let mut exits: BTreeMap<ValueId, Vec<(ValueId, QuantParams)>> = BTreeMap::new();
        for (value, lookup) in lookups {
            if let (Some(&params), true) = (self.fixed.get(value), lookup.function.is_identity()) {
                exits.entry(lookup.base).or_default().push((*value, params));
            }
        }
        let mut sets: BTreeMap<ValueId, Vec<ValueId>> = BTreeMap::new();
        for &value in members {
            if let (None, Some(root)) = (groups.params(value), groups.root(value)) {
                sets.entry(root).or_default().push(value);
            }
        }
        for set in sets.values().filter(|set| set.len() > 1) {
            let mut ends = Vec::new();
            let closed = set.iter().all(|value| {
                ends.extend(exits.get(value).into_iter().flatten().copied());
                let leaves = |user: &OpId| {
                    let result = self.module.result(*user);
                    set.contains(&result)
                        || exits.get(value).is_some_and(|ends| ends.iter().any(|(end, _)| *end == result))
                };
                !self.returned.contains(value) && self.users[*value].iter().all(leaves)
            });
            if let (true, [(_, first), rest @ ..]) = (closed, ends.as_slice())
                && rest.iter().all(|(_, params)| params == first)
            {
                groups.fix(set[0], *first);
            }
        }
    }

    /// What is only joined to a value that the model rounds is rounded like it: convolutions in groups, above
    /// all.
    fn fix_joined(&self, fused: &BTreeMap<ValueId, Fused>, groups: &mut Groups) {
        for (&base, fused) in fused {
            let (value, gain) = fused.result();
            let Some(&params) = self.fixed.get(&value) else { continue };
            let Some(op) = self.module.defining_op(base).filter(|&op| matches!(self.op(op), Op::Concat(_)))
            else {
                continue;
            };
            for operand in self.variables(op).collect::<Vec<_>>() {
                let is_only_joined = self.users[operand].len() == 1 && !self.returned.contains(&operand);
                if is_only_joined && groups.params(operand).is_none() {
                    groups.fix(operand, QuantParams { scale: params.scale / gain, ..params });
                }
            }
        }
    }

    /// Whether `base` can be computed at the scale of `value`, the only function of it.
    fn takes_scale_of(&self, base: ValueId, value: ValueId, lookups: &BTreeMap<ValueId, Lookup>) -> bool {
        let is_fixed = self.fixed.contains_key(&value) && !self.fixed.contains_key(&base);
        let Some(producer) = self.module.defining_op(base) else {
            // Whoever feeds an argument rounds it; bounds on it may as well follow.
            return is_fixed && lookups[&value].function.as_clamp().is_some();
        };
        match self.op(producer) {
            op if rescales(op) => true,
            Op::Concat(_) => is_fixed,
            Op::AvgPool2d(_) => {
                let input = self.fixed.get(&self.module.op(producer).operands()[0]);
                is_fixed && input != self.fixed.get(&value)
            }
            _ => false,
        }
    }

    /// The values of few elements that are `i16` because that costs next to nothing; results are handed out
    /// as `i8`, and a model that fixes scales fixes these too.
    fn thin(&self, ops: &[OpId], results: &[ValueId]) -> BTreeSet<ValueId> {
        if !self.fixed.is_empty() {
            return BTreeSet::new();
        }
        let mut thin = thin::thin_values(self.module, ops, &|value| self.constants[value].is_some());
        thin.retain(|value| !results.contains(value));
        thin
    }

    /// Whether values that share a scale are `i16`.
    fn are_wide(&self, values: &[ValueId], wishes: &WideWishes<'_>) -> bool {
        let is_multiplied = |value: &ValueId| self.users[*value].iter().any(|&op| is_mac(self.op(op)));
        values.iter().any(|&value| (wishes.is_wide)(value))
            || values.iter().all(|value| wishes.thin.contains(value))
            || values.iter().any(|value| wishes.exponents.contains(value))
                && !values.iter().any(is_multiplied)
    }

    /// Whether an average has a scale of its own: if it is thin, or so much smaller than what it averages
    /// that it is worth it. Sums over a whole image are rescaled in any case; other windows then cost
    /// products, or 16 bits.
    fn has_own_scale(&self, op: OpId, thin: &BTreeSet<ValueId>) -> bool {
        let Op::AvgPool2d(pool) = self.op(op) else { return false };
        // A model that fixes scales says where they change.
        if !self.fixed.is_empty() {
            return false;
        }
        let (input, result) = (self.module.op(op).operands()[0], self.module.result(op));
        let shape = self.module.ty(input).as_tensor().map(|ty| ty.shape.as_slice());
        let is_global =
            matches!(shape, Some(&[_, h, w, _]) if pool.kernel == [h as i64, w as i64]) && pool.pad == [0; 4];
        let span = |value| self.ranges.seen(value).map(|range| range.high.max(0.0) - range.low.min(0.0));
        let worth = if is_global { 1.5 } else { 4.0 };
        thin.contains(&result)
            || span(input).zip(span(result)).is_some_and(|(input, mean)| input > worth * mean)
    }

    /// The scale of every value that is computed: values that must share one get one that covers all their
    /// ranges. Also which values share one.
    fn params(
        &self,
        decided: &Decided<'_>,
    ) -> Result<(BTreeMap<ValueId, QuantParams>, Groupings), PassError> {
        let members = self.members(decided);
        let mut groups = self.fixed_groups(&members, decided);
        let keeps = |op: OpId| keeps_scale(self.op(op)) && !self.has_own_scale(op, decided.wishes.thin);
        for &op in decided.ops.iter().filter(|&&op| keeps(op)) {
            for operand in self.variables(op).collect::<Vec<_>>() {
                groups.unite(operand, self.module.result(op));
            }
        }
        self.fix_backwards(&members, decided.lookups, &mut groups);
        let is_covered = |&value: &ValueId| {
            groups.params(value).is_none() && !self.is_only_picked_from(value, decided.ops, decided.results)
        };
        let covered: Vec<ValueId> = members.iter().copied().filter(is_covered).collect();
        for (value, range) in self.wanted_ranges(&covered, decided) {
            self.cover_range(value, range, decided, &mut groups)?;
        }
        self.unite_joined(decided.ops, &mut groups);
        let mut by_root: Groupings = BTreeMap::new();
        for &value in &members {
            by_root.entry(groups.root(value).unwrap_or(value)).or_default().push(value);
        }
        let mut params = BTreeMap::new();
        for (&root, values) in &by_root {
            let shared = self.shared_params(root, values, decided.wishes, &groups);
            params.extend(values.iter().map(|&value| (value, shared)));
        }
        for (&base, fused) in decided.fused {
            let (value, gain) = fused.result();
            if let Some(&shared) = params.get(&value) {
                params.insert(base, QuantParams { scale: shared.scale / gain, ..shared });
            }
        }
        Ok((params, by_root))
    }

    /// The values that are computed at a scale of their own or a shared one.
    fn members(&self, decided: &Decided<'_>) -> Vec<ValueId> {
        let computed = decided.ops.iter().map(|&op| self.module.result(op));
        let computed = computed.filter(|v| self.leaf[*v].is_none() || decided.lookups.contains_key(v));
        (decided.args.iter().copied().chain(computed))
            .filter(|v| {
                self.numbers.contains(v) && !decided.fused.contains_key(v) && !decided.wide.contains(v)
            })
            .collect()
    }

    /// A group for each value, with the scales that are known whatever the ranges.
    fn fixed_groups(&self, members: &[ValueId], decided: &Decided<'_>) -> Groups {
        let mut groups = Groups::default();
        for &value in members {
            groups.add(value);
            if self.elem(value) == Some(ElemType::I1) {
                groups.fix(value, QuantParams::i8(1.0, 0));
            }
        }
        for (&value, &params) in self.fixed {
            groups.fix(value, params);
        }
        for (&value, lookup) in decided.lookups {
            if let (None, Some(given)) = (groups.params(value), groups.params(lookup.base))
                && let Some(params) = same_integers(&lookup.function, given)
            {
                groups.fix(value, params);
            }
        }
        self.fix_joined(decided.fused, &mut groups);
        groups
    }

    /// The ranges that the scales of values are to cover in `i8`, each with its value. Those that a search
    /// finds are searched for side by side.
    fn wanted_ranges(&self, values: &[ValueId], decided: &Decided<'_>) -> Vec<(ValueId, Option<Range>)> {
        let wanted: Vec<Wanted<'_>> = values.iter().map(|&value| self.wanted_range(value, decided)).collect();
        let ranges = self.ranges;
        let range = |(&value, wanted): (&ValueId, &Wanted<'_>)| match wanted {
            Wanted::Known(range) => (value, *range),
            Wanted::Through(function) => (value, ranges.through(value, function)),
        };
        values.par_iter().zip(&wanted).map(range).collect()
    }

    /// The range that the scale of a value is to cover in `i8`.
    fn wanted_range<'l>(&self, value: ValueId, decided: &Decided<'l>) -> Wanted<'l> {
        if let Some(range) = self.exact_range(value) {
            return Wanted::Known(Some(range));
        }
        if decided.results.contains(&value) {
            // Nothing after it makes up for what is clipped of a result.
            return Wanted::Known(self.ranges.seen(value));
        }
        match self.only_function(value, decided.anchored, decided.lookups) {
            Some(function) => Wanted::Through(function),
            None => Wanted::Known(self.ranges.chosen(value)),
        }
    }

    /// Has the group of a value cover a range, if it has one.
    fn cover_range(
        &self,
        value: ValueId,
        range: Option<Range>,
        decided: &Decided<'_>,
        groups: &mut Groups,
    ) -> Result<(), PassError> {
        // An argument that nothing uses was still observed; a value without a range was never computed.
        let missing = || PassError::invalid(format!("the calibration has no range of value {value}"));
        // An argument that nothing needs may have any scale.
        let unused = self.users[value].is_empty() && !self.returned.contains(&value);
        let any = unused.then_some(Range { low: 0.0, high: 0.0 });
        let range = range.or(any).ok_or_else(missing)?;
        let extreme = self.whole_range(value).or(any).ok_or_else(missing)?;
        let is_fused = |lookup: &&Lookup| match decided.fused.get(&lookup.base) {
            Some(Fused::Clamp(by)) => *by == value,
            _ => false,
        };
        let clamp = decided.lookups.get(&value).filter(is_fused);
        let bounds = clamp.and_then(|lookup| lookup.function.as_clamp());
        let clamped = |range: Range| match bounds {
            Some((low, high)) => Range {
                low: range.low.clamp(low as f32, high as f32),
                high: range.high.clamp(low as f32, high as f32),
            },
            None => range,
        };
        let is_mean = |op| matches!(self.op(op), Op::AvgPool2d(_) | Op::ReduceSum(_));
        let is_thin_mean =
            decided.wishes.thin.contains(&value) && self.module.defining_op(value).is_some_and(is_mean);
        let extreme = if is_thin_mean { thin::with_headroom(extreme) } else { extreme };
        groups.cover(value, clamped(range), clamped(extreme));
        Ok(())
    }

    /// Has what is joined share a scale with the whole, unless others that use it would lose by it.
    fn unite_joined(&self, ops: &[OpId], groups: &mut Groups) {
        let span = |range: Range| range.high.max(0.0) - range.low.min(0.0);
        for &op in ops.iter().filter(|&&op| matches!(self.op(op), Op::Concat(_))) {
            let result = self.module.result(op);
            for operand in self.variables(op).collect::<Vec<_>>() {
                // Fixed scales are not for sharing: where they differ the operand is rescaled. Nor are those
                // of whole numbers, which are 1 anyway.
                let is_whole = self.elem(result) == Some(ElemType::I32);
                if is_whole || groups.params(operand).is_some() || groups.params(result).is_some() {
                    continue;
                }
                let (Some(own), Some(joint)) = (groups.range(operand), groups.range(result)) else {
                    continue;
                };
                // One bit is what a shared scale may cost a value that others use too.
                if self.users[operand].len() == 1 || span(own.union(joint)) <= 2.0 * span(own) {
                    groups.unite(operand, result);
                }
            }
        }
    }

    /// The parameters that the values of the group of `root` share.
    fn shared_params(
        &self,
        root: ValueId,
        values: &[ValueId],
        wishes: &WideWishes<'_>,
        groups: &Groups,
    ) -> QuantParams {
        if let Some(&fixed) = groups.fixed.get(&root) {
            return fixed;
        }
        let are_whole = values.iter().any(|&value| self.elem(value) == Some(ElemType::I32));
        let whole = QuantParams::of_whole_numbers(groups.extreme[&root]).filter(|_| are_whole);
        if let Some(whole) = whole {
            return whole;
        }
        match self.are_wide(values, wishes) {
            true => QuantParams::of_range_in(groups.extreme[&root], ElemType::I16),
            false => QuantParams::of_range(groups.range[&root]),
        }
    }
}

/// The parameters with which a function's result has the integers of its variable, or those within bounds.
fn same_integers(function: &Function, given: QuantParams) -> Option<QuantParams> {
    let gained = function.as_gain().map(|gain| QuantParams { scale: given.scale * gain, ..given });
    gained.or_else(|| function.as_clamp().map(|_| given))
}
