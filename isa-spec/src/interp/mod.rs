//! The functional interpreter: runs a verified program bit-exactly, in the machine's own memories.
//!
//! Rows really pass through the rings of activation SRAM and tables through weight SRAM, so a wrong address
//! shows as a wrong result. Ready stages take steps in a fixed order; wide convolution rows are shared out
//! over threads, which cannot change a value.
//!
//! [`run_checked`] runs the same program as an adversary would: memories begin with random bytes, ready
//! stages step in random order, weight loads complete as late or as early as they may, and every byte
//! remembers which row of which stream it holds. It knows nothing of how the verifier came to its verdict.

mod arith;
mod kernels;
mod machine;
mod order;
mod prepared;
mod rows;
mod shadow;
mod sram;
mod tails;
mod taps;
mod wide;

pub use shadow::Fault;

use self::machine::Machine;
use self::order::Random;
use crate::program::{Program, SegmentKind};
use crate::target::Target;
use crate::verify::{VerifyError, verify};

/// Errors, one after another.
fn list(errors: &[VerifyError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Why a program could not be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// The program is not valid; all violations.
    #[error("the program is not valid: {}", list(.0))]
    Invalid(Vec<VerifyError>),
    /// The weights are not of the size that the program declares.
    #[error("the weight segment has {found} bytes, the program declares {expected}")]
    Weights {
        /// Bytes declared.
        expected: u64,
        /// Bytes given.
        found: u64,
    },
    /// The inputs do not fit the input segments.
    #[error("input {index}: expected {expected} bytes, found {found}")]
    Input {
        /// Which input.
        index: usize,
        /// Bytes declared; 0 if there is no such input.
        expected: u64,
        /// Bytes given; 0 if it is missing.
        found: u64,
    },
    /// A checked run found bytes that are not those of the row it read: the program is wrong, and so is the
    /// verifier.
    #[error("the program passes the verifier, but {0}")]
    Unsound(Fault),
}

/// Runs a program on inputs (one byte string an input segment, in order) and returns the output segments.
///
/// # Errors
/// If the program does not verify for the target, or the weights or inputs are not of the declared sizes.
pub fn run(
    program: &Program,
    target: &Target,
    weights: &[u8],
    inputs: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, ExecError> {
    run_with(program, target, weights, inputs, &mut |_| {})
}

/// As [`run`], telling `progress` how many phases are done after each.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    program: &Program,
    target: &Target,
    weights: &[u8],
    inputs: &[Vec<u8>],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<u8>>, ExecError> {
    let mut machine = machine(program, target, weights, inputs)?;
    for phase in 0..program.phases.len() {
        machine.run_phase(phase);
        progress(phase + 1);
    }
    Ok(machine.into_outputs())
}

/// As [`run_with`], checking every read: ready stages step in an order drawn from `seed`, memories hold
/// random bytes at first, and a byte that is not of the row that a stage reads is an error. The outputs are
/// those of [`run`], whatever the seed; it takes several times as long.
///
/// # Errors
/// As [`run`]; [`ExecError::Unsound`] at the first wrong read.
pub fn run_checked(
    program: &Program,
    target: &Target,
    weights: &[u8],
    inputs: &[Vec<u8>],
    seed: u64,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<u8>>, ExecError> {
    let mut machine = machine(program, target, weights, inputs)?;
    let mut random = Random::new(seed);
    machine.begin_checked(&mut random);
    for phase in 0..program.phases.len() {
        machine.run_phase_checked(phase, &mut random).map_err(ExecError::Unsound)?;
        progress(phase + 1);
    }
    Ok(machine.into_outputs())
}

/// The machine before the first phase of a program that verifies.
fn machine<'a>(
    program: &'a Program,
    target: &Target,
    weights: &[u8],
    inputs: &[Vec<u8>],
) -> Result<Machine<'a>, ExecError> {
    let errors = verify(program, target);
    if !errors.is_empty() {
        return Err(ExecError::Invalid(errors));
    }
    Ok(Machine::new(program, target, fill_segments(program, weights, inputs)?))
}

fn fill_segments(program: &Program, weights: &[u8], inputs: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ExecError> {
    let mut given = inputs.iter();
    let mut index = 0;
    let mut dram = Vec::with_capacity(program.segments.len());
    for segment in &program.segments {
        dram.push(match segment.kind {
            SegmentKind::Weights if weights.len() as u64 != segment.bytes => {
                return Err(ExecError::Weights { expected: segment.bytes, found: weights.len() as u64 });
            }
            SegmentKind::Weights => weights.to_vec(),
            SegmentKind::Input => {
                let input = given.next();
                let found = input.map_or(0, |i| i.len() as u64);
                match input {
                    Some(input) if found == segment.bytes => {
                        index += 1;
                        input.clone()
                    }
                    _ => return Err(ExecError::Input { index, expected: segment.bytes, found }),
                }
            }
            SegmentKind::Output | SegmentKind::Scratch => vec![0; segment.bytes as usize],
        });
    }
    match given.next() {
        Some(extra) => Err(ExecError::Input { index, expected: 0, found: extra.len() as u64 }),
        None => Ok(dram),
    }
}
