//! What a selection of terms costs on a target: the judge of extractions.
//!
//! The terms that are selected are gathered into stages as [`stages::select`](strata_backend::select) will:
//! an elementwise op joins the stage that makes its operand if nothing else uses that. In cycles, a selection
//! costs the sum of
//!
//! - each stage's array cycles by `isa-spec`'s timing formulas on the whole array, in its best mapping and
//!   with Winograd where it may, but at least one cluster for as long as a phase takes: stages that run at
//!   once cannot have less;
//! - the DRAM cycles of the weights;
//! - a [`SPILLED`]th of the DRAM cycles of what stages hand on to each other, once where it is made and once
//!   for each reader.
//!
//! It is a proxy: which of those tensors cross DRAM, and what waits for what, only the plan tells. It sees
//! sharing, so it is a cost of the whole, never a sum over a tree. What the machine cannot run costs
//! infinitely much.

use std::collections::BTreeMap;

use egg::Id;
use strata_backend::cost::{may_winograd, with_winograd};
use strata_ir::attr::ResizeMode;
use strata_ir::{ElemType, Op, TensorType};
use strata_isa_spec::inst::{Conv2d, DepthwiseConv2d, Load, TransposeConv2d, WeightAddr, Window};
use strata_isa_spec::timing::{best_mapping, dram_cycles};
use strata_isa_spec::{Head, StageCode, Target, View};

use crate::rewrite::language::{Action, Graph, Move, Spec, Term};

/// Of so many bytes that stages hand on, one is taken to cross DRAM in a plan of several layers a phase.
const SPILLED: u64 = 64;

/// More than any selection costs.
pub(crate) const INFINITE: u64 = u64::MAX / 4;

/// What a term is to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// An argument or a constant.
    Given,
    /// A part of another tensor, or several as one: no stage.
    View,
    /// The head of a stage.
    Head,
    /// What may join a stage.
    Elementwise,
    /// What the machine has no stage for.
    None,
}

/// A term as the cost sees it.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// What it is.
    pub(crate) role: Role,
    /// The operands that are no constants.
    pub(crate) streamed: Vec<usize>,
    /// Array cycles, of a stage of its own.
    pub(crate) cycles: u64,
    /// Array cycles to copy its result.
    pub(crate) copy: u64,
    /// Cycles to load its constants from DRAM.
    pub(crate) weights: u64,
    /// Bytes of its result.
    pub(crate) bytes: u64,
    /// Whether its result is of sums that only a rescale can take.
    pub(crate) is_wide: bool,
    /// Whether it is a rescale.
    pub(crate) narrows: bool,
    /// Whether it is a comparison, which runs only as a part of a choice between two rescales.
    pub(crate) compares: bool,
    /// Whether it is such a choice.
    pub(crate) chooses: bool,
    /// Pixels of its result: elementwise ops join stages of as many.
    pub(crate) extents: Vec<usize>,
}

/// Computes parts, each kind of work once.
pub(crate) struct Pricer<'a> {
    target: &'a Target,
    known: BTreeMap<String, u64>,
}

impl<'a> Pricer<'a> {
    /// For a target.
    pub(crate) fn new(target: &'a Target) -> Self {
        Self { target, known: BTreeMap::new() }
    }

    /// The part that a term is; `number` gives the number of a class.
    pub(crate) fn part(
        &mut self,
        egraph: &Graph,
        class: Id,
        term: &Term,
        number: impl Fn(Id) -> usize,
    ) -> Part {
        let is_const = |id: &&Id| egraph[**id].data.constant.is_some();
        let constants = term.children.iter().filter(is_const);
        let bytes = |id: Id| egraph[id].data.ty.as_tensor().map_or(0, |ty| ty.size_bytes() as u64);
        let weight_bytes: u64 = constants.map(|&id| bytes(id)).sum();
        let ty = egraph[class].data.ty.as_tensor();
        let mut part = Part {
            role: Role::Given,
            streamed: term.children.iter().filter(|id| !is_const(id)).map(|&id| number(id)).collect(),
            cycles: 0,
            copy: 0,
            weights: dram_cycles(self.target, weight_bytes),
            bytes: bytes(class),
            is_wide: ty.is_some_and(|ty| ty.elem == ElemType::I48),
            narrows: term.kind == "tosa.rescale",
            compares: term.kind == "tosa.greater_equal",
            chooses: term.kind == "tosa.select",
            extents: ty.map(|ty| ty.shape.clone()).unwrap_or_default(),
        };
        if let (Some(spec), Some(ty)) = (egraph.analysis.spec(term), ty) {
            part.role = role(spec);
            part.cycles = match self.head(egraph, term, spec, ty) {
                Some(head) => self.array_cycles(head, ty),
                None => self.vector(ty, window_taps(spec)),
            };
            part.copy = self.vector(ty, 1);
        }
        part
    }

    /// The array's cycles for a head in its best way on the whole of it.
    fn array_cycles(&mut self, head: Head, ty: &TensorType) -> u64 {
        let code = StageCode { head, tail: Vec::new(), out: view(&ty.shape) };
        let (target, key) = (self.target, format!("{code:?}"));
        *self.known.entry(key).or_insert_with(|| {
            let on_all = |code: &StageCode| {
                let (_, step) = best_mapping(target, &code.work(), target.array.clusters);
                u64::from(code.n_steps()) * step
            };
            let direct = on_all(&with_winograd(&code, false));
            if may_winograd(&code, target) { direct.min(on_all(&with_winograd(&code, true))) } else { direct }
        })
    }

    /// The cycles of a stage on the vector lanes, `taps` elements for one of its result.
    fn vector(&mut self, ty: &TensorType, taps: u64) -> u64 {
        let load = Head::Load(Load { src: View::default() });
        self.array_cycles(load, ty).saturating_mul(taps)
    }

    /// A head that works on the MACs.
    fn head(&self, egraph: &Graph, term: &Term, spec: &Spec, out: &TensorType) -> Option<Head> {
        let Action::Op(op) = &spec.action else { return None };
        let shape = |at: usize| Some(egraph[*term.children.get(at)?].data.ty.as_tensor()?.shape.as_slice());
        let src = view(shape(0)?);
        let (input_zp, weight_zp, weights, bias) = (0, 0, WeightAddr(0), WeightAddr(1));
        let is_wide = egraph[term.children[0]].data.ty.as_tensor()?.elem == ElemType::I16;
        let extent = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let step = |n: i64| u32::try_from(n).unwrap_or(1);
        let window = |kernel: [usize; 2], stride: [i64; 2], dilation: [i64; 2], pad: [i64; 4]| Window {
            kernel_h: extent(kernel[0]),
            kernel_w: extent(kernel[1]),
            stride_h: step(stride[0]),
            stride_w: step(stride[1]),
            dilation_h: step(dilation[0]),
            dilation_w: step(dilation[1]),
            pad_top: step(pad[0]),
            pad_bottom: step(pad[1]),
            pad_left: step(pad[2]),
            pad_right: step(pad[3]),
        };
        Some(match op {
            Op::Conv2d(conv) => {
                let kernel = shape(1)?;
                let window = window([kernel[1], kernel[2]], conv.stride, conv.dilation, conv.pad);
                let conv =
                    Conv2d { src, window, groups: 1, input_zp, weight_zp, weights, bias, winograd: false };
                if is_wide { Head::Conv2dI16(conv) } else { Head::Conv2d(conv) }
            }
            Op::DepthwiseConv2d(conv) => {
                let kernel = shape(1)?;
                let window = window([kernel[0], kernel[1]], conv.stride, conv.dilation, conv.pad);
                let multiplier = extent(kernel[3]);
                let conv = DepthwiseConv2d { src, window, multiplier, input_zp, weight_zp, weights, bias };
                if is_wide { Head::DepthwiseConv2dI16(conv) } else { Head::DepthwiseConv2d(conv) }
            }
            Op::TransposeConv2d(conv) => {
                let kernel = shape(1)?;
                let conv = TransposeConv2d {
                    src,
                    kernel_h: extent(kernel[1]),
                    kernel_w: extent(kernel[2]),
                    stride_h: step(conv.stride[0]),
                    stride_w: step(conv.stride[1]),
                    out_pad_top: 0,
                    out_pad_left: 0,
                    input_zp,
                    weight_zp,
                    weights,
                    bias,
                };
                if is_wide { Head::TransposeConv2dI16(conv) } else { Head::TransposeConv2d(conv) }
            }
            _ => return None,
        })
        .filter(|_| !out.shape.is_empty())
    }
}

/// A whole tensor as the machine sees it.
fn view(shape: &[usize]) -> View {
    let extent = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (chs, cols) = match shape {
        [.., w, c] if shape.len() == 4 => (*c, *w),
        [.., c] => (*c, 1),
        [] => (1, 1),
    };
    let rows = shape.iter().product::<usize>() / (chs * cols).max(1);
    View::whole(0, extent(rows), extent(cols), extent(chs))
}

fn window_taps(spec: &Spec) -> u64 {
    let area = |kernel: [i64; 2]| kernel.iter().product::<i64>().unsigned_abs().max(1);
    match &spec.action {
        Action::Op(Op::MaxPool2d(pool)) => area(pool.kernel),
        Action::Op(Op::AvgPool2d(pool)) => area(pool.kernel),
        Action::Op(Op::Resize(resize)) if resize.mode == ResizeMode::Bilinear => 4,
        _ => 1,
    }
}

fn role(spec: &Spec) -> Role {
    let is_wide = spec.ty.as_tensor().is_some_and(|ty| ty.elem == ElemType::I48);
    match &spec.action {
        Action::Arg(_) => Role::Given,
        Action::Move(Move::Upsample(_) | Move::SpaceToDepth(_) | Move::DepthToSpace(_)) => {
            if is_wide {
                Role::None
            } else {
                Role::Head
            }
        }
        Action::Op(op) => match op {
            Op::Concat(_) | Op::Slice(_) | Op::Reshape(_) | Op::Identity(_) => Role::View,
            Op::Rescale(_)
            | Op::Clamp(_)
            | Op::Table(_)
            | Op::Cast(_)
            | Op::Negate(_)
            | Op::Add(_)
            | Op::Sub(_)
            | Op::Mul(_)
            | Op::Maximum(_)
            | Op::Minimum(_)
            | Op::GreaterEqual(_)
            | Op::Select(_) => Role::Elementwise,
            _ => Role::Head,
        },
    }
}

/// The prices that hold for a whole selection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prices {
    /// Cycles that a stage costs at least.
    pub(crate) floor: u64,
    /// Bytes that DRAM moves in a cycle.
    pub(crate) bytes_per_cycle: u64,
}

impl Prices {
    /// For a target, given what the stages and the weights of the function as it stands take. Stages that run
    /// at once share a phase, of which there are at least as many as times the weights fill their memory.
    pub(crate) fn new(target: &Target, cycles: u64, weight_bytes: u64) -> Self {
        let phases = weight_bytes.div_ceil(target.memory.weight.max(1)).max(1);
        let floor = cycles / (phases * u64::from(target.array.clusters.max(1)));
        Self { floor, bytes_per_cycle: u64::from(target.dram.bytes_per_cycle.max(1)) }
    }

    /// What handing on its result costs a part.
    pub(crate) fn alone(&self, part: &Part) -> u64 {
        if part.role == Role::View { 0 } else { part.bytes / (self.bytes_per_cycle * SPILLED) }
    }

    /// The cost of parts in topological order, of which `uses` are the numbers of uses and `roots` the
    /// results.
    pub(crate) fn cost(
        &self,
        order: &[usize],
        part_of: impl Fn(usize) -> usize,
        parts: &[Part],
        n: usize,
        roots: &[usize],
    ) -> u64 {
        let part = |class: usize| &parts[part_of(class)];
        let mut uses = vec![0u32; n];
        for &class in order {
            for &operand in &part(class).streamed {
                uses[operand] += 1;
            }
        }
        for &root in roots {
            uses[root] += 1;
        }
        // Whether a class is an argument or a part of a tensor, which has a place of its own already.
        let is_part = |mut class: usize| loop {
            let it = part(class);
            match (it.role, it.streamed.as_slice()) {
                (Role::Given, _) => break true,
                (Role::View, &[source]) if it.bytes < part(source).bytes => break true,
                (Role::View, &[source]) => class = source,
                _ => break false,
            }
        };
        // Whether a choice is one between two rescales of what is compared, as
        // [`stages`](strata_backend::select) take it.
        let is_of_sides = |choice: &Part| {
            let [compared, sides @ ..] = choice.streamed.as_slice() else { return false };
            part(*compared).compares
                && sides.len() == 2
                && sides.iter().all(|&side| part(side).narrows)
                && choice
                    .streamed
                    .iter()
                    .all(|&class| uses[class] == 1 && part(class).streamed == part(*compared).streamed)
        };
        // Whether a class is made by a stage that something may still join.
        let mut is_open = vec![false; n];
        let mut total = 0u64;
        let mut handed_on = 0u64;
        let stage = |cycles: u64| cycles.max(self.floor);
        for &class in order {
            let it = part(class);
            let can_run = match it.chooses {
                true => is_of_sides(it),
                false => it.streamed.iter().all(|&operand| !part(operand).compares),
            };
            if !can_run {
                return INFINITE;
            }
            total += it.weights;
            match it.role {
                Role::Given => {}
                Role::None => return INFINITE,
                Role::View => {
                    // What others hold already, or hold a part of, is copied to be joined.
                    let is_join = it.streamed.len() > 1;
                    for &operand in it.streamed.iter().filter(|_| is_join) {
                        if is_part(operand) {
                            total += stage(part(operand).copy);
                            handed_on += part(operand).bytes * 2;
                        }
                    }
                }
                Role::Head => {
                    if it.streamed.iter().any(|&operand| part(operand).is_wide) {
                        return INFINITE;
                    }
                    total += stage(it.cycles);
                    handed_on +=
                        it.bytes + it.streamed.iter().map(|&operand| part(operand).bytes).sum::<u64>();
                    is_open[class] = true;
                }
                Role::Elementwise => {
                    let joinable = |&&operand: &&usize| {
                        is_open[operand] && uses[operand] == 1 && part(operand).extents == it.extents
                    };
                    let joined = it.streamed.iter().rev().find(joinable).copied();
                    if joined.is_none() {
                        total += stage(it.cycles);
                    }
                    let mut left = joined;
                    for &operand in &it.streamed {
                        if left == Some(operand) {
                            // The result of the stage is now this op's.
                            handed_on -= part(operand).bytes;
                            left = None;
                            if part(operand).is_wide && !it.narrows {
                                return INFINITE;
                            }
                        } else {
                            if part(operand).is_wide {
                                return INFINITE;
                            }
                            handed_on += part(operand).bytes;
                        }
                    }
                    handed_on += it.bytes;
                    is_open[class] = true;
                }
            }
        }
        for &root in roots {
            let it = part(root);
            if it.is_wide || it.compares {
                return INFINITE;
            }
            // A result is a tensor of its own.
            if it.role == Role::View && is_part(root) {
                total += stage(it.copy);
                handed_on += it.bytes * 2;
            }
        }
        total + handed_on / (self.bytes_per_cycle * SPILLED)
    }
}
