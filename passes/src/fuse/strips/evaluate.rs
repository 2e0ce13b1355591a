//! What a set costs in strips.
//!
//! Every number is of the widest strip or the most of any, but for bytes moved, which are of all: an estimate
//! from above that the chooser goes by. What a choice really costs is then told by evaluating the phases that
//! it becomes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use strata_backend::cost::rings::{Actor, Buffering};
use strata_backend::cost::transfers::{Transfer, loaded, part_read};
use strata_backend::cost::{PipelineTime, StageProfile, pipeline};
use strata_backend::model::graph::bounding;
use strata_backend::model::{BufferId, BufferRole, BufferView, StageId};
use strata_isa_spec::Target;

use crate::fuse::candidates::candidate::{
    Candidate, Context, How, Method, Movement, Ring, Variant, implementations, running, slots, turn_cycles,
    ways,
};
use crate::fuse::candidates::partition::divisions;
use crate::fuse::strips::Strips;
use crate::fuse::strips::window::Windowed;

/// Numbers of strips that are tried, in order.
pub const STRIPS: [u32; 12] = [2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32];

/// The most strips that are tried.
pub const MOST_STRIPS: u32 = 32;

/// More strips must save one part in so many of SRAM; where the halo outgrows the strips, they no longer do.
const LEAST_GAIN: u64 = 16;

/// A set is offered in strips if it takes more than this part of activation SRAM at full width.
const CRAMPED: u64 = 4;

/// Numbers of strips that are offered of a set, at most: the fewest that fit, and more while these take much.
const OFFERED: usize = 3;

/// Strips that take no more than this part of activation SRAM need not be narrower.
const ENOUGH: u64 = 8;

/// Whether what takes so many bytes of SRAM at full width is offered in strips.
pub fn may_have_strips(full_bytes: u64, target: &Target) -> bool {
    full_bytes > target.memory.activation / CRAMPED
}

/// Ways to run a candidate in strips by a method; none if it fits well without. `full_bytes` is the least
/// SRAM that it takes at full width.
pub fn variants(
    context: &Context<'_>,
    candidate: &Candidate,
    method: Method,
    full_bytes: u64,
) -> Vec<Variant> {
    let capacity = context.target.memory.activation;
    if !may_have_strips(full_bytes, context.target) {
        return Vec::new();
    }
    let mut found: Vec<Variant> = Vec::new();
    let mut offered = 0;
    let mut memo = BTreeMap::new();
    let mut before = full_bytes;
    // With its halo, a strip takes more than its share of the whole.
    for n in STRIPS.into_iter().filter(|&n| full_bytes / u64::from(n) <= capacity) {
        let Some(strips) = Strips::new(context.graph, &context.topology, &candidate.set, n) else { continue };
        let mut ways = in_strips(context, candidate, method, &strips, &mut memo);
        let Some(bytes) = ways.iter().map(|variant| candidate.least_bytes(variant)).min() else { continue };
        if bytes > before - before / LEAST_GAIN {
            break;
        }
        before = bytes;
        ways.retain(|variant| candidate.least_bytes(variant) <= capacity);
        if !ways.is_empty() {
            found.append(&mut ways);
            offered += 1;
        }
        if bytes <= capacity / ENOUGH || offered == OFFERED {
            break;
        }
    }
    found
}

/// Row slots by how the stages run: they do not depend on the columns.
type SlotMemo = BTreeMap<(Vec<bool>, Buffering), BTreeMap<BufferId, u32>>;

/// Ways to run a candidate in given strips.
fn in_strips(
    context: &Context<'_>,
    candidate: &Candidate,
    method: Method,
    strips: &Strips,
    memo: &mut SlotMemo,
) -> Vec<Variant> {
    let widest = |at: usize| {
        let width = |outs: &Vec<Range<u32>>| outs[at].end - outs[at].start;
        (0..strips.n())
            .max_by_key(|&strip| (width(&strips.outs[strip]), std::cmp::Reverse(strip)))
            .unwrap_or(0)
    };
    let profiles: Vec<Arc<StageProfile>> = (candidate.stages.iter().enumerate())
        .map(|(at, &stage)| context.narrow_profile(stage, &strips.codes[widest(at)][at].code, method))
        .collect();
    let profiles: Vec<&StageProfile> = profiles.iter().map(Arc::as_ref).collect();
    // The structure of a phase is that of a strip between two others.
    let actors: Vec<StageProfile> = (profiles.iter().zip(&strips.codes[1]))
        .map(|(profile, windowed)| profile.moved_to(&windowed.code))
        .collect();
    let actors: Vec<&StageProfile> = actors.iter().collect();
    let traffic = Traffic::new(context, candidate, strips);
    let dma = traffic.actors(1);
    let divisions = divisions(&profiles, context.target, !context.puts_room_first());
    ways(context, &divisions, method, |How { method, division, slack }| {
        let how = implementations(&profiles, division);
        let key = (how.iter().map(|i| i.winograd).collect(), slack);
        let running = running(context.target, &actors, &how, division);
        let n_slots = memo.entry(key).or_insert_with(|| slots(&running, &dma, slack, &[]).0);
        let time = pipeline(&running, slack == Buffering::Lockstep);
        let (private, mut rings) = traffic.rings(n_slots);
        for (ring, boundary) in rings.iter_mut().zip(&candidate.boundary) {
            ring.turn_cycles = turn_cycles(&running, slack, boundary.buffer);
            ring.load = ring.load.filling(context.target, &running, &time, boundary.buffer);
            ring.store = ring.store.draining(&running, &time, boundary.buffer);
        }
        let PipelineTime { starts, end: cycles, .. } = time;
        Variant {
            method,
            strips: Some(strips.n() as u32),
            division: division.clone(),
            implementations: how,
            slack,
            starts,
            cycles,
            correction: Cell::new(0),
            private,
            rings,
            // A tensor that one strip has read the next reads again.
            growths: Vec::new(),
        }
    })
}

/// What the strips of a candidate read and write of each buffer.
struct Traffic<'a> {
    context: &'a Context<'a>,
    candidate: &'a Candidate,
    buffers: Vec<Streamed>,
}

/// What the stages of each strip read and write of a buffer, stage by stage.
struct Used {
    reads: Vec<Vec<BufferView>>,
    outs: Vec<Vec<BufferView>>,
}

impl Used {
    /// Nothing yet, by so many strips.
    fn by(n_strips: usize) -> Self {
        Self { reads: vec![Vec::new(); n_strips], outs: vec![Vec::new(); n_strips] }
    }
}

/// A buffer that strips use.
struct Streamed {
    buffer: BufferId,
    /// For each strip, the columns and channels in use, if any.
    windows: Vec<Option<BufferView>>,
    /// For each strip, what is loaded.
    loads: Vec<Vec<BufferView>>,
    /// For each strip, what is stored.
    stores: Vec<Vec<BufferView>>,
}

impl<'a> Traffic<'a> {
    fn new(context: &'a Context<'a>, candidate: &'a Candidate, strips: &Strips) -> Self {
        let touched = context.topology.touched(&candidate.set);
        let mut used: Vec<Used> = touched.iter().map(|_| Used::by(strips.n())).collect();
        let at = |view: &BufferView| touched.binary_search(&view.tensor).ok();
        for (strip, codes) in strips.codes.iter().enumerate() {
            for Windowed { code, .. } in codes {
                for view in code.reads() {
                    at(&view).into_iter().for_each(|at| used[at].reads[strip].push(view));
                }
                at(&code.out).into_iter().for_each(|at| used[at].outs[strip].push(code.out));
            }
        }
        let buffers = touched.iter().zip(&used);
        let buffers = buffers.map(|(&buffer, used)| streamed(context, candidate, strips, buffer, used));
        Self { context, candidate, buffers: buffers.collect() }
    }

    /// The transfers of a strip.
    fn actors(&self, strip: usize) -> Vec<Actor> {
        let of = |b: &Streamed| {
            let ins = b.loads[strip].iter().map(|&view| Actor::dma_in(view));
            ins.chain(b.stores[strip].iter().map(|&view| Actor::dma_out(view))).collect::<Vec<_>>()
        };
        self.buffers.iter().flat_map(of).collect()
    }

    /// The rings that only the candidate uses, and those of its boundary, given their row slots.
    fn rings(&self, slots: &BTreeMap<BufferId, u32>) -> (Ring, Vec<Ring>) {
        let mut private = Ring::default();
        let mut boundary = vec![Ring::default(); self.candidate.boundary.len()];
        for streamed in &self.buffers {
            let rows = self.context.graph.buffers[streamed.buffer].rows;
            let n_slots = slots.get(&streamed.buffer).map_or(rows, |&slots| slots.min(rows));
            let bytes =
                streamed.windows.iter().flatten().map(|window| self.context.ring_bytes(window, n_slots));
            let bytes = bytes.max().unwrap_or(0);
            let movement = |strips: &[Vec<BufferView>]| {
                let mut all = Movement::default();
                for views in strips {
                    let transfer = |&view: &BufferView| Transfer { buffer: streamed.buffer, view };
                    let transfers: Vec<Transfer> = views.iter().map(transfer).collect();
                    all.then(Movement::of(self.context, &transfers));
                }
                all
            };
            let (load, store) = (movement(&streamed.loads), movement(&streamed.stores));
            match self.candidate.boundary.iter().position(|b| b.buffer == streamed.buffer) {
                Some(at) => boundary[at] = Ring { bytes, load, store, turn_cycles: 0 },
                None => {
                    private.bytes += bytes;
                    private.load.add(load);
                    private.store.add(store);
                }
            }
        }
        (private, boundary)
    }
}

fn streamed(
    context: &Context<'_>,
    candidate: &Candidate,
    strips: &Strips,
    buffer: BufferId,
    used: &Used,
) -> Streamed {
    let role = context.graph.buffers[buffer].role;
    let Used { reads, outs } = used;
    let windows = reads.iter().zip(outs);
    let windows = windows.map(|(r, w)| r.iter().chain(w).copied().reduce(|a, b| bounding(&a, &b))).collect();
    let mut streamed = Streamed { buffer, windows, loads: Vec::new(), stores: Vec::new() };
    let is_outside = |stage: &StageId| !candidate.set.contains(*stage);
    let uses = &context.topology.uses[buffer];
    let outside = |list: &[(StageId, BufferView)]| -> Vec<BufferView> {
        list.iter().filter(|(stage, _)| is_outside(stage)).map(|(_, view)| *view).collect()
    };
    let (read_outside, mut pieces) = (outside(&uses.readers), outside(&uses.writers));
    for strip in 0..strips.n() {
        if strips.own.contains_key(&buffer) {
            streamed.loads.push(Vec::new());
            streamed.stores.push(Vec::new());
            continue;
        }
        streamed.loads.push(loaded(role, &reads[strip], pieces.iter().copied()));
        let stored = outs[strip].iter().filter_map(|piece| {
            let later = reads[strip + 1..].iter().flatten().chain(&read_outside).copied();
            if matches!(role, BufferRole::Output(_)) { Some(*piece) } else { part_read(later, piece) }
        });
        streamed.stores.push(stored.collect());
        pieces.extend(&outs[strip]);
    }
    streamed
}
