//! Pooling: the mean or the maximum of a window.

use super::conv::{Window, WindowAxis};
use super::elementwise::Number;
use super::rescale::{apply_scale_32, reciprocal_scale};
use super::{Args, EvalError, parallel};
use crate::dialect::{AvgPool2d, MaxPool2d};
use crate::tensor::{Tensor, TensorData};

/// Maximum over the taps inside the input.
pub(super) fn max_pool2d(args: &Args<'_>, op: &MaxPool2d) -> Result<Tensor, EvalError> {
    let window = Window::new(args, op.kernel, op.stride, [1, 1], op.pad)?;
    /// The greatest of the taps of each channel.
    fn greatest<T: Number>(window: &Window, input: &[T], op: &MaxPool2d) -> Option<Vec<T>> {
        pool(window, input, |taps, out: &mut [T]| {
            for (at, pixel) in taps.enumerate() {
                for (best, &value) in out.iter_mut().zip(pixel) {
                    *best = if at == 0 { value } else { best.greater_of(value, op.nan_mode) };
                }
            }
        })
    }
    let data = match args.operand(0).data() {
        TensorData::I8(x) => greatest(&window, x, op).map(TensorData::I8),
        TensorData::I16(x) => greatest(&window, x, op).map(TensorData::I16),
        TensorData::F32(x) => greatest(&window, x, op).map(TensorData::F32),
        _ => return Err(args.elem_error()),
    };
    finish(args, &window, data)
}

/// Sum of `x - input_zp` over the taps inside the input, times [`reciprocal_scale`] of their number, plus
/// `output_zp`, saturated; floats divide.
pub(super) fn avg_pool2d(args: &Args<'_>, op: &AvgPool2d) -> Result<Tensor, EvalError> {
    let window = Window::new(args, op.kernel, op.stride, [1, 1], op.pad)?;
    let (input_zp, output_zp) = (args.zero_point(1)? as i32, args.zero_point(2)?);
    /// Means of integers, before saturation.
    fn means<T: Copy + Into<i32> + Sync>(
        window: &Window,
        input: &[T],
        input_zp: i32,
        output_zp: i64,
    ) -> Option<Vec<i64>> {
        pool(window, input, |taps, out: &mut [_]| {
            let mut sums = vec![0_i32; out.len()];
            let mut count = 0;
            for pixel in taps {
                count += 1;
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(value.into() - input_zp);
                }
            }
            if let Some(scale) = reciprocal_scale(count) {
                for (out, sum) in out.iter_mut().zip(sums) {
                    *out = apply_scale_32(sum, scale, false) + output_zp;
                }
            }
        })
    }
    let elem = args.operand(0).elem();
    let integer_means = match args.operand(0).data() {
        TensorData::I8(x) => means(&window, x, input_zp, output_zp),
        TensorData::I16(x) => means(&window, x, input_zp, output_zp),
        TensorData::F32(x) => {
            let data = pool(&window, x, |taps, out: &mut [f32]| {
                let mut count = 0.0;
                for pixel in taps {
                    count += 1.0;
                    for (sum, &value) in out.iter_mut().zip(pixel) {
                        *sum += value;
                    }
                }
                for out in out {
                    *out /= count;
                }
            });
            return finish(args, &window, data.map(TensorData::F32));
        }
        _ => return Err(args.elem_error()),
    };
    let (least, greatest) = elem.int_range().ok_or_else(|| args.elem_error())?;
    let data = integer_means
        .and_then(|means| TensorData::from_ints(elem, means.into_iter().map(|m| m.clamp(least, greatest))));
    finish(args, &window, data)
}

fn finish(args: &Args<'_>, window: &Window, data: Option<TensorData>) -> Result<Tensor, EvalError> {
    let data = data.ok_or_else(|| args.shape_error("a window lies wholly outside the input"))?;
    args.tensor(vec![window.n, window.y.out_extent, window.x.out_extent, window.c], data)
}

/// Calls `f(taps, out)` for each output pixel with the input pixels of its window, row by row, and its own
/// channels, zero at first. `None` if some window has no tap inside the input.
fn pool<A: Sync, T: Copy + Default + Send>(
    window: &Window,
    input: &[A],
    f: impl Fn(&mut dyn Iterator<Item = &[A]>, &mut [T]) + Sync,
) -> Option<Vec<T>> {
    let (y_axis, x_axis, c) = (&window.y, &window.x, window.c);
    if !covered(y_axis) || !covered(x_axis) {
        return None;
    }
    Some(parallel::image_rows(window.n, y_axis.out_extent, x_axis.out_extent * c, |image, y, out| {
        for (x, out) in out.chunks_mut(c).enumerate() {
            let rows = (0..y_axis.kernel).filter_map(|tap| y_axis.tap(y, tap));
            let mut taps = rows.flat_map(|in_y| {
                (0..x_axis.kernel).filter_map(move |tap| x_axis.tap(x, tap)).map(move |in_x| {
                    let at = ((image * y_axis.in_extent + in_y) * x_axis.in_extent + in_x) * c;
                    &input[at..at + c]
                })
            });
            f(&mut taps, out);
        }
    }))
}

/// Whether each window along an axis has a tap inside the input.
fn covered(axis: &WindowAxis) -> bool {
    (0..axis.out_extent).all(|at| (0..axis.kernel).any(|tap| axis.tap(at, tap).is_some()))
}
