//! Rings of an executable. The rings of a program are as small as its stages can live with, so few rows are
//! ready at a time; threads have more to do between two waves where rings are larger. What a stage reads does
//! not depend on how many slots its rings have: a phase is a Kahn process network.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::program::{Phase, Program, Stream};
use crate::target::Target;

/// Where an executable keeps the rows of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rings {
    /// In the slots of the program: a wrong address shows as a wrong result.
    AsWritten,
    /// In larger rings, in memory of the interpreter's own: the fastest.
    Larger,
}

/// Bytes that a ring has at least, where its tensor has so many.
const RING_BYTES: u64 = 256 << 10;
/// Rows that it has more than the program's at least, likewise.
const MORE_SLOTS: u32 = 4;

/// A program with larger rings, for a target with the activation SRAM that they take. `None` if that has no
/// addresses.
pub(super) fn with_larger_rings(program: &Program, target: &Target) -> Option<(Program, Target)> {
    let (mut program, mut target) = (program.clone(), target.clone());
    program.streams.iter_mut().for_each(enlarge);
    target.memory.activation = place(&mut program, u64::from(target.memory.alignment))?;
    Some((program, target))
}

fn enlarge(stream: &mut Stream) {
    let rows = stream.rows.saturating_sub(stream.first_row());
    let wanted = RING_BYTES.div_ceil(u64::from(stream.pitch_bytes.max(1)));
    let wanted = u32::try_from(wanted).unwrap_or(u32::MAX).max(stream.slots.saturating_add(MORE_SLOTS));
    stream.slots = wanted.min(rows).max(stream.slots);
}

/// Bytes of a stream, and the phases in which they hold its rows.
struct Placed {
    phases: Range<usize>,
    bytes: Range<u64>,
}

/// Gives the streams addresses such that no two share bytes while both hold rows, the largest streams first.
/// One past the last byte, unless that has no address.
fn place(program: &mut Program, alignment: u64) -> Option<u64> {
    let mut lives: Vec<_> = lives(program).into_iter().collect();
    lives.sort_by_key(|(stream, _)| std::cmp::Reverse(program.streams[*stream as usize].size_bytes()));
    let mut placed: Vec<Placed> = Vec::new();
    for (stream, phases) in lives {
        let stream = &mut program.streams[stream as usize];
        let meets = |other: &&Placed| other.phases.start < phases.end && phases.start < other.phases.end;
        let mut taken: Vec<_> = placed.iter().filter(meets).map(|other| other.bytes.clone()).collect();
        taken.sort_unstable_by_key(|bytes| bytes.start);
        let len = stream.size_bytes().next_multiple_of(alignment.max(1));
        let mut at = 0;
        for bytes in taken {
            if at + len <= bytes.start {
                break;
            }
            at = at.max(bytes.end);
        }
        stream.base = u32::try_from(at).ok()?;
        u32::try_from(at + len).ok()?;
        placed.push(Placed { phases, bytes: at..at + len });
    }
    Some(placed.iter().map(|stream| stream.bytes.end).max().unwrap_or(0))
}

/// The phases from the first to the last that name each stream, itself or as a prefix.
fn lives(program: &Program) -> BTreeMap<u32, Range<usize>> {
    let mut lives = BTreeMap::new();
    for (index, phase) in program.phases.iter().enumerate() {
        for stream in named(phase).flat_map(|stream| program.chain(stream)) {
            lives.entry(stream).or_insert(index..index).end = index + 1;
        }
    }
    lives
}

/// The streams that a phase names.
fn named(phase: &Phase) -> impl Iterator<Item = u32> {
    phase.stages.iter().flat_map(|stage| {
        let out = Some(stage.code.out).filter(|out| out.rows > 0);
        stage.code.reads().into_iter().chain(out).map(|view| view.tensor)
    })
}
