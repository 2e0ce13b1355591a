//! What differs between two plans.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::figures::Unit;
use super::view::{Key, PlacedStage, PlacedStream, PlanView, WeightTime};

/// What differs between two plans.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanChanges {
    /// Every figure that both have, those that are equal among them.
    pub figures: Vec<FigureChange>,
    /// Which phases of the two are the same.
    pub phases: Vec<PhaseMatch>,
    /// Stages in other phases, on other partitions, or computed in another way.
    pub moved: Vec<Move>,
    /// Stages of the first alone.
    pub only_a: Vec<PlacedStage>,
    /// Stages of the second alone.
    pub only_b: Vec<PlacedStage>,
    /// Streams that stand elsewhere, have other slots, or stay for other phases; and those of one plan alone.
    pub streams: Vec<Change<PlacedStream>>,
    /// Weights of stages that come early in one plan and not in the other, or by other distances.
    pub weights: Vec<Change<WeightTime>>,
}

/// Something in the first and in the second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change<T> {
    /// In the first, if it has it.
    pub a: Option<T>,
    /// In the second, if it has it.
    pub b: Option<T>,
}

/// A figure of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FigureChange {
    /// Its stable name.
    pub key: String,
    /// What it counts.
    pub unit: Unit,
    /// In the first.
    pub a: f64,
    /// In the second.
    pub b: f64,
}

/// A phase of the first and the phase of the second that is the same; or one that has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseMatch {
    /// In the first.
    pub a: Option<u32>,
    /// In the second.
    pub b: Option<u32>,
    /// Stages that both have.
    pub common_stages: u32,
    /// Cycles in the first, where they are known.
    pub a_cycles: Option<u64>,
    /// Cycles in the second.
    pub b_cycles: Option<u64>,
}

/// A stage that is elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where it is in the first.
    pub a: PlacedStage,
    /// Where it is in the second.
    pub b: PlacedStage,
    /// What is different: `phase`, `partition`, `clusters`, `winograd`.
    pub what: Vec<String>,
}

impl PlanChanges {
    /// What differs between two plans.
    pub fn of(a: &PlanView, b: &PlanView) -> Self {
        let matching = Matching::of(a, b);
        let theirs = by_key(&b.stages, |stage| &stage.key);
        let ours = by_key(&a.stages, |stage| &stage.key);
        let pairs = a.stages.iter().filter_map(|stage| Some((stage, *theirs.get(&stage.key)?)));
        let moved = pairs.filter_map(|(a, b)| matching.moved(a, b)).collect();
        let alone = |stages: &[PlacedStage], others: &BTreeMap<&Key, &PlacedStage>| {
            stages.iter().filter(|stage| !others.contains_key(&stage.key)).cloned().collect()
        };
        let is_same_stream = |a: &PlacedStream, b: &PlacedStream| {
            let stays = |stream: &PlacedStream| stream.last_phase - stream.first_phase;
            let place = |s: &PlacedStream| (s.base, s.bytes, s.slots, s.rows, s.prefix_rows);
            place(a) == place(b) && stays(a) == stays(b)
        };
        let ahead = |weights: &WeightTime| weights.used_in.abs_diff(weights.loaded_in);
        // Streams and weights of one alone are told by the stages that are.
        let known = !a.streams.is_empty() && !b.streams.is_empty();
        let (streams, weights) = if known {
            let is_same_weight = |a: &WeightTime, b: &WeightTime| ahead(a) == ahead(b);
            (
                changed(&a.streams, &b.streams, |stream| &stream.key, is_same_stream),
                changed(&a.weights, &b.weights, |weights| &weights.key, is_same_weight),
            )
        } else {
            (Vec::new(), Vec::new())
        };
        Self {
            figures: figures(a, b),
            phases: matching.phases(a, b),
            moved,
            only_a: alone(&a.stages, &theirs),
            only_b: alone(&b.stages, &ours),
            streams,
            weights,
        }
    }

    /// Whether the two are the same in all that is known of both.
    pub fn is_empty(&self) -> bool {
        self.figures.iter().all(|figure| figure.a == figure.b)
            && self.phases.iter().all(|phase| phase.a.is_some() && phase.b.is_some())
            && self.moved.is_empty()
            && self.only_a.is_empty()
            && self.only_b.is_empty()
            && self.streams.is_empty()
            && self.weights.is_empty()
    }
}

fn by_key<T>(all: &[T], key: impl Fn(&T) -> &Key) -> BTreeMap<&Key, &T> {
    all.iter().map(|one| (key(one), one)).collect()
}

/// What both have and is not the same, and what only one has; in the order of the first.
fn changed<T: Clone>(
    a: &[T],
    b: &[T],
    key: impl Fn(&T) -> &Key,
    is_same: impl Fn(&T, &T) -> bool,
) -> Vec<Change<T>> {
    let (ours, theirs) = (by_key(a, &key), by_key(b, &key));
    let mut changes = Vec::new();
    for one in a {
        match theirs.get(key(one)) {
            Some(other) if is_same(one, other) => {}
            other => {
                changes.push(Change { a: Some(one.clone()), b: other.map(|&other| other.clone()) });
            }
        }
    }
    let alone = b.iter().filter(|one| !ours.contains_key(key(one)));
    changes.extend(alone.map(|one| Change { a: None, b: Some(one.clone()) }));
    changes
}

fn figures(a: &PlanView, b: &PlanView) -> Vec<FigureChange> {
    let theirs: BTreeMap<&str, f64> = b.figures.iter().map(|f| (f.key.as_str(), f.value)).collect();
    let both = a.figures.iter().filter_map(|figure| {
        let b = *theirs.get(figure.key.as_str())?;
        Some(FigureChange { key: figure.key.clone(), unit: figure.unit, a: figure.value, b })
    });
    both.collect()
}

/// Which phases of two plans are the same: each has one of the other plan at most, and those that have most
/// stages in common are matched first.
struct Matching {
    /// Stages that a phase of the first and one of the second have in common.
    common: BTreeMap<(u32, u32), u32>,
    /// The phase of the second that is a phase of the first.
    same: BTreeMap<u32, u32>,
}

impl Matching {
    fn of(a: &PlanView, b: &PlanView) -> Self {
        let theirs = by_key(&b.stages, |stage| &stage.key);
        let mut common: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for stage in &a.stages {
            if let Some(other) = theirs.get(&stage.key) {
                *common.entry((stage.phase, other.phase)).or_default() += 1;
            }
        }
        let mut pairs: Vec<(&(u32, u32), &u32)> = common.iter().collect();
        // The sort is stable: earlier phases first among equals.
        pairs.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let (mut same, mut taken) = (BTreeMap::new(), BTreeSet::new());
        for (&(a, b), _) in pairs {
            if !same.contains_key(&a) && taken.insert(b) {
                same.insert(a, b);
            }
        }
        Self { same, common }
    }

    fn moved(&self, a: &PlacedStage, b: &PlacedStage) -> Option<Move> {
        let mut what = Vec::new();
        if self.same.get(&a.phase) != Some(&b.phase) {
            what.push("phase".to_owned());
        }
        // What is known of one plan alone is no difference.
        let differs = |a: Option<u32>, b: Option<u32>| a.is_some() && b.is_some() && a != b;
        if differs(a.partition, b.partition) {
            what.push("partition".to_owned());
        }
        if differs(a.clusters, b.clusters) {
            what.push("clusters".to_owned());
        }
        if differs(a.winograd.map(u32::from), b.winograd.map(u32::from)) {
            what.push("winograd".to_owned());
        }
        (!what.is_empty()).then(|| Move { a: a.clone(), b: b.clone(), what })
    }

    fn phases(&self, a: &PlanView, b: &PlanView) -> Vec<PhaseMatch> {
        let numbers = |view: &PlanView| -> BTreeSet<u32> {
            view.stages.iter().map(|stage| stage.phase).chain((0..).take(view.phase_cycles.len())).collect()
        };
        // Of statistics without their phases nothing is known.
        if a.stages.is_empty() || b.stages.is_empty() {
            return Vec::new();
        }
        let cycles = |view: &PlanView, phase: Option<u32>| view.phase_cycles.get(phase? as usize).copied();
        let row = |of_a: Option<u32>, of_b: Option<u32>| PhaseMatch {
            a: of_a,
            b: of_b,
            common_stages: of_a.zip(of_b).and_then(|pair| self.common.get(&pair)).copied().unwrap_or(0),
            a_cycles: cycles(a, of_a),
            b_cycles: cycles(b, of_b),
        };
        let matched: BTreeSet<u32> = self.same.values().copied().collect();
        let mut rows: Vec<PhaseMatch> =
            numbers(a).into_iter().map(|phase| row(Some(phase), self.same.get(&phase).copied())).collect();
        rows.extend(numbers(b).difference(&matched).map(|&phase| row(None, Some(phase))));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(stages: &[(&str, u32, u32)]) -> PlanView {
        let place = |&(name, phase, clusters): &(&str, u32, u32)| PlacedStage {
            key: Key { name: name.to_owned(), op: "conv2d".to_owned(), nth: 0 },
            phase,
            partition: Some(0),
            clusters: Some(clusters),
            winograd: Some(false),
        };
        PlanView { stages: stages.iter().map(place).collect(), ..PlanView::default() }
    }

    #[test]
    fn a_phase_that_is_only_numbered_otherwise_is_no_change() {
        let a = plan(&[("a", 0, 4), ("b", 1, 4), ("c", 1, 4)]);
        let b = plan(&[("new", 0, 4), ("a", 1, 4), ("b", 2, 4), ("c", 2, 4)]);
        let changes = PlanChanges::of(&a, &b);
        assert!(changes.moved.is_empty(), "{changes:?}");
        assert_eq!(changes.only_b.len(), 1);
        let same: Vec<_> = changes.phases.iter().map(|phase| (phase.a, phase.b)).collect();
        assert_eq!(same, [(Some(0), Some(1)), (Some(1), Some(2)), (None, Some(0))]);
        assert!(PlanChanges::of(&a, &a).is_empty() && !changes.is_empty());
    }

    #[test]
    fn a_layer_in_another_company_has_moved() {
        let a = plan(&[("a", 0, 4), ("b", 0, 4), ("c", 1, 4), ("d", 1, 8)]);
        let b = plan(&[("a", 0, 4), ("b", 0, 4), ("c", 0, 4), ("d", 1, 4)]);
        let changes = PlanChanges::of(&a, &b);
        let moved: Vec<_> = changes.moved.iter().map(|m| (m.a.key.name.as_str(), m.what.join(","))).collect();
        assert_eq!(moved, [("c", "phase".to_owned()), ("d", "clusters".to_owned())]);
    }
}
