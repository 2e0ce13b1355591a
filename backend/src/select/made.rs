//! Which tensor of the network each stage makes: what a program cannot say by itself.
//!
//! Two attributes tell it, at every level up to the emitter, and nothing is decided by them. `strata.value`
//! stands at an op whose result stands for a value of the model, from the level `quant` on, and then at the
//! stage that ends in it: the nodes whose result it is, with scale and zero point. `strata.part` stands at a
//! stage that makes a part of what a stage made before it was split by channels or columns.

use std::collections::{BTreeMap, BTreeSet};

use strata_ir::{Attribute, BlockId, ElemType, Module, Op, OpId, ValueId};
use strata_isa_spec::bundle::{MadeTensor, MadeTensors, Quantisation, TensorPart};

use crate::model::{StageGraph, StageNode};

/// The attribute of an op whose result stands for a value of the model.
pub const VALUE: &str = "strata.value";
/// The attribute of a stage that makes a part of a tensor.
pub const PART: &str = "strata.part";

/// What an op's result stands for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelValue {
    /// The nodes of the model whose result it is, in order.
    pub nodes: Vec<String>,
    /// How its integers stand for real numbers.
    pub quantisation: Option<Quantisation>,
}

impl ModelValue {
    /// What is written down at an op.
    pub fn of(module: &Module, op: OpId) -> Option<Self> {
        let Attribute::Dict(entries) = module.op(op).extra.get(VALUE)? else { return None };
        let nodes = match entries.get("nodes") {
            Some(Attribute::Array(nodes)) => nodes.iter().filter_map(text).collect(),
            _ => Vec::new(),
        };
        let quantisation = match (entries.get("scale"), entries.get("zero_point")) {
            (Some(Attribute::Float(scale, _)), Some(Attribute::Int(zero_point, _))) => {
                let zero_point = i32::try_from(*zero_point).ok();
                zero_point.map(|zero_point| Quantisation { scale: *scale, zero_point })
            }
            _ => None,
        };
        Some(Self { nodes, quantisation: quantisation.filter(|q| q.scale.is_finite() && q.scale > 0.0) })
    }

    /// Writes it down at an op.
    pub fn mark(&self, module: &mut Module, op: OpId) {
        let mut entries = BTreeMap::new();
        if !self.nodes.is_empty() {
            let nodes = self.nodes.iter().map(|node| Attribute::Str(node.clone()));
            entries.insert("nodes".to_owned(), Attribute::Array(nodes.collect()));
        }
        if let Some(Quantisation { scale, zero_point }) = self.quantisation {
            entries.insert("scale".to_owned(), Attribute::Float(scale, None));
            let zero_point = Attribute::Int(i64::from(zero_point), ElemType::I64);
            entries.insert("zero_point".to_owned(), zero_point);
        }
        module.op_mut(op).extra.insert(VALUE.to_owned(), Attribute::Dict(entries));
    }
}

fn text(attr: &Attribute) -> Option<String> {
    if let Attribute::Str(text) = attr { Some(text.clone()) } else { None }
}

/// Lets an op say what another one's result stands for, where that is known.
pub(super) fn pass_on(module: &mut Module, from: OpId, to: OpId) {
    if let Some(value) = module.op(from).extra.get(VALUE).cloned() {
        module.op_mut(to).extra.insert(VALUE.to_owned(), value);
    }
}

/// The part of a tensor that a stage makes, of all its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StagePart {
    /// Stages of one number make parts of one tensor.
    pub whole: i64,
    /// The first of its columns, and how many the tensor has.
    pub col0: u32,
    pub cols: u32,
    /// The first of its channels, and how many the tensor has.
    pub ch0: u32,
    pub chs: u32,
}

impl StagePart {
    /// What is written down at a stage.
    fn of(module: &Module, stage: OpId) -> Option<Self> {
        let Attribute::I64Array(numbers) = module.op(stage).extra.get(PART)? else { return None };
        let &[whole, col0, cols, ch0, chs] = numbers.as_slice() else { return None };
        let number = |number: i64| u32::try_from(number).ok();
        Some(Self { whole, col0: number(col0)?, cols: number(cols)?, ch0: number(ch0)?, chs: number(chs)? })
    }

    /// What is written down at a stage, or that it makes all of a tensor, which is to be called `whole`.
    pub(super) fn of_or_all(module: &Module, stage: OpId, whole: i64, dims: [u32; 2]) -> Self {
        let [cols, chs] = dims;
        Self::of(module, stage).unwrap_or(Self { whole, col0: 0, cols, ch0: 0, chs })
    }

    /// Writes it down at a stage.
    pub(super) fn mark(self, module: &mut Module, stage: OpId) {
        let Self { whole, col0, cols, ch0, chs } = self;
        let numbers = vec![whole, col0.into(), cols.into(), ch0.into(), chs.into()];
        module.op_mut(stage).extra.insert(PART.to_owned(), Attribute::I64Array(numbers));
    }
}

/// The number of the tensor of which a stage makes a strip of the columns, if it does, as its module tells.
pub fn strip_of(module: &Module, node: &StageNode) -> Option<i64> {
    let part = StagePart::of(module, node.op)?;
    (node.code.out.cols < part.cols).then_some(part.whole)
}

/// A number from which on no tensor of a function that is made in parts has its own.
pub(super) fn first_free(module: &Module, func: OpId) -> i64 {
    let stages = module.walk(module.entry_block(func)).into_iter();
    let taken = stages.filter_map(|op| StagePart::of(module, op)).map(|part| part.whole);
    taken.max().map_or(0, |most| most.saturating_add(1))
}

/// The tensors that the stages of a function make. What is written down of parts that contradicts itself is
/// taken for not written.
pub fn made_tensors(module: &Module, func: OpId, graph: &StageGraph) -> MadeTensors {
    let images = images(module, func);
    let knows_nodes = graph.stages.values().any(|node| ModelValue::of(module, node.op).is_some());
    let mut made = MadeTensors::default();
    let mut wholes: BTreeMap<i64, u32> = BTreeMap::new();
    for node in graph.stages.values() {
        let part = StagePart::of(module, node.op);
        let known = part.and_then(|part| wholes.get(&part.whole).copied());
        let fits = |part: &StagePart, dims: [u32; 3]| {
            let out = &node.code.out;
            let within = |first: u32, n: u32, of: u32| first.checked_add(n).is_some_and(|end| end <= of);
            dims == [out.rows, part.cols, part.chs]
                && within(part.col0, out.cols, part.cols)
                && within(part.ch0, out.chs, part.chs)
        };
        let known =
            known.filter(|&tensor| part.is_some_and(|p| fits(&p, made.tensors[tensor as usize].dims)));
        let own = [node.code.out.rows, part.map_or(0, |p| p.cols), part.map_or(0, |p| p.chs)];
        let part = part.filter(|part| fits(part, own));
        let tensor = known.unwrap_or_else(|| {
            let tensor = made.tensors.len() as u32;
            made.tensors.push(tensor_of(module, node, part.as_ref(), &images, knows_nodes));
            if let Some(part) = part {
                wholes.insert(part.whole, tensor);
            }
            tensor
        });
        let (col0, ch0) = part.map_or((0, 0), |part| (part.col0, part.ch0));
        made.parts.push(Some(TensorPart { tensor, col0, ch0 }));
    }
    made
}

/// The whole tensor of which a stage makes a part, or all.
fn tensor_of(
    module: &Module,
    node: &StageNode,
    part: Option<&StagePart>,
    images: &BTreeSet<ValueId>,
    knows_nodes: bool,
) -> MadeTensor {
    let out = &node.code.out;
    let data = module.op(node.op);
    let result = module.result(node.op);
    let dims = [out.rows, part.map_or(out.cols, |part| part.cols), part.map_or(out.chs, |part| part.chs)];
    let mut shape = module.tensor_ty(result).shape.clone();
    if let Some(last) = shape.last_mut().filter(|last| **last == out.chs as usize) {
        *last = dims[2] as usize;
    }
    if let [_, _, cols, _] = shape.as_mut_slice()
        && *cols == out.cols as usize
    {
        *cols = dims[1] as usize;
    }
    let n_elements: usize = dims.iter().map(|&extent| extent as usize).product();
    if shape.iter().product::<usize>() != n_elements {
        shape = dims.iter().map(|&extent| extent as usize).collect();
    }
    let value = ModelValue::of(module, node.op).unwrap_or_default();
    let layer = data.loc.name().filter(|_| part.is_some()).unwrap_or(&node.name);
    // What is no node's result is not to be taken for it.
    let own = || if knows_nodes { format!("{layer}.inner") } else { layer.to_owned() };
    let name = value.nodes.last().cloned().unwrap_or_else(own);
    MadeTensor {
        name,
        nodes: value.nodes,
        is_image: shape.len() == 4 && images.contains(&result),
        shape,
        dims,
        dtype: module.tensor_ty(result).elem.keyword().to_owned(),
        quantisation: value.quantisation,
    }
}

/// The values of a function that are images in NHWC, whatever their model has: what windows slide over or
/// come from, and what is made of it element by element.
fn images(module: &Module, func: OpId) -> BTreeSet<ValueId> {
    let block = module.entry_block(func);
    let mut images: BTreeSet<ValueId> = BTreeSet::new();
    let is_rank_4 = |value: ValueId| module.ty(value).as_tensor().is_some_and(|ty| ty.rank() == 4);
    if let Op::Func(row) = &module.op(func).op
        && let Some(Attribute::Array(attrs)) = &row.arg_attrs
    {
        let is_permuted = |attr: &Attribute| match attr {
            Attribute::Dict(entries) => {
                matches!(entries.get("strata.perm"), Some(Attribute::I64Array(perm)) if *perm == [0, 2, 3, 1])
            }
            _ => false,
        };
        let args = module.args(block).iter().zip(attrs).filter(|(_, attr)| is_permuted(attr));
        images.extend(args.map(|(&arg, _)| arg));
    }
    follow(module, block, &is_rank_4, &mut images);
    images
}

/// Adds the images among the results of a block's ops, and of those in it.
fn follow(
    module: &Module,
    block: BlockId,
    is_rank_4: &dyn Fn(ValueId) -> bool,
    images: &mut BTreeSet<ValueId>,
) {
    for &op in module.block_ops(block) {
        let data = module.op(op);
        if let Op::Stage(_) | Op::Phase(_) = data.op {
            let body = module.entry_block(op);
            for (&inner, &outer) in module.args(body).iter().zip(data.operands()) {
                if images.contains(&outer) {
                    images.insert(inner);
                }
            }
            follow(module, body, is_rank_4, images);
            let yielded = module.terminator(body).map(|end| module.op(end).operands()).unwrap_or_default();
            let made = data.results().iter().zip(yielded).filter(|(_, inner)| images.contains(inner));
            let made: Vec<ValueId> = made.map(|(&result, _)| result).collect();
            images.extend(made);
            continue;
        }
        let is_image = match &data.op {
            Op::Conv2d(_)
            | Op::DepthwiseConv2d(_)
            | Op::TransposeConv2d(_)
            | Op::MaxPool2d(_)
            | Op::AvgPool2d(_)
            | Op::Resize(_) => true,
            Op::Reshape(_) | Op::Transpose(_) | Op::MatMul(_) | Op::Const(_) | Op::ConstShape(_) => false,
            _ => data.operands().iter().any(|value| images.contains(value)),
        };
        if is_image {
            images.extend(data.results().iter().copied().filter(|&value| is_rank_4(value)));
        }
    }
}
