"""Bad input ends in an error message and the exit code that is due, never in a panic."""

import random
import struct
import zipfile

import numpy
from onnx import TensorProto, helper, save

from harness import (
    STRATA,
    Check,
    Failed,
    cached,
    call,
    noise,
    once,
    scratch,
    strata,
    trained,
    write_inputs,
    zoo,
)

FAILED, USAGE, UNSUPPORTED = 1, 2, 3


def complaint(command, codes, says=()):
    """What is wrong with how Strata refuses a command line, or None."""
    done = call([STRATA, *command])
    text = done.stdout + done.stderr
    shown = " ".join(str(part).rsplit("/", 1)[-1] for part in command)
    if "panicked at" in text or done.returncode < 0 or done.returncode == 101:
        return f"`{shown}` panics: {text.strip()[-200:]}"
    if done.returncode not in codes:
        return f"`{shown}` exits with {done.returncode}, not {codes}: {done.stderr.strip()[:200]}"
    if done.returncode and not any(line.startswith("error: ") for line in done.stderr.splitlines()):
        return f"`{shown}` fails without an error message: {done.stderr.strip()[:200]}"
    missing = [word for word in says if word not in done.stderr]
    return f"`{shown}` does not mention {', '.join(missing)}" if missing else None


def refuse(cases):
    """Demands that every (command, exit code, words that the message holds) is refused so."""
    problems = [problem for command, code, says in cases if (problem := complaint(command, [code], says))]
    if problems:
        raise Failed("; ".join(problems))
    return f"{len(cases)} command lines"


@once
def small():
    """A network that compiles at once: its ONNX file and its bundle."""
    network = trained("mnist_cntk")
    bundle = scratch("bad") / "small.strata"
    strata("compile", network.path, "-o", bundle, "--no-measure", "--quiet", *network.shape_flags())
    return network, bundle


def compile_to_nowhere(model, *flags):
    return ["compile", model, "-o", scratch("out") / "x.strata", "--no-measure", *flags]


def written(name, content):
    path = scratch("bad") / name
    path.write_bytes(content)
    return path


def damaged_onnx():
    whole = small()[0].path.read_bytes()
    cuts = [0, 1, 10, len(whole) // 4, len(whole) // 2, len(whole) * 9 // 10, len(whole) - 100]
    models = [written(f"cut{cut}.onnx", whole[:cut]) for cut in cuts]
    models += [written("text.onnx", b"not a model\n"), written("noise.onnx", random.Random(1).randbytes(5000))]
    cases = [(compile_to_nowhere(model), FAILED, [model.name]) for model in models]
    cases += [(["run", model, "--input", "0=x.npy"], FAILED, [model.name]) for model in models]
    return refuse(cases)


def shapes():
    tiny, (digits, bundle) = zoo("yolov3-tiny"), small()
    folder = scratch("arrays")

    def flags(name, *shape):
        return write_inputs(scratch("array"), {name: noise(shape, 1)}) + ["--output-dir", folder]

    [(port, shape)] = digits.shapes.items()
    return refuse(
        [
            (compile_to_nowhere(tiny.path, "--input-shape", "image=1x4x64x64"), FAILED, []),
            (compile_to_nowhere(tiny.path, "--input-shape", "image=1x3x64"), FAILED, []),
            (compile_to_nowhere(tiny.path, "--input-shape", "nobody=1x3x64x64"), FAILED, ["nobody"]),
            (compile_to_nowhere(tiny.path, "--input-shape", "image=1x0x64x64"), USAGE, []),
            (["run", bundle, *flags(port, *shape[:-1], shape[-1] + 1)], FAILED, [port]),
            (["run", bundle, *flags("nobody", *shape)], FAILED, ["nobody"]),
            (["run", bundle, "--output-dir", folder], FAILED, [port]),
            (["run", digits.path, *flags(port, *shape[:-1])], FAILED, [port]),
            (["run", bundle, "--input", f"0={written('broken.npy', b'NUMPY')}"], FAILED, ["broken.npy"]),
        ]
    )


def unsupported():
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["y"], name="first"),
        helper.make_node("Relu", ["y"], ["z"], name="known"),
        helper.make_node("Unheard", ["z"], ["w"], name="second", domain="some.where"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xw"]
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("some.where", 1)]
    graph = helper.make_graph(nodes, "odd", ports[:1], ports[1:])
    path = scratch("bad") / "odd.onnx"
    save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    says = ["Frobnicate", "first", "Unheard", "second"]
    return refuse(
        [
            (compile_to_nowhere(path), UNSUPPORTED, says),
            (["run", path, *write_inputs(path.parent, {"x": noise([1, 3, 8, 8], 1)})], UNSUPPORTED, says),
        ]
    )


def target():
    network = small()[0]
    flags = network.shape_flags()
    return refuse(
        [
            (compile_to_nowhere(network.path, *flags, "--set", "memory.activation=128"), FAILED, []),
            (compile_to_nowhere(network.path, *flags, "--set", "memory.weight=64"), FAILED, []),
            (compile_to_nowhere(network.path, *flags, "--set", "array.lanes=0"), FAILED, ["lanes"]),
            (compile_to_nowhere(network.path, *flags, "--set", "array.lanes=many"), USAGE, ["lanes"]),
            (compile_to_nowhere(network.path, *flags, "--set", "array.wings=2"), USAGE, ["wings"]),
            (compile_to_nowhere(network.path, *flags, "--set", "array"), USAGE, ["array"]),
            (compile_to_nowhere(network.path, *flags, "--target", "abacus"), USAGE, ["abacus"]),
            (compile_to_nowhere(network.path, *flags, "--target", "nowhere.toml"), FAILED, ["nowhere.toml"]),
            (compile_to_nowhere(network.path, *flags, "--target", written("odd.toml", b"= 1")), FAILED, ["odd.toml"]),
        ]
    )


def calibration():
    tiny = zoo("yolov3-tiny").path
    picture = cached("coffee.png").read_bytes()
    wrong = scratch("bad") / "wrong.npy"
    numpy.save(wrong, noise([1, 3, 8, 8], 1))
    texts = {
        "there-is-none.png": None,
        "text.txt": b"not a picture",
        "text.png": b"not a picture",
        "cut.png": picture[: len(picture) // 2],
        "cut.npz": b"PK\x03\x04",
    }
    files = [scratch("bad") / name if content is None else written(name, content) for name, content in texts.items()]
    cases = [(compile_to_nowhere(tiny, "--calibrate", file), FAILED, [file.name]) for file in [*files, wrong]]
    empty = scratch("empty")
    cases.append((compile_to_nowhere(tiny, "--calibrate", empty), FAILED, [empty.name]))
    cases.append((compile_to_nowhere(tiny, "--calibrate", files[3], "--mean", "1,2"), FAILED, ["mean"]))
    return refuse(cases)


def usage():
    network, bundle = small()
    return refuse(
        [
            (["compile"], USAGE, []),
            (["fly"], USAGE, ["fly"]),
            (compile_to_nowhere(network.path, "--wings"), USAGE, ["--wings"]),
            (compile_to_nowhere(network.path, "--mode", "triple"), USAGE, ["triple"]),
            (compile_to_nowhere(network.path, "--objective", "beauty"), USAGE, ["beauty"]),
            (compile_to_nowhere(network.path, "--emit", "smoke"), USAGE, ["smoke"]),
            (compile_to_nowhere(network.path, "--fit", "badly"), USAGE, ["badly"]),
            (["run", network.path, "--raw", "--input", "0=x.npy"], USAGE, []),
            (["run", bundle, "--input", "x"], USAGE, []),
            (["zoo", "aardvark"], USAGE, ["aardvark"]),
            (["zoo", "yolov3-tiny", "--size", "0x0"], FAILED, []),
            (["compile", "there-is-none.onnx"], FAILED, ["there-is-none.onnx"]),
            (["run", "there-is-none.strata"], FAILED, ["there-is-none.strata"]),
            (["opt", "--passes", "no-such-pass", written("x.mlir", b"module {}\n")], USAGE, ["no-such-pass"]),
            (["opt", "--passes", "", written("y.mlir", b'"builtin.module"() ({\n')], FAILED, ["y.mlir"]),
        ]
    )


def content_of(whole, entry):
    """Where the content of a stored entry stands in an archive."""
    name_length, extra_length = struct.unpack_from("<HH", whole, entry.header_offset + 26)
    start = entry.header_offset + 30 + name_length + extra_length
    return range(start, start + entry.file_size)


def bundle():
    path = small()[1]
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        contents = {entry.filename: content_of(whole, entry) for entry in archive.infolist()}
    outside = [at for at in range(len(whole)) if at not in contents["weights.safetensors"]]
    problems = []
    for at in outside:
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        # Some bytes of an archive's headers mean nothing to us; those of its entries all do.
        codes = [FAILED] if any(at in content for content in contents.values()) else [0, FAILED]
        if problem := complaint(["verify", written("damaged.strata", damaged)], codes):
            problems.append(f"byte {at}: {problem}")
    cuts = [0, 3, 100, len(whole) // 2, len(whole) - 1]
    for cut in cuts:
        for command in ("verify", "run", "disasm", "inspect"):
            if problem := complaint([command, written("cut.strata", whole[:cut])], [FAILED]):
                problems.append(f"cut at {cut}: {problem}")
    if problems:
        raise Failed("; ".join(problems[:4]) + (f"; {len(problems) - 4} more" if len(problems) > 4 else ""))
    return f"{len(outside)} damaged bytes, {4 * len(cuts)} truncations"


CHECKS = [
    Check(f"bad/{name}", run)
    for name, run in {
        "onnx": damaged_onnx,
        "shapes": shapes,
        "unsupported": unsupported,
        "target": target,
        "calibration": calibration,
        "usage": usage,
        "bundle": bundle,
    }.items()
]
