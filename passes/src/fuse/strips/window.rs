//! A stage that computes a window of its output's columns: what it then reads, and how its padding and
//! offsets change.
//!
//! Columns are counted from the first of the view that they are columns of. Every element of the window has
//! the value that the whole stage gives it: windows slide over the same elements, and padding stays only
//! where the window meets an edge.

use std::ops::Range;

use strata_backend::model::{BufferId, BufferView, StageTemplate, TemplateHead};
use strata_isa_spec::Head;
use strata_isa_spec::inst::{Axis, Resize, ResizeMode, Window};

/// A stage's code for a window of its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windowed {
    /// The code, its views narrowed.
    pub code: StageTemplate,
    /// For each view that the stage reads, the columns of it that are left; `None` where all are read
    /// whatever the window.
    pub reads: Vec<Option<Range<u32>>>,
}

/// The code of a stage that computes columns `out` of its output; `None` if the machine has no such stage.
pub fn windowed(code: &StageTemplate, out: &Range<u32>) -> Option<Windowed> {
    if out.is_empty() || out.end > code.out.cols {
        return None;
    }
    let whole = code.out.cols;
    let mut code = code.clone();
    let mut reads = vec![head_window(&mut code.head, whole, out)?];
    for tail in &mut code.tail {
        let mut operands = tail.reads();
        for view in &mut operands {
            reads.push(same_columns(view, whole, out)?);
        }
        let mut operands = operands.into_iter();
        *tail = tail.map(&mut |view| operands.next().unwrap_or(*view), &mut |table| table);
    }
    narrow(&mut code.out, out);
    Some(Windowed { code, reads })
}

/// A part of a view's columns.
fn narrow(view: &mut BufferView, cols: &Range<u32>) {
    view.col0 += cols.start;
    view.cols = cols.end - cols.start;
}

/// Narrows an operand of which column `x` goes into column `x` of the output, or its only one into all.
#[expect(clippy::option_option, reason = "what is read, if anything can be")]
fn same_columns(view: &mut BufferView, whole: u32, out: &Range<u32>) -> Option<Option<Range<u32>>> {
    if view.cols == whole {
        narrow(view, out);
        return Some(Some(out.clone()));
    }
    (view.cols == 1).then_some(None)
}

/// Narrows what a head reads; `whole` is the extent of its whole output.
#[expect(clippy::option_option, reason = "what is read, if anything can be")]
fn head_window(head: &mut TemplateHead, whole: u32, out: &Range<u32>) -> Option<Option<Range<u32>>> {
    match head {
        Head::Load(h) => same_columns(&mut h.src, whole, out),
        Head::Reduce(h) if h.axis != Axis::W => same_columns(&mut h.src, whole, out),
        Head::Conv2d(h) | Head::Conv2dI16(h) => sliding(&mut h.window, &mut h.src, out),
        Head::DepthwiseConv2d(h) | Head::DepthwiseConv2dI16(h) => sliding(&mut h.window, &mut h.src, out),
        Head::MaxPool2d(h) => sliding(&mut h.window, &mut h.src, out),
        Head::AvgPool2d(h) => sliding(&mut h.window, &mut h.src, out),
        Head::TransposeConv2d(h) | Head::TransposeConv2dI16(h) => {
            // Input column x adds to output columns x * stride + pad + k, 0 <= k < kernel.
            let (stride, pad) = (i64::from(h.stride_w), i64::from(h.out_pad_left));
            let first = -(-(i64::from(out.start) - pad - i64::from(h.kernel_w) + 1)).div_euclid(stride);
            let end = (i64::from(out.end) - 1 - pad).div_euclid(stride) + 1;
            let read = clamped(first, end, h.src.cols)?;
            let pad = pad + i64::from(read.start) * stride - i64::from(out.start);
            h.out_pad_left = i32::try_from(pad).ok()?;
            narrow(&mut h.src, &read);
            Some(Some(read))
        }
        Head::Resize(h) => {
            let read = resized(h, out)?;
            let offset = i64::from(h.offset_x) + i64::from(out.start) * i64::from(h.scale_x_d)
                - i64::from(read.start) * i64::from(h.scale_x_n);
            h.offset_x = i32::try_from(offset).ok()?;
            narrow(&mut h.src, &read);
            Some(Some(read))
        }
        Head::Pad(h) => {
            let left = i64::from(h.left);
            let read = clamped(i64::from(out.start) - left, i64::from(out.end) - left, h.src.cols)?;
            h.left = (h.left + read.start).checked_sub(out.start)?;
            narrow(&mut h.src, &read);
            Some(Some(read))
        }
        Head::MatMul(_)
        | Head::MatMulI16(_)
        | Head::Permute(_)
        | Head::Reduce(_)
        | Head::Argmax(_)
        | Head::DmaIn(_)
        | Head::DmaOut(_) => None,
    }
}

/// The columns that exist of a range; `None` if there are none.
fn clamped(first: i64, end: i64, cols: u32) -> Option<Range<u32>> {
    let read = first.clamp(0, i64::from(cols)) as u32..end.clamp(0, i64::from(cols)) as u32;
    (!read.is_empty()).then_some(read)
}

/// Narrows the input of a sliding window.
#[expect(clippy::option_option, reason = "what is read, if anything can be")]
fn sliding(window: &mut Window, src: &mut BufferView, out: &Range<u32>) -> Option<Option<Range<u32>>> {
    let (stride, pad) = (i64::from(window.stride_w), i64::from(window.pad_left));
    let reach = i64::from(window.dilation_w) * (i64::from(window.kernel_w) - 1) + 1;
    let first = i64::from(out.start) * stride - pad;
    let end = (i64::from(out.end) - 1) * stride - pad + reach;
    let read = clamped(first, end, src.cols)?;
    window.pad_left = u32::try_from(i64::from(read.start) - first).ok()?;
    window.pad_right = u32::try_from(end - i64::from(read.end)).ok()?;
    narrow(src, &read);
    Some(Some(read))
}

/// The input columns that output columns of a resize sample.
fn resized(resize: &Resize<BufferId>, out: &Range<u32>) -> Option<Range<u32>> {
    let n = i64::from(resize.scale_x_n);
    let last = i64::from(resize.src.cols) - 1;
    let samples = |col: u32| {
        let position = i64::from(col) * i64::from(resize.scale_x_d) + i64::from(resize.offset_x);
        let floor = position.div_euclid(n);
        let (first, end) = match resize.mode {
            ResizeMode::Nearest => {
                let nearest = if position.rem_euclid(n) * 2 >= n { floor + 1 } else { floor };
                (nearest, nearest)
            }
            ResizeMode::Bilinear => (floor, floor + 1),
        };
        (first.clamp(0, last), end.clamp(0, last) + 1)
    };
    let ((first, _), (_, end)) = (samples(out.start), samples(out.end - 1));
    clamped(first, end, resize.src.cols)
}
