//! How the clusters of the array are divided among the stages of a phase.
//!
//! *Spatial*: a partition for each stage. All work at once, at the pace of the slowest, so the best integer division is
//! the one whose slowest stage is fastest. It is found exactly: for a given pace the fewest clusters that each stage needs
//! are known, and the least pace whose needs fit the array is found by bisection.
//!
//! *Shared*: one partition of all clusters. Stages take turns row by row and pay the switch at each; nothing waits for the
//! slowest.

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

/// A partition for each stage, such that the slowest stage is as fast as can be; `None` if there are more stages than
/// clusters. What remains goes to the stages that are slowest then.
pub fn spatial(stages: &[&StageProfile], target: &Target) -> Option<Division> {
    let whole = target.array.clusters;
    if stages.is_empty() || stages.len() > whole as usize {
        return None;
    }
    let fits = |pace: u64| {
        let needs: Option<u32> = stages.iter().map(|stage| stage.clusters_for(pace)).sum();
        needs.is_some_and(|needs| needs <= whole)
    };
    // Feasible paces are all from the least one on; one cluster a stage is always feasible.
    let (mut too_fast, mut feasible) = (0, stages.iter().map(|stage| stage.on(1).cycles).max()?);
    if fits(too_fast) {
        feasible = too_fast;
    }
    while too_fast + 1 < feasible {
        let middle = u64::midpoint(too_fast, feasible);
        if fits(middle) { feasible = middle } else { too_fast = middle }
    }
    let partitions: Option<Vec<u32>> = stages.iter().map(|stage| stage.clusters_for(feasible)).collect();
    let mut partitions = partitions?;
    // Clusters left over shorten fill and drain.
    let mut left = whole - partitions.iter().sum::<u32>();
    while left > 0 {
        let gain = |index: usize| {
            let now = stages[index].on(partitions[index]).cycles;
            let next = (1..=left).find(|more| stages[index].on(partitions[index] + more).cycles < now)?;
            Some((now, next))
        };
        let best = (0..stages.len()).filter_map(|i| gain(i).map(|(now, next)| (now, i, next)));
        let Some((_, index, more)) = best.max_by_key(|&(now, i, _)| (now, std::cmp::Reverse(i))) else {
            break;
        };
        partitions[index] += more;
        left -= more;
    }
    let of_stage = (0..stages.len() as u32).collect();
    Some(Division { partitions, of_stage })
}

/// One partition of the whole array for all stages.
pub fn shared(n_stages: usize, target: &Target) -> Division {
    Division { partitions: vec![target.array.clusters], of_stage: vec![0; n_stages] }
}
