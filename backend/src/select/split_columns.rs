//! Stages that a plan runs in strips become a stage a strip, as [`Realised`] has it.
//!
//! A part reads `tosa.slice`s of what its stage reads and holds the same ops, their padding and offsets
//! adapted to its window of columns; parts that together make a tensor are joined by a `tosa.concat` along W.
//! Neither moves anything. The parts of a stage share its tables, which the attribute `strata.table_set`
//! says.
//!
//! A strip sees no part of a later one: of a tensor whose parts it needs, it reads a concatenation of those
//! that exist by then. So the block can be put in the order of the plan, which is how this leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use strata_ir::infer::infer;
use strata_ir::pass::PassError;
use strata_ir::{
    Attribute, BlockId, ElemType, Location, Module, Op, OpId, Tensor, TensorData, Type, ValueDef, ValueId,
    dialect,
};
use strata_isa_spec::Head;
use strata_isa_spec::inst::{Pad, Resize, Window};

use crate::model::realised::{Realised, StripPart};
use crate::model::{Buffer, BufferId, BufferView, StageGraph, StageId, StageTemplate};
use crate::select::graph::{BUFFERS, TABLE_SET, TABLES};
use crate::select::made::{self, StagePart};
use crate::select::windows::W;
use crate::select::{check, list, set_code};

/// Makes the module's stages those of a realised graph, which was made of `graph`, that of the module; the
/// block is left in the order of the graph's stages.
///
/// # Errors
/// If the module is not what the graph was made of, or what results is not what was realised: defects of the
/// compiler.
pub fn split_columns(
    module: &mut Module,
    func: OpId,
    graph: &StageGraph,
    realised: &Realised,
) -> Result<(), PassError> {
    let block = module.entry_block(func);
    let first_free = made::first_free(module, func);
    let mut order = Vec::with_capacity(realised.parts.len());
    let mut at = 0;
    while let Some(part) = realised.parts.get(at) {
        let Some(strip) = &part.strip else {
            order.push(graph.stages[part.origin].op);
            at += 1;
            continue;
        };
        let in_group = |other: &&crate::model::realised::Part| {
            other.strip.as_ref().is_some_and(|s| s.group == strip.group)
        };
        let n = realised.parts[at..].iter().take_while(in_group).count();
        order.extend(split_group(module, graph, realised, at..at + n, first_free)?);
        at += n;
    }
    let buffers: Vec<&Buffer> = realised.graph.buffers.values().collect();
    let buffers = Attribute::from_serde(&buffers).map_err(PassError::other)?;
    module.op_mut(func).extra.insert(BUFFERS.to_owned(), buffers);
    for (&op, node) in order.iter().zip(realised.graph.stages.values()) {
        set_code(module, op, &node.code)?;
    }
    erase_dead_views(module, block);
    put_in_order(module, block, &order);
    check::check(module, func).map_err(|faults| PassError::Invalid(list(&faults)))?;
    let made = StageGraph::from_module(module, func).map_err(PassError::other)?;
    let is_same = made.buffers == realised.graph.buffers
        && made.stages.len() == realised.graph.stages.len()
        && made.stages.values().zip(realised.graph.stages.values()).all(|(made, planned)| {
            made.code == planned.code
                && made.table_bytes == planned.table_bytes
                && made.table_set == planned.table_set
        });
    is_same.then_some(()).ok_or_else(|| PassError::invalid("the strips are not those that were planned"))
}

/// A set of stages that is being split.
struct Group {
    /// The stages by their ops.
    stage_of: BTreeMap<OpId, StageId>,
    /// For each stage, its parts so far: the columns they compute and their results.
    parts: BTreeMap<StageId, Vec<(Range<u32>, ValueId)>>,
    /// Windows of values that exist already, by the strip that made them.
    made: BTreeMap<(ValueId, u32, u32, usize), ValueId>,
}

/// Splits the stages of a group; gives their parts in the order of the realised graph. From `first_free` on
/// there is a number for the tensor of each stage.
fn split_group(
    module: &mut Module,
    graph: &StageGraph,
    realised: &Realised,
    range: Range<usize>,
    first_free: i64,
) -> Result<Vec<OpId>, PassError> {
    let origins: Vec<StageId> = realised.parts[range.clone()].iter().map(|part| part.origin).collect();
    let stage_of = origins.iter().map(|&origin| (graph.stages[origin].op, origin)).collect();
    let mut group = Group { stage_of, parts: BTreeMap::new(), made: BTreeMap::new() };
    let mut order = Vec::with_capacity(origins.len());
    for index in range {
        let part = &realised.parts[index];
        let Some(strip) = &part.strip else { continue };
        let node = &realised.graph.stages[StageId::from_u32(index as u32)];
        let origin = graph.stages[part.origin].op;
        let op = build_part(module, &mut group, origin, strip, &node.name, &node.code)?;
        let out = &graph.stages[part.origin].code.out;
        let number = first_free + i64::from(part.origin.as_u32());
        let all = StagePart::of_or_all(module, origin, number, [out.cols, out.chs]);
        StagePart { col0: all.col0 + strip.cols.start, ..all }.mark(module, op);
        made::pass_on(module, origin, op);
        if let Some(set) = node.table_set {
            let set = Attribute::Int(i64::from(set), ElemType::I32);
            module.op_mut(op).extra.insert(TABLE_SET.to_owned(), set);
        }
        let result = module.result(op);
        group.parts.entry(part.origin).or_default().push((strip.cols.clone(), result));
        order.push(op);
    }
    // Whoever else reads a stage reads its parts, joined. Parts that overlap are the group's own.
    let stages: Vec<(OpId, StageId)> = group.stage_of.iter().map(|(&op, &stage)| (op, stage)).collect();
    for &(op, stage) in &stages {
        let parts = &group.parts[&stage];
        let whole = module.result(op);
        let cols = module.tensor_ty(whole).shape[W] as u32;
        let mut next = 0;
        let is_divided =
            parts.iter().all(|(range, _)| std::mem::replace(&mut next, range.end) == range.start);
        if is_divided && next == cols {
            let values: Vec<ValueId> = parts.iter().map(|(_, value)| *value).collect();
            let loc = module.op(op).loc.clone();
            let joined = concat(module, op, &values, &loc)?;
            module.replace_all_uses(whole, joined);
        }
    }
    let ops: BTreeSet<OpId> = stages.iter().map(|(op, _)| *op).collect();
    let (block, _) = module.position(stages[0].0);
    erase_dead_views_of(module, block, &ops);
    Ok(order)
}

/// Builds a part of a stage before the stage.
fn build_part(
    module: &mut Module,
    group: &mut Group,
    origin: OpId,
    strip: &StripPart,
    name: &str,
    code: &StageTemplate,
) -> Result<OpId, PassError> {
    let data = module.op(origin).clone();
    let mut operands = Vec::with_capacity(data.operands().len());
    for (&value, read) in data.operands().iter().zip(&strip.reads) {
        let all = 0..module.tensor_ty(value).shape[W] as u32;
        let window = read.clone().unwrap_or(all);
        operands.push(window_of(module, group, origin, value, &window, strip.strip)?);
    }
    let types: Vec<Type> = operands.iter().map(|&value| module.ty(value).clone()).collect();
    let result = with_columns(module.ty(module.result(origin)), strip.cols.end - strip.cols.start);
    let row = dialect::Stage { name: name.to_owned(), code: Attribute::Unit };
    let part = module.insert_before(origin, row, &operands, &[result], data.loc.clone());
    if let Some(tables) = data.extra.get(TABLES) {
        module.op_mut(part).extra.insert(TABLES.to_owned(), tables.clone());
    }
    let region = module.add_region(part);
    let body = module.add_block(region, &types);
    let old_body = module.entry_block(origin);
    let mut map: BTreeMap<ValueId, ValueId> =
        module.args(old_body).iter().copied().zip(module.args(body).iter().copied()).collect();
    for old in module.block_ops(old_body).to_vec() {
        let old = module.op(old).clone();
        if let Some(elements) = old.op.constant() {
            let at = module.block_ops(body).len();
            let value = module.insert_const_at(body, at, elements.clone(), old.loc.clone());
            map.insert(old.results()[0], value);
            continue;
        }
        let mut operands: Vec<ValueId> = old.operands().iter().map(|value| map[value]).collect();
        let row = adapted(module, body, &old.op, &mut operands, code, &old.loc);
        let mut types = Vec::new();
        if let Some(&result) = old.results().first() {
            let elem = module.tensor_ty(result).elem;
            types = infer(module, &row, &operands, Some(elem)).map_err(PassError::other)?;
        }
        let new = module.append(body, row, &operands, &types, old.loc.clone());
        map.extend(old.results().iter().copied().zip(module.op(new).results().to_vec()));
    }
    Ok(part)
}

/// An op of a stage for the window that the part's code has; operands that differ are made anew in the part's
/// body.
fn adapted(
    module: &mut Module,
    body: BlockId,
    op: &Op,
    operands: &mut [ValueId],
    code: &StageTemplate,
    loc: &Location,
) -> Op {
    let mut op = op.clone();
    let mut shape = |values: Vec<i64>| {
        let at = module.block_ops(body).len();
        let tensor = Tensor::new([values.len()], TensorData::Index(values));
        module.insert_const_at(body, at, tensor.into(), loc.clone())
    };
    let pads = |window: &Window| [window.pad_left, window.pad_right].map(i64::from);
    match (&mut op, &code.head) {
        (Op::Conv2d(op), Head::Conv2d(h) | Head::Conv2dI16(h)) => {
            op.pad[2..].copy_from_slice(&pads(&h.window));
        }
        (Op::DepthwiseConv2d(op), Head::DepthwiseConv2d(h) | Head::DepthwiseConv2dI16(h)) => {
            op.pad[2..].copy_from_slice(&pads(&h.window));
        }
        (Op::MaxPool2d(op), Head::MaxPool2d(h)) => op.pad[2..].copy_from_slice(&pads(&h.window)),
        (Op::AvgPool2d(op), Head::AvgPool2d(h)) => op.pad[2..].copy_from_slice(&pads(&h.window)),
        (Op::TransposeConv2d(op), Head::TransposeConv2d(h) | Head::TransposeConv2dI16(h)) => {
            let left = i64::from(h.out_pad_left);
            let full = (i64::from(h.src.cols) - 1) * i64::from(h.stride_w) + i64::from(h.kernel_w);
            (op.out_pad[2], op.out_pad[3]) = (left, i64::from(code.out.cols) - full - left);
        }
        (Op::Resize(_), Head::Resize(h)) => {
            operands[2] = shape(vec![i64::from(h.offset_y), i64::from(h.offset_x)]);
            operands[3] = shape(resize_border(h, &code.out));
        }
        // Batches are one image, so the machine's rows are the IR's.
        (Op::Pad(_), Head::Pad(h)) => operands[1] = shape(paddings(h, &code.out)),
        _ => {}
    }
    op
}

/// TOSA's `border` of a resize to the extents of `out`, for rows and columns.
fn resize_border(resize: &Resize<BufferId>, out: &BufferView) -> Vec<i64> {
    let border = |extent: u32, out: u32, n: i32, d: i32, offset: i32| {
        (i64::from(out) - 1) * i64::from(d) - (i64::from(extent) - 1) * i64::from(n) + i64::from(offset)
    };
    vec![
        border(resize.src.rows, out.rows, resize.scale_y_n, resize.scale_y_d, resize.offset_y),
        border(resize.src.cols, out.cols, resize.scale_x_n, resize.scale_x_d, resize.offset_x),
    ]
}

/// TOSA's `padding` of a pad to the extents of `out`: before and after, for each axis of NHWC.
fn paddings(pad: &Pad<BufferId>, out: &BufferView) -> Vec<i64> {
    let pair = |before: u32, inner: u32, outer: u32| {
        [i64::from(before), i64::from(outer) - i64::from(inner) - i64::from(before)]
    };
    let pairs = [
        [0, 0],
        pair(pad.top, pad.src.rows, out.rows),
        pair(pad.left, pad.src.cols, out.cols),
        pair(pad.front, pad.src.chs, out.chs),
    ];
    pairs.concat()
}

/// Where a slice begins.
fn start_of(module: &Module, slice: OpId) -> Result<Vec<i64>, PassError> {
    let start = module.constant(module.op(slice).operands()[1]).and_then(|c| c.tensor.data().to_ints());
    start.ok_or_else(|| PassError::invalid("a slice begins nowhere"))
}

/// Columns `window` of a value as a strip of the group can read them.
fn window_of(
    module: &mut Module,
    group: &mut Group,
    before: OpId,
    value: ValueId,
    window: &Range<u32>,
    strip: usize,
) -> Result<ValueId, PassError> {
    let key = (value, window.start, window.end, strip);
    if let Some(&made) = group.made.get(&key) {
        return Ok(made);
    }
    let loc = module.op(before).loc.clone();
    let made = if depends(module, group, value) {
        let ValueDef::Result { op, .. } = module.def(value) else {
            return Err(PassError::invalid("an argument depends on no stage"));
        };
        let data = module.op(op).clone();
        match &data.op {
            Op::Stage(_) => parts_of(module, group, before, op, window, &loc)?,
            Op::Identity(_) => window_of(module, group, before, data.operands()[0], window, strip)?,
            Op::Slice(_) => {
                let mut start = start_of(module, op)?;
                let first = start[W] as u32;
                let inner = first + window.start..first + window.end;
                let inner = window_of(module, group, before, data.operands()[0], &inner, strip)?;
                start[W] = 0;
                let size = with_columns(module.ty(value), window.end - window.start);
                slice(module, before, inner, start, size, &loc)
            }
            Op::Concat(row) if row.axis as usize == W => {
                let mut first = 0;
                let mut pieces = Vec::new();
                for &piece in data.operands() {
                    let cols = module.tensor_ty(piece).shape[W] as u32;
                    let (from, to) = (window.start.max(first), window.end.min(first + cols));
                    if from < to {
                        let window = from - first..to - first;
                        pieces.push(window_of(module, group, before, piece, &window, strip)?);
                    }
                    first += cols;
                }
                concat(module, before, &pieces, &loc)?
            }
            Op::Concat(row) => {
                let pieces: Result<Vec<ValueId>, PassError> = (data.operands().iter())
                    .map(|&piece| window_of(module, group, before, piece, window, strip))
                    .collect();
                let ty = with_columns(module.ty(value), window.end - window.start);
                let op = module.insert_before(before, row.clone(), &pieces?, &[ty], loc);
                module.result(op)
            }
            other => return Err(PassError::invalid(format!("no columns of `{}`", other.name()))),
        }
    } else {
        columns(module, before, value, window, &loc)
    };
    group.made.insert(key, made);
    Ok(made)
}

/// Whether a value is made of results of the group, through views.
fn depends(module: &Module, group: &Group, value: ValueId) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        let ValueDef::Result { op, .. } = module.def(value) else { continue };
        if group.stage_of.contains_key(&op) {
            return true;
        }
        let data = module.op(op);
        if matches!(data.op, Op::Slice(_) | Op::Concat(_) | Op::Identity(_)) && seen.insert(op) {
            open.extend(data.operands());
        }
    }
    false
}

/// Columns of a stage of the group, of the last part if that has all of them, else of all parts so far.
fn parts_of(
    module: &mut Module,
    group: &Group,
    before: OpId,
    op: OpId,
    window: &Range<u32>,
    loc: &Location,
) -> Result<ValueId, PassError> {
    let missing = || PassError::invalid("a strip reads columns that none before it computes");
    let parts = group.stage_of.get(&op).and_then(|stage| group.parts.get(stage)).ok_or_else(missing)?;
    let (range, value) = parts.last().ok_or_else(missing)?;
    if range.start <= window.start && window.end <= range.end {
        let window = window.start - range.start..window.end - range.start;
        return Ok(columns(module, before, *value, &window, loc));
    }
    let met: Vec<(Range<u32>, ValueId)> =
        parts.iter().filter(|(r, _)| r.start < window.end && window.start < r.end).cloned().collect();
    let mut next = met.first().ok_or_else(missing)?.0.start;
    let first = next;
    let adjoin = met.iter().all(|(range, _)| std::mem::replace(&mut next, range.end) == range.start);
    if !adjoin || first > window.start || next < window.end {
        return Err(missing());
    }
    let values: Vec<ValueId> = met.iter().map(|(_, value)| *value).collect();
    let joined = concat(module, before, &values, loc)?;
    Ok(columns(module, before, joined, &(window.start - first..window.end - first), loc))
}

/// Some columns of a value: the value itself if that is all.
fn columns(
    module: &mut Module,
    before: OpId,
    value: ValueId,
    window: &Range<u32>,
    loc: &Location,
) -> ValueId {
    let ty = module.ty(value).clone();
    let shape = &module.tensor_ty(value).shape;
    if (window.start, window.end as usize) == (0, shape[W]) {
        return value;
    }
    let mut start = vec![0; shape.len()];
    start[W] = i64::from(window.start);
    slice(module, before, value, start, with_columns(&ty, window.end - window.start), loc)
}

/// A slice of a value of the type `ty`; the value itself if it has that type.
pub(super) fn slice(
    module: &mut Module,
    before: OpId,
    value: ValueId,
    start: Vec<i64>,
    ty: Type,
    loc: &Location,
) -> ValueId {
    if *module.ty(value) == ty {
        return value;
    }
    let size: Vec<i64> =
        ty.as_tensor().map_or_else(Vec::new, |ty| ty.shape.iter().map(|&extent| extent as i64).collect());
    let mut list = |values: Vec<i64>| {
        let tensor = Tensor::new([values.len()], TensorData::Index(values));
        module.insert_const_before(before, tensor, loc.clone())
    };
    let (start, size) = (list(start), list(size));
    let op = module.insert_before(before, dialect::Slice {}, &[value, start, size], &[ty], loc.clone());
    module.result(op)
}

/// Values side by side in columns; the value itself if it is one.
fn concat(
    module: &mut Module,
    before: OpId,
    values: &[ValueId],
    loc: &Location,
) -> Result<ValueId, PassError> {
    if let [value] = values {
        return Ok(*value);
    }
    let row: Op = dialect::Concat { axis: W as i32 }.into();
    let types = infer(module, &row, values, None).map_err(PassError::other)?;
    let op = module.insert_before(before, row, values, &types, loc.clone());
    Ok(module.result(op))
}

/// A type with other columns.
fn with_columns(ty: &Type, cols: u32) -> Type {
    let mut ty = ty.clone();
    if let Type::Tensor(tensor) = &mut ty
        && let Some(extent) = tensor.shape.get_mut(W)
    {
        *extent = cols as usize;
    }
    ty
}

/// Erases views, and constants, that nothing uses.
pub fn erase_dead_views(module: &mut Module, block: BlockId) {
    erase_dead_views_of(module, block, &BTreeSet::new());
}

/// Erases some stages, and the views and constants that nothing else uses.
fn erase_dead_views_of(module: &mut Module, block: BlockId, stages: &BTreeSet<OpId>) {
    let users = module.users(block);
    let mut dead = stages.clone();
    // Operands stand before their users, but for parts, which nothing dead uses.
    for &op in module.block_ops(block).iter().rev() {
        let data = module.op(op);
        let is_view =
            matches!(data.op, Op::Slice(_) | Op::Concat(_) | Op::Identity(_)) || data.op.is_constant();
        let mut uses = data.results().iter().flat_map(|&value| &users[value]);
        if is_view && uses.all(|user| dead.contains(user)) {
            dead.insert(op);
        }
    }
    module.erase_where(block, |op| dead.contains(&op));
}

/// Puts a block in an order of its stages: constants, then each stage after the views that it reads, then
/// what is left.
fn put_in_order(module: &mut Module, block: BlockId, stages: &[OpId]) {
    let old: Vec<OpId> = module.block_ops(block).to_vec();
    let mut order: Vec<OpId> = old.iter().copied().filter(|&op| module.op(op).op.is_constant()).collect();
    let mut done: BTreeSet<OpId> = order.iter().copied().collect();
    let terminator = module.terminator(block);
    for &root in stages.iter().chain(&old) {
        if Some(root) == terminator {
            continue;
        }
        let mut open = vec![root];
        while let Some(&op) = open.last() {
            let waits = |value: &ValueId| module.defining_op(*value).filter(|def| !done.contains(def));
            match module.op(op).operands().iter().find_map(waits) {
                Some(operand) if !done.contains(&op) => open.push(operand),
                _ => {
                    open.pop();
                    if done.insert(op) {
                        order.push(op);
                    }
                }
            }
        }
    }
    order.extend(terminator);
    module.set_block_order(block, order);
}
