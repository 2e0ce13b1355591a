"""An int8 TFLite file of a network of Strata's zoo, for compilers that read nothing else.

Shapes, strides and weights are those of the ONNX file, its batch normalisation folded; weights are quantised a channel each.
Activations all have one scale: what a compiler makes of the file's shapes does not depend on their values, and nothing
is ever run. Padding is TFLite's SAME or VALID, which can differ from the ONNX file's by where a border stands.
"""

import math

import flatbuffers
import numpy
import onnx
from ethosu.vela.tflite import (
    AddOptions,
    Buffer,
    ConcatenationOptions,
    Conv2DOptions,
    DepthwiseConv2DOptions,
    FullyConnectedOptions,
    LeakyReluOptions,
    Model,
    Operator,
    OperatorCode,
    Pool2DOptions,
    QuantizationParameters,
    ReducerOptions,
    ReshapeOptions,
    ResizeNearestNeighborOptions,
    SubGraph,
    Tensor,
    TransposeConvOptions,
)
from ethosu.vela.tflite.ActivationFunctionType import ActivationFunctionType
from ethosu.vela.tflite.BuiltinOperator import BuiltinOperator
from ethosu.vela.tflite.BuiltinOptions import BuiltinOptions
from ethosu.vela.tflite.Padding import Padding
from ethosu.vela.tflite.TensorType import TensorType

ACTIVATION_SCALE = 0.05
TYPES = {numpy.dtype("int8"): TensorType.INT8, numpy.dtype("int32"): TensorType.INT32}


class Unsupported(Exception):
    """A node that has no form here."""


class File:
    """A TFLite model with one subgraph, under construction."""

    def __init__(self):
        self.builder = flatbuffers.Builder(1 << 20)
        self.buffers = [self._buffer(None)]
        self.tensors, self.operators, self.codes = [], [], {}
        self.shapes = []

    def _table(self, module, name, **fields):
        getattr(module, f"{name}Start")(self.builder)
        for field, value in fields.items():
            if value is not None:
                getattr(module, f"{name}Add{field}")(self.builder, value)
        return getattr(module, f"{name}End")(self.builder)

    def _vector(self, values, start):
        start(self.builder, len(values))
        for value in reversed(values):
            self.builder.PrependUOffsetTRelative(value)
        return self.builder.EndVector()

    def _buffer(self, data):
        vector = None if data is None else self.builder.CreateByteVector(numpy.ascontiguousarray(data).tobytes())
        return self._table(Buffer, "Buffer", Data=vector)

    def tensor(self, name, shape, data=None, scales=None, axis=0):
        """A tensor; an activation has no data."""
        quantisation = None
        if scales is not None or data is None:
            scales = numpy.asarray([ACTIVATION_SCALE] if scales is None else scales, numpy.float32)
            scale = self.builder.CreateNumpyVector(scales)
            zero = self.builder.CreateNumpyVector(numpy.zeros(len(scales), numpy.int64))
            quantisation = self._table(
                QuantizationParameters, "QuantizationParameters", Scale=scale, ZeroPoint=zero, QuantizedDimension=axis
            )
        buffer = 0
        if data is not None:
            buffer = len(self.buffers)
            self.buffers.append(self._buffer(data))
        title = self.builder.CreateString(name)
        extents = self.builder.CreateNumpyVector(numpy.asarray(shape, numpy.int32))
        kind = TensorType.INT8 if data is None else TYPES[data.dtype]
        self.tensors.append(
            self._table(
                Tensor, "Tensor", Shape=extents, Type=kind, Buffer=buffer, Name=title, Quantization=quantisation
            )
        )
        self.shapes.append(tuple(shape))
        return len(self.tensors) - 1

    def weights(self, name, values, axis):
        """A tensor of weights, quantised along an axis, and the scale of each channel."""
        others = tuple(a for a in range(values.ndim) if a != axis)
        scales = numpy.maximum(numpy.abs(values).max(axis=others), 1e-6) / 127
        spread = scales.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        data = numpy.clip(numpy.rint(values / spread), -127, 127).astype(numpy.int8)
        return self.tensor(name, values.shape, data, scales, axis), scales

    def bias(self, name, values, scales):
        steps = scales * ACTIVATION_SCALE
        return self.tensor(name, values.shape, numpy.rint(values / steps).astype(numpy.int32), steps)

    def operator(self, code, inputs, output, options=None, kind=0, **fields):
        number = self.codes.setdefault(code, len(self.codes))
        built = self._table(options, options.__name__.rsplit(".", 1)[-1], **fields) if options else None
        reads = self.builder.CreateNumpyVector(numpy.asarray(inputs, numpy.int32))
        writes = self.builder.CreateNumpyVector(numpy.asarray([output], numpy.int32))
        self.operators.append(
            self._table(
                Operator,
                "Operator",
                OpcodeIndex=number,
                Inputs=reads,
                Outputs=writes,
                BuiltinOptionsType=kind if options else None,
                BuiltinOptions=built,
            )
        )

    def finish(self, inputs, outputs):
        """The file's bytes."""
        codes = [
            self._table(OperatorCode, "OperatorCode", DeprecatedBuiltinCode=min(code, 127), BuiltinCode=code, Version=1)
            for code in self.codes
        ]
        tensors = self._vector(self.tensors, SubGraph.SubGraphStartTensorsVector)
        operators = self._vector(self.operators, SubGraph.SubGraphStartOperatorsVector)
        reads = self.builder.CreateNumpyVector(numpy.asarray(inputs, numpy.int32))
        writes = self.builder.CreateNumpyVector(numpy.asarray(outputs, numpy.int32))
        graph = self._table(
            SubGraph, "SubGraph", Tensors=tensors, Inputs=reads, Outputs=writes, Operators=operators
        )
        graphs = self._vector([graph], Model.ModelStartSubgraphsVector)
        kinds = self._vector(codes, Model.ModelStartOperatorCodesVector)
        buffers = self._vector(self.buffers, Model.ModelStartBuffersVector)
        model = self._table(Model, "Model", Version=3, OperatorCodes=kinds, Subgraphs=graphs, Buffers=buffers)
        self.builder.Finish(model, b"TFL3")
        return bytes(self.builder.Output())


class Convert:
    """The nodes of an ONNX graph, one after another."""

    def __init__(self, model):
        self.graph, self.file = model.graph, File()
        self.constants = {c.name: onnx.numpy_helper.to_array(c) for c in self.graph.initializer}
        self.readers = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in self.graph.output}
        self.values, self.done = {}, set()

    def run(self):
        inputs = []
        for port in self.graph.input:
            if port.name in self.constants:
                continue
            n, c, h, w = (d.dim_value for d in port.type.tensor_type.shape.dim)
            self.values[port.name] = self.file.tensor(port.name, (n, h, w, c))
            inputs.append(self.values[port.name])
        for node in self.graph.node:
            if node.name not in self.done:
                getattr(self, node.op_type, self.refuse)(node)
        return self.file.finish(inputs, [self.values[output.name] for output in self.graph.output])

    def refuse(self, node):
        raise Unsupported(f"{node.op_type} `{node.name}`")

    def shape(self, name):
        return self.file.shapes[self.values[name]]

    def alone(self, node, kinds):
        """The only reader of a node's result, if it is of one of these kinds."""
        readers = self.readers.get(node.output[0], [])
        fits = len(readers) == 1 and readers[0].op_type in kinds and node.output[0] not in self.outputs
        return readers[0] if fits else None

    def fused(self, node):
        """The activation that follows a node at once, as TFLite has it in the operator; and the name of the result."""
        then = self.alone(node, ["Relu", "Clip"])
        if then is None:
            return ActivationFunctionType.NONE, node.output[0]
        self.done.add(then.name)
        is_relu = then.op_type == "Relu"
        return ActivationFunctionType.RELU if is_relu else ActivationFunctionType.RELU6, then.output[0]

    def normalised(self, node, weights, bias):
        """Weights and bias with the batch normalisation that follows, and the node after which all that holds."""
        norm = self.alone(node, ["BatchNormalization"])
        if norm is None:
            return weights, bias, node
        self.done.add(norm.name)
        scale, shift, mean, variance = (self.constants[name] for name in norm.input[1:5])
        epsilon = attributes(norm).get("epsilon", 1e-5)
        gain = scale / numpy.sqrt(variance + epsilon)
        return weights * gain.reshape(-1, 1, 1, 1), (bias - mean) * gain + shift, norm

    def Conv(self, node):
        a = attributes(node)
        weights = self.constants[node.input[1]]
        bias = self.constants[node.input[2]] if len(node.input) > 2 else numpy.zeros(len(weights), numpy.float32)
        weights, bias, last = self.normalised(node, weights, bias)
        activation, result = self.fused(last)
        stride, (n, h, w, c) = a.get("strides", [1, 1]), self.shape(node.input[0])
        same = any(a.get("pads", [0])) or tuple(weights.shape[2:]) == (1, 1)
        kernel = weights.shape[2:]
        extents = [
            math.ceil(x / s) if same else (x - k) // s + 1 for x, s, k in zip((h, w), stride, kernel, strict=True)
        ]
        output = self.file.tensor(result, (n, *extents, len(weights)))
        options = dict(
            Padding=Padding.SAME if same else Padding.VALID,
            StrideH=stride[0],
            StrideW=stride[1],
            DilationHFactor=1,
            DilationWFactor=1,
            FusedActivationFunction=activation,
        )
        if a.get("group", 1) == 1:
            table, scales = self.file.weights(f"{node.name}.w", weights.transpose(0, 2, 3, 1), 0)
            code, module, kind = BuiltinOperator.CONV_2D, Conv2DOptions, BuiltinOptions.Conv2DOptions
        elif a["group"] == c and len(weights) == c:
            table, scales = self.file.weights(f"{node.name}.w", weights.transpose(1, 2, 3, 0), 3)
            code, module = BuiltinOperator.DEPTHWISE_CONV_2D, DepthwiseConv2DOptions
            kind, options["DepthMultiplier"] = BuiltinOptions.DepthwiseConv2DOptions, 1
        else:
            raise Unsupported(f"groups of `{node.name}`")
        inputs = [self.values[node.input[0]], table, self.file.bias(f"{node.name}.b", bias, scales)]
        self.file.operator(code, inputs, output, module, kind, **options)
        self.values[result] = output

    def ConvTranspose(self, node):
        a = attributes(node)
        weights = self.constants[node.input[1]]
        stride, (n, h, w, _) = a["strides"], self.shape(node.input[0])
        table, scales = self.file.weights(f"{node.name}.w", weights.transpose(1, 2, 3, 0), 0)
        bias = self.constants[node.input[2]] if len(node.input) > 2 else numpy.zeros(weights.shape[1], numpy.float32)
        activation, result = self.fused(node)
        shape = (n, h * stride[0], w * stride[1], weights.shape[1])
        output = self.file.tensor(result, shape)
        extents = self.file.tensor(f"{node.name}.shape", (4,), numpy.asarray(shape, numpy.int32))
        self.file.operator(
            BuiltinOperator.TRANSPOSE_CONV,
            [extents, table, self.values[node.input[0]], self.file.bias(f"{node.name}.b", bias, scales)],
            output,
            TransposeConvOptions,
            BuiltinOptions.TransposeConvOptions,
            Padding=Padding.SAME,
            StrideH=stride[0],
            StrideW=stride[1],
            FusedActivationFunction=activation,
        )
        self.values[result] = output

    def Gemm(self, node):
        weights, bias = (self.constants[name] for name in node.input[1:3])
        if not attributes(node).get("transB"):
            weights = weights.T
        source = self.values[node.input[0]]
        self.expect_flat(node)
        activation, result = self.fused(node)
        table, scales = self.file.weights(f"{node.name}.w", weights, 0)
        # Fully connected layers have one scale for all rows.
        output = self.file.tensor(result, (1, len(weights)))
        self.file.operator(
            BuiltinOperator.FULLY_CONNECTED,
            [source, table, self.file.bias(f"{node.name}.b", bias, scales)],
            output,
            FullyConnectedOptions,
            BuiltinOptions.FullyConnectedOptions,
            FusedActivationFunction=activation,
        )
        self.values[result] = output

    def expect_flat(self, node):
        if len(self.shape(node.input[0])) != 2:
            raise Unsupported(f"`{node.name}` reads a tensor of {len(self.shape(node.input[0]))} axes")

    def Flatten(self, node):
        shape = (1, math.prod(self.shape(node.input[0])))
        output = self.file.tensor(node.output[0], shape)
        extents = self.file.tensor(f"{node.name}.shape", (2,), numpy.asarray(shape, numpy.int32))
        self.file.operator(
            BuiltinOperator.RESHAPE,
            [self.values[node.input[0]], extents],
            output,
            ReshapeOptions,
            BuiltinOptions.ReshapeOptions,
        )
        self.values[node.output[0]] = output

    def pointwise(self, node, code, result=None, more=(), options=None, kind=0, **fields):
        output = self.file.tensor(result or node.output[0], self.shape(node.input[0]))
        inputs = [self.values[node.input[0]], *more]
        self.file.operator(code, inputs, output, options, kind, **fields)
        self.values[result or node.output[0]] = output

    def Relu(self, node):
        self.pointwise(node, BuiltinOperator.RELU)

    def Clip(self, node):
        self.pointwise(node, BuiltinOperator.RELU6)

    def LeakyRelu(self, node):
        alpha = attributes(node).get("alpha", 0.01)
        kind = BuiltinOptions.LeakyReluOptions
        self.pointwise(node, BuiltinOperator.LEAKY_RELU, options=LeakyReluOptions, kind=kind, Alpha=alpha)

    def PRelu(self, node):
        slopes = self.constants[node.input[1]].reshape(1, 1, -1)
        scale = max(float(numpy.abs(slopes).max()), 1e-6) / 127
        data = numpy.rint(slopes / scale).astype(numpy.int8)
        table = self.file.tensor(f"{node.name}.slopes", data.shape, data, [scale])
        self.pointwise(node, BuiltinOperator.PRELU, more=[table])

    def Add(self, node):
        activation, result = self.fused(node)
        self.pointwise(
            node,
            BuiltinOperator.ADD,
            result,
            [self.values[node.input[1]]],
            AddOptions,
            BuiltinOptions.AddOptions,
            FusedActivationFunction=activation,
        )

    def Concat(self, node):
        shapes = [self.shape(name) for name in node.input]
        output = self.file.tensor(node.output[0], (*shapes[0][:3], sum(s[3] for s in shapes)))
        self.file.operator(
            BuiltinOperator.CONCATENATION,
            [self.values[name] for name in node.input],
            output,
            ConcatenationOptions,
            BuiltinOptions.ConcatenationOptions,
            Axis=3,
        )
        self.values[node.output[0]] = output

    def MaxPool(self, node):
        a = attributes(node)
        kernel, stride = a["kernel_shape"], a.get("strides", [1, 1])
        same = any(a.get("pads", [0])) or a.get("auto_pad", b"").startswith(b"SAME")
        n, h, w, c = self.shape(node.input[0])
        extents = [
            math.ceil(x / s) if same else (x - k) // s + 1 for x, s, k in zip((h, w), stride, kernel, strict=True)
        ]
        output = self.file.tensor(node.output[0], (n, *extents, c))
        self.file.operator(
            BuiltinOperator.MAX_POOL_2D,
            [self.values[node.input[0]]],
            output,
            Pool2DOptions,
            BuiltinOptions.Pool2DOptions,
            Padding=Padding.SAME if same else Padding.VALID,
            StrideH=stride[0],
            StrideW=stride[1],
            FilterHeight=kernel[0],
            FilterWidth=kernel[1],
        )
        self.values[node.output[0]] = output

    def GlobalAveragePool(self, node):
        n, _, _, c = self.shape(node.input[0])
        output = self.file.tensor(node.output[0], (n, 1, 1, c))
        axes = self.file.tensor(f"{node.name}.axes", (2,), numpy.asarray([1, 2], numpy.int32))
        self.file.operator(
            BuiltinOperator.MEAN,
            [self.values[node.input[0]], axes],
            output,
            ReducerOptions,
            BuiltinOptions.ReducerOptions,
            KeepDims=True,
        )
        self.values[node.output[0]] = output

    def Resize(self, node):
        if attributes(node)["mode"] != b"nearest":
            self.refuse(node)
        factors = self.constants[node.input[2]]
        n, h, w, c = self.shape(node.input[0])
        extents = [int(h * factors[2]), int(w * factors[3])]
        output = self.file.tensor(node.output[0], (n, *extents, c))
        size = self.file.tensor(f"{node.name}.size", (2,), numpy.asarray(extents, numpy.int32))
        self.file.operator(
            BuiltinOperator.RESIZE_NEAREST_NEIGHBOR,
            [self.values[node.input[0]], size],
            output,
            ResizeNearestNeighborOptions,
            BuiltinOptions.ResizeNearestNeighborOptions,
        )
        self.values[node.output[0]] = output


def attributes(node):
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def convert(path):
    """The TFLite bytes of an ONNX file of the zoo."""
    return Convert(onnx.load(path)).run()
