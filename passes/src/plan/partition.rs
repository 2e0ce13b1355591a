//! How the clusters of the array are divided among the stages of a phase.
//!
//! *Spatial*: a partition for each stage. All work at once, at the pace of the slowest, so the best integer division is
//! the one whose slowest stage is fastest. It is found exactly: for a given pace the fewest clusters that each stage needs
//! are known, and the least pace whose needs fit the array is found by bisection.
//!
//! *Shared*: one partition of all clusters. Stages take turns row by row and pay the switch at each; nothing waits for the
//! slowest.
//!
//! *Mixed*: stages that would leave a partition of their own idle share one, others have their own. For a given pace stages are
//! packed, the most work first, each where the fewest more clusters keep the pace; the pace is found by bisection. Packing is a
//! heuristic: it may miss a division, never the cost of one.

use strata_isa_spec::Target;

use super::cost::StageProfile;

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
        let mut members = vec![Members::default(); self.partitions.len()];
        for (stage, &partition) in self.of_stage.iter().enumerate() {
            members[partition as usize].stages.push(stage);
        }
        let cycles =
            members.iter().zip(&self.partitions).map(|(m, &clusters)| m.cycles(stages, target, clusters));
        cycles.max().unwrap_or(0)
    }
}

/// The stages of a partition.
#[derive(Clone, Debug, Default)]
struct Members {
    stages: Vec<usize>,
}

impl Members {
    /// Cycles that they take on so many clusters, switches included.
    fn cycles(&self, stages: &[&StageProfile], target: &Target, clusters: u32) -> u64 {
        let is_shared = self.stages.len() > 1;
        let each = self.stages.iter().map(|&stage| {
            let switches = if is_shared { stages[stage].switch_cycles(clusters, target) } else { 0 };
            stages[stage].on(clusters).cycles + switches
        });
        each.sum()
    }

    /// The fewest clusters from `least` to `most` on which they take at most `pace` cycles.
    fn clusters_for(
        &self,
        stages: &[&StageProfile],
        target: &Target,
        (least, most): (u32, u32),
        pace: u64,
    ) -> Option<u32> {
        let keeps = |clusters: u32| self.cycles(stages, target, clusters) <= pace;
        if least > most || !keeps(most) {
            return None;
        }
        let (mut low, mut high) = (least, most);
        while low < high {
            let middle = u32::midpoint(low, high);
            if keeps(middle) { high = middle } else { low = middle + 1 }
        }
        Some(high)
    }
}

/// The least value up to `feasible`, which fits, that fits, where all from some value on do.
fn least_pace(mut feasible: u64, mut too_fast: u64, fits: impl Fn(u64) -> bool) -> u64 {
    if fits(too_fast) {
        return too_fast;
    }
    while too_fast + 1 < feasible {
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
        let Some((_, index, more)) = best.max_by_key(|&(now, i, _)| (now, std::cmp::Reverse(i))) else {
            break;
        };
        partitions[index] += more;
        left -= more;
    }
}

/// A partition for each stage, such that the slowest stage is as fast as can be; `None` if there are more stages than
/// clusters. What remains goes to the stages that are slowest then.
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
    let pace = least_pace(stages.iter().map(|stage| stage.on(1).cycles).max()?, 0, fits);
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

/// Divisions worth looking at: spatial, shared, and mixed where that is faster than both.
pub fn divisions(stages: &[&StageProfile], target: &Target) -> Vec<Division> {
    let is_several = stages.len() > 1;
    let mut divisions: Vec<Division> =
        spatial(stages, target).into_iter().chain(is_several.then(|| shared(stages.len(), target))).collect();
    let pace = divisions.iter().map(|division| division.pace(stages, target)).min();
    divisions.extend(pace.and_then(|pace| mixed(stages, target, pace)));
    divisions
}

/// How much faster a division must be to be worth looking at, as a part of the pace.
const WORTH: u64 = 64;

/// Partitions of which some have several stages, if that is faster than a pace that others keep.
fn mixed(stages: &[&StageProfile], target: &Target, than: u64) -> Option<Division> {
    let whole = target.array.clusters;
    let limit = than - than / WORTH;
    let switches = |stage: &&StageProfile| stage.switch_cycles(whole, target);
    let (mut fewest, mut next) = (u64::MAX, u64::MAX);
    for cycles in stages.iter().map(switches) {
        (fewest, next) = if cycles < fewest { (cycles, fewest) } else { (fewest, next.min(cycles)) };
    }
    let work: u64 = stages.iter().map(|stage| stage.least_work()).sum();
    let least = work.div_ceil(u64::from(whole.max(1))).max(fewest.saturating_add(next));
    if stages.len() < 3 || whole < 2 || least >= limit {
        return None;
    }
    let mut order: Vec<usize> = (0..stages.len()).collect();
    order.sort_by_key(|&stage| (std::cmp::Reverse(stages[stage].on(1).cycles), stage));
    packed(stages, target, &order, limit)?;
    let pace = least_pace(limit, least, |pace| packed(stages, target, &order, pace).is_some());
    let (members, mut partitions) = packed(stages, target, &order, pace)?;
    let left = whole - partitions.iter().sum::<u32>();
    give(left, &mut partitions, |at, clusters| members[at].cycles(stages, target, clusters));
    let mut of_stage = vec![0; stages.len()];
    for (partition, members) in members.iter().enumerate() {
        members.stages.iter().for_each(|&stage| of_stage[stage] = partition as u32);
    }
    Some(Division { partitions, of_stage })
}

/// Partitions that keep a pace, and their clusters, if stages taken in an order find room.
fn packed(
    stages: &[&StageProfile],
    target: &Target,
    order: &[usize],
    pace: u64,
) -> Option<(Vec<Members>, Vec<u32>)> {
    let (mut partitions, mut clusters): (Vec<Members>, Vec<u32>) = (Vec::new(), Vec::new());
    let mut left = target.array.clusters;
    for &stage in order {
        let alone = stages[stage].clusters_for(pace).filter(|&needs| needs <= left);
        let mut best = alone.map(|more| (more, None));
        for (at, members) in partitions.iter().enumerate() {
            let most = clusters[at] + best.map_or(left, |(more, _)| more.saturating_sub(1));
            let mut members = members.clone();
            members.stages.push(stage);
            if let Some(n) = members.clusters_for(stages, target, (clusters[at], most), pace) {
                let more = n - clusters[at];
                if best.is_none_or(|(fewest, _)| more < fewest) {
                    best = Some((more, Some(at)));
                }
            }
        }
        let (more, at) = best?;
        left -= more;
        match at {
            Some(at) => {
                partitions[at].stages.push(stage);
                clusters[at] += more;
            }
            None => {
                partitions.push(Members { stages: vec![stage] });
                clusters.push(more);
            }
        }
    }
    Some((partitions, clusters))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{mobilenetv2, resnet50, unet, yolov3};
    use super::*;
    use crate::plan::columns::Context;

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

    /// Every way to put stages from `stage` on into partitions, of which the first so many are in use or next.
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
            return if left > 0 {
                see(partitions)
            };
        }
        for clusters in 1..left {
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
                let runs = (3..6).flat_map(|n_stages| context.profiles.windows(n_stages));
                for run in runs {
                    let stages: Vec<&StageProfile> = run.iter().collect();
                    let found = divisions(&stages, &target);
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
