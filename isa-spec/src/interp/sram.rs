//! The memories as a stage sees them: rows of views and tables as integers, and integers as the bytes of a
//! row.

use crate::inst::{Elem, View, WeightAddr};
use crate::interp::shadow::Shadow;
use crate::program::{Program, Stream, row_address};

/// Activation SRAM and weight SRAM, as a stage sees them.
pub(super) struct Sram<'a> {
    pub(super) program: &'a Program,
    pub(super) activation: &'a [u8],
    pub(super) weight: &'a [u8],
    /// What they hold, in a checked run.
    pub(super) shadow: Option<&'a Shadow>,
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

    /// A row of a view as integers, `view.cols * view.chs` of them.
    pub(super) fn row(&self, view: &View, row: u32, out: &mut Vec<i32>) {
        let stream = self.stream(view);
        let size = stream.elem.size_bytes() as usize;
        let (from, n) = (view.ch0 as usize * size, view.chs as usize * size);
        out.clear();
        for pixel in self.row_bytes(view, row).chunks_exact(stream.chs as usize * size) {
            widen(stream.elem, &pixel[from..from + n], out);
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

    pub(super) fn i8s(&self, at: WeightAddr, n: usize) -> Vec<i8> {
        self.weight[at.0 as usize..][..n].iter().map(|&b| b as i8).collect()
    }

    pub(super) fn i32s(&self, at: WeightAddr, n: usize) -> Vec<i32> {
        self.weight[at.0 as usize..][..n * 4]
            .as_chunks::<4>()
            .0
            .iter()
            .map(|c| i32::from_le_bytes(*c))
            .collect()
    }

    pub(super) fn i16s(&self, at: WeightAddr, n: usize) -> Vec<i16> {
        let bytes = &self.weight[at.0 as usize..][..n * 2];
        bytes.as_chunks::<2>().0.iter().map(|c| i16::from_le_bytes(*c)).collect()
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

pub(super) fn widen(elem: Elem, bytes: &[u8], out: &mut Vec<i32>) {
    match elem {
        Elem::I8 => out.extend(bytes.iter().map(|&b| i32::from(b as i8))),
        Elem::I16 => {
            out.extend(bytes.as_chunks::<2>().0.iter().map(|c| i32::from(i16::from_le_bytes(*c))));
        }
        Elem::I32 => out.extend(bytes.as_chunks::<4>().0.iter().map(|c| i32::from_le_bytes(*c))),
    }
}

/// Values as the bytes of a row of `elem`, wrapping what does not fit.
pub(super) fn narrow(elem: Elem, values: &[i32], out: &mut Vec<u8>) {
    match elem {
        Elem::I8 => out.extend(values.iter().map(|&v| v as u8)),
        Elem::I16 => out.extend(values.iter().flat_map(|&v| (v as i16).to_le_bytes())),
        Elem::I32 => out.extend(values.iter().flat_map(|&v| v.to_le_bytes())),
    }
}

/// A row of `src` broadcast to `cols * chs`.
pub(super) fn load(sram: &Sram<'_>, src: &View, row: u32, cols: usize, chs: usize, acc: &mut Vec<i32>) {
    let mut input = Vec::new();
    sram.row(src, if src.rows == 1 { 0 } else { row }, &mut input);
    if input.len() == cols * chs {
        *acc = input;
        return;
    }
    let inputs = src.chs as usize;
    for (x, pixel) in acc.chunks_exact_mut(chs).enumerate() {
        let from = if src.cols == 1 { 0 } else { x } * inputs;
        for (c, value) in pixel.iter_mut().enumerate() {
            *value = input[from + if inputs == 1 { 0 } else { c }];
        }
    }
}
