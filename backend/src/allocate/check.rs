//! The independent judge of an allocation.
//!
//! It works on the problem as given, byte ranges against byte ranges, and shares no code with the solvers:
//! neither their canonical form, nor their arithmetic. It sweeps through time keeping what is live ordered by
//! offset, so that a plan without faults costs `n log n`; every pair that does clash is named.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::allocate::AllocationProblem;

/// One fault of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// The plan does not have one offset for each buffer.
    #[error("the plan has {offsets} offsets for {buffers} buffers")]
    WrongLength {
        /// Offsets in the plan.
        offsets: usize,
        /// Buffers in the problem.
        buffers: usize,
    },
    /// A buffer does not end within the capacity.
    #[error("buffer {id} needs bytes {offset}..{end} of {capacity}")]
    OutOfBounds {
        /// The buffer.
        id: u32,
        /// Its first byte.
        offset: u64,
        /// One past its last byte.
        end: u128,
        /// The capacity of the problem.
        capacity: u64,
    },
    /// A buffer does not begin at a multiple of its alignment.
    #[error("buffer {id} at {offset} is not aligned to {alignment}")]
    Misaligned {
        /// The buffer.
        id: u32,
        /// Its first byte.
        offset: u64,
        /// The alignment asked for.
        alignment: u64,
    },
    /// A fixed buffer was moved.
    #[error("buffer {id} is at {offset}, but is fixed at {fixed}")]
    Moved {
        /// The buffer.
        id: u32,
        /// Where the plan puts it.
        offset: u64,
        /// Where it has to be.
        fixed: u64,
    },
    /// Two buffers share a byte while both are live.
    #[error("buffers {first} and {second} share bytes while both are live at {time}")]
    Overlap {
        /// The buffer that comes first in the problem.
        first: u32,
        /// The other.
        second: u32,
        /// The first time at which both are live.
        time: i64,
    },
}

/// Every fault of `offsets` as a plan for `problem`; none means that the plan is valid.
///
/// `offsets[i]` is the first byte of `problem.buffers[i]`.
#[must_use]
pub fn check(problem: &AllocationProblem, offsets: &[u64]) -> Vec<Violation> {
    let buffers = &problem.buffers;
    if offsets.len() != buffers.len() {
        return vec![Violation::WrongLength { offsets: offsets.len(), buffers: buffers.len() }];
    }
    let mut violations = Vec::new();
    for (buffer, &offset) in buffers.iter().zip(offsets) {
        let end = u128::from(offset) + u128::from(buffer.size);
        if end > u128::from(problem.capacity) {
            let capacity = problem.capacity;
            violations.push(Violation::OutOfBounds { id: buffer.id, offset, end, capacity });
        }
        if buffer.alignment == 0 || offset % buffer.alignment != 0 {
            let alignment = buffer.alignment;
            violations.push(Violation::Misaligned { id: buffer.id, offset, alignment });
        }
        if let Some(fixed) = buffer.fixed.filter(|&fixed| fixed != offset) {
            violations.push(Violation::Moved { id: buffer.id, offset, fixed });
        }
    }
    overlaps(problem, offsets, &mut violations);
    violations
}

/// Adds every pair that shares bytes while live together.
fn overlaps(problem: &AllocationProblem, offsets: &[u64], violations: &mut Vec<Violation>) {
    let buffers = &problem.buffers;
    let mut starts: Vec<usize> = (0..buffers.len())
        .filter(|&index| buffers[index].size > 0 && buffers[index].lower < buffers[index].upper)
        .collect();
    starts.sort_by_key(|&index| (buffers[index].lower, index));
    if is_disjoint(problem, offsets, &starts) {
        return;
    }
    let end = |index: usize| u128::from(offsets[index]) + u128::from(buffers[index].size);
    let mut clashes = Vec::new();
    for (position, &one) in starts.iter().enumerate() {
        for &other in &starts[position + 1..] {
            if buffers[other].lower >= buffers[one].upper {
                break;
            }
            if u128::from(offsets[one]) < end(other) && u128::from(offsets[other]) < end(one) {
                clashes.push((one.min(other), one.max(other), buffers[other].lower));
            }
        }
    }
    clashes.sort_unstable();
    violations.extend(clashes.into_iter().map(|(first, second, time)| Violation::Overlap {
        first: buffers[first].id,
        second: buffers[second].id,
        time,
    }));
}

/// Sweeps through time with the live buffers filed under their offsets. As long as those are disjoint, a
/// newcomer can only clash with its nearest neighbours.
fn is_disjoint(problem: &AllocationProblem, offsets: &[u64], starts: &[usize]) -> bool {
    let buffers = &problem.buffers;
    let mut ends = starts.to_vec();
    ends.sort_by_key(|&index| (buffers[index].upper, index));
    let mut ends = ends.into_iter().peekable();
    let mut live: BTreeMap<u64, u128> = BTreeMap::new();
    for &index in starts {
        while let Some(gone) = ends.next_if(|&other| buffers[other].upper <= buffers[index].lower) {
            live.remove(&offsets[gone]);
        }
        let offset = offsets[index];
        let end = u128::from(offset) + u128::from(buffers[index].size);
        let below = live.range(..=offset).next_back();
        let above = live.range(offset..).next();
        if below.is_some_and(|(_, &top)| top > u128::from(offset))
            || above.is_some_and(|(&start, _)| u128::from(start) < end)
        {
            return false;
        }
        live.insert(offset, end);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocate::Buffer;

    fn buffer(id: u32, lower: i64, upper: i64, size: u64) -> Buffer {
        Buffer { id, lower, upper, size, alignment: 1, fixed: None }
    }

    #[test]
    fn a_buffer_may_take_the_bytes_of_one_that_ends_as_it_begins() {
        let problem =
            AllocationProblem { buffers: vec![buffer(0, 0, 2, 8), buffer(1, 2, 4, 8)], capacity: 8 };
        assert_eq!(check(&problem, &[0, 0]), []);
    }

    #[test]
    fn every_clashing_pair_is_named() {
        let buffers = vec![buffer(7, 0, 9, 8), buffer(8, 1, 3, 8), buffer(9, 2, 5, 4), buffer(10, 5, 6, 4)];
        let problem = AllocationProblem { buffers, capacity: 16 };
        assert_eq!(
            check(&problem, &[0, 4, 10, 12]),
            [
                Violation::Overlap { first: 7, second: 8, time: 1 },
                Violation::Overlap { first: 8, second: 9, time: 2 },
            ]
        );
    }

    #[test]
    fn a_small_buffer_inside_a_large_one_is_found() {
        let problem =
            AllocationProblem { buffers: vec![buffer(0, 0, 4, 100), buffer(1, 1, 2, 1)], capacity: 100 };
        assert_eq!(check(&problem, &[0, 50]), [Violation::Overlap { first: 0, second: 1, time: 1 }]);
    }

    #[test]
    fn bounds_alignment_and_fixed_offsets_are_judged_together() {
        let mut moved = buffer(3, 0, 1, 8);
        moved.alignment = 16;
        moved.fixed = Some(16);
        let problem = AllocationProblem { buffers: vec![moved], capacity: 31 };
        assert_eq!(
            check(&problem, &[24]),
            [
                Violation::OutOfBounds { id: 3, offset: 24, end: 32, capacity: 31 },
                Violation::Misaligned { id: 3, offset: 24, alignment: 16 },
                Violation::Moved { id: 3, offset: 24, fixed: 16 },
            ]
        );
    }

    #[test]
    fn offsets_near_the_end_of_the_address_range_do_not_wrap() {
        let problem = AllocationProblem { buffers: vec![buffer(0, 0, 1, 2)], capacity: u64::MAX };
        assert_eq!(check(&problem, &[u64::MAX]).len(), 1);
    }

    #[test]
    fn a_plan_of_the_wrong_length_is_refused() {
        let problem = AllocationProblem { buffers: vec![buffer(0, 0, 1, 2)], capacity: 4 };
        assert_eq!(check(&problem, &[]), [Violation::WrongLength { offsets: 0, buffers: 1 }]);
    }
}
