//! Heads that move or fold values: resizes, paddings, permutations, reductions.

use std::collections::BTreeMap;

use crate::inst::{Argmax, Axis, Pad, Permute, Reduce, ReduceKind, Resize, ResizeMode};
use crate::interp::simd::vectorised;
use crate::interp::sram::{Sram, widen};
use crate::interp::taps::sample;

/// A row of a resize.
pub(super) fn resize(sram: &Sram<'_>, h: &Resize, row: u32, chs: usize, acc: &mut [i32]) {
    let (y0, y1, ry) = sample(i64::from(row), h.scale_y_d, h.scale_y_n, h.offset_y, h.src.rows);
    let (mut rows, mut below) = (Vec::new(), Vec::new());
    let nearest = h.mode == ResizeMode::Nearest;
    let is_below = nearest && ry * 2 >= h.scale_y_n;
    sram.row(&h.src, if is_below { y1 } else { y0 } as u32, &mut rows);
    if !nearest {
        sram.row(&h.src, y1 as u32, &mut below);
        blend_rows(sram.simd, &mut rows, &below, h.scale_y_n - ry, ry);
    }
    for (x, pixel) in acc.chunks_exact_mut(chs).enumerate() {
        let (x0, x1, rx) = sample(x as i64, h.scale_x_d, h.scale_x_n, h.offset_x, h.src.cols);
        let [left, right] = [x0, x1].map(|x| &rows[x * chs..][..chs]);
        if nearest {
            pixel.copy_from_slice(if rx * 2 >= h.scale_x_n { right } else { left });
        } else {
            blend(sram.simd, pixel, left, right, h.scale_x_n - rx, rx);
        }
    }
}

vectorised! {
    fn blend_rows(simd; upper: &mut [i32], lower: &[i32], of_upper: i32, of_lower: i32) {
        for (upper, &lower) in upper.iter_mut().zip(lower) {
            *upper = upper.wrapping_mul(of_upper).wrapping_add(lower.wrapping_mul(of_lower));
        }
    }

    fn blend(simd; to: &mut [i32], left: &[i32], right: &[i32], of_left: i32, of_right: i32) {
        for ((to, &left), &right) in to.iter_mut().zip(left).zip(right) {
            *to = left.wrapping_mul(of_left).wrapping_add(right.wrapping_mul(of_right));
        }
    }
}

/// A row of the source within its padding.
pub(super) fn pad(sram: &Sram<'_>, h: &Pad, row: u32, chs: usize, acc: &mut [i32]) {
    acc.fill(h.value);
    let y = i64::from(row) - i64::from(h.top);
    if !(0..i64::from(h.src.rows)).contains(&y) {
        return;
    }
    let mut input = Vec::new();
    sram.row(&h.src, y as u32, &mut input);
    for (x, pixel) in input.chunks_exact(h.src.chs as usize).enumerate() {
        let at = (x + h.left as usize) * chs + h.front as usize;
        acc[at..at + pixel.len()].copy_from_slice(pixel);
    }
}

/// A row of the source in another order of its axes.
pub(super) fn permute(sram: &Sram<'_>, h: &Permute, row: u32, per_row: usize, acc: &mut [i32]) {
    let mut strides = [1usize; 6];
    for axis in (0..5).rev() {
        strides[axis] = strides[axis + 1] * h.dims[axis + 1] as usize;
    }
    let extents = h.perm.map(|p| (h.dims[usize::from(p)] as usize).max(1));
    let strides = h.perm.map(|p| strides[usize::from(p)]);
    let source_row = (h.src.cols * h.src.chs) as usize;
    // Neighbours that stay neighbours are read from the row's bytes, unless there are other channels between.
    let elem = sram.elem(&h.src);
    let size = elem.size_bytes() as usize;
    let has_runs = strides[5] == 1 && sram.stream_chs(&h.src) == h.src.chs as usize;
    let mut read: BTreeMap<usize, Vec<i32>> = BTreeMap::new();
    // The coordinates of the next value, and where in the source it stands.
    let (mut at, mut source, mut rest) = ([0usize; 6], 0, row as usize * per_row);
    for axis in (0..6).rev() {
        at[axis] = rest % extents[axis];
        source += at[axis] * strides[axis];
        rest /= extents[axis];
    }
    let run = extents[5];
    let mut done = 0;
    while done < acc.len() {
        let n = (run - at[5]).min(acc.len() - done);
        let mut values = &mut acc[done..done + n];
        while has_runs && !values.is_empty() {
            let (y, x) = (source / source_row, source % source_row);
            let (run, others) = values.split_at_mut((source_row - x).min(values.len()));
            let bytes = &sram.row_bytes(&h.src, y as u32)[x * size..(x + run.len()) * size];
            widen(sram.simd, elem, bytes, run);
            source += run.len();
            values = others;
        }
        for value in values {
            let y = source / source_row;
            let input = read.entry(y).or_insert_with(|| {
                let mut input = Vec::new();
                sram.row(&h.src, y as u32, &mut input);
                input
            });
            *value = input[source % source_row];
            source += strides[5];
        }
        done += n;
        source -= (at[5] + n) * strides[5];
        at[5] = 0;
        for axis in (0..5).rev() {
            at[axis] += 1;
            source += strides[axis];
            if at[axis] < extents[axis] {
                break;
            }
            source -= extents[axis] * strides[axis];
            at[axis] = 0;
        }
    }
}

/// A row folded along an axis.
pub(super) fn reduce(sram: &Sram<'_>, h: &Reduce, row: u32, acc: &mut [i32]) {
    acc.fill(match h.kind {
        ReduceKind::Sum => 0,
        ReduceKind::Product => 1,
        ReduceKind::Max => i32::MIN,
        ReduceKind::Min => i32::MAX,
    });
    let rows = if h.axis == Axis::H { 0..h.src.rows } else { row..row + 1 };
    let chs = (h.src.chs as usize).max(1);
    let mut input = Vec::new();
    for y in rows {
        sram.row(&h.src, y, &mut input);
        match h.axis {
            Axis::H => fold(sram.simd, h.kind, acc, &input),
            Axis::W => input.chunks_exact(chs).for_each(|pixel| fold(sram.simd, h.kind, acc, pixel)),
            Axis::C => {
                for (acc, pixel) in acc.iter_mut().zip(input.chunks_exact(chs)) {
                    *acc = pixel.iter().fold(*acc, |acc, &v| folded(h.kind, acc, v));
                }
            }
        }
    }
}

vectorised! {
    /// Folds each value into the one at its place.
    fn fold(simd; kind: ReduceKind, acc: &mut [i32], values: &[i32]) {
        for (acc, &v) in acc.iter_mut().zip(values) {
            *acc = folded(kind, *acc, v);
        }
    }
}

#[inline(always)]
fn folded(kind: ReduceKind, acc: i32, v: i32) -> i32 {
    match kind {
        ReduceKind::Sum => acc.wrapping_add(v),
        ReduceKind::Product => acc.wrapping_mul(v),
        ReduceKind::Max => acc.max(v),
        ReduceKind::Min => acc.min(v),
    }
}

/// A row of the channels that hold the greatest value, the first of equals.
pub(super) fn argmax(sram: &Sram<'_>, h: &Argmax, row: u32, acc: &mut [i32]) {
    let mut input = Vec::new();
    sram.row(&h.src, row, &mut input);
    for (best, pixel) in acc.iter_mut().zip(input.chunks_exact(h.src.chs as usize)) {
        let mut at = 0;
        for (c, &v) in pixel.iter().enumerate() {
            if v > pixel[at] {
                at = c;
            }
        }
        *best = at as i32;
    }
}
