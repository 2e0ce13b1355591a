// RUN: merge-clamps
// The pass takes modules of the first levels only.
// expected-error@unknown {{takes import or quant, the module is at stages}}
module attributes {strata.level = "stages"} {
  func.func @main(%x: tensor<1x4xi8>) -> (tensor<1x4xi8>) {
    return %x : tensor<1x4xi8>
  }
}

// -----

module attributes {strata.level = "quant"} {
  func.func @main(%x: tensor<1x4xi8>) -> (tensor<1x5xi8>) {
    // expected-error@below {{the result type is tensor<1x5xi8>, it must be tensor<1x4xi8>}}
    %y = tosa.clamp %x {max_val = 100 : i8, min_val = 0 : i8, nan_mode = PROPAGATE}
        : (tensor<1x4xi8>) -> tensor<1x5xi8>
    return %y : tensor<1x5xi8>
  }
}
