//! The pretty form of ops.

use std::collections::BTreeMap;

use super::attribute::{push_attribute, push_comma, push_dict, push_results};
use super::fill::{BREAK, SPLIT};
use super::summary::push_step;
use super::{Printer, properties};
use crate::attr::{Attribute, FunctionType};
use crate::dialect::{Func, Op, OpInfo, Syntax};
use crate::module::{BlockId, Module, OpData, OpId};
use crate::text::syntax::{is_bare_id, push_name, push_quoted};
use crate::types::Type;

/// What a stage runs, if its code is one head, its tails, and where the result goes.
struct Runs<'a> {
    /// Mnemonics with their fields.
    steps: Vec<(&'a str, &'a Attribute)>,
    out: &'a Attribute,
}

impl<'a> Runs<'a> {
    fn of(code: &'a Attribute) -> Option<Self> {
        let Attribute::Dict(entries) = code else { return None };
        let (head, out) = (entries.get("head")?, entries.get("out")?);
        let Attribute::Array(tail) = entries.get("tail")? else { return None };
        let step = |attr: &'a Attribute| {
            let Attribute::Dict(variant) = attr else { return None };
            let (name, fields) = variant.first_key_value().filter(|_| variant.len() == 1)?;
            let is_step = matches!(fields, Attribute::Dict(_)) && is_bare_id(name) && name != "to";
            is_step.then_some((name.as_str(), fields))
        };
        let steps = std::iter::once(head).chain(tail).map(step).collect::<Option<_>>()?;
        (entries.len() == 3).then_some(Self { steps, out })
    }
}

/// The form in which an op is printed: that of its row, if what it holds can be read back from it.
pub(super) fn syntax(module: &Module, op: OpId, infos: &BTreeMap<&'static str, OpInfo>) -> Syntax {
    let data = module.op(op);
    let Some(info) = infos.get(data.op.name()) else { return Syntax::Generic };
    let hides = data.extra.keys().any(|key| info.attrs.iter().any(|attr| attr.name == key));
    let fits = !hides
        && match info.syntax {
            Syntax::Generic => false,
            Syntax::Plain => data.regions().is_empty(),
            Syntax::Terminator => {
                data.regions().is_empty() && data.results().is_empty() && data.extra.is_empty()
            }
            Syntax::Module => op == module.top() && data.regions().len() == 1,
            Syntax::Function => function(module, data).is_some(),
            Syntax::Stage => {
                let types =
                    |values: &[_]| values.iter().map(|&v| module.ty(v).clone()).collect::<Vec<Type>>();
                only_block(module, data)
                    .is_some_and(|block| types(module.args(block)) == types(data.operands()))
            }
            Syntax::Region => {
                data.operands().is_empty()
                    && only_block(module, data).is_some_and(|block| module.args(block).is_empty())
            }
        };
    if fits { info.syntax } else { Syntax::Generic }
}

/// The block of an op with one region of one block that holds something.
fn only_block(module: &Module, data: &OpData) -> Option<BlockId> {
    let &[region] = data.regions() else { return None };
    let &[block] = module.region_blocks(region) else { return None };
    (!module.block_ops(block).is_empty()).then_some(block)
}

/// A function whose arguments are as its type says, with the attributes of each argument and result.
fn function<'a>(module: &Module, data: &'a OpData) -> Option<(&'a Func, BlockId, [Vec<Entries<'a>>; 2])> {
    let Op::Func(func) = &data.op else { return None };
    let block = only_block(module, data)?;
    let FunctionType { inputs, results } = &func.function_type;
    let types = module.args(block).iter().map(|&arg| module.ty(arg));
    let is_plain = data.operands().is_empty() && data.results().is_empty() && types.eq(inputs);
    let args = entries(func.arg_attrs.as_ref(), inputs.len())?;
    let res = entries(func.res_attrs.as_ref(), results.len())?;
    is_plain.then_some((func, block, [args, res]))
}

type Entries<'a> = Option<&'a BTreeMap<String, Attribute>>;

/// The dictionaries of `n` arguments or results. All empty are read back as none at all.
fn entries(attrs: Option<&Attribute>, n: usize) -> Option<Vec<Entries<'_>>> {
    let Some(attrs) = attrs else { return Some(vec![None; n]) };
    let Attribute::Array(items) = attrs else { return None };
    let mut dicts = Vec::new();
    for item in items {
        let Attribute::Dict(entries) = item else { return None };
        dicts.push(Some(entries));
    }
    let says_anything = dicts.iter().flatten().any(|entries| !entries.is_empty());
    (dicts.len() == n && says_anything).then_some(dicts)
}

/// Attributes of an op's row and its discardable ones, by name.
fn together<'a>(
    inherent: &'a BTreeMap<&'static str, Attribute>,
    data: &'a OpData,
) -> BTreeMap<&'a str, &'a Attribute> {
    let of_row = inherent.iter().map(|(name, value)| (*name, value));
    of_row.chain(data.extra.iter().map(|(name, value)| (name.as_str(), value))).collect()
}

impl Printer<'_> {
    /// Prints an op in a form that [`syntax`] gave.
    pub(super) fn pretty(&mut self, op: OpId, syntax: Syntax, depth: usize) {
        match syntax {
            Syntax::Generic => self.generic(op, depth),
            Syntax::Plain => self.plain(op),
            Syntax::Terminator => self.terminator(op),
            Syntax::Module => {
                self.statement.push_str("module");
                self.attributes(BREAK, &BTreeMap::new(), op);
                self.statement.push(' ');
                self.region(self.module.op(op).regions()[0], false, depth);
            }
            Syntax::Function => self.function(op, depth),
            Syntax::Stage => self.stage(op, depth),
            Syntax::Region => {
                self.results(op);
                self.statement.push_str(self.module.op(op).op.name());
                self.result_types(op);
                self.attributes(BREAK, &properties(&self.module.op(op).op), op);
                self.statement.push(' ');
                self.region(self.module.op(op).regions()[0], false, depth);
            }
        }
    }

    /// `%r = tosa.clamp %a {max_val = 7 : i8} : (tensor<4xi8>) -> tensor<4xi8>`.
    fn plain(&mut self, op: OpId) {
        let data = self.module.op(op);
        self.results(op);
        self.statement.push_str(data.op.name());
        if !data.operands().is_empty() {
            self.statement.push(BREAK);
            self.operands(op);
        }
        let inherent = properties(&data.op);
        if !inherent.is_empty() || !data.extra.is_empty() {
            self.statement.push(BREAK);
            self.dict_of_words(&inherent, op);
        }
        self.signature(op);
    }

    /// All attributes of an op in one dictionary, enums of its row as bare words.
    fn dict_of_words(&mut self, inherent: &BTreeMap<&'static str, Attribute>, op: OpId) {
        let data = self.module.op(op);
        let info = &self.infos[data.op.name()];
        self.statement.push('{');
        for (index, (name, value)) in together(inherent, data).into_iter().enumerate() {
            push_comma(&mut self.statement, index);
            let is_word = |mnemonic: &str| {
                let kind = info.attrs.iter().find(|attr| attr.name == name).map(|attr| attr.kind.as_str());
                kind.and_then(|kind| kind.strip_prefix('#')) == Some(mnemonic)
            };
            push_name(&mut self.statement, name);
            match value {
                Attribute::Unit => {}
                Attribute::Enum(mnemonic, case) if is_word(mnemonic) => {
                    self.statement.push_str(" = ");
                    self.statement.push_str(case);
                }
                value => {
                    self.statement.push_str(" = ");
                    push_attribute(&mut self.statement, value, &self.handles);
                }
            }
        }
        self.statement.push('}');
    }

    /// `return %a, %b : tensor<4xi8>, tensor<4xi8>`.
    fn terminator(&mut self, op: OpId) {
        let data = self.module.op(op);
        let name = data.op.name();
        self.statement.push_str(name.strip_prefix("func.").unwrap_or(name));
        if data.operands().is_empty() {
            return;
        }
        self.statement.push(BREAK);
        self.operands(op);
        self.statement.push(BREAK);
        self.statement.push_str(": ");
        for (index, &operand) in data.operands().iter().enumerate() {
            push_comma(&mut self.statement, index);
            self.write(format_args!("{}", self.module.ty(operand)));
        }
    }

    /// `attributes {…}` after `before`, if there are any.
    fn attributes(&mut self, before: char, inherent: &BTreeMap<&'static str, Attribute>, op: OpId) {
        let all = together(inherent, self.module.op(op));
        if all.is_empty() {
            return;
        }
        self.statement.push(before);
        self.statement.push_str("attributes ");
        push_dict(&mut self.statement, all.iter().map(|(name, value)| (name, *value)), &self.handles);
    }

    fn function(&mut self, op: OpId, depth: usize) {
        let data = self.module.op(op);
        let Some((func, block, [args, results])) = function(self.module, data) else { return };
        self.statement.push_str("func.func ");
        self.symbol(&func.sym_name);
        self.statement.push('(');
        for (index, (&arg, entries)) in self.module.args(block).iter().zip(args).enumerate() {
            push_comma(&mut self.statement, index);
            self.names.push(&mut self.statement, arg);
            self.write(format_args!(":{BREAK}{}", self.module.ty(arg)));
            self.entries(entries);
        }
        self.statement.push(')');
        let types = &func.function_type.results;
        if !types.is_empty() {
            self.statement.push(BREAK);
            self.statement.push_str("-> (");
            for (index, (ty, entries)) in types.iter().zip(results).enumerate() {
                push_comma(&mut self.statement, index);
                self.write(format_args!("{ty}"));
                self.entries(entries);
            }
            self.statement.push(')');
        }
        self.attributes(BREAK, &BTreeMap::new(), op);
        self.statement.push(' ');
        self.region(data.regions()[0], false, depth);
    }

    /// The attributes of an argument or result, if it has any.
    fn entries(&mut self, entries: Entries<'_>) {
        if let Some(entries) = entries.filter(|entries| !entries.is_empty()) {
            self.statement.push(BREAK);
            push_dict(&mut self.statement, entries.iter(), &self.handles);
        }
    }

    /// `@name`, in quotes where it is no bare identifier.
    fn symbol(&mut self, name: &str) {
        self.statement.push('@');
        match is_bare_id(name) {
            true => self.statement.push_str(name),
            false => push_quoted(&mut self.statement, name),
        }
    }

    /// ` -> type` or ` -> (types)`, if there are results.
    fn result_types(&mut self, op: OpId) {
        let types = self.types(self.module.op(op).results());
        if !types.is_empty() {
            self.statement.push(BREAK);
            push_results(&mut self.statement, &types);
        }
    }

    /// ```text
    /// %conv1 = strata.stage @conv1(%conv1_in = %x: tensor<…>) -> tensor<…>
    ///     // runs conv2d 3x3 s2 -> rescale i8
    ///     runs conv2d {…}
    ///     -> rescale {…} to "…"
    ///     attributes {…} {
    /// ```
    fn stage(&mut self, op: OpId, depth: usize) {
        let data = self.module.op(op);
        let (Op::Stage(stage), Some(block)) = (&data.op, only_block(self.module, data)) else { return };
        self.results(op);
        self.statement.push_str("strata.stage");
        self.statement.push(BREAK);
        self.symbol(&stage.name);
        self.statement.push('(');
        self.statement.push(SPLIT);
        for (index, (&arg, &operand)) in self.module.args(block).iter().zip(data.operands()).enumerate() {
            push_comma(&mut self.statement, index);
            self.names.push(&mut self.statement, arg);
            self.statement.push_str(" =");
            self.statement.push(BREAK);
            self.names.push(&mut self.statement, operand);
            self.write(format_args!(":{BREAK}{}", self.module.ty(arg)));
        }
        self.statement.push(')');
        self.result_types(op);
        let mut inherent = properties(&data.op);
        inherent.remove("name");
        if let Some(runs) = Runs::of(&stage.code) {
            inherent.remove("code");
            self.runs(&runs);
        }
        self.attributes('\n', &inherent, op);
        self.statement.push(' ');
        self.region(data.regions()[0], false, depth);
    }

    fn runs(&mut self, runs: &Runs<'_>) {
        self.statement.push('\n');
        for (index, (name, fields)) in runs.steps.iter().enumerate() {
            self.statement.push_str(if index == 0 { "// runs " } else { " -> " });
            push_step(&mut self.statement, name, fields);
        }
        for (index, (name, fields)) in runs.steps.iter().enumerate() {
            self.statement.push('\n');
            self.statement.push_str(if index == 0 { "runs " } else { "-> " });
            self.write(format_args!("{name} "));
            push_attribute(&mut self.statement, fields, &self.handles);
        }
        self.write(format_args!("{BREAK}to "));
        push_attribute(&mut self.statement, runs.out, &self.handles);
    }
}
