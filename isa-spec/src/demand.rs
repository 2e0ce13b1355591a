//! Row demand: which rows of its inputs a stage needs for a row of its output.
//!
//! The verifier's token simulation, the timed interpreter and the planner's ring sizes all rest on this one
//! relation. It is monotone for every head but `permute` and `transpose`-like reads, where the union of what
//! a row and all later rows need is taken from [`StageCode::demand`] by the caller.

use std::ops::Range;

use crate::inst::{Axis, Head, Permute, Resize, ResizeMode, Tail, View, Window};
use crate::program::StageCode;

/// The greatest extent, step, distance or padding of a window.
pub const MAX_WINDOW: u32 = 1 << 20;
/// The greatest numerator and denominator of a resize's scales.
const MAX_RESIZE_SCALE: i32 = 2048;

impl<Tensor, Addr> StageCode<Tensor, Addr> {
    /// Why no machine runs the stage, as far as its head tells without the tensors that it reads: a step of
    /// zero, say, or axes that are no permutation. Of a stage with such a head nobody can say which rows it
    /// needs, nor how long it takes.
    pub fn head_problem(&self) -> Option<String> {
        match &self.head {
            Head::Conv2d(h) | Head::Conv2dI16(h) => {
                let groups = (h.groups == 0).then(|| "0 groups".to_owned());
                h.window.problem().or(groups)
            }
            Head::DepthwiseConv2d(h) | Head::DepthwiseConv2dI16(h) => h.window.problem(),
            Head::MaxPool2d(h) => h.window.problem(),
            Head::AvgPool2d(h) => h.window.problem(),
            Head::TransposeConv2d(h) | Head::TransposeConv2dI16(h) => {
                let fields = [h.kernel_h, h.kernel_w, h.stride_h, h.stride_w];
                let sane = fields.iter().all(|field| (1..=MAX_WINDOW).contains(field));
                (!sane).then(|| format!("kernel and stride are {fields:?}, expected 1 to {MAX_WINDOW}"))
            }
            Head::MatMul(h) | Head::MatMulI16(h) => (h.batches == 0).then(|| "0 batches".to_owned()),
            Head::Resize(h) => {
                let scales = [h.scale_y_n, h.scale_y_d, h.scale_x_n, h.scale_x_d];
                let sane = scales.iter().all(|scale| (1..=MAX_RESIZE_SCALE).contains(scale));
                (!sane).then(|| format!("the scales are {scales:?}, expected 1 to {MAX_RESIZE_SCALE}"))
            }
            Head::Permute(h) if !h.rearranges(&self.out) => {
                let (dims, perm) = (h.dims, h.perm);
                Some(format!("dims {dims:?} and perm {perm:?} do not rearrange the input to the output"))
            }
            _ => None,
        }
    }
}

impl Window {
    fn problem(&self) -> Option<String> {
        let steps =
            [self.kernel_h, self.kernel_w, self.stride_h, self.stride_w, self.dilation_h, self.dilation_w];
        let pads = [self.pad_top, self.pad_bottom, self.pad_left, self.pad_right];
        let sane = steps.iter().all(|step| (1..=MAX_WINDOW).contains(step))
            && pads.iter().all(|&pad| pad <= MAX_WINDOW);
        (!sane).then(|| format!("the window has an extent of zero or beyond {MAX_WINDOW}: {self:?}"))
    }
}

impl<Tensor> Permute<Tensor> {
    /// Whether `dims` are extents of the source, and `perm` axes of them that fill `out`.
    pub fn rearranges<Other>(&self, out: &View<Other>) -> bool {
        let mut axes = self.perm;
        axes.sort_unstable();
        let count = self.dims.iter().try_fold(1u64, |n, &extent| n.checked_mul(u64::from(extent)));
        axes == [0, 1, 2, 3, 4, 5] && count == Some(self.src.n_elements()) && count == Some(out.n_elements())
    }
}

impl<Tensor: Copy + PartialEq, Addr: Copy> StageCode<Tensor, Addr> {
    /// The views that the stage reads: the head's, then those of its tails, in order.
    pub fn reads(&self) -> Vec<View<Tensor>> {
        let mut views = self.head.reads();
        views.extend(self.tail.iter().flat_map(Tail::reads));
        views
    }

    /// Output rows that the stage produces (rows moved, for DMA-out).
    pub fn n_rows(&self) -> u32 {
        if let Head::DmaOut(dma) = &self.head { dma.src.rows } else { self.out.rows }
    }

    /// Rows that one step of the stage produces: two for Winograd, else one. The last step may produce fewer.
    pub fn rows_per_step(&self) -> u32 {
        if matches!(&self.head, Head::Conv2d(conv) if conv.winograd) { 2 } else { 1 }
    }

    /// For each view of [`reads`](Self::reads), the rows of the view (counted from its first) that output row
    /// `row` (counted from the first of the output view) needs. May be empty, where a row is all padding. Of
    /// a stage with a [problem](Self::head_problem) it says nothing that holds.
    pub fn demand(&self, row: u32) -> Vec<Range<u32>> {
        let mut needs = self.head.demand(row, &self.out);
        needs.extend(self.tail.iter().flat_map(Tail::reads).map(|view| same_row(&view, row)));
        needs
    }

    /// Which of its [`reads`](Self::reads) are *in place*: an element of the output needs of them the one at
    /// its own position only, which a step reads before it writes. So they may stand where the output is
    /// written.
    pub fn in_place_reads(&self) -> Vec<usize> {
        let views = self.reads();
        let n_head = self.head.reads().len();
        let is_elementwise = |which: usize| which >= n_head || matches!(self.head, Head::Load(_));
        let covers = |view: &View<Tensor>| view.of(self.out.tensor) == self.out;
        (0..views.len()).filter(|&which| is_elementwise(which) && covers(&views[which])).collect()
    }
}

/// The row itself, or the only one of a broadcast operand.
fn same_row<Tensor>(view: &View<Tensor>, row: u32) -> Range<u32> {
    if view.rows == 1 { 0..1 } else { row..(row + 1).min(view.rows) }
}

fn window_rows(window: &Window, row: u32, rows: u32) -> Range<u32> {
    let first = i64::from(row) * i64::from(window.stride_h) - i64::from(window.pad_top);
    let last = first + i64::from(window.dilation_h) * (i64::from(window.kernel_h) - 1);
    clamp_rows(first, last + 1, rows)
}

fn clamp_rows(from: i64, to: i64, rows: u32) -> Range<u32> {
    let from = from.clamp(0, i64::from(rows)) as u32;
    let to = to.clamp(i64::from(from), i64::from(rows)) as u32;
    from..to
}

fn resize_rows<Tensor>(resize: &Resize<Tensor>, row: u32) -> Range<u32> {
    let rows = i64::from(resize.src.rows);
    let position = i64::from(row) * i64::from(resize.scale_y_d) + i64::from(resize.offset_y);
    let n = i64::from(resize.scale_y_n).max(1);
    let floor = position.div_euclid(n);
    let clamp = |y: i64| y.clamp(0, rows - 1);
    match resize.mode {
        ResizeMode::Nearest => {
            let rounded = if position.rem_euclid(n) * 2 >= n { floor + 1 } else { floor };
            clamp_rows(clamp(rounded), clamp(rounded) + 1, resize.src.rows)
        }
        ResizeMode::Bilinear => clamp_rows(clamp(floor), clamp(floor + 1) + 1, resize.src.rows),
    }
}

fn permute_rows<Tensor>(permute: &Permute<Tensor>, row: u32, out: &View<Tensor>) -> Range<u32> {
    if !permute.rearranges(out) {
        return 0..permute.src.rows;
    }
    // Strides of the source tensor, seen through the permutation.
    let mut strides = [1u64; 6];
    for axis in (0..5).rev() {
        strides[axis] = strides[axis + 1] * u64::from(permute.dims[axis + 1]);
    }
    let extents = permute.perm.map(|p| u64::from(permute.dims[usize::from(p)]));
    let strides = permute.perm.map(|p| strides[usize::from(p)]);
    let per_row = u64::from(out.cols) * u64::from(out.chs);
    let source_row = (u64::from(permute.src.cols) * u64::from(permute.src.chs)).max(1);
    let (first, last) = (u64::from(row) * per_row, (u64::from(row) + 1) * per_row);
    if first == last {
        return 0..0;
    }
    let (least, most) = digit_sums(&extents.map(|extent| extent.max(1)), &strides, first, last - 1);
    clamp_rows((least / source_row) as i64, (most / source_row) as i64 + 1, permute.src.rows)
}

/// The least and the greatest sum of digits times `strides` over the numbers from `first` to `last`, written
/// with a digit for each of `extents`.
fn digit_sums(extents: &[u64], strides: &[u64], first: u64, last: u64) -> (u64, u64) {
    if first == 0 && last + 1 == extents.iter().product::<u64>() {
        return (0, extents.iter().zip(strides).map(|(extent, stride)| (extent - 1) * stride).sum());
    }
    let ([_, extents @ ..], [stride, strides @ ..]) = (extents, strides) else { return (0, 0) };
    let below: u64 = extents.iter().product();
    let (low, high) = (first / below, last / below);
    let with = |digit: u64, from: u64, to: u64| {
        let (least, most) = digit_sums(extents, strides, from, to);
        (digit * stride + least, digit * stride + most)
    };
    if low == high {
        return with(low, first % below, last % below);
    }
    // The first and the last digit may be cut short; of those between, all that is below occurs.
    let (mut least, mut most) = with(low, first % below, below - 1);
    let end = with(high, 0, last % below);
    (least, most) = (least.min(end.0), most.max(end.1));
    if high - low > 1 {
        least = least.min(with(low + 1, 0, below - 1).0);
        most = most.max(with(high - 1, 0, below - 1).1);
    }
    (least, most)
}

impl<Tensor, Addr> Head<Tensor, Addr> {
    fn demand(&self, row: u32, out: &View<Tensor>) -> Vec<Range<u32>> {
        match self {
            Self::Load(h) => vec![same_row(&h.src, row)],
            Self::Conv2d(h) | Self::Conv2dI16(h) => vec![window_rows(&h.window, row, h.src.rows)],
            Self::DepthwiseConv2d(h) | Self::DepthwiseConv2dI16(h) => {
                vec![window_rows(&h.window, row, h.src.rows)]
            }
            Self::MaxPool2d(h) => vec![window_rows(&h.window, row, h.src.rows)],
            Self::AvgPool2d(h) => vec![window_rows(&h.window, row, h.src.rows)],
            Self::TransposeConv2d(h) | Self::TransposeConv2dI16(h) => {
                // Output row r takes input row y through tap k where y * stride + out_pad + k == r, 0 <= k <
                // KH.
                let top = i64::from(row) - i64::from(h.out_pad_top);
                let stride = i64::from(h.stride_h).max(1);
                let first = (top - i64::from(h.kernel_h) + 1).div_euclid(stride);
                let first = if first * stride < top - i64::from(h.kernel_h) + 1 { first + 1 } else { first };
                vec![clamp_rows(first, top.div_euclid(stride) + 1, h.src.rows)]
            }
            Self::MatMul(h) | Self::MatMulI16(h) => {
                let per_batch = (h.a.rows / h.batches.max(1)).max(1);
                let k = h.b.rows / h.batches.max(1);
                let batch = row / per_batch;
                vec![same_row(&h.a, row), batch * k..((batch + 1) * k).min(h.b.rows)]
            }
            Self::Resize(h) => vec![resize_rows(h, row)],
            Self::Pad(h) => {
                let y = i64::from(row) - i64::from(h.top);
                vec![clamp_rows(y, y + 1, h.src.rows)]
            }
            Self::Permute(h) => vec![permute_rows(h, row, out)],
            Self::Reduce(h) if h.axis == Axis::H => std::iter::once(0..h.src.rows).collect(),
            Self::Reduce(h) => vec![same_row(&h.src, row)],
            Self::Argmax(h) => vec![same_row(&h.src, row)],
            Self::DmaIn(_) => vec![],
            Self::DmaOut(_) => std::iter::once(row..row + 1).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::digit_sums;
    use crate::inst::{Head, Permute, Resize, ResizeMode, TransposeConv2d, View, WeightAddr};
    use crate::program::StageCode;

    /// What a stage with a head needs of its first row, and whether a program may have it.
    fn asked(head: impl Into<Head>) -> (Vec<std::ops::Range<u32>>, Option<String>) {
        let out = View { rows: 4, cols: 1, chs: 6, ..View::default() };
        let code = StageCode { head: head.into(), tail: Vec::new(), out };
        (code.demand(0), code.head_problem())
    }

    #[test]
    fn heads_that_no_machine_runs_are_told_and_never_make_it_panic() {
        let src = View { rows: 2, cols: 3, chs: 4, ..View::default() };
        let good = Permute { src, dims: [1, 1, 1, 2, 3, 4], perm: [0, 1, 2, 5, 4, 3] };
        assert_eq!(asked(good).1, None);
        for (dims, perm) in [
            (good.dims, [0, 1, 2, 5, 4, 6]),
            (good.dims, [0, 0, 0, 0, 0, 0]),
            ([0, 1, 1, 2, 3, 4], good.perm),
            ([u32::MAX; 6], good.perm),
            ([1, 1, 1, 2, 3, 5], good.perm),
        ] {
            let (rows, problem) = asked(Permute { dims, perm, ..good });
            assert_eq!(rows.as_slice(), &[0..2; 1]);
            let problem = problem.expect("it is refused");
            assert!(problem.contains(&format!("{dims:?}")) && problem.contains("rearrange"), "{problem}");
        }
        let conv = TransposeConv2d {
            src,
            kernel_h: 1,
            kernel_w: 1,
            stride_h: 0,
            stride_w: 1,
            out_pad_top: 0,
            out_pad_left: 0,
            input_zp: 0,
            weight_zp: 0,
            weights: WeightAddr(0),
            bias: WeightAddr(0),
        };
        assert!(asked(conv).1.is_some_and(|problem| problem.contains("[1, 1, 0, 1]")));
        let resize = Resize {
            src,
            mode: ResizeMode::Nearest,
            scale_y_n: 0,
            scale_y_d: 1,
            scale_x_n: 1,
            scale_x_d: 1,
            offset_y: 0,
            offset_x: 0,
        };
        assert!(asked(resize).1.is_some_and(|problem| problem.contains("[0, 1, 1, 1]")));
    }

    #[test]
    fn sums_of_digits_are_those_of_a_walk() {
        let (extents, strides) = ([3, 2, 4, 2], [5, 7, 1, 20]);
        let sum = |mut number: u64| {
            (0..4).rev().fold(0, |sum, axis| {
                let digit = number % extents[axis];
                number /= extents[axis];
                sum + digit * strides[axis]
            })
        };
        for first in 0..48 {
            for last in first..48 {
                let walked = (first..=last).map(sum);
                let want = (walked.clone().min(), walked.max());
                let (least, most) = digit_sums(&extents, &strides, first, last);
                assert_eq!((Some(least), Some(most)), want, "{first} to {last}");
            }
        }
    }
}
