// RUN: round-trip
// Names of source nodes, dictionaries of arguments, discardable attributes and floats survive.
"builtin.module"() ({
  "func.func"() <{arg_attrs = [{strata.name = "images", strata.perm = array<i64: 0, 2, 3, 1>}], function_type = (tensor<2xf32>) -> tensor<2xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<2xf32>):
    %0 = "tosa.const"() <{values = dense<[1.5, -0.0]> : tensor<2xf32>}> : () -> tensor<2xf32> loc("weights")
    %1 = "tosa.maximum"(%0, %x) <{nan_mode = #tosa.nan_mode<IGNORE>}> {test.note = "kept"} : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32> loc("relu"("m.onnx":12:0))
    "func.return"(%1) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
