//! Which stages run together: `fuse-layers`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`egraph`] | the e-graph that offers sets of stages |
//! | [`candidates`] | sets of stages, evaluated as phases |
//! | [`strips`] | sets of stages run a window of columns at a time |
//! | [`search`] | exact choice among candidates by dynamic programming over cuts |
//! | [`solve`] | [`solve::plan`]: all of it, in order |
//! | `plan_of` | the plan that a choice is |
//! | [`refine`] | first rows of tensors that stay in SRAM, or come ahead, where the rest does not |
//! | [`too_large`] | stages that do not fit a target even alone, and what would do |
//! | [`bound`] | what no plan can beat |
//! | [`explain`] | why a plan is as it is, and which change of the target would help |
//! | [`order`] | the order in which stages are numbered |
//! | [`pass`] | the pass `fuse-layers` |
//!
//! What a set of stages costs, whether it fits and at which addresses, the [backend](strata_backend) tells.

pub mod bound;
pub mod candidates;
pub mod egraph;
pub mod explain;
pub mod order;
pub mod pass;
mod plan_of;
pub mod refine;
pub mod search;
pub mod solve;
pub mod strips;
#[cfg(test)]
mod tests;
pub mod too_large;
#[cfg(test)]
mod worked_example;

pub use pass::{FUSE_LAYERS, FuseLayers};
pub use solve::{PlanError, PlanOptions, Planned, plan};
