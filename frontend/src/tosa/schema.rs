//! What Strata knows of TOSA's flatbuffer schema: slots, enums, and one row an operator with its attributes.
//!
//! An operator's MLIR name is the name of its row in the dialect table of `ir`; its attributes are built by
//! name and kind, so that the dialect's own row checks them. Operators that the dialect lacks stand in
//! [`OTHER_OPERATORS`], for their names in messages.
//!
//! # Source
//! `tosa.fbs` of the TOSA serialisation library, versions 1.0 and 1.1. Numbers there never change meaning;
//! new ones are added at the end.

use strata_ir::ElemType;

/// What four bytes at offset 4 of a file say.
pub(super) const IDENTIFIER: &[u8; 4] = b"TOSA";

/// Slots of `TosaGraph`.
pub(super) mod graph {
    pub(crate) const VERSION: usize = 0;
    pub(crate) const REGIONS: usize = 1;
}
/// Slots of `Version`, each `-1` if absent.
pub(super) mod version {
    pub(crate) const MAJOR: usize = 0;
    pub(crate) const MINOR: usize = 1;
    pub(crate) const PATCH: usize = 2;
    pub(crate) const DRAFT: usize = 3;
}
/// Slots of `TosaRegion`.
pub(super) mod region {
    pub(crate) const NAME: usize = 0;
    pub(crate) const BLOCKS: usize = 1;
}
/// Slots of `TosaBasicBlock`.
pub(super) mod block {
    pub(crate) const NAME: usize = 0;
    pub(crate) const OPERATORS: usize = 1;
    pub(crate) const TENSORS: usize = 2;
    pub(crate) const INPUTS: usize = 3;
    pub(crate) const OUTPUTS: usize = 4;
    pub(crate) const SHAPES: usize = 5;
}
/// Slots of `TosaTensor`.
pub(super) mod tensor {
    pub(crate) const NAME: usize = 0;
    pub(crate) const SHAPE: usize = 1;
    pub(crate) const TYPE: usize = 2;
    pub(crate) const DATA: usize = 3;
    pub(crate) const VARIABLE: usize = 4;
    pub(crate) const IS_UNRANKED: usize = 5;
    pub(crate) const OFFSET: usize = 7;
}
/// Slots of `TosaShape`.
pub(super) mod shape {
    pub(crate) const NAME: usize = 0;
    pub(crate) const RANK: usize = 1;
    pub(crate) const DATA: usize = 2;
}
/// Slots of `TosaOperator`; a union takes two, its type and its value.
pub(super) mod operator {
    pub(crate) const OP: usize = 0;
    pub(crate) const ATTRIBUTE_TYPE: usize = 1;
    pub(crate) const ATTRIBUTE: usize = 2;
    pub(crate) const INPUTS: usize = 3;
    pub(crate) const OUTPUTS: usize = 4;
    pub(crate) const LOCATION: usize = 5;
}
/// Slots of `OpLocation`.
pub(super) mod location {
    pub(crate) const TEXT: usize = 0;
}

/// The names of `DType`'s cases and, of those that the IR has, the element types.
pub(super) const DTYPES: &[(&str, Option<ElemType>)] = &[
    ("UNKNOWN", None),
    ("BOOL", Some(ElemType::I1)),
    ("INT4", None),
    ("INT8", Some(ElemType::I8)),
    ("INT16", Some(ElemType::I16)),
    ("INT32", Some(ElemType::I32)),
    ("INT48", Some(ElemType::I48)),
    ("FP32", Some(ElemType::F32)),
    ("FP16", None),
    ("BF16", None),
    ("SHAPE", None),
    ("FP8E4M3", None),
    ("FP8E5M2", None),
    ("FP6E2M3", None),
    ("FP6E3M2", None),
    ("FP4E2M1", None),
    ("FP8UE8M0", None),
    ("INT64", None),
    ("MXINT8", None),
];

/// How an attribute table's field becomes an attribute of the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `int32`.
    Int,
    /// `bool`.
    Bool,
    /// `[int32]` as `array<i64>`: windows.
    Extents,
    /// `[int32]` as `array<i32>`: permutations.
    Axes,
    /// `DType`.
    Type,
    /// `NanPropagationMode`.
    Nan,
    /// `RoundingMode`.
    Rounding,
    /// `ResizeMode`.
    Resize,
    /// `[ubyte]`: one little-endian number of the input's element type.
    Number,
}

impl Kind {
    /// The mnemonic and the cases of an enum, from 1 on; the case 0 is `UNKNOWN` in all of them.
    pub(super) fn cases(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::Nan => Some(("tosa.nan_mode", &["PROPAGATE", "IGNORE"])),
            Self::Rounding => {
                Some(("tosa.rounding_mode", &["SINGLE_ROUND", "INEXACT_ROUND", "DOUBLE_ROUND"]))
            }
            Self::Resize => Some(("tosa.resize_mode", &["NEAREST_NEIGHBOR", "BILINEAR"])),
            _ => None,
        }
    }
}

/// An operator that the dialect has.
#[derive(Debug)]
pub(super) struct Row {
    /// Its number in `Op`, which is also that of its attribute table in the union.
    pub(super) number: u32,
    /// Its name in the dialect.
    pub(super) name: &'static str,
    /// Its attributes: a slot, the dialect's name, a kind.
    pub(super) attributes: &'static [(usize, &'static str, Kind)],
}

macro_rules! rows {
    ($($number:literal $name:literal { $($slot:literal $attr:ident: $kind:ident),* })+) => {
        &[$(Row {
            number: $number,
            name: $name,
            attributes: &[$(($slot, stringify!($attr), Kind::$kind)),*],
        }),+]
    };
}

/// The operators that the dialect has, but for constants.
pub(super) const ROWS: &[Row] = rows! {
    1 "tosa.argmax" { 0 axis: Int, 1 nan_mode: Nan }
    2 "tosa.avg_pool2d" { 0 kernel: Extents, 1 stride: Extents, 2 pad: Extents, 3 acc_type: Type }
    3 "tosa.conv2d" {
        0 pad: Extents, 1 stride: Extents, 2 dilation: Extents, 3 local_bound: Bool, 4 acc_type: Type
    }
    5 "tosa.depthwise_conv2d" {
        0 pad: Extents, 1 stride: Extents, 2 dilation: Extents, 3 local_bound: Bool, 4 acc_type: Type
    }
    7 "tosa.matmul" {}
    8 "tosa.max_pool2d" { 0 kernel: Extents, 1 stride: Extents, 2 pad: Extents, 3 nan_mode: Nan }
    10 "tosa.transpose_conv2d" {
        0 out_pad: Extents, 1 stride: Extents, 2 local_bound: Bool, 3 acc_type: Type
    }
    11 "tosa.clamp" { 0 min_val: Number, 1 max_val: Number, 2 nan_mode: Nan }
    12 "tosa.erf" {}
    13 "tosa.sigmoid" {}
    14 "tosa.tanh" {}
    15 "tosa.add" {}
    16 "tosa.arithmetic_right_shift" { 0 round: Bool }
    20 "tosa.intdiv" {}
    21 "tosa.logical_and" {}
    24 "tosa.logical_or" {}
    25 "tosa.logical_xor" {}
    26 "tosa.maximum" { 0 nan_mode: Nan }
    27 "tosa.minimum" { 0 nan_mode: Nan }
    28 "tosa.mul" {}
    29 "tosa.pow" {}
    30 "tosa.sub" {}
    31 "tosa.table" {}
    32 "tosa.abs" {}
    34 "tosa.ceil" {}
    36 "tosa.cos" {}
    37 "tosa.exp" {}
    38 "tosa.floor" {}
    39 "tosa.log" {}
    40 "tosa.logical_not" {}
    41 "tosa.negate" {}
    42 "tosa.reciprocal" {}
    43 "tosa.rsqrt" {}
    44 "tosa.sin" {}
    45 "tosa.select" {}
    46 "tosa.equal" {}
    47 "tosa.greater" {}
    48 "tosa.greater_equal" {}
    51 "tosa.reduce_max" { 0 axis: Int, 1 nan_mode: Nan }
    52 "tosa.reduce_min" { 0 axis: Int, 1 nan_mode: Nan }
    53 "tosa.reduce_product" { 0 axis: Int }
    54 "tosa.reduce_sum" { 0 axis: Int }
    55 "tosa.concat" { 0 axis: Int }
    56 "tosa.pad" {}
    57 "tosa.reshape" {}
    58 "tosa.reverse" { 0 axis: Int }
    59 "tosa.slice" {}
    60 "tosa.tile" {}
    61 "tosa.transpose" { 0 perms: Axes }
    62 "tosa.gather" {}
    64 "tosa.resize" { 0 mode: Resize }
    65 "tosa.cast" {}
    66 "tosa.rescale" {
        0 scale32: Bool, 1 rounding_mode: Rounding, 2 per_channel: Bool, 3 input_unsigned: Bool,
        4 output_unsigned: Bool
    }
    68 "tosa.identity" {}
};

/// The number of CONST.
pub(super) const CONST: u32 = 67;
/// The number of CONST_SHAPE.
pub(super) const CONST_SHAPE: u32 = 75;

/// Operators of TOSA that the dialect lacks.
pub(super) const OTHER_OPERATORS: &[(u32, &str)] = &[
    (4, "CONV3D"),
    (6, "FFT2D"),
    (9, "RFFT2D"),
    (17, "BITWISE_AND"),
    (18, "BITWISE_OR"),
    (19, "BITWISE_XOR"),
    (22, "LOGICAL_LEFT_SHIFT"),
    (23, "LOGICAL_RIGHT_SHIFT"),
    (33, "BITWISE_NOT"),
    (35, "CLZ"),
    (49, "REDUCE_ALL"),
    (50, "REDUCE_ANY"),
    (63, "SCATTER"),
    (69, "CUSTOM"),
    (70, "COND_IF"),
    (71, "WHILE_LOOP"),
    (72, "VARIABLE"),
    (73, "VARIABLE_WRITE"),
    (74, "VARIABLE_READ"),
    (76, "MATMUL_T_BLOCK_SCALED"),
    (77, "CAST_FROM_BLOCK_SCALED"),
    (78, "CAST_TO_BLOCK_SCALED"),
    (79, "DIM"),
    (80, "CONCAT_SHAPE"),
    (81, "ADD_SHAPE"),
    (82, "SUB_SHAPE"),
    (83, "MUL_SHAPE"),
    (84, "SLICE_SHAPE"),
    (85, "EXP2_SHAPE"),
    (86, "LOG2_CEIL_SHAPE"),
    (87, "LOG2_FLOOR_SHAPE"),
    (88, "MAX_SHAPE"),
    (89, "MIN_SHAPE"),
    (90, "MOD_SHAPE"),
    (91, "DIV_CEIL_SHAPE"),
    (92, "DIV_FLOOR_SHAPE"),
    (93, "ASSERT_EQUAL_SHAPE"),
    (94, "CONV2D_BLOCK_SCALED"),
    (95, "MAX_POOL2D_ADAPTIVE"),
    (96, "AVG_POOL2D_ADAPTIVE"),
    (97, "RESHAPE_BLOCK_SCALED"),
    (98, "ROW_GATHER_BLOCK_SCALED"),
    (99, "ROW_GATHER"),
    (100, "MATMUL_T"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use strata_ir::dialect::Op;

    use super::*;

    #[test]
    fn every_row_is_the_dialects() {
        for row in ROWS {
            let info = Op::all_infos().into_iter().find(|info| info.name == row.name);
            let info = info.unwrap_or_else(|| panic!("{} is not in the dialect", row.name));
            let ours: BTreeSet<_> = row.attributes.iter().map(|(_, name, _)| *name).collect();
            let theirs: BTreeSet<_> = info.attrs.iter().map(|attr| attr.name).collect();
            assert_eq!(ours, theirs, "{}", row.name);
        }
    }

    #[test]
    fn every_tosa_op_of_the_dialect_has_a_row_and_every_number_one_operator() {
        let known: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        for info in Op::all_infos() {
            let is_const = matches!(info.name, "tosa.const" | "tosa.const_shape");
            assert!(
                !info.name.starts_with("tosa.") || is_const || known.contains(info.name),
                "{}",
                info.name
            );
        }
        let mut numbers: Vec<u32> = ROWS.iter().map(|row| row.number).chain([CONST, CONST_SHAPE]).collect();
        numbers.extend(OTHER_OPERATORS.iter().map(|(number, _)| *number));
        numbers.sort_unstable();
        assert!(numbers.iter().copied().eq(1..=100), "{numbers:?}");
    }
}
