"""Sums that do not fit 16 bits, on a CPU with AVX2 and without VNNI: onnxruntime and Strata on one small model.

The CPU is emulated by `qemu-x86_64` (Debian's package `qemu-user`), so that it does not matter which CPU runs this. The
model is a quantised 1x1 convolution of 16 channels whose activations and weights are large, as those behind a ReLU and of
a pruned channel may be. What is right is calculated in Python's integers from ONNX's definitions.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

EMULATOR = "qemu-x86_64"
CPU = "Haswell"
CHANNELS, SIDE = 16, 8
SCALES = {"x": 1 / 255, "w": 0.01, "y": 0.1}


def model_and_input(folder):
    """Writes the model and an input, and returns the outputs' integers as they are defined."""
    import numpy
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = numpy.random.default_rng(0)
    weights = random.integers(60, 128, (CHANNELS, CHANNELS, 1, 1)).astype(numpy.int8)
    activations = random.integers(150, 256, (1, CHANNELS, SIDE, SIDE)).astype(numpy.uint8)
    constants = {f"{name}_scale": numpy.float32(scale) for name, scale in SCALES.items()}
    constants.update(x_zero=numpy.uint8(0), w_zero=numpy.int8(0), y_zero=numpy.uint8(0), w=weights)
    quantisation = {name: [f"{name}_scale", f"{name}_zero"] for name in SCALES}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *quantisation["x"]], ["x_int"]),
        helper.make_node("DequantizeLinear", ["x_int", *quantisation["x"]], ["x_real"]),
        helper.make_node("DequantizeLinear", ["w", *quantisation["w"]], ["w_real"]),
        helper.make_node("Conv", ["x_real", "w_real"], ["sum"], kernel_shape=[1, 1]),
        helper.make_node("QuantizeLinear", ["sum", *quantisation["y"]], ["y_int"]),
        helper.make_node("DequantizeLinear", ["y_int", *quantisation["y"]], ["y"]),
    ]
    shape = [1, CHANNELS, SIDE, SIDE]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    filled = [numpy_helper.from_array(numpy.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "saturation", ports[:1], ports[1:], filled)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    numpy.save(folder / "x.npy", (activations / numpy.float32(255)).astype(numpy.float32))
    sums = numpy.einsum("oi,ihw->ohw", weights[:, :, 0, 0].astype(int), activations[0].astype(int))
    real = sums * (float(numpy.float32(SCALES["x"])) * float(numpy.float32(SCALES["w"])))
    return numpy.clip(numpy.round(real / float(numpy.float32(SCALES["y"]))), 0, 255).astype(int)


def run_onnxruntime(folder, target):
    """In a process of its own: writes the output."""
    import numpy
    import onnxruntime

    session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    numpy.save(target, session.run(None, {"x": numpy.load(f"{folder}/x.npy")})[0])


def section(strata):
    """What both make of the model on the emulated CPU and on this one, as Markdown."""
    import numpy

    if shutil.which(EMULATOR) is None:
        sys.exit(f"`{EMULATOR}` is not there; Debian has it in its package `qemu-user`")
    emulated = [EMULATOR, "-cpu", CPU]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        defined = model_and_input(folder)
        bundle = folder / "model.strata"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([strata, "compile", folder / "model.onnx", "-o", bundle], check=True, **quiet)
        ours = [strata, "run", bundle, "--input", f"x={folder}/x.npy", "--output-dir"]
        theirs = [sys.executable, "-B", __file__, folder]
        for cpu, before in (("this CPU", []), (f"{CPU}, emulated", emulated)):
            for who, command, out in (("onnxruntime", theirs, "y.npy"), ("strata", ours, "y.npy")):
                target = folder / f"{who}-{len(before)}"
                target.mkdir()
                place = target / out if command is theirs else target
                subprocess.run([*before, *command, place], check=True, env=os.environ, **quiet)
                found = numpy.round(numpy.load(target / out)[0] / numpy.float32(SCALES["y"])).astype(int)
                wrong = int((found != defined).sum())
                furthest = int(abs(found - defined).max())
                rows.append(f"| {who} | {cpu} | {wrong} of {defined.size} | {furthest} |")
    return "\n".join(
        [
            "## Sums that do not fit 16 bits",
            "",
            f"A quantised 1x1 convolution of {CHANNELS} channels with large activations and weights, on this CPU and on a",
            f"{CPU} (AVX2, no VNNI) that `{EMULATOR}` emulates: outputs that differ from ONNX's definition, calculated in",
            "Python's integers, and by how many steps at most (`benches/peers/interpreter --saturation`).",
            "",
            "| | CPU | outputs that differ | steps |",
            "|---|---|---:|---:|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    run_onnxruntime(*sys.argv[1:])
