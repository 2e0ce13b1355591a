//! Everything that knows the machine: what a stage is and costs, which ops one stage runs, where tensors and
//! tables stand, and the program that is emitted.
//!
//! | module | what it holds | takes → gives |
//! |---|---|---|
//! | [`model`] | stages, the tensors between them, and plans: the words that the others share | |
//! | [`cost`] | cycles, rings, transfers and energy of stages that run together | |
//! | [`select`] | which ops one hardware stage runs; splitting; erasing wrappers again | quant → stages |
//! | [`place`] | rings, addresses, DMA stages, weight loads | phases → sched |
//! | [`allocate`] | static addresses of buffers with lifetimes | |
//! | [`check`](mod@check) | an independent judge of plans | |
//! | [`emit`] | the instruction stream and its weight segment | sched → program |
//!
//! It decides nothing that a compiler may weigh: what runs together is for `strata-passes`, which asks this
//! crate what a choice costs, whether it fits, and at which addresses. A solver never judges itself: each has
//! a `check` that shares none of its code and always runs. Nothing here does IO or holds state.

pub mod allocate;
pub mod check;
pub mod cost;
pub mod emit;
pub mod model;
pub mod place;
pub mod select;

use strata_ir::pass::PassInfo;

/// The passes of this crate.
pub static PASSES: &[&PassInfo] =
    &[&select::FORM_STAGES, &select::split::SPLIT_CHANNELS, &place::SCHEDULE, &select::erase::ERASE_WRAPPERS];
