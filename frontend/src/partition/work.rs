//! How much work a node is: the share of a network that a cut leaves to the host.

use std::collections::BTreeMap;
use std::iter::Sum;
use std::ops::Add;

use tract_onnx::pb::NodeProto;

use crate::import::Fact;

/// Operators that multiply and accumulate.
const MULTIPLIES: [&str; 19] = [
    "Conv",
    "ConvInteger",
    "ConvTranspose",
    "Einsum",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "GRU",
    "Gemm",
    "LSTM",
    "MatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
    "RNN",
    "Attention",
    "TransposeMatMul",
];

/// Whether an operator's work is to multiply and accumulate.
pub(super) fn multiplies(node: &NodeProto) -> bool {
    MULTIPLIES.contains(&node.op_type.as_str())
}

/// What nodes compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Multiply-accumulates of convolutions and matrix products.
    pub macs: u64,
    /// Elements of the results.
    pub elements: u64,
}

impl Add for Work {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { macs: self.macs + other.macs, elements: self.elements + other.elements }
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Self>>(works: I) -> Self {
        works.fold(Self::default(), Add::add)
    }
}

/// The work of a node, as far as the shapes are known. Recurrent operators and `Einsum` count elements only.
pub fn work(node: &NodeProto, facts: &BTreeMap<String, Fact>) -> Work {
    let shape = |name: Option<&String>| name.and_then(|name| facts.get(name)).map(|fact| &fact.shape[..]);
    let n = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    let result = node.output.first();
    let elements = node.output.iter().filter_map(|name| shape(Some(name))).map(n).sum();
    let input = |at: usize| shape(node.input.get(at));
    let per_result = |products: Option<u64>| products.zip(shape(result)).map_or(0, |(k, out)| k * n(out));
    let macs = match node.op_type.as_str() {
        // Weights `[OC, IC/groups, kernel...]`.
        "Conv" | "ConvInteger" | "FusedConv" => {
            per_result(input(1).map(|w| n(w.get(1..).unwrap_or_default())))
        }
        "QLinearConv" => per_result(input(3).map(|w| n(w.get(1..).unwrap_or_default()))),
        // Weights `[IC, OC/groups, kernel...]`: every input element meets each of them once.
        "ConvTranspose" => {
            input(0).zip(input(1)).map_or(0, |(x, w)| n(x) * n(w.get(1..).unwrap_or_default()))
        }
        "MatMul" | "MatMulInteger" | "MatMulIntegerToFloat" | "QLinearMatMul" => {
            per_result(input(0).and_then(|a| a.last()).map(|&k| k as u64))
        }
        "FusedGemm" | "FusedMatMul" | "Gemm" | "TransposeMatMul" => {
            let transposed = node.attribute.iter().any(|a| a.name == "transA" && a.i != 0);
            per_result(input(0).and_then(|a| a.iter().nth_back(usize::from(transposed))).map(|&k| k as u64))
        }
        _ => 0,
    };
    Work { macs, elements }
}
