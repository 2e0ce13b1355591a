// RUN: verify
// Zero points, shapes and shifts must be constants.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xi8>, tensor<3xi32>, tensor<1xi8>) -> tensor<1x4x4x3xi32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xi8>, %b: tensor<3xi32>, %zx: tensor<1xi8>):
    %w = "tosa.const"() <{values = dense<[[[[2, -1]]], [[[0, 3]]], [[[1, 1]]]]> : tensor<3x1x1x2xi8>}> : () -> tensor<3x1x1x2xi8>
    %zw = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    // expected-error@below {{[E0304]}}
    %acc = "tosa.conv2d"(%x, %w, %b, %zx, %zw) <{acc_type = i32, dilation = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 1, 1>}> : (tensor<1x4x4x2xi8>, tensor<3x1x1x2xi8>, tensor<3xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x4x4x3xi32>
    "func.return"(%acc) : (tensor<1x4x4x3xi32>) -> ()
  }) : () -> ()
}) : () -> ()
