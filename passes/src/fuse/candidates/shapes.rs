//! Shapes: sets of stages that cost the same wherever in the network they stand.
//!
//! Two sets have one shape if their stages, in order, have equal codes but for the names of buffers, equal
//! tables, and share tables alike; and if the buffers that they touch, in order, have equal sizes and roles,
//! are touched by the same of their stages, and are used outside of the set through equal views. Whatever
//! [`Candidate::new`](crate::fuse::candidates::candidate::Candidate::new) looks at is one of these, so it is
//! enough to evaluate one set of a shape. Deep networks repeat themselves, so shapes are few.

use std::collections::BTreeMap;

use cranelift_entity::PrimaryMap;
use strata_backend::model::graph::{StageSet, Topology};
use strata_backend::model::tables::{TableKey, table_key};
use strata_backend::model::{BufferId, BufferRole, BufferView, StageGraph, StageId, StageTemplate, TableId};
use strata_isa_spec::StageCode;

/// What sets of one shape agree in, and no others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shape(Box<[u8]>);

/// The stages and buffers of a graph, numbered by what they have in common.
#[derive(Clone, Debug)]
pub struct Shapes {
    stages: PrimaryMap<StageId, u32>,
    buffers: PrimaryMap<BufferId, u32>,
    /// The readers and the writers of each buffer, each with the number of its view.
    readers: PrimaryMap<BufferId, Vec<(StageId, u32)>>,
    writers: PrimaryMap<BufferId, Vec<(StageId, u32)>>,
    /// The buffers of each stage's views.
    views: PrimaryMap<StageId, Vec<BufferId>>,
    tables: PrimaryMap<StageId, TableKey>,
}

impl Shapes {
    /// Numbers the stages and buffers of a graph.
    pub fn new(graph: &StageGraph, topology: &Topology) -> Self {
        let mut codes: Vec<(Nameless, &PrimaryMap<TableId, u32>, bool)> = Vec::new();
        let stages = graph.stages.values().map(|node| {
            let code = node.code.map_views(|view| view.of(()));
            let is_same = |(other, tables, by_columns): &(Nameless, &PrimaryMap<TableId, u32>, bool)| {
                *by_columns == node.by_columns && **tables == node.table_bytes && *other == code
            };
            let found = codes.iter().position(is_same).unwrap_or_else(|| {
                codes.push((code, &node.table_bytes, node.by_columns));
                codes.len() - 1
            });
            found as u32
        });
        let stages = stages.collect();
        let mut sizes = BTreeMap::new();
        let buffers = graph.buffers.values().map(|buffer| {
            let role = match buffer.role {
                BufferRole::Internal => 0,
                BufferRole::Input(_) => 1,
                BufferRole::Output(_) => 2,
            };
            number(&mut sizes, (buffer.elem.size_bytes(), buffer.rows, buffer.cols, buffer.chs, role))
        });
        let buffers = buffers.collect();
        let mut views = BTreeMap::new();
        let mut numbered = |uses: &[(StageId, BufferView)]| -> Vec<(StageId, u32)> {
            let box_of = |view: &BufferView| [view.row0, view.rows, view.col0, view.cols, view.ch0, view.chs];
            uses.iter().map(|(stage, view)| (*stage, number(&mut views, box_of(view)))).collect()
        };
        let readers = topology.uses.values().map(|uses| numbered(&uses.readers)).collect();
        let writers = topology.uses.values().map(|uses| numbered(&uses.writers)).collect();
        let buffers_of = |code: &StageTemplate| {
            code.reads().into_iter().chain([code.out]).map(|view| view.tensor).collect::<Vec<BufferId>>()
        };
        Self {
            stages,
            buffers,
            readers,
            writers,
            views: graph.stages.values().map(|node| buffers_of(&node.code)).collect(),
            tables: graph.stages.keys().map(|stage| table_key(graph, stage)).collect(),
        }
    }

    /// The shape of a set.
    pub fn of(&self, topology: &Topology, set: &StageSet) -> Shape {
        let mut shape = Writer::default();
        let touched = topology.touched(set);
        let mut tables: Vec<TableKey> = Vec::new();
        for stage in set.iter() {
            shape.put(self.stages[stage]);
            for buffer in &self.views[stage] {
                let place = touched.binary_search(buffer);
                shape.put(place.unwrap_or(touched.len()) as u32);
            }
            let table = tables.iter().position(|key| *key == self.tables[stage]).unwrap_or_else(|| {
                tables.push(self.tables[stage]);
                tables.len() - 1
            });
            shape.put(table as u32);
        }
        for buffer in touched {
            shape.put(self.buffers[buffer]);
            for uses in [&self.readers[buffer], &self.writers[buffer]] {
                let outside = || uses.iter().filter(|(stage, _)| !set.contains(*stage));
                shape.put(outside().count() as u32);
                outside().for_each(|&(_, view)| shape.put(view));
            }
        }
        Shape(shape.0.into())
    }
}

/// A stage's code with its buffers' names left out.
type Nameless = StageCode<(), TableId>;

/// The number of a value, the next one if it is new.
fn number<T: Ord>(numbers: &mut BTreeMap<T, u32>, value: T) -> u32 {
    let next = numbers.len() as u32;
    *numbers.entry(value).or_insert(next)
}

/// Numbers as bytes, seven bits each, so that small ones, which most are, take one; no two sequences are
/// written alike.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn put(&mut self, mut number: u32) {
        while number > 0x7f {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }
}
