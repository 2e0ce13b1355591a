//! Values a channel, and the scales of rescales among them, as loops over accumulators read them.

use std::ops::Range;

/// A value for every channel, or one for all, repeated so that loops over them are long.
#[derive(Clone, Debug)]
pub(super) struct Channels<T> {
    repeated: Vec<T>,
    channels: usize,
}

/// Values that a loop runs over at least, unless it is of some channels only.
const LEAST_LOOP: usize = 512;

impl<T: Copy> Channels<T> {
    pub(super) fn new(values: Vec<T>) -> Self {
        let times = LEAST_LOOP.div_ceil(values.len().max(1));
        Self { channels: values.len(), repeated: values.repeat(times) }
    }

    /// The values, one a channel or one for all.
    pub(super) fn all(&self) -> &[T] {
        &self.repeated[..self.channels]
    }

    /// The values of neighbouring accumulators, from the first of a pixel on, whose pixels have channels
    /// `chs`: whole pixels of them, to be begun again at the end.
    pub(super) fn of(&self, chs: &Range<usize>) -> &[T] {
        if self.channels == 1 || (chs.start == 0 && chs.len() == self.channels) {
            &self.repeated
        } else {
            &self.repeated[chs.clone()]
        }
    }
}

/// Multipliers and shifts of a rescale.
#[derive(Clone, Debug)]
pub(super) struct Scales<M> {
    pub(super) multipliers: Channels<M>,
    pub(super) shifts: Channels<u8>,
    pub(super) near: Option<NearScales>,
}

/// Scales none of whose multipliers is negative: what they give of values of no more bits than the least
/// shift fits 32 bits. All are of 64 bits, as they are calculated with.
#[derive(Clone, Debug)]
pub(super) struct NearScales {
    pub(super) multipliers: Channels<i64>,
    /// Half of what a shift divides by.
    pub(super) rounds: Channels<i64>,
    pub(super) shifts: Channels<u64>,
    /// What double rounding adds to a product, or takes off it.
    pub(super) doubles: Channels<i64>,
    pub(super) least_shift: u8,
}

/// Scales of neighbouring accumulators, whole pixels of them.
pub(super) struct NearSlices<'a> {
    pub(super) multipliers: &'a [i64],
    pub(super) rounds: &'a [i64],
    pub(super) shifts: &'a [u64],
    pub(super) doubles: &'a [i64],
}

impl NearScales {
    /// As [`Channels::of`].
    pub(super) fn of(&self, chs: &Range<usize>) -> NearSlices<'_> {
        NearSlices {
            multipliers: self.multipliers.of(chs),
            rounds: self.rounds.of(chs),
            shifts: self.shifts.of(chs),
            doubles: self.doubles.of(chs),
        }
    }
}

impl<M: Copy + Into<i64>> Scales<M> {
    pub(super) fn new(multipliers: Vec<M>, shifts: Vec<u8>) -> Self {
        let wide: Vec<i64> = multipliers.iter().map(|&m| m.into()).collect();
        let near = wide.iter().all(|&m| m >= 0).then(|| NearScales {
            multipliers: Channels::new(wide),
            rounds: Channels::new(shifts.iter().map(|&s| 1 << (s - 1)).collect()),
            shifts: Channels::new(shifts.iter().map(|&s| s.into()).collect()),
            doubles: Channels::new(shifts.iter().map(|&s| if s > 31 { 1 << 30 } else { 0 }).collect()),
            least_shift: shifts.iter().copied().min().unwrap_or(0),
        });
        Self { multipliers: Channels::new(multipliers), shifts: Channels::new(shifts), near }
    }
}
