//! Streams of activations: which rings a phase has, how long each lives, where it stands, and what moves
//! between it and DRAM.
//!
//! A buffer that is whole in SRAM is one stream over the phases that it is kept; so are those first rows of
//! another that the plan keeps, or loads ahead. A buffer that is not whole is a ring of its own in every
//! phase that touches it, as wide as the columns and channels in use there, filled and drained by DMA stages
//! as [`crate::cost::transfers`] says.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use strata_isa_spec::inst::{DmaIn, DmaOut};
use strata_isa_spec::record::TensorPlacement;
use strata_isa_spec::{Prefix, Segment, SegmentKind, StageCode, Stream, View};

use crate::cost::rings::{Actor, OverlapProbe, ring_slots_and_gaps, size_rings};
use crate::cost::transfers::{self, Transfer};
use crate::model::graph::{StageSet, bounding};
use crate::model::{
    Bases, Buffer, BufferId, BufferRole, BufferView, ResidentPrefix, StageId, StageTemplate, StreamBase,
};
use crate::place::live::{Live, Numbers};
use crate::place::{PlacementProblem, ScheduleError, blocks};

/// A DMA stage.
pub(super) struct Piece {
    pub(super) code: StageCode,
    pub(super) name: String,
}

/// What [`place`] decides.
pub(super) struct Streams {
    pub(super) streams: Vec<Stream>,
    pub(super) bases: Bases,
    /// DMA-in stages of each phase.
    pub(super) loads: Vec<Vec<Piece>>,
    /// DMA-out stages of each phase.
    pub(super) stores: Vec<Vec<Piece>>,
    /// The stream of each buffer in each phase.
    numbers: Numbers,
}

impl Streams {
    /// The streams that hold the buffers that a phase names.
    pub(super) fn of_phase(&self, phase: usize) -> Vec<TensorPlacement> {
        let of_phase = self.numbers.iter().filter(|((_, at), _)| *at == phase);
        let placement = |(&(buffer, _), &(stream, held)): (&(BufferId, usize), &(u32, BufferView))| {
            TensorPlacement { tensor: buffer.as_u32(), stream, col0: held.col0, ch0: held.ch0 }
        };
        of_phase.map(placement).collect()
    }
}

/// A view of a buffer as one of a stream that holds some columns and channels of it.
fn within(view: &BufferView, stream: u32, held: &BufferView) -> View {
    View { col0: view.col0 - held.col0, ch0: view.ch0 - held.ch0, ..view.of(stream) }
}

/// The streams of a plan, with addresses, and what moves between them and DRAM. Tensors that are stored get
/// segments of their own.
///
/// # Errors
/// If there are no addresses.
pub(super) fn place(
    problem: &PlacementProblem<'_>,
    segments: &mut Vec<Segment>,
) -> Result<Streams, ScheduleError> {
    let mut placing = Placing::new(problem, segments);
    for phase in 0..problem.phases.len() {
        let set: StageSet = problem.phases[phase].iter().copied().collect();
        let mut asked = Asked::default();
        for buffer in problem.topology.touched(&set) {
            placing.tensor(buffer, phase, &set, &mut asked);
        }
        placing.comes_ahead(phase);
        placing.size_rings(phase, &asked);
    }
    placing.finish()
}

/// A transfer and the DRAM segment of its tensor.
type Moved = (Transfer, u32);

/// What a phase would move if none of its rows stayed. Rings are sized by it: that is enough for the rows
/// that are moved, and were what stays not asked for by transfers, rows might wait for stages that ask for it
/// too late.
#[derive(Default)]
struct Asked {
    loads: Vec<Moved>,
    stores: Vec<Moved>,
}

/// Streams while they are made, phase by phase.
struct Placing<'a, 'p> {
    problem: &'a PlacementProblem<'p>,
    segments: &'a mut Vec<Segment>,
    lives: Vec<Live>,
    numbers: Numbers,
    prefixes: Prefixes,
    /// The segment of each tensor that is stored and is no output.
    scratch: BTreeMap<BufferId, u32>,
    /// Of each phase.
    loads: Vec<Vec<Moved>>,
    stores: Vec<Vec<Moved>>,
    /// Loads of first rows for a later phase, of each phase.
    ahead: Vec<Vec<Piece>>,
}

impl<'a, 'p> Placing<'a, 'p> {
    fn new(problem: &'a PlacementProblem<'p>, segments: &'a mut Vec<Segment>) -> Self {
        let n_phases = problem.phases.len();
        Self {
            problem,
            segments,
            lives: Vec::new(),
            numbers: Numbers::new(),
            prefixes: Prefixes::new(),
            scratch: BTreeMap::new(),
            loads: vec![Vec::new(); n_phases],
            stores: vec![Vec::new(); n_phases],
            ahead: (0..n_phases).map(|_| Vec::new()).collect(),
        }
    }

    fn segment_of(&mut self, buffer: BufferId) -> u32 {
        segment_of(self.problem, buffer, self.segments, &mut self.scratch)
    }

    /// Gives a tensor that a phase touches its stream there, and notes what is moved.
    fn tensor(&mut self, buffer: BufferId, phase: usize, set: &StageSet, asked: &mut Asked) {
        let problem = self.problem;
        let is_whole = problem.is_whole(buffer, phase);
        let prefix = prefix_of(problem, buffer, phase, &mut self.prefixes, &mut self.lives);
        let earlier =
            (0..phase).rev().find_map(|p| self.numbers.get(&(buffer, p)).map(|&(number, _)| (p, number)));
        let resident = earlier.filter(|&(p, _)| is_whole && problem.is_whole(buffer, p));
        for transfer in moved_in(problem, set, buffer, phase, resident.is_some()) {
            let segment = self.segment_of(buffer);
            asked.loads.push((transfer, segment));
            let first = problem.plan.prefix_rows(buffer, phase);
            self.loads[phase].extend(transfer.from_row(first).map(|transfer| (transfer, segment)));
        }
        for transfer in moved_out(problem, set, buffer, phase) {
            let segment = self.segment_of(buffer);
            asked.stores.push((transfer, segment));
            let first = first_stored(problem, &transfer, phase);
            self.stores[phase].extend(transfer.from_row(first).map(|transfer| (transfer, segment)));
        }
        let number = match resident {
            Some((_, number)) => {
                self.lives[number as usize].last = phase;
                number
            }
            None => {
                let rows = problem.graph.buffers[buffer].rows;
                let mut live = Live::new(problem, buffer, rows, prefix.map(|(prefix, _)| prefix), phase);
                let window = transfers::window(problem.topology, set, buffer);
                // A ring is as wide as the prefix that it follows.
                let held = prefix.map(|(_, held)| held).or(window);
                live.held = held.filter(|_| !is_whole).unwrap_or(live.held);
                self.lives.push(live);
                self.lives.len() as u32 - 1
            }
        };
        self.numbers.insert((buffer, phase), (number, self.lives[number as usize].held));
    }

    /// Loads the first rows that a phase brings for a later one.
    fn comes_ahead(&mut self, phase: usize) {
        let problem = self.problem;
        let comes = problem.plan.prefixes.iter().filter(|prefix| prefix.from as usize == phase);
        for buffer in comes.map(|prefix| prefix.buffer).collect::<BTreeSet<BufferId>>() {
            // What the phase writes has its prefix already, which it names through the ring of the rest.
            let is_written = writes(problem, buffer, phase);
            let make = if is_written { prefix_of } else { make_prefixes };
            let made = make(problem, buffer, phase, &mut self.prefixes, &mut self.lives);
            let Some((prefix, held)) = made else { continue };
            let named = self.numbers.get(&(buffer, phase)).filter(|_| is_written);
            let (stream, held) = named.copied().unwrap_or((prefix.stream, held));
            for transfer in moved_ahead(problem, buffer, phase, prefix.rows) {
                let segment = self.segment_of(buffer);
                let view = within(&transfer.view, stream, &held);
                let code = load(problem, &transfer, segment, view);
                let name = format!("{} (prefetch)", problem.graph.buffers[buffer].name);
                self.ahead[phase].push(Piece { code, name });
            }
        }
    }

    /// Gives the rings of a phase their slots. A whole tensor may be kept through phases that do not touch
    /// it: it lives on in between by its first and last.
    fn size_rings(&mut self, phase: usize, asked: &Asked) {
        let codes = phase_codes(self.problem, phase, &asked.loads, &asked.stores);
        for (buffer, slots) in size_rings(&codes, self.problem.plan.phases[phase].slack) {
            let number = self.numbers.get(&(buffer, phase)).map(|&(number, _)| number as usize);
            if let Some(number) = number.filter(|_| !self.problem.is_whole(buffer, phase)) {
                let live = &mut self.lives[number];
                live.slots = slots.clamp(1, live.slots);
            }
        }
    }

    /// Finds addresses, and makes DMA stages of transfers.
    fn finish(self) -> Result<Streams, ScheduleError> {
        let Self { problem, lives, numbers, .. } = self;
        let behind = blocks::growths(problem, &lives, &numbers);
        let offsets = match &problem.plan.bases {
            None => blocks::offsets(problem, &lives, &behind)?,
            Some(bases) => known(problem, &lives, bases)?,
        };
        let bases = bases(problem, &lives, &offsets);
        let streams = streams(problem, &lives, offsets);
        let name = |transfer: &Transfer| &problem.graph.buffers[transfer.buffer].name;
        let view = |transfer: &Transfer, phase: usize| {
            let (stream, held) = &numbers[&(transfer.buffer, phase)];
            within(&transfer.view, *stream, held)
        };
        let load = |(transfer, segment): Moved, phase: usize| Piece {
            code: load(problem, &transfer, segment, view(&transfer, phase)),
            name: format!("{} (load)", name(&transfer)),
        };
        let store = |(transfer, segment): Moved, phase: usize| Piece {
            code: store(problem, &transfer, segment, view(&transfer, phase), View::default()),
            name: format!("{} (store)", name(&transfer)),
        };
        // What a phase waits for is asked for before what it loads ahead.
        let loads = self.loads.into_iter().zip(self.ahead).enumerate();
        let loads = loads.map(|(phase, (own, ahead))| {
            own.into_iter().map(|moved| load(moved, phase)).chain(ahead).collect()
        });
        let stores = self.stores.into_iter().enumerate();
        let stores =
            stores.map(|(phase, own)| own.into_iter().map(|moved| store(moved, phase)).collect::<Vec<_>>());
        let (loads, stores) = (loads.collect(), stores.collect());
        Ok(Streams { streams, bases, loads, stores, numbers })
    }
}

/// The streams that hold first rows of each buffer, of those that come in one phase those that stay longest
/// first.
type Prefixes = BTreeMap<BufferId, Vec<Standing>>;

/// A stream of first rows.
struct Standing {
    /// The phases whose stages write or read it.
    from: usize,
    until: usize,
    prefix: Prefix,
    /// Columns and channels of the buffer that it holds.
    held: BufferView,
}

/// The prefix of a buffer's stream in a phase, and the columns and channels that it holds.
fn prefix_of(
    problem: &PlacementProblem<'_>,
    buffer: BufferId,
    phase: usize,
    prefixes: &mut Prefixes,
    lives: &mut Vec<Live>,
) -> Option<(Prefix, BufferView)> {
    let is_new = |all: &Vec<Standing>| all.iter().all(|standing| standing.from != phase);
    if writes(problem, buffer, phase) && prefixes.get(&buffer).is_none_or(is_new) {
        make_prefixes(problem, buffer, phase, prefixes, lives);
    }
    let stands = |s: &&Standing| (s.from..=s.until).contains(&phase);
    let standing = prefixes.get(&buffer)?.iter().rev().find(stands)?;
    Some((standing.prefix, standing.held))
}

/// Makes the streams of a buffer's first rows that come in a phase; the one of the most rows.
fn make_prefixes(
    problem: &PlacementProblem<'_>,
    buffer: BufferId,
    phase: usize,
    prefixes: &mut Prefixes,
    lives: &mut Vec<Live>,
) -> Option<(Prefix, BufferView)> {
    let comes =
        |(_, prefix): &(usize, ResidentPrefix)| prefix.buffer == buffer && prefix.from as usize == phase;
    let mut planned: Vec<(usize, ResidentPrefix)> =
        problem.plan.prefixes.iter().copied().enumerate().filter(comes).collect();
    planned.sort_unstable_by_key(|(_, prefix)| prefix.rows);
    let from = phase + usize::from(!writes(problem, buffer, phase));
    let held = held_by_prefix(problem, buffer, from..=planned.first()?.1.until as usize);
    let mut behind = None;
    for (at, ResidentPrefix { rows, until, .. }) in planned {
        let until = until as usize;
        let live = Live::new(problem, buffer, rows, behind, phase);
        lives.push(Live { held, last: until, is_prefix: Some(at), ..live });
        let prefix = Prefix { stream: lives.len() as u32 - 1, rows };
        prefixes.entry(buffer).or_default().push(Standing { from, until, prefix, held });
        behind = Some(prefix);
    }
    behind.map(|prefix| (prefix, held))
}

/// Whether a stage of a phase writes a buffer.
fn writes(problem: &PlacementProblem<'_>, buffer: BufferId, phase: usize) -> bool {
    let writers = &problem.topology.uses[buffer].writers;
    writers.iter().any(|(stage, _)| problem.phase_of[*stage] == phase)
}

/// The columns and channels of first rows that stages use in some phases: those in use, or all where the
/// whole tensor is there too.
fn held_by_prefix(
    problem: &PlacementProblem<'_>,
    buffer: BufferId,
    phases: RangeInclusive<usize>,
) -> BufferView {
    let Buffer { rows, cols, chs, .. } = problem.graph.buffers[buffer];
    let all = BufferView::whole(buffer, rows, cols, chs);
    let windows = phases.map(|phase| {
        let stages = problem.phases.get(phase)?.iter().copied().collect();
        let window = transfers::window(problem.topology, &stages, buffer);
        if problem.is_whole(buffer, phase) { Some(all) } else { window }
    });
    windows.flatten().reduce(|a, b| bounding(&a, &b)).unwrap_or(all)
}

/// What a phase loads of a buffer's first `rows` for the next phase that reads it: what that would load of
/// them, of what is written before.
fn moved_ahead(
    problem: &PlacementProblem<'_>,
    buffer: BufferId,
    phase: usize,
    rows: u32,
) -> impl Iterator<Item = Transfer> {
    let uses = &problem.topology.uses[buffer];
    let phase_of = |stage: StageId| problem.phase_of[stage];
    let readers = uses.readers.iter().map(|&(stage, view)| (phase_of(stage), view));
    let later = readers.filter(|&(reader, _)| reader > phase);
    let next = later.clone().map(|(reader, _)| reader).min();
    let reads: Vec<BufferView> =
        later.filter(|&(reader, _)| Some(reader) == next).map(|(_, view)| view).collect();
    let pieces = uses.writers.iter().filter(|(stage, _)| phase_of(*stage) < phase).map(|(_, view)| *view);
    let role = problem.graph.buffers[buffer].role;
    let loads = transfers::loaded(role, &reads, pieces);
    let loads = loads.into_iter().map(move |view| Transfer { buffer, view });
    loads.filter_map(move |load| load.to_row(rows))
}

/// The gaps of tensors that a phase writes first and that grow into others.
pub(super) fn growth_gaps(problem: &PlacementProblem<'_>, phase: usize) -> Vec<(BufferId, u64)> {
    let set: StageSet = problem.phases[phase].iter().copied().collect();
    let touched = problem.topology.touched(&set);
    let pitch = |buffer: BufferId| problem.align(problem.graph.buffers[buffer].row_bytes());
    let is_born = |buffer: &BufferId| {
        let writers = problem.topology.uses[*buffer].writers.iter();
        writers.map(|(stage, _)| problem.phase_of[*stage]).min() == Some(phase)
    };
    let growing = touched.iter().copied().filter(is_born).filter_map(|buffer| {
        let into = problem.plan.residency.get(buffer)?.grows_into?;
        Some((buffer, into.buffer))
    });
    let (growing, probes): (Vec<BufferId>, Vec<OverlapProbe>) = growing
        .map(|(buffer, dying)| {
            let probe = OverlapProbe {
                dying,
                dying_pitch: pitch(dying),
                growing: buffer,
                growing_pitch: pitch(buffer),
            };
            (buffer, probe)
        })
        .unzip();
    if probes.is_empty() {
        return Vec::new();
    }
    let (mut loads, mut stores) = (Vec::new(), Vec::new());
    for &buffer in &touched {
        let is_whole = problem.is_whole(buffer, phase);
        let resident = is_whole && phase > 0 && problem.is_whole(buffer, phase - 1);
        loads.extend(moved_in(problem, &set, buffer, phase, resident).into_iter().map(|t| (t, 0)));
        stores.extend(moved_out(problem, &set, buffer, phase).into_iter().map(|t| (t, 0)));
    }
    let actors: Vec<Actor> = phase_codes(problem, phase, &loads, &stores).iter().map(Actor::new).collect();
    let (_, gaps) = ring_slots_and_gaps(&actors, problem.plan.phases[phase].slack, &probes);
    growing.into_iter().zip(gaps).collect()
}

/// What a phase loads of a buffer, were none of its rows there.
fn moved_in(
    problem: &PlacementProblem<'_>,
    set: &StageSet,
    buffer: BufferId,
    phase: usize,
    resident: bool,
) -> Vec<Transfer> {
    let declared = &problem.graph.buffers[buffer];
    match (problem.is_whole(buffer, phase), declared.role) {
        (false, _) => transfers::loads(problem.graph, problem.topology, set, buffer),
        (true, BufferRole::Input(_)) if !resident => {
            let view = BufferView::whole(buffer, declared.rows, declared.cols, declared.chs);
            vec![Transfer { buffer, view }]
        }
        (true, _) => Vec::new(),
    }
}

/// What a phase stores of a buffer, were no rows to stay: pieces of an output, and pieces of a stored buffer
/// that some phase loads later.
fn moved_out(
    problem: &PlacementProblem<'_>,
    set: &StageSet,
    buffer: BufferId,
    phase: usize,
) -> Vec<Transfer> {
    let role = problem.graph.buffers[buffer].role;
    let stored = problem.plan.residency.get(buffer).is_some_and(|r| r.stored);
    let is_output = matches!(role, BufferRole::Output(_));
    if !is_output && (!stored || matches!(role, BufferRole::Input(_))) {
        return Vec::new();
    }
    let is_loaded = |reader: StageId| {
        let later = problem.phase_of[reader];
        later > phase && !problem.is_whole(buffer, later)
    };
    transfers::stores(problem.graph, problem.topology, set, buffer, is_loaded)
}

/// The first row that a phase stores of what it would store, were no rows to stay.
fn first_stored(problem: &PlacementProblem<'_>, stored: &Transfer, phase: usize) -> u32 {
    match problem.graph.buffers[stored.buffer].role {
        BufferRole::Output(_) => 0,
        _ => problem.first_loaded_later(stored, phase),
    }
}

/// The DRAM segment of a buffer; spilled ones get one of their own.
fn segment_of(
    problem: &PlacementProblem<'_>,
    buffer: BufferId,
    segments: &mut Vec<Segment>,
    scratch: &mut BTreeMap<BufferId, u32>,
) -> u32 {
    let declared = &problem.graph.buffers[buffer];
    let n_inputs = segments.iter().filter(|s| s.kind == SegmentKind::Input).count() as u32;
    match declared.role {
        BufferRole::Input(at) => at,
        BufferRole::Output(at) => n_inputs + at,
        BufferRole::Internal => *scratch.entry(buffer).or_insert_with(|| {
            segments.push(Segment { kind: SegmentKind::Scratch, bytes: declared.size_bytes() });
            segments.len() as u32 - 1
        }),
    }
}

/// Where a transfer begins in its segment, and how far apart rows and pixels stand there, in bytes; segments
/// hold tensors dense, row-major.
struct InSegment {
    offset: u64,
    row_pitch_bytes: u64,
    pixel_pitch_bytes: u32,
}

impl InSegment {
    fn of(problem: &PlacementProblem<'_>, transfer: &Transfer) -> Self {
        let declared = &problem.graph.buffers[transfer.buffer];
        let elem_bytes = declared.elem.size_bytes();
        let moved = &transfer.view;
        let pixel = u64::from(moved.row0) * u64::from(declared.cols) + u64::from(moved.col0);
        let element = pixel * u64::from(declared.chs) + u64::from(moved.ch0);
        Self {
            offset: element * u64::from(elem_bytes),
            row_pitch_bytes: declared.row_bytes(),
            pixel_pitch_bytes: declared.chs * elem_bytes,
        }
    }
}

/// A DMA stage that loads a transfer's rows to `out`.
fn load<Tensor, Addr>(
    problem: &PlacementProblem<'_>,
    transfer: &Transfer,
    segment: u32,
    out: View<Tensor>,
) -> StageCode<Tensor, Addr> {
    let InSegment { offset, row_pitch_bytes, pixel_pitch_bytes } = InSegment::of(problem, transfer);
    let head = DmaIn { segment, offset, row_pitch_bytes, pixel_pitch_bytes };
    StageCode { head: head.into(), tail: Vec::new(), out }
}

/// A DMA stage that stores a transfer's rows, which stand at `src`; it writes to no tensor, so `nowhere` is
/// an empty view.
fn store<Tensor, Addr>(
    problem: &PlacementProblem<'_>,
    transfer: &Transfer,
    segment: u32,
    src: View<Tensor>,
    nowhere: View<Tensor>,
) -> StageCode<Tensor, Addr> {
    let InSegment { offset, row_pitch_bytes, pixel_pitch_bytes } = InSegment::of(problem, transfer);
    let head = DmaOut { src, segment, offset, row_pitch_bytes, pixel_pitch_bytes };
    StageCode { head: head.into(), tail: Vec::new(), out: nowhere }
}

/// The codes of a phase, DMA stages included, with views that name buffers; writers stand before readers.
fn phase_codes(
    problem: &PlacementProblem<'_>,
    phase: usize,
    loads: &[(Transfer, u32)],
    stores: &[(Transfer, u32)],
) -> Vec<StageTemplate> {
    let loads = loads.iter().map(|(transfer, segment)| load(problem, transfer, *segment, transfer.view));
    let stores = stores.iter().map(|(transfer, segment)| {
        let nowhere = BufferView::whole(transfer.buffer, 0, 0, 0);
        store(problem, transfer, *segment, transfer.view, nowhere)
    });
    let planned = problem.phases[phase].iter().zip(&problem.plan.phases[phase].stages);
    let stages = planned.map(|(&stage, placement)| {
        crate::cost::with_winograd(&problem.graph.stages[stage].code, placement.winograd)
    });
    loads.chain(stages).chain(stores).collect()
}

fn streams(problem: &PlacementProblem<'_>, lives: &[Live], offsets: Vec<u64>) -> Vec<Stream> {
    let stream = |(live, base): (&Live, u64)| Stream {
        elem: problem.graph.buffers[live.buffer].elem,
        rows: live.rows,
        cols: live.held.cols,
        chs: live.held.chs,
        base: base as u32,
        pitch_bytes: live.pitch(problem) as u32,
        slots: live.slots,
        prefix: live.prefix,
    };
    lives.iter().zip(offsets).map(stream).collect()
}

/// The offsets that a plan knows.
fn known(problem: &PlacementProblem<'_>, lives: &[Live], bases: &Bases) -> Result<Vec<u64>, ScheduleError> {
    let streams: BTreeMap<(BufferId, usize), (u64, u64)> =
        bases.streams.iter().map(|s| ((s.buffer, s.phase as usize), (s.base, s.bytes))).collect();
    let of = |live: &Live| match live.is_prefix {
        Some(at) => bases.prefixes.get(at).map(|&base| (base, live.bytes(problem))),
        None => streams.get(&(live.buffer, live.first)).copied(),
    };
    let offset = |live: &Live| {
        let name = &problem.graph.buffers[live.buffer].name;
        let (base, bytes) = of(live).ok_or_else(|| {
            ScheduleError::Unsound(format!("`{name}` has no address in phase {}", live.first))
        })?;
        let missing_bytes = live.bytes(problem).saturating_sub(bytes);
        let (memory, phase, names) = ("activation SRAM", live.first, vec![name.clone()]);
        if missing_bytes > 0 {
            return Err(ScheduleError::DoesNotFit { memory, phase, names, missing_bytes });
        }
        Ok(base)
    };
    lives.iter().map(offset).collect()
}

/// Where streams stand, by what they are.
fn bases(problem: &PlacementProblem<'_>, lives: &[Live], offsets: &[u64]) -> Bases {
    let mut bases = Bases { prefixes: vec![0; problem.plan.prefixes.len()], ..Bases::default() };
    for (live, &base) in lives.iter().zip(offsets) {
        match live.is_prefix {
            Some(at) => bases.prefixes[at] = base,
            None => {
                let (buffer, phase, bytes) = (live.buffer, live.first as u32, live.bytes(problem));
                bases.streams.push(StreamBase { buffer, phase, base, bytes });
            }
        }
    }
    bases
}
