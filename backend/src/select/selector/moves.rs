//! Ops that compute nothing: rearrangements, which move data only where the machine sees a difference, and
//! views.

use strata_ir::{Op, OpId, ValueId};

use crate::select::permute::Chain;
use crate::select::selector::{Draft, Read, Refusal, Selector, Source, Step};
use crate::select::{buffers, shape};

impl Selector<'_> {
    /// Reshapes, transposes and identities: nothing at all where the machine sees no difference, else
    /// `permute`.
    pub(super) fn rearrange(&mut self, op: OpId) -> Result<(), Refusal> {
        let (value, result) = (self.operand(op, 0), self.module.result(op));
        self.elem_of(result)?;
        let shape = self.shape(value).to_vec();
        let dims = self.collapsed(result)?;
        let apply = |chain: &Chain| match &self.module.op(op).op {
            Op::Transpose(transpose) => {
                let perms: Vec<usize> =
                    transpose.perms.iter().filter_map(|&p| usize::try_from(p).ok()).collect();
                chain.transpose(&shape, &perms)
            }
            _ => Some(chain.clone()),
        };
        let alone = apply(&Chain::identity(shape.iter().product())).ok_or("the transpose is malformed")?;
        let only_returned =
            self.users[result].iter().all(|&user| matches!(self.module.op(user).op, Op::FuncReturn(_)));
        let free = alone.is_identity() && (self.dims(value)? == dims || only_returned);
        let extendable = self.extendable(value);
        // A stage that moves data may as well make the extents that are asked for.
        let moves = extendable
            .is_some_and(|at| self.out.drafts[at].chain.is_some() && self.out.drafts[at].dims != dims);
        if free && !moves {
            // The bytes stay where they are; a draft just changes what it calls its result.
            match extendable.filter(|&at| self.out.drafts[at].dims == dims) {
                Some(at) => {
                    let made = self.out.drafts[at].dims;
                    self.follow_free(op, at, result);
                    self.note_dims(result, made);
                }
                None => {
                    self.read(value)?;
                    let made = self.dims(value)?;
                    self.note_dims(result, made);
                }
            }
            return Ok(());
        }
        if let Some(at) = extendable {
            let chain = self.out.drafts[at].chain.as_ref().and_then(apply);
            if let Some((chain, head)) = chain.and_then(|c| c.head().map(|head| (c, head))) {
                self.follow_free(op, at, result);
                let draft = &mut self.out.drafts[at];
                (draft.head, draft.chain, draft.dims) = (head.into(), Some(chain), dims);
                return Ok(());
            }
        }
        let read = Read { dims: self.dims(value)?, ..self.read(value)? };
        let head = alone.head().ok_or("the transpose has more than six independent axes")?;
        self.push(Draft {
            head: head.into(),
            tail: Vec::new(),
            reads: vec![read],
            tables: Vec::new(),
            steps: vec![Step { op, operands: self.sources(op, &[0], 0) }],
            result,
            dims,
            chain: Some(alone),
        });
        Ok(())
    }

    /// Adds an op that moves no data to a draft.
    fn follow_free(&mut self, op: OpId, at: usize, result: ValueId) {
        let operands = self.module.op(op).operands();
        let draft = &mut self.out.drafts[at];
        let last = draft.last();
        let source = |(index, &value)| if index == 0 { last } else { Source::Const(value) };
        draft.steps.push(Step { op, operands: operands.iter().enumerate().map(source).collect() });
        self.open.remove(&draft.result);
        draft.result = result;
        self.open.insert(result, at);
    }

    pub(super) fn concat(&mut self, op: OpId, axis: i32) -> Result<(), Refusal> {
        let result = self.module.result(op);
        let out = self.shape(result);
        let axis =
            usize::try_from(axis).ok().filter(|&axis| axis < out.len()).ok_or("the axis does not exist")?;
        self.collapsed(result)?;
        for &operand in self.module.op(op).operands() {
            self.read(operand)?;
            if shape::cut(out, axis, 0, self.shape(operand)[axis]).is_none() {
                return Err(format!("the machine does not join axis {axis} of {out:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn slice(&mut self, op: OpId) -> Result<(), Refusal> {
        let value = self.operand(op, 0);
        self.read(value)?;
        self.constant(op, 1)?;
        buffers::slice_cuts(self.module, op).map(drop).ok_or_else(|| {
            format!(
                "the machine does not cut {:?} to {:?}",
                self.shape(value),
                self.shape(self.module.result(op))
            )
        })
    }
}
