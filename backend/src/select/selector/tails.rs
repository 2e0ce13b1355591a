//! Tails: elementwise ops, and the rescales and casts of their operands.

use strata_ir::attr::RoundingMode;
use strata_ir::{ElemType, Op, OpId, ValueId, dialect};
use strata_isa_spec::inst::{
    Binary, BinaryConst, BinaryKind, OperandRescale, Rescale, Rescale16, RescaleBySign,
};
use strata_isa_spec::{Head, View};

use crate::select::by_sign::ChoiceBySign;
use crate::select::selector::drafts::no_stretch;
use crate::select::selector::{Refusal, Selector, Source, Step, is_binary};
use crate::select::shape;

impl Selector<'_> {
    fn is_supported_rescale(rescale: &dialect::Rescale) -> Result<(), Refusal> {
        if rescale.input_unsigned || rescale.output_unsigned {
            return Err("the machine has signed integers only".to_owned());
        }
        Ok(())
    }

    pub(super) fn rescale(
        &mut self,
        op: OpId,
        rescale: &dialect::Rescale,
        may_extend: bool,
    ) -> Result<usize, Refusal> {
        Self::is_supported_rescale(rescale)?;
        let (multipliers, shifts) = (self.constant(op, 1)?, self.constant(op, 2)?);
        let (input_zp, output_zp) = (self.scalar(op, 3)?, self.scalar(op, 4)?);
        let to = self.elem_of(self.module.result(op))?;
        let n_scales = self.constant_tensor(op, 1)?.n_elements();
        let at = self.join(op, may_extend)?;
        let draft = &mut self.out.drafts[at];
        let (multipliers, shifts) = (draft.table(multipliers), draft.table(shifts));
        let per_channel = n_scales > 1;
        let double_round = rescale.rounding_mode == RoundingMode::DoubleRound;
        draft.tail.push(if rescale.scale32 {
            Rescale { multipliers, shifts, per_channel, input_zp, output_zp, to, double_round }.into()
        } else {
            Rescale16 { multipliers, shifts, per_channel, input_zp, output_zp, to }.into()
        });
        Ok(at)
    }

    /// Two rescales, by the sign of what they rescale.
    pub(super) fn rescale_by_sign(&mut self, choice: &ChoiceBySign) -> Result<(), Refusal> {
        let &ChoiceBySign { compare, above, below, select } = choice;
        let Op::Rescale(row) = &self.module.op(above).op else { unreachable!("it chooses between rescales") };
        let double_round = row.rounding_mode == RoundingMode::DoubleRound;
        let scales = |op: OpId| Ok::<_, Refusal>((self.constant(op, 1)?, self.constant(op, 2)?));
        let ((multipliers, shifts), (multipliers_below, shifts_below)) = (scales(above)?, scales(below)?);
        let per_channel = self.constant_tensor(above, 1)?.n_elements() > 1;
        let output_zp = self.scalar(above, 4)?;
        let to = self.elem_of(self.module.result(select))?;
        let at = self.follow(select, self.operand(compare, 0), true)?;
        let draft = &mut self.out.drafts[at];
        let value = draft.last();
        let made = [compare, above, below].map(|op| {
            let constants = self.module.op(op).operands()[1..].iter().map(|&value| Source::Const(value));
            let operands = std::iter::once(value).chain(constants).collect();
            draft.steps.push(Step { op, operands });
            draft.last()
        });
        draft.steps.push(Step { op: select, operands: made.to_vec() });
        let tail = RescaleBySign {
            multipliers: draft.table(multipliers),
            shifts: draft.table(shifts),
            multipliers_below: draft.table(multipliers_below),
            shifts_below: draft.table(shifts_below),
            per_channel,
            output_zp,
            to,
            double_round,
        };
        draft.tail.push(tail.into());
        Ok(())
    }

    /// The draft in which elementwise `op` goes on from one of its operands, doing first the rescale that was
    /// left to it; one that other ops share too is done anew for each.
    fn carry(&mut self, op: OpId, side: Side, index: usize) -> Result<usize, Refusal> {
        let Some(rescale) = side.rescale else { return self.follow(op, self.operand(op, index), true) };
        let (result, dims) = (self.module.result(op), self.collapsed(self.module.result(op))?);
        let may_extend = self.single_use(self.module.result(rescale));
        let module = self.module;
        let at = match &module.op(rescale).op {
            Op::Rescale(row) => self.rescale(rescale, row, may_extend)?,
            _ => self.join(rescale, may_extend)?,
        };
        let draft = &self.out.drafts[at];
        let fits =
            draft.dims == dims || matches!(draft.head, Head::Load(_)) && shape::broadcasts(draft.dims, dims);
        if !fits {
            return Err(no_stretch(draft.dims, dims));
        }
        self.carry_on(at, result, dims);
        Ok(at)
    }

    /// Whether a cast widens an integer to `i32`.
    pub(super) fn widens(&self, op: OpId) -> bool {
        let elem = |value: ValueId| self.module.tensor_ty(value).elem;
        matches!(elem(self.operand(op, 0)), ElemType::I8 | ElemType::I16)
            && elem(self.module.result(op)) == ElemType::I32
    }

    /// Whether a rescale or cast is left to the ops that use it: sums that take it along (if it only widens),
    /// and elementwise ops that rescale a streamed operand on its way in.
    pub(super) fn is_postponed(&self, op: OpId) -> bool {
        let users = &self.users[self.module.result(op)];
        let is_sum = |&user: &OpId| matches!(self.module.op(user).op, Op::ReduceSum(_));
        if !users.is_empty() && users.iter().all(is_sum) {
            return self.is_widening(op);
        }
        !users.is_empty()
            && users.iter().all(|&user| is_binary(&self.module.op(user).op))
            && self.operand_rescale(op).is_some()
    }

    /// Whether an op gives `x - zp` in `i32`.
    fn is_widening(&self, op: OpId) -> bool {
        if !self.widens(op) {
            return false;
        }
        let Op::Rescale(_) = &self.module.op(op).op else { return true };
        let Some(OperandRescale { multiplier, shift, double_round, .. }) = self.operand_rescale(op).flatten()
        else {
            return false;
        };
        shift < 31 && multiplier == 1 << shift && !double_round
    }

    /// A rescale or cast as the rescale of a streamed operand: `Some(None)` if there is nothing to do, `None`
    /// if the machine cannot do it there.
    fn operand_rescale(&self, op: OpId) -> Option<Option<OperandRescale>> {
        if !self.widens(op) || self.module.constant(self.operand(op, 0)).is_some() {
            return None;
        }
        let Op::Rescale(rescale) = &self.module.op(op).op else { return Some(None) };
        Self::is_supported_rescale(rescale).ok().filter(|()| rescale.scale32)?;
        let ([multiplier], [shift]) = (self.ints(op, 1).ok()?, self.ints(op, 2).ok()?);
        if self.scalar(op, 4).ok()? != 0 {
            return None;
        }
        Some(Some(OperandRescale {
            multiplier,
            shift: u8::try_from(shift).ok()?,
            input_zp: self.scalar(op, 3).ok()?,
            double_round: rescale.rounding_mode == RoundingMode::DoubleRound,
        }))
    }

    /// What an operand of an elementwise op is before a rescale that was left to it.
    fn side(&self, op: OpId, index: usize) -> Side {
        let value = self.operand(op, index);
        match self.module.defining_op(value).filter(|def| self.postponed.contains(def)) {
            Some(rescale) => Side { value: self.operand(rescale, 0), rescale: Some(rescale) },
            None => Side { value, rescale: None },
        }
    }

    pub(super) fn binary(&mut self, op: OpId, kind: BinaryKind, shift: u8) -> Result<(), Refusal> {
        let result = self.module.result(op);
        self.elem_of(result)?;
        for index in [0, 1] {
            if self.module.constant(self.operand(op, index)).is_some() {
                return self.binary_const(op, kind, shift, index);
            }
        }
        let sides = [self.side(op, 0), self.side(op, 1)];
        let dims = self.collapsed(result)?;
        // The later draft carries on; with none to carry on, an operand of the full extents is loaded.
        let draft_of = |side: &Side| {
            let free = side.rescale.is_none_or(|rescale| self.single_use(self.module.result(rescale)));
            let at = if free { self.extendable(side.value) } else { None };
            at.filter(|&at| self.out.drafts[at].dims == dims)
        };
        let drafts = [draft_of(&sides[0]), draft_of(&sides[1])];
        let spine = match (drafts[0], drafts[1]) {
            (None, None) => usize::from(self.collapsed(sides[0].value)? != dims),
            (first, second) => usize::from(second > first),
        };
        let (carried, streamed) = (sides[spine], sides[1 - spine]);
        let read = self.read(streamed.value)?;
        if !shape::broadcasts(read.dims, dims) {
            return Err(no_stretch(read.dims, dims));
        }
        let operand_rescale = streamed.rescale.and_then(|rescale| self.operand_rescale(rescale).flatten());
        let widening = streamed.rescale.map(|rescale| (rescale, self.sources(rescale, &[0], 0)));
        let at = self.carry(op, carried, spine)?;
        let n_operands = self.module.op(op).operands().len();
        let shift_operand = (n_operands == 3).then(|| self.operand(op, 2));
        let draft = &mut self.out.drafts[at];
        let last = draft.last();
        let index = draft.reads.len();
        draft.reads.push(read);
        let mut other = Source::Read(index);
        if let Some((rescale, mut operands)) = widening {
            operands[0] = Source::Read(index);
            draft.steps.push(Step { op: rescale, operands });
            other = Source::Step(draft.steps.len() - 1);
        }
        let mut operands = if spine == 0 { vec![last, other] } else { vec![other, last] };
        operands.extend(shift_operand.map(Source::Const));
        draft.steps.push(Step { op, operands });
        let kind = if spine == 1 { reversed(kind) } else { kind };
        draft.tail.push(Binary { kind, src: View::default(), rescale: operand_rescale, shift }.into());
        Ok(())
    }

    fn binary_const(&mut self, op: OpId, kind: BinaryKind, shift: u8, index: usize) -> Result<(), Refusal> {
        let constant = self.operand(op, index);
        let (dims, elem) = (self.collapsed(constant)?, self.elem_of(constant)?);
        if dims[0] != 1 || dims[1] != 1 {
            return Err(format!("the machine takes constants of one element or one a channel, not {dims:?}"));
        }
        let at = self.carry(op, self.side(op, 1 - index), 1 - index)?;
        let n_operands = self.module.op(op).operands().len();
        let shift_operand = (n_operands == 3).then(|| self.operand(op, 2));
        let draft = &mut self.out.drafts[at];
        let last = draft.last();
        let mut operands = if index == 1 {
            vec![last, Source::Const(constant)]
        } else {
            vec![Source::Const(constant), last]
        };
        operands.extend(shift_operand.map(Source::Const));
        draft.steps.push(Step { op, operands });
        let table = draft.table(constant);
        let kind = if index == 0 { reversed(kind) } else { kind };
        draft.tail.push(BinaryConst { kind, table, per_channel: dims[2] > 1, elem, shift }.into());
        Ok(())
    }
}

/// An operand of an elementwise op.
#[derive(Clone, Copy)]
struct Side {
    /// The value, before the rescale.
    value: ValueId,
    /// A rescale or cast that was left to the op.
    rescale: Option<OpId>,
}

/// The kind with its operands exchanged.
fn reversed(kind: BinaryKind) -> BinaryKind {
    match kind {
        BinaryKind::Sub => BinaryKind::ReverseSub,
        BinaryKind::ReverseSub => BinaryKind::Sub,
        BinaryKind::Add | BinaryKind::Mul | BinaryKind::Maximum | BinaryKind::Minimum => kind,
    }
}
