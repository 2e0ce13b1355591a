//! The binary form and the text of a field's type as data, for programs that are not written in Rust.

use serde::Serialize;

/// How a type stands in a program and in its text. Numbers are little-endian.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Form {
    /// A number; `text` holds `{decimal}` or `{hexadecimal}`.
    Integer {
        /// Its bits, a multiple of 8.
        bits: u32,
        /// Whether it is in two's complement.
        signed: bool,
        /// Its text.
        text: &'static str,
    },
    /// A byte that is one of these.
    Enum {
        /// All of them.
        cases: Vec<Case>,
    },
    /// Fields one after another; `text` names them in braces.
    Record {
        /// The fields.
        fields: Vec<Member>,
        /// Its text.
        text: String,
    },
    /// A byte, and the value if it is 1.
    Optional {
        /// The value.
        of: Box<Form>,
        /// The text if there is none.
        none: &'static str,
    },
    /// As many values as its length says.
    Array {
        /// Each of them.
        of: Box<Form>,
        /// How many.
        length: usize,
        /// What stands between them in text.
        separator: &'static str,
    },
}

/// A case of an enum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    /// Its byte.
    pub(crate) code: u8,
    /// Its text.
    pub(crate) text: &'static str,
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it holds.
    #[serde(rename = "type")]
    pub(crate) form: Form,
}
