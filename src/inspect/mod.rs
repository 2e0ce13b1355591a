//! What a file holds, layer by layer: the data behind `strata inspect`.
//!
//! [`Inspection`] is the same for all that Strata reads. A row is a layer: an ONNX node in what is imported
//! or quantised, a stage from the level `stages` on and in a bundle, a node of the file where the import does
//! not take the whole model. Its JSON is stable: keys are added, never renamed, and [`SCHEMA`] rises if one
//! goes.
//!
//! | module | what it reads |
//! |---|---|
//! | `layers` | functions of the IR, at any level |
//! | `nodes` | ONNX graphs that the import does not take whole |
//! | `program` | programs of the machine |
//! | `whole` | checkpoints, models and bundles, put together from these |

mod layers;
mod nodes;
pub(crate) mod program;
mod whole;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strata_ir::{Location, TensorType};
use strata_isa_spec::bundle::Port;

use crate::stats::Stats;

pub use whole::{InspectError, of_bundle, of_checkpoint, of_model, of_module};

/// The version of the JSON form.
pub const SCHEMA: u32 = 1;

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What kind of file it is.
    pub kind: Kind,
    /// The network's name.
    pub network: String,
    /// What made it, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// The level of the IR, where it is IR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The machine that it is for, where that is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Machine>,
    /// Inputs of the network.
    pub inputs: Vec<Port>,
    /// Outputs of the network.
    pub outputs: Vec<Port>,
    /// Sums over all parts.
    pub totals: Totals,
    /// The parts, in the order in which they run.
    pub parts: Vec<Part>,
    /// How often each op of the IR stands in it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ops: BTreeMap<String, u64>,
    /// The statistics of a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<Stats>,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An ONNX model.
    Onnx,
    /// A TOSA flatbuffer.
    Tosa,
    /// Text of the IR.
    Ir,
    /// A compiled network.
    Bundle,
}

/// The machine that a program is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Multiply-accumulates a cycle.
    pub macs: u64,
    /// Bytes of activation SRAM.
    pub activation_sram_bytes: u64,
    /// Bytes of weight SRAM.
    pub weight_sram_bytes: u64,
}

/// Sums over layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Rows of the table of layers, without transfers.
    pub layers: u64,
    /// Multiply-accumulates by the direct method.
    pub macs: u64,
    /// Of these, what the host does.
    pub host_macs: u64,
    /// Bytes of all results.
    pub output_bytes: u64,
    /// Bytes of constants, each once.
    pub weight_bytes: u64,
    /// Most bytes of tensors that are alive at once, a layer at a time; where layers run in that order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_live_bytes: Option<u64>,
}

/// Who runs a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runner {
    /// The machine.
    Machine,
    /// The host: a function of the IR in f32.
    Ir,
    /// The host: an ONNX model.
    Onnx,
}

/// A stretch of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Who runs it.
    pub runner: Runner,
    /// Names of what it takes.
    pub inputs: Vec<String>,
    /// Names of what it gives.
    pub outputs: Vec<String>,
    /// Its layers, in order.
    pub layers: Vec<Layer>,
    /// The phases of a program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
}

/// A row of the table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// The layer: an ONNX node's name, or a stage's, which is that of the first of its nodes.
    pub name: String,
    /// What it computes: ops, instructions or the ONNX operator, joined by `+`.
    pub op: String,
    /// The shape of its result, in the order of axes of the file.
    pub shape: Vec<usize>,
    /// The element type of its result.
    pub dtype: String,
    /// Multiply-accumulates by the direct method.
    pub macs: u64,
    /// Bytes of activations that it reads.
    pub input_bytes: u64,
    /// Bytes of activations that it writes.
    pub output_bytes: u64,
    /// Bytes of constants that it reads.
    pub weight_bytes: u64,
    /// Bytes of constants of all layers up to here, each once.
    pub weight_bytes_so_far: u64,
    /// Bytes of all tensors that are alive while it runs, if layers run one at a time in this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_bytes: Option<u64>,
    /// The phase that it runs in, where that is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<u32>,
    /// Which stage of its phase (or of all, before there are phases) it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<u32>,
    /// The partition of the array that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// Whether it only moves rows between DRAM and SRAM.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_transfer: bool,
    /// Why the host runs it, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its ops, each with the ONNX node that it comes from.
    pub ops: Vec<Step>,
}

/// An op of a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The op, instruction or operator.
    pub op: String,
    /// The ONNX node that it comes from; empty if that is not known.
    pub node: String,
    /// The file and the node's index there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A phase of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// Stages, without transfers.
    pub stages: u64,
    /// Clusters of each partition.
    pub partitions: Vec<u32>,
    /// Multiply-accumulates by the direct method.
    pub macs: u64,
    /// Bytes of activations that it reads from DRAM.
    pub dram_read_bytes: u64,
    /// Bytes of activations that it writes to DRAM.
    pub dram_write_bytes: u64,
    /// Bytes of weights that it starts to load, for itself or for later phases.
    pub weight_load_bytes: u64,
}

/// How bytes are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counting {
    /// Whether a float counts as the one byte that it becomes in int8.
    pub floats_as_int8: bool,
}

impl Counting {
    /// Bytes of a tensor.
    fn bytes(self, ty: &TensorType) -> u64 {
        let each = if self.floats_as_int8 && ty.elem.is_float() { 1 } else { ty.elem.size_bytes() };
        (ty.n_elements() * each) as u64
    }
}

impl Step {
    fn new(op: &str, loc: &Location) -> Self {
        let source = loc.file().map(|(file, line, _)| format!("{file}:{line}"));
        Self { op: op.to_owned(), node: loc.name().unwrap_or_default().to_owned(), source }
    }
}

impl Totals {
    /// Adds the layers of a part.
    fn add(&mut self, part: &Part) {
        let layers = part.layers.iter().filter(|layer| !layer.is_transfer);
        for layer in layers {
            self.layers += 1;
            self.macs += layer.macs;
            self.output_bytes += layer.output_bytes;
            if part.runner != Runner::Machine || layer.host.is_some() {
                self.host_macs += layer.macs;
            }
        }
        self.weight_bytes += part.layers.last().map_or(0, |layer| layer.weight_bytes_so_far);
        let peak = part.layers.iter().filter_map(|layer| layer.live_bytes).max();
        self.peak_live_bytes = self.peak_live_bytes.max(peak);
    }
}

/// The names of ops, joined; one that follows itself stands once.
fn joined<'a>(ops: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = ops.map(|op| op.trim_start_matches("tosa.")).collect();
    names.dedup();
    names.join("+")
}
