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
    (tensor) => {
        Access::Read
    };
    (table) => {
        Access::Read
    };
    (write) => {
        Access::Write
    };
    (imm) => {
        Access::Immediate
    };
}

/// The name of a field's type in a program, for the manual.
macro_rules! type_name {
    (tensor $ty:ty) => {
        "View"
    };
    (table $ty:ty) => {
        "WeightAddr"
    };
    ($access:ident $ty:ty) => {
        stringify!($ty)
    };
}

/// The operand struct of a row that does not share one, with its way into the group. The parameters of a
/// struct are those that its fields name, and default to what a program names.
macro_rules! define_operands {
    ($of:tt $variant:ident [] $fields:tt $doc:tt) => {
        define_operands! { @ $of $variant [] [] $fields $doc }
    };
    ($of:tt $variant:ident [Tensor] $fields:tt $doc:tt) => {
        define_operands! { @ $of $variant [Tensor] [Tensor = u32] $fields $doc }
    };
    ($of:tt $variant:ident [Addr] $fields:tt $doc:tt) => {
        define_operands! { @ $of $variant [Addr] [Addr = WeightAddr] $fields $doc }
    };
    ($of:tt $variant:ident [Tensor, Addr] $fields:tt $doc:tt) => {
        define_operands! { @ $of $variant [Tensor, Addr] [Tensor = u32, Addr = WeightAddr] $fields $doc }
    };
    ($of:tt $variant:ident shared $params:tt $fields:tt $doc:tt) => {};
    (
        @ [$group:ident $($of:ident)*] $variant:ident [$($param:ident),*] [$($default:tt)*]
        { $($(#[doc = $field_doc:literal])+ $field:ident: $ty:ty),* } [$(#[doc = $doc:literal])+]
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub struct $variant<$($default)*> { $($(#[doc = $field_doc])+ pub $field: $ty),* }

        impl<$($of),*> From<$variant<$($param),*>> for $group<$($of),*> {
            fn from(inst: $variant<$($param),*>) -> Self {
                $group::$variant(inst)
            }
        }
    };
}

/// A field, mapped if it names a tensor or a table.
macro_rules! mapped {
    (tensor $field:expr, $view:ident, $table:ident) => {
        $view(&$field)
    };
    (table $field:expr, $view:ident, $table:ident) => {
        $table($field)
    };
    ($access:ident $field:expr, $view:ident, $table:ident) => {
        $field
    };
}

/// Adds the view of a field that names a tensor to a list.
macro_rules! push_view {
    (tensor $field:expr, $views:ident) => {
        $views.push($field)
    };
    ($access:ident $field:expr, $views:ident) => {};
}

/// Visitors of what the rows of a group name; [`Control`] has none.
macro_rules! define_visitors {
    ($group:ident [] $($rows:tt)*) => {};
    ($group:ident [Tensor Addr] $({
        $variant:ident $operands:ident { $($access:ident $field:ident: $ty:ty),* }
    })+) => {
        impl<Tensor: Copy, Addr: Copy> $group<Tensor, Addr> {
            /// The views that it reads, in the order of the fields.
            pub fn reads(&self) -> Vec<View<Tensor>> {
                let mut _views = Vec::new();
                match self { $(Self::$variant(_inst) => { $(push_view!($access _inst.$field, _views);)* })+ }
                _views
            }

            /// The same with other views and tables, which it asks for in the order of the fields.
            pub fn map<T, A>(
                &self,
                _view: &mut impl FnMut(&View<Tensor>) -> View<T>,
                _table: &mut impl FnMut(Addr) -> A,
            ) -> $group<T, A> {
                match self {
                    $(Self::$variant(_inst) => $group::$variant($operands {
                        $($field: mapped!($access _inst.$field, _view, _table)),*
                    })),+
                }
            }
        }
    };
}

/// Expands the rows of one group to its enum and structs. A row `shared` has the fields, and so the operand
/// struct, of an earlier one. A field that is a `tensor` is a view that the machine reads, one that is a
/// `table` is read from weight SRAM; what names them is a parameter of the structs that have any.
macro_rules! define_instructions {
    ($(#[doc = $group_doc:literal])+ $group:ident $(<$($of:ident = $default:ty),+>)? {
        $($(#[doc = $doc:literal])+ $opcode:literal $mnemonic:literal
        $variant:ident($operands:ident $(<$($param:ident),+>)?) $($shared:ident)? {
            $($(#[doc = $field_doc:literal])+ $access:ident $field:ident: $ty:ty),* $(,)?
        })+
    }) => {
        define_instructions! {
            @structs [$group $($($of)+)?]
            $({
                $operands $($shared)? [$($($param),+)?] { $($(#[doc = $field_doc])+ $field: $ty),* }
                [$(#[doc = $doc])+]
            })+
        }

        $(#[doc = $group_doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $group $(<$($of = $default),+>)? {
            $($(#[doc = $doc])+ $variant($operands $(<$($param),+>)?)),+
        }

        define_visitors! { $group [$($($of)+)?] $({
            $variant $operands { $($access $field: $ty),* }
        })+ }

        impl $group {
            /// The rows of this group, in opcode order.
            pub const TABLE: &'static [InstInfo] = &[$(InstInfo {
                opcode: $opcode,
                mnemonic: $mnemonic,
                doc: concat!($($doc, "\n"),+),
                fields: &[$(FieldInfo {
                    name: stringify!($field),
                    ty: type_name!($access $ty),
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
                    $($opcode => Some(Self::$variant($operands { $($field: Field::get(_reader)?),* })),)+
                    _ => None,
                })
            }

            /// Reads the fields of a mnemonic of this group from text; `None` if it is of another.
            pub(crate) fn parse(
                mnemonic: &str,
                _take: &mut dyn FnMut(&'static str) -> Option<String>,
            ) -> Result<Option<Self>, FieldError> {
                Ok(match mnemonic {
                    $($mnemonic => Some(Self::$variant($operands {
                        $($field: {
                            let field = stringify!($field);
                            let text = _take(field)
                                .ok_or_else(|| FieldError { field, reason: "is missing".to_owned() })?;
                            Field::parse(&text).map_err(|reason| FieldError { field, reason })?
                        }),*
                    })),)+
                    _ => None,
                })
            }
        }
    };
    (@structs $of:tt $({ $($row:tt)* })+) => {
        $(define_operands! { $of $($row)* })+
    };
}

mod fields;
mod operand;
mod table;
pub use operand::*;
pub use table::*;
