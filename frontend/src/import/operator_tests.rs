//! Operators one by one: values judged by tract, forms by what the module holds.

use strata_ir::Tensor;
use strata_ir::dialect::Op;

use super::tests::{Attr, Net, check, count, n_transposes, noise, run};
use super::*;

#[test]
fn transposed_convolutions_by_phases_and_of_volumes() {
    for (kernel, attrs) in [
        (&[5, 5][..], vec![("strides", Attr::Ints(&[3, 2])), ("pads", Attr::Ints(&[2, 0, 1, 3]))]),
        (&[1, 2], vec![("strides", Attr::Ints(&[2, 3])), ("output_padding", Attr::Ints(&[1, 2]))]),
        (&[4, 4], vec![("strides", Attr::Ints(&[2, 2])), ("auto_pad", Attr::Text("SAME_UPPER"))]),
    ] {
        let group = ("group", Attr::Int(3));
        let weight = [&[3, 2], kernel].concat();
        let net = Net::new(13, &[1, 3, 4, 5]).weight("w", &weight).weight("b", &[6]);
        let attrs: Vec<_> = attrs.into_iter().chain([group]).collect();
        check(&net.node("ConvTranspose", "x w b", "y", &attrs).model("y"));
    }
    for (weight, attrs) in [
        (&[3, 2, 2, 3, 3][..], vec![]),
        (
            &[3, 2, 3, 2, 3],
            vec![
                ("strides", Attr::Ints(&[2, 1, 3])),
                ("pads", Attr::Ints(&[1, 0, 2, 0, 1, 1])),
                ("output_padding", Attr::Ints(&[1, 0, 2])),
            ],
        ),
        (&[3, 1, 2, 2, 2], vec![("group", Attr::Int(3)), ("dilations", Attr::Ints(&[2, 1, 1]))]),
    ] {
        let bias = [weight[1] * if weight[1] == 1 { 3 } else { 1 }];
        let net = Net::new(13, &[1, 3, 3, 4, 2]).weight("w", weight).weight("b", &bias);
        check(&net.node("ConvTranspose", "x w b", "y", &attrs).model("y"));
    }
    let net = Net::new(13, &[1, 4, 7]).weight("w", &[4, 3, 3]);
    check(&net.node("ConvTranspose", "x w", "y", &[("strides", Attr::Ints(&[2]))]).model("y"));
}

#[test]
fn padding_written_as_a_concatenation_is_padding() {
    let zeros = vec![0.0; 2 * 25];
    let net = Net::new(13, &[1, 3, 5, 5])
        .weight("w", &[4, 3, 1, 1])
        .floats("zeros", &[1, 2, 5, 5], zeros)
        .node("Conv", "x w", "c", &[])
        .node("Concat", "zeros c zeros", "y", &[("axis", Attr::Int(1))]);
    let module = check(&net.model("y")).module;
    assert_eq!(count(&module, |op| matches!(op, Op::Concat(_))), 0);
    assert_eq!(count(&module, |op| matches!(op, Op::Pad(_))), 2);
    // Numbers that differ are data.
    let net = Net::new(13, &[1, 3, 5, 5]).weight("w", &[1, 2, 5, 5]).node(
        "Concat",
        "x w",
        "y",
        &[("axis", Attr::Int(1))],
    );
    assert_eq!(count(&check(&net.model("y")).module, |op| matches!(op, Op::Concat(_))), 1);
}

#[test]
fn heads_of_attention_are_cut_where_they_lie() {
    // As Paddle and PyTorch write it: one product for query, key and value, taken apart on an axis of its
    // own.
    let mut net = Net::new(13, &[1, 6, 8])
        .weight("w", &[8, 24])
        .ints("split", &[1, 6, 3, 2, 4])
        .ints("axes", &[0])
        .node("MatMul", "x w", "a", &[])
        .node("Reshape", "a split", "b", &[])
        .node("Transpose", "b", "c", &[("perm", Attr::Ints(&[2, 0, 3, 1, 4]))]);
    for (part, name) in ["q", "k", "v"].into_iter().enumerate() {
        let part = part as i64;
        net = net
            .ints(&format!("{name}_from"), &[part])
            .ints(&format!("{name}_to"), &[part + 1])
            .node("Slice", &format!("c {name}_from {name}_to axes"), &format!("{name}_part"), &[])
            .node("Squeeze", &format!("{name}_part axes"), name, &[]);
    }
    let net = net
        .node("Transpose", "k", "kt", &[("perm", Attr::Ints(&[0, 1, 3, 2]))])
        .node("MatMul", "q kt", "s", &[])
        .node("Softmax", "s", "p", &[])
        .node("MatMul", "p v", "y", &[]);
    let module = check(&net.model("y")).module;
    let is_wide = |op: &Op| matches!(op, Op::Slice(_));
    assert_eq!(count(&module, is_wide), 3);
    for op in module.walk(module.body()) {
        if is_wide(&module.op(op).op) {
            assert_eq!(module.tensor_ty(module.result(op)).shape.last(), Some(&8), "a third of the channels");
        }
    }
}

#[test]
fn groups_are_normalised_without_moving_data() {
    for n_groups in [1, 2, 3, 6] {
        // As PyTorch exports GroupNorm.
        let net = Net::new(13, &[1, 6, 4, 5])
            .weight("w", &[6, 6, 3, 3])
            .ints("groups", &[0, n_groups, -1])
            .floats("ones", &[n_groups], vec![1.0; n_groups as usize])
            .floats("zeros", &[n_groups], vec![0.0; n_groups as usize])
            .ints("whole", &[1, 6, 2, 3])
            .weight("scale", &[6, 1, 1])
            .weight("bias", &[6, 1, 1])
            .node("Conv", "x w", "a", &[])
            .node("Reshape", "a groups", "b", &[])
            .node("InstanceNormalization", "b ones zeros", "c", &[])
            .node("Reshape", "c whole", "d", &[])
            .node("Mul", "d scale", "e", &[])
            .node("Add", "e bias", "y", &[]);
        assert_eq!(n_transposes(&check(&net.model("y"))), 0, "{n_groups} groups");
    }
}

#[test]
fn resizes_beyond_one_resize() {
    for (mode, coordinates, scales) in [
        ("cubic", "half_pixel", [1.0, 1.0, 2.0, 1.5]),
        ("cubic", "align_corners", [1.0, 1.0, 2.0, 3.0]),
        ("linear", "half_pixel", [1.0, 2.0, 0.5, 1.5]),
        ("nearest", "asymmetric", [1.0, 2.0, 2.0, 1.0]),
    ] {
        let attrs = [
            ("mode", Attr::Text(mode)),
            ("coordinate_transformation_mode", Attr::Text(coordinates)),
            ("nearest_mode", Attr::Text("floor")),
        ];
        let net = Net::new(13, &[1, 2, 4, 6]).floats("scales", &[4], scales.to_vec());
        check(&net.node("Resize", "x _ scales", "y", &attrs).model("y"));
    }
}

#[test]
fn indexing() {
    let axis = |axis| [("axis", Attr::Int(axis))];
    let net = Net::new(13, &[3, 4, 5]).ints("i", &[2, 0, 1, 2]);
    check(&net.node("Gather", "x i", "y", &axis(1)).model("y"));
    // More runs of indices than are cut.
    let many: Vec<i64> = (0..100).map(|i| i * 7 % 4).collect();
    let net = Net::new(13, &[3, 4, 5]).ints("i", &many);
    check(&net.node("Gather", "x i", "y", &axis(1)).model("y"));
    // Indices that the network computes.
    let net = Net::new(13, &[3, 4, 5]).weight("table", &[2, 4, 3]);
    let net = net.node("ArgMax", "x", "i", &[("axis", Attr::Int(1)), ("keepdims", Attr::Int(0))]);
    check(&net.node("Gather", "table i", "y", &axis(1)).model("y"));
    let net = Net::new(13, &[3, 4, 5]).node("ArgMax", "x", "i", &[("axis", Attr::Int(1))]).node(
        "GatherElements",
        "x i",
        "y",
        &axis(1),
    );
    check(&net.model("y"));
    let net = Net::new(13, &[3, 4, 5])
        .ints("flat", &[2, 1, 0, 3])
        .ints("pairs", &[2, 2])
        .node("Reshape", "flat pairs", "i", &[])
        .node("GatherND", "x i", "y", &[]);
    check(&net.model("y"));
    let net = Net::new(16, &[4, 5])
        .ints("flat", &[3, 1])
        .ints("column", &[2, 1])
        .weight("new", &[2, 5])
        .node("Reshape", "flat column", "i", &[])
        .node("ScatterND", "x i new", "y", &[]);
    check(&net.model("y"));
    let net = Net::new(13, &[4, 5]).ints("k", &[2]).node("TopK", "x k", "y i", &[]);
    check(&net.model("y i"));
    let net = Net::new(14, &[4, 5]).node("Trilu", "x", "y", &[("upper", Attr::Int(0))]);
    check(&net.model("y"));
    let net = Net::new(14, &[4, 5]).node("Constant", "", "one", &[("value_int", Attr::Int(1))]);
    check(&net.node("CumSum", "x one", "y", &[]).model("y"));
}

#[test]
fn einstein_sums() {
    for (equation, shape) in [
        ("bij,bjk->bik", &[2, 4, 3][..]),
        ("bij,bkj->bik", &[2, 3, 4]),
        ("bij,bkj->kbi", &[2, 3, 4]),
        ("bij,jk->bik", &[4, 3]),
        ("bij,bij->b", &[2, 5, 4]),
    ] {
        let net = Net::new(13, &[2, 5, 4]).weight("w", shape);
        check(&net.node("Einsum", "x w", "y", &[("equation", Attr::Text(equation))]).model("y"));
    }
    let net = Net::new(13, &[2, 5, 4]);
    check(&net.node("Einsum", "x", "y", &[("equation", Attr::Text("abc->ca"))]).model("y"));
}

#[test]
fn pictures_are_read_at_the_places_of_a_grid() {
    for mode in ["nearest", "bilinear", "bicubic"] {
        for padding in ["zeros", "border", "reflection"] {
            // tract moves places to the border before it weights their taps.
            let is_misread = (mode, padding) == ("bicubic", "border");
            for corners in (0..2).filter(|_| !is_misread) {
                let attrs = [
                    ("mode", Attr::Text(mode)),
                    ("padding_mode", Attr::Text(padding)),
                    ("align_corners", Attr::Int(corners)),
                ];
                // Half of the places stand outside.
                let grid = super::tests::noise(7 * 6 * 2, 5).iter().map(|v| v * 1.6).collect();
                let net = Net::new(16, &[1, 2, 4, 5]).floats("g", &[1, 7, 6, 2], grid);
                check(&net.node("GridSample", "x g", "y", &attrs).model("y"));
            }
        }
    }
    let grid = super::tests::noise(2 * 3 * 2 * 3, 6).iter().map(|v| v * 1.4).collect();
    let net = Net::new(20, &[1, 2, 3, 4, 2]).floats("g", &[1, 2, 3, 2, 3], grid);
    check(&net.node("GridSample", "x g", "y", &[("mode", Attr::Text("linear"))]).model("y"));
    // Half a step outside of 0, 1, 2: what stands there is 0, 0, 0, 1, and the last weight -3/32.
    let net = Net::new(16, &[1, 1, 1, 3]).floats("g", &[1, 1, 1, 2], vec![-1.0, 0.0]);
    let attrs = [("mode", Attr::Text("bicubic")), ("padding_mode", Attr::Text("border"))];
    let model = net.node("GridSample", "x g", "y", &attrs).model("y");
    let imported = import_proto(&model, &ImportOptions::default()).expect("it imports");
    let got = super::tests::run(&imported, &[Tensor::f32([1, 1, 1, 3], vec![0.0, 1.0, 2.0])]);
    assert!((got[0].as_f32().expect("floats")[0] + 0.09375).abs() < 1e-6);
}

#[test]
fn pads_wider_than_their_axis_go_to_and_fro_and_round() {
    let numbers = |n: usize| Tensor::f32([1, 1, n], (0..n).map(|v| v as f32).collect::<Vec<_>>());
    for (mode, n, pads, want) in [
        ("reflect", 3, [5, 4], &[1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0][..]),
        ("reflect", 1, [2, 1], &[0.0, 0.0, 0.0, 0.0]),
        ("wrap", 3, [4, 5], &[2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 0.0, 1.0]),
    ] {
        let net = Net::new(19, &[1, 1, n as i64]).ints("p", &[0, 0, pads[0], 0, 0, pads[1]]);
        let model = net.node("Pad", "x p", "y", &[("mode", Attr::Text(mode))]).model("y");
        let options = ImportOptions { cross_check: false, ..Default::default() };
        let imported = import_proto(&model, &options).expect("the pad imports");
        let got = super::tests::run(&imported, &[numbers(n)]);
        assert_eq!(got[0].as_f32().expect("floats"), want, "{mode} of {n} by {pads:?}");
    }
}

#[test]
fn a_vector_of_zeros_has_no_direction() {
    let net = Net::new(13, &[2, 3]);
    let model = net.node("LpNormalization", "x", "y", &[("axis", Attr::Int(1))]).model("y");
    let imported = import_proto(&model, &ImportOptions::default()).expect("it imports");
    let x = Tensor::f32([2, 3], vec![0.0, 0.0, 0.0, 2.0, 0.0, 0.0]);
    let got = super::tests::run(&imported, &[x]);
    assert_eq!(got[0].as_f32().expect("floats"), [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn global_pools_of_powers() {
    for p in [1, 2, 3] {
        let net = Net::new(13, &[1, 3, 4, 5]);
        let model = net.node("GlobalLpPool", "x", "y", &[("p", Attr::Int(p))]).model("y");
        let imported = import_proto(&model, &ImportOptions::default()).expect("it imports");
        let x = super::tests::noise(60, 4);
        let got = super::tests::run(&imported, &[Tensor::f32([1, 3, 4, 5], x.clone())]);
        assert_eq!(got[0].shape(), [1, 3, 1, 1]);
        for (channel, got) in x.chunks(20).zip(got[0].as_f32().expect("floats")) {
            let sum: f32 = channel.iter().map(|v| v.abs().powi(p as i32)).sum();
            assert!((got - sum.powf(1.0 / p as f32)).abs() < 1e-5, "p = {p}: {got}");
        }
    }
    let model = Net::new(13, &[1, 1, 2, 2]).node("GlobalLpPool", "x", "y", &[]).model("y");
    let imported = import_proto(&model, &ImportOptions::default()).expect("it imports");
    let x = Tensor::f32([1, 1, 2, 2], vec![1.0, f32::NEG_INFINITY, 2.0, 3.0]);
    assert_eq!(super::tests::run(&imported, &[x])[0].as_f32().expect("floats"), [f32::INFINITY]);
}

#[test]
fn what_is_unsupported_of_a_known_operator_is_declined() {
    let cases = [
        Net::new(13, &[3, 3]).node("Einsum", "x", "y", &[("equation", Attr::Text("ii->i"))]),
        Net::new(13, &[600, 2]).ints("k", &[3]).node("TopK", "x k", "y i", &[("axis", Attr::Int(0))]),
        Net::new(6, &[1, 2, 3]).node("Dropout", "x", "y", &[]),
        Net::new(8, &[1, 2, 3]).weight("v", &[2, 3]).node(
            "BatchNormalization",
            "x v v v v",
            "y",
            &[("spatial", Attr::Int(0))],
        ),
        // Windows that overlap: a place may be that of two maxima.
        Net::new(11, &[1, 2, 7, 7])
            .node("MaxPool", "x", "p i", &[("kernel_shape", Attr::Ints(&[3, 3]))])
            .node("MaxUnpool", "p i", "y", &[("kernel_shape", Attr::Ints(&[3, 3]))]),
        Net::new(13, &[1, 2, 4, 4]).weight("w", &[2, 2, 1, 1]).node(
            "com.microsoft.nchwc:Conv",
            "x w",
            "y",
            &[],
        ),
    ];
    for net in cases {
        let error = import_proto(&net.model("y"), &ImportOptions::default());
        assert!(matches!(error, Err(ImportError::Unsupported(_))), "{error:?}");
    }
}

/// Imports a model of one input and runs it on noise.
fn outputs(model: &ModelProto) -> Vec<Tensor> {
    let imported = import_proto(model, &ImportOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let shape = imported.inputs[0].shape.clone();
    let n = shape.iter().product();
    run(&imported, &[Tensor::f32(shape, noise(n, 1))])
}

/// That two models give the same, within rounding.
#[track_caller]
fn same(a: &ModelProto, b: &ModelProto) {
    let (a, b) = (outputs(a), outputs(b));
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        assert_eq!(a.shape(), b.shape());
        for (x, y) in a.as_f32().expect("f32").iter().zip(b.as_f32().expect("f32")) {
            assert!((x - y).abs() <= 1e-5 * (1.0 + y.abs()), "{x} and {y}");
        }
    }
}

#[test]
fn reductions_over_no_axes_still_act_on_elements() {
    let x = Tensor::f32([2, 2], vec![1.0, -2.0, 3.0, 0.5]);
    type OfElement = fn(f32) -> f32;
    let of_elements: [(&str, OfElement); 9] = [
        ("ReduceL1", f32::abs),
        ("ReduceL2", f32::abs),
        ("ReduceLogSum", f32::ln),
        ("ReduceLogSumExp", |x| x),
        ("ReduceSumSquare", |x| x * x),
        ("ReduceMean", |x| x),
        ("ReduceSum", |x| x),
        ("ReduceMax", |x| x),
        ("ReduceProd", |x| x),
    ];
    for (op, of_element) in of_elements {
        for axes in ["x", "x none"] {
            let noop = [("noop_with_empty_axes", Attr::Int(1)), ("keepdims", Attr::Int(0))];
            let net = Net::new(18, &[2, 2]).ints("none", &[]).node(op, axes, "y", &noop);
            let imported = import_proto(&net.model("y"), &ImportOptions::default()).expect("it imports");
            let got = run(&imported, std::slice::from_ref(&x)).swap_remove(0);
            assert_eq!(got.shape(), [2, 2]);
            for (got, &x) in got.as_f32().expect("f32").iter().zip(x.as_f32().expect("f32")) {
                let want = of_element(x);
                assert!((got - want).abs() < 1e-6 || got.is_nan() && want.is_nan(), "{op}({x}) = {got}");
            }
        }
        // Without the attribute an empty list is all axes.
        let net = Net::new(18, &[2, 2]).ints("none", &[]).node(op, "x none", "y", &[]);
        assert_eq!(outputs(&net.model("y"))[0].shape(), [1, 1]);
    }
}

#[test]
fn operators_that_onnxruntime_fuses_are_their_parts() {
    let conv = || Net::new(13, &[1, 2, 5, 4]).weight("w", &[3, 2, 3, 3]).weight("b", &[3]);
    let pads = || ("pads", Attr::Ints(&[1, 1, 1, 1]));
    for (activation, params, part, attrs) in [
        ("Relu", &[][..], "Relu", vec![]),
        ("Clip", &[-0.25, 0.5], "Clip", vec![("min", Attr::Float(-0.25)), ("max", Attr::Float(0.5))]),
        ("LeakyRelu", &[0.3], "LeakyRelu", vec![("alpha", Attr::Float(0.3))]),
        (
            "HardSigmoid",
            &[0.3, 0.4],
            "HardSigmoid",
            vec![("alpha", Attr::Float(0.3)), ("beta", Attr::Float(0.4))],
        ),
    ] {
        let fused =
            [pads(), ("activation", Attr::Text(activation)), ("activation_params", Attr::Floats(params))];
        let fused = conv().weight("z", &[1, 3, 5, 4]).node("com.microsoft:FusedConv", "x w b z", "y", &fused);
        let parts = conv().weight("z", &[1, 3, 5, 4]).node("Conv", "x w b", "c", &[pads()]);
        let parts = parts.node("Add", "c z", "s", &[]).node(part, "s", "y", &attrs);
        same(&fused.model("y"), &parts.model("y"));
    }
    let rows = || Net::new(13, &[4, 6]).weight("w", &[5, 6]).weight("b", &[5]);
    let gemm = || [("transB", Attr::Int(1)), ("alpha", Attr::Float(0.5))];
    let mut fused: Vec<_> = gemm().into();
    fused.extend([("activation", Attr::Text("LeakyRelu")), ("activation_alpha", Attr::Float(0.2))]);
    let fused = rows().node("com.microsoft:FusedGemm", "x w b", "y", &fused);
    let parts = rows().node("Gemm", "x w b", "g", &gemm());
    same(&fused.model("y"), &parts.node("LeakyRelu", "g", "y", &[("alpha", Attr::Float(0.2))]).model("y"));
    let turned = [("transB", Attr::Int(1)), ("alpha", Attr::Float(0.25))];
    let fused = rows().node("com.microsoft:FusedMatMul", "x w", "y", &turned);
    let parts = rows().node("Transpose", "w", "t", &[]).node("MatMul", "x t", "m", &[]);
    let parts = parts.floats("quarter", &[], vec![0.25]).node("Mul", "m quarter", "y", &[]);
    same(&fused.model("y"), &parts.model("y"));
}

#[test]
fn activations_and_normalisations_that_onnxruntime_fuses() {
    let net = || Net::new(20, &[2, 3, 6]).weight("b", &[6]).weight("scale", &[6]).weight("shift", &[6]);
    let sum = || net().node("Add", "x b", "s", &[]);
    let gelu = |approximate| [("approximate", Attr::Text(approximate))];
    let fused = net().node("com.microsoft:BiasGelu", "x b", "y", &[]);
    same(&fused.model("y"), &sum().node("Gelu", "s", "y", &gelu("none")).model("y"));
    let fused = net().node("com.microsoft:FastGelu", "x b", "y", &[]);
    same(&fused.model("y"), &sum().node("Gelu", "s", "y", &gelu("tanh")).model("y"));
    let fused = net().node("com.microsoft:QuickGelu", "x", "y", &[("alpha", Attr::Float(1.5))]);
    let parts = net().floats("a", &[], vec![1.5]).node("Mul", "x a", "m", &[]).node("Sigmoid", "m", "g", &[]);
    same(&fused.model("y"), &parts.node("Mul", "x g", "y", &[]).model("y"));
    let epsilon = || [("epsilon", Attr::Float(1e-5))];
    let skip = || net().weight("skip", &[2, 3, 6]);
    let fused = skip();
    let fused =
        fused.node("com.microsoft:SkipLayerNormalization", "x skip scale shift b", "y _ _ t", &epsilon());
    let parts = skip().node("Add", "x skip", "s", &[]).node("Add", "s b", "t", &[]);
    let parts = parts.node("LayerNormalization", "t scale shift", "y", &epsilon());
    same(&fused.model("y t"), &parts.model("y t"));
    let fused =
        skip().node("com.microsoft:SkipSimplifiedLayerNormalization", "x skip scale", "y", &epsilon());
    let parts = skip().node("Add", "x skip", "s", &[]);
    let parts = parts.node("SimplifiedLayerNormalization", "s scale", "y", &epsilon());
    same(&fused.model("y"), &parts.model("y"));
}

#[test]
fn volumes_without_depth_are_images() {
    let is_volume = |op: &Op| matches!(op, Op::Pad(_) | Op::Concat(_));
    for extents in [[1, 5, 6], [5, 1, 6], [5, 6, 1]] {
        let unit = extents.iter().position(|&e| e == 1).expect("one is");
        let around =
            |inside: i64| -> [i64; 3] { std::array::from_fn(|axis| if axis == unit { 1 } else { inside }) };
        let shape = [&[1, 2][..], &extents].concat();
        let kernel = [&[3, 2][..], &around(3)].concat();
        let net = Net::new(13, &shape).weight("w", &kernel).weight("b", &[3]);
        let module = check(&net.node("Conv", "x w b", "y", &[]).model("y")).module;
        assert_eq!(count(&module, |op| matches!(op, Op::Conv2d(_))), 1);
        // A kernel of three over one sample and its padding: the middle tap alone meets it.
        let net = Net::new(13, &shape).weight("w", &[3, 2, 3, 3, 3]).weight("b", &[3]);
        let pads = [("pads", Attr::Ints(&[1; 6]))];
        let module = check(&net.node("Conv", "x w b", "y", &pads).model("y")).module;
        assert_eq!(count(&module, |op| matches!(op, Op::Conv2d(_))), 1);
        assert_eq!(count(&module, is_volume), 0);
        let net = Net::new(13, &shape).weight("w", &[2, 3, 3, 3, 3]).weight("b", &[3]);
        let module = check(&net.node("ConvTranspose", "x w b", "y", &pads).model("y")).module;
        assert_eq!(count(&module, |op| matches!(op, Op::TransposeConv2d(_))), 1);
        assert_eq!(count(&module, is_volume), 0);
        for pool in ["MaxPool", "AveragePool"] {
            let window = around(2);
            let net = Net::new(13, &shape);
            let module =
                check(&net.node(pool, "x", "y", &[("kernel_shape", Attr::Ints(&window))]).model("y"));
            assert_eq!(count(&module.module, is_volume), 0);
        }
    }
    // More depth than one, in every place.
    let net = Net::new(13, &[1, 2, 4, 3, 5]).weight("w", &[3, 2, 2, 3, 2]);
    check(&net.node("Conv", "x w", "y", &[("strides", Attr::Ints(&[1, 2, 1]))]).model("y"));
    for op in ["GlobalMaxPool", "GlobalAveragePool"] {
        check(&Net::new(13, &[2, 3, 4, 3, 5]).node(op, "x", "y", &[]).model("y"));
    }
}

#[test]
fn unpooling_puts_values_back_where_the_maxima_were() {
    let window = || [("kernel_shape", Attr::Ints(&[2, 2])), ("strides", Attr::Ints(&[2, 2]))];
    for shape in [[1, 2, 6, 4], [2, 1, 5, 7]] {
        let net = Net::new(18, &shape)
            .ints("shape", &shape)
            .floats("two", &[], vec![2.0])
            .node("MaxPool", "x", "p i", &window())
            .node("Mul", "p two", "z", &[])
            .node("MaxUnpool", "z i shape", "y", &window());
        let got = outputs(&net.model("y")).swap_remove(0);
        let [n, c, h, w] = shape.map(|extent| extent as usize);
        let x = noise(n * c * h * w, 1);
        let mut want = vec![0.0; x.len()];
        for (plane, y, column) in
            (0..n * c).flat_map(|p| (0..h / 2).flat_map(move |y| (0..w / 2).map(move |x| (p, y, x))))
        {
            let at = |place: usize| (plane * h + 2 * y + place / 2) * w + 2 * column + place % 2;
            let best = (0..4).rev().max_by(|&a, &b| x[at(a)].total_cmp(&x[at(b)])).expect("four places");
            want[at(best)] = 2.0 * x[at(best)];
        }
        assert_eq!((got.shape(), got.as_f32()), (&[n, c, h, w][..], Some(&want[..])));
    }
}

#[test]
fn constants_of_any_shape_have_one_number_for_each_channel() {
    for shape in [&[1, 1, 4, 1][..], &[1, 1, 1, 5], &[5], &[1, 3, 4, 5], &[4, 1], &[1, 3, 1, 5], &[3, 4, 1]] {
        for op in ["Add", "Sub", "Mul", "PRelu", "Max"] {
            let net = Net::new(13, &[1, 3, 4, 5]).weight("w", &[3, 3, 1, 1]).weight("k", shape);
            let net = net.node("Conv", "x w", "c", &[]).node(op, "c k", "y", &[]);
            let module = check(&net.model("y")).module;
            let elementwise = |op: &Op| matches!(op, Op::Add(_) | Op::Sub(_) | Op::Mul(_) | Op::Maximum(_));
            for op in module.walk(module.body()) {
                if !elementwise(&module.op(op).op) {
                    continue;
                }
                for &operand in &module.op(op).operands()[..2] {
                    let Some(constant) = module.constant(operand) else { continue };
                    let (_, before) = constant.tensor.shape().split_last().expect("four axes");
                    assert!(before.iter().all(|&extent| extent == 1), "{:?}", constant.tensor.shape());
                }
            }
        }
    }
}
