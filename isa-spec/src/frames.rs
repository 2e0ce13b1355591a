//! Consecutive frames: the program that runs a program several times, one frame after another, and what a
//! frame takes then.
//!
//! [`of_frames`] makes an ordinary program, which the verifier judges, the interpreters run and the
//! simulation times like any other. Phases, streams and all segments but that of the weights stand in it once
//! for each frame, since no byte of DRAM is written twice. What differs from so many copies end to end:
//!
//! - *Weights that stay are not loaded again.* What a load brought is still in weight SRAM when the frame
//!   begins once more, but for the bytes that other loads have overwritten with others. So each frame after
//!   the first loads the overwritten parts of its loads ([`repeated`]): nothing at all if all weights fit.
//! - *Weights come early*, if [`Ahead::weights`] says so. A load is queued as early as its bytes are free: in
//!   the first phase from which on no stage has a table there, up to the phase that queues it in the program.
//!   That may be one of the frame before. The order of loads, in which DRAM serves them, stays as it is, so a
//!   stage waits for the same loads as before.
//! - *First rows come early*, if [`Ahead::rows`] says so: a phase of the frame before loads the first rows of
//!   the largest input of the first phase into a stream of their own, which is the [`Prefix`] of the one that
//!   they would go to. It stands beside all that is there from that phase on, and no other stream shares
//!   bytes with the one that it is a prefix of.
//!
//! [`simulate`] decides what comes early: weights, if that takes fewer cycles, since bursts of them make rows
//! wait; rows, in the phase in which DRAM has time and activation SRAM has room for the most, or a part of
//! these, whatever takes the fewest cycles.
//!
//! Not done: inputs other than the largest of the first phase do not come early, nor one that several stages
//! load; weights are where placing one frame left them; and no phase of a frame runs beside one of another.

use serde::{Deserialize, Serialize};

use crate::inst::{Head, View, WeightAddr};
use crate::program::{Phase, Prefix, Program, Segment, SegmentKind, Stage, StageCode, Stream, WeightLoad};
use crate::target::Target;
use crate::timed::{self, EnergyUse, PhaseTime, Traffic};
use crate::timing::dram_cycles;
use crate::verify::{VerifyError, verify};

/// Frames that [`simulate`] runs. The first finds weight SRAM empty; the second begins with what came early,
/// but maybe late, since DRAM had all weights to load in the frame before; the third is as any other of a
/// long stream; the last has no frame after it for which anything could come early.
pub const FRAMES: u32 = 4;

/// The frame that is as any other of a long stream.
const STEADY: usize = 2;

/// What comes before the frame begins that uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// Whether weights are queued as early as their bytes are free, in phases of the frame before too.
    pub weights: bool,
    /// First rows of an input, if any come early.
    pub rows: Option<FirstRows>,
}

/// First rows of an input that a phase of the frame before loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstRows {
    /// The stage of the first phase that loads the input in the program.
    pub stage: usize,
    /// How many rows.
    pub rows: u32,
    /// The phase of the frame before that loads them.
    pub phase: usize,
    /// Where they stand in activation SRAM.
    pub base: u32,
}

/// What a frame of a long stream takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrameTiming {
    /// What comes early.
    pub ahead: Ahead,
    /// Frames that were simulated.
    pub frames: u32,
    /// Cycles from the end of the second frame to the end of the third.
    pub cycles: u64,
    /// DRAM bytes of a frame, any but the first.
    pub dram_bytes: Traffic,
    /// Energy of such a frame.
    pub energy_pj: EnergyUse,
}

/// Simulates a few frames of a verified program one after another.
///
/// # Errors
/// What the verifier finds wrong with the program of these frames: segments that take more bytes of DRAM
/// together than a machine has. All else is a defect.
pub fn simulate(program: &Program, target: &Target) -> Result<FrameTiming, Vec<VerifyError>> {
    let timing = simulate_unverified(program, target);
    let errors = verify(&of_frames(program, FRAMES, &timing.ahead), target);
    if errors.is_empty() { Ok(timing) } else { Err(errors) }
}

/// As [`simulate`], of a program whose stages may have shapes and types that do not agree: nothing is
/// verified.
pub fn simulate_unverified(program: &Program, target: &Target) -> FrameTiming {
    let frames = Frames::new(program);
    let mut best = Trial::new(&frames, target, Ahead::default());
    if frames.again.phases.iter().any(|phase| !phase.loads.is_empty()) {
        best.improve(&frames, target, Ahead { weights: true, rows: None });
    }
    if let Some(most) = FirstRows::most(program, target, &best.phases) {
        let weights = best.ahead.weights;
        let early = |rows: u32| Ahead { weights, rows: Some(FirstRows { rows, ..most }) };
        if !best.improve(&frames, target, early(most.rows)) {
            best.improve(&frames, target, early(most.rows.div_ceil(4)));
        }
    }
    FrameTiming {
        ahead: best.ahead,
        frames: FRAMES,
        cycles: best.cycles(),
        dram_bytes: timed::traffic(&frames.again),
        energy_pj: timed::energy(&frames.again, target),
    }
}

/// What a frame takes if something comes early.
struct Trial {
    ahead: Ahead,
    /// The phases of the frame that is as any other.
    phases: Vec<PhaseTime>,
}

impl Trial {
    fn new(frames: &Frames<'_>, target: &Target, ahead: Ahead) -> Self {
        let n_phases = frames.first.phases.len();
        let mut program = frames.program(FRAMES, &ahead);
        // How long the frame after takes is not asked.
        program.phases.truncate((STEADY + 1) * n_phases);
        let timing = timed::simulate(&program, target);
        Self { ahead, phases: timing.phases.into_iter().skip(STEADY * n_phases).collect() }
    }

    fn cycles(&self) -> u64 {
        self.phases.iter().map(|phase| phase.cycles).sum()
    }

    /// Takes what takes fewer cycles; whether that is what is tried.
    fn improve(&mut self, frames: &Frames<'_>, target: &Target, ahead: Ahead) -> bool {
        let trial = Self::new(frames, target, ahead);
        let is_better = trial.cycles() < self.cycles();
        if is_better {
            *self = trial;
        }
        is_better
    }
}

impl FirstRows {
    /// As many first rows of the largest input of the first phase as there is time and room for in a phase of
    /// the frame before, given the times of all; of phases with as many the last.
    fn most(program: &Program, target: &Target, times: &[PhaseTime]) -> Option<Self> {
        let first = program.phases.first()?;
        let stage = largest_input(program, first)?;
        let loaded = first.stages[stage].code.out;
        let stream = &program.streams[loaded.tensor as usize];
        let lives = program.stream_lives();
        let last_use = lives[loaded.tensor as usize]?.1;
        let is_room = |phase: &Phase, stages: usize| {
            phase.stages.len() + stages <= target.limits.stages as usize
                && n_named(program, phase) < target.limits.streams as usize
        };
        let has_own_bytes = program.streams.iter().zip(&lives).enumerate().all(|(index, (other, life))| {
            index == loaded.tensor as usize
                || life.is_none_or(|(born, _)| born > last_use)
                || !Bytes::of_stream(other).meets(Bytes::of_stream(stream))
        });
        if !has_own_bytes || !program.phases[..=last_use].iter().all(|phase| is_room(phase, 0)) {
            return None;
        }
        let mut taken: Vec<Bytes> = Vec::new();
        let mut take = |from: usize, to: usize| {
            let alive = program.streams.iter().zip(&lives);
            let alive = alive.filter(|(_, life)| life.is_some_and(|(born, died)| born <= to && from <= died));
            taken.extend(alive.map(|(stream, _)| Bytes::of_stream(stream)));
            largest_gap(&mut taken, target)
        };
        take(0, last_use);
        let mut best: Option<Self> = None;
        // Those of the frame before are there up to their last use.
        for (phase, time) in times.iter().enumerate().skip(last_use + 1).rev() {
            let gap = take(phase, phase);
            let idle =
                time.cycles.saturating_sub(time.dma.dram_busy() + u64::from(target.dram.latency_cycles));
            let in_time = idle / dram_cycles(target, stream.row_bytes()).max(1);
            let in_room = (gap.to - gap.from) / u64::from(stream.pitch_bytes.max(1));
            let rows = in_time.min(in_room).min(u64::from(loaded.rows - 1)) as u32;
            if is_room(&program.phases[phase], 1) && best.is_none_or(|best| rows > best.rows) {
                best = Some(Self { stage, rows, phase, base: gap.from as u32 });
            }
        }
        best.filter(|best| best.rows > 0)
    }

    /// Has the rows of a frame, which begins with some phase, loaded in the frame before.
    fn load_early(&self, frames: &mut Program, first: usize, n_phases: usize) {
        let late = &mut frames.phases[first].stages[self.stage];
        let named = late.code.out.tensor as usize;
        let into = frames.streams.len() as u32;
        let out = View { tensor: into, rows: self.rows, ..late.code.out };
        let code = StageCode { head: late.code.head, tail: Vec::new(), out };
        let early = Stage { partition: 0, wait_loads: 0, code, ..late.clone() };
        (late.code.out.row0, late.code.out.rows) = (self.rows, late.code.out.rows - self.rows);
        if let Head::DmaIn(dma) = &mut late.code.head {
            dma.offset += u64::from(self.rows) * dma.row_pitch_bytes;
        }
        frames.phases[first - n_phases + self.phase].stages.push(early);
        let stream = &mut frames.streams[named];
        let ahead = Stream { rows: self.rows, slots: self.rows, base: self.base, ..*stream };
        stream.slots = stream.slots.min(stream.rows - self.rows);
        stream.prefix = Some(Prefix { stream: into, rows: self.rows });
        frames.streams.push(ahead);
    }
}

/// The stage that loads the most bytes of an input, of those that load rows from the first on, into a stream
/// that no other stage writes and that has no prefix nor is one.
fn largest_input(program: &Program, phase: &Phase) -> Option<usize> {
    let is_input = |stage: &Stage| match &stage.code.head {
        Head::DmaIn(dma) => program.segments[dma.segment as usize].kind == SegmentKind::Input,
        _ => false,
    };
    let writers = |tensor: u32| {
        let stages = program.phases.iter().flat_map(|phase| &phase.stages);
        stages.filter(|stage| stage.code.out.rows > 0 && stage.code.out.tensor == tensor).count()
    };
    let is_alone = |stage: &Stage| {
        let out = stage.code.out;
        let is_prefix = |other: &Stream| other.prefix.is_some_and(|prefix| prefix.stream == out.tensor);
        out.row0 == 0
            && program.streams[out.tensor as usize].prefix.is_none()
            && !program.streams.iter().any(is_prefix)
            && writers(out.tensor) == 1
    };
    let stages = phase.stages.iter().enumerate().filter(|(_, stage)| is_input(stage) && is_alone(stage));
    let bytes = |stage: &Stage| {
        let out = stage.code.out;
        out.n_elements() * u64::from(program.streams[out.tensor as usize].elem.size_bytes())
    };
    Some(stages.max_by_key(|(_, stage)| bytes(stage))?.0)
}

/// How many streams a phase names, with their prefixes.
fn n_named(program: &Program, phase: &Phase) -> usize {
    let views = phase.stages.iter().flat_map(|stage| stage.code.reads().into_iter().chain([stage.code.out]));
    let views = views.filter(|view| view.rows > 0);
    let mut streams: Vec<u32> = views.flat_map(|view| program.chain(view.tensor)).collect();
    streams.sort_unstable();
    streams.dedup();
    streams.len()
}

/// The most bytes of activation SRAM in one piece that none of some streams takes, from an aligned address
/// on.
fn largest_gap(taken: &mut [Bytes], target: &Target) -> Bytes {
    taken.sort_unstable_by_key(|bytes| bytes.from);
    let alignment = u64::from(target.memory.alignment.max(1));
    let sram = target.memory.activation;
    let end = Bytes { from: sram, to: sram };
    let mut best = Bytes { from: 0, to: 0 };
    let mut free = 0u64;
    for bytes in taken.iter().chain([&end]) {
        let from = free.next_multiple_of(alignment);
        if bytes.from.saturating_sub(from) > best.to - best.from {
            best = Bytes { from, to: bytes.from };
        }
        free = free.max(bytes.to);
    }
    best
}

/// What any frame but the first does: the phases of a verified program, with those parts of its loads that
/// other loads overwrite.
pub fn repeated(program: &Program) -> Program {
    let loads: Vec<WeightLoad> = program.phases.iter().flat_map(|phase| &phase.loads).copied().collect();
    // How many loads there are before each of the program's.
    let mut before = vec![0];
    let mut again = Vec::with_capacity(loads.len());
    for load in &loads {
        let parts = overwritten(load, &loads);
        before.push(before[before.len() - 1] + parts.len() as u32);
        again.push(parts);
    }
    let mut again = again.into_iter();
    let phases = program.phases.iter().map(|phase| Phase {
        partitions: phase.partitions.clone(),
        loads: again.by_ref().take(phase.loads.len()).flatten().collect(),
        stages: (phase.stages.iter())
            .map(|stage| Stage { wait_loads: before[stage.wait_loads as usize], ..stage.clone() })
            .collect(),
    });
    Program { segments: program.segments.clone(), streams: program.streams.clone(), phases: phases.collect() }
}

/// The parts of a load whose bytes other loads overwrite with others.
fn overwritten(load: &WeightLoad, loads: &[WeightLoad]) -> Vec<WeightLoad> {
    let own = Bytes::of(load);
    let others = loads.iter().filter(|other| Bytes::of(other).meets(own) && !has_same_bytes(load, other));
    let mut others: Vec<Bytes> = others.map(Bytes::of).collect();
    others.sort_unstable_by_key(|bytes| bytes.from);
    let mut parts: Vec<Bytes> = Vec::new();
    for other in others {
        let part = Bytes { from: other.from.max(own.from), to: other.to.min(own.to) };
        match parts.last_mut().filter(|last| part.from <= last.to) {
            Some(last) => last.to = last.to.max(part.to),
            None => parts.push(part),
        }
    }
    let parts = parts.into_iter().map(|part| {
        let skipped = part.from - own.from;
        WeightLoad {
            dst: WeightAddr(load.dst.0 + skipped as u32),
            src: load.src + skipped,
            bytes: (part.to - part.from) as u32,
        }
    });
    parts.collect()
}

/// Whether two loads bring the same bytes of the weight segment to every address of weight SRAM to which both
/// bring some.
fn has_same_bytes(a: &WeightLoad, b: &WeightLoad) -> bool {
    a.src.wrapping_sub(u64::from(a.dst.0)) == b.src.wrapping_sub(u64::from(b.dst.0))
}

/// Bytes of a memory.
#[derive(Clone, Copy, Debug)]
struct Bytes {
    from: u64,
    to: u64,
}

impl Bytes {
    /// Those of activation SRAM that a stream takes.
    fn of_stream(stream: &Stream) -> Self {
        let from = u64::from(stream.base);
        Self { from, to: from + stream.size_bytes() }
    }

    /// Those of weight SRAM that a load writes.
    fn of(load: &WeightLoad) -> Self {
        let from = u64::from(load.dst.0);
        Self { from, to: from + u64::from(load.bytes) }
    }

    /// Those of weight SRAM that the tables of a phase take.
    fn of_tables(phase: &Phase) -> Vec<Self> {
        let tables = phase.stages.iter().flat_map(|stage| stage.code.tables());
        tables.map(|(at, len)| Self { from: u64::from(at.0), to: u64::from(at.0) + len }).collect()
    }

    fn meets(self, other: Self) -> bool {
        self.from < other.to && other.from < self.to
    }
}

/// The program that runs so many frames of a verified program. Its input and output segments are those of the
/// first frame, then those of the next, and so on, each in the order of the program's.
pub fn of_frames(program: &Program, n: u32, ahead: &Ahead) -> Program {
    Frames::new(program).program(n, ahead)
}

/// A program, and what is made of it for each frame but the first.
struct Frames<'a> {
    first: &'a Program,
    again: Program,
}

impl<'a> Frames<'a> {
    fn new(program: &'a Program) -> Self {
        Self { first: program, again: repeated(program) }
    }

    fn program(&self, n: u32, ahead: &Ahead) -> Program {
        let n_phases = self.first.phases.len();
        let mut frames = Program::default();
        for frame in 0..n {
            let program = if frame == 0 { self.first } else { &self.again };
            let numbering = Numbering::new(self.first, &self.again, frame);
            frames.segments.extend(numbering.segments(program));
            frames.streams.extend(program.streams.iter().map(|stream| numbering.stream(stream)));
            frames.phases.extend(program.phases.iter().map(|phase| numbering.phase(phase)));
        }
        if ahead.weights {
            queue_early(&mut frames, n_phases);
        }
        if let Some(rows) = &ahead.rows {
            let firsts = (n_phases..frames.phases.len()).step_by(n_phases.max(1));
            firsts.for_each(|first| rows.load_early(&mut frames, first, n_phases));
        }
        frames
    }
}

/// How the numbers of a frame differ from those of its program.
struct Numbering {
    frame: u32,
    /// Streams of the frames before.
    streams: u32,
    /// Loads of the frames before.
    loads: u32,
    /// The frame's number of each segment.
    segments: Vec<u32>,
}

impl Numbering {
    fn new(program: &Program, again: &Program, frame: u32) -> Self {
        let loads =
            |program: &Program| program.phases.iter().map(|phase| phase.loads.len() as u32).sum::<u32>();
        let n_segments = program.segments.len() as u32;
        let is_shared = |segment: &Segment| segment.kind == SegmentKind::Weights;
        let n_own = program.segments.iter().filter(|segment| !is_shared(segment)).count() as u32;
        let mut next = if frame == 0 { 0 } else { n_segments + (frame - 1) * n_own };
        let segments = program.segments.iter().zip(0..).map(|(segment, number)| {
            if frame > 0 && is_shared(segment) {
                return number;
            }
            next += 1;
            next - 1
        });
        Self {
            frame,
            streams: frame * program.streams.len() as u32,
            loads: if frame == 0 { 0 } else { loads(program) + (frame - 1) * loads(again) },
            segments: segments.collect(),
        }
    }

    /// The segments that the frame adds.
    fn segments(&self, program: &Program) -> impl Iterator<Item = Segment> {
        let is_first = self.frame == 0;
        program.segments.iter().copied().filter(move |s| is_first || s.kind != SegmentKind::Weights)
    }

    fn stream(&self, stream: &Stream) -> Stream {
        let prefix = stream.prefix.map(|prefix| Prefix { stream: prefix.stream + self.streams, ..prefix });
        Stream { prefix, ..*stream }
    }

    /// A phase of the frame.
    fn phase(&self, phase: &Phase) -> Phase {
        Phase {
            partitions: phase.partitions.clone(),
            loads: phase.loads.clone(),
            stages: phase.stages.iter().map(|stage| self.stage(stage)).collect(),
        }
    }

    fn stage(&self, stage: &Stage) -> Stage {
        let mut code = stage.code.map_views(|view| {
            // An empty view names no stream.
            let streams = if view.rows > 0 { self.streams } else { 0 };
            View { tensor: view.tensor + streams, ..*view }
        });
        if let Head::DmaIn(dma) = &mut code.head {
            dma.segment = self.segments[dma.segment as usize];
        }
        if let Head::DmaOut(dma) = &mut code.head {
            dma.segment = self.segments[dma.segment as usize];
        }
        Stage { wait_loads: stage.wait_loads + self.loads, code, ..stage.clone() }
    }
}

/// Queues the loads of all frames but the first as early as their bytes are free.
fn queue_early(frames: &mut Program, n_phases: usize) {
    let tables: Vec<Vec<Bytes>> = frames.phases.iter().take(n_phases).map(Bytes::of_tables).collect();
    let mut last = 0;
    for own in 0..frames.phases.len() {
        for load in std::mem::take(&mut frames.phases[own].loads) {
            let bytes = Bytes::of(&load);
            let mut at = own;
            while own >= n_phases && at > last && !tables[(at - 1) % n_phases].iter().any(|t| t.meets(bytes))
            {
                at -= 1;
            }
            last = at;
            frames.phases[at].loads.push(load);
        }
    }
}
