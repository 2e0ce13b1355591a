// RUN: form-stages,fuse-layers,schedule
// TARGET: x1
// What a rescale takes beyond 32 bits saturates, in the evaluator and on the machine.
module attributes {strata.level = "quant"} {
  func.func @main(%x: tensor<1x4x4x2xi32>) -> (tensor<1x4x4x2xi8>) {
    %m = "tosa.const"() <{values = dense<1073741824> : tensor<1xi32>}> : () -> tensor<1xi32>
    %s = "tosa.const"() <{values = dense<7> : tensor<1xi8>}> : () -> tensor<1xi8>
    %z32 = "tosa.const"() <{values = dense<0> : tensor<1xi32>}> : () -> tensor<1xi32>
    %zo = "tosa.const"() <{values = dense<-5> : tensor<1xi8>}> : () -> tensor<1xi8>
    %r = tosa.rescale %x, %m, %s, %z32, %zo {input_unsigned = false, output_unsigned = false, per_channel = false, rounding_mode = SINGLE_ROUND, scale32 = true} : (tensor<1x4x4x2xi32>, tensor<1xi32>, tensor<1xi8>, tensor<1xi32>, tensor<1xi8>) -> tensor<1x4x4x2xi8>
    return %r : tensor<1x4x4x2xi8>
  }
}
