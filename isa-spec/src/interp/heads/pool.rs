//! Pools: the greatest value or the mean of each window.

use crate::inst::{AvgPool2d, Elem, MaxPool2d, View, Window};
use crate::interp::arith::{apply_scale_32, reciprocal_scale};
use crate::interp::simd::vectorised;
use crate::interp::sram::{Sram, limits};
use crate::interp::taps::tap;

/// A row of the greatest values of each window.
pub(super) fn max_pool2d(
    sram: &Sram<'_>,
    h: &MaxPool2d,
    row: u32,
    chs: usize,
    rows: &mut Vec<Vec<i32>>,
    acc: &mut [i32],
) {
    let n = gather_rows(sram, &h.src, &h.window, row, rows);
    acc.fill(i32::MIN);
    let Some((columns, others)) = rows[..n].split_first_mut() else { return };
    for other in others {
        take_greatest(sram.simd, columns, other);
    }
    for (x, pixel) in acc.chunks_exact_mut(chs).enumerate() {
        for col in window_cols(&h.window, x, h.src.cols) {
            take_greatest(sram.simd, pixel, &columns[col * chs..][..chs]);
        }
    }
}

/// A row of the means of each window.
pub(super) fn avg_pool2d(
    sram: &Sram<'_>,
    h: &AvgPool2d,
    row: u32,
    chs: usize,
    rows: &mut Vec<Vec<i32>>,
    acc: &mut [i32],
) {
    let (least, most) = limits(sram.elem(&h.src));
    let n = gather_rows(sram, &h.src, &h.window, row, rows);
    let mut sums = vec![0i64; chs];
    let short = sram.elem(&h.src) == Elem::I8;
    if let Some((columns, others)) = rows[..n].split_first_mut()
        && short
    {
        // A column of bytes sums up within 32 bits.
        for other in others {
            add(sram.simd, columns, other);
        }
    }
    for (x, pixel) in acc.chunks_exact_mut(chs).enumerate() {
        let cols = window_cols(&h.window, x, h.src.cols);
        let taps = n * cols.len();
        sums.fill(0);
        for column in &rows[..if short { n.min(1) } else { n }] {
            for col in cols.clone() {
                add_wide(sram.simd, &mut sums, &column[col * chs..][..chs]);
            }
        }
        let (multiplier, shift) = reciprocal_scale(taps.max(1) as u32);
        let zero = taps as i64 * i64::from(h.input_zp);
        for (mean, &sum) in pixel.iter_mut().zip(&sums) {
            let value = apply_scale_32(sum - zero, multiplier, shift, false) + i64::from(h.output_zp);
            *mean = value.clamp(least, most) as i32;
        }
    }
}

/// Reads the rows of a window that lie inside the input; how many there are.
fn gather_rows(sram: &Sram<'_>, src: &View, window: &Window, row: u32, rows: &mut Vec<Vec<i32>>) -> usize {
    let mut n = 0;
    for ky in 0..window.kernel_h {
        if let Some(y) = tap(row, ky, window.stride_h, 1, window.pad_top, src.rows) {
            if rows.len() == n {
                rows.push(Vec::new());
            }
            sram.row(src, y, &mut rows[n]);
            n += 1;
        }
    }
    n
}

/// The columns of the window of output column `x` that lie inside the input.
fn window_cols(window: &Window, x: usize, cols: u32) -> std::ops::Range<usize> {
    let first = x as i64 * i64::from(window.stride_w) - i64::from(window.pad_left);
    let inside = |col: i64| col.clamp(0, i64::from(cols)) as usize;
    inside(first)..inside(first + i64::from(window.kernel_w))
}

vectorised! {
    fn take_greatest(simd; best: &mut [i32], values: &[i32]) {
        for (best, &v) in best.iter_mut().zip(values) {
            *best = (*best).max(v);
        }
    }

    fn add(simd; sums: &mut [i32], values: &[i32]) {
        for (sum, &v) in sums.iter_mut().zip(values) {
            *sum = sum.wrapping_add(v);
        }
    }

    fn add_wide(simd; sums: &mut [i64], values: &[i32]) {
        for (sum, &v) in sums.iter_mut().zip(values) {
            *sum += i64::from(v);
        }
    }
}
