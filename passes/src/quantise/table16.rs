//! Functions of an `i16` as TOSA's TABLE takes them: 513 values, one at every 128th integer, with straight
//! lines between.
//!
//! Such a table in place of one of 256 entries lets a function be applied to a convolution's sums before they
//! are cut to 8 bits: accumulators are rescaled to `i16`, looked up, and only the result is rounded to `i8`.
//! A function that is straight on either side of 0 is exact, since 0 is one of the points.

use crate::quantise::QuantParams;

/// A table and what it stands for.
pub(super) struct Table16 {
    pub entries: Vec<i16>,
    /// The real step of one unit of the `i32` that looking up gives.
    pub scale: f64,
}

/// Integers from one entry to the next.
const STEP: i64 = 128;

impl Table16 {
    /// Entries.
    pub(super) const N: usize = 513;
    /// The greatest magnitude of what looking up gives.
    pub(super) const BOUND: f64 = (1_u64 << 22) as f64;

    /// The table of a function from and to values with the given parameters.
    ///
    /// Values far beyond what `output` can hold are cut, so that they do not cost the others their bits.
    /// Undefined values are 0. A function that jumps gets entries of half the size, so that, as TOSA wants,
    /// neighbours differ by 16 bits at most.
    pub(super) fn new(function: impl Fn(f64) -> f64, input: QuantParams, output: QuantParams) -> Self {
        let (least, most) = output.limits();
        let (low, high) = (output.dequantise(least), output.dequantise(most));
        let span = high - low;
        let values: Vec<f64> = (0..Self::N as i64)
            .map(|at| function(input.dequantise(i64::from(i16::MIN) + at * STEP)))
            .map(|y| if y.is_nan() { 0.0 } else { y.clamp(low - span, high + span) })
            .collect();
        let greatest = values.iter().fold(0.0_f64, |most, y| most.max(y.abs()));
        let jumps = values.windows(2).any(|pair| (pair[1] - pair[0]).abs() > greatest * 0.999);
        let unit = greatest / if jumps { 16383.0 } else { 32767.0 };
        let unit = if unit > 0.0 { unit } else { output.scale };
        let entries = values.iter().map(|y| (y / unit).round() as i16).collect();
        Self { entries, scale: unit / STEP as f64 }
    }

    /// Whether looking up an `i16` of the given range follows a function more closely than looking up an `i8`
    /// with the given parameters does, in the mean square over the range and before the result is rounded.
    pub(super) fn is_closer(
        function: impl Fn(f64) -> f64,
        input: QuantParams,
        narrow: QuantParams,
        output: QuantParams,
    ) -> bool {
        let table = Self::new(&function, input, output);
        let (least, most) = output.limits();
        let (low, high) = (output.dequantise(least), output.dequantise(most));
        let (mut wide_error, mut narrow_error) = (0.0, 0.0);
        // A step that is no divisor of what the tables' points are apart from each other.
        for x in (-32768..32768).step_by(61).map(|q| input.dequantise(q)) {
            let want = function(x);
            if want.is_nan() {
                continue;
            }
            let error = |y: f64| {
                let y = if y.is_nan() { 0.0 } else { y };
                (y.clamp(low, high) - want.clamp(low, high)).powi(2)
            };
            wide_error += error(table.at(input.quantise(x)));
            narrow_error += error(function(narrow.dequantise(narrow.quantise(x))));
        }
        wide_error <= narrow_error
    }

    /// What looking up an integer gives, as a real number.
    fn at(&self, q: i64) -> f64 {
        let at = ((q - i64::from(i16::MIN)) / STEP) as usize;
        let (base, next) = (i64::from(self.entries[at]), i64::from(self.entries[at + 1]));
        self.scale * (base * STEP + (next - base) * (q & (STEP - 1))) as f64
    }
}

#[cfg(test)]
mod tests {
    use strata_ir::ElemType;

    use super::*;
    use crate::quantise::Range;

    /// The greatest error over all integers, in steps of the output.
    fn error(function: impl Fn(f64) -> f64, input: Range, output: QuantParams) -> f64 {
        let input = QuantParams::of_range_in(input, ElemType::I16);
        let table = Table16::new(&function, input, output);
        let neighbours = table.entries.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0]));
        assert!(neighbours.into_iter().all(|d| i16::try_from(d).is_ok()), "TOSA wants slopes of 16 bits");
        let (least, most) = output.limits();
        let (low, high) = (output.dequantise(least), output.dequantise(most));
        (-32768..32768)
            .map(|q| (table.at(q).clamp(low, high) - function(input.dequantise(q)).clamp(low, high)).abs())
            .fold(0.0, f64::max)
            / output.scale
    }

    #[test]
    fn smooth_functions_are_within_a_fraction_of_a_step() {
        let input = Range { low: -9.0, high: 8.0 };
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let swish = |x: f64| x * sigmoid(x);
        assert!(error(sigmoid, input, QuantParams::of_range(Range { low: 0.0, high: 1.0 })) < 0.01);
        assert!(error(swish, input, QuantParams::of_range(Range { low: -0.3, high: 8.0 })) < 0.01);
        let wide = QuantParams::of_range_in(Range { low: 0.0, high: 1.0 }, ElemType::I16);
        assert!(error(sigmoid, input, wide) < 2.0);
    }

    #[test]
    fn slopes_that_change_at_0_are_exact() {
        let input = Range { low: -3.0, high: 10.0 };
        let leaky = |x: f64| if x < 0.0 { 0.1 * x } else { x };
        assert!(error(leaky, input, QuantParams::of_range(Range { low: -0.3, high: 10.0 })) < 0.01);
    }

    #[test]
    fn jumps_poles_and_undefined_values_saturate() {
        let input = Range { low: -4.0, high: 4.0 };
        let output = QuantParams::of_range(Range { low: -1.0, high: 1.0 });
        let table =
            |f: &dyn Fn(f64) -> f64| Table16::new(f, QuantParams::of_range_in(input, ElemType::I16), output);
        let sign = table(&f64::signum);
        assert!((sign.at(-300) + 1.0).abs() < 1e-3 && (sign.at(300) - 1.0).abs() < 1e-3);
        assert!(table(&f64::recip).at(129) >= output.dequantise(127));
        assert_eq!(table(&f64::sqrt).at(-32768), 0.0);
        assert_eq!(table(&|_| 0.0).at(77), 0.0);
        error(f64::signum, input, output);
    }
}
