//! Drafts: how ops open them, and how elementwise ops go on in them.

use strata_ir::{OpId, ValueId};
use strata_isa_spec::inst::Load;
use strata_isa_spec::{Head, View};

use crate::model::TableId;
use crate::select::selector::{Draft, DraftHead, Read, Refusal, Selector, Source, Step};
use crate::select::shape::{self, Dims};

impl Selector<'_> {
    /// Sources of an op's operands, of which those in `reads` are the given reads, in order.
    pub(super) fn sources(&self, op: OpId, streamed: &[usize], first_read: usize) -> Vec<Source> {
        let operands = self.module.op(op).operands().iter().enumerate();
        operands
            .map(|(index, &value)| match streamed.iter().position(|&s| s == index) {
                Some(at) => Source::Read(first_read + at),
                None => Source::Const(value),
            })
            .collect()
    }

    /// Opens a draft with an op that is a head; `make` gets the draft to enter tables in, and the reads.
    pub(super) fn open_head(
        &mut self,
        op: OpId,
        make: impl FnOnce(&mut Vec<ValueId>, &[Read]) -> Result<DraftHead, Refusal>,
        streamed: &[usize],
    ) -> Result<(), Refusal> {
        let reads = streamed
            .iter()
            .map(|&index| self.read(self.operand(op, index)))
            .collect::<Result<Vec<_>, _>>()?;
        let result = self.module.result(op);
        self.makes(result)?;
        let dims = self.collapsed(result)?;
        let mut tables = Vec::new();
        let head = make(&mut tables, &reads)?;
        let steps = vec![Step { op, operands: self.sources(op, streamed, 0) }];
        self.push(Draft { head, tail: Vec::new(), reads, tables, steps, result, dims, chain: None });
        Ok(())
    }

    pub(super) fn push(&mut self, draft: Draft) {
        self.open.insert(draft.result, self.out.drafts.len());
        self.note_dims(draft.result, draft.dims);
        self.out.drafts.push(draft);
    }

    pub(super) fn note_dims(&mut self, value: ValueId, dims: Dims) {
        if self.collapsed(value) != Ok(dims) {
            self.out.natural.insert(value, dims);
        }
    }

    /// The draft that may go on from `value`: it makes it, and nothing else uses it.
    pub(super) fn extendable(&self, value: ValueId) -> Option<usize> {
        self.open.get(&value).copied().filter(|_| self.single_use(value))
    }

    /// The draft in which elementwise `op` may follow `value`: the one that makes `value`, if `may_extend`
    /// and it can go on with the extents of the op's result, else a new one that loads `value`. The op's
    /// result becomes the draft's.
    pub(super) fn follow(&mut self, op: OpId, value: ValueId, may_extend: bool) -> Result<usize, Refusal> {
        let result = self.module.result(op);
        self.elem_of(result)?;
        let dims = self.collapsed(result)?;
        let goes_on = |at: &usize| {
            let draft = &self.out.drafts[*at];
            draft.dims == dims || matches!(draft.head, Head::Load(_)) && shape::broadcasts(draft.dims, dims)
        };
        let at = match self.extendable(value).filter(|_| may_extend).filter(goes_on) {
            Some(at) => at,
            None => {
                let read = self.read(value)?;
                if !shape::broadcasts(read.dims, dims) {
                    return Err(no_stretch(read.dims, dims));
                }
                self.out.drafts.push(Draft {
                    head: Load { src: View::default() }.into(),
                    tail: Vec::new(),
                    reads: vec![read],
                    tables: Vec::new(),
                    steps: Vec::new(),
                    result: value,
                    dims,
                    chain: None,
                });
                self.out.drafts.len() - 1
            }
        };
        self.carry_on(at, result, dims);
        Ok(at)
    }

    /// Makes `result` the result of a draft.
    pub(super) fn carry_on(&mut self, at: usize, result: ValueId, dims: Dims) {
        let draft = &mut self.out.drafts[at];
        if self.open.get(&draft.result) == Some(&at) {
            self.open.remove(&draft.result);
        }
        self.open.insert(result, at);
        (draft.result, draft.dims, draft.chain) = (result, dims, None);
    }

    /// Lets an elementwise op whose operand 0 is streamed follow the draft of that.
    pub(super) fn join(&mut self, op: OpId, may_extend: bool) -> Result<usize, Refusal> {
        let at = self.follow(op, self.operand(op, 0), may_extend)?;
        let draft = &mut self.out.drafts[at];
        let last = draft.last();
        let operands = self.module.op(op).operands().iter().enumerate();
        let operands =
            operands.map(|(index, &value)| if index == 0 { last } else { Source::Const(value) }).collect();
        draft.steps.push(Step { op, operands });
        Ok(at)
    }
}

impl Draft {
    /// The index of a constant among the tables.
    pub(super) fn table(&mut self, value: ValueId) -> TableId {
        enter(&mut self.tables, value)
    }

    /// What the latest op made, or the loaded operand.
    pub(super) fn last(&self) -> Source {
        self.steps.len().checked_sub(1).map_or(Source::Read(0), Source::Step)
    }
}

/// The index of a constant among tables, which it joins if it is not there.
pub(super) fn enter(tables: &mut Vec<ValueId>, value: ValueId) -> TableId {
    let at = tables.iter().position(|&table| table == value).unwrap_or_else(|| {
        tables.push(value);
        tables.len() - 1
    });
    TableId::from_u32(at as u32)
}

pub(super) fn no_stretch(from: Dims, to: Dims) -> Refusal {
    format!("{from:?} (rows, columns, channels) does not stretch to {to:?}")
}
