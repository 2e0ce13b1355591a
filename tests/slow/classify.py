"""Trained classifiers in int8 give the class of f32 in onnxruntime on real pictures."""

import functools

import numpy

from harness import (
    PICTURES,
    Check,
    Failed,
    cached,
    demand,
    once,
    picture,
    pictures_folder,
    scratch,
    session,
    strata,
    trained,
)

# Mean, factor, order of colours of each classifier's input.
CLASSIFIERS = {
    "efficientnet_lite0": (127.0, 1 / 128, "RGB"),
    "ppocr_cls": (127.5, 1 / 127.5, "BGR"),
}
# Two classes whose f32 logits or probabilities are this close, relative to the spread of all, are equally good.
TIE = 0.02


@once
def compiled(name):
    network = trained(name)
    mean, scale, order = CLASSIFIERS[name]
    images = ["--mean", mean, "--scale", scale, "--channels", order.lower()]
    bundle = scratch("classify") / "x.strata"
    calibration = ["--calibrate", pictures_folder(), *images]
    strata("compile", network.path, "-o", bundle, "--quiet", *calibration, *network.shape_flags())
    return network, bundle, images


def check(name):
    network, bundle, images = compiled(name)
    mean, scale, order = CLASSIFIERS[name]
    [(port, shape)] = network.shapes.items()
    judge = session(network)
    tops, problems = [], []
    for file in PICTURES:
        sample = (picture(file, (shape[3], shape[2]), order) - mean) * numpy.float32(scale)
        want = judge.run(None, {port: sample.transpose(2, 0, 1)[None].astype(numpy.float32)})[0].ravel()
        folder = scratch("class")
        strata("run", bundle, "--input", f"0={cached(file)}", "--output-dir", folder, "--quiet", *images)
        got = numpy.load(folder / "0.npy").ravel()
        demand(got.shape == want.shape, f"{got.size} classes, not {want.size}")
        top, expected = int(got.argmax()), int(want.argmax())
        tops.append(f"{expected}")
        if top != expected and want[expected] - want[top] > TIE * (want.max() - want.min()):
            problems.append(f"{file}: class {top} ({want[top]:.3f} in f32), not {expected} ({want[expected]:.3f})")
    if problems:
        raise Failed("; ".join(problems))
    return f"classes {', '.join(tops)} on {len(tops)} pictures"


CHECKS = [Check(f"classify/{name}", functools.partial(check, name)) for name in CLASSIFIERS]
