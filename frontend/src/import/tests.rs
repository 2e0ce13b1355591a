//! Small models through the importer and the evaluator, judged by tract; layouts by what the module holds;
//! bad files by their errors.

use strata_ir::dialect::Op;
use strata_ir::eval::eval_function;
use strata_ir::{Module, Tensor};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};

use super::array::Array;
use super::*;
use crate::reference::run_with_tract;
use crate::zoo::{ZooOptions, build};

/// A model under construction.
pub(super) struct Net {
    graph: GraphProto,
    opset: i64,
}

/// An attribute of a node.
pub(super) enum Attr<'a> {
    Int(i64),
    Ints(&'a [i64]),
    Float(f32),
    Floats(&'a [f32]),
    Text(&'a str),
    Texts(&'a [&'a str]),
}

fn value_info(name: &str, shape: &[i64]) -> ValueInfoProto {
    let dim = |&extent: &i64| {
        let value = match extent {
            -1 => dimension::Value::DimParam("n".to_owned()),
            extent => dimension::Value::DimValue(extent),
        };
        Dimension { value: Some(value), ..Default::default() }
    };
    let shape = TensorShapeProto { dim: shape.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(shape) };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.to_owned(), r#type: Some(ty), ..Default::default() }
}

/// Numbers in (-1, 1) that look random.
pub(super) fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

impl Net {
    /// A net with the input `x`.
    pub(super) fn new(opset: i64, input: &[i64]) -> Self {
        let graph = GraphProto { input: vec![value_info("x", input)], ..Default::default() };
        Self { graph, opset }
    }

    pub(super) fn floats(mut self, name: &str, dims: &[i64], data: Vec<f32>) -> Self {
        self.graph.initializer.push(TensorProto {
            name: name.to_owned(),
            dims: dims.to_vec(),
            data_type: DataType::Float as i32,
            float_data: data,
            ..Default::default()
        });
        self
    }

    /// A weight of noise.
    pub(super) fn weight(self, name: &str, dims: &[i64]) -> Self {
        let n = dims.iter().product::<i64>() as usize;
        let seed = name.bytes().fold(7, |sum, b| sum * 31 + u32::from(b));
        self.floats(name, dims, noise(n, seed))
    }

    pub(super) fn ints(mut self, name: &str, data: &[i64]) -> Self {
        self.graph.initializer.push(TensorProto {
            name: name.to_owned(),
            dims: vec![data.len() as i64],
            data_type: DataType::Int64 as i32,
            int64_data: data.to_vec(),
            ..Default::default()
        });
        self
    }

    /// A node; its inputs and outputs are names with spaces between, `_` for one that is left out. An
    /// operator of another domain has that before it, with a colon between.
    pub(super) fn node(mut self, op: &str, inputs: &str, outputs: &str, attrs: &[(&str, Attr<'_>)]) -> Self {
        let names = |text: &str| -> Vec<String> {
            text.split_whitespace()
                .map(|name| if name == "_" { String::new() } else { name.to_owned() })
                .collect()
        };
        let attribute = |(name, attr): &(&str, Attr<'_>)| {
            let mut out = AttributeProto { name: (*name).to_owned(), ..Default::default() };
            let kind = match attr {
                Attr::Int(v) => {
                    out.i = *v;
                    AttributeType::Int
                }
                Attr::Ints(v) => {
                    out.ints = v.to_vec();
                    AttributeType::Ints
                }
                Attr::Float(v) => {
                    out.f = *v;
                    AttributeType::Float
                }
                Attr::Floats(v) => {
                    out.floats = v.to_vec();
                    AttributeType::Floats
                }
                Attr::Text(v) => {
                    out.s = v.as_bytes().to_vec();
                    AttributeType::String
                }
                Attr::Texts(v) => {
                    out.strings = v.iter().map(|text| text.as_bytes().to_vec()).collect();
                    AttributeType::Strings
                }
            };
            out.r#type = kind as i32;
            out
        };
        let (domain, op_type) = op.rsplit_once(':').unwrap_or(("", op));
        self.graph.node.push(NodeProto {
            op_type: op_type.to_owned(),
            domain: domain.to_owned(),
            name: format!("node_{}", self.graph.node.len()),
            input: names(inputs),
            output: names(outputs),
            attribute: attrs.iter().map(attribute).collect(),
            ..Default::default()
        });
        self
    }

    /// The model whose outputs are these.
    pub(super) fn model(mut self, outputs: &str) -> ModelProto {
        for name in outputs.split_whitespace() {
            let mut info = value_info(name, &[]);
            if let Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), .. }) =
                &mut info.r#type
            {
                tensor.shape = None;
            }
            self.graph.output.push(info);
        }
        ModelProto {
            ir_version: 8,
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: self.opset }],
            graph: Some(self.graph),
            ..Default::default()
        }
    }
}

/// The permuted copy that `Port::perm` asks for.
fn permuted(tensor: &Tensor, perm: &[usize]) -> Tensor {
    if let Some(ints) = tensor.data().to_ints() {
        let array = Array::ints(tensor.shape().to_vec(), ints, DataType::Int64).transposed(perm);
        let ints = array.as_ints().expect("integers").iter().copied();
        let data = strata_ir::TensorData::from_ints(tensor.elem(), ints).expect("integers");
        return Tensor::new(array.shape.clone(), data);
    }
    let data = tensor.as_f32().expect("f32").to_vec();
    let array = Array::floats(tensor.shape().to_vec(), data).transposed(perm);
    Tensor::f32(array.shape.clone(), array.as_floats().expect("f32").to_vec())
}

/// Runs the imported function on inputs in ONNX's layout.
pub(super) fn run(imported: &Imported, inputs: &[Tensor]) -> Vec<Tensor> {
    let inputs = inputs.iter().zip(&imported.inputs).map(|(t, port)| permuted(t, &port.perm)).collect();
    let func = imported.module.function("main").expect("main");
    let results = eval_function(&imported.module, func, inputs).expect("the module evaluates");
    results.iter().zip(&imported.outputs).map(|(t, port)| permuted(t, &port.perm)).collect()
}

/// Imports a model of one input, runs it on noise and compares with tract.
pub(super) fn check(model: &ModelProto) -> Imported {
    let imported = import_proto(model, &ImportOptions::default()).expect("the model imports");
    let shape = imported.inputs[0].shape.clone();
    let n = shape.iter().product();
    let input = [Tensor::f32(shape, noise(n, 1))];
    let ours = run(&imported, &input);
    let theirs = run_with_tract(&encode(model), &input).expect("tract runs the model");
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours.shape(), theirs.shape());
        if ours.elem() != strata_ir::ElemType::F32 {
            assert_eq!(ours.data().to_ints(), theirs.data().to_ints());
            continue;
        }
        let (a, b) = (ours.as_f32().expect("f32"), theirs.as_f32().expect("f32"));
        for (index, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= 2e-5 * (1.0 + b.abs()), "element {index}: {a} here, {b} in tract");
        }
    }
    imported
}

fn encode(model: &ModelProto) -> Vec<u8> {
    crate::proto::encode(model)
}

/// How many ops of a kind the module holds.
pub(super) fn count(module: &Module, pick: impl Fn(&Op) -> bool) -> usize {
    module.walk(module.body()).into_iter().filter(|&op| pick(&module.op(op).op)).count()
}

pub(super) fn n_transposes(imported: &Imported) -> usize {
    count(&imported.module, |op| matches!(op, Op::Transpose(_)))
}

#[test]
fn convolutions_of_every_kind() {
    for (weight, attrs) in [
        (&[6, 4, 3, 3][..], vec![("pads", Attr::Ints(&[1, 0, 2, 1]))]),
        (&[6, 4, 3, 2], vec![("strides", Attr::Ints(&[2, 3]))]),
        (&[6, 4, 3, 3], vec![("strides", Attr::Ints(&[2, 2])), ("auto_pad", Attr::Text("SAME_UPPER"))]),
        (&[6, 4, 2, 4], vec![("strides", Attr::Ints(&[1, 2])), ("auto_pad", Attr::Text("SAME_LOWER"))]),
        (&[6, 2, 3, 3], vec![("group", Attr::Int(2)), ("pads", Attr::Ints(&[1, 1, 1, 1]))]),
        (&[8, 1, 3, 3], vec![("group", Attr::Int(4)), ("dilations", Attr::Ints(&[2, 1]))]),
    ] {
        let bias = [weight[0]];
        let net = Net::new(13, &[1, 4, 9, 11]).weight("w", weight).weight("b", &bias);
        let imported = check(&net.node("Conv", "x w b", "y", &attrs).model("y"));
        assert_eq!(n_transposes(&imported), 0);
        assert_eq!(imported.inputs[0].perm, [0, 2, 3, 1]);
        assert_eq!(imported.outputs[0].perm, [0, 3, 1, 2]);
    }
    let net = Net::new(13, &[1, 4, 15]).weight("w", &[5, 4, 3]);
    check(&net.node("Conv", "x w", "y", &[("strides", Attr::Ints(&[2]))]).model("y"));
}

#[test]
fn transposed_convolutions_of_every_kind() {
    for (weight, attrs) in [
        (&[4, 3, 3, 3][..], vec![("strides", Attr::Ints(&[2, 2])), ("pads", Attr::Ints(&[1, 1, 1, 1]))]),
        (&[4, 3, 4, 4], vec![("strides", Attr::Ints(&[2, 2])), ("pads", Attr::Ints(&[3, 3, 3, 3]))]),
        (&[4, 3, 3, 3], vec![("strides", Attr::Ints(&[2, 2])), ("output_padding", Attr::Ints(&[1, 1]))]),
        (&[4, 3, 2, 2], vec![("dilations", Attr::Ints(&[2, 3]))]),
        (&[4, 2, 3, 3], vec![("group", Attr::Int(2)), ("strides", Attr::Ints(&[1, 2]))]),
        (
            &[4, 1, 3, 3],
            vec![
                ("group", Attr::Int(4)),
                ("strides", Attr::Ints(&[2, 3])),
                ("pads", Attr::Ints(&[1, 0, 0, 1])),
            ],
        ),
    ] {
        let net = Net::new(13, &[1, 4, 5, 6]).weight("w", weight);
        check(&net.node("ConvTranspose", "x w", "y", &attrs).model("y"));
    }
}

#[test]
fn batch_norm_and_its_like_vanish_into_convolutions() {
    let net = Net::new(13, &[1, 4, 8, 8])
        .weight("w", &[6, 2, 3, 3])
        .floats("scale", &[6], noise(6, 3))
        .floats("shift", &[6], noise(6, 4))
        .floats("mean", &[6], noise(6, 5))
        .floats("variance", &[6], vec![0.5, 1.0, 1.5, 2.0, 0.25, 3.0])
        .floats("factor", &[6, 1, 1], noise(6, 6))
        .node("Conv", "x w", "c", &[("group", Attr::Int(2))])
        .node("BatchNormalization", "c scale shift mean variance", "n", &[])
        .node("Mul", "n factor", "m", &[])
        .node("Sub", "m factor", "y", &[]);
    let imported = check(&net.model("y"));
    assert_eq!(count(&imported.module, |op| matches!(op, Op::Mul(_) | Op::Add(_) | Op::Sub(_))), 0);

    // A second use of the convolution's result forbids it.
    let net = Net::new(13, &[1, 4, 8, 8])
        .weight("w", &[6, 4, 3, 3])
        .floats("factor", &[6, 1, 1], noise(6, 6))
        .node("Conv", "x w", "c", &[])
        .node("Mul", "c factor", "m", &[])
        .node("Add", "m c", "y", &[]);
    assert_eq!(count(&check(&net.model("y")).module, |op| matches!(op, Op::Mul(_))), 1);
}

#[test]
fn channels_last_models_hold_no_transposes() {
    let to_nchw = [("perm", Attr::Ints(&[0, 3, 1, 2]))];
    let to_nhwc = [("perm", Attr::Ints(&[0, 2, 3, 1]))];
    let net = Net::new(13, &[1, 9, 9, 3])
        .weight("w", &[8, 3, 3, 3])
        .weight("v", &[4, 8, 1, 1])
        .weight("bias", &[8])
        .node("Transpose", "x", "a", &to_nchw)
        .node("Conv", "a w", "b", &[])
        .node("Transpose", "b", "c", &to_nhwc)
        .node("Add", "c bias", "d", &[])
        .node("Transpose", "d", "e", &to_nchw)
        .node("Conv", "e v", "f", &[])
        .node("Transpose", "f", "y", &to_nhwc);
    let imported = check(&net.model("y"));
    assert_eq!(n_transposes(&imported), 0);
    assert_eq!(imported.inputs[0].perm, [0, 1, 2, 3]);
    assert_eq!(imported.outputs[0].perm, [0, 1, 2, 3]);
}

#[test]
fn flattening_permutes_weights_and_not_data() {
    let net = Net::new(13, &[1, 3, 6, 5])
        .weight("w", &[4, 3, 3, 3])
        .weight("fc", &[48, 10])
        .weight("bias", &[10])
        .weight("fd", &[7, 10])
        .node("Conv", "x w", "c", &[])
        .node("Relu", "c", "r", &[])
        .node("Flatten", "r", "f", &[])
        .node("MatMul", "f fc", "g", &[])
        .node("Add", "g bias", "h", &[])
        .node("Gemm", "h fd", "i", &[("transB", Attr::Int(1)), ("alpha", Attr::Float(0.5))])
        .node("Softmax", "i", "y", &[]);
    let imported = check(&net.model("y"));
    assert_eq!(n_transposes(&imported), 0);
    assert_eq!(count(&imported.module, |op| matches!(op, Op::Conv2d(_))), 3);
    assert_eq!(count(&imported.module, |op| matches!(op, Op::Add(_))), 0);
}

#[test]
fn channel_shuffles_and_pixel_shuffles() {
    let shuffle = Net::new(13, &[1, 6, 4, 5])
        .weight("w", &[6, 6, 1, 1])
        .ints("split", &[1, 2, 3, 4, 5])
        .ints("join", &[1, 6, 4, 5])
        .node("Conv", "x w", "a", &[])
        .node("Reshape", "a split", "b", &[])
        .node("Transpose", "b", "c", &[("perm", Attr::Ints(&[0, 2, 1, 3, 4]))])
        .node("Reshape", "c join", "d", &[])
        .node("Conv", "d w", "y", &[]);
    assert_eq!(n_transposes(&check(&shuffle.model("y"))), 1);
    for mode in ["DCR", "CRD"] {
        let attrs = [("blocksize", Attr::Int(2)), ("mode", Attr::Text(mode))];
        check(&Net::new(13, &[1, 8, 3, 4]).node("DepthToSpace", "x", "y", &attrs).model("y"));
    }
    let attrs = [("blocksize", Attr::Int(2))];
    check(&Net::new(13, &[1, 3, 4, 6]).node("SpaceToDepth", "x", "y", &attrs).model("y"));
}

#[test]
fn pools() {
    let window = |strides: &'static [i64], pads: &'static [i64]| {
        vec![
            ("kernel_shape", Attr::Ints(&[3, 3])),
            ("strides", Attr::Ints(strides)),
            ("pads", Attr::Ints(pads)),
        ]
    };
    for op in ["MaxPool", "AveragePool"] {
        for (strides, pads) in
            [(&[1, 1][..], &[0, 0, 0, 0][..]), (&[2, 2], &[1, 1, 1, 1]), (&[3, 2], &[0, 1, 2, 0])]
        {
            let net = Net::new(13, &[1, 3, 8, 9]);
            check(&net.node(op, "x", "y", &window(strides, pads)).model("y"));
        }
    }
    let mut attrs = window(&[2, 2], &[1, 1, 1, 1]);
    attrs.push(("count_include_pad", Attr::Int(1)));
    check(&Net::new(13, &[1, 3, 8, 9]).node("AveragePool", "x", "y", &attrs).model("y"));
    let mut attrs = window(&[2, 2], &[0, 0, 0, 0]);
    attrs.push(("ceil_mode", Attr::Int(1)));
    check(&Net::new(13, &[1, 3, 8, 8]).node("MaxPool", "x", "y", &attrs).model("y"));
    let mut attrs = window(&[2, 1], &[0, 0, 0, 0]);
    attrs.push(("dilations", Attr::Ints(&[2, 3])));
    check(&Net::new(13, &[1, 3, 10, 9]).node("MaxPool", "x", "y", &attrs).model("y"));
    for op in ["GlobalAveragePool", "GlobalMaxPool"] {
        check(&Net::new(13, &[1, 3, 5, 4]).node(op, "x", "y", &[]).model("y"));
    }
}

#[test]
fn activations() {
    for (op, attrs) in [
        ("Relu", vec![]),
        ("LeakyRelu", vec![("alpha", Attr::Float(0.1))]),
        ("LeakyRelu", vec![("alpha", Attr::Float(1.5))]),
        ("Elu", vec![("alpha", Attr::Float(0.7))]),
        ("Selu", vec![]),
        ("Sigmoid", vec![]),
        ("HardSigmoid", vec![("alpha", Attr::Float(0.3))]),
        ("HardSwish", vec![]),
        ("Softplus", vec![]),
        ("Softsign", vec![]),
        ("Tanh", vec![]),
        ("Mish", vec![]),
        ("Erf", vec![]),
        ("Exp", vec![]),
    ] {
        check(&Net::new(18, &[1, 2, 3, 4]).node(op, "x", "y", &attrs).model("y"));
    }
    let net = Net::new(13, &[1, 2, 3, 4]).floats("slope", &[2, 1, 1], vec![0.25, 1.5]);
    check(&net.node("PRelu", "x slope", "y", &[]).model("y"));
    let swish = Net::new(13, &[1, 2, 3, 4]).node("Sigmoid", "x", "s", &[]).node("Mul", "x s", "y", &[]);
    check(&swish.model("y"));
    let net = Net::new(13, &[1, 2, 3, 4]).floats("low", &[], vec![-0.3]).floats("high", &[], vec![0.4]);
    check(&net.node("Clip", "x low high", "y", &[]).model("y"));
}

#[test]
fn data_movement() {
    let net = Net::new(13, &[1, 6, 5, 7])
        .ints("starts", &[1, -1])
        .ints("ends", &[5, -100])
        .ints("axes", &[1, 3])
        .ints("steps", &[2, -3]);
    check(&net.node("Slice", "x starts ends axes steps", "y", &[]).model("y"));
    for mode in ["constant", "reflect", "edge"] {
        let net = Net::new(13, &[1, 2, 5, 7]).ints("pads", &[0, 0, 2, 1, 0, 0, 1, 3]);
        check(&net.node("Pad", "x pads", "y", &[("mode", Attr::Text(mode))]).model("y"));
    }
    let net = Net::new(13, &[1, 6, 5, 7])
        .ints("sizes", &[1, 2, 3])
        .node("Split", "x sizes", "a b c", &[("axis", Attr::Int(1))])
        .node("Concat", "c a b", "y", &[("axis", Attr::Int(1))]);
    check(&net.model("y"));
    let net = Net::new(13, &[2, 3, 4]).ints("indices", &[2, 0]);
    check(&net.node("Gather", "x indices", "y", &[("axis", Attr::Int(1))]).model("y"));
    check(
        &Net::new(13, &[2, 3, 4]).node("ReduceMean", "x", "y", &[("axes", Attr::Ints(&[1, 2]))]).model("y"),
    );
    check(&Net::new(13, &[2, 3, 4]).node("Transpose", "x", "y", &[]).model("y"));
}

#[test]
fn resizes() {
    for (mode, coordinates) in [
        ("nearest", "asymmetric"),
        ("nearest", "half_pixel"),
        ("linear", "half_pixel"),
        ("linear", "asymmetric"),
        ("linear", "align_corners"),
    ] {
        let attrs = [
            ("mode", Attr::Text(mode)),
            ("coordinate_transformation_mode", Attr::Text(coordinates)),
            (
                "nearest_mode",
                Attr::Text(if coordinates == "asymmetric" { "floor" } else { "round_prefer_floor" }),
            ),
        ];
        let net = Net::new(13, &[1, 2, 4, 5]).floats("scales", &[4], vec![1.0, 1.0, 2.0, 3.0]);
        check(&net.node("Resize", "x _ scales", "y", &attrs).model("y"));
    }
}

#[test]
fn attention_and_layer_norm() {
    let net = Net::new(17, &[1, 6, 8])
        .weight("q", &[8, 8])
        .weight("k", &[8, 8])
        .weight("scale", &[8])
        .weight("bias", &[8])
        .node("LayerNormalization", "x scale bias", "n", &[])
        .node("MatMul", "n q", "a", &[])
        .node("MatMul", "n k", "b", &[])
        .node("Transpose", "b", "c", &[("perm", Attr::Ints(&[0, 2, 1]))])
        .node("MatMul", "a c", "d", &[])
        .node("Softmax", "d", "e", &[])
        .node("MatMul", "e n", "y", &[]);
    check(&net.model("y"));
}

#[test]
fn shape_arithmetic_leaves_no_trace() {
    let net = Net::new(13, &[-1, 4, 3, 5])
        .ints("zero", &[0])
        .ints("rest", &[-1])
        .node("Shape", "x", "s", &[])
        .node("Gather", "s zero", "n", &[])
        .node("Concat", "n rest", "t", &[("axis", Attr::Int(0))])
        .node("Reshape", "x t", "y", &[]);
    let imported = check(&net.model("y"));
    assert_eq!(imported.outputs[0].shape, [1, 60]);
    let expected =
        |op: &Op| matches!(op, Op::Func(_) | Op::FuncReturn(_) | Op::Reshape(_) | Op::ConstShape(_));
    assert_eq!(count(&imported.module, |op| !expected(op)), 0);
}

#[test]
fn zoo_models_agree_with_tract() {
    for (name, size) in [
        ("yolov3-tiny", (64, 32)),
        ("mobilenetv2", (32, 32)),
        ("unet", (32, 16)),
        ("fsrcnn", (12, 10)),
        ("yolov8n", (32, 64)),
        ("efficientdet-d0", (128, 128)),
        ("deeplabv3-mobilenetv2", (40, 32)),
        ("mobilenetv3-large", (32, 48)),
    ] {
        let options = ZooOptions { size: Some(size), ..Default::default() };
        let imported = check(&build(name, &options).expect("the zoo makes it"));
        assert_eq!(n_transposes(&imported), 0, "{name}");
        assert!(imported.cross_check.n_agreed > 0);
    }
}

#[test]
fn locations_name_the_nodes() {
    let net = Net::new(13, &[1, 3, 4, 4]).node("Relu", "x", "r", &[]).node("Tanh", "r", "y", &[]);
    let imported = check(&net.model("y"));
    let texts: Vec<_> = imported.module.walk(imported.module.body());
    let tanh =
        texts.into_iter().find(|&op| matches!(imported.module.op(op).op, Op::Tanh(_))).expect("a tanh");
    assert_eq!(imported.module.op(tanh).loc.to_string(), "loc(\"node_1\"(\"model.onnx\":1:0))");
}

#[test]
fn all_unsupported_nodes_are_listed() {
    let mut model = Net::new(13, &[1, 3, 4, 4])
        .node("NonMaxSuppression", "x", "a", &[])
        .node("Relu", "a", "b", &[])
        .node("DeformConv", "b", "c", &[])
        .node("Relu", "c", "y", &[])
        .model("y");
    // An operator of another domain is not the one of the same name.
    model.graph.as_mut().expect("graph").node[3].domain = "my.custom".to_owned();
    let Err(ImportError::Unsupported(nodes)) = import_proto(&model, &ImportOptions::default()) else {
        panic!("three nodes are unsupported")
    };
    let ops: Vec<_> = nodes.iter().map(|n| (n.op.as_str(), n.name.as_str(), n.domain.as_str())).collect();
    let expected =
        [("NonMaxSuppression", "node_0", ""), ("DeformConv", "node_2", ""), ("Relu", "node_3", "my.custom")];
    assert_eq!(ops, expected);
}

#[test]
fn dynamic_extents_ask_for_a_shape() {
    let model = Net::new(13, &[-1, 3, -1, 8]).node("Relu", "x", "y", &[]).model("y");
    let error = import_proto(&model, &ImportOptions::default()).expect_err("the height is open").to_string();
    assert!(error.contains("`x`") && error.contains("nx3xnx8") && error.contains("--input-shape"), "{error}");
    let mut options = ImportOptions::default();
    options.input_shapes.insert("x".to_owned(), vec![1, 3, 4, 8]);
    assert_eq!(import_proto(&model, &options).expect("fixed").outputs[0].shape, [1, 3, 4, 8]);
    options.input_shapes.insert("z".to_owned(), vec![1]);
    assert!(matches!(import_proto(&model, &options), Err(ImportError::InputShape(_))));
}

#[test]
fn contradictions_are_reported() {
    let relu = |model: fn(Net) -> Net| model(Net::new(13, &[1, 3, 4, 4])).model("y");
    let cases = [
        relu(|net| net.node("Relu", "nowhere", "y", &[])),
        relu(|net| net.node("Relu", "b", "a", &[]).node("Relu", "a", "b", &[]).node("Relu", "x", "y", &[])),
        relu(|net| net.node("Relu", "x", "z", &[])),
        relu(|net| net.node("Relu", "x", "y", &[]).node("Tanh", "x", "y", &[])),
        relu(|net| net.weight("w", &[3, 5, 1, 1]).node("Conv", "x w", "y", &[])),
        relu(|net| net.weight("w", &[7]).node("Add", "x w", "y", &[])),
        relu(|net| net.node("Transpose", "x", "y", &[("perm", Attr::Ints(&[0, 0, 1, 2]))])),
        relu(|net| net.ints("shape", &[5, 5]).node("Reshape", "x shape", "y", &[])),
        relu(|net| net.floats("w", &[4], vec![0.0; 3]).node("Add", "x w", "y", &[])),
        ModelProto::default(),
    ];
    for (index, model) in cases.iter().enumerate() {
        let error = import_proto(model, &ImportOptions::default());
        assert!(matches!(error, Err(ImportError::Malformed(_))), "case {index}: {error:?}");
    }
}

#[test]
fn damaged_files_never_panic() {
    let net = Net::new(13, &[1, 3, 8, 8]).weight("w", &[4, 3, 3, 3]).ints("shape", &[1, -1]);
    let net = net.node("Conv", "x w", "c", &[("pads", Attr::Ints(&[1, 1, 1, 1]))]).node(
        "Reshape",
        "c shape",
        "y",
        &[],
    );
    let bytes = encode(&net.model("y"));
    let options = ImportOptions::default();
    for len in 0..bytes.len() {
        let _ = import(&bytes[..len], &options);
    }
    for at in 0..bytes.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            let _ = import(&damaged, &options);
        }
    }
    assert!(import(&bytes, &options).is_ok());
}
