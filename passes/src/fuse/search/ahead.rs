//! Weights that are loaded before the phase that uses them.
//!
//! Loads are queued in the order of use, a stage's tables as one, and a stage's are queued in the earliest
//! phase from which on they fit beside all that is live in weight SRAM. DRAM serves them in the time that
//! rows leave it. What a label knows of later phases is therefore how much room there was for them, and how
//! much time: during its last phase, and before that.

/// Weights of the phases after a label's last, `i`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WeightPrefetch {
    /// Weight SRAM that phase `i` leaves free.
    free: u64,
    /// Bytes that DRAM could have moved during it, beside what it did.
    spare: u64,
    /// Weight SRAM that the phase before it left free beside what `i` loads.
    free_before: u64,
    /// Bytes that DRAM could have moved of later weights before it.
    before: u64,
}

/// What a phase leaves to the weights of later ones.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeftByPhase {
    /// Bytes of weight SRAM.
    pub free: u64,
    /// Bytes that DRAM could move in the time of the phase beside what it does.
    pub spare: u64,
}

impl WeightPrefetch {
    /// Bytes that are loaded of the next phase's weights as it begins; `up_to` are those of its stages up to
    /// and including each.
    pub(super) fn loaded_of(&self, up_to: &[u64]) -> u64 {
        fitting(up_to, self.free).min(self.loaded_before(up_to) + self.spare)
    }

    /// Of [`Self::loaded_of`], what was loaded before the last phase began.
    fn loaded_before(&self, up_to: &[u64]) -> u64 {
        fitting(up_to, self.free_before).min(self.before)
    }

    /// The same after the next phase, and what that leaves.
    pub(super) fn after(&self, up_to: &[u64], left: LeftByPhase) -> Self {
        let LeftByPhase { free, spare } = left;
        let to_load = up_to.last().copied().unwrap_or(0);
        if self.loaded_of(up_to) < to_load {
            return Self { free, spare, free_before: 0, before: 0 };
        }
        // What did not fit before the last phase did not let later loads go before it.
        let held_up = self.loaded_before(up_to) < to_load.min(self.before);
        let before = if held_up { self.loaded_before(up_to) } else { self.before };
        let free_before = self.free - to_load;
        Self { free, spare, free_before, before: (before + self.spare - to_load).min(free_before) }
    }

    /// Bytes of weights of later phases that can have been loaded, wherever these begin and end.
    pub(super) fn bytes(&self) -> u64 {
        (self.before + self.spare).min(self.free)
    }

    /// By how many bytes less at most any next phase's weights are loaded as it begins than after `other`.
    pub(super) fn lacks(&self, other: &Self) -> u64 {
        if self.free < other.free || self.free_before < other.free_before {
            return other.bytes();
        }
        let more = |theirs: u64, ours: u64| theirs.saturating_sub(ours);
        (more(other.before, self.before) + more(other.spare, self.spare)).min(other.bytes())
    }
}

/// The weights of the first stages that fit so many bytes together.
fn fitting(up_to: &[u64], bytes: u64) -> u64 {
    up_to.iter().copied().take_while(|&sum| sum <= bytes).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_loaded_in_the_time_that_is_spare() {
        let ahead = WeightPrefetch::default().after(&[], LeftByPhase { free: 100, spare: 70 });
        assert_eq!(ahead.loaded_of(&[40, 60]), 60);
        assert_eq!(ahead.loaded_of(&[40, 80]), 70, "no more than DRAM has time for");
        assert_eq!(ahead.loaded_of(&[40, 110]), 40, "the second stage's do not fit as one");
        assert_eq!(ahead.loaded_of(&[110]), 0);
    }

    #[test]
    fn what_a_phase_leaves_is_for_the_one_after_it() {
        let ahead = WeightPrefetch::default()
            .after(&[], LeftByPhase { free: 100, spare: 70 })
            .after(&[30], LeftByPhase { free: 90, spare: 10 });
        // 40 before the phase and 10 during it.
        assert_eq!(ahead.loaded_of(&[60]), 50);
        // 80 bytes did not fit beside the 30 before it, so they begin in it.
        assert_eq!(ahead.loaded_of(&[80]), 10);
        // A phase that waits for its own weights begins with none of the next one's.
        let late = WeightPrefetch::default()
            .after(&[], LeftByPhase { free: 100, spare: 70 })
            .after(&[90], LeftByPhase { free: 95, spare: 10 });
        assert_eq!(late.loaded_of(&[60]), 10);
    }
}
