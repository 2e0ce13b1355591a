// RUN: form-stages
// Taps that are farther apart than the machine can say.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xi8>) -> tensor<1x4x4x3xi32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xi8>):
    %w = "tosa.const"() <{values = dense<1> : tensor<3x3x1x2xi8>}> : () -> tensor<3x3x1x2xi8>
    %b = "tosa.const"() <{values = dense<[10, -20, 0]> : tensor<3xi32>}> : () -> tensor<3xi32>
    %zx = "tosa.const"() <{values = dense<3> : tensor<1xi8>}> : () -> tensor<1xi8>
    %zw = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    // expected-error@below {{2097152 is beyond what a window of the machine can have, 2^20}}
    %acc = "tosa.conv2d"(%x, %w, %b, %zx, %zw) <{acc_type = i32, dilation = array<i64: 2097152, 1>, pad = array<i64: 2097152, 2097152, 0, 0>, stride = array<i64: 1, 1>}> : (tensor<1x4x4x2xi8>, tensor<3x3x1x2xi8>, tensor<3xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x4x4x3xi32>
    "func.return"(%acc) : (tensor<1x4x4x3xi32>) -> ()
  }) : () -> ()
}) {strata.level = "quant"} : () -> ()
