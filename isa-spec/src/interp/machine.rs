//! The memories of a running machine, and what a step does to them.

use super::order::{Priorities, Random};
use super::prepared::Prepared;
use super::rows;
use super::shadow::{Fault, Shadow};
use super::sram::{Sram, narrow};
use crate::dataflow::Flow;
use crate::inst::{DmaIn, DmaOut, Head, View};
use crate::program::{Phase, Program, SegmentKind, Stage, WeightLoad, row_address};
use crate::target::Target;

/// A machine between two steps.
pub(super) struct Machine<'a> {
    program: &'a Program,
    dram: Vec<Vec<u8>>,
    activation: Vec<u8>,
    weight: Vec<u8>,
    /// The weight segment.
    source: Option<usize>,
    /// All weight loads of the program, and how many are complete.
    loads: Vec<WeightLoad>,
    loaded: usize,
    /// What the memories hold, in a checked run.
    shadow: Option<Shadow>,
    /// A row, as integers and as bytes.
    row_acc: Vec<i32>,
    row_bytes: Vec<u8>,
}

impl<'a> Machine<'a> {
    /// The machine before the first phase of a program whose segments hold `dram`.
    pub(super) fn new(program: &'a Program, target: &Target, dram: Vec<Vec<u8>>) -> Self {
        Self {
            program,
            dram,
            activation: vec![0; target.memory.activation as usize],
            weight: vec![0; target.memory.weight as usize],
            source: program.segments.iter().position(|s| s.kind == SegmentKind::Weights),
            loads: program.phases.iter().flat_map(|p| p.loads.iter().copied()).collect(),
            loaded: 0,
            shadow: None,
            row_acc: Vec::new(),
            row_bytes: Vec::new(),
        }
    }

    /// The output segments.
    pub(super) fn into_outputs(self) -> Vec<Vec<u8>> {
        let outputs = self.program.segments.iter().zip(self.dram);
        outputs.filter(|(s, _)| s.kind == SegmentKind::Output).map(|(_, bytes)| bytes).collect()
    }

    /// Runs a phase, its ready stages in order. The verifier shows that no load overwrites what a stage still
    /// reads before the stages of its own phase that do not wait for it are done; so those that no stage of a
    /// phase waits for are made later.
    pub(super) fn run_phase(&mut self, index: usize) {
        let phase = &self.program.phases[index];
        let wanted = phase.stages.iter().map(|s| s.wait_loads as usize).max().unwrap_or(0);
        while self.loaded < wanted {
            self.load_weights();
        }
        let prepared: Vec<_> = phase.stages.iter().map(|stage| self.prepare(stage)).collect();
        let mut flow = Flow::new(self.program, phase);
        while !flow.finished() {
            for (number, stage) in phase.stages.iter().enumerate() {
                while flow.blocked(number).is_none() {
                    for row in flow.next_rows(number) {
                        self.make_row(stage, &prepared[number], row);
                    }
                    flow.advance(number);
                }
            }
        }
    }

    /// Completes the next weight load.
    fn load_weights(&mut self) {
        let load = self.loads[self.loaded];
        if let Some(segment) = self.source {
            let bytes = load.bytes as usize;
            self.weight[load.dst.0 as usize..][..bytes]
                .copy_from_slice(&self.dram[segment][load.src as usize..][..bytes]);
        }
        if let Some(shadow) = &mut self.shadow {
            shadow.load_weights(self.loaded as u32, &load);
        }
        self.loaded += 1;
    }

    fn sram(&self) -> Sram<'_> {
        Sram {
            program: self.program,
            activation: &self.activation,
            weight: &self.weight,
            shadow: self.shadow.as_ref(),
        }
    }

    fn prepare(&self, stage: &Stage) -> Prepared {
        Prepared::new(&stage.code, &self.sram())
    }

    /// Makes a row of a stage, counted from the first of its view.
    fn make_row(&mut self, stage: &Stage, prepared: &Prepared, row: u32) {
        let code = &stage.code;
        match &code.head {
            Head::DmaIn(dma) => self.load_row(dma, &code.out, row),
            Head::DmaOut(dma) => return self.store_row(dma, row),
            _ => {
                let elem = self.program.streams[code.out.tensor as usize].elem;
                let mut acc = std::mem::take(&mut self.row_acc);
                rows::compute(code, prepared, &self.sram(), row, &mut acc);
                self.row_bytes.clear();
                narrow(elem, &acc, &mut self.row_bytes);
                self.row_acc = acc;
            }
        }
        self.write_row(&code.out, row);
    }

    /// Takes a row from DRAM.
    fn load_row(&mut self, dma: &DmaIn, out: &View, row: u32) {
        let pixel = (out.chs * self.program.streams[out.tensor as usize].elem.size_bytes()) as usize;
        let segment = dma.segment as usize;
        self.row_bytes.clear();
        for x in 0..u64::from(out.cols) {
            let at = dma.offset + u64::from(row) * dma.row_pitch_bytes + x * u64::from(dma.pixel_pitch_bytes);
            if let Some(shadow) = &self.shadow {
                shadow.load(segment, at as usize, pixel);
            }
            self.row_bytes.extend_from_slice(&self.dram[segment][at as usize..][..pixel]);
        }
    }

    /// Puts a row into DRAM.
    fn store_row(&mut self, dma: &DmaOut, row: u32) {
        let elem = self.program.streams[dma.src.tensor as usize].elem;
        let mut acc = std::mem::take(&mut self.row_acc);
        self.sram().row(&dma.src, row, &mut acc);
        self.row_bytes.clear();
        narrow(elem, &acc, &mut self.row_bytes);
        self.row_acc = acc;
        let pixel = (dma.src.chs * elem.size_bytes()) as usize;
        let segment = dma.segment as usize;
        for (x, bytes) in self.row_bytes.chunks_exact(pixel.max(1)).enumerate() {
            let x = x as u64 * u64::from(dma.pixel_pitch_bytes);
            let at = (dma.offset + u64::from(row) * dma.row_pitch_bytes + x) as usize;
            self.dram[segment][at..][..pixel].copy_from_slice(bytes);
            if let Some(shadow) = &mut self.shadow {
                shadow.store(segment, at, pixel);
            }
        }
    }

    /// Writes the row to where a row of an output view stands, pixel by pixel where the view holds only some
    /// channels.
    fn write_row(&mut self, out: &View, row: u32) {
        let stream = &self.program.streams[out.tensor as usize];
        let size = stream.elem.size_bytes() as usize;
        let at = row_address(&self.program.streams, out.tensor, out.row0 + row);
        let pixel = stream.chs as usize * size;
        let part = out.chs as usize * size;
        if let Some(shadow) = &mut self.shadow {
            shadow.write_row(self.program, out, row);
        }
        let bytes = &self.row_bytes;
        if part == pixel {
            self.activation[at + out.col0 as usize * pixel..][..bytes.len()].copy_from_slice(bytes);
            return;
        }
        for (x, bytes) in bytes.chunks_exact(part).enumerate() {
            self.activation[at + (out.col0 as usize + x) * pixel + out.ch0 as usize * size..][..part]
                .copy_from_slice(bytes);
        }
    }
}

/// A phase of a checked run.
struct Running {
    flow: Flow,
    prepared: Vec<Option<Prepared>>,
    priorities: Priorities,
}

/// One in so many steps of a checked run completes a weight load that no stage waits for yet.
const LOAD_EARLY: u64 = 4;

impl Machine<'_> {
    /// From here on what the memories hold is remembered. They hold random bytes at first.
    pub(super) fn begin_checked(&mut self, random: &mut Random) {
        let written = self.program.segments.iter().zip(&mut self.dram);
        let written = written.filter(|(s, _)| matches!(s.kind, SegmentKind::Output | SegmentKind::Scratch));
        let memories = written.map(|(_, bytes)| bytes).chain([&mut self.activation, &mut self.weight]);
        for byte in memories.flat_map(|bytes| bytes.chunks_mut(8)) {
            let noise = random.next().to_le_bytes();
            byte.copy_from_slice(&noise[..byte.len()]);
        }
        self.shadow = Some(Shadow::new(self.program, self.activation.len(), self.weight.len()));
    }

    /// Runs a phase, its ready stages in random order; the first fault.
    pub(super) fn run_phase_checked(&mut self, index: usize, random: &mut Random) -> Result<(), Fault> {
        let phase = &self.program.phases[index];
        let mut running = Running {
            flow: Flow::new(self.program, phase),
            prepared: phase.stages.iter().map(|_| None).collect(),
            priorities: Priorities::new(phase.stages.len(), random),
        };
        let queued: usize = self.program.phases[..=index].iter().map(|p| p.loads.len()).sum();
        while !running.flow.finished() {
            if self.loaded < queued && random.below(LOAD_EARLY) == 0 {
                self.load_beside(index, &running)?;
            }
            let stages = running.priorities.draw(random);
            let Some(&number) = stages.iter().find(|&&s| running.flow.blocked(s).is_none()) else {
                // The verifier has shown that this cannot be.
                let message = "no stage can step".to_owned();
                return Err(Fault { phase: index, stage: 0, row: running.flow.done(0), address: 0, message });
            };
            self.step(index, number, &mut running)?;
        }
        Ok(())
    }

    /// Takes the next step of a stage.
    fn step(&mut self, index: usize, number: usize, running: &mut Running) -> Result<(), Fault> {
        let stage = &self.program.phases[index].stages[number];
        let rows = running.flow.next_rows(number);
        if running.prepared[number].is_none() {
            while self.loaded < stage.wait_loads as usize {
                self.load_beside(index, running)?;
            }
            if let Some(shadow) = &self.shadow {
                for (at, bytes) in stage.code.tables() {
                    shadow.read_table(at.0, bytes, stage.wait_loads);
                }
            }
            self.fault(index, number, rows.start)?;
        }
        let prepared = running.prepared[number].take().unwrap_or_else(|| self.prepare(stage));
        for row in rows {
            self.make_row(stage, &prepared, row);
            self.fault(index, number, row)?;
        }
        running.prepared[number] = Some(prepared);
        running.flow.advance(number);
        Ok(())
    }

    fn fault(&mut self, phase: usize, stage: usize, row: u32) -> Result<(), Fault> {
        self.shadow.as_mut().map_or(Ok(()), |shadow| shadow.fault(phase, stage, row))
    }

    /// Completes the next weight load while the stages of a phase are under way: it must not touch their
    /// tables.
    fn load_beside(&mut self, index: usize, running: &Running) -> Result<(), Fault> {
        let phase: &Phase = &self.program.phases[index];
        let load = self.loads[self.loaded];
        let (from, to) = (u64::from(load.dst.0), u64::from(load.dst.0) + u64::from(load.bytes));
        for (number, stage) in phase.stages.iter().enumerate() {
            let done = running.flow.done(number);
            if done == 0 || running.flow.next_rows(number).is_empty() {
                continue;
            }
            let meets = |&(at, bytes): &(crate::inst::WeightAddr, u64)| {
                u64::from(at.0) < to && from < u64::from(at.0) + bytes
            };
            if let Some((at, _)) = stage.code.tables().into_iter().find(meets) {
                let message = format!("load {} overwrites its table in weight SRAM", self.loaded);
                let address = from.max(u64::from(at.0));
                return Err(Fault { phase: index, stage: number, row: done, address, message });
            }
        }
        self.load_weights();
        Ok(())
    }
}
