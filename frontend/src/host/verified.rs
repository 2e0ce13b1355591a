//! Which ONNX nodes the host's library runs right: a table, operator by operator, of what it was seen to do
//! right.
//!
//! A row lists all that a node may have: versions of the operator set, element types of its operands,
//! attributes and their values, and how many outputs. A node that has anything else is declined, since the
//! library leaves out what it does not know: attributes, optional operands, whole definitions. What an
//! attribute is when a node does not write it is taken as verified.
//!
//! Each row was held against ONNX's own backend vectors, and against onnxruntime on random nodes of the forms
//! that the row allows; the slow suite does both again. A row is only for what the import does not take:
//! other nodes come here where the shapes of their operands depend on the data, and have rows too for that
//! reason.

mod table;

use std::fmt;

use tract_onnx::pb::{AttributeProto, NodeProto, attribute_proto::AttributeType, tensor_proto::DataType};

use table::OPERATORS;

use crate::dtype;

/// What a node may have as an operand.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// A tensor of one of these types, which has to be there.
    Needed(&'static [DataType]),
    /// A tensor of one of these types, which may be left out.
    Optional(&'static [DataType]),
    /// Any number of tensors of one of these types.
    Many(&'static [DataType]),
    /// A tensor of one of these types whose value is known beforehand.
    Constant(&'static [DataType]),
    /// As [`Constant`](Self::Constant), or left out.
    OptionalConstant(&'static [DataType]),
}

impl Operand {
    fn types(self) -> &'static [DataType] {
        match self {
            Self::Needed(types)
            | Self::Optional(types)
            | Self::Many(types)
            | Self::Constant(types)
            | Self::OptionalConstant(types) => types,
        }
    }

    fn may_be_absent(self) -> bool {
        matches!(self, Self::Optional(_) | Self::OptionalConstant(_) | Self::Many(_))
    }

    fn has_to_be_constant(self) -> bool {
        matches!(self, Self::Constant(_) | Self::OptionalConstant(_))
    }
}

/// What a node may have as an attribute.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// Any integer.
    Int,
    /// Any list of integers.
    Ints,
    /// One of these integers.
    OneOf(&'static [i64]),
}

/// An attribute that a node may have.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    /// Its name.
    pub name: &'static str,
    /// What it may be.
    pub values: Values,
}

/// What the host's library was seen to do right of an operator.
#[derive(Clone, Copy, Debug)]
pub struct HostOp {
    /// The operator.
    pub name: &'static str,
    /// Its domain; empty for ONNX's own.
    pub domain: &'static str,
    /// The first and the last version of the operator set.
    pub opsets: [i64; 2],
    /// Its operands in order.
    pub operands: &'static [Operand],
    /// All attributes that it may have.
    pub attributes: &'static [Attribute],
    /// How many outputs it may have.
    pub n_outputs: usize,
}

/// What is known of an operand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Its element type.
    pub dtype: Option<DataType>,
    /// Whether its value is.
    pub is_constant: bool,
}

/// Every operator that may be handed to the host's library.
pub fn operators() -> impl Iterator<Item = &'static HostOp> {
    OPERATORS.iter()
}

/// That the host's library was seen to run such a node right, in a model of version `opset` of the node's
/// operator set. `known` tells of operands by name.
///
/// # Errors
/// What of the node was not verified, in words.
pub fn check(node: &NodeProto, opset: i64, known: &dyn Fn(&str) -> Known) -> Result<(), String> {
    let domain = if node.domain == "ai.onnx" { "" } else { &node.domain };
    let rows: Vec<&HostOp> =
        OPERATORS.iter().filter(|op| op.name == node.op_type && op.domain == domain).collect();
    if rows.is_empty() {
        return Err("it has no such operator that is verified".to_owned());
    }
    let in_force = rows.into_iter().find(|op| (op.opsets[0]..=op.opsets[1]).contains(&opset));
    let Some(op) = in_force else {
        return Err(format!("the operator is not verified for operator set {opset}"));
    };
    op.check_operands(node, known)?;
    for attribute in &node.attribute {
        op.check_attribute(attribute)?;
    }
    let n_outputs = node.output.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
    if n_outputs > op.n_outputs {
        return Err(format!("output {} is not verified", n_outputs - 1));
    }
    Ok(())
}

impl HostOp {
    fn check_operands(&self, node: &NodeProto, known: &dyn Fn(&str) -> Known) -> Result<(), String> {
        let is_many = |operand: &&Operand| matches!(operand, Operand::Many(_));
        let operand = |at: usize| self.operands.get(at).or(self.operands.last().filter(is_many)).copied();
        for at in 0..node.input.len().max(self.operands.len()) {
            let name = node.input.get(at).map_or("", String::as_str);
            let Some(operand) = operand(at) else {
                if name.is_empty() {
                    continue;
                }
                return Err(format!("operand {at} is not verified"));
            };
            if name.is_empty() {
                if operand.may_be_absent() {
                    continue;
                }
                return Err(format!("it is not verified without operand {at}"));
            }
            let Known { dtype, is_constant } = known(name);
            let types = operand.types();
            match dtype {
                Some(dtype) if !types.contains(&dtype) => {
                    let types = list(types);
                    return Err(format!("operand {at} is {}; verified are {types}", dtype::told(dtype)));
                }
                None => return Err(format!("the element type of operand {at} is not known")),
                Some(_) => {}
            }
            if operand.has_to_be_constant() && !is_constant {
                return Err(format!("operand {at} is verified where it is constant"));
            }
        }
        Ok(())
    }

    fn check_attribute(&self, given: &AttributeProto) -> Result<(), String> {
        let Some(attribute) = self.attributes.iter().find(|attribute| attribute.name == given.name) else {
            return Err(format!("attribute `{}` is not verified", given.name));
        };
        let is_of = |kind: AttributeType| given.r#type == kind as i32;
        let (is_right, value) = match attribute.values {
            Values::Int => (is_of(AttributeType::Int), String::new()),
            Values::Ints => (is_of(AttributeType::Ints), String::new()),
            Values::OneOf(values) => {
                (is_of(AttributeType::Int) && values.contains(&given.i), format!(" = {}", given.i))
            }
        };
        if is_right { Ok(()) } else { Err(format!("attribute `{}`{value} is not verified", given.name)) }
    }
}

/// A row's conditions in words.
impl fmt::Display for HostOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operands: Vec<String> = self.operands.iter().map(ToString::to_string).collect();
        f.write_str(&operands.join(", "))?;
        for attribute in self.attributes {
            write!(f, "; {attribute}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.types().iter().map(|&dtype| dtype::told(dtype)).collect::<Vec<_>>().join("/"))?;
        f.write_str(match self {
            Self::Needed(_) => "",
            Self::Optional(_) => "?",
            Self::Many(_) => "…",
            Self::Constant(_) => " constant",
            Self::OptionalConstant(_) => "? constant",
        })
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.name)?;
        match self.values {
            Values::Int | Values::Ints => Ok(()),
            Values::OneOf(values) => {
                write!(f, " {}", values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "))
            }
        }
    }
}

fn list(types: &[DataType]) -> String {
    types.iter().map(|&dtype| dtype::told(dtype)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(_: &str) -> Known {
        Known { dtype: Some(DataType::Float), is_constant: false }
    }

    fn node(op: &str, n_inputs: usize, attributes: &[(&str, i64)]) -> NodeProto {
        let attribute = |&(name, i): &(&str, i64)| AttributeProto {
            name: name.to_owned(),
            r#type: AttributeType::Int as i32,
            i,
            ..AttributeProto::default()
        };
        NodeProto {
            op_type: op.to_owned(),
            input: (0..n_inputs).map(|at| format!("x{at}")).collect(),
            output: vec!["y".to_owned()],
            attribute: attributes.iter().map(attribute).collect(),
            ..NodeProto::default()
        }
    }

    #[test]
    fn rows_are_sorted_and_do_not_overlap() {
        let key = |op: &HostOp| (op.domain, op.name, op.opsets[0]);
        assert!(OPERATORS.is_sorted_by_key(key));
        for pair in OPERATORS.windows(2).filter(|pair| pair[0].name == pair[1].name) {
            assert!(pair[0].opsets[1] < pair[1].opsets[0], "{}", pair[0].name);
        }
    }

    #[test]
    fn only_what_is_listed_is_taken() {
        assert_eq!(check(&node("Hardmax", 1, &[("axis", 1)]), 13, &known), Ok(()));
        let refused = [
            (node("Hardmax", 1, &[("axis", 1)]), 11, "operator set 11"),
            (node("Hardmax", 1, &[("axes", 1)]), 13, "attribute `axes`"),
            (node("Hardmax", 2, &[]), 13, "operand 1"),
            (node("Hardmax", 0, &[]), 13, "without operand 0"),
            (node("LSTM", 3, &[]), 14, "no such operator"),
        ];
        for (node, opset, says) in refused {
            let why = check(&node, opset, &known).expect_err("it is declined");
            assert!(why.contains(says), "{why}");
        }
        let integers = |_: &str| Known { dtype: Some(DataType::Int32), is_constant: false };
        let why = check(&node("Acos", 1, &[]), 13, &integers).expect_err("it is declined");
        assert!(why.contains("operand 0 is i32; verified are f32"), "{why}");
        let mut two = node("Acos", 1, &[]);
        two.output.push("z".to_owned());
        assert!(check(&two, 13, &known).is_err());
    }
}
