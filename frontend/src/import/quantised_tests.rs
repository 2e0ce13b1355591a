//! Quantised operators, judged by integer arithmetic written out here; weights by what the module holds.

use strata_ir::eval::eval_function;
use strata_ir::{ElemType, Module, Tensor};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, type_proto,
};

use super::*;

/// A model of one node after another.
struct Net(GraphProto);

impl Net {
    fn new(dtype: DataType, shape: &[i64]) -> Self {
        let dim = |&extent: &i64| Dimension {
            value: Some(dimension::Value::DimValue(extent)),
            ..Default::default()
        };
        let shape = Some(TensorShapeProto { dim: shape.iter().map(dim).collect() });
        let tensor = type_proto::Tensor { elem_type: dtype as i32, shape };
        let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
        let input = ValueInfoProto { name: "x".to_owned(), r#type: Some(ty), ..Default::default() };
        Self(GraphProto { input: vec![input], ..Default::default() })
    }

    fn floats(mut self, name: &str, dims: &[i64], data: &[f32]) -> Self {
        self.0.initializer.push(TensorProto {
            name: name.to_owned(),
            dims: dims.to_vec(),
            data_type: DataType::Float as i32,
            float_data: data.to_vec(),
            ..Default::default()
        });
        self
    }

    fn ints(mut self, name: &str, dtype: DataType, dims: &[i64], data: &[i32]) -> Self {
        self.0.initializer.push(TensorProto {
            name: name.to_owned(),
            dims: dims.to_vec(),
            data_type: dtype as i32,
            int32_data: data.to_vec(),
            ..Default::default()
        });
        self
    }

    fn node(mut self, op: &str, inputs: &[&str], outputs: &[&str], attrs: &[(&str, &[i64])]) -> Self {
        let (domain, op_type) = op.rsplit_once(':').unwrap_or(("", op));
        let attribute = attrs.iter().map(|(name, values)| {
            let mut attr = AttributeProto { name: (*name).to_owned(), ..Default::default() };
            match values {
                [one] if *name != "pads" => {
                    (attr.r#type, attr.i) = (AttributeType::Int as i32, *one);
                }
                many => (attr.r#type, attr.ints) = (AttributeType::Ints as i32, many.to_vec()),
            }
            attr
        });
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        self.0.node.push(NodeProto {
            op_type: op_type.to_owned(),
            domain: domain.to_owned(),
            input: names(inputs),
            output: names(outputs),
            attribute: attribute.collect(),
            ..Default::default()
        });
        self
    }

    fn import(mut self, outputs: &[&str]) -> Imported {
        for &name in outputs {
            self.0.output.push(ValueInfoProto { name: name.to_owned(), ..Default::default() });
        }
        let opset = OperatorSetIdProto { version: 21, ..Default::default() };
        let model = ModelProto {
            graph: Some(self.0),
            opset_import: vec![opset],
            ir_version: 10,
            ..Default::default()
        };
        let options = ImportOptions { cross_check: false, ..ImportOptions::default() };
        import_proto(&model, &options).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The outputs for an input of floats or integers, in the order of the function's own axes.
    fn run(self, outputs: &[&str], input: Tensor) -> Vec<Tensor> {
        let module = self.import(outputs).module;
        let main = module.function("main").expect("it was made");
        eval_function(&module, main, vec![input]).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn ints(tensor: &Tensor) -> Vec<i64> {
    tensor.data().to_ints().expect("integers")
}

fn constants(module: &Module, elem: ElemType) -> Vec<Vec<i64>> {
    let ops = module.walk(module.body());
    let tensors = ops.iter().filter_map(|&op| module.op(op).op.constant().map(|e| e.tensor.clone()));
    tensors.filter(|t| t.elem() == elem).filter_map(|t| t.data().to_ints()).collect()
}

#[test]
fn quantising_rounds_half_to_even_and_saturates() {
    let net = Net::new(DataType::Float, &[8])
        .floats("s", &[], &[2.0])
        .ints("z", DataType::Uint8, &[], &[128])
        .node("QuantizeLinear", &["x", "s", "z"], &["q"], &[]);
    let x = Tensor::f32([8], vec![0.0, 1.0, 3.0, -3.0, 254.0, 1000.0, -254.0, -1e30]);
    assert_eq!(ints(&net.run(&["q"], x)[0]), [128, 128, 130, 126, 255, 255, 1, 0]);
}

#[test]
fn quantising_along_an_axis() {
    // ONNX's own vector.
    let net = Net::new(DataType::Float, &[1, 3, 3, 2])
        .floats("s", &[3], &[2.0, 4.0, 5.0])
        .ints("z", DataType::Uint8, &[3], &[84, 24, 196])
        .node("QuantizeLinear", &["x", "s", "z"], &["q"], &[("axis", &[1])])
        .node("DequantizeLinear", &["q", "s", "z"], &["y"], &[("axis", &[1])]);
    let x = vec![
        -162., 10., -100., 232., -20., -50., -76., 0., 0., 252., 32., -44., 245., -485., -960., -270., -375.,
        -470.,
    ];
    let got = net.run(&["q", "y"], Tensor::f32([1, 3, 3, 2], x.clone()));
    let want = [3, 89, 34, 200, 74, 59, 5, 24, 24, 87, 32, 13, 245, 99, 4, 142, 121, 102];
    assert_eq!(ints(&got[0]), want);
    assert_eq!(got[1].as_f32(), Some(&x[..]));
}

#[test]
fn dequantised_weights_stay_integers() {
    let imported = Net::new(DataType::Float, &[1, 2, 4, 4])
        .ints("w", DataType::Uint8, &[2, 2, 1, 1], &[0, 255, 7, 130])
        .floats("s", &[2], &[0.5, 0.25])
        .ints("z", DataType::Uint8, &[2], &[128, 130])
        .node("DequantizeLinear", &["w", "s", "z"], &["wf"], &[("axis", &[0])])
        .node("Conv", &["x", "wf"], &["y"], &[])
        .import(&["y"]);
    let found = constants(&imported.module, ElemType::I8);
    assert!(found.contains(&vec![-128, 127, -121, 2]), "{found:?}");
    assert_eq!(imported.n_parameters, 4);
}

#[test]
fn integers_of_four_bits_are_two_in_a_byte() {
    let nibbles = |dtype: DataType, raw: &[u8]| {
        let zero = if dtype == DataType::Int4 { -1 } else { 8 };
        let mut net = Net::new(DataType::Float, &[1, 1, 1, 1]).floats("s", &[], &[0.5]);
        let tensor = |name: &str, dims: &[i64], raw_data: Vec<u8>| TensorProto {
            name: name.to_owned(),
            dims: dims.to_vec(),
            data_type: dtype as i32,
            raw_data,
            ..Default::default()
        };
        net.0.initializer.push(tensor("w", &[1, 1, 1, 3], raw.to_vec()));
        net.0.initializer.push(tensor("z", &[], vec![zero as u8 & 15]));
        net.node("DequantizeLinear", &["w", "s", "z"], &["wf"], &[])
            .node("Add", &["x", "wf"], &["y"], &[])
            .run(&["y"], Tensor::f32([1, 1, 1, 1], vec![0.0]))[0]
            .as_f32()
            .expect("floats")
            .to_vec()
    };
    // -8, 7 and -2 less -1; then 8, 7 and 14 less 8. The last half byte is no element.
    assert_eq!(nibbles(DataType::Int4, &[0x78, 0x3e]), [-3.5, 4.0, -0.5]);
    assert_eq!(nibbles(DataType::Uint4, &[0x78, 0x3e]), [0.0, -0.5, 3.0]);
}

#[test]
fn quantising_to_four_bits_saturates() {
    let net = Net::new(DataType::Float, &[4])
        .floats("s", &[], &[0.5])
        .ints("z", DataType::Int4, &[1], &[1])
        .node("QuantizeLinear", &["x", "s", "z"], &["q"], &[])
        .node("DequantizeLinear", &["q", "s", "z"], &["y"], &[]);
    let got = net.run(&["y"], Tensor::f32([4], vec![-100.0, -1.3, 0.3, 100.0]));
    assert_eq!(got[0].as_f32(), Some(&[-4.5, -1.5, 0.5, 3.0][..]));
}

#[test]
fn operators_with_channels_last() {
    let net = || {
        Net::new(DataType::Uint8, &[1, 4, 4, 2])
            .floats("s", &[], &[0.5])
            .ints("z", DataType::Uint8, &[], &[100])
            .ints("w", DataType::Int8, &[1, 2, 1, 1], &[2, -1])
            .floats("one", &[], &[1.0])
            .ints("none", DataType::Int8, &[], &[0])
    };
    let x: Vec<i32> = (0..32).map(|i| i * 29 % 256).collect();
    let last = [("channels_last", &[1][..])];
    let conv = ["x", "s", "z", "w", "one", "none", "one", "z"];
    let got = net()
        .node("com.microsoft:QLinearConv", &conv, &["conv"], &last)
        .node("com.microsoft:QLinearGlobalAveragePool", &["x", "s", "z", "one", "z"], &["mean"], &last)
        .node("com.microsoft:NhwcMaxPool", &["x"], &["most"], &[("kernel_shape", &[2, 2][..])])
        .import(&["conv", "mean", "most"]);
    let shapes: Vec<_> = got.outputs.iter().map(|port| port.shape.clone()).collect();
    assert_eq!(shapes, [vec![1, 4, 4, 1], vec![1, 1, 1, 2], vec![1, 3, 3, 2]]);
    let results = super::tests::run(&got, &[Tensor::i32([1, 4, 4, 2], x.clone())]);
    let saturated = |real: f64| (real.round_ties_even() as i64 + 100).clamp(0, 255);
    let real = |q: i32| 0.5 * f64::from(q - 100);
    let want: Vec<_> = x.chunks(2).map(|p| saturated(2.0 * real(p[0]) - real(p[1]))).collect();
    assert_eq!(ints(&results[0]), want);
    let mean = |c: usize| saturated(x.iter().skip(c).step_by(2).map(|&q| real(q)).sum::<f64>() / 16.0);
    assert_eq!(ints(&results[1]), [mean(0), mean(1)]);
    let at = |y: usize, column: usize, c: usize| i64::from(x[(y * 4 + column) * 2 + c]);
    let places = (0..3).flat_map(|y| (0..3).flat_map(move |c| [(y, c, 0), (y, c, 1)]));
    let most = |(y, k, c): (usize, usize, usize)| {
        at(y, k, c).max(at(y, k + 1, c)).max(at(y + 1, k, c)).max(at(y + 1, k + 1, c))
    };
    assert_eq!(ints(&results[2]), places.map(most).collect::<Vec<_>>());
}

/// `sum((x - xz) (w - wz))` of a 3x3 convolution of one channel with padding of 1.
fn integer_conv(x: &[i64], w: &[i64], xz: i64, wz: i64, extent: i64) -> Vec<i64> {
    let at = |y: i64, c: i64| {
        let inside = (0..extent).contains(&y) && (0..extent).contains(&c);
        if inside { x[(y * extent + c) as usize] - xz } else { 0 }
    };
    let pixel = |y: i64, c: i64| -> i64 {
        (0..9).map(|k| at(y + k / 3 - 1, c + k % 3 - 1) * (w[k as usize] - wz)).sum()
    };
    (0..extent * extent).map(|i| pixel(i / extent, i % extent)).collect()
}

#[test]
fn qlinear_conv_rounds_the_exact_sum() {
    let w = [3, 200, 17, 90, 128, 4, 255, 1, 66];
    let q: Vec<i64> = (0..16).map(|i| (i * 37 + 11) % 256).collect();
    let (x_scale, w_scale, y_scale, bias) = (0.5, 0.25, 64.0, 1000);
    let net = Net::new(DataType::Uint8, &[1, 1, 4, 4])
        .floats("xs", &[], &[x_scale])
        .ints("xz", DataType::Uint8, &[], &[9])
        .ints("w", DataType::Uint8, &[1, 1, 3, 3], &w)
        .floats("ws", &[], &[w_scale])
        .ints("wz", DataType::Uint8, &[], &[101])
        .floats("ys", &[], &[y_scale])
        .ints("yz", DataType::Uint8, &[], &[40])
        .ints("b", DataType::Int32, &[1], &[bias])
        .node(
            "QLinearConv",
            &["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"],
            &["y"],
            &[("pads", &[1, 1, 1, 1])],
        );
    let sums = integer_conv(&q, &w.map(i64::from), 9, 101, 4);
    let factor = f64::from(x_scale) * f64::from(w_scale) / f64::from(y_scale);
    let want: Vec<i64> = (sums.iter())
        .map(|sum| (((sum + i64::from(bias)) as f64 * factor).round_ties_even() as i64 + 40).clamp(0, 255))
        .collect();
    let x = Tensor::i32([1, 4, 4, 1], q.iter().map(|&v| v as i32).collect());
    assert_eq!(ints(&net.run(&["y"], x)[0]), want);
}

#[test]
fn integer_products_take_zero_points_known_or_computed() {
    let w = [-3, 100, 17, -90, 127, 4, -128, 1, 66];
    let net = Net::new(DataType::Float, &[1, 1, 4, 4])
        .ints("w", DataType::Int8, &[1, 1, 3, 3], &w)
        .ints("wz", DataType::Int8, &[], &[5])
        .ints("three", DataType::Uint8, &[], &[3])
        .ints("m", DataType::Int8, &[4, 2], &[1, -2, 3, -4, 5, -6, 7, -8])
        .node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], &[])
        .node("ConvInteger", &["q", "w", "z", "wz"], &["computed"], &[("pads", &[1, 1, 1, 1])])
        .node("ConvInteger", &["q", "w", "three", "wz"], &["known"], &[("pads", &[1, 1, 1, 1])])
        .node("MatMulInteger", &["q", "m", "z"], &["product"], &[]);
    let x: Vec<f32> = (0..16).map(|i| ((i * 7) % 16) as f32 * 0.3 - 1.7).collect();
    let got = net.run(&["q", "z", "computed", "known", "product"], Tensor::f32([1, 4, 4, 1], x));
    let (q, z) = (ints(&got[0]), ints(&got[1])[0]);
    assert!(q.contains(&0) && q.contains(&255) && (1..255).contains(&z), "{q:?} {z}");
    let w = w.map(i64::from);
    assert_eq!(ints(&got[2]), integer_conv(&q, &w, z, 5, 4));
    assert_eq!(ints(&got[3]), integer_conv(&q, &w, 3, 5, 4));
    let m = [1, -2, 3, -4, 5, -6, 7, -8];
    let product = (0..8).map(|i| (0..4).map(|k| (q[i / 2 * 4 + k] - z) * m[k * 2 + i % 2]).sum::<i64>());
    assert_eq!(ints(&got[4]), product.collect::<Vec<_>>());
}

#[test]
fn operators_of_onnxruntime() {
    let net = Net::new(DataType::Uint8, &[1, 1, 2, 2])
        .floats("s", &[], &[0.5])
        .ints("z", DataType::Uint8, &[], &[100])
        .floats("t", &[], &[1.0])
        .ints("c", DataType::Uint8, &[1, 1, 2, 2], &[0, 50, 100, 255])
        .node("com.microsoft:QLinearAdd", &["x", "s", "z", "c", "s", "z", "t", "z"], &["sum"], &[])
        .node("com.microsoft:QLinearMul", &["x", "s", "z", "c", "s", "z", "t", "z"], &["product"], &[])
        .node("com.microsoft:QLinearGlobalAveragePool", &["x", "s", "z", "t", "z"], &["mean"], &[]);
    let x = [10, 100, 120, 255];
    let got = net.run(&["sum", "product", "mean"], Tensor::i32([1, 2, 2, 1], x.to_vec()));
    let saturated = |real: f64| (real.round_ties_even() as i64 + 100).clamp(0, 255);
    let real = |q: i32| 0.5 * f64::from(q - 100);
    let c = [0, 50, 100, 255];
    let each = |f: &dyn Fn(f64, f64) -> f64| -> Vec<i64> {
        x.iter().zip(c).map(|(&x, c)| saturated(f(real(x), real(c)))).collect()
    };
    assert_eq!(ints(&got[0]), each(&|a, b| a + b));
    assert_eq!(ints(&got[1]), each(&|a, b| a * b));
    assert_eq!(ints(&got[2]), [saturated(x.iter().map(|&q| real(q)).sum::<f64>() / 4.0)]);
}

#[test]
fn what_is_not_supported_is_declined() {
    let outcome = |net: Net| {
        let mut graph = net.0;
        graph.output.push(ValueInfoProto { name: "y".to_owned(), ..Default::default() });
        let opset = OperatorSetIdProto { version: 21, ..Default::default() };
        let model = ModelProto { graph: Some(graph), opset_import: vec![opset], ..Default::default() };
        import_proto(&model, &ImportOptions { cross_check: false, ..ImportOptions::default() })
    };
    let base = || Net::new(DataType::Float, &[1, 2, 4, 4]).floats("s", &[], &[0.5]);
    let run_time = base().node("QuantizeLinear", &["x", "x"], &["y"], &[]);
    assert!(matches!(outcome(run_time), Err(ImportError::Unsupported(_))));
    let wide =
        base().ints("z", DataType::Int32, &[], &[0]).node("QuantizeLinear", &["x", "s", "z"], &["y"], &[]);
    assert!(matches!(outcome(wide), Err(ImportError::Unsupported(_))));
    let unknown = base().node("com.microsoft:NoSuchOp", &["x"], &["y"], &[]);
    assert!(matches!(outcome(unknown), Err(ImportError::Unsupported(_))));
    let negative = base().floats("t", &[], &[-1.0]).node("QuantizeLinear", &["x", "t"], &["y"], &[]);
    assert!(matches!(outcome(negative), Err(ImportError::Malformed(_))));
}
