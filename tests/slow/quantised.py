"""Models that come quantised against onnxruntime running the same model.

Three questions of each model. Stage by stage: every integer tensor of our program is given to onnxruntime as the input
of the stages that read it, and each stage's result there may differ from ours by one step, since onnxruntime computes
in floats and rounds half to even where the machine computes in integers. Whole: outputs on pictures, where such steps
add up; the signal-to-noise ratio is stated and classes have to agree. Bits: the programs for a large machine and for
the smallest give the integers of the evaluator on the quant dump.
"""

import dataclasses
import functools
import re

import numpy
import onnx
import onnxruntime
from bits import interpreted
from harness import (
    CACHE,
    PICTURES,
    RELEASE,
    Check,
    Failed,
    call,
    demand,
    dump,
    last_words,
    manifest,
    once,
    cached,
    picture,
    scratch,
    strata,
    write_inputs,
)


@dataclasses.dataclass(frozen=True)
class Model:
    """How to feed a model, and what is asked of its outputs."""

    mean: float
    factor: float
    order: str = "RGB"
    #: Whether its output is a class.
    classifies: bool = True
    #: Whether it quantises its activations at run time.
    dynamic: bool = False
    #: Whether it leaves activations in floats, which we calibrate.
    partly: bool = False
    #: Decibels that the outputs must reach against onnxruntime.
    least: float = 20.0


EFFICIENTNET = Model(127.0, 1 / 128)
PPOCR = Model(127.5, 1 / 127.5, "BGR")
MODELS = {
    "efficientnet_lite0_qdq_s8": EFFICIENTNET,
    "efficientnet_lite0_qop_u8s8": EFFICIENTNET,
    "efficientnet_lite0_dynamic": dataclasses.replace(EFFICIENTNET, dynamic=True, least=12.0),
    "waifu2x_upconv7_qdq_u8s8": Model(0.0, 1 / 255, classifies=False, least=30.0),
    "ppocr_cls_qdq_u8u8": PPOCR,
    "ppocr_cls_qop_u8s8": dataclasses.replace(PPOCR, partly=True),
}
TARGETS = ["x1", "micro"]
#: The share of a stage's integers that may differ by a step; none may by more. Sums lie halfway between two steps
#: more often than other results do.
STEPPED = 0.05
BYTES = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)


def judge(model):
    """onnxruntime, computing what the file says node by node."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def sample(file, model, port):
    """A picture as the model takes it."""
    height, width = [dim.dim_value for dim in port.type.tensor_type.shape.dim][2:]
    pixels = (picture(file, (width, height), model.order) - model.mean) * numpy.float32(model.factor)
    return numpy.ascontiguousarray(pixels.transpose(2, 0, 1)[None], numpy.float32)


def file_of(name):
    """What the command calls the file of an output."""
    return re.sub(r"""[/\\:*?"<>|]""", "_", name) + ".npy"


@once
def loaded(name):
    return onnx.load(cached(f"{name}.onnx"))


def image_flags(model):
    return ["--mean", model.mean, "--scale", model.factor, "--channels", model.order.lower()]


def calibration(name):
    """Only what a model does not quantise itself is calibrated."""
    if not (MODELS[name].dynamic or MODELS[name].partly):
        return []
    folder = scratch("pictures")
    for file in PICTURES:
        (folder / file).symlink_to(cached(file))
    return ["--calibrate", folder, *image_flags(MODELS[name])]


@once
def compiled(name, target):
    """A bundle and the folder with the dump of its integers."""
    folder = scratch("quantised")
    bundle = folder / "x.strata"
    flags = ["--target", target, "--no-measure", "--dump-levels", folder, "--inline-constants"]
    done = strata("compile", CACHE / f"{name}.onnx", "-o", bundle, *flags, *calibration(name))
    if not (MODELS[name].dynamic or MODELS[name].partly):
        demand("no calibration is needed" in done.stderr, "it is calibrated, but quantises all itself")
    return folder, bundle


def quantised_tensors(model):
    """Names of the tensors that a node of the graph rounds to 8 bits."""
    rounds = {"QuantizeLinear", "QGemm"}
    nodes = [node for node in model.graph.node if node.op_type in rounds or node.op_type.startswith("QLinear")]
    zero_points = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    places = {"QuantizeLinear": 2, "QGemm": 8, "QLinearConv": 7, "QLinearMatMul": 7, "QLinearAdd": 7, "QLinearMul": 7}
    tensors = {}
    for node in nodes:
        place = 1 if node.op_type == "QLinearConcat" else places.get(node.op_type, 4)
        kind = zero_points.get(node.input[place]) if place < len(node.input) else None
        if kind in BYTES:
            tensors[node.output[0]] = kind
    return tensors


def exposed(model, tensors):
    """The model with the integers of every stage among its outputs."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.output[:]
    for name, kind in tensors.items():
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return model


def cut(model, tensors):
    """The model cut at its quantised tensors: each is an input of those that read it, and its producer's result an
    output."""
    model = exposed(model, tensors)
    for node in model.graph.node:
        node.output[:] = [f"{name}:result" if name in tensors else name for name in node.output]
    for port in model.graph.output:
        model.graph.input.append(onnx.helper.make_tensor_value_info(port.name, port.type.tensor_type.elem_type, None))
        port.name += ":result"
    return model


def stages(name):
    original = loaded(name)
    tensors = quantised_tensors(original)
    demand(len(tensors) > 5, f"only {len(tensors)} quantised tensors were found")
    folder = scratch("stages")
    onnx.save(exposed(original, tensors), folder / "exposed.onnx")
    flags = ["--no-measure", "--quiet", *calibration(name)]
    strata("compile", folder / "exposed.onnx", "-o", folder / "x.strata", *flags)
    apart = judge(cut(original, tensors))
    [port] = [port for port in original.graph.input]
    n, stepped, worst, problems = 0, 0, 0.0, []
    for file in PICTURES[:2]:
        given = {port.name: sample(file, MODELS[name], port)}
        results = scratch("results")
        strata("run", folder / "x.strata", "--quiet", "--output-dir", results, *write_inputs(folder, given))
        ours = {tensor: numpy.load(results / file_of(tensor)) for tensor in tensors}
        wants = apart.run([f"{tensor}:result" for tensor in tensors], {**given, **ours})
        for tensor, want in zip(tensors, wants):
            got = ours[tensor]
            if (got.dtype, got.shape) != (want.dtype, want.shape):
                problems.append(f"{tensor}: {got.dtype}{got.shape}, not {want.dtype}{want.shape}")
                continue
            off = numpy.abs(got.astype(int) - want.astype(int))
            n, stepped = n + off.size, stepped + int((off > 0).sum())
            share = float((off > 0).mean())
            worst = max(worst, share)
            if off.max() > 1:
                problems.append(f"{tensor}: off by {off.max()} steps")
            elif share > STEPPED and off.size > 200:
                problems.append(f"{tensor}: {share:.1%} of its integers are off by a step")
    if problems:
        raise Failed(f"{len(problems)} of {2 * len(tensors)}: " + "; ".join(problems[:6]))
    share = f"{stepped} of {n} integers ({stepped / n:.4%}) a step off, at most {worst:.2%} of a stage"
    return f"{len(tensors)} stages, {share}"


def decibels(want, got):
    noise = numpy.square(want.astype(float) - got.astype(float)).sum()
    return numpy.inf if noise == 0 else 10 * numpy.log10(numpy.square(want.astype(float)).sum() / noise)


def whole(name):
    original, model = loaded(name), MODELS[name]
    reference = judge(original)
    [port] = [port for port in original.graph.input]
    bundles = {target: compiled(name, target)[1] for target in TARGETS}
    ratios, problems = [], []
    for file in PICTURES:
        given = {port.name: sample(file, model, port)}
        wants = reference.run(None, given)
        outputs = {}
        for target, bundle in bundles.items():
            folder = scratch("whole")
            strata("run", bundle, "--quiet", "--output-dir", folder, *write_inputs(folder, given))
            outputs[target] = [numpy.load(folder / file_of(o.name)) for o in original.graph.output]
        for at, want in enumerate(wants):
            got = outputs[TARGETS[0]][at]
            demand(got.dtype == want.dtype and got.shape == want.shape, f"output {at} is {got.dtype}{got.shape}")
            if any((outputs[target][at] != got).any() for target in TARGETS):
                problems.append(f"{file}: the targets differ")
            ratios.append(decibels(want, got))
            top, expected = int(got.argmax()), int(want.argmax())
            # Integers tie; a class that onnxruntime finds just as good is as right.
            if model.classifies and want.flat[top] != want.flat[expected]:
                problems.append(f"{file}: class {top}, not {expected}")
    if min(ratios) < model.least:
        problems.append(f"only {min(ratios):.1f} dB against onnxruntime")
    if problems:
        raise Failed("; ".join(problems))
    same = sum(numpy.isinf(ratio) for ratio in ratios)
    finite = [ratio for ratio in ratios if not numpy.isinf(ratio)]
    least = f", others at least {min(finite):.1f} dB" if finite else ""
    classes = ", same classes" if model.classifies else ""
    return f"{same} of {len(ratios)} outputs equal onnxruntime's{least}{classes}"


def bits(name):
    problems, n = [], 0
    for target in TARGETS:
        folder, bundle = compiled(name, target)
        case = scratch("case")
        generator = numpy.random.default_rng(11)
        inputs = []
        for at, port in enumerate(manifest(bundle)["inputs"]):
            inputs.append(generator.integers(-128, 128, port["machine_shape"], numpy.int8))
            numpy.save(case / f"in{at}.npy", inputs[-1])
        done = call([RELEASE / "examples/evaluate", dump(folder, "quant"), case])
        demand(done.returncode == 0, f"the evaluator: {last_words(done)}")
        wants = [numpy.load(path) for path in sorted(case.glob("out*.npy"), key=lambda path: int(path.stem[3:]))]
        for at, (want, got) in enumerate(zip(wants, interpreted(folder, bundle, inputs), strict=True)):
            n += want.size
            if want.shape != got.shape or (want != got).any():
                problems.append(f"{target}: output {at} differs")
    if problems:
        raise Failed("; ".join(problems))
    return f"{n} integers on {len(TARGETS)} machines"


CHECKS = [
    Check(f"quantised/{name}/{title}", functools.partial(check, name))
    for name, model in MODELS.items()
    for title, check in [("stages", stages), ("whole", whole), ("bits", bits)]
    if not (model.dynamic and title == "stages")
]
