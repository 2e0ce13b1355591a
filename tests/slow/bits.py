"""Bit for bit: the TOSA reference model, the evaluator and the interpreter on the same integers, of 8 and 16 bits.

The quant dump of a compile is evaluated on random integers and judged by the reference model; then the bundle of that
same compile, and bundles for the layer-by-layer machine and for a starved one, must give the same integers. Calibration
is seeded, so that all compiles of a network quantise alike; a quant dump of each proves it.
"""

import dataclasses
import functools
import re

import numpy

from harness import (
    RELEASE,
    ROOT,
    TOOLS,
    Check,
    Failed,
    call,
    demand,
    dump,
    last_words,
    manifest,
    scratch,
    strata,
    trained,
    write_inputs,
    zoo,
)


def small(*shape):
    """A trained model at a size for the reference model."""

    def network(name):
        found = trained(name)
        return dataclasses.replace(found, shapes={port: list(shape) for port in found.shapes})

    return network


# Bytes of activation SRAM that force each network to spill, and yet let every layer stream.
NETWORKS = {
    "yolov3-tiny": (zoo, "64KiB"),
    "mobilenetv2": (zoo, "64KiB"),
    "unet": (zoo, "192KiB"),
    "resnet50": (zoo, "64KiB"),
    "yolov3": (zoo, "96KiB"),
    "vgg16": (zoo, "96KiB"),
    "fsrcnn": (zoo, "64KiB"),
    "squeezenet": (zoo, "64KiB"),
    "yolov8n": (zoo, "96KiB"),
    "mobilenetv3-large": (zoo, "64KiB"),
    "efficientnet-lite0": (zoo, "64KiB"),
    "ppocr_cls": (trained, "96KiB"),
    "centerface": (small(1, 3, 64, 64), "64KiB"),
    "efficientnet_lite0": (small(1, 3, 64, 64), "64KiB"),
    "open_nsfw": (trained, "192KiB"),
    "ppocrv4_det": (small(1, 3, 64, 64), "96KiB"),
    "waifu2x_upconv7": (small(1, 3, 32, 32), "64KiB"),
    "mlsd_tiny": (trained, "192KiB"),
    "mnist_cntk": (trained, "16KiB"),
    "mtcnn_pnet": (small(1, 36, 48, 3), "16KiB"),
    "mtcnn_rnet": (trained, "16KiB"),
    "mtcnn_onet": (trained, "32KiB"),
}

# Networks that are compiled with 16-bit activations too: all, or those that the search finds on seeded noise. What they
# spill from is twice as much.
PRECISIONS = [
    ("mobilenetv2", "int16"),
    ("unet", "mixed"),
    ("ppocr_cls", "int16"),
    ("ppocr_cls", "mixed"),
]


def compiled(network, mode, flags):
    folder = scratch("bits")
    bundle = folder / "x.strata"
    common = ["--no-measure", "--quiet", *network.shape_flags()]
    strata("compile", network.path, "-o", bundle, "--mode", mode, "--dump-levels", folder, *common, *flags)
    return folder, bundle


def function_of(dump):
    """What a dump holds but for the options of the compile, which head it, and the data of constants."""
    return dump.read_text(encoding="utf-8").split("func.func", 1)[1].split("{-#", 1)[0].rstrip()


def random_integers(ports):
    """An array of random integers for each port."""
    generator = numpy.random.default_rng(7)
    limits = []
    for port in ports:
        demand(port["machine_dtype"] in ("i8", "i16"), f"input {port['name']} is of {port['machine_dtype']}")
        limits.append(numpy.iinfo(numpy.int8 if port["machine_dtype"] == "i8" else numpy.int16))
    return [
        generator.integers(limit.min, limit.max, port["machine_shape"], limit.dtype, endpoint=True)
        for port, limit in zip(ports, limits)
    ]


def judged(quant, ports):
    """Random integers for the ports, and what the reference model and the evaluator both make of them."""
    case = scratch("case")
    inputs = random_integers(ports)
    for at, array in enumerate(inputs):
        numpy.save(case / f"in{at}.npy", array)
    done = call([RELEASE / "examples/evaluate", quant, case])
    demand(done.returncode == 0, f"the evaluator: {last_words(done)}")
    done = call([TOOLS / "python", "-B", ROOT / "tests/judges/tosa.py", case])
    demand(done.returncode == 0, f"the reference model: {done.stdout.strip() or last_words(done)}"[:400])
    outputs = sorted(case.glob("out*.npy"), key=lambda path: int(path.stem[3:]))
    return inputs, [numpy.load(path) for path in outputs]


def real_input(port, integers):
    """The reals of the user's layout that the bundle quantises to just these integers."""
    quantisation = port["quantisation"]
    if quantisation is None:
        reals = integers
    else:
        steps = integers.astype(numpy.float64) - quantisation["zero_point"]
        reals = (quantisation["scale"] * steps).astype(numpy.float32)
    return numpy.ascontiguousarray(reals.transpose(numpy.argsort(port["perm"])))


def interpreted(folder, bundle, inputs):
    said = manifest(bundle)
    given = {str(at): real_input(port, array) for at, (port, array) in enumerate(zip(said["inputs"], inputs))}
    results = folder / "results"
    strata("run", bundle, "--raw", "--quiet", "--output-dir", results, *write_inputs(folder, given))
    # What the program gives, which a tail on the host may then take.
    [ports] = [part["outputs"] for part in said["parts"] if part["runner"] == "machine"]
    outputs = [numpy.load(results / f"{at}.npy") for at in range(len(ports))]
    # Outputs come in the user's axes; the evaluator has the machine's.
    return [array.transpose(numpy.argsort(port["perm"])) for port, array in zip(ports, outputs)]


# Networks with convolutions of 16 bits whatever the precision of the rest: PReLU of slopes below 0, gates of squeeze and
# excitation, and what is computed from a mean just before a softmax.
WIDE_BY_DESIGN = {"mobilenetv3-large", "mtcnn_pnet", "mtcnn_rnet", "mtcnn_onet", "ppocr_cls", "ppocrv4_det", "open_nsfw"}


def check(name, precision):
    source, starved = NETWORKS[name]
    if precision != "int8":
        starved = f"{2 * int(starved.removesuffix('KiB'))}KiB"
    network = source(name)
    chosen = ["--precision", precision, "--precision-budget", "40"]
    generous = ["--set", "memory.activation=64MiB", *chosen]
    # The evaluator takes a text that holds its constants. Others name theirs by their data.
    folder, bundle = compiled(network, "multi", [*generous, "--inline-constants"])
    quant = dump(folder, "quant")
    # Layers may be called after ops: only an op has an accumulator.
    function = function_of(quant)
    sums = set(re.findall(r"= tosa\.\w*conv2d [^{]*\{acc_type = (\w+)", function))
    wanted = {"int8": {"i32"}, "mixed": {"i32", "i48"}, "int16": {"i48"}}[precision]
    if name in WIDE_BY_DESIGN:
        wanted = wanted | {"i48"}
    demand(sums == wanted, f"convolutions sum in {sums}, not {wanted}")
    inputs, wants = judged(quant, manifest(bundle)["inputs"])
    runs = [("multi, generous", folder, bundle)]
    for title, mode, flags in [
        ("multi, starved", "multi", ["--set", f"memory.activation={starved}", *chosen]),
        (
            "multi, least traffic",
            "multi",
            ["--set", f"memory.activation={starved}", "--objective", "traffic", *chosen],
        ),
        ("single, generous", "single", generous),
        ("single, starved", "single", ["--set", f"memory.activation={starved}", *chosen]),
        ("multi, micro", "multi", ["--target", "micro", *chosen]),
    ]:
        runs.append((title, *compiled(network, mode, flags)))
    problems = []
    for title, folder, bundle in runs:
        if function_of(dump(folder, "quant")) != function:
            problems.append(f"{title}: the network was quantised differently")
            continue
        gots = interpreted(folder, bundle, inputs)
        for at, (want, got) in enumerate(zip(wants, gots, strict=True)):
            if want.shape != got.shape:
                problems.append(f"{title}: output {at} has shape {got.shape}, not {want.shape}")
            elif (want != got).any():
                problems.append(f"{title}: {int((want != got).sum())} of {want.size} of output {at} differ")
    if problems:
        raise Failed("; ".join(problems))
    spread = min(len(numpy.unique(want)) for want in wants)
    return f"{sum(want.size for want in wants)} integers, at least {spread} values an output, {len(runs)} machines"


CHECKS = [Check(f"bits/{name}", functools.partial(check, name, "int8")) for name in NETWORKS]
CHECKS += [
    Check(f"bits/{name}-{precision}", functools.partial(check, name, precision)) for name, precision in PRECISIONS
]
