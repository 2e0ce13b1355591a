// RUN: canonicalise
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x2x3x4xf32>) -> tensor<2x12xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x2x3x4xf32>):
    %s = "tosa.const_shape"() <{values = dense<[6, 4]> : tensor<2xindex>}> : () -> !tosa.shape<2>
    %u = "tosa.const_shape"() <{values = dense<[2, 12]> : tensor<2xindex>}> : () -> !tosa.shape<2>
    %0 = "tosa.reshape"(%x, %s) : (tensor<1x2x3x4xf32>, !tosa.shape<2>) -> tensor<6x4xf32>
    %1 = "tosa.reshape"(%0, %u) : (tensor<6x4xf32>, !tosa.shape<2>) -> tensor<2x12xf32>
    "func.return"(%1) : (tensor<2x12xf32>) -> ()
  }) : () -> ()
}) : () -> ()
