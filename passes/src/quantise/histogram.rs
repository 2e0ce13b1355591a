//! Histograms of values, and the choice of the range that integers shall cover.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use strata_ir::ValueId;

use crate::quantise::entropy;
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

/// The error of rounding to a range, given the middles of bins and how often each was seen.
type ErrorOf<'a> = dyn Fn(&[(f64, f64)], Range) -> f64 + 'a;

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
    pub(super) fn through(&self, value: ValueId, function: impl Fn(f64) -> f64) -> Option<Range> {
        match self.choice {
            RangeChoice::MeanSquareError => {
                let Some(seen) = self.seen.get(&value) else { return self.chosen(value) };
                Some(seen.least_error(&|bins, range| error_through(bins, range, &function)))
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
            RangeChoice::MeanSquareError => self.least_error(&quantisation_error),
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

    /// Tries ranges that cut both ends alike, then each end alone, in steps of 1/64 of what was seen.
    fn least_error(&self, error_of: &ErrorOf<'_>) -> Range {
        const STEPS: u32 = 64;
        const FEWEST: u32 = 8;
        let bins: Vec<(f64, f64)> = (self.counts.iter().enumerate())
            .filter(|(_, count)| **count > 0)
            .map(|(bin, &count)| (self.low + self.bin_width * (bin as f64 + 0.5), count as f64))
            .collect();
        let part = |steps: u32| steps as f32 / STEPS as f32;
        let cut = |low: u32, high: u32| Range {
            low: self.seen.low.min(0.0) * part(low),
            high: self.seen.high.max(0.0) * part(high),
        };
        let error = |(low, high): (u32, u32)| error_of(&bins, cut(low, high));
        let best = |start: (u32, u32), candidates: &mut dyn Iterator<Item = (u32, u32)>| {
            let mut best = (error(start), start);
            for candidate in candidates {
                let tried = error(candidate);
                if tried < best.0 {
                    best = (tried, candidate);
                }
            }
            best.1
        };
        let all = (STEPS, STEPS);
        let both = best(all, &mut (FEWEST..STEPS).rev().map(|step| (step, step)));
        let low = best(both, &mut (FEWEST..=STEPS).rev().map(|step| (step, both.1)));
        let (low, high) = best(low, &mut (FEWEST..=STEPS).rev().map(|step| (low.0, step)));
        cut(low, high)
    }
}

/// The sum of squares of what quantising to a range's 256 levels changes, bins weighted by their counts.
fn quantisation_error(bins: &[(f64, f64)], range: Range) -> f64 {
    let params = QuantParams::of_range(range);
    let per_step = 1.0 / params.scale;
    let zero_point = params.zero_point as f64;
    // Within the range the error of a value spread over its bin is that of rounding, `scale^2 / 12`, however
    // the centres of the bins fall on the levels.
    let rounding = params.scale * params.scale / 12.0;
    let (least, greatest) = (-128.0 - zero_point, 127.0 - zero_point);
    bins.iter()
        .map(|&(x, count)| {
            let steps = x * per_step;
            let beyond = (steps - steps.clamp(least, greatest)) * params.scale;
            count * (rounding + CLIPPING * beyond * beyond)
        })
        .sum()
}

/// The sum of squares of what quantising to a range's 256 levels changes in a function's result.
fn error_through(bins: &[(f64, f64)], range: Range, function: &dyn Fn(f64) -> f64) -> f64 {
    let params = QuantParams::of_range(range);
    let zero_point = params.zero_point as f64;
    let (least, greatest) = ((-128.0 - zero_point) * params.scale, (127.0 - zero_point) * params.scale);
    let half = 0.5 * params.scale;
    bins.iter()
        .map(|&(x, count)| {
            let kept = x.clamp(least, greatest);
            // Across one level the function varies about as much as between the level's ends.
            let across = function(kept + half) - function(kept - half);
            let beyond = function(x) - function(kept);
            let error = across * across / 12.0 + CLIPPING * beyond * beyond;
            if error.is_finite() { count * error } else { 0.0 }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn values_that_are_not_finite_are_refused() {
        assert!(!observe(&mut None, &[1.0, f32::NAN]));
        assert!(!observe(&mut None, &[f32::INFINITY]));
    }
}
