//! The portfolio: heuristics first, exact search next, and the account of what does not fit.

use crate::allocate::heuristics::{self, Packing};
use crate::allocate::instance::{Instance, split};
use crate::allocate::solver::{Focus, Search, Verdict};
use crate::allocate::{Allocation, AllocationProblem, Buffer, Limits, Outcome, Proof, Shortfall};

/// Instances beyond this many buffers are left to the heuristics: a node of the search costs too much there.
const MAX_EXACT_BLOCKS: usize = 4_000;

/// What is tried under each order.
const FOCI: [Focus; 3] = [Focus::Lowest, Focus::Tightest, Focus::Buffer];

/// Nodes of the first run under each order; doubled when all orders have had their turn.
const FIRST_RUN_NODES: u64 = 500;

/// Moves of the hill climber, times buffers, at most.
const CLIMB_WORK: u64 = 200_000;

/// The same for each node that the search may visit: who asks for a short search gets a short climb.
const CLIMB_WORK_OF_NODE: u64 = 20;

/// Nodes for each question asked while narrowing down the buffers that do not fit.
const NARROWING_NODES: u64 = 2_000;

/// What is known of one instance.
struct Bounds {
    packing: Packing,
    lower_bound: u64,
    /// Nodes it took to learn this.
    nodes: u64,
}

/// The solving of one instance, with what has been learnt about it.
struct Effort<'a> {
    instance: &'a Instance,
    search: Search<'a>,
    ranks: Vec<Vec<u32>>,
    best: Packing,
    climbed: bool,
}

impl<'a> Effort<'a> {
    /// Begins with the heuristics, which stop at `target`.
    fn new(instance: &'a Instance, target: u64) -> Self {
        let orders = heuristics::orders(instance);
        let (best, _) = heuristics::portfolio(instance, &orders, target);
        let ranks = orders.iter().map(|order| heuristics::ranks(order)).collect();
        Self { instance, search: Search::new(instance), ranks, best, climbed: false }
    }

    /// Tries to get to `target`, for at most `max_nodes` nodes.
    fn reach(&mut self, target: u64, max_nodes: u64) -> Verdict {
        let target = self.instance.peak_within(target);
        if self.best.peak <= target {
            return Verdict::Placed(self.best.offsets.clone());
        }
        if target < self.instance.load {
            return Verdict::Infeasible;
        }
        let is_small = self.instance.blocks.len() <= MAX_EXACT_BLOCKS;
        let stop = self.search.nodes.saturating_add(max_nodes);
        let mut run_nodes = FIRST_RUN_NODES.max(2 * self.instance.blocks.len() as u64);
        while is_small && self.search.nodes < stop {
            let turns = self.ranks.iter().flat_map(|ranks| FOCI.map(|focus| (ranks, focus)));
            for (ranks, focus) in turns {
                let nodes = run_nodes.min(stop.saturating_sub(self.search.nodes));
                match self.search.run(target, ranks, focus, nodes) {
                    Verdict::Exhausted => {}
                    Verdict::Infeasible => return Verdict::Infeasible,
                    Verdict::Placed(offsets) => {
                        self.best =
                            Packing { peak: peak_of(self.instance, &offsets), offsets: offsets.clone() };
                        return Verdict::Placed(offsets);
                    }
                }
            }
            if self.climb(target, max_nodes) {
                return Verdict::Placed(self.best.offsets.clone());
            }
            run_nodes *= 2;
        }
        if self.climb(target, max_nodes) {
            Verdict::Placed(self.best.offsets.clone())
        } else {
            Verdict::Exhausted
        }
    }

    /// Climbs once; whether that got to `target`.
    fn climb(&mut self, target: u64, max_nodes: u64) -> bool {
        if !std::mem::replace(&mut self.climbed, true) {
            let work = CLIMB_WORK.min(max_nodes.saturating_mul(CLIMB_WORK_OF_NODE));
            let rounds = work / self.instance.blocks.len() as u64;
            self.best = heuristics::climb(self.instance, &self.best, target, rounds);
        }
        self.best.peak <= target
    }

    /// Narrows the smallest peak down as far as `max_nodes` go, but not below `target`.
    fn minimise(mut self, target: u64, max_nodes: u64) -> Bounds {
        let stop = max_nodes;
        let mut lower_bound = self.instance.load;
        // The lowest peak not tried in vain; above `lower_bound` once a try was given up.
        let mut hope = lower_bound.max(target);
        while self.best.peak > hope && self.search.nodes < stop {
            let aim = hope;
            // Half of what is left, so that a hopeless bound leaves something for easier ones.
            let nodes = (stop - self.search.nodes).div_ceil(2);
            match self.reach(aim, nodes) {
                Verdict::Placed(_) => break,
                Verdict::Infeasible => {
                    lower_bound = lower_bound.max(self.instance.peak_above(aim));
                    hope = lower_bound.max(target);
                }
                Verdict::Exhausted => {
                    hope = self.instance.peak_above(aim + (self.best.peak - aim) / 2);
                }
            }
        }
        Bounds { lower_bound: lower_bound.min(self.best.peak), packing: self.best, nodes: self.search.nodes }
    }
}

fn peak_of(instance: &Instance, offsets: &[u64]) -> u64 {
    instance.blocks.iter().zip(offsets).map(|(block, offset)| offset + block.size).max().unwrap_or(0)
}

/// Offsets for a whole problem, instance by instance; empty buffers stay at zero or where they are fixed.
struct Assembly {
    plan: Allocation,
}

impl Assembly {
    fn new(buffers: &[Buffer]) -> Self {
        let offsets: Vec<u64> = buffers.iter().map(|buffer| buffer.fixed.unwrap_or(0)).collect();
        let peak = fixed_top(buffers);
        Self { plan: Allocation { offsets, peak, lower_bound: peak } }
    }

    fn add(&mut self, instance: &Instance, packing: &Packing, lower_bound: u64) {
        for (&index, &offset) in instance.origin.iter().zip(&packing.offsets) {
            self.plan.offsets[index] = offset;
        }
        self.plan.peak = self.plan.peak.max(packing.peak);
        self.plan.lower_bound = self.plan.lower_bound.max(lower_bound);
    }
}

/// Where the highest fixed buffer ends.
fn fixed_top(buffers: &[Buffer]) -> u64 {
    let top = |buffer: &Buffer| buffer.fixed.map(|offset| offset + buffer.size);
    buffers.iter().filter_map(top).max().unwrap_or(0)
}

pub(super) fn allocate(problem: &AllocationProblem, limits: &Limits) -> Outcome {
    let AllocationProblem { buffers, capacity } = problem;
    let instances = split(buffers);
    if let Some(clash) = fixed_overlap(buffers).or_else(|| overload(problem, &instances, limits)) {
        return Outcome::Infeasible(clash);
    }
    let mut assembly = Assembly::new(buffers);
    let mut nodes_left = limits.nodes;
    for instance in &instances {
        let mut effort = Effort::new(instance, *capacity);
        let verdict = effort.reach(*capacity, nodes_left);
        nodes_left = nodes_left.saturating_sub(effort.search.nodes);
        if verdict == Verdict::Infeasible {
            return Outcome::Infeasible(shortfall(problem, instance, limits));
        }
        assembly.add(instance, &effort.best, instance.load);
    }
    if assembly.plan.peak <= *capacity {
        Outcome::Placed(assembly.plan)
    } else {
        Outcome::Exhausted(assembly.plan)
    }
}

pub(super) fn minimise(problem: &AllocationProblem, limits: &Limits) -> Outcome {
    if let Some(clash) = fixed_overlap(&problem.buffers) {
        return Outcome::Infeasible(clash);
    }
    Outcome::Placed(smallest(&problem.buffers, limits.nodes))
}

/// The best plan to be had, for buffers that can be placed at all.
fn smallest(buffers: &[Buffer], nodes: u64) -> Allocation {
    let mut assembly = Assembly::new(buffers);
    let mut nodes_left = nodes;
    for instance in &split(buffers) {
        // What another instance needs anyway costs nothing here.
        let target = assembly.plan.peak;
        let effort = Effort::new(instance, target.max(instance.load));
        let bounds = effort.minimise(target, nodes_left);
        nodes_left = nodes_left.saturating_sub(bounds.nodes);
        assembly.add(instance, &bounds.packing, bounds.lower_bound);
    }
    assembly.plan
}

/// The first pair of fixed buffers that clash, in the order of the problem.
fn fixed_overlap(buffers: &[Buffer]) -> Option<Shortfall> {
    let fixed: Vec<(&Buffer, u64)> =
        buffers.iter().filter(|b| b.size > 0).filter_map(|b| b.fixed.map(|offset| (b, offset))).collect();
    for (index, &(one, low)) in fixed.iter().enumerate() {
        for &(other, offset) in &fixed[index + 1..] {
            let shared = (low + one.size).min(offset + other.size).saturating_sub(low.max(offset));
            if shared > 0 && one.lower < other.upper && other.lower < one.upper {
                return Some(Shortfall {
                    proof: Proof::FixedOverlap,
                    time: one.lower.max(other.lower),
                    buffers: vec![one.id, other.id],
                    missing_bytes: shared,
                    sufficient_bytes: None,
                });
            }
        }
    }
    None
}

/// What is plain to see: a load or a fixed buffer beyond the capacity.
fn overload(problem: &AllocationProblem, instances: &[Instance], limits: &Limits) -> Option<Shortfall> {
    let &AllocationProblem { ref buffers, capacity } = problem;
    let beyond = |buffer: &&Buffer| buffer.fixed.is_some_and(|offset| offset + buffer.size > capacity);
    if let Some(buffer) = buffers.iter().find(beyond) {
        return Some(Shortfall {
            proof: Proof::FixedBeyondCapacity,
            time: buffer.lower,
            buffers: vec![buffer.id],
            missing_bytes: fixed_top(buffers) - capacity,
            sufficient_bytes: None,
        });
    }
    let instance = instances.iter().find(|instance| instance.load > capacity)?;
    let time = busiest(instance);
    let live = |buffer: &&Buffer| buffer.size > 0 && buffer.lower <= time && time < buffer.upper;
    Some(Shortfall {
        proof: Proof::Load,
        time,
        buffers: buffers.iter().filter(live).map(|buffer| buffer.id).collect(),
        missing_bytes: instance.load - capacity,
        sufficient_bytes: enough(problem, NARROWING_NODES, limits),
    })
}

/// A time at which most bytes are live.
fn busiest(instance: &Instance) -> i64 {
    let loads = instance.loads();
    let section = (0..loads.len()).max_by_key(|&section| (loads[section], std::cmp::Reverse(section)));
    section.map_or(0, |section| instance.times[section])
}

/// The account of an instance that search has shown not to fit: buffers are dropped as long as the rest still
/// does not fit, half at first, then ever fewer.
fn shortfall(problem: &AllocationProblem, instance: &Instance, limits: &Limits) -> Shortfall {
    let AllocationProblem { buffers, capacity } = problem;
    let nodes = limits.nodes.min(NARROWING_NODES);
    let mut kept: Vec<usize> = (0..instance.blocks.len()).collect();
    let mut chunk = kept.len().div_ceil(2);
    loop {
        let mut start = 0;
        while start < kept.len() {
            let end = (start + chunk).min(kept.len());
            let fewer: Vec<usize> = kept[..start].iter().chain(&kept[end..]).copied().collect();
            if is_refuted(buffers, instance, &fewer, *capacity, nodes) {
                kept = fewer;
            } else {
                start = end;
            }
        }
        if chunk == 1 {
            break;
        }
        chunk = chunk.div_ceil(2);
    }
    let mut members: Vec<usize> = kept.iter().map(|&block| instance.origin[block]).collect();
    members.sort_unstable();
    let subset: Vec<Buffer> = members.iter().map(|&index| buffers[index].clone()).collect();
    let needed = smallest(&subset, nodes).lower_bound.max(capacity + 1);
    Shortfall {
        proof: Proof::Search,
        time: split(&subset).first().map_or(0, busiest),
        buffers: subset.iter().map(|buffer| buffer.id).collect(),
        missing_bytes: needed - capacity,
        sufficient_bytes: enough(problem, limits.nodes, limits),
    }
}

/// Bytes of further capacity that are enough for a problem that does not fit, found in so many nodes, if they
/// are looked for.
fn enough(problem: &AllocationProblem, nodes: u64, limits: &Limits) -> Option<u64> {
    limits.looks_for_enough.then(|| smallest(&problem.buffers, nodes).peak - problem.capacity)
}

/// Whether some of an instance's blocks are shown not to fit.
fn is_refuted(buffers: &[Buffer], instance: &Instance, keep: &[usize], capacity: u64, nodes: u64) -> bool {
    instance.restrict(buffers, keep).iter().any(|part| {
        let ranks: Vec<u32> = (0..).take(part.blocks.len()).collect();
        part.load > capacity
            || Search::new(part).run(capacity, &ranks, Focus::Lowest, nodes) == Verdict::Infeasible
    })
}
