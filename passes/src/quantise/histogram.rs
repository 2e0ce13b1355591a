//! Histograms of values, and the choice of the range that integers shall cover.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use strata_ir::ValueId;

use crate::quantise::entropy;
use crate::quantise::function::OnlyFunction;
use crate::quantise::params::{QuantParams, Range};

/// Bins of a histogram.
const N_BINS: usize = 2048;
/// What the square of a clipped value's error weighs: calibration saw few of the inputs to come, so that more
/// is clipped of those than of what it saw. Over the trained models 2 measures best of 1, 2, 4, 8, 16.
const CLIPPING: f64 = 2.0;
/// Of fewer values than this nothing is clipped: they say little of those to come.
const FEW: u64 = 4096;
/// Elements that one task sorts into bins; the counts do not depend on it.
const CHUNK: usize = 1 << 16;

/// How a range is chosen from a histogram.
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RangeChoice {
    /// All that was seen.
    MinMax,
    /// So many per cent of the values (such as 99.99) at either end.
    Percentile(f64),
    /// The range with the least mean square error of quantising to 256 levels, rounding and saturation
    /// together.
    #[default]
    MeanSquareError,
    /// The range whose 256 levels diverge least from the distribution that was seen, as TensorRT chooses it.
    Entropy,
}

impl RangeChoice {
    /// The choice that the option `range` of the pass names, with the per cent of values that a percentile
    /// keeps.
    pub fn from_name(name: &str, percentile: f64) -> Self {
        match name {
            "min-max" => Self::MinMax,
            "percentile" => Self::Percentile(percentile),
            "entropy" => Self::Entropy,
            _ => Self::MeanSquareError,
        }
    }

    /// Its name as an option of the pass.
    pub fn name(self) -> &'static str {
        match self {
            Self::MinMax => "min-max",
            Self::Percentile(_) => "percentile",
            Self::MeanSquareError => "mse",
            Self::Entropy => "entropy",
        }
    }
}

/// The ranges of the values of a function.
#[derive(Debug, Default)]
pub(super) struct Ranges<'a> {
    pub(super) chosen: BTreeMap<ValueId, Range>,
    pub(super) seen: BTreeMap<ValueId, &'a Histogram>,
    /// Ranges that follow from others, of values that were not observed.
    pub(super) derived: BTreeMap<ValueId, Range>,
    pub(super) choice: RangeChoice,
}

impl Ranges<'_> {
    /// The range chosen for a value.
    pub(super) fn chosen(&self, value: ValueId) -> Option<Range> {
        self.chosen.get(&value).or_else(|| self.derived.get(&value)).copied()
    }

    /// All that was seen of a value.
    pub(super) fn seen(&self, value: ValueId) -> Option<Range> {
        let seen = self.seen.get(&value).map(|histogram| histogram.seen);
        seen.or_else(|| self.derived.get(&value).copied())
    }

    /// Gives a new value what is known of another, unless something is known of it.
    pub(super) fn copy(&mut self, from: ValueId, to: ValueId) {
        if self.chosen(to).is_some() {
            return;
        }
        self.chosen.extend(self.chosen.get(&from).copied().map(|range| (to, range)));
        self.seen.extend(self.seen.get(&from).copied().map(|histogram| (to, histogram)));
        self.derived.extend(self.derived.get(&from).copied().map(|range| (to, range)));
    }

    /// Gives a new value a range that follows from others.
    pub(super) fn derive(&mut self, value: ValueId, range: Range) {
        self.derived.insert(value, range);
    }

    /// The range of a value of which only a function is used: where the choice is by error, that of the
    /// function's result decides.
    pub(super) fn through(&self, value: ValueId, function: &OnlyFunction<'_>) -> Option<Range> {
        match self.choice {
            RangeChoice::MeanSquareError => {
                let Some(seen) = self.seen.get(&value) else { return self.chosen(value) };
                Some(seen.least_error(Some(function)))
            }
            _ => self.chosen(value),
        }
    }
}

/// Adds data to a histogram, which begins with the first; false if some are not finite.
pub(super) fn observe(histogram: &mut Option<Histogram>, data: &[f32]) -> bool {
    let parts = data.par_chunks(CHUNK).map(|part| {
        let least = part.iter().copied().fold(f32::INFINITY, f32::min);
        let greatest = part.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let finite = part.iter().all(|x| x.is_finite());
        (least, greatest, finite)
    });
    let none = (f32::INFINITY, f32::NEG_INFINITY, true);
    let (low, high, finite) = parts.reduce(|| none, |a, b| (a.0.min(b.0), a.1.max(b.1), a.2 && b.2));
    if !finite || data.is_empty() {
        return finite;
    }
    let seen = Range { low, high };
    let histogram = histogram.get_or_insert_with(|| Histogram::new(seen));
    histogram.extend(seen);
    histogram.add(data);
    true
}

/// Counts of values in equal bins. When values beyond its ends come, the bins are made twice as wide until
/// they hold them, so that one pass over the data is enough.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    /// What was seen exactly.
    seen: Range,
    /// The lower end of the first bin.
    low: f64,
    bin_width: f64,
    counts: Vec<u64>,
}

impl Histogram {
    fn new(seen: Range) -> Self {
        let span = f64::from(seen.high) - f64::from(seen.low);
        let bin_width = if span > 0.0 { span / N_BINS as f64 } else { f64::from(f32::MIN_POSITIVE) };
        Self { seen, low: f64::from(seen.low), bin_width, counts: vec![0; N_BINS] }
    }

    fn extend(&mut self, seen: Range) {
        self.seen = self.seen.union(seen);
        while f64::from(self.seen.low) < self.low {
            self.low -= self.bin_width * N_BINS as f64;
            self.widen(N_BINS / 2);
        }
        while f64::from(self.seen.high) > self.low + self.bin_width * N_BINS as f64 {
            self.widen(0);
        }
    }

    /// Doubles the width of the bins and puts the counts, now half as many, at `offset`.
    fn widen(&mut self, offset: usize) {
        let mut counts = vec![0; N_BINS];
        for (pair, count) in self.counts.chunks(2).zip(&mut counts[offset..]) {
            *count = pair.iter().sum();
        }
        self.counts = counts;
        self.bin_width *= 2.0;
    }

    fn add(&mut self, data: &[f32]) {
        let (low, per_bin) = (self.low, 1.0 / self.bin_width);
        let count = |mut counts: Vec<u64>, part: &[f32]| {
            for &x in part {
                let bin = ((f64::from(x) - low) * per_bin) as usize;
                counts[bin.min(N_BINS - 1)] += 1;
            }
            counts
        };
        let empty = || vec![0_u64; N_BINS];
        let sum = |a: Vec<u64>, b: Vec<u64>| a.iter().zip(&b).map(|(a, b)| a + b).collect();
        let counts = data.par_chunks(CHUNK).fold(empty, count).reduce(empty, sum);
        for (total, count) in self.counts.iter_mut().zip(counts) {
            *total += count;
        }
    }

    pub(super) fn range(&self, choice: RangeChoice) -> Range {
        match choice {
            RangeChoice::MinMax => self.seen,
            RangeChoice::Percentile(percent) => self.percentile(1.0 - percent / 100.0),
            RangeChoice::MeanSquareError if self.counts.iter().sum::<u64>() < FEW => self.seen,
            RangeChoice::MeanSquareError => self.least_error(None),
            RangeChoice::Entropy => self.least_divergence(),
        }
    }

    fn percentile(&self, fraction: f64) -> Range {
        let total: u64 = self.counts.iter().sum();
        let cut = (total as f64 * fraction) as u64;
        let end = |counts: &mut dyn Iterator<Item = &u64>| {
            let mut passed = 0;
            counts
                .take_while(|&&count| {
                    passed += count;
                    passed <= cut
                })
                .count()
        };
        let below = end(&mut self.counts.iter());
        let above = end(&mut self.counts.iter().rev());
        let low = self.low + self.bin_width * below as f64;
        let high = self.low + self.bin_width * (N_BINS - above) as f64;
        Range { low: self.seen.low.max(low as f32), high: self.seen.high.min(high as f32) }
    }

    fn least_divergence(&self) -> Range {
        let zero = ((0.0 - self.low) / self.bin_width).clamp(0.0, N_BINS as f64) as usize;
        let (first, last) = entropy::least_divergence(&self.counts, zero);
        let end = |bin: usize| (self.low + self.bin_width * bin as f64) as f32;
        Range { low: self.seen.low.max(end(first)), high: self.seen.high.min(end(last)) }
    }

    /// The range whose 256 levels lose least of the values, or of a function of them that alone is used.
    /// Tries ranges that cut both ends alike, then each end alone, in steps of 1/64 of what was seen.
    fn least_error(&self, function: Option<&OnlyFunction<'_>>) -> Range {
        const FEWEST: u32 = 8;
        let rounded = Rounded::new(self, function);
        let mut best = Cut { low: STEPS, high: STEPS, error: f64::INFINITY };
        best.error = rounded.error(best.range(self.seen), f64::INFINITY);
        for step in (FEWEST..STEPS).rev() {
            best.improve(Cut { low: step, high: step, ..best }, self.seen, &rounded);
        }
        let high = best.high;
        for low in (FEWEST..=STEPS).rev() {
            best.improve(Cut { low, high, ..best }, self.seen, &rounded);
        }
        let low = best.low;
        for high in (FEWEST..=STEPS).rev() {
            best.improve(Cut { low, high, ..best }, self.seen, &rounded);
        }
        best.range(self.seen)
    }
}

/// Into how many steps either end of what was seen is divided.
const STEPS: u32 = 64;

/// How many steps of what was seen a range keeps at either end, and its error.
#[derive(Clone, Copy)]
struct Cut {
    low: u32,
    high: u32,
    error: f64,
}

impl Cut {
    fn range(&self, seen: Range) -> Range {
        let part = |steps: u32| steps as f32 / STEPS as f32;
        Range { low: seen.low.min(0.0) * part(self.low), high: seen.high.max(0.0) * part(self.high) }
    }

    /// Becomes another cut if that has a lesser error.
    fn improve(&mut self, other: Self, seen: Range, rounded: &Rounded<'_>) {
        let range = other.range(seen);
        // Where an end is 0 all its cuts are one.
        if range == self.range(seen) {
            return;
        }
        let error = rounded.error(range, self.error);
        if error < self.error {
            *self = Self { error, ..other };
        }
    }
}

/// Bins between two looks at whether a sum of errors is too great already.
const LOOK: usize = 64;

/// The bins of a histogram that are not empty, to be rounded to ranges.
struct Rounded<'a> {
    /// The middles of the bins, in ascending order.
    middles: Vec<f64>,
    /// How often values of each bin were seen.
    counts: Vec<f64>,
    /// What alone is used of the values, if it is not they.
    through: Option<Through<'a>>,
}

/// A function, and its values at the middles of the bins.
struct Through<'a> {
    function: &'a OnlyFunction<'a>,
    at_middles: Vec<f64>,
}

impl<'a> Rounded<'a> {
    fn new(histogram: &Histogram, function: Option<&'a OnlyFunction<'a>>) -> Self {
        let filled = histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let middle = |bin: usize| histogram.low + histogram.bin_width * (bin as f64 + 0.5);
        let (middles, counts): (Vec<f64>, Vec<f64>) =
            filled.map(|(bin, &count)| (middle(bin), count as f64)).unzip();
        let through = function.map(|function| {
            let mut at_middles = vec![0.0; middles.len()];
            function.at_all(&middles, &mut at_middles);
            Through { function, at_middles }
        });
        Self { middles, counts, through }
    }

    /// The sum of squares of what rounding to a range's 256 levels changes, bins weighted by their counts. If
    /// that is not less than `limit`, any number that is not.
    fn error(&self, range: Range, limit: f64) -> f64 {
        match &self.through {
            None => self.error_of_values(range, limit),
            Some(through) => self.error_through(through, range, limit),
        }
    }

    /// As [`error`](Self::error), of the values themselves.
    fn error_of_values(&self, range: Range, limit: f64) -> f64 {
        let params = QuantParams::of_range(range);
        let per_step = 1.0 / params.scale;
        let zero_point = params.zero_point as f64;
        // Within the range the error of a value spread over its bin is that of rounding, `scale^2 / 12`,
        // however the centres of the bins fall on the levels.
        let rounding = params.scale * params.scale / 12.0;
        let (least, greatest) = (-128.0 - zero_point, 127.0 - zero_point);
        let mut sum = 0.0;
        for (middles, counts) in self.middles.chunks(LOOK).zip(self.counts.chunks(LOOK)) {
            let mut errors = [0.0; LOOK];
            for ((error, &x), &count) in errors.iter_mut().zip(middles).zip(counts) {
                let steps = x * per_step;
                let beyond = (steps - steps.clamp(least, greatest)) * params.scale;
                *error = count * (rounding + CLIPPING * beyond * beyond);
            }
            sum = errors[..middles.len()].iter().fold(sum, |sum, error| sum + error);
            // No error is negative: the sum only grows.
            if sum >= limit {
                break;
            }
        }
        sum
    }

    /// As [`error`](Self::error), of a function's results.
    fn error_through(&self, through: &Through<'_>, range: Range, limit: f64) -> f64 {
        let params = QuantParams::of_range(range);
        let zero_point = params.zero_point as f64;
        let (least, greatest) = ((-128.0 - zero_point) * params.scale, (127.0 - zero_point) * params.scale);
        let half = 0.5 * params.scale;
        let below = self.middles.partition_point(|&x| x < least);
        let above = self.middles.partition_point(|&x| x <= greatest);
        let mut at_ends = [0.0; 6];
        let ends = [least - half, least, least + half, greatest - half, greatest, greatest + half];
        through.function.at_all(&ends, &mut at_ends);
        let [under_least, at_least, over_least, under_greatest, at_greatest, over_greatest] = at_ends;
        // Across one level the function varies about as much as between the level's ends.
        let cut = |sum: f64, bins: std::ops::Range<usize>, across: f64, kept: f64| {
            let of_bins = through.at_middles[bins.clone()].iter().zip(&self.counts[bins]);
            of_bins.fold(sum, |sum, (y, count)| sum + weighted(*count, across, y - kept))
        };
        let mut sum = cut(0.0, 0..below, over_least - under_least, at_least);
        for first in (below..above).step_by(LOOK) {
            if sum >= limit {
                return sum;
            }
            let n = LOOK.min(above - first);
            let (mut xs, mut under, mut over) = ([0.0; LOOK], [0.0; LOOK], [0.0; LOOK]);
            let (xs, under, over) = (&mut xs[..n], &mut under[..n], &mut over[..n]);
            let middles = &self.middles[first..first + n];
            xs.iter_mut().zip(middles).for_each(|(x, middle)| *x = middle + half);
            through.function.at_all(xs, over);
            xs.iter_mut().zip(middles).for_each(|(x, middle)| *x = middle - half);
            through.function.at_all(xs, under);
            for at in 0..n {
                // Nothing is clipped; where the function is not finite there is no error.
                let beyond = if through.at_middles[first + at].is_finite() { 0.0 } else { f64::NAN };
                sum += weighted(self.counts[first + at], over[at] - under[at], beyond);
            }
        }
        if sum >= limit {
            return sum;
        }
        cut(sum, above..self.middles.len(), over_greatest - under_greatest, at_greatest)
    }
}

/// The error of a bin's values in a function's result that varies by `across` over a level and of which
/// `beyond` is clipped.
fn weighted(count: f64, across: f64, beyond: f64) -> f64 {
    let error = across * across / 12.0 + CLIPPING * beyond * beyond;
    if error.is_finite() { count * error } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantise::function::Function;

    fn histogram_of(parts: &[&[f32]]) -> Histogram {
        let mut histogram = None;
        for part in parts {
            assert!(observe(&mut histogram, part));
        }
        histogram.expect("there were data")
    }

    #[test]
    fn histogram_grows_both_ways_and_loses_nothing() {
        let histogram = histogram_of(&[&[0.0, 1.0], &[-3.0, 0.5], &[7.0], &[-0.1]]);
        assert_eq!(histogram.seen, Range { low: -3.0, high: 7.0 });
        assert_eq!(histogram.counts.iter().sum::<u64>(), 6);
        assert!(histogram.low <= -3.0 && histogram.low + histogram.bin_width * N_BINS as f64 >= 7.0);
        assert_eq!(histogram.range(RangeChoice::MinMax), Range { low: -3.0, high: 7.0 });
    }

    #[test]
    fn percentile_and_mean_square_error_cut_a_lone_outlier() {
        let mut data: Vec<f32> = (0..100_000).map(|i| (i % 1000) as f32 / 1000.0).collect();
        data.push(50.0);
        let histogram = histogram_of(&[&data]);
        let percentile = histogram.range(RangeChoice::Percentile(99.99));
        assert!(percentile.high < 1.1, "{percentile:?}");
        let seen = histogram.range(RangeChoice::MinMax);
        let chosen = histogram.range(RangeChoice::MeanSquareError);
        assert!(chosen.high < seen.high, "{chosen:?}");
    }

    #[test]
    fn mean_square_error_keeps_a_uniform_range() {
        let data: Vec<f32> = (0..50_000).map(|i| i as f32 / 25_000.0 - 1.0).collect();
        let chosen = histogram_of(&[&data]).range(RangeChoice::MeanSquareError);
        assert!(chosen.low < -0.96 && chosen.high > 0.96, "{chosen:?}");
    }

    /// Bells of several widths and centres, and a few values far out.
    fn bells() -> Vec<Histogram> {
        let bell = |centre: f32, width: f32| {
            let uniform = |i: u32| f64::from(i.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24);
            let normal = |i: u32| (0..4).map(|k| uniform(4 * i + k)).sum::<f64>() - 2.0;
            let mut data: Vec<f32> = (0..20_000).map(|i| centre + width * normal(i) as f32).collect();
            data.extend([centre + 9.0 * width, centre - 4.0 * width]);
            histogram_of(&[&data])
        };
        vec![bell(0.0, 1.0), bell(-3.0, 2.0), bell(40.0, 5.0), bell(-2000.0, 900.0), bell(-30.0, 1.0)]
    }

    /// The range with the least sum of errors, each bin of each range by itself.
    fn searched(histogram: &Histogram, error: &dyn Fn(f64, QuantParams) -> f64) -> Range {
        let sum = |low: u32, high: u32| {
            let params = QuantParams::of_range(Cut { low, high, error: 0.0 }.range(histogram.seen));
            let filled = histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0);
            let error = |(bin, &count): (usize, &u64)| {
                let error = error(histogram.low + histogram.bin_width * (bin as f64 + 0.5), params);
                if error.is_finite() { count as f64 * error } else { 0.0 }
            };
            filled.map(error).sum::<f64>()
        };
        let mut best = (sum(STEPS, STEPS), STEPS, STEPS);
        let among = |best: (f64, u32, u32), cuts: &mut dyn Iterator<Item = (u32, u32)>| {
            cuts.map(|(low, high)| (sum(low, high), low, high))
                .fold(best, |best, cut| if cut.0 < best.0 { cut } else { best })
        };
        best = among(best, &mut (8..STEPS).rev().map(|step| (step, step)));
        best = among(best, &mut (8..=STEPS).rev().map(|low| (low, best.2)));
        best = among(best, &mut (8..=STEPS).rev().map(|high| (best.1, high)));
        Cut { low: best.1, high: best.2, error: 0.0 }.range(histogram.seen)
    }

    #[test]
    fn the_range_of_least_error_is_that_of_a_plain_search() {
        for histogram in bells() {
            let of_values = |x: f64, params: QuantParams| {
                let steps = x * (1.0 / params.scale);
                let zero_point = params.zero_point as f64;
                let beyond = (steps - steps.clamp(-128.0 - zero_point, 127.0 - zero_point)) * params.scale;
                params.scale * params.scale / 12.0 + CLIPPING * beyond * beyond
            };
            assert_eq!(histogram.least_error(None), searched(&histogram, &of_values));
        }
    }

    #[test]
    fn the_range_of_least_error_in_a_function_is_that_of_a_plain_search() {
        let functions: [(&str, &dyn Fn(f64) -> f64); 4] = [
            ("exp", &|x| libm::exp(x)),
            ("log", &|x| libm::log(x)),
            ("sigmoid", &|x| (1.0 + libm::exp(-x)).recip()),
            ("tanh", &|x| libm::tanh(x)),
        ];
        let error_in = |of: &dyn Fn(f64) -> f64, x: f64, params: QuantParams| {
            let zero_point = params.zero_point as f64;
            let (least, greatest) =
                ((-128.0 - zero_point) * params.scale, (127.0 - zero_point) * params.scale);
            let kept = x.clamp(least, greatest);
            let across = of(kept + 0.5 * params.scale) - of(kept - 0.5 * params.scale);
            let beyond = of(x) - of(kept);
            across * across / 12.0 + CLIPPING * beyond * beyond
        };
        for (histogram, (name, of)) in bells().iter().flat_map(|h| functions.map(|function| (h, function))) {
            let function = Function::of_op(name);
            let found = histogram.least_error(Some(&OnlyFunction::Plain(&function)));
            let want = searched(histogram, &|x, params| error_in(of, x, params));
            assert_eq!(found, want, "{name} of {:?}", histogram.seen);
        }
        let slopes = |x: f64| if x < 0.0 { 0.125 * x } else { 2.0 * x };
        for histogram in bells() {
            let function = OnlyFunction::Slopes { below: 0.125, above: 2.0 };
            let want = searched(&histogram, &|x, params| error_in(&slopes, x, params));
            assert_eq!(histogram.least_error(Some(&function)), want);
        }
    }

    #[test]
    fn values_that_are_not_finite_are_refused() {
        assert!(!observe(&mut None, &[1.0, f32::NAN]));
        assert!(!observe(&mut None, &[f32::INFINITY]));
    }
}
