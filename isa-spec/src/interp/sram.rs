//! The memories as a stage sees them: rows of views and tables as integers, and integers as the bytes of a
//! row.

use std::ops::Range;

use crate::inst::{Elem, MatMul, View, WeightAddr};
use crate::interp::shadow::Shadow;
use crate::interp::simd::{Simd, vectorised};
use crate::program::{Program, Stream, row_address};

/// Activation SRAM, as a stage sees it.
#[derive(Clone, Copy)]
pub(super) struct Sram<'a> {
    pub(super) program: &'a Program,
    pub(super) activation: &'a [u8],
    /// What it holds, in a checked run.
    pub(super) shadow: Option<&'a Shadow>,
    /// What rows are computed with.
    pub(super) simd: Simd,
}

impl Sram<'_> {
    /// The stream that a view shows.
    pub(super) fn stream(&self, view: &View) -> &Stream {
        &self.program.streams[view.tensor as usize]
    }

    /// Bytes of columns `view.cols` of row `row` (counted from the view's first) over all channels of the
    /// stream, of which only the view's may be looked at.
    pub(super) fn row_bytes(&self, view: &View, row: u32) -> &[u8] {
        if let Some(shadow) = self.shadow {
            shadow.read_row(self.program, view, row);
        }
        let stream = self.stream(view);
        let pixel = (stream.chs * stream.elem.size_bytes()) as usize;
        let at = row_address(&self.program.streams, view.tensor, view.row0 + row);
        &self.activation[at + view.col0 as usize * pixel..][..view.cols as usize * pixel]
    }

    /// Copies the bytes of a row of a view, those of its channels only.
    pub(super) fn copy_row(&self, view: &View, row: u32, out: &mut [u8]) {
        let stream = self.stream(view);
        let size = stream.elem.size_bytes() as usize;
        let (all, part) = (stream.chs as usize * size, view.chs as usize * size);
        let bytes = self.row_bytes(view, row);
        if all == part {
            return out.copy_from_slice(bytes);
        }
        let from = view.ch0 as usize * size;
        for (out, pixel) in out.chunks_exact_mut(part.max(1)).zip(bytes.chunks_exact(all)) {
            out.copy_from_slice(&pixel[from..from + part]);
        }
    }

    /// A row of a view as integers, `view.cols * view.chs` of them.
    pub(super) fn row(&self, view: &View, row: u32, out: &mut Vec<i32>) {
        self.part(view, row, 0..view.cols as usize, 0..view.chs as usize, out);
    }

    /// Some columns and channels of a row of a view as integers, pixel by pixel.
    pub(super) fn part(
        &self,
        view: &View,
        row: u32,
        cols: Range<usize>,
        chs: Range<usize>,
        out: &mut Vec<i32>,
    ) {
        let stream = self.stream(view);
        let (all, size) = (stream.chs as usize, stream.elem.size_bytes() as usize);
        let bytes = &self.row_bytes(view, row)[cols.start * all * size..cols.end * all * size];
        out.resize(cols.len() * chs.len(), 0);
        if chs.len() == all {
            return widen(self.simd, stream.elem, bytes, out);
        }
        let from = (view.ch0 as usize + chs.start) * size;
        let pixels = bytes.chunks_exact((all * size).max(1)).zip(out.chunks_exact_mut(chs.len().max(1)));
        for (pixel, out) in pixels {
            widen(self.simd, stream.elem, &pixel[from..from + chs.len() * size], out);
        }
    }

    /// Some columns and channels of a row of `src`, broadcast to a row of them: a view of one row, column or
    /// channel gives it for all.
    pub(super) fn broadcast(
        &self,
        src: &View,
        row: u32,
        cols: Range<usize>,
        chs: Range<usize>,
        out: &mut Vec<i32>,
    ) {
        let row = if src.rows == 1 { 0 } else { row };
        let given = |extent: u32, range: &Range<usize>| if extent == 1 { 0..1 } else { range.clone() };
        let (from_cols, from_chs) = (given(src.cols, &cols), given(src.chs, &chs));
        if from_cols.len() == cols.len() && from_chs.len() == chs.len() {
            return self.part(src, row, from_cols, from_chs, out);
        }
        let (inputs, whole_cols) = (from_chs.len(), from_cols.len() == cols.len());
        let mut input = Vec::new();
        self.part(src, row, from_cols, from_chs, &mut input);
        out.clear();
        for x in 0..cols.len() {
            let pixel = &input[if whole_cols { x * inputs } else { 0 }..][..inputs];
            if inputs == chs.len() {
                out.extend_from_slice(pixel);
            } else {
                out.resize(out.len() + chs.len(), pixel[0]);
            }
        }
    }

    /// What row `row` of a matrix product sums: `each` is given every value of its row of `a`, with the row
    /// of
    /// `b` that it multiplies.
    pub(super) fn factors(&self, h: &MatMul, row: u32, mut each: impl FnMut(i32, &[i32])) {
        let batches = h.batches.max(1);
        let batch = row / (h.a.rows / batches).max(1);
        let k = h.b.rows / batches;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        self.row(&h.a, row, &mut a);
        for (index, &a) in a.iter().enumerate().take(k as usize) {
            self.row(&h.b, batch * k + index as u32, &mut b);
            each(a, &b);
        }
    }

    /// Element type of what a view shows.
    pub(super) fn elem(&self, view: &View) -> Elem {
        self.stream(view).elem
    }

    /// Channels of a pixel of the stream that a view shows.
    pub(super) fn stream_chs(&self, view: &View) -> usize {
        self.stream(view).chs as usize
    }
}

/// Weight SRAM, as a stage sees it.
#[derive(Clone, Copy)]
pub(super) struct WeightSram<'a>(pub(super) &'a [u8]);

impl WeightSram<'_> {
    pub(super) fn bytes(&self, at: WeightAddr, n: usize) -> &[u8] {
        &self.0[at.0 as usize..][..n]
    }

    pub(super) fn i8s(&self, at: WeightAddr, n: usize) -> Vec<i8> {
        self.bytes(at, n).iter().map(|&b| b as i8).collect()
    }

    pub(super) fn i16s(&self, at: WeightAddr, n: usize) -> Vec<i16> {
        self.bytes(at, n * 2).as_chunks::<2>().0.iter().map(|c| i16::from_le_bytes(*c)).collect()
    }

    pub(super) fn i32s(&self, at: WeightAddr, n: usize) -> Vec<i32> {
        self.bytes(at, n * 4).as_chunks::<4>().0.iter().map(|c| i32::from_le_bytes(*c)).collect()
    }

    pub(super) fn i64s(&self, at: WeightAddr, n: usize) -> Vec<i64> {
        self.bytes(at, n * 8).as_chunks::<8>().0.iter().map(|c| i64::from_le_bytes(*c)).collect()
    }
}

/// The least and the greatest value of an element type.
pub(super) fn limits(elem: Elem) -> (i64, i64) {
    match elem {
        Elem::I8 => (-128, 127),
        Elem::I16 => (i16::MIN.into(), i16::MAX.into()),
        Elem::I32 => (i32::MIN.into(), i32::MAX.into()),
    }
}

vectorised! {
    /// Bytes of a row as integers.
    pub(super) fn widen(simd; elem: Elem, bytes: &[u8], out: &mut [i32]) {
        match elem {
            Elem::I8 => {
                for (to, &byte) in out.iter_mut().zip(bytes) {
                    *to = i32::from(byte as i8);
                }
            }
            Elem::I16 => {
                for (to, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *to = i32::from(i16::from_le_bytes(*bytes));
                }
            }
            Elem::I32 => {
                for (to, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *to = i32::from_le_bytes(*bytes);
                }
            }
        }
    }

    /// Values as the bytes of a row of `elem`, wrapping what does not fit.
    pub(super) fn narrow(simd; elem: Elem, values: &[i32], out: &mut [u8]) {
        match elem {
            Elem::I8 => {
                for (to, &v) in out.iter_mut().zip(values) {
                    *to = v as u8;
                }
            }
            Elem::I16 => {
                for (to, &v) in out.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                    *to = (v as i16).to_le_bytes();
                }
            }
            Elem::I32 => {
                for (to, &v) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                    *to = v.to_le_bytes();
                }
            }
        }
    }
}
