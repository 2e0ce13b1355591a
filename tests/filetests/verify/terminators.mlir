// RUN: verify
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xi8>) -> tensor<1x4x4x2xi8>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xi8>):
    // expected-error@below {{`func.return` must end its block [E0204]}}
    "func.return"(%x) : (tensor<1x4x4x2xi8>) -> ()
    // expected-error@below {{`strata.yield` must stand in a stage or a phase [E0202]}}
    // expected-error@below {{`strata.yield` must end its block [E0204]}}
    "strata.yield"(%x) : (tensor<1x4x4x2xi8>) -> ()
    "func.return"(%x) : (tensor<1x4x4x2xi8>) -> ()
  }) : () -> ()
}) : () -> ()
