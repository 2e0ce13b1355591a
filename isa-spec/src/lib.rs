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
//! | [`codec`], [`asm`] | the binary and the text form of a program |
//! | `field`, `form` | the binary and the text form of a field of an instruction, in Rust and as data |
//! | [`describe`] | the instruction set as JSON |
//! | [`bundle`] | the `.strata` file |
//! | [`demand`] | which input rows an output row needs |
//! | [`dataflow`] | the token view of a phase: which stage may take its next step |
//! | [`verify`] | what must hold of a program before anything runs it |
//! | [`interp`] | the functional interpreter, bit-exact |
//! | [`timed`] | the timed interpreter: a discrete-event simulation, traffic and energy |
//! | [`frames`] | consecutive frames: the program that runs a program several times, and its time |
//! | [`record`] | how a schedule is written down between compiler and backend |
//! | [`timing`] | cycles of a step, MAC counts |
//!
//! This crate knows nothing of the compiler: the verifier and the interpreters judge its output
//! independently.

pub mod asm;
pub mod bundle;
pub mod codec;
pub mod dataflow;
pub mod demand;
pub mod describe;
mod field;
mod form;
pub mod frames;
pub mod inst;
pub mod interp;
pub mod program;
pub mod record;
pub mod target;
pub mod timed;
pub mod timing;
pub mod verify;

pub use inst::{Head, Tail, View};
pub use program::{
    Mapping, Phase, Prefix, Program, Segment, SegmentKind, Stage, StageCode, Stream, WeightLoad,
};
pub use target::Target;
