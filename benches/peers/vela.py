"""Arm's Vela and Strata on the same networks and sizes of SRAM: DRAM traffic, peak SRAM, compile time.

Both start from integers: Vela from an int8 TFLite file (see `tflite.py`), Strata from its own dump of the quantised
network, so that neither compile holds a quantisation. Vela plans for an Ethos-U85 of 2,048 multipliers with feature maps
and weights in DRAM and an SRAM of the given size as cache; Strata for `x1` of 4,096. Two Stratas are shown: one with
that much activation SRAM beside the preset's 4 MiB of weights, and one that shares the given size out among activations and weights,
which is how much Vela has.

Vela's traffic is its own estimate, Strata's what the program moves. The smallest peak is of Vela's strategy `Size`, the best
of several accelerators, and of Strata's `--objective sram`; both count activations only where the machine keeps weights elsewhere.
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import tflite

STRATA = pathlib.Path(os.environ["STRATA"])
BIN = pathlib.Path(sys.executable).parent
MB = 1_000_000
NETWORKS = ["mobilenetv2@224x224", "resnet50@224x224", "vgg16@224x224", "unet@512x512", "yolov3@1920x1088"]
SRAM = ["8", "4", "2", "1", "0.5"]
DRAM_TARGET = ["--config", "Arm/vela.ini", "--system-config", "Ethos_U85_SYS_DRAM_High", "--memory-mode", "Dedicated_Sram"]
ACCELERATOR = "ethos-u85-2048"
# For its smallest peak each accelerator with its own default memories.
SMALL = ["ethos-u55-256", "ethos-u65-512", ACCELERATOR]
TIME_LIMIT = 900


class Failed(Exception):
    """Why a compiler gave nothing."""


def call(arguments, folder):
    """Runs a command in a folder; the wall seconds it took."""
    since = time.monotonic()
    try:
        done = subprocess.run(
            [str(a) for a in arguments], cwd=folder, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"not done in {TIME_LIMIT} s") from error
    seconds = time.monotonic() - since
    if done.returncode != 0:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        # A traceback says what went wrong at its end, an error message at its beginning.
        errors = [line for line in said if line.startswith("error")] or said[-1:]
        raise Failed(errors[0] if errors else f"exit {done.returncode}")
    return seconds


def vela(folder, accelerator, flags):
    out = pathlib.Path(tempfile.mkdtemp(dir=folder))
    flags = ["--accelerator-config", accelerator, "--output-dir", out, *flags]
    seconds = call([BIN / "vela", "net.tflite", *flags], folder)
    (summary,) = out.glob("*_summary_*.csv")
    with summary.open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    maps = float(row["dram_feature_map_read_bytes"]) + float(row["dram_feature_map_write_bytes"])
    weights = float(row["dram_weight_read_bytes"]) + float(row["dram_weight_write_bytes"])
    return {
        "maps": maps,
        "weights": weights,
        "total": maps + weights,
        "peak": float(row["sram_memory_used"]) * 1024,
        "seconds": seconds,
    }


def strata(folder, flags):
    flags = ["--stats", "stats.json", "--output", "net.strata", "--quiet", "--no-measure", *flags]
    seconds = call([STRATA, "compile", "net.mlir", *flags], folder)
    plan = json.loads((folder / "stats.json").read_text(encoding="utf-8"))["plan"]
    dram = plan["dram_bytes"]
    return {
        "maps": dram["total"] - dram["weights"],
        "weights": dram["weights"],
        "total": dram["total"],
        "peak": plan["peak_activation_sram_bytes"],
        "seconds": seconds,
    }


def attempt(what, run, *arguments):
    """What a compiler found, or an empty entry that says why it found nothing."""
    try:
        return run(*arguments)
    except Failed as reason:
        print(f"{what}: {reason}", file=sys.stderr)
        return {"failed": str(reason)}


def prepare(network, folder):
    """The network as ONNX, as int8 TFLite, and as Strata's integers."""
    name, _, size = network.partition("@")
    call([STRATA, "zoo", name, "--output", "net.onnx", "--quiet", *(["--size", size] if size else [])], folder)
    (folder / "net.tflite").write_bytes(tflite.convert(folder / "net.onnx"))
    call([STRATA, "compile", "net.onnx", "--emit", "quant", "--output", "net.mlir", "--no-measure", "--quiet"], folder)


def rows(network, sizes, folder):
    for size in sizes:
        n_bytes = int(float(size) * (1 << 20))
        half = n_bytes // 2
        what = f"{network} with {size} MiB"
        yield {
            "network": network,
            "sram_mib": float(size),
            "vela": attempt(f"{what}, Vela", vela, folder, ACCELERATOR, [*DRAM_TARGET, "--arena-cache-size", n_bytes]),
            "strata": attempt(
                f"{what}, Strata", strata, folder, ["--objective", "traffic", "--set", f"memory.activation={n_bytes}"]
            ),
            "strata_shared": attempt(
                f"{what} shared, Strata",
                strata,
                folder,
                ["--objective", "traffic", "--set", f"memory.activation={half}", "--set", f"memory.weight={half}"],
            ),
        }


def least(network, folder):
    """The smallest peak SRAM."""
    tries = [attempt(f"{network}, Vela Size on {a}", vela, folder, a, ["--optimise", "Size"]) for a in SMALL]
    found = {a: one["peak"] for a, one in zip(SMALL, tries, strict=True) if "peak" in one}
    ours = attempt(f"{network}, Strata for least SRAM", strata, folder, ["--objective", "sram"])
    return {"network": network, "vela": found, "strata": ours.get("peak")}


def table(header, lines):
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "".join(f"| {' | '.join(line)} |\n" for line in [header, rule, *lines])


def show(one, key, scale=MB, digits=1):
    return f"{one[key] / scale:.{digits}f}" if key in one else "-"


def page(found, peaks, version):
    traffic = []
    for row in found:
        v, s, shared = row["vela"], row["strata"], row["strata_shared"]
        faster = f"{v['seconds'] / s['seconds']:.0f} x" if "seconds" in v and "seconds" in s else "-"
        traffic.append(
            [row["network"], f"{row['sram_mib']:g}"]
            + [show(v, "maps"), show(s, "maps"), show(shared, "maps")]
            + [show(v, "weights"), show(s, "weights"), show(shared, "weights")]
            + [show(v, "total"), show(s, "total"), show(shared, "total")]
            + [show(v, "seconds", 1, 2), show(s, "seconds", 1, 2), faster]
        )
    kib = lambda n: "-" if n is None else f"{n / 1024:.1f}"
    small = [
        [p["network"], kib(min(p["vela"].values(), default=None)), min(p["vela"], key=p["vela"].get, default="-"), kib(p["strata"])]
        for p in peaks
    ]
    header = ["network", "SRAM, MiB", "maps: Vela", "Strata", "shared", "weights: Vela", "Strata", "shared"]
    header += ["total: Vela", "Strata", "shared", "seconds: Vela", "Strata", "faster"]
    return (
        "# Beside Arm's Vela\n\n"
        "Made by `benches/peers/run --markdown docs/vela.md`; do not edit.\n\n"
        f"Vela {version} for an `{ACCELERATOR}` whose SRAM of the given size is a cache of DRAM; Strata for `x1`, for least traffic.\n"
        "`Strata` has that much activation SRAM and 4 MiB for weights beside; `shared` has half of the size for each, so no more in all than Vela.\n"
        "DRAM traffic in millions of bytes an inference, of feature maps (inputs and outputs included), of weights, and in all: Vela's own estimate, and what Strata's program moves.\n"
        "Vela compresses weights, which Strata's machine cannot.\n"
        "Seconds are of the whole command, from an int8 TFLite file and from the quantised dump of the same network.\n\n"
        + table(header, traffic)
        + "\nThe smallest peak of SRAM in KiB: Vela's strategy `Size` on the best of "
        + ", ".join(SMALL)
        + "; Strata's `--objective sram`, its activation SRAM.\n\n"
        + table(["network", "Vela", "on", "Strata"], small)
    )


def main():
    parser = argparse.ArgumentParser(description="Arm's Vela and Strata on the same networks.")
    parser.add_argument("--network", action="append", help=f"a network of the zoo [default: {' '.join(NETWORKS)}]")
    parser.add_argument("--sram", action="append", help=f"MiB of SRAM [default: {' '.join(SRAM)}]")
    parser.add_argument("--markdown", type=pathlib.Path, help="write the tables here [default: standard output]")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here")
    arguments = parser.parse_args()
    version = subprocess.run([BIN / "vela", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    found, peaks = [], []
    for network in arguments.network or NETWORKS:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            try:
                prepare(network, folder)
            except (Failed, tflite.Unsupported) as reason:
                print(f"{network}: {reason}", file=sys.stderr)
                continue
            for row in rows(network, arguments.sram or SRAM, folder):
                found.append(row)
                print(f"{network} {row['sram_mib']:g} MiB done", file=sys.stderr)
            peaks.append(least(network, folder))
    text = page(found, peaks, version)
    if arguments.json:
        arguments.json.write_text(json.dumps({"vela": version, "rows": found, "peaks": peaks}, indent=1) + "\n")
    if arguments.markdown:
        arguments.markdown.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
