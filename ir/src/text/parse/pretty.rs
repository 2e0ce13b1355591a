//! The forms that MLIR's tools print unless told otherwise, of the ops that a foreign network is made of.
//!
//! ```text
//! module {
//!   func.func @main(%arg0: tensor<4xi8> {strata.name = "x"}) -> tensor<4xi8> attributes {…} {
//!     %0 = tosa.clamp %arg0 {max_val = 7 : i8, min_val = 0 : i8} : (tensor<4xi8>) -> tensor<4xi8>
//!     return %0 : tensor<4xi8>
//!   }
//! }
//! ```
//!
//! TOSA's ops print their operands, all their attributes in one dictionary, and a signature; enums among the
//! attributes are bare words there. Both forms may stand in one text, as they do in what `tosa-opt` prints of
//! constants.

use std::collections::BTreeMap;

use super::{Operation, Parser, Result};
use crate::attr::{Attribute, FunctionType};
use crate::diag::code;
use crate::module::{BlockId, Location};
use crate::text::lex::Token;

impl<'a> Parser<'a> {
    /// An op whose name is a bare word; the names of its results are consumed.
    pub(super) fn pretty_operation(&mut self, block: BlockId) -> Result<Operation> {
        let span = self.span.clone();
        match self.expect(Token::Ident)? {
            "module" => self.pretty_module(span),
            "func.func" => self.pretty_function(block, span),
            "return" | "func.return" => self.pretty_return(block, span),
            name if name.starts_with("tosa.") => self.pretty_tosa(block, name, span),
            name => {
                let message = format!("`{name}` has no short form that is read here");
                let help = "print with --mlir-print-op-generic, which quotes the names of ops";
                Err(self.error_at(span, code::SYNTAX, message).help(help))
            }
        }
    }

    /// `module @name attributes {…} { … }`; the name is dropped.
    fn pretty_module(&mut self, span: std::ops::Range<usize>) -> Result<Operation> {
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
    fn pretty_function(&mut self, block: BlockId, span: std::ops::Range<usize>) -> Result<Operation> {
        let op = self.module.append(block, crate::dialect::Yield {}, &[], &[], Location::unknown());
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

    /// `return %a, %b : type, type`.
    fn pretty_return(&mut self, block: BlockId, span: std::ops::Range<usize>) -> Result<Operation> {
        let op = self.module.append(block, crate::dialect::Yield {}, &[], &[], Location::unknown());
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
        let name = "func.return".to_owned();
        Ok(Operation { operands, signature, signature_span, ..Operation::new(op, name, span) })
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
    fn pretty_tosa(&mut self, block: BlockId, name: &str, span: std::ops::Range<usize>) -> Result<Operation> {
        let op = self.module.append(block, crate::dialect::Yield {}, &[], &[], Location::unknown());
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
        let kind = self.rows.get(op).and_then(|attrs| attrs.get(key));
        match kind.and_then(|kind| kind.strip_prefix('#')).map(str::to_owned) {
            Some(mnemonic) if self.token == Token::Ident => {
                Ok(Attribute::Enum(mnemonic, self.expect(Token::Ident)?.to_owned()))
            }
            _ => self.attribute(),
        }
    }
}
