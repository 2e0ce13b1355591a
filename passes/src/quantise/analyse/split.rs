//! What of a network the machine runs, and what is left to the host.

use std::collections::BTreeSet;

use cranelift_entity::SecondaryMap;
use strata_ir::pass::{PassError, UnsupportedOp};
use strata_ir::{ElemType, Op, OpId, ValueId};

use crate::quantise::analyse::{Analysis, is_mac};

impl Analysis<'_> {
    /// Finds functions of one value and the ops that the host runs. The host takes floats only: whole numbers
    /// and statements that it needs are its own to compute.
    pub(super) fn split(&mut self) -> Result<BTreeSet<OpId>, PassError> {
        let mut opaque = BTreeSet::new();
        loop {
            self.leaf = SecondaryMap::new();
            self.find_functions();
            self.whole = self.whole_ranges();
            let inexact = self.inexact_integers();
            if !inexact.is_empty() {
                opaque.extend(inexact);
                self.find_numbers(&self.inputs(), &opaque);
                continue;
            }
            let host = self.split_host()?;
            let crosses = |op: &&OpId| {
                let result = self.module.result(**op);
                let is_float = self.elem(result) == Some(ElemType::F32);
                !host.contains(*op)
                    && !is_float
                    && self.numbers.contains(&result)
                    && self.users[result].iter().any(|user| host.contains(user))
            };
            let crossing: Vec<ValueId> =
                self.live.iter().filter(crosses).map(|&op| self.module.result(op)).collect();
            if crossing.is_empty() {
                return Ok(host);
            }
            opaque.extend(crossing);
            self.find_numbers(&self.inputs(), &opaque);
        }
    }

    /// The arguments that stand for numbers.
    fn inputs(&self) -> Vec<ValueId> {
        self.numbers.iter().copied().filter(|v| self.module.defining_op(*v).is_none()).collect()
    }

    /// The ops that the host runs: those that the machine has no form of and the denominators of softmax,
    /// with all that follows, if what follows leads to results without further convolutions.
    fn split_host(&self) -> Result<BTreeSet<OpId>, PassError> {
        let mut host = BTreeSet::new();
        let mut unsupported = Vec::new();
        for &op in &self.live {
            let obstacle = self.obstacle(op);
            if host.contains(&op) || (obstacle.is_none() && !self.is_sum_of_exponentials(op)) {
                continue;
            }
            let after = self.closure(op);
            if !after.iter().any(|&op| is_mac(self.op(op))) {
                host.extend(after);
            } else if let Some(reason) = obstacle {
                unsupported.push(UnsupportedOp::new(self.module, op, reason));
            }
        }
        if !unsupported.is_empty() {
            return Err(PassError::Unsupported(unsupported));
        }
        let mut integral: BTreeSet<OpId> = BTreeSet::new();
        for &op in self.live.iter().rev() {
            let result = self.module.result(op);
            let only_host = !self.users[result].is_empty()
                && self.users[result].iter().all(|user| host.contains(user))
                && !self.returned.contains(&result);
            let is_of_integers = |user: &OpId| integral.contains(user) || self.casts_to_whole(*user);
            // What the integers of a rounded value are computed by, which the machine would round again.
            let is_integral = self.leaf[result].is_some_and(|leaf| self.fixed.contains_key(&leaf))
                && self.users[result].iter().all(is_of_integers);
            if is_integral {
                integral.insert(op);
            }
            let belongs = is_integral
                || matches!(self.op(op), Op::Exp(_) | Op::Sub(_) | Op::ReduceMax(_))
                || self.elem(result) == Some(ElemType::I1);
            if only_host && belongs {
                host.insert(op);
            }
        }
        Ok(host)
    }

    fn casts_to_whole(&self, op: OpId) -> bool {
        matches!(self.op(op), Op::Cast(_)) && self.elem(self.module.result(op)) == Some(ElemType::I32)
    }

    fn is_sum_of_exponentials(&self, op: OpId) -> bool {
        let operand = self.module.op(op).operands().first();
        let producer = operand.and_then(|&value| self.module.defining_op(value));
        matches!(self.op(op), Op::ReduceSum(_))
            && producer.is_some_and(|op| matches!(self.op(op), Op::Exp(_)))
    }

    /// An op and all live ops that depend on it.
    fn closure(&self, op: OpId) -> BTreeSet<OpId> {
        let mut closure = BTreeSet::from([op]);
        let mut pending = vec![op];
        while let Some(op) = pending.pop() {
            for &result in self.module.op(op).results() {
                for &user in &self.users[result] {
                    if closure.insert(user) {
                        pending.push(user);
                    }
                }
            }
        }
        closure
    }
}
