//! A program that is ready to run: verified, its tables read and its weights packed, its waves known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::heads::HeadTables;
use super::machine::{Machine, RowObserver};
use super::prepared::Prepared;
use super::rings::{Rings, with_larger_rings};
use super::simd::Simd;
use super::sram::WeightSram;
use super::team::{Room, Team, Work};
use super::waves::{Grain, Shares, shares, waves};
use super::{ExecError, demand_valid, fill_segments};
use crate::inst::{Conv2d, DepthwiseConv2d, Head, View, WeightAddr, Window};
use crate::program::{Phase, Program, StageCode, Stream, WeightLoad};
use crate::target::Target;

/// A program that is ready to run, as often as one likes and on several threads at once.
#[derive(Clone, Debug)]
pub struct Executable {
    program: Arc<Program>,
    target: Arc<Target>,
    simd: Simd,
    phases: Arc<[PreparedPhase]>,
    /// Memory of runs that are over.
    rooms: Arc<Mutex<Vec<Room>>>,
}

#[derive(Debug)]
struct PreparedPhase {
    stages: Vec<Prepared>,
    waves: Vec<Shares>,
}

impl Executable {
    /// Prepares a program with its weight segment, to be run with `simd`, as fast as it can be: in
    /// [`Rings::Larger`].
    ///
    /// # Errors
    /// If the program does not verify for the target, or the weights are not of the size that it declares.
    pub fn new(program: &Program, target: &Target, weights: &[u8], simd: Simd) -> Result<Self, ExecError> {
        Self::with_rings(program, target, weights, simd, Rings::Larger)
    }

    /// As [`new`](Self::new), in the rings given.
    ///
    /// # Errors
    /// As `new`.
    pub fn with_rings(
        program: &Program,
        target: &Target,
        weights: &[u8],
        simd: Simd,
        rings: Rings,
    ) -> Result<Self, ExecError> {
        Self::divided(program, target, weights, simd, rings, Grain::WORTHWHILE)
    }

    /// As [`with_rings`](Self::with_rings), but that threads share what is not worth it: so that tests see
    /// small programs run on several.
    ///
    /// # Errors
    /// As `new`.
    #[doc(hidden)]
    pub fn finely_divided(
        program: &Program,
        target: &Target,
        weights: &[u8],
        simd: Simd,
        rings: Rings,
    ) -> Result<Self, ExecError> {
        Self::divided(program, target, weights, simd, rings, Grain::FINEST)
    }

    fn divided(
        program: &Program,
        target: &Target,
        weights: &[u8],
        simd: Simd,
        rings: Rings,
        grain: Grain,
    ) -> Result<Self, ExecError> {
        use rayon::prelude::*;
        demand_valid(program, target, weights)?;
        let larger = match rings {
            Rings::AsWritten => None,
            Rings::Larger => with_larger_rings(program, target),
        };
        let (program, target) = match larger {
            Some((program, target)) => {
                demand_valid(&program, &target, weights)?;
                (program, target)
            }
            None => (program.clone(), target.clone()),
        };
        let mut loader = Loader::new(&program, &target, weights, simd);
        let stages: Vec<_> = program.phases.iter().map(|phase| loader.prepare(phase)).collect();
        let threads = rayon::current_num_threads();
        let waves = program.phases.par_iter().map(|phase| {
            waves(&program, phase)
                .iter()
                .map(|wave| shares(&program, phase, wave, threads, grain))
                .collect::<Vec<_>>()
        });
        let phases = waves.collect::<Vec<_>>().into_iter().zip(stages);
        Ok(Self {
            program: Arc::new(program),
            target: Arc::new(target),
            simd,
            phases: phases.map(|(waves, stages)| PreparedPhase { stages, waves }).collect(),
            rooms: Arc::default(),
        })
    }

    /// The program, with the rings that it is run in.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Runs it on inputs (one byte string an input segment, in order) and returns the output segments;
    /// `progress` is told how many phases are done after each.
    ///
    /// # Errors
    /// If the inputs are not of the declared sizes.
    pub fn run(
        &self,
        inputs: &[Vec<u8>],
        progress: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Vec<Vec<u8>>, ExecError> {
        self.run_with(inputs, progress, None)
    }

    /// As [`run`](Self::run), telling an observer of every row that a stage puts into activation SRAM. Rows
    /// that are computed side by side come in any order.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_observed(
        &self,
        inputs: &[Vec<u8>],
        progress: &mut (dyn FnMut(usize) + Send),
        observer: &mut dyn RowObserver,
    ) -> Result<Vec<Vec<u8>>, ExecError> {
        self.run_with(inputs, progress, Some(observer))
    }

    fn run_with<'a>(
        &'a self,
        inputs: &[Vec<u8>],
        progress: &mut (dyn FnMut(usize) + Send),
        observer: Option<&'a mut dyn RowObserver>,
    ) -> Result<Vec<Vec<u8>>, ExecError> {
        let dram = fill_segments(&self.program, inputs)?;
        let mut room = self.rooms().pop().unwrap_or_default();
        let Room { activation, seats, crew } = &mut room;
        crew.grow(rayon::current_num_threads() - 1);
        seats.resize_with(1 + crew.len(), Mutex::default);
        let activation_bytes = std::mem::take(activation);
        let mut machine = Machine::new(&self.program, &self.target, self.simd, dram, activation_bytes);
        machine.observer = observer.map(Mutex::new);
        let team = Team::new(machine);
        let seat = |thread: usize| seats[thread].lock().unwrap_or_else(PoisonError::into_inner);
        crew.work(&|thread| team.help(thread, &mut seat(thread)), || {
            let mut own = seat(0);
            let mut leader = team.leader(&mut own);
            for (index, (phase, prepared)) in self.program.phases.iter().zip(&*self.phases).enumerate() {
                for shares in &prepared.waves {
                    leader.run(Work { phase, prepared: &prepared.stages, shares });
                }
                progress(index + 1);
            }
        });
        let (outputs, left) = team.into_machine().into_outputs();
        *activation = left;
        self.rooms().push(room);
        Ok(outputs)
    }

    fn rooms(&self) -> MutexGuard<'_, Vec<Room>> {
        // Rooms are taken out and put in whole, whatever panics.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a head's tables depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TablesKey {
    /// The head, without where it reads.
    head: Head,
    channels: u32,
    /// How many loads there were when each table was last touched by one.
    loads: Vec<usize>,
}

/// Weight SRAM, phase by phase. The verifier shows that no load overwrites what a stage still reads before
/// the stages of its own phase that do not wait for it are done; so those that no stage of a phase waits for
/// are made later.
struct Loader<'a> {
    streams: &'a [Stream],
    weights: &'a [u8],
    simd: Simd,
    sram: Vec<u8>,
    /// All weight loads of the program, and how many are complete.
    loads: Vec<WeightLoad>,
    loaded: usize,
    /// Tables that strips of a layer share.
    packed: HashMap<TablesKey, HeadTables>,
}

impl<'a> Loader<'a> {
    fn new(program: &'a Program, target: &Target, weights: &'a [u8], simd: Simd) -> Self {
        Self {
            streams: &program.streams,
            weights,
            simd,
            sram: vec![0; target.memory.weight as usize],
            loads: program.phases.iter().flat_map(|p| p.loads.iter().copied()).collect(),
            loaded: 0,
            packed: HashMap::new(),
        }
    }

    /// The tables of the stages of the next phase.
    fn prepare(&mut self, phase: &Phase) -> Vec<Prepared> {
        use rayon::prelude::*;
        let wanted = phase.stages.iter().map(|s| s.wait_loads as usize).max().unwrap_or(0);
        while self.loaded < wanted {
            load_weights(&self.loads[self.loaded], self.weights, &mut self.sram);
            self.loaded += 1;
        }
        let (sram, simd, streams) = (WeightSram(&self.sram), self.simd, self.streams);
        let heads = phase.stages.par_iter().map(|stage| {
            let key = self.key(&stage.code);
            let head = self.packed.get(&key).cloned();
            (key, head.unwrap_or_else(|| HeadTables::new(&stage.code, sram, simd)))
        });
        let heads: Vec<_> = heads.collect();
        let prepared = phase.stages.iter().zip(&heads);
        let prepared = prepared
            .map(|(stage, (_, head))| Prepared::with_head(&stage.code, head.clone(), streams, sram, simd));
        let prepared = prepared.collect();
        self.packed.extend(heads);
        prepared
    }

    /// What the tables of a stage's head depend on.
    fn key(&self, code: &StageCode) -> TablesKey {
        let mut head = code
            .head
            .map(&mut |view: &View| View { chs: view.chs, ..View::default() }, &mut |table: WeightAddr| {
                table
            });
        if let Head::Conv2d(Conv2d { window, .. }) | Head::DepthwiseConv2d(DepthwiseConv2d { window, .. }) =
            &mut head
        {
            *window = Window { pad_top: 0, pad_bottom: 0, pad_left: 0, pad_right: 0, ..*window };
        }
        let last_load = |(at, bytes): (WeightAddr, u64)| {
            let (from, to) = (u64::from(at.0), u64::from(at.0) + bytes);
            let meets = |load: &WeightLoad| {
                u64::from(load.dst.0) < to && from < u64::from(load.dst.0) + u64::from(load.bytes)
            };
            self.loads[..self.loaded].iter().rposition(meets).map_or(0, |index| index + 1)
        };
        let loads = code.tables().into_iter().map(last_load).collect();
        TablesKey { head, channels: code.out.chs, loads }
    }
}

/// Completes a weight load.
pub(super) fn load_weights(load: &WeightLoad, segment: &[u8], sram: &mut [u8]) {
    let bytes = load.bytes as usize;
    sram[load.dst.0 as usize..][..bytes].copy_from_slice(&segment[load.src as usize..][..bytes]);
}
