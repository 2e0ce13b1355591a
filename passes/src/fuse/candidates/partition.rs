//! How the clusters of the array are divided among the stages of a phase.
//!
//! *Spatial*: a partition for each stage. All work at once, at the pace of the slowest, so the best integer
//! division is the one whose slowest stage is fastest. It is found exactly: for a given pace the fewest
//! clusters that each stage needs are known, and the least pace whose needs fit the array is found by
//! bisection.
//!
//! *Shared*: one partition of all clusters. Stages take turns row by row and pay the switch at each; nothing
//! waits for the slowest.
//!
//! *Mixed*: stages that would leave a partition of their own idle share one, others have their own. For a
//! given pace stages are packed, the most work first, each where the fewest more clusters keep the pace; the
//! pace is found by bisection. Packing is a heuristic: it may miss a division, never the cost of one.

use std::cmp::Reverse;

use strata_backend::cost::StageProfile;
use strata_isa_spec::Target;

/// A division of the array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Division {
    /// Clusters of each partition.
    pub partitions: Vec<u32>,
    /// The partition of each stage.
    pub of_stage: Vec<u32>,
}

impl Division {
    /// Whether a stage takes turns with others on its partition.
    pub fn is_shared(&self, stage: usize) -> bool {
        let partition = self.of_stage[stage];
        self.of_stage.iter().filter(|&&other| other == partition).count() > 1
    }

    /// Cycles of the partition that has the most to do.
    pub fn pace(&self, stages: &[&StageProfile], target: &Target) -> u64 {
        let partitions = (0..).zip(&self.partitions);
        let cycles = partitions.map(|(partition, &clusters)| {
            let members = stages.iter().zip(&self.of_stage).filter(|&(_, &of)| of == partition);
            members
                .map(|(stage, _)| Load::of(stage, clusters, target))
                .fold(Load::default(), Load::and)
                .cycles()
        });
        cycles.max().unwrap_or(0)
    }
}

/// What a partition has to do.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    n_stages: u32,
    work: u64,
    /// What switches take if it has several stages.
    switches: u64,
}

impl Load {
    /// One stage on so many clusters.
    fn of(stage: &StageProfile, clusters: u32, target: &Target) -> Self {
        let how = stage.on(clusters);
        Self { n_stages: 1, work: how.cycles, switches: how.switch_cycles(target) }
    }

    /// This and another.
    fn and(self, other: Self) -> Self {
        Self {
            n_stages: self.n_stages + other.n_stages,
            work: self.work + other.work,
            switches: self.switches + other.switches,
        }
    }

    /// Cycles that it takes.
    fn cycles(self) -> u64 {
        if self.n_stages > 1 { self.work + self.switches } else { self.work }
    }
}

/// The least value up to `feasible`, which fits, that fits, where all from some value on do; within
/// `precision`.
fn least_pace(
    mut feasible: u64,
    mut too_fast: u64,
    precision: u64,
    mut fits: impl FnMut(u64) -> bool,
) -> u64 {
    if fits(too_fast) {
        return too_fast;
    }
    while too_fast + precision < feasible {
        let middle = u64::midpoint(too_fast, feasible);
        if fits(middle) { feasible = middle } else { too_fast = middle }
    }
    feasible
}

/// Gives clusters that are left over to the partitions that are slowest then, which shortens fill and drain.
fn give(left: u32, partitions: &mut [u32], cycles: impl Fn(usize, u32) -> u64) {
    let mut left = left;
    while left > 0 {
        let gain = |index: usize| {
            let now = cycles(index, partitions[index]);
            let next = (1..=left).find(|more| cycles(index, partitions[index] + more) < now)?;
            Some((now, next))
        };
        let best = (0..partitions.len()).filter_map(|i| gain(i).map(|(now, next)| (now, i, next)));
        let Some((_, index, more)) = best.max_by_key(|&(now, i, _)| (now, Reverse(i))) else {
            break;
        };
        partitions[index] += more;
        left -= more;
    }
}

/// A partition for each stage, such that the slowest stage is as fast as can be; `None` if there are more
/// stages than clusters. What remains goes to the stages that are slowest then.
fn spatial(stages: &[&StageProfile], target: &Target) -> Option<Division> {
    let whole = target.array.clusters;
    if stages.is_empty() || stages.len() > whole as usize {
        return None;
    }
    let fits = |pace: u64| {
        let needs: Option<u32> = stages.iter().map(|stage| stage.clusters_for(pace)).sum();
        needs.is_some_and(|needs| needs <= whole)
    };
    // Feasible paces are all from the least one on; one cluster a stage is always feasible.
    let pace = least_pace(stages.iter().map(|stage| stage.on(1).cycles).max()?, 0, 1, fits);
    let partitions: Option<Vec<u32>> = stages.iter().map(|stage| stage.clusters_for(pace)).collect();
    let mut partitions = partitions?;
    let left = whole - partitions.iter().sum::<u32>();
    give(left, &mut partitions, |stage, clusters| stages[stage].on(clusters).cycles);
    let of_stage = (0..stages.len() as u32).collect();
    Some(Division { partitions, of_stage })
}

/// One partition of the whole array for all stages.
fn shared(n_stages: usize, target: &Target) -> Division {
    Division { partitions: vec![target.array.clusters], of_stage: vec![0; n_stages] }
}

/// Divisions worth looking at: spatial, shared, and, if time counts, mixed where that is faster than both.
pub fn divisions(stages: &[&StageProfile], target: &Target, for_time: bool) -> Vec<Division> {
    let is_several = stages.len() > 1;
    let mut divisions: Vec<Division> =
        spatial(stages, target).into_iter().chain(is_several.then(|| shared(stages.len(), target))).collect();
    if for_time {
        let pace = divisions.iter().map(|division| division.pace(stages, target)).min();
        divisions.extend(pace.and_then(|pace| mixed(stages, target, pace)));
    }
    divisions
}

/// How much faster a division must be to be worth looking at, as a part of the pace.
const WORTH: u64 = 64;

/// Partitions of which some have several stages, if that is faster than a pace that others keep.
fn mixed(stages: &[&StageProfile], target: &Target, than: u64) -> Option<Division> {
    let whole = target.array.clusters;
    let limit = than - than / WORTH;
    if stages.len() < 3 || whole < 2 || !may_keep(stages, target, limit) {
        return None;
    }
    let mut packing = Packing::new(stages, target);
    if !packing.keeps(limit) {
        return None;
    }
    let work: u64 = stages.iter().map(|stage| stage.least_work()).sum();
    let least = work.div_ceil(u64::from(whole));
    let pace = least_pace(limit, least, limit / PRECISION + 1, |pace| packing.keeps(pace));
    packing.keeps(pace).then(|| packing.division())
}

/// Whether some division may keep a pace: a stage that has a partition of its own takes up as many clusters
/// as it needs all the while; one that shares its partition has at least as many there, which work on it and
/// switch to it.
fn may_keep(stages: &[&StageProfile], target: &Target, pace: u64) -> bool {
    let each = stages.iter().map(|stage| {
        let clusters = stage.clusters_for(pace)?;
        let alone = u64::from(clusters) * pace;
        let switches = stage.on(clusters).switch_cycles(target);
        Some(alone.min(stage.least_work() + u64::from(clusters) * switches))
    });
    each.sum::<Option<u64>>().is_some_and(|taken| taken <= u64::from(target.array.clusters) * pace)
}

/// A pace is found within this part of it.
const PRECISION: u64 = 256;

/// Stages that are put into partitions.
struct Packing<'a> {
    stages: &'a [&'a StageProfile],
    target: &'a Target,
    /// Stages in the order in which they are put.
    order: Vec<usize>,
    /// Those that are in use, and then others of which only the room for their stages is kept.
    partitions: Vec<Partition>,
    n_partitions: usize,
}

/// Stages that share clusters.
#[derive(Debug, Default)]
struct Partition {
    stages: Vec<usize>,
    clusters: u32,
    /// On these clusters.
    load: Load,
}

impl<'a> Packing<'a> {
    /// No stage put yet.
    fn new(stages: &'a [&'a StageProfile], target: &'a Target) -> Self {
        let mut order: Vec<usize> = (0..stages.len()).collect();
        order.sort_by_key(|&stage| (Reverse(stages[stage].on(1).cycles), stage));
        Self { stages, target, order, partitions: Vec::new(), n_partitions: 0 }
    }

    /// The partitions that stages were put into.
    fn partitions(&self) -> &[Partition] {
        &self.partitions[..self.n_partitions]
    }

    /// Puts all stages so that no partition takes longer than a pace, if they find room.
    fn keeps(&mut self, pace: u64) -> bool {
        self.n_partitions = 0;
        let mut left = self.target.array.clusters;
        for at in 0..self.order.len() {
            let number = self.order[at];
            let stage = self.stages[number];
            let alone = stage.clusters_for(pace).filter(|&needs| needs <= left);
            let mut best = alone.map(|more| (more, self.n_partitions));
            for (at, partition) in self.partitions().iter().enumerate() {
                let most = best.map_or(left, |(more, _)| more - 1);
                if let Some(more) = self.more_for(stage, partition, most, pace) {
                    best = Some((more, at));
                    if more == 0 {
                        break;
                    }
                }
            }
            let Some((more, at)) = best else { return false };
            left -= more;
            if at == self.n_partitions {
                self.open();
            }
            self.put(number, at, more);
        }
        true
    }

    /// Begins a partition.
    fn open(&mut self) {
        match self.partitions.get_mut(self.n_partitions) {
            Some(old) => {
                old.stages.clear();
                (old.clusters, old.load) = (0, Load::default());
            }
            None => self.partitions.push(Partition::default()),
        }
        self.n_partitions += 1;
    }

    /// Puts a stage into a partition, with so many clusters more.
    fn put(&mut self, stage: usize, at: usize, more: u32) {
        self.partitions[at].stages.push(stage);
        self.partitions[at].clusters += more;
        let partition = &self.partitions[at];
        let load = if more == 0 {
            partition.load.and(Load::of(self.stages[stage], partition.clusters, self.target))
        } else {
            self.load(partition, partition.clusters)
        };
        self.partitions[at].load = load;
    }

    /// How many clusters more, up to some number, a partition needs to keep a pace with another stage.
    fn more_for(&self, stage: &StageProfile, partition: &Partition, most: u32, pace: u64) -> Option<u32> {
        let least = partition.clusters;
        if partition.load.and(Load::of(stage, least, self.target)).cycles() <= pace {
            return Some(0);
        }
        let keeps = |more: u32| {
            let clusters = least + more;
            self.load(partition, clusters).and(Load::of(stage, clusters, self.target)).cycles() <= pace
        };
        if most == 0 || !keeps(most) {
            return None;
        }
        let (mut low, mut high) = (1, most);
        while low < high {
            let middle = u32::midpoint(low, high);
            if keeps(middle) { high = middle } else { low = middle + 1 }
        }
        Some(high)
    }

    /// What the stages that were put into a partition have to do on so many clusters.
    fn load(&self, partition: &Partition, clusters: u32) -> Load {
        let stages =
            partition.stages.iter().map(|&stage| Load::of(self.stages[stage], clusters, self.target));
        stages.fold(Load::default(), Load::and)
    }

    /// The division that was found, with the clusters that are left.
    fn division(&self) -> Division {
        let mut partitions: Vec<u32> = self.partitions().iter().map(|partition| partition.clusters).collect();
        let left = self.target.array.clusters - partitions.iter().sum::<u32>();
        give(left, &mut partitions, |at, clusters| self.load(&self.partitions[at], clusters).cycles());
        let mut of_stage = vec![0; self.stages.len()];
        for (at, partition) in (0..).zip(self.partitions()) {
            for &stage in &partition.stages {
                of_stage[stage] = at;
            }
        }
        Division { partitions, of_stage }
    }
}

#[cfg(test)]
mod tests {
    use strata_backend::model::samples::{mobilenetv2, resnet50, unet, yolov3};

    use super::*;
    use crate::fuse::candidates::candidate::Context;

    /// The least pace of any division into any partitions, by trying all.
    fn least_of_all(stages: &[&StageProfile], target: &Target) -> u64 {
        let mut least = u64::MAX;
        let mut of_stage = vec![0; stages.len()];
        each_grouping(&mut of_stage, 1, &mut |of_stage, n_partitions| {
            let mut partitions = vec![1; n_partitions];
            each_allocation(&mut partitions, 0, target.array.clusters, &mut |partitions| {
                let division = Division { partitions: partitions.to_vec(), of_stage: of_stage.to_vec() };
                least = least.min(division.pace(stages, target));
            });
        });
        least
    }

    /// Every way to put stages from `stage` on into partitions, of which the first so many are in use or
    /// next.
    fn each_grouping(of_stage: &mut Vec<u32>, stage: usize, see: &mut impl FnMut(&[u32], usize)) {
        let n_partitions = of_stage[..stage].iter().max().map_or(0, |&last| last + 1);
        if stage == of_stage.len() {
            return see(of_stage, n_partitions as usize);
        }
        for partition in 0..=n_partitions {
            of_stage[stage] = partition;
            each_grouping(of_stage, stage + 1, see);
        }
    }

    /// Every way to share out all clusters to partitions from `at` on.
    fn each_allocation(partitions: &mut Vec<u32>, at: usize, left: u32, see: &mut impl FnMut(&[u32])) {
        if at + 1 == partitions.len() {
            partitions[at] = left;
            see(partitions);
            return;
        }
        // Each of those that follow has one at the least.
        let others = (partitions.len() - at - 1) as u32;
        for clusters in 1..=left.saturating_sub(others) {
            partitions[at] = clusters;
            each_allocation(partitions, at + 1, left - clusters, see);
        }
    }

    #[test]
    fn no_division_is_much_faster() {
        let (mut worst, mut sum, mut n, mut n_mixed) = (1f64, 0f64, 0, 0);
        for (preset, clusters) in [("micro", "4"), ("cascade", "7"), ("tile", "6"), ("micro", "8")] {
            let target = Target::preset(preset, &[("array.clusters".to_owned(), clusters.to_owned())]);
            let target = target.expect("a preset");
            for graph in [resnet50(224, 224), yolov3(416, 416), mobilenetv2(224, 224), unet(128, 128)] {
                let context = Context::new(&graph, &target).expect("it is a graph");
                let runs = (3..6).flat_map(|n_stages| context.profiles.as_values_slice().windows(n_stages));
                for run in runs {
                    let stages: Vec<&StageProfile> = run.iter().collect();
                    let found = divisions(&stages, &target, true);
                    for division in &found {
                        assert!(division.partitions.iter().sum::<u32>() <= target.array.clusters);
                        assert!(division.partitions.iter().all(|&clusters| clusters > 0));
                        assert_eq!(division.of_stage.len(), stages.len());
                    }
                    let fastest = found.iter().min_by_key(|division| division.pace(&stages, &target));
                    let fastest = fastest.expect("one partition of all is always possible");
                    n_mixed += usize::from((2..stages.len()).contains(&fastest.partitions.len()));
                    let pace = fastest.pace(&stages, &target) as f64;
                    let ratio = pace / least_of_all(&stages, &target) as f64;
                    assert!(ratio >= 1.0);
                    (worst, sum, n) = (worst.max(ratio), sum + ratio, n + 1);
                }
            }
        }
        let mean = sum / f64::from(n);
        assert!(worst < 1.1 && mean < 1.002, "at worst {worst} times the least, {mean} in the mean");
        assert!(n_mixed > 200, "{n_mixed} of {n} are fastest mixed");
    }
}
