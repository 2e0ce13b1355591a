// RUN: form-stages
// Where there is one tap, their distance says nothing: the machine's window has 1.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xi8>) -> tensor<1x4x4x3xi32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xi8>):
    %w = "tosa.const"() <{values = dense<[[[[2, -1]]], [[[0, 3]]], [[[1, 1]]]]> : tensor<3x1x1x2xi8>}> : () -> tensor<3x1x1x2xi8>
    %b = "tosa.const"() <{values = dense<[10, -20, 0]> : tensor<3xi32>}> : () -> tensor<3xi32>
    %zx = "tosa.const"() <{values = dense<3> : tensor<1xi8>}> : () -> tensor<1xi8>
    %zw = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    %acc = "tosa.conv2d"(%x, %w, %b, %zx, %zw) <{acc_type = i32, dilation = array<i64: 2147483647, 7>, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 1, 1>}> : (tensor<1x4x4x2xi8>, tensor<3x1x1x2xi8>, tensor<3xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x4x4x3xi32>
    "func.return"(%acc) : (tensor<1x4x4x3xi32>) -> ()
  }) : () -> ()
}) {strata.level = "quant"} : () -> ()
