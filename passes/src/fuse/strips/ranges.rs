//! Which columns each stage of a set computes in each strip.
//!
//! Ranges go backwards from what the strip has to give: a stage computes the hull of what its readers in the
//! strip need. The strips of a tensor that others use too are disjoint and go from left to right; of one that
//! only the set uses they overlap by the halo.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use strata_backend::model::graph::{StageSet, Topology, views_meet};
use strata_backend::model::{Buffer, BufferId, BufferView, StageGraph, StageId};

use crate::fuse::strips::window::{Windowed, windowed};

/// A set of stages in strips.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strips {
    /// The stages, in order.
    pub stages: Vec<StageId>,
    /// For each strip and stage, the columns of the stage's output that it computes.
    pub outs: Vec<Vec<Range<u32>>>,
    /// For each strip and stage, its code; views name the buffers of the whole.
    pub codes: Vec<Vec<Windowed>>,
    /// Buffers that each strip has one of, with the columns of each strip's.
    pub own: BTreeMap<BufferId, Vec<Range<u32>>>,
    /// Buffers that only the set uses and that all strips share, since their writers compute different
    /// columns in a strip.
    pub kept: BTreeSet<BufferId>,
}

impl Strips {
    /// Divides a set into `n` strips; `None` if it cannot be.
    pub fn new(graph: &StageGraph, topology: &Topology, set: &StageSet, n: u32) -> Option<Self> {
        let stages: Vec<StageId> = set.iter().collect();
        if n < 2 || !stages.iter().all(|&stage| may_split(graph, stage, n)) {
            return None;
        }
        let private: BTreeSet<BufferId> = (topology.touched(set).into_iter())
            .filter(|&buffer| topology.is_private(graph, set, buffer))
            .collect();
        let coarsest = stages.iter().map(|&stage| graph.stages[stage].code.out.cols).min().unwrap_or(1);
        let even = (0..=n).map(|strip| (u64::from(strip) * u64::from(coarsest) / u64::from(n)) as u32);
        let mut division = Division {
            graph,
            topology,
            set,
            stages: &stages,
            cuts: even.collect(),
            private: &private,
            kept: BTreeSet::new(),
        };
        let strips = division.divided()?;
        let Some(cuts) = balanced(graph, &strips, &division.cuts) else { return Some(strips) };
        division.cuts = cuts;
        let widest = |strips: &Strips| strips.widths(graph).into_iter().max();
        Some(match division.divided() {
            Some(other) if widest(&other) < widest(&strips) => other,
            _ => strips,
        })
    }

    /// Bytes of a row of all that a strip has of its own, for each strip.
    fn widths(&self, graph: &StageGraph) -> Vec<u64> {
        let mut widths = vec![0; self.n()];
        for (&buffer, ranges) in &self.own {
            let Buffer { chs, elem, .. } = graph.buffers[buffer];
            for (width, range) in widths.iter_mut().zip(ranges) {
                *width += u64::from(range.end - range.start) * u64::from(chs) * u64::from(elem.size_bytes());
            }
        }
        widths
    }

    /// How many strips.
    pub fn n(&self) -> usize {
        self.outs.len()
    }
}

/// Cuts at which strips are as wide as each other with their halos, of which the outermost have but one;
/// `None` if that is where they are cut already, or the halo leaves nothing to cut.
fn balanced(graph: &StageGraph, strips: &Strips, cuts: &[u32]) -> Option<Vec<u32>> {
    let n = strips.n() as u64;
    let all = u64::from(*cuts.last()?);
    let bytes = |buffer: &BufferId| graph.buffers[*buffer].row_bytes();
    let whole: u64 = strips.own.keys().map(bytes).sum();
    // What a strip has beyond its share, in bytes, times all columns.
    let halo = |(width, cut): (u64, &[u32])| (width * all).saturating_sub(whole * u64::from(cut[1] - cut[0]));
    let halos: Vec<u64> = strips.widths(graph).into_iter().zip(cuts.windows(2)).map(halo).collect();
    let together = whole * all + halos.iter().sum::<u64>();
    let (mut balanced, mut reached) = (vec![0], 0);
    for (strip, halo) in (1..n).zip(halos) {
        // Strips up to this one have their share of everything, but for their halos.
        reached += halo;
        let columns = (strip * together).checked_sub(n * reached)? / n;
        balanced.push(u32::try_from((columns + whole / 2) / whole.max(1)).ok()?);
    }
    balanced.push(*cuts.last()?);
    let is_proper = balanced.windows(2).all(|cut| cut[0] < cut[1]);
    (is_proper && balanced != cuts).then_some(balanced)
}

/// Whether a stage of a set can be one of `n` strips, as far as that does not depend on the others.
fn may_split(graph: &StageGraph, stage: StageId, n: u32) -> bool {
    let node = &graph.stages[stage];
    let out = node.code.out;
    let buffer = out.tensor;
    node.by_columns
        && node.table_set.is_none()
        && out.col0 == 0
        && out.cols == graph.buffers[buffer].cols
        && out.cols >= n
        && windowed(&node.code, &(0..out.cols)).is_some()
}

struct Division<'a> {
    graph: &'a StageGraph,
    topology: &'a Topology,
    set: &'a StageSet,
    stages: &'a [StageId],
    /// Where strips begin in the narrowest output, and its columns.
    cuts: Vec<u32>,
    private: &'a BTreeSet<BufferId>,
    /// Buffers that turned out to be one for all strips.
    kept: BTreeSet<BufferId>,
}

impl Division<'_> {
    /// Whether each strip has its own of a buffer.
    fn is_own(&self, buffer: BufferId) -> bool {
        self.private.contains(&buffer) && !self.kept.contains(&buffer)
    }

    /// The strips; `None` if the set cannot be divided.
    fn divided(&mut self) -> Option<Strips> {
        self.kept.clear();
        loop {
            match self.divide()? {
                Ok(strips) => return Some(strips),
                Err(buffer) => drop(self.kept.insert(buffer)),
            }
        }
    }

    /// The strips; the buffer that must be one for all strips if there is such; `None` if the set cannot be
    /// divided.
    fn divide(&self) -> Option<Result<Strips, BufferId>> {
        let mut strips = Strips {
            stages: self.stages.to_vec(),
            outs: Vec::new(),
            codes: Vec::new(),
            own: BTreeMap::new(),
            kept: self.kept.clone(),
        };
        let mut done: BTreeMap<StageId, u32> = BTreeMap::new();
        for strip in 0..self.cuts.len() - 1 {
            let mut needs: BTreeMap<StageId, Range<u32>> = BTreeMap::new();
            let mut outs = Vec::new();
            let mut codes = Vec::new();
            for &stage in self.stages.iter().rev() {
                let code = &self.graph.stages[stage].code;
                let buffer = code.out.tensor;
                let need = needs.get(&stage).cloned();
                let out = if self.is_own(buffer) {
                    need.unwrap_or_else(|| self.cut(strip, code.out.cols)..self.cut(strip + 1, code.out.cols))
                } else {
                    let start = done.get(&stage).copied().unwrap_or(0);
                    let end = self.cut(strip + 1, code.out.cols).max(need.map_or(0, |need| need.end));
                    done.insert(stage, end);
                    start..end
                };
                let windowed = windowed(code, &out)?;
                for (view, read) in code.reads().iter().zip(&windowed.reads) {
                    let cols = read.clone().map_or(view.col0..view.col0 + view.cols, |read| {
                        view.col0 + read.start..view.col0 + read.end
                    });
                    self.want(&mut needs, view, &cols);
                }
                outs.push(out);
                codes.push(windowed);
            }
            outs.reverse();
            codes.reverse();
            if let Err(buffer) = self.note_own(&mut strips, &outs) {
                return Some(Err(buffer));
            }
            strips.outs.push(outs);
            strips.codes.push(codes);
        }
        Some(Ok(strips))
    }

    /// Where strip `strip` of a tensor begins if nothing else says: at the same place in tensors of all
    /// scales.
    fn cut(&self, strip: usize, cols: u32) -> u32 {
        let coarsest = self.cuts.last().copied().unwrap_or(1);
        (u64::from(self.cuts[strip]) * u64::from(cols) / u64::from(coarsest.max(1))) as u32
    }

    /// Adds columns of a view to what its writers in the set have to give.
    fn want(&self, needs: &mut BTreeMap<StageId, Range<u32>>, view: &BufferView, cols: &Range<u32>) {
        let writers = &self.topology.uses[view.tensor].writers;
        for (writer, piece) in writers.iter().filter(|(writer, _)| self.set.contains(*writer)) {
            if views_meet(piece, view) {
                let need = needs.entry(*writer).or_insert_with(|| cols.clone());
                *need = need.start.min(cols.start)..need.end.max(cols.end);
            }
        }
    }

    /// Enters the columns of a strip's own buffers; the buffer whose writers compute different columns if
    /// there is one.
    fn note_own(&self, strips: &mut Strips, outs: &[Range<u32>]) -> Result<(), BufferId> {
        let strip = strips.outs.len();
        for (&stage, out) in self.stages.iter().zip(outs) {
            let buffer = self.graph.stages[stage].code.out.tensor;
            if !self.is_own(buffer) {
                continue;
            }
            let ranges = strips.own.entry(buffer).or_default();
            match ranges.get(strip) {
                None => ranges.push(out.clone()),
                Some(range) if range == out => {}
                Some(_) => return Err(buffer),
            }
        }
        Ok(())
    }
}
