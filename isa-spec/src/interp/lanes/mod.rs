//! Vectors of 16 numbers: what is done between the sums of a kernel and the bytes of a row, without leaving
//! registers.

mod plain;
mod scale;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use self::scale::{LaneScale, LaneScales, Limits, Rescale};

/// Numbers of a vector.
pub(crate) const LANES: usize = 16;

/// 16 numbers of 32 bits.
///
/// # Safety
/// All functions: the CPU has the instructions of the type, as a [`Simd`](super::simd::Simd) shows.
pub(super) trait Lanes: Copy {
    /// Scales, as the type reads them.
    type Scale<'a>: Copy;

    unsafe fn load(from: &[i32; LANES]) -> Self;

    unsafe fn store(self, to: &mut [i32; LANES]);

    /// Bytes of `i8`.
    unsafe fn from_bytes(bytes: &[u8; LANES]) -> Self;

    /// As bytes of `i8`; what they do not hold saturates.
    unsafe fn to_bytes(self) -> [u8; LANES];

    /// The sum, which wraps.
    unsafe fn plus(self, other: Self) -> Self;

    /// The product, which wraps.
    unsafe fn times(self, other: Self) -> Self;

    unsafe fn scale(scale: &LaneScale) -> Self::Scale<'_>;

    /// Numbers rescaled, of which the scale may be applied to: see [`LaneScales`].
    unsafe fn scaled(self, scale: Self::Scale<'_>) -> Self;

    /// Numbers held within limits.
    unsafe fn held(self, limits: Limits) -> Self;
}

/// The sums of some channels, as the vectors of a kernel hold them.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    /// No sum is further from 0, corrected or not; where 32 bits do not hold it, sums may wrap.
    pub(super) greatest: i64,
    pub(super) lanes: Vec<SumLane>,
}

/// What the weights of a channel say of its sum: of activations of `i8` less a zero point, on a bias.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelSum {
    /// What is to be added to a sum of activations that are 128 more, without the zero point and the bias.
    pub(super) correction: i32,
    /// The sum is no further from 0, corrected or not; where 32 bits do not hold it, it may wrap.
    pub(super) greatest: i64,
}

impl ChannelSum {
    pub(super) fn new(weights: impl Iterator<Item = i8>, bias: i32, zero_point: i32) -> Self {
        let (mut sum, mut size) = (0i32, 0);
        for weight in weights {
            sum = sum.wrapping_add(weight.into());
            size += i64::from(weight.unsigned_abs());
        }
        let furthest = (i64::from(zero_point) + 128).max(127 - i64::from(zero_point));
        Self {
            correction: bias.wrapping_sub(sum.wrapping_mul(128 + zero_point)),
            greatest: (size * furthest + i64::from(bias).abs()).max(size * 255),
        }
    }
}

/// What a lane holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct SumLane {
    pub(super) channel: usize,
    /// What is to be added to it to give the sum.
    pub(super) correction: i32,
}

/// Declares functions whose bodies are compiled once for each type of [`Lanes`], which they name by their
/// parameter; each takes a `Simd` first, which picks one.
macro_rules! laned {
    ($(
        $(#[$attribute:meta])*
        $visibility:vis fn $name:ident<$lanes:ident>($simd:ident; $($arg:ident: $type:ty),* $(,)?) $body:block
    )*) => {$(
        $(#[$attribute])*
        $visibility fn $name($simd: $crate::interp::simd::Simd, $($arg: $type),*) {
            /// # Safety
            /// The CPU has the instructions of the type.
            #[inline(always)]
            unsafe fn body<$lanes: $crate::interp::lanes::Lanes>($($arg: $type),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::{__m256i, __m512i};

                use $crate::interp::simd::Level;
                #[target_feature(enable = "avx2,bmi2")]
                fn avx2($($arg: $type),*) {
                    // SAFETY: AVX2 is enabled here.
                    unsafe { body::<[__m256i; 2]>($($arg),*) }
                }
                #[target_feature(enable = "avx2,bmi2,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($arg: $type),*) {
                    // SAFETY: AVX-512 is enabled here.
                    unsafe { body::<__m512i>($($arg),*) }
                }
                match $simd.level() {
                    Level::Portable => {}
                    // SAFETY: a `Simd` is made only of a level whose features the CPU has.
                    Level::Avx2 | Level::AvxVnni => return unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx512Vnni => return unsafe { avx512($($arg),*) },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = $simd;
            // SAFETY: arrays take no instructions that a CPU may lack.
            unsafe { body::<[i32; $crate::interp::lanes::LANES]>($($arg),*) }
        }
    )*};
}
pub(super) use laned;

#[cfg(test)]
mod tests;
