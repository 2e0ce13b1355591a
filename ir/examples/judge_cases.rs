//! Writes random one-op modules, and a few random networks, with inputs and the evaluator's results, for an
//! outside judge: `judge_cases DIR SEED ROUNDS` makes `DIR/<round>-<op>-<element>/` with `case.mlir`,
//! `in<i>.npy`, `out<i>.npy`.
//!
//! `tests/judges/tosa.py` runs the same modules through the TOSA reference model and compares.

#[path = "support/npy.rs"]
mod npy;

use std::error::Error;
use std::path::Path;

use strata_ir::attr::{FunctionType, NanMode, ResizeMode, RoundingMode};
use strata_ir::dialect::*;
use strata_ir::eval::eval_function;
use strata_ir::eval::random::{RandomOptions, Rng, random_inputs, random_network};
use strata_ir::{Attribute, ElemType, Location, Module, OpId, Tensor, TensorData, TensorType, Type, text};

use ElemType::{F32, I1, I8, I16, I32, I48};

/// An operand: data given at run time, or a constant.
enum Operand {
    Input(Tensor),
    Const(Tensor),
}

struct Case {
    name: String,
    op: Op,
    operands: Vec<Operand>,
    result: TensorType,
}

impl Case {
    fn new(op: impl Into<Op>, operands: Vec<Operand>, shape: &[usize], elem: ElemType) -> Self {
        let op = op.into();
        let first = operands.iter().find_map(|o| match o {
            Operand::Input(tensor) => Some(tensor.elem()),
            Operand::Const(_) => None,
        });
        let name = format!("{}-{}", op.name().trim_start_matches("tosa."), first.unwrap_or(elem));
        Self { name, op, operands, result: TensorType::new(shape, elem) }
    }

    fn write(&self, dir: &Path) -> Result<(), Box<dyn Error>> {
        let inputs: Vec<Tensor> = self
            .operands
            .iter()
            .filter_map(|o| match o {
                Operand::Input(tensor) => Some(tensor.clone()),
                Operand::Const(_) => None,
            })
            .collect();
        let ty = FunctionType {
            inputs: inputs.iter().map(|t| t.ty().into()).collect(),
            results: vec![self.result.clone().into()],
        };
        let mut module = Module::new();
        let (func, block) = module.add_function("main", ty);
        let mut args = module.args(block).to_vec().into_iter();
        let mut operands = Vec::new();
        for operand in &self.operands {
            operands.push(match operand {
                Operand::Input(_) => args.next().ok_or("an argument for each input")?,
                Operand::Const(tensor) => module.append_const(block, tensor.clone(), Location::unknown()),
            });
        }
        let result: Type = self.result.clone().into();
        let op = module.append(block, self.op.clone(), &operands, &[result], Location::unknown());
        let result = module.result(op);
        module.append(block, FuncReturn {}, &[result], &[], Location::unknown());
        write_case(dir, &module, func, inputs)
    }
}

/// Writes a module, its inputs and what the evaluator makes of them.
fn write_case(dir: &Path, module: &Module, func: OpId, inputs: Vec<Tensor>) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(dir)?;
    std::fs::write(dir.join("case.mlir"), text::to_string(module))?;
    for (i, input) in inputs.iter().enumerate() {
        npy::write(&dir.join(format!("in{i}.npy")), input)?;
    }
    for (i, output) in eval_function(module, func, inputs)?.iter().enumerate() {
        npy::write(&dir.join(format!("out{i}.npy")), output)?;
    }
    Ok(())
}

fn zero_point(elem: ElemType, value: i64) -> Operand {
    Operand::Const(Rng::new(0).ints(&[1], elem, value, value))
}

fn shape_of(values: &[usize]) -> Operand {
    ints(&values.iter().map(|&v| v as i64).collect::<Vec<_>>())
}

fn ints(values: &[i64]) -> Operand {
    Operand::Const(Tensor::new([values.len()], TensorData::Index(values.to_vec())))
}

fn any(rng: &mut Rng, shape: &[usize], elem: ElemType) -> Operand {
    Operand::Input(rng.tensor(&TensorType::new(shape, elem)))
}

fn small_shape(rng: &mut Rng, least_rank: usize, greatest_rank: usize) -> Vec<usize> {
    (0..rng.count(least_rank, greatest_rank)).map(|_| rng.count(1, 5)).collect()
}

/// One axis of a window whose output extent is exact, as TOSA demands.
struct WindowAxis {
    input: usize,
    output: usize,
    kernel: usize,
    stride: i64,
    dilation: i64,
    pad: [i64; 2],
}

fn window_axis(rng: &mut Rng, dilate: bool) -> WindowAxis {
    loop {
        let kernel = rng.count(1, 4);
        let stride = rng.int(1, 3);
        let dilation = if dilate { rng.int(1, 2) } else { 1 };
        let pad = [rng.int(0, kernel as i64 - 1), rng.int(0, kernel as i64 - 1)];
        let output = rng.count(1, 6);
        let input = (output as i64 - 1) * stride + (kernel as i64 - 1) * dilation + 1 - pad[0] - pad[1];
        if input >= 1 {
            return WindowAxis { input: input as usize, output, kernel, stride, dilation, pad };
        }
    }
}

/// Element types of a convolution: input, weight, accumulator, and the range of zero points.
const CONVOLUTIONS: [(ElemType, ElemType, ElemType, i64); 3] =
    [(I8, I8, I32, 127), (I16, I8, I48, 0), (F32, F32, F32, 0)];

fn convolutions(rng: &mut Rng, cases: &mut Vec<Case>) {
    for (elem, weight_elem, acc_type, zp) in CONVOLUTIONS {
        let (y, x) = (window_axis(rng, true), window_axis(rng, true));
        let (n, ic, oc, m) = (rng.count(1, 2), rng.count(1, 40), rng.count(1, 9), rng.count(1, 3));
        let (pad, stride) = ([y.pad[0], y.pad[1], x.pad[0], x.pad[1]], [y.stride, x.stride]);
        let dilation = [y.dilation, x.dilation];
        let operands = |rng: &mut Rng, input: [usize; 4], weight: [usize; 4], n_bias: usize| {
            let n_bias = if rng.one_in(4) { 1 } else { n_bias };
            let (input_zp, weight_zp) = (rng.int(-zp, zp), rng.int(-zp, zp));
            vec![
                any(rng, &input, elem),
                Operand::Const(rng.tensor(&TensorType::new(weight, weight_elem))),
                Operand::Const(rng.tensor(&TensorType::new([n_bias], acc_type))),
                zero_point(elem, input_zp),
                zero_point(weight_elem, weight_zp),
            ]
        };
        let input = [n, y.input, x.input, ic];
        cases.push(Case::new(
            Conv2d { pad, stride, dilation, acc_type, local_bound: false },
            operands(rng, input, [oc, y.kernel, x.kernel, ic], oc),
            &[n, y.output, x.output, oc],
            acc_type,
        ));
        cases.push(Case::new(
            DepthwiseConv2d { pad, stride, dilation, acc_type, local_bound: false },
            operands(rng, input, [y.kernel, x.kernel, ic, m], ic * m),
            &[n, y.output, x.output, ic * m],
            acc_type,
        ));
        let (out_pad, output) = loop {
            let crop = |rng: &mut Rng, kernel: usize| rng.int(1 - kernel as i64, 2);
            let out_pad =
                [crop(rng, y.kernel), crop(rng, y.kernel), crop(rng, x.kernel), crop(rng, x.kernel)];
            let h = (y.input as i64 - 1) * y.stride + out_pad[0] + out_pad[1] + y.kernel as i64;
            let w = (x.input as i64 - 1) * x.stride + out_pad[2] + out_pad[3] + x.kernel as i64;
            if h > 0 && w > 0 {
                break (out_pad, [n, h as usize, w as usize, oc]);
            }
        };
        cases.push(Case::new(
            TransposeConv2d { out_pad, stride, acc_type, local_bound: false },
            operands(rng, input, [oc, y.kernel, x.kernel, ic], oc),
            &output,
            acc_type,
        ));
        let (h, w) = (rng.count(1, 6), rng.count(1, 6));
        let (a_zp, b_zp) = (rng.int(-zp, zp), rng.int(-zp, zp));
        cases.push(Case::new(
            MatMul {},
            vec![
                any(rng, &[n, h, ic], elem),
                any(rng, &[n, ic, w], elem),
                zero_point(elem, a_zp),
                zero_point(elem, b_zp),
            ],
            &[n, h, w],
            acc_type,
        ));
    }
}

fn pools(rng: &mut Rng, cases: &mut Vec<Case>) {
    for (elem, acc_type, zp) in [(I8, I32, 127), (I16, I32, 0), (F32, F32, 0)] {
        let (y, x) = (window_axis(rng, false), window_axis(rng, false));
        let (kernel, stride) = ([y.kernel as i64, x.kernel as i64], [y.stride, x.stride]);
        let pad = [y.pad[0], y.pad[1], x.pad[0], x.pad[1]];
        let (n, c) = (rng.count(1, 2), rng.count(1, 9));
        let (input, output) = ([n, y.input, x.input, c], [n, y.output, x.output, c]);
        cases.push(Case::new(
            MaxPool2d { kernel, stride, pad, nan_mode: NanMode::Propagate },
            vec![any(rng, &input, elem)],
            &output,
            elem,
        ));
        let (input_zp, output_zp) = (rng.int(-zp, zp), rng.int(-zp, zp));
        cases.push(Case::new(
            AvgPool2d { kernel, stride, pad, acc_type },
            vec![any(rng, &input, elem), zero_point(elem, input_zp), zero_point(elem, output_zp)],
            &output,
            elem,
        ));
    }
}

/// Two shapes that broadcast, and what to.
fn broadcasting(rng: &mut Rng) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
    let full = small_shape(rng, 1, 4);
    let one_some =
        |rng: &mut Rng| full.iter().map(|&e| if rng.one_in(3) { 1 } else { e }).collect::<Vec<_>>();
    let (a, b) = (one_some(rng), one_some(rng));
    let out = a.iter().zip(&b).map(|(&a, &b)| a.max(b)).collect();
    (a, b, out)
}

fn elementwise(rng: &mut Rng, cases: &mut Vec<Case>) {
    let nan_mode = rng.pick(&[NanMode::Propagate, NanMode::Ignore]);
    binary_ops(rng, cases, nan_mode);
    products_and_quotients(rng, cases);
    let shape = small_shape(rng, 1, 4);
    unary_ops(rng, cases, &shape);
    for elem in [I8, I16, F32] {
        let bound = |v: i64| match elem {
            F32 => Attribute::Float(v as f64 / 64.0, Some(F32)),
            elem => Attribute::Int(v, elem),
        };
        let (min_val, max_val) = (bound(rng.int(-128, 0)), bound(rng.int(1, 127)));
        cases.push(Case::new(
            Clamp { min_val, max_val, nan_mode },
            vec![any(rng, &shape, elem)],
            &shape,
            elem,
        ));
    }
    casts_and_tables(rng, cases, &shape);
}

fn binary_ops(rng: &mut Rng, cases: &mut Vec<Case>, nan_mode: NanMode) {
    let mut binary = |rng: &mut Rng, op: Op, elem: ElemType, result: ElemType| {
        let (a, b, out) = broadcasting(rng);
        cases.push(Case::new(op, vec![any(rng, &a, elem), any(rng, &b, elem)], &out, result));
    };
    for elem in [I32, F32] {
        binary(rng, Add {}.into(), elem, elem);
        binary(rng, Sub {}.into(), elem, elem);
        binary(rng, Maximum { nan_mode }.into(), elem, elem);
        binary(rng, Minimum { nan_mode }.into(), elem, elem);
        binary(rng, Equal {}.into(), elem, I1);
        binary(rng, Greater {}.into(), elem, I1);
        binary(rng, GreaterEqual {}.into(), elem, I1);
    }
    for op in [Op::from(LogicalAnd {}), LogicalOr {}.into(), LogicalXor {}.into()] {
        binary(rng, op, I1, I1);
    }
}

fn products_and_quotients(rng: &mut Rng, cases: &mut Vec<Case>) {
    for elem in [I8, I16, I32, F32] {
        let (a, b, out) = broadcasting(rng);
        let shift = if elem == I32 { rng.int(0, 20) } else { 0 };
        let mut factor = |shape: &[usize]| match elem {
            I32 if shift < 12 => Operand::Input(rng.ints(shape, I32, -30000, 30000)),
            _ => any(rng, shape, elem),
        };
        let operands = vec![factor(&a), factor(&b), zero_point(I8, shift)];
        cases.push(Case::new(Mul {}, operands, &out, if elem == F32 { F32 } else { I32 }));
    }
    for (elem, bits) in [(I8, 8), (I16, 16), (I32, 32)] {
        let (a, b, out) = broadcasting(rng);
        let operands = vec![any(rng, &a, elem), Operand::Input(rng.ints(&b, elem, 0, bits - 1))];
        let round = rng.one_in(2);
        cases.push(Case::new(ArithmeticRightShift { round }, operands, &out, elem));
    }
    let (a, b, out) = broadcasting(rng);
    let divisor = Operand::Input(rng.ints(&b, I32, 1, 99));
    cases.push(Case::new(IntDiv {}, vec![any(rng, &a, I32), divisor], &out, I32));
    let operands = vec![positive(rng, &a), any(rng, &b, F32)];
    cases.push(Case::new(Pow {}, operands, &out, F32));
}

fn positive(rng: &mut Rng, shape: &[usize]) -> Operand {
    let n = shape.iter().product();
    Operand::Input(Tensor::f32(shape, (0..n).map(|_| rng.float(0.1, 4.0)).collect()))
}

fn unary_ops(rng: &mut Rng, cases: &mut Vec<Case>, shape: &[usize]) {
    for op in [Op::from(Log {}), Reciprocal {}.into(), Rsqrt {}.into()] {
        cases.push(Case::new(op, vec![positive(rng, shape)], shape, F32));
    }
    let floats =
        [Op::from(Ceil {}), Floor {}.into(), Exp {}.into(), Sigmoid {}.into(), Tanh {}.into(), Erf {}.into()];
    for op in floats.into_iter().chain([Op::from(Sin {}), Cos {}.into(), Abs {}.into()]) {
        cases.push(Case::new(op, vec![any(rng, shape, F32)], shape, F32));
    }
    cases.push(Case::new(Abs {}, vec![any(rng, shape, I32)], shape, I32));
    cases.push(Case::new(LogicalNot {}, vec![any(rng, shape, I1)], shape, I1));
    for elem in [I1, I8, I16, I32, F32] {
        cases.push(Case::new(Identity {}, vec![any(rng, shape, elem)], shape, elem));
        let (a, b, out) = broadcasting(rng);
        let operands = vec![any(rng, &out, I1), any(rng, &a, elem), any(rng, &b, elem)];
        cases.push(Case::new(Select {}, operands, &out, elem));
    }
    for (elem, zp) in [(I8, 127), (I16, 0), (I32, 0), (F32, 0)] {
        let (input_zp, output_zp) = (rng.int(-zp, zp), rng.int(-zp, zp));
        let operands = vec![any(rng, shape, elem), zero_point(elem, input_zp), zero_point(elem, output_zp)];
        cases.push(Case::new(Negate {}, operands, shape, elem));
    }
}

/// Element types of a cast: from and to.
const CASTS: [(ElemType, ElemType); 18] = [
    (I1, I8),
    (I1, I16),
    (I1, I32),
    (I8, I1),
    (I8, I16),
    (I8, I32),
    (I8, F32),
    (I16, I1),
    (I16, I8),
    (I16, I32),
    (I16, F32),
    (I32, I1),
    (I32, I8),
    (I32, I16),
    (I32, F32),
    (F32, I8),
    (F32, I16),
    (F32, I32),
];

fn casts_and_tables(rng: &mut Rng, cases: &mut Vec<Case>, shape: &[usize]) {
    for (from, to) in CASTS {
        cases.push(Case::new(Cast {}, vec![any(rng, shape, from)], shape, to));
    }
    let halves = Tensor::f32([8], [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 126.5, 127.5].to_vec());
    cases.push(Case::new(Cast {}, vec![Operand::Input(halves)], &[8], I8));
    let table = Operand::Const(rng.ints(&[256], I8, -128, 127));
    cases.push(Case::new(Table {}, vec![any(rng, shape, I8), table], shape, I8));
    let table = Operand::Const(rng.ints(&[513], I16, -16000, 16000));
    let input = Operand::Input(rng.ints(shape, I16, -32768, 32767));
    cases.push(Case::new(Table {}, vec![input, table], shape, I32));
}

fn rescales(rng: &mut Rng, cases: &mut Vec<Case>) {
    for (from, to) in [
        (I8, I8),
        (I8, I16),
        (I8, I32),
        (I16, I8),
        (I16, I16),
        (I16, I32),
        (I32, I8),
        (I32, I16),
        (I32, I32),
        (I48, I8),
        (I48, I32),
    ] {
        for double_round in [false, true] {
            let shape = small_shape(rng, 1, 4);
            let scale32 = from != I48 && (double_round || rng.one_in(2));
            if double_round && !scale32 {
                continue;
            }
            let per_channel = rng.one_in(2);
            let n_scales = if per_channel { shape.last().copied().unwrap_or(1) } else { 1 };
            let bits = if scale32 { 31 } else { 15 };
            let multiplier =
                rng.ints(&[n_scales], if scale32 { I32 } else { I16 }, 1 << (bits - 1), (1 << bits) - 1);
            let least_shift = if from == I8 { 10 } else { 18 };
            let shift = rng.ints(&[n_scales], I8, least_shift, 46);
            let least = shift.data().to_ints().and_then(|s| s.into_iter().min()).unwrap_or(least_shift);
            let input_unsigned = matches!(from, I8 | I16) && to != I32 && rng.one_in(3);
            let output_unsigned =
                !input_unsigned && matches!(to, I8 | I16) && from != I48 && from != I32 && rng.one_in(3);
            let zp = |rng: &mut Rng, elem: ElemType, unsigned: bool| match (elem, unsigned) {
                (I8, false) => rng.int(-128, 127),
                (I8, true) => rng.int(0, 255),
                (I16, true) => rng.pick(&[0, 32768]),
                _ => 0,
            };
            let (input_zp, output_zp) = (zp(rng, from, input_unsigned), zp(rng, to, output_unsigned));
            let bound = match from {
                I8 => 127,
                I16 => 32767,
                _ => (1_i64 << (least - 2).min(30)) - 1,
            };
            let rounding_mode =
                if double_round { RoundingMode::DoubleRound } else { RoundingMode::SingleRound };
            cases.push(Case::new(
                Rescale { scale32, rounding_mode, per_channel, input_unsigned, output_unsigned },
                vec![
                    Operand::Input(rng.ints(&shape, from, -bound, bound)),
                    Operand::Const(multiplier),
                    Operand::Const(shift),
                    zero_point(from, input_zp),
                    zero_point(to, output_zp),
                ],
                &shape,
                to,
            ));
        }
    }
}

fn resizes(rng: &mut Rng, cases: &mut Vec<Case>) {
    /// Scale, offset, border and output extent of one axis.
    fn axis(rng: &mut Rng, extent: usize) -> ([i64; 2], i64, i64, usize) {
        loop {
            let (unit, step) = (rng.int(1, 9), rng.int(1, 9));
            let offset = rng.int(-unit, unit);
            let span = (extent as i64 - 1) * unit - offset;
            let down = -span.rem_euclid(step);
            let border = if rng.one_in(2) && down + step < unit { down + step } else { down };
            if span + border >= 0 {
                return ([unit, step], offset, border, ((span + border) / step + 1) as usize);
            }
        }
    }
    for (elem, mode, result) in [
        (I8, ResizeMode::NearestNeighbor, I8),
        (I16, ResizeMode::NearestNeighbor, I16),
        (F32, ResizeMode::NearestNeighbor, F32),
        (I8, ResizeMode::Bilinear, I32),
        (I16, ResizeMode::Bilinear, I48),
        (F32, ResizeMode::Bilinear, F32),
    ] {
        let (n, h, w, c) = (rng.count(1, 2), rng.count(1, 6), rng.count(1, 6), rng.count(1, 4));
        let (y, x) = (axis(rng, h), axis(rng, w));
        let scale = ints(&[y.0[0], y.0[1], x.0[0], x.0[1]]);
        let operands = vec![any(rng, &[n, h, w, c], elem), scale, ints(&[y.1, x.1]), ints(&[y.2, x.2])];
        cases.push(Case::new(Resize { mode }, operands, &[n, y.3, x.3, c], result));
    }
}

fn reductions(rng: &mut Rng, cases: &mut Vec<Case>) {
    let shape = small_shape(rng, 1, 4);
    let axis = rng.count(0, shape.len() - 1);
    let mut one = shape.clone();
    one[axis] = 1;
    let mut dropped = shape.clone();
    dropped.remove(axis);
    let axis = axis as i32;
    let nan_mode = rng.pick(&[NanMode::Propagate, NanMode::Ignore]);
    for elem in [I8, I16, I32, F32] {
        cases.push(Case::new(ReduceMax { axis, nan_mode }, vec![any(rng, &shape, elem)], &one, elem));
        cases.push(Case::new(ReduceMin { axis, nan_mode }, vec![any(rng, &shape, elem)], &one, elem));
    }
    for elem in [I32, F32] {
        cases.push(Case::new(ReduceSum { axis }, vec![any(rng, &shape, elem)], &one, elem));
    }
    cases.push(Case::new(ReduceProduct { axis }, vec![any(rng, &shape, F32)], &one, F32));
    for elem in [I8, I16] {
        let few_values = Operand::Input(rng.ints(&shape, elem, -2, 2));
        cases.push(Case::new(Argmax { axis, nan_mode }, vec![few_values], &dropped, I32));
    }
    cases.push(Case::new(Argmax { axis, nan_mode }, vec![any(rng, &shape, F32)], &dropped, I32));
}

fn moves(rng: &mut Rng, cases: &mut Vec<Case>) {
    for elem in [I8, I16, I32, F32] {
        let shape = small_shape(rng, 1, 4);
        let rank = shape.len();
        let axis = rng.count(0, rank - 1);
        let n_inputs = rng.count(1, 4);
        let mut joined = shape.clone();
        joined[axis] = 0;
        let mut inputs = Vec::new();
        for _ in 0..n_inputs {
            let mut part = shape.clone();
            part[axis] = rng.count(1, 4);
            joined[axis] += part[axis];
            inputs.push(any(rng, &part, elem));
        }
        cases.push(Case::new(Concat { axis: axis as i32 }, inputs, &joined, elem));
        cases.push(Case::new(Reverse { axis: axis as i32 }, vec![any(rng, &shape, elem)], &shape, elem));
        let padding: Vec<usize> = (0..2 * rank).map(|_| rng.count(0, 2)).collect();
        let padded: Vec<usize> = (0..rank).map(|i| shape[i] + padding[2 * i] + padding[2 * i + 1]).collect();
        let constant = Operand::Const(rng.tensor(&TensorType::new([1], elem)));
        let operands = vec![any(rng, &shape, elem), shape_of(&padding), constant];
        cases.push(Case::new(Pad {}, operands, &padded, elem));
        let flat = [shape.iter().product()];
        cases.push(Case::new(Reshape {}, vec![any(rng, &shape, elem), shape_of(&flat)], &flat, elem));
        let start: Vec<usize> = shape.iter().map(|&e| rng.count(0, e - 1)).collect();
        let size: Vec<usize> = (0..rank).map(|i| rng.count(1, shape[i] - start[i])).collect();
        let operands = vec![any(rng, &shape, elem), shape_of(&start), shape_of(&size)];
        cases.push(Case::new(Slice {}, operands, &size, elem));
        let multiples: Vec<usize> = shape.iter().map(|_| rng.count(1, 3)).collect();
        let tiled: Vec<usize> = shape.iter().zip(&multiples).map(|(e, m)| e * m).collect();
        cases.push(Case::new(Tile {}, vec![any(rng, &shape, elem), shape_of(&multiples)], &tiled, elem));
        let mut perms: Vec<i32> = (0..rank as i32).collect();
        for i in (1..rank).rev() {
            perms.swap(i, rng.count(0, i));
        }
        let permuted: Vec<usize> = perms.iter().map(|&p| shape[p as usize]).collect();
        cases.push(Case::new(Transpose { perms }, vec![any(rng, &shape, elem)], &permuted, elem));
        let [n, k, w, c] = [rng.count(1, 3), rng.count(1, 5), rng.count(1, 5), rng.count(1, 4)];
        let indices = Operand::Input(rng.ints(&[n, w], I32, 0, k as i64 - 1));
        cases.push(Case::new(Gather {}, vec![any(rng, &[n, k, c], elem), indices], &[n, w, c], elem));
    }
}

/// Random networks in a round.
const NETWORKS: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, seed, rounds] = args.as_slice() else {
        return Err("usage: judge_cases DIR SEED ROUNDS".into());
    };
    let (seed, rounds): (u64, u64) = (seed.parse()?, rounds.parse()?);
    for round in 0..rounds {
        let mut rng = Rng::new(seed.wrapping_add(round));
        let mut cases = Vec::new();
        for family in [convolutions, pools, elementwise, rescales, resizes, reductions, moves] {
            family(&mut rng, &mut cases);
        }
        for (i, case) in cases.iter().enumerate() {
            let name = format!("{round:03}-{i:03}-{}", case.name);
            case.write(&Path::new(dir).join(&name)).map_err(|error| format!("{name}: {error}"))?;
        }
        for i in 0..NETWORKS {
            let seed = rng.bits();
            let module = random_network(seed, &RandomOptions::default());
            let func = module.function("main").ok_or("the generator makes `main`")?;
            let inputs = random_inputs(&module, func, seed);
            write_case(&Path::new(dir).join(format!("{round:03}-network{i}")), &module, func, inputs)?;
        }
    }
    Ok(())
}
