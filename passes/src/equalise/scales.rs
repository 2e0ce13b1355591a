//! The factors of a pair's channels.
//!
//! # The noise that they trade
//! Let channel `c` of the activation reach `r[c]` in magnitude, with mean square `m[c]`, and be divided by `s[c]`. With 255
//! steps a tensor the activation's step is `max(c) r[c] / s[c] / 255`; a weight of output `o` has the step
//! `max(c) |w[o,c]| s[c] / 127`. A step `d` is noise of variance `d^2 / 12`, so that output `o` of a consumer has
//!
//! `12 noise = step_a^2 sum(c,k) (w[o,c,k] s[c])^2 + step_w[o]^2 taps sum(c) m[c] / s[c]^2`
//!
//! The factors are `(r[c] / max r)^a`, times `(|w| / |w[c]|)^b` where no clamp limits them, with the exponents of a small
//! grid whose sum of noise over outputs is least. For a depthwise consumer the second term does not depend on `s`.

use strata_ir::{Module, Op};

use super::Channels;
use super::pairs::{Pair, input_channels, output_channels};

/// Exponents that are tried of the activation's ranges, and of the weights'.
const ACTIVATION: [f64; 3] = [0.0, 0.25, 0.5];
const WEIGHT: [f64; 3] = [0.0, 0.25, 0.5];
/// Values of a channel of which the range is too uncertain to scale by.
const FEW: usize = 1024;
/// No channel is scaled by more.
const LEAST: f64 = 1.0 / 256.0;
/// Less noise than this part of what there was is what it takes to scale at all.
const WORTH: f64 = 0.98;

/// The factors that quantise best, if they are any better than none.
pub(super) fn choose(module: &Module, pair: &Pair, channels: Option<&Channels>) -> Option<Vec<f64>> {
    let own;
    let channels = match channels {
        // A range that few values show is too narrow for those to come.
        Some(channels) if channels.n_pixels < FEW => return None,
        Some(channels) => channels,
        // Without statistics the producer's weights stand for the ranges, and no clamp's bound is known not to matter.
        None if !pair.clamps.is_empty() => return None,
        None => {
            own = from_weights(module, pair)?;
            &own
        }
    };
    // Two dense convolutions have a scale for every output channel, which evens out what the other's weights do; measured,
    // the narrower choice of activation ranges then costs more than it brings.
    let is_depthwise = |op: strata_ir::OpId| matches!(module.op(op).op, Op::DepthwiseConv2d(_));
    if !is_depthwise(pair.producer) && !pair.consumers.iter().any(|&op| is_depthwise(op)) {
        return None;
    }
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
    let mut best = (before * WORTH, None);
    for b in if pair.clamps.is_empty() { &WEIGHT[..] } else { &WEIGHT[..1] } {
        for a in ACTIVATION {
            let candidate = factors(a, *b);
            let tried = noise(&candidate);
            if tried < best.0 {
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
    Some(Channels { greatest, mean_square, n_pixels: 0 })
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
        let square = |x: f64| x * x;
        let reach = channels.greatest.iter().zip(factors).map(|(r, s)| r / s).fold(0.0, f64::max);
        let activation_step = square(reach / 255.0);
        let spread: f64 = channels.mean_square.iter().zip(factors).map(|(m, s)| m / square(*s)).sum();
        let rows = self.squares.chunks(self.n_channels).zip(self.greatest.chunks(self.n_channels));
        rows.map(|(squares, greatest)| {
            let passed: f64 = squares.iter().zip(factors).map(|(w, s)| w * square(*s)).sum();
            let step = greatest.iter().zip(factors).map(|(w, s)| w * s).fold(0.0, f64::max) / 127.0;
            let of_weights = if self.is_depthwise { 0.0 } else { square(step) * self.taps * spread };
            activation_step * passed + of_weights
        })
        .sum()
    }
}
