// RUN: form-stages,fuse-layers{objective=traffic},schedule
// TARGET: micro memory.activation=640B
// The second strip finds the tables loaded, and loads the columns of the first that it needs.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x64x4xi8>) -> (tensor<1x4x64x3xi8>, tensor<1x2x32x2xi8>), sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x64x4xi8>):
    %w0 = "tosa.const"() <{values = dense<[[[[2, -1, 1, 0]]], [[[0, 3, -2, 1]]], [[[1, 1, 0, -1]]]]> : tensor<3x1x1x4xi8>}> : () -> tensor<3x1x1x4xi8>
    %b0 = "tosa.const"() <{values = dense<[10, -20, 0]> : tensor<3xi32>}> : () -> tensor<3xi32>
    %w1 = "tosa.const"() <{values = dense<[[[[1, 2, -1], [0, 1, 3], [-2, 1, 0]]], [[[1, -1, 1], [2, 0, 1], [0, 0, -3]]]]> : tensor<2x1x3x3xi8>}> : () -> tensor<2x1x3x3xi8>
    %b1 = "tosa.const"() <{values = dense<[5, -7]> : tensor<2xi32>}> : () -> tensor<2xi32>
    %zx = "tosa.const"() <{values = dense<3> : tensor<1xi8>}> : () -> tensor<1xi8>
    %zw = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    %z32 = "tosa.const"() <{values = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
    %zo = "tosa.const"() <{values = dense<-5> : tensor<1xi8>}> : () -> tensor<1xi8>
    %m = "tosa.const"() <{values = dense<1073741824> : tensor<1xi32>}> : () -> tensor<1xi32>
    %s = "tosa.const"() <{values = dense<31> : tensor<1xi8>}> : () -> tensor<1xi8>
    %acc0 = "tosa.conv2d"(%x, %w0, %b0, %zx, %zw) <{acc_type = i32, dilation = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 1, 1>}> : (tensor<1x4x64x4xi8>, tensor<3x1x1x4xi8>, tensor<3xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x4x64x3xi32>
    %r0 = "tosa.rescale"(%acc0, %m, %s, %z32, %zo) <{input_unsigned = false, output_unsigned = false, per_channel = false, rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>, scale32 = true}> : (tensor<1x4x64x3xi32>, tensor<1xi32>, tensor<1xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x4x64x3xi8>
    %acc1 = "tosa.conv2d"(%r0, %w1, %b1, %zo, %zw) <{acc_type = i32, dilation = array<i64: 1, 1>, pad = array<i64: 0, 0, 1, 1>, stride = array<i64: 1, 1>}> : (tensor<1x4x64x3xi8>, tensor<2x1x3x3xi8>, tensor<2xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x4x64x2xi32>
    %r1 = "tosa.rescale"(%acc1, %m, %s, %z32, %zo) <{input_unsigned = false, output_unsigned = false, per_channel = false, rounding_mode = #tosa.rounding_mode<SINGLE_ROUND>, scale32 = true}> : (tensor<1x4x64x2xi32>, tensor<1xi32>, tensor<1xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x4x64x2xi8>
    %p = "tosa.max_pool2d"(%r1) <{kernel = array<i64: 2, 3>, pad = array<i64: 0, 0, 1, 0>, stride = array<i64: 2, 2>}> : (tensor<1x4x64x2xi8>) -> tensor<1x2x32x2xi8>
    "func.return"(%r0, %p) : (tensor<1x4x64x3xi8>, tensor<1x2x32x2xi8>) -> ()
  }) : () -> ()
}) : () -> ()
