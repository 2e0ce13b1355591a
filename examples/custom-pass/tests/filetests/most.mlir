// RUN: merge-clamps{most=1}
// Of three clamps that follow each other the first two become one.
module attributes {strata.level = "quant"} {
  func.func @main(%x: tensor<1x4xi8>) -> (tensor<1x4xi8>) {
    %first = tosa.clamp %x {max_val = 100 : i8, min_val = -100 : i8, nan_mode = PROPAGATE}
        : (tensor<1x4xi8>) -> tensor<1x4xi8>
    %second = tosa.clamp %first {max_val = 120 : i8, min_val = 0 : i8, nan_mode = PROPAGATE}
        : (tensor<1x4xi8>) -> tensor<1x4xi8>
    %third = tosa.clamp %second {max_val = 50 : i8, min_val = 0 : i8, nan_mode = PROPAGATE}
        : (tensor<1x4xi8>) -> tensor<1x4xi8>
    return %third : tensor<1x4xi8>
  }
}
// OUTPUT:
// // merge-clamps: changed, merged: 1
// module attributes {strata.level = "quant"} {
//   func.func @main(%arg0: tensor<1x4xi8>) -> (tensor<1x4xi8>) {
//     %clamp = tosa.clamp %arg0 {max_val = 100 : i8, min_val = -100 : i8, nan_mode = PROPAGATE}
//         : (tensor<1x4xi8>) -> tensor<1x4xi8>
//     %clamp_1 = tosa.clamp %arg0 {max_val = 100 : i8, min_val = 0 : i8, nan_mode = PROPAGATE}
//         : (tensor<1x4xi8>) -> tensor<1x4xi8>
//     %clamp_2 = tosa.clamp %clamp_1 {max_val = 50 : i8, min_val = 0 : i8, nan_mode = PROPAGATE}
//         : (tensor<1x4xi8>) -> tensor<1x4xi8>
//     return %clamp_2 : tensor<1x4xi8>
//   }
// }
