"""onnxruntime and Strata's interpreter on the same networks: time and peak memory of an inference.

A network of the zoo, or an f32 model, is quantised by onnxruntime (QDQ, activations `u8`, weights `s8` a channel), on
noise; both run that very model, each on two threads. Strata compiles it first, which is not counted, and prepares it
once, as onnxruntime makes its session. Rounds of both alternate, so that what else the machine does meets both alike;
what is printed are medians over all rounds, and their ratio.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import saturation

STRATA = os.environ["STRATA"]
THREADS = 2
# Inferences of a round that count.
TIMES = 3
NETWORKS = [
    "yolov3@416x416",
    "yolov3@1920x1088",
    "resnet50@224x224",
    "mobilenetv2@224x224",
    "efficientnet-lite0@224x224",
    "yolov8n@320x320",
]


PAGE = """# The interpreter beside onnxruntime

What an inference takes, of the same quantised model (QDQ, activations `u8`, weights `s8` a channel) in one process each,
measured by `benches/peers/interpreter`.
The ratio is Strata's time over onnxruntime's: below 1 Strata is faster.
Strata runs a program of the machine, row by row through rings like those of its SRAM, only larger; results are the same
bits with all vector instructions, and those of the TOSA reference model.
On CPUs with AVX2 and no VNNI onnxruntime sums pairs of products in 16 bits, which saturates where weights and activations
are large; none of Strata's kernels does.

"""


def quantise(source, target, shape):
    """Writes the QDQ form of an f32 model, its batch normalisations folded."""
    import logging

    import numpy
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Noise(CalibrationDataReader):
        """Two samples of noise."""

        def __init__(self, ports):
            random = numpy.random.default_rng(0)
            samples = [{name: random.random(dims, dtype=numpy.float32) for name, dims in ports} for _ in range(2)]
            self.samples = iter(samples)

        def get_next(self):
            return next(self.samples, None)

    logging.disable(logging.WARNING)
    model = onnx.load(source)
    filled = {tensor.name for tensor in model.graph.initializer}
    ports = [port for port in model.graph.input if port.name not in filled]
    for port in ports:
        for dim, extent in zip(port.type.tensor_type.shape.dim, shape or []):
            dim.dim_value = extent
    plain = target.with_suffix(".plain.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(plain)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shapes = [(port.name, [dim.dim_value for dim in port.type.tensor_type.shape.dim]) for port in ports]
    quantize_static(
        str(plain),
        str(target),
        Noise(shapes),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )


def run_onnxruntime(model):
    """In a process of its own: prints the seconds of each inference as JSON."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    random = numpy.random.default_rng(0)
    feed = {port.name: random.random(port.shape, dtype=numpy.float32) for port in session.get_inputs()}
    session.run(None, feed)
    seconds = []
    for _ in range(TIMES):
        since = time.perf_counter()
        session.run(None, feed)
        seconds.append(time.perf_counter() - since)
    print(json.dumps(seconds))


class Figures:
    """Seconds of all inferences, and the most memory that a process took."""

    def __init__(self):
        self.seconds = []
        self.peak = 0

    def median(self):
        return statistics.median(self.seconds)


def measured(arguments, figures, read, environment=None):
    """Runs a process and adds what it took; `read` gives the seconds from its output."""
    process = subprocess.Popen(
        [str(a) for a in arguments], stdout=subprocess.PIPE, env={**os.environ, **(environment or {})}
    )
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{arguments[0]} failed: {status}")
    figures.seconds.extend(read(output))
    figures.peak = max(figures.peak, usage.ru_maxrss)


def cpu():
    """The CPU's name, and which vector instructions for bytes it has."""
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf8").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    known = ["avx2", "avx_vnni", "avx512_vnni", "amx_int8"]
    has = [name for name in known if name in fields.get("flags", "").split()]
    return f"{fields.get('model name', 'unknown CPU')} ({', '.join(has) or 'none of ' + ', '.join(known)})"


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--onnxruntime":
        run_onnxruntime(sys.argv[2])
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--simd", action="append", help="levels of vector instructions; the fastest unless given")
    parser.add_argument("--markdown", type=pathlib.Path)
    parser.add_argument("--shape", help="shape of a model's inputs, where it leaves it open, such as 1x3x320x320")
    parser.add_argument("--saturation", action="store_true", help="also run both on an emulated CPU without VNNI")
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    arguments = parser.parse_args()
    shape = [int(extent) for extent in arguments.shape.split("x")] if arguments.shape else None
    levels = arguments.simd or [None]
    lines = [
        f"{cpu()}, {THREADS} threads, {arguments.rounds} rounds of {TIMES} inferences, medians.\n",
        "| network | vectors | onnxruntime ms | strata ms | ratio | onnxruntime peak MB | strata peak MB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)
    for network in arguments.networks:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            plain, quantised, bundle = folder / "f.onnx", folder / "q.onnx", folder / "q.strata"
            if network.endswith(".onnx"):
                plain = pathlib.Path(network)
            else:
                title, _, size = network.partition("@")
                sized = ["--size", size] if size else []
                subprocess.run([STRATA, "zoo", title, *sized, "-o", plain, "-q"], check=True)
            # In a process of its own, so that what it takes is not counted.
            if os.fork() == 0:
                quantise(plain, quantised, shape)
                os._exit(0)
            if os.wait()[1] != 0:
                sys.exit(f"{network} was not quantised")
            subprocess.run([STRATA, "compile", quantised, "-o", bundle, "--no-measure", "-q"], check=True)
            peer, own = Figures(), {level: Figures() for level in levels}
            for _ in range(arguments.rounds):
                measured([sys.executable, __file__, "--onnxruntime", quantised], peer, json.loads)
                for level, figures in own.items():
                    environment = {"RAYON_NUM_THREADS": str(THREADS)} | ({"STRATA_SIMD": level} if level else {})
                    json_file = folder / "own.json"
                    command = [STRATA, "bench", "run", bundle, "--times", TIMES, "--json", json_file, "-q"]
                    measured(
                        command, figures, lambda _: json.loads(json_file.read_text())[0]["inferences"], environment
                    )
            for level, figures in own.items():
                level = json.loads((folder / "own.json").read_text())[0]["simd"] if level is None else level
                ratio = figures.median() / peer.median()
                line = (
                    f"| {network} | {level} | {peer.median() * 1e3:.1f} | {figures.median() * 1e3:.1f} | {ratio:.2f} "
                    f"| {peer.peak / 1e3:.0f} | {figures.peak / 1e3:.0f} |"
                )
                print(line, flush=True)
                lines.append(line)
    lines.append("")
    if arguments.saturation:
        section = saturation.section(STRATA)
        print(section)
        lines.append(section)
    if arguments.markdown:
        arguments.markdown.write_text(PAGE + "\n".join(lines), encoding="utf8")


if __name__ == "__main__":
    main()
