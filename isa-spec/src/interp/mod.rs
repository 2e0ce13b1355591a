//! The functional interpreter: runs a verified program bit-exactly, in the machine's own memories.
//!
//! Rows really pass through the rings of activation SRAM and tables through weight SRAM, so a wrong address shows
//! as a wrong result. Ready stages take steps in a fixed order; wide convolution rows are shared out over threads,
//! which cannot change a value.

mod arith;
mod kernels;
mod prepared;
mod rows;
mod tails;
mod wide;

pub use prepared::tables;

use crate::dataflow::Flow;
use crate::inst::Head;
use crate::program::{Program, SegmentKind, row_address};
use crate::target::Target;
use crate::verify::{VerifyError, verify};

/// Why a program could not be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// The program is not valid; all violations.
    #[error("the program is not valid: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
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
    let errors = verify(program, target);
    if !errors.is_empty() {
        return Err(ExecError::Invalid(errors));
    }
    let mut dram = fill_segments(program, weights, inputs)?;
    let mut activation = vec![0u8; target.memory.activation as usize];
    let mut weight = vec![0u8; target.memory.weight as usize];
    let source = program.segments.iter().position(|s| s.kind == SegmentKind::Weights);
    let mut row_acc = Vec::new();
    let mut row_bytes = Vec::new();
    // Loads are in order, and the verifier shows that none overwrites what a stage still reads before the stages of its
    // own phase that do not wait for it are done; a load that only later phases wait for is made when they begin.
    let loads: Vec<_> = program.phases.iter().flat_map(|p| p.loads.iter().copied()).collect();
    let mut loaded = 0;
    for (done, phase) in program.phases.iter().enumerate() {
        let wanted = phase.stages.iter().map(|s| s.wait_loads as usize).max().unwrap_or(0);
        while loaded < wanted {
            let load = &loads[loaded];
            if let Some(segment) = source {
                let bytes = load.bytes as usize;
                weight[load.dst.0 as usize..][..bytes]
                    .copy_from_slice(&dram[segment][load.src as usize..][..bytes]);
            }
            loaded += 1;
        }
        let prepared: Vec<_> = {
            let sram = rows::Sram { streams: &program.streams, activation: &activation, weight: &weight };
            phase.stages.iter().map(|stage| prepared::Prepared::new(&stage.code, &sram)).collect()
        };
        let mut flow = Flow::new(program, phase);
        while !flow.finished() {
            for (index, stage) in phase.stages.iter().enumerate() {
                while flow.blocked(index).is_none() {
                    for row in flow.next_rows(index) {
                        let sram = rows::Sram {
                            streams: &program.streams,
                            activation: &activation,
                            weight: &weight,
                        };
                        match &stage.code.head {
                            Head::DmaIn(dma) => {
                                let stream = &program.streams[stage.code.out.stream as usize];
                                let pixel = (stage.code.out.chs * stream.elem.size_bytes()) as usize;
                                row_bytes.clear();
                                for x in 0..u64::from(stage.code.out.cols) {
                                    let at = dma.offset
                                        + u64::from(row) * dma.row_pitch_bytes
                                        + x * u64::from(dma.pixel_pitch_bytes);
                                    let segment = &dram[dma.segment as usize];
                                    row_bytes.extend_from_slice(&segment[at as usize..][..pixel]);
                                }
                            }
                            Head::DmaOut(dma) => {
                                let elem = program.streams[dma.src.stream as usize].elem;
                                sram.row(&dma.src, row, &mut row_acc);
                                row_bytes.clear();
                                rows::narrow(elem, &row_acc, &mut row_bytes);
                                let pixel = (dma.src.chs * elem.size_bytes()) as usize;
                                for (x, bytes) in row_bytes.chunks_exact(pixel.max(1)).enumerate() {
                                    let at = dma.offset
                                        + u64::from(row) * dma.row_pitch_bytes
                                        + x as u64 * u64::from(dma.pixel_pitch_bytes);
                                    dram[dma.segment as usize][at as usize..][..pixel].copy_from_slice(bytes);
                                }
                                continue;
                            }
                            _ => {
                                let elem = program.streams[stage.code.out.stream as usize].elem;
                                rows::compute(&stage.code, &prepared[index], &sram, row, &mut row_acc);
                                row_bytes.clear();
                                rows::narrow(elem, &row_acc, &mut row_bytes);
                            }
                        }
                        write_row(program, &stage.code.out, row, &row_bytes, &mut activation);
                    }
                    flow.advance(index);
                }
            }
        }
        progress(done + 1);
    }
    let outputs = program.segments.iter().zip(dram).filter(|(s, _)| s.kind == SegmentKind::Output);
    Ok(outputs.map(|(_, bytes)| bytes).collect())
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

/// Writes a row of a stage's output view, pixel by pixel where the view holds only some channels.
fn write_row(program: &Program, out: &crate::inst::View, row: u32, bytes: &[u8], activation: &mut [u8]) {
    let stream = &program.streams[out.stream as usize];
    let size = stream.elem.size_bytes() as usize;
    let at = row_address(&program.streams, out.stream, out.row0 + row);
    let pixel = stream.chs as usize * size;
    let part = out.chs as usize * size;
    if part == pixel {
        activation[at + out.col0 as usize * pixel..][..bytes.len()].copy_from_slice(bytes);
        return;
    }
    for (x, bytes) in bytes.chunks_exact(part).enumerate() {
        activation[at + (out.col0 as usize + x) * pixel + out.ch0 as usize * size..][..part]
            .copy_from_slice(bytes);
    }
}
