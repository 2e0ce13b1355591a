//! Every transformation between the import of a network and its program, and the planning behind them.
//!
//! | module | what it holds | takes → gives |
//! |---|---|---|
//! | [`manager`] | what a pass is, the registry, textual pipelines, how they run | |
//! | [`canonicalise`] | constants folded, what changes nothing removed | import, quant |
//! | [`equalise`] | channels scaled so that they quantise better | import |
//! | [`quantise`] | calibration and exact integer arithmetic | import → quant |
//! | [`rewrite`] | integer-exact rewrites by equality saturation | quant |
//! | [`stages`] | what one hardware stage runs; splitting; erasing wrappers again | quant → stages |
//! | [`plan`] | which stages run together, on which clusters, what stays on chip | stages → phases |
//! | [`schedule`] | rings, addresses, DMA stages, weight loads | phases → sched |
//! | [`allocate`] | static addresses of buffers with lifetimes | |
//!
//! Passes do no IO and hold no state. A solver never judges itself: each has a `check` beside it that shares none of
//! its code and always runs.

pub mod allocate;
pub mod canonicalise;
pub mod equalise;
pub mod manager;
pub mod plan;
pub mod quantise;
pub mod rewrite;
pub mod schedule;
pub mod stages;
