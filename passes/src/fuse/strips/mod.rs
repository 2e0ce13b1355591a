//! Candidate strips: a set of stages that runs as several phases, each computing a window of the columns.
//!
//! Where full-width rows of a set do not fit activation SRAM, narrower ones may: every ring is then only as
//! wide as a strip and its halo, while the tables stay in weight SRAM from strip to strip. The machine knows
//! nothing of it: strips are ordinary phases of ordinary stages, which [`realise`] makes of a chosen set, and
//! which [`split_columns`](strata_backend::select::split_columns) makes of its ops.
//!
//! Tensors that only the set uses exist once a strip, in buffers of their own, with the halo *recomputed*. A
//! tensor that others use too is one buffer, of which each strip computes what the strips before it have not;
//! a strip that needs columns of earlier ones reads them back: that halo is *kept*.
//!
//! | module | what it holds |
//! |---|---|
//! | [`window`] | a stage's code for a window of its columns |
//! | [`ranges`] | which columns each stage computes in each strip |
//! | [`evaluate`] | what a set costs in strips |
//! | [`realise`] | the stage graph that results of a choice |

pub mod evaluate;
pub mod ranges;
pub mod realise;
#[cfg(test)]
mod tests;
pub mod window;

pub use ranges::Strips;
