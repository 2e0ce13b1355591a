//! Vectors for every CPU.

use super::{LANES, LaneScale, Lanes, Limits};

impl Lanes for [i32; LANES] {
    type Scale<'a> = &'a LaneScale;

    #[inline(always)]
    unsafe fn load(from: &[i32; LANES]) -> Self {
        *from
    }

    #[inline(always)]
    unsafe fn store(self, to: &mut [i32; LANES]) {
        *to = self;
    }

    #[inline(always)]
    unsafe fn from_bytes(bytes: &[u8; LANES]) -> Self {
        bytes.map(|byte| i32::from(byte as i8))
    }

    #[inline(always)]
    unsafe fn to_bytes(self) -> [u8; LANES] {
        self.map(|v| v.clamp(-128, 127) as u8)
    }

    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane].wrapping_add(other[lane]))
    }

    #[inline(always)]
    unsafe fn times(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane].wrapping_mul(other[lane]))
    }

    #[inline(always)]
    unsafe fn scale(scale: &LaneScale) -> &LaneScale {
        scale
    }

    #[inline(always)]
    unsafe fn scaled(self, scale: &LaneScale) -> Self {
        std::array::from_fn(|lane| {
            let (side, at) = (lane % 2, lane / 2);
            let product = i64::from(self[lane]) * i64::from(scale.multipliers[lane]);
            let raised = product.wrapping_add(scale.rounds[side][at]) as u64;
            let raised = raised >> (scale.shifts[side][at] & 63);
            (raised as i32).wrapping_sub(scale.drops[lane])
        })
    }

    #[inline(always)]
    unsafe fn held(self, limits: Limits) -> Self {
        self.map(|v| v.max(limits.least).min(limits.most))
    }
}
