//! The printer: a module as MLIR text.
//!
//! | module | what it does |
//! |---|---|
//! | `pretty` | the pretty form of ops, each as its row's [`Syntax`] says |
//! | `summary` | what a stage runs, in a few words |
//! | `attribute` | attributes and types |
//! | `names` | names of values |
//! | `handles` | which constants stand elsewhere, and their handles |
//! | `fill` | statements broken over lines |
//!
//! The pretty form is for people: that of MLIR's own tools for functions and TOSA, and one of ours for stages
//! and phases. The [generic form](Form::Generic) is for other tools. The parser reads both, and both mixed:
//! an op that has no pretty form, because it does not verify say, is printed in the generic one.
//!
//! Constants of more than [`PrintOptions::threshold`] elements that are not one value repeated are printed as
//! `dense_resource<handle>`; their blobs stand at the end of the text or are handed back for a side file
//! ([`super::resources`]). `i1`, `i48` and `index` data always stand in the text, because MLIR tools do not
//! agree on how a blob packs them.
//!
//! Any module prints, also one that does not verify: a use of a value that is not in scope is printed as
//! `%undefined`, which does not parse.

mod attribute;
mod fill;
mod handles;
mod names;
mod pretty;
mod summary;

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use self::attribute::{push_attribute, push_comma, push_dict, push_function_type};
use self::fill::{on_one_line, push_filled};
use self::handles::Handles;
pub use self::names::Names;
use super::syntax::push_name;
use crate::attr::{Attribute, FunctionType};
use crate::dialect::{Op, OpInfo, Syntax};
use crate::module::{BlockId, Location, Module, OpId, RegionId, ValueId};
use crate::tensor::TensorData;
use crate::text::resources::Blob;
use crate::types::Type;

/// In which form ops are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Form {
    /// For people.
    #[default]
    Pretty,
    /// `"name"(operands) <{properties}> ({regions}) {attributes} : types`, which any MLIR tool reads.
    Generic,
}

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
    /// The form of ops.
    pub form: Form,
    /// Whether to print `loc(…)` after the ops whose place is known; in the pretty form by aliases, which
    /// stand at the end.
    pub locations: bool,
    /// Constants of more elements than this are printed as resources, unless they are one value repeated.
    pub threshold: usize,
    /// Where resources go.
    pub resources: ResourcePlacement,
    /// What the aliases of locations are called before their number, for modules that share a file.
    pub aliases: String,
}

impl Default for PrintOptions {
    fn default() -> Self {
        Self {
            form: Form::default(),
            locations: true,
            threshold: 16,
            resources: ResourcePlacement::default(),
            aliases: "loc".to_owned(),
        }
    }
}

/// What printing gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// The text.
    pub text: String,
    /// Blobs that do not stand in the text, by name, in print order: see [`super::resources::write`].
    pub resources: Vec<(String, Blob)>,
}

/// Prints a module.
pub fn print(module: &Module, options: &PrintOptions) -> Printed {
    let mut printer = Printer {
        module,
        options,
        names: Names::of(module),
        handles: Handles::of(module, options),
        infos: Op::all_infos().into_iter().map(|info| (info.name, info)).collect(),
        aliases: BTreeMap::new(),
        statement: String::new(),
        out: String::new(),
    };
    printer.op(module.top(), 0);
    printer.end(0);
    printer.location_aliases();
    let mut resources = Vec::new();
    match options.resources {
        ResourcePlacement::Inline => printer.inline_blobs(),
        ResourcePlacement::SideFile => {
            let constants = std::mem::take(&mut printer.handles.constants);
            resources
                .extend(constants.into_iter().map(|large| (large.name.to_string(), large.tensor.into())));
        }
    }
    Printed { text: printer.out, resources }
}

/// Prints a module with the default options: one self-contained text.
pub fn to_string(module: &Module) -> String {
    print(module, &PrintOptions::default()).text
}

/// An attribute as text on one line; large constants in it stand as lists.
pub fn attribute_to_string(attr: &Attribute) -> String {
    let mut out = String::new();
    push_attribute(&mut out, attr, &Handles::default());
    on_one_line(&out)
}

struct Printer<'a> {
    module: &'a Module,
    options: &'a PrintOptions,
    names: Names,
    handles: Handles,
    infos: BTreeMap<&'static str, OpInfo>,
    /// The number of a location's alias.
    aliases: BTreeMap<String, usize>,
    /// What is written of the present statement, with marks where it may be broken.
    statement: String,
    out: String,
}

impl Printer<'_> {
    /// Prints an op but for the end of its last line.
    fn op(&mut self, op: OpId, depth: usize) {
        let syntax = match self.options.form {
            Form::Pretty => pretty::syntax(self.module, op, &self.infos),
            Form::Generic => Syntax::Generic,
        };
        match syntax {
            Syntax::Generic => self.generic(op, depth),
            syntax => self.pretty(op, syntax, depth),
        }
        self.location(&self.module.op(op).loc);
        self.range_of_constant(op);
    }

    /// Ends a statement that began at a depth.
    fn end(&mut self, depth: usize) {
        push_filled(&mut self.out, &self.statement, 2 * depth);
        self.statement.clear();
    }

    fn generic(&mut self, op: OpId, depth: usize) {
        let data = self.module.op(op);
        self.results(op);
        self.write(format_args!("\"{}\"(", data.op.name()));
        self.operands(op);
        self.statement.push(')');
        let props = properties(&data.op);
        if !props.is_empty() {
            self.statement.push_str(" <");
            push_dict(&mut self.statement, props.iter(), &self.handles);
            self.statement.push('>');
        }
        if !data.regions().is_empty() {
            self.statement.push_str(" (");
            for (index, &region) in data.regions().iter().enumerate() {
                self.statement.push_str(if index == 0 { "" } else { ", " });
                self.region(region, true, depth);
            }
            self.statement.push(')');
        }
        if !data.extra.is_empty() {
            self.statement.push(' ');
            push_dict(&mut self.statement, data.extra.iter(), &self.handles);
        }
        self.signature(op);
    }

    /// `%a, %b = `, if there are results.
    fn results(&mut self, op: OpId) {
        let results = self.module.op(op).results();
        self.values(results);
        if !results.is_empty() {
            self.statement.push_str(" =");
            self.statement.push(fill::BREAK);
        }
    }

    fn operands(&mut self, op: OpId) {
        self.values(self.module.op(op).operands());
    }

    /// `%a, %b`.
    fn values(&mut self, values: &[ValueId]) {
        for (index, &value) in values.iter().enumerate() {
            push_comma(&mut self.statement, index);
            self.names.push(&mut self.statement, value);
        }
    }

    fn types(&self, values: &[ValueId]) -> Vec<Type> {
        values.iter().map(|&value| self.module.ty(value).clone()).collect()
    }

    /// ` : (types) -> type`.
    fn signature(&mut self, op: OpId) {
        let data = self.module.op(op);
        self.statement.push(fill::BREAK);
        self.statement.push_str(": ");
        let (inputs, results) = (self.types(data.operands()), self.types(data.results()));
        let signature = FunctionType { inputs, results };
        push_function_type(&mut self.statement, &signature);
    }

    /// A region; the first block has no label if it is not asked for.
    fn region(&mut self, region: RegionId, labels: bool, depth: usize) {
        self.statement.push('{');
        self.end(depth);
        for (index, &block) in self.module.region_blocks(region).iter().enumerate() {
            if labels || index > 0 {
                self.block_label(block, index, depth);
            }
            for &op in self.module.block_ops(block) {
                self.op(op, depth + 1);
                self.end(depth + 1);
            }
        }
        self.statement.push('}');
    }

    /// The label of block `index`, left out where it says nothing: a first block without arguments. An empty
    /// one says that there is a block.
    fn block_label(&mut self, block: BlockId, index: usize, depth: usize) {
        let args = self.module.args(block);
        if index == 0 && args.is_empty() && !self.module.block_ops(block).is_empty() {
            return;
        }
        self.write(format_args!("^bb{index}"));
        if !args.is_empty() {
            self.statement.push('(');
            for (index, &arg) in args.iter().enumerate() {
                push_comma(&mut self.statement, index);
                self.names.push(&mut self.statement, arg);
                self.write(format_args!(": {}", self.module.ty(arg)));
            }
            self.statement.push(')');
        }
        self.statement.push(':');
        self.end(depth);
    }

    fn location(&mut self, loc: &Location) {
        if !self.options.locations || !loc.is_known() {
            return;
        }
        self.statement.push(fill::BREAK);
        match self.options.form {
            Form::Generic => self.write(format_args!("{loc}")),
            Form::Pretty => {
                let next = self.aliases.len();
                let number = *self.aliases.entry(loc.to_string()).or_insert(next);
                self.write(format_args!("loc(#{}{number})", self.options.aliases));
            }
        }
    }

    fn location_aliases(&mut self) {
        let mut aliases: Vec<(usize, &String)> = self.aliases.iter().map(|(loc, &n)| (n, loc)).collect();
        aliases.sort_unstable();
        for (number, loc) in aliases {
            writeln!(self.out, "#{}{number} = {loc}", self.options.aliases)
                .expect("writing to a string does not fail");
        }
    }

    /// `// -127..127` after a constant that stands elsewhere.
    fn range_of_constant(&mut self, op: OpId) {
        let elements = self.module.op(op).op.constant();
        let Some(elements) = elements.filter(|elements| self.handles.name(elements).is_some()) else {
            return;
        };
        if let Some((least, greatest)) = range(elements.tensor.data()) {
            self.statement.push(fill::BREAK);
            self.write(format_args!("// {least}..{greatest}"));
        }
    }

    fn inline_blobs(&mut self) {
        if self.handles.constants.is_empty() {
            return;
        }
        self.out.push_str("\n{-#\n  dialect_resources: {\n    builtin: {\n");
        for (i, large) in self.handles.constants.iter().enumerate() {
            self.out.push_str(if i == 0 { "      " } else { ",\n      " });
            push_name(&mut self.out, &large.name);
            self.out.push_str(": \"0x");
            let align =
                u32::try_from(large.tensor.elem().size_bytes()).expect("elements have at most eight bytes");
            push_hex(&mut self.out, &align.to_le_bytes());
            push_hex(&mut self.out, &large.tensor.data().bytes());
            self.out.push('"');
        }
        self.out.push_str("\n    }\n  }\n#-}\n");
    }

    fn write(&mut self, args: fmt::Arguments<'_>) {
        self.statement.write_fmt(args).expect("writing to a string does not fail");
    }
}

/// The inherent attributes of an op that are printed: all but optional ones that hold nothing.
fn properties(op: &Op) -> BTreeMap<&'static str, Attribute> {
    let mut props = op.attrs();
    props.retain(|_, value| *value != Attribute::Unit);
    props
}

/// The least and the greatest element as text; of floats, of those that are numbers.
fn range(data: &TensorData) -> Option<(String, String)> {
    fn of_ints<T: Copy + Ord + ToString>(values: &[T]) -> Option<(String, String)> {
        Some((values.iter().min()?.to_string(), values.iter().max()?.to_string()))
    }
    match data {
        TensorData::I1(v) => of_ints(v),
        TensorData::I8(v) => of_ints(v),
        TensorData::I16(v) => of_ints(v),
        TensorData::I32(v) => of_ints(v),
        TensorData::I48(v) | TensorData::I64(v) | TensorData::Index(v) => of_ints(v),
        TensorData::F32(v) => {
            // What is no number is neither below nor above any.
            let (least, greatest) =
                v.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(least, greatest), &x| {
                    (if x < least { x } else { least }, if x > greatest { x } else { greatest })
                });
            (least <= greatest).then(|| (least.to_string(), greatest.to_string()))
        }
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(bytes.len() * 2);
    for &byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}
