//! Exact placement of one instance within a capacity, by branch and bound.
//!
//! The search follows the idea published as MiniMalloc (Moffitt, ASPLOS 2023): only *canonical* plans are
//! looked at, those in which every buffer rests on address zero, on another buffer, or on its fixed offset.
//! Any plan becomes canonical by letting buffers drop, so nothing is lost.
//!
//! **State.** A *piece* is a set of unplaced buffers connected in time. Each has `support`, the top of what
//! is placed below it, and `floor >= support`, the lowest offset it can still have. A buffer with
//! `floor > support` *hovers*: it has been shown to rest on something that is not placed yet.
//!
//! **Branching.** Take a section, and the buffers that stand at its lowest floor, nothing that they meet
//! having a lower one. Either one of them is placed there, or none ever is, and all of them hover. The last
//! is tried last. Placing a buffer may cut the piece; the parts are solved on their own. [`Focus`] says which
//! section is taken, or that the choice is of one buffer at the lowest floor: it is placed there, or it alone
//! hovers.
//!
//! **Bounds.** In each section, buffers whose floor is at least `f` need `f` plus all their sizes: the bound
//! of one machine with release times. A hovering buffer rests at least as high as the lowest top any unplaced
//! neighbour can have.
//!
//! **Memory.** A piece that failed fails again under floors that are nowhere lower. Only pieces that began
//! without hovering buffers are remembered: their failure is a fact about the pieces alone, whatever lies
//! beneath and whatever order they were searched in, so that it holds across restarts and for smaller
//! capacities.

use crate::allocate::cell::Cell;
use crate::allocate::instance::{Block, Instance};
use crate::allocate::memo::Memo;

/// What a search within a number of nodes came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// An offset for each block.
    Placed(Vec<u64>),
    /// No plan fits.
    Infeasible,
    /// The nodes ran out.
    Exhausted,
}

/// One open choice: a piece, and which of its options is being tried.
struct Frame {
    /// The buffers of the piece, by floor, then rank.
    cells: Vec<Cell>,
    /// The buffers as the piece began, if its failure is worth remembering.
    entry: Option<Vec<Cell>>,
    branch: Branch,
    next_option: usize,
    /// Parts, left by the option being tried, that are still to be solved.
    pending: Vec<Vec<Cell>>,
}

/// Where the next placement is to be made.
struct Branch {
    /// The section in question, if it is one of a section rather than of a buffer.
    section: Option<u32>,
    /// The floor of all options, and the lowest on the section.
    level: u64,
    /// Blocks that may stand at `level` on `section`, the best first.
    options: Vec<u32>,
    /// Whether something has to stand there.
    forced: bool,
}

/// What the search prefers to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Focus {
    /// The tightest under the best buffer at the lowest floor: the plan grows evenly from below.
    Lowest,
    /// The tightest of all: the plan grows where there is least to spare.
    Tightest,
    /// None: the best buffer at the lowest floor is placed there or hovers, whatever else could stand under
    /// it.
    Buffer,
}

/// What the search does next.
enum Step {
    /// Solve this piece.
    Explore(Vec<Cell>),
    /// Try the next option of the newest frame.
    TryNext,
    /// The newest piece is solved: go on with its siblings.
    Solved,
}

/// The search for one instance; keeps what it has learnt from one run to the next.
pub(super) struct Search<'a> {
    blocks: &'a [Block],
    has_fixed: bool,
    memo: Memo,
    capacity: u64,
    /// Nodes visited so far.
    pub(super) nodes: u64,
    /// Scratch: bytes needed above the floor in hand, then the lowest floor, by section.
    above: Vec<u64>,
    /// Scratch: the most padding of a buffer counted in `above`, which one on top does without.
    padding: Vec<u64>,
    /// Scratch: the highest bound found so far, by section.
    bound: Vec<u64>,
    /// Scratch: how many unplaced buffers cross into each section from the one before.
    crossing: Vec<i32>,
    /// Scratch: sections not to branch on.
    blocked: Vec<bool>,
    focus: Focus,
    spare: Vec<Vec<Cell>>,
}

impl<'a> Search<'a> {
    /// Prepares a search.
    pub(super) fn new(instance: &'a Instance) -> Self {
        let n_sections = instance.times.len();
        Self {
            blocks: &instance.blocks,
            has_fixed: instance.blocks.iter().any(|block| block.fixed.is_some()),
            memo: Memo::default(),
            capacity: 0,
            padding: vec![0; n_sections],
            nodes: 0,
            above: vec![0; n_sections],
            bound: vec![0; n_sections],
            crossing: vec![0; n_sections + 1],
            blocked: vec![false; n_sections],
            focus: Focus::Lowest,
            spare: Vec::new(),
        }
    }

    /// Looks for a plan within `capacity`, preferring buffers of low rank where there is a choice, for at
    /// most `max_nodes` nodes.
    pub(super) fn run(&mut self, capacity: u64, ranks: &[u32], focus: Focus, max_nodes: u64) -> Verdict {
        self.focus = focus;
        if capacity > self.capacity {
            // What failed in less room may fit now.
            self.memo = Memo::default();
        }
        self.capacity = capacity;
        let limit = self.nodes.saturating_add(max_nodes);
        let mut offsets = vec![0; self.blocks.len()];
        let mut frames: Vec<Frame> = Vec::new();
        let mut step = Step::Explore(self.root(ranks));
        loop {
            step = match step {
                Step::Explore(_) if self.nodes >= limit => return Verdict::Exhausted,
                Step::Explore(cells) => {
                    frames.extend(self.open(cells));
                    Step::TryNext
                }
                Step::TryNext => {
                    let Some(frame) = frames.last_mut() else {
                        return Verdict::Infeasible;
                    };
                    match self.next(frame, &mut offsets) {
                        Some(step) => step,
                        None => {
                            self.close(frames.pop());
                            Step::TryNext
                        }
                    }
                }
                Step::Solved => match frames.last_mut() {
                    None => return Verdict::Placed(offsets),
                    Some(frame) => match frame.pending.pop() {
                        Some(part) => Step::Explore(part),
                        None => {
                            let solved = frames.pop();
                            self.spare.extend(solved.map(|frame| frame.cells));
                            Step::Solved
                        }
                    },
                },
            };
        }
    }

    /// The piece of all buffers, nothing placed.
    fn root(&self, ranks: &[u32]) -> Vec<Cell> {
        let cell = |(index, (block, &rank)): (usize, (&Block, &u32))| {
            let support = block.fixed.unwrap_or(0);
            let Block { first, end, pitch, .. } = *block;
            let block = u32::try_from(index).expect("instances have fewer than 2^32 blocks");
            Cell { floor: support, rank, block, first, end, pitch, support }
        };
        self.blocks.iter().zip(ranks).enumerate().map(cell).collect()
    }

    /// Begins a piece; none if it fails at once.
    fn open(&mut self, mut cells: Vec<Cell>) -> Option<Frame> {
        self.nodes += 1;
        let memorable = !cells.iter().any(Cell::hovers);
        if !self.settle(&mut cells) || self.memo.fails(&cells) {
            self.spare.push(cells);
            return None;
        }
        let branch = self.branch(&cells);
        let entry = memorable.then(|| {
            let mut entry = self.spare.pop().unwrap_or_default();
            entry.clone_from(&cells);
            entry
        });
        Some(Frame { cells, entry, branch, next_option: 0, pending: Vec::new() })
    }

    /// Leaves a piece that failed.
    fn close(&mut self, frame: Option<Frame>) {
        let Some(frame) = frame else { return };
        self.spare.push(frame.cells);
        if let Some(entry) = frame.entry {
            self.memo.record(&entry);
            self.spare.push(entry);
        }
    }

    /// Tries the next option of a frame; none if all have failed.
    fn next(&mut self, frame: &mut Frame, offsets: &mut [u64]) -> Option<Step> {
        self.spare.append(&mut frame.pending);
        loop {
            if let Some(&block) = frame.branch.options.get(frame.next_option) {
                frame.next_option += 1;
                offsets[block as usize] = frame.branch.level;
                if self.place(&frame.cells, block, &mut frame.pending) {
                    return Some(frame.pending.pop().map_or(Step::Solved, Step::Explore));
                }
                continue;
            }
            if frame.branch.forced {
                return None;
            }
            // Nothing stands at this level on this section: what could have will rest on something else.
            self.nodes += 1;
            let Branch { section, level, ref options, .. } = frame.branch;
            for cell in &mut frame.cells {
                let concerned = match section {
                    Some(section) => cell.covers(section),
                    None => options.contains(&cell.block),
                };
                if cell.floor == level && concerned && !cell.hovers() {
                    cell.floor = self.blocks[cell.block as usize].align(level + 1);
                }
            }
            if !self.settle(&mut frame.cells) {
                return None;
            }
            frame.branch = self.branch(&frame.cells);
            frame.next_option = 0;
        }
    }

    /// Places a block on its floor, and leaves the connected parts of the rest, the largest first; false if a
    /// fixed buffer is in the way.
    fn place(&mut self, cells: &[Cell], block: u32, parts: &mut Vec<Vec<Cell>>) -> bool {
        let Some(placed) = cells.iter().find(|cell| cell.block == block) else {
            return false;
        };
        let (first, end, top) = (placed.first, placed.end, placed.floor + placed.pitch);
        let mut rest = self.spare.pop().unwrap_or_default();
        rest.clear();
        for cell in cells {
            if cell.block == block {
                continue;
            }
            let mut cell = *cell;
            if cell.meets(first, end) && cell.support < top {
                let below = &self.blocks[cell.block as usize];
                if below.fixed.is_some() {
                    self.spare.push(rest);
                    return false;
                }
                cell.support = below.align(top);
                cell.floor = cell.floor.max(cell.support);
            }
            rest.push(cell);
        }
        self.cut(rest, first, end, parts);
        true
    }

    /// Cuts a piece, from which a buffer over `first..end` was taken, where no buffer crosses any more.
    fn cut(&mut self, cells: Vec<Cell>, first: u32, end: u32, parts: &mut Vec<Vec<Cell>>) {
        let (low, high) = (first as usize, end as usize);
        // crossing[s]: buffers live in both s - 1 and s.
        self.crossing[low..=high].fill(0);
        for cell in &cells {
            let from = (cell.first + 1).max(first);
            let to = cell.end.min(end + 1);
            if from < to {
                self.crossing[from as usize] += 1;
                if to <= end {
                    self.crossing[to as usize] -= 1;
                }
            }
        }
        let mut cuts: Vec<u32> = Vec::new();
        let mut running = 0;
        for section in first..=end {
            running += self.crossing[section as usize];
            if running == 0 {
                cuts.push(section);
            }
        }
        if cuts.is_empty() {
            if cells.is_empty() {
                self.spare.push(cells);
            } else {
                parts.push(cells);
            }
            return;
        }
        let base = parts.len();
        for _ in 0..=cuts.len() {
            let mut part = self.spare.pop().unwrap_or_default();
            part.clear();
            parts.push(part);
        }
        for cell in &cells {
            let part = cuts.partition_point(|&cut| cut <= cell.first);
            parts[base + part].push(*cell);
        }
        self.spare.push(cells);
        parts.retain(|part| !part.is_empty());
        // Solved from the back: a small part is the quickest to refute.
        parts[base..].sort_by_key(|part| std::cmp::Reverse(part.len()));
    }

    /// Raises the floors of hovering buffers, sorts the piece, and applies the bounds; false if it cannot
    /// fit.
    fn settle(&mut self, cells: &mut [Cell]) -> bool {
        if self.has_fixed && !self.avoid_fixed(cells) {
            return false;
        }
        self.raise_hovering(cells) && {
            cells.sort_unstable_by_key(|cell| (cell.floor, cell.rank));
            self.fits(cells)
        }
    }

    /// A hovering buffer rests on an unplaced neighbour, so it is no lower than the lowest top that one can
    /// have.
    fn raise_hovering(&self, cells: &mut [Cell]) -> bool {
        let mut passes = 0;
        loop {
            let mut raised = false;
            let mut lowest = (u64::MAX, false);
            for index in 0..cells.len() {
                let cell = cells[index];
                if cell.hovers() {
                    let others = (cells.iter())
                        .filter(|other| other.block != cell.block && other.meets(cell.first, cell.end));
                    let Some(rest) = lowest_top(others, cell.floor) else { return false };
                    if rest > cell.floor {
                        let floor = self.blocks[cell.block as usize].align(rest);
                        if floor + self.blocks[cell.block as usize].size > self.capacity {
                            return false;
                        }
                        cells[index].floor = floor;
                        raised = true;
                    }
                }
                lowest = lowest.min((cells[index].floor, cell.hovers()));
            }
            passes += 1;
            // Further passes only sharpen the bounds, but the lowest buffer has to stand on something.
            if !raised || (passes >= 2 && !lowest.1) {
                return true;
            }
        }
    }

    /// Raises what does not fit below a fixed buffer above it.
    fn avoid_fixed(&self, cells: &mut [Cell]) -> bool {
        let fixed: Vec<Cell> =
            cells.iter().filter(|cell| self.blocks[cell.block as usize].fixed.is_some()).copied().collect();
        for cell in cells.iter_mut() {
            let block = &self.blocks[cell.block as usize];
            if block.fixed.is_some() {
                continue;
            }
            while let Some(obstacle) = fixed.iter().find(|obstacle| {
                obstacle.meets(cell.first, cell.end)
                    && obstacle.floor < cell.floor + cell.pitch
                    && cell.floor < obstacle.floor + obstacle.pitch
            }) {
                cell.floor = block.align(obstacle.floor + obstacle.pitch);
                if cell.floor + block.size > self.capacity {
                    return false;
                }
            }
        }
        true
    }

    /// Applies the bound of each section to a sorted piece, and leaves it in `bound`.
    fn fits(&mut self, cells: &[Cell]) -> bool {
        let low = cells.iter().map(|cell| cell.first).min().unwrap_or(0) as usize;
        let high = cells.iter().map(|cell| cell.end).max().unwrap_or(0) as usize;
        self.above[low..high].fill(0);
        self.bound[low..high].fill(0);
        self.padding[low..high].fill(0);
        for cell in cells.iter().rev() {
            let size = self.blocks[cell.block as usize].size;
            if cell.floor + size > self.capacity {
                return false;
            }
            for section in cell.first as usize..cell.end as usize {
                self.above[section] += cell.pitch;
                self.padding[section] = self.padding[section].max(cell.pitch - size);
                let needed = cell.floor + self.above[section] - self.padding[section];
                if needed > self.capacity {
                    return false;
                }
                self.bound[section] = self.bound[section].max(needed);
            }
        }
        true
    }

    /// Chooses where to branch in a settled piece.
    ///
    /// A buffer may be placed once nothing that it meets has a lower floor; a section will do if that goes
    /// for every buffer standing at its lowest floor. The lowest floor of the piece always offers one.
    fn branch(&mut self, cells: &[Cell]) -> Branch {
        let level = match self.focus {
            Focus::Lowest => cells[0].floor,
            Focus::Tightest => u64::MAX,
            Focus::Buffer => {
                let first =
                    cells.iter().take_while(|cell| cell.floor == cells[0].floor).find(|cell| !cell.hovers());
                if let Some(first) = first {
                    let forced = self.blocks[first.block as usize].fixed.is_some();
                    return Branch { section: None, level: first.floor, options: vec![first.block], forced };
                }
                cells[0].floor
            }
        };
        let low = cells.iter().map(|cell| cell.first).min().unwrap_or(0);
        let high = cells.iter().map(|cell| cell.end).max().unwrap_or(0);
        // From now on `above` holds the lowest floor of each section.
        self.above[low as usize..high as usize].fill(u64::MAX);
        for cell in cells {
            for floor in &mut self.above[cell.first as usize..cell.end as usize] {
                *floor = cell.floor.min(*floor);
            }
        }
        self.blocked[low as usize..high as usize].fill(false);
        for cell in cells.iter().take_while(|cell| cell.floor <= level).filter(|cell| !cell.hovers()) {
            let span = cell.first as usize..cell.end as usize;
            if self.above[span.clone()].iter().any(|&floor| floor < cell.floor) {
                for section in span {
                    self.blocked[section] |= self.above[section] == cell.floor;
                }
            }
        }
        let mut best: Option<(u64, u32, &Cell)> = None;
        for cell in cells.iter().take_while(|cell| cell.floor <= level).filter(|cell| !cell.hovers()) {
            for section in cell.first..cell.end {
                let at = section as usize;
                if self.above[at] != cell.floor || self.blocked[at] {
                    continue;
                }
                let bound = self.bound[at];
                if best.is_none_or(|(most, _, _)| bound > most) {
                    best = Some((bound, section, cell));
                }
            }
            if self.focus != Focus::Tightest {
                break;
            }
        }
        let (section, level) =
            best.map_or((cells[0].first, cells[0].floor), |(_, section, cell)| (section, cell.floor));
        let mut options: Vec<u32> = Vec::new();
        let mut forced = false;
        let stands = |cell: &&Cell| cell.floor == level && !cell.hovers() && cell.covers(section);
        for cell in cells.iter().filter(stands) {
            let block = self.blocks[cell.block as usize];
            if block.fixed.is_some() {
                options = vec![cell.block];
                forced = true;
                break;
            }
            // Of interchangeable buffers the first will do.
            if !options.iter().any(|&option| self.blocks[option as usize] == block) {
                options.push(cell.block);
            }
        }
        Branch { section: Some(section), level, options, forced }
    }
}

/// The lowest top of some buffers, or any that is no higher than `enough`; none of no buffers.
fn lowest_top<'c>(cells: impl Iterator<Item = &'c Cell>, enough: u64) -> Option<u64> {
    let mut lowest = None;
    for top in cells.map(|cell| cell.floor + cell.pitch) {
        lowest = Some(lowest.map_or(top, |lowest: u64| lowest.min(top)));
        if top <= enough {
            break;
        }
    }
    lowest
}
