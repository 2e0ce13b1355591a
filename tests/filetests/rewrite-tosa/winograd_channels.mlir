// RUN: rewrite-tosa{families=winograd-channels,take=every}
// TARGET: x1
// Eight more channels of the zero point, and zero weights for them.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x3x3x8xi8>) -> tensor<1x3x3x1xi8>, sym_name = "main"}> ({
  ^bb0(%x0: tensor<1x3x3x8xi8>):
    %zx = "tosa.const"() <{values = dense<3> : tensor<1xi8>}> : () -> tensor<1xi8>
    %zw = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    %z32 = "tosa.const"() <{values = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
    %zo = "tosa.const"() <{values = dense<-5> : tensor<1xi8>}> : () -> tensor<1xi8>
    %m = "tosa.const"() <{values = dense<1073741824> : tensor<1xi32>}> : () -> tensor<1xi32>
    %s = "tosa.const"() <{values = dense<36> : tensor<1xi8>}> : () -> tensor<1xi8>
    %w = "tosa.const"() <{values = dense<1> : tensor<1x3x3x8xi8>}> : () -> tensor<1x3x3x8xi8>
    %b = "tosa.const"() <{values = dense<[10]> : tensor<1xi32>}> : () -> tensor<1xi32>
    %acc = "tosa.conv2d"(%x0, %w, %b, %zx, %zw) <{acc_type = i32, dilation = array<i64: 1, 1>, pad = array<i64: 1, 1, 1, 1>, stride = array<i64: 1, 1>}> : (tensor<1x3x3x8xi8>, tensor<1x3x3x8xi8>, tensor<1xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x3x3x1xi32>
    %r = "tosa.rescale"(%acc, %m, %s, %z32, %zo) <{input_unsigned = false, output_unsigned = false, per_channel = false, rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>, scale32 = true}> : (tensor<1x3x3x1xi32>, tensor<1xi32>, tensor<1xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x3x3x1xi8>
    "func.return"(%r) : (tensor<1x3x3x1xi8>) -> ()
  }) : () -> ()
}) : () -> ()
