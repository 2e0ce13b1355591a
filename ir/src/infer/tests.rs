//! One good and one bad example of each family of rules; `tests` of the verifier hold the messages.

use super::*;
use crate::attr::{Attribute, NanMode, ResizeMode, RoundingMode};
use crate::build::Builder;
use crate::dialect::*;
use crate::module::BlockId;
use crate::types::ElemType::{I48, I64};

/// An op on function arguments of the given types and constants; gives the result's type or the code.
struct Bench {
    module: Module,
    block: BlockId,
}

impl Bench {
    fn new() -> Self {
        let mut module = Module::new();
        let (_, block) = module.add_function("f", crate::attr::FunctionType::default());
        Self { module, block }
    }

    fn arg(&mut self, shape: &[usize], elem: ElemType) -> ValueId {
        self.module.add_arg(self.block, Type::tensor(shape, elem))
    }

    fn build(&mut self) -> Builder<'_> {
        Builder::new(&mut self.module, self.block)
    }

    fn zero(&mut self, elem: ElemType) -> ValueId {
        match elem {
            F32 => self.build().const_f32(&[1], vec![0.0]),
            elem => self.build().const_ints(elem, &[1], &[0]),
        }
    }

    fn ty(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Result<String, &'static str> {
        self.ty_as(op, operands, None)
    }

    fn ty_as(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        elem: Option<ElemType>,
    ) -> Result<String, &'static str> {
        let types = infer(&self.module, &op.into(), operands, elem).map_err(|d| d.code.id())?;
        Ok(types.iter().map(Type::to_string).collect::<Vec<_>>().join(", "))
    }
}

fn ok(ty: &str) -> Result<String, &'static str> {
    Ok(ty.to_owned())
}

#[test]
fn convolutions_divide_exactly() {
    let mut b = Bench::new();
    let (x, w) = (b.arg(&[1, 8, 9, 3], I8), b.arg(&[4, 3, 3, 3], I8));
    let (bias, zp) = (b.arg(&[4], I32), b.zero(I8));
    let conv = |pad: [i64; 4], stride: [i64; 2]| Conv2d {
        pad,
        stride,
        dilation: [1, 1],
        acc_type: I32,
        local_bound: false,
    };
    let operands = [x, w, bias, zp, zp];
    assert_eq!(b.ty(conv([0, 1, 1, 1], [2, 2]), &operands), ok("tensor<1x4x5x4xi32>"));
    assert_eq!(b.ty(conv([0, 0, 0, 0], [2, 2]), &operands), Err("E0302"));
    assert_eq!(b.ty(conv([-1, 0, 0, 0], [1, 1]), &operands), Err("E0305"));
    assert_eq!(b.ty(conv([0, 0, 0, 0], [0, 1]), &operands), Err("E0305"));
    assert_eq!(b.ty(conv([0, 0, 0, 0], [1, i64::MAX]), &operands), Err("E0302"));
    assert_eq!(b.ty(Conv2d { acc_type: I48, ..conv([1; 4], [1, 1]) }, &operands), Err("E0305"));
    let huge = conv([i64::MAX; 4], [1, 1]);
    assert_eq!(b.ty(huge, &operands), Err("E0302"));
    assert_eq!(b.ty(conv([1; 4], [1, 1]), &[x, w, bias, zp]), Err("E0201"));
    assert_eq!(b.ty(conv([1; 4], [1, 1]), &[x, w, zp, zp, zp]), Err("E0301"));
    let not_constant = b.arg(&[1], I8);
    assert_eq!(b.ty(conv([1; 4], [1, 1]), &[x, w, bias, not_constant, zp]), Err("E0304"));
}

#[test]
fn depthwise_and_transposed_convolutions() {
    let mut b = Bench::new();
    let (x, w) = (b.arg(&[1, 8, 8, 3], F32), b.arg(&[3, 3, 3, 2], F32));
    let (bias, zp) = (b.arg(&[6], F32), b.zero(F32));
    let (stride, dilation, acc_type, local_bound) = ([1, 1], [2, 2], F32, false);
    let depthwise = DepthwiseConv2d { pad: [2; 4], stride, dilation, acc_type, local_bound };
    assert_eq!(b.ty(depthwise.clone(), &[x, w, bias, zp, zp]), ok("tensor<1x8x8x6xf32>"));
    let bad_bias = b.arg(&[5], F32);
    assert_eq!(b.ty(depthwise, &[x, w, bad_bias, zp, zp]), Err("E0302"));

    let (w, bias) = (b.arg(&[5, 4, 4, 3], F32), b.arg(&[1], F32));
    let transpose = |out_pad| TransposeConv2d { out_pad, stride: [2, 2], acc_type, local_bound };
    assert_eq!(b.ty(transpose([-1, -1, -1, 0]), &[x, w, bias, zp, zp]), ok("tensor<1x16x17x5xf32>"));
    assert_eq!(b.ty(transpose([-4, 0, 0, 0]), &[x, w, bias, zp, zp]), Err("E0305"));
}

#[test]
fn matrix_products_and_pools() {
    let mut b = Bench::new();
    let (a, c) = (b.arg(&[2, 3, 4], I16), b.arg(&[2, 4, 5], I16));
    let zp = b.zero(I16);
    assert_eq!(b.ty(MatMul {}, &[a, c, zp, zp]), ok("tensor<2x3x5xi48>"));
    assert_eq!(b.ty(MatMul {}, &[a, a, zp, zp]), Err("E0302"));
    let one = b.build().const_ints(I16, &[1], &[1]);
    assert_eq!(b.ty(MatMul {}, &[a, c, one, zp]), Err("E0305"));

    let (x, zp) = (b.arg(&[1, 5, 5, 2], I8), b.zero(I8));
    let max = |stride, pad| MaxPool2d { kernel: [3, 3], stride, pad, nan_mode: NanMode::Propagate };
    assert_eq!(b.ty(max([2, 2], [1; 4]), &[x]), ok("tensor<1x3x3x2xi8>"));
    assert_eq!(b.ty(max([2, 2], [1, 0, 1, 1]), &[x]), Err("E0302"));
    assert_eq!(b.ty(max([1, 1], [3, 0, 0, 0]), &[x]), Err("E0305"));
    let avg = |acc_type| AvgPool2d { kernel: [5, 5], stride: [1, 1], pad: [0; 4], acc_type };
    assert_eq!(b.ty(avg(I32), &[x, zp, zp]), ok("tensor<1x1x1x2xi8>"));
    assert_eq!(b.ty(avg(F32), &[x, zp, zp]), Err("E0305"));
}

#[test]
fn elementwise_ops_broadcast_equal_ranks() {
    let mut b = Bench::new();
    let (x, row, odd) = (b.arg(&[2, 3, 4], F32), b.arg(&[1, 1, 4], F32), b.arg(&[2, 3, 3], F32));
    let (flat, cond) = (b.arg(&[4], F32), b.arg(&[2, 1, 1], I1));
    let int = b.arg(&[2, 3, 4], I32);
    assert_eq!(b.ty(Add {}, &[row, x]), ok("tensor<2x3x4xf32>"));
    assert_eq!(b.ty(Greater {}, &[x, row]), ok("tensor<2x3x4xi1>"));
    assert_eq!(b.ty(Select {}, &[cond, row, row]), ok("tensor<2x1x4xf32>"));
    assert_eq!(b.ty(Add {}, &[x, odd]), Err("E0302"));
    assert_eq!(b.ty(Add {}, &[x, flat]), Err("E0302"));
    assert_eq!(b.ty(Add {}, &[x, int]), Err("E0301"));
    assert_eq!(b.ty(Pow {}, &[int, int]), Err("E0301"));
    assert_eq!(b.ty(Exp {}, &[int]), Err("E0301"));
    assert_eq!(b.ty(LogicalNot {}, &[cond]), ok("tensor<2x1x1xi1>"));
    assert_eq!(b.ty_as(Cast {}, &[int], Some(F32)), ok("tensor<2x3x4xf32>"));
    assert_eq!(b.ty_as(Cast {}, &[int], Some(I64)), Err("E0301"));
    assert_eq!(b.ty(Cast {}, &[int]), Err("E0303"));
}

#[test]
fn products_shift_only_i32() {
    let mut b = Bench::new();
    let (narrow, wide) = (b.arg(&[4], I8), b.arg(&[4], I32));
    let (none, some) = (b.zero(I8), b.build().const_ints(I8, &[1], &[7]));
    assert_eq!(b.ty(Mul {}, &[narrow, narrow, none]), ok("tensor<4xi32>"));
    assert_eq!(b.ty(Mul {}, &[wide, wide, some]), ok("tensor<4xi32>"));
    assert_eq!(b.ty(Mul {}, &[narrow, narrow, some]), Err("E0305"));
}

#[test]
fn clamp_and_table_follow_the_element() {
    let mut b = Bench::new();
    let (x, f) = (b.arg(&[4], I8), b.arg(&[4], F32));
    let clamp = |min_val, max_val| Clamp { min_val, max_val, nan_mode: NanMode::Propagate };
    let int = |v| Attribute::Int(v, I8);
    let float = |v| Attribute::Float(v, Some(F32));
    assert_eq!(b.ty(clamp(int(-3), int(5)), &[x]), ok("tensor<4xi8>"));
    assert_eq!(b.ty(clamp(int(5), int(-3)), &[x]), Err("E0305"));
    assert_eq!(b.ty(clamp(int(0), int(128)), &[x]), Err("E0305"));
    assert_eq!(b.ty(clamp(int(0), int(6)), &[f]), Err("E0301"));
    assert_eq!(b.ty(clamp(float(0.0), float(f64::INFINITY)), &[f]), ok("tensor<4xf32>"));
    assert_eq!(b.ty(clamp(float(f64::NAN), float(1.0)), &[f]), Err("E0305"));

    let (table, short) = (b.arg(&[256], I8), b.arg(&[255], I8));
    assert_eq!(b.ty(Table {}, &[x, table]), ok("tensor<4xi8>"));
    assert_eq!(b.ty(Table {}, &[x, short]), Err("E0302"));
}

#[test]
fn rescales_have_constant_scales() {
    let mut b = Bench::new();
    let x = b.arg(&[1, 2, 2, 2], I32);
    let multiplier = b.build().const_i32(&[2], vec![1 << 30, 3]);
    let shift = b.build().const_i8(&[2], vec![31, 2]);
    let (zp32, zp8) = (b.zero(I32), b.build().const_i8(&[1], vec![-128]));
    let rescale = Rescale {
        scale32: true,
        rounding_mode: RoundingMode::SingleRound,
        per_channel: true,
        input_unsigned: false,
        output_unsigned: false,
    };
    let operands = [x, multiplier, shift, zp32, zp8];
    assert_eq!(b.ty_as(rescale.clone(), &operands, Some(I8)), ok("tensor<1x2x2x2xi8>"));
    assert_eq!(b.ty_as(Rescale { per_channel: false, ..rescale.clone() }, &operands, Some(I8)), Err("E0302"));
    assert_eq!(b.ty_as(rescale.clone(), &operands, Some(F32)), Err("E0301"));
    assert_eq!(b.ty_as(rescale.clone(), &operands, None), Err("E0303"));
    let bad_shift = b.build().const_i8(&[2], vec![31, 1]);
    assert_eq!(b.ty_as(rescale, &[x, multiplier, bad_shift, zp32, zp8], Some(I8)), Err("E0305"));
}

#[test]
fn moves_of_data() {
    let mut b = Bench::new();
    let x = b.arg(&[2, 3, 4], F32);
    let y = b.arg(&[2, 5, 4], F32);
    let zero = b.zero(F32);
    assert_eq!(b.ty(Concat { axis: 1 }, &[x, y]), ok("tensor<2x8x4xf32>"));
    assert_eq!(b.ty(Concat { axis: 0 }, &[x, y]), Err("E0302"));
    assert_eq!(b.ty(Concat { axis: 3 }, &[x, y]), Err("E0305"));
    assert_eq!(b.ty(Concat { axis: 0 }, &[]), Err("E0201"));

    let padding = b.build().shape(&[0, 1, 2, 0, 0, 0]);
    assert_eq!(b.ty(Pad {}, &[x, padding, zero]), ok("tensor<3x5x4xf32>"));
    let negative = b.build().shape(&[0, 1, -2, 0, 0, 0]);
    assert_eq!(b.ty(Pad {}, &[x, negative, zero]), Err("E0305"));

    let shape = b.build().shape(&[4, 6]);
    assert_eq!(b.ty(Reshape {}, &[x, shape]), ok("tensor<4x6xf32>"));
    let wrong = b.build().shape(&[4, 7]);
    assert_eq!(b.ty(Reshape {}, &[x, wrong]), Err("E0302"));

    let (start, size) = (b.build().shape(&[0, 1, 2]), b.build().shape(&[2, 2, 2]));
    assert_eq!(b.ty(Slice {}, &[x, start, size]), ok("tensor<2x2x2xf32>"));
    assert_eq!(b.ty(Slice {}, &[x, size, size]), Err("E0305"));

    assert_eq!(b.ty(Tile {}, &[x, size]), ok("tensor<4x6x8xf32>"));
    assert_eq!(b.ty(Tile {}, &[x, start]), Err("E0305"));
    let huge = b.build().shape(&[1 << 40, 1, 1 << 40]);
    assert_eq!(b.ty(Tile {}, &[x, huge]), Err("E0302"));

    assert_eq!(b.ty(Transpose { perms: vec![2, 0, 1] }, &[x]), ok("tensor<4x2x3xf32>"));
    assert_eq!(b.ty(Transpose { perms: vec![2, 0, 0] }, &[x]), Err("E0305"));
    assert_eq!(b.ty(Transpose { perms: vec![0, 1] }, &[x]), Err("E0305"));

    let indices = b.arg(&[2, 7], I32);
    assert_eq!(b.ty(Gather {}, &[x, indices]), ok("tensor<2x7x4xf32>"));
    assert_eq!(b.ty(ReduceSum { axis: 2 }, &[x]), ok("tensor<2x3x1xf32>"));
    assert_eq!(b.ty(Argmax { axis: 2, nan_mode: NanMode::Propagate }, &[x]), ok("tensor<2x3xi32>"));
    assert_eq!(b.ty(Reverse { axis: -1 }, &[x]), Err("E0305"));
}

#[test]
fn resize_keeps_to_tosa_ranges() {
    let mut b = Bench::new();
    let x = b.arg(&[1, 4, 4, 2], I8);
    let (scale, offset, border) =
        (b.build().shape(&[4, 2, 4, 2]), b.build().shape(&[-1, -1]), b.build().shape(&[1, 1]));
    let bilinear = Resize { mode: ResizeMode::Bilinear };
    assert_eq!(b.ty(bilinear.clone(), &[x, scale, offset, border]), ok("tensor<1x8x8x2xi32>"));
    let nearest = Resize { mode: ResizeMode::NearestNeighbor };
    assert_eq!(b.ty(nearest.clone(), &[x, scale, offset, border]), ok("tensor<1x8x8x2xi8>"));
    let inexact = b.build().shape(&[0, -1]);
    assert_eq!(b.ty(nearest.clone(), &[x, scale, inexact, border]), Err("E0302"));
    let zero = b.build().shape(&[0, 2, 4, 2]);
    assert_eq!(b.ty(nearest, &[x, zero, offset, border]), Err("E0305"));
}
