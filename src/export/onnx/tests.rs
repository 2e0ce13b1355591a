//! What is written of small modules. That onnxruntime computes the same is for the slow suite `exports`.

use super::*;

const TEXT: &str = r#"
func.func @main(%x: tensor<1x2x2x1xi8> {strata.name = "x", strata.perm = array<i64: 0, 2, 3, 1>,
    strata.quant = {scale = 5.000000e-01 : f64, zero_point = 3 : i64}})
    -> (tensor<1x2x2x2xi8> {strata.name = "y", strata.perm = array<i64: 0, 3, 1, 2>,
    strata.quant = {scale = 2.500000e-01 : f64, zero_point = -1 : i64}}) {
  %w = "tosa.const"() <{values = dense<[[[[2]]], [[[-3]]]]> : tensor<2x1x1x1xi8>}> : () -> tensor<2x1x1x1xi8>
  %b = "tosa.const"() <{values = dense<[5, -7]> : tensor<2xi32>}> : () -> tensor<2xi32>
  %zp = "tosa.const"() <{values = dense<3> : tensor<1xi8>}> : () -> tensor<1xi8>
  %zero = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
  %zero32 = "tosa.const"() <{values = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
  %out = "tosa.const"() <{values = dense<-1> : tensor<1xi8>}> : () -> tensor<1xi8>
  %m = "tosa.const"() <{values = dense<[1073741824, 1610612736]> : tensor<2xi32>}> : () -> tensor<2xi32>
  %s = "tosa.const"() <{values = dense<[31, 31]> : tensor<2xi8>}> : () -> tensor<2xi8>
  %acc = "tosa.conv2d"(%x, %w, %b, %zp, %zero) <{acc_type = i32, dilation = array<i64: 1, 1>,
      pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 1, 1>}> : (tensor<1x2x2x1xi8>, tensor<2x1x1x1xi8>,
      tensor<2xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x2x2x2xi32>
  %y = "tosa.rescale"(%acc, %m, %s, %zero32, %out) <{input_unsigned = false, output_unsigned = false,
      per_channel = true, rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>,
      scale32 = true}> : (tensor<1x2x2x2xi32>, tensor<2xi32>, tensor<2xi8>, tensor<1xi32>, tensor<1xi8>)
      -> tensor<1x2x2x2xi8>
  return %y : tensor<1x2x2x2xi8>
}
"#;

fn exported(text: &str) -> ModelProto {
    let module = strata_ir::text::parse(text, None).expect("a module");
    model(&module, "x").expect("it is exported")
}

fn floats(model: &ModelProto, part: &str) -> Vec<f32> {
    let graph = model.graph.as_ref().expect("a graph");
    let found = graph.initializer.iter().find(|tensor| tensor.name.contains(part)).expect("an initialiser");
    found.raw_data.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

#[test]
fn a_convolution_takes_the_scales_of_its_rescale() {
    let model = exported(TEXT);
    let ops: Vec<&str> =
        model.graph.as_ref().expect("a graph").node.iter().map(|node| node.op_type.as_str()).collect();
    let due = [
        "QuantizeLinear",
        "DequantizeLinear",
        "DequantizeLinear",
        "DequantizeLinear",
        "Conv",
        "QuantizeLinear",
        "DequantizeLinear",
    ];
    // The result is computed channels second, handed over as the module has it, and then as the user has it.
    assert_eq!(ops.iter().filter(|op| **op != "Transpose").copied().collect::<Vec<_>>(), due);
    assert_eq!(floats(&model, "weight_scale"), [0.5, 0.75]);
    assert_eq!(floats(&model, "bias_scale"), [0.25, 0.375]);
}

#[test]
fn phases_are_functions_that_take_their_weights() {
    let phase = TEXT.replace("  %acc =", "  %p = \"strata.phase\"() ({\n  %acc =").replace(
        "  return %y",
        "  \"strata.yield\"(%y) : (tensor<1x2x2x2xi8>) -> ()\n  }) : () -> tensor<1x2x2x2xi8>\n  return %p",
    );
    let model = exported(&phase);
    let [function] = &model.functions[..] else { panic!("there is one phase") };
    assert_eq!(function.name.as_deref(), Some("phase_0"));
    assert_eq!(function.output.len(), 1);
    let calls = model.graph.as_ref().expect("a graph").node.iter().filter(|node| node.domain == DOMAIN);
    assert_eq!(
        calls.map(|node| (&node.input, &node.output)).collect::<Vec<_>>(),
        [(&function.input, &function.output)]
    );
    assert!(function.input.iter().any(|input| input.contains("weight")), "{:?}", function.input);
}

#[test]
fn networks_of_floats_are_refused() {
    let text = "func.func @main(%x: tensor<1xf32>) -> (tensor<1xf32>) {\n  return %x : tensor<1xf32>\n}";
    let module = strata_ir::text::parse(text, None).expect("a module");
    let error = model(&module, "x").expect_err("nothing is quantised").to_string();
    assert!(error.contains("--emit quant"), "{error}");
}
