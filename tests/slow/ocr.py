"""A trained text recogniser in int8 reads what it reads in f32 in onnxruntime, on pieces of a photographed page.

It is calibrated on other pieces than it reads.
"""

import numpy
import onnx
from PIL import Image

from harness import Check, Failed, cached, demand, scratch, session, strata, trained

# Left, top, right, bottom in the picture.
CALIBRATION = [(4, 10, 146, 36), (5, 46, 86, 66), (274, 46, 379, 65), (4, 64, 82, 83)]
PIECES = {
    "segmentation": (148, 10, 294, 36),
    "determine": (88, 46, 163, 66),
    "markers of the": (164, 47, 272, 66),
    "unambiguously": (4, 82, 106, 102),
}
HEIGHT, WIDTH = 48, 320


def sample(page, box):
    """A piece as the network takes it: BGR from -1 to 1, at its own aspect, zeros to its right."""
    piece = page.crop(box)
    width = min(WIDTH, round(HEIGHT * piece.width / piece.height))
    pixels = numpy.asarray(piece.resize((width, HEIGHT), Image.Resampling.BILINEAR), numpy.float32)
    array = numpy.zeros((1, 3, HEIGHT, WIDTH), numpy.float32)
    array[0, :, :, :width] = (pixels[..., ::-1] / 127.5 - 1).transpose(2, 0, 1)
    return array


def text(probabilities, characters):
    """The best path, without repetitions and blanks."""
    best = probabilities[0].argmax(1)
    kept = [at for before, at in zip([0, *best], best) if at != before and at != 0]
    return "".join(characters[at] for at in kept)


def check():
    network = trained("ppocrv4_rec")
    [(port, shape)] = network.shapes.items()
    demand(shape == [1, 3, HEIGHT, WIDTH], f"the network takes {shape}")
    page = Image.open(cached("page.png")).convert("RGB")
    said = {entry.key: entry.value for entry in onnx.load(network.path).metadata_props}
    characters = ["", *said["character"].splitlines(), " "]

    folder = scratch("ocr")
    samples, bundle = folder / "samples", folder / "x.strata"
    samples.mkdir()
    for at, box in enumerate(CALIBRATION):
        numpy.save(samples / f"{at}.npy", sample(page, box))
    strata("compile", network.path, "-o", bundle, "--calibrate", samples, "--quiet", *network.shape_flags())

    judge = session(network)
    problems = []
    for expected, box in PIECES.items():
        piece = sample(page, box)
        numpy.save(folder / "piece.npy", piece)
        strata("run", bundle, "--input", f"0={folder / 'piece.npy'}", "--output-dir", folder / "out", "--quiet")
        [want] = judge.run(None, {port: piece})
        read = text(numpy.load(folder / "out/0.npy"), characters)
        if not expected == text(want, characters) == read:
            problems.append(f"{read!r} in int8, {text(want, characters)!r} in f32, {expected!r} on the page")
    if problems:
        raise Failed("; ".join(problems))
    return ", ".join(PIECES)


CHECKS = [Check("ocr/ppocrv4_rec", check)]
