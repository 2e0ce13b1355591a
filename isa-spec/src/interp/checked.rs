//! A checked run: the machine as an adversary would run it.

use std::sync::Mutex;

use super::executable::load_weights;
use super::machine::{Machine, RowObserver};
use super::order::{Priorities, Random};
use super::prepared::Prepared;
use super::shadow::{Fault, Shadow};
use super::simd::Simd;
use super::sram::WeightSram;
use crate::dataflow::Flow;
use crate::program::{Phase, Program, SegmentKind, WeightLoad};
use crate::target::Target;

/// A machine whose memories begin with random bytes and are remembered.
pub(super) struct Checked<'a> {
    machine: Machine<'a>,
    segment: &'a [u8],
    weight: Vec<u8>,
    /// All weight loads of the program, and how many are complete.
    loads: Vec<WeightLoad>,
    loaded: usize,
    random: Random,
}

/// A phase of a checked run.
struct Running {
    flow: Flow,
    prepared: Vec<Option<Prepared>>,
    priorities: Priorities,
}

/// One in so many steps of a checked run completes a weight load that no stage waits for yet.
const LOAD_EARLY: u64 = 4;

impl<'a> Checked<'a> {
    /// The machine before the first phase of a program whose segments hold `dram`, and the weights `segment`;
    /// `observer` is told of the rows that are written to SRAM.
    pub(super) fn new(
        program: &'a Program,
        target: &Target,
        segment: &'a [u8],
        dram: Vec<Vec<u8>>,
        mut random: Random,
        observer: Option<&'a mut dyn RowObserver>,
    ) -> Self {
        let mut machine = Machine::new(program, target, Simd::best(), dram, Vec::new());
        let mut weight = vec![0; target.memory.weight as usize];
        let written = program.segments.iter().zip(&mut machine.dram);
        let written = written.filter(|(s, _)| matches!(s.kind, SegmentKind::Output | SegmentKind::Scratch));
        let written = written.map(|(_, memory)| memory.bytes_mut());
        let memories = written.chain([machine.activation.bytes_mut(), &mut weight[..]]);
        for byte in memories.flat_map(|bytes| bytes.chunks_mut(8)) {
            let noise = random.next().to_le_bytes();
            byte.copy_from_slice(&noise[..byte.len()]);
        }
        machine.observer = observer.map(Mutex::new);
        machine.shadow = Some(Shadow::new(program, machine.activation.len(), weight.len()));
        let loads = program.phases.iter().flat_map(|p| p.loads.iter().copied()).collect();
        Self { machine, segment, weight, loads, loaded: 0, random }
    }

    /// The output segments.
    pub(super) fn into_outputs(self) -> Vec<Vec<u8>> {
        self.machine.into_outputs().0
    }

    /// Runs a phase, its ready stages in random order; the first fault.
    pub(super) fn run_phase(&mut self, index: usize) -> Result<(), Fault> {
        let program = self.machine.program;
        let phase = &program.phases[index];
        let mut running = Running {
            flow: Flow::new(program, phase),
            prepared: phase.stages.iter().map(|_| None).collect(),
            priorities: Priorities::new(phase.stages.len(), &mut self.random),
        };
        let queued: usize = program.phases[..=index].iter().map(|p| p.loads.len()).sum();
        while !running.flow.finished() {
            if self.loaded < queued && self.random.below(LOAD_EARLY) == 0 {
                self.load_beside(index, &running)?;
            }
            let stages = running.priorities.draw(&mut self.random);
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
        let stage = &self.machine.program.phases[index].stages[number];
        let rows = running.flow.next_rows(number);
        if running.prepared[number].is_none() {
            while self.loaded < stage.wait_loads as usize {
                self.load_beside(index, running)?;
            }
            if let Some(shadow) = &self.machine.shadow {
                for (at, bytes) in stage.code.tables() {
                    shadow.read_table(at.0, bytes, stage.wait_loads);
                }
            }
            self.fault(index, number, rows.start)?;
        }
        let read = || {
            Prepared::new(
                &stage.code,
                &self.machine.program.streams,
                WeightSram(&self.weight),
                self.machine.simd,
            )
        };
        let prepared = running.prepared[number].take().unwrap_or_else(read);
        for row in rows {
            self.machine.make_row(stage, &prepared, row);
            self.fault(index, number, row)?;
        }
        running.prepared[number] = Some(prepared);
        running.flow.advance(number);
        Ok(())
    }

    fn fault(&mut self, phase: usize, stage: usize, row: u32) -> Result<(), Fault> {
        self.machine.shadow.as_mut().map_or(Ok(()), |shadow| shadow.fault(phase, stage, row))
    }

    /// Completes the next weight load while the stages of a phase are under way: it must not touch their
    /// tables.
    fn load_beside(&mut self, index: usize, running: &Running) -> Result<(), Fault> {
        let phase: &Phase = &self.machine.program.phases[index];
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

    /// Completes the next weight load.
    fn load_weights(&mut self) {
        let load = self.loads[self.loaded];
        load_weights(&load, self.segment, &mut self.weight);
        if let Some(shadow) = &mut self.machine.shadow {
            shadow.load_weights(self.loaded as u32, &load);
        }
        self.loaded += 1;
    }
}
