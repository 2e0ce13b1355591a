//! What a field of an instruction is: its binary form and its text.
//!
//! Here are the forms of integers, truth values, options and arrays, and the macros that give one to an enum
//! or a record. Those of the operand types are beside them, in [`inst`](crate::inst).

use crate::form::{Case, Form};

/// Why bytes are not a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {reason}")]
pub struct DecodeError {
    /// Where, counted from the beginning of the program.
    pub offset: usize,
    /// What was found and what was expected.
    pub reason: String,
}

/// Why a field's text could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(crate) field: &'static str,
    pub(crate) reason: String,
}

/// Reads a payload: what lies from `at` up to `end`.
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) at: usize,
    pub(crate) end: usize,
}

impl Reader<'_> {
    /// The next `N` bytes.
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.bytes[self.at..self.end].first_chunk::<N>().ok_or_else(|| DecodeError {
            offset: self.at,
            reason: format!("expected {N} more bytes, found {}", self.end - self.at),
        })?;
        self.at += N;
        Ok(*bytes)
    }

    /// An error that stands `back` bytes before the next one.
    pub(crate) fn error(&self, back: usize, reason: String) -> DecodeError {
        DecodeError { offset: self.at - back, reason }
    }
}

/// A type that a field of an instruction can have: its binary form and its text.
pub(crate) trait Field: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
    fn text(&self) -> String;
    fn parse(text: &str) -> Result<Self, String>;
    /// Both forms, as a description that other programs read.
    fn form() -> Form;
}

macro_rules! integer_field {
    ($($ty:ty),+) => {$(
        impl Field for $ty {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend(self.to_le_bytes());
            }
            fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.take().map(<$ty>::from_le_bytes)
            }
            fn text(&self) -> String {
                self.to_string()
            }
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!("expected {}, found `{text}`", stringify!($ty)))
            }
            fn form() -> Form {
                Form::Integer { bits: <$ty>::BITS, signed: <$ty>::MIN != 0, text: "{decimal}" }
            }
        }
    )+};
}
integer_field!(u8, u32, u64, i32);

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.take::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(reader.error(1, format!("expected 0 or 1, found {other}"))),
        }
    }
    fn text(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("expected true or false, found `{text}`"))
    }
    fn form() -> Form {
        let cases = [(0, "false"), (1, "true")];
        Form::Enum { cases: cases.map(|(code, text)| Case { code, text }).into() }
    }
}

/// An enum: a byte and a word for each case.
macro_rules! enum_field {
    ($ty:ident { $($case:ident = $code:literal $text:literal),+ $(,)? }) => {
        impl Field for $ty {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(match self { $(Self::$case => $code),+ });
            }
            fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match reader.take::<1>()? {
                    $([$code] => Ok(Self::$case),)+
                    [other] => Err(reader.error(1, format!("{other} is no {}", stringify!($ty)))),
                }
            }
            fn text(&self) -> String {
                match self { $(Self::$case => $text),+ }.to_owned()
            }
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$case),)+
                    other => Err(format!("expected {}, found `{other}`", [$($text),+].join(" or "))),
                }
            }
            fn form() -> Form {
                Form::Enum { cases: vec![$(Case { code: $code, text: $text }),+] }
            }
        }
    };
}
pub(crate) use enum_field;

/// A record of fields, written `(a, b, c)`.
macro_rules! record_field {
    ($ty:ident { $($field:ident: $of:ty),+ $(,)? }) => {
        impl Field for $ty {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)+
            }
            fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self { $($field: Field::get(reader)?),+ })
            }
            fn text(&self) -> String {
                format!("({})", [$(format!("{}:{}", stringify!($field), self.$field.text())),+].join(" "))
            }
            fn parse(text: &str) -> Result<Self, String> {
                let inner = text
                    .strip_prefix('(')
                    .and_then(|t| t.strip_suffix(')'))
                    .ok_or_else(|| {
                        let fields = [$(concat!(stringify!($field), ":…")),+].join(" ");
                        format!("expected ({fields}), found `{text}`")
                    })?;
                let mut parts = inner.split(' ');
                let record = Self { $($field: {
                    let part = parts.next().unwrap_or_default();
                    let value = part
                        .strip_prefix(concat!(stringify!($field), ":"))
                        .ok_or_else(|| format!("expected {}:…, found `{part}`", stringify!($field)))?;
                    Field::parse(value)?
                }),+ };
                match parts.next() {
                    Some(extra) => Err(format!("unexpected `{extra}`")),
                    None => Ok(record),
                }
            }
            fn form() -> Form {
                let members = [$(concat!(stringify!($field), ":{", stringify!($field), "}")),+];
                Form::Record {
                    fields: vec![$(Member { name: stringify!($field), form: <$of as Field>::form() }),+],
                    text: format!("({})", members.join(" ")),
                }
            }
        }
    };
}
pub(crate) use record_field;

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if bool::get(reader)? { T::get(reader).map(Some) } else { Ok(None) }
    }
    fn text(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), Field::text)
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(None) } else { T::parse(text).map(Some) }
    }
    fn form() -> Form {
        Form::Optional { of: Box::new(T::form()), none: "none" }
    }
}

impl<T: Field + Copy + Default, const N: usize> Field for [T; N] {
    fn put(&self, out: &mut Vec<u8>) {
        for value in self {
            value.put(out);
        }
    }
    fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut all = [T::default(); N];
        for value in &mut all {
            *value = T::get(reader)?;
        }
        Ok(all)
    }
    fn text(&self) -> String {
        self.iter().map(Field::text).collect::<Vec<_>>().join("x")
    }
    fn parse(text: &str) -> Result<Self, String> {
        let values = text.split('x').map(T::parse).collect::<Result<Vec<_>, _>>()?;
        values.try_into().map_err(|v: Vec<T>| format!("expected {N} values, found {}", v.len()))
    }
    fn form() -> Form {
        Form::Array { of: Box::new(T::form()), length: N, separator: "x" }
    }
}
