"""YOLOv3-tiny with Darknet's weights: the int8 program sees what the f32 model sees in onnxruntime."""

import functools

import numpy
from PIL import Image

from harness import (
    RELEASE,
    Check,
    Failed,
    cached,
    call,
    declared,
    demand,
    last_words,
    once,
    picture,
    pictures_folder,
    scratch,
    session,
    strata,
)

WIDTH, HEIGHT = 288, 192
SIZE = f"{WIDTH}x{HEIGHT}"
# What must be found at least, so that agreement on nothing is no success.
EXPECTED = {"motorcycle_left.png": "motorbike", "coffee.png": "cup", "astronaut.png": "person"}
LEAST_OVERLAP = 0.9
# An object that counts on one side needs a score within this of counting on the other.
THRESHOLD, DOUBT = 0.3, 0.1


@once
def compiled():
    """The network with trained weights, and the int8 program calibrated on the pictures."""
    folder = scratch("detect")
    model, bundle = folder / "tiny.onnx", folder / "tiny.strata"
    strata("zoo", "yolov3-tiny", "--size", SIZE, "--weights", cached("yolov3-tiny.weights"), "-o", model)
    strata("compile", model, "-o", bundle, "--calibrate", pictures_folder(), "--quiet")
    return declared("yolov3-tiny", model), bundle


def decoded(name, heads):
    """The objects in heads: (class, score, box) by score."""
    width, height = Image.open(cached(name)).size
    command = [RELEASE / "examples/detect", "yolov3-tiny", "--size", SIZE, "--picture", f"{width}x{height}"]
    done = call([*command, "--threshold", THRESHOLD - DOUBT, *heads])
    demand(done.returncode == 0, f"detect: {last_words(done)}")
    objects = []
    for line in done.stdout.splitlines():
        label, score, *box = line.split()
        objects.append((label, float(score), [float(edge) for edge in box]))
    return objects


def overlap(a, b):
    """Intersection over union."""
    inner = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return inner / (area_a + area_b - inner)


def match(wants, gots):
    """The least overlap of the objects that count on either side; each must have its like on the other."""
    least, problems = 1.0, []
    for objects, others, whose in [(wants, gots, "f32"), (gots, wants, "int8")]:
        for label, score, box in objects:
            if score < THRESHOLD:
                continue
            best = max((overlap(box, other[2]) for other in others if other[0] == label), default=0.0)
            least = min(least, best)
            if best < LEAST_OVERLAP:
                problems.append(f"{label} {score:.2f} of {whose} overlaps the other's by {best:.2f}")
    if problems:
        raise Failed("; ".join(problems))
    return least


def check(name):
    model, bundle = compiled()
    folder = scratch("heads")
    strata("run", bundle, "--input", f"image={cached(name)}", "--output-dir", folder / "int8", "--quiet")
    sample = picture(name, (WIDTH, HEIGHT)).transpose(2, 0, 1)[None] / numpy.float32(255)
    wants = session(model).run(None, {"image": sample})
    (folder / "f32").mkdir()
    for at, head in enumerate(wants):
        numpy.save(folder / f"f32/{at}.npy", head)
    want = decoded(name, sorted((folder / "f32").iterdir()))
    got = decoded(name, sorted((folder / "int8").iterdir()))
    found = [label for label, score, _ in want if score >= THRESHOLD]
    demand(EXPECTED[name] in found, f"the f32 model finds {found}, not a {EXPECTED[name]}")
    least = match(want, got)
    scores = ", ".join(f"{label} {score:.2f}" for label, score, _ in got if score >= THRESHOLD)
    return f"{scores}; overlap at least {least:.3f}"


CHECKS = [Check(f"detect/{name.split('.')[0]}", functools.partial(check, name)) for name in EXPECTED]
