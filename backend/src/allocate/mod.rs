//! Static address allocation: offsets for buffers whose sizes and live intervals are known.
//!
//! The problem is *dynamic storage allocation*: no two buffers that are live together may share a byte. It is
//! NP-hard, and the instances that compilers meet are mostly easy; so quick heuristics go first, and exact
//! search finishes what they leave, or proves that nothing more can be had.
//!
//! - [`allocate`] fits a problem into its capacity, or says what does not fit.
//! - [`minimise`] looks for the smallest peak, whatever the capacity, and gives a lower bound with it.
//! - [`check`] judges a plan on its own; both functions above pass every plan through it before they return
//!   it.
//!
//! **Flow.** `instance` splits a problem into components that never meet in time and brings each into a
//! canonical form; `heuristics` packs it by a number of orders; `solver` is the branch and bound, restarted
//! with other orders under growing limits; `search` puts them together. [`csv`] reads and writes problems and
//! plans.
//!
//! **Invariants.** Work is limited by search nodes, never by time, so a result is the same on every machine.
//! It depends on the numbering of the buffers only where buffers agree in everything else, and neither on the
//! scale of time nor on its direction.
//!
//! **What it does not do.** It does not choose live intervals, spill, split buffers or share bytes between
//! them. Plans are not made compact beyond the peak asked for.
//!
//! # Source
//!
//! M. D. Moffitt, "MiniMalloc: A Lightweight Memory Allocator for Hardware-Accelerated Machine Learning",
//! ASPLOS 2023, for canonical plans and the section bound.

mod cell;
mod check;
pub mod csv;
mod heuristics;
mod instance;
mod memo;
mod search;
mod solver;
#[cfg(test)]
mod tests;

pub use check::{Violation, check};

use thiserror::Error;

/// A buffer to be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// The caller's name for it, unique in the problem. It has no influence on the plan.
    pub id: u32,
    /// The first time at which it is live.
    pub lower: i64,
    /// The first time at which it is live no more.
    pub upper: i64,
    /// Its length in bytes. Empty buffers are allowed and clash with nothing.
    pub size: u64,
    /// Its offset has to be a multiple of this many bytes.
    pub alignment: u64,
    /// The only offset it may have, if it is not free to move.
    pub fixed: Option<u64>,
}

/// Buffers and the room there is for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationProblem {
    /// The buffers, in any order.
    pub buffers: Vec<Buffer>,
    /// Bytes there are, from offset zero.
    pub capacity: u64,
}

/// How much work may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes that the exact search may visit in all; each costs time in proportion to the buffers left in its
    /// piece.
    pub nodes: u64,
    /// Whether, where the buffers do not fit, it is looked for what would be
    /// [enough](Shortfall::sufficient_bytes): a search of its own.
    pub looks_for_enough: bool,
}

impl Default for Limits {
    /// Enough for all problems of networks seen so far; some seconds for hundreds of buffers that cannot be
    /// settled.
    fn default() -> Self {
        Self { nodes: 1_000_000, looks_for_enough: true }
    }
}

/// A valid plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The offset of each buffer, in the order of the problem.
    pub offsets: Vec<u64>,
    /// One past the last byte that any buffer uses.
    pub peak: u64,
    /// No plan has a lower peak than this.
    pub lower_bound: u64,
}

impl Allocation {
    /// Whether no plan has a lower peak.
    #[must_use]
    pub fn is_optimal(&self) -> bool {
        self.peak == self.lower_bound
    }
}

/// What came of a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A plan that is within the capacity.
    Placed(Allocation),
    /// No plan is.
    Infeasible(Shortfall),
    /// The limits were reached first. The best plan found is larger than the capacity.
    Exhausted(Allocation),
}

/// Why a problem does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// How it is known.
    pub proof: Proof,
    /// The time at which the buffers concerned need the most.
    pub time: i64,
    /// Ids of buffers that do not fit even if there were no others, in the order of the problem.
    pub buffers: Vec<u32>,
    /// Bytes of capacity that are missing at the least.
    pub missing_bytes: u64,
    /// Bytes of further capacity that are known to be enough for the whole problem, if any are, and it was
    /// looked for them.
    pub sufficient_bytes: Option<u64>,
}

/// How a problem is known not to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// More bytes are live at once than there are, counting the padding that all alignments have in common.
    Load,
    /// A fixed buffer ends beyond the capacity.
    FixedBeyondCapacity,
    /// Two fixed buffers share bytes while both are live; no capacity would do.
    FixedOverlap,
    /// Every plan was looked at, directly or by its bounds.
    Search,
}

/// Why there is no outcome at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AllocateError {
    /// The caller's fault: the problem makes no sense.
    #[error("the problem is malformed: {}", list(.0))]
    Malformed(Vec<Fault>),
    /// The allocator's fault: the judge refused its plan.
    #[error("internal error, the plan is not valid: {}", list(.0))]
    Unsound(Vec<Violation>),
}

/// A fault of a problem.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// A buffer is never live.
    #[error("buffer {id} is live from {lower} to {upper}, which is never")]
    EmptyInterval {
        /// The buffer.
        id: u32,
        /// Its first time.
        lower: i64,
        /// One past its last time.
        upper: i64,
    },
    /// An alignment is zero.
    #[error("buffer {id} has alignment 0")]
    ZeroAlignment {
        /// The buffer.
        id: u32,
    },
    /// A fixed offset contradicts the alignment.
    #[error("buffer {id} is fixed at {fixed}, which is not a multiple of its alignment {alignment}")]
    FixedMisaligned {
        /// The buffer.
        id: u32,
        /// Its offset.
        fixed: u64,
        /// Its alignment.
        alignment: u64,
    },
    /// Two buffers have the same id.
    #[error("the id {id} is used more than once")]
    RepeatedId {
        /// The id.
        id: u32,
    },
    /// The offsets might not fit 62 bits.
    #[error("the buffers need up to {bytes} bytes, more than 2^62")]
    TooLarge {
        /// The sum of all sizes and alignments and the largest fixed offset.
        bytes: u128,
    },
}

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl AllocationProblem {
    /// Everything that makes the problem meaningless, as opposed to infeasible.
    ///
    /// # Errors
    ///
    /// All faults, in the order of the buffers.
    pub fn validate(&self) -> Result<(), Vec<Fault>> {
        let mut faults = Vec::new();
        let mut ids = std::collections::BTreeSet::new();
        for &Buffer { id, lower, upper, alignment, fixed, .. } in &self.buffers {
            if lower >= upper {
                faults.push(Fault::EmptyInterval { id, lower, upper });
            }
            if alignment == 0 {
                faults.push(Fault::ZeroAlignment { id });
            } else if let Some(fixed) = fixed.filter(|offset| offset % alignment != 0) {
                faults.push(Fault::FixedMisaligned { id, fixed, alignment });
            }
            if !ids.insert(id) {
                faults.push(Fault::RepeatedId { id });
            }
        }
        let stacked: u128 = self.buffers.iter().map(|b| u128::from(b.size) + u128::from(b.alignment)).sum();
        let fixed = self.buffers.iter().filter_map(|b| b.fixed).max().unwrap_or(0);
        let bytes = stacked + u128::from(fixed);
        if bytes > 1 << 62 {
            faults.push(Fault::TooLarge { bytes });
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }
}

/// Fits a problem into its capacity.
///
/// Stops at the first plan that fits: its peak may be anything up to the capacity.
///
/// # Errors
///
/// If the problem is malformed.
pub fn allocate(problem: &AllocationProblem, limits: &Limits) -> Result<Outcome, AllocateError> {
    problem.validate().map_err(AllocateError::Malformed)?;
    judge(problem, search::allocate(problem, limits))
}

/// Looks for the plan with the smallest peak, whatever the capacity of the problem.
///
/// The outcome is never `Exhausted`: there is always a plan, unless fixed buffers overlap, and
/// [`Allocation::is_optimal`] says whether it is known to be the best.
///
/// # Errors
///
/// If the problem is malformed.
pub fn minimise(problem: &AllocationProblem, limits: &Limits) -> Result<Outcome, AllocateError> {
    problem.validate().map_err(AllocateError::Malformed)?;
    judge(problem, search::minimise(problem, limits))
}

/// Lets no plan pass that the independent check finds fault with.
fn judge(problem: &AllocationProblem, outcome: Outcome) -> Result<Outcome, AllocateError> {
    let violations = match &outcome {
        Outcome::Placed(plan) | Outcome::Exhausted(plan) => {
            let roomy = AllocationProblem { buffers: problem.buffers.clone(), capacity: plan.peak };
            check(&roomy, &plan.offsets)
        }
        Outcome::Infeasible(_) => Vec::new(),
    };
    if violations.is_empty() { Ok(outcome) } else { Err(AllocateError::Unsound(violations)) }
}
