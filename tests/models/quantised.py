#!/usr/bin/env python3
"""Quantise a float model with onnxruntime's own quantiser, calibrated on the fetched pictures.

usage: quantised.py SCHEME MODEL.onnx OUT.onnx

The pictures are taken from the directory of MODEL.onnx. SCHEME is one of:

  qdq_s8      QuantizeLinear and DequantizeLinear, activations i8, weights i8 with a scale a channel
  qdq_u8s8    the same, activations u8
  qdq_u8u8    the same, activations u8, weights u8 with a zero point and one scale a tensor
  qop_u8s8    QLinear operators, activations u8, weights i8 with one scale a tensor
  dynamic     ConvInteger and MatMulInteger, activations quantised at run time

Needs numpy, onnx, onnxruntime and pillow.
"""
import logging
import pathlib
import sys
import tempfile

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from PIL import Image

# The first operator set whose quantisation has a scale a channel.
OPSET = 13
PICTURES = ["astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg"]
# Shape, mean, factor and order of colours of the input of each model, by file name.
INPUTS = {
    "efficientnet_lite0": ([1, 3, 224, 224], 127.0, 1 / 128, "RGB"),
    "ppocr_cls": ([1, 3, 48, 192], 127.5, 1 / 127.5, "BGR"),
    "centerface": ([1, 3, 320, 320], 0.0, 1.0, "RGB"),
    "waifu2x_upconv7": ([1, 3, 64, 64], 0.0, 1 / 255, "RGB"),
}
SCHEMES = {
    "qdq_s8": (QuantFormat.QDQ, QuantType.QInt8, QuantType.QInt8, True),
    "qdq_u8s8": (QuantFormat.QDQ, QuantType.QUInt8, QuantType.QInt8, True),
    "qdq_u8u8": (QuantFormat.QDQ, QuantType.QUInt8, QuantType.QUInt8, False),
    "qop_u8s8": (QuantFormat.QOperator, QuantType.QUInt8, QuantType.QInt8, False),
}


def sample(path, shape, mean, factor, order):
    """A picture as the model takes it."""
    image = Image.open(path).convert("RGB").resize((shape[3], shape[2]), Image.Resampling.BILINEAR)
    array = np.asarray(image, np.float32)
    array = array[..., ::-1] if order == "BGR" else array
    return np.ascontiguousarray(((array - mean) * np.float32(factor)).transpose(2, 0, 1)[None], np.float32)


class Pictures(CalibrationDataReader):
    """One sample a picture."""

    def __init__(self, name, samples):
        self.feeds = iter([{name: array} for array in samples])

    def get_next(self):
        return next(self.feeds, None)


def prepared(source, shape, folder):
    """The model with the shape of its input fixed and batch normalisation folded, and the name of its input."""
    model = onnx.load(source)
    # From version 4 of the format on, initialisers need not be inputs.
    model.ir_version = max(model.ir_version, 8)
    if model.opset_import[0].version < OPSET:
        model = onnx.version_converter.convert_version(model, OPSET)
    filled = {tensor.name for tensor in model.graph.initializer}
    [port] = [port for port in model.graph.input if port.name not in filled]
    del port.type.tensor_type.shape.dim[:]
    for extent in shape:
        port.type.tensor_type.shape.dim.add().dim_value = extent
    del model.graph.value_info[:]
    kept = [port for port in model.graph.input if port.name not in filled]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "prepared.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return folder / "prepared.onnx", port.name


def main():
    scheme, source, target = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    shape, mean, factor, order = INPUTS[source.stem]
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        plain, name = prepared(source, shape, pathlib.Path(folder))
        if scheme == "dynamic":
            quantize_dynamic(plain, target, weight_type=QuantType.QInt8)
            return
        form, activations, weights, per_channel = SCHEMES[scheme]
        samples = [sample(source.parent / file, shape, mean, factor, order) for file in PICTURES]
        quantize_static(
            plain,
            target,
            Pictures(name, samples),
            quant_format=form,
            activation_type=activations,
            weight_type=weights,
            per_channel=per_channel,
        )


if __name__ == "__main__":
    main()
