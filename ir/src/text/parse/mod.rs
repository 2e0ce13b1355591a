//! The parser: MLIR text to a module, by recursive descent.
//!
//! It reads what the printer writes and what `tosa-opt` writes of the same ops, in the generic form and in
//! its own: location aliases, inherent attributes among the discardable ones, hexadecimal dense data. It does
//! not read other dialects' own forms, affine maps, attribute or type aliases, dynamic shapes, successors, or
//! uses before definitions; fused and call-site locations are read as unknown.
//!
//! Invariants: no text makes it panic; nesting is bounded by `MAX_DEPTH`; memory is proportional to the text
//! and its resources, but for repeated values, which are bounded by `MAX_SPLAT_BYTES`. What parses need not
//! verify.
//!
//! Errors of grammar end the parse; unknown ops, bad attributes, undefined values and type mismatches are
//! collected.

mod attribute;
mod location;
mod pretty;
mod trailer;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use logos::{Lexer, Logos};

use super::lex::Token;
use super::resources::Resources;
use crate::attr::{Attribute, FunctionType};
use crate::diag::{Code, Diagnostic, Diagnostics, Place, code, did_you_mean};
use crate::dialect::{Op, OpError, Syntax, Yield};
use crate::module::{BlockId, Location, Module, OpId, RegionId, ValueId};
use crate::tensor::Tensor;
use crate::types::{TensorType, Type};

/// Regions and attributes nest at most this deep.
const MAX_DEPTH: usize = 64;
/// After so many errors the parse ends.
const MAX_ERRORS: usize = 50;
/// All `dense<v>` of one value repeated may take this many bytes together.
const MAX_SPLAT_BYTES: usize = 1 << 28;

type Result<T> = std::result::Result<T, Diagnostic>;

/// Reads a module. Blobs of `dense_resource` constants come from the text's own trailer or from `resources`.
///
/// # Errors
/// Everything that is wrong, each with its line and column.
pub fn parse(text: &str, resources: Option<&Resources>) -> std::result::Result<Module, Diagnostics> {
    let (trailer_at, trailer) = trailer::find(text);
    let mut parser = Parser { trailer_at, blobs: [Some(&trailer), resources], ..Parser::new(text) };
    if let Err(error) = parser.file() {
        parser.errors.push(error);
    }
    if parser.errors.is_empty() { Ok(parser.module) } else { Err(Diagnostics(parser.errors)) }
}

/// Values by name, of a region.
#[derive(Default)]
struct Scope<'a> {
    values: BTreeMap<&'a str, Vec<ValueId>>,
    /// Whether outer values are invisible here.
    isolated: bool,
}

/// What is asked of an op's row.
struct Row {
    syntax: Syntax,
    /// The names of inherent attributes and what they hold.
    attrs: BTreeMap<&'static str, String>,
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a, Token>,
    token: Token,
    span: Range<usize>,
    /// Where the token before `token` ends.
    last_end: usize,
    depth: usize,
    module: Module,
    has_top: bool,
    scopes: Vec<Scope<'a>>,
    errors: Vec<Diagnostic>,
    rows: BTreeMap<&'static str, Row>,
    trailer_at: Option<usize>,
    blobs: [Option<&'a Resources>; 2],
    tensors: BTreeMap<(&'a str, TensorType), Arc<Tensor>>,
    splat_bytes: usize,
    aliases: BTreeMap<&'a str, location::Parsed<'a>>,
    located: Vec<(OpId, location::Parsed<'a>)>,
    /// Stands for values that are not defined.
    poison: Option<ValueId>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let mut parser = Self {
            text,
            lexer: Token::lexer(text),
            token: Token::End,
            span: 0..0,
            last_end: 0,
            depth: 0,
            module: Module::new(),
            has_top: false,
            scopes: Vec::new(),
            errors: Vec::new(),
            rows: BTreeMap::new(),
            trailer_at: None,
            blobs: [None; 2],
            tensors: BTreeMap::new(),
            splat_bytes: 0,
            aliases: BTreeMap::new(),
            located: Vec::new(),
            poison: None,
        };
        parser.advance();
        parser
    }

    // Tokens.

    fn advance(&mut self) {
        self.last_end = self.span.end;
        self.token = match self.lexer.next() {
            Some(Ok(token)) => token,
            Some(Err(())) => Token::Unknown,
            None => Token::End,
        };
        self.span = self.lexer.span();
    }

    fn slice(&self) -> &'a str {
        &self.text[self.span.clone()]
    }

    fn eat(&mut self, token: Token) -> bool {
        let here = self.token == token;
        if here {
            self.advance();
        }
        here
    }

    fn expect(&mut self, token: Token) -> Result<&'a str> {
        if self.token == token {
            let slice = self.slice();
            self.advance();
            Ok(slice)
        } else {
            Err(self.expected(token.describe()))
        }
    }

    fn keyword(&mut self, word: &str) -> bool {
        let here = self.token == Token::Ident && self.slice() == word;
        if here {
            self.advance();
        }
        here
    }

    fn expected(&self, what: &str) -> Diagnostic {
        let found = match self.token {
            Token::End => "the end of the text".to_owned(),
            Token::Str => "a string".to_owned(),
            _ => format!("`{}`", self.slice().chars().take(40).collect::<String>()),
        };
        self.error(code::SYNTAX, format!("expected {what}, found {found}"))
    }

    /// An error at the present token.
    fn error(&self, code: Code, message: impl Into<String>) -> Diagnostic {
        self.error_at(self.span.clone(), code, message)
    }

    fn error_at(&self, span: Range<usize>, code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, message).at(Place::in_text(self.text, span))
    }

    /// Keeps an error and goes on, unless there are too many.
    fn report(&mut self, error: Diagnostic) -> Result<()> {
        self.errors.push(error);
        if self.errors.len() < MAX_ERRORS {
            Ok(())
        } else {
            Err(self.error(code::LIMIT, format!("too many errors ({MAX_ERRORS}): giving up")))
        }
    }

    /// Runs `body` one level deeper.
    fn nested<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(code::LIMIT, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let result = body(self);
        self.depth -= 1;
        result
    }

    /// `item, item, …` up to `close`, which is consumed.
    fn list<T>(&mut self, close: Token, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        if self.eat(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(close) {
                return Ok(items);
            }
            if !self.eat(Token::Comma) {
                return Err(self.expected(&format!("`,` or {}", close.describe())));
            }
        }
    }

    // The file: aliases, one module or its functions, the trailer.

    fn file(&mut self) -> Result<()> {
        for info in Op::all_infos() {
            let attrs = info.attrs.into_iter().map(|attr| (attr.name, attr.kind)).collect();
            self.rows.insert(info.name, Row { syntax: info.syntax, attrs });
        }
        self.scopes.push(Scope::default());
        let body = self.module.body();
        loop {
            match self.token {
                Token::End => break,
                Token::Hash => self.alias()?,
                Token::TrailerBegin if self.trailer_at == Some(self.span.start) => break,
                Token::TrailerBegin => {
                    trailer::parse(self)?;
                }
                _ if self.has_top => return Err(self.expected("the end of the text after the module")),
                _ => self.operation(body)?,
            }
        }
        self.resolve_locations();
        Ok(())
    }

    // Operations.

    fn operation(&mut self, block: BlockId) -> Result<()> {
        let results = self.result_names()?;
        let parsed = if self.token == Token::Ident {
            self.pretty_operation(block)?
        } else {
            self.generic_operation(block)?
        };
        self.complete(parsed, results)
    }

    /// The module's op, which may stand only once, at the top.
    fn top(&mut self, name_span: Range<usize>) -> Result<OpId> {
        let body = self.module.body();
        if self.scopes.len() > 1 || self.has_top || !self.module.block_ops(body).is_empty() {
            let message = "the module must be the only one, at the top";
            return Err(self.error_at(name_span, code::SYNTAX, message));
        }
        self.has_top = true;
        Ok(self.module.top())
    }

    /// An op that is still to be read.
    fn placeholder(&mut self, block: BlockId) -> OpId {
        self.module.append(block, Yield {}, &[], &[], Location::unknown())
    }

    /// `"name"(operands) <{properties}> ({ region }) {attributes} : signature`.
    fn generic_operation(&mut self, block: BlockId) -> Result<Operation> {
        let name_span = self.span.clone();
        let name = self.string()?;
        let is_top = name == "builtin.module";
        let op = match is_top {
            true => self.top(name_span.clone())?,
            false => self.placeholder(block),
        };
        self.expect(Token::LParen)?;
        let operands = self.list(Token::RParen, Self::use_value)?;
        if self.token == Token::LBracket {
            return Err(self.error(code::SYNTAX, "successor blocks are not supported"));
        }
        let mut props = BTreeMap::new();
        if self.eat(Token::Less) {
            self.expect(Token::LBrace)?;
            props = self.dict_entries()?;
            self.expect(Token::Greater)?;
        }
        let isolated = is_top || name == "func.func";
        if self.eat(Token::LParen) {
            let mut reuse = is_top.then(|| self.module.op(op).regions()[0]);
            self.list(Token::RParen, |p| {
                let region = reuse.take().unwrap_or_else(|| p.module.add_region(op));
                p.nested(|p| p.region(region, isolated))
            })?;
        }
        let extra = if self.eat(Token::LBrace) { self.dict_entries()? } else { BTreeMap::new() };
        self.expect(Token::Colon)?;
        let signature_start = self.span.start;
        let signature = self.function_type()?;
        let signature_span = signature_start..self.last_end;
        let named = Operation::new(op, name, name_span);
        Ok(Operation { operands, props, extra, signature, signature_span, ..named })
    }

    /// Checks an op that was read and enters it with its results.
    fn complete(&mut self, parsed: Operation, results: Vec<ResultName<'a>>) -> Result<()> {
        let Operation { op, name, name_span, operands, mut props, mut extra, signature, signature_span } =
            parsed;
        if let Some(row) = self.rows.get(name.as_str()) {
            let inherent: Vec<String> = extra
                .keys()
                .filter(|k| row.attrs.contains_key(k.as_str()) && !props.contains_key(*k))
                .cloned()
                .collect();
            for key in inherent {
                let value = extra.remove(&key).unwrap_or(Attribute::Unit);
                props.insert(key, value);
            }
        }
        self.check_operands(&operands, &signature, signature_span)?;

        let values: Vec<ValueId> = operands.iter().map(|(value, _)| *value).collect();
        self.module.set_operands(op, &values);
        match Op::from_parts(&name, &mut props) {
            Ok(kind) => self.module.op_mut(op).op = kind,
            Err(error) => {
                let error = self.op_error(&name, &error, name_span.clone());
                self.report(error)?;
            }
        }
        self.module.op_mut(op).extra = extra;
        let found = signature.results.len();
        let values: Vec<ValueId> =
            signature.results.into_iter().map(|ty| self.module.add_result(op, ty)).collect();
        let declared: usize = results.iter().map(|r| r.count).fold(0, usize::saturating_add);
        if !results.is_empty() && declared != found {
            let message = format!("{declared} results are named, the signature has {found}");
            let error = self.error_at(name_span, code::TYPE_MISMATCH, message);
            self.report(error)?;
        }
        let mut rest = values.as_slice();
        for result in results {
            let (own, others) = rest.split_at(result.count.min(rest.len()));
            rest = others;
            self.define(result.name, result.span, own.to_vec())?;
        }
        if let Some(location) = self.optional_location()? {
            self.located.push((op, location));
        }
        Ok(())
    }

    fn op_error(&self, name: &str, error: &OpError, span: Range<usize>) -> Diagnostic {
        let code =
            if matches!(error, OpError::UnknownOp(_)) { code::UNKNOWN_OP } else { code::BAD_ATTRIBUTE };
        let diagnostic = self.error_at(span, code, error.to_string());
        let suggestion = match error {
            OpError::UnknownOp(name) => did_you_mean(name, self.rows.keys().copied()),
            OpError::UnknownAttr { attr, .. } => {
                self.rows.get(name).and_then(|row| did_you_mean(attr, row.attrs.keys().copied()))
            }
            _ => None,
        };
        match suggestion {
            Some(word) => diagnostic.help(format!("did you mean `{word}`?")),
            None => diagnostic,
        }
    }

    fn result_names(&mut self) -> Result<Vec<ResultName<'a>>> {
        let mut names = Vec::new();
        while self.token == Token::Value {
            let (span, name) = (self.span.clone(), self.expect(Token::Value)?);
            if name.contains('#') {
                return Err(self.error_at(span, code::SYNTAX, "a result is named without `#`"));
            }
            let count = if self.eat(Token::Colon) { self.unsigned()? } else { 1 };
            names.push(ResultName { name, span, count });
            if !self.eat(Token::Comma) {
                self.expect(Token::Equal)?;
                break;
            }
        }
        Ok(names)
    }

    fn check_operands(
        &mut self,
        operands: &[(ValueId, Range<usize>)],
        signature: &FunctionType,
        span: Range<usize>,
    ) -> Result<()> {
        if operands.len() != signature.inputs.len() {
            let message =
                format!("{} operands, but {} operand types", operands.len(), signature.inputs.len());
            let error = self.error_at(span, code::TYPE_MISMATCH, message);
            return self.report(error);
        }
        for ((value, span), want) in operands.iter().zip(&signature.inputs) {
            let found = self.module.ty(*value);
            if Some(*value) != self.poison && found != want {
                let message = format!("the value has type {found}, the signature says {want}");
                let error = self.error_at(span.clone(), code::TYPE_MISMATCH, message);
                self.report(error)?;
            }
        }
        Ok(())
    }

    fn region(&mut self, region: RegionId, isolated: bool) -> Result<()> {
        self.region_with(region, isolated, &[], &[])
    }

    /// A region whose first block, if it is not labelled, has these arguments.
    fn region_with(
        &mut self,
        region: RegionId,
        isolated: bool,
        arg_names: &[(Range<usize>, &'a str)],
        arg_types: &[Type],
    ) -> Result<()> {
        self.expect(Token::LBrace)?;
        self.scopes.push(Scope { isolated, ..Scope::default() });
        let mut labels = BTreeSet::new();
        // The module's region has its block already.
        let mut reuse = self.module.region_blocks(region).first().copied();
        let mut block = None;
        if !arg_names.is_empty() {
            let entry = self.module.add_block(region, arg_types);
            let args = self.module.args(entry).to_vec();
            for ((span, name), value) in arg_names.iter().zip(args) {
                self.define(name, span.clone(), vec![value])?;
            }
            block = Some(entry);
        }
        while !self.eat(Token::RBrace) {
            if self.token == Token::Block {
                let (span, label) = (self.span.clone(), self.expect(Token::Block)?);
                if !labels.insert(label) {
                    let error =
                        self.error_at(span, code::REDEFINED, format!("block {label} is defined twice"));
                    self.report(error)?;
                }
                let new = reuse.take().unwrap_or_else(|| self.module.add_block(region, &[]));
                block = Some(new);
                if self.eat(Token::LParen) {
                    self.list(Token::RParen, |p| p.block_argument(new))?;
                }
                self.expect(Token::Colon)?;
            } else {
                let here = match block {
                    Some(block) => block,
                    None => reuse.take().unwrap_or_else(|| self.module.add_block(region, &[])),
                };
                block = Some(here);
                self.operation(here)?;
            }
        }
        self.scopes.pop();
        Ok(())
    }

    fn block_argument(&mut self, block: BlockId) -> Result<()> {
        let (span, name) = (self.span.clone(), self.expect(Token::Value)?);
        self.expect(Token::Colon)?;
        let ty = self.ty()?;
        let value = self.module.add_arg(block, ty);
        self.define(name, span, vec![value])?;
        self.optional_location()?;
        Ok(())
    }

    // Values.

    fn define(&mut self, name: &'a str, span: Range<usize>, values: Vec<ValueId>) -> Result<()> {
        if self.lookup(name).is_some() {
            let error = self.error_at(span, code::REDEFINED, format!("{name} is defined twice"));
            return self.report(error);
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.values.insert(name, values);
        }
        Ok(())
    }

    fn lookup(&self, name: &str) -> Option<&[ValueId]> {
        for scope in self.scopes.iter().rev() {
            if let Some(values) = scope.values.get(name) {
                return Some(values);
            }
            if scope.isolated {
                return None;
            }
        }
        None
    }

    fn use_value(&mut self) -> Result<Use> {
        let (span, text) = (self.span.clone(), self.expect(Token::Value)?);
        let (name, index) = match text.split_once('#') {
            Some((name, index)) => (name, index.parse().unwrap_or(usize::MAX)),
            None => (text, 0),
        };
        if let Some(&value) = self.lookup(name).and_then(|values| values.get(index)) {
            return Ok((value, span));
        }
        let mut error = self.error_at(
            span.clone(),
            code::UNDEFINED_VALUE,
            format!("{text} is not defined before its use"),
        );
        if self.scopes.iter().any(|scope| scope.values.contains_key(name)) {
            error = error.note("a value of that name stands outside this function, or has fewer results");
        }
        self.report(error)?;
        let body = self.module.body();
        let poison = *self.poison.get_or_insert_with(|| self.module.add_arg(body, Type::Shape(0)));
        Ok((poison, span))
    }
}

/// An operand: its value, and where it is used.
type Use = (ValueId, Range<usize>);

/// An op as it is written, in either form.
struct Operation {
    op: OpId,
    name: String,
    name_span: Range<usize>,
    operands: Vec<Use>,
    props: BTreeMap<String, Attribute>,
    extra: BTreeMap<String, Attribute>,
    signature: FunctionType,
    signature_span: Range<usize>,
}

impl Operation {
    /// An op without operands, attributes or results.
    fn new(op: OpId, name: String, name_span: Range<usize>) -> Self {
        Self {
            op,
            name,
            signature_span: name_span.clone(),
            name_span,
            operands: Vec::new(),
            props: BTreeMap::new(),
            extra: BTreeMap::new(),
            signature: FunctionType::default(),
        }
    }
}

struct ResultName<'a> {
    name: &'a str,
    span: Range<usize>,
    count: usize,
}

#[cfg(test)]
mod tests;
