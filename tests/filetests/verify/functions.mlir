// RUN: verify
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xi8>):
    %0 = "tosa.cast"(%x) : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi32>
    // expected-error@below {{returns tensor<1x4x4x2xi32>, the function's type gives tensor<1x4x4x2xi8> [E0205]}}
    "func.return"(%0) : (tensor<1x4x4x2xi32>) -> ()
  }) : () -> ()
}) : () -> ()
