// RUN: canonicalise
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xi8>):
    %0 = "tosa.identity"(%x) : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
    %at = "tosa.const_shape"() <{values = dense<[0, 0, 0, 0]> : tensor<4xindex>}> : () -> !tosa.shape<4>
    %size = "tosa.const_shape"() <{values = dense<[1, 4, 4, 2]> : tensor<4xindex>}> : () -> !tosa.shape<4>
    %1 = "tosa.slice"(%0, %at, %size) : (tensor<1x4x4x2xi8>, !tosa.shape<4>, !tosa.shape<4>) -> tensor<1x4x4x2xi8>
    %2 = "tosa.concat"(%1) <{axis = 3 : i32}> : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
    %3 = "tosa.clamp"(%2) <{max_val = 10 : i8, min_val = -10 : i8}> : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
    "func.return"(%3) : (tensor<1x4x4x2xi8>) -> ()
  }) : () -> ()
}) : () -> ()
