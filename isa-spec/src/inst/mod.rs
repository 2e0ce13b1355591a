//! The instruction table.
//!
//! One row an instruction: an opcode that never changes meaning, the mnemonic, the typed fields with their
//! access, and a doc whose formula is the effect. Encoder, decoder, assembler, disassembler and the manual
//! derive from the rows; the interpreter and the verifier match on [`Head`] and [`Tail`] exhaustively, so a
//! row without semantics does not compile.
//!
//! A stage is a `stage` instruction, one head, and any number of tails. The head computes one row of a
//! temporary of the stage's output shape, the *accumulator row*; each tail transforms that row elementwise;
//! the result is written to the stage's output view. Each head and tail is one TOSA 1.0 operation (or pure
//! addressing), so a stage's value equals its TOSA ops applied in sequence.
//!
//! Accumulators are of 32 bits, but for products of `i16` and bilinear interpolation of `i16`, which TOSA
//! sums in 48: the `_i16` heads and `resize`. A row of 48 bits has only one way on, the tail `rescale16`,
//! which must come first.

use serde::{Deserialize, Serialize};

use crate::field::{DecodeError, Field, FieldError, Reader};

/// What an instruction does with what a field names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// The machine reads it.
    Read,
    /// The machine writes it.
    Write,
    /// A value in the instruction itself.
    Immediate,
}

/// A field of a row, as the manual shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldInfo {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub ty: &'static str,
    /// What is done with it.
    pub access: Access,
    /// What it means.
    pub doc: &'static str,
}

/// A row of the table, as the manual shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstInfo {
    /// The opcode.
    pub opcode: u16,
    /// The mnemonic.
    pub mnemonic: &'static str,
    /// The effect.
    pub doc: &'static str,
    /// The fields, in encoding order.
    pub fields: &'static [FieldInfo],
}

macro_rules! access {
    (read) => {
        Access::Read
    };
    (write) => {
        Access::Write
    };
    (imm) => {
        Access::Immediate
    };
}

/// The operand struct of a row: its own, or the one that it shares with a row of the same fields.
macro_rules! operands {
    ($variant:ident) => {
        $variant
    };
    ($variant:ident $shared:ident) => {
        $shared
    };
}

/// The operand struct of a row that does not share one, with its way into the group.
macro_rules! define_operands {
    (
        $group:ident $variant:ident { $($(#[doc = $field_doc:literal])+ $field:ident: $ty:ty),* }
        [$(#[doc = $doc:literal])+]
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub struct $variant { $($(#[doc = $field_doc])+ pub $field: $ty),* }

        impl From<$variant> for $group {
            fn from(inst: $variant) -> Self {
                $group::$variant(inst)
            }
        }
    };
    ($group:ident $variant:ident $shared:ident $fields:tt $doc:tt) => {};
}

/// A value of the operand struct of a row.
macro_rules! build_operands {
    ([$variant:ident] $fields:tt) => {
        build_operands!(@ $variant $fields)
    };
    ([$variant:ident $shared:ident] $fields:tt) => {
        build_operands!(@ $shared $fields)
    };
    (@ $operands:ident { $($field:ident: $value:expr),* }) => {
        $operands { $($field: $value),* }
    };
}

/// Expands the rows of one group to its enum and structs. A row `Variant: Other` has the fields, and so the
/// operand struct, of the row `Other`.
macro_rules! define_instructions {
    ($(#[doc = $group_doc:literal])+ $group:ident {
        $($(#[doc = $doc:literal])+ $opcode:literal $mnemonic:literal $variant:ident $(: $shared:ident)? {
            $($(#[doc = $field_doc:literal])+ $access:ident $field:ident: $ty:ty),* $(,)?
        })+
    }) => {
        $(define_operands! {
            $group $variant $($shared)? { $($(#[doc = $field_doc])+ $field: $ty),* } [$(#[doc = $doc])+]
        })+

        $(#[doc = $group_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $group { $($(#[doc = $doc])+ $variant(operands!($variant $($shared)?))),+ }

        impl $group {
            /// The rows of this group, in opcode order.
            pub const TABLE: &'static [InstInfo] = &[$(InstInfo {
                opcode: $opcode,
                mnemonic: $mnemonic,
                doc: concat!($($doc, "\n"),+),
                fields: &[$(FieldInfo {
                    name: stringify!($field),
                    ty: stringify!($ty),
                    access: access!($access),
                    doc: concat!($($field_doc, "\n"),+),
                }),*],
            }),+];

            /// The row's opcode.
            pub fn opcode(&self) -> u16 {
                match self { $(Self::$variant(_) => $opcode),+ }
            }

            /// The row's mnemonic.
            pub fn mnemonic(&self) -> &'static str {
                match self { $(Self::$variant(_) => $mnemonic),+ }
            }

            /// Appends the fields in table order.
            pub(crate) fn put(&self, _out: &mut Vec<u8>) {
                match self { $(Self::$variant(_inst) => { $(Field::put(&_inst.$field, _out);)* })+ }
            }

            /// The fields by name, as text.
            pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
                match self {
                    $(Self::$variant(_inst) => vec![$((stringify!($field), Field::text(&_inst.$field))),*]),+
                }
            }

            /// Reads the fields of an opcode of this group; `None` if it is of another.
            pub(crate) fn get(opcode: u16, _reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
                Ok(match opcode {
                    $($opcode => Some(Self::$variant(build_operands!([$variant $($shared)?] {
                        $($field: Field::get(_reader)?),*
                    }))),)+
                    _ => None,
                })
            }

            /// Reads the fields of a mnemonic of this group from text; `None` if it is of another.
            pub(crate) fn parse(
                mnemonic: &str,
                _take: &mut dyn FnMut(&'static str) -> Option<String>,
            ) -> Result<Option<Self>, FieldError> {
                Ok(match mnemonic {
                    $($mnemonic => Some(Self::$variant(build_operands!([$variant $($shared)?] {
                        $($field: {
                            let field = stringify!($field);
                            let text = _take(field)
                                .ok_or_else(|| FieldError { field, reason: "is missing".to_owned() })?;
                            Field::parse(&text).map_err(|reason| FieldError { field, reason })?
                        }),*
                    }))),)+
                    _ => None,
                })
            }
        }
    };
}

mod fields;
mod operand;
mod table;
pub use operand::*;
pub use table::*;
