// What `small.tosa` holds: `tosa-opt small.mlir --tosa-serialize --tosa-flatbuffer-filename=small.tosa` wrote it.
module {
  func.func @main(%arg0: tensor<1x4x4x2xi8>) -> (tensor<1x4x4x4xi8>, tensor<1x2x2xi32>) {
    %0 = tosa.max_pool2d %arg0 {kernel = array<i64: 2, 2>, nan_mode = IGNORE, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 2, 2>} : (tensor<1x4x4x2xi8>) -> tensor<1x2x2x2xi8>
    %1 = "tosa.const"() <{values = dense<1073741824> : tensor<1xi32>}> : () -> tensor<1xi32>
    %2 = "tosa.const"() <{values = dense<31> : tensor<1xi8>}> : () -> tensor<1xi8>
    %3 = "tosa.const"() <{values = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
    %4 = "tosa.const"() <{values = dense<-3> : tensor<1xi8>}> : () -> tensor<1xi8>
    %5 = "tosa.const"() <{values = dense<0> : tensor<1xi8>}> : () -> tensor<1xi8>
    %6 = "tosa.const"() <{values = dense<[[[[1, -2]]], [[[3, 4]]]]> : tensor<2x1x1x2xi8>}> : () -> tensor<2x1x1x2xi8>
    %7 = "tosa.const"() <{values = dense<[10, -20]> : tensor<2xi32>}> : () -> tensor<2xi32>
    %8 = tosa.conv2d %0, %6, %7, %4, %5 {acc_type = i32, dilation = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 1, 1>} : (tensor<1x2x2x2xi8>, tensor<2x1x1x2xi8>, tensor<2xi32>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x2x2x2xi32>
    %9 = tosa.rescale %8, %1, %2, %3, %4 {input_unsigned = false, output_unsigned = false, per_channel = false, rounding_mode = SINGLE_ROUND, scale32 = true} : (tensor<1x2x2x2xi32>, tensor<1xi32>, tensor<1xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x2x2x2xi8>
    %10 = tosa.clamp %9 {max_val = 70 : i8, min_val = -50 : i8} : (tensor<1x2x2x2xi8>) -> tensor<1x2x2x2xi8>
    %11 = tosa.argmax %10 {axis = 3 : i32, nan_mode = IGNORE} : (tensor<1x2x2x2xi8>) -> tensor<1x2x2xi32>
    %12 = tosa.concat %10, %0 {axis = 3 : i32} : (tensor<1x2x2x2xi8>, tensor<1x2x2x2xi8>) -> tensor<1x2x2x4xi8>
    %13 = tosa.transpose %12 {perms = array<i32: 0, 2, 1, 3>} : (tensor<1x2x2x4xi8>) -> tensor<1x2x2x4xi8>
    %14 = tosa.const_shape {values = dense<[4, 2, 4, 2]> : tensor<4xindex>} : () -> !tosa.shape<4>
    %15 = tosa.const_shape {values = dense<-1> : tensor<2xindex>} : () -> !tosa.shape<2>
    %16 = tosa.const_shape {values = dense<1> : tensor<2xindex>} : () -> !tosa.shape<2>
    %17 = tosa.resize %13, %14, %15, %16 {mode = NEAREST_NEIGHBOR} : (tensor<1x2x2x4xi8>, !tosa.shape<4>, !tosa.shape<2>, !tosa.shape<2>) -> tensor<1x4x4x4xi8>
    return %17, %11 : tensor<1x4x4x4xi8>, tensor<1x2x2xi32>
  }
}
