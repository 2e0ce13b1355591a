"""Post-training quantisation compared: Strata's and onnxruntime's static quantiser, on the same samples.

Every trained model gets inputs as it was trained to take them, from pictures, or from rendered text or digits where
that is what it reads. Both quantisers calibrate on the same samples and are measured on others, against the f32 model in
onnxruntime.
"""

import dataclasses
import functools
import json
from collections.abc import Callable

import numpy
import onnx
import onnxruntime
import onnxruntime.quantization.calibrate
from onnx import version_converter
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image, ImageDraw, ImageFont

from harness import (
    Failed,
    Network,
    cached,
    declared,
    once,
    real_inputs,
    scratch,
    strata,
    trained,
)

# The calibrators tell of every tensor on standard output, where the report of the checks goes.
onnxruntime.quantization.calibrate.print = lambda *_words, **_options: None
onnxruntime.set_default_logger_severity(4)

CALIBRATION_PICTURES = ["chelsea.png", "coffee.png", "motorcycle_left.png", "camera.png"]
MEASURED_PICTURES = ["astronaut.png", "rocket.jpg", "coins.png"]
CALIBRATION_TEXTS = ["Strata 1.0", "machine", "int8 x 27", "Zwölf Boxkämpfer", "LAYERS 1986", "quantise it"]
MEASURED_TEXTS = ["pipeline", "ROCKET 64", "weights 3.14", "fusion of rows"]
#: Parts of a picture, as left, top, right, bottom in parts of its size.
WHOLE = (0.0, 0.0, 1.0, 1.0)
VIEWS = [WHOLE, (0.1, 0.0, 0.7, 0.8)]
FACES = {
    "camera.png": [(0.38, 0.1, 0.52, 0.26), (0.3, 0.05, 0.6, 0.35)],
    "astronaut.png": [(0.33, 0.08, 0.56, 0.4), (0.28, 0.02, 0.62, 0.45), (0.36, 0.14, 0.54, 0.38)],
}
#: What small networks that say whether a part of a picture is a face look at beside faces.
TILES = [(x / 6, y / 6, x / 6 + 1 / 3, y / 6 + 1 / 3) for y in range(5) for x in range(5)]


def crop(name, size, view=WHOLE):
    """A part of a picture stretched to width x height: [h, w, 3] of 0 to 255."""
    image = Image.open(cached(name)).convert("RGB")
    left, top, right, bottom = (part * extent for part, extent in zip(view, image.size * 2))
    image = image.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    return numpy.asarray(image, numpy.float32)


def pictures(names, size, views=None):
    return [crop(name, size, view) for name in names for view in (views or {}).get(name, VIEWS)]


def heads(names, size):
    return pictures(names, size, {name: VIEWS + FACES.get(name, []) for name in names})


def faces(names, size):
    return pictures(names, size, {name: FACES.get(name, []) + TILES for name in names})


def text_lines(texts, size):
    """Lines of text, dark on light and light on dark."""
    width, height = size
    font = ImageFont.load_default(height * 0.6)
    images = []
    for at, text in enumerate(texts):
        ink, paper = [((20, 30, 60), (235, 230, 220)), ((240, 240, 240), (60, 90, 50))][at % 2]
        image = Image.new("RGB", size, paper)
        ImageDraw.Draw(image).text((height * 0.2, height * 0.15), text, ink, font)
        images.append(numpy.asarray(image, numpy.float32))
    return images


def pages(names, texts, size):
    """Pictures with lines of text on them."""
    width, height = size
    images = []
    for at, name in enumerate(names):
        image = Image.fromarray(crop(name, size).astype(numpy.uint8))
        draw = ImageDraw.Draw(image)
        for line, text in enumerate(texts):
            box = height * (0.05 + 0.9 * line / len(texts))
            font = ImageFont.load_default(height * (0.04 + 0.01 * ((line + at) % 4)))
            draw.text((width * 0.1 * (1 + (line + at) % 3), box), text, (250, 245, 240) if line % 2 else (15, 20, 25), font)
        images.append(numpy.asarray(image, numpy.float32))
    return images


def digits(texts, size):
    """Digits, light on dark, [h, w, 1]."""
    images = []
    for text in texts:
        for shift in (0, 2):
            image = Image.new("L", size, 0)
            ImageDraw.Draw(image).text((7 + shift, 1 + shift / 2), text, 255, ImageFont.load_default(22))
            images.append(numpy.asarray(image, numpy.float32)[..., None])
    return images


def of_pictures(size, source=pictures):
    return source(CALIBRATION_PICTURES, size), source(MEASURED_PICTURES, size)


def of_text(size):
    return text_lines(CALIBRATION_TEXTS, size), text_lines(MEASURED_TEXTS, size)


def of_pages(size):
    texts = CALIBRATION_TEXTS, MEASURED_TEXTS
    return pages(CALIBRATION_PICTURES, texts[0], size), pages(MEASURED_PICTURES, texts[1], size)


def of_digits(size):
    return digits("0268", size), digits("134579", size)


def with_alpha(images):
    return numpy.concatenate([images, numpy.ones_like(images[..., :1])], -1)


# What two runs agree on: a share from 0 to 1. They take the outputs of f32 and of int8 of one sample.


def same_top(wants, gots):
    """Whether the likeliest class is the same."""
    return float(wants[0].argmax() == gots[0].argmax())


def same_text(wants, gots):
    """The share of places, blank ones included, with the same likeliest character."""
    return float((wants[0].argmax(-1) == gots[0].argmax(-1)).mean())


#: What a score may be off the threshold and still count on neither side: there f32 itself is in doubt.
DOUBT = 0.1


def agreed(want, got, threshold):
    """The share of what is clearly above a threshold on one side that is not clearly below it on the other."""
    high, low = threshold + DOUBT, threshold - DOUBT
    clear = (want > high) | (got > high)
    kept = ((want > high) & (got > low)) | ((got > high) & (want > low))
    return float(kept.sum() / clear.sum()) if clear.any() else 1.0


def same_scores(output, channel=None, threshold=0.5):
    """The agreement of an output, or of a channel of it (axis, index), which holds scores."""

    def agreement(wants, gots):
        sides = wants[output], gots[output]
        want, got = sides if channel is None else (numpy.take(side, channel[1], channel[0]) for side in sides)
        return agreed(want, got, threshold)

    return agreement


def same_objects(wants, gots):
    """The agreement of the scores of all classes in the cells of YOLO's heads."""

    def scores(head):
        boxes = 1 / (1 + numpy.exp(-head.reshape(3, 85, *head.shape[-2:])))
        return boxes[:, 4:5] * boxes[:, 5:]

    sides = [numpy.concatenate([scores(head).ravel() for head in heads]) for heads in (wants, gots)]
    return agreed(*sides, 0.3)


@dataclasses.dataclass
class Subject:
    """A trained model, what goes in, and what its outputs are for."""

    samples: Callable = of_pictures
    mean: tuple | float = 0.0
    factor: tuple | float = 1.0
    order: str = "RGB"
    agreement: Callable | None = None
    finish: Callable | None = None

    def inputs(self, shape):
        """Calibration and measured samples for an input of a shape, NCHW or NHWC."""
        channels_last = shape[-1] in (1, 3, 4)
        size = (shape[2], shape[1]) if channels_last else (shape[3], shape[2])
        return [numpy.stack([self.one(image, channels_last) for image in images]) for images in self.samples(size)]

    def one(self, image, channels_last):
        image = image[..., ::-1] if self.order == "BGR" else image
        image = ((image - numpy.float32(self.mean)) * numpy.float32(self.factor)).astype(numpy.float32)
        image = self.finish(image) if self.finish else image
        return numpy.ascontiguousarray(image if channels_last else image.transpose(2, 0, 1))


UNIT = {"mean": 127.5, "factor": 1 / 127.5}
IMAGENET = {"mean": (123.675, 116.28, 103.53), "factor": (1 / 58.395, 1 / 57.12, 1 / 57.375)}
SUBJECTS = {
    "yolov3_tiny": Subject(factor=1 / 255, agreement=same_objects),
    "centerface": Subject(agreement=same_scores(0, threshold=0.35)),
    "blazeface_front": Subject(**UNIT, samples=functools.partial(of_pictures, source=heads)),
    "open_nsfw": Subject(mean=(104, 117, 123), order="BGR", agreement=same_top),
    "efficientnet_lite0": Subject(mean=127.0, factor=1 / 128, agreement=same_top),
    "ppocr_cls": Subject(**UNIT, order="BGR", samples=of_text, agreement=same_top),
    "ppocrv4_det": Subject(**IMAGENET, order="BGR", samples=of_pages, agreement=same_scores(0, threshold=0.3)),
    "ppocrv4_rec": Subject(**UNIT, order="BGR", samples=of_text, agreement=same_text),
    "waifu2x_upconv7": Subject(factor=1 / 255),
    "mnist_cntk": Subject(samples=of_digits, agreement=same_top),
    "mlsd_tiny": Subject(finish=with_alpha),
    "mtcnn_pnet": Subject(mean=127.5, factor=1 / 128, agreement=same_scores(1, (3, 1), 0.6)),
    "mtcnn_rnet": Subject(
        mean=127.5, factor=1 / 128, samples=functools.partial(of_pictures, source=faces), agreement=same_scores(1, (1, 1), 0.6)
    ),
    "mtcnn_onet": Subject(
        mean=127.5, factor=1 / 128, samples=functools.partial(of_pictures, source=faces), agreement=same_scores(2, (1, 1), 0.6)
    ),
    "nudenet_yolov8n": Subject(factor=1 / 255),
    "picodet_layout": Subject(**IMAGENET, order="BGR", samples=of_pages),
    "pplcnet_orientation": Subject(**IMAGENET, samples=of_pages, agreement=same_top),
}
METHODS = {
    "MinMax": CalibrationMethod.MinMax,
    "Entropy": CalibrationMethod.Entropy,
    "Percentile": CalibrationMethod.Percentile,
}


def network_of(name):
    """The ONNX file of a subject."""
    if name != "yolov3_tiny":
        return trained(name)
    path = scratch("ptq") / "yolov3_tiny.onnx"
    weights = cached("yolov3-tiny.weights")
    strata("zoo", "yolov3-tiny", "--size", "416x416", "--weights", weights, "-o", path, "--quiet")
    return declared(name, path)


class Reader(CalibrationDataReader):
    """Samples, one after another."""

    def __init__(self, port, samples):
        self.samples = iter([{port: sample[None]} for sample in samples])

    def get_next(self):
        return next(self.samples, None)


def fixed(network):
    """The model with the shapes of its inputs fixed, nothing known of other values, and an opset that has scales a channel."""
    model = onnx.load(network.path)
    del model.graph.value_info[:]
    for port in real_inputs(model.graph):
        port.type.tensor_type.shape.CopyFrom(onnx.TensorShapeProto())
        for extent in network.shapes[port.name]:
            port.type.tensor_type.shape.dim.add().dim_value = extent
    for port in model.graph.output:
        port.type.tensor_type.ClearField("shape")
    # Files of old make inputs of their weights.
    model.ir_version = max(model.ir_version, 8)
    if max(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")) < 13:
        model = version_converter.convert_version(model, 13)
    kept = real_inputs(model.graph)
    del model.graph.input[:]
    model.graph.input.extend(kept)
    return model


def run_all(path, port, samples):
    """The outputs of an ONNX file for every sample."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [output.name for output in session.get_outputs()], [session.run(None, {port: s[None]}) for s in samples]


def sqnr(wants, gots):
    """Signal to noise over all samples, in decibels."""
    signal = sum(float((want.astype(numpy.float64) ** 2).sum()) for want in wants)
    noise = sum(float(((want.astype(numpy.float64) - got) ** 2).sum()) for want, got in zip(wants, gots))
    return 10 * numpy.log10(signal / noise) if noise else numpy.inf


@dataclasses.dataclass
class Case:
    """A subject's samples, and what the f32 model makes of those that are measured."""

    name: str
    network: Network
    folder: object
    port: str
    calibration: numpy.ndarray
    measured: numpy.ndarray
    outputs: list
    wants: list
    #: What was out of the ordinary in onnxruntime's quantiser.
    remarks: set = dataclasses.field(default_factory=set)

    def score(self, gots):
        """Decibels of every output, and the agreement."""
        ratios = [sqnr([w[at] for w in self.wants], [g[at] for g in gots]) for at in range(len(self.outputs))]
        judge = SUBJECTS[self.name].agreement
        agreed = [judge(want, got) for want, got in zip(self.wants, gots)] if judge else []
        return ratios, sum(agreed) / len(agreed) if agreed else None


@once
def case(name):
    network = network_of(name)
    [(port, shape)] = network.shapes.items()
    calibration, measured = SUBJECTS[name].inputs(shape)
    folder = scratch("ptq")
    for part, samples in [("calibrate", calibration), ("measure", measured)]:
        (folder / part).mkdir()
        for at, sample in enumerate(samples):
            numpy.save(folder / part / f"{at:02}.npy", sample[None])
    onnx.save(fixed(network), folder / "fixed.onnx")
    outputs, wants = run_all(folder / "fixed.onnx", port, measured)
    return Case(name, network, folder, port, calibration, measured, outputs, wants)


def ours(subject, *flags):
    """What Strata's int8 network gives: decibels of every output, and the agreement."""
    folder = scratch("ours")
    where = ["--calibrate", subject.folder / "calibrate", "--measure", subject.folder / "measure"]
    files = ["--outputs", folder, "--layers", 0, *subject.network.shape_flags(), *flags]
    strata("quantise", subject.network.path, *where, *files, "--quiet", limit=1800)
    gots = []
    for at in range(len(subject.measured)):
        gots.append([numpy.load(folder / f"{at:02}" / f"{output}.npy") for output in range(len(subject.outputs))])
    return subject.score(gots)


def quantise_theirs(source, target, subject, method, per_channel):
    options = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8, "quant_format": QuantFormat.QDQ}
    options |= {"calibrate_method": METHODS[method], "per_channel": per_channel}
    try:
        quantize_static(str(source), str(target), Reader(subject.port, subject.calibration), **options)
    except ValueError as error:
        # It stumbles over some biases if weights have a scale a channel.
        if not per_channel:
            raise
        subject.remarks.add(f"weights have one scale a tensor, since with one a channel it fails: {error}")
        quantise_theirs(source, target, subject, method, per_channel=False)


def theirs(subject, method):
    """What onnxruntime's quantised model gives."""
    source, target = subject.folder / "prepared.onnx", subject.folder / f"{method}.onnx"
    try:
        if not source.exists():
            quant_pre_process(str(subject.folder / "fixed.onnx"), str(source), skip_symbolic_shape=True)
        quantise_theirs(source, target, subject, method, per_channel=True)
        _, gots = run_all(target, subject.port, subject.measured)
    except Exception as error:  # whatever a quantiser that is not ours stumbles over
        raise Failed(f"onnxruntime, {method}: {type(error).__name__}: {str(error)[:200]}") from error
    return subject.score(gots)
