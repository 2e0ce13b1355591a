//! What differs between two modules, op by op.
//!
//! Ops are matched by what they are, the node that they come from, and their order among those of the same
//! name and node; so an op that a pass leaves alone is the same wherever it then stands. Constants are no ops
//! here but what their users are made of: an op whose weights are others has changed. What stands in a stage
//! moves with it, which is told once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use strata_ir::module::OpData;
use strata_ir::{Attribute, BlockId, Module, Op, OpId, ValueId};

use super::view::{Key, Keys};

/// What differs between two modules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpChanges {
    /// Ops of the first alone.
    pub removed: Vec<PlacedOp>,
    /// Ops of the second alone.
    pub added: Vec<PlacedOp>,
    /// Ops of both that differ in attributes, data or types.
    pub changed: Vec<ChangedOp>,
    /// Ops of both that stand in another stage or phase.
    pub moved: Vec<MovedOp>,
    /// Attributes of modules and functions that differ.
    pub attributes: Vec<String>,
}

/// An op and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedOp {
    /// Which op: its node, its name, and which of them.
    #[serde(flatten)]
    pub key: Key,
    /// The types of its results.
    pub results: Vec<String>,
    /// The function, phase and stage that it stands in.
    pub place: String,
}

/// An op that is otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedOp {
    /// Which op.
    #[serde(flatten)]
    pub key: Key,
    /// What differs: names of attributes, `operand N` (its type, or the data of a constant), `operands` (how
    /// many there are), `results` (their types).
    pub what: Vec<String>,
}

/// An op that stands elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedOp {
    /// Which op.
    #[serde(flatten)]
    pub key: Key,
    /// Where it stands in the first.
    pub from: String,
    /// Where it stands in the second.
    pub to: String,
}

impl OpChanges {
    /// What differs between two lists of modules: the parts of two dumps.
    pub fn of(a: &[Module], b: &[Module]) -> Self {
        let (before, after) = (Index::of(a), Index::of(b));
        let mut changes = Self { attributes: before.other_attributes(&after), ..Self::default() };
        for entry in &before.entries {
            let Some(other) = after.get(&entry.placed.key) else {
                changes.removed.push(entry.placed.clone());
                continue;
            };
            let what = entry.differences(other);
            let key = || entry.placed.key.clone();
            if !what.is_empty() {
                changes.changed.push(ChangedOp { key: key(), what });
            }
            if entry.placed.place != other.placed.place {
                let (from, to) = (entry.placed.place.clone(), other.placed.place.clone());
                changes.moved.push(MovedOp { key: key(), from, to });
            }
        }
        let is_new = |entry: &&Entry| before.get(&entry.placed.key).is_none();
        changes.added = after.entries.iter().filter(is_new).map(|entry| entry.placed.clone()).collect();
        changes
    }

    /// Whether the two are the same.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The ops of modules by their keys.
#[derive(Default)]
struct Index<'a> {
    entries: Vec<Entry<'a>>,
    at: BTreeMap<Key, usize>,
    attributes: BTreeMap<String, &'a Attribute>,
}

struct Entry<'a> {
    placed: PlacedOp,
    module: &'a Module,
    op: OpId,
}

/// Where the ops of a block stand, from the outside in.
#[derive(Clone, Default)]
struct Place(Vec<String>);

impl<'a> Index<'a> {
    fn of(modules: &'a [Module]) -> Self {
        let (mut index, mut keys) = (Self::default(), Keys::default());
        for (part, module) in modules.iter().enumerate() {
            let part = if modules.len() > 1 { format!("part {part}") } else { String::new() };
            let place = Place(Some(part).filter(|part| !part.is_empty()).into_iter().collect());
            index.note_attributes(&place, module.op(module.top()));
            index.gather(module, module.body(), &place, &mut keys);
        }
        index
    }

    fn get(&self, key: &Key) -> Option<&Entry<'a>> {
        self.at.get(key).map(|&at| &self.entries[at])
    }

    fn gather(&mut self, module: &'a Module, block: BlockId, place: &Place, keys: &mut Keys) {
        let mut n_phases = 0;
        for &op in module.block_ops(block) {
            let data = module.op(op);
            let mut inner = place.clone();
            match &data.op {
                Op::Func(row) => inner.0.push(format!("@{}", row.sym_name)),
                Op::Phase(_) => {
                    inner.0.push(format!("phase {n_phases}"));
                    n_phases += 1;
                }
                // Whatever phase the stage is in.
                Op::Stage(row) => inner = Place(vec![format!("stage @{}", row.name)]),
                _ => {}
            }
            match data.op {
                // What a function is called and says of itself are attributes.
                Op::Func(_) => self.note_attributes(&inner, data),
                Op::Const(_) | Op::ConstShape(_) => {}
                // What ends a block says nothing.
                _ if data.results().is_empty() => {}
                _ => self.push(module, op, place, keys),
            }
            for &region in data.regions() {
                for &block in module.region_blocks(region) {
                    self.gather(module, block, &inner, keys);
                }
            }
        }
    }

    fn push(&mut self, module: &'a Module, op: OpId, place: &Place, keys: &mut Keys) {
        let data = module.op(op);
        let name = match &data.op {
            Op::Stage(row) => row.name.as_str(),
            _ => data.loc.name().unwrap_or_default(),
        };
        let placed = PlacedOp {
            key: keys.next(name, data.op.name()),
            results: types(module, data.results()),
            place: place.0.join(", "),
        };
        self.at.insert(placed.key.clone(), self.entries.len());
        self.entries.push(Entry { placed, module, op });
    }

    fn note_attributes(&mut self, place: &Place, data: &'a OpData) {
        let of = if place.0.is_empty() { "module".to_owned() } else { place.0.join(", ") };
        for (name, value) in &data.extra {
            self.attributes.insert(format!("{of}: {name}"), value);
        }
    }

    /// Attributes that are not the same in both.
    fn other_attributes(&self, other: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.attributes.keys().chain(other.attributes.keys()).collect();
        let differs = |name: &&&String| self.attributes.get(**name) != other.attributes.get(**name);
        names.iter().filter(differs).map(|&name| name.clone()).collect()
    }
}

fn types(module: &Module, values: &[ValueId]) -> Vec<String> {
    values.iter().map(|&value| module.ty(value).to_string()).collect()
}

impl Entry<'_> {
    /// What differs between two ops of one name and node.
    fn differences(&self, other: &Self) -> Vec<String> {
        let (a, b) = (self.module.op(self.op), other.module.op(other.op));
        let mut what = Vec::new();
        if a.op != b.op {
            let (a, b) = (a.op.attrs(), b.op.attrs());
            let names: BTreeSet<&str> = a.keys().chain(b.keys()).copied().collect();
            what.extend(names.into_iter().filter(|name| a.get(name) != b.get(name)).map(str::to_owned));
        }
        let names: BTreeSet<&String> = a.extra.keys().chain(b.extra.keys()).collect();
        let differs = |name: &&String| a.extra.get(*name) != b.extra.get(*name);
        what.extend(names.into_iter().filter(differs).cloned());
        if a.operands().len() != b.operands().len() {
            what.push("operands".to_owned());
        }
        for (at, (&a, &b)) in a.operands().iter().zip(b.operands()).enumerate() {
            let constants = (self.module.constant(a), other.module.constant(b));
            if self.module.ty(a) != other.module.ty(b) || constants.0 != constants.1 {
                what.push(format!("operand {at}"));
            }
        }
        if self.placed.results != other.placed.results {
            what.push("results".to_owned());
        }
        what
    }
}
