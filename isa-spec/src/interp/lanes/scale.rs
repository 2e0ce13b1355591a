//! Scales of rescales as vectors read them.

use super::LANES;

/// What a number is rescaled by: `apply_scale_32` of TOSA, with single rounding, of its difference from a
/// zero point.
#[derive(Clone, Copy, Debug)]
pub(in crate::interp) struct Rescale {
    pub(in crate::interp) multiplier: i32,
    pub(in crate::interp) shift: u8,
    pub(in crate::interp) zero_point: i32,
}

/// The scales of 16 neighbouring numbers.
///
/// A product, its rounding and 2^62 are together above 0, so that a logical shift, which every CPU has, is
/// arithmetic; what is left of the 2^62 is then taken off. The zero point of the numbers is in the rounding,
/// that of the results in what is taken off.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(in crate::interp) struct LaneScale {
    pub(super) multipliers: [i32; LANES],
    /// What is added to products: of the even lanes, and of the odd ones.
    pub(super) rounds: [[i64; LANES / 2]; 2],
    pub(super) shifts: [[u64; LANES / 2]; 2],
    /// What is taken off in the end.
    pub(super) drops: [i32; LANES],
}

/// What numbers are held within.
#[derive(Clone, Copy, Debug)]
pub(in crate::interp) struct Limits {
    pub(in crate::interp) least: i32,
    pub(in crate::interp) most: i32,
}

/// Scales of channels, for numbers that are known to be small enough: what is scaled fits 32 bits.
#[derive(Clone, Debug)]
pub(in crate::interp) struct LaneScales {
    /// Those of 16 lanes each, or of all; what is behind the last lane is any.
    blocks: Vec<LaneScale>,
    /// No result is further from 0.
    greatest: i64,
}

/// What makes the shift of a negative number a logical one.
const RAISE: i64 = 1 << 62;

impl LaneScales {
    /// Scales of lanes, or one for all, for numbers whose difference from their zero point is at most
    /// `greatest`, and the zero point of the results; none if a multiplier is negative, or 32 bits do not
    /// hold every result.
    pub(in crate::interp) fn new(lanes: &[Rescale], greatest: i64, zero_point: i32) -> Option<Self> {
        let fits = |lane: &Rescale| {
            // A number below 2^shift by a multiplier below 2^31, and the rounding, are below 2^(shift + 31).
            lane.multiplier >= 0 && (2..=62).contains(&lane.shift) && greatest < 1 << lane.shift.min(31)
        };
        let result = |lane: &Rescale| ((greatest * i64::from(lane.multiplier)) >> lane.shift) + 1;
        if !lanes.iter().all(fits) {
            return None;
        }
        let greatest = lanes.iter().map(result).max()? + i64::from(zero_point).abs();
        let block = |lanes: &[Rescale]| LaneScale::new(lanes, zero_point);
        let is_held = greatest < 1 << 31;
        is_held.then(|| Self { blocks: lanes.chunks(LANES).map(block).collect(), greatest })
    }

    /// No result is further from 0.
    pub(in crate::interp) fn greatest(&self) -> i64 {
        self.greatest
    }

    /// Those of a block of lanes, which may be those of all.
    #[inline(always)]
    pub(in crate::interp) fn of(&self, block: usize) -> &LaneScale {
        &self.blocks[block.min(self.blocks.len() - 1)]
    }
}

impl LaneScale {
    /// The scales of up to 16 numbers; one is that of all.
    fn new(lanes: &[Rescale], zero_point: i32) -> Self {
        const ANY: Rescale = Rescale { multiplier: 0, shift: 62, zero_point: 0 };
        let of = |lane: usize| match lanes {
            [one] => *one,
            _ => lanes.get(lane).copied().unwrap_or(ANY),
        };
        let round = |lane: usize| {
            let Rescale { multiplier, shift, zero_point } = of(lane);
            // The difference from the zero point is known to be small, so this may wrap, and wraps back.
            let taken_off = i64::from(zero_point) * i64::from(multiplier);
            ((1 << (shift - 1)) + RAISE).wrapping_sub(taken_off)
        };
        let sides = [0, 1];
        Self {
            multipliers: std::array::from_fn(|lane| of(lane).multiplier),
            rounds: sides.map(|side| std::array::from_fn(|at| round(2 * at + side))),
            shifts: sides.map(|side| std::array::from_fn(|at| of(2 * at + side).shift.into())),
            drops: std::array::from_fn(|lane| ((RAISE >> of(lane).shift) as i32).wrapping_sub(zero_point)),
        }
    }
}
