//! The judge of formed stages. Shares no code with selection and placement: it follows single elements.
//!
//! It holds that
//! - the operands of a stage are, one for one, the views that its code reads, with as many elements and of
//!   the same type;
//! - every view lies in its buffer, and every table of a code exists and is as long as the code reads;
//! - an element that a stage reads lies where the stage or argument that makes it has put it (the corners and
//!   the middle of every view are followed through concatenations, slices and reshapes);
//! - stages of one set of tables have equal tables;
//! - a buffer's elements are written once each, inputs not at all, and result `i` of the function is output
//!   buffer `i`.

use std::collections::BTreeMap;

use cranelift_entity::PrimaryMap;
use strata_ir::{Module, Op, OpId, ValueDef, ValueId};

use crate::model::graph::views_meet;
use crate::model::{Buffer, BufferId, BufferRole, BufferView, StageGraph, StageTemplate, TableId};
use crate::select::graph::{GraphError, stage_tables};

/// What is wrong with formed stages; always the compiler's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StageFault {
    /// The stage graph cannot be read.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A stage is malformed.
    #[error("stage `{stage}`: {problem}")]
    Stage {
        /// Its name.
        stage: String,
        /// What is wrong.
        problem: String,
    },
    /// A buffer is not written as it should be.
    #[error("buffer {buffer} (`{name}`): {problem}")]
    Buffer {
        /// The buffer.
        buffer: BufferId,
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A result of the function is not where it should be.
    #[error("result {index} of the function {problem}")]
    Result {
        /// Which one.
        index: usize,
        /// What is wrong.
        problem: String,
    },
}

/// Judges the stages of a function.
///
/// # Errors
/// All faults.
pub fn check(module: &Module, func: OpId) -> Result<(), Vec<StageFault>> {
    let graph = StageGraph::from_module(module, func).map_err(|error| vec![error.into()])?;
    let mut judge = Judge { module, func, graph: &graph, made: BTreeMap::new(), faults: Vec::new() };
    for stage in graph.stages.values() {
        judge.made.insert(module.result(stage.op), stage.code.out);
    }
    for stage in graph.stages.values() {
        let mut problems = Vec::new();
        judge.stage(stage.op, &stage.code, &stage.table_bytes, &mut problems);
        let named = |problem| StageFault::Stage { stage: stage.name.clone(), problem };
        judge.faults.extend(problems.into_iter().map(named));
    }
    judge.table_sets();
    judge.buffers();
    judge.results();
    if judge.faults.is_empty() { Ok(()) } else { Err(judge.faults) }
}

/// An element of a buffer: the buffer, and its place there, row-major.
type Home = (BufferId, u64);

struct Judge<'a> {
    module: &'a Module,
    func: OpId,
    graph: &'a StageGraph,
    /// Where the results of stages go.
    made: BTreeMap<ValueId, BufferView>,
    faults: Vec<StageFault>,
}

impl Judge<'_> {
    fn buffer(&self, view: &BufferView) -> Option<&Buffer> {
        self.graph.buffers.get(view.tensor)
    }

    fn stage(
        &self,
        op: OpId,
        code: &StageTemplate,
        table_bytes: &PrimaryMap<TableId, u32>,
        problems: &mut Vec<String>,
    ) {
        let operands = self.module.op(op).operands();
        let reads = code.reads();
        if operands.len() != reads.len() {
            problems.push(format!("it has {} operands, but its code reads {}", operands.len(), reads.len()));
        }
        let result = self.module.result(op);
        let views = operands.iter().copied().zip(&reads).chain([(result, &code.out)]);
        for (value, view) in views {
            if let Err(problem) = self.view(value, view) {
                problems.push(problem);
            }
        }
        for (table, bytes) in code.tables() {
            match table_bytes.get(table) {
                Some(&found) if u64::from(found) == bytes => {}
                Some(found) => problems.push(format!("{table} has {found} bytes, the code reads {bytes}")),
                None => problems.push(format!("there is no {table}")),
            }
        }
    }

    /// Whether `view` holds `value`, element for element as far as it is probed.
    fn view(&self, value: ValueId, view: &BufferView) -> Result<(), String> {
        let buffer = self.buffer(view).ok_or_else(|| format!("there is no buffer {}", view.tensor))?;
        let inside = |first: u32, extent: u32, of: u32| {
            extent > 0 && first.checked_add(extent).is_some_and(|e| e <= of)
        };
        if !(inside(view.row0, view.rows, buffer.rows)
            && inside(view.col0, view.cols, buffer.cols)
            && inside(view.ch0, view.chs, buffer.chs))
        {
            return Err(format!("{view:?} is not within `{}`", buffer.name));
        }
        let ty = self.module.tensor_ty(value);
        if ty.n_elements() as u64 != view.n_elements() {
            return Err(format!("{view:?} does not hold {ty}"));
        }
        let elem_bytes = u64::from(buffer.elem.size_bytes());
        if ty.elem.size_bytes() as u64 != elem_bytes {
            return Err(format!("`{}` holds {:?}, the value is {ty}", buffer.name, buffer.elem));
        }
        for (flat, home) in probes(view, buffer) {
            let found = self.home(value, flat);
            if found != Some(home) {
                return Err(format!("element {flat} of {value} is read at {home:?}, but lies at {found:?}"));
            }
        }
        Ok(())
    }

    /// Where element `flat` of a value lies.
    fn home(&self, mut value: ValueId, mut flat: u64) -> Option<Home> {
        loop {
            if let Some(view) = self.made.get(&value) {
                return at(view, self.buffer(view)?, flat);
            }
            let (op, result) = match self.module.def(value) {
                ValueDef::Arg { index, .. } => {
                    let role = BufferRole::Input(index as u32);
                    let (buffer, _) = self.graph.buffers.iter().find(|(_, buffer)| buffer.role == role)?;
                    return Some((buffer, flat));
                }
                ValueDef::Result { op, index } => (op, index),
            };
            let data = self.module.op(op);
            if let Op::Phase(_) = &data.op {
                let body = self.module.entry_block(op);
                let yielded = self.module.op(self.module.terminator(body)?);
                value = *yielded.operands().get(result)?;
                continue;
            }
            let shape = |value: ValueId| &self.module.tensor_ty(value).shape;
            let mut index = unravel(shape(value), flat);
            match &data.op {
                Op::Reshape(_) | Op::Identity(_) => value = data.operands()[0],
                Op::Transpose(transpose) => {
                    value = data.operands()[0];
                    let mut source = index.clone();
                    for (axis, &from) in transpose.perms.iter().enumerate() {
                        source[usize::try_from(from).ok()?] = index[axis];
                    }
                    flat = ravel(shape(value), &source);
                }
                Op::Slice(_) => {
                    let start = self.module.constant(data.operands()[1])?.tensor.data().to_ints()?;
                    value = data.operands()[0];
                    for (index, start) in index.iter_mut().zip(start) {
                        *index += usize::try_from(start).ok()?;
                    }
                    flat = ravel(shape(value), &index);
                }
                Op::Concat(concat) => {
                    let axis = usize::try_from(concat.axis).ok()?;
                    value = *data.operands().iter().find(|&&part| {
                        let extent = shape(part)[axis];
                        let within = index[axis] < extent;
                        if !within {
                            index[axis] -= extent;
                        }
                        within
                    })?;
                    flat = ravel(shape(value), &index);
                }
                _ => return None,
            }
        }
    }

    fn table_sets(&mut self) {
        let mut first_of: BTreeMap<u32, OpId> = BTreeMap::new();
        for stage in self.graph.stages.values() {
            let Some(set) = stage.table_set else { continue };
            let first = *first_of.entry(set).or_insert(stage.op);
            let tables = |op| {
                let ops = stage_tables(self.module, op).unwrap_or_default();
                ops.into_iter().map(|op| self.module.op(op).op.constant()).collect::<Vec<_>>()
            };
            if first != stage.op && tables(first) != tables(stage.op) {
                let problem = format!("it has not the tables of the others of set {set}");
                self.faults.push(StageFault::Stage { stage: stage.name.clone(), problem });
            }
        }
    }

    fn buffers(&mut self) {
        for (id, buffer) in &self.graph.buffers {
            let writes: Vec<&BufferView> = self.made.values().filter(|view| view.tensor == id).collect();
            let n_written: u64 = writes.iter().map(|view| view.n_elements()).sum();
            let n_elements = u64::from(buffer.rows) * u64::from(buffer.cols) * u64::from(buffer.chs);
            let clash =
                (0..writes.len()).any(|i| writes[..i].iter().any(|other| views_meet(writes[i], other)));
            let problem = match buffer.role {
                BufferRole::Input(_) if n_written > 0 => "an input is written",
                BufferRole::Input(_) => continue,
                _ if clash => "two stages write the same elements",
                _ if n_written != n_elements => "not every element is written",
                _ => continue,
            };
            let (name, problem) = (buffer.name.clone(), problem.to_owned());
            self.faults.push(StageFault::Buffer { buffer: id, name, problem });
        }
    }

    fn results(&mut self) {
        let Some(ret) = self.module.terminator(self.module.entry_block(self.func)) else { return };
        for (index, &value) in self.module.op(ret).operands().iter().enumerate() {
            let role = BufferRole::Output(index as u32);
            let mut outputs = self.graph.buffers.iter().filter(|(_, buffer)| buffer.role == role);
            let problem = match (outputs.next(), outputs.next()) {
                (Some((id, buffer)), None) => {
                    let view = BufferView::whole(id, buffer.rows, buffer.cols, buffer.chs);
                    self.view(value, &view).err()
                }
                _ => Some("needs exactly one buffer".to_owned()),
            };
            self.faults.extend(problem.map(|problem| StageFault::Result { index, problem }));
        }
    }
}

/// The home of element `flat` of a view, if the view has any elements.
fn at(view: &BufferView, buffer: &Buffer, flat: u64) -> Option<Home> {
    let (cols, chs) = (u64::from(view.cols), u64::from(view.chs));
    if cols == 0 || chs == 0 {
        return None;
    }
    let (row, col, ch) = (flat / chs / cols, flat / chs % cols, flat % chs);
    let row = row + u64::from(view.row0);
    let (col, ch) = (col + u64::from(view.col0), ch + u64::from(view.ch0));
    Some((view.tensor, (row * u64::from(buffer.cols) + col) * u64::from(buffer.chs) + ch))
}

/// Elements at the corners and in the middle of a view: their number in the view, and their homes.
fn probes(view: &BufferView, buffer: &Buffer) -> Vec<(u64, Home)> {
    let points = |extent: u32| [0, extent / 2, extent - 1];
    let mut out = Vec::new();
    for row in points(view.rows) {
        for col in points(view.cols) {
            for ch in points(view.chs) {
                let flat = (u64::from(row) * u64::from(view.cols) + u64::from(col)) * u64::from(view.chs)
                    + u64::from(ch);
                out.extend(at(view, buffer, flat).map(|home| (flat, home)));
            }
        }
    }
    out
}

fn unravel(shape: &[usize], flat: u64) -> Vec<usize> {
    let mut rest = flat as usize;
    let mut index = vec![0; shape.len()];
    for (axis, &extent) in shape.iter().enumerate().rev() {
        index[axis] = rest % extent.max(1);
        rest /= extent.max(1);
    }
    index
}

fn ravel(shape: &[usize], index: &[usize]) -> u64 {
    shape.iter().zip(index).fold(0, |flat, (&extent, &at)| flat * extent as u64 + at as u64)
}
