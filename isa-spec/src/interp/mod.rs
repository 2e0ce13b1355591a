//! The functional interpreter: runs a verified program bit-exactly.
//!
//! [`run`] does it in the machine's own memories: rows pass through the rings of activation SRAM and tables
//! through weight SRAM, so a wrong address shows as a wrong result. An [`Executable`] is a program that was
//! verified, and whose weights were packed, once; it keeps rows in [`Rings::Larger`], unless it is told not
//! to. Rows that are ready at the same time, of one stage or of several, are computed side by side on all
//! threads (`waves`), with the vector instructions of a [`Simd`]. None of this can change a value.
//!
//! [`run_checked`] runs the same program as an adversary would: memories begin with random bytes, ready
//! stages step in random order, weight loads complete as late or as early as they may, and every byte
//! remembers which row of which stream it holds. It knows nothing of how the verifier came to its verdict.

mod arith;
mod checked;
mod crew;
#[cfg(test)]
mod definitions;
mod executable;
mod fused;
mod heads;
mod kernels;
mod lanes;
mod lookup;
mod machine;
mod memory;
mod order;
mod prepared;
mod rings;
mod scales;
mod shadow;
mod simd;
mod sram;
mod tails;
mod taps;
mod team;
mod tile;
mod waves;
mod wide;

pub use executable::Executable;
pub use machine::{MadeRow, RowObserver};
pub use rings::Rings;
pub use shadow::Fault;
pub use simd::{Level, Simd, SimdError};

use self::checked::Checked;
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

/// Runs a program once on inputs (one byte string an input segment, in order), in the memories of the
/// machine, and returns the output segments.
///
/// # Errors
/// If the program does not verify for the target, or the weights or inputs are not of the declared sizes.
pub fn run(
    program: &Program,
    target: &Target,
    weights: &[u8],
    inputs: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, ExecError> {
    Executable::with_rings(program, target, weights, Simd::best(), Rings::AsWritten)?.run(inputs, &mut |_| {})
}

/// As [`run`], checking every read: ready stages step in an order drawn from `seed`, memories hold random
/// bytes at first, and a byte that is not of the row that a stage reads is an error. The outputs are those of
/// [`run`], whatever the seed; it takes several times as long. `progress` is told how many phases are done.
///
/// # Errors
/// As [`run`]; [`ExecError::Unsound`] at the first wrong read.
pub fn run_checked(
    program: &Program,
    target: &Target,
    weights: &[u8],
    inputs: &[Vec<u8>],
    seed: u64,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Vec<Vec<u8>>, ExecError> {
    run_checked_with(program, target, weights, inputs, seed, progress, None)
}

/// As [`run_checked`], telling an observer, if there is one, of every row that a stage puts into activation
/// SRAM.
///
/// # Errors
/// As [`run_checked`].
pub fn run_checked_with<'a>(
    program: &'a Program,
    target: &Target,
    weights: &'a [u8],
    inputs: &[Vec<u8>],
    seed: u64,
    progress: &mut (dyn FnMut(usize) + Send),
    observer: Option<&'a mut dyn RowObserver>,
) -> Result<Vec<Vec<u8>>, ExecError> {
    demand_valid(program, target, weights)?;
    let dram = fill_segments(program, inputs)?;
    let mut checked = Checked::new(program, target, weights, dram, Random::new(seed), observer);
    for phase in 0..program.phases.len() {
        checked.run_phase(phase).map_err(ExecError::Unsound)?;
        progress(phase + 1);
    }
    Ok(checked.into_outputs())
}

/// That a program verifies, and that its weights are of the size that it declares.
fn demand_valid(program: &Program, target: &Target, weights: &[u8]) -> Result<(), ExecError> {
    let errors = verify(program, target);
    if !errors.is_empty() {
        return Err(ExecError::Invalid(errors));
    }
    let segment = program.segments.iter().find(|segment| segment.kind == SegmentKind::Weights);
    let found = weights.len() as u64;
    match segment {
        Some(segment) if found != segment.bytes => Err(ExecError::Weights { expected: segment.bytes, found }),
        _ => Ok(()),
    }
}

/// What the segments hold at first. That of the weights is left empty: nothing but weight loads reads it.
fn fill_segments(program: &Program, inputs: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ExecError> {
    let mut given = inputs.iter();
    let mut index = 0;
    let mut dram = Vec::with_capacity(program.segments.len());
    for segment in &program.segments {
        dram.push(match segment.kind {
            SegmentKind::Weights => Vec::new(),
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
