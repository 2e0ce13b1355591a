// RUN: form-stages
// Sides that differ in their zero points are not one tail, and the machine has no other choice by sign.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x2x3x4xi8>) -> tensor<1x2x3x4xi8>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x2x3x4xi8>):
    %w = "tosa.const"() <{values = dense<[[[[3, -7, 5, 2]]], [[[-4, 9, 1, -6]]], [[[8, 8, -8, 1]]], [[[-2, 0, 7, -9]]]]> : tensor<4x1x1x4xi8>}> : () -> tensor<4x1x1x4xi8>
    %b = "tosa.const"() <{values = dense<[10, -20, 0, 5]> : tensor<4xi32>}> : () -> tensor<4xi32>
    %zp = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    %zero = "tosa.const"() <{values = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
    %none = "tosa.const"() <{values = dense<0> : tensor<1x1x1x1xi32>}> : () -> tensor<1x1x1x1xi32>
    %out = "tosa.const"() <{values = dense<-3> : tensor<1xi8>}> : () -> tensor<1xi8>
    %other = "tosa.const"() <{values = dense<-4> : tensor<1xi8>}> : () -> tensor<1xi8>
    %m = "tosa.const"() <{values = dense<[1073741824, 1173741824, 1273741824, 1373741824]> : tensor<4xi32>}> : () -> tensor<4xi32>
    %s = "tosa.const"() <{values = dense<[34, 35, 34, 35]> : tensor<4xi8>}> : () -> tensor<4xi8>
    %mb = "tosa.const"() <{values = dense<[1073741824, 0, 1573741824, 1673741824]> : tensor<4xi32>}> : () -> tensor<4xi32>
    %sb = "tosa.const"() <{values = dense<[36, 32, 37, 36]> : tensor<4xi8>}> : () -> tensor<4xi8>
    %acc = "tosa.conv2d"(%x, %w, %b, %zp, %zp) <{acc_type = i32, dilation = array<i64: 1, 1>, local_bound = false, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 1, 1>}> : (tensor<1x2x3x4xi8>, tensor<4x1x1x4xi8>, tensor<4xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x2x3x4xi32>
    // expected-error@below {{no stage for `tosa.greater_equal`}}
    %is_above = "tosa.greater_equal"(%acc, %none) : (tensor<1x2x3x4xi32>, tensor<1x1x1x1xi32>) -> tensor<1x2x3x4xi1>
    %above = "tosa.rescale"(%acc, %m, %s, %zero, %out) <{input_unsigned = false, output_unsigned = false, per_channel = true, rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>, scale32 = true}> : (tensor<1x2x3x4xi32>, tensor<4xi32>, tensor<4xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x2x3x4xi8>
    %below = "tosa.rescale"(%acc, %mb, %sb, %zero, %other) <{input_unsigned = false, output_unsigned = false, per_channel = true, rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>, scale32 = true}> : (tensor<1x2x3x4xi32>, tensor<4xi32>, tensor<4xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x2x3x4xi8>
    // expected-error@below {{no stage for `tosa.select`}}
    %y = "tosa.select"(%is_above, %above, %below) : (tensor<1x2x3x4xi1>, tensor<1x2x3x4xi8>, tensor<1x2x3x4xi8>) -> tensor<1x2x3x4xi8>
    "func.return"(%y) : (tensor<1x2x3x4xi8>) -> ()
  }) : () -> ()
}) {strata.level = "quant"} : () -> ()
