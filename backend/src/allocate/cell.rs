//! The state of a buffer in the exact search.

/// An unplaced buffer during the search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    /// Lowest offset it can still have.
    pub(super) floor: u64,
    /// Its place in the static order.
    pub(super) rank: u32,
    /// Its index in the instance.
    pub(super) block: u32,
    pub(super) first: u32,
    pub(super) end: u32,
    pub(super) pitch: u64,
    /// Aligned top of what is placed below.
    pub(super) support: u64,
}

impl Cell {
    pub(super) fn meets(&self, first: u32, end: u32) -> bool {
        self.first < end && first < self.end
    }

    pub(super) fn covers(&self, section: u32) -> bool {
        self.first <= section && section < self.end
    }

    pub(super) fn hovers(&self) -> bool {
        self.floor > self.support
    }
}
