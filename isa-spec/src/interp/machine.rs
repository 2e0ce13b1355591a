//! The memories of a running machine, and what rows do to them.

use std::sync::{Mutex, PoisonError};

use super::heads::compute;
use super::prepared::Prepared;
use super::shadow::Shadow;
use super::simd::Simd;
use super::sram::{Sram, narrow};
use super::tile::{Scratch, Tile};
use super::waves::{Share, StageTile, Wave, shares, tiles};
use crate::inst::{DmaIn, DmaOut, Head, View};
use crate::program::{Phase, Program, SegmentKind, Stage, StageCode, row_address};
use crate::target::Target;

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
    room: Room,
}

/// Memory that a run works in and leaves to the next one. A valid program reads nothing that it did not
/// write, so what an earlier run left there is not seen.
#[derive(Debug)]
pub(super) struct Room {
    activation: Vec<u8>,
    /// What each thread computes in.
    scratches: Vec<Mutex<Scratch>>,
    /// The bytes of the tiles of a wave.
    made: Vec<u8>,
}

impl Default for Room {
    fn default() -> Self {
        let scratches = (0..=rayon::current_num_threads()).map(|_| Mutex::default()).collect();
        Self { activation: Vec::new(), scratches, made: Vec::new() }
    }
}

impl<'a> Machine<'a> {
    /// The machine before the first phase of a program whose segments hold `dram`.
    pub(super) fn new(
        program: &'a Program,
        target: &Target,
        simd: Simd,
        dram: Vec<Vec<u8>>,
        mut room: Room,
    ) -> Self {
        let mut activation = std::mem::take(&mut room.activation);
        activation.resize(target.memory.activation as usize, 0);
        Self { program, simd, dram, activation, shadow: None, room }
    }

    /// The output segments, and the room for another run.
    pub(super) fn into_outputs(self) -> (Vec<Vec<u8>>, Room) {
        let outputs = self.program.segments.iter().zip(self.dram);
        let outputs = outputs.filter(|(s, _)| s.kind == SegmentKind::Output).map(|(_, bytes)| bytes);
        (outputs.collect(), Room { activation: self.activation, ..self.room })
    }

    /// Computes the rows of a wave, side by side, and then writes them.
    pub(super) fn run_wave(&mut self, phase: &Phase, prepared: &[Prepared], wave: &Wave) {
        use rayon::prelude::*;
        let tiles = tiles(phase, wave, rayon::current_num_threads());
        let sizes = tiles.iter().map(|part| self.tile_bytes(&phase.stages[part.stage].code, &part.tile));
        let sizes: Vec<usize> = sizes.collect();
        let mut made = std::mem::take(&mut self.room.made);
        let all = sizes.iter().sum();
        if made.len() < all {
            made.resize(all, 0);
        }
        let mut work = Vec::with_capacity(tiles.len());
        let mut rest = &mut made[..all];
        for (part, size) in tiles.iter().zip(&sizes) {
            let (bytes, others) = rest.split_at_mut(*size);
            work.push((part, bytes));
            rest = others;
        }
        let mut shares = shares(work);
        if let [share] = &mut shares[..] {
            self.make_all(phase, prepared, share);
        } else {
            shares.par_iter_mut().with_max_len(1).for_each(|share| self.make_all(phase, prepared, share));
        }
        let mut rest = &made[..all];
        for (StageTile { stage, tile, .. }, size) in tiles.iter().zip(sizes) {
            let (bytes, others) = rest.split_at(size);
            self.write(&phase.stages[*stage], tile, bytes);
            rest = others;
        }
        self.room.made = made;
    }

    /// Computes the tiles of a share.
    fn make_all(&self, phase: &Phase, prepared: &[Prepared], share: &mut Share<'_>) {
        for (StageTile { stage, tile, .. }, bytes) in share {
            self.make_tile(&phase.stages[*stage].code, &prepared[*stage], tile, bytes);
        }
    }

    /// Makes and writes a row of a stage, counted from the first of its view.
    pub(super) fn make_row(&mut self, stage: &Stage, prepared: &Prepared, row: u32) {
        let tile = Tile::of_rows(&stage.code, row..row + 1);
        let mut bytes = vec![0; self.tile_bytes(&stage.code, &tile)];
        self.make_tile(&stage.code, prepared, &tile, &mut bytes);
        self.write(stage, &tile, &bytes);
    }

    /// Bytes of the values of a tile.
    fn tile_bytes(&self, code: &StageCode, tile: &Tile) -> usize {
        let (view, values) = match &code.head {
            Head::DmaOut(dma) => (&dma.src, tile.rows.len() * (dma.src.cols * dma.src.chs) as usize),
            _ => (&code.out, tile.len()),
        };
        values * self.program.streams[view.tensor as usize].elem.size_bytes() as usize
    }

    /// Computes the bytes of a tile.
    fn make_tile(&self, code: &StageCode, prepared: &Prepared, tile: &Tile, bytes: &mut [u8]) {
        let thread = rayon::current_thread_index().map_or(0, |index| index + 1);
        // A panic of another thread leaves nothing behind that the next tile reads.
        let scratch = self.room.scratches[thread % self.room.scratches.len()].lock();
        let scratch = &mut *scratch.unwrap_or_else(PoisonError::into_inner);
        match &code.head {
            Head::DmaIn(dma) => self.load_row(dma, &code.out, tile.rows.start, bytes),
            Head::DmaOut(dma) => {
                self.sram().row(&dma.src, tile.rows.start, &mut scratch.acc);
                narrow(self.simd, self.program.streams[dma.src.tensor as usize].elem, &scratch.acc, bytes);
            }
            _ => {
                compute(&prepared.ready(code, &self.sram()), tile, scratch, bytes);
            }
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
    fn write(&mut self, stage: &Stage, tile: &Tile, bytes: &[u8]) {
        if let Head::DmaOut(dma) = &stage.code.head {
            return self.store_row(dma, tile.rows.start, bytes);
        }
        let row_bytes = bytes.len() / tile.rows.len().max(1);
        for (row, bytes) in tile.rows.clone().zip(bytes.chunks_exact(row_bytes.max(1))) {
            self.write_row(&stage.code.out, tile, row, bytes);
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
