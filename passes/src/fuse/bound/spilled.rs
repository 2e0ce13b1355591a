//! What activation SRAM allows: bytes that no plan keeps there from the stage that makes them to the last
//! that reads them.
//!
//! A plan runs each stage in one phase, or in strips that follow one another, and has the tables of all
//! stages of the phase, or of all strips, in weight SRAM as long as they last. Let `k` depend on `j`. All
//! stages on the paths from the one to the other run no earlier than `j` and no later than `k`. Where these
//! have more tables than weight SRAM holds, or are more than a phase may have, `j` and `k` are *apart*: at
//! some border between two phases `j` has run and `k` has not.
//!
//! At a border a set of stages has run with all that they depend on. What they made and others are to read
//! is *alive*: it stands in activation SRAM, or was stored in DRAM and will be loaded. Of all sets that `j`
//! is in and `k` is not, take the one with the fewest bytes alive, which is a minimum cut: what is alive
//! there beyond activation SRAM is stored and loaded by every plan. Bytes of outputs are stored anyway, and
//! count once. What several stages read counts by what the one that reads the least of it needs.
//!
//! Stages that are apart after `k`, or before `j`, are apart at other borders. Of these, what was made from
//! `k` on, or is read up to `j` only, is not alive at the first, and so counts beside it.

use std::cell::Cell;
use std::cmp::Reverse;

use petgraph::algo::maximum_flow::dinics;
use petgraph::graph::{DiGraph, NodeIndex};
use strata_backend::model::graph::{StageSet, Topology, intersection};
use strata_backend::model::{BufferRole, BufferView, StageGraph, StageId};
use strata_isa_spec::Target;

use super::bytes::n_elements;
use super::needed::Needed;
use super::order::Demands;

/// Minimum cuts that are looked for, at most.
const MOST_CUTS: usize = 64;

/// What a stage makes and others read.
#[derive(Clone, Debug)]
struct Made {
    stage: StageId,
    readers: StageSet,
    /// DRAM bytes that are moved if it is not kept in SRAM.
    moved_bytes: u64,
}

/// Stages that are not in one phase: `last` depends on `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Apart {
    first: StageId,
    last: StageId,
}

/// DRAM bytes that every plan moves of what stages make, beside outputs once.
pub(super) fn spilled_bytes(
    graph: &StageGraph,
    needed: &Needed,
    topology: &Topology,
    demands: &Demands,
    target: &Target,
) -> u64 {
    let made: Vec<Made> =
        graph.stages.keys().filter_map(|stage| made(graph, needed, topology, stage)).collect();
    // A byte that is kept saves no more than storing and loading it.
    let kept = 2 * target.memory.activation;
    let bound = Bound { topology, kept, cuts_left: Cell::new(MOST_CUTS) };
    let pairs = bound.apart(graph, &made, demands, target);
    bound.spilled(&pairs, &made)
}

/// What a stage makes of which others read.
fn made(graph: &StageGraph, needed: &Needed, topology: &Topology, stage: StageId) -> Option<Made> {
    let out = graph.stages[stage].code.out;
    let buffer = &graph.buffers[out.tensor];
    let mut readers = StageSet::default();
    let mut fewest = u64::MAX;
    for &(reader, _) in &topology.uses[out.tensor].readers {
        let reads = needed.reads[reader].iter().filter(|view| view.tensor == out.tensor);
        let read: Vec<BufferView> = reads.filter_map(|view| intersection(view, &out)).collect();
        let elements = n_elements(read);
        if elements > 0 {
            readers.insert(reader);
            fewest = fewest.min(elements);
        }
    }
    let times = if matches!(buffer.role, BufferRole::Output(_)) { 1 } else { 2 };
    let bytes = u64::from(buffer.elem.size_bytes());
    (!readers.is_empty()).then(|| Made { stage, readers, moved_bytes: times * fewest * bytes })
}

struct Bound<'a> {
    topology: &'a Topology,
    /// What activation SRAM saves at a border at the most.
    kept: u64,
    cuts_left: Cell<usize>,
}

impl Bound<'_> {
    /// Stages that are apart, where more may be alive than activation SRAM holds; none between which others
    /// are.
    fn apart(&self, graph: &StageGraph, made: &[Made], demands: &Demands, target: &Target) -> Vec<Apart> {
        let alive = alive_in_order(made, graph.stages.len());
        let (most_stages, most_bytes) = (target.limits.stages as usize, target.memory.weight);
        let mut pairs: Vec<Apart> = Vec::new();
        for first in graph.stages.keys().rev() {
            // Where less is alive at any border in the order of the stages, the minimum is less.
            let is_full = |at: &StageId| alive[at.as_u32() as usize] > self.kept;
            let full = graph.stages.keys().skip(first.as_u32() as usize).take_while(is_full).count();
            let reach = first.as_u32() + full as u32;
            let after = self.topology.descendants[first].iter().take_while(|last| last.as_u32() <= reach);
            for last in after {
                let pair = Apart { first, last };
                if pairs.iter().any(|other| self.holds(pair, *other)) {
                    continue;
                }
                let inner = self.topology.descendants[first].iter();
                let inner = inner.filter(|&stage| self.topology.ancestors[last].contains(stage));
                let between: StageSet = inner.chain([first, last]).collect();
                let (_, bytes) = demands.of(between.iter());
                if between.len() > most_stages || bytes > most_bytes {
                    pairs.push(pair);
                }
            }
        }
        pairs
    }

    /// Whether both stages of one pair stand from one of another to the other.
    fn holds(&self, outer: Apart, inner: Apart) -> bool {
        self.is_from(outer.first, inner.first) && self.is_from(inner.last, outer.last)
    }

    /// Whether a stage is another, or depends on it.
    fn is_from(&self, first: StageId, last: StageId) -> bool {
        first == last || self.topology.descendants[first].contains(last)
    }

    /// What every plan moves of some of what is made, as some pairs of stages are apart.
    fn spilled(&self, pairs: &[Apart], made: &[Made]) -> u64 {
        let alive = alive_in_order(made, self.topology.preds.len());
        let at_most = |pair: &Apart| {
            let (first, last) = (pair.first.as_u32() as usize, pair.last.as_u32() as usize);
            alive[first..last].iter().min().copied().unwrap_or(0)
        };
        let mut by_most: Vec<(u64, Apart)> = pairs.iter().map(|pair| (at_most(pair), *pair)).collect();
        by_most.sort_by_key(|&(most, pair)| (Reverse(most), pair.first, pair.last));
        let (mut least, mut best) = (self.kept, None);
        for (most, pair) in by_most {
            if most <= least || self.cuts_left.get() == 0 {
                break;
            }
            self.cuts_left.set(self.cuts_left.get() - 1);
            let alive = self.least_alive(pair, made);
            if alive > least {
                (least, best) = (alive, Some(pair));
            }
        }
        let Some(Apart { first, last }) = best else { return 0 };
        let after: Vec<Apart> = pairs.iter().copied().filter(|pair| self.is_from(last, pair.first)).collect();
        let made_after: Vec<Made> =
            made.iter().filter(|made| self.is_from(last, made.stage)).cloned().collect();
        let before: Vec<Apart> =
            pairs.iter().copied().filter(|pair| self.is_from(pair.last, first)).collect();
        let is_read_before = |made: &&Made| made.readers.iter().all(|reader| self.is_from(reader, first));
        let made_before: Vec<Made> = made.iter().filter(is_read_before).cloned().collect();
        least - self.kept + self.spilled(&after, &made_after) + self.spilled(&before, &made_before)
    }

    /// The least that is alive, in DRAM bytes, when the first of two stages has run and the last has not.
    fn least_alive(&self, pair: Apart, made: &[Made]) -> u64 {
        let all = made.iter().map(|made| made.moved_bytes).sum::<u64>() + 1;
        let n_edges: usize = made.iter().map(|made| made.readers.len() + 1).sum();
        let mut network: DiGraph<(), u64> =
            DiGraph::with_capacity(self.topology.preds.len() + made.len(), 2 * n_edges);
        // A stage is on the side of the first if it has run.
        let stages: Vec<NodeIndex> = self.topology.preds.keys().map(|_| network.add_node(())).collect();
        let node = |stage: StageId| stages[stage.as_u32() as usize];
        for (stage, preds) in &self.topology.preds {
            for pred in preds.iter() {
                network.add_edge(node(stage), node(pred), all);
            }
        }
        for made in made {
            let dead = network.add_node(());
            network.add_edge(node(made.stage), dead, made.moved_bytes);
            for reader in made.readers.iter() {
                network.add_edge(dead, node(reader), all);
            }
        }
        dinics(&network, node(pair.first), node(pair.last)).0
    }
}

/// The DRAM bytes of what is alive after each stage, if they run in their order.
fn alive_in_order(made: &[Made], n_stages: usize) -> Vec<u64> {
    let mut alive = vec![0; n_stages];
    for made in made {
        let last = made.readers.iter().last().unwrap_or(made.stage);
        for bytes in &mut alive[made.stage.as_u32() as usize..last.as_u32() as usize] {
            *bytes += made.moved_bytes;
        }
    }
    alive
}

#[cfg(test)]
mod tests {
    use strata_backend::model::samples::unet;
    use strata_ir::eval::random::Rng;

    use super::super::bytes::table_bytes;
    use super::super::{bounds, small};
    use super::*;

    /// The least that is alive over all sets of stages with all that they depend on, by trying all.
    fn least_of_all(topology: &Topology, pair: Apart, made: &[Made]) -> u64 {
        let stages: Vec<StageId> = topology.preds.keys().collect();
        let sets = (0u32..1 << stages.len()).map(|bits| -> StageSet {
            stages.iter().copied().filter(|stage| bits >> stage.as_u32() & 1 == 1).collect()
        });
        let may_have_run = |set: &StageSet| {
            let is_closed = set.iter().all(|stage| topology.preds[stage].is_subset(set));
            is_closed && set.contains(pair.first) && !set.contains(pair.last)
        };
        let alive = |set: StageSet| -> u64 {
            let is_alive = |made: &&Made| set.contains(made.stage) && !made.readers.without(&set).is_empty();
            made.iter().filter(is_alive).map(|made| made.moved_bytes).sum()
        };
        sets.filter(may_have_run).map(alive).min().expect("all that the last depends on is such a set")
    }

    #[test]
    fn a_cut_is_the_least_of_all() {
        let mut n_pairs = 0;
        for seed in 0..200 {
            let graph = small::graph(&mut Rng::new(seed));
            let topology = Topology::new(&graph).expect("it is a graph");
            let needed = Needed::new(&graph, &topology);
            let made: Vec<Made> =
                graph.stages.keys().filter_map(|stage| made(&graph, &needed, &topology, stage)).collect();
            let bound = Bound { topology: &topology, kept: 0, cuts_left: Cell::new(0) };
            for first in graph.stages.keys() {
                for last in topology.descendants[first].iter() {
                    let pair = Apart { first, last };
                    let least = least_of_all(&topology, pair, &made);
                    assert_eq!(bound.least_alive(pair, &made), least, "seed {seed}, {pair:?}");
                    n_pairs += 1;
                }
            }
        }
        assert!(n_pairs > 1_000, "{n_pairs}");
    }

    /// The innermost layers of U-Net have more tables than weight SRAM holds: what goes around them is alive
    /// all together, but for what activation SRAM keeps of it.
    #[test]
    fn what_goes_around_many_weights_is_spilled() {
        let graph = unet(512, 512);
        let topology = Topology::new(&graph).expect("it is a graph");
        let mut target = Target::preset("x1", &[]).expect("a preset");
        target.memory.activation = 1 << 20;
        let spilled = |target: &Target| {
            let bounds = bounds(&graph, &topology, target);
            bounds.bytes - bounds.once_bytes
        };
        // Four skips of 64, 128, 256 and 512 channels.
        let skips = 2 * ((64 << 18) + (128 << 16) + (256 << 14) + (512 << 12));
        let least = spilled(&target);
        assert!(least >= skips - (2 << 20), "{least} of {skips}");
        let needed = Needed::new(&graph, &topology);
        assert!(table_bytes(&needed.graph).values().sum::<u64>() > 2 * target.memory.weight);
        // Where all tables fit, all may run in one phase, and nothing is sure to be alive.
        target.memory.weight = 64 << 20;
        assert_eq!(spilled(&target), 0);
    }
}
