// RUN: form-stages,split-channels
// expected-error@unknown {{needs a target, or a budget}}
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xi8>) -> tensor<1x2x2x3xi8>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xi8>):
    %w = "tosa.const"() <{values = dense<[[[[2, -1]]], [[[0, 3]]], [[[1, 1]]]]> : tensor<3x1x1x2xi8>}> : () -> tensor<3x1x1x2xi8>
    %b = "tosa.const"() <{values = dense<[10, -20, 0]> : tensor<3xi32>}> : () -> tensor<3xi32>
    %zx = "tosa.const"() <{values = dense<3> : tensor<1xi8>}> : () -> tensor<1xi8>
    %zw = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    %z32 = "tosa.const"() <{values = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
    %zo = "tosa.const"() <{values = dense<-5> : tensor<1xi8>}> : () -> tensor<1xi8>
    %m = "tosa.const"() <{values = dense<1073741824> : tensor<1xi32>}> : () -> tensor<1xi32>
    %s = "tosa.const"() <{values = dense<31> : tensor<1xi8>}> : () -> tensor<1xi8>
    %acc = "tosa.conv2d"(%x, %w, %b, %zx, %zw) <{acc_type = i32, dilation = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 1, 1>}> : (tensor<1x4x4x2xi8>, tensor<3x1x1x2xi8>, tensor<3xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x4x4x3xi32>
    %r = "tosa.rescale"(%acc, %m, %s, %z32, %zo) <{input_unsigned = false, output_unsigned = false, per_channel = false, rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>, scale32 = true}> : (tensor<1x4x4x3xi32>, tensor<1xi32>, tensor<1xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x4x4x3xi8>
    %c = "tosa.clamp"(%r) <{max_val = 100 : i8, min_val = -5 : i8}> : (tensor<1x4x4x3xi8>) -> tensor<1x4x4x3xi8>
    %p = "tosa.max_pool2d"(%c) <{kernel = array<i64: 2, 2>, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 2, 2>}> : (tensor<1x4x4x3xi8>) -> tensor<1x2x2x3xi8>
    "func.return"(%p) : (tensor<1x2x2x3xi8>) -> ()
  }) : () -> ()
}) : () -> ()
