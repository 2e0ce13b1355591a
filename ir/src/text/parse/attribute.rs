//! Attributes, types and literals.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{MAX_SPLAT_BYTES, Parser, Result};
use crate::attr::{Attribute, Elements, FunctionType};
use crate::diag::{Diagnostic, code};
use crate::infer::MAX_ELEMENTS;
use crate::tensor::{Tensor, TensorData};
use crate::text::lex::Token;
use crate::text::resources::is_of_other_data;
use crate::types::{ElemType, TensorType, Type};

/// A number or a boolean whose type is not known yet.
#[derive(Clone, Copy)]
enum Literal {
    Bool(bool),
    Int(i128),
    Float(f64),
    /// Hexadecimal digits: an integer, or the bits of a float.
    Bits(u64),
}

impl Literal {
    fn as_f32(self) -> Option<f32> {
        match self {
            Self::Float(v) => Some(v as f32),
            Self::Bits(bits) => u32::try_from(bits).ok().map(f32::from_bits),
            Self::Bool(_) | Self::Int(_) => None,
        }
    }

    fn as_int(self, elem: ElemType) -> Option<i64> {
        let value = match self {
            Self::Bool(b) if elem == ElemType::I1 => i64::from(b),
            Self::Int(v) => i64::try_from(v).ok()?,
            Self::Bits(v) => i64::try_from(v).ok()?,
            Self::Bool(_) | Self::Float(_) => return None,
        };
        let (least, greatest) = elem.int_range()?;
        (least..=greatest).contains(&value).then_some(value)
    }
}

impl<'a> Parser<'a> {
    pub(super) fn attribute(&mut self) -> Result<Attribute> {
        self.nested(Self::attribute_here)
    }

    fn attribute_here(&mut self) -> Result<Attribute> {
        match self.token {
            Token::Str => Ok(Attribute::Str(self.string()?)),
            Token::LBracket => {
                self.advance();
                Ok(Attribute::Array(self.list(Token::RBracket, Self::attribute)?))
            }
            Token::LBrace => {
                self.advance();
                Ok(Attribute::Dict(self.dict_entries()?))
            }
            Token::Hash => self.enum_case(),
            Token::Int | Token::Hex | Token::Float | Token::Minus => self.number(),
            Token::LParen => Ok(Attribute::Function(self.function_type()?)),
            Token::Tensor | Token::Bang => Ok(Attribute::Type(self.ty()?)),
            Token::Ident => self.keyword_attribute(),
            _ => Err(self.expected("an attribute")),
        }
    }

    fn keyword_attribute(&mut self) -> Result<Attribute> {
        let (span, word) = (self.span.clone(), self.slice());
        if let Some(elem) = ElemType::from_keyword(word) {
            self.advance();
            return Ok(Attribute::Elem(elem));
        }
        match word {
            "true" | "false" => {
                self.advance();
                Ok(Attribute::Bool(word == "true"))
            }
            "unit" => {
                self.advance();
                Ok(Attribute::Unit)
            }
            "array" => self.int_array(),
            "dense" => self.dense(),
            "dense_resource" => self.dense_resource(),
            _ => {
                Err(self.error_at(span, code::SYNTAX, format!("`{word}` begins no attribute that is known")))
            }
        }
    }

    /// The entries of a dictionary whose `{` is consumed.
    pub(super) fn dict_entries(&mut self) -> Result<BTreeMap<String, Attribute>> {
        let mut entries = BTreeMap::new();
        self.list(Token::RBrace, |p| {
            let span = p.span.clone();
            let name = p.name()?;
            let value = if p.eat(Token::Equal) { p.attribute()? } else { Attribute::Unit };
            if entries.insert(name.clone(), value).is_some() {
                let error = p.error_at(span, code::REDEFINED, format!("attribute `{name}` stands twice"));
                p.report(error)?;
            }
            Ok(())
        })?;
        Ok(entries)
    }

    /// A bare identifier or a string.
    pub(super) fn name(&mut self) -> Result<String> {
        match self.token {
            Token::Str => self.string(),
            Token::Ident => self.expect(Token::Ident).map(str::to_owned),
            _ => Err(self.expected("a name")),
        }
    }

    /// `#dialect.mnemonic<CASE>`.
    fn enum_case(&mut self) -> Result<Attribute> {
        let mnemonic = self.expect(Token::Hash)?[1..].to_owned();
        self.expect(Token::Less)?;
        let case = self.expect(Token::Ident)?.to_owned();
        self.expect(Token::Greater)?;
        Ok(Attribute::Enum(mnemonic, case))
    }

    fn number(&mut self) -> Result<Attribute> {
        let start = self.span.start;
        let literal = self.literal()?;
        let typed = self.eat(Token::Colon);
        let word = if typed { self.expect(Token::Ident)? } else { "" };
        let bad = |p: &Self, what: &str| {
            Err(p.error_at(start..p.last_end, code::BAD_ATTRIBUTE, format!("the number is no {what}")))
        };
        match (word, literal) {
            ("" | "f64", Literal::Float(v)) => Ok(Attribute::Float(v, None)),
            ("f64", Literal::Bits(bits)) => Ok(Attribute::Float(f64::from_bits(bits), None)),
            ("f32", literal) => match literal.as_f32() {
                Some(v) => Ok(Attribute::Float(f64::from(v), Some(ElemType::F32))),
                None => bad(self, "f32: it needs a point"),
            },
            (word, literal) => {
                let elem = if typed { ElemType::from_keyword(word) } else { Some(ElemType::I64) };
                match elem.and_then(|elem| Some((literal.as_int(elem)?, elem))) {
                    Some((v, elem)) => Ok(Attribute::Int(v, elem)),
                    None => bad(self, if typed { word } else { "i64" }),
                }
            }
        }
    }

    fn literal(&mut self) -> Result<Literal> {
        let start = self.span.start;
        let negative = self.eat(Token::Minus);
        let (token, slice) = (self.token, self.slice());
        self.advance();
        let literal = match token {
            Token::Int => slice.parse::<i64>().ok().map(|v| Literal::Int(v.into())).or_else(|| {
                let wide = slice.parse::<i128>().ok()?;
                Some(Literal::Int(wide))
            }),
            Token::Float => slice.parse().ok().map(Literal::Float),
            Token::Hex if !negative => u64::from_str_radix(&slice[2..], 16).ok().map(Literal::Bits),
            Token::Ident if !negative && matches!(slice, "true" | "false") => {
                Some(Literal::Bool(slice == "true"))
            }
            _ => None,
        };
        match literal {
            Some(Literal::Int(v)) if negative => Ok(Literal::Int(-v)),
            Some(Literal::Float(v)) if negative => Ok(Literal::Float(-v)),
            Some(literal) => Ok(literal),
            None => Err(self.error_at(start..self.last_end, code::SYNTAX, "expected a number that fits")),
        }
    }

    /// An integer without sign or type.
    pub(super) fn unsigned<T: std::str::FromStr>(&mut self) -> Result<T> {
        let span = self.span.clone();
        let digits = self.expect(Token::Int)?;
        digits.parse().map_err(|_| self.error_at(span, code::SYNTAX, "the number is too large"))
    }

    /// `array<i64: 1, 2>`.
    fn int_array(&mut self) -> Result<Attribute> {
        self.advance();
        self.expect(Token::Less)?;
        let span = self.span.clone();
        let elem = match self.expect(Token::Ident)? {
            "i32" => ElemType::I32,
            "i64" => ElemType::I64,
            other => {
                let message = format!("arrays of `{other}` are not supported, only of i32 and i64");
                return Err(self.error_at(span, code::BAD_ATTRIBUTE, message));
            }
        };
        let values = if self.eat(Token::Colon) {
            self.list(Token::Greater, |p| {
                let start = p.span.start;
                let literal = p.literal()?;
                literal.as_int(elem).ok_or_else(|| {
                    p.error_at(start..p.last_end, code::BAD_ATTRIBUTE, format!("the number is no {elem}"))
                })
            })?
        } else {
            self.expect(Token::Greater)?;
            Vec::new()
        };
        Ok(match elem {
            ElemType::I32 => Attribute::I32Array(values.into_iter().map(|v| v as i32).collect()),
            _ => Attribute::I64Array(values),
        })
    }

    // Dense data.

    fn dense(&mut self) -> Result<Attribute> {
        let start = self.span.start;
        self.advance();
        self.expect(Token::Less)?;
        if self.token == Token::Str {
            let hex = self.expect(Token::Str)?;
            self.expect(Token::Greater)?;
            let ty = self.dense_type()?;
            let bytes = decode_hex(hex.trim_matches('"'));
            let data = bytes.and_then(|bytes| TensorData::from_bytes(ty.elem, &bytes));
            let bad =
                || self.error_at(start..self.last_end, code::BAD_CONSTANT, "the digits do not fill the type");
            return self.elements(ty, data.ok_or_else(bad)?, start);
        }
        let mut literals = Vec::new();
        let shape = if self.token == Token::Greater {
            vec![0]
        } else if self.eat(Token::LBracket) {
            self.dense_list(&mut literals)?
        } else {
            literals.push(self.literal()?);
            Vec::new()
        };
        self.expect(Token::Greater)?;
        let ty = self.dense_type()?;
        let fits = shape == ty.shape || shape.is_empty() || literals.is_empty() && ty.n_elements() == 0;
        if !fits {
            let message = format!("the values have shape {shape:?}, the type is {ty}");
            return Err(self.error_at(start..self.last_end, code::BAD_CONSTANT, message));
        }
        let Some(data) = convert(&literals, ty.elem) else {
            let message = format!("a value is no {}", ty.elem);
            return Err(self.error_at(start..self.last_end, code::BAD_CONSTANT, message));
        };
        self.elements(ty, data, start)
    }

    /// The values of a list whose `[` is consumed, flattened; gives its shape.
    fn dense_list(&mut self, literals: &mut Vec<Literal>) -> Result<Vec<usize>> {
        let mut inner: Option<Vec<usize>> = None;
        let start = self.span.start;
        let items = self.list(Token::RBracket, |p| {
            let shape = if p.eat(Token::LBracket) {
                p.nested(|p| p.dense_list(literals))?
            } else {
                literals.push(p.literal()?);
                Vec::new()
            };
            match &inner {
                Some(first) if *first != shape => {
                    Err(p.error_at(start..p.last_end, code::BAD_CONSTANT, "the lists differ in shape"))
                }
                _ => {
                    inner = Some(shape);
                    Ok(())
                }
            }
        })?;
        let mut shape = vec![items.len()];
        shape.extend(inner.unwrap_or_default());
        Ok(shape)
    }

    fn dense_type(&mut self) -> Result<TensorType> {
        self.expect(Token::Colon)?;
        match self.ty()? {
            Type::Tensor(ty) => Ok(ty),
            Type::Shape(_) => Err(self.expected("a tensor type")),
        }
    }

    /// An attribute of `data`, which may be one value to be repeated.
    fn elements(&mut self, ty: TensorType, data: TensorData, start: usize) -> Result<Attribute> {
        let n = ty.n_elements();
        let data = if data.len() == 1 && n != 1 {
            self.splat_bytes = self.splat_bytes.saturating_add(ty.size_bytes());
            if self.splat_bytes > MAX_SPLAT_BYTES {
                let message = format!("repeated values take more than {MAX_SPLAT_BYTES} bytes");
                return Err(self.error_at(start..self.last_end, code::LIMIT, message));
            }
            repeat(&data, n)
        } else {
            data
        };
        if data.len() != n {
            let message = format!("{} values do not fill {ty}", data.len());
            return Err(self.error_at(start..self.last_end, code::BAD_CONSTANT, message));
        }
        Ok(Attribute::Elements(Elements { tensor: Arc::new(Tensor::new(ty.shape, data)) }))
    }

    fn dense_resource(&mut self) -> Result<Attribute> {
        let start = self.span.start;
        self.advance();
        self.expect(Token::Less)?;
        let key_span = self.span.clone();
        let name = self.name()?;
        // The key of the cache borrows from the text.
        let key = &self.text[key_span.clone()];
        self.expect(Token::Greater)?;
        let ty = self.dense_type()?;
        if let Some(tensor) = self.tensors.get(&(key, ty.clone())) {
            return Ok(Attribute::Elements(Elements { tensor: tensor.clone() }));
        }
        let found = self.blobs.iter().flatten().copied().find_map(|r| Some((r, r.get(&name)?)));
        let Some((resources, bytes)) = found else {
            let error = self
                .error_at(key_span, code::MISSING_RESOURCE, format!("no data of the resource `{name}`"))
                .help("give the side file that was written with this text");
            self.report(error)?;
            return Ok(no_elements(ty.elem));
        };
        if let Some(tensor) = resources.made(&name, &ty) {
            self.tensors.insert((key, ty), tensor.clone());
            return Ok(Attribute::Elements(Elements { tensor }));
        }
        let data =
            (bytes.len() == ty.size_bytes()).then(|| TensorData::from_bytes(ty.elem, &bytes)).flatten();
        let Some(data) = data else {
            let message =
                format!("{ty} takes {} bytes, resource `{name}` has {}", ty.size_bytes(), bytes.len());
            let error = self.error_at(start..self.last_end, code::BAD_CONSTANT, message);
            self.report(error)?;
            return Ok(no_elements(ty.elem));
        };
        if is_of_other_data(&name, ty.elem, &bytes) {
            let message = format!("the data of resource `{name}` is not what its name is the hash of");
            let error = self
                .error_at(key_span, code::BAD_CONSTANT, message)
                .help("the side file is damaged; data that was changed on purpose needs another name");
            self.report(error)?;
            return Ok(no_elements(ty.elem));
        }
        let tensor = Arc::new(Tensor::new(ty.shape.clone(), data));
        resources.keep(&name, &ty, &tensor);
        self.tensors.insert((key, ty), tensor.clone());
        Ok(Attribute::Elements(Elements { tensor }))
    }

    // Types.

    pub(super) fn ty(&mut self) -> Result<Type> {
        match self.token {
            Token::Tensor => {
                let ty = self.tensor_type()?;
                self.advance();
                Ok(ty.into())
            }
            Token::Bang if self.slice() == "!tosa.shape" => {
                self.advance();
                self.expect(Token::Less)?;
                let rank = self.unsigned()?;
                self.expect(Token::Greater)?;
                Ok(Type::Shape(rank))
            }
            _ => Err(self.expected("a tensor type or !tosa.shape")),
        }
    }

    fn tensor_type(&self) -> Result<TensorType> {
        let mut rest = self.slice()["tensor<".len()..].trim_end_matches('>').trim();
        let bad = |message: String| -> Result<TensorType> { Err(self.error(code::SYNTAX, message)) };
        if rest.contains(['?', '*']) {
            return bad("dynamic shapes are not supported".to_owned());
        }
        let mut shape = Vec::new();
        let mut n = 1usize;
        while rest.starts_with(|c: char| c.is_ascii_digit()) {
            let Some((digits, tail)) = rest.split_once('x') else {
                return bad("expected extents and an element type".to_owned());
            };
            let extent: Option<usize> = digits.parse().ok();
            let grown = extent.and_then(|e| n.checked_mul(e.max(1))).filter(|&n| n <= MAX_ELEMENTS);
            let (Some(extent), Some(grown)) = (extent, grown) else {
                return Err(
                    self.error(code::LIMIT, format!("the tensor has more than {MAX_ELEMENTS} elements"))
                );
            };
            n = grown;
            shape.push(extent);
            rest = tail;
        }
        match ElemType::from_keyword(rest) {
            Some(elem) => Ok(TensorType::new(shape, elem)),
            None => bad(format!("`{rest}` is no element type that is known")),
        }
    }

    pub(super) fn function_type(&mut self) -> Result<FunctionType> {
        self.expect(Token::LParen)?;
        let inputs = self.list(Token::RParen, Self::ty)?;
        self.expect(Token::Arrow)?;
        let results =
            if self.eat(Token::LParen) { self.list(Token::RParen, Self::ty)? } else { vec![self.ty()?] };
        Ok(FunctionType { inputs, results })
    }

    // Strings.

    pub(super) fn string(&mut self) -> Result<String> {
        let span = self.span.clone();
        let quoted = self.expect(Token::Str)?;
        self.unescaped(&quoted[1..quoted.len() - 1], span)
    }

    /// What stands between the quotes of a string.
    pub(super) fn unescaped(&self, text: &str, span: std::ops::Range<usize>) -> Result<String> {
        unescape(text)
            .ok_or_else(|| self.error_at(span, code::SYNTAX, "the string has a bad escape or is not UTF-8"))
    }
}

fn convert(literals: &[Literal], elem: ElemType) -> Option<TensorData> {
    if elem == ElemType::F32 {
        return literals.iter().map(|l| l.as_f32()).collect::<Option<_>>().map(TensorData::F32);
    }
    let ints: Vec<i64> = literals.iter().map(|l| l.as_int(elem)).collect::<Option<_>>()?;
    TensorData::from_ints(elem, ints)
}

/// `n` times the only element of `data`.
fn repeat(data: &TensorData, n: usize) -> TensorData {
    match data {
        TensorData::I1(v) => TensorData::I1(vec![v[0]; n]),
        TensorData::I8(v) => TensorData::I8(vec![v[0]; n]),
        TensorData::I16(v) => TensorData::I16(vec![v[0]; n]),
        TensorData::I32(v) => TensorData::I32(vec![v[0]; n]),
        TensorData::I48(v) => TensorData::I48(vec![v[0]; n]),
        TensorData::I64(v) => TensorData::I64(vec![v[0]; n]),
        TensorData::Index(v) => TensorData::Index(vec![v[0]; n]),
        TensorData::F32(v) => TensorData::F32(vec![v[0]; n]),
    }
}

/// The bytes that `0x…` spells.
pub(super) fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let nibble = |d: u8| char::from(d).to_digit(16).map(|d| d as u8);
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?)).collect()
}

fn unescape(text: &str) -> Option<String> {
    if !text.contains('\\') {
        return Some(text.to_owned());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next()? {
            c @ (b'\\' | b'"') => out.push(c),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            high => {
                let digits = [high, bytes.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                let is_hex = digits.bytes().all(|d| d.is_ascii_hexdigit());
                out.push(is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()?);
            }
        }
    }
    String::from_utf8(out).ok()
}

impl Parser<'_> {
    /// An error that ends the parse of a trailer.
    pub(super) fn bad_blob(&self, name: &str) -> Diagnostic {
        self.error(
            code::BAD_CONSTANT,
            format!("the blob of `{name}` is not `0x`, an alignment and data in hex"),
        )
    }
}

/// Stands for a constant that is told to be wrong.
fn no_elements(elem: ElemType) -> Attribute {
    let data = TensorData::from_bytes(elem, &[]).unwrap_or(TensorData::I8(Vec::new()));
    Attribute::Elements(Tensor::new([0], data).into())
}
