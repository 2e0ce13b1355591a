//! Interpolation on a grid given by rational scales.

use super::{Args, EvalError, parallel};
use crate::attr::ResizeMode;
use crate::tensor::{Tensor, TensorData};

/// One axis of a resize: output position `o` samples input position `(o * step + offset) / unit`.
struct Axis {
    in_extent: usize,
    out_extent: usize,
    unit: i64,
    step: i64,
    offset: i64,
}

/// Where an output position samples an axis: between indices `low` and `high`, `fraction` of `unit` from the
/// first.
struct Sample {
    low: usize,
    high: usize,
    fraction: i64,
}

impl Axis {
    /// `None` if scales are not positive, or the output extent is not a positive whole number.
    fn new(in_extent: usize, scale: [i64; 2], offset: i64, border: i64) -> Option<Self> {
        let [unit, step] = scale;
        if unit <= 0 || step <= 0 || in_extent == 0 {
            return None;
        }
        let span = (i64::try_from(in_extent).ok()? - 1).checked_mul(unit)?;
        let span = span.checked_sub(offset)?.checked_add(border)?;
        if span < 0 || span % step != 0 {
            return None;
        }
        let out_extent = usize::try_from(span / step).ok()?.checked_add(1)?;
        Some(Self { in_extent, out_extent, unit, step, offset })
    }

    /// The indices are clamped to the input: the border repeats.
    fn sample(&self, position: usize) -> Sample {
        let at = position as i64 * self.step + self.offset;
        let index = at.div_euclid(self.unit);
        let last = self.in_extent as i64 - 1;
        Sample {
            low: index.clamp(0, last) as usize,
            high: (index + 1).clamp(0, last) as usize,
            fraction: at.rem_euclid(self.unit),
        }
    }

    /// The sample nearest to an output position; halves go to the higher index.
    fn nearest(&self, position: usize) -> usize {
        let Sample { low, high, fraction } = self.sample(position);
        if 2 * fraction >= self.unit { high } else { low }
    }
}

pub(super) fn resize(args: &Args<'_>, mode: ResizeMode) -> Result<Tensor, EvalError> {
    let [n, in_h, in_w, c] = args.dims(0)?;
    let (scale, offset, border) = (args.ints(1)?, args.ints(2)?, args.ints(3)?);
    let parameters = (scale.as_slice(), offset.as_slice(), border.as_slice());
    let ([y_unit, y_step, x_unit, x_step], [y_offset, x_offset], [y_border, x_border]) = parameters else {
        return Err(args.shape_error("needs 4 scales, 2 offsets and 2 borders"));
    };
    let y_axis = Axis::new(in_h, [*y_unit, *y_step], *y_offset, *y_border);
    let x_axis = Axis::new(in_w, [*x_unit, *x_step], *x_offset, *x_border);
    let (Some(y_axis), Some(x_axis)) = (y_axis, x_axis) else {
        return Err(args.shape_error("the output extents are not whole and positive"));
    };
    let grid = Grid { n, c, y_axis, x_axis };
    let data = match (args.operand(0).data(), mode) {
        (TensorData::I8(x), ResizeMode::NearestNeighbor) => TensorData::I8(grid.nearest(x)),
        (TensorData::I16(x), ResizeMode::NearestNeighbor) => TensorData::I16(grid.nearest(x)),
        (TensorData::F32(x), ResizeMode::NearestNeighbor) => TensorData::F32(grid.nearest(x)),
        (TensorData::I8(x), ResizeMode::Bilinear) => TensorData::I32(
            grid.bilinear(x, |corners, y, x| weigh(corners.map(i64::from), y, x, *y_unit, *x_unit) as i32),
        ),
        (TensorData::I16(x), ResizeMode::Bilinear) => TensorData::I48(grid.bilinear(x, |corners, y, x| {
            (weigh(corners.map(i64::from), y, x, *y_unit, *x_unit) << 16) >> 16
        })),
        (TensorData::F32(x), ResizeMode::Bilinear) => TensorData::F32(grid.bilinear(x, |corners, y, x| {
            let dy = y as f32 / *y_unit as f32;
            let dx = x as f32 / *x_unit as f32;
            let [top_left, top_right, bottom_left, bottom_right] = corners;
            top_left * (1.0 - dy) * (1.0 - dx)
                + top_right * (1.0 - dy) * dx
                + bottom_left * dy * (1.0 - dx)
                + bottom_right * dy * dx
        })),
        _ => return Err(args.elem_error()),
    };
    args.tensor(vec![n, grid.y_axis.out_extent, grid.x_axis.out_extent, c], data)
}

/// The corners weighed by their distances in units: the value times `y_unit * x_unit`.
fn weigh(corners: [i64; 4], dy: i64, dx: i64, y_unit: i64, x_unit: i64) -> i64 {
    let [top_left, top_right, bottom_left, bottom_right] = corners;
    top_left * (y_unit - dy) * (x_unit - dx)
        + top_right * (y_unit - dy) * dx
        + bottom_left * dy * (x_unit - dx)
        + bottom_right * dy * dx
}

struct Grid {
    n: usize,
    c: usize,
    y_axis: Axis,
    x_axis: Axis,
}

impl Grid {
    /// The channels of an input pixel.
    fn pixel<'a, A>(&self, input: &'a [A], image: usize, y: usize, x: usize) -> &'a [A] {
        let at = ((image * self.y_axis.in_extent + y) * self.x_axis.in_extent + x) * self.c;
        &input[at..at + self.c]
    }

    /// Fills each output row: `row(image, y, out)`.
    fn rows<T: Copy + Default + Send>(&self, row: impl Fn(usize, usize, &mut [T]) + Sync) -> Vec<T> {
        parallel::image_rows(self.n, self.y_axis.out_extent, self.x_axis.out_extent * self.c, row)
    }

    fn nearest<A: Copy + Default + Send + Sync>(&self, input: &[A]) -> Vec<A> {
        self.rows(|image, y, out| {
            let y = self.y_axis.nearest(y);
            for (x, out) in out.chunks_mut(self.c).enumerate() {
                out.copy_from_slice(self.pixel(input, image, y, self.x_axis.nearest(x)));
            }
        })
    }

    /// `blend([top_left, top_right, bottom_left, bottom_right], y_fraction, x_fraction)` at each output
    /// element.
    fn bilinear<A: Copy + Sync, T: Copy + Default + Send>(
        &self,
        input: &[A],
        blend: impl Fn([A; 4], i64, i64) -> T + Sync,
    ) -> Vec<T> {
        self.rows(|image, y, out| {
            let y = self.y_axis.sample(y);
            for (x, out) in out.chunks_mut(self.c).enumerate() {
                let x = self.x_axis.sample(x);
                let corners = [(y.low, x.low), (y.low, x.high), (y.high, x.low), (y.high, x.high)]
                    .map(|(y, x)| self.pixel(input, image, y, x));
                for (channel, out) in out.iter_mut().enumerate() {
                    *out = blend(corners.map(|pixel| pixel[channel]), y.fraction, x.fraction);
                }
            }
        })
    }
}
