// RUN: form-stages
// A pool over the whole image becomes reductions over columns and then rows, which hold a row of the image, not all of it.
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x5x7x3xi8>) -> (tensor<1x1x1x3xi8>, tensor<1x1x1x3xi8>), sym_name = "main"}> ({
  ^bb0(%x: tensor<1x5x7x3xi8>):
    %zi = "tosa.const"() <{values = dense<-9> : tensor<1xi8>}> : () -> tensor<1xi8>
    %zo = "tosa.const"() <{values = dense<4> : tensor<1xi8>}> : () -> tensor<1xi8>
    %mean = "tosa.avg_pool2d"(%x, %zi, %zo) <{acc_type = i32, kernel = array<i64: 5, 7>, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 1, 1>}> : (tensor<1x5x7x3xi8>, tensor<1xi8>, tensor<1xi8>) -> tensor<1x1x1x3xi8>
    %most = "tosa.max_pool2d"(%x) <{kernel = array<i64: 5, 7>, pad = array<i64: 0, 0, 0, 0>, stride = array<i64: 2, 2>}> : (tensor<1x5x7x3xi8>) -> tensor<1x1x1x3xi8>
    "func.return"(%mean, %most) : (tensor<1x1x1x3xi8>, tensor<1x1x1x3xi8>) -> ()
  }) : () -> ()
}) : () -> ()
