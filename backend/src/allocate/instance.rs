//! The canonical form a problem is solved in.
//!
//! Solvers never see an [`AllocationProblem`](crate::allocate::AllocationProblem). They see [`Instance`]s:
//! one for each set of buffers connected in time, with time reduced to the *sections* in which a maximal set
//! of buffers is live, and buffers sorted by what they are rather than by how they were numbered.
//!
//! Invariants:
//! - every buffer of an instance spans at least one section, and the spans of two buffers intersect exactly
//!   when their live intervals do (pairwise overlapping intervals share a point, so keeping the maximal sets
//!   loses no pair);
//! - no section's live set contains another's, so none of the load bounds is computed twice;
//! - the instance depends neither on the numbering of the buffers, nor on the direction of time, nor, but for
//!   the durations, on its scale. Only buffers that agree in everything keep their given order, and those are
//!   interchangeable.
//!
//! Empty buffers take no space and are left out.

use crate::allocate::Buffer;

/// A buffer in canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    /// First section it is live in.
    pub(super) first: u32,
    /// One past the last section it is live in.
    pub(super) end: u32,
    /// Length in bytes, at least 1.
    pub(super) size: u64,
    /// The length up to where a neighbour above can begin: `size` up to the alignment that all buffers share.
    pub(super) pitch: u64,
    /// Its offset is a multiple of this, at least 1.
    pub(super) alignment: u64,
    /// The only offset it may have, if it is not free to move.
    pub(super) fixed: Option<u64>,
}

impl Block {
    /// Whether the two are ever live together.
    pub(super) fn meets(&self, other: &Block) -> bool {
        self.first < other.end && other.first < self.end
    }

    /// The lowest offset not below `offset` that suits the alignment.
    pub(super) fn align(&self, offset: u64) -> u64 {
        offset.next_multiple_of(self.alignment)
    }
}

/// One connected set of buffers in canonical form.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    /// The buffers, in canonical order.
    pub(super) blocks: Vec<Block>,
    /// For each block, the index of its buffer in the problem.
    pub(super) origin: Vec<usize>,
    /// How long each block is live, in the problem's time.
    pub(super) durations: Vec<u64>,
    /// A point in time inside each section.
    pub(super) times: Vec<i64>,
    /// What the busiest section needs: the pitches of all that is live there, but for the padding of one on
    /// top.
    pub(super) load: u64,
    /// Offsets of canonical plans are multiples of this.
    grain: u64,
    /// What sizes leave when divided by the grain, ascending.
    residues: Vec<u64>,
}

impl Instance {
    /// The bytes needed in each section.
    pub(super) fn loads(&self) -> Vec<u64> {
        section_loads(&self.blocks, self.times.len())
    }

    /// The largest peak that a canonical plan can have within `capacity`, or zero.
    pub(super) fn peak_within(&self, capacity: u64) -> u64 {
        let peaks = self.residues.iter().filter_map(|residue| {
            let room = capacity.checked_sub(*residue)?;
            Some(room / self.grain * self.grain + residue)
        });
        peaks.max().unwrap_or(0)
    }

    /// The smallest peak above `peak` that a canonical plan can have.
    pub(super) fn peak_above(&self, peak: u64) -> u64 {
        let peaks = self.residues.iter().map(|residue| match peak.checked_sub(*residue) {
            Some(room) => (room / self.grain + 1) * self.grain + residue,
            None => *residue,
        });
        peaks.min().unwrap_or(peak)
    }

    /// The instances that some of the blocks (ascending indices) make up by themselves.
    pub(super) fn restrict(&self, buffers: &[Buffer], keep: &[usize]) -> Vec<Instance> {
        let members: Vec<usize> = keep.iter().map(|&block| self.origin[block]).collect();
        split_members(buffers, members)
    }
}

fn section_loads(blocks: &[Block], n_sections: usize) -> Vec<u64> {
    let mut loads = vec![0; n_sections];
    let mut padding = vec![0; n_sections];
    for block in blocks {
        let span = block.first as usize..block.end as usize;
        for (load, most) in loads[span.clone()].iter_mut().zip(&mut padding[span]) {
            *load += block.pitch;
            *most = (block.pitch - block.size).max(*most);
        }
    }
    loads.iter().zip(padding).map(|(load, padding)| load - padding).collect()
}

/// Splits buffers into the canonical instances of their components in time, the most loaded first.
pub(super) fn split(buffers: &[Buffer]) -> Vec<Instance> {
    split_members(buffers, (0..buffers.len()).collect())
}

fn split_members(buffers: &[Buffer], mut members: Vec<usize>) -> Vec<Instance> {
    members.retain(|&index| buffers[index].size > 0);
    members.sort_by_key(|&index| (buffers[index].lower, buffers[index].upper, index));
    let mut instances = Vec::new();
    let mut component: Vec<usize> = Vec::new();
    let mut reach = i64::MIN;
    for index in members {
        if buffers[index].lower >= reach && !component.is_empty() {
            instances.push(canonicalise(buffers, &component));
            component.clear();
        }
        reach = reach.max(buffers[index].upper);
        component.push(index);
    }
    if !component.is_empty() {
        instances.push(canonicalise(buffers, &component));
    }
    instances.sort_by(|a, b| b.load.cmp(&a.load).then_with(|| a.blocks.cmp(&b.blocks)));
    instances
}

/// Builds the instance of one connected component.
fn canonicalise(buffers: &[Buffer], component: &[usize]) -> Instance {
    let (spans, times) = sections(buffers, component);
    let n_sections = u32::try_from(times.len()).expect("no more sections than buffers");
    let shared_alignment = component.iter().fold(0, |shared, &index| gcd(shared, buffers[index].alignment));
    let oriented = |reversed: bool| {
        let mut rows: Vec<(Block, u64, usize)> = component
            .iter()
            .zip(&spans)
            .map(|(&index, &(first, end))| {
                let buffer = &buffers[index];
                let (first, end) =
                    if reversed { (n_sections - end, n_sections - first) } else { (first, end) };
                let block = Block {
                    first,
                    end,
                    size: buffer.size,
                    pitch: buffer.size.next_multiple_of(shared_alignment),
                    alignment: buffer.alignment,
                    fixed: buffer.fixed,
                };
                (block, buffer.upper.abs_diff(buffer.lower), index)
            })
            .collect();
        rows.sort_unstable();
        rows
    };
    let (forward, backward) = (oriented(false), oriented(true));
    let shapes = |rows: &[(Block, u64, usize)]| {
        rows.iter().map(|&(block, duration, _)| (block, duration)).collect::<Vec<_>>()
    };
    let reversed = shapes(&backward) < shapes(&forward);
    let (rows, times) =
        if reversed { (backward, times.into_iter().rev().collect()) } else { (forward, times) };
    let mut instance = Instance {
        blocks: rows.iter().map(|row| row.0).collect(),
        durations: rows.iter().map(|row| row.1).collect(),
        origin: rows.iter().map(|row| row.2).collect(),
        times,
        load: 0,
        grain: 0,
        residues: Vec::new(),
    };
    let blocks = &instance.blocks;
    let grain = blocks.iter().fold(0, |grain, block| {
        // An alignment of 1 rounds nothing up, so it does not spoil a coarser grain.
        let alignment = if block.alignment == 1 { 0 } else { block.alignment };
        gcd(gcd(grain, block.pitch), gcd(alignment, block.fixed.unwrap_or(0)))
    });
    let mut residues: Vec<u64> = blocks.iter().map(|block| block.size % grain).collect();
    residues.sort_unstable();
    residues.dedup();
    (instance.grain, instance.residues) = (grain, residues);
    let load = instance.loads().into_iter().max().unwrap_or(0);
    instance.load = instance.peak_above(load.saturating_sub(1));
    instance
}

fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Finds the sections of a component: spans of the buffers, and a time in each section.
///
/// Walking through the events, a live set is maximal when something began since the last set was taken and
/// something now ends.
fn sections(buffers: &[Buffer], component: &[usize]) -> (Vec<(u32, u32)>, Vec<i64>) {
    let mut events: Vec<(i64, bool, usize)> = Vec::with_capacity(component.len() * 2);
    for (member, &index) in component.iter().enumerate() {
        events.push((buffers[index].lower, true, member));
        events.push((buffers[index].upper, false, member));
    }
    // Ends sort before starts at the same time, because intervals are half-open.
    events.sort_unstable();
    let mut spans = vec![(0u32, 0u32); component.len()];
    let mut times: Vec<i64> = Vec::new();
    let mut last_start = None;
    for (time, starts, member) in events {
        if starts {
            last_start = Some(time);
            spans[member].0 = u32::try_from(times.len()).expect("fewer sections than buffers");
        } else {
            times.extend(last_start.take());
            spans[member].1 = u32::try_from(times.len()).expect("fewer sections than buffers");
        }
    }
    (spans, times)
}
