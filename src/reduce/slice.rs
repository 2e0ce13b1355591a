//! The search for a part of a network that fails still.
//!
//! A [`Slice`] names the values that a part gives and those at which it begins, which become its inputs; what
//! lies between is computed. First one result is chosen, then an earlier one, then later beginnings, each in
//! steps that halve; then op by op, whether the part can begin behind it or do without it. All of it again,
//! until nothing changes.

use std::collections::{BTreeMap, BTreeSet};

use super::Progress;

/// A network whose values are numbered in the order in which they are computed; inputs and constants have no
/// numbers.
pub(super) trait Network {
    /// A part of it.
    type Part;

    /// The values that it gives.
    fn results(&self) -> Vec<usize>;

    /// The values that a value is computed of.
    fn operands(&self, value: usize) -> &[usize];

    /// Whether a value can stand for another: it has its type.
    fn can_stand_for(&self, value: usize, other: usize) -> bool;

    /// The part of a slice; `None` if it cannot be taken out.
    fn part(&self, slice: &Slice) -> Option<Self::Part>;
}

/// Which part of a network it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slice {
    /// What it gives.
    pub outputs: Vec<usize>,
    /// Values that it takes instead of computing them.
    pub inputs: BTreeSet<usize>,
    /// Values for which others stand, of which they are computed.
    pub replaced: BTreeMap<usize, usize>,
}

impl Slice {
    /// The value that stands for a value.
    pub(super) fn resolved(&self, mut value: usize) -> usize {
        // Each stands for one that is computed of it, so this ends.
        while let Some(&other) = self.replaced.get(&value).filter(|_| !self.inputs.contains(&value)) {
            value = other;
        }
        value
    }

    /// The values that it computes, and those of its inputs that it reads.
    pub(super) fn reached(&self, network: &impl Network) -> Reached {
        let mut reached = Reached::default();
        let mut open: Vec<usize> = self.outputs.clone();
        while let Some(value) = open.pop() {
            let value = self.resolved(value);
            if self.inputs.contains(&value) {
                reached.inputs.insert(value);
            } else if reached.computed.insert(value) {
                open.extend(network.operands(value));
            }
        }
        reached
    }
}

/// The values that a slice reaches.
#[derive(Clone, Debug, Default)]
pub(super) struct Reached {
    pub computed: BTreeSet<usize>,
    pub inputs: BTreeSet<usize>,
}

/// The smallest part that is found to fail still; `None` if no part does, not even the whole taken out anew.
pub(super) fn smallest<N: Network>(
    network: &N,
    still_fails: &mut dyn FnMut(&N::Part) -> bool,
    observer: &mut dyn FnMut(Progress),
) -> Option<N::Part> {
    let whole = Slice { outputs: network.results(), ..Slice::default() };
    let part = network.part(&whole).filter(|part| still_fails(part))?;
    let mut search = Search { network, still_fails, observer, slice: whole, part, n_tried: 1 };
    loop {
        let before = search.slice.clone();
        search.one_output();
        search.earlier_output();
        search.later_inputs();
        search.op_by_op();
        if search.slice == before {
            return Some(search.part);
        }
    }
}

struct Search<'a, N: Network> {
    network: &'a N,
    still_fails: &'a mut dyn FnMut(&N::Part) -> bool,
    observer: &'a mut dyn FnMut(Progress),
    slice: Slice,
    part: N::Part,
    n_tried: usize,
}

impl<N: Network> Search<'_, N> {
    /// Takes a slice if its part fails still.
    fn try_slice(&mut self, slice: Slice) -> bool {
        let Some(part) = self.network.part(&slice) else { return false };
        self.n_tried += 1;
        let fails = (self.still_fails)(&part);
        if fails {
            (self.slice, self.part) = (slice, part);
        }
        let n_left = self.computed().len();
        (self.observer)(Progress { n_tried: self.n_tried, n_left });
        fails
    }

    fn computed(&self) -> Vec<usize> {
        self.slice.reached(self.network).computed.into_iter().collect()
    }

    fn with_output(&self, output: usize) -> Slice {
        Slice { outputs: vec![output], ..self.slice.clone() }
    }

    /// One result of several; else without those that are not needed.
    fn one_output(&mut self) {
        if self.slice.outputs.len() < 2 {
            return;
        }
        for output in self.slice.outputs.clone().into_iter().rev() {
            if self.try_slice(self.with_output(output)) {
                return;
            }
        }
        for at in (0..self.slice.outputs.len()).rev() {
            let mut without = self.slice.clone();
            without.outputs.remove(at);
            self.try_slice(without);
        }
    }

    /// An earlier value as the only result.
    fn earlier_output(&mut self) {
        if self.slice.outputs.len() > 1 {
            return;
        }
        let computed = self.computed();
        let mut at = computed.len().saturating_sub(1);
        let mut step = computed.len() / 2;
        while step > 0 {
            if at >= step && self.try_slice(self.with_output(computed[at - step])) {
                at -= step;
            } else {
                step /= 2;
            }
        }
    }

    /// A later place to begin at: all that is read across it is an input.
    fn later_inputs(&mut self) {
        let computed = self.computed();
        let (mut begin, mut step) = (0, computed.len() / 2);
        while step > 0 {
            let next = begin + step;
            if next < computed.len() && self.try_slice(self.beginning_at(&computed, next)) {
                begin = next;
            } else {
                step /= 2;
            }
        }
    }

    /// The slice that computes no value before a place of those that are computed.
    fn beginning_at(&self, computed: &[usize], place: usize) -> Slice {
        let mut slice = self.slice.clone();
        let is_before: BTreeSet<usize> = computed[..place].iter().copied().collect();
        let read = computed[place..].iter().flat_map(|&value| self.network.operands(value));
        let read = read.chain(&self.slice.outputs).map(|&value| slice.resolved(value));
        let read: Vec<usize> = read.filter(|value| is_before.contains(value)).collect();
        slice.inputs.extend(read);
        slice
    }

    /// Each value in turn as an input, or with one that it is computed of in its place.
    fn op_by_op(&mut self) {
        for value in self.computed().into_iter().rev() {
            if !self.slice.reached(self.network).computed.contains(&value) {
                continue;
            }
            let mut as_input = self.slice.clone();
            as_input.inputs.insert(value);
            if self.try_slice(as_input) {
                continue;
            }
            for &operand in self.network.operands(value) {
                let mut without = self.slice.clone();
                without.replaced.insert(value, operand);
                if self.network.can_stand_for(operand, value) && self.try_slice(without) {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of values, each computed of the one before and, every third, of one far back.
    struct Chain(Vec<Vec<usize>>);

    impl Chain {
        fn new(n: usize) -> Self {
            let operands = |at: usize| match at {
                0 => vec![],
                at if at % 3 == 0 => vec![at - 1, at / 2],
                at => vec![at - 1],
            };
            Self((0..n).map(operands).collect())
        }
    }

    impl Network for Chain {
        type Part = BTreeSet<usize>;

        fn results(&self) -> Vec<usize> {
            vec![self.0.len() / 2, self.0.len() - 1]
        }

        fn operands(&self, value: usize) -> &[usize] {
            &self.0[value]
        }

        fn can_stand_for(&self, _: usize, _: usize) -> bool {
            true
        }

        fn part(&self, slice: &Slice) -> Option<Self::Part> {
            Some(slice.reached(self).computed)
        }
    }

    #[test]
    fn what_fails_alone_is_left_alone() {
        for culprit in [0, 1, 57, 120, 199] {
            let mut n_tried = 0;
            let mut fails = |part: &BTreeSet<usize>| {
                n_tried += 1;
                part.contains(&culprit)
            };
            let part = smallest(&Chain::new(200), &mut fails, &mut |_| {}).expect("the whole fails");
            assert_eq!(part, BTreeSet::from([culprit]));
            assert!(n_tried < 100, "{n_tried} for {culprit}");
        }
    }

    #[test]
    fn two_culprits_far_apart_are_both_left() {
        let mut fails = |part: &BTreeSet<usize>| part.contains(&20) && part.contains(&150);
        let part = smallest(&Chain::new(200), &mut fails, &mut |_| {}).expect("the whole fails");
        assert_eq!(part, BTreeSet::from([20, 150]));
    }

    #[test]
    fn what_does_not_fail_is_not_reduced() {
        assert_eq!(smallest(&Chain::new(5), &mut |_| false, &mut |_| {}), None);
    }
}
