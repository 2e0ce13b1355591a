//! The Strata machine: a virtual multi-layer accelerator.
//!
//! A program is a list of phases. A phase configures a dataflow graph in hardware: stages (one network layer
//! each) joined by streams (rings of rows in activation SRAM). All stages of a phase run at once.
//!
//! | module | what it holds |
//! |---|---|
//! | [`inst`] | the instruction table: every instruction, its opcode, mnemonic, fields and effect |
//! | [`program`] | a program in structured form: segments, streams, phases, stages |
//! | [`target`] | what a machine has: clusters, memories, clocks, energies, limits |
//! | [`demand`] | which input rows an output row needs |
//! | [`timing`] | cycles of a step, MAC counts |
//!
//! This crate knows nothing of the compiler: the verifier and the interpreters judge its output independently.

pub mod demand;
pub mod inst;
pub mod program;
pub mod target;
pub mod timing;

pub use inst::{Head, Tail, View};
pub use program::{Mapping, Phase, Program, Segment, SegmentKind, Stage, StageCode, Stream, WeightLoad};
pub use target::Target;
