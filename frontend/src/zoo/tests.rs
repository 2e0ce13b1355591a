//! Tests of the zoo as a whole: the published figures, what tract makes of the models, and the scale of
//! activations.

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::Factoid;
use tract_onnx::tract_hir::internal::DimLike;

use super::*;
use crate::proto::encode;

/// Counts of one network, from its graph alone; no weights are made.
#[derive(Debug, PartialEq)]
struct Counts {
    /// Elements of the weights of convolutions and fully connected layers.
    weights: usize,
    /// Elements of all trained tensors, batch normalisation means and variances included.
    parameters: usize,
    macs_direct: usize,
    /// With F(2x2, 3x3) Winograd, which needs 16 products for a tile of 2x2, on every 3x3 convolution of
    /// stride 1.
    macs_winograd: usize,
    /// What Winograd saves of that on the first layer, which has too few channels for most machines' liking.
    saved_on_image: usize,
}

fn count(model: ZooModel, size: (usize, usize)) -> Counts {
    let classes = model.default_classes().unwrap_or_default();
    let network = model.network(Dimensions { width: size.0, height: size.1, classes });
    let trained = || network.parameters().iter().filter(|p| p.is_trained());
    let mut counts = Counts {
        weights: trained().filter(|p| p.name.ends_with(".weight")).map(|p| p.len()).sum(),
        parameters: trained().map(|p| p.len()).sum(),
        macs_direct: 0,
        macs_winograd: 0,
        saved_on_image: 0,
    };
    let dims_of = |name: &String| network.dims_of(name).expect("every tensor is known");
    for node in network.nodes() {
        let weights = || {
            let weight = network.parameters().iter().find(|p| p.name == node.input[1]);
            weight.expect("the second input of a convolution is its weight").len()
        };
        let area = |tensor: &String| dims_of(tensor)[2..].iter().product::<usize>();
        let macs = match &*node.op_type {
            "Conv" => weights() * area(&node.output[0]),
            "ConvTranspose" => weights() * area(&node.input[0]),
            "Gemm" => weights(),
            _ => 0,
        };
        let ints = |name: &str| node.attribute.iter().find(|a| a.name == name).map(|a| &a.ints[..]);
        let is_winograd = node.op_type == "Conv"
            && ints("kernel_shape") == Some(&[3, 3])
            && ints("strides") == Some(&[1, 1])
            && node.attribute.iter().any(|a| a.name == "group" && a.i == 1);
        let saved = if is_winograd {
            let n_tiles = dims_of(&node.output[0])[2..].iter().map(|d| d.div_ceil(2)).product::<usize>();
            macs - weights() / 9 * 16 * n_tiles
        } else {
            0
        };
        counts.macs_direct += macs;
        counts.macs_winograd += macs - saved;
        counts.saved_on_image += if node.input[0] == "image" { saved } else { 0 };
    }
    counts
}

/// Width and height at which the network can be run in a test.
fn small_size(model: ZooModel) -> (usize, usize) {
    match model {
        ZooModel::YoloV3 | ZooModel::YoloV8n | ZooModel::HrNetW18Small => (96, 64),
        ZooModel::YoloV3Tiny => (160, 96),
        ZooModel::EfficientDetD0 => (256, 128),
        ZooModel::ResNet50 | ZooModel::MobileNetV2 => (128, 96),
        ZooModel::RegNetX400Mf | ZooModel::MobileNetV3Large | ZooModel::EfficientNetLite0 => (128, 96),
        ZooModel::InceptionV3 => (107, 75),
        ZooModel::Vgg16 | ZooModel::SqueezeNet | ZooModel::DenseNet121 => (64, 32),
        ZooModel::ConvNextTiny | ZooModel::DeepLabV3MobileNetV2 => (64, 32),
        ZooModel::MobileVitXxs => (128, 64),
        ZooModel::UNet => (64, 48),
        ZooModel::Fsrcnn => (48, 32),
    }
}

fn small(model: ZooModel) -> pb::ModelProto {
    let options = ZooOptions { size: Some(small_size(model)), ..ZooOptions::default() };
    build(model.name(), &options).expect("the small size suits the model")
}

fn dims_of(value: &pb::ValueInfoProto) -> Vec<usize> {
    use pb::tensor_shape_proto::dimension::Value;
    let Some(pb::type_proto::Value::TensorType(tensor)) =
        value.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        panic!("{} has no tensor type", value.name);
    };
    assert_eq!(tensor.elem_type, DataType::Float as i32);
    let dim = &tensor.shape.as_ref().expect("a shape is declared").dim;
    dim.iter()
        .map(|d| if let Some(Value::DimValue(v)) = d.value { v as usize } else { panic!("symbolic") })
        .collect()
}

fn graph(model: &pb::ModelProto) -> &pb::GraphProto {
    model.graph.as_ref().expect("a model has a graph")
}

#[test]
fn yolov3_has_its_published_size() {
    let counts = count(ZooModel::YoloV3, (2048, 1024));
    assert_eq!((counts.weights, counts.parameters), (61_895_776, 62_001_757));
    assert_eq!(format!("{:.2}", counts.macs_direct as f64 / 1e9), "399.08");
    let winograd = counts.macs_winograd + counts.saved_on_image;
    assert_eq!(format!("{:.2}", winograd as f64 / 1e9), "227.28");
    let network = ZooModel::YoloV3.network(Dimensions { width: 416, height: 416, classes: 80 });
    assert_eq!(network.nodes().iter().filter(|node| node.op_type == "Conv").count(), 75);
    // The last of the 107 layers, numbered from zero, is a detection head.
    assert_eq!(network.dims_of("yolo_106"), Some(&[1, 255, 52, 52][..]));
    assert_eq!(network.dims_of("yolo_94"), Some(&[1, 255, 26, 26][..]));
    assert_eq!(network.dims_of("yolo_82"), Some(&[1, 255, 13, 13][..]));
}

#[test]
fn yolov3_tiny_has_its_published_size() {
    let counts = count(ZooModel::YoloV3Tiny, (416, 416));
    assert_eq!((counts.parameters, counts.macs_direct), (8_858_734, 2_782_480_896));
}

#[test]
fn classifiers_have_their_published_sizes() {
    // Parameters as torchvision counts them leave out the means and variances, which are half of what batch
    // normalisation has: 2 x 26,560 for ResNet-50 and 2 x 17,056 for MobileNetV2.
    let resnet = count(ZooModel::ResNet50, (224, 224));
    assert_eq!(resnet.parameters - 2 * 26_560, 25_557_032);
    assert_eq!(resnet.macs_direct, 4_089_184_256);
    let mobilenet = count(ZooModel::MobileNetV2, (224, 224));
    assert_eq!(mobilenet.parameters - 2 * 17_056, 3_504_872);
    assert_eq!(mobilenet.macs_direct, 300_774_272);
    let vgg = count(ZooModel::Vgg16, (224, 224));
    assert_eq!((vgg.parameters, vgg.macs_direct), (138_357_544, 15_470_264_320));
}

#[test]
fn unet_and_fsrcnn_have_their_published_sizes() {
    // The paper's network on one channel and with one class has 31,030,593 parameters; two more input
    // channels take 2 x 9 x 64 weights, one more class 64 weights and a bias.
    let unet = count(ZooModel::UNet, (512, 512));
    assert_eq!(unet.parameters, 31_030_593 + 2 * 9 * 64 + 65);
    // 12,464 multiplications an input pixel: table 2 of the paper, for FSRCNN(56, 12, 4).
    let fsrcnn = count(ZooModel::Fsrcnn, (960, 540));
    assert_eq!((fsrcnn.weights, fsrcnn.macs_direct), (12_464, 12_464 * 960 * 540));
}

#[test]
fn rooflines_are_those_of_an_independent_model() {
    // Frames per second of 4,096 MACs at 1.067 GHz in full use.
    let frames = |model, size| 4096.0 * 1.067e9 / count(model, size).macs_winograd as f64;
    for (model, size, expected) in [
        (ZooModel::YoloV3, (1920, 1088), 19.4),
        (ZooModel::YoloV3, (416, 416), 229.2),
        (ZooModel::UNet, (512, 512), 48.3),
        (ZooModel::Fsrcnn, (960, 540), 879.7),
    ] {
        let found = frames(model, size);
        assert!((found - expected).abs() < 0.051, "{model}: {found} frames/s, not {expected}");
    }
}

#[test]
fn tract_agrees_with_the_declared_outputs() {
    for model in ZooModel::ALL {
        let proto = small(model);
        let (width, height) = small_size(model);
        assert_eq!(dims_of(&graph(&proto).input[0])[2..], [height, width], "{model}");
        let parsed = tract_onnx::onnx().parse(&proto, None).expect("tract parses the model");
        let mut inference = parsed.model;
        inference.analyse(false).expect("tract finds all shapes");
        for (k, declared) in graph(&proto).output.iter().enumerate() {
            let fact = inference.output_fact(k).expect("the output is there");
            let shape = fact.shape.concretize().expect("the shape is known");
            let shape: Vec<usize> = shape.iter().map(|d| d.to_usize().expect("a number")).collect();
            assert_eq!(shape, dims_of(declared), "{model}, output {}", declared.name);
        }
    }
}

#[test]
fn activations_stay_in_scale_through_the_depth() {
    for model in ZooModel::ALL {
        let bytes = encode(&small(model));
        let proto = tract_onnx::onnx().proto_model_for_read(&mut &*bytes).expect("the bytes decode");
        let input_dims = dims_of(&graph(&proto).input[0]);
        let plan = tract_onnx::onnx()
            .parse(&proto, None)
            .and_then(|parsed| parsed.model.into_optimized()?.into_runnable())
            .expect("tract runs the model");
        let noise = random::Stream::new(11, 0);
        let values: Vec<f32> =
            (0..input_dims.iter().product::<usize>() as u64).map(|k| noise.unit(k)).collect();
        let input = Tensor::from_shape(&input_dims, &values).expect("as many values as the shape has");
        let outputs = plan.run(tvec!(input.into())).expect("the model runs");
        for (output, declared) in outputs.iter().zip(&graph(&proto).output) {
            let values: Vec<f64> = output
                .to_plain_array_view::<f32>()
                .expect("f32 output")
                .iter()
                .map(|&v| f64::from(v))
                .collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt();
            // NaN fails the comparison too.
            assert!(
                (0.1..10.0).contains(&std),
                "{model}, output {}: standard deviation {std}",
                declared.name
            );
        }
    }
}

#[test]
fn the_same_options_give_the_same_bytes_and_another_seed_other_ones() {
    let make = |seed| {
        let options = ZooOptions { size: Some((96, 96)), seed, ..ZooOptions::default() };
        encode(&build("mobilenetv2", &options).expect("the options suit the model"))
    };
    assert_eq!(make(3), make(3));
    assert_ne!(make(3), make(4));
    // The bytes are part of what the zoo promises: golden results elsewhere rest on them.
    let options = ZooOptions { size: Some((32, 32)), ..ZooOptions::default() };
    let model = build("fsrcnn", &options).expect("the options suit the model");
    let weights = &graph(&model).initializer[1];
    assert_eq!(weights.name, "extract.weight");
    assert_eq!(weights.raw_data[..8], [107, 136, 2, 190, 117, 153, 28, 191]);
}

#[test]
fn names_are_unique() {
    for model in ZooModel::ALL {
        let classes = model.default_classes().unwrap_or_default();
        let (width, height) = small_size(model);
        let network = model.network(Dimensions { width, height, classes });
        let tensors = network.nodes().iter().flat_map(|node| &node.output);
        let mut names: Vec<&String> = tensors.chain(network.parameters().iter().map(|p| &p.name)).collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{model}");
    }
}

/// A `.weights` file for YOLOv3-tiny of one class whose floats count up from zero in steps of 1/1024.
fn counting_weights(floats: usize) -> Vec<u8> {
    let header = [0i32, 2, 5].into_iter().flat_map(i32::to_le_bytes).chain(32_013_312u64.to_le_bytes());
    header.chain((0..floats).flat_map(|k| (k as f32 / 1024.0).to_le_bytes())).collect()
}

fn tiny_of_one_class(weights: Vec<u8>) -> Result<pb::ModelProto, ZooError> {
    let options = ZooOptions {
        size: Some((32, 32)),
        classes: Some(1),
        weights: Some(weights),
        ..ZooOptions::default()
    };
    build("yolov3-tiny", &options)
}

/// 8,858,734 floats for 80 classes; each class less takes three outputs, of 512 and 256 weights and a bias
/// each.
const FLOATS_OF_ONE_CLASS: usize = 8_858_734 - 79 * 3 * (512 + 1 + 256 + 1);

#[test]
fn darknet_weights_are_taken_in_their_order() {
    let model = tiny_of_one_class(counting_weights(FLOATS_OF_ONE_CLASS)).expect("the length is right");
    let first_of = |name: &str| {
        let found = graph(&model).initializer.iter().find(|i| i.name == name);
        let bytes: [u8; 4] =
            found.expect("the initialiser is there").raw_data[..4].try_into().expect("four bytes");
        (f32::from_le_bytes(bytes) * 1024.0) as usize
    };
    let places =
        ["conv_0/bn.beta", "conv_0/bn.gamma", "conv_0/bn.mean", "conv_0/bn.variance", "conv_0.weight"];
    assert_eq!(places.map(first_of), [0, 16, 32, 48, 64]);
    assert_eq!(first_of("conv_2/bn.beta"), 64 + 16 * 3 * 9);
    assert_eq!(graph(&model).output.iter().map(|o| &*o.name).collect::<Vec<_>>(), ["yolo_16", "yolo_23"]);
    let last = graph(&model).initializer.iter().find(|i| i.name == "conv_22.weight").expect("the last head");
    let value: [u8; 4] = last.raw_data[last.raw_data.len() - 4..].try_into().expect("four bytes");
    assert_eq!(f32::from_le_bytes(value), (FLOATS_OF_ONE_CLASS - 1) as f32 / 1024.0);
}

#[test]
fn darknet_weights_that_do_not_fit_are_refused() {
    let problem = |weights| match tiny_of_one_class(weights) {
        Err(ZooError::Options { problems, .. }) => problems[0].to_string(),
        other => panic!("weights were taken: {:?}", other.map(|_| ())),
    };
    let expected = FLOATS_OF_ONE_CLASS;
    assert_eq!(
        problem(counting_weights(expected - 3)),
        format!("Darknet weights hold {} floats, but the network takes {expected}", expected - 3)
    );
    assert_eq!(
        problem([counting_weights(expected), vec![0; 6]].concat()),
        format!("Darknet weights hold {} floats and 2 bytes, but the network takes {expected}", expected + 1)
    );
    assert_eq!(problem(vec![0; 7]), "Darknet weights of 7 bytes are too short for the header of 20");
    let mut damaged = counting_weights(expected);
    damaged[20 + 4 * 50..20 + 4 * 51].copy_from_slice(&(-0.5f32).to_le_bytes());
    assert_eq!(problem(damaged), "Darknet weights have the value -0.5 for conv_0/bn.variance, element 2");
    let mut damaged = counting_weights(expected);
    damaged[20 + 4 * 64..20 + 4 * 65].copy_from_slice(&f32::NAN.to_le_bytes());
    assert_eq!(problem(damaged), "Darknet weights have the value NaN for conv_0.weight, element 0");
}

#[test]
fn all_that_is_wrong_with_the_options_is_said_at_once() {
    let options = ZooOptions {
        size: Some((100, 0)),
        classes: Some(0),
        weights: Some(Vec::new()),
        ..ZooOptions::default()
    };
    let text = |name| build(name, &options).map(|_| ()).expect_err("the options are bad").to_string();
    assert_eq!(
        text("unet"),
        "unet: a width of 100 will not do, it must be from 16 to 65536 and a multiple of 16; a height of 0 \
            will not \
         do, it must be from 16 to 65536 and a multiple of 16; 0 classes will not do, the number must be \
         from 1 to \
         65536; Darknet weights are only for the YOLO models"
    );
    assert!(text("fsrcnn").contains("the model has no classes"));
    assert_eq!(
        text("yolov9"),
        format!("the zoo has no model 'yolov9'; it has {}", ZooModel::names().join(", "))
    );
}
