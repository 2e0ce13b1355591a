//! Scales and zero points, and the fixed-point multipliers that stand for real factors.

use rayon::prelude::*;
use strata_ir::{Attribute, ElemType, Tensor, TensorData};

/// An interval of real numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// The least.
    pub low: f32,
    /// The greatest.
    pub high: f32,
}

impl Range {
    /// The least interval that holds both.
    pub fn union(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }
}

/// How an integer stands for a real number: `real = scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantParams {
    /// The real step of one unit; positive.
    pub scale: f64,
    /// The integer that stands for 0. For `i16` it is 0, since TOSA's 16-bit operations know no other, unless
    /// the model itself gives another.
    pub zero_point: i64,
    /// The type of the integers: `i8` or `i16`.
    pub elem: ElemType,
}

impl QuantParams {
    /// Parameters of `i8`.
    pub fn i8(scale: f64, zero_point: i64) -> Self {
        Self { scale, zero_point, elem: ElemType::I8 }
    }

    /// The asymmetric `i8` parameters whose 256 values cover a range as nearly as possible; 0 is always
    /// represented exactly.
    pub fn of_range(range: Range) -> Self {
        let low = f64::from(range.low.min(0.0));
        let high = f64::from(range.high.max(0.0));
        let scale = (high - low) / 255.0;
        if scale.is_nan() || scale < f64::from(f32::MIN_POSITIVE) {
            return Self::i8(1.0, 0);
        }
        let zero_point = (-128.0 - low / scale).round().clamp(-128.0, 127.0) as i64;
        Self::i8(scale, zero_point)
    }

    /// The parameters of an element type that cover a range: those of [`of_range`](Self::of_range) for `i8`,
    /// symmetric ones for `i16`.
    pub fn of_range_in(range: Range, elem: ElemType) -> Self {
        if elem != ElemType::I16 {
            return Self::of_range(range);
        }
        let scale = f64::from(range.low.abs().max(range.high.abs())) / 32767.0;
        let usable = !scale.is_nan() && scale >= f64::from(f32::MIN_POSITIVE);
        Self { scale: if usable { scale } else { 1.0 }, zero_point: 0, elem }
    }

    /// The parameters that hold the whole numbers of a range as they are, if 16 bits are enough.
    pub(super) fn of_whole_numbers(range: Range) -> Option<Self> {
        let (low, high) = (f64::from(range.low.min(0.0)).floor(), f64::from(range.high.max(0.0)).ceil());
        if high - low <= 255.0 {
            return Some(Self::i8(1.0, -128 - low as i64));
        }
        let fits = low >= f64::from(i16::MIN) && high <= f64::from(i16::MAX);
        fits.then_some(Self { scale: 1.0, zero_point: 0, elem: ElemType::I16 })
    }

    /// The least and the greatest integer.
    pub fn limits(self) -> (i64, i64) {
        if self.elem == ElemType::I16 { (i16::MIN.into(), i16::MAX.into()) } else { (-128, 127) }
    }

    /// The greatest magnitude of an integer less the zero point, whatever the zero point.
    pub fn reach(self) -> f64 {
        match self.elem {
            ElemType::I16 if self.zero_point == 0 => 32768.0,
            ElemType::I16 => 65535.0,
            _ => 255.0,
        }
    }

    /// The nearest integer, saturated.
    #[inline]
    pub fn quantise(self, real: f64) -> i64 {
        let (least, most) = self.limits();
        // A cast of a NaN gives 0, which saturation cannot tell from data; calibration has already refused
        // those.
        nearest(real / self.scale + self.zero_point as f64, least as f64, most as f64).into()
    }

    /// The reals that the nearest integers stand for.
    pub(super) fn rounded(self, reals: &[f32]) -> Vec<f32> {
        let mut all = vec![0.0; reals.len()];
        let round = |(rounded, reals): (&mut [f32], &[f32])| {
            for (rounded, &real) in rounded.iter_mut().zip(reals) {
                *rounded = self.dequantise(self.quantise(real.into())) as f32;
            }
        };
        if reals.len() <= CHUNK {
            round((&mut all, reals));
        } else {
            all.par_chunks_mut(CHUNK).zip(reals.par_chunks(CHUNK)).for_each(round);
        }
        all
    }

    /// The nearest integers, saturated, as a tensor.
    pub fn quantise_all(self, shape: &[usize], reals: impl IntoIterator<Item = f64>) -> Tensor {
        let integers = reals.into_iter().map(|real| self.quantise(real));
        if self.elem == ElemType::I16 {
            Tensor::new(shape, TensorData::I16(integers.map(|q| q as i16).collect()))
        } else {
            Tensor::i8(shape, integers.map(|q| q as i8).collect())
        }
    }

    /// The nearest `i8` (of two, the even one), saturated, dividing in single precision as a model that comes
    /// quantised does.
    pub(super) fn quantise_single(self, real: f32) -> i8 {
        let steps = f64::from((real / self.scale as f32).round_ties_even());
        (steps + self.zero_point as f64).clamp(-128.0, 127.0) as i8
    }

    /// The real number an integer stands for.
    #[inline]
    pub fn dequantise(self, q: i64) -> f64 {
        self.scale * (q - self.zero_point) as f64
    }

    /// The dictionary `strata.quant` of an argument or result. The element type is not in it: it is the
    /// tensor's.
    pub fn to_attr(self) -> Attribute {
        let entries = [
            ("scale".to_owned(), Attribute::Float(self.scale, None)),
            ("zero_point".to_owned(), Attribute::Int(self.zero_point, ElemType::I64)),
        ];
        Attribute::Dict(entries.into())
    }

    /// The parameters that a `strata.quant` dictionary of a tensor of `elem` holds.
    pub fn from_attr(attr: &Attribute, elem: ElemType) -> Option<Self> {
        let Attribute::Dict(entries) = attr else { return None };
        match (entries.get("scale")?, entries.get("zero_point")?) {
            (Attribute::Float(scale, _), Attribute::Int(zero_point, _)) => {
                Some(Self { scale: *scale, zero_point: *zero_point, elem })
            }
            _ => None,
        }
    }
}

/// Elements that one task rounds; results do not depend on it.
const CHUNK: usize = 1 << 14;

/// The nearest integer within bounds of at most 16 bits, of two the one farther from 0: that of
/// `x.round().clamp(least, most)`, without a call, so that many are made at once.
#[inline]
pub(super) fn nearest(x: f64, least: f64, most: f64) -> i32 {
    let x = x.clamp(least, most);
    let whole = x as i32;
    // Exact: both are small.
    let rest = x - f64::from(whole);
    whole + i32::from(rest >= 0.5) - i32::from(rest <= -0.5)
}

/// A positive factor as TOSA's RESCALE takes it: `multiplier / 2^shift` with `multiplier` in `[2^30, 2^31)`
/// (less only for factors below `2^-32`) and `shift` in `2..=62`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FixedScale {
    pub multiplier: i32,
    pub shift: i8,
}

impl FixedScale {
    /// The factor that changes nothing, for integers of magnitude below 2^29.
    pub(super) const ONE: Self = Self { multiplier: 1 << 30, shift: 30 };

    /// The nearest fixed-point factor, if RESCALE may apply it to integers of magnitude up to `bound`: TOSA
    /// wants `-2^(shift-1) <= value < 2^(shift-1)`.
    pub(super) fn new(factor: f64, bound: f64) -> Option<Self> {
        if !(factor.is_finite() && factor > 0.0) {
            return None;
        }
        let mut exponent = 31 - 1 - factor.log2().floor() as i32;
        let scaled = |exponent: i32| (factor * 2_f64.powi(exponent)).round();
        // `log2` may be off by one near powers of two, and rounding may reach 2^31.
        while scaled(exponent) >= 2_f64.powi(31) {
            exponent -= 1;
        }
        while scaled(exponent) < 2_f64.powi(30) {
            exponent += 1;
        }
        let exponent = exponent.min(62);
        let fits = exponent >= 2 && bound < 2_f64.powi(exponent - 1);
        fits.then(|| Self { multiplier: scaled(exponent) as i32, shift: exponent as i8 })
    }

    /// As [`new`](Self::new), of a factor that may be 0.
    pub(super) fn of_slope(factor: f64, bound: f64) -> Option<Self> {
        if factor == 0.0 { Some(Self { multiplier: 0, shift: 32 }) } else { Self::new(factor, bound) }
    }

    /// The nearest fixed-point factor of 15 bits, as RESCALE takes it for `i48`, if it may be applied to
    /// integers of magnitude up to `bound`: TOSA wants products to fit 32 bits once they are shifted.
    pub(super) fn of_15_bits(factor: f64, bound: f64) -> Option<Self> {
        if !(factor.is_finite() && factor > 0.0 && factor * bound < 2_f64.powi(31)) {
            return None;
        }
        let mut exponent = 14 - factor.log2().floor() as i32;
        let scaled = |exponent: i32| (factor * 2_f64.powi(exponent)).round();
        while scaled(exponent) >= 2_f64.powi(15) {
            exponent -= 1;
        }
        let exponent = exponent.min(62);
        (exponent >= 2).then(|| Self { multiplier: scaled(exponent) as i32, shift: exponent as i8 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_the_ends_are_reached() {
        let ranges = [(-1.0, 3.0), (0.0, 6.0), (-5.0, 0.0), (0.2, 0.9), (-0.001, 12.0)];
        let each = ranges.into_iter().flat_map(|ends| [(ends, ElemType::I8), (ends, ElemType::I16)]);
        for ((low, high), elem) in each {
            let params = QuantParams::of_range_in(Range { low, high }, elem);
            assert_eq!(params.dequantise(params.quantise(0.0)), 0.0);
            let step = params.scale * 0.5001;
            for end in [low, high] {
                let back = params.dequantise(params.quantise(f64::from(end)));
                assert!((back - f64::from(end)).abs() <= 2.0 * step, "{end} came back as {back}");
            }
            assert_eq!(QuantParams::from_attr(&params.to_attr(), params.elem), Some(params));
        }
    }

    #[test]
    fn numbers_are_rounded_as_the_library_rounds() {
        let bounds = [(-127.0, 127.0), (-128.0, 127.0), (-32768.0, 32767.0)];
        for (least, most) in bounds {
            let halves = (-70_000..=70_000).map(|i| f64::from(i) / 2.0);
            let beside = halves.flat_map(|x| [x, x.next_up(), x.next_down()]);
            for x in beside.chain([0.499_999_999_999_999_94, f64::NAN, f64::INFINITY, -1e300, -0.0]) {
                assert_eq!(nearest(x, least, most), x.round().clamp(least, most) as i32, "{x}");
            }
        }
    }

    #[test]
    fn scales_of_15_bits_are_near() {
        for exponent in -40..12 {
            for mantissa in [1.0, 1.25, 1.999_99] {
                let factor = mantissa * 2_f64.powi(exponent);
                let scale = FixedScale::of_15_bits(factor, 1.0).expect("in range");
                assert!((1 << 14..1 << 15).contains(&scale.multiplier), "{scale:?}");
                let back = f64::from(scale.multiplier) / 2_f64.powi(i32::from(scale.shift));
                assert!((back / factor - 1.0).abs() <= 2_f64.powi(-15), "{factor} became {back}");
            }
        }
        assert_eq!(FixedScale::of_15_bits(1.0, 2_f64.powi(31)), None, "the result would not fit 32 bits");
        assert_eq!(FixedScale::of_15_bits(2_f64.powi(13), 1.0), None, "the shift would be less than 2");
    }

    #[test]
    fn fixed_scales_are_normalised_and_near() {
        for exponent in -30..20 {
            for mantissa in [1.0, 1.000_000_001, 1.5, 1.999_999_999_9] {
                let factor = mantissa * 2_f64.powi(exponent);
                let scale = FixedScale::new(factor, 1.0).expect("in range");
                assert!(scale.multiplier >= 1 << 30, "{scale:?}");
                let back = f64::from(scale.multiplier) / 2_f64.powi(i32::from(scale.shift));
                assert!((back / factor - 1.0).abs() < 1e-9, "{factor} became {back}");
            }
        }
        assert_eq!(FixedScale::new(1.0, 1.0), Some(FixedScale { multiplier: 1 << 30, shift: 30 }));
        assert_eq!(FixedScale::new(2_f64.powi(29), 1.0), None, "the shift would be less than 2");
        assert_eq!(FixedScale::new(1.0, 2_f64.powi(30)), None, "the value is too large for the shift");
        assert_eq!(FixedScale::new(0.0, 1.0), None);
        let tiny = FixedScale::new(2_f64.powi(-40), 1.0).expect("a small multiplier");
        assert_eq!((tiny.multiplier, tiny.shift), (1 << 22, 62));
    }
}
