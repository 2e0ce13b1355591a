//! `split-channels`: a stage whose tables are larger than a budget becomes several, each with some output
//! channels.
//!
//! Weights, biases, multipliers, shifts and per-channel operands are sliced; a streamed operand of a tail,
//! and the input of a depthwise convolution, are read through narrower views; the parts write disjoint
//! channels of the same buffer. In the IR the parts read `tosa.slice`s and are joined by a `tosa.concat`,
//! which move nothing; a slice of joined parts is one of those that it meets.

mod parts;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use strata_ir::pass::{
    Changed, Level, OptionInfo, OptionKind, Pass, PassContext, PassError, PassInfo, PassOptions,
};
use strata_ir::{
    Attribute, Elements, Location, Module, Op, OpId, Tensor, TensorData, Type, ValueId, dialect,
};
use strata_isa_spec::{Head, Tail, Target};

use crate::model::{BufferView, StageGraph, StageNode, StageTemplate};
use crate::select::graph::TABLES;
use crate::select::made::{self, StagePart};
use crate::select::narrow::narrow_slices;
use crate::select::split_columns::erase_dead_views;
use crate::select::{check, list, main_function, set_code};

/// The row of [`SplitChannels`].
pub static SPLIT_CHANNELS: PassInfo = PassInfo {
    name: "split-channels",
    doc: "Splits stages whose weights, biases and tables exceed a budget by output channels.",
    takes: &[Level::Stages],
    gives: None,
    options: &[OptionInfo {
        name: "budget-bytes",
        kind: OptionKind::Integer(0, i64::MAX),
        default: "0",
        doc: "Bytes of tables that a stage may have; 0 takes half of the target's weight SRAM, so that the \
              next stage's can be loaded meanwhile, and all of it where that is faster: fewer parts read a \
              large input fewer times.",
    }],
    build: |options: &PassOptions| {
        Arc::new(SplitChannels { budget_bytes: u64::try_from(options.integer("budget-bytes")).unwrap_or(0) })
    },
};

/// Splits stages with large tables by output channels.
#[derive(Clone, Copy, Debug, Default)]
pub struct SplitChannels {
    /// Bytes of tables that a stage may have; 0 to take half of the target's weight SRAM, or all of it.
    pub budget_bytes: u64,
}

impl Pass for SplitChannels {
    fn info(&self) -> &'static PassInfo {
        &SPLIT_CHANNELS
    }

    fn options(&self) -> PassOptions {
        PassOptions::defaults(&SPLIT_CHANNELS).with("budget-bytes", self.budget_bytes)
    }

    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<Changed, PassError> {
        let target = context.get::<Target>();
        let alignment = target.map_or(64, |target| u64::from(target.memory.alignment.max(1)));
        let target = match (self.budget_bytes, target) {
            (0, Some(target)) => Some(target.clone()),
            (0, None) => return Err(PassError::Missing("a target, or a budget".to_owned())),
            _ => None,
        };
        let func = main_function(module)?;
        let graph = StageGraph::from_module(module, func).map_err(PassError::other)?;
        let mut n_split = 0;
        let first = made::first_free(module, func);
        for (id, stage) in &graph.stages {
            let parts = match &target {
                Some(target) => parts::for_target(&graph, stage, target),
                None => parts::within(stage, self.budget_bytes, alignment),
            };
            if let Some(parts) = parts {
                context.count("parts", parts.len() as u64);
                split(module, stage, &parts, first + i64::from(id.as_u32()))?;
                n_split += 1;
            }
        }
        context.count("stages split", n_split);
        let block = module.entry_block(func);
        let n_narrowed = narrow_slices(module, block);
        erase_dead_views(module, block);
        check::check(module, func).map_err(|faults| PassError::Invalid(list(&faults)))?;
        Ok((n_split > 0 || n_narrowed > 0).into())
    }
}

/// Some of a view's channels, counted from its first.
fn channels_of(view: &BufferView, channels: &Range<u32>) -> BufferView {
    BufferView { ch0: view.ch0 + channels.start, chs: channels.end - channels.start, ..*view }
}

/// The input channels that output channels `channels` of a depthwise convolution need.
fn inputs_of(multiplier: u32, channels: &Range<u32>) -> Range<u32> {
    channels.start / multiplier..channels.end / multiplier
}

/// The code of a part, and which reads are narrowed to which channels. An operand of a tail that broadcasts
/// over channels stays.
fn part_code(code: &StageTemplate, channels: &Range<u32>) -> (StageTemplate, Vec<Option<Range<u32>>>) {
    let of_head = match &code.head {
        Head::DepthwiseConv2d(conv) | Head::DepthwiseConv2dI16(conv) => {
            Some(inputs_of(conv.multiplier, channels))
        }
        _ => None,
    };
    let of_tail = |view: &BufferView| (view.chs > 1).then(|| channels.clone());
    let in_head = code.head.reads().into_iter().map(|_| of_head.clone());
    let in_tails = code.tail.iter().flat_map(Tail::reads).map(|view| of_tail(&view));
    let narrowed: Vec<Option<Range<u32>>> = in_head.chain(in_tails).collect();
    let mut ranges =
        narrowed.iter().chain([&Some(channels.clone())]).cloned().collect::<Vec<_>>().into_iter();
    let part = code.map_views(|view| match ranges.next().flatten() {
        Some(range) => channels_of(view, &range),
        None => *view,
    });
    (part, narrowed)
}

/// Replaces a stage by its parts; what they make together is tensor `whole`, unless it is a part already.
fn split(module: &mut Module, stage: &StageNode, parts: &[Range<u32>], whole: i64) -> Result<(), PassError> {
    let out = &stage.code.out;
    let all = StagePart::of_or_all(module, stage.op, whole, [out.cols, out.chs]);
    let loc = module.op(stage.op).loc.clone();
    let results: Vec<ValueId> = (parts.iter().enumerate())
        .map(|(index, channels)| build_part(module, stage, index, channels, all))
        .collect::<Result<_, _>>()?;
    let whole = module.result(stage.op);
    let ty = module.ty(whole).clone();
    let axis = module.tensor_ty(whole).rank() as i32 - 1;
    let concat = module.insert_before(stage.op, dialect::Concat { axis }, &results, &[ty], loc);
    let joined = module.result(concat);
    module.replace_all_uses(whole, joined);
    module.erase(stage.op);
    Ok(())
}

fn build_part(
    module: &mut Module,
    stage: &StageNode,
    index: usize,
    channels: &Range<u32>,
    all: StagePart,
) -> Result<ValueId, PassError> {
    let data = module.op(stage.op).clone();
    let (code, narrowed) = part_code(&stage.code, channels);
    let mut operands = Vec::new();
    for (&value, narrowed) in data.operands().iter().zip(&narrowed) {
        operands.push(match narrowed {
            Some(range) => slice_last(module, stage.op, value, range, &data.loc),
            None => value,
        });
    }
    let types: Vec<Type> = operands.iter().map(|&value| module.ty(value).clone()).collect();
    let row = dialect::Stage { name: format!("{}.{index}", stage.name), code: Attribute::Unit };
    let result_ty = with_channels(module.ty(module.result(stage.op)), channels);
    let part = module.insert_before(stage.op, row, &operands, &[result_ty], data.loc.clone());
    if let Some(tables) = data.extra.get(TABLES) {
        module.op_mut(part).extra.insert(TABLES.to_owned(), tables.clone());
    }
    made::pass_on(module, stage.op, part);
    StagePart { ch0: all.ch0 + channels.start, ..all }.mark(module, part);
    let region = module.add_region(part);
    let body = module.add_block(region, &types);
    let old_body = module.entry_block(stage.op);
    let mut map: BTreeMap<ValueId, ValueId> =
        module.args(old_body).iter().copied().zip(module.args(body).iter().copied()).collect();
    let cuts = constant_cuts(module, stage, channels);
    let shapes = reshape_shapes(module, stage.op);
    for op in module.block_ops(old_body).to_vec() {
        let old = module.op(op).clone();
        if let Some(elements) = old.op.constant() {
            let elements = match cuts.get(&op) {
                Some(cut) => cut.apply(elements),
                None if shapes.contains(&op) => with_last(elements, channels),
                None => elements.clone(),
            };
            let at = module.block_ops(body).len();
            let value = module.insert_const_at(body, at, elements, old.loc.clone());
            map.insert(module.result(op), value);
            continue;
        }
        let operands: Vec<ValueId> = old.operands().iter().map(|value| map[value]).collect();
        // Widening of a narrowed operand keeps its channels; everything else makes the part's.
        let results: Vec<Type> = (old.results().iter())
            .map(|&value| {
                let ty = module.ty(value);
                let is_broadcast =
                    ty.as_tensor().and_then(|t| t.shape.last()) == Some(&1) && stage.code.out.chs > 1;
                if is_broadcast { ty.clone() } else { with_channels(ty, channels) }
            })
            .collect();
        let new = module.append(body, old.op.clone(), &operands, &results, old.loc.clone());
        map.extend(old.results().iter().copied().zip(module.op(new).results().to_vec()));
    }
    set_code(module, part, &code)?;
    Ok(module.result(part))
}

/// How a constant is cut: the axis and the range along it.
struct Cut {
    axis: usize,
    range: Range<usize>,
}

impl Cut {
    fn apply(&self, elements: &Elements) -> Elements {
        let tensor = &elements.tensor;
        let shape = tensor.shape();
        let inner: usize = shape[self.axis + 1..].iter().product();
        let slab = shape[self.axis] * inner;
        let outer: usize = shape[..self.axis].iter().product();
        let width = self.range.len() * inner;
        let from = self.range.start * inner;
        let picks = (0..outer).map(|o| o * slab + from..o * slab + from + width);
        fn pick<T: Copy>(values: &[T], picks: impl Iterator<Item = Range<usize>>) -> Vec<T> {
            let picked: Vec<&[T]> = picks.map(|range| &values[range]).collect();
            picked.concat()
        }
        let data = match tensor.data() {
            TensorData::I1(v) => TensorData::I1(pick(v, picks)),
            TensorData::I8(v) => TensorData::I8(pick(v, picks)),
            TensorData::I16(v) => TensorData::I16(pick(v, picks)),
            TensorData::I32(v) => TensorData::I32(pick(v, picks)),
            TensorData::I48(v) => TensorData::I48(pick(v, picks)),
            TensorData::I64(v) => TensorData::I64(pick(v, picks)),
            TensorData::Index(v) => TensorData::Index(pick(v, picks)),
            TensorData::F32(v) => TensorData::F32(pick(v, picks)),
        };
        let mut shape = shape.to_vec();
        shape[self.axis] = self.range.len();
        Elements { tensor: Arc::new(Tensor::new(shape, data)) }
    }
}

/// How the constants of a stage's region are cut for a part, by their ops.
fn constant_cuts(module: &Module, stage: &StageNode, channels: &Range<u32>) -> BTreeMap<OpId, Cut> {
    let range = channels.start as usize..channels.end as usize;
    let mut cuts = BTreeMap::new();
    let mut cut = |value: ValueId, axis: usize, range: &Range<usize>| {
        if let Some(op) = module.defining_op(value).filter(|&op| module.op(op).op.is_constant()) {
            cuts.insert(op, Cut { axis, range: range.clone() });
        }
    };
    for &op in module.block_ops(module.entry_block(stage.op)) {
        let data = module.op(op);
        let operands = data.operands();
        match &data.op {
            Op::Conv2d(_) | Op::TransposeConv2d(_) => {
                cut(operands[1], 0, &range);
                cut(operands[2], 0, &range);
            }
            Op::DepthwiseConv2d(_) => {
                let multiplier = module.tensor_ty(operands[1]).shape[3] as u32;
                let inputs = inputs_of(multiplier, channels);
                cut(operands[1], 2, &(inputs.start as usize..inputs.end as usize));
                cut(operands[2], 0, &range);
            }
            Op::Rescale(rescale) if rescale.per_channel && module.tensor_ty(operands[1]).shape != [1] => {
                cut(operands[1], 0, &range);
                cut(operands[2], 0, &range);
            }
            Op::Add(_) | Op::Sub(_) | Op::Mul(_) | Op::Maximum(_) | Op::Minimum(_) => {
                for &operand in &operands[..2] {
                    let shape = &module.tensor_ty(operand).shape;
                    if shape.last().is_some_and(|&extent| extent > 1) {
                        cut(operand, shape.len() - 1, &range);
                    }
                }
            }
            _ => {}
        }
    }
    cuts
}

/// The constants of a stage that are shapes of reshapes.
fn reshape_shapes(module: &Module, stage: OpId) -> Vec<OpId> {
    let ops = module.block_ops(module.entry_block(stage)).iter();
    let reshapes = ops.filter(|&&op| matches!(module.op(op).op, Op::Reshape(_)));
    reshapes.filter_map(|&op| module.defining_op(module.op(op).operands()[1])).collect()
}

/// A shape with its last extent as wide as `channels`.
fn with_last(shape: &Elements, channels: &Range<u32>) -> Elements {
    let mut extents = shape.tensor.data().to_ints().unwrap_or_default();
    if let Some(last) = extents.last_mut() {
        *last = i64::from(channels.end - channels.start);
    }
    Tensor::new([extents.len()], TensorData::Index(extents)).into()
}

/// A type with its last axis as wide as `channels`.
fn with_channels(ty: &Type, channels: &Range<u32>) -> Type {
    let mut ty = ty.clone();
    if let Type::Tensor(tensor) = &mut ty
        && let Some(last) = tensor.shape.last_mut()
    {
        *last = channels.len();
    }
    ty
}

/// A slice of the last axis of a value.
fn slice_last(
    module: &mut Module,
    before: OpId,
    value: ValueId,
    range: &Range<u32>,
    loc: &Location,
) -> ValueId {
    let ty = with_channels(module.ty(value), range);
    let shape: Vec<i64> =
        ty.as_tensor().map_or_else(Vec::new, |t| t.shape.iter().map(|&e| e as i64).collect());
    let mut start = vec![0; shape.len()];
    if let Some(last) = start.last_mut() {
        *last = i64::from(range.start);
    }
    let rank = shape.len();
    let start =
        module.insert_const_before(before, Tensor::new([rank], TensorData::Index(start)), loc.clone());
    let size = module.insert_const_before(before, Tensor::new([rank], TensorData::Index(shape)), loc.clone());
    let slice = module.insert_before(before, dialect::Slice {}, &[value, start, size], &[ty], loc.clone());
    module.result(slice)
}
