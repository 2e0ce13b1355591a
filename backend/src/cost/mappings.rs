//! The best way to divide so many clusters among a stage's work, for every number of them.
//!
//! All divisions are tried, so what comes out is exact; layers of one size ask the same question, and so do
//! the strips and parts that a plan makes of them, so answers are remembered.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use strata_isa_spec::timing::{Work, best_mapping};
use strata_isa_spec::{Mapping, Target};

use crate::cost::{Implementation, with_winograd};
use crate::model::StageTemplate;

/// The steps of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Steps {
    /// Work of one.
    work: Work,
    /// How many there are.
    n: u32,
}

/// A stage run directly, and as Winograd if it may.
type Question = (Steps, Option<Steps>);

/// Answers by the work of a stage run directly, and as Winograd if it may. They are of one target's array.
#[derive(Debug, Default)]
pub struct Mappings(RefCell<BTreeMap<Question, Arc<[Implementation]>>>);

impl Mappings {
    /// The best implementation, by either method, for every number of clusters of the target, from one on;
    /// more clusters never cost more.
    pub fn best(&self, code: &StageTemplate, may_winograd: bool, target: &Target) -> Arc<[Implementation]> {
        let steps = |winograd: bool| {
            let code = with_winograd(code, winograd);
            Steps { work: code.work(), n: code.n_steps() }
        };
        let (direct, winograd) = (steps(false), may_winograd.then(|| steps(true)));
        let mut known = self.0.borrow_mut();
        let best = known.entry((direct, winograd)).or_insert_with(|| {
            let mut best = by_clusters(direct, target, false);
            let others = winograd.map_or_else(Vec::new, |steps| by_clusters(steps, target, true));
            for (best, other) in best.iter_mut().zip(others) {
                if other.cycles < best.cycles {
                    *best = other;
                }
            }
            best.into()
        });
        Arc::clone(best)
    }
}

/// The best implementation for every number of clusters of the target.
fn by_clusters(steps: Steps, target: &Target, winograd: bool) -> Vec<Implementation> {
    let Steps { work, n } = steps;
    let whole = target.array.clusters.max(1);
    let make = |mapping: Mapping, step: u64| Implementation {
        cycles: u64::from(n) * step,
        step_cycles: step,
        n_steps: n,
        mapping,
        winograd,
    };
    if !matches!(work, Work::Mac { .. }) {
        return (1..=whole).map(|c| best_mapping(target, &work, c)).map(|(m, step)| make(m, step)).collect();
    }
    let mut best: Vec<Option<(u64, Mapping)>> = vec![None; whole as usize];
    each_mapping(target, &work, |mapping, step| {
        let slot = &mut best[mapping.clusters() as usize - 1];
        if slot.is_none_or(|(least, _)| step < least) {
            *slot = Some((step, mapping));
        }
    });
    let mut options = Vec::with_capacity(best.len());
    let mut least: Option<(u64, Mapping)> = None;
    for found in best {
        if let Some((step, mapping)) = found
            && least.is_none_or(|(cycles, _)| step < cycles)
        {
            least = Some((step, mapping));
        }
        options.extend(least.map(|(step, mapping)| make(mapping, step)));
    }
    options
}

/// Every mapping of multiply-accumulates that takes no more clusters than there are, with the cycles of a
/// step, which are those of [`step_cycles`](strata_isa_spec::timing::step_cycles): a product of quotients of
/// which each depends on two of its numbers.
fn each_mapping(target: &Target, work: &Work, mut visit: impl FnMut(Mapping, u64)) {
    let &Work::Mac { pixels, channels, reduction, groups } = work else { return };
    let (whole, lanes) = (target.array.clusters.max(1), target.array.lanes);
    let quotients = |extent: u64, each: u64| -> Vec<u64> {
        (1..=u64::from(whole)).map(|n| extent.div_ceil((each * n).max(1))).collect()
    };
    let of_pixels = quotients(pixels, 1);
    let divisions = std::iter::successors(Some(1), |&lanes: &u32| lanes.checked_mul(2));
    let divisions = divisions.take_while(|&division| division <= lanes);
    let by_lanes: Vec<(u32, Vec<u64>, Vec<u64>)> = divisions
        .map(|lanes_reduction| {
            let of_channels = quotients(channels, u64::from(lanes / lanes_reduction));
            (lanes_reduction, of_channels, quotients(reduction, u64::from(lanes_reduction)))
        })
        .collect();
    for clusters_reduction in 1..=whole {
        for clusters_pixels in 1..=whole / clusters_reduction {
            for clusters_channels in 1..=whole / clusters_reduction / clusters_pixels {
                for (lanes_reduction, of_channels, of_reduction) in &by_lanes {
                    let mapping = Mapping {
                        lanes_reduction: *lanes_reduction,
                        clusters_reduction,
                        clusters_channels,
                        clusters_pixels,
                    };
                    let step = groups
                        * of_pixels[clusters_pixels as usize - 1]
                        * of_channels[clusters_channels as usize - 1]
                        * of_reduction[clusters_reduction as usize - 1];
                    visit(mapping, step);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use strata_isa_spec::timing::step_cycles;

    use super::*;

    #[test]
    fn every_mapping_takes_the_cycles_that_the_machine_says() {
        for preset in ["x1", "micro"] {
            let target = Target::preset(preset, &[]).expect("a preset");
            for (pixels, channels, reduction, groups) in
                [(1, 1, 1, 1), (208, 64, 27, 1), (7, 1, 9, 960), (33, 255, 4608, 2)]
            {
                let work = Work::Mac { pixels, channels, reduction, groups };
                let mut n = 0;
                each_mapping(&target, &work, |mapping, step| {
                    assert_eq!(step, step_cycles(&target, &work, &mapping), "{mapping:?}");
                    n += 1;
                });
                assert!(n > target.array.clusters, "{n} mappings on {preset}");
            }
        }
    }

    #[test]
    fn the_best_is_the_best_that_the_machine_knows() {
        let target = Target::preset("x1", &[]).expect("a preset");
        let work = Work::Mac { pixels: 52, channels: 96, reduction: 144, groups: 1 };
        for (clusters, best) in (1..).zip(by_clusters(Steps { work, n: 10 }, &target, false)) {
            let (_, step) = best_mapping(&target, &work, clusters);
            assert_eq!((best.step_cycles, best.cycles), (step, 10 * step), "{clusters} clusters");
        }
    }
}
