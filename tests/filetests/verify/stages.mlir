// RUN: verify
// A stage captures nothing, takes no constants as operands, and yields what it gives.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xi8>):
    %k = "tosa.const"() <{values = dense<1> : tensor<1x4x4x2xi8>}> : () -> tensor<1x4x4x2xi8>
    // expected-error@below {{operand 0 is a constant [E0206]}}
    %0 = "strata.stage"(%k) <{name = "constant"}> ({
    ^bb0(%y: tensor<1x4x4x2xi8>):
      // expected-error@below {{operand 0 is captured from outside a region that may capture nothing [E0203]}}
      %1 = "tosa.identity"(%x) : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
      "strata.yield"(%1) : (tensor<1x4x4x2xi8>) -> ()
    }) : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
    %2 = "strata.stage"(%x) <{name = "other"}> ({
    ^bb0(%z: tensor<1x4x4x2xi8>):
      %3 = "tosa.cast"(%z) : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi32>
      // expected-error@below {{`strata.stage` gives tensor<1x4x4x2xi8> [E0206]}}
      "strata.yield"(%3) : (tensor<1x4x4x2xi32>) -> ()
    }) : (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>
    "func.return"(%2) : (tensor<1x4x4x2xi8>) -> ()
  }) : () -> ()
}) : () -> ()
