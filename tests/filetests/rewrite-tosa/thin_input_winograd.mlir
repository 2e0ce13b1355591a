// RUN: rewrite-tosa{families=thin-input,take=every},form-stages
// TARGET: x1
// A 5x5 window is 3x3 in blocks of 2x2 pixels, which Winograd takes; the blocks of the result are spread out last.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x4xi8>) -> tensor<1x4x4x1xi8>, sym_name = "main"}> ({
  ^bb0(%x0: tensor<1x4x4x4xi8>):
    %zx = "tosa.const"() <{values = dense<3> : tensor<1xi8>}> : () -> tensor<1xi8>
    %zw = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    %z32 = "tosa.const"() <{values = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
    %zo = "tosa.const"() <{values = dense<-5> : tensor<1xi8>}> : () -> tensor<1xi8>
    %m = "tosa.const"() <{values = dense<1073741824> : tensor<1xi32>}> : () -> tensor<1xi32>
    %s = "tosa.const"() <{values = dense<36> : tensor<1xi8>}> : () -> tensor<1xi8>
    %w = "tosa.const"() <{values = dense<1> : tensor<1x5x5x4xi8>}> : () -> tensor<1x5x5x4xi8>
    %b = "tosa.const"() <{values = dense<[10]> : tensor<1xi32>}> : () -> tensor<1xi32>
    %acc = "tosa.conv2d"(%x0, %w, %b, %zx, %zw) <{acc_type = i32, dilation = array<i64: 1, 1>, pad = array<i64: 2, 2, 2, 2>, stride = array<i64: 1, 1>}> : (tensor<1x4x4x4xi8>, tensor<1x5x5x4xi8>, tensor<1xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x4x4x1xi32>
    %r = "tosa.rescale"(%acc, %m, %s, %z32, %zo) <{input_unsigned = false, output_unsigned = false, per_channel = false, rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>, scale32 = true}> : (tensor<1x4x4x1xi32>, tensor<1xi32>, tensor<1xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x4x4x1xi8>
    "func.return"(%r) : (tensor<1x4x4x1xi8>) -> ()
  }) : () -> ()
}) : () -> ()
