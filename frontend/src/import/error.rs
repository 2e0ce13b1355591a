//! What can go wrong while importing, with all independent problems in one error.

use std::fmt;

use tract_onnx::pb::NodeProto;

/// What to call a node: its name, else its first output's.
pub(crate) fn node_name(proto: &NodeProto) -> &str {
    if proto.name.is_empty() { proto.output.first().map_or("", String::as_str) } else { &proto.name }
}

/// A node (or initialiser) that Strata does not support.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedNode {
    /// The node's name; where it has none, the name of its first output.
    pub name: String,
    /// Its operator, such as `Conv`.
    pub op: String,
    /// The operator's domain; empty for ONNX's own.
    pub domain: String,
    /// What would be needed.
    pub why: String,
}

impl UnsupportedNode {
    /// A node that is not supported.
    pub fn new(node: &NodeProto, why: String) -> Self {
        let (op, domain) = (node.op_type.clone(), node.domain.clone());
        Self { name: node_name(node).to_owned(), op, domain, why }
    }
}

impl fmt::Display for UnsupportedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, op, domain, why } = self;
        let colon = if domain.is_empty() { "" } else { ":" };
        write!(f, "{domain}{colon}{op} `{name}`: {why}")
    }
}

/// A contradiction or gap in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformation {
    /// The node, tensor or graph part it concerns.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Malformation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A tensor whose shape the importer and tract's analysis derive differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeDisagreement {
    /// The tensor.
    pub tensor: String,
    /// What the importer derived.
    pub imported: Vec<usize>,
    /// What tract derived.
    pub analysed: Vec<usize>,
}

impl fmt::Display for ShapeDisagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: imported as {:?}, analysed as {:?}", self.tensor, self.imported, self.analysed)
    }
}

/// Why a model could not be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The bytes are not an ONNX file, or the graph contradicts itself: the file's fault.
    #[error("the model is malformed:{}", list(.0))]
    Malformed(Vec<Malformation>),
    /// A valid model that uses what Strata does not support. Lists every such node.
    #[error("the model uses what Strata does not support:{}", list(.0))]
    Unsupported(Vec<UnsupportedNode>),
    /// An input's shape is unknown, or the shape that was given does not fit: the caller's to fix.
    #[error("input shapes:{}", list(.0))]
    InputShape(Vec<String>),
    /// Files beside the model's, in which data of it stand, cannot be read, or have less than they should.
    #[error("the model's data in other files cannot be had:{}", list(.0))]
    SideFiles(Vec<Malformation>),
    /// The importer and tract's analysis disagree about shapes; one of them is wrong, so nothing is compiled.
    #[error("two shape analyses disagree:{}", list(.0))]
    Shapes(Vec<ShapeDisagreement>),
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(|item| format!("\n  {item}")).collect()
}

/// Why one node could not be lowered.
#[derive(Clone, Debug)]
pub(super) enum LowerError {
    /// Valid ONNX, but not supported.
    Unsupported(String),
    /// Not valid ONNX.
    Invalid(String),
}

/// What is wrong with a model, by kind.
#[derive(Default)]
pub(super) struct Problems {
    pub(super) malformed: Vec<Malformation>,
    pub(super) side_files: Vec<Malformation>,
    pub(super) unsupported: Vec<UnsupportedNode>,
    pub(super) shapes: Vec<String>,
}

impl Problems {
    pub(super) fn malformed(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.malformed.push(Malformation { place: place.into(), what: what.into() });
    }

    pub(super) fn side_file(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.side_files.push(Malformation { place: place.into(), what: what.into() });
    }

    /// A node of ONNX's own domain, or a part of the file that is told of in the same way.
    pub(super) fn unsupported(&mut self, name: &str, op: &str, why: impl Into<String>) {
        self.lowering(name, op, "", LowerError::Unsupported(why.into()));
    }

    /// A node, or a part of the file that is told of in the same way.
    pub(super) fn lowering(&mut self, name: &str, op: &str, domain: &str, error: LowerError) {
        match error {
            LowerError::Invalid(what) => self.malformed(format!("{op} `{name}`"), what),
            LowerError::Unsupported(why) => self.unsupported.push(UnsupportedNode {
                name: name.to_owned(),
                op: op.to_owned(),
                domain: domain.to_owned(),
                why,
            }),
        }
    }

    /// The gravest kind that there is: nothing can be said about support of a graph that contradicts itself.
    pub(super) fn check(&mut self) -> Result<(), ImportError> {
        if !self.malformed.is_empty() {
            return Err(ImportError::Malformed(std::mem::take(&mut self.malformed)));
        }
        if !self.side_files.is_empty() {
            return Err(ImportError::SideFiles(std::mem::take(&mut self.side_files)));
        }
        if !self.shapes.is_empty() {
            return Err(ImportError::InputShape(std::mem::take(&mut self.shapes)));
        }
        if !self.unsupported.is_empty() {
            return Err(ImportError::Unsupported(std::mem::take(&mut self.unsupported)));
        }
        Ok(())
    }
}

/// The result of lowering one node, or a part of it.
pub(super) type Lowered<T> = Result<T, LowerError>;

/// An `Err` for valid ONNX that is not supported.
macro_rules! unsupported {
    ($($arg:tt)*) => { return Err($crate::import::error::LowerError::Unsupported(format!($($arg)*))) };
}
/// An `Err` for invalid ONNX.
macro_rules! invalid {
    ($($arg:tt)*) => { return Err($crate::import::error::LowerError::Invalid(format!($($arg)*))) };
}
pub(super) use {invalid, unsupported};
