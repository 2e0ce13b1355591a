//! The memories of a running machine, and what rows do to them.

use std::ops::Range;

use super::heads::compute;
use super::prepared::Prepared;
use super::shadow::Shadow;
use super::simd::Simd;
use super::sram::{Sram, narrow};
use super::tile::{Scratch, Tile};
use crate::inst::{DmaIn, DmaOut, Head, View};
use crate::program::{Program, SegmentKind, Stage, StageCode, row_address};
use crate::target::Target;

/// What is told of the rows that stages put into activation SRAM, while a program runs.
pub trait RowObserver: Send + Sync {
    /// Some columns and channels of a row were written.
    fn wrote(&mut self, row: &MadeRow<'_>);
}

/// Some columns and channels of a row that a stage has put into activation SRAM.
#[derive(Clone, Debug)]
pub struct MadeRow<'a> {
    /// The stage.
    pub stage: &'a Stage,
    /// The row, counted from the first of the stage's output view.
    pub row: u32,
    /// Columns, counted likewise.
    pub cols: Range<usize>,
    /// Channels, counted likewise.
    pub chs: Range<usize>,
    /// Their values, `[cols][chs]`, little-endian.
    pub bytes: &'a [u8],
}

/// DRAM and activation SRAM. Weight SRAM is not here: what it holds for a stage does not depend on the
/// inputs.
pub(super) struct Machine<'a> {
    pub(super) program: &'a Program,
    pub(super) simd: Simd,
    /// A segment each, without the weights.
    pub(super) dram: Vec<Vec<u8>>,
    pub(super) activation: Vec<u8>,
    /// What they hold, in a checked run.
    pub(super) shadow: Option<Shadow>,
    /// What is told of the rows that are written to SRAM.
    pub(super) observer: Option<&'a mut dyn RowObserver>,
}

impl<'a> Machine<'a> {
    /// The machine before the first phase of a program whose segments hold `dram`; `activation` is memory for
    /// its SRAM. A valid program reads nothing that it did not write, so what stands there is not seen.
    pub(super) fn new(
        program: &'a Program,
        target: &Target,
        simd: Simd,
        dram: Vec<Vec<u8>>,
        mut activation: Vec<u8>,
    ) -> Self {
        activation.resize(target.memory.activation as usize, 0);
        Self { program, simd, dram, activation, shadow: None, observer: None }
    }

    /// The output segments, and the memory of its SRAM.
    pub(super) fn into_outputs(self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let outputs = self.program.segments.iter().zip(self.dram);
        let outputs = outputs.filter(|(s, _)| s.kind == SegmentKind::Output).map(|(_, bytes)| bytes);
        (outputs.collect(), self.activation)
    }

    /// Makes and writes a row of a stage, counted from the first of its view.
    pub(super) fn make_row(&mut self, stage: &Stage, prepared: &Prepared, row: u32) {
        let tile = Tile::of_rows(&stage.code, row..row + 1);
        let mut bytes = Vec::new();
        self.make_tile(&stage.code, prepared, &tile, &mut Scratch::default(), &mut bytes);
        self.write(stage, &tile, &bytes);
    }

    /// Bytes of the values of a tile.
    pub(super) fn tile_bytes(&self, code: &StageCode, tile: &Tile) -> usize {
        let (view, values) = match &code.head {
            Head::DmaOut(dma) => (&dma.src, tile.rows.len() * (dma.src.cols * dma.src.chs) as usize),
            _ => (&code.out, tile.len()),
        };
        values * self.program.streams[view.tensor as usize].elem.size_bytes() as usize
    }

    /// Adds the bytes of a tile to those of others.
    pub(super) fn make_tile(
        &self,
        code: &StageCode,
        prepared: &Prepared,
        tile: &Tile,
        scratch: &mut Scratch,
        made: &mut Vec<u8>,
    ) {
        let before = made.len();
        made.resize(before + self.tile_bytes(code, tile), 0);
        let bytes = &mut made[before..];
        match &code.head {
            Head::DmaIn(dma) => self.load_row(dma, &code.out, tile.rows.start, bytes),
            Head::DmaOut(dma) => {
                self.sram().row(&dma.src, tile.rows.start, &mut scratch.acc);
                narrow(self.simd, self.program.streams[dma.src.tensor as usize].elem, &scratch.acc, bytes);
            }
            _ => compute(&prepared.ready(code, &self.sram()), tile, scratch, bytes),
        }
    }

    fn sram(&self) -> Sram<'_> {
        Sram {
            program: self.program,
            activation: &self.activation,
            shadow: self.shadow.as_ref(),
            simd: self.simd,
        }
    }

    /// Takes a row from DRAM.
    fn load_row(&self, dma: &DmaIn, out: &View, row: u32, bytes: &mut [u8]) {
        let pixel = (out.chs * self.program.streams[out.tensor as usize].elem.size_bytes()) as usize;
        let segment = dma.segment as usize;
        let first = dma.offset + u64::from(row) * dma.row_pitch_bytes;
        for (x, to) in bytes.chunks_exact_mut(pixel.max(1)).enumerate() {
            let at = (first + x as u64 * u64::from(dma.pixel_pitch_bytes)) as usize;
            if let Some(shadow) = &self.shadow {
                shadow.load(segment, at, pixel);
            }
            to.copy_from_slice(&self.dram[segment][at..][..pixel]);
        }
    }

    /// Writes the values of a tile to where they go.
    pub(super) fn write(&mut self, stage: &Stage, tile: &Tile, bytes: &[u8]) {
        if let Head::DmaOut(dma) = &stage.code.head {
            return self.store_row(dma, tile.rows.start, bytes);
        }
        let row_bytes = bytes.len() / tile.rows.len().max(1);
        for (row, bytes) in tile.rows.clone().zip(bytes.chunks_exact(row_bytes.max(1))) {
            self.write_row(&stage.code.out, tile, row, bytes);
            if let Some(observer) = &mut self.observer {
                let (cols, chs) = (tile.cols.clone(), tile.chs.clone());
                observer.wrote(&MadeRow { stage, row, cols, chs, bytes });
            }
        }
    }

    /// Puts a row into DRAM.
    fn store_row(&mut self, dma: &DmaOut, row: u32, bytes: &[u8]) {
        let elem = self.program.streams[dma.src.tensor as usize].elem;
        let pixel = (dma.src.chs * elem.size_bytes()) as usize;
        let segment = dma.segment as usize;
        for (x, bytes) in bytes.chunks_exact(pixel.max(1)).enumerate() {
            let x = x as u64 * u64::from(dma.pixel_pitch_bytes);
            let at = (dma.offset + u64::from(row) * dma.row_pitch_bytes + x) as usize;
            self.dram[segment][at..][..pixel].copy_from_slice(bytes);
            if let Some(shadow) = &mut self.shadow {
                shadow.store(segment, at, pixel);
            }
        }
    }

    /// Writes a row of a tile to where the row of the output view stands, pixel by pixel where it has only
    /// some of the stream's channels.
    fn write_row(&mut self, out: &View, tile: &Tile, row: u32, bytes: &[u8]) {
        let stream = &self.program.streams[out.tensor as usize];
        let size = stream.elem.size_bytes() as usize;
        let pixel = stream.chs as usize * size;
        let part = tile.chs.len() * size;
        if let Some(shadow) = &mut self.shadow {
            shadow.write_row(self.program, out, row);
        }
        let row = row_address(&self.program.streams, out.tensor, out.row0 + row);
        let at = row + (out.col0 as usize + tile.cols.start) * pixel;
        if part == pixel {
            self.activation[at..][..bytes.len()].copy_from_slice(bytes);
            return;
        }
        let at = at + (out.ch0 as usize + tile.chs.start) * size;
        for (x, bytes) in bytes.chunks_exact(part.max(1)).enumerate() {
            self.activation[at + x * pixel..][..part].copy_from_slice(bytes);
        }
    }
}
