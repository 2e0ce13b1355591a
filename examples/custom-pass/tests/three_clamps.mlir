module attributes {strata.level = "import"} {
  func.func @main(%x: tensor<1x4xf32>) -> (tensor<1x4xf32>) {
    %relu = tosa.clamp %x {max_val = 3.40282347e+38 : f32, min_val = 0.0 : f32, nan_mode = PROPAGATE}
        : (tensor<1x4xf32>) -> tensor<1x4xf32>
    %relu6 = tosa.clamp %relu {max_val = 6.0 : f32, min_val = 0.0 : f32, nan_mode = PROPAGATE}
        : (tensor<1x4xf32>) -> tensor<1x4xf32>
    %above = tosa.clamp %relu6 {max_val = 9.0 : f32, min_val = 7.0 : f32, nan_mode = PROPAGATE}
        : (tensor<1x4xf32>) -> tensor<1x4xf32>
    return %above : tensor<1x4xf32>
  }
}
