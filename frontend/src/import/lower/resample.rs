//! Where the samples of a `Resize` lie along one axis, and how much each input sample weighs in each output
//! sample.
//!
//! Resizing is linear and separable whatever the mode: each axis is a constant matrix of weights. Positions
//! are rational, `(o * step + offset) / unit` for output `o`, so that ties and whole positions are told
//! exactly; only scales that are no fraction of small terms, and regions of interest, are computed in `f64`.
//! The rules are those of ONNX's reference implementation.

use crate::import::error::{Lowered, invalid, unsupported};

/// How output coordinates map to input coordinates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coordinates {
    Asymmetric,
    HalfPixel,
    PytorchHalfPixel,
    HalfPixelSymmetric,
    AlignCorners,
    TfHalfPixelForNearest,
    TfCropAndResize,
}

impl Coordinates {
    pub(super) fn from_name(name: &str) -> Lowered<Self> {
        Ok(match name {
            "asymmetric" => Self::Asymmetric,
            "half_pixel" => Self::HalfPixel,
            "pytorch_half_pixel" => Self::PytorchHalfPixel,
            "half_pixel_symmetric" => Self::HalfPixelSymmetric,
            "align_corners" => Self::AlignCorners,
            "tf_half_pixel_for_nn" => Self::TfHalfPixelForNearest,
            "tf_crop_and_resize" => Self::TfCropAndResize,
            other => invalid!("coordinate_transformation_mode `{other}`"),
        })
    }
}

/// How a nearest neighbour is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    HalfDown,
    HalfUp,
    Floor,
    Ceil,
}

/// What is computed from the samples around a position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kernel {
    Nearest(Rounding),
    Linear,
    /// With the coefficient `a`.
    Cubic(f64),
}

/// One axis of a resize.
#[derive(Clone, Copy, Debug)]
pub(super) struct AxisScale {
    pub(super) n_in: i64,
    pub(super) n_out: i64,
    /// Output extent over input extent, before the output extent was rounded.
    pub(super) scale: f64,
    /// The same as a fraction, if it is one of small terms.
    pub(super) fraction: Option<(i64, i64)>,
    /// Start and end of the region of interest, of an extent of 1.
    pub(super) roi: [f64; 2],
}

/// Positions `(o * step + offset) / unit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Positions {
    pub(super) unit: i64,
    pub(super) step: i64,
    pub(super) offset: i64,
}

pub(super) fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl AxisScale {
    /// An axis that stays as it is.
    pub(super) fn kept(n: usize) -> Self {
        Self { n_in: n as i64, n_out: n as i64, scale: 1.0, fraction: Some((1, 1)), roi: [0.0, 1.0] }
    }

    /// The positions of the output samples in the input, if they are rational numbers of small terms.
    pub(super) fn positions(&self, coordinates: Coordinates) -> Option<Positions> {
        let (n, d) = self.fraction?;
        let at = |unit, step, offset| Some(Positions { unit, step, offset });
        match coordinates {
            Coordinates::Asymmetric => at(n, d, 0),
            Coordinates::PytorchHalfPixel if self.n_out == 1 => at(1, 1, 0),
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => at(2 * n, 2 * d, d - n),
            Coordinates::HalfPixelSymmetric => at(2 * n, 2 * d, self.n_in * n - self.n_out * d + d - n),
            // The extent of the output is not rounded here.
            Coordinates::AlignCorners if n * self.n_in == d => at(1, 0, 0),
            Coordinates::AlignCorners if n * self.n_in > d => {
                let (unit, step) = (n * self.n_in - d, (self.n_in - 1) * d);
                let common = gcd(unit, step).max(1);
                at(unit / common, step / common, 0)
            }
            Coordinates::TfHalfPixelForNearest => at(2 * n, 2 * d, d),
            Coordinates::AlignCorners | Coordinates::TfCropAndResize => None,
        }
    }

    /// The position of output `o`.
    fn position(&self, coordinates: Coordinates, o: i64) -> Lowered<f64> {
        if let Some(Positions { unit, step, offset }) = self.positions(coordinates) {
            return Ok((o * step + offset) as f64 / unit as f64);
        }
        let (x, last) = (o as f64, (self.n_in - 1) as f64);
        let extent = self.scale * self.n_in as f64;
        Ok(match coordinates {
            Coordinates::Asymmetric => x / self.scale,
            Coordinates::PytorchHalfPixel if self.n_out == 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (x + 0.5) / self.scale - 0.5,
            Coordinates::HalfPixelSymmetric => {
                let margin = self.n_in as f64 / 2.0 * (1.0 - self.n_out as f64 / extent);
                margin + (x + 0.5) / self.scale - 0.5
            }
            Coordinates::AlignCorners if extent > 1.0 => x * last / (extent - 1.0),
            Coordinates::AlignCorners => unsupported!("align_corners with an output below one sample"),
            Coordinates::TfHalfPixelForNearest => (x + 0.5) / self.scale,
            Coordinates::TfCropAndResize => {
                let [start, end] = self.roi;
                let along = if extent == 1.0 { 0.5 } else { x / (extent - 1.0) };
                along * (end - start) * last + start * last
            }
        })
    }

    /// The weights of the input samples in each output sample; `None` for a sample outside of the region that
    /// `tf_crop_and_resize` reads.
    pub(super) fn weights(
        &self,
        coordinates: Coordinates,
        kernel: Kernel,
        antialias: bool,
        exclude_outside: bool,
    ) -> Lowered<Vec<Option<Vec<f64>>>> {
        let row = |o: i64| -> Lowered<Option<Vec<f64>>> {
            let position = self.position(coordinates, o)?;
            let last = (self.n_in - 1) as f64;
            if coordinates == Coordinates::TfCropAndResize && !(0.0..=last).contains(&position) {
                return Ok(None);
            }
            // A whole position is its left neighbour's distance of 1, as the reference has it.
            let base = position.ceil() - 1.0;
            let ratio = position - base;
            let scale = if antialias { self.scale.min(1.0) } else { 1.0 };
            let mut taps = kernel.taps(ratio, scale);
            let first = base as i64 + 1 - taps.len() as i64 / 2;
            let inside = |tap: usize| (0..self.n_in).contains(&(first + tap as i64));
            if exclude_outside && !matches!(kernel, Kernel::Nearest(_)) {
                taps.iter_mut().enumerate().filter(|(tap, _)| !inside(*tap)).for_each(|(_, w)| *w = 0.0);
                let sum: f64 = taps.iter().sum();
                taps.iter_mut().for_each(|w| *w /= sum);
            }
            let mut row = vec![0.0; self.n_in as usize];
            for (tap, weight) in taps.iter().enumerate() {
                row[(first + tap as i64).clamp(0, self.n_in - 1) as usize] += weight;
            }
            Ok(Some(row))
        };
        (0..self.n_out).map(row).collect()
    }
}

impl Kernel {
    /// Weights of an even number of neighbours, half of them up to the position's left one; `ratio` in (0, 1]
    /// is the distance from that. A `scale` below 1 widens the kernel.
    fn taps(self, ratio: f64, scale: f64) -> Vec<f64> {
        let reach = match self {
            Self::Nearest(rounding) => {
                let right = ratio == 1.0
                    || match rounding {
                        Rounding::HalfDown => ratio > 0.5,
                        Rounding::HalfUp => ratio >= 0.5,
                        Rounding::Floor => false,
                        Rounding::Ceil => true,
                    };
                return if right { vec![0.0, 1.0] } else { vec![1.0, 0.0] };
            }
            Self::Linear => 1.0,
            Self::Cubic(_) => 2.0,
        };
        let first = (-reach / scale).floor() as i64 + 1;
        let weight = |i: i64| {
            let x = ((i as f64 - ratio) * scale).abs();
            match self {
                Self::Cubic(a) if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
                Self::Cubic(a) if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
                Self::Cubic(_) => 0.0,
                _ => (1.0 - x).max(0.0),
            }
        };
        let taps: Vec<f64> = (first..2 - first).map(weight).collect();
        let sum: f64 = taps.iter().sum();
        if scale < 1.0 { taps.iter().map(|w| w / sum).collect() } else { taps }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(n_in: i64, n: i64, d: i64) -> AxisScale {
        let scale = n as f64 / d as f64;
        let n_out = (n_in as f64 * scale).floor() as i64;
        AxisScale { n_in, n_out, scale, fraction: Some((n, d)), roi: [0.0, 1.0] }
    }

    #[test]
    fn every_sample_weighs_one_in_all() {
        for coordinates in ["asymmetric", "half_pixel", "half_pixel_symmetric", "align_corners"] {
            let coordinates = Coordinates::from_name(coordinates).expect("known");
            for kernel in [Kernel::Nearest(Rounding::HalfDown), Kernel::Linear, Kernel::Cubic(-0.75)] {
                for (n, d) in [(3, 5), (8, 5), (2, 1)] {
                    for (antialias, exclude) in [(false, false), (true, false), (false, true)] {
                        let rows = axis(7, n, d).weights(coordinates, kernel, antialias, exclude);
                        for row in rows.expect("positions").into_iter().flatten() {
                            assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{row:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn ties_follow_the_rounding() {
        let picks = |rounding| -> Vec<usize> {
            let rows = axis(4, 1, 2).weights(Coordinates::HalfPixel, Kernel::Nearest(rounding), false, false);
            let one = |row: Option<Vec<f64>>| row?.iter().position(|&w| w == 1.0);
            rows.expect("positions").into_iter().filter_map(one).collect()
        };
        // Positions 0.5 and 2.5.
        assert_eq!(picks(Rounding::HalfDown), [0, 2]);
        assert_eq!(picks(Rounding::HalfUp), [1, 3]);
        assert_eq!(picks(Rounding::Floor), [0, 2]);
        assert_eq!(picks(Rounding::Ceil), [1, 3]);
    }

    #[test]
    fn what_lies_outside_of_the_region_has_no_weights() {
        let axis = AxisScale { roi: [0.5, 1.5], ..axis(4, 1, 1) };
        let rows = axis.weights(Coordinates::TfCropAndResize, Kernel::Linear, false, false);
        let inside: Vec<bool> = rows.expect("positions").iter().map(Option::is_some).collect();
        assert_eq!(inside, [true, true, false, false]);
    }
}
