//! The memories of a running machine, and what rows do to them.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::heads::compute;
use super::memory::Memory;
use super::prepared::Prepared;
use super::shadow::Shadow;
use super::simd::Simd;
use super::sram::{Sram, narrow};
use super::tile::{Scratch, Tile};
use crate::inst::{DmaIn, Head, View};
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
    pub(super) dram: Vec<Memory>,
    pub(super) activation: Memory,
    /// What they hold, in a checked run.
    pub(super) shadow: Option<Shadow>,
    /// What is told of the rows that are written to SRAM.
    pub(super) observer: Option<Mutex<&'a mut dyn RowObserver>>,
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
        let dram = dram.into_iter().map(Memory::new).collect();
        let activation = Memory::new(activation);
        Self { program, simd, dram, activation, shadow: None, observer: None }
    }

    /// The output segments, and the memory of its SRAM.
    pub(super) fn into_outputs(self) -> (Vec<Vec<u8>>, Vec<u8>) {
        let outputs = self.program.segments.iter().zip(self.dram);
        let outputs =
            outputs.filter(|(s, _)| s.kind == SegmentKind::Output).map(|(_, bytes)| bytes.into_bytes());
        (outputs.collect(), self.activation.into_bytes())
    }

    /// Makes and writes a row of a stage, counted from the first of its view.
    pub(super) fn make_row(&mut self, stage: &Stage, prepared: &Prepared, row: u32) {
        let tile = Tile::of_rows(&stage.code, row..row + 1);
        let mut bytes = vec![0; self.tile_bytes(&stage.code, &tile)];
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

    /// Makes the bytes of a tile.
    pub(super) fn make_tile(
        &self,
        code: &StageCode,
        prepared: &Prepared,
        tile: &Tile,
        scratch: &mut Scratch,
        bytes: &mut [u8],
    ) {
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
        let pitch = u64::from(dma.pixel_pitch_bytes);
        for (x, to) in bytes.chunks_exact_mut(run_bytes(pixel, pitch, bytes.len())).enumerate() {
            let at = (first + x as u64 * pitch) as usize;
            if let Some(shadow) = &self.shadow {
                shadow.load(segment, at, to.len());
            }
            to.copy_from_slice(&self.dram[segment][at..][..to.len()]);
        }
    }

    /// Writes the values of a tile to where they go.
    pub(super) fn write(&mut self, stage: &Stage, tile: &Tile, bytes: &[u8]) {
        if let Some(shadow) = &mut self.shadow
            && !matches!(stage.code.head, Head::DmaOut(_))
        {
            for row in tile.rows.clone() {
                shadow.write_row(self.program, &stage.code.out, row);
            }
        }
        for_each_run(self.program, &stage.code, tile, bytes, |run| match run.segment {
            None => self.activation.bytes_mut()[run.at..][..run.bytes.len()].copy_from_slice(run.bytes),
            Some(segment) => {
                self.dram[segment].bytes_mut()[run.at..][..run.bytes.len()].copy_from_slice(run.bytes);
                if let Some(shadow) = &mut self.shadow {
                    shadow.store(segment, run.at, run.bytes.len());
                }
            }
        });
        self.tell(stage, tile, bytes);
    }

    /// As [`write`](Self::write), while others write other tiles.
    ///
    /// # Safety
    /// Nobody makes a tile meanwhile, and nobody writes a tile that shares bytes with this one.
    pub(super) unsafe fn write_beside(&self, stage: &Stage, tile: &Tile, bytes: &[u8]) {
        for_each_run(self.program, &stage.code, tile, bytes, |run| {
            let memory = run.segment.map_or(&self.activation, |segment| &self.dram[segment]);
            // SAFETY: the caller's; only who makes tiles has slices of memories.
            unsafe { memory.write_beside(run.at, run.bytes) };
        });
        self.tell(stage, tile, bytes);
    }

    /// Tells the observer, if there is one, of the rows of a tile in SRAM.
    fn tell(&self, stage: &Stage, tile: &Tile, bytes: &[u8]) {
        let Some(observer) = &self.observer else { return };
        if matches!(stage.code.head, Head::DmaOut(_)) {
            return;
        }
        let mut observer = observer.lock().unwrap_or_else(PoisonError::into_inner);
        let row_bytes = bytes.len() / tile.rows.len().max(1);
        for (row, bytes) in tile.rows.clone().zip(bytes.chunks_exact(row_bytes.max(1))) {
            let (cols, chs) = (tile.cols.clone(), tile.chs.clone());
            observer.wrote(&MadeRow { stage, row, cols, chs, bytes });
        }
    }
}

/// Bytes of a run of a row in DRAM: a pixel, or the whole row where pixels stand side by side.
fn run_bytes(pixel: usize, pitch: u64, row: usize) -> usize {
    if pitch == pixel as u64 { row.max(1) } else { pixel.max(1) }
}

/// Neighbouring bytes that a tile writes.
struct Run<'a> {
    /// In DRAM, or in activation SRAM.
    segment: Option<usize>,
    at: usize,
    bytes: &'a [u8],
}

/// Tells all that a tile writes.
fn for_each_run(
    program: &Program,
    code: &StageCode,
    tile: &Tile,
    bytes: &[u8],
    mut each: impl FnMut(Run<'_>),
) {
    if let Head::DmaOut(dma) = &code.head {
        let elem = program.streams[dma.src.tensor as usize].elem;
        let pixel = (dma.src.chs * elem.size_bytes()) as usize;
        let pitch = u64::from(dma.pixel_pitch_bytes);
        let first = dma.offset + u64::from(tile.rows.start) * dma.row_pitch_bytes;
        for (x, bytes) in bytes.chunks_exact(run_bytes(pixel, pitch, bytes.len())).enumerate() {
            let at = (first + x as u64 * pitch) as usize;
            each(Run { segment: Some(dma.segment as usize), at, bytes });
        }
        return;
    }
    let out = &code.out;
    let stream = &program.streams[out.tensor as usize];
    let size = stream.elem.size_bytes() as usize;
    let (pixel, part) = (stream.chs as usize * size, tile.chs.len() * size);
    let row_bytes = bytes.len() / tile.rows.len().max(1);
    for (row, bytes) in tile.rows.clone().zip(bytes.chunks_exact(row_bytes.max(1))) {
        let row = row_address(&program.streams, out.tensor, out.row0 + row);
        let at = row + (out.col0 as usize + tile.cols.start) * pixel;
        if part == pixel {
            each(Run { segment: None, at, bytes });
            continue;
        }
        let at = at + (out.ch0 as usize + tile.chs.start) * size;
        for (x, bytes) in bytes.chunks_exact(part.max(1)).enumerate() {
            each(Run { segment: None, at: at + x * pixel, bytes });
        }
    }
}
