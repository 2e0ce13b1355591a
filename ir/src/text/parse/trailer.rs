//! The trailer of a text: `{-# dialect_resources: { builtin: { name: "0x…" } } #-}`.
//!
//! Constants stand before the blobs that they name, so the trailer is looked for and read first.

use super::attribute::decode_hex;
use super::{Parser, Result};
use crate::text::lex::Token;
use crate::text::resources::Resources;

/// MLIR's blobs begin with their alignment.
const ALIGNMENT_BYTES: usize = 4;

/// Where the trailer begins, if there is a good one, and its blobs. A bad one is met again, and reported,
/// when the parser comes to it.
pub(super) fn find(text: &str) -> (Option<usize>, Resources) {
    let Some(at) = text.rfind("{-#") else { return (None, Resources::new()) };
    let mut parser = Parser::new(&text[at..]);
    match parse(&mut parser) {
        Ok(blobs) if parser.token == Token::End => (Some(at), blobs),
        _ => (None, Resources::new()),
    }
}

/// Reads a trailer.
pub(super) fn parse(parser: &mut Parser<'_>) -> Result<Resources> {
    let mut blobs = Resources::new();
    parser.expect(Token::TrailerBegin)?;
    entries(parser, Token::TrailerEnd, &mut Vec::new(), &mut blobs)?;
    Ok(blobs)
}

fn entries(
    parser: &mut Parser<'_>,
    close: Token,
    path: &mut Vec<String>,
    blobs: &mut Resources,
) -> Result<()> {
    parser.list(close, |p| {
        let name = p.name()?;
        p.expect(Token::Colon)?;
        if p.eat(Token::LBrace) {
            path.push(name);
            p.nested(|p| entries(p, Token::RBrace, path, blobs))?;
            path.pop();
            return Ok(());
        }
        let is_blob = *path == ["dialect_resources", "builtin"];
        if p.token == Token::Str && is_blob {
            let bad = p.bad_blob(&name);
            let quoted = p.expect(Token::Str)?;
            let mut bytes = decode_hex(quoted.trim_matches('"')).ok_or(bad.clone())?;
            if bytes.len() < ALIGNMENT_BYTES {
                return Err(bad);
            }
            bytes.drain(..ALIGNMENT_BYTES);
            blobs.insert(name, bytes);
            return Ok(());
        }
        match p.token {
            Token::Str | Token::Ident | Token::Int => {
                p.advance();
                Ok(())
            }
            _ => Err(p.expected("a resource")),
        }
    })?;
    Ok(())
}
