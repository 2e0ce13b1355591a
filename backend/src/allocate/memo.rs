//! What the exact search remembers of its failures.
//!
//! An entry says: these buffers, none lower than these floors, do not fit. It is looked up by the set of
//! buffers, and answers for every state of that set whose floors are nowhere lower.

use std::collections::HashMap;

use crate::allocate::cell::Cell;

/// Remembered floors before everything is forgotten; 8 bytes each, and 4 for the name of the buffer.
const MAX_FLOORS: usize = 6_000_000;

/// States of one set of buffers that are kept; the oldest goes first.
const MAX_STATES: usize = 16;

#[derive(Debug)]
struct Entry {
    blocks: Box<[u32]>,
    floors: Vec<Box<[u64]>>,
}

/// Failed pieces by their set of buffers.
#[derive(Debug, Default)]
pub(super) struct Memo {
    entries: HashMap<u64, Entry>,
    n_floors: usize,
    /// Scratch: the floor of each block of the piece being looked up, and the number of the look-up it is of.
    floors: Vec<(u64, u64)>,
    lookup: u64,
}

impl Memo {
    /// Whether the piece is known to fail.
    pub(super) fn fails(&mut self, cells: &[Cell]) -> bool {
        let Some(entry) = self.entries.get(&key(cells)) else {
            return false;
        };
        if entry.blocks.len() != cells.len() {
            return false;
        }
        self.lookup += 1;
        for cell in cells {
            let block = cell.block as usize;
            if self.floors.len() <= block {
                self.floors.resize(block + 1, (0, 0));
            }
            self.floors[block] = (self.lookup, cell.floor);
        }
        let Self { floors: current, lookup, .. } = self;
        let now = |block: u32| {
            let (stamp, floor) = *current.get(block as usize)?;
            (stamp == *lookup).then_some(floor)
        };
        entry.floors.iter().any(|floors| {
            entry.blocks.iter().zip(floors).all(|(&block, &floor)| now(block).is_some_and(|now| now >= floor))
        })
    }

    /// Remembers that the piece fails.
    pub(super) fn record(&mut self, cells: &[Cell]) {
        if self.n_floors > MAX_FLOORS {
            self.entries.clear();
            self.n_floors = 0;
        }
        let mut pairs: Vec<(u32, u64)> = cells.iter().map(|cell| (cell.block, cell.floor)).collect();
        pairs.sort_unstable();
        let (blocks, floors): (Vec<u32>, Vec<u64>) = pairs.into_iter().unzip();
        let entry = self
            .entries
            .entry(key(cells))
            .or_insert_with(|| Entry { blocks: blocks.clone().into(), floors: Vec::new() });
        if *entry.blocks != *blocks {
            // Two sets with one key: the older stays.
            return;
        }
        entry.floors.retain(|old| old.iter().zip(&floors).any(|(old, new)| old < new));
        if entry.floors.len() == MAX_STATES {
            entry.floors.remove(0);
        }
        self.n_floors += floors.len();
        entry.floors.push(floors.into());
    }
}

/// A hash of the set of blocks, whatever their order.
fn key(cells: &[Cell]) -> u64 {
    cells.iter().fold(0, |key, cell| key ^ scramble(u64::from(cell.block) + 1))
}

/// The finaliser of splitmix64: a cheap bijection with no visible pattern.
pub(super) fn scramble(value: u64) -> u64 {
    let mut z = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
