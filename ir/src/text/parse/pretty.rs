//! The pretty form of ops: that of MLIR's own tools for functions and TOSA, and ours for stages and phases.
//!
//! ```text
//! module {
//!   func.func @main(%x: tensor<4xi8> {strata.name = "x"}) -> tensor<4xi8> attributes {…} {
//!     %relu = strata.stage @relu(%relu_in = %x: tensor<4xi8>) -> tensor<4xi8>
//!         runs identity {src = …}
//!         -> clamp {least = 0, greatest = 7} to …
//!         attributes {…} {
//!       %relu_1 = tosa.clamp %relu_in {max_val = 7 : i8, min_val = 0 : i8} : (tensor<4xi8>) -> tensor<4xi8>
//!       strata.yield %relu_1 : tensor<4xi8>
//!     }
//!     return %relu : tensor<4xi8>
//!   }
//! }
//! ```
//!
//! TOSA's ops print their operands, all their attributes in one dictionary, and a signature; enums among the
//! attributes are bare words there. Both forms may stand in one text, as they do in what `tosa-opt` prints of
//! constants.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Operation, Parser, Result};
use crate::attr::{Attribute, FunctionType};
use crate::diag::code;
use crate::dialect::Syntax;
use crate::module::BlockId;
use crate::text::lex::Token;
use crate::types::Type;

impl<'a> Parser<'a> {
    /// An op whose name is a bare word; the names of its results are consumed.
    pub(super) fn pretty_operation(&mut self, block: BlockId) -> Result<Operation> {
        let span = self.span.clone();
        match self.expect(Token::Ident)? {
            "module" => self.pretty_module(span),
            "func.func" => self.pretty_function(block, span),
            "return" => self.pretty_terminator(block, "func.return", span),
            name => match self.rows.get(name).map(|row| row.syntax) {
                Some(Syntax::Terminator) => self.pretty_terminator(block, name, span),
                Some(Syntax::Stage) => self.pretty_stage(block, name, span),
                Some(Syntax::Region) => self.pretty_region(block, name, span),
                // An op of TOSA that there is not is told as such.
                Some(_) => self.pretty_plain(block, name, span),
                None if name.starts_with("tosa.") => self.pretty_plain(block, name, span),
                None => {
                    let message = format!("`{name}` has no short form that is read here");
                    let help = "print with --mlir-print-op-generic, which quotes the names of ops";
                    Err(self.error_at(span, code::SYNTAX, message).help(help))
                }
            },
        }
    }

    /// `module @name attributes {…} { … }`; the name is dropped.
    fn pretty_module(&mut self, span: Range<usize>) -> Result<Operation> {
        let op = self.top(span.clone())?;
        if self.token == Token::Symbol {
            self.advance();
        }
        let extra = self.pretty_attributes()?;
        let region = self.module.op(op).regions()[0];
        self.nested(|p| p.region(region, true))?;
        Ok(Operation { extra, ..Operation::new(op, "builtin.module".to_owned(), span) })
    }

    /// `attributes {…}`, or nothing.
    fn pretty_attributes(&mut self) -> Result<BTreeMap<String, Attribute>> {
        if !self.keyword("attributes") {
            return Ok(BTreeMap::new());
        }
        self.expect(Token::LBrace)?;
        self.dict_entries()
    }

    /// `func.func private @name(%a: type {…}, …) -> (type {…}, …) attributes {…} { … }`.
    fn pretty_function(&mut self, block: BlockId, span: Range<usize>) -> Result<Operation> {
        let op = self.placeholder(block);
        let _ = self.keyword("private") || self.keyword("public") || self.keyword("nested");
        let name = self.symbol()?;
        let mut function = FunctionType::default();
        let (mut arg_names, mut arg_attrs, mut res_attrs) = (Vec::new(), Vec::new(), Vec::new());
        self.expect(Token::LParen)?;
        self.list(Token::RParen, |p| {
            arg_names.push((p.span.clone(), p.expect(Token::Value)?));
            p.expect(Token::Colon)?;
            function.inputs.push(p.ty()?);
            arg_attrs.push(p.optional_dict()?);
            p.optional_location().map(drop)
        })?;
        if self.eat(Token::Arrow) {
            if self.eat(Token::LParen) {
                self.list(Token::RParen, |p| {
                    function.results.push(p.ty()?);
                    res_attrs.push(p.optional_dict()?);
                    Ok(())
                })?;
            } else {
                function.results.push(self.ty()?);
                res_attrs.push(BTreeMap::new());
            }
        }
        let extra = self.pretty_attributes()?;
        let region = self.module.add_region(op);
        self.nested(|p| p.region_with(region, true, &arg_names, &function.inputs))?;
        let mut props = BTreeMap::new();
        props.insert("sym_name".to_owned(), Attribute::Str(name));
        props.insert("function_type".to_owned(), Attribute::Function(function));
        for (key, dicts) in [("arg_attrs", arg_attrs), ("res_attrs", res_attrs)] {
            if dicts.iter().any(|dict| !dict.is_empty()) {
                props.insert(
                    key.to_owned(),
                    Attribute::Array(dicts.into_iter().map(Attribute::Dict).collect()),
                );
            }
        }
        Ok(Operation { props, extra, ..Operation::new(op, "func.func".to_owned(), span) })
    }

    /// `@name` or `@"name"`.
    fn symbol(&mut self) -> Result<String> {
        let span = self.span.clone();
        let name = &self.expect(Token::Symbol)?[1..];
        match name.strip_prefix('"') {
            Some(quoted) => self.unescaped(quoted.strip_suffix('"').unwrap_or(quoted), span),
            None => Ok(name.to_owned()),
        }
    }

    fn optional_dict(&mut self) -> Result<BTreeMap<String, Attribute>> {
        if self.eat(Token::LBrace) { self.dict_entries() } else { Ok(BTreeMap::new()) }
    }

    /// `name %a, %b : type, type`.
    fn pretty_terminator(&mut self, block: BlockId, name: &str, span: Range<usize>) -> Result<Operation> {
        let op = self.placeholder(block);
        let operands = self.bare_operands()?;
        let mut signature = FunctionType::default();
        if !operands.is_empty() {
            self.expect(Token::Colon)?;
            loop {
                signature.inputs.push(self.ty()?);
                if !self.eat(Token::Comma) {
                    break;
                }
            }
        }
        let signature_span = span.start..self.last_end;
        Ok(Operation { operands, signature, signature_span, ..Operation::new(op, name.to_owned(), span) })
    }

    /// `-> type` or `-> (types)`, or nothing.
    fn result_types(&mut self) -> Result<Vec<Type>> {
        if !self.eat(Token::Arrow) {
            return Ok(Vec::new());
        }
        if self.eat(Token::LParen) { self.list(Token::RParen, Self::ty) } else { Ok(vec![self.ty()?]) }
    }

    /// `strata.stage @name(%arg = %operand: type, …) -> type runs … attributes {…} { … }`.
    fn pretty_stage(&mut self, block: BlockId, name: &str, span: Range<usize>) -> Result<Operation> {
        let op = self.placeholder(block);
        let symbol = self.symbol()?;
        let (mut operands, mut arg_names) = (Vec::new(), Vec::new());
        let mut signature = FunctionType::default();
        self.expect(Token::LParen)?;
        self.list(Token::RParen, |p| {
            arg_names.push((p.span.clone(), p.expect(Token::Value)?));
            p.expect(Token::Equal)?;
            operands.push(p.use_value()?);
            p.expect(Token::Colon)?;
            signature.inputs.push(p.ty()?);
            Ok(())
        })?;
        signature.results = self.result_types()?;
        let signature_span = span.start..self.last_end;
        let mut props = BTreeMap::new();
        if self.keyword("runs") {
            props.insert("code".to_owned(), self.runs()?);
        }
        let extra = self.pretty_attributes()?;
        props.insert("name".to_owned(), Attribute::Str(symbol));
        let region = self.module.add_region(op);
        let types = signature.inputs.clone();
        self.nested(|p| p.region_with(region, false, &arg_names, &types))?;
        let named = Operation::new(op, name.to_owned(), span);
        Ok(Operation { operands, props, extra, signature, signature_span, ..named })
    }

    /// What a stage runs: `head {…} -> tail {…} -> tail {…} to attribute`.
    fn runs(&mut self) -> Result<Attribute> {
        let mut steps = Vec::new();
        loop {
            let name = self.expect(Token::Ident)?.to_owned();
            self.expect(Token::LBrace)?;
            let fields = Attribute::Dict(self.dict_entries()?);
            steps.push(Attribute::Dict(BTreeMap::from([(name, fields)])));
            if !self.eat(Token::Arrow) {
                break;
            }
        }
        if !self.keyword("to") {
            return Err(self.expected("`->` and a tail, or `to`"));
        }
        let tail = steps.split_off(1);
        Ok(Attribute::Dict(BTreeMap::from([
            ("head".to_owned(), steps.remove(0)),
            ("tail".to_owned(), Attribute::Array(tail)),
            ("out".to_owned(), self.attribute()?),
        ])))
    }

    /// `name -> (types) attributes {…} { … }`.
    fn pretty_region(&mut self, block: BlockId, name: &str, span: Range<usize>) -> Result<Operation> {
        let op = self.placeholder(block);
        let signature = FunctionType { inputs: Vec::new(), results: self.result_types()? };
        let signature_span = span.start..self.last_end;
        let extra = self.pretty_attributes()?;
        let region = self.module.add_region(op);
        self.nested(|p| p.region(region, false))?;
        Ok(Operation { extra, signature, signature_span, ..Operation::new(op, name.to_owned(), span) })
    }

    /// `%a, %b`, up to what is no value.
    fn bare_operands(&mut self) -> Result<Vec<super::Use>> {
        let mut operands = Vec::new();
        if self.token == Token::Value {
            loop {
                operands.push(self.use_value()?);
                if !self.eat(Token::Comma) {
                    break;
                }
            }
        }
        Ok(operands)
    }

    /// `tosa.name %a, %b {attributes} : (types) -> type`.
    fn pretty_plain(&mut self, block: BlockId, name: &str, span: Range<usize>) -> Result<Operation> {
        let op = self.placeholder(block);
        let operands = self.bare_operands()?;
        let mut extra = BTreeMap::new();
        if self.eat(Token::LBrace) {
            self.list(Token::RBrace, |p| {
                let span = p.span.clone();
                let key = p.name()?;
                let value = match p.eat(Token::Equal) {
                    true => p.attribute_of(name, &key)?,
                    false => Attribute::Unit,
                };
                if extra.insert(key.clone(), value).is_some() {
                    let error = p.error_at(span, code::REDEFINED, format!("attribute `{key}` stands twice"));
                    p.report(error)?;
                }
                Ok(())
            })?;
        }
        self.expect(Token::Colon)?;
        let signature_start = self.span.start;
        let signature = self.function_type()?;
        let signature_span = signature_start..self.last_end;
        Ok(Operation {
            operands,
            extra,
            signature,
            signature_span,
            ..Operation::new(op, name.to_owned(), span)
        })
    }

    /// An attribute of an op, which is a bare word if the op's row says that it is an enum.
    fn attribute_of(&mut self, op: &str, key: &str) -> Result<Attribute> {
        let kind = self.rows.get(op).and_then(|row| row.attrs.get(key));
        match kind.and_then(|kind| kind.strip_prefix('#')).map(str::to_owned) {
            Some(mnemonic) if self.token == Token::Ident => {
                Ok(Attribute::Enum(mnemonic, self.expect(Token::Ident)?.to_owned()))
            }
            _ => self.attribute(),
        }
    }
}
