//! Questions about a [`StageGraph`]: who writes and reads what, what depends on what, which sets are convex.
//!
//! A stage depends on another when it reads a part of a buffer that the other writes. Concatenations are one
//! buffer with several writers, so a reader of a slice depends only on the writers whose views meet it.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use cranelift_entity::PrimaryMap;
use petgraph::Direction;
use petgraph::algo::tred;
use petgraph::graphmap::DiGraphMap;
use petgraph::visit::{EdgeRef as _, IntoEdgeReferences as _};
use strata_isa_spec::View;

use crate::model::{BufferId, BufferRole, BufferView, StageGraph, StageId};

/// A canonical set of stages: a bit set without trailing zero words, so that equal sets compare equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StageSet(Vec<u64>);

impl StageSet {
    /// A set of one.
    pub fn of(stage: StageId) -> Self {
        let mut set = Self::default();
        set.insert(stage);
        set
    }

    /// Adds a stage.
    pub fn insert(&mut self, stage: StageId) {
        let (word, bit) = (stage.as_u32() as usize / 64, stage.as_u32() % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    /// Whether a stage is in the set.
    pub fn contains(&self, stage: StageId) -> bool {
        let (word, bit) = (stage.as_u32() as usize / 64, stage.as_u32() % 64);
        self.0.get(word).is_some_and(|w| w >> bit & 1 == 1)
    }

    /// Number of stages.
    pub fn len(&self) -> usize {
        self.0.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The stages in order.
    pub fn iter(&self) -> impl Iterator<Item = StageId> + '_ {
        self.0.iter().enumerate().flat_map(|(word, &bits)| {
            let lowest = |left: &u64| Some(left & (left - 1)).filter(|left| *left != 0);
            let lefts = std::iter::successors(Some(bits).filter(|bits| *bits != 0), lowest);
            lefts.map(move |left| StageId::from_u32(word as u32 * 64 + left.trailing_zeros()))
        })
    }

    /// Adds all stages of another set.
    pub fn extend(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine |= theirs;
        }
    }

    /// The union of two sets.
    pub fn union(&self, other: &Self) -> Self {
        let mut union = self.clone();
        union.extend(other);
        union
    }

    /// How two unions of two sets compare, as the sets that they are.
    pub fn compare_unions(a: (&Self, &Self), b: (&Self, &Self)) -> Ordering {
        let n_words = [a.0, a.1, b.0, b.1].map(|set| set.0.len()).into_iter().max().unwrap_or(0);
        (0..n_words)
            .map(|word| (a.0.word(word) | a.1.word(word)).cmp(&(b.0.word(word) | b.1.word(word))))
            .find(|o| o.is_ne())
            .unwrap_or(Ordering::Equal)
    }

    /// The beginning of a union of two sets: sets compare as their beginnings do, unless these are equal.
    pub fn beginning_of_union(a: &Self, b: &Self) -> (usize, u64) {
        let words = (0..).map(|word| (word, a.word(word) | b.word(word)));
        let first = words.into_iter().find(|(_, word)| *word != u64::MAX);
        first.expect("sets are finite")
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// Whether two sets share a stage.
    pub fn meets(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(a, b)| a & b != 0)
    }

    /// Whether every stage of this set is in the other.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().enumerate().all(|(word, &bits)| bits & !other.0.get(word).copied().unwrap_or(0) == 0)
    }

    /// The stages of this set that are not in the other.
    pub fn without(&self, other: &Self) -> Self {
        let mut words: Vec<u64> = self
            .0
            .iter()
            .enumerate()
            .map(|(word, &bits)| bits & !other.0.get(word).copied().unwrap_or(0))
            .collect();
        while words.last() == Some(&0) {
            words.pop();
        }
        Self(words)
    }
}

impl FromIterator<StageId> for StageSet {
    fn from_iter<I: IntoIterator<Item = StageId>>(stages: I) -> Self {
        let mut set = Self::default();
        for stage in stages {
            set.insert(stage);
        }
        set
    }
}

/// Whether two views are of one buffer, or one stream, and share an element.
pub fn views_meet<Tensor: PartialEq>(a: &View<Tensor>, b: &View<Tensor>) -> bool {
    let overlap = |a0: u32, an: u32, b0: u32, bn: u32| {
        u64::from(a0) < u64::from(b0) + u64::from(bn) && u64::from(b0) < u64::from(a0) + u64::from(an)
    };
    a.tensor == b.tensor
        && overlap(a.row0, a.rows, b.row0, b.rows)
        && overlap(a.col0, a.cols, b.col0, b.cols)
        && overlap(a.ch0, a.chs, b.ch0, b.chs)
}

/// The smallest box that holds two views of one buffer.
pub fn bounding(a: &BufferView, b: &BufferView) -> BufferView {
    let span = |a0: u32, an: u32, b0: u32, bn: u32| {
        let first = a0.min(b0);
        (first, (a0 + an).max(b0 + bn) - first)
    };
    let (row0, rows) = span(a.row0, a.rows, b.row0, b.rows);
    let (col0, cols) = span(a.col0, a.cols, b.col0, b.cols);
    let (ch0, chs) = span(a.ch0, a.chs, b.ch0, b.chs);
    BufferView { tensor: a.tensor, row0, rows, col0, cols, ch0, chs }
}

/// The box that two views of one buffer share.
pub fn intersection(a: &BufferView, b: &BufferView) -> Option<BufferView> {
    let span = |a0: u32, an: u32, b0: u32, bn: u32| {
        let first = a0.max(b0);
        (first, (a0 + an).min(b0 + bn) - first)
    };
    views_meet(a, b).then(|| {
        let (row0, rows) = span(a.row0, a.rows, b.row0, b.rows);
        let (col0, cols) = span(a.col0, a.cols, b.col0, b.cols);
        let (ch0, chs) = span(a.ch0, a.chs, b.ch0, b.chs);
        BufferView { tensor: a.tensor, row0, rows, col0, cols, ch0, chs }
    })
}

/// Who uses a buffer.
#[derive(Clone, Debug, Default)]
pub struct BufferUses {
    /// Stages that write it, and what.
    pub writers: Vec<(StageId, BufferView)>,
    /// Stages that read it, and what; a stage stands here once a view.
    pub readers: Vec<(StageId, BufferView)>,
}

/// Why a stage graph makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// A view names a buffer that does not exist.
    #[error("stage `{stage}` names buffer {buffer}, which does not exist")]
    NoSuchBuffer {
        /// The stage's name.
        stage: String,
        /// The buffer's number.
        buffer: u32,
    },
    /// Stages stand before what they depend on.
    #[error("stage `{stage}` stands before `{needs}`, whose output it reads")]
    Order {
        /// The stage's name.
        stage: String,
        /// The stage that it reads from.
        needs: String,
    },
}

/// What the planner asks of a graph, computed once.
#[derive(Clone, Debug)]
pub struct Topology {
    /// Uses of each buffer.
    pub uses: PrimaryMap<BufferId, BufferUses>,
    /// Stages that a stage reads from directly.
    pub preds: PrimaryMap<StageId, StageSet>,
    /// Stages that read from a stage directly.
    pub succs: PrimaryMap<StageId, StageSet>,
    /// All stages that a stage depends on.
    pub ancestors: PrimaryMap<StageId, StageSet>,
    /// All stages that depend on a stage.
    pub descendants: PrimaryMap<StageId, StageSet>,
    /// Buffers that a stage touches, in order.
    pub touches: PrimaryMap<StageId, Vec<BufferId>>,
}

impl Topology {
    /// Reads the graph.
    ///
    /// # Errors
    /// If a view names no buffer, or the order of the stages is not topological.
    pub fn new(graph: &StageGraph) -> Result<Self, GraphError> {
        let uses = uses(graph)?;
        let dag = dependences(graph, &uses)?;
        // The order of the stages is topological, so each keeps its number in the list.
        let order: Vec<u32> = graph.stages.keys().map(StageId::as_u32).collect();
        let near = |direction: Direction| -> PrimaryMap<StageId, StageSet> {
            let near =
                |&stage: &u32| dag.neighbors_directed(stage, direction).map(StageId::from_u32).collect();
            order.iter().map(near).collect()
        };
        let (list, _) = tred::dag_to_toposorted_adjacency_list::<_, u32>(&dag, &order);
        let (_, closure) = tred::dag_transitive_reduction_closure(&list);
        let none =
            || -> PrimaryMap<StageId, StageSet> { order.iter().map(|_| StageSet::default()).collect() };
        let (mut ancestors, mut descendants) = (none(), none());
        for (above, below) in closure.edge_references().map(|edge| (edge.source(), edge.target())) {
            let (above, below) = (StageId::from_u32(above), StageId::from_u32(below));
            ancestors[below].insert(above);
            descendants[above].insert(below);
        }
        let (preds, succs) = (near(Direction::Incoming), near(Direction::Outgoing));
        let touches = graph.stages.values().map(|node| {
            let views = node.code.reads().into_iter().chain([node.code.out]);
            views.map(|view| view.tensor).collect::<BTreeSet<BufferId>>().into_iter().collect()
        });
        Ok(Self { uses, preds, succs, ancestors, descendants, touches: touches.collect() })
    }

    /// Stages outside of a set that its stages depend on.
    pub fn needs(&self, set: &StageSet) -> StageSet {
        let mut needs = StageSet::default();
        for stage in set.iter() {
            needs.extend(&self.preds[stage]);
        }
        needs.without(set)
    }

    /// Whether no path leaves the set and comes back.
    pub fn is_convex(&self, set: &StageSet) -> bool {
        let (mut above, mut below) = (StageSet::default(), StageSet::default());
        for stage in set.iter() {
            above.extend(&self.ancestors[stage]);
            below.extend(&self.descendants[stage]);
        }
        !above.without(set).meets(&below.without(set))
    }

    /// Buffers that the stages of a set touch, in order.
    pub fn touched(&self, set: &StageSet) -> Vec<BufferId> {
        let mut touched: Vec<BufferId> =
            set.iter().flat_map(|stage| self.touches[stage].iter().copied()).collect();
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Whether nothing outside of the set has to do with a buffer.
    pub fn is_private(&self, graph: &StageGraph, set: &StageSet, buffer: BufferId) -> bool {
        let uses = &self.uses[buffer];
        graph.buffers[buffer].role == BufferRole::Internal
            && uses.writers.iter().chain(&uses.readers).all(|(stage, _)| set.contains(*stage))
    }
}

/// Who writes and reads each buffer.
fn uses(graph: &StageGraph) -> Result<PrimaryMap<BufferId, BufferUses>, GraphError> {
    let mut uses: PrimaryMap<BufferId, BufferUses> =
        graph.buffers.keys().map(|_| BufferUses::default()).collect();
    for (stage, node) in &graph.stages {
        let missing =
            |buffer: BufferId| GraphError::NoSuchBuffer { stage: node.name.clone(), buffer: buffer.as_u32() };
        for view in node.code.reads() {
            let uses = uses.get_mut(view.tensor).ok_or_else(|| missing(view.tensor))?;
            uses.readers.push((stage, view));
        }
        let out = node.code.out;
        uses.get_mut(out.tensor).ok_or_else(|| missing(out.tensor))?.writers.push((stage, out));
    }
    Ok(uses)
}

/// The numbers of the stages, with an edge to each from those that it reads from.
fn dependences(
    graph: &StageGraph,
    uses: &PrimaryMap<BufferId, BufferUses>,
) -> Result<DiGraphMap<u32, ()>, GraphError> {
    let mut dag = DiGraphMap::with_capacity(graph.stages.len(), graph.stages.len());
    for stage in graph.stages.keys() {
        dag.add_node(stage.as_u32());
    }
    for buffer in uses.values() {
        for &(reader, read) in &buffer.readers {
            for &(writer, _) in buffer.writers.iter().filter(|(_, view)| views_meet(view, &read)) {
                if writer >= reader {
                    return Err(GraphError::Order {
                        stage: graph.stages[reader].name.clone(),
                        needs: graph.stages[writer].name.clone(),
                    });
                }
                dag.add_edge(writer.as_u32(), reader.as_u32(), ());
            }
        }
    }
    Ok(dag)
}
