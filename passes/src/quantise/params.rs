//! Scales and zero points, and the fixed-point multipliers that stand for real factors.

use strata_ir::Attribute;

use super::calibrate::Range;

/// How an `i8` stands for a real number: `real = scale * (q - zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantParams {
    /// The real step of one unit; positive.
    pub scale: f64,
    /// The integer that stands for 0, `-128..=127`.
    pub zero_point: i64,
}

impl QuantParams {
    /// The asymmetric parameters whose 256 values cover a range as nearly as possible; 0 is always represented
    /// exactly.
    pub fn of_range(range: Range) -> Self {
        let low = f64::from(range.low.min(0.0));
        let high = f64::from(range.high.max(0.0));
        let scale = (high - low) / 255.0;
        if scale.is_nan() || scale < f64::from(f32::MIN_POSITIVE) {
            return Self { scale: 1.0, zero_point: 0 };
        }
        let zero_point = (-128.0 - low / scale).round().clamp(-128.0, 127.0) as i64;
        Self { scale, zero_point }
    }

    /// The nearest integer, saturated to `i8`.
    pub fn quantise(self, real: f64) -> i8 {
        // A cast of a NaN gives 0, which saturation cannot tell from data; calibration has already refused those.
        (real / self.scale + self.zero_point as f64).round().clamp(-128.0, 127.0) as i8
    }

    /// The real number an integer stands for.
    pub fn dequantise(self, q: i8) -> f64 {
        self.scale * (i64::from(q) - self.zero_point) as f64
    }

    /// The dictionary `strata.quant` of an argument or result.
    pub fn to_attr(self) -> Attribute {
        let entries = [
            ("scale".to_owned(), Attribute::Float(self.scale, None)),
            ("zero_point".to_owned(), Attribute::Int(self.zero_point, strata_ir::ElemType::I64)),
        ];
        Attribute::Dict(entries.into())
    }

    /// The parameters that a `strata.quant` dictionary holds.
    pub fn from_attr(attr: &Attribute) -> Option<Self> {
        let Attribute::Dict(entries) = attr else { return None };
        match (entries.get("scale")?, entries.get("zero_point")?) {
            (Attribute::Float(scale, _), Attribute::Int(zero_point, _)) => {
                Some(Self { scale: *scale, zero_point: *zero_point })
            }
            _ => None,
        }
    }
}

/// A positive factor as TOSA's RESCALE takes it: `multiplier / 2^shift` with `multiplier` in `[2^30, 2^31)` (less
/// only for factors below `2^-32`) and `shift` in `2..=62`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FixedScale {
    pub multiplier: i32,
    pub shift: i8,
}

impl FixedScale {
    /// The nearest fixed-point factor, if RESCALE may apply it to integers of magnitude up to `bound`: TOSA wants
    /// `-2^(shift-1) <= value < 2^(shift-1)`.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_the_ends_are_reached() {
        for (low, high) in [(-1.0, 3.0), (0.0, 6.0), (-5.0, 0.0), (0.2, 0.9), (-0.001, 12.0)] {
            let params = QuantParams::of_range(Range { low, high });
            assert_eq!(params.dequantise(params.quantise(0.0)), 0.0);
            let step = params.scale * 0.5001;
            for end in [low, high] {
                let back = params.dequantise(params.quantise(f64::from(end)));
                assert!((back - f64::from(end)).abs() <= 2.0 * step, "{end} came back as {back}");
            }
            assert_eq!(QuantParams::from_attr(&params.to_attr()), Some(params));
        }
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
