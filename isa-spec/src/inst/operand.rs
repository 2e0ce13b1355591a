//! What the fields of instructions hold, beyond plain integers.

use serde::{Deserialize, Serialize};

/// Element types of streams and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Elem {
    /// 8-bit integer.
    I8,
    /// 16-bit integer.
    I16,
    /// 32-bit integer: partial sums.
    I32,
}

impl Elem {
    /// Bytes of one element.
    pub fn size_bytes(self) -> u32 {
        match self {
            Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 => 4,
        }
    }
}

/// A byte address in weight SRAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WeightAddr(pub u32);

/// A box of a tensor: rows, columns and channels. Readers see slices, writers fill parts of concatenations,
/// strips are column windows: all without moving data. A program names a tensor by the number of the stream
/// that holds it, a compiler by what it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct View<Tensor = u32> {
    /// The tensor.
    pub tensor: Tensor,
    /// First row.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub row0: u32,
    /// Rows.
    pub rows: u32,
    /// First column.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub col0: u32,
    /// Columns.
    pub cols: u32,
    /// First channel.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ch0: u32,
    /// Channels.
    pub chs: u32,
}

impl<Tensor> View<Tensor> {
    /// All of a tensor of the given shape.
    pub fn whole(tensor: Tensor, rows: u32, cols: u32, chs: u32) -> Self {
        Self { tensor, row0: 0, rows, col0: 0, cols, ch0: 0, chs }
    }

    /// Number of elements in the box.
    pub fn n_elements(&self) -> u64 {
        u64::from(self.rows) * u64::from(self.cols) * u64::from(self.chs)
    }

    /// The same box of another tensor.
    pub fn of<Other>(&self, tensor: Other) -> View<Other> {
        let View { row0, rows, col0, cols, ch0, chs, .. } = *self;
        View { tensor, row0, rows, col0, cols, ch0, chs }
    }
}

/// How RESIZE interpolates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// The nearest sample.
    Nearest,
    /// Linear in both axes; the result is scaled by `scale_y_n * scale_x_n`.
    Bilinear,
}

/// An axis of a row-major `[rows, cols, chs]` tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Rows.
    H,
    /// Columns.
    W,
    /// Channels.
    C,
}

/// What a reduction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReduceKind {
    /// Sum.
    Sum,
    /// Maximum.
    Max,
    /// Minimum.
    Min,
    /// Product.
    Product,
}

/// What an elementwise tail computes of the accumulator row `x` and the operand `y`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinaryKind {
    /// `x + y`.
    Add,
    /// `x - y`.
    Sub,
    /// `y - x`.
    ReverseSub,
    /// `(x * y) >> shift`, rounded.
    Mul,
    /// `max(x, y)`.
    Maximum,
    /// `min(x, y)`.
    Minimum,
}

/// A RESCALE of an operand on its way in: one multiplier and shift for the whole tensor, to `i32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OperandRescale {
    /// Multiplier, 32-bit, not negative.
    pub multiplier: i32,
    /// Right shift, 2 to 62.
    pub shift: u8,
    /// Zero point of the operand.
    pub input_zp: i32,
    /// Whether to round twice, as TOSA's DOUBLE_ROUND.
    pub double_round: bool,
}

/// Geometry that windowed heads share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// Kernel rows.
    pub kernel_h: u32,
    /// Kernel columns.
    pub kernel_w: u32,
    /// Row step.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub stride_h: u32,
    /// Column step.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub stride_w: u32,
    /// Distance of taps in rows.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub dilation_h: u32,
    /// Distance of taps in columns.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub dilation_w: u32,
    /// Rows of padding above.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pad_top: u32,
    /// Rows of padding below.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pad_bottom: u32,
    /// Columns of padding on the left.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pad_left: u32,
    /// Columns of padding on the right.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pad_right: u32,
}

/// What a DRAM segment is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentKind {
    /// Weights, biases and tables; read-only. A program has at most one.
    Weights,
    /// A network input; read-only.
    Input,
    /// A network output; every byte is written, and may be read back by later phases.
    Output,
    /// Spilled activations.
    Scratch,
}

/// How a stage divides the MACs of its partition. The clusters are arranged as reduction x output channels x
/// pixels; in each, a chain of lanes is split as reduction lanes x output channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Mapping {
    /// Reduction lanes of a cluster, a power of two that divides the target's lanes.
    #[serde(skip_serializing_if = "is_one")]
    pub lanes_reduction: u32,
    /// Clusters over the reduction.
    #[serde(skip_serializing_if = "is_one")]
    pub clusters_reduction: u32,
    /// Clusters over output channels.
    #[serde(skip_serializing_if = "is_one")]
    pub clusters_channels: u32,
    /// Clusters over pixels of a row.
    #[serde(skip_serializing_if = "is_one")]
    pub clusters_pixels: u32,
}

impl Default for Mapping {
    fn default() -> Self {
        Self { lanes_reduction: 1, clusters_reduction: 1, clusters_channels: 1, clusters_pixels: 1 }
    }
}

impl Mapping {
    /// Clusters that the mapping uses.
    pub fn clusters(&self) -> u64 {
        u64::from(self.clusters_reduction)
            * u64::from(self.clusters_channels)
            * u64::from(self.clusters_pixels)
    }
}

// What is as it usually is does not stand in dumps.

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_one(value: &u32) -> bool {
    *value == 1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}
