//! Addresses of streams of which some grow into others.
//!
//! Streams that grow into one another stand at fixed distances: they are a *block*, which takes from phase to
//! phase the bytes of those of its streams that live then; streams that only stand in place of each other
//! move nothing, and are as one stream. Blocks that move and all other streams are
//! [packed](crate::place::packing) alike. Where that finds no room, blocks that move go to the ends of
//! activation SRAM, by turns and as near to the end as earlier ones let them, and the allocator places
//! everything else around them; first rows that stay long stand at the top, before anything else. Ends are
//! tried in a fixed order; where no choice of ends leaves room for the rest, there are no addresses. What may
//! grow need not: where a phase has room without it, a stream may be its own, and both ways are tried.

use std::collections::BTreeMap;

use crate::allocate;
use crate::place::live::{Live, Numbers, fit};
use crate::place::occupancy::Occupancy;
use crate::place::packing::{self, Extent, pack};
use crate::place::{ADDRESS_NODES, PlacementProblem, ScheduleError};

/// What a stream grows into, or stands in place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    /// The other stream.
    other: usize,
    /// Bytes by which the stream begins before it; negative where first rows of its tensor stand before it.
    gap: i64,
    /// Whether it stands in its place.
    in_place: bool,
}

/// What each stream grows into, if anything. It stands earlier in the list.
pub(super) fn growths(
    problem: &PlacementProblem<'_>,
    lives: &[Live],
    numbers: &Numbers,
) -> Vec<Option<Behind>> {
    let of = |live: &Live| {
        let residency = problem.plan.residency.get(live.buffer)?;
        let (buffer, gap, in_place) = match (residency.in_place_of, residency.grows_into) {
            (Some(host), _) => (host, 0, true),
            (None, into) => (into?.buffer, into?.gap_bytes as i64, false),
        };
        // Rings of later phases, which only have the rest of a tensor loaded, are no part of what grew.
        if problem.birth(live.buffer) != Some(live.first) {
            return None;
        }
        let other = numbers.get(&(buffer, live.first))?.0 as usize;
        let is_older = lives[other].first < live.first;
        // What stands in streams of their own of a tensor that grows stands as if it were one.
        let prefix_bytes = u64::from(live.prefix.map_or(0, |prefix| prefix.rows)) * live.pitch(problem);
        // What stands in place of another may do so over several phases.
        let makes_room = in_place || lives[other].last == live.first;
        let are_whole = live.has_all_rows() && lives[other].is_whole(problem);
        let gap = gap - prefix_bytes as i64;
        (is_older && makes_room && are_whole).then_some(Behind { other, gap, in_place })
    };
    lives.iter().map(of).collect()
}

/// Streams at fixed distances.
#[derive(Clone, Debug, Default)]
struct StreamBlock {
    /// Each stream and where it begins, counted from the first's beginning.
    streams: Vec<(usize, i64)>,
}

impl StreamBlock {
    /// What the block takes over time.
    fn extents(&self, problem: &PlacementProblem<'_>, lives: &[Live]) -> Vec<Extent> {
        let first = self.streams.iter().map(|&(stream, _)| lives[stream].first).min().unwrap_or(0);
        let last = self.streams.iter().map(|&(stream, _)| lives[stream].last).max().unwrap_or(0);
        let mut extents: Vec<Extent> = Vec::new();
        for phase in first..=last {
            let live =
                self.streams.iter().filter(|&&(s, _)| (lives[s].first..=lives[s].last).contains(&phase));
            let (mut from, mut to) = (i64::MAX, i64::MIN);
            for &(stream, at) in live {
                from = from.min(at);
                to = to.max(at + lives[stream].bytes(problem) as i64);
            }
            match extents.last_mut() {
                Some(extent) if (extent.from, extent.to) == (from, to) => extent.upper = phase + 1,
                _ => extents.push(Extent { lower: phase, upper: phase + 1, from, to }),
            }
        }
        extents
    }
}

/// Percents of activation SRAM: where the streams of a phase take more than this, those that may grow into
/// others do. Tried in this order.
const FULL_PERCENTS: [u64; 4] = [100, 90, 75, 0];

/// The offset of each stream.
///
/// # Errors
/// If there are no addresses.
pub(super) fn offsets(
    problem: &PlacementProblem<'_>,
    lives: &[Live],
    behind: &[Option<Behind>],
) -> Result<Vec<u64>, ScheduleError> {
    let loads: Vec<u64> =
        (0..problem.phases.len()).map(|phase| load(problem, lives, behind, phase)).collect();
    let mut ways: Vec<Vec<Option<Behind>>> = Vec::new();
    for percent in FULL_PERCENTS {
        let is_full = |phase: usize| loads[phase] * 100 > problem.activation_bytes() * percent;
        let bound =
            |(live, behind): (&Live, &Option<Behind>)| behind.filter(|b| b.in_place || is_full(live.first));
        let bound: Vec<Option<Behind>> = lives.iter().zip(behind).map(bound).collect();
        if !ways.contains(&bound) {
            ways.push(bound);
        }
    }
    // The most rigid grouping first: it leaves the fewest blocks to place.
    if let Some(offsets) = ways.iter().rev().find_map(|bound| packed(problem, lives, bound)) {
        return Ok(offsets);
    }
    // A search that is to be short goes by one of them.
    let is_short = problem.address_nodes < ADDRESS_NODES;
    let mut failure = None;
    for bound in ways.iter().skip(if is_short { ways.len() - 1 } else { 0 }) {
        match offsets_of(problem, lives, bound) {
            Ok(offsets) => return Ok(offsets),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("the loop above ran"))
}

/// The offset of each stream, if what is behind another stands there, by packing.
fn packed(problem: &PlacementProblem<'_>, lives: &[Live], behind: &[Option<Behind>]) -> Option<Vec<u64>> {
    let blocks = blocks(behind);
    let extents: Vec<Vec<Extent>> = blocks.iter().map(|block| block.extents(problem, lives)).collect();
    if extents.iter().all(|extents| extents.len() == 1) {
        // Nothing moves: the allocator does that better.
        return None;
    }
    let bases = pack(&extents, problem.phases.len(), problem.activation_bytes() as i64)?;
    let bases = bases.into_iter().enumerate().collect();
    place_all(problem, lives, &blocks, &bases, problem.address_nodes).ok()
}

/// Bytes that the streams of a phase take if none grows into another.
fn load(problem: &PlacementProblem<'_>, lives: &[Live], behind: &[Option<Behind>], phase: usize) -> u64 {
    let is_live = |live: &Live| (live.first..=live.last).contains(&phase);
    let is_alone = |behind: &Option<Behind>| !behind.is_some_and(|b| b.in_place && is_live(&lives[b.other]));
    let alone = lives.iter().zip(behind).filter(|(live, behind)| is_live(live) && is_alone(behind));
    alone.map(|(live, _)| live.bytes(problem)).sum()
}

/// The offset of each stream, if what is behind another stands there.
fn offsets_of(
    problem: &PlacementProblem<'_>,
    lives: &[Live],
    behind: &[Option<Behind>],
) -> Result<Vec<u64>, ScheduleError> {
    let blocks = blocks(behind);
    let moves = |block: &StreamBlock| block.extents(problem, lives).len() > 1;
    let rigid: Vec<usize> = (0..blocks.len()).filter(|&b| moves(&blocks[b])).collect();
    let is_prefix =
        |block: &StreamBlock| block.streams.iter().all(|&(stream, _)| lives[stream].is_prefix.is_some());
    let mut prefixes: Vec<usize> = (0..blocks.len()).filter(|&b| is_prefix(&blocks[b])).collect();
    prefixes.sort_by_key(|&block| std::cmp::Reverse(lives[blocks[block].streams[0].0].last));
    // Each choice of ends has its share, so that many cost no more than one.
    let nodes = problem.address_nodes >> (2 * rigid.len().min(MOST_CHOICES));
    let mut failure = None;
    for ends in 0..1_u32 << rigid.len().min(MOST_CHOICES) {
        let Some(bases) = place_blocks(problem, lives, &blocks, &prefixes, &rigid, ends) else { continue };
        match place_all(problem, lives, &blocks, &bases, nodes) {
            Ok(offsets) => return Ok(offsets),
            Err(error) => failure = Some(error),
        }
    }
    // No choice of ends was possible at all: the allocator says what is missing if every stream stood alone.
    failure.map_or_else(|| place_all(problem, lives, &alone(lives), &BTreeMap::new(), nodes), Err)
}

/// Streams that are behind one another, as blocks.
fn blocks(behind: &[Option<Behind>]) -> Vec<StreamBlock> {
    let mut block_of: Vec<usize> = Vec::with_capacity(behind.len());
    let mut at_of: Vec<i64> = Vec::with_capacity(behind.len());
    let mut blocks: Vec<StreamBlock> = Vec::new();
    for (stream, behind) in behind.iter().enumerate() {
        let (block, at) = match behind {
            Some(behind) => (block_of[behind.other], at_of[behind.other] - behind.gap),
            None => {
                blocks.push(StreamBlock::default());
                (blocks.len() - 1, 0)
            }
        };
        blocks[block].streams.push((stream, at));
        block_of.push(block);
        at_of.push(at);
    }
    blocks
}

/// Blocks whose ends are tried both ways, at most.
const MOST_CHOICES: usize = 3;

fn alone(lives: &[Live]) -> Vec<StreamBlock> {
    (0..lives.len()).map(|stream| StreamBlock { streams: vec![(stream, 0)] }).collect()
}

/// Where each prefix begins, and each block of several streams. Prefixes go to the top, those that stay
/// longest first. Bit `i` of `ends` is the end to which block `i` goes, modulo [`MOST_CHOICES`]; `None` if
/// they do not fit.
fn place_blocks(
    problem: &PlacementProblem<'_>,
    lives: &[Live],
    blocks: &[StreamBlock],
    prefixes: &[usize],
    rigid: &[usize],
    ends: u32,
) -> Option<BTreeMap<usize, i64>> {
    let mut memory = Occupancy::new(problem.phases.len(), problem.activation_bytes());
    let mut bases = BTreeMap::new();
    for &block in prefixes {
        bases.insert(block, packing::place(&mut memory, &blocks[block].extents(problem, lives), true)?);
    }
    for (turn, &block) in rigid.iter().enumerate() {
        let to_top = ends >> (turn % MOST_CHOICES) & 1 == 1;
        bases.insert(block, packing::place(&mut memory, &blocks[block].extents(problem, lives), to_top)?);
    }
    Some(bases)
}

/// Offsets of all streams around the blocks that have places, for so many nodes of search.
fn place_all(
    problem: &PlacementProblem<'_>,
    lives: &[Live],
    blocks: &[StreamBlock],
    bases: &BTreeMap<usize, i64>,
    nodes: u64,
) -> Result<Vec<u64>, ScheduleError> {
    let alignment = u64::from(problem.target.memory.alignment.max(1));
    let mut buffers: Vec<allocate::Buffer> = Vec::new();
    let mut oldest: Vec<usize> = Vec::new();
    let mut free: Vec<(usize, usize, i64)> = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        let base = bases.get(&number).copied();
        for extent in block.extents(problem, lives) {
            if base.is_none() {
                free.push((number, buffers.len(), extent.from));
            }
            buffers.push(allocate::Buffer {
                id: buffers.len() as u32,
                lower: extent.lower as i64,
                upper: extent.upper as i64,
                size: (extent.to - extent.from) as u64,
                alignment,
                fixed: base.map(|base| (base + extent.from) as u64),
            });
            oldest.push(block.streams[0].0);
        }
    }
    let to_place = allocate::AllocationProblem { buffers, capacity: problem.activation_bytes() };
    let name = |id: u32| problem.graph.buffers[lives[oldest[id as usize]].buffer].name.clone();
    let placed = fit(&to_place, nodes, "activation SRAM", name)?;
    let mut offsets = vec![0; lives.len()];
    let free = free.into_iter().map(|(block, buffer, from)| (block, placed[buffer] as i64 - from));
    for (block, base) in bases.iter().map(|(&block, &base)| (block, base)).chain(free) {
        for &(stream, at) in &blocks[block].streams {
            offsets[stream] = (base + at) as u64;
        }
    }
    Ok(offsets)
}
