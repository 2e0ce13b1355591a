//! Locations and their aliases.

use std::collections::BTreeMap;

use super::{Parser, Result};
use crate::diag::code;
use crate::module::Location;
use crate::text::lex::Token;

/// A location whose aliases are not resolved yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Parsed<'a> {
    name: Option<String>,
    file: Option<(String, u32, u32)>,
    alias: Option<&'a str>,
}

/// Aliases are followed at most so far.
const MAX_ALIAS_CHAIN: usize = 8;

impl<'a> Parser<'a> {
    /// `#loc3 = loc(…)`.
    pub(super) fn alias(&mut self) -> Result<()> {
        let (span, name) = (self.span.clone(), self.expect(Token::Hash)?);
        self.expect(Token::Equal)?;
        match self.optional_location()? {
            Some(location) => {
                self.aliases.insert(name, location);
                Ok(())
            }
            None => Err(self.error_at(span, code::SYNTAX, "only locations may have aliases")),
        }
    }

    pub(super) fn optional_location(&mut self) -> Result<Option<Parsed<'a>>> {
        if !self.keyword("loc") {
            return Ok(None);
        }
        self.expect(Token::LParen)?;
        let location = self.location()?;
        self.expect(Token::RParen)?;
        Ok(Some(location))
    }

    /// What stands between the parentheses.
    fn location(&mut self) -> Result<Parsed<'a>> {
        match self.token {
            Token::Hash => Ok(Parsed { alias: Some(self.expect(Token::Hash)?), ..Parsed::default() }),
            Token::Str => {
                let text = self.string()?;
                if self.eat(Token::Colon) {
                    let line = self.unsigned()?;
                    self.expect(Token::Colon)?;
                    return Ok(Parsed { file: Some((text, line, self.unsigned()?)), ..Parsed::default() });
                }
                let child = if self.eat(Token::LParen) {
                    let child = self.nested(Self::location)?;
                    self.expect(Token::RParen)?;
                    child
                } else {
                    Parsed::default()
                };
                Ok(Parsed { name: Some(text), file: child.file, alias: child.alias })
            }
            _ => self.opaque_location(),
        }
    }

    /// `unknown`, and kinds that are read as unknown: everything up to the parenthesis that closes them.
    fn opaque_location(&mut self) -> Result<Parsed<'a>> {
        if !matches!(self.slice(), "unknown" | "fused" | "callsite") {
            return Err(self.expected("a location"));
        }
        let mut open = 0usize;
        loop {
            match self.token {
                Token::LParen => open += 1,
                Token::RParen if open == 0 => return Ok(Parsed::default()),
                Token::RParen => open -= 1,
                Token::End => return Err(self.expected("`)`")),
                _ => {}
            }
            self.advance();
        }
    }

    /// Gives every op its place, now that all aliases are known. Ops with one alias share a location.
    pub(super) fn resolve_locations(&mut self) {
        let mut shared: BTreeMap<&str, Location> = BTreeMap::new();
        for (op, parsed) in std::mem::take(&mut self.located) {
            let key = parsed.alias.filter(|_| parsed.name.is_none());
            let location = match key.and_then(|alias| shared.get(alias)) {
                Some(location) => location.clone(),
                None => self.resolve(parsed),
            };
            if let Some(alias) = key {
                shared.insert(alias, location.clone());
            }
            self.module.op_mut(op).loc = location;
        }
    }

    fn resolve(&self, mut parsed: Parsed<'a>) -> Location {
        for _ in 0..MAX_ALIAS_CHAIN {
            let Some(target) = parsed.alias.take().and_then(|alias| self.aliases.get(alias)) else { break };
            parsed.name = parsed.name.or_else(|| target.name.clone());
            parsed.file = target.file.clone();
            parsed.alias = target.alias;
        }
        match (parsed.name, parsed.file) {
            (Some(name), Some((file, line, column))) => Location::in_file(name, file, line, column),
            (None, Some((file, line, column))) => Location::at(file, line, column),
            (Some(name), None) => Location::named(name),
            (None, None) => Location::unknown(),
        }
    }
}
