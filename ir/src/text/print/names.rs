//! The names of values: those of the layers and inputs that they come from.
//!
//! A result is called as the place of its op is (`%conv1`), a constant as the first op that takes it and what
//! it is to that (`%conv1_weight`), an argument of a function as its `strata.name`. Of values that would have
//! one name, all but the first get a number: `%conv1_1`. Names are unique in each op of the module's body.

use std::collections::{BTreeMap, BTreeSet};

use cranelift_entity::SecondaryMap;

use crate::attr::Attribute;
use crate::dialect::{Op, OpInfo};
use crate::module::{Module, OpId, ValueId};

/// Characters of a name that come from the name of a place: of longer ones, the last, which tell more.
const MAX_CHARS: usize = 48;

/// The names of values in the text of a module.
#[derive(Debug, Default)]
pub struct Names(SecondaryMap<ValueId, Option<Box<str>>>);

impl Names {
    /// Names all values of a module.
    pub fn of(module: &Module) -> Self {
        let mut namer = Namer {
            module,
            roles: roles(module),
            names: Self::default(),
            taken: BTreeSet::new(),
            counts: BTreeMap::new(),
        };
        for &op in module.block_ops(module.body()) {
            namer.taken.clear();
            namer.counts.clear();
            namer.name_op(op);
        }
        namer.names
    }

    /// Appends a value's name.
    pub(crate) fn push(&self, out: &mut String, value: ValueId) {
        out.push('%');
        out.push_str(self.0[value].as_deref().unwrap_or("undefined"));
    }

    /// A value's name, such as `%conv1`.
    pub fn get(&self, value: ValueId) -> String {
        let mut out = String::new();
        self.push(&mut out, value);
        out
    }
}

/// What a value is to the first op that takes it.
#[derive(Clone, Copy)]
struct Role {
    user: OpId,
    /// The name of the operand.
    operand: &'static str,
}

fn roles(module: &Module) -> SecondaryMap<ValueId, Option<Role>> {
    let infos: BTreeMap<&str, OpInfo> = Op::all_infos().into_iter().map(|info| (info.name, info)).collect();
    let mut roles: SecondaryMap<ValueId, Option<Role>> = SecondaryMap::new();
    for op in module.walk(module.body()) {
        let data = module.op(op);
        let operands = infos.get(data.op.name()).map_or(&[][..], |info| info.operands);
        for (index, &value) in data.operands().iter().enumerate() {
            if roles[value].is_none() {
                let operand = operands.get(index).or(operands.last()).copied();
                roles[value] = operand.map(|operand| Role { user: op, operand });
            }
        }
    }
    roles
}

struct Namer<'a> {
    module: &'a Module,
    roles: SecondaryMap<ValueId, Option<Role>>,
    names: Names,
    taken: BTreeSet<Box<str>>,
    /// The last number that was tried for a name.
    counts: BTreeMap<String, usize>,
}

impl Namer<'_> {
    fn name_op(&mut self, op: OpId) {
        let data = self.module.op(op);
        // What a region yields is named first: the results are the same values outside.
        let yields = matches!(data.op, Op::Phase(_));
        if yields {
            self.name_regions(op);
        }
        for (index, &result) in data.results().iter().enumerate() {
            let name = if yields { self.yielded(op, index) } else { self.of_result(op, result) };
            self.enter(result, &name);
        }
        if !yields {
            self.name_regions(op);
        }
    }

    fn name_regions(&mut self, op: OpId) {
        for &region in self.module.op(op).regions() {
            for &block in self.module.region_blocks(region) {
                for (index, &arg) in self.module.args(block).iter().enumerate() {
                    let name = self.of_argument(op, index);
                    self.enter(arg, &name);
                }
                for &inner in self.module.block_ops(block) {
                    self.name_op(inner);
                }
            }
        }
    }

    /// What a result would be called if no other value were.
    fn of_result(&self, op: OpId, result: ValueId) -> String {
        let data = self.module.op(op);
        if let Op::Stage(stage) = &data.op {
            return clean(&stage.name);
        }
        let role = self.roles[result].filter(|_| data.op.is_constant());
        let place = self.module.op(role.map_or(op, |role| role.user)).loc.name().map(clean);
        match (place, role) {
            (Some(place), Some(role)) => format!("{place}_{}", role.operand),
            (Some(place), None) => place,
            (None, Some(role)) => role.operand.to_owned(),
            (None, None) => data.op.name().rsplit('.').next().unwrap_or_default().to_owned(),
        }
    }

    /// What result `index` of a phase is called: as what it yields.
    fn yielded(&self, op: OpId, index: usize) -> String {
        let blocks =
            self.module.op(op).regions().iter().flat_map(|&region| self.module.region_blocks(region));
        let end = blocks.last().and_then(|&block| self.module.terminator(block));
        let value = end.and_then(|end| self.module.op(end).operands().get(index).copied());
        let name = value.and_then(|value| self.names.0[value].as_deref());
        format!("{}_out", name.unwrap_or("phase"))
    }

    fn of_argument(&self, op: OpId, index: usize) -> String {
        match &self.module.op(op).op {
            Op::Func(func) => match given_name(func.arg_attrs.as_ref(), index) {
                Some(name) => clean(name),
                None => format!("arg{index}"),
            },
            Op::Stage(stage) => format!("{}_in", clean(&stage.name)),
            _ => "arg".to_owned(),
        }
    }

    fn enter(&mut self, value: ValueId, wish: &str) {
        let mut name: Box<str> = wish.into();
        while self.taken.contains(&name) {
            let count = self.counts.entry(wish.to_owned()).or_insert(0);
            *count += 1;
            name = format!("{wish}_{count}").into();
        }
        self.taken.insert(name.clone());
        self.names.0[value] = Some(name);
    }
}

/// The `strata.name` of an argument.
fn given_name(attrs: Option<&Attribute>, index: usize) -> Option<&str> {
    let Some(Attribute::Array(dicts)) = attrs else { return None };
    let Some(Attribute::Dict(entries)) = dicts.get(index) else { return None };
    match entries.get("strata.name") {
        Some(Attribute::Str(name)) => Some(name),
        _ => None,
    }
}

/// A text as a name: letters, digits and `_ . $ -`, the first of which is a letter.
fn clean(text: &str) -> String {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$' | '-');
    let name: String = text.chars().map(|c| if is_of_name(c) { c } else { '_' }).collect();
    let name = &name[name.len().saturating_sub(MAX_CHARS)..];
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    match name.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => name.to_owned(),
        _ => format!("v{name}"),
    }
}
