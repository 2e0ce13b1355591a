"""What the checks share: running Strata, the networks they look at, their inputs, and the judges."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable

import numpy
import onnx
import onnxruntime
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / "tests/models/cache"
RELEASE = pathlib.Path(os.environ["STRATA_RELEASE"])
STRATA = RELEASE / "strata"
TOOLS = pathlib.Path(sys.executable).parent
PICTURES = ["astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg"]
TIME_LIMIT = 300

# The networks of the zoo at sizes that a reference model written for clarity can run: name, width x height.
ZOO = {
    "yolov3": "64x64",
    "yolov3-tiny": "64x64",
    "yolov8n": "64x64",
    "efficientdet-d0": "128x128",
    "vgg16": "32x32",
    "squeezenet": "32x32",
    "inception-v3": "75x75",
    "densenet121": "32x32",
    "resnet50": "32x32",
    "regnetx-400mf": "32x32",
    "hrnet-w18-small": "64x64",
    "mobilenetv2": "64x64",
    "mobilenetv3-large": "64x64",
    "efficientnet-lite0": "64x64",
    "convnext-tiny": "64x64",
    "mobilevit-xxs": "64x64",
    "unet": "64x64",
    "deeplabv3-mobilenetv2": "32x32",
    "fsrcnn": "48x32",
}


class Failed(Exception):
    """Why a check failed."""


class Skipped(Exception):
    """Why a check could not be made."""


def told_of_all(parts):
    """What each of several parts of a check says, by its title; tells of all, not of the first that fails."""
    told, failed = [], False
    for title, run in parts:
        try:
            told.append(f"{title}: {run()}")
        except Failed as reason:
            told.append(f"{title}: {reason}")
            failed = True
    if failed:
        raise Failed("; ".join(told))
    return "; ".join(told)


@dataclasses.dataclass
class Check:
    """One line of the report. `run` gives what to say on success."""

    name: str
    run: Callable[[], str | None]
    alone: bool = False


def demand(condition, message):
    if not condition:
        raise Failed(message)


SCRATCH = tempfile.TemporaryDirectory(prefix="strata-slow-")
#: Of each thread: `folder` is where `scratch` makes directories.
PLACE = threading.local()


def scratch(prefix):
    """A new directory that is gone when the check ends, or in what runs `once` when the program ends."""
    return pathlib.Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=getattr(PLACE, "folder", SCRATCH.name)))


@contextlib.contextmanager
def scratch_in(folder):
    before = getattr(PLACE, "folder", SCRATCH.name)
    PLACE.folder = folder
    try:
        yield
    finally:
        PLACE.folder = before


def files_kept():
    """Within it, what `scratch` makes stays until the program ends."""
    return scratch_in(SCRATCH.name)


@contextlib.contextmanager
def files_removed():
    """Within it, what `scratch` makes is gone at its end: whole networks and bundles would fill a disk."""
    with tempfile.TemporaryDirectory(prefix="check-", dir=SCRATCH.name) as folder, scratch_in(folder):
        yield


def once(function):
    """Remembers what a function gives, or how it failed, for all threads; its files stay."""
    lock, done = threading.Lock(), {}

    @functools.wraps(function)
    def remembered(*arguments):
        with lock, files_kept():
            if arguments not in done:
                try:
                    done[arguments] = function(*arguments), None
                except (Failed, Skipped) as reason:
                    done[arguments] = None, reason
        result, reason = done[arguments]
        if reason:
            raise reason
        return result

    return remembered


def call(command, limit=TIME_LIMIT):
    """A finished process with its output as text."""
    try:
        return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise Failed(f"{pathlib.Path(str(command[0])).name} ran longer than {limit} s") from None


def last_words(process):
    """The gist of what a process said before it failed."""
    lines = [line.strip() for line in (process.stderr or process.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line] or lines[-3:]
    return " | ".join(errors[:3])[:400] or "no message"


def strata(*arguments, limit=TIME_LIMIT):
    """Runs Strata, which must succeed."""
    done = call([STRATA, *arguments], limit)
    if done.returncode != 0:
        raise Failed(f"strata {arguments[0]}: exit {done.returncode}: {last_words(done)}")
    return done


@dataclasses.dataclass
class Network:
    """An ONNX file and how to give it inputs."""

    name: str
    path: pathlib.Path
    shapes: dict[str, list[int]]
    #: Whether the file declares other shapes, so that commands must be told.
    override: bool = False

    def shape_flags(self):
        if not self.override:
            return []
        flags = [("--input-shape", f"{name}={'x'.join(map(str, shape))}") for name, shape in self.shapes.items()]
        return [part for flag in flags for part in flag]


@once
def zoo(name, size=None):
    """A network of the zoo, at its size of the table unless told otherwise."""
    path = scratch("zoo") / f"{name}.onnx"
    strata("zoo", name, "--size", size or ZOO[name], "-o", path, "--quiet")
    return declared(name, path)


def session(network, optimise=True):
    """onnxruntime on a network, on one thread."""
    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    model = onnx.load(network.path)
    for port in model.graph.input:
        for dim, extent in zip(port.type.tensor_type.shape.dim, network.shapes.get(port.name, [])):
            dim.dim_value = extent
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def real_inputs(graph):
    """The inputs of an ONNX graph that no initialiser fills."""
    filled = {initializer.name for initializer in graph.initializer}
    return [port for port in graph.input if port.name not in filled]


def declared(name, path):
    """The network of an ONNX file that declares all its shapes."""
    ports = real_inputs(onnx.load(path).graph)
    return Network(name, path, {port.name: [d.dim_value for d in port.type.tensor_type.shape.dim] for port in ports})


@functools.cache
def entries():
    """The trained models and pictures by id."""
    listed = json.loads((ROOT / "tests/models/models.json").read_text(encoding="utf-8"))["entries"]
    return {entry["id"]: entry for entry in listed}


def float_models():
    """Ids of the trained models that are ONNX files."""
    return [name for name, entry in entries().items() if "inputs" in entry and onnx_name(entry)]


def over_networks(suite, sizes, judge):
    """A check of every network of the zoo, at its size, and of every trained model in floats."""
    checks = [Check(f"{suite}/{name}", lambda name=name: judge(zoo(name, sizes[name]))) for name in sizes]
    return checks + [Check(f"{suite}/{name}", lambda name=name: judge(trained(name))) for name in float_models()]


def onnx_name(entry):
    names = [file["name"] for file in entry["files"]] + [entry.get("convert", {}).get("output", "")]
    return next((name for name in names if name.endswith(".onnx")), None)


def cached(name):
    """A fetched file."""
    path = CACHE / name
    if not path.is_file():
        raise Skipped(f"{name} could not be fetched")
    return path


def trained(name):
    """A trained model; its natural input shapes override what the file declares."""
    entry = entries()[name]
    return Network(name, cached(onnx_name(entry)), entry["inputs"], override=True)


def noise(shape, seed):
    return numpy.random.default_rng(seed).standard_normal(shape).astype(numpy.float32)


def write_inputs(folder, arrays):
    """--input flags for arrays by name or position, written to a folder."""
    flags = []
    for at, (name, array) in enumerate(arrays.items()):
        path = folder / f"given{at}.npy"
        numpy.save(path, array)
        flags += ["--input", f"{name}={path}"]
    return flags


def picture(name, size, order="RGB"):
    """A picture stretched to width x height: [h, w, 3] of 0 to 255, as `--fit stretch` does it."""
    image = Image.open(cached(name)).convert("RGB").resize(size, Image.Resampling.BILINEAR)
    array = numpy.asarray(image, numpy.float32)
    return array[..., ::-1] if order == "BGR" else array


def pictures_folder(names=PICTURES):
    """A folder that holds just the pictures, to calibrate on."""
    folder = scratch("pictures")
    for name in names:
        (folder / name).symlink_to(cached(name))
    return folder


def manifest(bundle):
    """What a bundle says of itself."""
    with zipfile.ZipFile(bundle) as archive:
        return json.loads(archive.read("manifest.json"))


def dump(folder, phase):
    """The dump of a phase among those of `--dump-levels`."""
    found = list(folder.glob(f"*-{phase}.mlir"))
    demand(len(found) == 1, f"there is no one dump of phase {phase}")
    return found[0]


def tosa_opt(path, *flags):
    """None if tosa-opt accepts a dump, else what it says."""
    done = call([TOOLS / "tosa-opt", *flags, path, "-o", "/dev/null"])
    return None if done.returncode == 0 else last_words(done)
