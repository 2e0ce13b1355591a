//! What weight SRAM allows: loading far ahead of the products, or computing far ahead of the loads, takes
//! more of it than there is.
//!
//! Stage `c` *follows* `p` if it reads all that every plan computes of `p`; then the last needed element of
//! `c` is computed after the last one of `p`, at its *end*. So is that of every stage that follows one that
//! follows `p`, and so on. Let `between` be all stages that follow `j` and that `k` follows, and `k`. Each of
//! them takes a step after the end of `j` and before that of `k`, with its tables in weight SRAM.
//!
//! *Stock* of `j` are the bytes of tables, of stages that follow it, that are loaded when it ends. It is no
//! more than what weight SRAM has beside the tables of `j`. It is no more than what DRAM has moved since any
//! `i` that `j` follows ended, and the stock of that, less the tables from there to `j`, which are used up.
//! Nor is it more than what DRAM has moved in all, less the tables up to `j`.
//!
//! - What is not in stock of `between` is loaded from the end of `j` to that of `k`.
//! - What was computed of `between` before `j` ended belongs to stages of its phase: a plan runs each stage
//!   in one phase, or in strips that follow one another, loads its tables once, and has those of all stages
//!   of the phase in SRAM as long as it lasts. So it is no more than the most work whose tables are in stock
//!   (a fractional knapsack, at most), of stages all of whose predecessors after `j` have tables that fit,
//!   too. All other work of `between` is done from the end of `j` to that of `k`.
//!
//! `j` may end later than the bound says; then the stock may be larger, by what DRAM moves meanwhile. For
//! loads that changes nothing; work is computed ahead if it takes longer than its tables to load.
//!
//! Besides, no stage ends before all work and all loads of what it follows are done. The longest path through
//! these inequalities is a bound for the last end. It holds in whatever order a plan runs the stages: only
//! what the network itself orders counts.

use cranelift_entity::PrimaryMap;
use strata_backend::model::graph::{StageSet, Topology, views_meet};
use strata_backend::model::{StageGraph, StageId};
use strata_isa_spec::Target;
use strata_isa_spec::timing::dram_cycles;

use super::needed::{Needed, columns_read, joined, total};

/// Stages whose ends the bound looks at, at most: those that stand in order with the most others.
const MOST_ENDS: usize = 256;

/// Which stages follow which.
struct Order {
    /// The stages that follow a stage.
    after: PrimaryMap<StageId, StageSet>,
    /// The stages that a stage follows.
    before: PrimaryMap<StageId, StageSet>,
    /// Of these, those that it reads.
    preds: PrimaryMap<StageId, Vec<StageId>>,
}

impl Order {
    fn new(graph: &StageGraph, needed: &Needed, topology: &Topology) -> Self {
        let none = || graph.stages.keys().map(|_| StageSet::default()).collect::<PrimaryMap<_, _>>();
        let (mut after, mut before) = (none(), none());
        let mut preds: PrimaryMap<_, Vec<StageId>> = graph.stages.keys().map(|_| Vec::new()).collect();
        // Stages stand in topological order.
        for stage in graph.stages.keys() {
            for pred in topology.preds[stage].iter().filter(|&pred| follows(graph, needed, stage, pred)) {
                let of_pred: StageSet = before[pred].union(&StageSet::of(pred));
                before[stage].extend(&of_pred);
                preds[stage].push(pred);
            }
            for earlier in before[stage].clone().iter() {
                after[earlier].insert(stage);
            }
        }
        Self { after, before, preds }
    }

    /// The stages that stand in order with the most others, in the order of the graph.
    fn most_ordered(&self) -> Vec<StageId> {
        let mut stages: Vec<StageId> = self.after.keys().collect();
        stages.sort_by_key(|&stage| {
            (std::cmp::Reverse(self.after[stage].len() + self.before[stage].len()), stage)
        });
        stages.truncate(MOST_ENDS);
        stages.sort_unstable();
        stages
    }
}

/// Whether a stage reads every element of another that every plan computes.
fn follows(graph: &StageGraph, needed: &Needed, stage: StageId, pred: StageId) -> bool {
    let (code, made) = (&graph.stages[stage].code, &graph.stages[pred].code.out);
    let made_row = |row: u32| row.clamp(made.row0, made.row0 + made.rows) - made.row0;
    let mut rows = Vec::new();
    for (which, view) in code.reads().iter().enumerate().filter(|(_, view)| views_meet(view, made)) {
        for row in 0..code.n_rows() {
            let need = &code.demand(row)[which];
            rows.push(made_row(view.row0 + need.start)..made_row(view.row0 + need.end));
        }
    }
    let cols = columns_read(made, &needed.reads[stage]);
    // What a stage reads is needed, so as many columns are the same ones.
    total(&joined(rows)) == made.rows && total(&cols) == needed.graph.stages[pred].code.out.cols
}

/// What each stage is to the bound.
pub(super) struct Demands {
    /// Lanes times cycles.
    pub(super) work: PrimaryMap<StageId, u64>,
    /// Bytes of tables that no earlier stage has.
    pub(super) tables: PrimaryMap<StageId, u64>,
}

impl Demands {
    /// Work and bytes of some stages.
    pub(super) fn of(&self, stages: impl Iterator<Item = StageId>) -> (u64, u64) {
        stages.fold((0, 0), |(work, bytes), stage| (work + self.work[stage], bytes + self.tables[stage]))
    }

    /// The stages by their work a byte of tables, the most first.
    fn by_density(&self) -> Vec<StageId> {
        let mut stages: Vec<StageId> = self.work.keys().collect();
        let of = |stage: StageId| (u128::from(self.work[stage]), u128::from(self.tables[stage]));
        stages.sort_by(|&a, &b| {
            let ((work_a, bytes_a), (work_b, bytes_b)) = (of(a), of(b));
            // Those without tables first.
            (bytes_a > 0)
                .cmp(&(bytes_b > 0))
                .then((work_b * bytes_a).cmp(&(work_a * bytes_b)))
                .then(a.cmp(&b))
        });
        stages
    }
}

/// Cycles before which the last stage does not end, if weight SRAM holds no more than so many bytes of tables
/// as the first begins.
pub(super) fn last_end(
    graph: &StageGraph,
    needed: &Needed,
    topology: &Topology,
    demands: &Demands,
    target: &Target,
    there: u64,
) -> u64 {
    let order = Order::new(graph, needed, topology);
    let lanes = (u64::from(target.array.clusters) * u64::from(target.array.lanes)).max(1);
    let rate = u64::from(target.dram.bytes_per_cycle.max(1));
    let (ends, densest) = (order.most_ordered(), demands.by_density());
    let mut least: PrimaryMap<StageId, u64> = graph.stages.keys().map(|_| 0).collect();
    // Bytes in stock as a stage ends, less what DRAM could move up to then.
    let mut stocks: PrimaryMap<StageId, i128> = graph.stages.keys().map(|_| i128::MAX).collect();
    for (at, &first) in ends.iter().enumerate() {
        let (work, bytes) = demands.of(order.before[first].iter().chain([first]));
        least[first] =
            least[first].max(work.div_ceil(lanes)).max(dram_cycles(target, bytes.saturating_sub(there)));
        stocks[first] = stocks[first].min(i128::from(there) - i128::from(bytes));
        let room = target.memory.weight.saturating_sub(demands.tables[first]);
        let moved = i128::from(least[first]) * i128::from(rate);
        let stock = u64::try_from((moved + stocks[first]).max(0)).unwrap_or(u64::MAX).min(room);
        let on_path = path_bytes(&order, demands, first);
        let ahead = Ahead { stock, more: room - stock, rate, lanes };
        for &last in ends[at + 1..].iter().filter(|&&last| order.after[first].contains(last)) {
            let is_between = |stage: StageId| {
                order.after[first].contains(stage) && (stage == last || order.after[stage].contains(last))
            };
            let (work, bytes) = demands.of(order.after[first].iter().filter(|&stage| is_between(stage)));
            stocks[last] = stocks[last].min(i128::from(room) - i128::from(bytes) - moved);
            let loads = dram_cycles(target, bytes.saturating_sub(stock));
            let mut gain = loads;
            if work.div_ceil(lanes) > loads {
                let may_be_ahead = |&stage: &StageId| is_between(stage) && on_path[stage] <= room;
                let done = ahead.most_work(demands, densest.iter().copied().filter(may_be_ahead));
                gain = gain.max(work.saturating_sub(done).div_ceil(lanes));
            }
            least[last] = least[last].max(least[first] + gain);
        }
    }
    least.values().copied().max().unwrap_or(0)
}

/// The most bytes of tables on a path from a stage, without its own, to each that follows it, with its own.
fn path_bytes(order: &Order, demands: &Demands, first: StageId) -> PrimaryMap<StageId, u64> {
    let mut bytes: PrimaryMap<StageId, u64> = order.after.keys().map(|_| 0).collect();
    // In topological order.
    for stage in order.after[first].iter() {
        let before = order.preds[stage].iter().map(|&pred| bytes[pred]).max().unwrap_or(0);
        bytes[stage] = before + demands.tables[stage];
    }
    bytes
}

/// What may be computed before a stage ends, of those that follow it.
struct Ahead {
    /// Bytes of their tables that are in stock at the end that the bound knows.
    stock: u64,
    /// Bytes that weight SRAM has room for besides, which take the stage longer.
    more: u64,
    /// Bytes a cycle.
    rate: u64,
    /// Lanes of the array.
    lanes: u64,
}

impl Ahead {
    /// No less than the work of any of some stages, the densest first, whose tables are in stock together;
    /// or are loaded besides, less the work that the array could do meanwhile.
    fn most_work(&self, demands: &Demands, stages: impl Iterator<Item = StageId>) -> u64 {
        let (mut stock, mut more) = (u128::from(self.stock), u128::from(self.more));
        let (rate, lanes) = (u128::from(self.rate), u128::from(self.lanes));
        let mut most = 0u128;
        for stage in stages {
            let (work, bytes) = (u128::from(demands.work[stage]), u128::from(demands.tables[stage]));
            if bytes <= stock {
                stock -= bytes;
                most += work;
                continue;
            }
            let left = bytes - stock;
            most += (work * stock).div_ceil(bytes);
            stock = 0;
            // A byte brings `work / bytes`, and takes the time of `lanes / rate`.
            let Some(gained) = (work * rate).checked_sub(lanes * bytes) else { break };
            most += (left.min(more) * gained).div_ceil(bytes * rate);
            if left > more {
                break;
            }
            more -= left;
        }
        u64::try_from(most).unwrap_or(u64::MAX)
    }
}
