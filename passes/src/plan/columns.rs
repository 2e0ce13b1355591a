//! Columns: sets of stages that may form a phase, each evaluated once.
//!
//! What a set costs as a phase is split into what depends on the set alone (ring sizes, division of the array, pipeline
//! time, weights), which stands here, and what depends on where its boundary tensors live, which the chooser adds. Ring
//! sizes are taken with every boundary tensor streamed to or from DRAM; a tensor that is whole in SRAM only relaxes them.

use std::collections::BTreeMap;

use strata_isa_spec::Target;

use super::cost::{Implementation, Running, StageProfile, align, pipeline};
use super::graph::{StageSet, Topology};
use super::partition::{Division, shared, spatial};
use super::rings::{Actor, Slack, Watch, ring_slots_watching};
use super::transfers::{Transfer, loads, stores};
use super::{BufferId, BufferRole, GrowsInto, StageGraph, StageId};

/// The problem, with everything that is asked of it often computed once.
#[derive(Debug)]
pub struct Context<'a> {
    /// The stages and buffers.
    pub graph: &'a StageGraph,
    /// The machine.
    pub target: &'a Target,
    /// Dependences.
    pub topology: Topology,
    /// Each stage's costs, by index.
    pub profiles: Vec<StageProfile>,
}

impl Context<'_> {
    /// Costs of a stage.
    pub fn profile(&self, stage: StageId) -> &StageProfile {
        &self.profiles[stage.as_u32() as usize]
    }

    /// Bytes of activation SRAM that so many rows of a buffer take.
    pub fn ring_bytes(&self, buffer: BufferId, slots: u32) -> u64 {
        u64::from(slots) * align(self.target, self.graph.buffers[buffer].row_bytes())
    }

    /// Bytes of activation SRAM that the whole of a buffer takes.
    pub fn whole_bytes(&self, buffer: BufferId) -> u64 {
        self.ring_bytes(buffer, self.graph.buffers[buffer].rows)
    }
}

/// One way to run a column.
#[derive(Clone, Debug)]
pub struct Variant {
    /// How the array is divided.
    pub division: Division,
    /// How each stage runs.
    pub implementations: Vec<Implementation>,
    /// How rings are sized.
    pub slack: Slack,
    /// Start of each stage, from the begin of the phase.
    pub starts: Vec<u64>,
    /// Cycles of the pipeline, without DRAM.
    pub cycles: u64,
    /// Bytes of the rings that only this column uses.
    pub private_bytes: u64,
    /// Bytes of each boundary buffer's ring.
    pub ring_bytes: Vec<u64>,
    /// Boundary buffers that may take the space of others, if those are read here for the last time.
    pub growths: Vec<Growth>,
}

/// A boundary buffer that a column writes, and one that it only reads whose space it may take. Both must be whole in SRAM.
#[derive(Clone, Copy, Debug)]
pub struct Growth {
    /// The one that is written.
    pub growing: BufferId,
    /// The one that is read, and how far before it the other begins.
    pub into: GrowsInto,
    /// Bytes that it saves.
    pub saved_bytes: u64,
}

/// A buffer that a column shares with other columns or with the outside.
#[derive(Clone, Debug)]
pub struct Boundary {
    /// The buffer.
    pub buffer: BufferId,
    /// Bytes of SRAM if it is whole.
    pub whole_bytes: u64,
    /// What is loaded if it is streamed from DRAM.
    pub load: Movement,
    /// What is stored if it goes to DRAM.
    pub store: Movement,
}

/// Transfers of one buffer in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Movement {
    /// DMA stages.
    pub stages: u32,
    /// Bytes.
    pub bytes: u64,
    /// Cycles of the longest transfer, a row at a time, each with its latency.
    pub cycles: u64,
    /// Cycles of one row of it.
    pub row_cycles: u64,
}

impl Movement {
    /// The cost of some transfers.
    pub fn of(context: &Context<'_>, transfers: &[Transfer]) -> Self {
        let mut movement = Self::default();
        for transfer in transfers {
            let bytes = transfer.bytes(context.graph);
            let rows = u64::from(transfer.view.rows.max(1));
            let dram = &context.target.dram;
            let row = (bytes / rows).div_ceil(u64::from(dram.bytes_per_cycle.max(1)))
                + u64::from(dram.latency_cycles);
            movement.stages += 1;
            movement.bytes += bytes;
            movement.cycles = movement.cycles.max(rows * row);
            movement.row_cycles = movement.row_cycles.max(row);
        }
        movement
    }
}

/// A set of stages that may form a phase.
#[derive(Clone, Debug)]
pub struct Column {
    /// The stages.
    pub set: StageSet,
    /// The stages, in order.
    pub stages: Vec<StageId>,
    /// Stages that must have run before.
    pub needs: StageSet,
    /// Aligned bytes of weight SRAM up to and including each stage.
    pub weights_up_to: Vec<u64>,
    /// Bytes of tables loaded.
    pub table_bytes: u64,
    /// Buffers that others use too.
    pub boundary: Vec<Boundary>,
    /// Ways to run it: none costs both more cycles and more SRAM than another.
    pub variants: Vec<Variant>,
}

impl Column {
    /// Bytes of weight SRAM.
    pub fn weight_bytes(&self) -> u64 {
        self.weights_up_to.last().copied().unwrap_or(0)
    }

    /// Evaluates a set; `None` if no variant can fit the target whatever stands in SRAM beside it.
    pub fn new(context: &Context<'_>, set: &StageSet) -> Option<Self> {
        let Context { graph, target, topology, .. } = context;
        let stages: Vec<StageId> = set.iter().collect();
        if stages.len() > target.limits.stages as usize {
            return None;
        }
        let mut weights_up_to = Vec::with_capacity(stages.len());
        let mut weights = 0;
        for &stage in &stages {
            weights += context.profile(stage).weight_bytes;
            weights_up_to.push(weights);
        }
        if weights > target.memory.weight {
            return None;
        }
        let touched = topology.touched(set);
        let (private, shared_buffers): (Vec<BufferId>, Vec<BufferId>) =
            touched.into_iter().partition(|&buffer| topology.is_private(graph, set, buffer));
        let mut dma = Vec::new();
        let boundary: Vec<Boundary> = (shared_buffers.into_iter())
            .map(|buffer| {
                let ins = loads(graph, topology, set, buffer);
                let outs = stores(graph, topology, set, buffer);
                dma.extend(ins.iter().map(|t| Actor::dma_in(t.view)));
                dma.extend(outs.iter().map(|t| Actor::dma_out(t.view)));
                Boundary {
                    buffer,
                    whole_bytes: context.whole_bytes(buffer),
                    load: Movement::of(context, &ins),
                    store: Movement::of(context, &outs),
                }
            })
            .collect();
        let mut column = Self {
            set: set.clone(),
            needs: topology.needs(set),
            weights_up_to,
            table_bytes: stages.iter().map(|&s| context.profile(s).table_bytes).sum(),
            stages,
            boundary,
            variants: Vec::new(),
        };
        column.variants = column.all_variants(context, &private, &dma);
        (!column.variants.is_empty()).then_some(column)
    }

    fn all_variants(&self, context: &Context<'_>, private: &[BufferId], dma: &[Actor]) -> Vec<Variant> {
        let profiles: Vec<&StageProfile> = self.stages.iter().map(|&s| context.profile(s)).collect();
        let mut variants: Vec<Variant> = Vec::new();
        let mut offer = |variant: Variant| {
            let least = variant.private_bytes
                + (variant.ring_bytes.iter().zip(&self.boundary))
                    .map(|(ring, b)| *ring.min(&b.whole_bytes))
                    .sum::<u64>();
            if least <= context.target.memory.activation {
                variants.push(variant);
            }
        };
        let bytes = |v: &Variant| v.private_bytes + v.ring_bytes.iter().sum::<u64>();
        if let Some(division) = spatial(&profiles, context.target) {
            let overlapping = self.variant(context, private, dma, division.clone(), Slack::Overlap);
            // Alone, a stage has only transfers to work in lockstep with: worth it only where nothing else fits.
            let wants_lockstep =
                self.stages.len() > 1 || bytes(&overlapping) > context.target.memory.activation;
            offer(overlapping);
            if wants_lockstep {
                offer(self.variant(context, private, dma, division, Slack::Lockstep));
            }
        }
        if self.stages.len() > 1 {
            let division = shared(self.stages.len(), context.target);
            offer(self.variant(context, private, dma, division, Slack::Lockstep));
        }
        let dominated = |v: &Variant, at: usize, all: &[Variant]| {
            all.iter().enumerate().any(|(other, w)| {
                let no_worse = w.cycles <= v.cycles && bytes(w) <= bytes(v);
                no_worse && other != at && ((w.cycles, bytes(w)) != (v.cycles, bytes(v)) || other < at)
            })
        };
        (variants.iter().enumerate())
            .filter(|(at, variant)| !dominated(variant, *at, &variants))
            .map(|(_, variant)| variant.clone())
            .collect()
    }

    fn variant(
        &self,
        context: &Context<'_>,
        private: &[BufferId],
        dma: &[Actor],
        division: Division,
        slack: Slack,
    ) -> Variant {
        let implementations: Vec<Implementation> = (self.stages.iter().zip(&division.of_stage))
            .map(|(&stage, &p)| *context.profile(stage).on(division.partitions[p as usize]))
            .collect();
        let running: Vec<Running<'_>> = (self.stages.iter().zip(&implementations))
            .map(|(&stage, i)| Running {
                actor: context.profile(stage).actor(i.winograd),
                step_cycles: i.step_cycles,
            })
            .collect();
        let mut actors: Vec<Actor> = dma.iter().filter(|actor| actor.out().is_some()).cloned().collect();
        actors.extend(running.iter().map(|r| r.actor.clone()));
        actors.extend(dma.iter().filter(|actor| actor.out().is_none()).cloned());
        let watches = self.watches(context);
        let (slots, gaps) = ring_slots_watching(&actors, slack, &watches);
        let (starts, cycles) = if division.partitions.len() == 1 && self.stages.len() > 1 {
            shared_time(context.target, &running)
        } else {
            let time = pipeline(&running, slack == Slack::Lockstep);
            (time.starts, time.end)
        };
        let ring = |buffer: BufferId| ring_of(context, &slots, buffer);
        Variant {
            division,
            implementations,
            slack,
            starts,
            cycles,
            private_bytes: private.iter().map(|&b| ring(b)).sum(),
            ring_bytes: self.boundary.iter().map(|b| ring(b.buffer)).collect(),
            growths: watches.iter().zip(gaps).filter_map(|(w, gap)| growth(context, w, gap)).collect(),
        }
    }

    /// Pairs of boundary buffers of which one may take the space of the other.
    fn watches(&self, context: &Context<'_>) -> Vec<Watch> {
        let is_large = |b: &&Boundary| b.whole_bytes >= context.target.memory.activation / LEAST_SHARE;
        let uses = |b: &Boundary| &context.topology.uses[b.buffer.as_u32() as usize];
        let is_written = |b: &Boundary| uses(b).writers.iter().any(|(stage, _)| self.set.contains(*stage));
        let is_read = |b: &Boundary| uses(b).readers.iter().any(|(stage, _)| self.set.contains(*stage));
        let pitch = |b: &Boundary| context.ring_bytes(b.buffer, 1);
        let dying = self.boundary.iter().filter(is_large).filter(|b| is_read(b) && !is_written(b));
        dying
            .flat_map(|dying| {
                let growing = self.boundary.iter().filter(is_large).filter(|b| is_written(b));
                growing.map(|growing| Watch {
                    dying: dying.buffer.as_u32(),
                    dying_pitch: pitch(dying),
                    growing: growing.buffer.as_u32(),
                    growing_pitch: pitch(growing),
                })
            })
            .collect()
    }
}

/// A tensor of less than this part of SRAM is not worth growing into, nor letting grow.
const LEAST_SHARE: u64 = 64;

/// What a watched pair saves, if anything. The gap was seen with transfers at the borders, which a whole tensor does without;
/// a row more of each makes up for what that changes.
fn growth(context: &Context<'_>, watch: &Watch, gap: u64) -> Option<Growth> {
    let (growing, dying) = (BufferId::from_u32(watch.growing), BufferId::from_u32(watch.dying));
    let gap_bytes = gap + watch.dying_pitch + watch.growing_pitch;
    let into = GrowsInto { buffer: dying, gap_bytes };
    let (before, after) = (context.whole_bytes(dying), context.whole_bytes(growing));
    let saved_bytes = (before + after).saturating_sub(into.union_bytes(before, after));
    (saved_bytes > 0).then_some(Growth { growing, into, saved_bytes })
}

fn ring_of(context: &Context<'_>, slots: &BTreeMap<u32, u32>, buffer: BufferId) -> u64 {
    // A buffer that is read only, and not loaded, is whole; it has no ring.
    let rows = context.graph.buffers[buffer].rows;
    slots
        .get(&buffer.as_u32())
        .map_or(context.whole_bytes(buffer), |&s| context.ring_bytes(buffer, s.min(rows)))
}

/// Time of stages that take turns on one partition: their work, and a switch a step, since a stage's next step mostly waits
/// for a step of another.
fn shared_time(target: &Target, stages: &[Running<'_>]) -> (Vec<u64>, u64) {
    let switch = u64::from(target.switch.stage_cycles);
    let mut first = 0;
    let mut starts = Vec::with_capacity(stages.len());
    let mut total = 0;
    for stage in stages {
        starts.push(first);
        first += switch + stage.step_cycles;
        total += u64::from(stage.actor.n_steps()) * (stage.step_cycles + switch);
    }
    (starts, total)
}

/// Whether the role of a buffer puts it in DRAM from the start.
pub fn stands_in_dram(graph: &StageGraph, buffer: BufferId) -> bool {
    matches!(graph.buffers[buffer].role, BufferRole::Input(_))
}
