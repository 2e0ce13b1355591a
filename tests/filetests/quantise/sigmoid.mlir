// RUN: quantise{range=min-max}
// A function of sums takes them as i16, through a table of 513 entries; only its result is i8.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xf32>) -> tensor<1x4x4x3xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xf32>):
    %w = "tosa.const"() <{values = dense<[[[[0.5, -0.25]]], [[[0.0, 1.0]]], [[[0.125, 0.75]]]]> : tensor<3x1x1x2xf32>}> : () -> tensor<3x1x1x2xf32>
    %b = "tosa.const"() <{values = dense<[0.5, -0.5, 0.0]> : tensor<3xf32>}> : () -> tensor<3xf32>
    %z = "tosa.const"() <{values = dense<0.0> : tensor<1xf32>}> : () -> tensor<1xf32>
    %0 = "tosa.conv2d"(%x, %w, %b, %z, %z) <{acc_type = f32, dilation = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 1, 1>}> : (tensor<1x4x4x2xf32>, tensor<3x1x1x2xf32>, tensor<3xf32>, tensor<1xf32>, tensor<1xf32>) -> tensor<1x4x4x3xf32> loc("conv1")
    %1 = "tosa.sigmoid"(%0) : (tensor<1x4x4x3xf32>) -> tensor<1x4x4x3xf32> loc("sigmoid1")
    "func.return"(%1) : (tensor<1x4x4x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()
