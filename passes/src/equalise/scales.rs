//! The factors of a pair's channels.
//!
//! # The noise that they trade
//! Let channel `c` of the activation reach `r[c]` in magnitude, with mean square `m[c]`, and be divided by
//! `s[c]`. With 255 steps a tensor the activation's step is `max(c) r[c] / s[c] / 255`, the reaches below and
//! above 0 added; a weight of output `o` has the step `max(c) |w[o,c]| s[c] / 127`. A step `d` is noise of
//! variance `d^2 / 12`, so that output `o` of a consumer has
//!
//! `12 noise = step_a^2 sum(c,k) (w[o,c,k] s[c])^2 + step_w[o]^2 taps sum(c) m[c] / s[c]^2`
//!
//! The factors are `(r[c] / max r)^a`, times `(|w| / |w[c]|)^b` where no clamp limits them, with the
//! exponents of a small grid whose sum of noise over outputs is least. For a depthwise consumer the second
//! term does not depend on `s`.
//!
//! Between dense convolutions, of which either evens out by its scales a channel what the other's weights do,
//! more has to be won, and more exponents are tried: what is left there are ranges that differ by a large
//! factor. Channels of few values, as between fully connected layers, are not taken to reach less than their
//! weights suggest.

use strata_ir::{Module, Op};

use crate::equalise::Channels;
use crate::equalise::pairs::{Pair, input_channels, output_channels};

/// Exponents that are tried of the activation's ranges, and of the weights'.
const ACTIVATION: [f64; 3] = [0.0, 0.25, 0.5];
const WEIGHT: [f64; 3] = [0.0, 0.25, 0.5];
/// Exponents of the activation's ranges that are tried between dense convolutions.
const DENSE_ACTIVATION: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];
/// Values of a channel of which the range is too uncertain to scale by alone.
const FEW: usize = 1024;
/// No channel is scaled by more.
const LEAST: f64 = 1.0 / 256.0;
/// Less noise than this part of what there was is what it takes to scale at all.
const WORTH: f64 = 0.98;
/// The same between dense convolutions. Measured, gains that are smaller on paper are none: ranges are chosen
/// more narrowly for channels that are alike.
const DENSE_WORTH: f64 = 0.25;

/// By how much the noise of weights may grow that read a mean of the channels, such as those of a gate.
const OTHERS: f64 = 2.0;

/// The factors that quantise best, if they are any better than none.
pub(super) fn choose(module: &Module, pair: &Pair, channels: Option<&Channels>) -> Option<Vec<f64>> {
    let is_depthwise = |op: strata_ir::OpId| matches!(module.op(op).op, Op::DepthwiseConv2d(_));
    let is_dense = !is_depthwise(pair.producer) && !pair.consumers.iter().any(|&op| is_depthwise(op));
    let scales_weights = pair.clamps.is_empty() && pair.bend.is_none();
    let own;
    let channels = match channels {
        // A range that few values show is too narrow for those to come.
        Some(channels) if channels.n_pixels < FEW && (!is_dense || !scales_weights) => return None,
        Some(channels) if channels.n_pixels < FEW => {
            own = with_weights(module, pair, channels)?;
            &own
        }
        Some(channels) => channels,
        // Without statistics the producer's weights stand for the ranges, and no clamp's bound is known not
        // to matter.
        None if is_dense || !scales_weights => return None,
        None => {
            own = from_weights(module, pair)?;
            &own
        }
    };
    let readers = pair.consumers.iter().map(|&op| Reader::new(module, op, pair.n_channels));
    let readers: Vec<Reader> = readers.collect::<Option<_>>()?;
    let most = channels.greatest.iter().copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let mut weight_range = vec![0.0_f64; pair.n_channels];
    for reader in &readers {
        for (range, of_reader) in weight_range.iter_mut().zip(&reader.range) {
            *range = range.max(*of_reader);
        }
    }
    let heaviest = weight_range.iter().copied().fold(0.0, f64::max);
    let factors = |a: f64, b: f64| -> Vec<f64> {
        let one = |(r, w): (&f64, &f64)| {
            // A channel that is always 0, or that nobody weighs, may have any factor.
            if *r <= 0.0 || *w <= 0.0 {
                return 1.0;
            }
            (r / most).powf(a) * (heaviest / w).powf(b)
        };
        let raw: Vec<f64> = channels.greatest.iter().zip(&weight_range).map(one).collect();
        let greatest = raw.iter().copied().fold(0.0, f64::max);
        raw.iter().map(|s| (s / greatest).max(LEAST)).collect()
    };
    let noise = |factors: &[f64]| readers.iter().map(|reader| reader.noise(factors, channels)).sum::<f64>();
    let none = vec![1.0; pair.n_channels];
    let before = noise(&none);
    let others = pair.others.iter().map(|&op| Reader::new(module, op, pair.n_channels));
    let others: Vec<Reader> = others.collect::<Option<_>>()?;
    let suits = |reader: &Reader, factors: &[f64]| {
        reader.weight_noise(factors, channels) <= OTHERS * reader.weight_noise(&none, channels)
    };
    let (worth, exponents) =
        if is_dense { (DENSE_WORTH, &DENSE_ACTIVATION[..]) } else { (WORTH, &ACTIVATION[..]) };
    let mut best = (before * worth, None);
    for b in if pair.clamps.is_empty() { &WEIGHT[..] } else { &WEIGHT[..1] } {
        for a in exponents {
            let candidate = factors(*a, *b);
            let tried = noise(&candidate);
            if tried < best.0 && others.iter().all(|reader| suits(reader, &candidate)) {
                best = (tried, Some(candidate));
            }
        }
    }
    best.1
}

/// Ranges of the producer's weights in place of statistics; a normal deviate stays within three deviations.
fn from_weights(module: &Module, pair: &Pair) -> Option<Channels> {
    let weight = module.constant(module.op(pair.producer).operands()[1])?;
    let mut greatest = vec![0.0_f64; pair.n_channels];
    for (w, c) in weight.tensor.as_f32()?.iter().zip(output_channels(module, pair.producer)) {
        greatest[c] = greatest[c].max(f64::from(w.abs()));
    }
    let mean_square = greatest.iter().map(|r| r * r / 9.0).collect();
    let low = vec![0.0; pair.n_channels];
    Some(Channels { high: greatest.clone(), greatest, low, mean_square, n_pixels: 0 })
}

/// Statistics of few values: no channel reaches less than its weights suggest, measured by the channels'
/// median.
fn with_weights(module: &Module, pair: &Pair, seen: &Channels) -> Option<Channels> {
    let weights = from_weights(module, pair)?;
    let shares = seen.greatest.iter().zip(&weights.greatest).filter(|(_, w)| **w > 0.0);
    let mut shares: Vec<f64> = shares.map(|(seen, weight)| seen / weight).collect();
    shares.sort_by(f64::total_cmp);
    let median = *shares.get(shares.len() / 2)?;
    let mut all = seen.clone();
    for (channel, weight) in weights.greatest.iter().enumerate() {
        let expected = median * weight;
        if all.greatest[channel] == 0.0 {
            (all.greatest[channel], all.high[channel]) = (expected, expected);
            continue;
        }
        let grown = (expected / all.greatest[channel]).max(1.0);
        for end in [&mut all.greatest, &mut all.low, &mut all.high] {
            end[channel] *= grown;
        }
    }
    Some(all)
}

/// The weights of a consumer: squares summed by output and input channel, and the greatest of each.
struct Reader {
    n_channels: usize,
    is_depthwise: bool,
    taps: f64,
    /// `sum(k) w[o,c,k]^2`, row-major; for a depthwise convolution one row.
    squares: Vec<f64>,
    /// `max(k) |w[o,c,k]|`, likewise.
    greatest: Vec<f64>,
    /// The greatest of each input channel.
    range: Vec<f64>,
}

impl Reader {
    fn new(module: &Module, conv: strata_ir::OpId, n_channels: usize) -> Option<Self> {
        let data = module.op(conv);
        let weight = module.constant(data.operands()[1])?;
        let is_depthwise = matches!(data.op, Op::DepthwiseConv2d(_));
        let outputs = output_channels(module, conv);
        let inputs = input_channels(module, conv, n_channels);
        let n_rows = if is_depthwise { 1 } else { outputs.last()? + 1 };
        let mut reader = Self {
            n_channels,
            is_depthwise,
            taps: 0.0,
            squares: vec![0.0; n_rows * n_channels],
            greatest: vec![0.0; n_rows * n_channels],
            range: vec![0.0; n_channels],
        };
        for ((&w, o), c) in weight.tensor.as_f32()?.iter().zip(outputs).zip(inputs) {
            let at = if is_depthwise { c } else { o * n_channels + c };
            let w = f64::from(w);
            reader.squares[at] += w * w;
            reader.greatest[at] = reader.greatest[at].max(w.abs());
            reader.range[c] = reader.range[c].max(w.abs());
        }
        reader.taps = weight.tensor.n_elements() as f64 / (n_rows * n_channels) as f64;
        Some(reader)
    }

    /// Twelve times the noise in the consumer's result.
    fn noise(&self, factors: &[f64], channels: &Channels) -> f64 {
        let reach = |ends: &[f64]| ends.iter().zip(factors).map(|(end, s)| end.abs() / s).fold(0.0, f64::max);
        let activation_step = ((reach(&channels.low) + reach(&channels.high)) / 255.0).powi(2);
        let passed: f64 = (self.squares.chunks(self.n_channels))
            .map(|squares| squares.iter().zip(factors).map(|(w, s)| w * s * s).sum::<f64>())
            .sum();
        activation_step * passed + self.weight_noise(factors, channels)
    }

    /// The part of it that rounding the weights makes.
    fn weight_noise(&self, factors: &[f64], channels: &Channels) -> f64 {
        if self.is_depthwise {
            return 0.0;
        }
        let spread: f64 = channels.mean_square.iter().zip(factors).map(|(m, s)| m / (s * s)).sum();
        let steps = self.greatest.chunks(self.n_channels).map(|greatest| {
            (greatest.iter().zip(factors).map(|(w, s)| w * s).fold(0.0, f64::max) / 127.0).powi(2)
        });
        steps.sum::<f64>() * self.taps * spread
    }
}
