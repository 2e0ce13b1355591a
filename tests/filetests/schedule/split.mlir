// RUN: form-stages,split-channels{budget-bytes=256},fuse-layers{mode=single},schedule
// TARGET: micro
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x2x2x32xi8>) -> tensor<1x2x2x4xi8>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x2x2x32xi8>):
    %w = "tosa.const"() <{values = dense<[[[[-5, -2, 1, 4, -4, -1, 2, 5, -3, 0, 3, -5, -2, 1, 4, -4, -1, 2, 5, -3, 0, 3, -5, -2, 1, 4, -4, -1, 2, 5, -3, 0]]], [[[2, 5, -3, 0, 3, -5, -2, 1, 4, -4, -1, 2, 5, -3, 0, 3, -5, -2, 1, 4, -4, -1, 2, 5, -3, 0, 3, -5, -2, 1, 4, -4]]], [[[-2, 1, 4, -4, -1, 2, 5, -3, 0, 3, -5, -2, 1, 4, -4, -1, 2, 5, -3, 0, 3, -5, -2, 1, 4, -4, -1, 2, 5, -3, 0, 3]]], [[[5, -3, 0, 3, -5, -2, 1, 4, -4, -1, 2, 5, -3, 0, 3, -5, -2, 1, 4, -4, -1, 2, 5, -3, 0, 3, -5, -2, 1, 4, -4, -1]]]]> : tensor<4x1x1x32xi8>}> : () -> tensor<4x1x1x32xi8>
    %b = "tosa.const"() <{values = dense<[-40, -30, -20, -10]> : tensor<4xi32>}> : () -> tensor<4xi32>
    %zx = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    %zw = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    %z32 = "tosa.const"() <{values = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
    %zo = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    %m = "tosa.const"() <{values = dense<[1073741824, 1073742824, 1073743824, 1073744824]> : tensor<4xi32>}> : () -> tensor<4xi32>
    %s = "tosa.const"() <{values = dense<[34, 34, 34, 34]> : tensor<4xi8>}> : () -> tensor<4xi8>
    %acc = "tosa.conv2d"(%x, %w, %b, %zx, %zw) <{acc_type = i32, dilation = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 1, 1>}> : (tensor<1x2x2x32xi8>, tensor<4x1x1x32xi8>, tensor<4xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x2x2x4xi32>
    %r = "tosa.rescale"(%acc, %m, %s, %z32, %zo) <{input_unsigned = false, output_unsigned = false, per_channel = true, rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>, scale32 = true}> : (tensor<1x2x2x4xi32>, tensor<4xi32>, tensor<4xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x2x2x4xi8>
    "func.return"(%r) : (tensor<1x2x2x4xi8>) -> ()
  }) : () -> ()
}) : () -> ()
