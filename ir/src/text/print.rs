//! The printer: a module as MLIR generic-form text.
//!
//! Constants of more than [`PrintOptions::threshold`] elements that are not one value repeated are printed as
//! `dense_resource<name>`; their blobs stand at the end of the text or are handed back for a side file
//! ([`super::resources`]). A constant keeps the name it was read with; others are named `c0`, `c1`, … in
//! print order; constants that share their data share a blob. `i1`, `i48` and `index` data always stand in
//! the text, because MLIR tools do not agree on how a blob packs them.
//!
//! Values are numbered in print order within a function: `%0` for a result, `%0#1` for one of several,
//! `%arg0` for a block argument. Any module prints, also one that does not verify: a use of a value that is
//! not in scope is printed as `%undefined`, which does not parse.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::sync::Arc;

use cranelift_entity::SecondaryMap;

use super::syntax::{push_f32, push_f64, push_name, push_quoted};
use crate::attr::{Attribute, Elements, FunctionType};
use crate::dialect::Op;
use crate::module::{BlockId, Module, OpId, RegionId, ValueId};
use crate::tensor::{Tensor, TensorData};
use crate::types::{ElemType, Type};

/// Where the blobs of large constants go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ResourcePlacement {
    /// At the end of the text, in hex, where every MLIR tool reads them.
    #[default]
    Inline,
    /// Into [`Printed::resources`], for a side file. The text alone still parses in MLIR tools.
    SideFile,
}

/// How to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrintOptions {
    /// Whether to print `loc(…)` after the ops whose place is known.
    pub locations: bool,
    /// Constants of more elements than this are printed as resources, unless they are one value repeated.
    pub threshold: usize,
    /// Where resources go.
    pub resources: ResourcePlacement,
    /// What the names of resources begin with, so that several modules can share a side file.
    pub prefix: String,
}

impl Default for PrintOptions {
    fn default() -> Self {
        Self { locations: true, threshold: 16, resources: ResourcePlacement::Inline, prefix: String::new() }
    }
}

/// What printing gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// The text.
    pub text: String,
    /// Blobs that do not stand in the text, by name, in print order: see [`super::resources::to_bytes`].
    pub resources: Vec<(String, Vec<u8>)>,
}

/// Prints a module.
pub fn print(module: &Module, options: &PrintOptions) -> Printed {
    let names = Names::of(module);
    let resources = ResourceNames::of(module, options);
    let mut printer = Printer { module, options, names: &names, resources: &resources, out: String::new() };
    printer.op(module.top(), 0);
    let mut blobs = Vec::new();
    match options.resources {
        ResourcePlacement::Inline => printer.inline_blobs(),
        ResourcePlacement::SideFile => {
            blobs = resources.blobs.iter().map(|(n, t)| (n.to_string(), t.data().to_bytes())).collect();
        }
    }
    Printed { text: printer.out, resources: blobs }
}

/// Prints a module with the default options: one self-contained text.
pub fn to_string(module: &Module) -> String {
    print(module, &PrintOptions::default()).text
}

/// An attribute as text; large constants in it stand as lists.
pub fn attribute_to_string(attr: &Attribute) -> String {
    let mut out = String::new();
    push_attribute(&mut out, attr, &ResourceNames::default());
    out
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Result(usize),
    OneOf(usize, usize),
    Arg(usize),
}

/// The names of values in the text.
#[derive(Debug, Default)]
pub(crate) struct Names(SecondaryMap<ValueId, Option<Name>>);

#[derive(Default)]
struct Counters {
    results: usize,
    args: usize,
}

impl Names {
    /// Numbers all values of a module, afresh for each op of its body.
    pub(crate) fn of(module: &Module) -> Self {
        let mut names = Self::default();
        for &op in module.block_ops(module.body()) {
            names.number_op(module, op, &mut Counters::default());
        }
        names
    }

    fn number_op(&mut self, module: &Module, op: OpId, counters: &mut Counters) {
        let results = module.op(op).results();
        for (index, &result) in results.iter().enumerate() {
            let name = if results.len() == 1 {
                Name::Result(counters.results)
            } else {
                Name::OneOf(counters.results, index)
            };
            self.0[result] = Some(name);
        }
        counters.results += usize::from(!results.is_empty());
        for &region in module.op(op).regions() {
            for &block in module.region_blocks(region) {
                for &arg in module.args(block) {
                    self.0[arg] = Some(Name::Arg(counters.args));
                    counters.args += 1;
                }
                for &inner in module.block_ops(block) {
                    self.number_op(module, inner, counters);
                }
            }
        }
    }

    /// Appends a value's name.
    pub(crate) fn push(&self, out: &mut String, value: ValueId) {
        let written = match self.0[value] {
            Some(Name::Result(n)) => write!(out, "%{n}"),
            Some(Name::OneOf(n, index)) => write!(out, "%{n}#{index}"),
            Some(Name::Arg(n)) => write!(out, "%arg{n}"),
            None => write!(out, "%undefined"),
        };
        written.expect("writing to a string does not fail");
    }

    /// A value's name.
    pub(crate) fn get(&self, value: ValueId) -> String {
        let mut out = String::new();
        self.push(&mut out, value);
        out
    }
}

/// Which constants are printed as resources, and under what names.
#[derive(Default)]
struct ResourceNames {
    by_data: BTreeMap<*const Tensor, Arc<str>>,
    blobs: Vec<(Arc<str>, Arc<Tensor>)>,
}

impl ResourceNames {
    fn of(module: &Module, options: &PrintOptions) -> Self {
        let PrintOptions { threshold, prefix, .. } = options;
        let mut large: Vec<Elements> = Vec::new();
        let top = std::iter::once(module.top());
        for op in module.walk(module.body()).into_iter().chain(top) {
            let data = module.op(op);
            let constants = data.op.constant().into_iter();
            for values in constants.chain(data.extra.values().flat_map(elements_of)) {
                large.extend(is_resource(values, *threshold).then(|| values.clone()));
            }
        }
        let mut taken: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut names = Self::default();
        for elements in large.iter().filter(|e| e.name.is_some()) {
            let name = elements.name.as_deref().expect("filtered");
            let wish: Arc<str> =
                if name.starts_with(prefix) { name.into() } else { format!("{prefix}{name}").into() };
            names.add(
                &mut taken,
                elements,
                |n| if n == 0 { wish.clone() } else { format!("{wish}_{n}").into() },
            );
        }
        let mut generated = 0;
        for elements in large.iter().filter(|e| e.name.is_none()) {
            names.add(&mut taken, elements, |_| {
                generated += 1;
                format!("{prefix}c{}", generated - 1).into()
            });
        }
        let mut blobs = BTreeMap::new();
        for elements in large {
            let key = Arc::as_ptr(&elements.tensor);
            if blobs.insert(key, ()).is_none() {
                names.blobs.push((names.by_data[&key].clone(), elements.tensor));
            }
        }
        names
    }

    /// Names `elements`, unless its data has a name already, by the first of `candidate(0)`, `candidate(1)`,
    /// … that is free.
    fn add(
        &mut self,
        taken: &mut BTreeSet<Arc<str>>,
        elements: &Elements,
        mut candidate: impl FnMut(usize) -> Arc<str>,
    ) {
        let key = Arc::as_ptr(&elements.tensor);
        if self.by_data.contains_key(&key) {
            return;
        }
        let name =
            (0..).map(&mut candidate).find(|n| !taken.contains(n)).expect("an endless supply of names");
        taken.insert(name.clone());
        self.by_data.insert(key, name);
    }

    fn name(&self, elements: &Elements) -> Option<&str> {
        self.by_data.get(&Arc::as_ptr(&elements.tensor)).map(AsRef::as_ref)
    }
}

/// The constants in an attribute.
fn elements_of(attr: &Attribute) -> Vec<&Elements> {
    match attr {
        Attribute::Elements(elements) => vec![elements],
        Attribute::Array(items) => items.iter().flat_map(elements_of).collect(),
        Attribute::Dict(entries) => entries.values().flat_map(elements_of).collect(),
        _ => Vec::new(),
    }
}

fn is_resource(elements: &Elements, threshold: usize) -> bool {
    let tensor = &elements.tensor;
    let packs_alike = !matches!(tensor.elem(), ElemType::I1 | ElemType::I48 | ElemType::Index);
    packs_alike && tensor.n_elements() > threshold && !is_splat(tensor.data())
}

/// Whether there is at least one element and all are the same, bit for bit.
fn is_splat(data: &TensorData) -> bool {
    fn all_equal<T: PartialEq>(v: &[T]) -> bool {
        v.first().is_some_and(|first| v.iter().all(|x| x == first))
    }
    match data {
        TensorData::I1(v) => all_equal(v),
        TensorData::I8(v) => all_equal(v),
        TensorData::I16(v) => all_equal(v),
        TensorData::I32(v) => all_equal(v),
        TensorData::I48(v) | TensorData::I64(v) | TensorData::Index(v) => all_equal(v),
        TensorData::F32(v) => v.first().is_some_and(|first| v.iter().all(|x| x.to_bits() == first.to_bits())),
    }
}

struct Printer<'a> {
    module: &'a Module,
    options: &'a PrintOptions,
    names: &'a Names,
    resources: &'a ResourceNames,
    out: String,
}

impl Printer<'_> {
    fn op(&mut self, op: OpId, depth: usize) {
        let data = self.module.op(op);
        self.indent(depth);
        self.head(op);
        if !data.regions().is_empty() {
            self.out.push_str(" (");
            for (i, &region) in data.regions().iter().enumerate() {
                self.out.push_str(if i == 0 { "" } else { ", " });
                self.region(region, depth);
            }
            self.out.push(')');
        }
        if !data.extra.is_empty() {
            self.out.push(' ');
            push_dict(&mut self.out, data.extra.iter(), self.resources);
        }
        self.out.push_str(" : ");
        let ty = |v: &ValueId| self.module.ty(*v).clone();
        let signature = FunctionType {
            inputs: data.operands().iter().map(ty).collect(),
            results: data.results().iter().map(ty).collect(),
        };
        push_function_type(&mut self.out, &signature);
        if self.options.locations && data.loc.is_known() {
            self.write(format_args!(" {}", data.loc));
        }
        self.out.push('\n');
    }

    /// `%0 = "name"(operands) <{properties}>`.
    fn head(&mut self, op: OpId) {
        let data = self.module.op(op);
        if let Some(&first) = data.results().first() {
            let name = self.names.get(first);
            self.out.push_str(name.split('#').next().unwrap_or_default());
            if data.results().len() > 1 {
                self.write(format_args!(":{}", data.results().len()));
            }
            self.out.push_str(" = ");
        }
        self.write(format_args!("\"{}\"(", data.op.name()));
        for (i, &operand) in data.operands().iter().enumerate() {
            self.out.push_str(if i == 0 { "" } else { ", " });
            self.names.push(&mut self.out, operand);
        }
        self.out.push(')');
        let props = properties(&data.op);
        if !props.is_empty() {
            self.out.push_str(" <");
            push_dict(&mut self.out, props.iter(), self.resources);
            self.out.push('>');
        }
    }

    fn region(&mut self, region: RegionId, depth: usize) {
        self.out.push_str("{\n");
        for (i, &block) in self.module.region_blocks(region).iter().enumerate() {
            self.block_label(block, i, depth);
            for &op in self.module.block_ops(block) {
                self.op(op, depth + 1);
            }
        }
        self.indent(depth);
        self.out.push('}');
    }

    /// The label of block `index`, left out where it says nothing: a first block without arguments. An empty
    /// one says that there is a block.
    fn block_label(&mut self, block: BlockId, index: usize, depth: usize) {
        let args = self.module.args(block);
        if index == 0 && args.is_empty() && !self.module.block_ops(block).is_empty() {
            return;
        }
        self.indent(depth);
        self.write(format_args!("^bb{index}"));
        if !args.is_empty() {
            self.out.push('(');
            for (i, &arg) in args.iter().enumerate() {
                self.out.push_str(if i == 0 { "" } else { ", " });
                self.names.push(&mut self.out, arg);
                self.write(format_args!(": {}", self.module.ty(arg)));
            }
            self.out.push(')');
        }
        self.out.push_str(":\n");
    }

    fn inline_blobs(&mut self) {
        if self.resources.blobs.is_empty() {
            return;
        }
        self.out.push_str("\n{-#\n  dialect_resources: {\n    builtin: {\n");
        for (i, (name, tensor)) in self.resources.blobs.iter().enumerate() {
            self.out.push_str(if i == 0 { "      " } else { ",\n      " });
            push_name(&mut self.out, name);
            self.out.push_str(": \"0x");
            let align = u32::try_from(tensor.elem().size_bytes()).expect("elements have at most eight bytes");
            push_hex(&mut self.out, &align.to_le_bytes());
            push_hex(&mut self.out, &tensor.data().to_bytes());
            self.out.push('"');
        }
        self.out.push_str("\n    }\n  }\n#-}\n");
    }

    fn indent(&mut self, depth: usize) {
        for _ in 0..depth {
            self.out.push_str("  ");
        }
    }

    fn write(&mut self, args: fmt::Arguments<'_>) {
        self.out.write_fmt(args).expect("writing to a string does not fail");
    }
}

/// The inherent attributes of an op that are printed: all but optional ones that hold nothing.
fn properties(op: &Op) -> BTreeMap<&'static str, Attribute> {
    let mut props = op.attrs();
    props.retain(|_, value| *value != Attribute::Unit);
    props
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(bytes.len() * 2);
    for &byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn push_dict<'a, K: AsRef<str> + 'a>(
    out: &mut String,
    entries: impl Iterator<Item = (&'a K, &'a Attribute)>,
    resources: &ResourceNames,
) {
    out.push('{');
    for (i, (name, value)) in entries.enumerate() {
        out.push_str(if i == 0 { "" } else { ", " });
        push_name(out, name.as_ref());
        if *value != Attribute::Unit {
            out.push_str(" = ");
            push_attribute(out, value, resources);
        }
    }
    out.push('}');
}

fn push_list<T>(out: &mut String, items: &[T], mut push: impl FnMut(&mut String, &T)) {
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i == 0 { "" } else { ", " });
        push(out, item);
    }
}

fn push_display(out: &mut String, value: impl fmt::Display) {
    write!(out, "{value}").expect("writing to a string does not fail");
}

fn push_attribute(out: &mut String, attr: &Attribute, resources: &ResourceNames) {
    match attr {
        Attribute::Unit => out.push_str("unit"),
        Attribute::Bool(b) => push_display(out, b),
        Attribute::Int(value, ElemType::I1) => push_display(out, *value != 0),
        Attribute::Int(value, elem) => push_display(out, format_args!("{value} : {elem}")),
        Attribute::Float(value, None) => {
            push_f64(out, *value);
            out.push_str(" : f64");
        }
        Attribute::Float(value, Some(elem)) => {
            push_f32(out, *value as f32);
            push_display(out, format_args!(" : {elem}"));
        }
        Attribute::Str(text) => push_quoted(out, text),
        Attribute::Array(items) => {
            out.push('[');
            push_list(out, items, |out, item| push_attribute(out, item, resources));
            out.push(']');
        }
        Attribute::Dict(entries) => push_dict(out, entries.iter(), resources),
        Attribute::I32Array(items) => push_int_array(out, ElemType::I32, items),
        Attribute::I64Array(items) => push_int_array(out, ElemType::I64, items),
        Attribute::Type(ty) => push_display(out, ty),
        Attribute::Elem(elem) => push_display(out, elem),
        Attribute::Function(ty) => push_function_type(out, ty),
        Attribute::Elements(elements) => push_elements(out, elements, resources),
        Attribute::Enum(mnemonic, case) => push_display(out, format_args!("#{mnemonic}<{case}>")),
    }
}

fn push_int_array<T: fmt::Display>(out: &mut String, elem: ElemType, items: &[T]) {
    push_display(out, format_args!("array<{elem}"));
    out.push_str(if items.is_empty() { "" } else { ": " });
    push_list(out, items, |out, item| push_display(out, item));
    out.push('>');
}

fn push_function_type(out: &mut String, ty: &FunctionType) {
    let push_types = |out: &mut String, types: &[Type]| {
        out.push('(');
        push_list(out, types, |out, ty| push_display(out, ty));
        out.push(')');
    };
    push_types(out, &ty.inputs);
    out.push_str(" -> ");
    match ty.results.as_slice() {
        [one] => push_display(out, one),
        many => push_types(out, many),
    }
}

fn push_elements(out: &mut String, elements: &Elements, resources: &ResourceNames) {
    let tensor = &elements.tensor;
    if let Some(name) = resources.name(elements) {
        out.push_str("dense_resource<");
        push_name(out, name);
    } else {
        out.push_str("dense<");
        push_dense(out, tensor);
    }
    push_display(out, format_args!("> : {}", tensor.ty()));
}

fn push_dense(out: &mut String, tensor: &Tensor) {
    let n = tensor.n_elements();
    if is_splat(tensor.data()) {
        push_element(out, tensor.data(), 0);
    } else if n > 0 {
        for i in 0..n {
            out.push_str(if i == 0 { "" } else { ", " });
            brackets(tensor.shape(), i, || out.push('['));
            push_element(out, tensor.data(), i);
            brackets(tensor.shape(), i + 1, || out.push(']'));
        }
    }
}

/// Calls `each` once for every axis whose list begins, or has just ended, at element `index`.
fn brackets(shape: &[usize], index: usize, mut each: impl FnMut()) {
    let mut block = 1;
    for extent in shape.iter().rev() {
        block *= extent;
        if index.is_multiple_of(block) {
            each();
        }
    }
}

fn push_element(out: &mut String, data: &TensorData, index: usize) {
    match data {
        TensorData::I1(v) => push_display(out, v[index]),
        TensorData::I8(v) => push_display(out, v[index]),
        TensorData::I16(v) => push_display(out, v[index]),
        TensorData::I32(v) => push_display(out, v[index]),
        TensorData::I48(v) | TensorData::I64(v) | TensorData::Index(v) => push_display(out, v[index]),
        TensorData::F32(v) => push_f32(out, v[index]),
    }
}
