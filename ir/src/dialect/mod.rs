//! The op tables: every operation that exists, one row each.
//!
//! A row gives the op's MLIR name, a Rust variant, its operands, its inherent attributes as typed fields
//! (with the default of those that may be left out), its results and regions, and its doc. [`Op`], the
//! printer, the parser, the generated reference and the structural checks of the verifier all derive from
//! these rows. A row without an arm in shape inference or in the evaluator does not compile.

pub use crate::attr::{NanMode, ResizeMode, RoundingMode};

use std::collections::BTreeMap;

use crate::attr::{AttrValue, Attribute, Elements, FunctionType};
use crate::types::ElemType;

/// How many of something (operands, results) an op takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly this many.
    Exactly(usize),
    /// Any number.
    Any,
    /// At least this many.
    AtLeast(usize),
}

impl Arity {
    /// Whether `n` is allowed.
    pub fn allows(self, n: usize) -> bool {
        match self {
            Self::Exactly(want) => n == want,
            Self::Any => true,
            Self::AtLeast(least) => n >= least,
        }
    }
}

impl std::fmt::Display for Arity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(n) => write!(f, "{n}"),
            Self::Any => f.write_str("any number of"),
            Self::AtLeast(n) => write!(f, "at least {n}"),
        }
    }
}

/// One inherent attribute of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttrInfo {
    /// Its name in the text form.
    pub name: &'static str,
    /// What it holds.
    pub kind: String,
    /// Whether it may be left out.
    pub optional: bool,
    /// What it means.
    pub doc: &'static str,
}

/// How an op is written in the pretty form; [`template`](Self::template) shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// As in the generic form, which is how MLIR's tools print the constants of TOSA.
    Generic,
    /// Operands, attributes and a signature.
    Plain,
    /// Operands and their types.
    Terminator,
    /// The top.
    Module,
    /// A function, with its arguments.
    Function,
    /// A stage, with its arguments, and what the machine runs.
    Stage,
    /// A region without arguments.
    Region,
}

impl Syntax {
    /// How an op called `name` looks.
    pub fn template(self, name: &str) -> String {
        match self {
            Self::Generic => format!("%r = \"{name}\"() <{{attributes}}> : () -> type"),
            Self::Plain => format!("%r = {name} %a, %b {{attributes}} : (type, type) -> type"),
            Self::Terminator => format!("{} %a, %b : type, type", name.trim_start_matches("func.")),
            Self::Module => "module attributes {…} { … }".to_owned(),
            Self::Function => {
                format!("{name} @symbol(%a: type {{…}}) -> (type {{…}}) attributes {{…}} {{ … }}")
            }
            Self::Stage => format!(
                "%r = {name} @symbol(%arg = %a: type) -> type runs head {{…}} -> tail {{…}} to view \
                 attributes {{…}} {{ … }}"
            ),
            Self::Region => format!("%r, %s = {name} -> (type, type) attributes {{…}} {{ … }}"),
        }
    }
}

/// What a row declares, without the values of one op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpInfo {
    /// The MLIR name, such as `tosa.conv2d`.
    pub name: &'static str,
    /// What the op computes.
    pub doc: &'static str,
    /// Operand names; a variadic operand stands last.
    pub operands: &'static [&'static str],
    /// How many operands.
    pub n_operands: Arity,
    /// How many results.
    pub n_results: Arity,
    /// How many regions.
    pub n_regions: usize,
    /// Its pretty form.
    pub syntax: Syntax,
    /// Inherent attributes.
    pub attrs: Vec<AttrInfo>,
}

/// Why an op could not be made from its text form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// No row has this name.
    #[error("unknown operation `{0}`")]
    UnknownOp(String),
    /// A required attribute is missing.
    #[error("`{op}` needs the attribute `{attr}` ({kind})")]
    MissingAttr {
        /// The op.
        op: &'static str,
        /// The attribute.
        attr: &'static str,
        /// What it holds.
        kind: String,
    },
    /// An attribute holds something else.
    #[error("attribute `{attr}` of `{op}`: {error}")]
    BadAttr {
        /// The op.
        op: &'static str,
        /// The attribute.
        attr: &'static str,
        /// The mismatch.
        error: crate::attr::AttrError,
    },
    /// The op has no such inherent attribute.
    #[error("`{op}` has no property `{attr}`")]
    UnknownAttr {
        /// The op.
        op: &'static str,
        /// The attribute.
        attr: String,
    },
}

macro_rules! arity {
    ([$($operand:ident),* $(,)?]) => { Arity::Exactly(<[&str]>::len(&[$(stringify!($operand)),*])) };
    ([$($operand:ident),* ; $rest:ident ...]) => {
        Arity::AtLeast(<[&str]>::len(&[$(stringify!($operand)),*]))
    };
}
macro_rules! operand_names {
    ([$($operand:ident),* $(,)?]) => { &[$(stringify!($operand)),*] };
    ([$($operand:ident),* ; $rest:ident ...]) => { &[$(stringify!($operand),)* stringify!($rest)] };
}
macro_rules! n_results {
    (any) => {
        Arity::Any
    };
    ($n:literal) => {
        Arity::Exactly($n)
    };
}
macro_rules! is_optional {
    () => {
        false
    };
    ($default:expr) => {
        true
    };
}
macro_rules! syntax {
    () => {
        Syntax::Plain
    };
    ($syntax:ident) => {
        Syntax::$syntax
    };
}
macro_rules! default_or_missing {
    ($op:literal, $attr:expr, $ty:ty,) => {
        Err(OpError::MissingAttr { op: $op, attr: $attr, kind: <$ty as AttrValue>::describe() })
    };
    ($op:literal, $attr:expr, $ty:ty, $default:expr) => {
        Ok($default)
    };
}

/// Expands the rows of all dialects to [`Op`], the attribute structs, and everything that derives from them.
macro_rules! define_ops {
    ($(
        $(#[doc = $doc:literal])+
        $variant:ident = $name:literal $operands:tt -> $results:tt, regions $regions:literal,
            $(syntax $syntax:ident,)? {
            $($(#[doc = $attr_doc:literal])+ $attr:ident: $attr_ty:ty $(= $default:expr)?),* $(,)?
        }
    )+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub struct $variant { $($(#[doc = $attr_doc])+ pub $attr: $attr_ty),* }

            impl From<$variant> for Op {
                fn from(op: $variant) -> Self {
                    Op::$variant(op)
                }
            }
        )+

        /// An operation's kind with its inherent attributes.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op { $($(#[doc = $doc])+ $variant($variant)),+ }

        impl Op {
            /// The MLIR name.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name),+ }
            }

            /// What the op's row declares.
            pub fn info(&self) -> OpInfo {
                match self { $(Self::$variant(_) => $variant::info()),+ }
            }

            /// Inherent attributes by name, in name order.
            pub fn attrs(&self) -> BTreeMap<&'static str, Attribute> {
                match self {
                    $(Self::$variant(_op) => {
                        #[allow(unused_mut)]
                        let mut attrs = BTreeMap::new();
                        $(attrs.insert(attr_name(stringify!($attr)), _op.$attr.to_attr());)*
                        attrs
                    })+
                }
            }

            /// The op that `name` and its inherent attributes spell; takes what it uses from `attrs`.
            ///
            /// # Errors
            /// If no row has the name, or an attribute is missing, unknown or of another kind.
            pub fn from_parts(name: &str, attrs: &mut BTreeMap<String, Attribute>) -> Result<Self, OpError> {
                let op = match name {
                    $($name => Self::$variant($variant {
                        $($attr: {
                            let key = attr_name(stringify!($attr));
                            match attrs.remove(key) {
                                Some(value) => <$attr_ty as AttrValue>::from_attr(&value)
                                    .map_err(|error| OpError::BadAttr { op: $name, attr: key, error }),
                                None => default_or_missing!($name, key, $attr_ty, $($default)?),
                            }?
                        }),*
                    }),)+
                    other => return Err(OpError::UnknownOp(other.to_owned())),
                };
                match attrs.keys().next() {
                    Some(attr) => Err(OpError::UnknownAttr { op: op.name(), attr: attr.clone() }),
                    None => Ok(op),
                }
            }

            /// The declarations of all rows, in table order.
            pub fn all_infos() -> Vec<OpInfo> {
                vec![$($variant::info()),+]
            }
        }

        $(impl $variant {
            /// What the row declares.
            pub fn info() -> OpInfo {
                OpInfo {
                    name: $name,
                    doc: concat!($($doc, "\n"),+),
                    operands: operand_names!($operands),
                    n_operands: arity!($operands),
                    n_results: n_results!($results),
                    n_regions: $regions,
                    syntax: syntax!($($syntax)?),
                    attrs: vec![$(AttrInfo {
                        name: attr_name(stringify!($attr)),
                        kind: <$attr_ty as AttrValue>::describe(),
                        optional: is_optional!($($default)?),
                        doc: concat!($($attr_doc, "\n"),+),
                    }),*],
                }
            }
        })+
    };
}

/// A field's name in the text form: raw identifiers lose their prefix.
fn attr_name(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

pub mod doc;
mod table;
pub use table::*;

impl Op {
    /// Whether the op ends its block.
    pub fn is_terminator(&self) -> bool {
        matches!(self, Self::FuncReturn(_) | Self::Yield(_))
    }

    /// Whether the op is a constant.
    pub fn is_constant(&self) -> bool {
        matches!(self, Self::Const(_) | Self::ConstShape(_))
    }

    /// The data of a constant.
    pub fn constant(&self) -> Option<&Elements> {
        match self {
            Self::Const(c) => Some(&c.values),
            Self::ConstShape(c) => Some(&c.values),
            _ => None,
        }
    }
}
