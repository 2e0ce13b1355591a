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
use strata_backend::model::{BufferId, BufferView, StageTemplate, TableId, TemplateHead};
use strata_ir::attr::ResizeMode;
use strata_ir::{ElemType, Op, TensorType};
use strata_isa_spec::inst::{Conv2d, DepthwiseConv2d, Load, TransposeConv2d, Window};
use strata_isa_spec::timing::{best_mapping, dram_cycles};
use strata_isa_spec::{Head, Target};

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
    fn array_cycles(&mut self, head: TemplateHead, ty: &TensorType) -> u64 {
        let code = StageTemplate { head, tail: Vec::new(), out: view(&ty.shape) };
        let (target, key) = (self.target, format!("{code:?}"));
        *self.known.entry(key).or_insert_with(|| {
            let on_all = |code: &StageTemplate| {
                let (_, step) = best_mapping(target, &code.work(), target.array.clusters);
                u64::from(code.n_steps()) * step
            };
            let direct = on_all(&with_winograd(&code, false));
            if may_winograd(&code, target) { direct.min(on_all(&with_winograd(&code, true))) } else { direct }
        })
    }

    /// The cycles of a stage on the vector lanes, `taps` elements for one of its result.
    fn vector(&mut self, ty: &TensorType, taps: u64) -> u64 {
        let load = Head::Load(Load { src: view(&[]) });
        self.array_cycles(load, ty).saturating_mul(taps)
    }

    /// A head that works on the MACs.
    fn head(&self, egraph: &Graph, term: &Term, spec: &Spec, out: &TensorType) -> Option<TemplateHead> {
        let Action::Op(op) = &spec.action else { return None };
        let shape = |at: usize| Some(egraph[*term.children.get(at)?].data.ty.as_tensor()?.shape.as_slice());
        let src = view(shape(0)?);
        let (input_zp, weight_zp, weights, bias) = (0, 0, TableId::from_u32(0), TableId::from_u32(1));
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

/// A whole tensor as the machine sees it; which one makes no difference to its cost.
fn view(shape: &[usize]) -> BufferView {
    let extent = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (chs, cols) = match shape {
        [.., w, c] if shape.len() == 4 => (*c, *w),
        [.., c] => (*c, 1),
        [] => (1, 1),
    };
    let rows = shape.iter().product::<usize>() / (chs * cols).max(1);
    BufferView::whole(BufferId::from_u32(0), extent(rows), extent(cols), extent(chs))
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

    /// The cost of the parts that `choice` has for classes in topological order; `roots` are the results.
    pub(crate) fn cost(&self, order: &[usize], choice: &[usize], parts: &[Part], roots: &[usize]) -> u64 {
        let n = choice.len();
        let (uses, is_open) = (vec![0; n], vec![false; n]);
        let mut tally = Tally { prices: self, parts, choice, uses, is_open, cycles: 0, handed_on: 0 };
        tally.count_uses(order, roots);
        let can_run =
            order.iter().all(|&class| tally.add(class)) && roots.iter().all(|&root| tally.add_result(root));
        if can_run { tally.total() } else { INFINITE }
    }
}

/// A selection whose cost is being added up, class by class.
struct Tally<'a> {
    prices: &'a Prices,
    parts: &'a [Part],
    /// The part that is selected for each class.
    choice: &'a [usize],
    /// How often each class is used.
    uses: Vec<u32>,
    /// Whether a class is made by a stage that something may still join.
    is_open: Vec<bool>,
    /// Cycles of stages and of loading weights.
    cycles: u64,
    /// Bytes that stages hand on.
    handed_on: u64,
}

impl<'a> Tally<'a> {
    fn part(&self, class: usize) -> &'a Part {
        &self.parts[self.choice[class]]
    }

    fn count_uses(&mut self, order: &[usize], roots: &[usize]) {
        for &class in order {
            for &operand in &self.part(class).streamed {
                self.uses[operand] += 1;
            }
        }
        for &root in roots {
            self.uses[root] += 1;
        }
    }

    fn add_stage(&mut self, cycles: u64) {
        self.cycles += cycles.max(self.prices.floor);
    }

    /// Adds a copy of a class, which is read and written.
    fn add_copy(&mut self, class: usize) {
        let part = self.part(class);
        self.add_stage(part.copy);
        self.handed_on += part.bytes * 2;
    }

    /// Whether a class is an argument or a part of a tensor, which has a place of its own already.
    fn is_part(&self, mut class: usize) -> bool {
        loop {
            let part = self.part(class);
            match (part.role, part.streamed.as_slice()) {
                (Role::Given, _) => return true,
                (Role::View, &[source]) if part.bytes < self.part(source).bytes => return true,
                (Role::View, &[source]) => class = source,
                _ => return false,
            }
        }
    }

    /// Whether a choice is one between two rescales of what is compared, as
    /// [`stages`](strata_backend::select) take it.
    fn is_by_sign(&self, choice: &Part) -> bool {
        let [compared, sides @ ..] = choice.streamed.as_slice() else { return false };
        let compared = self.part(*compared);
        let is_alike =
            |&class: &usize| self.uses[class] == 1 && self.part(class).streamed == compared.streamed;
        compared.compares
            && sides.len() == 2
            && sides.iter().all(|&side| self.part(side).narrows)
            && choice.streamed.iter().all(is_alike)
    }

    /// Adds a class; `false` if the machine cannot run it.
    fn add(&mut self, class: usize) -> bool {
        let part = self.part(class);
        let can_run = match part.chooses {
            true => self.is_by_sign(part),
            false => part.streamed.iter().all(|&operand| !self.part(operand).compares),
        };
        if !can_run {
            return false;
        }
        self.cycles += part.weights;
        match part.role {
            Role::Given => true,
            Role::None => false,
            Role::View => {
                self.add_view(part);
                true
            }
            Role::Head => self.add_head(class, part),
            Role::Elementwise => self.add_elementwise(class, part),
        }
    }

    fn add_view(&mut self, view: &Part) {
        // What others hold already, or hold a part of, is copied to be joined.
        let is_join = view.streamed.len() > 1;
        for &operand in view.streamed.iter().filter(|_| is_join) {
            if self.is_part(operand) {
                self.add_copy(operand);
            }
        }
    }

    fn add_head(&mut self, class: usize, head: &Part) -> bool {
        if head.streamed.iter().any(|&operand| self.part(operand).is_wide) {
            return false;
        }
        self.add_stage(head.cycles);
        let read: u64 = head.streamed.iter().map(|&operand| self.part(operand).bytes).sum();
        self.handed_on += head.bytes + read;
        self.is_open[class] = true;
        true
    }

    fn add_elementwise(&mut self, class: usize, op: &Part) -> bool {
        let is_joinable = |&&operand: &&usize| {
            self.is_open[operand] && self.uses[operand] == 1 && self.part(operand).extents == op.extents
        };
        let mut joined = op.streamed.iter().rev().find(is_joinable).copied();
        if joined.is_none() {
            self.add_stage(op.cycles);
        }
        for &operand in &op.streamed {
            let source = self.part(operand);
            let is_joined = joined == Some(operand);
            if source.is_wide && !(is_joined && op.narrows) {
                return false;
            }
            if is_joined {
                // The result of the stage is now this op's.
                self.handed_on -= source.bytes;
                joined = None;
            } else {
                self.handed_on += source.bytes;
            }
        }
        self.handed_on += op.bytes;
        self.is_open[class] = true;
        true
    }

    /// Adds what a result costs beyond its class; `false` if it cannot be one.
    fn add_result(&mut self, root: usize) -> bool {
        let part = self.part(root);
        if part.is_wide || part.compares {
            return false;
        }
        // A result is a tensor of its own.
        if part.role == Role::View && self.is_part(root) {
            self.add_copy(root);
        }
        true
    }

    fn total(&self) -> u64 {
        self.cycles + self.handed_on / (self.prices.bytes_per_cycle * SPILLED)
    }
}
